#include "kernels/binary64.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void logarithm_is_close_to_the_library(void **state) {
    (void)state;
    assert_true(ct_log64(1.0) == 0.0);
    for (int i = 1; i < 200000; i++) {
        const double near_one = 0.5 + (double)i / 100000.0;
        const double small = ldexp(1.0 + i / 200000.0, -(i % 700));
        const double xs[] = {near_one, small};
        for (int j = 0; j < 2; j++) {
            const double expected = log(xs[j]);
            assert_true(fabs(ct_log64(xs[j]) - expected) <= 0x1p-51 * fabs(expected));
        }
    }
}

static void exponential_is_close_to_the_library(void **state) {
    (void)state;
    assert_true(ct_exp64(0.0) == 1.0);
    for (int i = -200000; i <= 200000; i++) {
        const double xs[] = {i / 300.0, i / 285714.0, i * 0.0035};
        for (int j = 0; j < 3; j++) {
            const double expected = exp(xs[j]);
            assert_true(fabs(ct_exp64(xs[j]) - expected) <= 0x1p-51 * expected);
        }
    }
}

static void cosine_and_sine_are_close_to_the_library(void **state) {
    (void)state;
    assert_true(ct_cos64(0.0) == 1.0);
    assert_true(ct_sin64(0.0) == 0.0);
    for (int i = -200000; i < 200000; i++) {
        const double xs[] = {i / 200.0, i / 30000.0, i * 0.32767};
        for (int j = 0; j < 3; j++) {
            assert_true(fabs(ct_cos64(xs[j]) - cos(xs[j])) <= 0x1p-51);
            assert_true(fabs(ct_sin64(xs[j]) - sin(xs[j])) <= 0x1p-51);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logarithm_is_close_to_the_library),
        cmocka_unit_test(exponential_is_close_to_the_library),
        cmocka_unit_test(cosine_and_sine_are_close_to_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
