#include "kernels/matmul.h"

#include <cotrain/isa.h>
#include <cotrain/mode.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Rounding by cases, in integers: the value's neighbours in bf16 and the distance to them. */
static uint16_t round_by_cases(uint32_t bits) {
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    if (magnitude < 0x00800000u) {
        return sign;
    }
    const uint32_t below = magnitude >> 16;
    const uint32_t rest = magnitude & 0xffffu;
    const bool up = rest > 0x8000u || (rest == 0x8000u && below % 2 != 0);
    return (uint16_t)(sign | (below + (up ? 1u : 0u)));
}

enum { BATCH = 4096 };

static void expect_conversion(const struct ct_ops *ops, const uint32_t *bits, size_t n) {
    float x[BATCH];
    uint16_t half[BATCH];
    memcpy(x, bits, n * sizeof x[0]);
    const struct ct_mode mode = ct_mode_enter();
    ops->bf16_from(half, x, n);
    ct_mode_leave(mode);
    for (size_t i = 0; i < n; i++) {
        if (half[i] != round_by_cases(bits[i])) {
            fail_msg("%08x became %04x, not %04x", bits[i], half[i], round_by_cases(bits[i]));
        }
    }
}

typedef void each_isa(const struct ct_ops *ops);

static void for_each_isa(each_isa *check) {
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        check(&ops);
    }
}

/* Every upper half with the lower halves around its ties, NaN and infinities among them. */
static void expect_all_ties(const struct ct_ops *ops) {
    static const uint32_t lower[8] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 0x4000};
    uint32_t bits[BATCH];
    for (uint32_t upper = 0; upper < 0x10000; upper += BATCH / 8) {
        for (uint32_t i = 0; i < BATCH; i++) {
            bits[i] = (upper + i / 8) << 16 | lower[i % 8];
        }
        expect_conversion(ops, bits, BATCH);
    }
}

static void conversion_rounds_to_nearest_even(void **state) {
    (void)state;
    for_each_isa(expect_all_ties);
}

static void expect_tails(const struct ct_ops *ops) {
    uint32_t bits[70];
    for (uint32_t i = 0; i < 70; i++) {
        bits[i] = 0x3f7f8000u + i * 0x00010001u;
    }
    for (size_t n = 0; n <= 70; n++) {
        expect_conversion(ops, bits, n);
    }
}

static void conversion_has_no_seams(void **state) {
    (void)state;
    for_each_isa(expect_tails);
}

static void expect_all_widened(const struct ct_ops *ops) {
    uint16_t half[BATCH];
    float x[BATCH];
    for (uint32_t first = 0; first < 0x10000; first += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++) {
            half[i] = (uint16_t)(first + i);
        }
        ops->bf16_to(x, half, BATCH);
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t bits;
            memcpy(&bits, &x[i], sizeof bits);
            assert_int_equal(bits, (first + i) << 16);
        }
    }
}

static void widening_is_exact(void **state) {
    (void)state;
    for_each_isa(expect_all_widened);
}

/* One output, one chain, from c: returns its bits. */
static uint32_t chain(const struct ct_ops *ops, float c, const uint16_t *a, const uint16_t *b,
                      size_t k) {
    const struct ct_matmul job = {.form = CT_NT,
                                  .m = 1,
                                  .n = 1,
                                  .k = k,
                                  .a = a,
                                  .lda = k,
                                  .b = b,
                                  .ldb = k,
                                  .c = &c,
                                  .ldc = 1,
                                  .resume = true};
    const struct ct_mode mode = ct_mode_enter();
    ct_matmul_alone(ops->matmul_bf16, &job);
    ct_mode_leave(mode);
    uint32_t bits;
    memcpy(&bits, &c, sizeof bits);
    return bits;
}

/* bf16: 1 = 3f80, 2^-24 = 3380, −1 = bf80, 2^-126 = 0080, 0.5 = 3f00. */
static void expect_pair_order(const struct ct_ops *ops) {
    const uint16_t ones[4] = {0x3f80, 0x3f80, 0x3f80, 0x3f80};
    /* −2, then odd 2^-24 (lost), then even 1: −1. Even first: −1 + 2^-24, which is kept. */
    const uint16_t small_odd[2] = {0x3f80, 0x3380};
    assert_int_equal(chain(ops, -2.0f, small_odd, ones, 2), 0xbf800000);
    /* −2, then odd 1, then even 2^-24: kept. */
    const uint16_t small_even[2] = {0x3380, 0x3f80};
    assert_int_equal(chain(ops, -2.0f, small_even, ones, 2), 0xbf7fffff);
    /* A missing partner is the odd one: element 2 alone, after the pair. */
    const uint16_t three[3] = {0x3380, 0x3f80, 0x3f80};
    assert_int_equal(chain(ops, -2.0f, three, ones, 3), 0x33800000);
    /* Pairs ascend: the first pair is done before the second begins. */
    const uint16_t four[4] = {0x0000, 0x3380, 0x0000, 0x3f80};
    assert_int_equal(chain(ops, -2.0f, four, ones, 4), 0xbf800000);
}

static void pairs_go_odd_before_even(void **state) {
    (void)state;
    for_each_isa(expect_pair_order);
}

static void expect_zero_signs_and_flushing(const struct ct_ops *ops) {
    const uint16_t ones[2] = {0x3f80, 0x3f80};
    const uint16_t minus_zeros[2] = {0x8000, 0x8000};
    /* Every chain ends with + (+0.0). */
    assert_int_equal(chain(ops, -0.0f, minus_zeros, ones, 2), 0);
    assert_int_equal(chain(ops, -0.0f, minus_zeros, ones, 1), 0);
    assert_int_equal(chain(ops, -0.0f, minus_zeros, ones, 0), 0);
    /* 2^-126 − 2^-127 flushes after the odd step; the even one adds 2^-126 to zero. */
    const uint16_t a[2] = {0x0080, 0x8080};
    const uint16_t b[2] = {0x3f80, 0x3f00};
    assert_int_equal(chain(ops, 0x1p-126f, a, b, 2), 0x00800000);
    /* A subnormal operand counts as zero. */
    const uint16_t subnormal[2] = {0x007f, 0x0001};
    const uint16_t large[2] = {0x7f00, 0x7f00};
    assert_int_equal(chain(ops, 1.0f, subnormal, large, 2), 0x3f800000);
    /* Products are not rounded: (1 + 2^-7)² − (1 + 2^-6) = 2^-14. */
    const uint16_t square[2] = {0x3f81, 0x0000};
    assert_int_equal(chain(ops, -(1.0f + 0x1p-6f), square, square, 2), 0x38800000);
}

static void zeros_and_small_values_hold(void **state) {
    (void)state;
    for_each_isa(expect_zero_signs_and_flushing);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversion_rounds_to_nearest_even),
        cmocka_unit_test(conversion_has_no_seams),
        cmocka_unit_test(widening_is_exact),
        cmocka_unit_test(pairs_go_odd_before_even),
        cmocka_unit_test(zeros_and_small_values_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
