#include "bits.h"

#include "kernels/flush.h"
#include "kernels/functions.h"
#include "kernels/soft_float.h"
#include "threshold.h"

#include <cotrain/mode.h>

#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 1 << 16 };

static uint32_t same_nan(float x) {
    return isnan(x) ? 0x7fc00000u : ct_bits32(x);
}

/* Every sample in hardware, as kernels/ use it, against software; what x86 makes of it is in the
 * hash. */
static void expect_same(uint32_t hard, float soft, const char *name, double a, double b, double c) {
    if (hard != same_nan(soft)) {
        fprintf(stderr, "%s(%a, %a, %a): %08x, in software %08x\n", name, a, b, c, hard,
                same_nan(soft));
        exit(1);
    }
}

static struct threshold_triple triples[SAMPLES];
static double doubles[SAMPLES];
static uint32_t products[SAMPLES], sums[SAMPLES], narrows[SAMPLES];

/* Not inlined: between entering and leaving the mode, from memory to memory. */
static __attribute__((noinline)) void compute(void) {
    for (size_t i = 0; i < SAMPLES; i++) {
        products[i] = same_nan(ct_mul(triples[i].a, triples[i].b));
        sums[i] = same_nan(ct_fma(triples[i].a, triples[i].b, triples[i].c));
        narrows[i] = same_nan(ct_narrow(doubles[i]));
    }
}

static void single_operations(void) {
    uint64_t random = 21;
    for (size_t i = 0; i < SAMPLES; i++) {
        triples[i] = threshold_triple(&random);
        doubles[i] = threshold_double(&random);
    }
    const struct ct_mode mode = ct_mode_enter();
    compute();
    ct_mode_leave(mode);
    for (size_t i = 0; i < SAMPLES; i++) {
        const struct threshold_triple t = triples[i];
        const double a = (double)t.a, b = (double)t.b, c = (double)t.c;
        expect_same(products[i], ct_soft_mul(t.a, t.b), "mul", a, b, 0.0);
        expect_same(sums[i], ct_soft_fma(t.a, t.b, t.c), "fma", a, b, c);
        expect_same(narrows[i], ct_soft_narrow(doubles[i]), "narrow", doubles[i], 0.0, 0.0);
    }
    bits_print("threshold mul", products, sizeof products);
    bits_print("threshold fma", sums, sizeof sums);
    bits_print("threshold narrow", narrows, sizeof narrows);
}

/* C[M][N] over a chain that overlays cut, no size a multiple of a tile. */
enum { M = 37, COLUMNS = 45, K = 603, HIT = 301 };

static float left[M * K], right[K * COLUMNS], c[M * COLUMNS];
static uint16_t left_bf16[M * K], right_bf16[K * COLUMNS];

static float *left_at(enum ct_form form, size_t i, size_t p) {
    return form == CT_TN ? &left[p * M + i] : &left[i * K + p];
}

static float *right_at(enum ct_form form, size_t p, size_t j) {
    return form == CT_NT ? &right[j * K + p] : &right[p * COLUMNS + j];
}

static void multiply(const char *name, enum ct_numerics numerics, enum ct_form form, size_t k,
                     bool resume) {
    const bool bf16 = numerics == CT_NUMERICS_BF16_1;
    const struct ct_matmul job = {
        .form = form,
        .m = M,
        .n = COLUMNS,
        .k = k,
        .a = bf16 ? (const void *)left_bf16 : left,
        .lda = form == CT_TN ? M : K,
        .b = bf16 ? (const void *)right_bf16 : right,
        .ldb = form == CT_NT ? K : COLUMNS,
        .c = c,
        .ldc = COLUMNS,
        .resume = resume,
        .threads = 1,
    };
    const struct ct_mode mode = ct_mode_enter();
    ct_ops.bf16_from(left_bf16, left, M * K);
    ct_ops.bf16_from(right_bf16, right, K * COLUMNS);
    ct_matmul(numerics, &job);
    ct_mode_leave(mode);
    char line[64];
    snprintf(line, sizeof line, "%s %s %d", name, ct_numerics_name(numerics), (int)form);
    bits_print(line, c, sizeof c);
}

/* Some outputs are one product in the window and zeros; others have plain chains. */
static void lone_products(enum ct_numerics numerics, enum ct_form form, uint64_t *random) {
    struct threshold_triple pair;
    do {
        pair = threshold_factors(random, 0x1p-126 - 0x1p-152, 0.0f);
    } while (fabs((double)pair.a * (double)pair.b - (0x1p-126 - 0x1p-152)) > 0x1p-153);
    for (size_t p = 0; p < K; p++) {
        for (size_t i = 0; i < M; i++) {
            *left_at(form, i, p) = p == HIT ? pair.a : i % 2 == 0 ? 0.0f : 0x1.8p-3f;
        }
        for (size_t j = 0; j < COLUMNS; j++) {
            *right_at(form, p, j) = p == HIT ? pair.b : threshold_scaled(random, 0);
        }
    }
    multiply("lone products", numerics, form, K, false);
}

/* Chains that start next to 2^-126 and meet one product that decides. */
static void resumed_chains(enum ct_numerics numerics, enum ct_form form, uint64_t *random) {
    for (size_t p = 0; p < K; p++) {
        for (size_t i = 0; i < M; i++) {
            *left_at(form, i, p) = p == HIT ? -ldexpf(1.0f, -68 - (int)(i % 8)) : 0.0f;
        }
        for (size_t j = 0; j < COLUMNS; j++) {
            *right_at(form, p, j) = p == HIT ? threshold_scaled(random, -80) : 1.0f;
        }
    }
    for (size_t i = 0; i < M * COLUMNS; i++) {
        c[i] = ct_float32(0x00800000u + (uint32_t)(i % 3));
    }
    multiply("resumed chains", numerics, form, K, true);
}

/* Products whose sums flush and come back. */
static void small_products(enum ct_numerics numerics, enum ct_form form, uint64_t *random) {
    for (size_t i = 0; i < M * K; i++) {
        left[i] =
            threshold_scaled(random, -64) * (threshold_random(random) % 2 == 0 ? 1.0f : -1.0f);
    }
    for (size_t i = 0; i < K * COLUMNS; i++) {
        right[i] = threshold_scaled(random, -62 - (int)(threshold_random(random) % 3));
    }
    multiply("small products", numerics, form, 99, false);
}

/* A gradient of weights so large that overlays store it past the caches, but for the last columns.
 * Nothing is flushed: a tile with flushed steps would be stored again. */
static void large_gradient(enum ct_numerics numerics, uint64_t *random) {
    enum { ROWS = 520, WIDTH = 520, LD = 528, TOKENS = 3 };
    static float x[TOKENS * ROWS], dy[TOKENS * WIDTH];
    static uint16_t x_bf16[TOKENS * ROWS], dy_bf16[TOKENS * WIDTH];
    static _Alignas(64) float dw[ROWS * LD];
    for (size_t i = 0; i < TOKENS * ROWS; i++) {
        x[i] = threshold_scaled(random, 0);
        dy[i] = threshold_scaled(random, 0);
    }
    const bool bf16 = numerics == CT_NUMERICS_BF16_1;
    const struct ct_matmul job = {
        .form = CT_TN,
        .m = ROWS,
        .n = WIDTH,
        .k = TOKENS,
        .a = bf16 ? (const void *)x_bf16 : x,
        .lda = ROWS,
        .b = bf16 ? (const void *)dy_bf16 : dy,
        .ldb = WIDTH,
        .c = dw,
        .ldc = LD,
        .threads = 1,
    };
    const struct ct_mode mode = ct_mode_enter();
    ct_ops.bf16_from(x_bf16, x, TOKENS * ROWS);
    ct_ops.bf16_from(dy_bf16, dy, TOKENS * WIDTH);
    ct_matmul(numerics, &job);
    ct_mode_leave(mode);
    char line[64];
    snprintf(line, sizeof line, "large gradient %s", ct_numerics_name(numerics));
    bits_print(line, dw, sizeof dw);
}

static void matrix_products(void) {
    uint64_t random = 22;
    for (int numerics = CT_NUMERICS_BF16_1; numerics <= CT_NUMERICS_FP32_1; numerics++) {
        for (int form = CT_NN; form <= CT_TN; form++) {
            lone_products((enum ct_numerics)numerics, (enum ct_form)form, &random);
            resumed_chains((enum ct_numerics)numerics, (enum ct_form)form, &random);
            small_products((enum ct_numerics)numerics, (enum ct_form)form, &random);
        }
        large_gradient((enum ct_numerics)numerics, &random);
    }
}

void bits_threshold_products(void) {
    single_operations();
    matrix_products();
}
