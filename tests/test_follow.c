/* A node's copy of the ledger and its model, against a run that is served from files: real
 * payloads, real merges, a small model. */
#include "node/follow.h"

#include "coordinator/expiry.h"
#include "node/node_dir.h"

#include "fixture.h"
#include "http_files.h"
#include "run_maker.h"

#include <cotrain/ledger.h>

/* The coordinator's side: maker's rules, a ledger and a blob store on disk, the true θ. */
struct run {
    struct maker maker;
    char *dir, *node_dir;
    char ledger_dir[512], blob_dir[512];
    struct ct_ledger *ledger;
    struct ct_blobs blobs;
    struct http_files server;
    struct ct_run_opened opened;
    float *theta, *local, *residual;
    struct ct_fetch *fetch;
    struct ct_follow follow;
    bool follow_open;
};

static enum ct_err run_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                              struct ct_buf *out) {
    struct run *run = user;
    if (maker_source(&run->maker, ref, maximum, out) == CT_OK) {
        return CT_OK;
    }
    return ct_blobs_get(&run->blobs, ref, maximum, out);
}

/* Seals, applies to the coordinator's fold, appends to the ledger. */
static void add(struct run *run, const struct ct_entry *entry) {
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

static void put(struct run *run, struct ct_bytes bytes, struct ct_blob_ref *out) {
    assert_int_equal(ct_blobs_put(&run->blobs, bytes, out), CT_OK);
}

/* What maker keeps in memory goes to the store that is served. */
static void publish(struct run *run) {
    struct ct_blob_ref ref;
    for (uint32_t i = 0; i < run->maker.blob_count; i++) {
        put(run, ct_buf_bytes(&run->maker.blobs[i]), &ref);
    }
    assert_int_equal(ct_ledger_publish(run->ledger), CT_OK);
}

static void commit_node(struct run *run, uint32_t node) {
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
static void close_round(struct run *run, bool wrong) {
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

static void do_round(struct run *run, bool wrong) {
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

static void start_run(struct run *run) {
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

static int set_up_kept(void **state, uint32_t retention_rounds) {
    struct run *run = calloc(1, sizeof *run);
    run->dir = fixture_dir();
    run->node_dir = fixture_dir();
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
    const char *base = run->server.url;
    assert_int_equal(ct_fetch_open(&base, 1, NULL, &run->fetch), CT_OK);
    *state = run;
    return 0;
}

static int set_up(void **state) {
    return set_up_kept(state, 0);
}

/* Work of the last round alone can be recomputed. */
static int set_up_expiring(void **state) {
    return set_up_kept(state, 1);
}

static void follow_close(struct run *run) {
    if (run->follow_open) {
        ct_follow_close(&run->follow);
        run->follow_open = false;
    }
}

static void follow_open(struct run *run) {
    follow_close(run);
    struct ct_hash key = ct_key_public(run->maker.node_keys[0]);
    if (ct_follow_open(&run->follow, run->node_dir, &run->opened, &run->maker.fold.run_id, &key) !=
        CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    run->follow_open = true;
}

static int tear_down(void **state) {
    struct run *run = *state;
    follow_close(run);
    ct_fetch_close(run->fetch);
    http_files_stop(&run->server);
    ct_ledger_close(run->ledger);
    maker_deinit(&run->maker);
    fixture_remove(run->dir);
    fixture_remove(run->node_dir);
    free(run->dir);
    free(run->node_dir);
    free(run->theta);
    free(run->local);
    free(run->residual);
    free(run);
    return 0;
}

static enum ct_err advance(struct run *run) {
    return ct_follow_advance(&run->follow, ct_ledger_checkpoint(run->ledger), run->fetch);
}

static void assert_caught_up(struct run *run) {
    struct ct_view view;
    if (advance(run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    ct_follow_view(&run->follow, &view);
    assert_int_equal(view.entries, ct_ledger_size(run->ledger));
    assert_int_equal(view.round, run->maker.fold.round);
    assert_true(view.theta_valid);
    assert_int_equal(view.theta_round, view.round);
    assert_memory_equal(run->follow.replay.theta, run->theta,
                        run->maker.fold.layout.parameters * sizeof(float));
}

static void follows_from_the_first_entry(void **state) {
    struct run *run = *state;
    struct ct_view view;
    follow_open(run);
    assert_caught_up(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    ct_follow_view(&run->follow, &view);
    assert_int_equal(view.node, 1);
    assert_int_equal(view.last_round, 1);
    assert_true(view.last_merged);
    assert_int_equal(view.last_senders, 2);
    assert_true(view.last_loss == 1.5f);
    assert_int_equal(view.differences, 0);
    assert_false(ct_hash_is_zero(&view.merged_state));
    do_round(run, false);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    /* Nothing new: nobody is asked. */
    unsigned requests = run->server.requests;
    assert_caught_up(run);
    assert_int_equal(run->server.requests, requests);

    size_t parameters = run->maker.fold.layout.parameters;
    float *base = calloc(parameters, sizeof *base);
    assert_int_equal(ct_follow_copy_base(&run->follow, 4, parameters, base), CT_OK);
    assert_memory_equal(base, run->theta, parameters * sizeof *base);
    assert_int_equal(ct_follow_copy_base(&run->follow, 3, parameters, base), CT_ERR_STATE);
    free(base);
}

static void stop_at_assignment(struct run *run) {
    static const struct ct_plan_request requests[] = {{1, 3, false}, {2, 2, false}};
    struct ct_entry *entry = calloc(1, sizeof *entry);
    struct ct_assignments assignments;
    assert_int_equal(ct_plan_round(&run->maker.fold, requests, 2, &assignments), CT_OK);
    maker_round_opened_with(&run->maker, &assignments, entry);
    ct_assignments_deinit(&assignments);
    entry->body.round_opened.base = ct_model_digest(&run->maker.fold.layout, run->theta);
    add(run, entry);
    free(entry);
}

static void tells_what_is_assigned(void **state) {
    struct run *run = *state;
    struct ct_view view;
    follow_open(run);
    do_round(run, false);
    stop_at_assignment(run);
    publish(run);
    assert_int_equal(advance(run), CT_OK);
    ct_follow_view(&run->follow, &view);
    assert_int_equal(view.phase, CT_PHASE_COMMIT);
    assert_int_equal(view.part, CT_PART_ASSIGNED);
    assert_int_equal(view.assignment.steps, 3);
    assert_int_equal(view.assigned_nodes, 2);
    assert_true(
        ct_hash_equal(&view.assignments_digest, &run->maker.fold.round_opened.assignments.sha256));
    assert_int_equal(view.tokens_at_base, run->maker.fold.tokens);
    commit_node(run, 1);
    publish(run);
    assert_int_equal(advance(run), CT_OK);
    ct_follow_view(&run->follow, &view);
    assert_int_equal(view.part, CT_PART_COMMITTED);
    assert_true(
        ct_hash_equal(&view.committed_update, &run->maker.fold.nodes[0].commit.update.sha256));
}

/* Blobs of early rounds are gone: a late joiner needs the snapshot of round 2 alone. */
static void joins_late_from_a_snapshot(void **state) {
    struct run *run = *state;
    char path[4096];
    do_round(run, false);
    struct ct_hash early = run->maker.fold.nodes[0].commit.update.sha256;
    do_round(run, false);
    do_round(run, false);
    publish(run);
    ct_blobs_path(&run->blobs, &early, path);
    assert_int_equal(unlink(path), 0);
    follow_open(run);
    assert_caught_up(run);
    assert_int_equal(run->follow.replay.merged_rounds, 1);
    /* Neither the snapshot nor others' payloads stay. */
    struct ct_blob_ref snapshot = {run->maker.fold.snapshot, 0};
    ct_blobs_path(&run->follow.blobs, &snapshot.sha256, path);
    assert_int_not_equal(access(path, F_OK), 0);
    ct_blobs_path(&run->follow.blobs, &run->maker.fold.nodes[1].commit.update.sha256, path);
    assert_int_not_equal(access(path, F_OK), 0);
    ct_blobs_path(&run->follow.blobs, &run->maker.fold.nodes[0].commit.update.sha256, path);
    assert_int_equal(access(path, F_OK), 0);
}

static void goes_on_after_a_restart(void **state) {
    struct run *run = *state;
    follow_open(run);
    for (int i = 0; i < 3; i++) {
        do_round(run, false);
    }
    publish(run);
    assert_caught_up(run);
    follow_open(run); /* closes, which keeps θ */
    unsigned requests = run->server.requests;
    assert_caught_up(run);
    assert_int_equal(run->server.requests, requests);
    assert_int_equal(run->follow.replay.merged_rounds, 0);
    /* Killed: what was kept last is older, or damaged. */
    do_round(run, false);
    publish(run);
    char path[512], copy[1100];
    snprintf(path, sizeof path, "%s/theta", run->node_dir);
    snprintf(copy, sizeof copy, "cp %s %s.old", path, path);
    assert_int_equal(system(copy), 0);
    assert_caught_up(run);
    follow_close(run);
    snprintf(copy, sizeof copy, "mv %s.old %s", path, path);
    assert_int_equal(system(copy), 0);
    follow_open(run);
    assert_caught_up(run);
    follow_close(run);
    fixture_write(path, "nonsense", 8);
    follow_open(run);
    assert_caught_up(run);
    assert_int_equal(run->follow.differences, 0);
}

/* A second log of the same key, with another second entry. */
static void fork_log(struct run *run, struct ct_buf *out_note, uint64_t extra) {
    struct ct_frontier frontier = {0};
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    for (uint64_t i = 0; i < ct_ledger_size(run->ledger) + extra; i++) {
        ct_buf_clear(&entry);
        if (i < ct_ledger_size(run->ledger)) {
            assert_int_equal(ct_ledger_read(run->ledger, i, &entry), CT_OK);
        }
        if (i == 1) {
            entry.data[entry.length - 1] ^= 1;
        }
        struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(&entry));
        ct_frontier_append(&frontier, &leaf);
    }
    ct_buf_deinit(&entry);
    struct ct_checkpoint checkpoint = {.size = frontier.size, .root = ct_frontier_root(&frontier)};
    memcpy(checkpoint.origin, run->opened.origin, sizeof checkpoint.origin);
    ct_buf_init(out_note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, run->maker.log_key, out_note), CT_OK);
}

static void two_histories_are_refused(void **state) {
    struct run *run = *state;
    struct ct_buf old, note;
    ct_buf_init(&old, CT_CHECKPOINT_BYTES_MAX);
    struct ct_bytes first = ct_ledger_checkpoint(run->ledger);
    assert_int_equal(ct_buf_append(&old, first.data, first.length), CT_OK);
    follow_open(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);

    assert_int_equal(ct_follow_advance(&run->follow, ct_buf_bytes(&old), run->fetch), CT_ERR_RULE);
    fork_log(run, &note, 0);
    assert_int_equal(ct_follow_advance(&run->follow, ct_buf_bytes(&note), run->fetch),
                     CT_ERR_DIGEST);
    ct_buf_deinit(&note);
    do_round(run, false);
    fork_log(run, &note, 0);
    publish(run);
    assert_int_equal(ct_follow_advance(&run->follow, ct_buf_bytes(&note), run->fetch),
                     CT_ERR_DIGEST);
    ct_buf_deinit(&note);
    note = old;
    note.data[note.length - 10] ^= 1;
    assert_int_not_equal(ct_follow_advance(&run->follow, ct_buf_bytes(&note), run->fetch), CT_OK);
    ct_buf_deinit(&old);
    /* None of it left a trace. */
    assert_caught_up(run);
    follow_open(run);
    assert_caught_up(run);
}

static void a_damaged_copy_is_fetched_again(void **state) {
    struct run *run = *state;
    char path[4096];
    follow_open(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    follow_close(run);
    snprintf(path, sizeof path, "%s/ledger-copy/entries", run->node_dir);
    struct ct_buf bytes = fixture_read(path);
    bytes.data[bytes.length / 2] ^= 1;
    fixture_write(path, bytes.data, bytes.length);
    follow_open(run);
    assert_int_equal(run->follow.copy.frontier.size, 0);
    assert_caught_up(run);
    /* Cut short, and with what a crash left behind the end. */
    follow_close(run);
    bytes.data[bytes.length / 2] ^= 1;
    fixture_write(path, bytes.data, bytes.length / 2);
    follow_open(run);
    assert_caught_up(run);
    follow_close(run);
    assert_int_equal(ct_buf_append(&bytes, "rest", 4), CT_OK);
    fixture_write(path, bytes.data, bytes.length);
    follow_open(run);
    assert_int_equal(run->follow.copy.frontier.size, ct_ledger_size(run->ledger));
    assert_caught_up(run);
    ct_buf_deinit(&bytes);
}

/* More than one bundle, and a mirror that has nothing before the server that has all. */
static void full_bundles_replace_partial_ones(void **state) {
    struct run *run = *state;
    struct http_files empty;
    struct ct_fetch *fetch = NULL;
    assert_int_equal(http_files_start(&empty, run->node_dir, NULL), 0);
    const char *bases[] = {empty.url, run->server.url};
    assert_int_equal(ct_fetch_open(bases, 2, NULL, &fetch), CT_OK);
    struct ct_entry *entry = calloc(1, sizeof *entry);
    struct ct_buf early;
    for (int i = 0; i < 2; i++) {
        do_round(run, false);
    }
    publish(run);
    struct ct_bytes note = ct_ledger_checkpoint(run->ledger);
    ct_buf_init(&early, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_buf_append(&early, note.data, note.length), CT_OK);
    /* The log's format does not ask for entries of a run: these fill the bundle. */
    uint64_t index = 0;
    while (ct_ledger_size(run->ledger) < 300) {
        assert_int_equal(
            ct_ledger_append(run->ledger, (struct ct_bytes){(const uint8_t *)"filler", 6}, &index),
            CT_OK);
    }
    publish(run);
    char command[700];
    snprintf(command, sizeof command, "rm -rf %s/tile/entries/000.p", run->ledger_dir);
    assert_int_equal(system(command), 0);
    struct ct_ledger_copy copy;
    char dir[512];
    snprintf(dir, sizeof dir, "%s/copy", run->node_dir);
    assert_int_equal(ct_ledger_copy_open(dir, run->opened.origin, &run->opened.log_key, &copy),
                     CT_OK);
    assert_int_equal(ct_ledger_copy_advance(&copy, ct_buf_bytes(&early), fetch), CT_OK);
    assert_int_equal(ct_ledger_copy_advance(&copy, ct_ledger_checkpoint(run->ledger), fetch),
                     CT_OK);
    assert_int_equal(copy.frontier.size, 300);
    ct_ledger_copy_close(&copy);
    assert_int_equal(ct_ledger_copy_open(dir, run->opened.origin, &run->opened.log_key, &copy),
                     CT_OK);
    assert_int_equal(copy.frontier.size, 300);
    ct_ledger_copy_close(&copy);
    ct_buf_deinit(&early);
    free(entry);
    ct_fetch_close(fetch);
    http_files_stop(&empty);
}

/* The served blob is gone for one advance, which fails, and then back. */
static void advance_without(struct run *run, const struct ct_blob_ref *ref) {
    char path[4096], aside[4200];
    ct_blobs_path(&run->blobs, &ref->sha256, path);
    snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(advance(run), CT_ERR_NOT_FOUND);
    assert_int_equal(rename(aside, path), 0);
}

static void a_missing_blob_is_waited_for(void **state) {
    struct run *run = *state;
    const struct ct_fold *fold = &run->maker.fold;
    const struct ct_blob_ref *refs[] = {&fold->nodes[1].commit.update, &fold->round_closed.merged};
    follow_open(run);
    assert_caught_up(run);
    for (int i = 0; i < 2; i++) {
        do_round(run, false);
        publish(run);
        advance_without(run, refs[i]);
        assert_true(run->follow.replay.theta_valid);
        assert_caught_up(run);
    }
}

/* As the coordinator does it; a snapshot is left by every second round. */
static void expire(struct run *run, uint64_t removed) {
    struct ct_expiry expiry = {0};
    while (ct_expiry_is_due(&expiry, &run->maker.manifest, run->maker.fold.round)) {
        assert_int_equal(ct_expiry_advance(&expiry, &run->maker.manifest, run->maker.fold.round,
                                           run->ledger, &run->blobs),
                         CT_OK);
    }
    assert_int_equal(expiry.removed, removed);
}

/* A node that was away while the payloads it needs expired takes the newest snapshot. */
static void who_is_overtaken_leaps(void **state) {
    struct run *run = *state;
    follow_open(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    for (int i = 0; i < 4; i++) {
        do_round(run, false);
    }
    publish(run);
    expire(run, 8); /* rounds 1 to 4 */
    assert_caught_up(run);
    assert_int_equal(run->follow.replay.merged_rounds, 2); /* 1 and 5 */
    assert_int_equal(run->follow.differences, 0);
    do_round(run, false);
    publish(run);
    expire(run, 0);
    assert_caught_up(run);
    assert_int_equal(run->follow.replay.merged_rounds, 3);
    /* Nobody who joins now needs what is gone. */
    follow_close(run);
    fixture_remove(run->node_dir);
    follow_open(run);
    assert_caught_up(run);
}

/* What its checkpoint does not tell yet is missing for a moment. */
static void who_is_overtaken_on_the_way_comes_back(void **state) {
    struct run *run = *state;
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    follow_open(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    do_round(run, false);
    do_round(run, false);
    publish(run);
    const struct ct_bytes third = ct_ledger_checkpoint(run->ledger);
    assert_int_equal(ct_buf_append(&note, third.data, third.length), CT_OK);
    do_round(run, false);
    do_round(run, false);
    publish(run);
    expire(run, 8);
    assert_int_equal(ct_follow_advance(&run->follow, ct_buf_bytes(&note), run->fetch),
                     CT_ERR_NOT_FOUND);
    assert_caught_up(run);
    assert_int_equal(run->follow.differences, 0);
    ct_buf_deinit(&note);
}

/* Found out when θ has moved already: the model is built again. */
static void a_damaged_blob_is_fetched_again(void **state) {
    struct run *run = *state;
    const struct ct_blob_ref *list = &run->maker.fold.round_closed.merged;
    char path[4096];
    follow_open(run);
    assert_caught_up(run);
    for (int i = 0; i < 2; i++) {
        do_round(run, false);
        publish(run);
        struct ct_blob_ref ref = *list;
        uint8_t *damaged = calloc(1, ref.length);
        ct_blobs_path(&run->follow.blobs, &ref.sha256, path);
        char command[4200];
        snprintf(command, sizeof command, "mkdir -p $(dirname %s)", path);
        assert_int_equal(system(command), 0);
        fixture_write(path, damaged, ref.length);
        free(damaged);
        if (i == 1) {
            advance_without(run, &ref);
        }
        assert_caught_up(run);
        assert_int_equal(run->follow.differences, 0);
    }
}

/* Round 1's logged model is not what its payloads give; round 2 ends with a snapshot. */
static void a_wrong_model_is_left_for_the_next_snapshot(void **state) {
    struct run *run = *state;
    struct ct_view view;
    follow_open(run);
    do_round(run, true);
    publish(run);
    assert_int_equal(advance(run), CT_OK);
    ct_follow_view(&run->follow, &view);
    assert_false(view.theta_valid);
    assert_int_equal(view.differences, 2);
    assert_int_equal(view.round, 1);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
}

/* A bit of θ flips in memory: seen at the next round, and repaired. */
static void a_flipped_bit_is_repaired(void **state) {
    struct run *run = *state;
    follow_open(run);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    run->follow.replay.theta[3] += 0.5f;
    do_round(run, false);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    assert_int_equal(run->follow.differences, 1);
}

#define FOLLOW_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        FOLLOW_TEST(follows_from_the_first_entry),
        FOLLOW_TEST(tells_what_is_assigned),
        FOLLOW_TEST(joins_late_from_a_snapshot),
        FOLLOW_TEST(goes_on_after_a_restart),
        FOLLOW_TEST(two_histories_are_refused),
        FOLLOW_TEST(a_damaged_copy_is_fetched_again),
        FOLLOW_TEST(full_bundles_replace_partial_ones),
        FOLLOW_TEST(a_missing_blob_is_waited_for),
        cmocka_unit_test_setup_teardown(who_is_overtaken_leaps, set_up_expiring, tear_down),
        cmocka_unit_test_setup_teardown(who_is_overtaken_on_the_way_comes_back, set_up_expiring,
                                        tear_down),
        FOLLOW_TEST(a_damaged_blob_is_fetched_again),
        FOLLOW_TEST(a_wrong_model_is_left_for_the_next_snapshot),
        FOLLOW_TEST(a_flipped_bit_is_repaired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
