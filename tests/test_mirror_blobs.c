/* What a mirror asks for, and keeps, of a run that lets updates expire. */
#include "served_run.h"

#include "coordinator/mirror.h"

/* The data set that the maker's manifest names is nowhere: it always lacks. */
#define LACKS 1u

struct world {
    struct run run;
    char *dir;
    struct ct_mirror mirror;
    struct ct_hash updates[6][2]; /* by round − 1 */
};

static void rounds(struct world *world, uint32_t count) {
    const struct ct_fold *fold = &world->run.maker.fold;
    for (uint32_t i = 0; i < count; i++) {
        do_round(&world->run, false);
        for (int node = 0; node < 2; node++) {
            world->updates[fold->round - 1][node] = fold->nodes[node].commit.update.sha256;
        }
    }
    publish(&world->run);
}

static void open_mirror(struct world *world, bool keep_expired) {
    const struct ct_mirror_options options = {
        .dir = world->dir, .url = world->run.server.url, .keep_expired = keep_expired};
    if (ct_mirror_open(&options, &world->mirror) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
}

static int set_up(void **state) {
    struct world *world = calloc(1, sizeof *world);
    open_run(&world->run, 1);
    world->dir = fixture_dir();
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    struct world *world = *state;
    ct_mirror_close(&world->mirror);
    close_run(&world->run);
    fixture_remove(world->dir);
    free(world->dir);
    free(world);
    return 0;
}

static void advance(struct world *world) {
    if (ct_mirror_advance(&world->mirror) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
}

/* The copy has exactly the updates of rounds `first` to `last`. */
static void expect_updates(const struct world *world, uint32_t first, uint32_t last) {
    char path[4096];
    for (uint32_t round = 1; round <= world->run.maker.fold.round; round++) {
        for (int node = 0; node < 2; node++) {
            ct_blobs_path(&world->mirror.blobs, &world->updates[round - 1][node], path);
            assert_int_equal(access(path, F_OK) == 0, round >= first && round <= last);
        }
    }
}

static void it_goes_with_the_run(void **state) {
    struct world *world = *state;
    rounds(world, 1);
    open_mirror(world, false);
    advance(world);
    expect_updates(world, 1, 1);
    rounds(world, 2);
    advance(world);
    expect_updates(world, 3, 3);
    rounds(world, 2);
    expire(&world->run, 8);
    advance(world);
    expect_updates(world, 5, 5);
    assert_int_equal(world->mirror.named.lacking, LACKS);
    /* Opened again it knows by its own copy what it need not have. */
    ct_mirror_close(&world->mirror);
    open_mirror(world, false);
    const unsigned requests = world->run.server.requests;
    advance(world);
    expect_updates(world, 5, 5);
    assert_true(world->run.server.requests - requests < 8);
    assert_int_equal(world->mirror.named.lacking, LACKS);
}

static void an_archive_keeps_all(void **state) {
    struct world *world = *state;
    rounds(world, 3);
    open_mirror(world, true);
    advance(world);
    expect_updates(world, 1, 3);
    rounds(world, 2);
    advance(world);
    expect_updates(world, 1, 5);
    expire(&world->run, 8);
    rounds(world, 1);
    advance(world);
    expect_updates(world, 1, 6);
    /* One that begins now takes what is still to be had, and lacks nothing. */
    ct_mirror_close(&world->mirror);
    fixture_remove(world->dir);
    open_mirror(world, true);
    advance(world);
    expect_updates(world, 5, 6);
    assert_int_equal(world->mirror.named.lacking, LACKS);
}

/* A server may say that more has closed than has. */
static void a_false_hint_costs_nothing(void **state) {
    struct world *world = *state;
    rounds(world, 3);
    open_mirror(world, false);
    world->mirror.named.hint = 1000000;
    advance(world);
    expect_updates(world, 3, 3);
    assert_int_equal(world->mirror.named.hint, 0);
    assert_int_equal(world->mirror.named.lacking, LACKS);
}

static void what_lacked_may_expire(void **state) {
    struct world *world = *state;
    char path[4096];
    rounds(world, 3);
    for (int node = 0; node < 2; node++) {
        ct_blobs_path(&world->run.blobs, &world->updates[2][node], path);
        assert_int_equal(unlink(path), 0);
    }
    open_mirror(world, false);
    advance(world);
    assert_int_equal(world->mirror.named.lacking, LACKS + 2);
    rounds(world, 1); /* the line stays */
    advance(world);
    assert_int_equal(world->mirror.named.lacking, LACKS + 2);
    rounds(world, 1);
    advance(world);
    assert_int_equal(world->mirror.named.lacking, LACKS);
    expect_updates(world, 5, 5);
}

#define MIRROR_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        MIRROR_TEST(it_goes_with_the_run),
        MIRROR_TEST(an_archive_keeps_all),
        MIRROR_TEST(a_false_hint_costs_nothing),
        MIRROR_TEST(what_lacked_may_expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
