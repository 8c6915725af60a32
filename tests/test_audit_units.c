/* The draw of units: uniform, repeatable, apart and together all; and what it would have found. */
#include "run_maker.h"

#include "node/audit_units.h"

#define ROUNDS    30u
#define UNITS_MAX 200u

struct drawing {
    struct ct_audit_options options;
    uint32_t only_node;             /* 0: all */
    uint32_t lost_first, lost_last; /* rounds whose base cannot be had any more */
    struct ct_units *units;
    uint32_t count, total, expired, expired_commits;
    struct ct_unit chosen[UNITS_MAX];
};

/* One run of four nodes, and every drawing takes note of its commits. Where epochs begin depends on
 * the run, so drawings of two runs cannot be compared. */
static void feed(struct drawing *drawings, uint32_t count) {
    struct maker *maker = malloc(sizeof *maker);
    assert_non_null(maker);
    maker_init(maker);
    maker->manifest.rounds = ROUNDS;
    maker_start(maker, MAKER_NODES);
    struct ct_plan_request requests[MAKER_NODES];
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (uint32_t i = 0; i < MAKER_NODES; i++) {
            requests[i] = (struct ct_plan_request){i + 1, 4, round % 3 != 0};
        }
        maker_open_round(maker, requests, MAKER_NODES);
        for (uint32_t i = 1; i <= MAKER_NODES; i++) {
            maker_do_commit(maker, i);
            for (uint32_t k = 0; k < count; k++) {
                const bool wanted = drawings[k].only_node == 0 || i == drawings[k].only_node;
                const bool base_known =
                    round < drawings[k].lost_first || round > drawings[k].lost_last;
                assert_int_equal(ct_units_commit(drawings[k].units, &maker->fold,
                                                 &maker->fold.nodes[i - 1], wanted, base_known),
                                 CT_OK);
            }
        }
        maker_close_commits(maker);
        for (uint32_t i = 1; i <= MAKER_NODES; i++) {
            maker_receive(maker, i);
        }
        maker_close_round(maker);
    }
    maker_deinit(maker);
    free(maker);
}

static void draw(struct drawing *drawings, uint32_t count) {
    for (uint32_t k = 0; k < count; k++) {
        assert_int_equal(ct_units_open(&drawings[k].options, &drawings[k].units), CT_OK);
    }
    feed(drawings, count);
    for (uint32_t k = 0; k < count; k++) {
        struct drawing *drawing = &drawings[k];
        const struct ct_unit *chosen = NULL;
        assert_int_equal(ct_units_end(drawing->units, &chosen, &drawing->count, &drawing->total),
                         CT_OK);
        ct_units_expired(drawing->units, &drawing->expired, &drawing->expired_commits);
        assert_true(drawing->count <= UNITS_MAX);
        for (uint32_t i = 0; i < drawing->count; i++) {
            drawing->chosen[i] = chosen[i];
            assert_true(i == 0 || chosen[i - 1].first_round <= chosen[i].first_round);
        }
        ct_units_close(drawing->units);
    }
}

static bool same(const struct ct_unit *a, const struct ct_unit *b) {
    return a->node == b->node && a->epoch == b->epoch;
}

static void all_units_have_all_commits(void **state) {
    (void)state;
    struct drawing drawings[2] = {{.options.draw = CT_DRAW_ALL},
                                  {.options.draw = CT_DRAW_ALL, .only_node = 2}};
    draw(drawings, 2);
    const struct drawing *all = &drawings[0], *of_node = &drawings[1];
    assert_int_equal(all->count, all->total);
    uint32_t commits = 0;
    uint64_t steps = 0;
    for (uint32_t i = 0; i < all->count; i++) {
        commits += all->chosen[i].commits;
        steps += all->chosen[i].steps;
        assert_int_equal(all->chosen[i].last_round - all->chosen[i].first_round + 1,
                         all->chosen[i].commits);
        for (uint32_t k = 0; k < i; k++) {
            assert_false(same(&all->chosen[i], &all->chosen[k]));
        }
    }
    assert_int_equal(commits, ROUNDS * MAKER_NODES);
    assert_int_equal(steps, ROUNDS * MAKER_NODES * 4);
    assert_int_equal(of_node->count, of_node->total);
    assert_true(of_node->count > 0 && of_node->count < all->count);
    for (uint32_t i = 0; i < of_node->count; i++) {
        assert_int_equal(of_node->chosen[i].node, 2);
    }
}

/* A unit is drawn iff all of its bases can be had; what is not is counted. */
static void units_without_a_base_are_in_no_draw(void **state) {
    (void)state;
    struct drawing drawings[4] = {
        {.options.draw = CT_DRAW_ALL},
        {.options.draw = CT_DRAW_ALL, .lost_first = 1, .lost_last = 10},
        {.options.draw = CT_DRAW_ALL, .lost_first = 8, .lost_last = 8, .only_node = 3},
        {.options.draw = CT_DRAW_NONE, .lost_first = 1, .lost_last = ROUNDS},
    };
    draw(drawings, 4);
    const struct drawing *all = &drawings[0];
    for (uint32_t k = 1; k < 4; k++) {
        const struct drawing *left = &drawings[k];
        uint32_t units = 0, commits = 0, at = 0;
        for (uint32_t i = 0; i < all->count; i++) {
            const struct ct_unit *unit = &all->chosen[i];
            if (left->only_node != 0 && unit->node != left->only_node) {
                continue;
            }
            if (unit->last_round >= left->lost_first && unit->first_round <= left->lost_last) {
                units++;
                commits += unit->commits;
            } else {
                assert_true(at < left->count && same(&left->chosen[at++], unit));
            }
        }
        assert_int_equal(at, left->count);
        assert_int_equal(left->total, left->count);
        assert_true(units > 0);
        assert_int_equal(left->expired, units);
        assert_int_equal(left->expired_commits, commits);
    }
    assert_int_equal(all->expired + all->expired_commits, 0);
}

/* N drawn are the N lowest numbers: the reference counts among all. */
static void a_draw_is_of_the_lowest_numbers(void **state) {
    (void)state;
    struct drawing drawings[9] = {{.options = {.draw = CT_DRAW_ALL, .seed = 99}}};
    for (uint32_t k = 1; k < 9; k++) {
        drawings[k].options = (struct ct_audit_options){
            .draw = CT_DRAW_SOME, .draw_units = k < 7 ? 1 + 9 * (k - 1) : 5, .seed = 99 + k / 7};
    }
    drawings[6].options.draw_units = UNITS_MAX;
    drawings[8].options.seed = 99;
    draw(drawings, 9);
    for (uint32_t k = 1; k < 9; k++) {
        const struct drawing *some = &drawings[k];
        const uint32_t wanted = some->options.draw_units;
        assert_int_equal(some->total, drawings[0].count);
        assert_int_equal(some->count, wanted < some->total ? wanted : some->total);
        uint64_t highest = 0;
        for (uint32_t i = 0; i < some->count; i++) {
            highest = some->chosen[i].number > highest ? some->chosen[i].number : highest;
        }
        uint32_t at_most = 0;
        for (uint32_t i = 0; i < drawings[0].count && some->options.seed == 99; i++) {
            at_most += drawings[0].chosen[i].number <= highest;
        }
        assert_int_equal(at_most, some->options.seed == 99 ? some->count : 0);
    }
    /* Another seed draws others. */
    assert_memory_not_equal(drawings[7].chosen, drawings[8].chosen, 5 * sizeof(struct ct_unit));
}

static void shares_are_apart_and_together_all(void **state) {
    (void)state;
    for (uint32_t shares = 1; shares <= 5; shares += 2) {
        struct drawing drawings[6] = {{.options = {.draw = CT_DRAW_ALL, .seed = 7}}};
        uint32_t seen[UNITS_MAX] = {0};
        for (uint32_t share = 1; share <= shares; share++) {
            drawings[share].options = (struct ct_audit_options){
                .draw = CT_DRAW_SHARE, .draw_share = share, .draw_shares = shares, .seed = 7};
        }
        draw(drawings, shares + 1);
        const struct drawing *all = &drawings[0];
        for (uint32_t share = 1; share <= shares; share++) {
            const struct drawing *part = &drawings[share];
            assert_true(part->count >= all->count / shares &&
                        part->count <= all->count / shares + 1);
            for (uint32_t i = 0; i < part->count; i++) {
                for (uint32_t k = 0; k < all->count; k++) {
                    seen[k] += same(&part->chosen[i], &all->chosen[k]);
                }
            }
        }
        for (uint32_t k = 0; k < all->count; k++) {
            assert_int_equal(seen[k], 1);
        }
    }
}

static double choose(unsigned n, unsigned k) {
    double ways = 1.0;
    for (unsigned i = 1; i <= k; i++) {
        ways = ways * (n - k + i) / i;
    }
    return k > n ? 0.0 : ways;
}

static void chance_is_hypergeometric(void **state) {
    (void)state;
    for (unsigned units = 1; units <= 30; units++) {
        for (unsigned cheated = 0; cheated <= units; cheated++) {
            for (unsigned drawn = 0; drawn <= units; drawn++) {
                const double expected = 1.0 - choose(units - cheated, drawn) / choose(units, drawn);
                const double found = ct_audit_chance(units, drawn, cheated);
                assert_true(found - expected < 1e-9 && expected - found < 1e-9);
            }
        }
    }
    /* Chosen by hand: of 100 units one is cheated in and ten are drawn. */
    assert_true(ct_audit_chance(100, 10, 1) > 0.0999999 && ct_audit_chance(100, 10, 1) < 0.1000001);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_units_have_all_commits),
        cmocka_unit_test(units_without_a_base_are_in_no_draw),
        cmocka_unit_test(a_draw_is_of_the_lowest_numbers),
        cmocka_unit_test(shares_are_apart_and_together_all),
        cmocka_unit_test(chance_is_hypergeometric),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
