/* The sync thread: owns what follows the ledger (follow.h) and does its blocking work. The loop's
 * thread calls everything here. */
#ifndef NODE_SYNC_H
#define NODE_SYNC_H

#include "follow.h"

struct ct_sync_options {
    const char *dir;
    struct ct_hash run_id;
    struct ct_hash key;       /* this node's public key */
    void (*wake)(void *user); /* on the sync thread, when a result waits to be taken */
    void *user;
};

/* What stays the same in a run, for the computation and for people. */
struct ct_run_facts {
    char name[64];
    struct ct_hash run_seed;
    struct ct_blob_ref manifest;
    uint32_t rounds;
    enum ct_numerics numerics;
    uint64_t parameters;
    uint64_t tokens_per_step;
};

enum ct_sync_kind { CT_SYNC_VIEW, CT_SYNC_FAILED, CT_SYNC_SAVED };
struct ct_sync_result {
    enum ct_sync_kind kind;
    enum ct_err err; /* FAILED, SAVED */
    char detail[500];
    struct ct_view view;
    struct ct_run_facts facts;
    uint64_t received; /* bytes over HTTP, in all */
};

struct ct_sync;

CT_MUST_CHECK enum ct_err ct_sync_open(const struct ct_sync_options *options, struct ct_sync **out);
/* Cancels, keeps θ for the next start, waits for the thread. NULL is allowed. */
void ct_sync_close(struct ct_sync *sync);

/* Where to read from now on, and the run's first entry (the same at every call). The first base is
 * the coordinator. */
void ct_sync_sources(struct ct_sync *sync, const struct ct_run_opened *opened,
                     char (*bases)[CT_FETCH_URL_MAX], uint32_t count);
/* Goes to the note, or to what the coordinator's GET /checkpoint says when it is empty, and fetches
 * the data set the first time: one VIEW or FAILED. Sources are known by then. */
void ct_sync_advance(struct ct_sync *sync, struct ct_bytes note);
/* Writes θ as a model directory: one SAVED. */
void ct_sync_save_model(struct ct_sync *sync);

bool ct_sync_take(struct ct_sync *sync, struct ct_sync_result *out);

/* For ct_follow_copy_base and the blob store alone; after the first VIEW. */
struct ct_follow *ct_sync_follow(struct ct_sync *sync);

#endif
