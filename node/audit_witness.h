/* Witnesses in an audit: the quorum that a run's manifest promises, or the auditor's own policy, is
 * insisted on (protocol.md section 7). All of the log is audited; the report tells up to where
 * witnesses have seen it, and what lies behind that is the log's word alone. */
#ifndef NODE_AUDIT_WITNESS_H
#define NODE_AUDIT_WITNESS_H

#include "audit_pass.h"

/* Reads the source's newest checkpoint with a quorum, as it was before the log's checkpoint is
 * read, so that an honest log that grows meanwhile leads on from it. Left empty when there is none.
 * `out` is initialised here. */
CT_MUST_CHECK enum ct_err ct_audit_witnessed_read(struct ct_source *source, struct ct_buf *out);

/* Holds the loaded log to `witnessed`, or to its own checkpoint where that has the quorum. Without
 * a checkpoint of the quorum there is a finding, and with one of another history evidence in `dir`
 * (audit_since.h). Nothing happens for a run without a policy and an auditor without one.
 * CT_ERR_FORMAT, CT_ERR_CONFIG: the auditor's policy is none, or of another log. */
CT_MUST_CHECK enum ct_err ct_audit_witnesses(struct ct_audit *audit, const char *dir,
                                             struct ct_bytes witnessed);

#endif
