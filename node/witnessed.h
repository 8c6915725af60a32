/* A run's witnesses as a node sees them: it keeps their names beside its receipts, brings each
 * receipt under a checkpoint that the quorum has cosigned once there is one, and warns while there
 * is none (protocol.md section 7). On the sync thread. */
#ifndef NODE_WITNESSED_H
#define NODE_WITNESSED_H

#include "ledger_copy.h"

#include <cotrain/fetch.h>
#include <cotrain/fold.h>
#include <cotrain/policy.h>

struct ct_witnessed {
    struct ct_policy *policy; /* owned; NULL: the run names none, or not known yet */
    bool known;               /* the manifest was read */
    uint32_t done_round;      /* receipts up to this round are under the quorum */
    uint32_t without;         /* checkpoints since the last one that had it */
    uint64_t size;            /* of the largest tree that is known to have it */
};

void ct_witnessed_deinit(struct ct_witnessed *witnessed);

/* After `note` was accepted as the copy's newest checkpoint. Where it lacks the quorum and there
 * are receipts that want one, the bases are asked for the newest checkpoint that has it. What
 * cannot be done now is tried again at the next call. CT_ERR_FORKED, the evidence being stored
 * (fork.h): the quorum has cosigned another history than this copy. Nothing else fails the node. */
CT_MUST_CHECK enum ct_err ct_witnessed_advance(struct ct_witnessed *witnessed, const char *dir,
                                               const struct ct_ledger_copy *copy,
                                               const struct ct_fold *fold, struct ct_bytes note,
                                               struct ct_fetch *fetch);

/* Whether a stored receipt is not under the quorum that the run promises. */
bool ct_witnessed_pending(const struct ct_witnessed *witnessed, const char *dir,
                          const struct ct_fold *fold);

#endif
