/* A copy of somebody else's log: it grows under notes that the log's key signed, and under no
 * others. */
#include "ledger_world.h"

#include <cotrain/merkle.h>

/* The log that is copied, in world->path, and where its copy lies. */
struct pair {
    struct ct_ledger *log, *copy;
    char path[PATH_MAX];
};

static void open_copy(const struct world *world, struct pair *pair) {
    if (ct_ledger_open_copy(pair->path, ORIGIN, &world->public_key, &pair->copy) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
}

static void open_pair(const struct world *world, struct pair *pair) {
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &pair->log), CT_OK);
    snprintf(pair->path, sizeof pair->path, "%s/copy", world->dir);
    open_copy(world, pair);
}

static void close_pair(struct pair *pair) {
    ct_ledger_close(pair->log);
    ct_ledger_close(pair->copy);
}

static void grow(struct pair *pair, uint64_t to) {
    assert_int_equal(append(pair->log, ct_ledger_size(pair->log), to), CT_OK);
    assert_int_equal(ct_ledger_publish(pair->log), CT_OK);
}

static void follow(struct pair *pair) {
    assert_int_equal(append(pair->copy, ct_ledger_size(pair->copy), ct_ledger_published(pair->log)),
                     CT_OK);
    assert_int_equal(ct_ledger_accept(pair->copy, ct_ledger_checkpoint(pair->log)), CT_OK);
}

/* Whether both directories have the same files, byte for byte. */
static void assert_same_files(const struct world *world, const struct pair *pair) {
    char command[2 * PATH_MAX + 64];
    snprintf(command, sizeof command, "diff -r '%s' '%s'", world->path, pair->path);
    assert_int_equal(system(command), 0);
}

static void a_copy_has_the_files_of_its_log(void **state) {
    const struct world *world = *state;
    struct pair pair;
    open_pair(world, &pair);
    static const uint64_t sizes[] = {1, 4, 255, 256, 700, 1300};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        grow(&pair, sizes[i]);
        follow(&pair);
        assert_holds(world, pair.copy, sizes[i], sizes[i]);
        if (i % 2 == 0) {
            assert_int_equal(ct_ledger_keep(pair.log), CT_OK);
            assert_int_equal(ct_ledger_keep_note(pair.copy, ct_ledger_checkpoint(pair.log)), CT_OK);
        }
        assert_true(ct_ledger_has_kept(pair.copy, sizes[i]) == (i % 2 == 0));
        assert_same_files(world, &pair);
        ct_ledger_close(pair.copy);
        open_copy(world, &pair);
    }
    close_pair(&pair);
}

/* Signs a note over any tree. */
static struct ct_buf sign(const struct ct_key *key, const char *origin, uint64_t size,
                          struct ct_hash root) {
    struct ct_checkpoint checkpoint = {.size = size, .root = root};
    struct ct_buf note;
    snprintf(checkpoint.origin, sizeof checkpoint.origin, "%s", origin);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, key, &note), CT_OK);
    return note;
}

static void no_other_note_is_accepted(void **state) {
    const struct world *world = *state;
    struct pair pair;
    struct ct_key *stranger = NULL;
    assert_int_equal(ct_key_generate(&stranger), CT_OK);
    open_pair(world, &pair);
    grow(&pair, 10);
    follow(&pair);
    assert_int_equal(append(pair.copy, 10, 20), CT_OK);
    const struct {
        const struct ct_key *key;
        const char *origin;
        uint64_t size, tree;
        enum ct_err expected;
    } cases[] = {
        {stranger, ORIGIN, 20, 20, CT_ERR_SIGNATURE},
        {world->key, "example.org/other", 20, 20, CT_ERR_SIGNATURE},
        {world->key, ORIGIN, 20, 19, CT_ERR_DIGEST}, /* another history */
        {world->key, ORIGIN, 15, 15, CT_ERR_RULE},   /* not over all that waits */
        {world->key, ORIGIN, 21, 21, CT_ERR_RULE},
        {world->key, ORIGIN, 10, 10, CT_ERR_RULE}, /* nothing new */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ct_buf note =
            sign(cases[i].key, cases[i].origin, cases[i].size, expected_root(cases[i].tree));
        assert_int_equal(ct_ledger_accept(pair.copy, ct_buf_bytes(&note)), cases[i].expected);
        assert_holds(world, pair.copy, 20, 10);
        ct_buf_deinit(&note);
    }
    struct ct_buf kept = sign(world->key, ORIGIN, 7, expected_root(8));
    assert_int_equal(ct_ledger_keep_note(pair.copy, ct_buf_bytes(&kept)), CT_ERR_DIGEST);
    ct_buf_deinit(&kept);
    kept = sign(world->key, ORIGIN, 15, expected_root(15));
    assert_int_equal(ct_ledger_keep_note(pair.copy, ct_buf_bytes(&kept)), CT_ERR_RULE);
    ct_buf_deinit(&kept);
    assert_false(ct_ledger_has_kept(pair.copy, 7));
    assert_int_equal(ct_ledger_publish(pair.copy), CT_ERR_STATE);
    ct_key_free(stranger);
    close_pair(&pair);
}

/* Stopped before a note came: what was fetched waits on the disk, and goes if it leads nowhere. */
static void what_waits_outlives_a_stop(void **state) {
    const struct world *world = *state;
    struct pair pair;
    open_pair(world, &pair);
    assert_int_equal(append(pair.copy, 0, 300), CT_OK);
    assert_int_equal(ct_ledger_store(pair.copy), CT_OK);
    assert_int_equal(append(pair.copy, 300, 310), CT_OK); /* in memory alone */
    ct_ledger_close(pair.copy);
    open_copy(world, &pair);
    assert_int_equal(ct_ledger_size(pair.copy), 300);
    assert_int_equal(ct_ledger_published(pair.copy), 0);
    assert_int_equal(ct_ledger_checkpoint(pair.copy).length, 0);
    grow(&pair, 400);
    follow(&pair);
    assert_same_files(world, &pair);
    const uint8_t other[] = "of another history";
    uint64_t index;
    assert_int_equal(ct_ledger_append(pair.copy, (struct ct_bytes){other, sizeof other}, &index),
                     CT_OK);
    assert_int_equal(ct_ledger_store(pair.copy), CT_OK);
    grow(&pair, 401);
    assert_int_equal(ct_ledger_accept(pair.copy, ct_ledger_checkpoint(pair.log)), CT_ERR_DIGEST);
    assert_int_equal(ct_ledger_cut(pair.copy, 400), CT_OK);
    follow(&pair);
    assert_same_files(world, &pair);
    close_pair(&pair);
}

static enum ct_disk_verdict fail_at(void *user, const struct ct_disk_step *step) {
    (void)step;
    uint32_t *left = user;
    return (*left)-- == 0 ? CT_DISK_TEAR : CT_DISK_GO;
}

/* Each operation on the disk fails once: the copy stands before or after, and goes on. */
static void every_failure_leaves_a_copy(void **state) {
    const struct world *world = *state;
    struct pair pair;
    open_pair(world, &pair);
    bool done = false;
    for (uint32_t n = 0; !done; n++) {
        const uint64_t before = ct_ledger_published(pair.copy);
        uint32_t left = n;
        grow(&pair, before + 130);
        assert_int_equal(append(pair.copy, before, before + 130), CT_OK);
        ct_disk_watch(fail_at, &left);
        enum ct_err err = ct_ledger_accept(pair.copy, ct_ledger_checkpoint(pair.log));
        ct_disk_watch(NULL, NULL);
        done = left <= n && err == CT_OK;
        ct_ledger_close(pair.copy);
        open_copy(world, &pair);
        assert_int_equal(ct_ledger_check(pair.copy), CT_OK);
        const uint64_t published = ct_ledger_published(pair.copy);
        assert_true(published == before || published == before + 130);
        if (published == before) {
            follow(&pair);
        }
        assert_holds(world, pair.copy, before + 130, before + 130);
        assert_true(n < 200);
    }
    close_pair(&pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_copy_has_the_files_of_its_log, world_open, world_close),
        cmocka_unit_test_setup_teardown(no_other_note_is_accepted, world_open, world_close),
        cmocka_unit_test_setup_teardown(what_waits_outlives_a_stop, world_open, world_close),
        cmocka_unit_test_setup_teardown(every_failure_leaves_a_copy, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
