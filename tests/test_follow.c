/* A node's copy of the ledger and its model, against a run that is served from files: real
 * payloads, real merges, a small model. */
#include "node/follow.h"

#include "node/node_dir.h"

#include "served_run.h"

/* The node's side. */
static char *node_dir;
static struct ct_fetch *fetch;
static struct ct_follow follow;
static bool is_open;

static int set_up_kept(void **state, uint32_t retention_rounds) {
    struct run *run = calloc(1, sizeof *run);
    open_run(run, retention_rounds);
    node_dir = fixture_dir();
    is_open = false;
    const char *base = run->server.url;
    assert_int_equal(ct_fetch_open(&base, 1, NULL, &fetch), CT_OK);
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

static void follow_close(void) {
    if (is_open) {
        ct_follow_close(&follow);
        is_open = false;
    }
}

static void follow_open(struct run *run) {
    follow_close();
    struct ct_hash key = ct_key_public(run->maker.node_keys[0]);
    if (ct_follow_open(&follow, node_dir, &run->opened, &run->maker.fold.run_id, &key) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    is_open = true;
}

static int tear_down(void **state) {
    struct run *run = *state;
    follow_close();
    ct_fetch_close(fetch);
    close_run(run);
    fixture_remove(node_dir);
    free(node_dir);
    free(run);
    return 0;
}

static enum ct_err advance(struct run *run) {
    return ct_follow_advance(&follow, ct_ledger_checkpoint(run->ledger), fetch);
}

static void assert_caught_up(struct run *run) {
    struct ct_view view;
    if (advance(run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    ct_follow_view(&follow, &view);
    assert_int_equal(view.entries, ct_ledger_size(run->ledger));
    assert_int_equal(view.round, run->maker.fold.round);
    assert_true(view.theta_valid);
    assert_int_equal(view.theta_round, view.round);
    assert_memory_equal(follow.replay.theta, run->theta,
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
    ct_follow_view(&follow, &view);
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
    assert_int_equal(ct_follow_copy_base(&follow, 4, parameters, base), CT_OK);
    assert_memory_equal(base, run->theta, parameters * sizeof *base);
    assert_int_equal(ct_follow_copy_base(&follow, 3, parameters, base), CT_ERR_STATE);
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
    ct_follow_view(&follow, &view);
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
    ct_follow_view(&follow, &view);
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
    assert_int_equal(follow.replay.merged_rounds, 1);
    /* Neither the snapshot nor others' payloads stay. */
    struct ct_blob_ref snapshot = {run->maker.fold.snapshot, 0};
    ct_blobs_path(&follow.blobs, &snapshot.sha256, path);
    assert_int_not_equal(access(path, F_OK), 0);
    ct_blobs_path(&follow.blobs, &run->maker.fold.nodes[1].commit.update.sha256, path);
    assert_int_not_equal(access(path, F_OK), 0);
    ct_blobs_path(&follow.blobs, &run->maker.fold.nodes[0].commit.update.sha256, path);
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
    assert_int_equal(follow.replay.merged_rounds, 0);
    /* Killed: what was kept last is older, or damaged. */
    do_round(run, false);
    publish(run);
    char path[512], copy[1100];
    snprintf(path, sizeof path, "%s/theta", node_dir);
    snprintf(copy, sizeof copy, "cp %s %s.old", path, path);
    assert_int_equal(system(copy), 0);
    assert_caught_up(run);
    follow_close();
    snprintf(copy, sizeof copy, "mv %s.old %s", path, path);
    assert_int_equal(system(copy), 0);
    follow_open(run);
    assert_caught_up(run);
    follow_close();
    fixture_write(path, "nonsense", 8);
    follow_open(run);
    assert_caught_up(run);
    assert_int_equal(follow.differences, 0);
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

    assert_int_equal(ct_follow_advance(&follow, ct_buf_bytes(&old), fetch), CT_ERR_RULE);
    fork_log(run, &note, 0);
    assert_int_equal(ct_follow_advance(&follow, ct_buf_bytes(&note), fetch), CT_ERR_DIGEST);
    ct_buf_deinit(&note);
    do_round(run, false);
    fork_log(run, &note, 0);
    publish(run);
    assert_int_equal(ct_follow_advance(&follow, ct_buf_bytes(&note), fetch), CT_ERR_DIGEST);
    ct_buf_deinit(&note);
    note = old;
    note.data[note.length - 10] ^= 1;
    assert_int_not_equal(ct_follow_advance(&follow, ct_buf_bytes(&note), fetch), CT_OK);
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
    follow_close();
    snprintf(path, sizeof path, "%s/ledger-copy/entries", node_dir);
    struct ct_buf bytes = fixture_read(path);
    bytes.data[bytes.length / 2] ^= 1;
    fixture_write(path, bytes.data, bytes.length);
    follow_open(run);
    assert_int_equal(follow.copy.frontier.size, 0);
    assert_caught_up(run);
    /* Cut short, and with what a crash left behind the end. */
    follow_close();
    bytes.data[bytes.length / 2] ^= 1;
    fixture_write(path, bytes.data, bytes.length / 2);
    follow_open(run);
    assert_caught_up(run);
    follow_close();
    assert_int_equal(ct_buf_append(&bytes, "rest", 4), CT_OK);
    fixture_write(path, bytes.data, bytes.length);
    follow_open(run);
    assert_int_equal(follow.copy.frontier.size, ct_ledger_size(run->ledger));
    assert_caught_up(run);
    ct_buf_deinit(&bytes);
}

/* More than one bundle, and a mirror that has nothing before the server that has all. */
static void full_bundles_replace_partial_ones(void **state) {
    struct run *run = *state;
    struct http_files empty;
    struct ct_fetch *both = NULL;
    assert_int_equal(http_files_start(&empty, node_dir, NULL), 0);
    const char *bases[] = {empty.url, run->server.url};
    assert_int_equal(ct_fetch_open(bases, 2, NULL, &both), CT_OK);
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
    snprintf(dir, sizeof dir, "%s/copy", node_dir);
    assert_int_equal(ct_ledger_copy_open(dir, run->opened.origin, &run->opened.log_key, &copy),
                     CT_OK);
    assert_int_equal(ct_ledger_copy_advance(&copy, ct_buf_bytes(&early), both), CT_OK);
    assert_int_equal(ct_ledger_copy_advance(&copy, ct_ledger_checkpoint(run->ledger), both), CT_OK);
    assert_int_equal(copy.frontier.size, 300);
    ct_ledger_copy_close(&copy);
    assert_int_equal(ct_ledger_copy_open(dir, run->opened.origin, &run->opened.log_key, &copy),
                     CT_OK);
    assert_int_equal(copy.frontier.size, 300);
    ct_ledger_copy_close(&copy);
    ct_buf_deinit(&early);
    free(entry);
    ct_fetch_close(both);
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
        assert_true(follow.replay.theta_valid);
        assert_caught_up(run);
    }
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
    assert_int_equal(follow.replay.merged_rounds, 2); /* 1 and 5 */
    assert_int_equal(follow.differences, 0);
    do_round(run, false);
    publish(run);
    expire(run, 0);
    assert_caught_up(run);
    assert_int_equal(follow.replay.merged_rounds, 3);
    /* Nobody who joins now needs what is gone. */
    follow_close();
    fixture_remove(node_dir);
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
    assert_int_equal(ct_follow_advance(&follow, ct_buf_bytes(&note), fetch), CT_ERR_NOT_FOUND);
    assert_caught_up(run);
    assert_int_equal(follow.differences, 0);
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
        ct_blobs_path(&follow.blobs, &ref.sha256, path);
        char command[4200];
        snprintf(command, sizeof command, "mkdir -p $(dirname %s)", path);
        assert_int_equal(system(command), 0);
        fixture_write(path, damaged, ref.length);
        free(damaged);
        if (i == 1) {
            advance_without(run, &ref);
        }
        assert_caught_up(run);
        assert_int_equal(follow.differences, 0);
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
    ct_follow_view(&follow, &view);
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
    follow.replay.theta[3] += 0.5f;
    do_round(run, false);
    do_round(run, false);
    publish(run);
    assert_caught_up(run);
    assert_int_equal(follow.differences, 1);
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
