#include "fold_expect.h"

#include "proto/fold_rules.h"

#include <cotrain/philox.h>

static void epochs_have_2_4_8_then_staggered_then_a_rounds(void **state) {
    struct maker *maker = *state;
    maker_start(maker, 1);
    struct ct_fold *fold = &maker->fold;
    unsigned seen = 0;
    for (uint32_t node = 1; node <= 200; node++) {
        assert_int_equal(ct_epoch_rounds(fold, node, 0), 2);
        assert_int_equal(ct_epoch_rounds(fold, node, 1), 4);
        assert_int_equal(ct_epoch_rounds(fold, node, 2), 8);
        struct ct_philox philox = ct_philox_make(&fold->run_seed, CT_STREAM_STAGGER);
        uint32_t block[4];
        ct_philox_block(&philox, node, 0, block);
        assert_int_equal(ct_epoch_rounds(fold, node, 3), 1 + block[0] % 16);
        seen |= 1u << (ct_epoch_rounds(fold, node, 3) - 1);
        assert_int_equal(ct_epoch_rounds(fold, node, 4), 16);
        assert_int_equal(ct_epoch_rounds(fold, node, 1000000), 16);
    }
    assert_int_equal(seen, 0xffff); /* 200 draws of 16 miss one with chance 4e-5 */
    fold->manifest.epoch_rounds = 3;
    assert_int_equal(ct_epoch_rounds(fold, 1, 0), 2);
    assert_int_equal(ct_epoch_rounds(fold, 1, 1), 3);
    assert_in_range(ct_epoch_rounds(fold, 1, 3), 1, 3);
    fold->manifest.epoch_rounds = 16;
}

/* Node 1 keeps its state for good: resets fall where the epochs end and nowhere else. */
static void a_steady_node_resets_at_epoch_ends_only(void **state) {
    struct maker *maker = *state;
    maker->manifest.rounds = 40;
    maker_start(maker, 1);
    const struct ct_plan_request request = {1, 1, true};
    uint32_t staggered = ct_epoch_rounds(&maker->fold, 1, 3);
    const uint32_t starts[] = {1, 3, 7, 15, 15 + staggered};
    for (uint32_t round = 1; round <= 15 + staggered; round++) {
        struct ct_assignments plan;
        assert_int_equal(ct_plan_round(&maker->fold, &request, 1, &plan), CT_OK);
        bool reset = false;
        uint32_t epoch = 0;
        for (uint32_t i = 0; i < 5; i++) {
            reset = reset || round == starts[i];
            epoch = round >= starts[i] ? i : epoch;
        }
        assert_int_equal(plan.items[0].reset, reset);
        assert_int_equal(plan.items[0].epoch, epoch);
        assert_int_equal(plan.items[0].index, round - starts[epoch]);
        ct_assignments_deinit(&plan);
        maker_round(maker, &request, 1);
    }
}

static void a_gap_or_a_lost_state_ends_an_epoch(void **state) {
    struct maker *maker = *state;
    maker_start(maker, 2);
    const struct ct_plan_request both[] = {{1, 2, true}, {2, 2, true}};
    const struct ct_plan_request lost[] = {{1, 2, false}, {2, 2, true}};
    maker_round(maker, both, 2);
    struct ct_assignments plan;
    assert_int_equal(ct_plan_round(&maker->fold, lost, 2, &plan), CT_OK);
    assert_true(plan.items[0].reset);
    assert_false(plan.items[1].reset);
    ct_assignments_deinit(&plan);
    maker_round(maker, both, 1); /* node 2 is not assigned */
    assert_int_equal(ct_plan_round(&maker->fold, both, 2, &plan), CT_OK);
    assert_true(plan.items[1].reset);
    assert_int_equal(plan.items[1].epoch, 1);
    ct_assignments_deinit(&plan);
}

static void requests_that_no_rule_allows(void **state) {
    struct maker *maker = *state;
    struct ct_assignments plan;
    const struct ct_plan_request good[] = {{1, 1, true}, {2, 8, true}};
    assert_int_equal(ct_plan_round(&maker->fold, good, 2, &plan), CT_ERR_STATE);
    maker_start(maker, 2);
    static const struct ct_plan_request bad[][2] = {
        {{2, 1, true}, {1, 1, true}}, {{1, 1, true}, {1, 1, true}}, {{0, 1, true}, {1, 1, true}},
        {{1, 1, true}, {3, 1, true}}, {{1, 0, true}, {2, 1, true}}, {{1, 1, true}, {2, 9, true}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ct_plan_round(&maker->fold, bad[i], 2, &plan), CT_ERR_RULE);
    }
    assert_int_equal(ct_plan_round(&maker->fold, good, 0, &plan), CT_ERR_RULE);
    assert_int_equal(ct_plan_round(&maker->fold, good, 2, &plan), CT_OK);
    assert_int_equal(ct_plan_tokens(&maker->fold, &plan), (1 + 8) * 2 * 4);
    ct_assignments_deinit(&plan);
    maker_open_round(maker, good, 2);
    assert_int_equal(ct_plan_round(&maker->fold, good, 2, &plan), CT_ERR_STATE);
}

/* Against a plain set of positions: random ranges in and out, neighbours joined, first fit. */
static void ranges_are_a_set(void **state) {
    (void)state;
    enum { POSITIONS = 400 };
    bool set[POSITIONS] = {false};
    struct ct_ranges ranges;
    assert_int_equal(ct_ranges_copy(NULL, 0, POSITIONS, &ranges), CT_OK);
    uint32_t random = 1;
    for (int turn = 0; turn < 5000; turn++) {
        random = random * 1664525u + 1013904223u;
        uint32_t position = (random >> 8) % POSITIONS, count = 1 + (random >> 20) % 9;
        uint64_t got;
        if (turn % 2 == 0) {
            bool free_of_them = position + count <= POSITIONS;
            for (uint32_t i = 0; i < count && free_of_them; i++) {
                free_of_them = !set[position + i];
            }
            if (free_of_them) {
                ct_ranges_add(&ranges, (struct ct_range){position, count});
                memset(set + position, true, count);
            }
        } else if (ct_ranges_take(&ranges, count, &got)) {
            /* the first run of `count` in the set */
            uint32_t at = 0, run = 0;
            while (run < count) {
                run = set[at++] ? run + 1 : 0;
            }
            assert_int_equal(got, at - count);
            memset(set + got, false, count);
        } else {
            uint32_t run = 0;
            for (uint32_t i = 0; i < POSITIONS; i++) {
                run = set[i] ? run + 1 : 0;
                assert_true(run < count);
            }
        }
        uint32_t at = 0;
        for (uint32_t i = 0; i < ranges.count; i++) {
            assert_true(i == 0 || ranges.items[i].position > at); /* apart, so joined */
            for (; at < ranges.items[i].position; at++) {
                assert_false(set[at]);
            }
            for (; at < ranges.items[i].position + ranges.items[i].count; at++) {
                assert_true(set[at]);
            }
        }
        for (; at < POSITIONS; at++) {
            assert_false(set[at]);
        }
    }
    free(ranges.items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_MAKER(epochs_have_2_4_8_then_staggered_then_a_rounds),
        WITH_MAKER(a_steady_node_resets_at_epoch_ends_only),
        WITH_MAKER(a_gap_or_a_lost_state_ends_an_epoch),
        WITH_MAKER(requests_that_no_rule_allows),
        cmocka_unit_test(ranges_are_a_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
