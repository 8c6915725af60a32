#include "fork.h"

#include "node_dir.h"

#include <cotrain/evidence.h>
#include <cotrain/log.h>
#include <cotrain/tile_source.h>

#include <stdio.h>
#include <stdlib.h>

/* The leaf hashes of the copy, for a tree that nobody else may serve any more. */
struct leaves {
    struct ct_hash *hashes;
    uint64_t count;
};

static enum ct_err load_leaves(const struct ct_ledger_copy *copy, struct leaves *out) {
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

/* A ct_subtree_hash; a proof asks for disjoint subtrees, so each leaf is hashed once or twice. */
static enum ct_err leaves_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    const struct leaves *leaves = user;
    struct ct_frontier frontier = {.size = 0};
    if ((index + 1) << level > leaves->count) {
        return ct_fail(CT_ERR_NOT_FOUND, "the ledger's copy is shorter than its checkpoint");
    }
    for (uint64_t i = index << level; i < (index + 1) << level; i++) {
        ct_frontier_append(&frontier, &leaves->hashes[i]);
    }
    *out = ct_frontier_root(&frontier);
    return CT_OK;
}

/* One base's tree of a size. */
struct served {
    struct ct_fetch *fetch;
    uint32_t base;
};

static enum ct_err read_tile(void *user, const char *path, struct ct_buf *out) {
    const struct served *served = user;
    return ct_fetch_get_from(served->fetch, served->base, path, out);
}

static enum ct_err seek_served(const char *vkey, struct ct_bytes own, struct ct_bytes note,
                               uint64_t size, struct ct_fetch *fetch, struct ct_buf *evidence) {
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    enum ct_err err = CT_ERR_NOT_FOUND;
    for (uint32_t base = 0; base < ct_fetch_bases(fetch); base++) {
        struct served served = {fetch, base};
        ct_tile_source_init(source, size, read_tile, &served);
        err = ct_evidence_seek(vkey, own, note, ct_tile_source_hash, source, evidence);
        ct_tile_source_deinit(source);
        if (err == CT_OK || err == CT_ERR_FORKED || err == CT_ERR_STATE) {
            break;
        }
    }
    free(source);
    return err;
}

static enum ct_err seek_own(const struct ct_ledger_copy *copy, const char *vkey,
                            struct ct_bytes own, struct ct_bytes note, struct ct_buf *evidence) {
    struct leaves leaves = {.count = 0};
    enum ct_err err = load_leaves(copy, &leaves);
    if (err == CT_OK) {
        err = ct_evidence_seek(vkey, own, note, leaves_hash, &leaves, evidence);
    }
    free(leaves.hashes);
    return err;
}

static enum ct_err keep(const char *dir, const struct ct_buf *evidence) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_node_path(dir, CT_FORK_EVIDENCE, path));
    CT_TRY(ct_file_replace(path, ct_buf_bytes(evidence)));
    ct_log(CT_LOG_ERROR, "fork", "the log's key signed two histories; %s proves it", path);
    return ct_fail(CT_ERR_FORKED,
                   "the coordinator signed two histories of this run. %.300s proves it to anybody "
                   "(cotrain evidence): keep it, and show it to the other nodes",
                   path);
}

enum ct_err ct_fork_seek(const struct ct_ledger_copy *copy, const char *dir, struct ct_bytes note,
                         struct ct_fetch *fetch) {
    char path[CT_NODE_PATH_MAX], vkey[CT_VKEY_BYTES_MAX];
    struct ct_checkpoint checkpoint;
    struct ct_buf own, evidence;
    CT_TRY(ct_checkpoint_open(note, copy->origin, &copy->log_key, &checkpoint));
    CT_TRY(ct_node_path(copy->dir, "checkpoint", path));
    ct_vkey_format(copy->origin, &copy->log_key, vkey);
    ct_buf_init(&own, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&evidence, CT_EVIDENCE_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &own);
    if (err == CT_OK) {
        const bool smaller = checkpoint.size < copy->accepted.size;
        err = seek_served(vkey, ct_buf_bytes(&own), note,
                          smaller ? copy->accepted.size : checkpoint.size, fetch, &evidence);
        if (smaller && err != CT_OK && err != CT_ERR_FORKED && err != CT_ERR_STATE) {
            err = seek_own(copy, vkey, ct_buf_bytes(&own), note, &evidence);
        }
    }
    if (err == CT_ERR_FORKED) {
        err = keep(dir, &evidence);
    }
    ct_buf_deinit(&evidence);
    ct_buf_deinit(&own);
    return err;
}
