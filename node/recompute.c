#include "recompute.h"

#include "work.h"

#include <cotrain/dataset.h>
#include <cotrain/isa.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What computes, opened once. */
struct bench {
    struct ct_fold fold; /* of entry 0 alone: manifest, layout, chunks */
    struct ct_corpus corpus;
    struct ct_windows windows;
    struct ct_engine *engine;
    float *gradient;
    struct ct_train_state state;
    bool has_state;
};

/* The way of the model through the log. */
struct walk {
    struct ct_audit *audit;
    bool started;
    struct ct_audit_cursor cursor;
    struct ct_replay replay;
    uint32_t reported_round; /* up to here, faults of aggregations were reported */
};

/* The unit under way. */
struct unit {
    bool open;    /* its state is known so far */
    bool expired; /* a base of it cannot be had any more: the run went on meanwhile */
    uint32_t next_index;
};

static enum ct_err locate_shard(void *user, const struct ct_shard *shard, char *out_path) {
    return ct_source_blob_path(user, &shard->ref, out_path);
}

static enum ct_err load_corpus(struct bench *bench, struct ct_source *source) {
    struct ct_buf bytes;
    struct ct_dataset dataset;
    CT_TRY(ct_source_blob(source, &bench->fold.manifest.dataset, CT_DATASET_BYTES_MAX, &bytes));
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&bytes), &dataset);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return err;
    }
    err = ct_corpus_load(&dataset, CT_SPLIT_TRAIN, locate_shard, source, &bench->corpus);
    ct_dataset_deinit(&dataset);
    return err;
}

static void close_bench(struct bench *bench) {
    if (bench->has_state) {
        ct_train_state_deinit(&bench->state);
    }
    free(bench->gradient);
    ct_engine_close(bench->engine);
    ct_corpus_deinit(&bench->corpus);
    ct_fold_deinit(&bench->fold);
}

static enum ct_err open_fold(struct bench *bench, struct ct_audit *audit) {
    struct ct_audit_cursor cursor = {.log = &audit->log};
    struct ct_bytes entry;
    enum ct_err err = ct_audit_cursor_next(&cursor, &entry);
    if (err == CT_OK) {
        err = ct_fold_apply(&bench->fold, entry, false, ct_source_blob, audit->source);
    }
    ct_audit_cursor_deinit(&cursor);
    return err;
}

static enum ct_err open_bench(struct bench *bench, struct ct_audit *audit) {
    ct_fold_init(&bench->fold);
    CT_TRY(open_fold(bench, audit));
    const struct ct_fold *fold = &bench->fold;
    const struct ct_engine_options options = {
        .numerics = fold->manifest.numerics,
        .batch = fold->manifest.batch,
        .leaves = fold->manifest.leaves,
        .threads = audit->options->threads,
    };
    CT_TRY(load_corpus(bench, audit->source));
    CT_TRY(ct_windows_init(&bench->windows, &fold->run_seed, bench->corpus.tokens,
                           bench->corpus.count, fold->manifest.model.context));
    CT_TRY(ct_engine_open(&fold->layout, &options, &bench->engine));
    bench->gradient = calloc(fold->layout.parameters, sizeof(float));
    if (bench->gradient == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for gradients");
    }
    CT_TRY(ct_train_state_init(&bench->state, &fold->layout, true));
    bench->has_state = true;
    return CT_OK;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A step on the first model: the second of two, unless the first was slow enough to be believed. */
static double time_step(struct bench *bench) {
    const struct ct_manifest *manifest = &bench->fold.manifest;
    uint32_t *tokens =
        calloc((size_t)manifest->batch * (manifest->model.context + 1u), sizeof *tokens);
    double seconds = 0.0;
    if (tokens == NULL) {
        return 0.0;
    }
    ct_windows_read(&bench->windows, 0, manifest->batch, tokens);
    ct_layout_draw(&bench->fold.layout, &bench->fold.run_seed, bench->state.theta);
    for (int i = 0; i < 2 && seconds < 1.0; i++) {
        const double begin = seconds_now();
        float loss = 0.0f;
        ct_engine_gradient(bench->engine, bench->state.theta, tokens, bench->gradient, &loss);
        ct_adamw_step(&manifest->adamw, &bench->fold.layout, &bench->state, bench->gradient, loss,
                      0.0f);
        seconds = seconds_now() - begin;
    }
    free(tokens);
    return seconds;
}

/* The round whose snapshot the model of `round`'s base is replayed from; 0: the first model. */
static uint32_t snapshot_before(const struct ct_fold *fold, uint32_t round) {
    return (round - 1) / fold->manifest.snapshot_rounds * fold->manifest.snapshot_rounds;
}

static void tell_cost(struct ct_audit *audit, struct bench *bench, const struct ct_unit *units,
                      uint32_t count) {
    struct ct_audit_cost *cost = &audit->report->cost;
    uint32_t at = UINT32_MAX; /* the round that the walk stands in */
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t snapshot = snapshot_before(&bench->fold, units[i].first_round);
        const uint32_t from = at < units[i].first_round && at > snapshot ? at - 1 : snapshot;
        cost->steps += units[i].steps;
        cost->payload_bytes += units[i].payload_bytes;
        cost->replay_rounds += units[i].last_round - 1 - from;
        at = units[i].last_round;
    }
    cost->step_seconds = time_step(bench);
    if (audit->options->cost != NULL) {
        audit->options->cost(audit->options->progress_user, audit->report);
    }
}

static void end_walk(struct walk *walk) {
    if (walk->started) {
        ct_audit_cursor_deinit(&walk->cursor);
        ct_replay_deinit(&walk->replay);
        walk->started = false;
    }
}

static void begin_walk(struct walk *walk, uint32_t from_round) {
    end_walk(walk);
    walk->cursor = (struct ct_audit_cursor){.log = &walk->audit->log};
    ct_replay_init(&walk->replay, from_round);
    walk->started = true;
}

/* Applies the next entry; *out_more is false at the end of what the fold accepts. An aggregation
 * that does not hold is a finding, unless the replay of the whole run has it already. */
static enum ct_err step_walk(struct walk *walk, bool *out_more) {
    struct ct_audit *audit = walk->audit;
    struct ct_replay *replay = &walk->replay;
    *out_more = walk->cursor.next < audit->end;
    if (!*out_more) {
        return CT_OK;
    }
    const uint64_t index = walk->cursor.next;
    const bool valid = replay->theta_valid;
    struct ct_bytes entry;
    CT_TRY(ct_audit_cursor_next(&walk->cursor, &entry));
    const enum ct_err applied = ct_replay_apply(replay, entry, false, ct_audit_blob, audit->source);
    if (applied == CT_ERR_MEMORY) {
        return applied;
    }
    *out_more = replay->fold.entries == index + 1;
    if (applied != CT_OK && *out_more && valid && !audit->options->replay &&
        replay->fold.round > walk->reported_round) {
        ct_audit_find_model(audit, index, replay->fold.round, applied);
        walk->reported_round = replay->fold.round;
    }
    return CT_OK;
}

/* Goes to the base of `round`, from where the walk is if that is on the way, else from the nearest
 * snapshot that can be had, or the first model. θ may be invalid there: then it cannot be known. */
static enum ct_err go_to(struct walk *walk, const struct ct_fold *first, uint32_t round) {
    struct ct_replay *replay = &walk->replay;
    for (uint32_t from = snapshot_before(first, round);; from = snapshot_before(first, from)) {
        const uint32_t at = walk->started ? replay->fold.round : UINT32_MAX;
        if (at >= round || (!replay->theta_valid && at >= from)) {
            begin_walk(walk, from);
        } else if (at < from) {
            /* The rounds up to the snapshot need no aggregation. */
            replay->theta_valid = false;
            replay->from_round = from;
        }
        bool more = true;
        bool known = replay->theta_valid;
        while (more && replay->fold.round < round) {
            CT_TRY(step_walk(walk, &more));
            known = known || replay->theta_valid;
        }
        if (known || from == 0) {
            return CT_OK;
        }
    }
}

/* What differs between the signed commit and the recomputed work; "" if nothing does. */
static void compare(const struct ct_commit *commit, const struct ct_work_result *result, char *out,
                    size_t capacity) {
    const struct ct_hash digest = ct_sha256(ct_buf_bytes(&result->payload));
    out[0] = '\0';
    char claimed[CT_HEX_BYTES];
    char computed[CT_HEX_BYTES];
    if (!ct_hash_equal(&digest, &commit->update.sha256) ||
        result->payload.length != commit->update.length) {
        ct_hash_hex(&commit->update.sha256, claimed);
        ct_hash_hex(&digest, computed);
        snprintf(out, capacity, "update claimed %.16s…, recomputed %.16s…", claimed, computed);
    } else if (!ct_hash_equal(&result->state, &commit->state)) {
        ct_hash_hex(&commit->state, claimed);
        ct_hash_hex(&result->state, computed);
        snprintf(out, capacity, "state claimed %.16s…, recomputed %.16s…", claimed, computed);
    } else if (memcmp(&result->loss, &commit->loss, sizeof result->loss) != 0) {
        snprintf(out, capacity, "loss claimed %.9g, recomputed %.9g", (double)commit->loss,
                 (double)result->loss);
    } else if (result->skipped_steps != commit->skipped_steps) {
        snprintf(out, capacity, "skipped steps claimed %u, recomputed %u", commit->skipped_steps,
                 result->skipped_steps);
    }
}

/* `claim` has been recomputed, with `difference` "" if it holds. */
static enum ct_err judge(struct ct_audit *audit, const struct ct_fold_node *claim, uint32_t round,
                         const char *difference) {
    struct ct_audit_report *report = audit->report;
    const struct ct_audit_watch *watch = audit->options->watch;
    struct ct_audit_node *node = &report->nodes[claim->number - 1];
    report->recomputed++;
    node->recomputed++;
    if (difference[0] != '\0') {
        char file[160];
        node->mismatches++;
        ct_audit_blob_file(&claim->commit.update.sha256, file);
        ct_audit_find(report, CT_FINDING_MISMATCH, (int64_t)claim->commit_index, file,
                      "node %u, round %u: %s", claim->number, round, difference);
    }
    return watch == NULL || watch->check == NULL
               ? CT_OK
               : watch->check(watch->user, claim->commit_index, claim->number, round, difference);
}

static void find_unavailable(struct ct_audit *audit, const struct ct_fold_node *claim,
                             uint32_t round, const char *reason) {
    char file[160];
    ct_audit_blob_file(&claim->commit.update.sha256, file);
    ct_audit_find(audit->report, CT_FINDING_UNAVAILABLE, (int64_t)claim->commit_index, file,
                  "node %u, round %u: %s", claim->number, round, reason);
}

/* The replay stands behind the entry of `claim`, before its round closes: θ is the base. */
static enum ct_err recompute_one(struct ct_audit *audit, struct bench *bench,
                                 const struct ct_replay *replay, struct unit *unit,
                                 const struct ct_fold_node *claim) {
    const struct ct_fold *fold = &replay->fold;
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, claim->number);
    if (assignment->reset) {
        unit->open = true;
        unit->next_index = assignment->index;
    }
    if (!unit->open || unit->next_index != assignment->index || !replay->theta_valid) {
        unit->open = false;
        unit->expired =
            unit->expired || (!replay->theta_valid && ct_audit_has_expired(audit, fold->round));
        if (!unit->expired) {
            find_unavailable(audit, claim, fold->round,
                             replay->theta_valid
                                 ? "an earlier round of its epoch could not be recomputed"
                                 : "the model that it starts from could not be replayed");
        }
        return CT_OK;
    }
    unit->next_index++;
    const struct ct_work work = {
        .manifest = &fold->manifest,
        .chunks = &fold->chunks,
        .windows = &bench->windows,
        .engine = bench->engine,
        .gradient = bench->gradient,
        .site = ct_site_alone(),
    };
    struct ct_work_result result;
    const enum ct_err err =
        ct_work_run(&work, assignment, &fold->round_opened.assignments.sha256,
                    fold->round_opened.tokens_at_base, fold->round_opened.planned_tokens,
                    replay->theta, &bench->state, &result);
    char reason[300];
    if (err == CT_ERR_NUMERIC) {
        snprintf(reason, sizeof reason, "recomputed, the assignment fails: %s", ct_err_detail());
    } else if (err != CT_OK) {
        return err;
    } else {
        compare(&claim->commit, &result, reason, sizeof reason);
        ct_buf_deinit(&result.payload);
    }
    /* After a mismatch the epoch goes on from a state that nobody can know. */
    unit->open = reason[0] == '\0';
    return judge(audit, claim, fold->round, reason);
}

static enum ct_err recompute_unit(struct walk *walk, struct bench *bench,
                                  const struct ct_unit *drawn) {
    struct unit unit = {0};
    bool more = true;
    uint32_t done = 0;
    CT_TRY(go_to(walk, &bench->fold, drawn->first_round));
    const struct ct_fold *fold = &walk->replay.fold;
    while (more && done < drawn->commits) {
        CT_TRY(step_walk(walk, &more));
        const struct ct_fold_node *node =
            more && drawn->node <= fold->node_count ? &fold->nodes[drawn->node - 1] : NULL;
        if (node != NULL && node->part == CT_PART_COMMITTED && fold->phase == CT_PHASE_COMMIT &&
            node->commit_index + 1 == fold->entries) {
            CT_TRY(recompute_one(walk->audit, bench, &walk->replay, &unit, node));
            done++;
        }
    }
    struct ct_audit_report *report = walk->audit->report;
    if (unit.expired) {
        report->units_total--;
        report->expired.units++;
        report->expired.contributions += drawn->commits;
    } else {
        report->units++;
    }
    return CT_OK;
}

enum ct_err ct_recompute_units(struct ct_audit *audit, const struct ct_unit *units,
                               uint32_t count) {
    struct bench bench = {0};
    struct walk walk = {.audit = audit};
    enum ct_err err = open_bench(&bench, audit);
    if (err == CT_OK) {
        tell_cost(audit, &bench, units, count);
    } else if (err != CT_ERR_MEMORY) {
        ct_audit_find(audit->report, CT_FINDING_UNAVAILABLE, 0, "",
                      "no contribution can be recomputed: %s", ct_err_detail());
        count = 0;
        err = CT_OK;
    }
    for (uint32_t i = 0; i < count && err == CT_OK; i++) {
        ct_audit_progress(audit->report, "units recomputed", i, count);
        err = recompute_unit(&walk, &bench, &units[i]);
    }
    ct_audit_progress(audit->report, "units recomputed", count, count);
    end_walk(&walk);
    close_bench(&bench);
    return err;
}
