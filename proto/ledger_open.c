/* Opening a ledger, and holding all of it to its entries.
 *
 * Opening reads the checkpoint, the last tile of each level, the last bundle's entries and what
 * lies behind them, and looks whether all full tiles are there: some kilobytes, however long the
 * log. If any of that does not give the checkpoint's root, all entries are read, and if they do,
 * the tiles are held to them. */
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

/* Entries in order, from DIR/entries. */
struct reader {
    FILE *file;
    char path[CT_LEDGER_PATH_MAX];
    uint8_t *bytes;
};

static enum ct_err reader_open(const struct ct_ledger *ledger, uint64_t from, struct reader *out) {
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, out->path);
    out->bytes = malloc(2 + CT_ENTRY_BYTES_MAX);
    if (out->bytes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to read %s", out->path);
    }
    out->file = fopen(out->path, "rbe");
    if (out->file == NULL || fseeko(out->file, (off_t)from, SEEK_SET) != 0) {
        enum ct_err err = ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO,
                                  "cannot read %s: %s", out->path, strerror(errno));
        if (out->file != NULL) {
            fclose(out->file);
        }
        free(out->bytes);
        return err;
    }
    return CT_OK;
}

/* The next entry with its length in front, valid until the next call. False at the end and at what
 * is no entry: one cut off, or an empty one, which nobody appends but which a crash leaves as
 * zeros.
 */
static bool reader_next(struct reader *reader, struct ct_bytes *out_entry) {
    if (fread(reader->bytes, 1, 2, reader->file) != 2) {
        return false;
    }
    size_t length = (size_t)reader->bytes[0] << 8 | reader->bytes[1];
    *out_entry = (struct ct_bytes){reader->bytes + 2, length};
    return length > 0 && fread(reader->bytes + 2, 1, length, reader->file) == length;
}

/* CT_ERR_IO if reading ended because it failed. */
static enum ct_err reader_close(struct reader *reader) {
    enum ct_err err = ferror(reader->file)
                          ? ct_fail(CT_ERR_IO, "cannot read %s: %s", reader->path, strerror(errno))
                          : CT_OK;
    fclose(reader->file);
    free(reader->bytes);
    return err;
}

enum ct_err ct_ledger_open_note(const struct ct_ledger *ledger, struct ct_bytes note,
                                struct ct_checkpoint *out) {
    if (ledger->writes) {
        return ct_checkpoint_open(note, ledger->origin, &ledger->public_key, out);
    }
    CT_TRY(ct_checkpoint_parse(note, out));
    if (strcmp(out->origin, ledger->origin) != 0) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: of another log than %s", ledger->origin);
    }
    return CT_OK;
}

static enum ct_err check_prefix(struct ct_ledger *ledger, const char *path,
                                const struct ct_checkpoint *checkpoint) {
    if (checkpoint->size > ledger->tree.size) {
        return ct_fail(CT_ERR_DIGEST,
                       "%s covers %" PRIu64 " entries, but %s/" CT_LEDGER_ENTRIES
                       " holds only %" PRIu64
                       " whole ones: it was damaged or rolled back; restore it from a copy",
                       path, checkpoint->size, ledger->dir, ledger->tree.size);
    }
    struct ct_hash root;
    CT_TRY(ct_ledger_root(ledger, checkpoint->size, &root));
    if (!ct_hash_equal(&root, &checkpoint->root)) {
        return ct_fail(CT_ERR_DIGEST,
                       "the first %" PRIu64 " entries of %s/" CT_LEDGER_ENTRIES
                       " do not give the root in %s: restore the ledger from a copy",
                       checkpoint->size, ledger->dir, path);
    }
    return CT_OK;
}

static enum ct_err read_edge_tile(const struct ct_ledger *ledger, int level, uint64_t size,
                                  struct ct_hash *out_hashes) {
    const uint64_t nodes = size >> (8 * level);
    const uint32_t width = (uint32_t)(nodes % CT_TILE_WIDTH);
    char tile[CT_TILE_PATH_MAX], path[CT_LEDGER_PATH_MAX];
    if (width == 0) {
        return CT_OK;
    }
    ct_tile_path(level, nodes / CT_TILE_WIDTH, width, tile);
    ct_ledger_path(ledger, tile, path);
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_TILE_WIDTH * sizeof out_hashes[0]);
    enum ct_err err = ct_file_read(path, &bytes);
    if (err == CT_OK && bytes.length != width * sizeof out_hashes[0]) {
        err = ct_fail(CT_ERR_FORMAT, "%s has %zu bytes", path, bytes.length);
    }
    if (err == CT_OK) {
        memcpy(out_hashes, bytes.data, bytes.length);
    }
    ct_buf_deinit(&bytes);
    return err;
}

/* The entries of the last, partial bundle, held to the tree. */
static enum ct_err read_edge_entries(struct ct_ledger *ledger, uint64_t from, uint64_t size) {
    struct reader reader;
    CT_TRY(ct_ledger_reserve(ledger));
    CT_TRY(reader_open(ledger, from, &reader));
    ledger->offsets[0] = from;
    bool right = true;
    const struct ct_tree_level *row = &ledger->tree.levels[0];
    for (uint64_t i = ledger->first; i < size && right; i++) {
        struct ct_bytes entry;
        right = reader_next(&reader, &entry);
        if (right) {
            const struct ct_hash leaf = ct_leaf_hash(entry);
            right = ct_hash_equal(&leaf, &row->hashes[i - row->first]);
            ledger->offsets[i + 1 - ledger->first] = ct_ledger_offset(ledger, i) + 2 + entry.length;
        }
    }
    CT_TRY(reader_close(&reader));
    return right ? CT_OK : ct_fail(CT_ERR_DIGEST, "the last entries are not those of the tiles");
}

/* Takes the tree from its right edge on disk. Any error means: not so. */
static enum ct_err load_edge(struct ct_ledger *ledger, const struct ct_checkpoint *checkpoint) {
    uint64_t from = 0;
    const uint64_t size = checkpoint->size;
    if (!ct_tiles_there(ledger, size, &from)) {
        return ct_fail(CT_ERR_NOT_FOUND, "a tile is missing");
    }
    struct ct_hash(*rows)[CT_TILE_WIDTH] = calloc(CT_TREE_LEVELS, sizeof *rows);
    if (rows == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for tiles");
    }
    enum ct_err err = CT_OK;
    for (int level = 0; level < CT_TREE_LEVELS && err == CT_OK; level++) {
        err = read_edge_tile(ledger, level, size, rows[level]);
    }
    if (err == CT_OK) {
        err = ct_tree_load(&ledger->tree, size, rows);
    }
    free(rows);
    CT_TRY(err);
    ledger->first = size / CT_TILE_WIDTH * CT_TILE_WIDTH;
    struct ct_hash root;
    CT_TRY(ct_ledger_root(ledger, size, &root));
    if (!ct_hash_equal(&root, &checkpoint->root)) {
        return ct_fail(CT_ERR_DIGEST, "the last tiles do not give the checkpoint's root");
    }
    return read_edge_entries(ledger, from, size);
}

/* Takes the tree from all entries of the checkpoint. */
static enum ct_err load_all(struct ct_ledger *ledger, const struct ct_checkpoint *checkpoint,
                            const char *path) {
    struct reader reader;
    ct_tree_deinit(&ledger->tree);
    ledger->first = 0;
    CT_TRY(ct_ledger_reserve(ledger));
    ledger->offsets[0] = 0;
    CT_TRY(reader_open(ledger, 0, &reader));
    enum ct_err err = CT_OK;
    struct ct_bytes entry;
    while (err == CT_OK && ledger->tree.size < checkpoint->size && reader_next(&reader, &entry)) {
        err = ct_ledger_take(ledger, entry);
        if (err == CT_OK && ledger->tree.size % CT_TILE_WIDTH == 0) {
            ct_ledger_forget(ledger, ledger->tree.size);
        }
    }
    enum ct_err closed = reader_close(&reader);
    CT_TRY(err == CT_OK ? closed : err);
    return check_prefix(ledger, path, checkpoint);
}

/* Whole entries behind the checkpoint. */
static enum ct_err load_tail(struct ct_ledger *ledger) {
    struct reader reader;
    CT_TRY(reader_open(ledger, ct_ledger_offset(ledger, ledger->published), &reader));
    enum ct_err err = CT_OK;
    struct ct_bytes entry;
    while (err == CT_OK && reader_next(&reader, &entry)) {
        err = ct_ledger_take(ledger, entry);
    }
    enum ct_err closed = reader_close(&reader);
    return err == CT_OK ? closed : err;
}

/* A copy that has no checkpoint yet: its entries, if any, are those that an interrupted start left.
 */
static enum ct_err begin_copy(const struct ct_ledger *ledger, struct ct_checkpoint *out) {
    const struct ct_frontier nothing = {.size = 0};
    char entries[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, entries);
    *out = (struct ct_checkpoint){.root = ct_frontier_root(&nothing)};
    if (access(entries, F_OK) == 0) {
        return CT_OK;
    }
    int fd = -1;
    CT_TRY(ct_disk_make(entries, &fd));
    enum ct_err err = ct_disk_sync(fd, entries);
    close(fd);
    return err;
}

/* The checkpoint is read before the entries: a writer may be at work while we only read. */
static enum ct_err load(struct ct_ledger *ledger, bool *out_damaged) {
    char path[CT_LEDGER_PATH_MAX], entries[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_CHECKPOINT, path);
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, entries);
    struct ct_checkpoint checkpoint;
    enum ct_err err = ct_file_read(path, &ledger->note);
    if (err == CT_ERR_NOT_FOUND && ledger->writes && ledger->log_key == NULL) {
        err = begin_copy(ledger, &checkpoint);
    } else if (err == CT_OK) {
        err = ct_ledger_open_note(ledger, ct_buf_bytes(&ledger->note), &checkpoint);
        err = err == CT_OK ? err : ct_fail(err, "%s: %s", path, ct_err_detail());
    }
    CT_TRY(err);
    ledger->fd = open(entries, (ledger->writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (ledger->fd < 0) {
        return ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO, "cannot open %s: %s",
                       entries, strerror(errno));
    }
    *out_damaged = load_edge(ledger, &checkpoint) != CT_OK;
    if (*out_damaged) {
        if (ledger->writes) {
            ct_log(CT_LOG_WARN, "ledger", "%s: %s; all entries are read", ledger->dir,
                   ct_err_detail());
        }
        CT_TRY(load_all(ledger, &checkpoint, path));
    }
    ledger->published = checkpoint.size;
    if (ledger->writes) {
        CT_TRY(load_tail(ledger));
    }
    ledger->stored = ct_ledger_offset(ledger, ledger->tree.size);
    return CT_OK;
}

/* Writes the full tiles that are missing or damaged; the entries have given the checkpoint's root.
 */
static enum ct_err hold_tiles_of(struct ct_ledger *ledger, struct ct_tree *tree,
                                 struct ct_buf *bundle) {
    CT_TRY(ct_tiles_hold(ledger, -1, tree->size / CT_TILE_WIDTH - 1, CT_TILE_WIDTH,
                         ct_buf_bytes(bundle)));
    for (int level = 0; level + 1 < CT_TREE_LEVELS; level++) {
        const struct ct_tree_level *row = &tree->levels[level];
        if (row->count % CT_TILE_WIDTH != 0 || row->count == row->first) {
            break;
        }
        const struct ct_hash *hashes = &row->hashes[row->count - CT_TILE_WIDTH - row->first];
        CT_TRY(ct_tiles_hold(ledger, level, row->count / CT_TILE_WIDTH - 1, CT_TILE_WIDTH,
                             (struct ct_bytes){hashes->bytes, CT_TILE_WIDTH * sizeof *hashes}));
    }
    ct_tree_forget(tree, tree->size);
    ct_buf_clear(bundle);
    return CT_OK;
}

static enum ct_err hold_full_tiles(struct ct_ledger *ledger) {
    struct ct_tree tree = {.size = 0};
    struct ct_buf bundle;
    struct reader reader;
    CT_TRY(reader_open(ledger, 0, &reader));
    ct_buf_init(&bundle, CT_TILE_WIDTH * (2u + CT_ENTRY_BYTES_MAX));
    enum ct_err err = CT_OK;
    struct ct_bytes entry;
    const uint64_t end = ledger->published / CT_TILE_WIDTH * CT_TILE_WIDTH;
    while (err == CT_OK && tree.size < end && reader_next(&reader, &entry)) {
        const struct ct_hash leaf = ct_leaf_hash(entry);
        err = ct_tree_append(&tree, &leaf);
        if (err == CT_OK) {
            err = ct_buf_append(&bundle, entry.data - 2, entry.length + 2);
        }
        if (err == CT_OK && tree.size % CT_TILE_WIDTH == 0) {
            err = hold_tiles_of(ledger, &tree, &bundle);
        }
    }
    enum ct_err closed = reader_close(&reader);
    ct_buf_deinit(&bundle);
    ct_tree_deinit(&tree);
    CT_TRY(err == CT_OK ? closed : err);
    return ct_ledger_land(ledger);
}

/* Sizes of kept checkpoints, by their names. */
struct kept {
    uint64_t *sizes;
    uint64_t count, capacity;
};

static enum ct_err kept_add(struct kept *kept, uint64_t size) {
    if (kept->count == kept->capacity) {
        uint64_t capacity = kept->capacity == 0 ? 64 : 2 * kept->capacity;
        uint64_t *sizes = realloc(kept->sizes, capacity * sizeof *sizes);
        if (sizes == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for a list of checkpoints");
        }
        kept->sizes = sizes;
        kept->capacity = capacity;
    }
    kept->sizes[kept->count++] = size;
    return CT_OK;
}

static int descending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static enum ct_err list_kept(const struct ct_ledger *ledger, struct kept *kept) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_KEPT, path);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return errno == ENOENT ? CT_OK
                               : ct_fail(CT_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        uint64_t size;
        int end = 0;
        if (sscanf(item->d_name, "%19" SCNu64 "%n", &size, &end) == 1 && item->d_name[end] == 0) {
            err = kept_add(kept, size);
        }
    }
    closedir(dir);
    if (kept->count > 0) {
        qsort(kept->sizes, kept->count, sizeof kept->sizes[0], descending);
    }
    return err;
}

/* A kept checkpoint is evidence of what was published, just as the newest one is. One that cannot
 * be read says nothing; it is left to an audit to name it. */
static enum ct_err check_kept(struct ct_ledger *ledger, uint64_t size, bool *out_read) {
    char name[64], path[CT_LEDGER_PATH_MAX];
    snprintf(name, sizeof name, CT_LEDGER_KEPT "/%" PRIu64, size);
    ct_ledger_path(ledger, name, path);
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    struct ct_checkpoint checkpoint;
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_ledger_open_note(ledger, ct_buf_bytes(&note), &checkpoint);
    }
    ct_buf_deinit(&note);
    *out_read = err == CT_OK;
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
    return check_prefix(ledger, path, &checkpoint);
}

/* The newest that can be read, or all. */
static enum ct_err check_all_kept(struct ct_ledger *ledger, const struct kept *kept, bool all) {
    bool read = false;
    for (uint64_t i = 0; i < kept->count && (all || !read); i++) {
        CT_TRY(check_kept(ledger, kept->sizes[i], &read));
    }
    return CT_OK;
}

/* Cuts off what is no whole entry, and writes the entries that no checkpoint covers once more: a
 * page whose sync failed earlier looks clean, and the next sync would not say so. */
static enum ct_err settle_entries(struct ct_ledger *ledger) {
    char path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_ENTRIES, path);
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
    uint64_t at = ct_ledger_offset(ledger, ledger->published);
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

static enum ct_err repair(struct ct_ledger *ledger, bool damaged) {
    struct kept kept = {.count = 0};
    char temporary[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, CT_LEDGER_TEMPORARY, temporary);
    enum ct_err err = list_kept(ledger, &kept);
    if (err == CT_OK && damaged) {
        err = hold_full_tiles(ledger);
    }
    if (err == CT_OK) {
        err = check_all_kept(ledger, &kept, damaged);
    }
    if (err == CT_OK) {
        err = settle_entries(ledger);
    }
    if (err == CT_OK) {
        err = ct_tiles_settle(ledger, kept.sizes, kept.count);
    }
    if (err == CT_OK) {
        err = ct_disk_remove(temporary);
    }
    /* The checkpoint's name may be from a process that did not live to sync it. */
    if (err == CT_OK) {
        err = ct_disk_sync_dir(ledger->dir);
    }
    if (err != CT_OK) {
        ct_ledger_unstage(ledger);
    }
    free(kept.sizes);
    return err;
}

static enum ct_err open_new(struct ct_ledger *ledger, struct ct_ledger **out) {
    bool damaged = false;
    enum ct_err err = load(ledger, &damaged);
    if (err == CT_OK && ledger->writes) {
        err = repair(ledger, damaged);
    }
    if (err != CT_OK) {
        ct_ledger_close(ledger);
        return err;
    }
    *out = ledger;
    return CT_OK;
}

enum ct_err ct_ledger_open(const char *dir, const char *origin, const struct ct_key *log_key,
                           struct ct_ledger **out) {
    struct ct_ledger *ledger = NULL;
    CT_TRY(ct_ledger_new(dir, origin, log_key, &ledger));
    return open_new(ledger, out);
}

enum ct_err ct_ledger_open_copy(const char *dir, const char *origin,
                                const struct ct_hash *public_key, struct ct_ledger **out) {
    struct ct_ledger *ledger = NULL;
    CT_TRY(ct_dir_make(dir));
    CT_TRY(ct_ledger_new(dir, origin, NULL, &ledger));
    ledger->writes = true;
    ledger->public_key = *public_key;
    return open_new(ledger, out);
}

/* The root of the published entries as DIR/entries has them. */
static enum ct_err check_entries(struct ct_ledger *ledger) {
    struct ct_frontier frontier = {.size = 0};
    struct reader reader;
    struct ct_bytes entry;
    struct ct_hash expected;
    CT_TRY(ct_ledger_root(ledger, ledger->published, &expected));
    CT_TRY(reader_open(ledger, 0, &reader));
    while (frontier.size < ledger->published && reader_next(&reader, &entry)) {
        const struct ct_hash leaf = ct_leaf_hash(entry);
        ct_frontier_append(&frontier, &leaf);
    }
    CT_TRY(reader_close(&reader));
    const struct ct_hash root = ct_frontier_root(&frontier);
    if (frontier.size < ledger->published || !ct_hash_equal(&root, &expected)) {
        return ct_fail(CT_ERR_DIGEST,
                       "%s/" CT_LEDGER_ENTRIES " does not hold the %" PRIu64
                       " entries that were published: restore it from a copy",
                       ledger->dir, ledger->published);
    }
    return CT_OK;
}

enum ct_err ct_ledger_check(struct ct_ledger *ledger) {
    if (!ledger->writes) {
        return ct_fail(CT_ERR_STATE, "the ledger %s is open for reading only", ledger->dir);
    }
    CT_TRY(check_entries(ledger));
    return repair(ledger, true);
}
