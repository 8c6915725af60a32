#include "cache.h"

#include "run.h"

#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL  "" /* DIR/cache/0 */
#define FOLD   "fold-"
#define EXPIRY "expiry-"

/* A fold's file: head ‖ ct_fold_save's bytes ‖ SHA-256 of all before it. */
static const char fold_magic[8] = "ctfold1";
struct fold_head {
    char magic[8];
    uint64_t size; /* entries */
    struct ct_hash root;
};
static_assert(sizeof(struct fold_head) == 48, "the head has no padding");

struct expiry_mark {
    char magic[8];
    uint64_t next;
};
static const char expiry_magic[8] = "ctexp1";
#define FOLD_BYTES_MAX ((size_t)64 << 20)

static enum ct_err slot_path(const char *dir, const char *kind, uint32_t slot, const char *suffix,
                             char *out) {
    char name[48];
    snprintf(name, sizeof name, CT_RUN_CACHE "/%s%u%s", kind, slot, suffix);
    return ct_run_path(dir, name, out);
}

/* Gives the bytes the name, without a sync. */
static enum ct_err write_slot(const char *fresh, const char *path, struct ct_bytes bytes) {
    int fd = -1;
    CT_TRY(ct_disk_make(fresh, &fd));
    enum ct_err err = ct_disk_write(fd, fresh, bytes, 0);
    if (close(fd) != 0 && err == CT_OK) {
        err = ct_fail(ct_disk_code(errno), "cannot write %s: %s", fresh, strerror(errno));
    }
    return err == CT_OK ? ct_disk_rename(fresh, path) : err;
}

static void save(const char *dir, const char *kind, uint32_t slot, struct ct_bytes bytes) {
    char folder[PATH_MAX], path[PATH_MAX], fresh[PATH_MAX];
    if (ct_run_path(dir, CT_RUN_CACHE, folder) != CT_OK ||
        slot_path(dir, kind, slot, "", path) != CT_OK ||
        slot_path(dir, kind, slot, ".new", fresh) != CT_OK) {
        return;
    }
    enum ct_err err = ct_disk_make_dir(folder);
    if (err == CT_OK) {
        err = write_slot(fresh, path, bytes);
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "cache", "%s is not kept for a restart: %s",
               kind[0] == '\0' ? "the model" : "the state", ct_err_detail());
        ct_disk_discard(fresh);
    }
}

void ct_cache_save(const char *dir, uint32_t round, const struct ct_layout *layout,
                   const float *theta) {
    save(dir, MODEL, round & 1,
         (struct ct_bytes){(const uint8_t *)theta, layout->parameters * sizeof theta[0]});
}

static bool read_slot(const char *path, uint8_t *out, size_t length) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    bool right = fd >= 0 && fstat(fd, &status) == 0 && (uintmax_t)status.st_size == length;
    while (right && length > 0) {
        ssize_t count = read(fd, out, length);
        if (count > 0) {
            out += count;
            length -= (size_t)count;
        } else if (count == 0 || errno != EINTR) {
            right = false;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return right;
}

bool ct_cache_load(const char *dir, const struct ct_layout *layout, const struct ct_hash *model,
                   float *theta) {
    for (uint32_t slot = 0; slot < 2; slot++) {
        char path[PATH_MAX];
        if (slot_path(dir, MODEL, slot, "", path) == CT_OK &&
            read_slot(path, (uint8_t *)theta, layout->parameters * sizeof theta[0])) {
            struct ct_hash digest = ct_model_digest(layout, theta);
            if (ct_hash_equal(&digest, model)) {
                return true;
            }
        }
    }
    return false;
}

void ct_cache_save_fold(const char *dir, uint32_t round, uint64_t size, const struct ct_hash *root,
                        struct ct_bytes fold) {
    struct fold_head head = {.size = size, .root = *root};
    struct ct_buf bytes;
    memcpy(head.magic, fold_magic, sizeof head.magic);
    ct_buf_init(&bytes, FOLD_BYTES_MAX);
    enum ct_err err = ct_buf_append(&bytes, &head, sizeof head);
    if (err == CT_OK) {
        err = ct_buf_append(&bytes, fold.data, fold.length);
    }
    if (err == CT_OK) {
        const struct ct_hash digest = ct_sha256(ct_buf_bytes(&bytes));
        err = ct_buf_append(&bytes, &digest, sizeof digest);
    }
    if (err == CT_OK) {
        save(dir, FOLD, round & 1, ct_buf_bytes(&bytes));
    }
    ct_buf_deinit(&bytes);
}

/* A slot's content if it is whole and the ledger has its root. */
static bool read_fold(const char *dir, uint32_t slot, struct ct_ledger *ledger,
                      struct fold_head *head, struct ct_buf *out) {
    char path[PATH_MAX];
    struct ct_hash digest, root;
    ct_buf_clear(out);
    if (slot_path(dir, FOLD, slot, "", path) != CT_OK || ct_file_read(path, out) != CT_OK ||
        out->length < sizeof *head + sizeof digest) {
        return false;
    }
    out->length -= sizeof digest;
    memcpy(head, out->data, sizeof *head);
    digest = ct_sha256(ct_buf_bytes(out));
    return memcmp(out->data + out->length, &digest, sizeof digest) == 0 &&
           memcmp(head->magic, fold_magic, sizeof fold_magic) == 0 &&
           head->size <= ct_ledger_published(ledger) &&
           ct_ledger_root(ledger, head->size, &root) == CT_OK && ct_hash_equal(&root, &head->root);
}

bool ct_cache_load_fold(const char *dir, struct ct_ledger *ledger, uint64_t *out_size,
                        struct ct_buf *out) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, FOLD_BYTES_MAX);
    *out_size = 0;
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct fold_head head;
        if (read_fold(dir, slot, ledger, &head, &bytes) && head.size > *out_size) {
            ct_buf_clear(out);
            if (ct_buf_append(out, bytes.data + sizeof head, bytes.length - sizeof head) == CT_OK) {
                *out_size = head.size;
            }
        }
    }
    ct_buf_deinit(&bytes);
    return *out_size > 0;
}

void ct_cache_save_expiry(const char *dir, uint64_t next) {
    struct expiry_mark mark = {.next = next};
    memcpy(mark.magic, expiry_magic, sizeof mark.magic);
    save(dir, EXPIRY, 0, (struct ct_bytes){(const uint8_t *)&mark, sizeof mark});
}

uint64_t ct_cache_load_expiry(const char *dir) {
    struct expiry_mark mark;
    char path[PATH_MAX];
    return slot_path(dir, EXPIRY, 0, "", path) == CT_OK &&
                   read_slot(path, (uint8_t *)&mark, sizeof mark) &&
                   memcmp(mark.magic, expiry_magic, sizeof expiry_magic) == 0
               ? mark.next
               : 0;
}
