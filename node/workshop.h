/* Everything that an assignment's computation needs, made from a run's public data: manifest,
 * layout, chunks, data windows, engine. A node opens one for itself, an auditor to repeat others'
 * work. */
#ifndef NODE_WORKSHOP_H
#define NODE_WORKSHOP_H

#include "work.h"

#include <cotrain/blob.h>
#include <cotrain/dataset.h>

struct ct_workshop {
    struct ct_manifest manifest;
    struct ct_layout layout;
    struct ct_chunks chunks;
    struct ct_corpus corpus;
    struct ct_windows windows;
    struct ct_engine *engine;
    struct ct_train_state state;
    float *gradient;     /* [parameters] */
    float *base;         /* [parameters] */
    struct ct_work work; /* ready for ct_work_run; hooks are the caller's to set */
};

/* manifest is the blob's content; dataset.json and the train shards are taken from `blobs` (whole
 * in memory). blobs NULL: without data, for a rank whose tokens come from rank 0. threads 0: all
 * that are this rank's. Does not move after opening: its parts point at each other. Ended with
 * ct_workshop_close; on failure nothing is owned. CT_ERR_CONFIG: the site's ranks cannot share the
 * run's steps. */
CT_MUST_CHECK enum ct_err ct_workshop_open(struct ct_workshop *workshop, struct ct_bytes manifest,
                                           const struct ct_hash *run_seed,
                                           const struct ct_blobs *blobs, struct ct_site *site,
                                           uint32_t threads);
void ct_workshop_close(struct ct_workshop *workshop);

#endif
