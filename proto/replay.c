#include <cotrain/assert.h>
#include <cotrain/replay.h>

#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "snapshots are little-endian binary32 and are used in place"
#endif

void ct_replay_init(struct ct_replay *replay, uint32_t from_round) {
    memset(replay, 0, sizeof *replay);
    ct_fold_init(&replay->fold);
    replay->from_round = from_round;
}

void ct_replay_deinit(struct ct_replay *replay) {
    ct_fold_deinit(&replay->fold);
    free(replay->theta);
    memset(replay, 0, sizeof *replay);
}

static size_t theta_bytes(const struct ct_replay *replay) {
    return replay->fold.layout.parameters * sizeof(float);
}

struct ct_bytes ct_replay_snapshot_bytes(const struct ct_replay *replay) {
    CT_ASSERT(replay->theta_valid);
    return (struct ct_bytes){(const uint8_t *)replay->theta, theta_bytes(replay)};
}

static enum ct_err draw_first_model(struct ct_replay *replay) {
    CT_ASSERT(replay->theta == NULL);
    if (replay->from_round == CT_REPLAY_NEVER) {
        return CT_OK;
    }
    replay->theta = malloc(theta_bytes(replay));
    if (replay->theta == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a model of %zu bytes", theta_bytes(replay));
    }
    if (replay->from_round == 0) {
        ct_layout_draw(&replay->fold.layout, &replay->fold.run_seed, replay->theta);
        replay->theta_valid = true;
    }
    return CT_OK;
}

static enum ct_err check_first_base(struct ct_replay *replay) {
    const struct ct_hash digest = ct_model_digest(&replay->fold.layout, replay->theta);
    if (!ct_hash_equal(&digest, &replay->fold.round_opened.base)) {
        replay->theta_valid = false;
        return ct_fail(CT_ERR_DIGEST,
                       "entry %llu: the first round's base is not the model that "
                       "the run seed draws",
                       (unsigned long long)(replay->fold.entries - 1));
    }
    return CT_OK;
}

enum ct_err ct_replay_load_snapshot(struct ct_replay *replay, ct_blob_source blobs,
                                    void *blobs_user) {
    const struct ct_fold *fold = &replay->fold;
    if (replay->theta == NULL || fold->round == 0 || fold->snapshot_round != fold->round ||
        (fold->phase != CT_PHASE_IDLE && fold->phase != CT_PHASE_FINISHED)) {
        return ct_fail(CT_ERR_STATE, "round %u left no snapshot", fold->round);
    }
    struct ct_blob_ref ref = {fold->snapshot, theta_bytes(replay)};
    struct ct_buf bytes;
    CT_TRY(blobs(blobs_user, &ref, ref.length, &bytes));
    memcpy(replay->theta, bytes.data, ref.length);
    ct_buf_deinit(&bytes);
    replay->theta_valid = true;
    replay->theta_round = fold->round;
    return CT_OK;
}

/* The fold has checked the logged list against the entries; what the payloads decide is left. */
static enum ct_err check_shares(const struct ct_fold *fold, const struct ct_merge_list *computed,
                                ct_blob_source blobs, void *blobs_user) {
    struct ct_buf bytes;
    CT_TRY(blobs(blobs_user, &fold->round_closed.merged, CT_MERGE_LIST_BYTES_MAX, &bytes));
    struct ct_merge_list logged;
    enum ct_err err = ct_merge_list_decode(ct_buf_bytes(&bytes), &logged);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return err;
    }
    bool equal = logged.count == computed->count;
    for (uint32_t i = 0; equal && i < logged.count; i++) {
        const struct ct_merge_item *a = &logged.items[i];
        const struct ct_merge_item *b = &computed->items[i];
        equal = a->commit_index == b->commit_index && a->outcome == b->outcome &&
                a->weight_q22 == b->weight_q22 && a->clip_q15 == b->clip_q15;
    }
    ct_merge_list_deinit(&logged);
    return equal ? CT_OK
                 : ct_fail(CT_ERR_DIGEST,
                           "entry %llu: round %u's merge list has other weights or "
                           "clips than its payloads give",
                           (unsigned long long)(fold->entries - 1), fold->round);
}

/* The round that just closed has one, which the replay may take. */
static bool has_snapshot(const struct ct_replay *replay) {
    return replay->from_round != CT_REPLAY_NEVER && replay->fold.round >= replay->from_round &&
           replay->fold.snapshot_round == replay->fold.round;
}

static enum ct_err close_round(struct ct_replay *replay, struct ct_bytes entry, bool verify,
                               ct_blob_source blobs, void *blobs_user) {
    struct ct_fold *fold = &replay->fold;
    struct ct_merge_list list = {0};
    enum ct_err merge_err = CT_OK;
    const bool moves = replay->theta_valid && fold->phase == CT_PHASE_UPLOAD;
    char merge_detail[512] = "";
    if (moves) {
        merge_err = ct_merge_round(fold, blobs, blobs_user, replay->theta, replay->theta, &list);
        if (merge_err != CT_OK) {
            strncpy(merge_detail, ct_err_detail(), sizeof merge_detail - 1);
        }
        /* θ has moved, or may be half moved: it is valid again only once the log agrees. */
        replay->theta_valid = false;
    }
    enum ct_err err = ct_fold_apply(fold, entry, verify, blobs, blobs_user);
    if (err != CT_OK) {
        goto out;
    }
    if (moves && merge_err != CT_OK) {
        if (merge_err == CT_ERR_NOT_FOUND && has_snapshot(replay)) {
            (void)!ct_replay_load_snapshot(replay, blobs, blobs_user);
        }
        err = ct_fail(merge_err, "entry %llu: round %u cannot be replayed: %s",
                      (unsigned long long)(fold->entries - 1), fold->round, merge_detail);
        goto out;
    }
    if (moves) {
        const struct ct_hash digest = ct_model_digest(&fold->layout, replay->theta);
        if (!ct_hash_equal(&digest, &fold->model)) {
            err = ct_fail(CT_ERR_DIGEST,
                          "entry %llu: round %u's model is not what its "
                          "contributions give",
                          (unsigned long long)(fold->entries - 1), fold->round);
            goto out;
        }
        err = check_shares(fold, &list, blobs, blobs_user);
        if (err != CT_OK) {
            goto out;
        }
        replay->theta_valid = true;
        replay->theta_round = fold->round;
        replay->merged_rounds++;
    } else if (has_snapshot(replay)) {
        err = ct_replay_load_snapshot(replay, blobs, blobs_user);
    }
out:
    ct_merge_list_deinit(&list);
    return err;
}

enum ct_err ct_replay_apply(struct ct_replay *replay, struct ct_bytes entry, bool verify,
                            ct_blob_source blobs, void *blobs_user) {
    struct ct_fold *fold = &replay->fold;
    const enum ct_phase before = fold->phase;
    if (before == CT_PHASE_UPLOAD) {
        struct ct_envelope envelope;
        struct ct_entry decoded;
        CT_TRY(ct_envelope_open(entry, &envelope));
        CT_TRY(ct_entry_decode(envelope.payload, &decoded));
        if (decoded.kind == CT_ENTRY_ROUND_CLOSED) {
            return close_round(replay, entry, verify, blobs, blobs_user);
        }
    }
    CT_TRY(ct_fold_apply(fold, entry, verify, blobs, blobs_user));
    if (before == CT_PHASE_EMPTY && fold->phase != CT_PHASE_EMPTY) {
        return draw_first_model(replay);
    }
    if (fold->phase == CT_PHASE_COMMIT && before == CT_PHASE_IDLE && fold->round == 1 &&
        replay->theta_valid) {
        return check_first_base(replay);
    }
    return CT_OK;
}
