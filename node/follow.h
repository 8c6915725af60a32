/* Following a run: the ledger's copy, the fold over it, and θ, brought forward as the log grows.
 *
 * Everything is verified here: signatures and rules by the fold, each aggregation by recomputing it
 * (replay.h). Blocking on disk and network; one thread at a time, except where told. */
#ifndef NODE_FOLLOW_H
#define NODE_FOLLOW_H

#include "ledger_copy.h"

#include <cotrain/replay.h>

#include <pthread.h>

struct ct_follow {
    char dir[4096];
    struct ct_hash run_id;
    struct ct_hash key; /* this node's public key */
    struct ct_blobs blobs;
    struct ct_ledger_copy copy;
    struct ct_ledger_cursor cursor; /* the next entry to apply */
    struct ct_fetch *fetch;         /* borrowed during a call */
    pthread_mutex_t lock;           /* over replay's theta */
    struct ct_replay replay;
    bool started;          /* replay was begun from entry 0 */
    uint32_t differences;  /* times θ was not what the log says */
    uint32_t last_round;   /* the last closed round, and of it: */
    bool last_merged;      /* this node's part was merged */
    float last_loss;       /* weighted mean over the senders */
    uint32_t last_senders; /* merged */
    uint32_t saved_round;  /* of DIR/theta */
};

/* What the node's state machine and its display need to know, copied out of the fold. */
struct ct_view {
    uint64_t entries;
    uint32_t round; /* open, or last closed */
    uint32_t rounds;
    enum ct_phase phase;
    bool theta_valid; /* θ is here, after round theta_round */
    uint32_t theta_round;
    struct ct_hash model; /* after the last closed round */
    uint64_t tokens;      /* merged so far */
    uint32_t last_round;  /* the last closed round, and of it: */
    bool last_merged;     /* this node's part was merged */
    float last_loss;      /* weighted mean over the senders */
    uint32_t last_senders;
    uint32_t differences;
    uint32_t checkpoint_length; /* the accepted checkpoint, with the log's signature alone */
    uint8_t checkpoint[CT_HELLO_NOTE_MAX];
    /* this node */
    uint32_t node;               /* its number; 0: not admitted yet */
    struct ct_hash merged_state; /* state digest of its last merged commit; zero: none to go on
                                    from */
    uint32_t merged_rounds;
    uint64_t merged_tokens;
    enum ct_part part;               /* in the open round */
    struct ct_hash committed_update; /* digest of the payload, at CT_PART_COMMITTED and beyond */
    struct ct_assignment assignment; /* from CT_PART_ASSIGNED on */
    struct ct_hash assignments_digest;
    uint64_t tokens_at_base, planned_tokens;
    uint32_t assigned_nodes;
};

/* Opens what DIR holds of the run. `run_opened` is ledger entry 0, checked by the caller against
 * the ticket. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_follow_open(struct ct_follow *follow, const char *dir,
                                         const struct ct_run_opened *run_opened,
                                         const struct ct_hash *run_id, const struct ct_hash *key);
/* Keeps θ in DIR/theta for the next start. */
void ct_follow_close(struct ct_follow *follow);

/* Goes on to a checkpoint: entries, the blobs they name, payloads, θ. After CT_ERR_NETWORK,
 * CT_ERR_NOT_FOUND and the like, calling again goes on where it stopped. CT_ERR_RULE,
 * CT_ERR_SIGNATURE, CT_ERR_FORMAT: the coordinator wrote what the rules forbid. CT_ERR_DIGEST: two
 * histories. Where payloads that θ needs have expired meanwhile (retention.h), it is taken from the
 * newest snapshot. A model that differs from the log's is no error: θ is dropped, built again from
 * the newest snapshot, and, the second time, the log line advises a memory test. */
CT_MUST_CHECK enum ct_err ct_follow_advance(struct ct_follow *follow, struct ct_bytes note,
                                            struct ct_fetch *fetch);

/* Fetches dataset.json and the shards of one split into the blob store. */
CT_MUST_CHECK enum ct_err ct_follow_fetch_data(struct ct_follow *follow, struct ct_fetch *fetch);

void ct_follow_view(const struct ct_follow *follow, struct ct_view *out);

/* Copies the base of `round` (θ after the round before it) into out[parameters]; CT_ERR_STATE when
 * θ is elsewhere. From any thread. */
CT_MUST_CHECK enum ct_err ct_follow_copy_base(struct ct_follow *follow, uint32_t round,
                                              size_t parameters, float *out);

#endif
