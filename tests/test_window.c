#include <cotrain/window.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ct_hash make_seed(uint8_t first) {
    struct ct_hash seed;
    for (size_t i = 0; i < sizeof seed.bytes; i++) {
        seed.bytes[i] = (uint8_t)(first + i);
    }
    return seed;
}

/* Token i is i mod 65536, so a window's content tells where it started. */
static uint16_t *make_tokens(uint64_t count) {
    uint16_t *tokens = malloc(count * sizeof tokens[0]);
    assert_non_null(tokens);
    for (uint64_t i = 0; i < count; i++) {
        tokens[i] = (uint16_t)i;
    }
    return tokens;
}

static void pass_visits_every_window_once(void **state) {
    (void)state;
    struct ct_hash seed = make_seed(1);
    static const struct {
        uint64_t tokens;
        uint32_t context;
        uint64_t windows;
    } cases[] = {{3, 1, 2},   {12, 4, 2},  {15, 4, 2},     {16, 4, 3},
                 {68, 4, 16}, {72, 4, 17}, {5003, 7, 713}, {60000, 64, 936}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        uint16_t *tokens = make_tokens(cases[c].tokens);
        struct ct_windows windows;
        assert_int_equal(
            ct_windows_init(&windows, &seed, tokens, cases[c].tokens, cases[c].context), CT_OK);
        assert_int_equal(windows.count, cases[c].windows);
        uint8_t *targets = malloc(cases[c].tokens);
        assert_non_null(targets);
        uint64_t first_offset = 0;
        bool offsets_differ = false;
        for (uint64_t pass = 0; pass < 9; pass++) {
            memset(targets, 0, cases[c].tokens);
            uint64_t offset = UINT64_MAX;
            for (uint64_t i = 0; i < windows.count; i++) {
                uint64_t start = ct_window_start(&windows, pass * windows.count + i);
                assert_true(start + cases[c].context + 1 <= cases[c].tokens);
                offset = start % cases[c].context;
                for (uint64_t t = start + 1; t <= start + cases[c].context; t++) {
                    assert_int_equal(targets[t]++, 0);
                }
            }
            first_offset = pass == 0 ? offset : first_offset;
            offsets_differ = offsets_differ || offset != first_offset;
        }
        assert_true(offsets_differ || cases[c].context == 1);
        free(targets);
        free(tokens);
    }
}

static void passes_and_seeds_give_other_orders(void **state) {
    (void)state;
    uint16_t *tokens = make_tokens(20000);
    struct ct_hash seeds[] = {make_seed(1), make_seed(2)};
    struct ct_windows a, b;
    assert_int_equal(ct_windows_init(&a, &seeds[0], tokens, 20000, 16), CT_OK);
    assert_int_equal(ct_windows_init(&b, &seeds[1], tokens, 20000, 16), CT_OK);
    unsigned same_pass = 0, same_seed = 0, in_order = 0;
    for (uint64_t i = 0; i < a.count; i++) {
        uint64_t window = ct_window_start(&a, i) / 16;
        same_pass += window == ct_window_start(&a, a.count + i) / 16;
        same_seed += window == ct_window_start(&b, i) / 16;
        in_order += window == i;
    }
    /* A random permutation has one fixed point on average; 12 has a chance below
     * 1e-9. */
    assert_true(same_pass < 12 && same_seed < 12 && in_order < 12);
    free(tokens);
}

static void reading_gives_the_tokens_at_the_start(void **state) {
    (void)state;
    struct ct_hash seed = make_seed(7);
    uint16_t *tokens = make_tokens(1000);
    struct ct_windows windows;
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 1000, 10), CT_OK);
    uint32_t out[5][11];
    uint64_t position = windows.count - 2; /* across the end of the pass */
    ct_windows_read(&windows, position, 5, &out[0][0]);
    for (uint64_t i = 0; i < 5; i++) {
        for (uint64_t j = 0; j < 11; j++) {
            assert_int_equal(out[i][j], ct_window_start(&windows, position + i) + j);
        }
    }
    free(tokens);
}

/* From an independent writing of window.c's rules, with Philox checked against
 * Random123's zero vector. */
static void starts_are_golden(void **state) {
    (void)state;
    struct ct_hash seed = make_seed(1);
    static const uint64_t positions[] = {0, 1, 2, 712, 713, 714, 1426, 713 * 1000 + 5};
    static const uint64_t starts[] = {2694, 510, 2470, 1042, 2895, 228, 1507, 4808};
    uint16_t *tokens = make_tokens(1500000);
    struct ct_windows windows;
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 5003, 7), CT_OK);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        assert_int_equal(ct_window_start(&windows, positions[i]), starts[i]);
    }
    static const uint64_t far_positions[] = {0, 1, 23435, 23436, 1000000000};
    static const uint64_t far_starts[] = {1260983, 1239671, 109559, 980202, 1345742};
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 1500000, 64), CT_OK);
    for (size_t i = 0; i < sizeof far_starts / sizeof far_starts[0]; i++) {
        assert_int_equal(ct_window_start(&windows, far_positions[i]), far_starts[i]);
    }
    free(tokens);
}

static void short_data_is_refused(void **state) {
    (void)state;
    struct ct_hash seed = make_seed(1);
    uint16_t tokens[12] = {0};
    struct ct_windows windows;
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 11, 4), CT_ERR_CONFIG);
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 0, 4), CT_ERR_CONFIG);
    assert_int_equal(ct_windows_init(&windows, &seed, tokens, 12, 4), CT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_visits_every_window_once),
        cmocka_unit_test(passes_and_seeds_give_other_orders),
        cmocka_unit_test(reading_gives_the_tokens_at_the_start),
        cmocka_unit_test(starts_are_golden),
        cmocka_unit_test(short_data_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
