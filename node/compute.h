/* The compute thread: owns engine and training state, does one assignment at a time, and makes the
 * contribution durable before it tells of it. The loop's thread calls everything here. */
#ifndef NODE_COMPUTE_H
#define NODE_COMPUTE_H

#include "node.h"
#include "site.h"

struct ct_compute_options {
    const char *dir;
    const struct ct_key *key;
    struct ct_hash run_id, run_seed;
    struct ct_blob_ref manifest;
    struct ct_blobs blobs;
    struct ct_follow *follow; /* gives the bases; outlives the thread */
    struct ct_site *site;     /* this is its rank 0 */
    uint32_t threads;         /* 0: all */
    /* Called on the compute thread when progress or a result waits to be taken. */
    void (*wake)(void *user);
    void *user;
};

struct ct_compute_job {
    uint32_t round, author;
    struct ct_assignment assignment;
    struct ct_hash assignments_digest;
    uint64_t tokens_at_base, planned_tokens;
    struct ct_hash merged_state; /* to go on from, unless the assignment resets */
};

struct ct_compute_result {
    enum ct_err err;
    bool over; /* with an err: no further job can succeed in this process */
    char detail[256];
    uint32_t round;
    struct ct_pending pending; /* when err is CT_OK */
    float loss, tokens_per_s;
    uint32_t skipped_steps;
};

struct ct_compute_progress {
    uint32_t round, step, steps;
    float loss, tokens_per_s;
};

struct ct_compute;

CT_MUST_CHECK enum ct_err ct_compute_open(const struct ct_compute_options *options,
                                          struct ct_compute **out);
/* Cancels and waits for the thread: at most a step and the writing of a state. NULL is allowed. */
void ct_compute_close(struct ct_compute *compute);

/* Gives the next job; one that is running is cancelled. Each job has one result. */
void ct_compute_start(struct ct_compute *compute, const struct ct_compute_job *job);
/* Ends the running job after its step with CT_ERR_STATE. */
void ct_compute_cancel(struct ct_compute *compute);

/* True when there was one. */
bool ct_compute_take(struct ct_compute *compute, struct ct_compute_result *out);
bool ct_compute_look(struct ct_compute *compute, struct ct_compute_progress *out);

#endif
