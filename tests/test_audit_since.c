/* A coordinator that shows an auditor another history than before: two runs of one key that hold by
 * every rule and differ in one entry. */
#include "audit_world.h"

static void one_history_is_led_on(void **state) {
    struct world *world = *state;
    const uint64_t sizes[] = {0, 1, 255, 256, 257, world->part, world->count - 1, world->count};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char since[PATH_MAX];
        struct shown shown;
        /* The part that both histories have in common, or the same history. */
        old_checkpoint(world, sizes[i] <= world->part ? 0 : 1, sizes[i], world->log_key, since);
        show(world, 1, world->count, &shown);
        audit(world, &shown, since, NULL);
        expect_nothing_found(world);
        assert_true(world->report->since.holds);
        assert_int_equal(world->report->since.size, sizes[i]);
        http_files_stop(&shown.server);
    }
}

/* Whatever of two histories an auditor saw before, a larger or equal one shown is proof. */
static void another_history_is_proven(void **state) {
    struct world *world = *state;
    const uint64_t old[] = {world->part + 1, 512, world->count - 1, world->count};
    char since[PATH_MAX];
    struct shown shown;
    show(world, 1, world->count, &shown);
    assert_int_equal(chdir(world->dir), 0);
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        old_checkpoint(world, 0, old[i], world->log_key, since);
        audit(world, &shown, since, NULL);
        expect_finding(world, "two histories", world->count, old[i]);
        assert_false(world->report->since.holds);
        expect_evidence(world, old[i], world->count);
        assert_int_equal(remove(world->report->evidence), 0);
    }
    /* The same at the command line, which tells the path and fails. */
    char command[5 * PATH_MAX];
    snprintf(command, sizeof command,
             "'%s/cotrain' audit '%s' --since '%s' --state '%s' >'%s/told' 2>&1", CT_BINARY_DIR,
             shown.server.url, since, world->state, world->dir);
    assert_int_equal(WEXITSTATUS(system(command)), 1);
    snprintf(command, sizeof command,
             "cd '%s' && exec >/dev/null && grep -q 'DOES NOT LEAD ON' told && grep -q '^verdict "
             "*NOT' told && "
             "'%s/cotrain' evidence --json \"$(sed -n 's/^evidence *//p' told | cut -d ' ' -f 1)\" "
             ">proof && jq -e '.ok and .smaller.size == .larger.size and .smaller.root != "
             ".larger.root and .prefix == .larger.root' proof",
             world->dir, CT_BINARY_DIR);
    assert_int_equal(system(command), 0);
    http_files_stop(&shown.server);
    assert_int_equal(chdir("/"), 0);
}

/* A directory, too; its log has all that is needed. */
static void a_directory_is_held_to_it(void **state) {
    struct world *world = *state;
    const struct ct_source_options where = {.where = world->run};
    char since[PATH_MAX];
    old_checkpoint(world, 0, 300, world->log_key, since);
    assert_int_equal(audit_with(world, &where, since, NULL, NULL), CT_OK);
    expect_nothing_found(world);
    assert_true(world->report->since.holds);
    old_checkpoint(world, 1, world->count - 3, world->log_key, since);
    assert_int_equal(audit_with(world, &where, since, NULL, world->state), CT_OK);
    expect_finding(world, "two histories", world->count, world->count - 3);
    expect_evidence(world, world->count - 3, world->count);
    assert_non_null(strstr(world->report->evidence, "/state/"));
}

/* A shorter log is never taken; it is proof of two histories only where the larger tree is still to
 * be had. */
static void a_shorter_log_is_told(void **state) {
    struct world *world = *state;
    char since[PATH_MAX];
    struct shown shown, other;
    old_checkpoint(world, 0, world->count, world->log_key, since);
    show(world, 0, world->part + 9, &shown);
    audit(world, &shown, since, NULL);
    expect_finding(world, "was cut", world->part + 9, world->count);
    assert_string_equal(world->report->evidence, "");
    http_files_stop(&shown.server);

    show(world, 1, world->part + 9, &shown);
    audit(world, &shown, since, NULL);
    expect_finding(world, "was cut", world->part + 9, world->count);
    assert_string_equal(world->report->evidence, "");
    /* The liar forgot to take the other history's tiles away. */
    show(world, 0, world->count, &other);
    char command[5 * PATH_MAX];
    snprintf(command, sizeof command, "rm -r '%s/tile/0' '%s/tile/1' && cp -r '%s/tile' '%s/'",
             shown.dir, shown.dir, other.dir, shown.dir);
    http_files_stop(&other.server);
    assert_int_equal(system(command), 0);
    /* The bundles that make the shown tree are its own again. */
    struct shown again;
    show(world, 1, world->part + 9, &again);
    snprintf(command, sizeof command, "cp -r '%s/tile/entries' '%s/tile/'", again.dir, shown.dir);
    assert_int_equal(system(command), 0);
    http_files_stop(&again.server);
    audit(world, &shown, since, world->state);
    expect_finding(world, "two histories", world->part + 9, world->count);
    expect_evidence(world, world->part + 9, world->count);
    http_files_stop(&shown.server);
}

static void what_is_no_checkpoint_of_the_log(void **state) {
    struct world *world = *state;
    char since[PATH_MAX];
    struct ct_key *key = NULL;
    struct shown shown;
    show(world, 0, world->count, &shown);
    assert_int_equal(ct_key_generate(&key), CT_OK);
    old_checkpoint(world, 0, 100, key, since);
    ct_key_free(key);
    audit(world, &shown, since, NULL);
    assert_int_equal(world->report->finding_count, 1);
    assert_non_null(strstr(world->report->findings[0].reason, "another log"));
    assert_string_equal(world->report->evidence, "");
    /* What the auditor has wrong is told as that. */
    const struct ct_source_options where = {.where = shown.server.url};
    fixture_write(since, "no note\n", 8);
    assert_int_equal(audit_with(world, &where, since, NULL, NULL), CT_ERR_FORMAT);
    assert_non_null(strstr(ct_err_detail(), "--since"));
    remove(since);
    assert_int_equal(audit_with(world, &where, since, NULL, NULL), CT_ERR_NOT_FOUND);
    http_files_stop(&shown.server);
}

/* An audit that goes on from its own saved state asks the same of the checkpoint that it verified
 * last, and has that tree's entries. */
static void a_continued_audit_remembers(void **state) {
    struct world *world = *state;
    const uint64_t first = world->part + 60;
    struct shown shown;
    show(world, 0, first, &shown);
    audit(world, &shown, NULL, world->state);
    expect_nothing_found(world);
    http_files_stop(&shown.server);

    show(world, 0, world->part - 5, &shown);
    audit(world, &shown, NULL, world->state);
    expect_finding(world, "was cut", world->part - 5, first);
    assert_string_equal(world->report->evidence, "");
    http_files_stop(&shown.server);

    show(world, 1, world->part + 7, &shown);
    audit(world, &shown, NULL, world->state);
    expect_finding(world, "two histories", world->part + 7, first);
    expect_evidence(world, world->part + 7, first);
    http_files_stop(&shown.server);

    show(world, 1, world->count, &shown);
    audit(world, &shown, NULL, world->state);
    expect_finding(world, "two histories", world->count, first);
    expect_evidence(world, first, world->count);
    http_files_stop(&shown.server);

    /* It holds on to what it saw first, and goes on with that. */
    show(world, 0, world->count, &shown);
    audit(world, &shown, NULL, world->state);
    expect_nothing_found(world);
    assert_int_equal(world->report->from_entry, first);

    /* Damage of its own files is no word against the log. */
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/checkpoint", world->state);
    struct ct_buf note = fixture_read(path);
    note.data[note.length / 2] ^= 1;
    fixture_write(path, note.data, note.length);
    ct_buf_deinit(&note);
    audit(world, &shown, NULL, world->state);
    expect_nothing_found(world);
    assert_int_equal(world->report->from_entry, 0);
    http_files_stop(&shown.server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_history_is_led_on, open_world, close_world),
        cmocka_unit_test_setup_teardown(another_history_is_proven, open_world, close_world),
        cmocka_unit_test_setup_teardown(a_directory_is_held_to_it, open_world, close_world),
        cmocka_unit_test_setup_teardown(a_shorter_log_is_told, open_world, close_world),
        cmocka_unit_test_setup_teardown(what_is_no_checkpoint_of_the_log, open_world, close_world),
        cmocka_unit_test_setup_teardown(a_continued_audit_remembers, open_world, close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
