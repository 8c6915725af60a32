/* A node's copy of the ledger held against a checkpoint that it does not lead to (fork.h). */
#ifndef NODE_COPY_FORK_H
#define NODE_COPY_FORK_H

#include "ledger_copy.h"

#include <cotrain/fork.h>

/* ct_fork_seek with the copy's accepted checkpoint and its own entries; the evidence lies in DIR.
 * On the sync thread. */
CT_MUST_CHECK enum ct_err ct_copy_fork_seek(const struct ct_ledger_copy *copy, const char *dir,
                                            struct ct_bytes note, struct ct_fetch *fetch);

#endif
