#include "kernels/functions.h"
#include "kernels/ops.h"

#include <cotrain/isa.h>
#include <cotrain/mode.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Distance of `got` from the exact value, in units of the last place that binary32 has there. */
static double ulp32(float got, double exact) {
    const double magnitude = fabs(exact) < 0x1p-126 ? 0x1p-126 : fabs(exact);
    return fabs((double)got - exact) / ldexp(1.0, ilogb(magnitude) - 23);
}

typedef float function32(float);
typedef double reference32(double);

/* Walks over all bit patterns between two values of one sign, in steps. */
static double worst32(function32 *function, reference32 *reference, float low, float high,
                      uint32_t step) {
    double worst = 0;
    float where = 0;
    for (uint32_t bits = ct_bits32(low); bits <= ct_bits32(high); bits += step) {
        const float x = ct_float32(bits);
        const struct ct_mode mode = ct_mode_enter();
        const float got = function(x);
        ct_mode_leave(mode);
        const double error = ulp32(got, reference((double)x));
        if (!(error <= worst)) {
            worst = error;
            where = x;
        }
    }
    print_message("%g..%g: %.3f ulp at %a\n", (double)low, (double)high, worst, (double)where);
    return worst;
}

#define FUNCTION32(name)                                                                           \
    static float name##32(float x) {                                                               \
        ct_ops.name(&x, &x, 1);                                                                    \
        return x;                                                                                  \
    }
FUNCTION32(exp)
FUNCTION32(log)
FUNCTION32(tanh)
FUNCTION32(erf)
FUNCTION32(sin)
FUNCTION32(cos)

static void exp_is_close(void **state) {
    (void)state;
    assert_true(worst32(exp32, exp, 0x1p-30f, 88.7f, 1009) < 1.1);
    assert_true(worst32(exp32, exp, -0x1p-30f, -87.3f, 1009) < 1.1);
}

static void exp_at_its_ends(void **state) {
    (void)state;
    const struct ct_mode mode = ct_mode_enter();
    const float zero = exp32(0.0f);
    const float below = exp32(-87.4f);
    const float far_below = exp32(-1e30f);
    const float above = exp32(88.8f);
    const float infinite = exp32(-INFINITY);
    const float nan = exp32(NAN);
    ct_mode_leave(mode);
    assert_int_equal(ct_bits32(zero), 0x3f800000);
    assert_int_equal(ct_bits32(below), 0);
    assert_int_equal(ct_bits32(far_below), 0);
    assert_int_equal(ct_bits32(above), 0x7f800000);
    assert_int_equal(ct_bits32(infinite), 0);
    assert_true(nan != nan);
}

static void log_is_close(void **state) {
    (void)state;
    assert_true(worst32(log32, log, 0x1p-126f, 0x1.fffffep+127f, 50021) < 1.0);
    assert_true(worst32(log32, log, 0.7f, 1.5f, 211) < 1.0);
}

static void log_at_its_ends(void **state) {
    (void)state;
    assert_int_equal(ct_bits32(log32(1.0f)), 0);
    assert_int_equal(ct_bits32(log32(0.0f)), 0xff800000);
    assert_int_equal(ct_bits32(log32(INFINITY)), 0x7f800000);
    assert_true(log32(-1.0f) != log32(-1.0f));
    assert_true(log32(NAN) != log32(NAN));
}

static void tanh_is_close(void **state) {
    (void)state;
    assert_true(worst32(tanh32, tanh, 0x1p-100f, 20.0f, 10007) < 1.7);
    assert_true(worst32(tanh32, tanh, -0x1p-3f, -20.0f, 1009) < 1.7);
    assert_int_equal(ct_bits32(tanh32(-0.0f)), 0x80000000);
}

static void erf_is_close(void **state) {
    (void)state;
    assert_true(worst32(erf32, erf, 0x1p-100f, 20.0f, 10007) < 1.7);
    assert_true(worst32(erf32, erf, -0x1p-3f, -20.0f, 1009) < 1.7);
    assert_int_equal(ct_bits32(erf32(-0.0f)), 0x80000000);
}

static void sine_and_cosine_are_close(void **state) {
    (void)state;
    assert_true(worst32(sin32, sin, 0x1p-60f, 0x1p+17f, 10007) < 1.6);
    assert_true(worst32(cos32, cos, 0x1p-60f, 0x1p+17f, 10007) < 1.6);
    assert_true(worst32(sin32, sin, -0x1p-3f, -100.0f, 1009) < 1.6);
    assert_true(worst32(cos32, cos, -0x1p-3f, -100.0f, 1009) < 1.6);
}

/* The bits are the contract: a change of any step of any function shows here. */
static void bits_are_golden(void **state) {
    (void)state;
    uint32_t digest32 = 0;
    const struct ct_mode mode = ct_mode_enter();
    for (int i = 0; i < 4000; i++) {
        const float x = (float)(i - 2000) * 0x1.0aaaaap-6f;
        const float results[] = {exp32(x), log32(x + 32.0f), tanh32(x),
                                 erf32(x), sin32(x),         cos32(x)};
        for (size_t f = 0; f < sizeof results / sizeof results[0]; f++) {
            digest32 = digest32 * 0x01000193u ^ ct_bits32(results[f]);
        }
    }
    ct_mode_leave(mode);
    assert_int_equal(digest32, 0x7038b240);
}

int main(void) {
    if (ct_isa_start() != CT_OK) {
        print_error("%s\n", ct_err_detail());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_close),
        cmocka_unit_test(exp_at_its_ends),
        cmocka_unit_test(log_is_close),
        cmocka_unit_test(log_at_its_ends),
        cmocka_unit_test(tanh_is_close),
        cmocka_unit_test(erf_is_close),
        cmocka_unit_test(sine_and_cosine_are_close),
        cmocka_unit_test(bits_are_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
