#include "follow.h"

#include "node_dir.h"

#include <cotrain/assert.h>
#include <cotrain/dataset.h>
#include <cotrain/log.h>
#include <cotrain/retention.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* θ is kept on disk every so many rounds; a node that is killed recomputes the rest. */
#define SAVE_ROUNDS 8u

/* Larger than any round: the saved θ is put in by hand when its round closes. */
#define FROM_SAVED (CT_REPLAY_NEVER - 1)

enum ct_err ct_follow_open(struct ct_follow *follow, const char *dir,
                           const struct ct_run_opened *run_opened, const struct ct_hash *run_id,
                           const struct ct_hash *key) {
    memset(follow, 0, sizeof *follow);
    follow->copy.fd = -1;
    follow->run_id = *run_id;
    follow->key = *key;
    int n = snprintf(follow->dir, sizeof follow->dir, "%s", dir);
    char path[CT_NODE_PATH_MAX];
    if (n < 0 || (size_t)n >= sizeof follow->dir) {
        return ct_fail(CT_ERR_CONFIG, "the directory's path is too long");
    }
    CT_TRY(ct_node_path(dir, CT_NODE_BLOBS, path));
    CT_TRY(ct_blobs_init(&follow->blobs, path));
    CT_TRY(ct_blobs_sweep(&follow->blobs));
    CT_TRY(ct_node_path(dir, CT_NODE_LEDGER, path));
    CT_TRY(ct_ledger_copy_open(path, run_opened->origin, &run_opened->log_key, &follow->copy));
    CT_ASSERT(pthread_mutex_init(&follow->lock, NULL) == 0);
    ct_replay_init(&follow->replay, CT_REPLAY_NEVER);
    return CT_OK;
}

static void save_theta(struct ct_follow *follow) {
    char path[CT_NODE_PATH_MAX];
    if (!follow->replay.theta_valid || follow->replay.theta_round == follow->saved_round) {
        return;
    }
    enum ct_err err = ct_node_path(follow->dir, CT_NODE_THETA, path);
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_replay_snapshot_bytes(&follow->replay));
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "follow", "the model was not kept for the next start: %s",
               ct_err_detail());
        return;
    }
    follow->saved_round = follow->replay.theta_round;
}

void ct_follow_close(struct ct_follow *follow) {
    save_theta(follow);
    ct_replay_deinit(&follow->replay);
    ct_ledger_copy_close(&follow->copy);
    pthread_mutex_destroy(&follow->lock);
}

static void drop_blob(struct ct_follow *follow, const struct ct_hash *sha256) {
    char path[4096];
    ct_blobs_path(&follow->blobs, sha256, path);
    unlink(path);
}

/* Blobs that entries name: from the store, else, or when damaged there, from the network. */
static enum ct_err blob_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                               struct ct_buf *out) {
    struct ct_follow *follow = user;
    if (ref->length > maximum) {
        return ct_fail(CT_ERR_TOO_LARGE, "a blob of %llu bytes where %llu are allowed",
                       (unsigned long long)ref->length, (unsigned long long)maximum);
    }
    CT_TRY(ct_fetch_blob(follow->fetch, ref, &follow->blobs));
    enum ct_err err = ct_blobs_get(&follow->blobs, ref, maximum, out);
    if (err == CT_ERR_DIGEST) {
        drop_blob(follow, &ref->sha256);
        CT_TRY(ct_fetch_blob(follow->fetch, ref, &follow->blobs));
        err = ct_blobs_get(&follow->blobs, ref, maximum, out);
    }
    return err;
}

static bool is_own(const struct ct_follow *follow, const struct ct_fold_node *node) {
    return ct_hash_equal(&node->key, &follow->key);
}

static enum ct_err decode_entry(struct ct_bytes bytes, struct ct_entry *out) {
    struct ct_envelope envelope;
    CT_TRY(ct_envelope_open(bytes, &envelope));
    return ct_entry_decode(envelope.payload, out);
}

/* Everything that replaying a closing round will read, so that it cannot fail halfway. */
static enum ct_err fetch_for_close(struct ct_follow *follow, const struct ct_round_closed *closed) {
    const struct ct_replay *replay = &follow->replay;
    const struct ct_fold *fold = &replay->fold;
    double loss = 0.0;
    double steps = 0.0;
    uint32_t senders = 0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        if (node->part != CT_PART_RECEIVED) {
            continue;
        }
        if (replay->theta_valid) {
            CT_TRY(ct_fetch_blob(follow->fetch, &node->commit.update, &follow->blobs));
        }
        senders++;
        loss += (double)node->commit.loss * node->commit.steps;
        steps += node->commit.steps;
    }
    CT_TRY(ct_fetch_blob(follow->fetch, &closed->merged, &follow->blobs));
    follow->last_senders = senders;
    follow->last_loss = steps > 0.0 ? (float)(loss / steps) : 0.0f;
    if (!replay->theta_valid && closed->has_snapshot && fold->round >= replay->from_round) {
        struct ct_blob_ref ref = {closed->model, fold->layout.parameters * sizeof(float)};
        CT_TRY(ct_fetch_blob(follow->fetch, &ref, &follow->blobs));
    }
    return CT_OK;
}

/* Payloads of others and snapshots are not kept: the coordinator and mirrors have them. */
static void drop_after_close(struct ct_follow *follow, const struct ct_hash *updates,
                             uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        drop_blob(follow, &updates[i]);
    }
    const struct ct_fold *fold = &follow->replay.fold;
    if (fold->snapshot_round == fold->round && fold->round > 0) {
        drop_blob(follow, &fold->snapshot);
    }
}

/* Puts in the θ that this node kept, if the round that just closed made it. */
static void try_saved_theta(struct ct_follow *follow) {
    struct ct_replay *replay = &follow->replay;
    if (replay->from_round != FROM_SAVED || replay->theta_valid ||
        replay->fold.round != follow->saved_round) {
        return;
    }
    char path[CT_NODE_PATH_MAX];
    size_t bytes = replay->fold.layout.parameters * sizeof(float);
    struct ct_buf buf;
    ct_buf_init(&buf, bytes);
    if (ct_node_path(follow->dir, CT_NODE_THETA, path) == CT_OK &&
        ct_file_read(path, &buf) == CT_OK && buf.length == bytes) {
        struct ct_hash digest = ct_sha256(ct_buf_bytes(&buf));
        if (ct_hash_equal(&digest, &replay->fold.model)) {
            memcpy(replay->theta, buf.data, bytes);
            replay->theta_valid = true;
            replay->theta_round = replay->fold.round;
            replay->from_round = replay->fold.round;
        }
    }
    ct_buf_deinit(&buf);
}

static enum ct_err apply_close(struct ct_follow *follow, struct ct_bytes bytes,
                               const struct ct_round_closed *closed) {
    struct ct_replay *replay = &follow->replay;
    CT_TRY(fetch_for_close(follow, closed));
    struct ct_hash *others = calloc(replay->fold.node_count + 1, sizeof *others);
    if (others == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a round's digests");
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < replay->fold.node_count; i++) {
        const struct ct_fold_node *node = &replay->fold.nodes[i];
        if (node->part == CT_PART_RECEIVED && !is_own(follow, node)) {
            others[count++] = node->commit.update.sha256;
        }
    }
    const uint64_t before = replay->fold.entries;
    const bool had_theta = replay->theta_valid;
    pthread_mutex_lock(&follow->lock);
    enum ct_err err = ct_replay_apply(replay, bytes, true, blob_source, follow);
    const bool closes = replay->fold.entries > before;
    if (closes) {
        try_saved_theta(follow);
    }
    pthread_mutex_unlock(&follow->lock);
    if (!closes && had_theta && !replay->theta_valid) {
        /* θ moved on without its entry: nothing but a new beginning brings it back. */
        follow->started = false;
    }
    if (closes) {
        const struct ct_fold_node *self = ct_fold_find_key(&replay->fold, &follow->key);
        follow->last_round = replay->fold.round;
        follow->last_merged =
            self != NULL && self->last_round == replay->fold.round && self->last_merged;
        drop_after_close(follow, others, count);
    }
    free(others);
    return err;
}

/* Applies what the copy has beyond the fold. *out_different: θ left the log's on the way. */
static enum ct_err apply_entries(struct ct_follow *follow, bool *out_different) {
    struct ct_replay *replay = &follow->replay;
    struct ct_buf bytes;
    enum ct_err err = CT_OK;
    *out_different = false;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    for (;;) {
        struct ct_ledger_cursor next = follow->cursor;
        struct ct_entry entry;
        err = ct_ledger_copy_next(&follow->copy, &next, &bytes);
        if (err != CT_OK) {
            err = err == CT_ERR_NOT_FOUND ? CT_OK : err;
            break;
        }
        err = decode_entry(ct_buf_bytes(&bytes), &entry);
        if (err != CT_OK) {
            err = ct_fail(err, "entry %llu: %s", (unsigned long long)follow->cursor.index,
                          ct_err_detail());
            break;
        }
        if (entry.kind == CT_ENTRY_ROUND_CLOSED && replay->fold.phase == CT_PHASE_UPLOAD) {
            err = apply_close(follow, ct_buf_bytes(&bytes), &entry.body.round_closed);
        } else {
            pthread_mutex_lock(&follow->lock);
            err = ct_replay_apply(replay, ct_buf_bytes(&bytes), true, blob_source, follow);
            pthread_mutex_unlock(&follow->lock);
        }
        if (replay->fold.entries != next.index) {
            break;
        }
        follow->cursor = next;
        if (err != CT_OK) {
            /* The entry holds, θ does not follow it. */
            ct_log(CT_LOG_WARN, "follow", "%s", ct_err_detail());
            *out_different = true;
        } else if (replay->theta_valid &&
                   replay->theta_round >= follow->saved_round + SAVE_ROUNDS) {
            save_theta(follow);
        }
    }
    ct_buf_deinit(&bytes);
    return err;
}

static bool saved_digest(struct ct_follow *follow, struct ct_hash *out) {
    char path[CT_NODE_PATH_MAX];
    struct ct_buf buf;
    ct_buf_init(&buf, CT_BLOB_IN_MEMORY_MAX);
    bool found = ct_node_path(follow->dir, CT_NODE_THETA, path) == CT_OK &&
                 ct_file_read(path, &buf) == CT_OK;
    if (found) {
        *out = ct_sha256(ct_buf_bytes(&buf));
    }
    ct_buf_deinit(&buf);
    return found;
}

/* Rounds that entries of the copy tell about; 0: none such. */
struct found {
    uint32_t closed, snapshot; /* the last of each */
    uint32_t saved;            /* that left this model */
};

/* Looks through the copy from a cursor on; `saved` is a model's digest or NULL. */
static enum ct_err look_ahead(const struct ct_follow *follow, struct ct_ledger_cursor cursor,
                              const struct ct_hash *saved, struct found *out) {
    struct ct_buf bytes;
    *out = (struct found){0};
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    while ((err = ct_ledger_copy_next(&follow->copy, &cursor, &bytes)) == CT_OK) {
        struct ct_entry entry;
        /* One that does not decode is reported when it is applied. */
        if (decode_entry(ct_buf_bytes(&bytes), &entry) != CT_OK ||
            entry.kind != CT_ENTRY_ROUND_CLOSED) {
            continue;
        }
        out->closed = entry.round;
        if (entry.body.round_closed.has_snapshot) {
            out->snapshot = entry.round;
        }
        if (saved != NULL && ct_hash_equal(saved, &entry.body.round_closed.model)) {
            out->saved = entry.round;
        }
    }
    ct_buf_deinit(&bytes);
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

/* Chooses where θ comes from: the newest of what this node kept and what the log has snapshots of,
 * else θ₀; and starts the replay at entry 0. */
static enum ct_err start(struct ct_follow *follow, bool use_saved) {
    const struct ct_ledger_cursor first = {0};
    struct ct_hash saved;
    struct found found;
    use_saved = use_saved && saved_digest(follow, &saved);
    CT_TRY(look_ahead(follow, first, use_saved ? &saved : NULL, &found));
    pthread_mutex_lock(&follow->lock);
    ct_replay_deinit(&follow->replay);
    ct_replay_init(&follow->replay, found.saved > found.snapshot ? FROM_SAVED : found.snapshot);
    pthread_mutex_unlock(&follow->lock);
    follow->saved_round = found.saved;
    follow->cursor = (struct ct_ledger_cursor){0};
    follow->started = true;
    return CT_OK;
}

/* Who was away may have been overtaken: payloads that θ needs to go on have expired, by what the
 * copy now has. Then θ waits for the newest snapshot; the rounds up to there need no payloads. */
static enum ct_err leap(struct ct_follow *follow) {
    struct ct_replay *replay = &follow->replay;
    struct found found;
    if (replay->fold.phase == CT_PHASE_EMPTY || replay->fold.manifest.retention_rounds == 0) {
        return CT_OK;
    }
    CT_TRY(look_ahead(follow, follow->cursor, NULL, &found));
    const uint32_t base = replay->theta_valid                ? replay->theta_round
                          : replay->from_round == FROM_SAVED ? follow->saved_round
                                                             : replay->from_round;
    /* The line is at a snapshot, so one lies ahead if the base is behind the line. */
    if (base < ct_retention_expired(&replay->fold.manifest, found.closed) &&
        base < found.snapshot) {
        ct_log(CT_LOG_INFO, "follow",
               "updates after round %u have expired: taking the model of round %u from its "
               "snapshot",
               base, found.snapshot);
        pthread_mutex_lock(&follow->lock);
        replay->theta_valid = false;
        replay->from_round = found.snapshot;
        pthread_mutex_unlock(&follow->lock);
    }
    return CT_OK;
}

static enum ct_err check_first_entry(struct ct_follow *follow) {
    struct ct_buf bytes;
    struct ct_envelope envelope;
    struct ct_ledger_cursor cursor = {0};
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_ledger_copy_next(&follow->copy, &cursor, &bytes);
    if (err == CT_OK) {
        err = ct_envelope_open(ct_buf_bytes(&bytes), &envelope);
    }
    if (err == CT_OK) {
        struct ct_hash id = ct_run_id(envelope.payload);
        if (!ct_hash_equal(&id, &follow->run_id)) {
            err = ct_fail(CT_ERR_RULE, "the log's first entry does not open the ticket's run");
        }
    }
    ct_buf_deinit(&bytes);
    return err;
}

enum ct_err ct_follow_advance(struct ct_follow *follow, struct ct_bytes note,
                              struct ct_fetch *fetch) {
    CT_TRY(ct_ledger_copy_advance(&follow->copy, note, fetch));
    if (follow->copy.frontier.size == 0) {
        return CT_OK;
    }
    if (!follow->started) {
        CT_TRY(check_first_entry(follow));
        CT_TRY(start(follow, true));
    }
    CT_TRY(leap(follow));
    follow->fetch = fetch;
    bool different = false;
    enum ct_err err = apply_entries(follow, &different);
    if (err == CT_OK && different) {
        follow->differences++;
        ct_log(CT_LOG_WARN, "follow", "this node's model is not the log's; building it again");
        err = start(follow, false);
        if (err == CT_OK) {
            err = apply_entries(follow, &different);
        }
        if (err == CT_OK && different) {
            follow->differences++;
        }
        if (follow->differences >= 2) {
            ct_log(CT_LOG_ERROR, "follow",
                   "the model differed from the log's %u times: test this machine's memory (for "
                   "example with memtest86+); if it is sound, the log is wrong: run 'cotrain "
                   "audit'",
                   follow->differences);
        }
    }
    follow->fetch = NULL;
    return err;
}

enum ct_err ct_follow_fetch_data(struct ct_follow *follow, struct ct_fetch *fetch) {
    const struct ct_manifest *manifest = &follow->replay.fold.manifest;
    if (follow->replay.fold.phase == CT_PHASE_EMPTY) {
        return ct_fail(CT_ERR_STATE, "the run's manifest is not here yet");
    }
    struct ct_buf json;
    struct ct_dataset dataset;
    CT_TRY(ct_fetch_blob(fetch, &manifest->dataset, &follow->blobs));
    CT_TRY(ct_blobs_get(&follow->blobs, &manifest->dataset, CT_DATASET_BYTES_MAX, &json));
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&json), &dataset);
    ct_buf_deinit(&json);
    CT_TRY(err);
    for (uint32_t i = 0; err == CT_OK && i < dataset.shard_count; i++) {
        if (dataset.shards[i].split == CT_SPLIT_TRAIN) {
            err = ct_fetch_blob(fetch, &dataset.shards[i].ref, &follow->blobs);
        }
    }
    ct_dataset_deinit(&dataset);
    return err;
}

static void view_node(const struct ct_fold *fold, const struct ct_fold_node *node,
                      struct ct_view *out) {
    out->node = node->number;
    out->merged_state = node->state;
    out->merged_rounds = node->merged_rounds;
    out->merged_tokens = node->merged_tokens;
    if (fold->phase != CT_PHASE_COMMIT && fold->phase != CT_PHASE_UPLOAD) {
        return;
    }
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, node->number);
    if (assignment == NULL) {
        return;
    }
    out->part = node->part;
    out->assignment = *assignment;
    if (node->part == CT_PART_COMMITTED || node->part == CT_PART_RECEIVED) {
        out->committed_update = node->commit.update.sha256;
    }
}

void ct_follow_view(const struct ct_follow *follow, struct ct_view *out) {
    const struct ct_replay *replay = &follow->replay;
    const struct ct_fold *fold = &replay->fold;
    *out = (struct ct_view){
        .entries = fold->entries,
        .round = fold->round,
        .rounds = fold->manifest.rounds,
        .phase = fold->phase,
        .theta_valid = replay->theta_valid,
        .theta_round = replay->theta_round,
        .model = fold->model,
        .tokens = fold->tokens,
        .last_round = follow->last_round,
        .last_merged = follow->last_merged,
        .last_loss = follow->last_loss,
        .last_senders = follow->last_senders,
        .differences = follow->differences,
    };
    if (fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD) {
        out->assignments_digest = fold->round_opened.assignments.sha256;
        out->tokens_at_base = fold->round_opened.tokens_at_base;
        out->planned_tokens = fold->round_opened.planned_tokens;
        out->assigned_nodes = fold->assignments.count;
    }
    const struct ct_fold_node *node = ct_fold_find_key(fold, &follow->key);
    if (node != NULL) {
        view_node(fold, node, out);
    }
}

enum ct_err ct_follow_copy_base(struct ct_follow *follow, uint32_t round, size_t parameters,
                                float *out) {
    enum ct_err err = CT_OK;
    pthread_mutex_lock(&follow->lock);
    const struct ct_replay *replay = &follow->replay;
    if (!replay->theta_valid || replay->theta_round + 1 != round ||
        replay->fold.layout.parameters != parameters) {
        err = ct_fail(CT_ERR_STATE, "the base of round %u is not here", round);
    } else {
        memcpy(out, replay->theta, parameters * sizeof *out);
    }
    pthread_mutex_unlock(&follow->lock);
    return err;
}
