/* The actions of the round: opening it, closing its commits, the merge job, closing it. */
#include "cache.h"
#include "incoming.h"
#include "profiles.h"
#include "round_seed.h"
#include "serve.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_open(const struct ct_fold *fold) {
    return fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
}

/* Seats as the fold's functions know them: by node number. */
static struct ct_seat *seat_of(const struct ct_serve *serve, uint32_t node) {
    struct ct_roster *roster = (struct ct_roster *)(uintptr_t)&serve->roster;
    struct ct_seat *seat = ct_roster_seat(roster, &serve->run.replay.fold.nodes[node - 1].key);
    CT_ASSERT(seat != NULL);
    return seat;
}

/* Nodes worth a moment's wait before a round opens: before the first all that are listed, later
 * those of the last round; not who said that it leaves. */
static uint32_t count_expected(const struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    uint32_t count = 0;
    if (fold->round == 0) {
        for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
            count += !serve->roster.seats[i].left;
        }
        return count;
    }
    for (uint32_t i = 0; i < fold->assignments.count; i++) {
        count += !seat_of(serve, fold->assignments.items[i].node)->left;
    }
    return count;
}

/* Nobody is missing who may still come: a node that took its leave is not waited for. */
static bool all_are_in(const struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    enum ct_part awaited = fold->phase == CT_PHASE_COMMIT ? CT_PART_ASSIGNED : CT_PART_COMMITTED;
    for (uint32_t i = 0; i < fold->assignments.count; i++) {
        uint32_t number = fold->assignments.items[i].node;
        const struct ct_fold_node *node = &fold->nodes[number - 1];
        if (node->part != awaited) {
            continue;
        }
        const struct ct_seat *seat = seat_of(serve, number);
        const struct ct_contribution *contribution =
            ct_seat_find((struct ct_seat *)(uintptr_t)seat, fold->round);
        /* Whole payloads are on their way into the store, whether or not their node has left. */
        bool whole = contribution != NULL && contribution->upload != CT_UPLOAD_OPEN;
        if (!seat->left || (awaited == CT_PART_COMMITTED && whole)) {
            return false;
        }
    }
    return true;
}

struct ct_round_facts ct_turn_facts(const struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_round_facts facts = {
        .phase = fold->phase,
        .ready = ct_roster_ready(&serve->roster),
        .needed = fold->manifest.quorum_nodes,
        .expected = count_expected(serve),
        .merged = serve->merge.done,
    };
    if (facts.needed > serve->roster.seat_count) {
        facts.needed = serve->roster.seat_count;
    }
    if (is_open(fold)) {
        facts.quorum = ct_fold_quorum(fold, fold->phase == CT_PHASE_COMMIT ? CT_PART_COMMITTED
                                                                           : CT_PART_RECEIVED);
        facts.all = all_are_in(serve);
    }
    return facts;
}

/* Listed nodes that are ready for the first time get their numbers with their first assignment. */
static enum ct_err admit_newcomers(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
        const struct ct_seat *seat = &serve->roster.seats[i];
        if (seat->member == NULL || !seat->member->ready ||
            ct_fold_find_key(fold, &seat->key) != NULL) {
            continue;
        }
        struct ct_entry entry = {.kind = CT_ENTRY_NODE_ADMITTED};
        entry.body.node_admitted.node = fold->node_count + 1;
        entry.body.node_admitted.key = seat->key;
        CT_TRY(ct_profiles_admit(serve->run.dir, fold, seat, &entry.body.node_admitted.profile));
        CT_TRY(ct_journal_append(&serve->journal, &entry, NULL, NULL));
    }
    return CT_OK;
}

/* The manifest's steps, fewer for a node too slow to do them in 85 % of the round's time. */
static uint32_t steps_for(const struct ct_manifest *manifest, float tokens_per_s) {
    double steps = manifest->steps;
    if (tokens_per_s > 0.0f) {
        double can = 0.85 * manifest->round_time_ms / 1000.0 * (double)tokens_per_s /
                     ((double)manifest->batch * manifest->model.context);
        steps = can < steps ? can : steps;
    }
    return steps > manifest->steps_min ? (uint32_t)steps : manifest->steps_min;
}

static enum ct_err plan(struct ct_serve *serve, struct ct_assignments *out) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_plan_request *requests = calloc(fold->node_count + 1u, sizeof requests[0]);
    if (requests == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for a plan");
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        const struct ct_member *member = seat_of(serve, node->number)->member;
        if (member == NULL || !member->ready) {
            continue;
        }
        requests[count++] = (struct ct_plan_request){
            .node = node->number,
            .steps = steps_for(&fold->manifest, member->tokens_per_s),
            .has_state = node->last_merged && ct_hash_equal(&member->state, &node->state),
        };
    }
    enum ct_err err = ct_plan_round(fold, requests, count, out);
    free(requests);
    return err;
}

static enum ct_err store_assignments(struct ct_serve *serve,
                                     const struct ct_assignments *assignments,
                                     struct ct_blob_ref *out) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ASSIGNMENTS_BYTES_MAX);
    enum ct_err err = ct_assignments_encode(assignments, &bytes);
    if (err == CT_OK) {
        err = ct_blobs_put(&serve->run.blobs, ct_buf_bytes(&bytes), out);
    }
    ct_buf_deinit(&bytes);
    return err;
}

static enum ct_err open_round(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    CT_TRY(admit_newcomers(serve));
    struct ct_assignments assignments;
    CT_TRY(plan(serve, &assignments));
    struct ct_entry entry = {.kind = CT_ENTRY_ROUND_OPENED, .round = fold->round + 1};
    struct ct_round_opened *opened = &entry.body.round_opened;
    opened->base =
        fold->model_known ? fold->model : ct_model_digest(&fold->layout, serve->run.replay.theta);
    opened->tokens_at_base = fold->tokens;
    opened->planned_tokens = ct_plan_tokens(fold, &assignments);
    enum ct_err err = store_assignments(serve, &assignments, &opened->assignments);
    ct_assignments_deinit(&assignments);
    CT_TRY(err);
    uint8_t seed[32];
    ct_round_seed(serve->run.identity, &fold->run_id, entry.round, seed);
    opened->seed_hash = ct_round_seed_hash(seed);
    CT_TRY(ct_journal_append(&serve->journal, &entry, NULL, NULL));
    serve->closed_index = 0;
    ct_report_round_opened(serve);
    return CT_OK;
}

static enum ct_err close_commits(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_entry entry = {.kind = CT_ENTRY_COMMITS_CLOSED, .round = fold->round};
    ct_round_seed(serve->run.identity, &fold->run_id, fold->round, entry.body.commits_closed.seed);
    return ct_journal_append(&serve->journal, &entry, &serve->closed_index, NULL);
}

static enum ct_err merge(struct ct_serve *serve) {
    struct ct_merge_job *job = &serve->merge;
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_merge_list list;
    CT_TRY(ct_merge_round(fold, ct_blobs_source, &serve->run.blobs, serve->run.replay.theta,
                          job->theta, &list));
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MERGE_LIST_BYTES_MAX);
    enum ct_err err = ct_merge_list_encode(&list, &bytes);
    if (err == CT_OK) {
        err = ct_blobs_put(&serve->run.blobs, ct_buf_bytes(&bytes), &job->merged);
    }
    ct_buf_deinit(&bytes);
    ct_merge_list_deinit(&list);
    CT_TRY(err);
    job->model = ct_model_digest(&fold->layout, job->theta);
    ct_cache_save(serve->run.dir, fold->round, &fold->layout, job->theta);
    if (job->has_snapshot) {
        /* Little-endian binary32, as replay.c has it. */
        struct ct_blob_ref ref;
        CT_TRY(ct_blobs_put(
            &serve->run.blobs,
            (struct ct_bytes){(const uint8_t *)job->theta, fold->layout.parameters * sizeof(float)},
            &ref));
        if (!ct_hash_equal(&ref.sha256, &job->model)) {
            return ct_fail(CT_ERR_DIGEST, "the snapshot of round %u is not its model", fold->round);
        }
    }
    return CT_OK;
}

static void run_merge(uv_work_t *work) {
    struct ct_serve *serve = work->data;
    serve->merge.err = merge(serve);
    snprintf(serve->merge.detail, sizeof serve->merge.detail, "%s",
             serve->merge.err == CT_OK ? "" : ct_err_detail());
}

static void on_merged(uv_work_t *work, int status) {
    (void)status;
    struct ct_serve *serve = work->data;
    serve->merge.running = false;
    if (serve->merge.err != CT_OK) {
        ct_serve_trouble(serve, serve->merge.err, serve->merge.detail);
        ct_serve_advance(serve);
        return;
    }
    serve->merge.done = true;
    ct_serve_advance(serve);
}

static enum ct_err start_merge(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_merge_job *job = &serve->merge;
    CT_ASSERT(!job->running && !job->done);
    if (job->theta == NULL) {
        job->theta = malloc(fold->layout.parameters * sizeof job->theta[0]);
    }
    if (job->theta == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for a second model");
    }
    job->has_snapshot =
        fold->round % fold->manifest.snapshot_rounds == 0 || fold->round == fold->manifest.rounds;
    job->work.data = serve;
    if (uv_queue_work(&serve->loop, &job->work, run_merge, on_merged) < 0) {
        return ct_fail(CT_ERR_MEMORY, "no job could be started");
    }
    job->running = true;
    return CT_OK;
}

enum ct_err ct_turn_again(struct ct_serve *serve) {
    bool due =
        serve->round.state == CT_ROUND_MERGING && !serve->merge.running && !serve->merge.done;
    return due ? start_merge(serve) : CT_OK;
}

/* What was refused in the round and has no entry yet. */
static enum ct_err log_refusals(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        struct ct_seat *seat = seat_of(serve, node->number);
        if (seat->refused_round != fold->round || node->refused_logged ||
            node->part == CT_PART_NONE) {
            continue;
        }
        seat->refused_round = 0;
        struct ct_entry entry = {.kind = CT_ENTRY_REFUSED, .round = fold->round};
        entry.body.refused.node = node->number;
        entry.body.refused.reason = seat->refused;
        CT_TRY(ct_journal_append(&serve->journal, &entry, NULL, NULL));
    }
    return CT_OK;
}

static enum ct_err close_round(struct ct_serve *serve) {
    struct ct_replay *replay = &serve->run.replay;
    const struct ct_fold *fold = &replay->fold;
    struct ct_merge_job *job = &serve->merge;
    CT_TRY(log_refusals(serve));
    struct ct_entry entry = {.kind = CT_ENTRY_ROUND_CLOSED, .round = fold->round};
    struct ct_round_closed *closed = &entry.body.round_closed;
    closed->model = job->model;
    closed->merged = job->merged;
    closed->has_snapshot = job->has_snapshot;
    for (uint32_t i = 0; i < fold->assignments.count; i++) {
        const struct ct_assignment *item = &fold->assignments.items[i];
        if (fold->nodes[item->node - 1].part == CT_PART_RECEIVED) {
            closed->tokens +=
                (uint64_t)item->steps * fold->manifest.batch * fold->manifest.model.context;
        }
    }
    ct_report_round_closed(serve);
    CT_TRY(ct_journal_append(&serve->journal, &entry, NULL, NULL));
    ct_journal_keep(&serve->journal);
    float *old = replay->theta;
    replay->theta = job->theta;
    replay->theta_round = fold->round;
    job->theta = old;
    job->done = false;
    /* Of the round before: this one's may still be wanted after a stop before its entry is durable.
     */
    ct_incoming_sweep(serve->run.dir, fold->round - 1);
    if (fold->phase == CT_PHASE_FINISHED) {
        ct_report_finished(serve);
    }
    return CT_OK;
}

enum ct_err ct_turn_do(struct ct_serve *serve, enum ct_round_action action) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    switch (action) {
    case CT_ROUND_OPEN:
        return open_round(serve);
    case CT_ROUND_CLOSE_COMMITS:
        return close_commits(serve);
    case CT_ROUND_MERGE:
        return start_merge(serve);
    case CT_ROUND_CLOSE:
        return close_round(serve);
    case CT_ROUND_PROLONG:
        ct_log(CT_LOG_WARN, "round",
               "round %u: its time is up below the quorum; prolonged (%u), waiting for nodes",
               fold->round, serve->round.prolonged);
        return CT_OK;
    case CT_ROUND_NONE:
        break;
    }
    return CT_OK;
}
