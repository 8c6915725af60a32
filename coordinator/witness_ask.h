/* One witness is asked for its cosignature (C2SP tlog-witness, add-checkpoint). */
#ifndef COORDINATOR_WITNESS_ASK_H
#define COORDINATOR_WITNESS_ASK_H

#include <cotrain/exchange.h>
#include <cotrain/merkle.h>
#include <cotrain/policy.h>

/* Offers `note`, a checkpoint of `size` entries, to the witness. *known is the size that the
 * witness is thought to hold (0 at first) and then what it is known to hold. `hash` gives the
 * tree's hashes for the proof. On success `out` (initialised) is the answer's lines, that of the
 * witness verified.
 *
 * CT_ERR_RULE: it holds a larger checkpoint of this log (*known). CT_ERR_DIGEST: it holds one of
 * *known entries that the proof does not lead from. CT_ERR_REFUSED, CT_ERR_NETWORK, CT_ERR_STATE:
 * no cosignature for other reasons. */
CT_MUST_CHECK enum ct_err ct_witness_ask(struct ct_exchange *exchange,
                                         const struct ct_policy_member *witness,
                                         struct ct_bytes note, uint64_t size, ct_subtree_hash hash,
                                         void *user, uint64_t *known, struct ct_buf *out);

#endif
