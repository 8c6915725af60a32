/* The recomputation of contributions: the same work again, compared with what its author signed.
 * A unit is (node, epoch): its whole state follows from the log since the epoch's reset.
 *
 * Units are taken one after the other: the model from the nearest snapshot, replayed to the epoch's
 * start, then the unit's rounds with replay in between. Memory is the model, one unit's state, the
 * training tokens, and the working set of a step. */
#ifndef NODE_RECOMPUTE_H
#define NODE_RECOMPUTE_H

#include "audit_pass.h"

/* Recomputes every contribution of the units, ascending by first round. Tells the cost first
 * (options->cost). Findings and counts go to the report. An error is ours (no memory). */
CT_MUST_CHECK enum ct_err ct_recompute_units(struct ct_audit *audit, const struct ct_unit *units,
                                             uint32_t count);

#endif
