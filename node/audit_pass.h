/* What the parts of an audit share, and its pass over the log. */
#ifndef NODE_AUDIT_PASS_H
#define NODE_AUDIT_PASS_H

#include "audit_log.h"
#include "audit_units.h"
#include "ref_sort.h"

#include <cotrain/replay.h>

struct ct_audit {
    struct ct_source *source;
    struct ct_pool *pool;
    const struct ct_audit_options *options;
    struct ct_audit_report *report;
    struct ct_audit_log log;
    uint64_t end; /* entries that the fold accepted */
    /* Blobs that are to be held to what names them: all, for a directory's files; for a URL or part
     * of a run those that the pass does not read anyway. */
    struct ct_ref_sort *named;
    bool whole_directory; /* its files are accounted for one by one */
    struct ct_units *units;
    uint32_t snapshot_rounds; /* of the manifest; 0 before the pass */
    uint64_t verified;        /* entries below were verified by an earlier audit */
    /* Payloads that may be gone are looked for all the same: in a directory, and where one more
     * place of blobs was given. Else they count as gone. */
    bool seeks_expired;
    struct ct_manifest manifest; /* owned; zeroed before ct_audit_draw_line */
    uint64_t looked_seconds;     /* when the line was looked for again */
};

bool ct_audit_is_narrow(const struct ct_audit_narrow *narrow);
/* Whether an entry of the log is looked at; node is 0 where it is about none. */
bool ct_audit_wants(const struct ct_audit_narrow *narrow, uint64_t index, uint32_t node,
                    uint32_t round);

/* Every entry through the fold, signatures and payloads on all cores; fills the report but for what
 * files and recomputation bring. θ moves along from round `from_round` on, or not at all
 * (CT_REPLAY_NEVER). */
CT_MUST_CHECK enum ct_err ct_audit_pass(struct ct_audit *audit, uint32_t from_round);

/* θ alone, from the snapshot of `from_round` through `last_round`: entries are folded again, not
 * verified. For an audit of some rounds. */
CT_MUST_CHECK enum ct_err ct_audit_replay(struct ct_audit *audit, uint32_t from_round,
                                          uint32_t first_round, uint32_t last_round);

/* A ct_blob_source; user is the struct ct_source. A blob that is there with other bytes is as good
 * as one that is not: who keeps a bad copy is no author, so nothing follows from it but a look
 * elsewhere. So in an audit CT_ERR_DIGEST always means that something recomputed is different. */
enum ct_err ct_audit_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                          struct ct_buf *out);
/* An entry holds by the fold's rules, and θ does not follow: a mismatch if it was recomputed,
 * broken if a payload can be no update, unavailable if something is not there, and nothing at all
 * if that has expired. */
void ct_audit_find_model(struct ct_audit *audit, uint64_t index, uint32_t round, enum ct_err err);

/* Finds out which payloads may be gone, before the pass: report->expired.rounds and line. */
CT_MUST_CHECK enum ct_err ct_audit_draw_line(struct ct_audit *audit);
/* Whether a payload of that round, which is not there, need not be: by the tree that is audited,
 * or, as the run may have gone on meanwhile, by what it has published since. */
bool ct_audit_has_expired(struct ct_audit *audit, uint32_t round);
/* Takes note of a received payload that has expired and is not to be had. */
void ct_audit_note_gone(struct ct_audit *audit, uint32_t round, const struct ct_blob_ref *update);
/* A round has closed; `merges` unless payloads that it merged are gone. *base_known tells whether
 * the model that it started from can be had, true before the first; then the next round's. */
void ct_audit_note_base(struct ct_audit *audit, const struct ct_fold *fold, bool merges,
                        bool *base_known);

/* Accounts for every file below the run directory: verified, known and private, or a finding; and
 * for every blob that entries name. */
CT_MUST_CHECK enum ct_err ct_audit_files(struct ct_audit *audit);
/* The kept checkpoints among them. */
CT_MUST_CHECK enum ct_err ct_audit_checkpoints(struct ct_audit *audit, const char *directory);
/* The same for the blobs alone, wherever they are. */
CT_MUST_CHECK enum ct_err ct_audit_blobs(struct ct_audit *audit);

/* Reads what the nodes of the report show of themselves, into it; a record that is not what the
 * node was admitted with is a finding. CT_ERR_MEMORY. */
CT_MUST_CHECK enum ct_err ct_audit_profiles(struct ct_audit *audit);

/* Keeps a round's numbers in the report: nodes, bins. */
CT_MUST_CHECK enum ct_err ct_audit_tally_start(struct ct_audit_report *report,
                                               const struct ct_fold *fold);
CT_MUST_CHECK enum ct_err ct_audit_tally_node(struct ct_audit_report *report,
                                              const struct ct_fold *fold);
void ct_audit_tally_commit(struct ct_audit_report *report, const struct ct_fold *fold,
                           const struct ct_fold_node *node, enum ct_outcome outcome);
void ct_audit_tally_round(struct ct_audit_report *report, const struct ct_audit_round *round);
void ct_audit_tally_end(struct ct_audit_report *report, const struct ct_fold *fold);

#endif
