/* What people are told of a run's witnesses, as an array of
 *   {name, state, size, lag, error | null}
 * size: of the largest tree that the witness is known to have cosigned; lag: how many published
 * entries are behind that. state: "unasked", "cosigns", "away", "ahead", "forked" (witnesses.h),
 * "overruled" where the operator goes on against its word; or, when nobody serves the run,
 * "unknown". */
#ifndef COORDINATOR_WITNESS_STATUS_H
#define COORDINATOR_WITNESS_STATUS_H

#include "run.h"
#include "witnesses.h"

#include <jansson.h>

/* Of a coordinator at work; `witnesses` may be NULL. An array in any case, or NULL without memory;
 * the caller's. */
json_t *ct_witness_status(struct ct_witnesses *witnesses, uint64_t published);

/* Of a run directory: what the coordinator that serves it now says, or else what the ledger's own
 * checkpoints bear. Blocks up to 2 s when `served`. */
json_t *ct_witness_status_of(const struct ct_run *run, bool served);

#endif
