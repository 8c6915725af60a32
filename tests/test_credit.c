/* Credit against the definition: tokens by epoch, the last eleven of them in escrow. */
#include "run_maker.h"

#define ROUNDS 60u

static void tokens_settle_after_ten_more_epochs(void **state) {
    (void)state;
    struct maker *maker = malloc(sizeof *maker);
    assert_non_null(maker);
    maker_init(maker);
    maker->manifest.rounds = ROUNDS;
    maker_start(maker, 2);
    uint64_t by_epoch[2][ROUNDS + 1] = {{0}};
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        /* Node 1 loses its state in every second round, node 2 never does. */
        const struct ct_plan_request requests[] = {{1, 1 + round % 8, round % 2 == 0},
                                                   {2, 2, true}};
        maker_open_round(maker, requests, 2);
        maker_do_commit(maker, 1);
        maker_do_commit(maker, 2);
        maker_close_commits(maker);
        maker_receive(maker, 1);
        if (round % 10 != 0) {
            maker_receive(maker, 2);
        } else {
            maker_refuse(maker, 2, CT_REFUSAL_COPY);
        }
        for (uint32_t node = 1; node <= 2; node++) {
            const struct ct_assignment *assignment =
                ct_assignments_find(&maker->fold.assignments, node);
            if (node == 1 || round % 10 != 0) {
                by_epoch[node - 1][assignment->epoch] += assignment->steps * 2ull * 4;
            }
        }
        maker_close_round(maker);
        for (uint32_t node = 1; node <= 2; node++) {
            const struct ct_fold_node *of = &maker->fold.nodes[node - 1];
            const uint32_t current = of->epochs - 1;
            uint64_t settled = 0, provisional = 0;
            for (uint32_t epoch = 0; epoch <= current; epoch++) {
                *(epoch + 10 < current ? &settled : &provisional) += by_epoch[node - 1][epoch];
            }
            const struct ct_credit credit = ct_credit_of(of);
            assert_int_equal(credit.settled, settled);
            assert_int_equal(credit.provisional, provisional);
            assert_int_equal(credit.tokens, settled + provisional);
            assert_int_equal(credit.tokens, of->merged_tokens);
            assert_int_equal(credit.void_tokens, 0);
            assert_int_equal(credit.rounds, of->merged_rounds);
        }
    }
    /* So both cases were met. */
    assert_true(ct_credit_of(&maker->fold.nodes[0]).settled > 0);
    assert_true(maker->fold.nodes[0].epochs > 20);
    maker_deinit(maker);
    free(maker);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens_settle_after_ten_more_epochs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
