#include "kernels/soft_float.h"
#include "threshold.h"

#include <cotrain/mode.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The software operations against the hardware's, which follows E1 here: on arguments at the flush
 * threshold and of every other kind. COTRAIN_SOFT_FLOAT_MILLIONS=500 tries that many of each. */
enum { BATCH = 4096 };

static struct threshold_triple triples[BATCH];
static double wide[BATCH];

/* Results that count for coverage: flushed ones, and those in the window, which become ±2^-126
 * though the exact value is below. */
static uint64_t flushed, saved, tried;

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* In functions of their own and by pointer, so that nothing is computed at compile time or moved
 * out of the mode. */
#define FUSED __attribute__((target("fma")))
static float hard_mul(const struct threshold_triple *t) {
    return t->a * t->b;
}
FUSED static float hard_fma(const struct threshold_triple *t) {
    return __builtin_fmaf(t->a, t->b, t->c);
}
static float soft_mul(const struct threshold_triple *t) {
    return ct_soft_mul(t->a, t->b);
}
static float soft_fma(const struct threshold_triple *t) {
    return ct_soft_fma(t->a, t->b, t->c);
}
typedef float triple_fn(const struct threshold_triple *);

static float hard_narrow(const double *x) {
    return (float)*x;
}
static float soft_narrow(const double *x) {
    return ct_soft_narrow(*x);
}

static uint64_t batches(void) {
    const char *millions = getenv("COTRAIN_SOFT_FLOAT_MILLIONS");
    const double count = millions != NULL ? strtod(millions, NULL) * 1e6 : 1e6;
    return (uint64_t)(count / BATCH) + 1;
}

static void count(float result, double exact) {
    tried++;
    flushed += result == 0.0f && exact != 0.0 ? 1u : 0u;
    saved += fabsf(result) == 0x1p-126f && fabs(exact) < 0x1p-126 ? 1u : 0u;
}

static void expect_same(float got, float expected, const char *name, double a, double b, double c) {
    if (bits_of(got) != bits_of(expected) && !(isnan(got) && isnan(expected))) {
        fail_msg("%s(%a, %a, %a) is %a in hardware, %a in software", name, a, b, c,
                 (double)expected, (double)got);
    }
}

static void run_triples(triple_fn *const *hard, triple_fn *const *soft, const char *name,
                        double with_c) {
    uint64_t random = 1;
    flushed = saved = tried = 0;
    for (uint64_t batch = batches(); batch-- > 0;) {
        static float expected[BATCH], got[BATCH];
        for (size_t i = 0; i < BATCH; i++) {
            triples[i] = threshold_triple(&random);
        }
        const struct ct_mode mode = ct_mode_enter();
        for (size_t i = 0; i < BATCH; i++) {
            expected[i] = (*hard)(&triples[i]);
        }
        /* Half of the software runs in the mode of E1, half outside: it must not matter. */
        for (size_t i = 0; i < BATCH / 2; i++) {
            got[i] = (*soft)(&triples[i]);
        }
        ct_mode_leave(mode);
        for (size_t i = BATCH / 2; i < BATCH; i++) {
            got[i] = (*soft)(&triples[i]);
        }
        for (size_t i = 0; i < BATCH; i++) {
            const struct threshold_triple *t = &triples[i];
            const double exact = (double)t->a * (double)t->b + with_c * (double)t->c;
            count(expected[i], exact);
            expect_same(got[i], expected[i], name, (double)t->a, (double)t->b, (double)t->c);
        }
    }
    print_message("%s: %llu tried, %llu flushed, %llu in the window\n", name,
                  (unsigned long long)tried, (unsigned long long)flushed,
                  (unsigned long long)saved);
    assert_true(saved > tried / 100 && flushed > tried / 100);
}

static void products_equal_the_hardware(void **state) {
    (void)state;
    triple_fn *volatile hard = hard_mul;
    triple_fn *volatile soft = soft_mul;
    run_triples((triple_fn *const *)&hard, (triple_fn *const *)&soft, "mul", 0.0);
}

static void fused_sums_equal_the_hardware(void **state) {
    (void)state;
    triple_fn *volatile hard = hard_fma;
    triple_fn *volatile soft = soft_fma;
    run_triples((triple_fn *const *)&hard, (triple_fn *const *)&soft, "fma", 1.0);
}

static void narrowing_equals_the_hardware(void **state) {
    (void)state;
    float (*volatile hard)(const double *) = hard_narrow;
    uint64_t random = 2;
    flushed = saved = tried = 0;
    for (uint64_t batch = batches(); batch-- > 0;) {
        static float expected[BATCH], got[BATCH];
        for (size_t i = 0; i < BATCH; i++) {
            wide[i] = threshold_double(&random);
        }
        const struct ct_mode mode = ct_mode_enter();
        for (size_t i = 0; i < BATCH; i++) {
            expected[i] = hard(&wide[i]);
        }
        ct_mode_leave(mode);
        for (size_t i = 0; i < BATCH; i++) {
            got[i] = soft_narrow(&wide[i]);
            count(expected[i], wide[i]);
            expect_same(got[i], expected[i], "narrow", wide[i], 0.0, 0.0);
        }
    }
    print_message("narrow: %llu tried, %llu flushed, %llu in the window\n",
                  (unsigned long long)tried, (unsigned long long)flushed,
                  (unsigned long long)saved);
    assert_true(saved > tried / 100 && flushed > tried / 100);
}

/* Sums whose binary64 result is a tie of 24 bits that the lost part breaks, or the window's edge.
 */
static void the_lost_part_decides(void **state) {
    (void)state;
    assert_int_equal(bits_of(ct_soft_fma(-0x1p-70f, 0x1p-81f, 0x1p-126f)), 0x00800000);
    assert_int_equal(bits_of(ct_soft_fma(-0x1.000002p-70f, 0x1p-81f, 0x1p-126f)), 0);
    assert_int_equal(bits_of(ct_soft_fma(0x1.000002p-70f, 0x1p-81f, -0x1p-126f)), 0x80000000);
    assert_int_equal(bits_of(ct_soft_fma(0x1p-24f, 0x1p+0f, 1.0f)), 0x3f800000);
    assert_int_equal(bits_of(ct_soft_fma(0x1.000002p-24f, 0x1.000002p+0f, 1.0f)), 0x3f800001);
    /* 1 + 2^-23 + 2^-24·(1 − 2^-46): binary64 alone sees a tie, which goes up. */
    assert_int_equal(bits_of(ct_soft_fma(0x1.000002p-12f, 0x1.fffffcp-13f, 0x1.000002p+0f)),
                     0x3f800001);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_the_hardware),
        cmocka_unit_test(fused_sums_equal_the_hardware),
        cmocka_unit_test(narrowing_equals_the_hardware),
        cmocka_unit_test(the_lost_part_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
