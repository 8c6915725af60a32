#include "workshop.h"

#include <cotrain/limits.h>
#include <cotrain/pages.h>

#include <stdlib.h>
#include <string.h>

static enum ct_err locate(void *user, const struct ct_shard *shard, char *out_path) {
    ct_blobs_path(user, &shard->ref.sha256, out_path);
    return CT_OK;
}

static enum ct_err load_data(struct ct_workshop *workshop, const struct ct_hash *run_seed,
                             const struct ct_blobs *blobs) {
    struct ct_buf json;
    struct ct_dataset dataset;
    struct ct_blobs store = *blobs;
    CT_TRY(ct_blobs_get(blobs, &workshop->manifest.dataset, CT_DATASET_BYTES_MAX, &json));
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&json), &dataset);
    ct_buf_deinit(&json);
    CT_TRY(err);
    err = ct_corpus_load(&dataset, CT_SPLIT_TRAIN, locate, &store, &workshop->corpus);
    ct_dataset_deinit(&dataset);
    CT_TRY(err);
    return ct_windows_init(&workshop->windows, run_seed, workshop->corpus.tokens,
                           workshop->corpus.count, workshop->layout.shape.context);
}

static enum ct_err load_manifest(struct ct_workshop *workshop, struct ct_bytes manifest) {
    CT_TRY(ct_manifest_decode(manifest, &workshop->manifest));
    CT_TRY(ct_layout_init(&workshop->layout, &workshop->manifest.model));
    return ct_chunks_init(&workshop->chunks, &workshop->layout);
}

static enum ct_err open_engine(struct ct_workshop *workshop, const struct ct_site *site,
                               uint32_t threads) {
    struct ct_engine_options options = {
        .numerics = workshop->manifest.numerics,
        .batch = workshop->manifest.batch,
        .leaves = workshop->manifest.leaves,
        .threads = threads,
    };
    CT_TRY(ct_site_options(site, &options));
    size_t parameters = workshop->layout.parameters;
    CT_TRY(ct_engine_open(&workshop->layout, &options, &workshop->engine));
    CT_TRY(ct_train_state_init(&workshop->state, &workshop->layout, true));
    workshop->state.threads = options.threads;
    workshop->gradient = ct_pages_zeroed(parameters * sizeof(float));
    workshop->base = calloc(parameters, sizeof(float));
    if (workshop->gradient == NULL || workshop->base == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the gradient and base of %zu parameters",
                       parameters);
    }
    return CT_OK;
}

enum ct_err ct_workshop_open(struct ct_workshop *workshop, struct ct_bytes manifest,
                             const struct ct_hash *run_seed, const struct ct_blobs *blobs,
                             struct ct_site *site, uint32_t threads) {
    memset(workshop, 0, sizeof *workshop);
    enum ct_err err = load_manifest(workshop, manifest);
    if (err == CT_OK && blobs != NULL) {
        err = load_data(workshop, run_seed, blobs);
    }
    if (err == CT_OK) {
        err = open_engine(workshop, site, threads);
    }
    if (err != CT_OK) {
        ct_workshop_close(workshop);
        return err;
    }
    workshop->work = (struct ct_work){
        .manifest = &workshop->manifest,
        .chunks = &workshop->chunks,
        .windows = &workshop->windows,
        .engine = workshop->engine,
        .gradient = workshop->gradient,
        .site = site,
    };
    return CT_OK;
}

void ct_workshop_close(struct ct_workshop *workshop) {
    free(workshop->base);
    free(workshop->gradient);
    ct_train_state_deinit(&workshop->state);
    if (workshop->engine != NULL) {
        ct_engine_close(workshop->engine);
    }
    ct_corpus_deinit(&workshop->corpus);
    ct_chunks_deinit(&workshop->chunks);
    ct_layout_deinit(&workshop->layout);
    ct_manifest_deinit(&workshop->manifest);
    memset(workshop, 0, sizeof *workshop);
}
