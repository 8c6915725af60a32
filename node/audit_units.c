#include "audit_units.h"

#include <cotrain/assert.h>
#include <cotrain/philox.h>

#include <stdlib.h>
#include <string.h>

/* A node's unit that more commits may come to. */
struct open_unit {
    bool open, wanted;
    bool expired; /* one of its bases cannot be had */
    struct ct_unit unit;
};

struct ct_units {
    enum ct_audit_draw draw;
    uint32_t most, share, shares;
    struct ct_philox philox;
    uint32_t node_count;
    struct open_unit *nodes; /* by node number − 1 */
    uint32_t total;          /* units that could be chosen */
    uint32_t expired, expired_commits;
    uint32_t count, capacity;
    struct ct_unit *chosen; /* with CT_DRAW_SOME a heap, the largest number on top */
};

enum ct_err ct_units_open(const struct ct_audit_options *options, struct ct_units **out) {
    struct ct_units *units = calloc(1, sizeof *units);
    if (units == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for units");
    }
    struct ct_hash key = {{0}};
    for (int i = 0; i < 8; i++) {
        key.bytes[i] = (uint8_t)(options->seed >> (8 * i));
    }
    units->philox = ct_philox_make(&key, CT_STREAM_AUDIT);
    units->draw = options->draw;
    units->most = options->draw_units;
    units->share = options->draw_share;
    units->shares = options->draw_shares;
    *out = units;
    return CT_OK;
}

void ct_units_close(struct ct_units *units) {
    if (units != NULL) {
        free(units->nodes);
        free(units->chosen);
        free(units);
    }
}

/* Numbers may be equal, units are not: the order is total. */
static bool before(const struct ct_unit *a, const struct ct_unit *b) {
    if (a->number != b->number) {
        return a->number < b->number;
    }
    return a->node != b->node ? a->node < b->node : a->epoch < b->epoch;
}

static void swap(struct ct_unit *a, struct ct_unit *b) {
    const struct ct_unit kept = *a;
    *a = *b;
    *b = kept;
}

static void sift_up(struct ct_unit *heap, uint32_t at) {
    while (at > 0 && before(&heap[(at - 1) / 2], &heap[at])) {
        swap(&heap[(at - 1) / 2], &heap[at]);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct ct_unit *heap, uint32_t count) {
    uint32_t at = 0;
    for (uint32_t child = 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && before(&heap[child], &heap[child + 1]);
        if (!before(&heap[at], &heap[child])) {
            return;
        }
        swap(&heap[at], &heap[child]);
        at = child;
    }
}

static enum ct_err choose(struct ct_units *units, const struct ct_unit *unit) {
    if (units->draw == CT_DRAW_SOME && units->count == units->most) {
        if (before(unit, &units->chosen[0])) {
            units->chosen[0] = *unit;
            sift_down(units->chosen, units->count);
        }
        return CT_OK;
    }
    if (units->count == units->capacity) {
        const uint32_t capacity = units->capacity == 0 ? 64 : 2 * units->capacity;
        struct ct_unit *grown = realloc(units->chosen, capacity * sizeof *grown);
        if (grown == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for %u units", capacity);
        }
        units->chosen = grown;
        units->capacity = capacity;
    }
    units->chosen[units->count] = *unit;
    sift_up(units->chosen, units->count++);
    return CT_OK;
}

static enum ct_err finish(struct ct_units *units, struct open_unit *open) {
    if (!open->open) {
        return CT_OK;
    }
    open->open = false;
    if (open->expired) {
        units->expired += open->wanted;
        units->expired_commits += open->wanted ? open->unit.commits : 0;
        return CT_OK;
    }
    units->total += open->wanted;
    return open->wanted && units->draw != CT_DRAW_NONE ? choose(units, &open->unit) : CT_OK;
}

static uint64_t number_of(const struct ct_units *units, uint32_t node, uint32_t epoch) {
    uint32_t words[4];
    ct_philox_block(&units->philox, (uint64_t)node << 32 | epoch, 0, words);
    return (uint64_t)words[1] << 32 | words[0];
}

enum ct_err ct_units_commit(struct ct_units *units, const struct ct_fold *fold,
                            const struct ct_fold_node *node, bool wanted, bool base_known) {
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, node->number);
    CT_ASSERT(assignment != NULL);
    if (node->number > units->node_count) {
        struct open_unit *grown = realloc(units->nodes, node->number * sizeof *grown);
        if (grown == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for units");
        }
        memset(grown + units->node_count, 0, (node->number - units->node_count) * sizeof *grown);
        units->nodes = grown;
        units->node_count = node->number;
    }
    struct open_unit *open = &units->nodes[node->number - 1];
    if (!open->open || open->unit.epoch != assignment->epoch) {
        CT_TRY(finish(units, open));
        *open = (struct open_unit){
            .open = true,
            .unit = {.node = node->number,
                     .epoch = assignment->epoch,
                     .first_round = fold->round,
                     .number = number_of(units, node->number, assignment->epoch)},
        };
    }
    open->unit.last_round = fold->round;
    open->unit.commits++;
    open->unit.steps += assignment->steps;
    open->unit.payload_bytes += node->commit.update.length;
    open->wanted = open->wanted || wanted;
    open->expired = open->expired || !base_known;
    return CT_OK;
}

static int by_number(const void *a, const void *b) {
    return before(a, b) ? -1 : 1;
}

static int by_round(const void *left, const void *right) {
    const struct ct_unit *a = left;
    const struct ct_unit *b = right;
    if (a->first_round != b->first_round) {
        return a->first_round < b->first_round ? -1 : 1;
    }
    return a->node < b->node ? -1 : 1;
}

/* Every shares-th by rank. */
static void take_share(struct ct_units *units) {
    qsort(units->chosen, units->count, sizeof *units->chosen, by_number);
    uint32_t kept = 0;
    for (uint32_t rank = 0; rank < units->count; rank++) {
        if (rank % units->shares == units->share - 1) {
            units->chosen[kept++] = units->chosen[rank];
        }
    }
    units->count = kept;
}

enum ct_err ct_units_end(struct ct_units *units, const struct ct_unit **out, uint32_t *out_count,
                         uint32_t *out_total) {
    for (uint32_t i = 0; i < units->node_count; i++) {
        CT_TRY(finish(units, &units->nodes[i]));
    }
    if (units->count > 0 && units->draw == CT_DRAW_SHARE) {
        take_share(units);
    }
    if (units->count > 0) {
        qsort(units->chosen, units->count, sizeof *units->chosen, by_round);
    }
    *out = units->chosen;
    *out_count = units->count;
    *out_total = units->total;
    return CT_OK;
}

void ct_units_expired(const struct ct_units *units, uint32_t *out_units, uint32_t *out_commits) {
    *out_units = units->expired;
    *out_commits = units->expired_commits;
}
