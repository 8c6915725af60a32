/* A fuzzer against audits: whatever of a run's public files is damaged, an audit says so; whatever
 * its own saved state holds, it accuses nobody for that; and what a coordinator signs that is no
 * entry, does no harm. By the clock for FUZZ_SECONDS (1 each) with the seed FUZZ_SEED (drawn and
 * printed). */
#define ENTRIES 200u
#define PART    60u
#include "audit_world.h"
#include "mutate.h"

#include <cotrain/log.h>

#include <time.h>

static uint64_t random_state;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double end_s(void) {
    const char *seconds = getenv("FUZZ_SECONDS");
    return now_s() + (seconds != NULL ? strtod(seconds, NULL) : 1.0);
}

static size_t draw(size_t below) {
    return (size_t)(mutate_draw(&random_state) % below);
}

static enum ct_err run_audit(struct world *world, const char *where,
                             const struct ct_audit_options *how) {
    const struct ct_source_options options = {.where = where};
    struct ct_source *source = NULL;
    ct_audit_report_deinit(world->report);
    assert_int_equal(ct_source_open(&options, &source), CT_OK);
    const enum ct_err err = ct_audit_run(source, how, world->report);
    ct_source_close(source);
    return err;
}

/* The run's public files. */
static char (*files)[PATH_MAX];
static size_t file_count;

static int take_file(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status;
    (void)walk;
    if (kind == FTW_F && (strstr(path, "/" CT_RUN_LEDGER "/") != NULL ||
                          strstr(path, "/" CT_RUN_BLOBS "/") != NULL)) {
        files = realloc(files, (file_count + 1) * sizeof files[0]);
        assert_non_null(files);
        snprintf(files[file_count++], sizeof files[0], "%s", path);
    }
    return 0;
}

/* Puts a damaged form in the place of a file; whether it is another one. */
static bool damage(const char *path, struct ct_buf *good) {
    size_t length = 0;
    *good = fixture_read(path);
    uint8_t *bad = mutate(&random_state, good->data, good->length, &length);
    const bool other =
        length != good->length || (length > 0 && memcmp(bad, good->data, length) != 0);
    fixture_write(path, bad, length);
    free(bad);
    return other;
}

static void no_damage_to_a_run_is_overlooked(void **state) {
    struct world *world = *state;
    const struct ct_audit_options how = {.replay = true, .threads = 2};
    assert_int_equal(nftw(world->run, take_file, 16, FTW_PHYS), 0);
    assert_true(file_count > 50);
    assert_int_equal(run_audit(world, world->run, &how), CT_OK);
    expect_nothing_found(world);
    unsigned inputs = 0;
    for (const double end = end_s(); now_s() < end; inputs++) {
        const char *path = files[draw(file_count)];
        struct ct_buf good;
        if (damage(path, &good)) {
            assert_int_equal(run_audit(world, world->run, &how), CT_OK);
            if (world->report->finding_count == 0) {
                fail_msg("%s was damaged, and nothing was found", path);
            }
        }
        fixture_write(path, good.data, good.length);
        ct_buf_deinit(&good);
    }
    print_message("%u damaged files\n", inputs);
    free(files);
    files = NULL;
    file_count = 0;
}

static void a_damaged_state_accuses_nobody(void **state) {
    struct world *world = *state;
    static const char *const names[] = {"verified.json", "checkpoint", "entries"};
    const struct ct_audit_options first = {.state_dir = world->state, .threads = 2};
    const struct ct_audit_options again = {
        .state_dir = world->state, .narrow = {.has_range = true}, .threads = 2};
    struct shown shown;
    show(world, 0, world->count, &shown);
    assert_int_equal(run_audit(world, shown.server.url, &first), CT_OK);
    expect_nothing_found(world);
    unsigned inputs = 0;
    for (const double end = end_s(); now_s() < end; inputs++) {
        char path[PATH_MAX + 32];
        struct ct_buf good;
        snprintf(path, sizeof path, "%s/%s", world->state, names[draw(3)]);
        damage(path, &good);
        assert_int_equal(run_audit(world, shown.server.url, &again), CT_OK);
        expect_nothing_found(world);
        assert_int_equal(world->report->tree_size, world->count);
        assert_true(world->report->from_entry == 0 || world->report->from_entry == world->count);
        fixture_write(path, good.data, good.length);
        ct_buf_deinit(&good);
    }
    print_message("%u damaged states\n", inputs);
    http_files_stop(&shown.server);
}

/* Another entry in the place of one: damaged as it is, or its content damaged and signed again. */
static void make_hostile(const struct ct_buf *honest, const struct ct_key *identity,
                         struct ct_buf *out) {
    struct ct_envelope envelope;
    size_t length = 0;
    const bool sign = draw(4) > 0;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(honest), &envelope), CT_OK);
    uint8_t *bad =
        sign ? mutate(&random_state, envelope.payload.data, envelope.payload.length, &length)
             : mutate(&random_state, honest->data, honest->length, &length);
    const struct ct_bytes bytes = {bad, length};
    if (!sign || ct_envelope_seal(CT_TYPE_ENTRY, bytes, 0, identity, out) != CT_OK) {
        ct_buf_clear(out);
        assert_int_equal(
            ct_buf_append(out, length > 0 ? bad : (const uint8_t *)"x", length > 0 ? length : 1),
            CT_OK);
    }
    free(bad);
}

static void what_is_signed_and_no_entry_does_no_harm(void **state) {
    struct world *world = *state;
    const struct ct_audit_options how = {.threads = 2};
    char path[PATH_MAX + 32];
    struct ct_key *identity = NULL;
    snprintf(path, sizeof path, "%s/" CT_RUN_IDENTITY, world->run);
    assert_int_equal(ct_key_load(path, &identity), CT_OK);
    unsigned inputs = 0, found = 0;
    for (const double end = end_s(); now_s() < end; inputs++) {
        struct ct_buf *entry = &world->entries[0][draw(world->count)];
        const struct ct_buf honest = *entry;
        struct shown shown;
        ct_buf_init(entry, CT_ENTRY_BYTES_MAX);
        make_hostile(&honest, identity, entry);
        show(world, 0, world->count, &shown);
        const enum ct_err err = run_audit(world, shown.server.url, &how);
        found += err != CT_OK || world->report->finding_count > 0;
        http_files_stop(&shown.server);
        fixture_remove(shown.dir);
        ct_buf_deinit(entry);
        *entry = honest;
    }
    /* A number of a record may be another one that is as good. */
    print_message("%u hostile entries, %u refused\n", inputs, found);
    assert_true(found > inputs / 2);
    ct_key_free(identity);
}

int main(void) {
    const char *seed = getenv("FUZZ_SEED");
    random_state = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    print_message("FUZZ_SEED=%llu\n", (unsigned long long)random_state);
    ct_log_to("/dev/null"); /* what is damaged is told many times */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_damage_to_a_run_is_overlooked, open_world, close_world),
        cmocka_unit_test_setup_teardown(a_damaged_state_accuses_nobody, open_world, close_world),
        cmocka_unit_test_setup_teardown(what_is_signed_and_no_entry_does_no_harm, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
