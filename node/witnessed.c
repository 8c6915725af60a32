#include "witnessed.h"

#include "contribution.h"
#include "copy_fork.h"
#include "node_dir.h"

#include <cotrain/http.h>
#include <cotrain/log.h>
#include <cotrain/receipt.h>
#include <cotrain/tile_source.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARN_AFTER 16u /* checkpoints; then after twice as many each time */

void ct_witnessed_deinit(struct ct_witnessed *witnessed) {
    free(witnessed->policy);
    witnessed->policy = NULL;
}

/* The manifest's policy with the log in front, as verifiers of receipts want it. */
static enum ct_err store_policy(const char *dir, const struct ct_fold *fold) {
    char path[CT_NODE_PATH_MAX];
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_buf text;
    CT_TRY(ct_node_path(dir, CT_NODE_POLICY, path));
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    ct_buf_init(&text, CT_POLICY_BYTES_MAX);
    enum ct_err err = ct_buf_printf(&text, "log %s\n%s", vkey, fold->manifest.policy);
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&text));
    }
    ct_buf_deinit(&text);
    return err;
}

static enum ct_err learn(struct ct_witnessed *witnessed, const char *dir,
                         const struct ct_fold *fold) {
    CT_TRY(ct_manifest_policy(&fold->manifest, &witnessed->policy));
    if (witnessed->policy != NULL) {
        CT_TRY(store_policy(dir, fold));
    }
    witnessed->known = true;
    return CT_OK;
}

static enum ct_err read_tile(void *user, const char *path, struct ct_buf *out) {
    return ct_fetch_get(user, path, out);
}

/* The receipt's entry under the new checkpoint. The proof is verified by reading the new text as a
 * stranger would. */
static enum ct_err make_receipt(const struct ct_receipt *old, const char *vkey,
                                struct ct_bytes note, struct ct_fetch *fetch, struct ct_buf *out) {
    struct ct_checkpoint checkpoint;
    CT_TRY(ct_checkpoint_parse(note, &checkpoint));
    if (old->index >= checkpoint.size) {
        return ct_fail(CT_ERR_NOT_FOUND, "the witnessed tree does not reach entry %llu yet",
                       (unsigned long long)old->index);
    }
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    struct ct_proof proof;
    ct_tile_source_init(source, checkpoint.size, read_tile, fetch);
    enum ct_err err =
        ct_prove_inclusion(old->index, checkpoint.size, ct_tile_source_hash, source, &proof);
    ct_tile_source_deinit(source);
    free(source);
    CT_TRY(err);
    CT_TRY(ct_receipt_format(old->index, ct_buf_bytes(&old->entry), &proof, note, out));
    struct ct_receipt again;
    CT_TRY(ct_receipt_open(ct_buf_bytes(out), vkey, &again));
    ct_receipt_deinit(&again);
    return CT_OK;
}

/* Reads the receipt of a round; *out_wanting tells that it is not under the quorum.
 * CT_ERR_NOT_FOUND: a round without a part of this node. On success the caller ends the receipt. */
static enum ct_err open_receipt(const struct ct_witnessed *witnessed, const char *dir,
                                uint32_t round, const char *vkey, struct ct_receipt *out,
                                bool *out_wanting) {
    struct ct_buf text;
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    enum ct_err err = ct_contribution_read_receipt(dir, round, &text);
    if (err == CT_OK) {
        err = ct_receipt_open(ct_buf_bytes(&text), vkey, out);
        err = err == CT_ERR_NOT_FOUND ? CT_ERR_FORMAT : err;
    }
    ct_buf_deinit(&text);
    if (err == CT_OK) {
        *out_wanting = ct_policy_check(witnessed->policy, ct_buf_bytes(&out->note), NULL) != CT_OK;
    }
    return err;
}

/* Brings one receipt under the note, unless it is under a quorum already. */
static enum ct_err renew(const struct ct_witnessed *witnessed, const char *dir, uint32_t round,
                         const char *vkey, struct ct_bytes note, struct ct_fetch *fetch) {
    struct ct_receipt receipt;
    bool wanting = false;
    enum ct_err err = open_receipt(witnessed, dir, round, vkey, &receipt, &wanting);
    if (err != CT_OK) {
        return err == CT_ERR_NOT_FOUND ? CT_OK : err;
    }
    if (wanting) {
        struct ct_buf text;
        ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
        err = make_receipt(&receipt, vkey, note, fetch, &text);
        if (err == CT_OK) {
            err = ct_contribution_receipt(dir, round, ct_buf_bytes(&text));
        }
        ct_buf_deinit(&text);
    }
    ct_receipt_deinit(&receipt);
    return err;
}

/* Rounds whose receipt may come later are looked at again. */
static bool is_over(const struct ct_fold *fold, uint32_t round) {
    return round < fold->round || fold->phase == CT_PHASE_IDLE || fold->phase == CT_PHASE_FINISHED;
}

static void renew_all(struct ct_witnessed *witnessed, const char *dir, const struct ct_fold *fold,
                      struct ct_bytes note, struct ct_fetch *fetch) {
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    for (uint32_t round = witnessed->done_round + 1; round <= fold->round; round++) {
        const enum ct_err err = renew(witnessed, dir, round, vkey, note, fetch);
        if (err != CT_OK) {
            ct_log(err == CT_ERR_NOT_FOUND ? CT_LOG_DEBUG : CT_LOG_WARN, "receipt",
                   "round %u: not under a witnessed checkpoint yet: %s", round, ct_err_detail());
            return;
        }
        witnessed->done_round = is_over(fold, round) ? round : witnessed->done_round;
    }
}

bool ct_witnessed_pending(const struct ct_witnessed *witnessed, const char *dir,
                          const struct ct_fold *fold) {
    char vkey[CT_VKEY_BYTES_MAX];
    bool wanting = false;
    if (witnessed->policy == NULL) {
        return false;
    }
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    for (uint32_t round = witnessed->done_round + 1; round <= fold->round && !wanting; round++) {
        struct ct_receipt receipt;
        if (open_receipt(witnessed, dir, round, vkey, &receipt, &wanting) == CT_OK) {
            ct_receipt_deinit(&receipt);
        }
    }
    return wanting;
}

/* The newest checkpoint that has the quorum, as it is served: only one that this copy leads to or
 * on from is used. */
static enum ct_err use_served(struct ct_witnessed *witnessed, const char *dir,
                              const struct ct_ledger_copy *copy, const struct ct_fold *fold,
                              struct ct_fetch *fetch, struct ct_buf *note) {
    struct ct_checkpoint checkpoint;
    CT_TRY(ct_fetch_get(fetch, CT_HTTP_WITNESSED, note));
    const struct ct_bytes bytes = ct_buf_bytes(note);
    CT_TRY(ct_checkpoint_open(bytes, fold->opened.origin, &fold->opened.log_key, &checkpoint));
    CT_TRY(ct_policy_check(witnessed->policy, bytes, NULL));
    CT_TRY(ct_copy_fork_seek(copy, dir, bytes, fetch));
    if (checkpoint.size > witnessed->size) {
        witnessed->size = checkpoint.size;
        witnessed->without = 0;
    }
    renew_all(witnessed, dir, fold, bytes, fetch);
    return CT_OK;
}

static void warn(struct ct_witnessed *witnessed) {
    witnessed->without++;
    if (witnessed->without >= WARN_AFTER && (witnessed->without & (witnessed->without - 1)) == 0) {
        ct_log(CT_LOG_WARN, "witness",
               "%u checkpoints in a row without the quorum that this run promises: receipts of "
               "this time are the coordinator's word alone (%s)",
               witnessed->without, ct_err_detail());
    }
}

enum ct_err ct_witnessed_advance(struct ct_witnessed *witnessed, const char *dir,
                                 const struct ct_ledger_copy *copy, const struct ct_fold *fold,
                                 struct ct_bytes note, struct ct_fetch *fetch) {
    if (fold->phase == CT_PHASE_EMPTY) {
        return CT_OK;
    }
    if (!witnessed->known && learn(witnessed, dir, fold) != CT_OK) {
        ct_log(CT_LOG_WARN, "witness", "%s", ct_err_detail());
        return CT_OK;
    }
    if (witnessed->policy == NULL) {
        return CT_OK;
    }
    if (ct_policy_check(witnessed->policy, note, NULL) == CT_OK) {
        witnessed->without = 0;
        renew_all(witnessed, dir, fold, note, fetch);
        return CT_OK;
    }
    warn(witnessed);
    if (!ct_witnessed_pending(witnessed, dir, fold)) {
        return CT_OK;
    }
    struct ct_buf served;
    ct_buf_init(&served, CT_CHECKPOINT_BYTES_MAX);
    const enum ct_err err = use_served(witnessed, dir, copy, fold, fetch, &served);
    ct_buf_deinit(&served);
    if (err != CT_OK && err != CT_ERR_FORKED) {
        ct_log(CT_LOG_DEBUG, "witness", "no checkpoint with the quorum: %s", ct_err_detail());
    }
    return err == CT_ERR_FORKED ? err : CT_OK;
}
