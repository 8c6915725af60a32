#include "coordinator/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct ct_round_times times = {3000, 60000, 20000};

static void a_round_goes_through_all_its_phases(void **state) {
    (void)state;
    struct ct_round round;
    ct_round_init(&round, &times, CT_PHASE_IDLE, 1000);
    struct ct_round_facts facts = {.phase = CT_PHASE_IDLE, .needed = 2, .expected = 3};
    assert_int_equal(ct_round_step(&round, &facts, 1000), CT_ROUND_NONE);
    assert_int_equal(round.state, CT_ROUND_WAITING);
    facts.ready = 2;
    assert_int_equal(ct_round_step(&round, &facts, 2000), CT_ROUND_NONE);
    assert_int_equal(round.state, CT_ROUND_GATHERING);
    facts.ready = 3;
    assert_int_equal(ct_round_step(&round, &facts, 2100), CT_ROUND_OPEN);
    facts.phase = CT_PHASE_COMMIT;
    assert_int_equal(ct_round_step(&round, &facts, 2100), CT_ROUND_NONE);
    assert_int_equal(ct_round_remaining_ms(&round, 3100), 59000);
    facts.quorum = true;
    assert_int_equal(ct_round_step(&round, &facts, 3000), CT_ROUND_NONE);
    facts.all = true;
    assert_int_equal(ct_round_step(&round, &facts, 3000), CT_ROUND_CLOSE_COMMITS);
    facts.phase = CT_PHASE_UPLOAD;
    facts.all = facts.quorum = false;
    assert_int_equal(ct_round_step(&round, &facts, 3000), CT_ROUND_NONE);
    facts.all = facts.quorum = true;
    assert_int_equal(ct_round_step(&round, &facts, 3000), CT_ROUND_MERGE);
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_NONE);
    facts.merged = true;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_CLOSE);
    /* At once the next one: all that took part are there. */
    facts.phase = CT_PHASE_IDLE;
    facts.merged = false;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_OPEN);
    facts.phase = CT_PHASE_COMMIT;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_CLOSE_COMMITS);
    facts.phase = CT_PHASE_UPLOAD;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_MERGE);
    facts.merged = true;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_CLOSE);
    facts.phase = CT_PHASE_FINISHED;
    assert_int_equal(ct_round_step(&round, &facts, 4000), CT_ROUND_NONE);
    assert_int_equal(round.state, CT_ROUND_FINISHED);
    assert_int_equal(ct_round_step(&round, &facts, UINT64_MAX - 1), CT_ROUND_NONE);
}

static void a_late_node_is_waited_for_only_until_the_time_is_up(void **state) {
    (void)state;
    struct ct_round round;
    ct_round_init(&round, &times, CT_PHASE_COMMIT, 0);
    struct ct_round_facts facts = {.phase = CT_PHASE_COMMIT, .quorum = true};
    assert_int_equal(ct_round_step(&round, &facts, 59999), CT_ROUND_NONE);
    assert_int_equal(ct_round_step(&round, &facts, 60000), CT_ROUND_CLOSE_COMMITS);
    facts.phase = CT_PHASE_UPLOAD;
    assert_int_equal(ct_round_step(&round, &facts, 79999), CT_ROUND_NONE);
    assert_int_equal(ct_round_step(&round, &facts, 80000), CT_ROUND_MERGE);
}

static void below_the_quorum_a_phase_is_prolonged(void **state) {
    (void)state;
    struct ct_round round;
    ct_round_init(&round, &times, CT_PHASE_COMMIT, 0);
    struct ct_round_facts facts = {.phase = CT_PHASE_COMMIT};
    assert_int_equal(ct_round_step(&round, &facts, 60000), CT_ROUND_PROLONG);
    assert_int_equal(round.prolonged, 1);
    assert_int_equal(ct_round_step(&round, &facts, 60000), CT_ROUND_NONE);
    assert_int_equal(ct_round_remaining_ms(&round, 60000), 60000);
    /* All that are left have answered, and they are too few: still prolonged. */
    facts.all = true;
    assert_int_equal(ct_round_step(&round, &facts, 119999), CT_ROUND_NONE);
    assert_int_equal(ct_round_step(&round, &facts, 120000), CT_ROUND_PROLONG);
    assert_int_equal(round.prolonged, 2);
    facts.quorum = true;
    assert_int_equal(ct_round_step(&round, &facts, 120001), CT_ROUND_CLOSE_COMMITS);
    assert_int_equal(round.prolonged, 0);
    facts = (struct ct_round_facts){.phase = CT_PHASE_UPLOAD};
    assert_int_equal(ct_round_step(&round, &facts, 140001), CT_ROUND_PROLONG);
    assert_int_equal(round.state, CT_ROUND_UPLOADING);
}

static void nodes_that_go_before_the_round_opens_are_waited_for_again(void **state) {
    (void)state;
    struct ct_round round;
    ct_round_init(&round, &times, CT_PHASE_IDLE, 0);
    struct ct_round_facts facts = {.phase = CT_PHASE_IDLE, .ready = 2, .needed = 2, .expected = 3};
    assert_int_equal(ct_round_step(&round, &facts, 0), CT_ROUND_NONE);
    facts.ready = 1;
    assert_int_equal(ct_round_step(&round, &facts, 2999), CT_ROUND_NONE);
    assert_int_equal(round.state, CT_ROUND_WAITING);
    facts.ready = 2;
    assert_int_equal(ct_round_step(&round, &facts, 5000), CT_ROUND_NONE);
    assert_int_equal(ct_round_step(&round, &facts, 7999), CT_ROUND_NONE);
    assert_int_equal(ct_round_step(&round, &facts, 8000), CT_ROUND_OPEN);
}

static void without_nodes_nothing_opens(void **state) {
    (void)state;
    struct ct_round round;
    ct_round_init(&round, &times, CT_PHASE_IDLE, 0);
    struct ct_round_facts facts = {.phase = CT_PHASE_IDLE};
    assert_int_equal(ct_round_step(&round, &facts, 1u << 30), CT_ROUND_NONE);
    assert_int_equal(round.state, CT_ROUND_WAITING);
    assert_int_equal(ct_round_remaining_ms(&round, 1u << 30), 0);
}

static void a_restart_takes_the_phase_from_the_ledger(void **state) {
    (void)state;
    static const struct {
        enum ct_phase phase;
        enum ct_round_state state;
        uint32_t remaining_ms;
    } cases[] = {
        {CT_PHASE_IDLE, CT_ROUND_WAITING, 0},
        {CT_PHASE_COMMIT, CT_ROUND_COMMITTING, 60000},
        {CT_PHASE_UPLOAD, CT_ROUND_UPLOADING, 20000},
        {CT_PHASE_FINISHED, CT_ROUND_FINISHED, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ct_round round;
        ct_round_init(&round, &times, cases[i].phase, 777);
        assert_int_equal(round.state, cases[i].state);
        assert_int_equal(round.prolonged, 0);
        assert_int_equal(ct_round_remaining_ms(&round, 777), cases[i].remaining_ms);
        struct ct_round_facts facts = {.phase = cases[i].phase};
        assert_int_equal(ct_round_step(&round, &facts, 778), CT_ROUND_NONE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_goes_through_all_its_phases),
        cmocka_unit_test(a_late_node_is_waited_for_only_until_the_time_is_up),
        cmocka_unit_test(below_the_quorum_a_phase_is_prolonged),
        cmocka_unit_test(nodes_that_go_before_the_round_opens_are_waited_for_again),
        cmocka_unit_test(without_nodes_nothing_opens),
        cmocka_unit_test(a_restart_takes_the_phase_from_the_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
