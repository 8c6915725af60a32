/* What a profile counts. */
#include "kernels/ops.h"

#include <cotrain/isa.h>
#include <cotrain/mode.h>
#include <cotrain/profile.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t now_ns;

static uint64_t clock_ns(void) {
    now_ns += 1000000000;
    return now_ns;
}

/* 2 for every element that is wanted and every step of its chain that is no promised zero. */
static double count(const struct ct_matmul *job) {
    double sum = 0.0;
    for (size_t i = 0; i < job->m; i++) {
        const ptrdiff_t diagonal = (ptrdiff_t)i + job->diagonal;
        for (size_t j = 0; j < job->n; j++) {
            for (size_t p = 0; p < job->k; p++) {
                const bool zero = (job->skip == CT_SKIP_UPPER_C && (ptrdiff_t)j > diagonal) ||
                                  (job->skip == CT_SKIP_LATE && (ptrdiff_t)p > diagonal) ||
                                  (job->skip == CT_SKIP_EARLY && (ptrdiff_t)p < diagonal);
                sum += zero ? 0.0 : 2.0;
            }
        }
    }
    return sum;
}

static struct ct_profile profile(const struct ct_matmul *job) {
    ct_profile_start(clock_ns);
    const struct ct_mode mode = ct_mode_enter();
    ct_matmul(CT_NUMERICS_FP32_1, job);
    ct_mode_leave(mode);
    return ct_profile_stop();
}

static void operations_are_those_not_skipped(void **state) {
    (void)state;
    enum { MOST = 9 };
    float a[MOST * MOST] = {0}, b[MOST * MOST] = {0}, c[MOST * MOST];
    static const enum ct_skip skips[] = {CT_SKIP_NONE, CT_SKIP_UPPER_C, CT_SKIP_LATE,
                                         CT_SKIP_EARLY};
    for (size_t skip = 0; skip < 4; skip++) {
        for (ptrdiff_t diagonal = -12; diagonal <= 12; diagonal++) {
            for (size_t shape = 0; shape < 27; shape++) {
                const struct ct_matmul job = {
                    .m = 1 + shape % 3 * 4,
                    .n = 1 + shape / 3 % 3 * 4,
                    .k = 1 + shape / 9 * 4,
                    .a = a,
                    .lda = MOST,
                    .b = b,
                    .ldb = MOST,
                    .c = c,
                    .ldc = MOST,
                    .skip = skips[skip],
                    .diagonal = diagonal,
                    .threads = 1,
                };
                const struct ct_profile found = profile(&job);
                assert_true(found.matmul_operations == count(&job));
                assert_float_equal(found.matmul_s, 1.0, 1e-6);
            }
        }
    }
}

static void products_add_up_from_each_start(void **state) {
    (void)state;
    static float a[64 * 64], b[64 * 64], c[64 * 64];
    const struct ct_matmul job = {.form = CT_NT,
                                  .m = 64,
                                  .n = 64,
                                  .k = 64,
                                  .a = a,
                                  .lda = 64,
                                  .b = b,
                                  .ldb = 64,
                                  .c = c,
                                  .ldc = 64,
                                  .threads = 1};
    ct_profile_start(clock_ns);
    const struct ct_mode mode = ct_mode_enter();
    ct_matmul(CT_NUMERICS_FP32_1, &job);
    ct_matmul(CT_NUMERICS_FP32_1, &job);
    ct_mode_leave(mode);
    struct ct_profile found = ct_profile_stop();
    assert_true(found.matmul_operations == 4.0 * 64 * 64 * 64);
    assert_float_equal(found.matmul_s, 2.0, 1e-6);
    ct_profile_start(clock_ns);
    found = ct_profile_stop();
    assert_true(found.matmul_operations == 0.0 && found.matmul_s == 0.0);
}

int main(void) {
    if (ct_isa_start() != CT_OK) {
        print_error("%s\n", ct_err_detail());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_are_those_not_skipped),
        cmocka_unit_test(products_add_up_from_each_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
