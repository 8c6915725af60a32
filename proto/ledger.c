/* The ledger. What holds at every moment, whatever fails:
 *
 * L1  A checkpoint that has its name covers only entries and tiles that are synced under theirs.
 * L2  Every checkpoint that ever had its name is a prefix of DIR/entries.
 * L3  Bytes of DIR/entries below the newest checkpoint's end are never written again.
 * L4  After an error in writing nothing more is appended: what the disk has is read anew first.
 * L5  A full disk is no such error: all that no checkpoint covers is written once more, bytes whose
 *     sync found no room included, so trying again is as good as a first try. */
#include "ledger_parts.h"

#include <cotrain/assert.h>
#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WITNESSED "witnessed"

/* Entries that wait in memory for the next publication. */
#define PENDING_BYTES_MAX ((size_t)256 << 20)

void ct_ledger_path(const struct ct_ledger *ledger, const char *name,
                    char out[CT_LEDGER_PATH_MAX]) {
    snprintf(out, CT_LEDGER_PATH_MAX, "%s%s%s", ledger->dir, name[0] == '\0' ? "" : "/", name);
}

enum ct_err ct_ledger_new(const char *dir, const char *origin, const struct ct_key *log_key,
                          struct ct_ledger **out) {
    if (strlen(dir) >= CT_LEDGER_DIR_MAX || strlen(origin) >= CT_ORIGIN_BYTES_MAX) {
        return ct_fail(CT_ERR_CONFIG, "the ledger's path or origin is too long: %.100s, %.100s",
                       dir, origin);
    }
    struct ct_ledger *ledger = calloc(1, sizeof *ledger);
    if (ledger == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a ledger");
    }
    snprintf(ledger->dir, sizeof ledger->dir, "%s", dir);
    snprintf(ledger->origin, sizeof ledger->origin, "%s", origin);
    ledger->log_key = log_key;
    ledger->writes = log_key != NULL;
    if (log_key != NULL) {
        ledger->public_key = ct_key_public(log_key);
    }
    ledger->fd = -1;
    ct_buf_init(&ledger->pending, PENDING_BYTES_MAX);
    ct_buf_init(&ledger->note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&ledger->bundle.bytes, CT_TILE_WIDTH * (2u + CT_ENTRY_BYTES_MAX));
    *out = ledger;
    return CT_OK;
}

void ct_ledger_close(struct ct_ledger *ledger) {
    if (ledger == NULL) {
        return;
    }
    ct_ledger_unstage(ledger);
    if (ledger->fd >= 0) {
        close(ledger->fd);
    }
    ct_tree_deinit(&ledger->tree);
    ct_buf_deinit(&ledger->bundle.bytes);
    free(ledger->offsets);
    ct_buf_deinit(&ledger->pending);
    ct_buf_deinit(&ledger->note);
    free(ledger);
}

/* Gives a note over the first `size` entries the checkpoint's name, durably. */
static enum ct_err put_checkpoint(struct ct_ledger *ledger, struct ct_bytes note, uint64_t size) {
    struct ct_buf own;
    ct_buf_init(&own, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_buf_append(&own, note.data, note.length);
    if (err == CT_OK) {
        err = ct_ledger_crown(ledger, note);
    }
    if (err != CT_OK) {
        ct_buf_deinit(&own);
        return err;
    }
    ct_buf_deinit(&ledger->note);
    ledger->note = own;
    ledger->published = size;
    return CT_OK;
}

/* Signs a checkpoint over the first `size` entries and gives it its name. */
static enum ct_err write_checkpoint(struct ct_ledger *ledger, uint64_t size) {
    struct ct_checkpoint checkpoint = {.size = size};
    CT_TRY(ct_ledger_root(ledger, size, &checkpoint.root));
    memcpy(checkpoint.origin, ledger->origin, sizeof checkpoint.origin);
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_checkpoint_sign(&checkpoint, ledger->log_key, &note);
    if (err == CT_OK) {
        err = put_checkpoint(ledger, ct_buf_bytes(&note), size);
    }
    ct_buf_deinit(&note);
    return err;
}

static enum ct_err make_empty(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_CHECKPOINT, path);
    if (access(path, F_OK) == 0) {
        return ct_fail(CT_ERR_EXISTS, "%s is a ledger already", ledger->dir);
    }
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, path);
    FILE *file = fopen(path, "rb");
    bool holds_entries = file != NULL && fgetc(file) != EOF;
    if (file != NULL) {
        fclose(file);
    }
    if (holds_entries) {
        return ct_fail(CT_ERR_EXISTS, "%s holds entries already; its checkpoint is missing", path);
    }
    CT_TRY(ct_disk_make(path, &ledger->fd));
    CT_TRY(ct_disk_sync(ledger->fd, path));
    return write_checkpoint(ledger, 0);
}

enum ct_err ct_ledger_create(const char *dir, const char *origin, const struct ct_key *log_key,
                             struct ct_ledger **out) {
    CT_ASSERT(log_key != NULL);
    CT_TRY(ct_dir_make(dir));
    struct ct_ledger *ledger = NULL;
    CT_TRY(ct_ledger_new(dir, origin, log_key, &ledger));
    enum ct_err err = ct_ledger_reserve(ledger);
    if (err == CT_OK) {
        err = make_empty(ledger);
    }
    ct_ledger_close(ledger);
    return err == CT_OK ? ct_ledger_open(dir, origin, log_key, out) : err;
}

/* Room for the offset behind one more entry. */
enum ct_err ct_ledger_reserve(struct ct_ledger *ledger) {
    const uint64_t used = ledger->tree.size - ledger->first;
    if (used + 1 < ledger->offsets_capacity) {
        return CT_OK;
    }
    uint64_t capacity = ledger->offsets_capacity == 0 ? 512 : 2 * ledger->offsets_capacity;
    uint64_t *offsets = realloc(ledger->offsets, capacity * sizeof *offsets);
    if (offsets == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the offsets of %" PRIu64 " entries", capacity);
    }
    if (ledger->offsets == NULL) {
        offsets[0] = 0;
    }
    ledger->offsets = offsets;
    ledger->offsets_capacity = capacity;
    return CT_OK;
}

enum ct_err ct_ledger_take(struct ct_ledger *ledger, struct ct_bytes entry) {
    const uint64_t at = ledger->tree.size - ledger->first;
    const struct ct_hash leaf = ct_leaf_hash(entry);
    CT_TRY(ct_ledger_reserve(ledger));
    CT_TRY(ct_tree_append(&ledger->tree, &leaf));
    ledger->offsets[at + 1] = ledger->offsets[at] + 2 + entry.length;
    return CT_OK;
}

void ct_ledger_forget(struct ct_ledger *ledger, uint64_t size) {
    const uint64_t first = size / CT_TILE_WIDTH * CT_TILE_WIDTH;
    ct_tree_forget(&ledger->tree, size);
    memmove(ledger->offsets, &ledger->offsets[first - ledger->first],
            (ledger->tree.size - first + 1) * sizeof ledger->offsets[0]);
    ledger->first = first;
}

/* L4, L5 */
static void fail_after(struct ct_ledger *ledger, enum ct_err err) {
    ct_ledger_unstage(ledger);
    ledger->failed = ledger->failed || err != CT_ERR_FULL;
}

static enum ct_err check_writable(const struct ct_ledger *ledger) {
    if (!ledger->writes) {
        return ct_fail(CT_ERR_STATE, "the ledger %s is open for reading only", ledger->dir);
    }
    if (ledger->failed) {
        return ct_fail(CT_ERR_STATE,
                       "the ledger %s could not be written before; it must be opened again",
                       ledger->dir);
    }
    return CT_OK;
}

enum ct_err ct_ledger_append(struct ct_ledger *ledger, struct ct_bytes entry, uint64_t *out_index) {
    CT_TRY(check_writable(ledger));
    if (entry.length == 0 || entry.length > CT_ENTRY_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "an entry has 1 to %u bytes, not %zu", CT_ENTRY_BYTES_MAX,
                       entry.length);
    }
    CT_TRY(ct_buf_reserve(&ledger->pending, 2 + entry.length));
    uint64_t index = ledger->tree.size;
    CT_TRY(ct_ledger_take(ledger, entry));
    const uint8_t header[2] = {(uint8_t)(entry.length >> 8), (uint8_t)entry.length};
    CT_TRY(ct_buf_append(&ledger->pending, header, sizeof header));
    CT_TRY(ct_buf_append(&ledger->pending, entry.data, entry.length));
    *out_index = index;
    return CT_OK;
}

static enum ct_err write_pending(struct ct_ledger *ledger) {
    if (ledger->pending.length == 0) {
        return CT_OK;
    }
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, path);
    CT_TRY(ct_disk_write(ledger->fd, path, ct_buf_bytes(&ledger->pending), ledger->stored));
    ledger->written = true;
    return CT_OK;
}

enum ct_err ct_ledger_store(struct ct_ledger *ledger) {
    CT_TRY(check_writable(ledger));
    enum ct_err err = write_pending(ledger);
    if (err == CT_OK) {
        err = ct_ledger_land(ledger);
    }
    if (err != CT_OK) {
        fail_after(ledger, err);
    }
    return err;
}

/* Under `note`, or under one of its own making. */
static enum ct_err publish(struct ct_ledger *ledger, const struct ct_bytes *note) {
    CT_TRY(write_pending(ledger));
    CT_TRY(ct_tiles_stage(ledger, ledger->published, ledger->tree.size));
    CT_TRY(ct_ledger_land(ledger));
    return note != NULL ? put_checkpoint(ledger, *note, ledger->tree.size)
                        : write_checkpoint(ledger, ledger->tree.size);
}

static enum ct_err publish_all(struct ct_ledger *ledger, const struct ct_bytes *note) {
    const uint64_t before = ledger->published;
    enum ct_err err = publish(ledger, note);
    if (err != CT_OK) {
        fail_after(ledger, err);
        return err;
    }
    ct_tiles_prune(ledger, before, ledger->published);
    ct_ledger_forget(ledger, ledger->published);
    return CT_OK;
}

enum ct_err ct_ledger_publish(struct ct_ledger *ledger) {
    CT_TRY(check_writable(ledger));
    if (ledger->log_key == NULL) {
        return ct_fail(CT_ERR_STATE, "%s is a copy: others sign its checkpoints", ledger->dir);
    }
    return ledger->published == ledger->tree.size ? CT_OK : publish_all(ledger, NULL);
}

/* Opens a note of this log whose tree the first entries here are. */
static enum ct_err open_own(struct ct_ledger *ledger, struct ct_bytes note, uint64_t most,
                            struct ct_checkpoint *out) {
    struct ct_hash root;
    CT_TRY(ct_ledger_open_note(ledger, note, out));
    if (out->size > most) {
        return ct_fail(CT_ERR_RULE, "a checkpoint of %" PRIu64 " entries where %s has %" PRIu64,
                       out->size, ledger->dir, most);
    }
    CT_TRY(ct_ledger_root(ledger, out->size, &root));
    return ct_hash_equal(&root, &out->root)
               ? CT_OK
               : ct_fail(CT_ERR_DIGEST,
                         "the first %" PRIu64 " entries of %s do not give a checkpoint's root",
                         out->size, ledger->dir);
}

enum ct_err ct_ledger_accept(struct ct_ledger *ledger, struct ct_bytes note) {
    struct ct_checkpoint checkpoint;
    CT_TRY(check_writable(ledger));
    CT_TRY(open_own(ledger, note, ledger->tree.size, &checkpoint));
    if (checkpoint.size != ledger->tree.size || checkpoint.size == ledger->published) {
        return ct_fail(CT_ERR_RULE,
                       "a checkpoint of %" PRIu64 " entries where %s has %" PRIu64 ", %" PRIu64
                       " of them published",
                       checkpoint.size, ledger->dir, ledger->tree.size, ledger->published);
    }
    return publish_all(ledger, &note);
}

static enum ct_err keep(struct ct_ledger *ledger, uint64_t size, struct ct_bytes note) {
    char folder[CT_LEDGER_PATH_MAX];
    char path[CT_LEDGER_PATH_MAX];
    char temporary[CT_LEDGER_PATH_MAX];
    char name[64];
    ct_ledger_path(ledger, CT_LEDGER_KEPT, folder);
    ct_ledger_path(ledger, CT_LEDGER_TEMPORARY, temporary);
    snprintf(name, sizeof name, CT_LEDGER_KEPT "/%" PRIu64, size);
    ct_ledger_path(ledger, name, path);
    CT_TRY(ct_disk_make_dir(folder));
    CT_TRY(ct_disk_replace(temporary, path, note));
    CT_TRY(ct_disk_sync_dir(folder));
    return ct_disk_sync_dir(ledger->dir);
}

enum ct_err ct_ledger_keep(struct ct_ledger *ledger) {
    CT_TRY(check_writable(ledger));
    return keep(ledger, ledger->published, ct_buf_bytes(&ledger->note));
}

enum ct_err ct_ledger_keep_note(struct ct_ledger *ledger, struct ct_bytes note) {
    struct ct_checkpoint checkpoint;
    CT_TRY(check_writable(ledger));
    CT_TRY(open_own(ledger, note, ledger->published, &checkpoint));
    return keep(ledger, checkpoint.size, note);
}

bool ct_ledger_has_kept(const struct ct_ledger *ledger, uint64_t size) {
    char name[64], path[CT_LEDGER_PATH_MAX];
    snprintf(name, sizeof name, CT_LEDGER_KEPT "/%" PRIu64, size);
    ct_ledger_path(ledger, name, path);
    return access(path, F_OK) == 0;
}

/* Replaces DIR/name; the directory is the caller's to sync. */
static enum ct_err replace_note(const struct ct_ledger *ledger, const char *name,
                                struct ct_bytes note) {
    char path[CT_LEDGER_PATH_MAX];
    char temporary[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, name, path);
    ct_ledger_path(ledger, CT_LEDGER_TEMPORARY, temporary);
    return ct_disk_replace(temporary, path, note);
}

enum ct_err ct_ledger_cosign(struct ct_ledger *ledger, struct ct_bytes note, bool witnessed) {
    CT_TRY(check_writable(ledger));
    struct ct_checkpoint checkpoint;
    enum ct_err err = open_own(ledger, note, ledger->published, &checkpoint);
    if (err == CT_ERR_DIGEST) {
        return ct_fail(CT_ERR_RULE, "a checkpoint of %" PRIu64 " entries that %s never published",
                       checkpoint.size, ledger->dir);
    }
    CT_TRY(err);
    if (witnessed) {
        CT_TRY(replace_note(ledger, WITNESSED, note));
    }
    char kept[64];
    char path[CT_LEDGER_PATH_MAX];
    snprintf(kept, sizeof kept, CT_LEDGER_KEPT "/%" PRIu64, checkpoint.size);
    if (ct_ledger_has_kept(ledger, checkpoint.size)) {
        CT_TRY(replace_note(ledger, kept, note));
        ct_ledger_path(ledger, CT_LEDGER_KEPT, path);
        CT_TRY(ct_disk_sync_dir(path));
    }
    if (checkpoint.size == ledger->published) {
        CT_TRY(replace_note(ledger, CT_LEDGER_CHECKPOINT, note));
        ct_buf_clear(&ledger->note);
        CT_TRY(ct_buf_append(&ledger->note, note.data, note.length));
    }
    return ct_disk_sync_dir(ledger->dir);
}

enum ct_err ct_ledger_cut(struct ct_ledger *ledger, uint64_t size) {
    CT_TRY(check_writable(ledger));
    if (size < ledger->published || size > ledger->tree.size) {
        return ct_fail(CT_ERR_RULE,
                       "the ledger cannot be cut to %" PRIu64 " entries: %" PRIu64 " are published",
                       size, ledger->published);
    }
    uint64_t end = ct_ledger_offset(ledger, size);
    if (end < ledger->stored) {
        char path[CT_LEDGER_PATH_MAX];
        ct_ledger_path(ledger, CT_LEDGER_ENTRIES, path);
        enum ct_err err = ct_disk_cut(ledger->fd, path, end);
        if (err == CT_OK) {
            err = ct_disk_sync(ledger->fd, path);
        }
        if (err != CT_OK) {
            fail_after(ledger, err);
            return err;
        }
        ledger->stored = end;
    }
    ledger->pending.length = (size_t)(end - ledger->stored);
    ct_tree_cut(&ledger->tree, size);
    return CT_OK;
}

uint64_t ct_ledger_size(const struct ct_ledger *ledger) {
    return ledger->tree.size;
}

uint64_t ct_ledger_published(const struct ct_ledger *ledger) {
    return ledger->published;
}

struct ct_bytes ct_ledger_checkpoint(const struct ct_ledger *ledger) {
    return ct_buf_bytes(&ledger->note);
}
