/* The ledger is the database: a run's state is a fold over its entries, and every rule of rounds is
 * checked here, once, for coordinator, node and auditor alike (protocol.md sections 4, 5 and 7).
 *
 * Pure: no clock, no files but the blobs that entries name, no network. fold.c opens with the rules
 * and the table of phases. */
#ifndef COTRAIN_FOLD_H
#define COTRAIN_FOLD_H

#include <cotrain/blob.h>
#include <cotrain/codec.h>
#include <cotrain/credit.h>
#include <cotrain/entry.h>
#include <cotrain/manifest.h>

enum ct_phase {
    CT_PHASE_EMPTY,    /* no run_opened yet */
    CT_PHASE_IDLE,     /* between rounds */
    CT_PHASE_COMMIT,   /* round opened */
    CT_PHASE_UPLOAD,   /* commits closed */
    CT_PHASE_FINISHED, /* the last round is closed */
};

/* A node's part in the open round. */
enum ct_part {
    CT_PART_NONE, /* not assigned */
    CT_PART_ASSIGNED,
    CT_PART_COMMITTED,
    CT_PART_RECEIVED,
    CT_PART_REFUSED, /* its commit was refused (copy, malformed, …) */
};

struct ct_fold_node {
    uint32_t number; /* from 1; nodes[number − 1] */
    struct ct_hash key;
    struct ct_hash profile; /* what the admission binds the volunteer's record to (volunteer.h) */
    bool established;
    uint32_t admitted_round;
    uint32_t epochs;       /* started so far; the current one is epochs − 1 */
    uint32_t epoch_index;  /* rounds of the current epoch that were assigned */
    uint32_t epoch_rounds; /* length of the current epoch */
    uint32_t last_round;   /* last assigned; 0 never */
    bool last_merged;      /* that round was merged: the next one may continue the epoch */
    struct ct_hash state;  /* of its last merged commit */
    uint32_t merged_rounds;
    uint64_t merged_tokens;
    /* of them, those of epoch n, for the current epoch and the ones before that are in escrow:
     * epoch_tokens[n mod (CT_ESCROW_EPOCHS + 1)] (credit.h) */
    uint64_t epoch_tokens[CT_ESCROW_EPOCHS + 1];
    /* the open round; commit and its index stay until the next one */
    enum ct_part part;
    bool refused_logged; /* at most one refused entry per (node, round) */
    uint64_t commit_index;
    struct ct_commit commit;
};

struct ct_range {
    uint64_t position, count;
};

struct ct_fold {
    uint64_t entries; /* applied so far */
    struct ct_hash run_id, run_seed;
    struct ct_run_opened opened;
    struct ct_manifest manifest;
    struct ct_layout layout;
    struct ct_chunks chunks;

    enum ct_phase phase;
    uint32_t round;       /* the open one, or the last closed */
    struct ct_hash model; /* digest of θ after the last closed round (θ₀ before the first) */
    bool model_known;     /* false until the first round_opened names θ₀ */
    uint64_t tokens;      /* merged so far */
    struct ct_round_opened round_opened;
    struct ct_hash seed;                 /* of the round, from commits closed on */
    struct ct_assignments assignments;   /* of the open or last closed round */
    struct ct_round_closed round_closed; /* of the last closed round */

    uint64_t next_position;  /* data positions from here on were never assigned */
    uint32_t returned_count; /* ranges that were assigned and not merged, ascending */
    struct ct_range *returned;

    uint32_t snapshot_round; /* newest snapshot; 0 is θ₀ (drawn, no blob needed) */
    struct ct_hash snapshot;

    uint32_t node_count;
    struct ct_fold_node *nodes;
};

/* A fold stays where it is: `chunks` points to `layout`. */
void ct_fold_init(struct ct_fold *fold);
void ct_fold_deinit(struct ct_fold *fold);

/* Applies entry number fold->entries (an envelope's bytes). With `verify`, checks the coordinator's
 * signature and, in commits, the node's. CT_ERR_FORMAT, CT_ERR_SIGNATURE, CT_ERR_RULE with a
 * sentence that names the entry and the rule; blobs that are not there: the source's error. On
 * failure the state is as before the call. */
CT_MUST_CHECK enum ct_err ct_fold_apply(struct ct_fold *fold, struct ct_bytes entry, bool verify,
                                        ct_blob_source blobs, void *blobs_user);

/* The fold between rounds as bytes, for a cache on the same machine: everything but what entry 0
 * gives. CT_ERR_STATE within a round. Appends. */
CT_MUST_CHECK enum ct_err ct_fold_save(const struct ct_fold *fold, struct ct_buf *out);
/* Brings a fold of entry 0 alone forward to what was saved. CT_ERR_FORMAT for bytes that no fold of
 * this run saved; the fold is then to be ended. */
CT_MUST_CHECK enum ct_err ct_fold_restore(struct ct_fold *fold, struct ct_bytes bytes);

/* The blob that applying this entry will read (manifest, assignments, merge list), so that a
 * follower can fetch it first; false if none. */
bool ct_entry_needs_blob(const struct ct_entry *entry, struct ct_blob_ref *out);

const struct ct_fold_node *ct_fold_find_key(const struct ct_fold *fold, const struct ct_hash *key);

/* What the coordinator may choose about a node in a round; all else follows by rule. */
struct ct_plan_request {
    uint32_t node;  /* admitted number */
    uint32_t steps; /* in the manifest's steps_min…steps_max */
    bool has_state; /* holds the state of its last merged commit */
};

/* The round's assignments: epochs, resets and data ranges are determined by the fold and the
 * requests (ascending by node, at least one), and the fold refuses a round_opened whose blob is not
 * what this function makes of its (node, steps, reset) choices. Between rounds only; plan.c has the
 * rules. CT_ERR_RULE for a request that none of them allows. Ended with ct_assignments_deinit. */
CT_MUST_CHECK enum ct_err ct_plan_round(const struct ct_fold *fold,
                                        const struct ct_plan_request *requests, uint32_t count,
                                        struct ct_assignments *out);
uint64_t ct_plan_tokens(const struct ct_fold *fold, const struct ct_assignments *assignments);

/* Enough to close a phase: `part` is CT_PART_COMMITTED or CT_PART_RECEIVED. quorum_nodes parts are
 * at or past it and have half of the assigned tokens; or all are that still can be: assigned ones
 * that were not refused, and for payloads only those with a commit. So a phase that waits for
 * somebody is prolonged, and one where nobody is left to wait for ends, even with nothing. */
bool ct_fold_quorum(const struct ct_fold *fold, enum ct_part part);
/* All are at or past `part` that still can be (see ct_fold_quorum): nobody is waited for. */
bool ct_fold_all(const struct ct_fold *fold, enum ct_part part);

/* Rounds of epoch number `epoch` of a node: 2, 4, 8, then 1 + (Philox stream stagger, block `node`
 * of sub-stream 0, word 0) mod A, then A; never more than A. */
uint32_t ct_epoch_rounds(const struct ct_fold *fold, uint32_t node, uint32_t epoch);

/* Digests of models and states (numerics.md, SL1); the step counter is a little-endian u32. */
struct ct_hash ct_model_digest(const struct ct_layout *layout, const float *theta);
struct ct_hash ct_state_digest(const struct ct_layout *layout, const struct ct_train_state *state);

/* Aggregates the round that is in CT_PHASE_UPLOAD: checks the received payloads, applies SL1 to
 * base[parameters] and gives θ' (may be the same array) and the merge list (ended by the caller).
 * Without any received part θ' is base. A payload that is missing: the source's error; one that is
 * not what was committed to: ct_payload_check's; two equal bodies: CT_ERR_RULE. After a failure no
 * list is owned, and theta is as it was unless a payload was there once and not again.
 *
 * Memory: an eighth of the model, and one payload. Where the decoded updates need more, the source
 * is asked for each payload once for every such part of them. */
CT_MUST_CHECK enum ct_err ct_merge_round(const struct ct_fold *fold, ct_blob_source blobs,
                                         void *blobs_user, const float *base, float *theta,
                                         struct ct_merge_list *out);

/* Whether a payload is what its author committed to (CT_ERR_DIGEST) and a canonical update for its
 * assignment (CT_ERR_FORMAT). body receives the body's digest, by which copies are found. */
CT_MUST_CHECK enum ct_err ct_payload_check(const struct ct_fold *fold,
                                           const struct ct_commit *commit, struct ct_bytes payload,
                                           struct ct_hash *body);

#endif
