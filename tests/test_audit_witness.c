/* Audits insist on the quorum of witnesses that a run promises. */
#include "audit_world.h"

#include <cotrain/cosignature.h>

static struct ct_key *keys[2];
static char lines[2][2 * CT_VKEY_BYTES_MAX];

static void write_policy(const char *path, const char *log, const char *quorum) {
    char text[4096];
    const int length = snprintf(text, sizeof text, "%s%s%sgroup both all one two\nquorum %s\n", log,
                                lines[0], lines[1], quorum);
    fixture_write(path, text, (size_t)length);
}

static int start(void **state) {
    static const char *const names[2] = {"one", "two"};
    char path[PATH_MAX], name[32], vkey[CT_VKEY_BYTES_MAX];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ct_key_generate(&keys[i]), CT_OK);
        const struct ct_hash key = ct_key_public(keys[i]);
        snprintf(name, sizeof name, "w.example/%d", i + 1);
        ct_cosigner_format(name, &key, vkey);
        snprintf(lines[i], sizeof lines[i], "witness %s %s https://w.example/\n", names[i], vkey);
    }
    char *dir = fixture_dir();
    snprintf(path, sizeof path, "%s/policy", dir);
    write_policy(path, "", "both");
    const int status = open_world_with(state, dir, path);
    free(dir);
    return status;
}

static int stop(void **state) {
    ct_key_free(keys[0]);
    ct_key_free(keys[1]);
    return close_world(state);
}

/* Puts a checkpoint of a history, cosigned by the first `count` witnesses, under a name that is
 * served. */
static void cosign(struct world *world, const struct shown *shown, const char *name, int side,
                   uint64_t size, int count) {
    static const char *const names[2] = {"w.example/1", "w.example/2"};
    char path[2 * PATH_MAX], old[PATH_MAX];
    old_checkpoint(world, side, size, world->log_key, old);
    struct ct_buf note = fixture_read(old);
    for (int i = 0; i < count; i++) {
        struct ct_buf line;
        ct_buf_init(&line, CT_CHECKPOINT_BYTES_MAX);
        assert_int_equal(ct_cosign(ct_buf_bytes(&note), names[i], keys[i], 1234567890, &line),
                         CT_OK);
        assert_int_equal(ct_buf_append(&note, line.data, line.length), CT_OK);
        ct_buf_deinit(&line);
    }
    snprintf(path, sizeof path, "%s/%s", shown->dir, name);
    fixture_write(path, note.data, note.length);
    ct_buf_deinit(&note);
}

static void the_newest_checkpoint_has_it(void **state) {
    struct world *world = *state;
    struct shown shown;
    show(world, 0, world->count, &shown);
    cosign(world, &shown, "checkpoint", 0, world->count, 2);
    audit(world, &shown, NULL, NULL);
    expect_nothing_found(world);
    assert_true(world->report->witnesses.asked);
    assert_int_equal(world->report->witnesses.size, world->count);
    assert_string_equal(world->report->witnesses.quorum, "both");
    assert_string_equal(world->report->witnesses.names, "one two");
    http_files_stop(&shown.server);
}

/* What lies behind the newest one that has it is told. */
static void an_older_checkpoint_has_it(void **state) {
    struct world *world = *state;
    struct shown shown;
    show(world, 0, world->count, &shown);
    cosign(world, &shown, "checkpoint", 0, world->count, 1);
    cosign(world, &shown, "witnessed", 0, world->count - 40, 2);
    audit(world, &shown, NULL, NULL);
    expect_nothing_found(world);
    assert_int_equal(world->report->tree_size, world->count);
    assert_int_equal(world->report->witnesses.size, world->count - 40);
    char command[5 * PATH_MAX];
    snprintf(command, sizeof command,
             "'%s/cotrain' audit '%s' --state none --range 0-0 | grep -q "
             "\"^witnesses .*'both': one two; the last 40 NOT witnessed yet\"",
             CT_BINARY_DIR, shown.server.url);
    assert_int_equal(system(command), 0);
    snprintf(
        command, sizeof command,
        "'%s/cotrain' audit '%s' --state none --range 0-0 --json | jq -e '.ok and "
        ".witnesses.names == [\"one\", \"two\"] and .witnesses.not_witnessed == 40' >/dev/null",
        CT_BINARY_DIR, shown.server.url);
    assert_int_equal(system(command), 0);
    http_files_stop(&shown.server);
}

static void expect_reason(const struct world *world, const char *words) {
    assert_int_equal(world->report->finding_count, 1);
    if (strstr(world->report->findings[0].reason, words) == NULL) {
        fail_msg("%s", world->report->findings[0].reason);
    }
    assert_int_equal(world->report->witnesses.size, 0);
}

static void none_has_it(void **state) {
    struct world *world = *state;
    struct shown shown;
    show(world, 0, world->count, &shown);
    audit(world, &shown, NULL, NULL);
    expect_reason(world, "that the run promises");
    assert_int_equal(world->report->findings[0].kind, CT_FINDING_UNAVAILABLE);
    assert_non_null(strstr(world->report->findings[0].reason, "missing: one, two"));
    cosign(world, &shown, "witnessed", 0, world->count - 40, 1);
    audit(world, &shown, NULL, NULL);
    expect_reason(world, "missing: two");
    assert_int_equal(world->report->findings[0].kind, CT_FINDING_BROKEN);
    /* A cosignature of something else is none. */
    cosign(world, &shown, "witnessed", 1, world->count - 40, 2);
    char command[5 * PATH_MAX];
    snprintf(command, sizeof command,
             "cd '%s' && (head -n 5 checkpoint; tail -n 2 witnessed) > w && mv w witnessed",
             shown.dir);
    assert_int_equal(system(command), 0);
    audit(world, &shown, NULL, NULL);
    assert_int_equal(world->report->finding_count, 1);
    assert_int_equal(world->report->witnesses.size, 0);
    http_files_stop(&shown.server);
}

/* Witnesses were shown one history, the auditor another one, or less. */
static void witnesses_saw_another_history(void **state) {
    struct world *world = *state;
    struct shown shown;
    show(world, 1, world->count, &shown);
    cosign(world, &shown, "witnessed", 0, world->count - 40, 2);
    audit(world, &shown, NULL, world->state);
    expect_finding(world, "two histories", world->count, world->count - 40);
    expect_evidence(world, world->count - 40, world->count);
    assert_int_equal(world->report->witnesses.size, 0);
    http_files_stop(&shown.server);
    show(world, 0, world->count - 40, &shown);
    cosign(world, &shown, "witnessed", 0, world->count, 2);
    audit(world, &shown, NULL, NULL);
    expect_finding(world, "was cut", world->count - 40, world->count);
    http_files_stop(&shown.server);
}

/* The auditor's own policy stands in place of the run's. */
static void an_auditor_trusts_others(void **state) {
    struct world *world = *state;
    char path[PATH_MAX + 16], log[CT_VKEY_BYTES_MAX + 8], vkey[CT_VKEY_BYTES_MAX];
    struct shown shown;
    show(world, 0, world->count, &shown);
    cosign(world, &shown, "witnessed", 0, world->count, 1);
    const struct ct_source_options where = {.where = shown.server.url};
    const struct ct_hash key = ct_key_public(world->log_key);
    ct_vkey_format(world->origin, &key, vkey);
    snprintf(log, sizeof log, "log %s\n", vkey);
    snprintf(path, sizeof path, "%s/mine", world->dir);
    write_policy(path, log, "one");
    assert_int_equal(audit_with(world, &where, NULL, path, NULL), CT_OK);
    expect_nothing_found(world);
    assert_string_equal(world->report->witnesses.names, "one");
    write_policy(path, log, "two");
    assert_int_equal(audit_with(world, &where, NULL, path, NULL), CT_OK);
    expect_reason(world, "that you ask for");
    write_policy(path, log, "none");
    assert_int_equal(audit_with(world, &where, NULL, path, NULL), CT_OK);
    expect_nothing_found(world);
    assert_false(world->report->witnesses.asked);
    const struct ct_hash other = ct_key_public(keys[0]);
    ct_vkey_format(world->origin, &other, vkey);
    snprintf(log, sizeof log, "log %s\n", vkey);
    write_policy(path, log, "one");
    assert_int_equal(audit_with(world, &where, NULL, path, NULL), CT_ERR_CONFIG);
    fixture_write(path, "quorum\n", 7);
    assert_int_equal(audit_with(world, &where, NULL, path, NULL), CT_ERR_FORMAT);
    http_files_stop(&shown.server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_newest_checkpoint_has_it, start, stop),
        cmocka_unit_test_setup_teardown(an_older_checkpoint_has_it, start, stop),
        cmocka_unit_test_setup_teardown(none_has_it, start, stop),
        cmocka_unit_test_setup_teardown(witnesses_saw_another_history, start, stop),
        cmocka_unit_test_setup_teardown(an_auditor_trusts_others, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
