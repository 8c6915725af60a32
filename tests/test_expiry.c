/* Removing what has expired: exactly that, in parts, again after a failure, and never what a
 * commit only pretends to be its update. */
#include "coordinator/expiry.h"

#include "fixture.h"

#include <cotrain/codec.h>
#include <cotrain/disk.h>
#include <cotrain/entry.h>
#include <cotrain/limits.h>

#define ROUNDS 6u

/* One node, an epoch and a round kept, a snapshot every second round: after round 6 the payloads of
 * rounds 1 to 4 have expired. */
static const struct ct_manifest manifest = {
    .rounds = ROUNDS, .epoch_rounds = 1, .snapshot_rounds = 2, .retention_rounds = 1};

struct world {
    char *dir;
    struct ct_key *key;
    struct ct_ledger *ledger;
    struct ct_blobs blobs;
    struct ct_blob_ref payloads[ROUNDS + 1]; /* by round */
};

static int set_up(void **state) {
    static struct world world;
    char path[PATH_MAX];
    memset(&world, 0, sizeof world);
    world.dir = fixture_dir();
    assert_int_equal(ct_key_generate(&world.key), CT_OK);
    snprintf(path, sizeof path, "%s/blobs", world.dir);
    assert_int_equal(ct_blobs_init(&world.blobs, path), CT_OK);
    snprintf(path, sizeof path, "%s/ledger", world.dir);
    assert_int_equal(ct_ledger_create(path, "example.org/test", world.key, &world.ledger), CT_OK);
    *state = &world;
    return 0;
}

static int tear_down(void **state) {
    struct world *world = *state;
    ct_ledger_close(world->ledger);
    ct_key_free(world->key);
    fixture_remove(world->dir);
    free(world->dir);
    return 0;
}

static uint64_t append(struct world *world, struct ct_entry *entry) {
    struct ct_buf payload, envelope;
    uint64_t index = 0;
    entry->version = 1;
    entry->run_id.bytes[0] = 1;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&envelope, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, world->key, &envelope), CT_OK);
    assert_int_equal(ct_ledger_append(world->ledger, ct_buf_bytes(&envelope), &index), CT_OK);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return index;
}

static uint64_t append_commit(struct world *world, uint32_t round, const struct ct_blob_ref *update,
                              uint8_t assignment) {
    struct ct_commit commit = {
        .version = 1, .round = round, .author = 1, .update = *update, .steps = 1, .loss = 1.0f};
    struct ct_entry entry = {.kind = CT_ENTRY_COMMIT, .round = round};
    struct ct_buf payload, envelope;
    commit.run_id.bytes[0] = commit.state.bytes[0] = 1;
    commit.assignment.bytes[0] = assignment;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&envelope, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), 1, world->key, &envelope), CT_OK);
    entry.body.commit.length = (uint32_t)envelope.length;
    memcpy(entry.body.commit.envelope, envelope.data, envelope.length);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return append(world, &entry);
}

static void append_received(struct world *world, uint32_t round, uint64_t commit_index) {
    struct ct_entry entry = {.kind = CT_ENTRY_RECEIVED, .round = round};
    entry.body.received.commit_index = commit_index;
    append(world, &entry);
}

/* A payload as it begins, for the assignments of that digest. */
static struct ct_blob_ref put_update(struct world *world, uint8_t assignment, uint8_t body) {
    uint8_t bytes[CT_UPDATE_HEADER_BYTES + 1] = {'C', 'T', 'U', 'P', 1};
    struct ct_blob_ref ref;
    bytes[8] = assignment;
    bytes[CT_UPDATE_HEADER_BYTES] = body;
    assert_int_equal(ct_blobs_put(&world->blobs, (struct ct_bytes){bytes, sizeof bytes}, &ref),
                     CT_OK);
    return ref;
}

/* Rounds of one commit each; the assignments' digest begins with the round. */
static void make_rounds(struct world *world) {
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        world->payloads[round] = put_update(world, (uint8_t)round, 0);
        append_received(world, round,
                        append_commit(world, round, &world->payloads[round], (uint8_t)round));
    }
    assert_int_equal(ct_ledger_publish(world->ledger), CT_OK);
}

static enum ct_err advance(struct world *world, struct ct_expiry *expiry, uint32_t closed) {
    return ct_expiry_advance(expiry, &manifest, closed, world->ledger, &world->blobs);
}

static void expect_gone(const struct world *world, uint32_t line) {
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        assert_int_equal(ct_blobs_have(&world->blobs, &world->payloads[round]), round > line);
    }
}

static void what_has_expired_goes(void **state) {
    struct world *world = *state;
    struct ct_expiry expiry = {0};
    make_rounds(world);
    for (uint32_t closed = 0; closed <= ROUNDS; closed++) {
        assert_int_equal(advance(world, &expiry, closed), CT_OK);
        assert_false(ct_expiry_is_due(&expiry, &manifest, closed));
        expect_gone(world, closed < 3 ? 0 : closed < 5 ? 2 : 4);
    }
    assert_int_equal(expiry.removed, 4);
    assert_int_equal(expiry.removed_bytes, 4 * (CT_UPDATE_HEADER_BYTES + 1));
    /* From the start once more, as after a crash: what is gone is gone, what came back goes. */
    put_update(world, 3, 0);
    expiry = (struct ct_expiry){0};
    assert_true(ct_expiry_is_due(&expiry, &manifest, ROUNDS));
    assert_int_equal(advance(world, &expiry, ROUNDS), CT_OK);
    expect_gone(world, 4);
    assert_int_equal(expiry.removed, 1);
}

static void only_updates_of_their_round_go(void **state) {
    struct world *world = *state;
    struct ct_expiry expiry = {0};
    struct ct_blob_ref shard, missing, later, apart;
    const uint8_t text[100] = "tokens";
    assert_int_equal(ct_blobs_put(&world->blobs, (struct ct_bytes){text, sizeof text}, &shard),
                     CT_OK);
    later = put_update(world, 6, 7);   /* a later round's */
    missing = put_update(world, 1, 8); /* committed to, and never received */
    apart = put_update(world, 1, 9);   /* received by an entry before its commit */
    append_received(world, 1, append_commit(world, 1, &shard, 1));
    append_received(world, 1, append_commit(world, 1, &later, 1));
    append_commit(world, 1, &missing, 1);
    append_received(world, 1, ct_ledger_size(world->ledger) + 1);
    append_commit(world, 1, &apart, 1);
    append_received(world, 1, 0);
    append_received(world, 1, ct_ledger_size(world->ledger) - 1);
    make_rounds(world);
    assert_int_equal(advance(world, &expiry, ROUNDS), CT_OK);
    assert_false(ct_expiry_is_due(&expiry, &manifest, ROUNDS));
    expect_gone(world, 4);
    assert_int_equal(expiry.removed, 4);
    assert_true(ct_blobs_have(&world->blobs, &shard));
    assert_true(ct_blobs_have(&world->blobs, &later));
    assert_true(ct_blobs_have(&world->blobs, &missing));
    assert_true(ct_blobs_have(&world->blobs, &apart));
}

static enum ct_disk_verdict fail_nth_removal(void *user, const struct ct_disk_step *step) {
    unsigned *left = user;
    return step->op == CT_DISK_REMOVE && (*left)-- == 0 ? CT_DISK_FAIL : CT_DISK_GO;
}

/* Each removal fails once; the next call goes on with it. */
static void a_failure_is_made_good(void **state) {
    struct world *world = *state;
    make_rounds(world);
    for (unsigned nth = 0; nth < 4; nth++) {
        struct ct_expiry expiry = {0};
        unsigned left = nth;
        for (uint8_t round = 1; round <= 4; round++) {
            put_update(world, round, 0);
        }
        expect_gone(world, 0);
        ct_disk_watch(fail_nth_removal, &left);
        assert_int_equal(advance(world, &expiry, ROUNDS), CT_ERR_IO);
        expect_gone(world, nth);
        assert_true(ct_expiry_is_due(&expiry, &manifest, ROUNDS));
        assert_int_equal(advance(world, &expiry, ROUNDS), CT_OK);
        ct_disk_watch(NULL, NULL);
        expect_gone(world, 4);
        assert_int_equal(expiry.removed, 4);
    }
}

/* Many entries are gone through in several calls. */
static void no_call_takes_long(void **state) {
    struct world *world = *state;
    struct ct_expiry expiry = {0};
    struct ct_buf entry;
    uint64_t index = 0;
    unsigned calls = 0;
    struct ct_entry refused = {.kind = CT_ENTRY_REFUSED, .round = 1};
    refused.body.refused.node = 1;
    refused.body.refused.reason = CT_REFUSAL_LATE;
    append(world, &refused);
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_ledger_read(world->ledger, 0, &entry), CT_OK);
    for (unsigned i = 0; i < 9000; i++) {
        assert_int_equal(ct_ledger_append(world->ledger, ct_buf_bytes(&entry), &index), CT_OK);
    }
    ct_buf_deinit(&entry);
    make_rounds(world);
    for (; ct_expiry_is_due(&expiry, &manifest, ROUNDS); calls++) {
        expect_gone(world, 0);
        assert_int_equal(advance(world, &expiry, ROUNDS), CT_OK);
    }
    assert_int_equal(calls, 3);
    expect_gone(world, 4);
}

#define EXPIRY_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        EXPIRY_TEST(what_has_expired_goes),
        EXPIRY_TEST(only_updates_of_their_round_go),
        EXPIRY_TEST(a_failure_is_made_good),
        EXPIRY_TEST(no_call_takes_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
