/* The recomputation of contributions: the same work again, compared with what its author signed.
 * A unit is (node, epoch): its whole state follows from the log since the epoch's reset. */
#ifndef NODE_RECOMPUTE_H
#define NODE_RECOMPUTE_H

#include "audit.h"

#include <cotrain/replay.h>

/* A commit of the log: what a node claims to have computed. */
struct ct_claim {
    uint32_t node, epoch, round;
    uint64_t commit_index;
    bool received;
    bool chosen; /* its unit is to be recomputed */
    struct ct_commit commit;
};

/* Marks the contributions of `units` units drawn with the seed (all of them if there are fewer, or
 * with `all`); returns how many units were marked. */
uint32_t ct_recompute_draw(struct ct_claim *contributions, size_t count, bool all, uint32_t units,
                           uint64_t seed);

struct ct_recompute;

/* Reads the training tokens and opens an engine. fold has the manifest and must outlive it. */
CT_MUST_CHECK enum ct_err ct_recompute_open(const struct ct_fold *fold, struct ct_source *source,
                                            uint32_t threads, struct ct_recompute **out);
void ct_recompute_close(struct ct_recompute *recompute);

/* Recomputes every chosen contribution of the round that has just been opened in the replay.
 * contributions are those of the whole log, in its order. Findings and counts go to the report. An
 * error is ours (no memory). */
CT_MUST_CHECK enum ct_err ct_recompute_round(struct ct_recompute *recompute,
                                             const struct ct_replay *replay,
                                             const struct ct_claim *contributions, size_t count,
                                             struct ct_audit_report *report);

#endif
