/* A run that is served from files: real payloads, real merges, a small model; two nodes, six
 * rounds, a snapshot every second one. */
#ifndef TESTS_SERVED_RUN_H
#define TESTS_SERVED_RUN_H

#include "fixture.h"
#include "http_files.h"
#include "run_maker.h"

#include "coordinator/expiry.h"

#include <cotrain/ledger.h>

/* The coordinator's side: maker's rules, a ledger and a blob store on disk, the true θ. */
struct run {
    struct maker maker;
    char *dir;
    char ledger_dir[512], blob_dir[512];
    struct ct_ledger *ledger;
    struct ct_blobs blobs;
    struct http_files server;
    struct ct_run_opened opened;
    float *theta, *local, *residual;
};

static inline enum ct_err run_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                                     struct ct_buf *out) {
    struct run *run = user;
    if (maker_source(&run->maker, ref, maximum, out) == CT_OK) {
        return CT_OK;
    }
    return ct_blobs_get(&run->blobs, ref, maximum, out);
}

/* Seals, applies to the coordinator's fold, appends to the ledger. */
static inline void add(struct run *run, const struct ct_entry *entry) {
    struct ct_buf payload, envelope;
    uint64_t index = 0;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&envelope, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, run->maker.identity, &envelope),
        CT_OK);
    if (ct_fold_apply(&run->maker.fold, ct_buf_bytes(&envelope), true, run_source, run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    assert_int_equal(ct_ledger_append(run->ledger, ct_buf_bytes(&envelope), &index), CT_OK);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
}

static inline void put(struct run *run, struct ct_bytes bytes, struct ct_blob_ref *out) {
    assert_int_equal(ct_blobs_put(&run->blobs, bytes, out), CT_OK);
}

/* What maker keeps in memory goes to the store that is served. */
static inline void publish(struct run *run) {
    struct ct_blob_ref ref;
    for (uint32_t i = 0; i < run->maker.blob_count; i++) {
        put(run, ct_buf_bytes(&run->maker.blobs[i]), &ref);
    }
    assert_int_equal(ct_ledger_publish(run->ledger), CT_OK);
}

static inline void commit_node(struct run *run, uint32_t node) {
    struct ct_commit commit = maker_commit(&run->maker, node);
    struct ct_entry *entry = calloc(1, sizeof *entry);
    const struct ct_fold *fold = &run->maker.fold;
    size_t parameters = fold->layout.parameters;
    uint8_t *payload = malloc(ct_update_bytes_max(&fold->chunks));
    size_t length = 0;
    for (size_t i = 0; i < parameters; i++) {
        run->local[i] = run->theta[i] + 1e-3f * (float)((i * node * 7 + fold->round) % 13);
        run->residual[i] = 0.0f;
    }
    struct ct_update_header header = {commit.assignment, commit.steps};
    ct_update_encode(&fold->chunks, &header, run->theta, run->local, run->residual, payload,
                     &length);
    put(run, (struct ct_bytes){payload, length}, &commit.update);
    commit.loss = (float)node;
    maker_commit_entry(&run->maker, &commit, entry);
    add(run, entry);
    free(payload);
    free(entry);
}

/* `wrong`: the entry's model is not what the payloads give. */
static inline void close_round(struct run *run, bool wrong) {
    struct ct_entry *entry = calloc(1, sizeof *entry);
    const struct ct_fold *fold = &run->maker.fold;
    size_t bytes = fold->layout.parameters * sizeof(float);
    struct ct_merge_list list;
    if (ct_merge_round(fold, run_source, run, run->theta, run->theta, &list) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    maker_entry(&run->maker, CT_ENTRY_ROUND_CLOSED, entry);
    struct ct_round_closed *closed = &entry->body.round_closed;
    closed->merged = maker_put_list(&run->maker, &list);
    for (uint32_t i = 0; i < list.count; i++) {
        closed->tokens += list.items[i].weight / 4;
    }
    ct_merge_list_deinit(&list);
    if (wrong) {
        run->theta[0] += 1.0f;
    }
    closed->model = ct_model_digest(&fold->layout, run->theta);
    closed->has_snapshot = fold->round % run->maker.manifest.snapshot_rounds == 0 ||
                           fold->round == run->maker.manifest.rounds;
    if (closed->has_snapshot) {
        struct ct_blob_ref ref;
        put(run, (struct ct_bytes){(const uint8_t *)run->theta, bytes}, &ref);
    }
    add(run, entry);
    free(entry);
}

static inline void do_round(struct run *run, bool wrong) {
    static const struct ct_plan_request requests[] = {{1, 2, false}, {2, 2, false}};
    struct ct_entry *entry = calloc(1, sizeof *entry);
    struct ct_assignments assignments;
    struct maker *maker = &run->maker;
    assert_int_equal(ct_plan_round(&maker->fold, requests, 2, &assignments), CT_OK);
    maker_round_opened_with(maker, &assignments, entry);
    ct_assignments_deinit(&assignments);
    entry->body.round_opened.base = ct_model_digest(&maker->fold.layout, run->theta);
    add(run, entry);
    commit_node(run, 1);
    commit_node(run, 2);
    maker_commits_closed(maker, entry);
    add(run, entry);
    for (uint32_t node = 1; node <= 2; node++) {
        maker_received(maker, node, entry);
        add(run, entry);
    }
    close_round(run, wrong);
    free(entry);
}

static inline void start_run(struct run *run) {
    struct ct_entry *entry = calloc(1, sizeof *entry);
    maker_run_opened(&run->maker, entry);
    run->opened = entry->body.run_opened;
    assert_int_equal(
        ct_ledger_create(run->ledger_dir, run->opened.origin, run->maker.log_key, &run->ledger),
        CT_OK);
    add(run, entry);
    for (uint32_t node = 1; node <= 2; node++) {
        maker_admitted(&run->maker, node, entry);
        add(run, entry);
    }
    const struct ct_layout *layout = &run->maker.fold.layout;
    run->theta = calloc(layout->parameters, sizeof(float));
    run->local = calloc(layout->parameters, sizeof(float));
    run->residual = calloc(layout->parameters, sizeof(float));
    ct_layout_draw(layout, &run->maker.fold.run_seed, run->theta);
    free(entry);
}

/* With `retention_rounds`, epochs have one round. */
static inline void open_run(struct run *run, uint32_t retention_rounds) {
    run->dir = fixture_dir();
    snprintf(run->ledger_dir, sizeof run->ledger_dir, "%s/ledger", run->dir);
    snprintf(run->blob_dir, sizeof run->blob_dir, "%s/blobs", run->dir);
    maker_init(&run->maker);
    if (retention_rounds > 0) {
        run->maker.manifest.epoch_rounds = 1;
        run->maker.manifest.retention_rounds = retention_rounds;
    }
    assert_int_equal(ct_blobs_init(&run->blobs, run->blob_dir), CT_OK);
    start_run(run);
    publish(run);
    assert_int_equal(http_files_start(&run->server, run->ledger_dir, run->dir), 0);
}

static inline void close_run(struct run *run) {
    http_files_stop(&run->server);
    ct_ledger_close(run->ledger);
    maker_deinit(&run->maker);
    fixture_remove(run->dir);
    free(run->dir);
    free(run->theta);
    free(run->local);
    free(run->residual);
}

/* As the coordinator does it; a snapshot is left by every second round. */
static inline void expire(struct run *run, uint64_t removed) {
    struct ct_expiry expiry = {0};
    while (ct_expiry_is_due(&expiry, &run->maker.manifest, run->maker.fold.round)) {
        assert_int_equal(ct_expiry_advance(&expiry, &run->maker.manifest, run->maker.fold.round,
                                           run->ledger, &run->blobs),
                         CT_OK);
    }
    assert_int_equal(expiry.removed, removed);
}

#endif
