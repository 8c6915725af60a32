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

/* Manifest, dataset.json and the train shards are taken from `source` (whole blobs in memory);
 * threads 0: all. Does not move after opening: its parts point at each other. Ended with
 * ct_workshop_close; on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_workshop_open(struct ct_workshop *workshop,
                                           const struct ct_blob_ref *manifest,
                                           const struct ct_hash *run_seed,
                                           const struct ct_blobs *blobs, uint32_t threads);
void ct_workshop_close(struct ct_workshop *workshop);

#endif
