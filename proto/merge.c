/* From a round's payloads to the next model.
 *
 * The rules of a chunk need every sender's part of it, and a model has many chunks, so a block of
 * them is read of each payload, aggregated, and then the next: what lies decoded in memory is at
 * most an eighth of the model, whatever the number of senders. Where they fit, as those of ten
 * senders do, there is one block, and every payload is asked for once. */
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

/* The rules of ct_payload_check; `out` gets what the update says before its first chunk. */
static enum ct_err check_payload(const struct ct_fold *fold, const struct ct_commit *commit,
                                 struct ct_bytes payload, struct ct_update *out,
                                 struct ct_hash *body) {
    struct ct_hash sha256 = ct_sha256(payload);
    if (payload.length != commit->update.length ||
        !ct_hash_equal(&sha256, &commit->update.sha256)) {
        return ct_fail(CT_ERR_DIGEST, "node %u's payload of round %u is not what it committed to",
                       commit->author, commit->round);
    }
    *out = (struct ct_update){0};
    if (ct_update_check(&fold->chunks, payload, &out->header, &out->norm) != CT_OK) {
        return ct_fail(CT_ERR_FORMAT, "node %u's payload of round %u: %s", commit->author,
                       commit->round, ct_err_detail());
    }
    if (!ct_hash_equal(&out->header.assignment, &commit->assignment) ||
        out->header.steps != commit->steps) {
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
    return check_payload(fold, commit, payload, &update, body);
}

/* One sender's part of a chunk. */
struct piece {
    uint16_t code;
    uint16_t positions[CT_CHUNK_SELECTED_MAX];
    uint8_t negative[CT_CHUNK_SELECTED_MAX];
};

struct part {
    const struct ct_fold_node *node;
    struct ct_update head; /* header and norm alone */
    struct ct_hash body;
    uint64_t position; /* in its payload, where the next block begins */
    struct piece *block;
};

/* The merged part of a round; arrays have room for every commit. */
struct merging {
    const struct ct_fold *fold;
    ct_blob_source blobs;
    void *blobs_user;
    uint32_t count;
    uint32_t per_block; /* chunks */
    struct part *parts;
    struct piece *pieces; /* all blocks */
    struct ct_sender *senders;
    struct ct_sent *sent;
    struct ct_sender_share *shares;
};

static uint32_t chunks_per_block(const struct ct_fold *fold, uint32_t room) {
    const uint64_t bytes = fold->layout.parameters * sizeof(float) / 8;
    const uint64_t most = bytes / (room * sizeof(struct piece));
    return most < 1 ? 1 : most < fold->chunks.count ? (uint32_t)most : fold->chunks.count;
}

static enum ct_err merging_init(struct merging *merging, uint32_t room) {
    room = room > 0 ? room : 1;
    merging->per_block = chunks_per_block(merging->fold, room);
    merging->parts = calloc(room, sizeof merging->parts[0]);
    merging->pieces = calloc((size_t)room * merging->per_block, sizeof merging->pieces[0]);
    merging->senders = calloc(room, sizeof merging->senders[0]);
    merging->sent = calloc(room, sizeof merging->sent[0]);
    merging->shares = calloc(room, sizeof merging->shares[0]);
    if (merging->parts == NULL || merging->pieces == NULL || merging->senders == NULL ||
        merging->sent == NULL || merging->shares == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to merge %u contributions", room);
    }
    return CT_OK;
}

static void merging_deinit(struct merging *merging) {
    free(merging->shares);
    free(merging->sent);
    free(merging->senders);
    free(merging->pieces);
    free(merging->parts);
}

/* Reads the block that begins with chunk `first`. */
static enum ct_err read_block(const struct merging *merging, struct part *part, uint32_t first,
                              struct ct_bytes payload) {
    struct ct_update_header header;
    struct ct_update_reader reader;
    CT_TRY(ct_update_open(&merging->fold->chunks, payload, &header, &reader));
    reader.chunk = first;
    reader.position = part->position;
    const uint32_t left = merging->fold->chunks.count - first;
    const uint32_t count = left < merging->per_block ? left : merging->per_block;
    for (uint32_t i = 0; i < count; i++) {
        struct piece *piece = &part->block[i];
        CT_TRY(ct_update_next(&reader, &piece->code, piece->positions, piece->negative));
    }
    part->position = reader.position;
    return CT_OK;
}

static enum ct_err fetch(const struct merging *merging, const struct part *part,
                         struct ct_buf *out) {
    const struct ct_blob_ref *ref = &part->node->commit.update;
    return merging->blobs(merging->blobs_user, ref, ref->length, out);
}

/* Of two equal bodies the higher commit index must have been refused. */
static enum ct_err check_copies(const struct merging *merging, const struct part *part) {
    for (const struct part *other = merging->parts; other < part; other++) {
        if (ct_hash_equal(&other->body, &part->body)) {
            return ct_fail(CT_ERR_RULE, "round %u: node %u's payload is a copy of node %u's",
                           merging->fold->round, part->node->number, other->node->number);
        }
    }
    return CT_OK;
}

/* Fetches and checks a received payload, and reads its first block. */
static enum ct_err merging_add(struct merging *merging, const struct ct_fold_node *node) {
    struct part *part = &merging->parts[merging->count];
    struct ct_buf payload;
    part->node = node;
    part->block = &merging->pieces[(size_t)merging->count * merging->per_block];
    CT_TRY(fetch(merging, part, &payload));
    enum ct_err err = check_payload(merging->fold, &node->commit, ct_buf_bytes(&payload),
                                    &part->head, &part->body);
    if (err == CT_OK) {
        err = read_block(merging, part, 0, ct_buf_bytes(&payload));
    }
    ct_buf_deinit(&payload);
    CT_TRY(err);
    merging->senders[merging->count++] = (struct ct_sender){
        .update = &part->head,
        .weight = ct_fold_weight(merging->fold, node),
        .established = node->established,
    };
    return check_copies(merging, part);
}

/* The block of every part from chunk `first` on; the first one is there. */
static enum ct_err read_blocks(struct merging *merging, uint32_t first) {
    enum ct_err err = CT_OK;
    for (uint32_t i = 0; first > 0 && i < merging->count && err == CT_OK; i++) {
        struct part *part = &merging->parts[i];
        struct ct_buf payload;
        CT_TRY(fetch(merging, part, &payload));
        err = read_block(merging, part, first, ct_buf_bytes(&payload));
        ct_buf_deinit(&payload);
    }
    return err;
}

static enum ct_err merge_chunks(struct merging *merging, float *theta) {
    const struct ct_chunks *chunks = &merging->fold->chunks;
    struct ct_aggregation *aggregation = NULL;
    CT_TRY(ct_aggregation_new(merging->senders, merging->count,
                              ct_outer_rate(merging->fold->round, merging->fold->manifest.rounds),
                              merging->shares, &aggregation));
    enum ct_err err = CT_OK;
    for (uint32_t c = 0; c < chunks->count && err == CT_OK; c++) {
        const uint32_t at = c % merging->per_block;
        if (at == 0) {
            err = read_blocks(merging, c);
        }
        for (uint32_t i = 0; i < merging->count; i++) {
            const struct piece *piece = &merging->parts[i].block[at];
            merging->sent[i] = (struct ct_sent){piece->code, piece->positions, piece->negative};
        }
        if (err == CT_OK) {
            ct_aggregation_move(aggregation, &chunks->chunks[c], merging->sent, theta);
        }
    }
    ct_aggregation_free(aggregation);
    return err;
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
    struct merging merging = {.fold = fold, .blobs = blobs, .blobs_user = blobs_user};
    enum ct_err err = merging_init(&merging, count);
    for (uint32_t i = 0; i < count && err == CT_OK; i++) {
        if (commits[i]->part == CT_PART_RECEIVED) {
            err = merging_add(&merging, commits[i]);
        }
    }
    if (err == CT_OK) {
        err = make_list(fold, commits, count, out);
    }
    if (err == CT_OK && base != theta) {
        memcpy(theta, base, fold->layout.parameters * sizeof theta[0]);
    }
    if (err == CT_OK && merging.count > 0) {
        err = merge_chunks(&merging, theta);
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
