/* What an audit keeps, so that the next one goes on from there.
 *
 * DIR/lock           held while an audit works with it
 * DIR/entries        of a URL: the entries fetched so far (audit_copy.h)
 * DIR/blobs          of a URL: what was fetched and the fold needs again
 * DIR/checkpoint     the note of the last tree that was verified as a whole
 * DIR/verified.json  {"version": 1, "run_id", "size", "root", "replayed_round"}
 *
 * The new log must lead on from the kept checkpoint, or it was cut, or has two histories, which the
 * evidence in DIR/two-histories-….evidence proves (audit_since.h). Then signatures and payloads of
 * those entries need no second look. */
#ifndef NODE_AUDIT_STATE_H
#define NODE_AUDIT_STATE_H

#include "audit_pass.h"

#include <limits.h>

struct ct_audit_state {
    char dir[PATH_MAX]; /* "" when nothing is kept */
    int lock;
    bool has_verified;
    struct ct_hash run_id, root;
    uint64_t size;
    uint32_t replayed_round;
};

/* Finds and locks the directory that the options ask for. A URL's default is named by the run id of
 * its first entry. CT_ERR_STATE when another audit is at work there. */
CT_MUST_CHECK enum ct_err ct_audit_state_open(struct ct_source *source,
                                              const struct ct_audit_options *options,
                                              struct ct_audit_state *out);
void ct_audit_state_close(struct ct_audit_state *state);

/* Holds a loaded log to what was verified: findings, or from where to go on (audit->verified). A
 * state whose two files do not belong together is none. */
CT_MUST_CHECK enum ct_err ct_audit_state_match(const struct ct_audit_state *state,
                                               struct ct_audit *audit);

/* Keeps the point that has been reached, if nothing at all was found. */
CT_MUST_CHECK enum ct_err ct_audit_state_save(struct ct_audit_state *state,
                                              const struct ct_audit *audit,
                                              uint32_t replayed_round);

#endif
