#include "audit.h"

#include "audit_log.h"
#include "recompute.h"

#include <cotrain/dataset.h>
#include <cotrain/isa.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the first pass collects. */
struct audit {
    struct ct_source *source;
    const struct ct_audit_options *options;
    struct ct_audit_report *report;
    struct ct_audit_log log;
    uint64_t end; /* entries that the fold accepted */
    struct ct_claim *contributions;
    size_t contribution_count;
    struct ct_blob_ref *named; /* blobs that entries name, and that must be there */
    size_t named_count;
};

void ct_audit_find(struct ct_audit_report *report, enum ct_finding_kind kind, int64_t entry,
                   const char *file, const char *format, ...) {
    report->finding_count++;
    report->mismatches += kind == CT_FINDING_MISMATCH;
    report->unavailable += kind == CT_FINDING_UNAVAILABLE;
    if (report->finding_count > CT_FINDINGS_MAX) {
        return;
    }
    struct ct_finding *grown =
        realloc(report->findings, (size_t)report->finding_count * sizeof *grown);
    if (grown == NULL) {
        return;
    }
    report->findings = grown;
    struct ct_finding *finding = &grown[report->finding_count - 1];
    finding->kind = kind;
    finding->entry = entry;
    snprintf(finding->file, sizeof finding->file, "%s", file);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->reason, sizeof finding->reason, format, arguments);
    va_end(arguments);
}

void ct_audit_report_deinit(struct ct_audit_report *report) {
    free(report->findings);
    free(report->private_files);
    memset(report, 0, sizeof *report);
}

static void progress(const struct audit *audit, const char *what, uint64_t done, uint64_t total) {
    if (audit->options->progress != NULL) {
        audit->options->progress(audit->options->progress_user, what, done, total);
    }
}

static void blob_file(const struct ct_hash *sha256, char out[160]) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(sha256, hex);
    snprintf(out, 160, "blobs/%.2s/%s", hex, hex + 2);
}

static enum ct_err name_blob(struct audit *audit, const struct ct_blob_ref *ref) {
    if ((audit->named_count & (audit->named_count - 1)) == 0) {
        const size_t capacity = audit->named_count == 0 ? 1 : 2 * audit->named_count;
        struct ct_blob_ref *grown = realloc(audit->named, capacity * sizeof *grown);
        if (grown == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for %zu references", capacity);
        }
        audit->named = grown;
    }
    audit->named[audit->named_count++] = *ref;
    return CT_OK;
}

static enum ct_err name_dataset(struct audit *audit, const struct ct_blob_ref *ref,
                                uint64_t entry) {
    CT_TRY(name_blob(audit, ref));
    struct ct_buf bytes;
    if (ct_source_blob(audit->source, ref, CT_MANIFEST_BYTES_MAX, &bytes) != CT_OK) {
        return CT_OK; /* found with all blobs that are named */
    }
    struct ct_dataset dataset;
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&bytes), &dataset);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        char file[160];
        blob_file(&ref->sha256, file);
        ct_audit_find(audit->report, CT_FINDING_BROKEN, (int64_t)entry, file, "%s",
                      ct_err_detail());
        return CT_OK;
    }
    for (uint32_t i = 0; err == CT_OK && i < dataset.shard_count; i++) {
        err = name_blob(audit, &dataset.shards[i].ref);
    }
    ct_dataset_deinit(&dataset);
    return err;
}

static enum ct_err add_contribution(struct audit *audit, const struct ct_fold *fold,
                                    uint64_t index) {
    if ((audit->contribution_count & (audit->contribution_count - 1)) == 0) {
        const size_t capacity = audit->contribution_count == 0 ? 1 : 2 * audit->contribution_count;
        struct ct_claim *grown = realloc(audit->contributions, capacity * sizeof *grown);
        if (grown == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for %zu contributions", capacity);
        }
        audit->contributions = grown;
    }
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        if (node->part == CT_PART_COMMITTED && node->commit_index == index) {
            const struct ct_assignment *assignment =
                ct_assignments_find(&fold->assignments, node->number);
            audit->contributions[audit->contribution_count++] = (struct ct_claim){
                .node = node->number,
                .epoch = assignment->epoch,
                .round = fold->round,
                .commit_index = index,
                .commit = node->commit,
            };
        }
    }
    return CT_OK;
}

static enum ct_err receive(struct audit *audit, const struct ct_fold *fold, uint64_t commit_index) {
    struct ct_claim *contribution = audit->contributions + audit->contribution_count;
    do {
        contribution--;
    } while (contribution->commit_index != commit_index);
    contribution->received = true;
    CT_TRY(name_blob(audit, &contribution->commit.update));
    struct ct_buf payload;
    if (ct_source_blob(audit->source, &contribution->commit.update,
                       ct_update_bytes_max(&fold->chunks), &payload) != CT_OK) {
        return CT_OK; /* found with all blobs that are named */
    }
    struct ct_hash body;
    if (ct_payload_check(fold, &contribution->commit, ct_buf_bytes(&payload), &body) != CT_OK) {
        char file[160];
        blob_file(&contribution->commit.update.sha256, file);
        ct_audit_find(audit->report, CT_FINDING_BROKEN, (int64_t)commit_index, file, "%s",
                      ct_err_detail());
    }
    ct_buf_deinit(&payload);
    return CT_OK;
}

/* Takes note of what an accepted entry brings. */
static enum ct_err collect(struct audit *audit, const struct ct_fold *fold,
                           const struct ct_entry *entry, uint64_t index) {
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        CT_TRY(name_blob(audit, &fold->opened.manifest));
        return name_dataset(audit, &fold->manifest.dataset, index);
    case CT_ENTRY_ROUND_OPENED:
        return name_blob(audit, &fold->round_opened.assignments);
    case CT_ENTRY_COMMIT:
        return add_contribution(audit, fold, index);
    case CT_ENTRY_RECEIVED:
        return receive(audit, fold, entry->body.received.commit_index);
    case CT_ENTRY_ROUND_CLOSED:
        audit->report->rounds++;
        CT_TRY(name_blob(audit, &fold->round_closed.merged));
        if (fold->round_closed.has_snapshot) {
            const struct ct_blob_ref snapshot = {fold->round_closed.model,
                                                 fold->layout.parameters * sizeof(float)};
            return name_blob(audit, &snapshot);
        }
        return CT_OK;
    case CT_ENTRY_NODE_ADMITTED:
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_REFUSED:
        break;
    }
    return CT_OK;
}

static void find_entry(struct audit *audit, uint64_t index, enum ct_err err) {
    const bool absent = err == CT_ERR_NOT_FOUND || err == CT_ERR_NETWORK;
    char file[160];
    struct ct_envelope envelope;
    struct ct_entry entry;
    struct ct_blob_ref ref;
    char reason[400];
    snprintf(reason, sizeof reason, "%s", ct_err_detail());
    ct_audit_log_file(&audit->log, index, file);
    if ((absent || err == CT_ERR_DIGEST) &&
        ct_envelope_open(ct_audit_log_entry(&audit->log, index), &envelope) == CT_OK &&
        ct_entry_decode(envelope.payload, &entry) == CT_OK && ct_entry_needs_blob(&entry, &ref)) {
        blob_file(&ref.sha256, file);
    }
    ct_audit_find(audit->report, absent ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN,
                  (int64_t)index, file, "%s; the entries from here on cannot be judged", reason);
}

/* First pass: every signature and every rule; collects contributions and references. */
static enum ct_err fold_log(struct audit *audit, struct ct_fold *fold) {
    const uint64_t size = audit->log.checkpoint.size;
    for (uint64_t i = 0; i < size; i++) {
        const struct ct_bytes bytes = ct_audit_log_entry(&audit->log, i);
        const enum ct_err applied = ct_fold_apply(fold, bytes, true, ct_source_blob, audit->source);
        if (applied == CT_ERR_MEMORY) {
            return applied;
        }
        if (applied != CT_OK) {
            find_entry(audit, i, applied);
            break;
        }
        audit->end = i + 1;
        struct ct_envelope envelope;
        struct ct_entry entry;
        CT_TRY(ct_envelope_open(bytes, &envelope));
        CT_TRY(ct_entry_decode(envelope.payload, &entry));
        CT_TRY(collect(audit, fold, &entry, i));
        if (i % 256 == 0 || i + 1 == size) {
            progress(audit, "entries", i + 1, size);
        }
    }
    audit->report->entries = audit->end;
    audit->report->contributions = (uint32_t)audit->contribution_count;
    audit->report->model = fold->model;
    snprintf(audit->report->name, sizeof audit->report->name, "%s", fold->manifest.name);
    audit->report->run_id = fold->run_id;
    return CT_OK;
}

/* Every blob that an entry names is there; a directory's are digested where files are accounted
 * for, those behind a URL here. */
static void check_named(struct audit *audit) {
    const bool remote = ct_source_directory(audit->source) == NULL;
    for (size_t i = 0; i < audit->named_count; i++) {
        const struct ct_blob_ref *ref = &audit->named[i];
        char path[4096];
        const enum ct_err err = ct_source_blob_path(audit->source, ref, path);
        /* A wrong digest in a directory is found, by name, among its files. */
        if (err != CT_OK && (remote || err != CT_ERR_DIGEST)) {
            char file[160];
            blob_file(&ref->sha256, file);
            ct_audit_find(audit->report,
                          err == CT_ERR_DIGEST ? CT_FINDING_BROKEN : CT_FINDING_UNAVAILABLE, -1,
                          file, "%s", ct_err_detail());
        }
        progress(audit, "blobs", i + 1, audit->named_count);
    }
}

static int compare_hashes(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct ct_hash));
}

static enum ct_err account_files(struct audit *audit) {
    struct ct_hash *digests = malloc((audit->named_count + 1) * sizeof *digests);
    if (digests == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %zu digests", audit->named_count);
    }
    for (size_t i = 0; i < audit->named_count; i++) {
        digests[i] = audit->named[i].sha256;
    }
    qsort(digests, audit->named_count, sizeof *digests, compare_hashes);
    ct_audit_files(ct_source_directory(audit->source), &audit->log, digests, audit->named_count,
                   audit->report);
    free(digests);
    return CT_OK;
}

/* Second pass: θ from round to round, and the chosen contributions at each. */
static enum ct_err replay_log(struct audit *audit, bool recompute) {
    struct ct_replay replay;
    struct ct_recompute *worker = NULL;
    enum ct_err err = CT_OK;
    uint32_t done = 0;
    ct_replay_init(&replay, 0);
    for (uint64_t i = 0; i < audit->end; i++) {
        const enum ct_phase before = replay.fold.phase;
        const bool valid = replay.theta_valid;
        const enum ct_err applied = ct_replay_apply(&replay, ct_audit_log_entry(&audit->log, i),
                                                    false, ct_source_blob, audit->source);
        if (applied == CT_ERR_MEMORY || replay.fold.entries != i + 1) {
            err = applied;
            break;
        }
        if (applied != CT_OK && valid) {
            char file[160];
            ct_audit_log_file(&audit->log, i, file);
            ct_audit_find(audit->report,
                          applied == CT_ERR_DIGEST ? CT_FINDING_MISMATCH : CT_FINDING_UNAVAILABLE,
                          (int64_t)i, file, "%s", ct_err_detail());
        }
        if (replay.fold.phase != CT_PHASE_COMMIT || before == CT_PHASE_COMMIT) {
            continue;
        }
        progress(audit, recompute ? "rounds replayed and recomputed" : "rounds replayed", ++done,
                 audit->report->rounds);
        if (recompute && worker == NULL) {
            err = ct_recompute_open(&replay.fold, audit->source, audit->options->threads, &worker);
        }
        if (recompute && err == CT_OK) {
            err = ct_recompute_round(worker, &replay, audit->contributions,
                                     audit->contribution_count, audit->report);
        }
        if (err != CT_OK) {
            break;
        }
    }
    audit->report->replayed_rounds = replay.merged_rounds;
    if (replay.theta_valid) {
        audit->report->model = ct_model_digest(&replay.fold.layout, replay.theta);
    }
    ct_recompute_close(worker);
    ct_replay_deinit(&replay);
    return err;
}

enum ct_err ct_audit_run(struct ct_source *source, const struct ct_audit_options *options,
                         struct ct_audit_report *out) {
    memset(out, 0, sizeof *out);
    struct audit audit = {.source = source, .options = options, .report = out};
    const bool recompute = options->recompute_all || options->recompute_units > 0;
    if (options->replay || recompute) {
        CT_TRY(ct_isa_start());
    }
    if (!ct_audit_log_load(source, out, &audit.log)) {
        return CT_OK;
    }
    snprintf(out->origin, sizeof out->origin, "%s", audit.log.opened.origin);
    out->log_key = audit.log.opened.log_key;
    struct ct_fold fold;
    ct_fold_init(&fold);
    enum ct_err err = fold_log(&audit, &fold);
    ct_fold_deinit(&fold);
    if (err == CT_OK) {
        check_named(&audit);
    }
    if (err == CT_OK && ct_source_directory(source) != NULL) {
        err = account_files(&audit);
    }
    if (err == CT_OK && recompute) {
        out->units =
            ct_recompute_draw(audit.contributions, audit.contribution_count, options->recompute_all,
                              options->recompute_units, options->seed);
    }
    if (err == CT_OK && (options->replay || recompute)) {
        err = replay_log(&audit, recompute);
    }
    ct_audit_log_deinit(&audit.log);
    free(audit.contributions);
    free(audit.named);
    return err;
}
