/* A small run made in memory for tests: keys, blobs, signed entries, and the fold over them. */
#ifndef TESTS_RUN_MAKER_H
#define TESTS_RUN_MAKER_H

#include <cotrain/fold.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shapes.h"

#define MAKER_NODES 4u
#define MAKER_BLOBS 512u

struct maker {
    struct ct_key *identity, *log_key, *node_keys[MAKER_NODES];
    struct ct_manifest manifest;
    struct ct_blob_ref refs[MAKER_BLOBS];
    struct ct_buf blobs[MAKER_BLOBS];
    uint32_t blob_count;
    struct ct_blob_ref hidden; /* one that the source says it lacks */
    struct ct_fold fold;
    struct ct_hash round_seed;
    float rates[3];
};

static inline struct ct_blob_ref maker_put(struct maker *maker, struct ct_bytes bytes) {
    assert_true(maker->blob_count < MAKER_BLOBS);
    struct ct_buf *blob = &maker->blobs[maker->blob_count];
    ct_buf_init(blob, bytes.length + 1);
    assert_int_equal(ct_buf_append(blob, bytes.data, bytes.length), CT_OK);
    struct ct_blob_ref ref = {ct_sha256(bytes), bytes.length};
    maker->refs[maker->blob_count++] = ref;
    return ref;
}

static inline enum ct_err maker_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                                       struct ct_buf *out) {
    struct maker *maker = user;
    if (ref->length > maximum) {
        return ct_fail(CT_ERR_TOO_LARGE, "a blob of %llu bytes", (unsigned long long)ref->length);
    }
    for (uint32_t i = 0; i < maker->blob_count; i++) {
        if (ct_hash_equal(&maker->refs[i].sha256, &ref->sha256) &&
            maker->refs[i].length == ref->length &&
            !ct_hash_equal(&ref->sha256, &maker->hidden.sha256)) {
            ct_buf_init(out, maximum);
            return ct_buf_append(out, maker->blobs[i].data, maker->blobs[i].length);
        }
    }
    return ct_fail(CT_ERR_NOT_FOUND, "the blob is not there");
}

/* A tiny model; 2 sequences of 4 tokens a step, 1 to 8 steps, quorum 2, a snapshot every second
 * round, 6 rounds. */
static inline void maker_init(struct maker *maker) {
    memset(maker, 0, sizeof *maker);
    assert_int_equal(ct_key_generate(&maker->identity), CT_OK);
    assert_int_equal(ct_key_generate(&maker->log_key), CT_OK);
    maker->rates[0] = 1e-3f;
    maker->rates[1] = 2e-3f;
    maker->rates[2] = 1e-3f;
    struct ct_manifest *m = &maker->manifest;
    *m = (struct ct_manifest){
        .version = 1,
        .name = "test",
        .license = "Apache-2.0",
        .provenance = "made by the test",
        .data_license = "CC0-1.0",
        .model = GPT2_SHAPE(256, 4, 1, 2, 8),
        .numerics = CT_NUMERICS_BF16_1,
        .tokenizer = "bytes",
        .dataset = {{{1}}, 100},
        .rounds = 6,
        .batch = 2,
        .leaves = 1,
        .steps_min = 1,
        .steps = 4,
        .steps_max = 8,
        .adamw = {0.9f, 0.95f, 0.1f, 0.05f, 1e-8f, 0.1f, 1.0f},
        .rate_unit = 100,
        .rate_count = 3,
        .rates = maker->rates,
        .epoch_rounds = 16,
        .snapshot_rounds = 2,
        .quorum_nodes = 2,
        .round_time_ms = 60000,
        .upload_time_ms = 60000,
        .checkpoint_time_ms = 1000,
        .node_count = MAKER_NODES,
    };
    m->source = strdup("run: {}\n");
    m->nodes = calloc(MAKER_NODES, sizeof m->nodes[0]);
    assert_non_null(m->source);
    assert_non_null(m->nodes);
    for (uint32_t i = 0; i < MAKER_NODES; i++) {
        assert_int_equal(ct_key_generate(&maker->node_keys[i]), CT_OK);
        m->nodes[i] = ct_key_public(maker->node_keys[i]);
    }
    ct_fold_init(&maker->fold);
}

static inline void maker_deinit(struct maker *maker) {
    ct_fold_deinit(&maker->fold);
    for (uint32_t i = 0; i < maker->blob_count; i++) {
        ct_buf_deinit(&maker->blobs[i]);
    }
    for (uint32_t i = 0; i < MAKER_NODES; i++) {
        ct_key_free(maker->node_keys[i]);
    }
    ct_key_free(maker->identity);
    ct_key_free(maker->log_key);
    free(maker->manifest.nodes);
    free(maker->manifest.source);
}

/* The fold's answer to the entry, sealed by `key` with a key number. */
static inline enum ct_err maker_apply_sealed(struct maker *maker, const struct ct_entry *entry,
                                             const struct ct_key *key, uint32_t key_number,
                                             const char *type) {
    struct ct_buf payload, envelope;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&envelope, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(type, ct_buf_bytes(&payload), key_number, key, &envelope),
                     CT_OK);
    enum ct_err err =
        ct_fold_apply(&maker->fold, ct_buf_bytes(&envelope), true, maker_source, maker);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return err;
}

static inline enum ct_err maker_apply(struct maker *maker, const struct ct_entry *entry) {
    return maker_apply_sealed(maker, entry, maker->identity, 0, CT_TYPE_ENTRY);
}

#define MAKER_ACCEPT(maker, entry)                                                                 \
    do {                                                                                           \
        if (maker_apply(maker, entry) != CT_OK) {                                                  \
            fail_msg("%s", ct_err_detail());                                                       \
        }                                                                                          \
    } while (0)

static inline void maker_run_opened(struct maker *maker, struct ct_entry *out) {
    struct ct_buf manifest;
    ct_buf_init(&manifest, CT_MANIFEST_BYTES_MAX);
    if (ct_manifest_encode(&maker->manifest, &manifest) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    *out = (struct ct_entry){.kind = CT_ENTRY_RUN_OPENED, .version = 1, .time_ms = 1};
    struct ct_run_opened *opened = &out->body.run_opened;
    opened->manifest = maker_put(maker, ct_buf_bytes(&manifest));
    opened->nonce[0] = 7;
    opened->identity_key = ct_key_public(maker->identity);
    opened->log_key = ct_key_public(maker->log_key);
    strcpy(opened->origin, "example.org/test");
    ct_buf_deinit(&manifest);
}

static inline void maker_entry(const struct maker *maker, enum ct_entry_kind kind,
                               struct ct_entry *out) {
    *out = (struct ct_entry){.kind = kind,
                             .version = 1,
                             .run_id = maker->fold.run_id,
                             .round = maker->fold.round,
                             .time_ms = 2};
}

static inline void maker_admitted(const struct maker *maker, uint32_t node, struct ct_entry *out) {
    maker_entry(maker, CT_ENTRY_NODE_ADMITTED, out);
    out->body.node_admitted.node = node;
    out->body.node_admitted.key = maker->manifest.nodes[node - 1];
    out->body.node_admitted.profile.bytes[0] = 1;
}

static inline struct ct_blob_ref maker_put_assignments(struct maker *maker,
                                                       const struct ct_assignments *assignments) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ASSIGNMENTS_BYTES_MAX);
    assert_int_equal(ct_assignments_encode(assignments, &bytes), CT_OK);
    struct ct_blob_ref ref = maker_put(maker, ct_buf_bytes(&bytes));
    ct_buf_deinit(&bytes);
    return ref;
}

static inline void maker_round_opened_with(struct maker *maker,
                                           const struct ct_assignments *assignments,
                                           struct ct_entry *out) {
    maker_entry(maker, CT_ENTRY_ROUND_OPENED, out);
    out->round++;
    struct ct_round_opened *opened = &out->body.round_opened;
    opened->base = maker->fold.model;
    if (!maker->fold.model_known) {
        memset(opened->base.bytes, 0xaa, sizeof opened->base.bytes);
    }
    opened->assignments = maker_put_assignments(maker, assignments);
    memset(maker->round_seed.bytes, (int)out->round, sizeof maker->round_seed.bytes);
    opened->seed_hash = ct_sha256((struct ct_bytes){maker->round_seed.bytes, 32});
    opened->tokens_at_base = maker->fold.tokens;
    opened->planned_tokens = ct_plan_tokens(&maker->fold, assignments);
}

static inline void maker_round_opened(struct maker *maker, const struct ct_plan_request *requests,
                                      uint32_t count, struct ct_entry *out) {
    struct ct_assignments assignments;
    if (ct_plan_round(&maker->fold, requests, count, &assignments) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    maker_round_opened_with(maker, &assignments, out);
    ct_assignments_deinit(&assignments);
}

/* What node says about its part; the update's digest is made up. */
static inline struct ct_commit maker_commit(const struct maker *maker, uint32_t node) {
    const struct ct_assignment *assignment = ct_assignments_find(&maker->fold.assignments, node);
    struct ct_commit commit = {
        .version = 1,
        .run_id = maker->fold.run_id,
        .round = maker->fold.round,
        .author = node,
        .assignment = maker->fold.round_opened.assignments.sha256,
        .update = {.length = 100},
        .steps = assignment != NULL ? assignment->steps : 4,
        .loss = 2.5f,
    };
    memset(commit.update.sha256.bytes, (int)node, 32);
    memset(commit.state.bytes, (int)(node * 16 + maker->fold.round), 32);
    return commit;
}

static inline void maker_commit_entry_sealed(const struct maker *maker,
                                             const struct ct_commit *commit,
                                             const struct ct_key *key, uint32_t key_number,
                                             const char *type, struct ct_entry *out) {
    struct ct_buf payload, envelope;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&envelope, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(commit, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(type, ct_buf_bytes(&payload), key_number, key, &envelope),
                     CT_OK);
    maker_entry(maker, CT_ENTRY_COMMIT, out);
    out->body.commit.length = (uint32_t)envelope.length;
    memcpy(out->body.commit.envelope, envelope.data, envelope.length);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
}

static inline void maker_commit_entry(const struct maker *maker, const struct ct_commit *commit,
                                      struct ct_entry *out) {
    maker_commit_entry_sealed(maker, commit, maker->node_keys[commit->author - 1], commit->author,
                              CT_TYPE_COMMIT, out);
}

static inline void maker_commits_closed(const struct maker *maker, struct ct_entry *out) {
    maker_entry(maker, CT_ENTRY_COMMITS_CLOSED, out);
    memcpy(out->body.commits_closed.seed, maker->round_seed.bytes, 32);
}

static inline void maker_received(const struct maker *maker, uint32_t node, struct ct_entry *out) {
    maker_entry(maker, CT_ENTRY_RECEIVED, out);
    out->body.received.commit_index = maker->fold.nodes[node - 1].commit_index;
}

static inline void maker_refused(const struct maker *maker, uint32_t node, enum ct_refusal reason,
                                 struct ct_entry *out) {
    maker_entry(maker, CT_ENTRY_REFUSED, out);
    out->body.refused.node = node;
    out->body.refused.reason = reason;
}

/* The merge list that the parts make, with made-up shares; ended by the caller. */
static inline void maker_list(const struct maker *maker, struct ct_merge_list *out) {
    const struct ct_fold *fold = &maker->fold;
    *out = (struct ct_merge_list){.round = fold->round};
    out->items = calloc(fold->node_count + 1, sizeof out->items[0]);
    assert_non_null(out->items);
    /* Entries of a round are few: by index is by sorting on the way. */
    for (uint64_t index = 0; index < fold->entries; index++) {
        for (uint32_t i = 0; i < fold->node_count; i++) {
            const struct ct_fold_node *node = &fold->nodes[i];
            if (node->part < CT_PART_COMMITTED || node->commit_index != index) {
                continue;
            }
            bool merged = node->part == CT_PART_RECEIVED;
            out->items[out->count++] = (struct ct_merge_item){
                .commit_index = index,
                .node = node->number,
                .outcome = merged                          ? CT_OUTCOME_MERGED
                           : node->part == CT_PART_REFUSED ? CT_OUTCOME_REFUSED
                                                           : CT_OUTCOME_MISSING,
                .weight = merged ? node->commit.steps * 2ull * 4 * 4 : 0,
                .weight_q22 = merged ? 1u << 20 : 0,
                .clip_q15 = merged ? 1u << 15 : 0,
            };
        }
    }
}

static inline struct ct_blob_ref maker_put_list(struct maker *maker,
                                                const struct ct_merge_list *list) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MERGE_LIST_BYTES_MAX);
    assert_int_equal(ct_merge_list_encode(list, &bytes), CT_OK);
    struct ct_blob_ref ref = maker_put(maker, ct_buf_bytes(&bytes));
    ct_buf_deinit(&bytes);
    return ref;
}

static inline void maker_round_closed(struct maker *maker, struct ct_entry *out) {
    struct ct_merge_list list;
    maker_list(maker, &list);
    maker_entry(maker, CT_ENTRY_ROUND_CLOSED, out);
    struct ct_round_closed *closed = &out->body.round_closed;
    closed->merged = maker_put_list(maker, &list);
    for (uint32_t i = 0; i < list.count; i++) {
        closed->tokens += list.items[i].weight / 4;
    }
    closed->model = maker->fold.model;
    if (closed->tokens > 0) {
        memset(closed->model.bytes, (int)(0x40 + maker->fold.round), 32);
    }
    closed->has_snapshot = maker->fold.round % maker->manifest.snapshot_rounds == 0 ||
                           maker->fold.round == maker->manifest.rounds;
    ct_merge_list_deinit(&list);
}

/* Opens the run and admits the first `nodes`. */
static inline void maker_start(struct maker *maker, uint32_t nodes) {
    struct ct_entry entry;
    maker_run_opened(maker, &entry);
    MAKER_ACCEPT(maker, &entry);
    for (uint32_t i = 1; i <= nodes; i++) {
        maker_admitted(maker, i, &entry);
        MAKER_ACCEPT(maker, &entry);
    }
}

static inline void maker_open_round(struct maker *maker, const struct ct_plan_request *requests,
                                    uint32_t count) {
    struct ct_entry entry;
    maker_round_opened(maker, requests, count, &entry);
    MAKER_ACCEPT(maker, &entry);
}

static inline void maker_do_commit(struct maker *maker, uint32_t node) {
    struct ct_commit commit = maker_commit(maker, node);
    struct ct_entry entry;
    maker_commit_entry(maker, &commit, &entry);
    MAKER_ACCEPT(maker, &entry);
}

static inline void maker_close_commits(struct maker *maker) {
    struct ct_entry entry;
    maker_commits_closed(maker, &entry);
    MAKER_ACCEPT(maker, &entry);
}

static inline void maker_receive(struct maker *maker, uint32_t node) {
    struct ct_entry entry;
    maker_received(maker, node, &entry);
    MAKER_ACCEPT(maker, &entry);
}

static inline void maker_refuse(struct maker *maker, uint32_t node, enum ct_refusal reason) {
    struct ct_entry entry;
    maker_refused(maker, node, reason, &entry);
    MAKER_ACCEPT(maker, &entry);
}

static inline void maker_close_round(struct maker *maker) {
    struct ct_entry entry;
    maker_round_closed(maker, &entry);
    MAKER_ACCEPT(maker, &entry);
}

/* A whole round in which all that are assigned are merged. */
static inline void maker_round(struct maker *maker, const struct ct_plan_request *requests,
                               uint32_t count) {
    maker_open_round(maker, requests, count);
    for (uint32_t i = 0; i < count; i++) {
        maker_do_commit(maker, requests[i].node);
    }
    maker_close_commits(maker);
    for (uint32_t i = 0; i < count; i++) {
        maker_receive(maker, requests[i].node);
    }
    maker_close_round(maker);
}

#endif
