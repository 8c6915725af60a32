/* From a round's payloads to the next model. */
#include "fold_rules.h"

#include <cotrain/aggregate.h>
#include <cotrain/assert.h>

#include <stdlib.h>
#include <string.h>

static struct ct_hash body_digest(struct ct_bytes payload) {
    CT_ASSERT(payload.length >= CT_UPDATE_HEADER_BYTES);
    return ct_sha256((struct ct_bytes){payload.data + CT_UPDATE_HEADER_BYTES,
                                       payload.length - CT_UPDATE_HEADER_BYTES});
}

/* The rules of ct_payload_check; on success the caller ends `out`. */
static enum ct_err open_payload(const struct ct_fold *fold, const struct ct_commit *commit,
                                struct ct_bytes payload, struct ct_update *out,
                                struct ct_hash *body) {
    struct ct_hash sha256 = ct_sha256(payload);
    if (payload.length != commit->update.length ||
        !ct_hash_equal(&sha256, &commit->update.sha256)) {
        return ct_fail(CT_ERR_DIGEST, "node %u's payload of round %u is not what it committed to",
                       commit->author, commit->round);
    }
    if (ct_update_decode(&fold->chunks, payload, out) != CT_OK) {
        return ct_fail(CT_ERR_FORMAT, "node %u's payload of round %u: %s", commit->author,
                       commit->round, ct_err_detail());
    }
    if (!ct_hash_equal(&out->header.assignment, &commit->assignment) ||
        out->header.steps != commit->steps) {
        ct_update_deinit(out);
        return ct_fail(CT_ERR_FORMAT,
                       "node %u's payload of round %u was made for another assignment",
                       commit->author, commit->round);
    }
    *body = body_digest(payload);
    return CT_OK;
}

enum ct_err ct_payload_check(const struct ct_fold *fold, const struct ct_commit *commit,
                             struct ct_bytes payload, struct ct_hash *body) {
    struct ct_update update;
    CT_TRY(open_payload(fold, commit, payload, &update, body));
    ct_update_deinit(&update);
    return CT_OK;
}

/* The merged part of a round; arrays have room for every commit. */
struct merging {
    uint32_t count;
    const struct ct_fold_node **nodes;
    struct ct_update *updates;
    struct ct_hash *bodies;
    struct ct_sender *senders;
    struct ct_sender_share *shares;
};

static enum ct_err merging_init(struct merging *merging, uint32_t room) {
    room = room > 0 ? room : 1;
    *merging = (struct merging){0};
    merging->nodes = calloc(room, sizeof merging->nodes[0]);
    merging->updates = calloc(room, sizeof merging->updates[0]);
    merging->bodies = calloc(room, sizeof merging->bodies[0]);
    merging->senders = calloc(room, sizeof merging->senders[0]);
    merging->shares = calloc(room, sizeof merging->shares[0]);
    if (merging->nodes == NULL || merging->updates == NULL || merging->bodies == NULL ||
        merging->senders == NULL || merging->shares == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to merge %u contributions", room);
    }
    return CT_OK;
}

static void merging_deinit(struct merging *merging) {
    for (uint32_t i = 0; i < merging->count; i++) {
        ct_update_deinit(&merging->updates[i]);
    }
    free(merging->shares);
    free(merging->senders);
    free(merging->bodies);
    free(merging->updates);
    free(merging->nodes);
}

/* Fetches, checks and decodes a received payload; of two equal bodies the higher commit index must
 * have been refused. */
static enum ct_err merging_add(struct merging *merging, const struct ct_fold *fold,
                               const struct ct_fold_node *node, ct_blob_source blobs,
                               void *blobs_user) {
    struct ct_buf payload;
    CT_TRY(blobs(blobs_user, &node->commit.update, node->commit.update.length, &payload));
    uint32_t at = merging->count;
    enum ct_err err = open_payload(fold, &node->commit, ct_buf_bytes(&payload),
                                   &merging->updates[at], &merging->bodies[at]);
    ct_buf_deinit(&payload);
    if (err != CT_OK) {
        return err;
    }
    merging->nodes[at] = node;
    merging->senders[at] = (struct ct_sender){
        .update = &merging->updates[at],
        .weight = ct_fold_weight(fold, node),
        .established = node->established,
    };
    merging->count++;
    for (uint32_t i = 0; i < at; i++) {
        if (ct_hash_equal(&merging->bodies[i], &merging->bodies[at])) {
            return ct_fail(CT_ERR_RULE, "round %u: node %u's payload is a copy of node %u's",
                           fold->round, node->number, merging->nodes[i]->number);
        }
    }
    return CT_OK;
}

static enum ct_outcome outcome_of(const struct ct_fold_node *node) {
    switch (node->part) {
    case CT_PART_RECEIVED:
        return CT_OUTCOME_MERGED;
    case CT_PART_REFUSED:
        return CT_OUTCOME_REFUSED;
    case CT_PART_NONE:
    case CT_PART_ASSIGNED:
    case CT_PART_COMMITTED:
        break;
    }
    return CT_OUTCOME_MISSING;
}

/* The list with all commits; shares are set later, where there are any. */
static enum ct_err make_list(const struct ct_fold *fold, const struct ct_fold_node *const *commits,
                             uint32_t count, struct ct_merge_list *out) {
    *out = (struct ct_merge_list){.round = fold->round};
    out->items = calloc(count > 0 ? count : 1, sizeof out->items[0]);
    if (out->items == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a merge list of %u", count);
    }
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        enum ct_outcome outcome = outcome_of(commits[i]);
        out->items[i] = (struct ct_merge_item){
            .commit_index = commits[i]->commit_index,
            .node = commits[i]->number,
            .outcome = outcome,
            .weight = outcome == CT_OUTCOME_MERGED ? ct_fold_weight(fold, commits[i]) : 0,
        };
    }
    return CT_OK;
}

static void set_shares(struct ct_merge_list *list, const struct merging *merging) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i].outcome == CT_OUTCOME_MERGED) {
            list->items[i].weight_q22 = merging->shares[at].weight_q22;
            list->items[i].clip_q15 = merging->shares[at].clip_q15;
            at++;
        }
    }
    CT_ASSERT(at == merging->count);
}

enum ct_err ct_merge_round(const struct ct_fold *fold, ct_blob_source blobs, void *blobs_user,
                           const float *base, float *theta, struct ct_merge_list *out) {
    *out = (struct ct_merge_list){0};
    if (fold->phase != CT_PHASE_UPLOAD) {
        return ct_fail(CT_ERR_STATE, "a round is merged after its commits have closed");
    }
    const struct ct_fold_node **commits = calloc(fold->node_count + 1, sizeof commits[0]);
    if (commits == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to merge a round");
    }
    uint32_t count = ct_fold_commits(fold, commits);
    struct merging merging;
    enum ct_err err = merging_init(&merging, count);
    for (uint32_t i = 0; i < count && err == CT_OK; i++) {
        if (commits[i]->part == CT_PART_RECEIVED) {
            err = merging_add(&merging, fold, commits[i], blobs, blobs_user);
        }
    }
    if (err == CT_OK) {
        err = make_list(fold, commits, count, out);
    }
    if (err == CT_OK && merging.count > 0) {
        err = ct_aggregate(&fold->chunks, merging.senders, merging.count,
                           ct_outer_rate(fold->round, fold->manifest.rounds), base, theta,
                           merging.shares);
    } else if (err == CT_OK && base != theta) {
        memcpy(theta, base, fold->layout.parameters * sizeof theta[0]);
    }
    if (err == CT_OK) {
        set_shares(out, &merging);
    } else {
        ct_merge_list_deinit(out);
        *out = (struct ct_merge_list){0};
    }
    merging_deinit(&merging);
    free(commits);
    return err;
}
