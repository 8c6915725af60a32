/* The pass over the log. Entries are taken a bundle at a time: what needs no order (signatures,
 * downloads) is done for the whole bundle on all cores, then the fold judges entry by entry. A
 * worker's answer only saves the fold a signature that holds; what does not hold, the fold says. */
#include "audit_pass.h"

#include <cotrain/assert.h>
#include <cotrain/dataset.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A payload that an accepted entry of the open round says was received. */
struct payload {
    bool wanted;      /* to be checked; else only fetched, for the replay */
    bool may_be_gone; /* it has expired */
    struct ct_commit commit;
    uint64_t commit_index;
    enum ct_err fetched, judged;
    char reason[400];
};

/* A part of the open round as it stood before the round closed. */
struct outcome {
    uint32_t node;
    enum ct_outcome outcome;
};

struct pass {
    struct ct_audit *audit;
    struct ct_replay replay;
    struct ct_audit_bundle bundle;
    bool signed_right[CT_TILE_WIDTH];
    uint32_t signatures[CT_TILE_WIDTH]; /* that were verified for an entry */
    uint32_t payload_count;
    struct payload *payloads; /* [nodes of the manifest] */
    struct outcome *outcomes; /* [nodes of the manifest] */
    uint32_t outcome_count;
    bool base_known; /* the open round's base can be had, from what has not expired */
    bool merges;     /* so can the payloads that the round merged */
};

bool ct_audit_is_narrow(const struct ct_audit_narrow *narrow) {
    return narrow->has_range || narrow->node != 0 || narrow->round != 0;
}

bool ct_audit_wants(const struct ct_audit_narrow *narrow, uint64_t index, uint32_t node,
                    uint32_t round) {
    return (!narrow->has_range || (index >= narrow->first && index <= narrow->last)) &&
           (narrow->node == 0 || node == narrow->node) &&
           (narrow->round == 0 || round == narrow->round);
}

static const struct ct_audit_narrow *narrow_of(const struct pass *pass) {
    return &pass->audit->options->narrow;
}

/* The node that an entry is about: its author, or who is admitted or refused; 0 if none. */
static uint32_t subject(const struct ct_fold *fold, const struct ct_entry *entry) {
    struct ct_envelope envelope;
    switch (entry->kind) {
    case CT_ENTRY_NODE_ADMITTED:
        return entry->body.node_admitted.node;
    case CT_ENTRY_COMMIT:
        return ct_envelope_open(
                   (struct ct_bytes){entry->body.commit.envelope, entry->body.commit.length},
                   &envelope) == CT_OK
                   ? envelope.key_number
                   : 0;
    case CT_ENTRY_RECEIVED:
        for (uint32_t i = 0; i < fold->node_count; i++) {
            const struct ct_fold_node *node = &fold->nodes[i];
            if (node->part != CT_PART_NONE &&
                node->commit_index == entry->body.received.commit_index) {
                return node->number;
            }
        }
        return 0;
    case CT_ENTRY_REFUSED:
        return entry->body.refused.node;
    case CT_ENTRY_RUN_OPENED:
    case CT_ENTRY_ROUND_OPENED:
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_ROUND_CLOSED:
        break;
    }
    return 0;
}

static bool wants(const struct pass *pass, uint64_t index, const struct ct_entry *entry) {
    const struct ct_audit_narrow *narrow = narrow_of(pass);
    return !ct_audit_is_narrow(narrow) ||
           ct_audit_wants(narrow, index, narrow->node == 0 ? 0 : subject(&pass->replay.fold, entry),
                          entry->round);
}

/* In a worker: the signatures of one entry, and the blob that the fold will ask for. */
static void prepare_entry(void *user, size_t at) {
    struct pass *pass = user;
    const struct ct_fold *fold = &pass->replay.fold;
    const uint64_t index = pass->bundle.first + at;
    struct ct_envelope envelope, inner;
    struct ct_entry entry;
    struct ct_blob_ref ref;
    char path[4096];
    pass->signed_right[at] = false;
    pass->signatures[at] = 0;
    if (ct_envelope_open(ct_audit_bundle_entry(&pass->bundle, (uint32_t)at), &envelope) != CT_OK ||
        ct_entry_decode(envelope.payload, &entry) != CT_OK) {
        return;
    }
    if (ct_source_directory(pass->audit->source) == NULL && ct_entry_needs_blob(&entry, &ref) &&
        ref.length <= CT_MANIFEST_BYTES_MAX) {
        (void)!ct_source_blob_path(pass->audit->source, &ref, path);
    }
    /* Whose payload is received, the fold may not know yet. */
    const struct ct_audit_narrow *narrow = narrow_of(pass);
    const bool wanted = entry.kind == CT_ENTRY_RECEIVED
                            ? ct_audit_wants(narrow, index, narrow->node, entry.round)
                            : wants(pass, index, &entry);
    if (index < pass->audit->verified || !wanted) {
        pass->signed_right[at] = true; /* not asked for */
        return;
    }
    bool right = ct_envelope_verify(&envelope, &pass->audit->log.opened.identity_key) == CT_OK;
    pass->signatures[at] = 1;
    if (right && entry.kind == CT_ENTRY_COMMIT) {
        const struct ct_bytes bytes = {entry.body.commit.envelope, entry.body.commit.length};
        /* A node that is admitted in this same bundle is not known yet: left to the fold. */
        right = ct_envelope_open(bytes, &inner) == CT_OK && inner.key_number > 0 &&
                inner.key_number <= fold->node_count &&
                ct_envelope_verify(&inner, &fold->nodes[inner.key_number - 1].key) == CT_OK;
        pass->signatures[at] = 2;
    }
    pass->signed_right[at] = right;
}

/* In a worker: one payload, there and what its author committed to. */
static void check_payload(void *user, size_t at) {
    struct pass *pass = user;
    struct payload *payload = &pass->payloads[at];
    const struct ct_fold *fold = &pass->replay.fold;
    struct ct_buf bytes;
    payload->judged = CT_OK;
    if (payload->may_be_gone && !pass->audit->seeks_expired) {
        payload->fetched = CT_ERR_NOT_FOUND;
        return;
    }
    if (!payload->wanted && !payload->may_be_gone &&
        ct_source_directory(pass->audit->source) != NULL) {
        payload->fetched = CT_OK;
        return;
    }
    payload->fetched = ct_source_blob(pass->audit->source, &payload->commit.update,
                                      ct_update_bytes_max(&fold->chunks), &bytes);
    if (payload->fetched == CT_OK) {
        struct ct_hash body;
        payload->judged = ct_payload_check(fold, &payload->commit, ct_buf_bytes(&bytes), &body);
        ct_buf_deinit(&bytes);
    }
    if (payload->fetched != CT_OK || payload->judged != CT_OK) {
        snprintf(payload->reason, sizeof payload->reason, "%s", ct_err_detail());
    }
}

/* A round's payloads are of no use once they are checked and, with replay, merged. */
static void drop_payloads(struct pass *pass) {
    for (uint32_t i = 0; i < pass->payload_count; i++) {
        ct_source_drop(pass->audit->source, &pass->payloads[i].commit.update);
    }
    pass->payload_count = 0;
}

/* Not there, and no fault of anybody's. */
static bool is_gone(struct ct_audit *audit, enum ct_err fetched, uint32_t round) {
    return (fetched == CT_ERR_NOT_FOUND || fetched == CT_ERR_NETWORK) &&
           ct_audit_has_expired(audit, round);
}

static enum ct_err flush_payloads(struct pass *pass) {
    struct ct_audit *audit = pass->audit;
    const struct ct_fold *fold = &pass->replay.fold;
    pass->merges = true;
    ct_pool_run(audit->pool, pass->payload_count, check_payload, pass);
    for (uint32_t i = 0; i < pass->payload_count; i++) {
        const struct payload *payload = &pass->payloads[i];
        const enum ct_err err = payload->fetched != CT_OK ? payload->fetched : payload->judged;
        char file[160];
        if (err == CT_ERR_MEMORY || (payload->fetched != CT_OK && err == CT_ERR_TOO_LARGE)) {
            return ct_fail(err, "%s", payload->reason);
        }
        if (is_gone(audit, payload->fetched, fold->round)) {
            ct_audit_note_gone(audit, fold->round, &payload->commit.update);
            pass->merges =
                pass->merges && fold->nodes[payload->commit.author - 1].part != CT_PART_RECEIVED;
            continue;
        }
        /* What is missing or damaged in a directory is found among its files. */
        if (err == CT_OK || !payload->wanted ||
            (payload->fetched != CT_OK && audit->whole_directory)) {
            continue;
        }
        ct_audit_blob_file(&payload->commit.update.sha256, file);
        ct_audit_find(audit->report,
                      payload->fetched == CT_OK || payload->fetched == CT_ERR_DIGEST
                          ? CT_FINDING_BROKEN
                          : CT_FINDING_UNAVAILABLE,
                      (int64_t)payload->commit_index, file, "%s", payload->reason);
    }
    return CT_OK;
}

/* Takes note of a received payload. */
static enum ct_err receive(struct pass *pass, uint64_t commit_index, bool wanted) {
    const struct ct_fold *fold = &pass->replay.fold;
    const struct ct_fold_node *node = NULL;
    for (uint32_t i = 0; i < fold->node_count && node == NULL; i++) {
        node = fold->nodes[i].commit_index == commit_index && fold->nodes[i].part != CT_PART_NONE
                   ? &fold->nodes[i]
                   : NULL;
    }
    CT_ASSERT(node != NULL);
    const bool may_be_gone = fold->round <= pass->audit->report->expired.line;
    if (pass->audit->whole_directory) {
        CT_TRY(
            ct_ref_sort_add(pass->audit->named, &node->commit.update, commit_index, may_be_gone));
    }
    wanted = wanted && commit_index >= pass->audit->verified;
    if (wanted || may_be_gone || pass->replay.theta_valid) {
        CT_ASSERT(pass->payload_count < fold->manifest.node_count);
        struct payload *payload = &pass->payloads[pass->payload_count++];
        payload->wanted = wanted;
        payload->may_be_gone = may_be_gone;
        payload->commit = node->commit;
        payload->commit_index = commit_index;
    }
    return CT_OK;
}

static enum ct_err name_dataset(struct ct_audit *audit, const struct ct_blob_ref *ref) {
    struct ct_buf bytes;
    CT_TRY(ct_ref_sort_add(audit->named, ref, 0, false));
    if (ct_source_blob(audit->source, ref, CT_DATASET_BYTES_MAX, &bytes) != CT_OK) {
        return CT_OK; /* found with all blobs that are named */
    }
    struct ct_dataset dataset;
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&bytes), &dataset);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        char file[160];
        ct_audit_blob_file(&ref->sha256, file);
        ct_audit_find(audit->report, CT_FINDING_BROKEN, 0, file, "%s", ct_err_detail());
        return CT_OK;
    }
    for (uint32_t i = 0; err == CT_OK && i < dataset.shard_count; i++) {
        err = ct_ref_sort_add(audit->named, &dataset.shards[i].ref, 0, false);
    }
    ct_dataset_deinit(&dataset);
    return err;
}

/* Blobs that the fold has read itself need no second look but among a directory's files. */
static enum ct_err name_read(struct ct_audit *audit, const struct ct_blob_ref *ref,
                             uint64_t index) {
    return audit->whole_directory ? ct_ref_sort_add(audit->named, ref, index, false) : CT_OK;
}

static enum ct_err open_run(struct pass *pass) {
    struct ct_audit *audit = pass->audit;
    const struct ct_fold *fold = &pass->replay.fold;
    pass->outcomes = calloc(fold->manifest.node_count + 1u, sizeof *pass->outcomes);
    pass->payloads = calloc(fold->manifest.node_count + 1u, sizeof *pass->payloads);
    if (pass->outcomes == NULL || pass->payloads == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u nodes", fold->manifest.node_count);
    }
    audit->snapshot_rounds = fold->manifest.snapshot_rounds;
    CT_TRY(ct_audit_tally_start(audit->report, fold));
    CT_TRY(name_read(audit, &fold->opened.manifest, 0));
    return audit->whole_directory || (audit->verified == 0 && !ct_audit_is_narrow(narrow_of(pass)))
               ? name_dataset(audit, &fold->manifest.dataset)
               : CT_OK;
}

/* What became of the commits is known until the round closes; kept for when it has. */
static void keep_outcomes(struct pass *pass) {
    const struct ct_fold *fold = &pass->replay.fold;
    pass->outcome_count = 0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const enum ct_part part = fold->nodes[i].part;
        if (part >= CT_PART_COMMITTED) {
            pass->outcomes[pass->outcome_count++] =
                (struct outcome){i, part == CT_PART_RECEIVED  ? CT_OUTCOME_MERGED
                                    : part == CT_PART_REFUSED ? CT_OUTCOME_REFUSED
                                                              : CT_OUTCOME_MISSING};
        }
    }
}

static enum ct_err close_round(struct pass *pass, const struct ct_entry *entry, uint64_t index,
                               bool wanted) {
    struct ct_audit *audit = pass->audit;
    const struct ct_fold *fold = &pass->replay.fold;
    const struct ct_audit_watch *watch = audit->options->watch;
    struct ct_audit_round round = {
        .round = fold->round,
        .commits = pass->outcome_count,
        .entry = index,
        .time_ms = entry->time_ms,
        .tokens = fold->round_closed.tokens,
        .model = fold->model,
    };
    for (uint32_t i = 0; i < pass->outcome_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[pass->outcomes[i].node];
        ct_audit_tally_commit(audit->report, fold, node, pass->outcomes[i].outcome);
        if (pass->outcomes[i].outcome == CT_OUTCOME_MERGED) {
            const double tokens =
                (double)node->commit.steps * fold->manifest.batch * fold->manifest.model.context;
            round.merged++;
            round.payload_bytes += node->commit.update.length;
            round.loss += (double)node->commit.loss * tokens;
        }
        if (watch != NULL && watch->contribution != NULL) {
            CT_TRY(watch->contribution(watch->user, fold, node, pass->outcomes[i].outcome));
        }
    }
    round.loss = round.tokens > 0 ? round.loss / (double)round.tokens : 0.0;
    round.replayable = pass->base_known && pass->merges;
    ct_audit_note_base(audit, fold, pass->merges, &pass->base_known);
    audit->report->rounds++;
    ct_audit_tally_round(audit->report, &round);
    if (watch != NULL && watch->round != NULL) {
        CT_TRY(watch->round(watch->user, &round));
    }
    CT_TRY(name_read(audit, &fold->round_closed.merged, index));
    const struct ct_blob_ref snapshot = {fold->round_closed.model,
                                         fold->layout.parameters * sizeof(float)};
    if (fold->round_closed.has_snapshot &&
        (audit->whole_directory || (wanted && index >= audit->verified))) {
        return ct_ref_sort_add(audit->named, &snapshot, index, false);
    }
    return CT_OK;
}

/* Takes note of what an accepted entry brings. */
static enum ct_err collect(struct pass *pass, const struct ct_entry *entry, uint64_t index,
                           bool wanted) {
    struct ct_audit *audit = pass->audit;
    const struct ct_fold *fold = &pass->replay.fold;
    const struct ct_audit_watch *watch = audit->options->watch;
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        return open_run(pass);
    case CT_ENTRY_NODE_ADMITTED:
        CT_TRY(ct_audit_tally_node(audit->report, fold));
        return watch == NULL || watch->node == NULL
                   ? CT_OK
                   : watch->node(watch->user, fold, &fold->nodes[fold->node_count - 1]);
    case CT_ENTRY_ROUND_OPENED:
        return name_read(audit, &fold->round_opened.assignments, index);
    case CT_ENTRY_COMMIT:
        audit->report->contributions += wanted;
        for (uint32_t i = 0; i < fold->node_count; i++) {
            const struct ct_fold_node *node = &fold->nodes[i];
            if (node->part == CT_PART_COMMITTED && node->commit_index == index) {
                return ct_units_commit(audit->units, fold, node, wanted, pass->base_known);
            }
        }
        return CT_OK;
    case CT_ENTRY_RECEIVED:
        return receive(pass, entry->body.received.commit_index, wanted);
    case CT_ENTRY_ROUND_CLOSED:
        return close_round(pass, entry, index, wanted);
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_REFUSED:
        break;
    }
    return CT_OK;
}

/* The fold refused entry `index`. */
static void find_entry(struct pass *pass, uint64_t index, struct ct_bytes bytes, enum ct_err err) {
    const bool absent = err == CT_ERR_NOT_FOUND || err == CT_ERR_NETWORK;
    char file[160];
    char reason[400];
    struct ct_envelope envelope;
    struct ct_entry entry;
    struct ct_blob_ref ref;
    snprintf(reason, sizeof reason, "%s", ct_err_detail());
    ct_audit_log_file(&pass->audit->log, index, file);
    if (absent && ct_envelope_open(bytes, &envelope) == CT_OK &&
        ct_entry_decode(envelope.payload, &entry) == CT_OK && ct_entry_needs_blob(&entry, &ref)) {
        ct_audit_blob_file(&ref.sha256, file);
    }
    ct_audit_find(pass->audit->report, absent ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN,
                  (int64_t)index, file, "%s; the entries from here on cannot be judged", reason);
}

void ct_audit_find_model(struct ct_audit *audit, uint64_t index, uint32_t round, enum ct_err err) {
    const bool accused = err == CT_ERR_DIGEST;
    const bool broken = err == CT_ERR_FORMAT || err == CT_ERR_RULE;
    char file[160];
    if (is_gone(audit, err, round)) {
        return;
    }
    ct_audit_log_file(&audit->log, index, file);
    ct_audit_find(audit->report,
                  accused  ? CT_FINDING_MISMATCH
                  : broken ? CT_FINDING_BROKEN
                           : CT_FINDING_UNAVAILABLE,
                  (int64_t)index, file, "%s", ct_err_detail());
}

enum ct_err ct_audit_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                          struct ct_buf *out) {
    const enum ct_err err = ct_source_blob(user, ref, maximum, out);
    return err == CT_ERR_DIGEST ? ct_fail(CT_ERR_NOT_FOUND, "%s", ct_err_detail()) : err;
}

/* One entry; *out_more is false when the fold does not accept it. */
static enum ct_err take_entry(struct pass *pass, uint32_t at, bool *out_more) {
    struct ct_audit *audit = pass->audit;
    struct ct_replay *replay = &pass->replay;
    const struct ct_bytes bytes = ct_audit_bundle_entry(&pass->bundle, at);
    const uint64_t index = pass->bundle.first + at;
    struct ct_envelope envelope;
    struct ct_entry entry;
    const bool known = ct_envelope_open(bytes, &envelope) == CT_OK &&
                       ct_entry_decode(envelope.payload, &entry) == CT_OK;
    const bool closes = known && entry.kind == CT_ENTRY_ROUND_CLOSED;
    const bool wanted = known && wants(pass, index, &entry);
    if (closes && pass->outcomes != NULL) {
        CT_TRY(flush_payloads(pass));
        keep_outcomes(pass);
    }
    const bool valid = replay->theta_valid;
    const enum ct_err applied =
        ct_replay_apply(replay, bytes, !pass->signed_right[at], ct_source_blob, audit->source);
    if (closes) {
        drop_payloads(pass);
    }
    *out_more = replay->fold.entries == index + 1;
    if (applied == CT_ERR_MEMORY || applied == CT_ERR_TOO_LARGE) {
        return applied;
    }
    if (!*out_more) {
        find_entry(pass, index, bytes, applied);
        return CT_OK;
    }
    if (applied != CT_OK && valid) {
        ct_audit_find_model(audit, index, replay->fold.round, applied);
        pass->merges = pass->merges && !is_gone(audit, applied, replay->fold.round);
    }
    CT_ASSERT(known);
    audit->end = index + 1;
    audit->report->signatures += pass->signatures[at];
    return collect(pass, &entry, index, wanted);
}

static enum ct_err fold_entries(struct pass *pass) {
    struct ct_audit *audit = pass->audit;
    const uint64_t size = audit->log.checkpoint.size;
    bool more = true;
    enum ct_err err = CT_OK;
    for (uint64_t first = 0; first < size && more && err == CT_OK; first += CT_TILE_WIDTH) {
        err = ct_audit_log_bundle(&audit->log, first / CT_TILE_WIDTH, &pass->bundle);
        if (err != CT_OK) {
            break;
        }
        if (size - first < pass->bundle.count) {
            pass->bundle.count = (uint32_t)(size - first);
        }
        ct_pool_run(audit->pool, pass->bundle.count, prepare_entry, pass);
        for (uint32_t at = 0; at < pass->bundle.count && more && err == CT_OK; at++) {
            err = take_entry(pass, at, &more);
        }
        ct_audit_progress(audit->report, "entries", audit->end, size);
    }
    if (err == CT_OK) {
        err = flush_payloads(pass);
    }
    return err;
}

static void conclude(struct pass *pass) {
    struct ct_audit_report *report = pass->audit->report;
    const struct ct_replay *replay = &pass->replay;
    report->entries = pass->audit->end;
    report->replayed_rounds += replay->merged_rounds;
    report->model = replay->fold.model;
    report->model_recomputed = replay->theta_valid;
    if (replay->theta_valid) {
        report->model = ct_model_digest(&replay->fold.layout, replay->theta);
    }
    ct_audit_tally_end(report, &replay->fold);
}

enum ct_err ct_audit_pass(struct ct_audit *audit, uint32_t from_round) {
    struct pass *pass = calloc(1, sizeof *pass);
    if (pass == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for an audit");
    }
    pass->audit = audit;
    pass->base_known = true;
    ct_buf_init(&pass->bundle.bytes, CT_BUNDLE_BYTES_MAX);
    ct_replay_init(&pass->replay, from_round);
    const enum ct_err err = fold_entries(pass);
    if (err == CT_OK) {
        conclude(pass);
    }
    drop_payloads(pass);
    ct_replay_deinit(&pass->replay);
    ct_buf_deinit(&pass->bundle.bytes);
    free(pass->outcomes);
    free(pass->payloads);
    free(pass);
    return err;
}

enum ct_err ct_audit_replay(struct ct_audit *audit, uint32_t from_round, uint32_t first_round,
                            uint32_t last_round) {
    struct ct_audit_cursor cursor = {.log = &audit->log};
    struct ct_replay replay;
    enum ct_err err = CT_OK;
    ct_replay_init(&replay, from_round);
    while (err == CT_OK && cursor.next < audit->end) {
        const uint64_t index = cursor.next;
        const bool valid = replay.theta_valid;
        const uint32_t merged = replay.merged_rounds;
        struct ct_bytes entry;
        err = ct_audit_cursor_next(&cursor, &entry);
        if (err != CT_OK) {
            break;
        }
        const enum ct_err applied =
            ct_replay_apply(&replay, entry, false, ct_audit_blob, audit->source);
        if (applied == CT_ERR_MEMORY || replay.fold.entries != index + 1) {
            err = applied;
            break;
        }
        if (applied != CT_OK && (valid || replay.fold.round >= first_round)) {
            ct_audit_find_model(audit, index, replay.fold.round, applied);
        }
        if (replay.merged_rounds > merged && replay.fold.round >= first_round) {
            audit->report->replayed_rounds++;
            ct_audit_progress(audit->report, "rounds replayed", replay.fold.round, last_round);
        }
        if (replay.fold.round >= last_round && replay.fold.phase != CT_PHASE_COMMIT &&
            replay.fold.phase != CT_PHASE_UPLOAD) {
            break;
        }
    }
    ct_audit_cursor_deinit(&cursor);
    ct_replay_deinit(&replay);
    return err;
}
