#include "compute.h"

#include "contribution.h"
#include "crew.h"
#include "node_dir.h"
#include "train_slot.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct ct_compute {
    struct ct_compute_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    bool stop, has_job, has_result, has_progress, cancel;
    struct ct_compute_job job;
    struct ct_compute_result result;
    struct ct_compute_progress progress;
    /* the thread's own */
    char dir[CT_NODE_PATH_MAX];
    char state_dir[CT_NODE_PATH_MAX];
    struct ct_crew crew;
    struct ct_buf manifest; /* the blob, when the crew is open */
    struct ct_compute_job current;
    double step_started_s, started_s;
};

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool cancelled(void *user) {
    struct ct_compute *compute = user;
    pthread_mutex_lock(&compute->lock);
    bool yes = compute->stop || compute->cancel;
    pthread_mutex_unlock(&compute->lock);
    return yes;
}

static double tokens_per_step(const struct ct_compute *compute) {
    return (double)compute->crew.workshop.manifest.batch *
           compute->crew.workshop.layout.shape.context;
}

static void on_step(void *user, uint32_t step, float loss) {
    struct ct_compute *compute = user;
    double seconds = seconds_now() - compute->started_s;
    pthread_mutex_lock(&compute->lock);
    compute->has_progress = true;
    compute->progress = (struct ct_compute_progress){
        .round = compute->current.round,
        .step = step,
        .steps = compute->current.assignment.steps,
        .loss = loss,
        .tokens_per_s = (float)(tokens_per_step(compute) * step / (seconds > 0.0 ? seconds : 1.0)),
    };
    pthread_mutex_unlock(&compute->lock);
    compute->options.wake(compute->options.user);
}

static enum ct_err open_crew(struct ct_compute *compute) {
    const struct ct_compute_options *options = &compute->options;
    struct ct_crew *crew = &compute->crew;
    if (crew->open) {
        return CT_OK;
    }
    ct_buf_deinit(&compute->manifest);
    CT_TRY(ct_blobs_get(&options->blobs, &options->manifest, CT_MANIFEST_BYTES_MAX,
                        &compute->manifest));
    CT_TRY(
        ct_crew_open(crew, ct_buf_bytes(&compute->manifest), &options->run_seed, &options->blobs));
    crew->workshop.work.cancelled = cancelled;
    crew->workshop.work.progress = on_step;
    crew->workshop.work.user = compute;
    return CT_OK;
}

/* The state that the assignment continues from: in memory, or in a slot. */
static enum ct_err bring_state(struct ct_compute *compute, const struct ct_compute_job *job) {
    struct ct_crew *crew = &compute->crew;
    if (job->assignment.reset ||
        (!ct_hash_is_zero(&crew->held) && ct_hash_equal(&crew->held, &job->merged_state))) {
        return CT_OK;
    }
    crew->held = (struct ct_hash){{0}};
    return ct_train_slots_load(compute->state_dir, &crew->workshop.layout, &job->merged_state,
                               &crew->workshop.state);
}

/* Makes the contribution durable, here and at the keepers. */
static enum ct_err store(struct ct_compute *compute, struct ct_commit *commit,
                         struct ct_bytes payload, struct ct_pending *out) {
    const enum ct_err err = ct_contribution_store(compute->dir, &compute->options.blobs,
                                                  compute->options.key, commit, payload, out);
    if (err != CT_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", ct_err_detail());
        CT_TRY(ct_crew_keep(&compute->crew, NULL, payload));
        return ct_fail(err, "%s", why);
    }
    return ct_crew_keep(&compute->crew, out, payload);
}

static enum ct_err work(struct ct_compute *compute, const struct ct_compute_job *job,
                        struct ct_compute_result *out) {
    struct ct_workshop *workshop = &compute->crew.workshop;
    CT_TRY(open_crew(compute));
    CT_TRY(ct_follow_copy_base(compute->options.follow, job->round, workshop->layout.parameters,
                               workshop->base));
    CT_TRY(bring_state(compute, job));
    compute->started_s = seconds_now();
    struct ct_work_result done;
    CT_TRY(ct_crew_work(&compute->crew, ct_buf_bytes(&compute->manifest), job, &done));
    double seconds = seconds_now() - compute->started_s;
    struct ct_commit commit = {
        .version = 1,
        .run_id = compute->options.run_id,
        .round = job->round,
        .author = job->author,
        .assignment = job->assignments_digest,
        .state = done.state,
        .steps = job->assignment.steps,
        .skipped_steps = done.skipped_steps,
        .loss = done.loss,
    };
    const enum ct_err err = store(compute, &commit, ct_buf_bytes(&done.payload), &out->pending);
    ct_buf_deinit(&done.payload);
    CT_TRY(err);
    out->loss = done.loss;
    out->skipped_steps = done.skipped_steps;
    out->tokens_per_s =
        (float)(tokens_per_step(compute) * job->assignment.steps / (seconds > 0.0 ? seconds : 1.0));
    return CT_OK;
}

static void post(struct ct_compute *compute, const struct ct_compute_result *result) {
    pthread_mutex_lock(&compute->lock);
    while (compute->has_result && !compute->stop) {
        pthread_cond_wait(&compute->changed, &compute->lock);
    }
    compute->result = *result;
    compute->has_result = true;
    pthread_mutex_unlock(&compute->lock);
    compute->options.wake(compute->options.user);
}

static bool next_job(struct ct_compute *compute) {
    pthread_mutex_lock(&compute->lock);
    while (!compute->stop && !compute->has_job) {
        pthread_cond_wait(&compute->changed, &compute->lock);
    }
    bool go = !compute->stop;
    compute->current = compute->job;
    compute->has_job = false;
    compute->cancel = false;
    pthread_mutex_unlock(&compute->lock);
    return go;
}

static void *compute_main(void *user) {
    struct ct_compute *compute = user;
    while (next_job(compute)) {
        const struct ct_compute_job *job = &compute->current;
        struct ct_compute_result result = {.round = job->round};
        result.err = work(compute, job, &result);
        if (result.err != CT_OK) {
            snprintf(result.detail, sizeof result.detail, "%s", ct_err_detail());
            result.over = result.err == CT_ERR_NETWORK || result.err == CT_ERR_CONFIG;
        }
        post(compute, &result);
        if (result.err != CT_OK) {
            continue;
        }
        /* After the commit is on its way: without the slot a restart costs the epoch, no more. */
        if (ct_train_slots_save(compute->state_dir, &compute->crew.workshop.layout, job->round,
                                &compute->crew.held, &compute->crew.workshop.state) != CT_OK) {
            ct_log(CT_LOG_WARN, "node", "the epoch's state was not kept: %s", ct_err_detail());
        }
    }
    return NULL;
}

enum ct_err ct_compute_open(const struct ct_compute_options *options, struct ct_compute **out) {
    struct ct_compute *compute = calloc(1, sizeof *compute);
    if (compute == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the compute thread");
    }
    compute->options = *options;
    compute->crew.site = options->site;
    compute->crew.threads = options->threads;
    snprintf(compute->dir, sizeof compute->dir, "%s", options->dir);
    enum ct_err err = ct_node_path(options->dir, CT_NODE_STATE, compute->state_dir);
    if (err != CT_OK) {
        free(compute);
        return err;
    }
    CT_ASSERT(pthread_mutex_init(&compute->lock, NULL) == 0);
    CT_ASSERT(pthread_cond_init(&compute->changed, NULL) == 0);
    if (pthread_create(&compute->thread, NULL, compute_main, compute) != 0) {
        pthread_cond_destroy(&compute->changed);
        pthread_mutex_destroy(&compute->lock);
        free(compute);
        return ct_fail(CT_ERR_MEMORY, "cannot start the compute thread");
    }
    *out = compute;
    return CT_OK;
}

void ct_compute_close(struct ct_compute *compute) {
    if (compute == NULL) {
        return;
    }
    pthread_mutex_lock(&compute->lock);
    compute->stop = true;
    pthread_cond_broadcast(&compute->changed);
    pthread_mutex_unlock(&compute->lock);
    pthread_join(compute->thread, NULL);
    ct_crew_close(&compute->crew);
    ct_buf_deinit(&compute->manifest);
    pthread_cond_destroy(&compute->changed);
    pthread_mutex_destroy(&compute->lock);
    free(compute);
}

void ct_compute_start(struct ct_compute *compute, const struct ct_compute_job *job) {
    pthread_mutex_lock(&compute->lock);
    compute->job = *job;
    compute->has_job = true;
    compute->cancel = true;
    pthread_cond_broadcast(&compute->changed);
    pthread_mutex_unlock(&compute->lock);
}

void ct_compute_cancel(struct ct_compute *compute) {
    pthread_mutex_lock(&compute->lock);
    compute->cancel = true;
    compute->has_job = false;
    pthread_mutex_unlock(&compute->lock);
}

bool ct_compute_take(struct ct_compute *compute, struct ct_compute_result *out) {
    pthread_mutex_lock(&compute->lock);
    bool taken = compute->has_result;
    if (taken) {
        *out = compute->result;
        compute->has_result = false;
        pthread_cond_broadcast(&compute->changed);
    }
    pthread_mutex_unlock(&compute->lock);
    return taken;
}

bool ct_compute_look(struct ct_compute *compute, struct ct_compute_progress *out) {
    pthread_mutex_lock(&compute->lock);
    bool taken = compute->has_progress;
    if (taken) {
        *out = compute->progress;
        compute->has_progress = false;
    }
    pthread_mutex_unlock(&compute->lock);
    return taken;
}
