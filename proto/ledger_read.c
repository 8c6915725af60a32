/* Reading what is no longer in memory: full tiles and bundles from the disk, one of each level at
 * hand. Nothing is taken from the disk that the tree does not confirm: a tile's root stands in the
 * tile above it, up to the right edge, which opening held to the signed checkpoint. */
#include "ledger_parts.h"

#include <cotrain/assert.h>
#include <cotrain/disk.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* One that is not what it must be: a writer takes it away, so that the next opening finds it
 * missing and writes all tiles again from the entries. */
static enum ct_err fail_tile(const struct ct_ledger *ledger, const char *path, enum ct_err err) {
    if (err == CT_OK && ledger->writes) {
        ct_disk_discard(path);
    }
    return ct_fail(CT_ERR_DIGEST,
                   "%s is %s; the coordinator writes it again when it is started the next time",
                   path, err == CT_ERR_NOT_FOUND ? "missing" : "damaged");
}

static enum ct_err read_tile(const struct ct_ledger *ledger, int level, uint64_t index,
                             struct ct_buf *out, char path[CT_LEDGER_PATH_MAX]) {
    char tile[CT_TILE_PATH_MAX];
    ct_tile_path(level, index, CT_TILE_WIDTH, tile);
    ct_ledger_path(ledger, tile, path);
    ct_buf_clear(out);
    enum ct_err err = ct_file_read(path, out);
    return err == CT_OK || err == CT_ERR_IO || err == CT_ERR_MEMORY
               ? err
               : fail_tile(ledger, path, err == CT_ERR_NOT_FOUND ? err : CT_OK);
}

/* The hashes of a full tile that is not in memory. */
static enum ct_err read_row(struct ct_ledger *ledger, uint32_t level, uint64_t index,
                            const struct ct_hash **out) {
    CT_ASSERT(level + 1 < CT_TREE_LEVELS);
    struct ct_tile_memory *memory = &ledger->rows[level];
    *out = memory->hashes;
    if (memory->valid && memory->index == index) {
        return CT_OK;
    }
    memory->valid = false;
    char path[CT_LEDGER_PATH_MAX];
    struct ct_buf bytes;
    ct_buf_init(&bytes, sizeof memory->hashes);
    enum ct_err err = read_tile(ledger, (int)level, index, &bytes, path);
    const bool whole = err == CT_OK && bytes.length == sizeof memory->hashes;
    if (whole) {
        memcpy(memory->hashes, bytes.data, sizeof memory->hashes);
    }
    ct_buf_deinit(&bytes);
    CT_TRY(err);
    struct ct_hash above;
    CT_TRY(ct_ledger_subtree(ledger, 8 * (level + 1), index, &above));
    const struct ct_hash root = ct_tree_fold(memory->hashes, 8);
    if (!whole || !ct_hash_equal(&root, &above)) {
        return fail_tile(ledger, path, CT_OK);
    }
    memory->valid = true;
    memory->index = index;
    return CT_OK;
}

enum ct_err ct_ledger_subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    struct ct_ledger *ledger = user;
    CT_ASSERT(level < 8 * CT_TREE_LEVELS);
    const struct ct_tree_level *row = &ledger->tree.levels[level / 8];
    const uint32_t height = level % 8;
    const uint64_t begin = index << height;
    CT_ASSERT((index + 1) << height <= row->count);
    if (begin >= row->first) {
        *out = ct_tree_fold(&row->hashes[begin - row->first], height);
        return CT_OK;
    }
    const struct ct_hash *hashes = NULL;
    CT_TRY(read_row(ledger, level / 8, begin / CT_TILE_WIDTH, &hashes));
    *out = ct_tree_fold(&hashes[begin % CT_TILE_WIDTH], height);
    return CT_OK;
}

enum ct_err ct_ledger_root(struct ct_ledger *ledger, uint64_t size, struct ct_hash *out) {
    CT_ASSERT(size <= ledger->tree.size);
    struct ct_frontier frontier = {.size = size};
    uint64_t start = 0;
    for (uint32_t level = 64; level > 0; level--) {
        const uint64_t count = 1ull << (level - 1);
        if ((size & count) != 0) {
            CT_TRY(ct_ledger_subtree(ledger, level - 1, start >> (level - 1),
                                     &frontier.roots[frontier.count]));
            frontier.count++;
            start += count;
        }
    }
    *out = ct_frontier_root(&frontier);
    return CT_OK;
}

enum ct_err ct_ledger_prove(struct ct_ledger *ledger, uint64_t index, struct ct_proof *out) {
    return ct_prove_inclusion(index, ledger->published, ct_ledger_subtree, ledger, out);
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
            return ct_fail(CT_ERR_IO,
                           "cannot read %s/" CT_LEDGER_ENTRIES " at byte %" PRIu64 ": %s",
                           ledger->dir, from + at, count < 0 ? strerror(errno) : "it ends there");
        }
        at += (size_t)count;
    }
    out->length += length;
    return CT_OK;
}

/* One whose bytes are not in a bundle yet, or not in a full one. */
static enum ct_err read_recent(struct ct_ledger *ledger, uint64_t index, struct ct_buf *out) {
    const uint64_t from = ct_ledger_offset(ledger, index) + 2;
    const uint64_t to = ct_ledger_offset(ledger, index + 1);
    if (from >= ledger->stored) {
        return ct_buf_append(out, ledger->pending.data + (from - ledger->stored),
                             (size_t)(to - from));
    }
    CT_TRY(ct_ledger_bytes(ledger, from, to, out));
    const struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(out));
    const struct ct_tree_level *row = &ledger->tree.levels[0];
    if (!ct_hash_equal(&leaf, &row->hashes[index - row->first])) {
        return ct_fail(CT_ERR_DIGEST,
                       "entry %" PRIu64 " of %s/" CT_LEDGER_ENTRIES " changed on the disk", index,
                       ledger->dir);
    }
    return CT_OK;
}

struct bundle_check {
    struct ct_bundle_memory *bundle;
    const struct ct_hash *leaves;
};

static enum ct_err check_one(void *user, struct ct_bytes entry) {
    struct bundle_check *check = user;
    struct ct_bundle_memory *bundle = check->bundle;
    const struct ct_hash leaf = ct_leaf_hash(entry);
    bundle->at[bundle->count] = (size_t)(entry.data - bundle->bytes.data);
    if (!ct_hash_equal(&leaf, &check->leaves[bundle->count])) {
        return ct_fail(CT_ERR_DIGEST, "entry %u of a bundle is not the tree's", bundle->count);
    }
    bundle->count++;
    return CT_OK;
}

static enum ct_err load_bundle(struct ct_ledger *ledger, uint64_t index) {
    struct ct_bundle_memory *bundle = &ledger->bundle;
    if (bundle->valid && bundle->index == index) {
        return CT_OK;
    }
    bundle->valid = false;
    bundle->count = 0;
    struct bundle_check check = {bundle, NULL};
    char path[CT_LEDGER_PATH_MAX];
    CT_TRY(read_row(ledger, 0, index, &check.leaves));
    CT_TRY(read_tile(ledger, -1, index, &bundle->bytes, path));
    if (ct_bundle_parse(ct_buf_bytes(&bundle->bytes), CT_TILE_WIDTH, check_one, &check) != CT_OK) {
        return fail_tile(ledger, path, CT_OK);
    }
    bundle->at[CT_TILE_WIDTH] = bundle->bytes.length + 2;
    bundle->index = index;
    bundle->valid = true;
    return CT_OK;
}

enum ct_err ct_ledger_read(struct ct_ledger *ledger, uint64_t index, struct ct_buf *out) {
    if (index >= ledger->tree.size) {
        return ct_fail(CT_ERR_NOT_FOUND, "no entry %" PRIu64 " in a ledger of %" PRIu64, index,
                       ledger->tree.size);
    }
    ct_buf_clear(out);
    if (index >= ledger->first) {
        return read_recent(ledger, index, out);
    }
    CT_TRY(load_bundle(ledger, index / CT_TILE_WIDTH));
    const size_t *at = &ledger->bundle.at[index % CT_TILE_WIDTH];
    return ct_buf_append(out, ledger->bundle.bytes.data + at[0], at[1] - 2 - at[0]);
}
