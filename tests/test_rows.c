#include "row_operations.h"

#include <cotrain/isa.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct ct_ops definitions;
static struct ct_ops overlay;

static void overlays_equal_the_definitions(void **state) {
    (void)state;
    static struct result expected;
    static struct result got;
    for (int isa = CT_ISA_AVX2; isa <= CT_ISA_AVX512BF16; isa++) {
        if (ct_ops_install(&overlay, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (size_t op = 0; op < OPERATIONS; op++) {
            for (size_t l = 0; l < LENGTHS; l++) {
                run_in_mode(operations[op].run, &definitions, lengths[l], &expected);
                run_in_mode(operations[op].run, &overlay, lengths[l], &got);
                if (memcmp(&expected, &got, sizeof got) != 0) {
                    fail_msg("%s differs in %s, n = %zu", ct_isa_name((enum ct_isa)isa),
                             operations[op].name, lengths[l]);
                }
            }
        }
    }
}

/* E4 as written: 16 lanes, lane = index mod 16, folded 8, 4, 2, 1. Results go to memory. */
static void lane_sum(const float *x, const float *y, size_t n, float *out) {
    volatile float lane[16];
    for (int l = 0; l < 16; l++) {
        lane[l] = 0.0f;
    }
    for (size_t i = 0; i < n; i++) {
        lane[i % 16] = y == NULL ? lane[i % 16] + x[i] : fmaf(x[i], y[i], lane[i % 16]);
    }
    for (int width = 8; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] = lane[l] + lane[l + width];
        }
    }
    *out = lane[0];
}

static void sums_are_e4(void **state) {
    (void)state;
    for (size_t l = 0; l < LENGTHS; l++) {
        static struct result result;
        run_in_mode(run_sums, &definitions, lengths[l], &result);
        float expected[3];
        const struct ct_mode mode = ct_mode_enter();
        lane_sum(a, NULL, lengths[l], &expected[0]);
        lane_sum(wide, wide, lengths[l], &expected[1]);
        lane_sum(a, b, lengths[l], &expected[2]);
        ct_mode_leave(mode);
        assert_memory_equal(result.scalars, expected, sizeof expected);
    }
}

/* Tolerances below: binary32 steps against binary64, values of order 1, so some 2^-24 a step. */
static void expect_near(double got, double exact, double tolerance) {
    if (!(fabs(got - exact) <= tolerance)) {
        fail_msg("%.9g is not within %g of %.9g", got, tolerance, exact);
    }
}

static double gelu_exact(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

/* A value takes a lane's place only if it is greater: +0 and -0 are equal. */
static void first_zero_is_the_maximum(void **state) {
    (void)state;
    enum { N = 53 };
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        if (ct_ops_install(&overlay, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (int negative = 0; negative < 2; negative++) {
            float x[N];
            for (size_t i = 0; i < N; i++) {
                x[i] = (i < 16) == (negative != 0) ? -0.0f : 0.0f;
            }
            const float top = overlay.max(x, N);
            assert_true(top == 0.0f && (signbit(top) != 0) == (negative != 0));
        }
    }
}

static void gelu_is_gelu(void **state) {
    (void)state;
    static struct result result;
    run_in_mode(run_gelu, &definitions, LONGEST, &result);
    for (size_t i = 0; i < LONGEST; i++) {
        const double x = (double)a[i];
        expect_near((double)result.out[i], gelu_exact(x), 1e-6);
        const double slope = (gelu_exact(x + 1e-5) - gelu_exact(x - 1e-5)) / 2e-5;
        expect_near((double)result.second[i], slope * (double)b[i], 3e-6);
    }
}

static void gelu_at_its_ends(void **state) {
    (void)state;
    const float x[4] = {-1e10f, 1e10f, -0.0f, 50.0f};
    float y[4];
    const struct ct_mode mode = ct_mode_enter();
    definitions.gelu(y, x, 4);
    ct_mode_leave(mode);
    assert_true(y[0] == 0.0f && y[1] == 1e10f && y[2] == 0.0f && y[3] == 50.0f);
    const float dy[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const struct ct_mode again = ct_mode_enter();
    definitions.gelu_backward(y, dy, x, 4);
    ct_mode_leave(again);
    assert_true(y[0] == 0.0f && y[1] == 1.0f && y[2] == 0.5f && y[3] == 1.0f);
}

static double silu_exact(double x) {
    return x / (1 + exp(-x));
}

static void swiglu_is_swiglu(void **state) {
    (void)state;
    static float y[LONGEST], dgate[LONGEST], dup[LONGEST];
    const struct ct_mode mode = ct_mode_enter();
    definitions.swiglu(y, a, b, LONGEST);
    definitions.swiglu_backward(dgate, dup, c, a, b, LONGEST);
    ct_mode_leave(mode);
    for (size_t i = 0; i < LONGEST; i++) {
        const double gate = (double)a[i], up = (double)b[i], dy = (double)c[i];
        expect_near((double)y[i], silu_exact(gate) * up, 3e-6);
        const double slope = (silu_exact(gate + 1e-5) - silu_exact(gate - 1e-5)) / 2e-5;
        expect_near((double)dgate[i], dy * up * slope, 3e-6);
        expect_near((double)dup[i], dy * silu_exact(gate), 3e-6);
    }
}

static void swiglu_at_its_ends(void **state) {
    (void)state;
    const float gate[4] = {-1e10f, 1e10f, -0.0f, 50.0f};
    const float up[4] = {3.0f, 3.0f, 3.0f, 3.0f};
    float y[4], dgate[4], dup[4];
    const struct ct_mode mode = ct_mode_enter();
    definitions.swiglu(y, gate, up, 4);
    definitions.swiglu_backward(dgate, dup, up, gate, up, 4);
    ct_mode_leave(mode);
    assert_true(y[0] == 0.0f && y[1] == 3e10f && y[2] == 0.0f && y[3] == 150.0f);
    assert_true(dgate[0] == 0.0f && dgate[1] == 9.0f && dgate[2] == 4.5f && dgate[3] == 9.0f);
    assert_true(dup[0] == 0.0f && dup[1] == 3e10f && dup[2] == 0.0f && dup[3] == 150.0f);
}

/* Σ dy·rmsnorm(x) in binary64. */
static double rmsnorm_loss(const double *x, const float *gain, const float *dy, size_t n) {
    double mean_square = 0, loss = 0;
    for (size_t i = 0; i < n; i++) {
        mean_square += x[i] * x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        loss += (double)dy[i] * x[i] / sqrt(mean_square + 1e-5) * (double)gain[i];
    }
    return loss;
}

static void rmsnorm_is_rmsnorm(void **state) {
    (void)state;
    enum { N = 77 };
    double x[N], mean_square = 0;
    float y[N], dx[N];
    const float *dy = b + LONGEST;
    for (size_t i = 0; i < N; i++) {
        x[i] = (double)a[i];
        mean_square += x[i] * x[i] / N;
        dx[i] = 1.0f;
    }
    const struct ct_mode mode = ct_mode_enter();
    const float scale = definitions.rmsnorm(y, a, c, 1e-5f, N);
    definitions.rmsnorm_backward(dx, dy, a, scale, c, N);
    ct_mode_leave(mode);
    expect_near((double)scale, 1 / sqrt(mean_square + 1e-5), 1e-7);
    for (size_t i = 0; i < N; i++) {
        expect_near((double)y[i], x[i] / sqrt(mean_square + 1e-5) * (double)c[i], 1e-6);
        double slope = 0;
        for (int side = -1; side <= 1; side += 2) {
            x[i] = (double)a[i] + side * 1e-5;
            slope += side * rmsnorm_loss(x, c, dy, N) / 2e-5;
        }
        x[i] = (double)a[i];
        expect_near((double)dx[i], 1.0 + slope, 3e-6); /* added to what dx held */
    }
}

/* Complex numbers turned by their angles, and turned back. */
static void rope_turns_pairs(void **state) {
    (void)state;
    enum { HEADS = 3, HALF = 5 };
    float x[HEADS * 2 * HALF], cosine[HALF], sine[HALF];
    for (size_t i = 0; i < HALF; i++) {
        cosine[i] = cosf(b[i]);
        sine[i] = sinf(b[i]);
    }
    memcpy(x, a, sizeof x);
    const struct ct_mode mode = ct_mode_enter();
    definitions.rope(x, cosine, sine, HEADS, HALF);
    ct_mode_leave(mode);
    for (size_t head = 0; head < HEADS; head++) {
        for (size_t i = 0; i < HALF; i++) {
            const size_t first = head * 2 * HALF + i, second = first + HALF;
            const double angle = (double)b[i], re = (double)a[first], im = (double)a[second];
            expect_near((double)x[first], re * cos(angle) - im * sin(angle), 2e-6);
            expect_near((double)x[second], re * sin(angle) + im * cos(angle), 2e-6);
        }
    }
    const struct ct_mode again = ct_mode_enter();
    definitions.rope_backward(x, cosine, sine, HEADS, HALF);
    ct_mode_leave(again);
    for (size_t i = 0; i < HEADS * 2 * HALF; i++) {
        expect_near((double)x[i], (double)a[i], 4e-6);
    }
}

/* Binary64 layernorm of the row a with gain c, bias b. */
static void layernorm_exact(const double *x, size_t n, double epsilon, double *out) {
    double average = 0;
    double variance = 0;
    for (size_t i = 0; i < n; i++) {
        average += x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        variance += (x[i] - average) * (x[i] - average) / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (x[i] - average) / sqrt(variance + epsilon) * (double)c[i] + (double)b[i];
    }
}

static void layernorm_is_layernorm(void **state) {
    (void)state;
    enum { N = 77 };
    double x[N];
    double y[N];
    static struct result result;
    run_in_mode(run_layernorm, &definitions, N, &result);
    for (size_t i = 0; i < N; i++) {
        x[i] = (double)a[i];
    }
    layernorm_exact(x, N, 1e-5, y);
    for (size_t i = 0; i < N; i++) {
        expect_near((double)result.out[i], y[i], 3e-6);
    }
    /* The gradient of Σ wide·y against differences, added to what dx held. */
    float dx[N];
    const float *dy = b + LONGEST;
    for (size_t i = 0; i < N; i++) {
        dx[i] = 1.0f;
    }
    const struct ct_mode mode = ct_mode_enter();
    definitions.layernorm_backward(dx, dy, a, result.scalars[0], result.scalars[1], c, N);
    ct_mode_leave(mode);
    for (size_t i = 0; i < N; i++) {
        double slope = 0;
        for (int side = -1; side <= 1; side += 2) {
            x[i] = (double)a[i] + side * 1e-5;
            layernorm_exact(x, N, 1e-5, y);
            for (size_t j = 0; j < N; j++) {
                slope += side * y[j] * (double)dy[j] / 2e-5;
            }
        }
        x[i] = (double)a[i];
        expect_near((double)dx[i], 1.0 + slope, 5e-6);
    }
}

static void columns_are_chains_over_rows(void **state) {
    (void)state;
    enum { N = 19 };
    static struct result result;
    static struct result sums;
    run_in_mode(run_layernorm_columns, &definitions, N, &result);
    run_in_mode(run_column_sums, &definitions, N, &sums);
    static struct result rms;
    run_in_mode(run_rmsnorm_columns, &definitions, N, &rms);
    const struct ct_mode mode = ct_mode_enter();
    for (size_t i = 0; i < N; i++) {
        volatile float dgain = 0.0f;
        volatile float dbias = 0.0f;
        volatile float total = 0.0f;
        volatile float dgain_rms = 0.0f;
        for (size_t row = 0; row < ROWS; row++) {
            volatile float centred = b[row * LONGEST + i] - mean[row];
            volatile float normal = centred * rstd[row];
            dgain = fmaf(a[row * LONGEST + i], normal, dgain);
            dbias = dbias + a[row * LONGEST + i];
            total = total + wide[row * LONGEST + i];
            volatile float scaled = b[row * LONGEST + i] * rstd[row];
            dgain_rms = fmaf(a[row * LONGEST + i], scaled, dgain_rms);
        }
        assert_true(dgain == result.out[i] && dbias == result.second[i] && total == sums.out[i]);
        assert_true(dgain_rms == rms.out[i]);
    }
    ct_mode_leave(mode);
}

static void softmax_and_cross_entropy_are_themselves(void **state) {
    (void)state;
    enum { N = 300, TARGET = N / 2 };
    static struct result soft;
    static struct result cross;
    run_in_mode(run_attention, &definitions, N, &soft);
    run_in_mode(run_cross_entropy, &definitions, N, &cross);
    double top = -1e9;
    double scaled_sum = 0;
    double sum = 0;
    for (size_t i = 0; i < N; i++) {
        top = (double)a[i] > top ? (double)a[i] : top;
    }
    for (size_t i = 0; i < N; i++) {
        const double p = exp(((double)a[i] - top) * (double)0.17677669f);
        scaled_sum += p;
        sum += exp((double)a[i]);
        expect_near((double)soft.out[i], p, 1e-6);
        expect_near((double)soft.second[i], p * ((double)b[i] - 0.125) * (double)0.17677669f, 1e-6);
    }
    expect_near((double)soft.scalars[0], scaled_sum, 1e-6 * scaled_sum);
    expect_near((double)cross.scalars[0], log(sum) - (double)a[TARGET], 2e-6);
    assert_memory_equal(&cross.scalars[0], &cross.scalars[1], sizeof(float));
    for (size_t i = 0; i < N; i++) {
        const double p = exp((double)a[i]) / sum - (i == TARGET ? 1 : 0);
        expect_near((double)cross.out[i], p * 0x1p-9, 1e-6 * 0x1p-9);
    }
}

/* Operations that allow it give the same bits in place. */
static void in_place_is_the_same(void **state) {
    (void)state;
    enum { N = 131 };
    float x[N];
    float y[N];
    const struct ct_mode mode = ct_mode_enter();
    memcpy(x, a, sizeof x);
    const float apart = ct_ops.cross_entropy(y, x, 5, 0.5f, N);
    const float together = ct_ops.cross_entropy(x, x, 5, 0.5f, N);
    ct_mode_leave(mode);
    assert_true(apart == together);
    assert_memory_equal(x, y, sizeof x);
    const struct ct_mode again = ct_mode_enter();
    memcpy(x, a, sizeof x);
    ct_ops.gelu_backward(y, x, b, N);
    ct_ops.gelu_backward(x, x, b, N);
    ct_mode_leave(again);
    assert_memory_equal(x, y, sizeof x);
    float gate[N], up[N], dgate[N], dup[N];
    memcpy(x, a, sizeof x);
    memcpy(gate, b, sizeof gate);
    memcpy(up, c, sizeof up);
    const struct ct_mode third = ct_mode_enter();
    ct_ops.swiglu_backward(dgate, dup, x, gate, up, N);
    ct_ops.swiglu_backward(gate, x, x, gate, up, N);
    ct_mode_leave(third);
    assert_memory_equal(gate, dgate, sizeof gate);
    assert_memory_equal(x, dup, sizeof x);
    memcpy(gate, b, sizeof gate);
    const struct ct_mode fourth = ct_mode_enter();
    ct_ops.swiglu(y, gate, up, N);
    ct_ops.swiglu(up, gate, up, N);
    const float scale_apart = ct_ops.rmsnorm(dgate, a, c, 1e-5f, N);
    memcpy(x, a, sizeof x);
    const float scale_together = ct_ops.rmsnorm(x, x, c, 1e-5f, N);
    ct_mode_leave(fourth);
    assert_memory_equal(up, y, sizeof up);
    assert_true(scale_apart == scale_together);
    assert_memory_equal(x, dgate, sizeof x);
}

int main(void) {
    if (ct_isa_start() != CT_OK || ct_ops_install(&definitions, CT_ISA_SCALAR) != CT_OK) {
        print_error("%s\n", ct_err_detail());
        return 1;
    }
    fill();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlays_equal_the_definitions),
        cmocka_unit_test(sums_are_e4),
        cmocka_unit_test(first_zero_is_the_maximum),
        cmocka_unit_test(gelu_is_gelu),
        cmocka_unit_test(gelu_at_its_ends),
        cmocka_unit_test(swiglu_is_swiglu),
        cmocka_unit_test(swiglu_at_its_ends),
        cmocka_unit_test(layernorm_is_layernorm),
        cmocka_unit_test(rmsnorm_is_rmsnorm),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(columns_are_chains_over_rows),
        cmocka_unit_test(softmax_and_cross_entropy_are_themselves),
        cmocka_unit_test(in_place_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
