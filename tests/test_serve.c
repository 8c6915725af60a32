/* The coordinator against honest, dishonest and late nodes (serve_world.h). */
#include "serve_world.h"

#include "coordinator/cache.h"

/* Tries what a dishonest node could; the right commit is sent last. */
static void hostile_commits(struct client *client, struct gift *gift) {
    uint32_t refusals = client->count[CT_WIRE_REFUSAL];
    struct ct_commit right = gift->commit;

    gift->commit.run_id.bytes[5] ^= 1;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("a commit of another run"));

    gift->commit = right;
    gift_seal(gift, keys[1]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("signature does not verify"));

    gift->commit.author = right.author % NODES + 1;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("in another node's name"));

    gift->commit = right;
    gift->commit.round++;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);

    gift->commit = right;
    gift->commit.steps++;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("against the rules"));

    gift->commit = right;
    gift_seal(gift, keys[0]);
    send_upload(client, gift, 0, 100);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_UPLOAD);
    assert_true(logged("without an acknowledged commit"));
}

static void second_commit(struct client *client, const struct gift *gift) {
    struct gift other = {.commit = gift->commit};
    ct_buf_init(&other.statement, CT_STATEMENT_BYTES_MAX);
    other.commit.loss = 1.0f;
    gift_seal(&other, keys[0]);
    send_commit(client, &other);
    assert_int_equal(await_refusal(client, client->count[CT_WIRE_REFUSAL]), CT_REFUSED_STATEMENT);
    assert_true(logged("another commit for this round"));
    ct_buf_deinit(&other.statement);
}

/* As a power cut does: the length is there, bytes that were not synced are zeros. */
static void spoil_upload(const struct gift *gift, size_t length) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_INCOMING "/%u-1", dir, gift->commit.author);
    struct ct_buf bytes = fixture_read(path);
    assert_int_equal(bytes.length, length);
    memset(bytes.data + length / 2, 0, length - length / 2);
    fixture_write(path, bytes.data, bytes.length);
    ct_buf_deinit(&bytes);
}

static void a_round_with_hostile_nodes_closes(void **state) {
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        client_join(&nodes[i], keys[i], (uint8_t)(10 + i));
        client_ready(&nodes[i]);
    }
    await_round(&nodes[0], 1);
    struct gift gift = gift_make(0, 7);
    hostile_commits(&nodes[0], &gift);
    commit_and_await(&nodes[0], &gift);
    receipt_holds(&nodes[0], &gift);
    second_commit(&nodes[0], &gift);
    commit_and_await(&nodes[0], &gift);

    /* Half of the payload, then the coordinator is killed and started again. */
    size_t half = gift.commit.update.length / 2;
    send_upload(&nodes[0], &gift, 0, half);
    RUN_UNTIL(nodes[0].uploaded == half);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    uint16_t port = ticket.port;
    for (uint32_t i = 0; i < NODES; i++) {
        RUN_UNTIL(nodes[i].closed);
        client_end(&nodes[i]);
    }
    spoil_upload(&gift, half);
    start_server();
    assert_int_equal(ticket.port, port);
    for (uint32_t i = 0; i < NODES; i++) {
        client_join(&nodes[i], keys[i], (uint8_t)(20 + i));
        assert_int_equal(nodes[i].phase, CT_PHASE_COMMIT);
    }
    commit_and_await(&nodes[0], &gift);
    receipt_holds(&nodes[0], &gift);
    send_upload(&nodes[0], &gift, 0, 0);
    RUN_UNTIL(nodes[0].uploaded_round == 1);
    assert_int_equal(nodes[0].uploaded, half);
    send_upload(&nodes[0], &gift, half, gift.commit.update.length - half);
    /* It had the length, not the bytes: no fault of the node's, which is asked for all of it. */
    RUN_UNTIL(nodes[0].uploaded == 0);
    assert_false(nodes[0].complete);
    send_upload(&nodes[0], &gift, 0, gift.commit.update.length);
    RUN_UNTIL(nodes[0].complete);
    /* Nothing of an open round is in the store, which is served. */
    assert_false(in_store(&gift));

    struct gift second = gift_make(1, 8), copy = gift_make(2, 7);
    for (uint32_t i = 1; i < NODES; i++) {
        client_ready(&nodes[i]);
    }
    client_ready(&nodes[0]);
    commit_and_await(&nodes[1], &second);
    upload_all(&nodes[1], &second);
    assert_false(in_store(&second));
    commit_and_await(&nodes[2], &copy);
    send_upload(&nodes[2], &copy, 0, copy.commit.update.length);
    RUN_UNTIL(nodes[0].round == 2);
    assert_true(in_store(&gift) && in_store(&second));
    assert_true(logged("payload of round 1 is node"));

    /* A replay of what was acknowledged. */
    uint32_t refusals = nodes[0].count[CT_WIRE_REFUSAL];
    send_commit(&nodes[0], &gift);
    assert_int_equal(await_refusal(&nodes[0], refusals), CT_REFUSED_STATEMENT);
    assert_true(logged("replayed"));
    gift_end(&gift);
    gift_end(&second);
    gift_end(&copy);
}

static void payloads_that_are_no_updates_are_refused(void **state) {
    (void)state;
    await_round(&nodes[0], 2);
    struct gift good = gift_make(0, 1), bent = gift_make(1, 2), other = gift_make(2, 3);
    bent.payload[bent.commit.update.length - 1] ^= 0x80; /* a padding bit, or another sign */
    bent.payload[4] ^= 1;                                /* the version */
    gift_digest(&bent);
    gift_seal(&bent, keys[1]);
    commit_and_await(&nodes[0], &good);
    commit_and_await(&nodes[1], &bent);
    commit_and_await(&nodes[2], &other);
    /* More than was committed. */
    uint32_t refusals = nodes[2].count[CT_WIRE_REFUSAL];
    struct ct_wire more = {.kind = CT_WIRE_UPLOAD};
    uint8_t *zeros = calloc(1, other.commit.update.length + 1);
    more.body.upload.round = 2;
    more.body.upload.data = (struct ct_bytes){zeros, other.commit.update.length + 1};
    client_send(&nodes[2], &more);
    assert_int_equal(await_refusal(&nodes[2], refusals), CT_REFUSED_UPLOAD);
    free(zeros);
    /* Not what was committed. */
    other.payload[60] ^= 1;
    send_upload(&nodes[2], &other, 0, other.commit.update.length);
    assert_int_equal(await_refusal(&nodes[2], refusals + 1), CT_REFUSED_UPLOAD);
    refusals = nodes[1].count[CT_WIRE_REFUSAL];
    send_upload(&nodes[1], &bent, 0, bent.commit.update.length);
    assert_int_equal(await_refusal(&nodes[1], refusals), CT_REFUSED_UPLOAD);
    send_upload(&nodes[0], &good, 0, good.commit.update.length);
    RUN_UNTIL(nodes[0].round == 3);
    gift_end(&good);
    gift_end(&bent);
    gift_end(&other);
}

static void who_commits_late_is_told_so(void **state) {
    (void)state;
    await_round(&nodes[0], 3);
    struct gift first = gift_make(0, 4), second = gift_make(1, 5), late = gift_make(2, 6);
    commit_and_await(&nodes[0], &first);
    commit_and_await(&nodes[1], &second);
    upload_all(&nodes[0], &first);
    /* After two seconds, with a quorum of two. */
    RUN_UNTIL(nodes[2].phase == CT_PHASE_UPLOAD);
    uint32_t refusals = nodes[2].count[CT_WIRE_REFUSAL];
    send_commit(&nodes[2], &late);
    assert_int_equal(await_refusal(&nodes[2], refusals), CT_REFUSED_LATE);
    upload_all(&nodes[1], &second);
    RUN_UNTIL(nodes[1].phase == CT_PHASE_FINISHED);
    gift_end(&first);
    gift_end(&second);
    gift_end(&late);
}

static void the_ledger_says_what_was_refused_and_holds(void **state) {
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        struct ct_wire leave = {.kind = CT_WIRE_LEAVE};
        client_send(&nodes[i], &leave);
        RUN_UNTIL(nodes[i].closed);
        client_end(&nodes[i]);
    }
    int status;
    kill(server, SIGTERM);
    assert_int_equal(waitpid(server, &status, 0), server);
    server = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);

    struct ct_run run = read_run();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_LEDGER, dir);
    struct ct_ledger *ledger;
    assert_int_equal(ct_ledger_open(path, run.replay.fold.opened.origin, NULL, &ledger), CT_OK);
    struct ct_replay replay;
    ct_replay_init(&replay, 0);
    uint32_t refused[4][8] = {{0}};
    for (uint64_t i = 0; i < ct_ledger_size(ledger); i++) {
        struct ct_buf bytes;
        ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
        assert_int_equal(ct_ledger_read(ledger, i, &bytes), CT_OK);
        if (ct_replay_apply(&replay, ct_buf_bytes(&bytes), true, ct_blobs_source, &run.blobs) !=
            CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        struct ct_envelope envelope;
        struct ct_entry entry;
        assert_int_equal(ct_envelope_open(ct_buf_bytes(&bytes), &envelope), CT_OK);
        assert_int_equal(ct_entry_decode(envelope.payload, &entry), CT_OK);
        if (entry.kind == CT_ENTRY_REFUSED) {
            refused[entry.round][entry.body.refused.reason]++;
        }
        ct_buf_deinit(&bytes);
    }
    assert_true(replay.theta_valid);
    assert_int_equal(replay.fold.phase, CT_PHASE_FINISHED);
    assert_int_equal(refused[1][CT_REFUSAL_COPY], 1);
    assert_int_equal(refused[2][CT_REFUSAL_MALFORMED], 2);
    assert_int_equal(refused[3][CT_REFUSAL_LATE], 1);
    ct_replay_deinit(&replay);
    ct_ledger_close(ledger);
    ct_run_close(&run);
}

/* The cache saves time and decides nothing. */
static void the_model_is_the_same_without_the_cache(void **state) {
    (void)state;
    char path[PATH_MAX], cache[PATH_MAX];
    snprintf(path, sizeof path, "%s/run", dir);
    struct ct_hash models[3];
    static const bool valid[3] = {true, false, false};
    for (uint32_t i = 0; i < 3; i++) {
        struct ct_run run;
        if (ct_run_open(path, NULL, NULL, &run) != CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        struct ct_replay *replay = &run.replay;
        assert_true(replay->theta_valid);
        assert_int_equal(replay->theta_round, replay->fold.round);
        assert_int_equal(replay->from_round == CT_REPLAY_NEVER, valid[i]);
        models[i] = ct_model_digest(&replay->fold.layout, replay->theta);
        assert_true(ct_hash_equal(&models[i], &replay->fold.model));
        ct_run_close(&run);
        for (int slot = 0; slot < 2; slot++) {
            snprintf(cache, sizeof cache, "%s/run/" CT_RUN_CACHE "/%d", dir, slot);
            if (i == 0) {
                struct ct_buf bytes = fixture_read(cache);
                bytes.data[bytes.length / 2] ^= 1;
                fixture_write(cache, bytes.data, bytes.length);
                ct_buf_deinit(&bytes);
            } else if (i == 1) {
                assert_int_equal(unlink(cache), 0);
            }
        }
    }
}

static void fold_of_run(struct ct_buf *out, uint64_t *out_tokens) {
    char path[PATH_MAX];
    struct ct_run run;
    snprintf(path, sizeof path, "%s/run", dir);
    if (ct_run_open(path, NULL, NULL, &run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    ct_buf_clear(out);
    assert_int_equal(ct_fold_save(&run.replay.fold, out), CT_OK);
    *out_tokens = run.replay.fold.tokens;
    ct_run_close(&run);
}

/* The only slot, over `size` entries with this root. */
static void write_fold_slot(uint64_t size, const struct ct_hash *root, struct ct_bytes fold) {
    char path[PATH_MAX], run[PATH_MAX];
    snprintf(run, sizeof run, "%s/run", dir);
    for (int slot = 0; slot < 2; slot++) {
        snprintf(path, sizeof path, "%s/run/" CT_RUN_CACHE "/fold-%d", dir, slot);
        unlink(path);
    }
    ct_cache_save_fold(run, 0, size, root, fold);
}

/* The cached fold saves time and decides nothing: without it, with a damaged one, one of another
 * log and one ahead of the log the state is the same; and where it holds it is what is taken. */
static void the_state_is_the_same_without_the_cache(void **state) {
    (void)state;
    struct ct_buf right, found;
    uint64_t tokens, told;
    char path[PATH_MAX];
    ct_buf_init(&right, 1 << 20);
    ct_buf_init(&found, 1 << 20);
    snprintf(path, sizeof path, "%s/run", dir);
    struct ct_run run;
    assert_int_equal(ct_run_open(path, NULL, NULL, &run), CT_OK);
    const uint64_t size = ct_ledger_published(run.ledger);
    struct ct_hash root, other_root;
    assert_int_equal(ct_ledger_root(run.ledger, size, &root), CT_OK);
    assert_int_equal(ct_ledger_root(run.ledger, size - 1, &other_root), CT_OK);
    assert_int_equal(ct_fold_save(&run.replay.fold, &right), CT_OK);
    tokens = run.replay.fold.tokens;
    struct ct_buf wrong;
    ct_buf_init(&wrong, 1 << 20);
    run.replay.fold.tokens++;
    assert_int_equal(ct_fold_save(&run.replay.fold, &wrong), CT_OK);
    ct_run_close(&run);

    /* What it holds is believed, so it is used. */
    write_fold_slot(size, &root, ct_buf_bytes(&wrong));
    fold_of_run(&found, &told);
    assert_int_equal(told, tokens + 1);
    const struct {
        uint64_t size;
        const struct ct_hash *root;
        size_t length;
    } useless[] = {{size, &other_root, wrong.length},
                   {size + 1, &root, wrong.length},
                   {size - 1, &other_root, wrong.length},
                   {size, &root, wrong.length - 1},
                   {size, &root, 0}};
    for (size_t i = 0; i < sizeof useless / sizeof useless[0]; i++) {
        write_fold_slot(useless[i].size, useless[i].root,
                        (struct ct_bytes){wrong.data, useless[i].length});
        fold_of_run(&found, &told);
        assert_int_equal(told, tokens);
        assert_int_equal(found.length, right.length);
        assert_memory_equal(found.data, right.data, right.length);
    }
    /* Damaged, and missing. */
    write_fold_slot(size, &root, ct_buf_bytes(&wrong));
    snprintf(path, sizeof path, "%s/run/" CT_RUN_CACHE "/fold-0", dir);
    struct ct_buf slot = fixture_read(path);
    slot.data[slot.length / 2] ^= 1;
    fixture_write(path, slot.data, slot.length);
    ct_buf_deinit(&slot);
    fold_of_run(&found, &told);
    assert_memory_equal(found.data, right.data, right.length);
    assert_int_equal(unlink(path), 0);
    fold_of_run(&found, &told);
    assert_memory_equal(found.data, right.data, right.length);
    write_fold_slot(size, &root, ct_buf_bytes(&right));
    fold_of_run(&found, &told);
    assert_memory_equal(found.data, right.data, right.length);
    ct_buf_deinit(&right);
    ct_buf_deinit(&found);
    ct_buf_deinit(&wrong);
}

/* Behind the last checkpoint a power cut may leave what has an entry's length and not its bytes. */
static void a_torn_entry_is_dropped(void **state) {
    (void)state;
    char path[PATH_MAX], entries[PATH_MAX];
    snprintf(path, sizeof path, "%s/run", dir);
    snprintf(entries, sizeof entries, "%s/run/" CT_RUN_LEDGER "/entries", dir);
    struct ct_buf before = fixture_read(entries);
    FILE *file = fopen(entries, "ab");
    assert_non_null(file);
    assert_int_equal(fwrite("\0\4torn\0\5tails", 1, 13, file), 13);
    fclose(file);
    struct ct_run run;
    assert_int_equal(ct_run_open(path, NULL, NULL, &run), CT_OK);
    assert_int_equal(run.replay.fold.phase, CT_PHASE_FINISHED);
    ct_run_close(&run);
    struct ct_buf after = fixture_read(entries);
    assert_int_equal(after.length, before.length);
    ct_buf_deinit(&before);
    ct_buf_deinit(&after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_are_refused_and_told_why),
        cmocka_unit_test(one_process_holds_a_seat),
        cmocka_unit_test(a_round_with_hostile_nodes_closes),
        cmocka_unit_test(payloads_that_are_no_updates_are_refused),
        cmocka_unit_test(who_commits_late_is_told_so),
        cmocka_unit_test(the_ledger_says_what_was_refused_and_holds),
        cmocka_unit_test(the_state_is_the_same_without_the_cache),
        cmocka_unit_test(the_model_is_the_same_without_the_cache),
        cmocka_unit_test(a_torn_entry_is_dropped),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
