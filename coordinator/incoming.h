/* Payloads on their way: DIR/incoming/<node>-<round>, outside the store until commits have closed,
 * so that nothing of an open round is served. */
#ifndef COORDINATOR_INCOMING_H
#define COORDINATOR_INCOMING_H

#include "roster.h"
#include "run.h"

/* Bytes that are there; 0 without a file. */
CT_MUST_CHECK enum ct_err ct_incoming_length(const char *dir, uint32_t node, uint32_t round,
                                             uint64_t *out);
/* Writes at `offset`, which is the file's length so far; what lies behind is cut off first. */
CT_MUST_CHECK enum ct_err ct_incoming_write(const char *dir, uint32_t node, uint32_t round,
                                            uint64_t offset, struct ct_bytes data);

/* Makes the file durable and holds it to the commit: CT_OK, CT_ERR_DIGEST or CT_ERR_FORMAT as
 * ct_payload_check says, CT_ERR_IO. Without a file the store is looked into. Any thread. */
CT_MUST_CHECK enum ct_err ct_incoming_check(const struct ct_run *run,
                                            const struct ct_commit *commit, struct ct_hash *body);
/* Moves it into the store, or, what is no right payload, into DIR/evidence. Any thread; no effect
 * if it was moved before. */
CT_MUST_CHECK enum ct_err ct_incoming_store(const struct ct_run *run,
                                            const struct ct_commit *commit, bool is_evidence);
/* Whether a chunk can be written: CT_ERR_FULL if not. */
CT_MUST_CHECK enum ct_err ct_incoming_room(const char *dir);
/* Removes what rounds up to `round` left. */
void ct_incoming_sweep(const char *dir, uint32_t round);

/* Keeps a refused statement in DIR/evidence, named by its digest; a full folder keeps no more. */
void ct_evidence_keep(const char *dir, uint32_t node, uint32_t round, struct ct_bytes statement);

#endif
