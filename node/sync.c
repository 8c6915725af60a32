#include "sync.h"

#include "copy_fork.h"
#include "node_dir.h"
#include "witnessed.h"

#include <cotrain/assert.h>
#include <cotrain/http.h>
#include <cotrain/log.h>
#include <cotrain/model_dir.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RESULTS_MAX     4u
#define SETTLE_TRIES    20
#define SETTLE_PAUSE_MS 500

struct ct_sync {
    struct ct_sync_options options;
    char dir[CT_NODE_PATH_MAX];
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    bool want_advance, want_save, new_sources;
    uint32_t note_length;
    uint8_t note[CT_CHECKPOINT_BYTES_MAX];
    struct ct_run_opened opened;
    uint32_t base_count;
    char bases[CT_FETCH_BASES_MAX][CT_FETCH_URL_MAX];
    uint32_t result_count;
    struct ct_sync_result results[RESULTS_MAX];
    /* the thread's own */
    struct ct_fetch *fetch;
    uint64_t received_before; /* by fetches that are closed */
    struct ct_follow follow;
    bool follow_open, has_data;
    struct ct_witnessed witnessed;
};

static bool stopped(void *user) {
    struct ct_sync *sync = user;
    return atomic_load(&sync->stop);
}

static void post(struct ct_sync *sync, const struct ct_sync_result *result) {
    pthread_mutex_lock(&sync->lock);
    /* One advance and one save are asked for at a time. */
    CT_ASSERT(sync->result_count < RESULTS_MAX);
    sync->results[sync->result_count++] = *result;
    pthread_mutex_unlock(&sync->lock);
    sync->options.wake(sync->options.user);
}

/* Takes new sources over; opens the follower the first time. */
static enum ct_err use_sources(struct ct_sync *sync) {
    const char *bases[CT_FETCH_BASES_MAX];
    struct ct_run_opened opened;
    struct ct_fetch *fetch = NULL;
    const struct ct_fetch_options options = {.cancelled = stopped, .user = sync};
    pthread_mutex_lock(&sync->lock);
    enum ct_err err = CT_OK;
    bool fresh = sync->new_sources;
    opened = sync->opened;
    if (fresh) {
        for (uint32_t i = 0; i < sync->base_count; i++) {
            bases[i] = sync->bases[i];
        }
        err = ct_fetch_open(bases, sync->base_count, &options, &fetch);
        sync->new_sources = err != CT_OK;
    }
    pthread_mutex_unlock(&sync->lock);
    CT_TRY(err);
    if (fetch != NULL) {
        if (sync->fetch != NULL) {
            sync->received_before += ct_fetch_received(sync->fetch);
        }
        ct_fetch_close(sync->fetch);
        sync->fetch = fetch;
    }
    CT_ASSERT(sync->fetch != NULL);
    if (!sync->follow_open) {
        CT_TRY(ct_follow_open(&sync->follow, sync->dir, &opened, &sync->options.run_id,
                              &sync->options.key));
        sync->follow_open = true;
    }
    return CT_OK;
}

static enum ct_err advance(struct ct_sync *sync, struct ct_buf *note) {
    CT_TRY(use_sources(sync));
    if (note->length == 0) {
        CT_TRY(ct_fetch_get_from(sync->fetch, 0, CT_HTTP_CHECKPOINT, note));
    }
    enum ct_err err = ct_follow_advance(&sync->follow, ct_buf_bytes(note), sync->fetch);
    if (err == CT_ERR_DIGEST || err == CT_ERR_RULE) {
        char why[400];
        snprintf(why, sizeof why, "%s", ct_err_detail());
        if (ct_copy_fork_seek(&sync->follow.copy, sync->dir, ct_buf_bytes(note), sync->fetch) ==
            CT_ERR_FORKED) {
            return CT_ERR_FORKED;
        }
        return ct_fail(err, "%s", why);
    }
    CT_TRY(err);
    CT_TRY(ct_witnessed_advance(&sync->witnessed, sync->dir, &sync->follow.copy,
                                &sync->follow.replay.fold, ct_buf_bytes(note), sync->fetch));
    if (!sync->has_data) {
        CT_TRY(ct_follow_fetch_data(&sync->follow, sync->fetch));
        sync->has_data = true;
    }
    return CT_OK;
}

static void collect_facts(const struct ct_sync *sync, struct ct_run_facts *out) {
    const struct ct_fold *fold = &sync->follow.replay.fold;
    memcpy(out->name, fold->manifest.name, sizeof out->name);
    out->run_seed = fold->run_seed;
    out->manifest = fold->opened.manifest;
    out->rounds = fold->manifest.rounds;
    out->numerics = fold->manifest.numerics;
    out->parameters = fold->layout.parameters;
    out->tokens_per_step = (uint64_t)fold->manifest.batch * fold->layout.shape.context;
}

static void do_advance(struct ct_sync *sync, struct ct_buf *note) {
    struct ct_sync_result result = {.kind = CT_SYNC_VIEW};
    result.err = advance(sync, note);
    if (result.err == CT_OK) {
        ct_follow_view(&sync->follow, &result.view);
        result.view.checkpoint_length =
            ct_ledger_copy_checkpoint(sync->follow.copy.dir, result.view.checkpoint);
        collect_facts(sync, &result.facts);
    } else {
        result.kind = CT_SYNC_FAILED;
        snprintf(result.detail, sizeof result.detail, "%s", ct_err_detail());
    }
    result.received =
        sync->received_before + (sync->fetch != NULL ? ct_fetch_received(sync->fetch) : 0);
    post(sync, &result);
}

/* Waits a moment, or until the end. */
static void pause_thread(struct ct_sync *sync, long ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&sync->lock);
    while (!atomic_load(&sync->stop) &&
           pthread_cond_timedwait(&sync->changed, &sync->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&sync->lock);
}

/* The run is over: the witnesses may need a moment for its last checkpoints, and nobody may be
 * there to serve them later. */
static enum ct_err settle_receipts(struct ct_sync *sync) {
    const struct ct_fold *fold = &sync->follow.replay.fold;
    for (int i = 0; i < SETTLE_TRIES && !atomic_load(&sync->stop) &&
                    ct_witnessed_pending(&sync->witnessed, sync->dir, fold);
         i++) {
        pause_thread(sync, SETTLE_PAUSE_MS);
        CT_TRY(ct_witnessed_advance(&sync->witnessed, sync->dir, &sync->follow.copy, fold,
                                    (struct ct_bytes){NULL, 0}, sync->fetch));
    }
    if (ct_witnessed_pending(&sync->witnessed, sync->dir, fold)) {
        ct_log(CT_LOG_WARN, "receipt",
               "some receipts have no quorum of witnesses yet: join again to renew them");
    }
    return CT_OK;
}

static void do_save(struct ct_sync *sync) {
    struct ct_sync_result result = {.kind = CT_SYNC_SAVED};
    char path[CT_NODE_PATH_MAX];
    const struct ct_replay *replay = &sync->follow.replay;
    if (!sync->follow_open || !replay->theta_valid) {
        result.err = ct_fail(CT_ERR_STATE, "there is no model to write");
    } else {
        result.err = ct_node_path(sync->dir, CT_NODE_MODEL, path);
        if (result.err == CT_OK) {
            result.err = ct_model_save(path, &replay->fold.layout, replay->theta);
        }
        if (result.err == CT_OK) {
            result.err = settle_receipts(sync);
        }
    }
    if (result.err != CT_OK) {
        snprintf(result.detail, sizeof result.detail, "%s", ct_err_detail());
    }
    post(sync, &result);
}

static void *sync_main(void *user) {
    struct ct_sync *sync = user;
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    for (;;) {
        pthread_mutex_lock(&sync->lock);
        while (!atomic_load(&sync->stop) && !sync->want_advance && !sync->want_save) {
            pthread_cond_wait(&sync->changed, &sync->lock);
        }
        bool want_advance = sync->want_advance;
        bool want_save = sync->want_save && !want_advance;
        sync->want_advance = false;
        sync->want_save = sync->want_save && !want_save;
        ct_buf_clear(&note);
        if (want_advance) {
            /* Fits: both have the same maximum. */
            (void)!ct_buf_append(&note, sync->note, sync->note_length);
        }
        pthread_mutex_unlock(&sync->lock);
        if (atomic_load(&sync->stop)) {
            break;
        }
        if (want_advance) {
            do_advance(sync, &note);
        } else {
            do_save(sync);
        }
    }
    ct_buf_deinit(&note);
    return NULL;
}

enum ct_err ct_sync_open(const struct ct_sync_options *options, struct ct_sync **out) {
    struct ct_sync *sync = calloc(1, sizeof *sync);
    if (sync == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the sync thread");
    }
    sync->options = *options;
    snprintf(sync->dir, sizeof sync->dir, "%s", options->dir);
    CT_ASSERT(pthread_mutex_init(&sync->lock, NULL) == 0);
    pthread_condattr_t attributes;
    CT_ASSERT(pthread_condattr_init(&attributes) == 0);
    CT_ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CT_ASSERT(pthread_cond_init(&sync->changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&sync->thread, NULL, sync_main, sync) != 0) {
        pthread_cond_destroy(&sync->changed);
        pthread_mutex_destroy(&sync->lock);
        free(sync);
        return ct_fail(CT_ERR_MEMORY, "cannot start the sync thread");
    }
    *out = sync;
    return CT_OK;
}

void ct_sync_close(struct ct_sync *sync) {
    if (sync == NULL) {
        return;
    }
    pthread_mutex_lock(&sync->lock);
    atomic_store(&sync->stop, true);
    pthread_cond_broadcast(&sync->changed);
    pthread_mutex_unlock(&sync->lock);
    pthread_join(sync->thread, NULL);
    if (sync->follow_open) {
        ct_follow_close(&sync->follow);
    }
    ct_witnessed_deinit(&sync->witnessed);
    ct_fetch_close(sync->fetch);
    pthread_cond_destroy(&sync->changed);
    pthread_mutex_destroy(&sync->lock);
    free(sync);
}

void ct_sync_sources(struct ct_sync *sync, const struct ct_run_opened *opened,
                     char (*bases)[CT_FETCH_URL_MAX], uint32_t count) {
    CT_ASSERT(count > 0 && count <= CT_FETCH_BASES_MAX);
    pthread_mutex_lock(&sync->lock);
    sync->opened = *opened;
    sync->base_count = count;
    memcpy(sync->bases, bases, count * sizeof *bases);
    sync->new_sources = true;
    pthread_mutex_unlock(&sync->lock);
}

void ct_sync_advance(struct ct_sync *sync, struct ct_bytes note) {
    CT_ASSERT(note.length <= sizeof sync->note);
    pthread_mutex_lock(&sync->lock);
    CT_ASSERT(sync->base_count > 0);
    if (note.length > 0) {
        memcpy(sync->note, note.data, note.length);
    }
    sync->note_length = (uint32_t)note.length;
    sync->want_advance = true;
    pthread_cond_broadcast(&sync->changed);
    pthread_mutex_unlock(&sync->lock);
}

void ct_sync_save_model(struct ct_sync *sync) {
    pthread_mutex_lock(&sync->lock);
    sync->want_save = true;
    pthread_cond_broadcast(&sync->changed);
    pthread_mutex_unlock(&sync->lock);
}

bool ct_sync_take(struct ct_sync *sync, struct ct_sync_result *out) {
    pthread_mutex_lock(&sync->lock);
    bool taken = sync->result_count > 0;
    if (taken) {
        *out = sync->results[0];
        sync->result_count--;
        memmove(sync->results, sync->results + 1, sync->result_count * sizeof sync->results[0]);
    }
    pthread_mutex_unlock(&sync->lock);
    return taken;
}

struct ct_follow *ct_sync_follow(struct ct_sync *sync) {
    return &sync->follow;
}
