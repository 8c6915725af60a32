/* Taking part in a run: carries out what node.c decides, on a libuv loop with the compute and the
 * sync thread beside it. */
#ifndef NODE_JOIN_H
#define NODE_JOIN_H

#include "site.h"

#include <cotrain/crypto.h>
#include <cotrain/ticket.h>
#include <cotrain/volunteer.h>

struct ct_join_options {
    struct ct_ticket ticket;
    const char *dir;               /* exists and is locked by the caller */
    const struct ct_key *key;      /* the node's identity */
    struct ct_volunteer volunteer; /* shown to all; empty: nothing is */
    struct ct_site *site;          /* this is its rank 0 */
    uint32_t threads;              /* 0: all */
    uint32_t until_round;          /* 0: to the end */
    bool json;
};

/* Trains until the run is finished (DIR/model is written), until_round is closed, or SIGINT or
 * SIGTERM comes: CT_OK. CT_ERR_REFUSED and others with the reason in words. CT_ERR_NETWORK: the
 * site has lost a rank; what it had is on disk. */
CT_MUST_CHECK enum ct_err ct_join_run(const struct ct_join_options *options);

#endif
