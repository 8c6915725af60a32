/* An audit of a run that lets updates expire and goes on meanwhile: what expires under way is told
 * like the rest, what is missing and has not is unavailable. */
#include "served_run.h"

#include "node/audit.h"

struct watching {
    struct run *run;
    uint32_t at;     /* when this round goes by */
    uint32_t rounds; /* so many more are done */
    bool loses;      /* and the payloads of the audited tree's last round go */
};

static void lose(struct run *run, const struct ct_hash updates[2]) {
    char path[4096];
    for (int i = 0; i < 2; i++) {
        ct_blobs_path(&run->blobs, &updates[i], path);
        assert_int_equal(unlink(path), 0);
    }
}

static enum ct_err on_round(void *user, const struct ct_audit_round *round) {
    struct watching *watching = user;
    struct run *run = watching->run;
    if (round->round != watching->at) {
        return CT_OK;
    }
    const struct ct_fold *fold = &run->maker.fold;
    const struct ct_hash updates[2] = {fold->nodes[0].commit.update.sha256,
                                       fold->nodes[1].commit.update.sha256};
    for (uint32_t i = 0; i < watching->rounds; i++) {
        do_round(run, false);
    }
    publish(run);
    if (watching->loses) {
        lose(run, updates);
    } else {
        expire(run, 4);
    }
    return CT_OK;
}

/* The whole log as a part of it: then the data set, which this run has none of, is not asked for.
 */
static void audit(struct run *run, struct watching *watching, bool replay,
                  struct ct_audit_report *report) {
    const struct ct_audit_watch watch = {.user = watching, .round = on_round};
    const struct ct_source_options where = {.where = run->server.url};
    const struct ct_audit_options how = {.narrow = {.has_range = true, .last = UINT64_MAX},
                                         .replay = replay,
                                         .threads = 1,
                                         .watch = &watch};
    struct ct_source *source = NULL;
    assert_int_equal(ct_source_open(&where, &source), CT_OK);
    if (ct_audit_run(source, &how, report) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    ct_source_close(source);
}

/* Three rounds, of which the first two have expired. */
static int set_up(void **state) {
    struct run *run = calloc(1, sizeof *run);
    open_run(run, 1);
    for (int i = 0; i < 3; i++) {
        do_round(run, false);
    }
    publish(run);
    expire(run, 4);
    *state = run;
    return 0;
}

static int tear_down(void **state) {
    close_run(*state);
    free(*state);
    return 0;
}

static void expect_clean(const struct ct_audit_report *report) {
    if (report->finding_count != 0) {
        fail_msg("%s", report->findings[0].reason);
    }
}

static void what_had_expired_is_told(void **state) {
    struct watching watching = {.run = *state};
    struct ct_audit_report *report = calloc(1, sizeof *report);
    audit(*state, &watching, true, report);
    expect_clean(report);
    assert_int_equal(report->rounds, 3);
    assert_int_equal(report->expired.rounds, 1);
    assert_int_equal(report->expired.line, 2);
    assert_int_equal(report->expired.updates, 4);
    assert_int_equal(report->expired.first_round, 1);
    assert_int_equal(report->expired.last_round, 2);
    assert_int_equal(report->expired.aggregations, 2);
    assert_int_equal(report->expired.trusted_round, 2);
    /* Units of round 1 begin with the model that the run seed draws. */
    assert_int_equal(report->units_total, 4);
    assert_int_equal(report->expired.units, 2);
    assert_int_equal(report->expired.contributions, 2);
    ct_audit_report_deinit(report);
    free(report);
}

/* Round 3 expires before the audit comes to it: what is published since then says so. */
static void what_expires_meanwhile_is_told_too(void **state) {
    struct watching watching = {.run = *state, .at = 1, .rounds = 2};
    struct ct_audit_report *report = calloc(1, sizeof *report);
    audit(*state, &watching, false, report);
    expect_clean(report);
    assert_int_equal(report->rounds, 3);
    assert_int_equal(report->expired.line, 4);
    assert_int_equal(report->expired.updates, 6);
    assert_int_equal(report->expired.last_round, 3);
    assert_int_equal(report->expired.aggregations, 3);
    assert_int_equal(report->expired.trusted_round, 2);
    ct_audit_report_deinit(report);
    free(report);
}

/* It is missing too early: one more round has closed, and the line has not moved. */
static void what_must_be_kept_is_unavailable(void **state) {
    for (uint32_t rounds = 0; rounds < 2; rounds++) {
        struct watching watching = {.run = *state, .at = 1, .rounds = rounds, .loses = true};
        struct ct_audit_report *report = calloc(1, sizeof *report);
        if (rounds == 1) {
            tear_down(state);
            set_up(state);
            watching.run = *state;
        }
        audit(*state, &watching, false, report);
        assert_int_equal(report->finding_count, 2);
        assert_int_equal(report->unavailable, 2);
        assert_int_equal(report->expired.line, 2);
        assert_int_equal(report->expired.updates, 4);
        ct_audit_report_deinit(report);
        free(report);
    }
}

#define EXPIRED_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        EXPIRED_TEST(what_had_expired_is_told),
        EXPIRED_TEST(what_expires_meanwhile_is_told_too),
        EXPIRED_TEST(what_must_be_kept_is_unavailable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
