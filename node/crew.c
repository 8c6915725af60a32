#include "crew.h"

#include "contribution.h"
#include "node_dir.h"
#include "train_slot.h"

#include <cotrain/assert.h>
#include <cotrain/limits.h>
#include <cotrain/log.h>
#include <cotrain/pairwise.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What rank 0 wants next. */
struct order {
    enum { MEET = 1, WORK, KEEP, DISMISS } kind;
    struct ct_hash key;        /* MEET */
    struct ct_compute_job job; /* WORK */
    uint64_t bytes; /* WORK: of the manifest, 0 when they have it; KEEP: of the payload */
    struct ct_pending pending; /* KEEP */
};

/* What a rank answers to MEET. */
struct answer {
    bool keeps, has_identity;
};

static enum ct_err share(struct ct_site *site, void *data, size_t bytes) {
    return site->calls->share(site, data, bytes);
}

enum ct_err ct_crew_meet(struct ct_site *site, const struct ct_hash *key, char *out,
                         size_t capacity) {
    struct order order = {.kind = MEET, .key = *key};
    struct answer mine = {true, true}, all[CT_LEAVES_MAX];
    out[0] = '\0';
    if (site->ranks == 1) {
        return CT_OK;
    }
    CT_TRY(share(site, &order, sizeof order));
    CT_TRY(site->calls->gather(site, &mine, all, sizeof mine));
    size_t length = (size_t)snprintf(
        out, capacity, "a site of %u ranks; what a round leaves is kept by rank 0", site->ranks);
    for (uint32_t rank = 1; rank < site->ranks && length < capacity; rank++) {
        if (all[rank].keeps) {
            length += (size_t)snprintf(
                out + length, capacity - length, " and %u%s", rank,
                all[rank].has_identity ? ""
                                       : " (which lacks the node's identity: copy " CT_NODE_IDENTITY
                                         " to its --dir, so that the site can go on from there)");
        }
    }
    return CT_OK;
}

enum ct_err ct_crew_open(struct ct_crew *crew, struct ct_bytes manifest,
                         const struct ct_hash *run_seed, const struct ct_blobs *blobs) {
    if (crew->open) {
        return CT_OK;
    }
    CT_TRY(ct_workshop_open(&crew->workshop, manifest, run_seed, blobs, crew->site, crew->threads));
    crew->open = true;
    return CT_OK;
}

/* The state that the assignment goes on from, to those who do not hold it. */
static enum ct_err share_state(struct ct_crew *crew, const struct ct_compute_job *job) {
    struct ct_train_state *state = &crew->workshop.state;
    const size_t bytes = crew->workshop.layout.parameters * sizeof(float);
    const bool holds = crew->site->rank == 0 || (!ct_hash_is_zero(&crew->held) &&
                                                 ct_hash_equal(&crew->held, &job->merged_state));
    bool all[CT_LEAVES_MAX], missing = false;
    if (job->assignment.reset) {
        return CT_OK;
    }
    CT_TRY(crew->site->calls->gather(crew->site, &holds, all, sizeof holds));
    for (uint32_t rank = 0; rank < crew->site->ranks; rank++) {
        missing |= !all[rank];
    }
    if (!missing) {
        return CT_OK;
    }
    CT_TRY(share(crew->site, &state->step, sizeof state->step));
    CT_TRY(share(crew->site, state->m, bytes));
    CT_TRY(share(crew->site, state->v, bytes));
    return share(crew->site, state->e, bytes);
}

/* A round's work as every rank does it. */
static enum ct_err work(struct ct_crew *crew, const struct ct_compute_job *job,
                        struct ct_work_result *out) {
    struct ct_workshop *workshop = &crew->workshop;
    CT_TRY(share(crew->site, workshop->base, workshop->layout.parameters * sizeof(float)));
    CT_TRY(share_state(crew, job));
    crew->held = (struct ct_hash){{0}};
    enum ct_err err = ct_work_run(&workshop->work, &job->assignment, &job->assignments_digest,
                                  job->tokens_at_base, job->planned_tokens, workshop->base,
                                  &workshop->state, out);
    const bool done = err == CT_OK;
    err = ct_site_agree(crew->site, err);
    if (err == CT_OK) {
        /* A rank whose memory or arithmetic is faulty shows here, before anything is signed. */
        err = ct_site_same(crew->site, "what the round left", &out->state, sizeof out->state);
    }
    if (err == CT_OK) {
        crew->held = out->state;
    } else if (done) {
        ct_buf_deinit(&out->payload);
    }
    return err;
}

enum ct_err ct_crew_work(struct ct_crew *crew, struct ct_bytes manifest,
                         const struct ct_compute_job *job, struct ct_work_result *out) {
    if (crew->site->ranks > 1) {
        struct order order = {.kind = WORK, .job = *job};
        order.bytes = crew->others_open ? 0 : manifest.length;
        CT_TRY(share(crew->site, &order, sizeof order));
        if (order.bytes > 0) {
            CT_TRY(share(crew->site, (void *)(uintptr_t)manifest.data, manifest.length));
            CT_TRY(ct_site_agree(crew->site, CT_OK));
            crew->others_open = true;
        }
    }
    return work(crew, job, out);
}

enum ct_err ct_crew_keep(struct ct_crew *crew, const struct ct_pending *pending,
                         struct ct_bytes payload) {
    struct order order = {.kind = KEEP};
    if (crew->site->ranks == 1) {
        return CT_OK;
    }
    if (pending != NULL) {
        order.pending = *pending;
        order.bytes = payload.length;
    }
    CT_TRY(share(crew->site, &order, sizeof order));
    if (pending == NULL) {
        return CT_OK;
    }
    CT_TRY(share(crew->site, (void *)(uintptr_t)payload.data, payload.length));
    const enum ct_err err = ct_site_agree(crew->site, CT_OK);
    if (err != CT_OK && err != CT_ERR_NETWORK) {
        ct_log(CT_LOG_WARN, "node", "the round is kept here alone: %s", ct_err_detail());
        return CT_OK;
    }
    return err;
}

void ct_crew_dismiss(struct ct_site *site) {
    struct order order = {.kind = DISMISS};
    if (site->ranks > 1 && site->calls->check(site) == CT_OK) {
        (void)share(site, &order, sizeof order);
    }
}

void ct_crew_close(struct ct_crew *crew) {
    if (crew->open) {
        ct_workshop_close(&crew->workshop);
    }
    crew->open = false;
}

/* Locks DIR if nobody of this site has, and looks for the identity. */
static enum ct_err meet(struct ct_crew *crew, const char *dir, const char *identity,
                        const struct ct_hash *key, int *out_lock) {
    struct answer mine = {false, false}, all[CT_LEAVES_MAX];
    char path[CT_NODE_PATH_MAX];
    struct ct_key *own = NULL;
    if (dir != NULL && ct_dir_make(dir) == CT_OK && ct_node_dir_lock(dir, out_lock) == CT_OK) {
        mine.keeps = true;
        crew->dir = dir;
    }
    if (identity == NULL && dir != NULL && ct_node_path(dir, CT_NODE_IDENTITY, path) == CT_OK) {
        identity = path;
    }
    if (mine.keeps && identity != NULL && ct_identity_open(identity, false, &own, NULL) == CT_OK) {
        const struct ct_hash its = ct_key_public(own);
        mine.has_identity = ct_hash_equal(&its, key);
        ct_key_free(own);
    }
    return crew->site->calls->gather(crew->site, &mine, all, sizeof mine);
}

static enum ct_err store(struct ct_crew *crew, const struct ct_pending *pending,
                         struct ct_bytes payload) {
    struct ct_blobs blobs;
    char path[CT_NODE_PATH_MAX];
    if (crew->dir == NULL) {
        return CT_OK;
    }
    CT_TRY(ct_node_path(crew->dir, CT_NODE_BLOBS, path));
    CT_TRY(ct_blobs_init(&blobs, path));
    CT_TRY(ct_contribution_keep(crew->dir, &blobs, pending, payload));
    if (crew->kept_round != 0 && crew->kept_round != pending->round) {
        ct_contribution_forget(crew->dir, crew->kept_round);
    }
    crew->kept_round = pending->round;
    return CT_OK;
}

/* A rank that leaves out a call would keep the others waiting, so one without memory ends here, and
 * the launcher ends the site. */
static uint8_t *reserve(size_t bytes) {
    uint8_t *data = malloc(bytes);
    CT_ASSERT(data != NULL);
    return data;
}

/* Takes and keeps what rank 0 stored, then the state behind it. */
static enum ct_err keep(struct ct_crew *crew, const struct order *order) {
    char path[CT_NODE_PATH_MAX];
    if (order->pending.round == 0) {
        return CT_OK;
    }
    uint8_t *payload = reserve(order->bytes);
    enum ct_err err = share(crew->site, payload, order->bytes);
    if (err == CT_OK) {
        const struct ct_bytes bytes = {payload, order->bytes};
        err = ct_site_agree(crew->site, store(crew, &order->pending, bytes));
    }
    free(payload);
    CT_TRY(err);
    if (crew->dir == NULL) {
        return CT_OK;
    }
    CT_TRY(ct_node_path(crew->dir, CT_NODE_STATE, path));
    return ct_train_slots_save(path, &crew->workshop.layout, order->pending.round, &crew->held,
                               &crew->workshop.state);
}

/* The first assignment brings the manifest. */
static enum ct_err open_other(struct ct_crew *crew, const struct order *order) {
    if (order->bytes == 0) {
        return CT_OK;
    }
    CT_ASSERT(order->bytes <= CT_MANIFEST_BYTES_MAX);
    uint8_t *manifest = reserve(order->bytes);
    enum ct_err err = share(crew->site, manifest, order->bytes);
    if (err == CT_OK) {
        const struct ct_bytes bytes = {manifest, order->bytes};
        err = ct_site_agree(crew->site, ct_crew_open(crew, bytes, NULL, NULL));
    }
    free(manifest);
    return err;
}

static enum ct_err work_other(struct ct_crew *crew, const struct order *order) {
    struct ct_work_result result;
    CT_TRY(open_other(crew, order));
    CT_TRY(work(crew, &order->job, &result));
    ct_buf_deinit(&result.payload);
    return CT_OK;
}

enum ct_err ct_crew_serve(struct ct_site *site, const char *dir, const char *identity,
                          uint32_t threads) {
    struct ct_crew crew = {.site = site, .threads = threads};
    struct order order = {.kind = MEET};
    enum ct_err err = CT_OK;
    int lock = -1;
    while (order.kind != DISMISS) {
        err = share(site, &order, sizeof order);
        if (err == CT_OK && order.kind == MEET) {
            err = meet(&crew, dir, identity, &order.key, &lock);
        } else if (err == CT_OK && order.kind == WORK) {
            err = work_other(&crew, &order);
        } else if (err == CT_OK && order.kind == KEEP) {
            err = keep(&crew, &order);
        }
        /* What else fails, rank 0 knows, and decides what comes next. */
        if (err == CT_ERR_NETWORK) {
            break;
        }
        if (err != CT_OK && err != CT_ERR_STATE) {
            ct_log(CT_LOG_WARN, "node", "rank %u: %s", site->rank, ct_err_detail());
        }
    }
    ct_crew_close(&crew);
    if (lock >= 0) {
        close(lock);
    }
    return err == CT_ERR_NETWORK ? err : CT_OK;
}
