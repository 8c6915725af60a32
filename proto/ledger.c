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

#define ENTRIES    "entries"
#define CHECKPOINT "checkpoint"
#define KEPT       "checkpoints"
#define WITNESSED  "witnessed"
#define TEMPORARY  "checkpoint.tmp"

/* Entries that wait in memory for the next publication. */
#define PENDING_BYTES_MAX ((size_t)256 << 20)

void ct_ledger_path(const struct ct_ledger *ledger, const char *name,
                    char out[CT_LEDGER_PATH_MAX]) {
    snprintf(out, CT_LEDGER_PATH_MAX, "%s%s%s", ledger->dir, name[0] == '\0' ? "" : "/", name);
}

static enum ct_err ledger_new(const char *dir, const char *origin, const struct ct_key *log_key,
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
    ledger->fd = -1;
    ct_buf_init(&ledger->pending, PENDING_BYTES_MAX);
    ct_buf_init(&ledger->note, CT_CHECKPOINT_BYTES_MAX);
    *out = ledger;
    return CT_OK;
}

void ct_ledger_close(struct ct_ledger *ledger) {
    if (ledger == NULL) {
        return;
    }
    if (ledger->fd >= 0) {
        close(ledger->fd);
    }
    ct_tree_deinit(&ledger->tree);
    free(ledger->offsets);
    ct_buf_deinit(&ledger->pending);
    ct_buf_deinit(&ledger->note);
    free(ledger);
}

/* Signs a checkpoint over the first `size` entries and gives it its name, durably. */
static enum ct_err write_checkpoint(struct ct_ledger *ledger, uint64_t size) {
    struct ct_checkpoint checkpoint = {.size = size, .root = ct_tree_root(&ledger->tree, size)};
    memcpy(checkpoint.origin, ledger->origin, sizeof checkpoint.origin);
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    char path[CT_LEDGER_PATH_MAX];
    char temporary[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CHECKPOINT, path);
    ct_ledger_path(ledger, TEMPORARY, temporary);
    enum ct_err err = ct_checkpoint_sign(&checkpoint, ledger->log_key, &note);
    if (err == CT_OK) {
        err = ct_disk_replace(temporary, path, ct_buf_bytes(&note));
    }
    if (err == CT_OK) {
        err = ct_disk_sync_dir(ledger->dir);
    }
    if (err != CT_OK) {
        ct_buf_deinit(&note);
        return err;
    }
    ct_buf_deinit(&ledger->note);
    ledger->note = note;
    ledger->published = size;
    return CT_OK;
}

static enum ct_err make_empty(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CHECKPOINT, path);
    if (access(path, F_OK) == 0) {
        return ct_fail(CT_ERR_EXISTS, "%s is a ledger already", ledger->dir);
    }
    ct_ledger_path(ledger, ENTRIES, path);
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
    CT_TRY(ledger_new(dir, origin, log_key, &ledger));
    enum ct_err err = make_empty(ledger);
    ct_ledger_close(ledger);
    return err == CT_OK ? ct_ledger_open(dir, origin, log_key, out) : err;
}

/* Room for the offset behind one more entry. */
static enum ct_err reserve_offset(struct ct_ledger *ledger) {
    if (ledger->tree.size + 1 < ledger->offsets_capacity) {
        return CT_OK;
    }
    uint64_t capacity = ledger->offsets_capacity == 0 ? 256 : 2 * ledger->offsets_capacity;
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

/* Takes the entry into the tree; its bytes are the caller's to keep. */
static enum ct_err take(struct ct_ledger *ledger, struct ct_bytes entry) {
    uint64_t index = ledger->tree.size;
    struct ct_hash leaf = ct_leaf_hash(entry);
    CT_TRY(reserve_offset(ledger));
    CT_TRY(ct_tree_append(&ledger->tree, &leaf));
    ledger->offsets[index + 1] = ledger->offsets[index] + 2 + entry.length;
    return CT_OK;
}

/* Reads whole entries up to the end or to what is none: a cut-off entry, or an empty one, which
 * nobody appends but which a crash leaves as zeros. */
static enum ct_err load_entries(struct ct_ledger *ledger, FILE *file, const char *path) {
    static const size_t header = 2;
    uint8_t *bytes = malloc(header + CT_ENTRY_BYTES_MAX);
    if (bytes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to read %s", path);
    }
    enum ct_err err = reserve_offset(ledger);
    while (err == CT_OK && fread(bytes, 1, header, file) == header) {
        size_t length = (size_t)bytes[0] << 8 | bytes[1];
        if (length == 0 || fread(bytes + header, 1, length, file) != length) {
            break;
        }
        err = take(ledger, (struct ct_bytes){bytes + header, length});
    }
    if (err == CT_OK && ferror(file)) {
        err = ct_fail(CT_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    free(bytes);
    if (err == CT_OK) {
        ledger->stored = ledger->offsets[ledger->tree.size];
    }
    return err;
}

static enum ct_err open_entries(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, ENTRIES, path);
    ledger->fd = open(path, (ledger->log_key != NULL ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    int copy = ledger->fd >= 0 ? fcntl(ledger->fd, F_DUPFD_CLOEXEC, 0) : -1;
    FILE *file = copy >= 0 ? fdopen(copy, "rb") : NULL;
    if (file == NULL) {
        enum ct_err err = ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO,
                                  "cannot open %s: %s", path, strerror(errno));
        if (copy >= 0) {
            close(copy);
        }
        return err;
    }
    enum ct_err err = load_entries(ledger, file, path);
    fclose(file);
    return err;
}

/* Opens a note of this log; without a key its signature is not looked at. */
static enum ct_err open_note(const struct ct_ledger *ledger, struct ct_bytes note,
                             struct ct_checkpoint *out) {
    if (ledger->log_key != NULL) {
        struct ct_hash public_key = ct_key_public(ledger->log_key);
        return ct_checkpoint_open(note, ledger->origin, &public_key, out);
    }
    CT_TRY(ct_checkpoint_parse(note, out));
    if (strcmp(out->origin, ledger->origin) != 0) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: of another log than %s", ledger->origin);
    }
    return CT_OK;
}

static enum ct_err check_prefix(const struct ct_ledger *ledger, const char *path,
                                const struct ct_checkpoint *checkpoint) {
    if (checkpoint->size > ledger->tree.size) {
        return ct_fail(CT_ERR_DIGEST,
                       "%s covers %" PRIu64 " entries, but %s/" ENTRIES " holds only %" PRIu64
                       " whole ones: it was damaged or rolled back; restore it from a copy",
                       path, checkpoint->size, ledger->dir, ledger->tree.size);
    }
    struct ct_hash root = ct_tree_root(&ledger->tree, checkpoint->size);
    if (!ct_hash_equal(&root, &checkpoint->root)) {
        return ct_fail(CT_ERR_DIGEST,
                       "the first %" PRIu64 " entries of %s/" ENTRIES
                       " do not give the root in %s: restore the ledger from a copy",
                       checkpoint->size, ledger->dir, path);
    }
    return CT_OK;
}

/* The checkpoint is read before the entries: a writer may be at work while we only read. */
static enum ct_err load(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CHECKPOINT, path);
    CT_TRY(ct_file_read(path, &ledger->note));
    struct ct_checkpoint checkpoint;
    enum ct_err err = open_note(ledger, ct_buf_bytes(&ledger->note), &checkpoint);
    if (err != CT_OK) {
        return ct_fail(err, "%s: %s", path, ct_err_detail());
    }
    CT_TRY(open_entries(ledger));
    CT_TRY(check_prefix(ledger, path, &checkpoint));
    ledger->published = checkpoint.size;
    return CT_OK;
}

struct kept {
    uint64_t *sizes;
    uint32_t count, capacity;
};

static enum ct_err kept_add(struct kept *kept, uint64_t size) {
    if (kept->count == kept->capacity) {
        uint32_t capacity = kept->capacity == 0 ? 64 : 2 * kept->capacity;
        uint64_t *sizes = realloc(kept->sizes, capacity * sizeof *sizes);
        if (sizes == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for a list of checkpoints");
        }
        kept->sizes = sizes;
        kept->capacity = capacity;
    }
    kept->sizes[kept->count] = size;
    kept->count++;
    return CT_OK;
}

/* A kept checkpoint is evidence of what was published, just as the newest one is. One that cannot
 * be read says nothing; it is left to an audit to name it. */
static enum ct_err check_kept(const struct ct_ledger *ledger, const char *name, struct kept *kept) {
    char path[CT_LEDGER_PATH_MAX + 300];
    snprintf(path, sizeof path, "%s/" KEPT "/%s", ledger->dir, name);
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    struct ct_checkpoint checkpoint;
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = open_note(ledger, ct_buf_bytes(&note), &checkpoint);
    }
    ct_buf_deinit(&note);
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "ledger", "%s cannot be read: %s", path, ct_err_detail());
        return CT_OK;
    }
    if (checkpoint.size > ledger->published) {
        return ct_fail(CT_ERR_DIGEST,
                       "%s was published, but the newest checkpoint covers only %" PRIu64
                       " entries: the ledger was rolled back; restore it from a copy",
                       path, ledger->published);
    }
    CT_TRY(check_prefix(ledger, path, &checkpoint));
    return kept_add(kept, checkpoint.size);
}

static enum ct_err check_all_kept(const struct ct_ledger *ledger, struct kept *kept) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, KEPT, path);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return errno == ENOENT ? CT_OK
                               : ct_fail(CT_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        if (item->d_name[0] != '.') {
            err = check_kept(ledger, item->d_name, kept);
        }
    }
    closedir(dir);
    return err;
}

/* Cuts off what is no whole entry, and writes the entries that no checkpoint covers once more: a
 * page whose sync failed earlier looks clean, and the next sync would not say so. */
static enum ct_err settle_entries(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, ENTRIES, path);
    off_t end = lseek(ledger->fd, 0, SEEK_END);
    if (end < 0) {
        return ct_fail(CT_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    bool torn = (uint64_t)end > ledger->stored;
    if (torn) {
        ct_log(CT_LOG_WARN, "ledger", "%s ends in %" PRIu64 " bytes that are no whole entry: cut",
               path, (uint64_t)end - ledger->stored);
        CT_TRY(ct_disk_cut(ledger->fd, path, ledger->stored));
    }
    uint64_t at = ledger->offsets[ledger->published];
    bool tail = at < ledger->stored;
    struct ct_buf chunk;
    ct_buf_init(&chunk, 1u << 20);
    enum ct_err err = CT_OK;
    while (err == CT_OK && at < ledger->stored) {
        uint64_t to = ledger->stored - at < chunk.maximum ? ledger->stored : at + chunk.maximum;
        ct_buf_clear(&chunk);
        err = ct_ledger_bytes(ledger, at, to, &chunk);
        if (err == CT_OK) {
            err = ct_disk_write(ledger->fd, path, ct_buf_bytes(&chunk), at);
        }
        at = to;
    }
    ct_buf_deinit(&chunk);
    if (err == CT_OK && (torn || tail)) {
        err = ct_disk_sync(ledger->fd, path);
    }
    return err;
}

static enum ct_err repair(struct ct_ledger *ledger) {
    struct kept kept = {.count = 0};
    char temporary[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, TEMPORARY, temporary);
    enum ct_err err = check_all_kept(ledger, &kept);
    if (err == CT_OK) {
        err = settle_entries(ledger);
    }
    if (err == CT_OK) {
        err = ct_tiles_repair(ledger, kept.sizes, kept.count);
    }
    if (err == CT_OK) {
        err = ct_disk_remove(temporary);
    }
    /* The checkpoint's name may be from a process that did not live to sync it. */
    if (err == CT_OK) {
        err = ct_disk_sync_dir(ledger->dir);
    }
    free(kept.sizes);
    return err;
}

enum ct_err ct_ledger_open(const char *dir, const char *origin, const struct ct_key *log_key,
                           struct ct_ledger **out) {
    struct ct_ledger *ledger = NULL;
    CT_TRY(ledger_new(dir, origin, log_key, &ledger));
    enum ct_err err = load(ledger);
    if (err == CT_OK && log_key != NULL) {
        err = repair(ledger);
    }
    if (err != CT_OK) {
        ct_ledger_close(ledger);
        return err;
    }
    *out = ledger;
    return CT_OK;
}

/* L4, L5 */
static void fail_after(struct ct_ledger *ledger, enum ct_err err) {
    ledger->failed = ledger->failed || err != CT_ERR_FULL;
}

static enum ct_err check_writable(const struct ct_ledger *ledger) {
    if (ledger->log_key == NULL) {
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
    CT_TRY(take(ledger, entry));
    const uint8_t header[2] = {(uint8_t)(entry.length >> 8), (uint8_t)entry.length};
    CT_TRY(ct_buf_append(&ledger->pending, header, sizeof header));
    CT_TRY(ct_buf_append(&ledger->pending, entry.data, entry.length));
    *out_index = index;
    return CT_OK;
}

static enum ct_err store_pending(struct ct_ledger *ledger) {
    if (ledger->pending.length == 0) {
        return CT_OK;
    }
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, ENTRIES, path);
    CT_TRY(ct_disk_write(ledger->fd, path, ct_buf_bytes(&ledger->pending), ledger->stored));
    CT_TRY(ct_disk_sync(ledger->fd, path));
    ledger->stored += ledger->pending.length;
    ct_buf_clear(&ledger->pending);
    return CT_OK;
}

static enum ct_err publish(struct ct_ledger *ledger) {
    CT_TRY(store_pending(ledger));
    CT_TRY(ct_tiles_write(ledger, ledger->published, ledger->tree.size));
    return write_checkpoint(ledger, ledger->tree.size);
}

enum ct_err ct_ledger_publish(struct ct_ledger *ledger) {
    CT_TRY(check_writable(ledger));
    uint64_t before = ledger->published;
    if (before == ledger->tree.size) {
        return CT_OK;
    }
    enum ct_err err = publish(ledger);
    if (err != CT_OK) {
        fail_after(ledger, err);
        return err;
    }
    ct_tiles_prune(ledger, before, ledger->published);
    return CT_OK;
}

enum ct_err ct_ledger_keep(struct ct_ledger *ledger) {
    CT_TRY(check_writable(ledger));
    char folder[CT_LEDGER_PATH_MAX];
    char path[CT_LEDGER_PATH_MAX];
    char temporary[CT_LEDGER_PATH_MAX];
    char name[64];
    ct_ledger_path(ledger, KEPT, folder);
    ct_ledger_path(ledger, TEMPORARY, temporary);
    snprintf(name, sizeof name, KEPT "/%" PRIu64, ledger->published);
    ct_ledger_path(ledger, name, path);
    CT_TRY(ct_disk_make_dir(folder));
    CT_TRY(ct_disk_replace(temporary, path, ct_buf_bytes(&ledger->note)));
    CT_TRY(ct_disk_sync_dir(folder));
    return ct_disk_sync_dir(ledger->dir);
}

/* Replaces DIR/name; the directory is the caller's to sync. */
static enum ct_err replace_note(const struct ct_ledger *ledger, const char *name,
                                struct ct_bytes note) {
    char path[CT_LEDGER_PATH_MAX];
    char temporary[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, name, path);
    ct_ledger_path(ledger, TEMPORARY, temporary);
    return ct_disk_replace(temporary, path, note);
}

enum ct_err ct_ledger_cosign(struct ct_ledger *ledger, struct ct_bytes note, bool witnessed) {
    CT_TRY(check_writable(ledger));
    struct ct_checkpoint checkpoint;
    CT_TRY(open_note(ledger, note, &checkpoint));
    struct ct_hash root = {{0}};
    if (checkpoint.size <= ledger->published) {
        root = ct_tree_root(&ledger->tree, checkpoint.size);
    }
    if (!ct_hash_equal(&root, &checkpoint.root)) {
        return ct_fail(CT_ERR_RULE, "a checkpoint of %" PRIu64 " entries that %s never published",
                       checkpoint.size, ledger->dir);
    }
    if (witnessed) {
        CT_TRY(replace_note(ledger, WITNESSED, note));
    }
    char kept[64];
    char path[CT_LEDGER_PATH_MAX];
    snprintf(kept, sizeof kept, KEPT "/%" PRIu64, checkpoint.size);
    ct_ledger_path(ledger, kept, path);
    if (access(path, F_OK) == 0) {
        CT_TRY(replace_note(ledger, kept, note));
        ct_ledger_path(ledger, KEPT, path);
        CT_TRY(ct_disk_sync_dir(path));
    }
    if (checkpoint.size == ledger->published) {
        CT_TRY(replace_note(ledger, CHECKPOINT, note));
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
    uint64_t end = ledger->offsets[size];
    if (end < ledger->stored) {
        char path[CT_LEDGER_PATH_MAX];
        ct_ledger_path(ledger, ENTRIES, path);
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

enum ct_err ct_ledger_bytes(const struct ct_ledger *ledger, uint64_t from, uint64_t to,
                            struct ct_buf *out) {
    size_t length = (size_t)(to - from);
    CT_TRY(ct_buf_reserve(out, length));
    for (size_t at = 0; at < length;) {
        ssize_t count =
            pread(ledger->fd, out->data + out->length + at, length - at, (off_t)(from + at));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return ct_fail(CT_ERR_IO, "cannot read %s/" ENTRIES " at byte %" PRIu64 ": %s",
                           ledger->dir, from + at, count < 0 ? strerror(errno) : "it ends there");
        }
        at += (size_t)count;
    }
    out->length += length;
    return CT_OK;
}

enum ct_err ct_ledger_read(struct ct_ledger *ledger, uint64_t index, struct ct_buf *out) {
    if (index >= ledger->tree.size) {
        return ct_fail(CT_ERR_NOT_FOUND, "no entry %" PRIu64 " in a ledger of %" PRIu64, index,
                       ledger->tree.size);
    }
    uint64_t from = ledger->offsets[index] + 2;
    uint64_t to = ledger->offsets[index + 1];
    ct_buf_clear(out);
    if (from >= ledger->stored) {
        return ct_buf_append(out, ledger->pending.data + (from - ledger->stored),
                             (size_t)(to - from));
    }
    CT_TRY(ct_ledger_bytes(ledger, from, to, out));
    struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(out));
    if (!ct_hash_equal(&leaf, &ledger->tree.levels[0].hashes[index])) {
        return ct_fail(CT_ERR_DIGEST, "entry %" PRIu64 " of %s/" ENTRIES " changed on the disk",
                       index, ledger->dir);
    }
    return CT_OK;
}

enum ct_err ct_ledger_prove(struct ct_ledger *ledger, uint64_t index, struct ct_proof *out) {
    return ct_prove_inclusion(index, ledger->published, ct_tree_subtree, &ledger->tree, out);
}
