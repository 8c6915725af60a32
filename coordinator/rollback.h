/* No rollback (protocol.md section 7): what others hold of this log is held against it, before and
 * while it is served. */
#ifndef COORDINATOR_ROLLBACK_H
#define COORDINATOR_ROLLBACK_H

#include "run.h"

/* Whether the published log in run->dir leads to `note`, a checkpoint that `whose` holds.
 * CT_ERR_RULE with a sentence for the operator when it does not although its own key signed it: the
 * log was rolled back, or there are two; the note is then kept in the run's evidence folder.
 * CT_ERR_FORMAT, CT_ERR_SIGNATURE: the note is not of this log, and says nothing. Reads files
 * alone; any thread. */
CT_MUST_CHECK enum ct_err ct_rollback_check(const struct ct_run *run, struct ct_bytes note,
                                            const char *whose);

/* Asks a mirror (a base URL) for its checkpoint and checks that. A mirror that is away or has none
 * is no failure. Blocks up to 5 s. */
CT_MUST_CHECK enum ct_err ct_rollback_ask_mirror(const struct ct_run *run, const char *url);

#endif
