/* The model as a fold over the ledger: θ moves forward with the rounds, each aggregation recomputed
 * from the logged payloads and held to the digest in the log. Coordinator (after a restart), node
 * and auditor use this same code. Pure but for the blobs it asks for. */
#ifndef COTRAIN_REPLAY_H
#define COTRAIN_REPLAY_H

#include <cotrain/fold.h>

struct ct_replay {
    struct ct_fold fold;
    float *theta;     /* [fold.layout.parameters]; NULL before run_opened */
    bool theta_valid; /* theta is the model after round theta_round */
    uint32_t theta_round;
    uint32_t from_round;    /* see ct_replay_init */
    uint32_t merged_rounds; /* aggregations recomputed so far */
};

/* `from_round`: 0 draws θ₀ and recomputes every round; R loads the snapshot of round R when that
 * round closes and recomputes from there; CT_REPLAY_NEVER keeps to the fold. */
#define CT_REPLAY_NEVER UINT32_MAX
void ct_replay_init(struct ct_replay *replay, uint32_t from_round);
void ct_replay_deinit(struct ct_replay *replay);

/* Applies the next entry as ct_fold_apply does, and moves θ at round_closed. Errors of the fold
 * leave it as it was; at a round_closed theta is not valid afterwards. If the entry holds by the
 * fold's rules but θ does not follow, the entry is applied, theta_valid is false until the next
 * snapshot, and the result is
 *
 * - CT_ERR_DIGEST: the recomputed model, merge list or θ₀ is not what the log says;
 * - CT_ERR_NOT_FOUND (or another error of the source): a payload or snapshot is not there. Of a
 *   payload that is not there, the round's own snapshot, if it has one, takes the place. */
CT_MUST_CHECK enum ct_err ct_replay_apply(struct ct_replay *replay, struct ct_bytes entry,
                                          bool verify, ct_blob_source blobs, void *blobs_user);

/* Takes θ from the snapshot of the last closed round; CT_ERR_STATE if it has none. */
CT_MUST_CHECK enum ct_err ct_replay_load_snapshot(struct ct_replay *replay, ct_blob_source blobs,
                                                  void *blobs_user);

/* θ as a snapshot blob's bytes: little-endian binary32. Valid as long as theta is. */
struct ct_bytes ct_replay_snapshot_bytes(const struct ct_replay *replay);

#endif
