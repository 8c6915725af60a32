/* The audit of a run by someone who trusts nobody: every file, signature, digest and rule; with
 * replay every aggregation; with recompute contributions, to the bit (protocol.md section 10). */
#ifndef NODE_AUDIT_H
#define NODE_AUDIT_H

#include "source.h"

#include <cotrain/entry.h>

struct ct_audit_options {
    bool replay;
    bool recompute_all;
    uint32_t recompute_units; /* units (node, epoch) drawn with the auditor's seed */
    uint64_t seed;
    uint32_t threads; /* 0: all */
    /* Told about steps of the work, for people; may be NULL. */
    void (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void *progress_user;
};

enum ct_finding_kind {
    CT_FINDING_BROKEN,      /* malformed, unsigned, against the rules, or an unknown file */
    CT_FINDING_MISMATCH,    /* recomputed and different: accuses its author */
    CT_FINDING_UNAVAILABLE, /* not there, so not verified: accuses nobody */
};

struct ct_finding {
    enum ct_finding_kind kind;
    int64_t entry; /* −1: none */
    char file[160];
    char reason[400];
};

#define CT_FINDINGS_MAX 1000u /* more are counted, not listed */

struct ct_audit_report {
    uint64_t entries;
    uint32_t rounds;        /* closed */
    uint32_t contributions; /* commits whose payload was received */
    uint32_t replayed_rounds;
    uint32_t recomputed; /* contributions */
    uint32_t units;      /* of them whole (node, epoch) */
    uint64_t mismatches;
    uint64_t unavailable;
    struct ct_hash run_id;
    struct ct_hash model; /* after the last closed round: recomputed if replayed, else as logged */
    char name[64];
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_hash log_key;
    uint64_t finding_count;
    struct ct_finding *findings; /* owned */
    uint32_t private_count;
    char (*private_files)[160]; /* owned; there, known, and no part of an audit */
    uint32_t spare_count;       /* blobs that no entry names: left over by a crash; digests hold */
};

/* Fills the report whatever is wrong with the run; the run holds iff finding_count is 0. An error
 * is ours (no memory, no such source, CPU that cannot compute). Ended with ct_audit_report_deinit
 * in both cases. */
CT_MUST_CHECK enum ct_err ct_audit_run(struct ct_source *source,
                                       const struct ct_audit_options *options,
                                       struct ct_audit_report *out);
void ct_audit_report_deinit(struct ct_audit_report *report);

/* Adds a finding; detail is the reason. */
void ct_audit_find(struct ct_audit_report *report, enum ct_finding_kind kind, int64_t entry,
                   const char *file, const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
