/* What a node keeps of its contributions over a restart. */
#include "node/contribution.h"

#include "fixture.h"

struct place {
    char *dir;
    struct ct_blobs blobs;
    struct ct_key *key;
    struct ct_hash run_id;
};

static int set_up(void **state) {
    struct place *place = calloc(1, sizeof *place);
    char path[512];
    place->dir = fixture_dir();
    snprintf(path, sizeof path, "%s/blobs", place->dir);
    assert_int_equal(ct_blobs_init(&place->blobs, path), CT_OK);
    assert_int_equal(ct_key_generate(&place->key), CT_OK);
    place->run_id.bytes[0] = 9;
    *state = place;
    return 0;
}

static int tear_down(void **state) {
    struct place *place = *state;
    ct_key_free(place->key);
    fixture_remove(place->dir);
    free(place->dir);
    free(place);
    return 0;
}

static struct ct_pending store(struct place *place, uint32_t round) {
    struct ct_commit commit = {
        .version = 1, .run_id = place->run_id, .round = round, .author = 2, .steps = 4};
    char text[32];
    struct ct_pending pending;
    int n = snprintf(text, sizeof text, "payload of %u", round);
    commit.state.bytes[3] = (uint8_t)round;
    assert_int_equal(ct_contribution_store(place->dir, &place->blobs, place->key, &commit,
                                           (struct ct_bytes){(const uint8_t *)text, (size_t)n},
                                           &pending),
                     CT_OK);
    assert_int_equal(pending.update.length, n);
    return pending;
}

static void load(struct place *place, struct ct_pending *out) {
    assert_int_equal(ct_contribution_load(place->dir, &place->blobs, &place->run_id, out), CT_OK);
}

static void the_same_bytes_come_back(void **state) {
    struct place *place = *state;
    struct ct_pending loaded;
    load(place, &loaded);
    assert_int_equal(loaded.round, 0);
    (void)store(place, 3);
    struct ct_pending pending = store(place, 12);
    load(place, &loaded);
    assert_int_equal(loaded.round, 12);
    assert_int_equal(loaded.length, pending.length);
    assert_memory_equal(loaded.envelope, pending.envelope, pending.length);
    assert_memory_equal(&loaded.state, &pending.state, sizeof pending.state);
    assert_true(ct_hash_equal(&loaded.update.sha256, &pending.update.sha256));
    assert_false(loaded.receipt);

    /* What was signed is what the node's key signed. */
    struct ct_hash key = ct_key_public(place->key);
    struct ct_envelope envelope;
    struct ct_commit commit;
    assert_int_equal(ct_envelope_open((struct ct_bytes){loaded.envelope, loaded.length}, &envelope),
                     CT_OK);
    assert_int_equal(ct_envelope_verify(&envelope, &key), CT_OK);
    assert_int_equal(ct_commit_decode(envelope.payload, &commit), CT_OK);
    assert_int_equal(commit.round, 12);
    assert_int_equal(commit.author, 2);
    assert_int_equal(envelope.key_number, 2);

    ct_contribution_forget(place->dir, 12);
    load(place, &loaded);
    assert_int_equal(loaded.round, 3);
    ct_contribution_forget(place->dir, 3);
    ct_contribution_forget(place->dir, 3);
    load(place, &loaded);
    assert_int_equal(loaded.round, 0);
}

static void receipts_are_counted_and_known(void **state) {
    struct place *place = *state;
    struct ct_pending loaded;
    const struct ct_bytes text = {(const uint8_t *)"proof", 5};
    (void)store(place, 7);
    assert_int_equal(ct_contribution_receipts(place->dir), 0);
    assert_int_equal(ct_contribution_receipt(place->dir, 6, text), CT_OK);
    load(place, &loaded);
    assert_false(loaded.receipt);
    assert_int_equal(ct_contribution_receipt(place->dir, 7, text), CT_OK);
    load(place, &loaded);
    assert_true(loaded.receipt);
    assert_int_equal(ct_contribution_receipts(place->dir), 2);
    char path[512];
    snprintf(path, sizeof path, "%s/receipts/round-000007.tlog-proof", place->dir);
    struct ct_buf bytes = fixture_read(path);
    assert_int_equal(bytes.length, 5);
    ct_buf_deinit(&bytes);
}

static void what_cannot_be_sent_is_dropped(void **state) {
    struct place *place = *state;
    struct ct_pending loaded;
    char path[512];
    (void)store(place, 4);
    struct ct_pending newest = store(place, 5);
    snprintf(path, sizeof path, "%s/pending/round-000005.commit", place->dir);
    fixture_write(path, newest.envelope, newest.length - 1);
    load(place, &loaded);
    assert_int_equal(loaded.round, 4);
    assert_int_not_equal(access(path, F_OK), 0);

    /* Without its payload, of another round, of another run. */
    newest = store(place, 6);
    char blob[4096];
    ct_blobs_path(&place->blobs, &newest.update.sha256, blob);
    assert_int_equal(unlink(blob), 0);
    newest = store(place, 8);
    snprintf(path, sizeof path, "%s/pending/round-000009.commit", place->dir);
    fixture_write(path, newest.envelope, newest.length);
    ct_contribution_forget(place->dir, 8);
    place->run_id.bytes[0] = 10;
    (void)store(place, 10);
    place->run_id.bytes[0] = 9;
    load(place, &loaded);
    assert_int_equal(loaded.round, 4);
    snprintf(path, sizeof path, "%s/pending/round-4.commit", place->dir);
    fixture_write(path, newest.envelope, newest.length);
    load(place, &loaded);
    assert_int_equal(loaded.round, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_same_bytes_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(receipts_are_counted_and_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_sent_is_dropped, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
