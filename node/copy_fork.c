#include "copy_fork.h"

#include "node_dir.h"

#include <stdlib.h>

/* The leaf hashes of the copy, for a tree that nobody else may serve any more. */
struct leaves {
    const struct ct_ledger_copy *copy;
    struct ct_hash *hashes;
    uint64_t count;
};

static enum ct_err load_leaves(struct leaves *out) {
    const struct ct_ledger_copy *copy = out->copy;
    struct ct_ledger_cursor cursor = {0};
    struct ct_buf entry;
    out->count = copy->frontier.size;
    out->hashes = calloc(out->count + 1, sizeof out->hashes[0]);
    if (out->hashes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %llu hashes", (unsigned long long)out->count);
    }
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (uint64_t i = 0; i < out->count && err == CT_OK; i++) {
        err = ct_ledger_copy_next(copy, &cursor, &entry);
        out->hashes[i] = ct_leaf_hash(ct_buf_bytes(&entry));
    }
    ct_buf_deinit(&entry);
    return err;
}

/* A ct_subtree_hash; a proof asks for disjoint subtrees, so each leaf is hashed once or twice. They
 * are loaded when the first is asked for. */
static enum ct_err leaves_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    struct leaves *leaves = user;
    struct ct_frontier frontier = {.size = 0};
    if (leaves->hashes == NULL) {
        CT_TRY(load_leaves(leaves));
    }
    if ((index + 1) << level > leaves->count) {
        return ct_fail(CT_ERR_NOT_FOUND, "the ledger's copy is shorter than its checkpoint");
    }
    for (uint64_t i = index << level; i < (index + 1) << level; i++) {
        ct_frontier_append(&frontier, &leaves->hashes[i]);
    }
    *out = ct_frontier_root(&frontier);
    return CT_OK;
}

enum ct_err ct_copy_fork_seek(const struct ct_ledger_copy *copy, const char *dir,
                              struct ct_bytes note, struct ct_fetch *fetch) {
    char path[CT_NODE_PATH_MAX];
    struct leaves leaves = {.copy = copy};
    struct ct_buf own;
    CT_TRY(ct_node_path(copy->dir, "checkpoint", path));
    ct_buf_init(&own, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &own);
    if (err == CT_OK) {
        const struct ct_fork_side side = {copy->origin, &copy->log_key, ct_buf_bytes(&own),
                                          leaves_hash, &leaves};
        err = ct_fork_seek(&side, note, fetch, dir);
    }
    free(leaves.hashes);
    ct_buf_deinit(&own);
    return err;
}
