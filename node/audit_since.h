/* The log that an audit is shown, held to a checkpoint that its auditor has from another time or
 * another place: --since, and what an earlier audit verified. */
#ifndef NODE_AUDIT_SINCE_H
#define NODE_AUDIT_SINCE_H

#include "audit_pass.h"

enum ct_audit_held {
    CT_HELD_CONSISTENT, /* one history, and the checkpoint is of it */
    CT_HELD_SHORTER,    /* the log shown is shorter; nothing proves that it is another one */
    CT_HELD_FORKED,     /* two histories; the evidence is written */
    CT_HELD_NEITHER,    /* no checkpoint of this log, or not decided */
};

/* Holds the loaded log to the signed `note` (`whose`: where it is from, for people). All but the
 * first are findings. Of two sizes the smaller tree is looked for in the larger: in the entries
 * that were loaded, or, of a larger note, in the entries that `dir` kept of an earlier audit and in
 * the tiles that the source still has.
 *
 * Evidence (evidence.h) goes into `dir`, or the working directory where that is "", under a name of
 * its own content: two-histories-<16 hex>.evidence; report->evidence has the path. An error is
 * ours. *out_checkpoint is what the note says, where its signature holds. */
CT_MUST_CHECK enum ct_err ct_audit_hold(struct ct_audit *audit, const char *dir,
                                        struct ct_bytes note, const char *whose,
                                        struct ct_checkpoint *out_checkpoint,
                                        enum ct_audit_held *out);

/* --since of the options. CT_ERR_NOT_FOUND, CT_ERR_FORMAT: the auditor's own file cannot be read,
 * or is no signed checkpoint. */
CT_MUST_CHECK enum ct_err ct_audit_since(struct ct_audit *audit, const char *dir);

#endif
