/* When a log's key signed a checkpoint that what one holds of the log does not lead to: whether
 * that is proof of two histories. For nodes and mirrors. */
#ifndef COTRAIN_FORK_H
#define COTRAIN_FORK_H

#include <cotrain/fetch.h>
#include <cotrain/merkle.h>
#include <cotrain/note.h>

#define CT_FORK_EVIDENCE "two-histories.evidence" /* evidence.h */

/* What one holds of a log. */
struct ct_fork_side {
    const char *origin;
    const struct ct_hash *log_key;
    struct ct_bytes note; /* the newest checkpoint that was accepted */
    ct_subtree_hash hash; /* of its tree */
    void *user;
};

/* Compares `note` with the newest accepted one, in the tree that the bases serve of the larger one,
 * and where `note` is smaller and they serve none, in one's own. CT_ERR_FORKED, with a sentence
 * that names the file: the evidence lies in DIR. CT_OK: one history after all. Others: it could not
 * be decided, for example because nobody serves that tree. Blocks. */
CT_MUST_CHECK enum ct_err ct_fork_seek(const struct ct_fork_side *own, struct ct_bytes note,
                                       struct ct_fetch *fetch, const char *dir);

#endif
