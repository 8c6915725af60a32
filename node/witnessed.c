#include "witnessed.h"

#include "contribution.h"
#include "node_dir.h"

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

/* Brings one receipt under the note, unless it is under a quorum already. */
static enum ct_err renew(const struct ct_witnessed *witnessed, const char *dir, uint32_t round,
                         const char *vkey, struct ct_bytes note, struct ct_fetch *fetch) {
    struct ct_buf text;
    struct ct_receipt receipt;
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    enum ct_err err = ct_contribution_read_receipt(dir, round, &text);
    if (err != CT_OK) {
        ct_buf_deinit(&text);
        return err == CT_ERR_NOT_FOUND ? CT_OK : err; /* a round without a part of this node */
    }
    err = ct_receipt_open(ct_buf_bytes(&text), vkey, &receipt);
    if (err == CT_OK) {
        if (ct_policy_check(witnessed->policy, ct_buf_bytes(&receipt.note), NULL) != CT_OK) {
            ct_buf_clear(&text);
            err = make_receipt(&receipt, vkey, note, fetch, &text);
            if (err == CT_OK) {
                err = ct_contribution_receipt(dir, round, ct_buf_bytes(&text));
            }
        }
        ct_receipt_deinit(&receipt);
    }
    ct_buf_deinit(&text);
    return err;
}

static void renew_all(struct ct_witnessed *witnessed, const char *dir, const struct ct_fold *fold,
                      struct ct_bytes note, struct ct_fetch *fetch) {
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    /* The open round's receipt may come later, so its round is looked at again. */
    for (uint32_t round = witnessed->done_round + 1; round <= fold->round; round++) {
        if (renew(witnessed, dir, round, vkey, note, fetch) != CT_OK) {
            ct_log(CT_LOG_WARN, "receipt", "round %u: not under a witnessed checkpoint yet: %s",
                   round, ct_err_detail());
            return;
        }
        bool closed =
            round < fold->round || fold->phase == CT_PHASE_IDLE || fold->phase == CT_PHASE_FINISHED;
        witnessed->done_round = closed ? round : witnessed->done_round;
    }
}

void ct_witnessed_advance(struct ct_witnessed *witnessed, const char *dir,
                          const struct ct_fold *fold, struct ct_bytes note,
                          struct ct_fetch *fetch) {
    if (fold->phase == CT_PHASE_EMPTY) {
        return;
    }
    if (!witnessed->known && learn(witnessed, dir, fold) != CT_OK) {
        ct_log(CT_LOG_WARN, "witness", "%s", ct_err_detail());
        return;
    }
    if (witnessed->policy == NULL) {
        return;
    }
    if (ct_policy_check(witnessed->policy, note, NULL) == CT_OK) {
        witnessed->without = 0;
        renew_all(witnessed, dir, fold, note, fetch);
        return;
    }
    witnessed->without++;
    if (witnessed->without >= WARN_AFTER && (witnessed->without & (witnessed->without - 1)) == 0) {
        ct_log(CT_LOG_WARN, "witness",
               "%u checkpoints in a row without the quorum that this run promises: receipts of "
               "this time are the coordinator's word alone (%s)",
               witnessed->without, ct_err_detail());
    }
}
