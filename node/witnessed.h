/* A run's witnesses as a node sees them: it keeps their names beside its receipts, brings each
 * receipt under a checkpoint that the quorum has cosigned once there is one, and warns while there
 * is none (protocol.md section 7). On the sync thread. */
#ifndef NODE_WITNESSED_H
#define NODE_WITNESSED_H

#include "fetch.h"

#include <cotrain/fold.h>
#include <cotrain/policy.h>

struct ct_witnessed {
    struct ct_policy *policy; /* owned; NULL: the run names none, or not known yet */
    bool known;               /* the manifest was read */
    uint32_t done_round;      /* receipts up to this round are under the quorum */
    uint32_t without;         /* checkpoints since the last one that had it */
};

void ct_witnessed_deinit(struct ct_witnessed *witnessed);

/* After `note` was accepted as the newest checkpoint. What cannot be done now is tried again at the
 * next one; nothing here fails the node. */
void ct_witnessed_advance(struct ct_witnessed *witnessed, const char *dir,
                          const struct ct_fold *fold, struct ct_bytes note, struct ct_fetch *fetch);

#endif
