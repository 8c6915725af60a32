/* When a coordinator signs a checkpoint that this node's copy of the ledger does not lead to:
 * whether that is proof of two histories. */
#ifndef NODE_FORK_H
#define NODE_FORK_H

#include "ledger_copy.h"

#define CT_FORK_EVIDENCE "two-histories.evidence" /* in the node's directory; evidence.h */

/* Compares `note` with the copy's last accepted checkpoint, in the tree that the bases serve of the
 * larger one, and where the note is smaller and they serve none, in the copy's own entries, all of
 * which are then read. CT_ERR_FORKED, with a sentence
 * that names the file: the evidence lies in DIR. CT_OK: one history after all. Others: it could not
 * be decided, for example because nobody serves that tree. Blocks; on the sync thread. */
CT_MUST_CHECK enum ct_err ct_fork_seek(const struct ct_ledger_copy *copy, const char *dir,
                                       struct ct_bytes note, struct ct_fetch *fetch);

#endif
