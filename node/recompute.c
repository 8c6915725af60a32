#include "recompute.h"

#include "work.h"

#include <cotrain/dataset.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A unit under way. */
struct unit {
    bool open;
    uint32_t epoch;
    uint32_t next_index; /* the round of the epoch that may come next */
    struct ct_train_state state;
};

struct ct_recompute {
    const struct ct_fold *fold;
    struct ct_corpus corpus;
    struct ct_windows windows;
    struct ct_engine *engine;
    float *gradient;
    uint32_t unit_count;
    struct unit *units; /* by node number − 1; memory goes with the units open at once */
};

static bool same_unit(const struct ct_claim *a, const struct ct_claim *b) {
    return a->node == b->node && a->epoch == b->epoch;
}

uint32_t ct_recompute_draw(struct ct_claim *contributions, size_t count, bool all, uint32_t units,
                           uint64_t seed) {
    size_t *firsts = malloc((count + 1) * sizeof *firsts);
    if (firsts == NULL) {
        return 0;
    }
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        bool first = true;
        for (uint32_t u = 0; u < found && first; u++) {
            first = !same_unit(&contributions[firsts[u]], &contributions[i]);
        }
        if (first) {
            firsts[found++] = i;
        }
    }
    const uint32_t wanted = all || units > found ? found : units;
    struct ct_hash key = {{0}};
    for (int i = 0; i < 8; i++) {
        key.bytes[i] = (uint8_t)(seed >> (8 * i));
    }
    const struct ct_philox philox = ct_philox_make(&key, CT_STREAM_AUDIT);
    for (uint32_t u = 0; u < wanted; u++) {
        uint32_t words[4];
        ct_philox_block(&philox, u, 0, words);
        const uint64_t draw = (uint64_t)words[1] << 32 | words[0];
        const uint32_t at = u + (uint32_t)(draw % (found - u));
        const size_t chosen = firsts[at];
        firsts[at] = firsts[u];
        firsts[u] = chosen;
        for (size_t i = chosen; i < count; i++) {
            contributions[i].chosen |= same_unit(&contributions[i], &contributions[chosen]);
        }
    }
    free(firsts);
    return wanted;
}

static enum ct_err locate_shard(void *user, const struct ct_shard *shard, char *out_path) {
    return ct_source_blob_path(user, &shard->ref, out_path);
}

static enum ct_err load_corpus(struct ct_recompute *recompute, struct ct_source *source) {
    struct ct_buf bytes;
    struct ct_dataset dataset;
    CT_TRY(
        ct_source_blob(source, &recompute->fold->manifest.dataset, CT_MANIFEST_BYTES_MAX, &bytes));
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&bytes), &dataset);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return err;
    }
    err = ct_corpus_load(&dataset, CT_SPLIT_TRAIN, locate_shard, source, &recompute->corpus);
    ct_dataset_deinit(&dataset);
    return err;
}

enum ct_err ct_recompute_open(const struct ct_fold *fold, struct ct_source *source,
                              uint32_t threads, struct ct_recompute **out) {
    struct ct_recompute *recompute = calloc(1, sizeof *recompute);
    if (recompute == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a recomputation");
    }
    recompute->fold = fold;
    const struct ct_manifest *manifest = &fold->manifest;
    const struct ct_engine_options options = {
        .numerics = manifest->numerics,
        .batch = manifest->batch,
        .leaves = manifest->leaves,
        .threads = threads,
    };
    enum ct_err err = load_corpus(recompute, source);
    if (err == CT_OK) {
        err = ct_windows_init(&recompute->windows, &fold->run_seed, recompute->corpus.tokens,
                              recompute->corpus.count, manifest->model.context);
    }
    if (err == CT_OK) {
        err = ct_engine_open(&fold->layout, &options, &recompute->engine);
    }
    if (err == CT_OK) {
        recompute->gradient = malloc(fold->layout.parameters * sizeof(float));
        err =
            recompute->gradient != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for gradients");
    }
    if (err != CT_OK) {
        ct_recompute_close(recompute);
        return err;
    }
    *out = recompute;
    return CT_OK;
}

void ct_recompute_close(struct ct_recompute *recompute) {
    if (recompute == NULL) {
        return;
    }
    for (uint32_t i = 0; i < recompute->unit_count; i++) {
        if (recompute->units[i].open) {
            ct_train_state_deinit(&recompute->units[i].state);
        }
    }
    free(recompute->units);
    free(recompute->gradient);
    ct_engine_close(recompute->engine);
    ct_corpus_deinit(&recompute->corpus);
    free(recompute);
}

static void close_unit(struct unit *unit) {
    if (unit->open) {
        ct_train_state_deinit(&unit->state);
        unit->open = false;
    }
}

/* The unit's state ready for this assignment: made at a reset, carried on otherwise. */
static enum ct_err enter_unit(struct ct_recompute *recompute,
                              const struct ct_assignment *assignment, struct unit **out) {
    *out = NULL;
    if (assignment->node > recompute->unit_count) {
        struct unit *grown =
            realloc(recompute->units, (size_t)assignment->node * sizeof *recompute->units);
        if (grown == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for units");
        }
        memset(grown + recompute->unit_count, 0,
               (assignment->node - recompute->unit_count) * sizeof *grown);
        recompute->units = grown;
        recompute->unit_count = assignment->node;
    }
    struct unit *unit = &recompute->units[assignment->node - 1];
    if (assignment->reset) {
        if (!unit->open) {
            CT_TRY(ct_train_state_init(&unit->state, &recompute->fold->layout, true));
            unit->open = true;
        }
        unit->epoch = assignment->epoch;
        unit->next_index = assignment->index;
    }
    if (unit->open && unit->epoch == assignment->epoch && unit->next_index == assignment->index) {
        unit->next_index++;
        *out = unit;
    }
    return CT_OK;
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

static void find(struct ct_audit_report *report, enum ct_finding_kind kind,
                 const struct ct_claim *contribution, const char *reason) {
    char hex[CT_HEX_BYTES];
    char file[160];
    ct_hash_hex(&contribution->commit.update.sha256, hex);
    snprintf(file, sizeof file, "blobs/%.2s/%s", hex, hex + 2);
    ct_audit_find(report, kind, (int64_t)contribution->commit_index, file, "node %u, round %u: %s",
                  contribution->node, contribution->round, reason);
}

static enum ct_err recompute_one(struct ct_recompute *recompute, const struct ct_replay *replay,
                                 const struct ct_assignment *assignment,
                                 const struct ct_claim *contribution,
                                 struct ct_audit_report *report) {
    struct unit *unit = NULL;
    CT_TRY(enter_unit(recompute, assignment, &unit));
    if (unit == NULL || !replay->theta_valid) {
        find(report, CT_FINDING_UNAVAILABLE, contribution,
             unit == NULL ? "an earlier round of its epoch could not be recomputed"
                          : "the model that it starts from could not be replayed");
        return CT_OK;
    }
    const struct ct_fold *fold = &replay->fold;
    const struct ct_work work = {
        .manifest = &fold->manifest,
        .chunks = &fold->chunks,
        .windows = &recompute->windows,
        .engine = recompute->engine,
        .gradient = recompute->gradient,
        .site = ct_site_alone(),
    };
    struct ct_work_result result;
    const enum ct_err err =
        ct_work_run(&work, assignment, &fold->round_opened.assignments.sha256,
                    fold->round_opened.tokens_at_base, fold->round_opened.planned_tokens,
                    replay->theta, &unit->state, &result);
    char reason[300];
    if (err == CT_ERR_NUMERIC) {
        snprintf(reason, sizeof reason, "recomputed, the assignment fails: %s", ct_err_detail());
    } else if (err != CT_OK) {
        return err;
    } else {
        compare(&contribution->commit, &result, reason, sizeof reason);
        ct_buf_deinit(&result.payload);
    }
    report->recomputed++;
    if (reason[0] != '\0') {
        find(report, CT_FINDING_MISMATCH, contribution, reason);
        /* What follows in the epoch starts from a state that nobody can know. */
        close_unit(unit);
    }
    return CT_OK;
}

enum ct_err ct_recompute_round(struct ct_recompute *recompute, const struct ct_replay *replay,
                               const struct ct_claim *contributions, size_t count,
                               struct ct_audit_report *report) {
    const struct ct_fold *fold = &replay->fold;
    for (size_t i = 0; i < count; i++) {
        const struct ct_claim *contribution = &contributions[i];
        if (!contribution->chosen || contribution->round != fold->round) {
            continue;
        }
        const struct ct_assignment *assignment =
            ct_assignments_find(&fold->assignments, contribution->node);
        if (assignment != NULL) {
            CT_TRY(recompute_one(recompute, replay, assignment, contribution, report));
        }
    }
    return CT_OK;
}
