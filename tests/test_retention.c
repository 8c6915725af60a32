/* Which payloads expire: the formula against what it is for, tried out round by round. */
#include <cotrain/retention.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* R15 */
static bool has_snapshot(const struct ct_manifest *m, uint32_t round) {
    return round % m->snapshot_rounds == 0 || round == m->rounds;
}

/* Whether all work of the last N rounds can be recomputed when the payloads of the rounds up to
 * `expired` are gone: each epoch that it may belong to must find the base of its first round. */
static bool suffices(const struct ct_manifest *m, uint32_t closed, uint32_t expired) {
    for (uint32_t back = 0; back < m->retention_rounds && back < closed; back++) {
        const uint32_t round = closed - back;
        for (uint32_t index = 0; index < m->epoch_rounds && index < round; index++) {
            const uint32_t base = round - index - 1;
            if (base < expired) {
                return false;
            }
        }
    }
    return true;
}

/* The last snapshot that suffices. */
static uint32_t tried_out(const struct ct_manifest *m, uint32_t closed) {
    for (uint32_t round = closed; round > 0; round--) {
        if (has_snapshot(m, round) && suffices(m, closed, round)) {
            return round;
        }
    }
    return 0;
}

static void the_formula_is_what_suffices(void **state) {
    (void)state;
    unsigned expired = 0;
    for (uint32_t epoch = 1; epoch <= 5; epoch++) {
        for (uint32_t kept = epoch; kept <= 7; kept++) {
            for (uint32_t snapshot = 1; snapshot <= 6; snapshot++) {
                const struct ct_manifest m = {.rounds = 29,
                                              .epoch_rounds = epoch,
                                              .snapshot_rounds = snapshot,
                                              .retention_rounds = kept};
                for (uint32_t closed = 0; closed <= m.rounds; closed++) {
                    const uint32_t line = ct_retention_expired(&m, closed);
                    assert_int_equal(line, tried_out(&m, closed));
                    assert_true(closed == 0 || line >= ct_retention_expired(&m, closed - 1));
                    expired += line > 0;
                }
            }
        }
    }
    assert_true(expired > 1000);
}

static void all_is_kept_unless_told(void **state) {
    (void)state;
    const struct ct_manifest m = {.rounds = 1000000, .epoch_rounds = 1, .snapshot_rounds = 1};
    assert_int_equal(ct_retention_expired(&m, 1000000), 0);
}

/* With 16 rounds an epoch and 64 between snapshots, as by default. */
static void known_answers(void **state) {
    (void)state;
    const struct ct_manifest m = {
        .rounds = 1000, .epoch_rounds = 16, .snapshot_rounds = 64, .retention_rounds = 64};
    static const uint32_t answers[][2] = {{0, 0},     {64, 0},     {142, 0},
                                          {143, 64},  {206, 64},   {207, 128},
                                          {999, 896}, {1000, 896}, {1040, 896}};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        assert_int_equal(ct_retention_expired(&m, answers[i][0]), answers[i][1]);
    }
    /* A stranger's log may say anything. */
    const struct ct_manifest most = {.rounds = 1000000,
                                     .epoch_rounds = 65536,
                                     .snapshot_rounds = 1000000,
                                     .retention_rounds = 1000000};
    assert_int_equal(ct_retention_expired(&most, UINT32_MAX), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_formula_is_what_suffices),
        cmocka_unit_test(all_is_kept_unless_told),
        cmocka_unit_test(known_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
