/* Every row operation on inputs of an activation's size and on magnitudes down to subnormals: what
 * test_rows holds overlays to definitions with, and tests/bits other processors to this one. */
#ifndef TESTS_ROW_OPERATIONS_H
#define TESTS_ROW_OPERATIONS_H

#include "kernels/ops.h"

#include <cotrain/mode.h>
#include <cotrain/philox.h>

#include <math.h>
#include <string.h>

enum { LONGEST = 4099, ROWS = 5 };

static const size_t lengths[] = {1,  2,  3,  7,  8,   15,  16,   17,
                                 31, 33, 48, 65, 128, 257, 1000, LONGEST};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

/* Inputs a, b, c: plain values of an activation's size; wide: magnitudes down to subnormals. */
static float a[ROWS * LONGEST], b[ROWS * LONGEST], c[ROWS * LONGEST], wide[ROWS * LONGEST];
static float mean[ROWS], rstd[ROWS];

static float uniform(uint32_t word) {
    return (float)(int32_t)word * 0x1p-31f;
}

static void fill(void) {
    const struct ct_philox philox = {{5, 6}, CT_STREAM_TEST};
    for (size_t i = 0; i < ROWS * LONGEST; i++) {
        uint32_t words[4];
        ct_philox_block(&philox, i, 0, words);
        a[i] = uniform(words[0]) * 6.0f;
        b[i] = uniform(words[1]) * 3.0f;
        c[i] = 1.0f + uniform(words[2]) * 0.5f;
        wide[i] = uniform(words[0]) * ldexpf(1.0f, (int)(words[3] % 140) - 135);
    }
    for (int row = 0; row < ROWS; row++) {
        mean[row] = 0.1f * (float)row;
        rstd[row] = 1.0f + 0.2f * (float)row;
    }
}

/* What one operation left behind, for comparison. */
struct result {
    float out[LONGEST + 16], second[LONGEST + 16];
    float scalars[3];
};

typedef void operation(const struct ct_ops *ops, size_t n, struct result *result);

static void run_add(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->add(result->out, wide, wide + 1, n - 1);
}
static void run_scale(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->scale(result->out, wide, 0x1.2p-60f, n);
}
static void run_divide(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->divide(result->out, wide, 3.0e20f, n);
}
static void run_exp(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->scale(result->second, a, 20.0f, n);
    ops->exp(result->out, result->second, n);
}
static void run_log(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->log(result->out, c, n);
}
static void run_tanh(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->tanh(result->out, a, n);
}
static void run_erf(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->erf(result->out, a, n);
}
static void run_sin(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->sin(result->out, a, n);
    ops->cos(result->second, a, n);
}
static void run_gelu(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->gelu(result->out, a, n);
    ops->gelu_backward(result->second, b, a, n);
}
static void run_sums(const struct ct_ops *ops, size_t n, struct result *result) {
    result->scalars[0] = ops->sum(a, n);
    result->scalars[1] = ops->sum_squares(wide, n);
    result->scalars[2] = ops->dot(a, b, n);
}
static void run_max(const struct ct_ops *ops, size_t n, struct result *result) {
    result->scalars[0] = ops->max(a, n);
}
static void run_layernorm(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->layernorm(result->out, &result->scalars[0], &result->scalars[1], a, c, b, 1e-5f, n);
}
static void run_layernorm_backward(const struct ct_ops *ops, size_t n, struct result *result) {
    memcpy(result->out, wide, n * sizeof(float));
    ops->layernorm_backward(result->out, b, a, 0.25f, 1.75f, c, n);
}
static void run_layernorm_columns(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->layernorm_columns(result->out, result->second, a, b, mean, rstd, ROWS, LONGEST, n);
}
static void run_swiglu(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->swiglu(result->out, a, b, n);
    ops->swiglu_backward(result->out, result->second, b, a, c, n);
}
static void run_rmsnorm(const struct ct_ops *ops, size_t n, struct result *result) {
    result->scalars[0] = ops->rmsnorm(result->out, a, c, 1e-5f, n);
    memcpy(result->second, wide, n * sizeof(float));
    ops->rmsnorm_backward(result->second, b, a, 1.75f, c, n);
}
static void run_rmsnorm_columns(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->rmsnorm_columns(result->out, a, b, rstd, ROWS, LONGEST, n);
}
/* As many heads as there is room for, up to three. */
static void run_rope(const struct ct_ops *ops, size_t n, struct result *result) {
    const size_t half = n <= LONGEST / 6 ? n : n / 6, heads = half == n ? 3 : 1;
    memcpy(result->out, a, 2 * half * heads * sizeof(float));
    memcpy(result->second, wide, 2 * half * heads * sizeof(float));
    ops->rope(result->out, b, c, heads, half);
    ops->rope_backward(result->second, b, c, heads, half);
}
static void run_column_sums(const struct ct_ops *ops, size_t n, struct result *result) {
    ops->column_sums(result->out, wide, ROWS, LONGEST, n);
}
static void run_attention(const struct ct_ops *ops, size_t n, struct result *result) {
    result->scalars[0] = ops->attention_softmax(result->out, a, 0.17677669f, n);
    ops->attention_backward(result->second, result->out, b, 0.125f, 0.17677669f, n);
}
static void run_cross_entropy(const struct ct_ops *ops, size_t n, struct result *result) {
    result->scalars[0] = ops->cross_entropy(result->out, a, (uint32_t)(n / 2), 0x1p-9f, n);
    result->scalars[1] = ops->cross_entropy(NULL, a, (uint32_t)(n / 2), 1.0f, n);
}
static void run_bf16(const struct ct_ops *ops, size_t n, struct result *result) {
    static uint16_t half[LONGEST];
    ops->bf16_from(half, wide, n);
    ops->bf16_to(result->out, half, n);
}

static void run_adamw(const struct ct_ops *ops, size_t n, struct result *result) {
    static float v[LONGEST];
    const struct ct_adamw_factors factors = {0.9f,  0.95f, 0.1f,   0.05f,  5.0f,      10.0f,
                                             1e-8f, 0.5f,  -1e-2f, -1e-3f, n % 2 == 0};
    memcpy(result->out, a, n * sizeof(float));
    memcpy(result->second, b, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        v[i] = fabsf(wide[i]);
    }
    ops->adamw(&factors, result->out, result->second, v, wide + 1, n - 1);
    result->scalars[0] = ops->sum(v, n);
}

#define OPERATION(name)                                                                            \
    { #name, run_##name }
static const struct {
    const char *name;
    operation *run;
} operations[] = {
    OPERATION(add),
    OPERATION(scale),
    OPERATION(divide),
    OPERATION(exp),
    OPERATION(log),
    OPERATION(tanh),
    OPERATION(erf),
    OPERATION(sin),
    OPERATION(gelu),
    OPERATION(sums),
    OPERATION(max),
    OPERATION(layernorm),
    OPERATION(layernorm_backward),
    OPERATION(layernorm_columns),
    OPERATION(swiglu),
    OPERATION(rmsnorm),
    OPERATION(rmsnorm_columns),
    OPERATION(rope),
    OPERATION(column_sums),
    OPERATION(attention),
    OPERATION(cross_entropy),
    OPERATION(bf16),
    OPERATION(adamw),
};

enum { OPERATIONS = sizeof operations / sizeof operations[0] };

static void run_in_mode(operation *run, const struct ct_ops *ops, size_t n, struct result *result) {
    memset(result, 0, sizeof *result);
    const struct ct_mode mode = ct_mode_enter();
    run(ops, n, result);
    ct_mode_leave(mode);
}

#endif
