/* A round's assignments, and the data positions they take.
 *
 * A node goes on with its epoch if it was merged in the round just before, holds the state of that
 * commit and the epoch is not over; else its next epoch starts with a reset. Going by ascending
 * node, each takes steps · batch positions from the front of the lowest returned range that is long
 * enough, else fresh ones. */
#include "fold_rules.h"

#include <cotrain/assert.h>
#include <cotrain/philox.h>

#include <stdlib.h>
#include <string.h>

enum ct_err ct_ranges_copy(const struct ct_range *items, uint32_t count, uint32_t more,
                           struct ct_ranges *out) {
    *out = (struct ct_ranges){0};
    out->items = calloc((size_t)count + more + 1, sizeof out->items[0]);
    if (out->items == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u data ranges", count + more);
    }
    if (count > 0) {
        memcpy(out->items, items, count * sizeof items[0]);
    }
    out->count = count;
    return CT_OK;
}

void ct_ranges_add(struct ct_ranges *ranges, struct ct_range range) {
    uint32_t at = 0;
    while (at < ranges->count && ranges->items[at].position < range.position) {
        at++;
    }
    struct ct_range *items = ranges->items;
    bool joins_before = at > 0 && items[at - 1].position + items[at - 1].count == range.position;
    bool joins_after = at < ranges->count && range.position + range.count == items[at].position;
    if (joins_before && joins_after) {
        items[at - 1].count += range.count + items[at].count;
        memmove(&items[at], &items[at + 1], (ranges->count - at - 1) * sizeof items[0]);
        ranges->count--;
    } else if (joins_before) {
        items[at - 1].count += range.count;
    } else if (joins_after) {
        items[at].position = range.position;
        items[at].count += range.count;
    } else {
        memmove(&items[at + 1], &items[at], (ranges->count - at) * sizeof items[0]);
        items[at] = range;
        ranges->count++;
    }
}

bool ct_ranges_take(struct ct_ranges *ranges, uint64_t count, uint64_t *out_position) {
    for (uint32_t i = 0; i < ranges->count; i++) {
        struct ct_range *range = &ranges->items[i];
        if (range->count < count) {
            continue;
        }
        *out_position = range->position;
        range->position += count;
        range->count -= count;
        if (range->count == 0) {
            memmove(range, range + 1, (ranges->count - i - 1) * sizeof *range);
            ranges->count--;
        }
        return true;
    }
    return false;
}

uint32_t ct_epoch_rounds(const struct ct_fold *fold, uint32_t node, uint32_t epoch) {
    uint32_t most = fold->manifest.epoch_rounds;
    uint32_t rounds = most;
    if (epoch < 3) {
        rounds = 2u << epoch;
    } else if (epoch == 3) {
        struct ct_philox philox = ct_philox_make(&fold->run_seed, CT_STREAM_STAGGER);
        uint32_t block[4];
        ct_philox_block(&philox, node, 0, block);
        rounds = 1 + block[0] % most;
    }
    return rounds < most ? rounds : most;
}

static bool may_continue(const struct ct_fold *fold, const struct ct_fold_node *node) {
    return node->epochs > 0 && node->last_merged && node->last_round == fold->round &&
           node->epoch_index < node->epoch_rounds;
}

static enum ct_err check_request(const struct ct_fold *fold, const struct ct_plan_request *request,
                                 uint32_t node_before) {
    if (request->node <= node_before || request->node > fold->node_count) {
        return ct_fail(CT_ERR_RULE, "node %u is not admitted, or stands after node %u",
                       request->node, node_before);
    }
    if (request->steps < fold->manifest.steps_min || request->steps > fold->manifest.steps_max) {
        return ct_fail(CT_ERR_RULE, "node %u is given %u steps, the manifest has %u to %u",
                       request->node, request->steps, fold->manifest.steps_min,
                       fold->manifest.steps_max);
    }
    return CT_OK;
}

enum ct_err ct_plan_apply(const struct ct_fold *fold, const struct ct_plan_request *requests,
                          uint32_t count, struct ct_assignments *out, struct ct_ranges *out_left,
                          uint64_t *out_next_position) {
    *out = (struct ct_assignments){.run_id = fold->run_id, .round = fold->round + 1};
    if (fold->phase != CT_PHASE_IDLE) {
        return ct_fail(CT_ERR_STATE, "assignments are made between rounds");
    }
    if (count == 0) {
        return ct_fail(CT_ERR_RULE, "a round needs at least one assignment");
    }
    CT_TRY(ct_ranges_copy(fold->returned, fold->returned_count, 0, out_left));
    uint64_t next_position = fold->next_position;
    enum ct_err err = CT_OK;
    out->items = calloc(count, sizeof out->items[0]);
    if (out->items == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for %u assignments", count);
        goto out;
    }
    for (uint32_t i = 0; i < count; i++) {
        err = check_request(fold, &requests[i], i == 0 ? 0 : requests[i - 1].node);
        if (err != CT_OK) {
            goto out;
        }
        const struct ct_fold_node *node = &fold->nodes[requests[i].node - 1];
        bool goes_on = requests[i].has_state && may_continue(fold, node);
        struct ct_assignment *item = &out->items[i];
        *item = (struct ct_assignment){
            .node = node->number,
            .epoch = goes_on ? node->epochs - 1 : node->epochs,
            .index = goes_on ? node->epoch_index : 0,
            .reset = !goes_on,
            .steps = requests[i].steps,
        };
        uint64_t positions = (uint64_t)item->steps * fold->manifest.batch;
        if (!ct_ranges_take(out_left, positions, &item->position)) {
            item->position = next_position;
            next_position += positions;
        }
    }
    out->count = count;
    *out_next_position = next_position;
out:
    if (err != CT_OK) {
        ct_assignments_deinit(out);
        free(out_left->items);
        *out_left = (struct ct_ranges){0};
    }
    return err;
}

enum ct_err ct_plan_round(const struct ct_fold *fold, const struct ct_plan_request *requests,
                          uint32_t count, struct ct_assignments *out) {
    struct ct_ranges left;
    uint64_t next_position;
    CT_TRY(ct_plan_apply(fold, requests, count, out, &left, &next_position));
    free(left.items);
    return CT_OK;
}

uint64_t ct_plan_tokens(const struct ct_fold *fold, const struct ct_assignments *assignments) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < assignments->count; i++) {
        tokens += (uint64_t)assignments->items[i].steps * fold->manifest.batch *
                  fold->manifest.model.context;
    }
    return tokens;
}
