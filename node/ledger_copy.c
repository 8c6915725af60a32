#include "ledger_copy.h"

#include "node_dir.h"

#include <cotrain/assert.h>
#include <cotrain/ledger.h>
#include <cotrain/log.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BUNDLE_ENTRIES   256u
#define BUNDLE_BYTES_MAX (BUNDLE_ENTRIES * (CT_ENTRY_BYTES_MAX + 2u))

static enum ct_err read_at(int fd, void *out, size_t length, uint64_t offset) {
    uint8_t *bytes = out;
    while (length > 0) {
        ssize_t n = pread(fd, bytes, length, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return ct_fail(CT_ERR_IO, "cannot read the ledger's copy: %s", strerror(errno));
        }
        if (n == 0) {
            return ct_fail(CT_ERR_FORMAT, "the ledger's copy ends within an entry");
        }
        bytes += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return CT_OK;
}

static enum ct_err write_at(int fd, const void *data, size_t length, uint64_t offset) {
    const uint8_t *bytes = data;
    while (length > 0) {
        ssize_t n = pwrite(fd, bytes, length, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return ct_fail(CT_ERR_IO, "cannot write the ledger's copy: %s", strerror(errno));
        }
        bytes += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return CT_OK;
}

static enum ct_err read_entry(int fd, uint64_t offset, uint64_t end, struct ct_buf *out) {
    uint8_t prefix[2];
    ct_buf_clear(out);
    if (end - offset < sizeof prefix) {
        return ct_fail(CT_ERR_FORMAT, "the ledger's copy ends within an entry");
    }
    CT_TRY(read_at(fd, prefix, sizeof prefix, offset));
    size_t length = (size_t)prefix[0] << 8 | prefix[1];
    if (length > end - offset - sizeof prefix) {
        return ct_fail(CT_ERR_FORMAT, "the ledger's copy ends within an entry");
    }
    CT_TRY(ct_buf_reserve(out, length));
    CT_TRY(read_at(fd, out->data, length, offset + sizeof prefix));
    out->length = length;
    return CT_OK;
}

/* Rebuilds the frontier of the accepted size from `entries`. */
static enum ct_err load_entries(struct ct_ledger_copy *copy) {
    off_t end = lseek(copy->fd, 0, SEEK_END);
    if (end < 0) {
        return ct_fail(CT_ERR_IO, "cannot read the ledger's copy: %s", strerror(errno));
    }
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    while (err == CT_OK && copy->frontier.size < copy->accepted.size) {
        err = read_entry(copy->fd, copy->bytes, (uint64_t)end, &entry);
        if (err == CT_OK) {
            struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(&entry));
            ct_frontier_append(&copy->frontier, &leaf);
            copy->bytes += 2 + entry.length;
            if (copy->frontier.size % BUNDLE_ENTRIES == 0) {
                copy->bundle_start = copy->bytes;
            }
        }
    }
    ct_buf_deinit(&entry);
    CT_TRY(err);
    struct ct_hash root = ct_frontier_root(&copy->frontier);
    if (copy->accepted.size > 0 && !ct_hash_equal(&root, &copy->accepted.root)) {
        return ct_fail(CT_ERR_DIGEST, "the ledger's copy does not give its checkpoint's root");
    }
    return CT_OK;
}

static enum ct_err load(struct ct_ledger_copy *copy) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_node_path(copy->dir, "checkpoint", path));
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err =
            ct_checkpoint_open(ct_buf_bytes(&note), copy->origin, &copy->log_key, &copy->accepted);
        if (err != CT_OK) {
            err = ct_fail(err, "%s: %s", path, ct_err_detail());
        }
    } else if (err == CT_ERR_NOT_FOUND) {
        err = CT_OK;
    }
    ct_buf_deinit(&note);
    CT_TRY(err);
    err = load_entries(copy);
    if (err == CT_ERR_FORMAT || err == CT_ERR_DIGEST) {
        ct_log(CT_LOG_WARN, "ledger", "%s/entries: %s; fetching the entries again", copy->dir,
               ct_err_detail());
        copy->frontier = (struct ct_frontier){0};
        copy->bytes = 0;
        copy->bundle_start = 0;
        err = CT_OK;
    }
    CT_TRY(err);
    /* What lies behind was fetched for a checkpoint that was never accepted. */
    if (ftruncate(copy->fd, (off_t)copy->bytes) != 0) {
        return ct_fail(CT_ERR_IO, "cannot cut the ledger's copy: %s", strerror(errno));
    }
    return CT_OK;
}

enum ct_err ct_ledger_copy_open(const char *dir, const char *origin, const struct ct_hash *log_key,
                                struct ct_ledger_copy *out) {
    memset(out, 0, sizeof *out);
    out->fd = -1;
    out->log_key = *log_key;
    int a = snprintf(out->dir, sizeof out->dir, "%s", dir);
    int b = snprintf(out->origin, sizeof out->origin, "%s", origin);
    if (a < 0 || (size_t)a >= sizeof out->dir || b < 0 || (size_t)b >= sizeof out->origin) {
        return ct_fail(CT_ERR_CONFIG, "a path or an origin is too long");
    }
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_dir_make(dir));
    CT_TRY(ct_node_path(dir, "entries", path));
    out->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (out->fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    enum ct_err err = load(out);
    if (err != CT_OK) {
        ct_ledger_copy_close(out);
    }
    return err;
}

void ct_ledger_copy_close(struct ct_ledger_copy *copy) {
    if (copy->fd >= 0) {
        close(copy->fd);
        copy->fd = -1;
    }
}

/* Entries on their way from one base behind the copy's end. */
struct growth {
    struct ct_ledger_copy *copy;
    uint64_t wanted;    /* the size to stop at */
    struct ct_buf file; /* the new part of `entries` of one bundle */
};

static enum ct_err grow_by(void *user, struct ct_bytes entry) {
    struct growth *growth = user;
    struct ct_ledger_copy *copy = growth->copy;
    if (copy->frontier.size >= growth->wanted) {
        return CT_OK;
    }
    const uint8_t prefix[2] = {(uint8_t)(entry.length >> 8), (uint8_t)entry.length};
    CT_TRY(ct_buf_append(&growth->file, prefix, sizeof prefix));
    CT_TRY(ct_buf_append(&growth->file, entry.data, entry.length));
    struct ct_hash leaf = ct_leaf_hash(entry);
    ct_frontier_append(&copy->frontier, &leaf);
    /* A copy that had lost its entries must arrive at what it accepted before. */
    if (copy->frontier.size == copy->accepted.size) {
        struct ct_hash root = ct_frontier_root(&copy->frontier);
        if (!ct_hash_equal(&root, &copy->accepted.root)) {
            return ct_fail(CT_ERR_DIGEST,
                           "the first %llu entries are not those that this node saw before",
                           (unsigned long long)copy->accepted.size);
        }
    }
    return CT_OK;
}

/* What the copy lacks of one bundle: of its partial form at this size, or of the full one that has
 * replaced it. The copy holds a bundle's first entries in the bundle's own form, so they need not
 * be sent again; other bytes in their place end in another root. */
static enum ct_err fetch_bundle(const struct ct_ledger_copy *copy, struct ct_fetch *fetch,
                                uint32_t base, uint64_t size, struct ct_buf *out,
                                uint32_t *out_count) {
    char path[CT_TILE_PATH_MAX];
    const uint64_t index = copy->frontier.size / BUNDLE_ENTRIES;
    const uint32_t here = (uint32_t)(copy->frontier.size % BUNDLE_ENTRIES);
    const uint64_t offset = copy->bytes - copy->bundle_start;
    const uint64_t left = size - index * BUNDLE_ENTRIES;
    uint32_t count = left < BUNDLE_ENTRIES ? (uint32_t)left : BUNDLE_ENTRIES;
    ct_tile_path(-1, index, count, path);
    enum ct_err err = ct_fetch_get_rest(fetch, base, path, offset, out);
    if (err == CT_ERR_NOT_FOUND && count < BUNDLE_ENTRIES) {
        count = BUNDLE_ENTRIES;
        ct_tile_path(-1, index, count, path);
        err = ct_fetch_get_rest(fetch, base, path, offset, out);
    }
    *out_count = count - here;
    return err;
}

static enum ct_err grow_from(struct ct_ledger_copy *copy, const struct ct_checkpoint *target,
                             struct ct_fetch *fetch, uint32_t base) {
    struct ct_buf bundle;
    struct growth growth = {.copy = copy, .wanted = target->size};
    ct_buf_init(&bundle, BUNDLE_BYTES_MAX);
    ct_buf_init(&growth.file, BUNDLE_BYTES_MAX);
    enum ct_err err = CT_OK;
    while (err == CT_OK && copy->frontier.size < target->size) {
        uint32_t count = 0;
        ct_buf_clear(&growth.file);
        err = fetch_bundle(copy, fetch, base, target->size, &bundle, &count);
        if (err == CT_OK) {
            err = ct_bundle_parse(ct_buf_bytes(&bundle), count, grow_by, &growth);
        }
        if (err == CT_OK) {
            err = write_at(copy->fd, growth.file.data, growth.file.length, copy->bytes);
            copy->bytes += growth.file.length;
        }
        if (copy->frontier.size % BUNDLE_ENTRIES == 0) {
            copy->bundle_start = copy->bytes;
        }
    }
    if (err == CT_OK) {
        struct ct_hash root = ct_frontier_root(&copy->frontier);
        if (!ct_hash_equal(&root, &target->root)) {
            err = ct_fail(CT_ERR_DIGEST,
                          "the entries do not give the root of the checkpoint of "
                          "size %llu",
                          (unsigned long long)target->size);
        }
    }
    ct_buf_deinit(&growth.file);
    ct_buf_deinit(&bundle);
    return err;
}

static enum ct_err accept(struct ct_ledger_copy *copy, const struct ct_checkpoint *checkpoint,
                          struct ct_bytes note) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_node_path(copy->dir, "checkpoint", path));
    if (fsync(copy->fd) != 0) {
        return ct_fail(CT_ERR_IO, "cannot sync the ledger's copy: %s", strerror(errno));
    }
    CT_TRY(ct_file_replace(path, note));
    copy->accepted = *checkpoint;
    return CT_OK;
}

enum ct_err ct_ledger_copy_advance(struct ct_ledger_copy *copy, struct ct_bytes note,
                                   struct ct_fetch *fetch) {
    struct ct_checkpoint target;
    CT_TRY(ct_checkpoint_open(note, copy->origin, &copy->log_key, &target));
    if (target.size < copy->accepted.size) {
        return ct_fail(CT_ERR_RULE,
                       "a checkpoint of %llu entries, after one of %llu: the log may only grow",
                       (unsigned long long)target.size, (unsigned long long)copy->accepted.size);
    }
    if (target.size == copy->accepted.size && target.size > 0 &&
        !ct_hash_equal(&target.root, &copy->accepted.root)) {
        return ct_fail(CT_ERR_DIGEST,
                       "two checkpoints of %llu entries with different roots: keep "
                       "%s, it shows that the log has two histories",
                       (unsigned long long)target.size, copy->dir);
    }
    if (target.size == copy->frontier.size) {
        return CT_OK;
    }
    const struct ct_frontier before = copy->frontier;
    const uint64_t bytes = copy->bytes;
    const uint64_t bundle_start = copy->bundle_start;
    enum ct_err worst = CT_ERR_DIGEST;
    for (uint32_t base = 0; base < ct_fetch_bases(fetch); base++) {
        enum ct_err err = grow_from(copy, &target, fetch, base);
        if (err == CT_OK) {
            err = accept(copy, &target, note);
        }
        if (err == CT_OK) {
            return CT_OK;
        }
        copy->frontier = before;
        copy->bytes = bytes;
        copy->bundle_start = bundle_start;
        if (ftruncate(copy->fd, (off_t)bytes) != 0) {
            return ct_fail(CT_ERR_IO, "cannot cut the ledger's copy: %s", strerror(errno));
        }
        if (err == CT_ERR_IO || err == CT_ERR_MEMORY || err == CT_ERR_STATE) {
            return err;
        }
        worst = err == CT_ERR_DIGEST || err == CT_ERR_FORMAT ? worst : err;
    }
    return worst;
}

enum ct_err ct_ledger_copy_next(const struct ct_ledger_copy *copy, struct ct_ledger_cursor *cursor,
                                struct ct_buf *out) {
    if (cursor->index >= copy->frontier.size) {
        ct_buf_clear(out);
        return CT_ERR_NOT_FOUND;
    }
    CT_TRY(read_entry(copy->fd, cursor->offset, copy->bytes, out));
    cursor->offset += 2 + out->length;
    cursor->index++;
    return CT_OK;
}

uint32_t ct_ledger_copy_checkpoint(const char *dir, uint8_t out[CT_HELLO_NOTE_MAX]) {
    char path[CT_NODE_PATH_MAX];
    struct ct_buf note, own;
    uint32_t length = 0;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&own, CT_HELLO_NOTE_MAX);
    if (ct_node_path(dir, "checkpoint", path) == CT_OK && ct_file_read(path, &note) == CT_OK &&
        ct_checkpoint_strip(ct_buf_bytes(&note), &own) == CT_OK) {
        memcpy(out, own.data, own.length);
        length = (uint32_t)own.length;
    }
    ct_buf_deinit(&own);
    ct_buf_deinit(&note);
    return length;
}
