#include <cotrain/isa.h>
#include <cotrain/mode.h>
#include <cotrain/optimizer.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "every_isa.h"
#include "shapes.h"

/* Small, with tensors longer than a block and none a multiple of 16. */
static const struct ct_model_shape shape = GPT2_SHAPE(301, 7, 1, 3, 21);

struct fixture {
    struct ct_layout layout;
    struct ct_train_state state, expected;
    float *gradient;
};

static uint32_t random_bits(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Magnitudes from far below the flush threshold's neighbourhood to large. */
static float random_value(uint32_t *state) {
    const float unit = (float)random_bits(state) * 0x1p-24f - 0.5f;
    return ldexpf(unit, (int)(random_bits(state) % 40u) - 38);
}

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(ct_layout_init(&f->layout, &shape), CT_OK);
    assert_int_equal(ct_train_state_init(&f->state, &f->layout, true), CT_OK);
    assert_int_equal(ct_train_state_init(&f->expected, &f->layout, false), CT_OK);
    f->gradient = calloc(f->layout.parameters, sizeof(float));
    assert_non_null(f->gradient);
    uint32_t seed = 1;
    for (size_t i = 0; i < f->layout.parameters; i++) {
        f->state.theta[i] = f->expected.theta[i] = random_value(&seed);
    }
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    ct_train_state_deinit(&f->state);
    ct_train_state_deinit(&f->expected);
    ct_layout_deinit(&f->layout);
    free(f->gradient);
    free(f);
    return 0;
}

/* E4 and E10 as they are written. */
static double expected_norm(const struct ct_layout *layout, const float *gradient) {
    double total = 0;
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const struct ct_tensor *tensor = &layout->tensors[t];
        const size_t count = (size_t)tensor->rows * tensor->columns;
        for (size_t start = 0; start < count; start += 4096) {
            float lanes[16] = {0};
            for (size_t i = start; i < count && i < start + 4096; i++) {
                const float x = gradient[tensor->offset + i];
                lanes[(i - start) % 16] = fmaf(x, x, lanes[(i - start) % 16]);
            }
            for (int half = 8; half > 0; half /= 2) {
                for (int i = 0; i < half; i++) {
                    lanes[i] = lanes[i] + lanes[i + half];
                }
            }
            total = total + (double)lanes[0];
        }
    }
    return sqrt(total);
}

static void expected_step(const struct ct_layout *layout, struct ct_train_state *s,
                          const float *gradient, float lr) {
    const double norm = expected_norm(layout, gradient);
    const float c = norm > 1.0 ? (float)(1.0 / norm) : 1.0f;
    s->step++;
    double power1 = 1.0, power2 = 1.0;
    for (uint32_t i = 0; i < s->step; i++) {
        power1 *= (double)0.9f;
        power2 *= (double)0.95f;
    }
    const float b1 = (float)(1.0 / (1.0 - power1)), b2 = (float)(1.0 / (1.0 - power2));
    const float minus_lr_decay = -lr * 0.1f;
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const struct ct_tensor *tensor = &layout->tensors[t];
        const size_t end = tensor->offset + (size_t)tensor->rows * tensor->columns;
        for (size_t i = tensor->offset; i < end; i++) {
            const float q = gradient[i] * c;
            const float scaled = 0.1f * q;
            s->m[i] = fmaf(0.9f, s->m[i], scaled);
            const float half = 0.05f * q;
            const float square = half * q;
            s->v[i] = fmaf(0.95f, s->v[i], square);
            const float top = s->m[i] * b1;
            const float root = sqrtf(s->v[i] * b2);
            const float u = top / (root + 1e-8f);
            float base = s->theta[i];
            if (tensor->kind != CT_TENSOR_VECTOR) {
                base = fmaf(minus_lr_decay, base, base);
            }
            s->theta[i] = fmaf(-lr, u, base);
        }
    }
}

static void assert_same(const struct fixture *f) {
    const size_t bytes = f->layout.parameters * sizeof(float);
    assert_memory_equal(f->state.theta, f->expected.theta, bytes);
    assert_memory_equal(f->state.m, f->expected.m, bytes);
    assert_memory_equal(f->state.v, f->expected.v, bytes);
    assert_int_equal(f->state.step, f->expected.step);
}

static void steps_equal_the_definition(void **state) {
    struct fixture *f = *state;
    const struct ct_adamw adamw = ct_adamw_default();
    uint32_t seed = 7;
    for (uint32_t step = 0; step < 12; step++) {
        for (size_t i = 0; i < f->layout.parameters; i++) {
            /* the first steps below the clip, the later ones above it */
            f->gradient[i] = random_value(&seed) * (step < 6 ? 0x1p-12f : 1.0f);
        }
        f->gradient[3] = 0x1p-126f;
        f->gradient[4] = -0.0f;
        f->state.threads = step % 3 + 1;
        const struct ct_adamw_report report =
            ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, 1.0f, 1e-3f);
        const struct ct_mode mode = ct_mode_enter();
        const double norm = expected_norm(&f->layout, f->gradient);
        expected_step(&f->layout, &f->expected, f->gradient, 1e-3f);
        ct_mode_leave(mode);
        assert_true(report.applied);
        assert_memory_equal(&report.gradient_norm, &norm, sizeof norm);
        assert_int_equal(norm > 1.0, step >= 6);
        assert_same(f);
    }
}

static void a_step_that_is_not_finite_changes_nothing(void **state) {
    struct fixture *f = *state;
    const struct ct_adamw adamw = ct_adamw_default();
    const float bad[] = {INFINITY, -INFINITY, NAN, 1e30f};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f->gradient[5] = bad[i]; /* the square of 1e30 is not finite */
        const struct ct_adamw_report report =
            ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, 1.0f, 1e-3f);
        assert_false(report.applied);
        assert_same(f);
    }
    f->gradient[5] = 0.0f;
    assert_false(ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, NAN, 1.0f).applied);
    assert_false(ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, INFINITY, 1.0f).applied);
    assert_same(f);
}

static void gains_and_biases_do_not_decay(void **state) {
    struct fixture *f = *state;
    const struct ct_adamw adamw = ct_adamw_default();
    for (size_t i = 0; i < f->layout.parameters; i++) {
        f->state.theta[i] = 1.0f;
    }
    assert_true(ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, 0.0f, 0.5f).applied);
    for (uint32_t t = 0; t < f->layout.tensor_count; t++) {
        const struct ct_tensor *tensor = &f->layout.tensors[t];
        const float decayed = fmaf(-0.5f * 0.1f, 1.0f, 1.0f);
        assert_true(f->state.theta[tensor->offset] ==
                    (tensor->kind == CT_TENSOR_VECTOR ? 1.0f : decayed));
    }
}

static void a_reset_keeps_theta_alone(void **state) {
    struct fixture *f = *state;
    const struct ct_adamw adamw = ct_adamw_default();
    f->gradient[0] = 0.25f;
    f->state.e[1] = 2.0f;
    assert_true(ct_adamw_step(&adamw, &f->layout, &f->state, f->gradient, 0.0f, 0.5f).applied);
    memcpy(f->expected.theta, f->state.theta, f->layout.parameters * sizeof(float));
    ct_train_state_reset(&f->state, &f->layout);
    assert_same(f);
    assert_true(f->state.e[1] == 0.0f);
}

static void rate_warms_up_and_ends_at_the_floor(void **state) {
    (void)state;
    float rates[100];
    ct_rate_table(rates, 100, 10, 2e-3, 2e-4);
    assert_true(rates[0] == (float)2e-4);
    assert_true(rates[9] == (float)2e-3);
    assert_true(rates[99] == (float)2e-4);
    for (int i = 10; i < 100; i++) {
        assert_true(rates[i] < rates[i - 1]);
        const double part = (i - 9) / 90.0;
        const double expected = 2e-4 + 1.8e-3 * 0.5 * (1 + cos(3.14159265358979323846 * part));
        assert_float_equal(rates[i], expected, 1e-9);
    }
    ct_rate_table(rates, 5, 10, 1.0, 0.0);
    assert_true(rates[4] == 0.5f);
}

static void ramp_has_five_steps(void **state) {
    (void)state;
    const float expected[] = {0.2f, 0.4f, 0.6f, 0.8f, 1.0f, 1.0f};
    for (uint32_t i = 0; i < 6; i++) {
        assert_true(ct_reset_ramp(i) == expected[i]);
    }
    assert_true(ct_reset_ramp(UINT32_MAX) == 1.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(steps_equal_the_definition, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_step_that_is_not_finite_changes_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(gains_and_biases_do_not_decay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reset_keeps_theta_alone, set_up, tear_down),
        cmocka_unit_test(rate_warms_up_and_ends_at_the_floor),
        cmocka_unit_test(ramp_has_five_steps),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + run_under_every_isa();
}
