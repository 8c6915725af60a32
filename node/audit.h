/* The audit of a run by someone who trusts nobody: every file, signature, digest and rule; with
 * replay every aggregation; with recompute contributions, to the bit (protocol.md section 10).
 *
 * Memory does not grow with the ledger but for 40 bytes in every 256 entries, 8 bytes for every
 * kept checkpoint, and 56 bytes for every unit that is chosen to be recomputed. */
#ifndef NODE_AUDIT_H
#define NODE_AUDIT_H

#include "source.h"

#include <cotrain/fold.h>
#include <cotrain/volunteer.h>

enum ct_audit_draw {
    CT_DRAW_NONE,
    CT_DRAW_SOME,  /* `draw_units` of all units, each set of so many as likely as any other */
    CT_DRAW_SHARE, /* the draw_share-th of draw_shares parts of all units, apart and together all */
    CT_DRAW_ALL,
};

/* What of a run is looked at; all of it when zeroed. Every entry is folded all the same, since
 * rules follow from what came before; outside of this no signature is verified, and no blob is read
 * but those that the fold needs. */
struct ct_audit_narrow {
    bool has_range;
    uint64_t first, last; /* entries */
    uint32_t node;        /* 0: all */
    uint32_t round;       /* 0: all */
};

struct ct_audit_report;
struct ct_audit_round;

/* Told what goes by, for reports that keep every row. Each may be NULL; an error ends the audit. */
struct ct_audit_watch {
    void *user;
    enum ct_err (*node)(void *user, const struct ct_fold *fold, const struct ct_fold_node *node);
    /* Of each commit, when its round has closed. */
    enum ct_err (*contribution)(void *user, const struct ct_fold *fold,
                                const struct ct_fold_node *node, enum ct_outcome outcome);
    enum ct_err (*round)(void *user, const struct ct_audit_round *round);
    /* Of each contribution that was recomputed; `verdict` "" if nothing differs. */
    enum ct_err (*check)(void *user, uint64_t entry, uint32_t node, uint32_t round,
                         const char *verdict);
};

struct ct_audit_options {
    bool replay;
    enum ct_audit_draw draw; /* of units (node, epoch), with `seed` */
    uint32_t draw_units, draw_share, draw_shares;
    uint64_t seed;
    struct ct_audit_narrow narrow;
    uint32_t threads; /* 0: all */
    /* Keeps what was verified, and goes on from there: NULL for nothing. With `keep_default` a
     * URL's is $XDG_CACHE_HOME/cotrain/audit/RUNID (or ~/.cache/…). */
    const char *state_dir;
    bool keep_default;
    bool fresh; /* verify all again, whatever was verified before */
    /* A file with the witnesses that the auditor trusts (C2SP tlog-policy), or NULL for those that
     * the run's manifest names. */
    const char *policy;
    const char *since; /* a file with a checkpoint of the log that the auditor has, or NULL */
    const struct ct_audit_watch *watch; /* or NULL */
    /* Told about steps of the work, for people, and once about the cost of recomputing before it
     * begins; may be NULL. */
    void (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void (*cost)(void *user, const struct ct_audit_report *report);
    void *progress_user;
};

enum ct_finding_kind {
    CT_FINDING_BROKEN,      /* malformed, unsigned, against the rules, or an unknown file */
    CT_FINDING_MISMATCH,    /* recomputed and different: accuses its author */
    CT_FINDING_UNAVAILABLE, /* not there, so not verified: accuses nobody; never what has expired */
};

struct ct_finding {
    enum ct_finding_kind kind;
    int64_t entry; /* −1: none */
    char file[160];
    char reason[400];
};

#define CT_FINDINGS_MAX 1000u /* more are counted, not listed */
#define CT_PRIVATE_MAX  1000u /* likewise */

/* A closed round. */
struct ct_audit_round {
    uint32_t round, merged, commits;
    uint64_t entry; /* of its closing */
    int64_t time_ms;
    uint64_t tokens;
    uint64_t payload_bytes; /* of the merged ones */
    double loss;            /* mean of the merged nodes' statements, by tokens; 0 without any */
    struct ct_hash model;
    bool replayable; /* nothing that its aggregation follows from has expired and is gone */
};

/* Rounds in at most CT_AUDIT_BINS groups of equal length, for plots. */
#define CT_AUDIT_BINS 512u
struct ct_audit_bin {
    double loss_tokens; /* Σ loss · tokens */
    uint64_t tokens;
};

struct ct_audit_node {
    uint32_t node;
    struct ct_hash key, profile;
    struct ct_volunteer volunteer; /* what the node shows of itself; may be empty */
    uint32_t commits, merged, missing, refused, recomputed, mismatches;
    uint32_t admitted_round, last_round;
    struct ct_credit credit;
    uint64_t payload_bytes;
    float first_loss, last_loss;
    uint64_t *bins; /* [CT_AUDIT_BINS] owned; merged tokens, as report.bins groups rounds */
};

/* What recomputing takes: of the chosen units, and what has to be replayed on the way. */
struct ct_audit_cost {
    uint64_t steps, payload_bytes, replay_rounds;
    double step_seconds; /* measured here; 0 if it was not */
};

/* What the run's manifest lets expire, and what of it was not to be had (retention.h). */
struct ct_audit_expired {
    uint32_t rounds;  /* `retention`; 0: all is kept, and all below is 0 */
    uint32_t line;    /* payloads of rounds up to this one may be gone */
    uint64_t updates; /* received payloads that are, and their bytes */
    uint64_t bytes;
    uint32_t first_round, last_round; /* of them */
    uint32_t aggregations;            /* closed rounds whose model cannot be recomputed any more */
    /* The last round whose model can be had from its snapshot alone, so on the log's word: what
     * follows can be recomputed from there. 0: all can. */
    uint32_t trusted_round;
    /* Units of which not every base can be had any more: they are in no draw, nor in units_total.
     */
    uint32_t units, contributions;
};

struct ct_audit_report {
    uint64_t entries;
    uint32_t rounds;        /* closed */
    uint32_t contributions; /* commits of the log that were looked at */
    uint32_t replayed_rounds;
    uint32_t recomputed;  /* contributions */
    uint32_t units;       /* of them whole (node, epoch) that were chosen */
    uint32_t units_total; /* that could have been chosen */
    uint64_t signatures;  /* verified, entries' and commits' */
    uint64_t mismatches;
    uint64_t unavailable;
    struct ct_audit_expired expired;
    struct ct_audit_cost cost;
    struct ct_audit_since_report {
        char file[160]; /* "" when none was given */
        bool holds;     /* the log leads on from it */
        uint64_t size;
        struct ct_hash root;
    } since;
    struct ct_audit_witness_report {
        bool asked; /* by the run's manifest or by the auditor */
        char quorum[CT_ORIGIN_BYTES_MAX];
        uint64_t size; /* of the newest tree that the quorum has cosigned; 0: of none */
        struct ct_hash root;
        char names[400]; /* of those who did, by the policy's names, a space between */
    } witnesses;
    char evidence[4096]; /* the file that proves two histories, or "" */
    uint64_t from_entry; /* up to here an earlier audit had verified: signatures and payloads */
    uint32_t from_round; /* up to here aggregations were replayed by an earlier audit */
    struct ct_hash run_id;
    struct ct_hash model;  /* after the last closed round */
    bool model_recomputed; /* replayed to the end; else it is as logged */
    char name[64], license[64], data_license[64];
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_hash log_key;
    uint64_t tree_size; /* of the checkpoint that was verified */
    struct ct_hash tree_root;
    uint64_t tokens; /* merged */
    uint32_t rounds_planned;
    uint64_t finding_count;
    struct ct_finding *findings; /* owned */
    uint32_t private_count;
    char (*private_files)[160]; /* owned; there, known, and no part of an audit */
    uint32_t spare_count;       /* blobs that no entry names: left over by a crash; digests hold */
    uint32_t node_count;
    struct ct_audit_node *nodes;    /* owned; nodes[number − 1] */
    uint32_t bin_count, bin_rounds; /* bins in use; rounds in each */
    struct ct_audit_bin bins[CT_AUDIT_BINS];
    uint64_t received_bytes; /* over the network */
    double seconds;
    const struct ct_audit_options *options; /* as long as those of ct_audit_run live */
};

/* Fills the report whatever is wrong with the run; the run holds iff finding_count is 0. An error
 * is ours (no memory, no such source, CPU that cannot compute). Ended with ct_audit_report_deinit
 * in both cases. The report is large: it does not belong on a stack. */
CT_MUST_CHECK enum ct_err ct_audit_run(struct ct_source *source,
                                       const struct ct_audit_options *options,
                                       struct ct_audit_report *out);
void ct_audit_report_deinit(struct ct_audit_report *report);

/* Adds a finding; detail is the reason. */
void ct_audit_find(struct ct_audit_report *report, enum ct_finding_kind kind, int64_t entry,
                   const char *file, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Tells whoever asked for it. */
void ct_audit_progress(const struct ct_audit_report *report, const char *what, uint64_t done,
                       uint64_t total);
/* "blobs/ab/cdef…" */
void ct_audit_blob_file(const struct ct_hash *sha256, char out[160]);
/* "broken", "mismatch", "unavailable" */
const char *ct_finding_name(enum ct_finding_kind kind);

/* With which probability at least one of `cheated` units among `units` is in a draw of `drawn`,
 * each set equally likely: 1 − C(units − cheated, drawn) / C(units, drawn), hypergeometric. */
double ct_audit_chance(uint64_t units, uint64_t drawn, uint64_t cheated);

#endif
