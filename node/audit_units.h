/* The units of a run, (node, epoch), and which of them an auditor's seed draws.
 *
 * Every unit has a number that follows from (seed, node, epoch): words 1 and 0 of Philox block
 * node · 2^32 + epoch, stream audit, key = the seed's eight bytes. N units drawn are those with the
 * N smallest numbers; share i of n are those of rank i − 1 modulo n in the order of numbers. So a
 * draw is uniform, anyone can repeat it, and nobody who does not know the seed can foresee it. */
#ifndef NODE_AUDIT_UNITS_H
#define NODE_AUDIT_UNITS_H

#include "audit.h"

struct ct_unit {
    uint32_t node, epoch;
    uint32_t first_round, last_round;
    uint32_t commits;
    uint64_t steps, payload_bytes;
    uint64_t number; /* of the draw */
};

struct ct_units;

CT_MUST_CHECK enum ct_err ct_units_open(const struct ct_audit_options *options,
                                        struct ct_units **out);
void ct_units_close(struct ct_units *units);

/* Takes note of a commit that the fold has just accepted; `wanted` when it is part of what is
 * looked at: a unit counts when one of its commits is. A unit can be recomputed when every one of
 * its commits has a `base_known`, since it follows from those alone; others cannot be chosen. */
CT_MUST_CHECK enum ct_err ct_units_commit(struct ct_units *units, const struct ct_fold *fold,
                                          const struct ct_fold_node *node, bool wanted,
                                          bool base_known);
/* No more commits: the chosen ones ascending by first round, then node; valid until closed. */
CT_MUST_CHECK enum ct_err ct_units_end(struct ct_units *units, const struct ct_unit **out,
                                       uint32_t *out_count, uint32_t *out_total);
/* After the end: units that cannot be recomputed any more, and their commits. */
void ct_units_expired(const struct ct_units *units, uint32_t *out_units, uint32_t *out_commits);

#endif
