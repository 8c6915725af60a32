/* What a node has on disk of its own contributions.
 *
 * DIR/pending/round-NNNNNN.commit        the signed commit, from before it is sent until the round
 *                                        is over; its payload is a blob in DIR/blobs and stays
 * DIR/receipts/round-NNNNNN.tlog-proof   its receipt, for ever */
#ifndef NODE_CONTRIBUTION_H
#define NODE_CONTRIBUTION_H

#include "node.h"
#include "work.h"

/* Makes the commit of a computed round, signs it, and stores payload and commit durably, in this
 * order. `commit` is complete but for `update`, which is set here. */
CT_MUST_CHECK enum ct_err ct_contribution_store(const char *dir, const struct ct_blobs *blobs,
                                                const struct ct_key *key, struct ct_commit *commit,
                                                struct ct_bytes payload, struct ct_pending *out);

/* Stores what another machine of the site has made, likewise. */
CT_MUST_CHECK enum ct_err ct_contribution_keep(const char *dir, const struct ct_blobs *blobs,
                                               const struct ct_pending *pending,
                                               struct ct_bytes payload);

/* The newest pending contribution; out->round is 0 when there is none. Ones that are
 * damaged or lack their payload are removed with a log line. */
CT_MUST_CHECK enum ct_err ct_contribution_load(const char *dir, const struct ct_blobs *blobs,
                                               const struct ct_hash *run_id,
                                               struct ct_pending *out);

/* Removes the commit of a round that is over; no effect if it is not there. */
void ct_contribution_forget(const char *dir, uint32_t round);

/* Stores a verified receipt durably. */
CT_MUST_CHECK enum ct_err ct_contribution_receipt(const char *dir, uint32_t round,
                                                  struct ct_bytes text);

/* Appends the receipt of a round; CT_ERR_NOT_FOUND. */
CT_MUST_CHECK enum ct_err ct_contribution_read_receipt(const char *dir, uint32_t round,
                                                       struct ct_buf *out);

/* Receipts that are there. */
uint32_t ct_contribution_receipts(const char *dir);

#endif
