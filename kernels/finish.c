/* What stands behind a product, done in one pass over a block of its outputs. One source, compiled
 * plainly as the definitions and again for each ISA, as rows.c is. */
#include "finish.h"

#include "functions.h"
#include "sanitizer.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <stdint.h>
#include <string.h>

#ifndef CT_FINISH_INSTALL
#define CT_FINISH_INSTALL ct_finish_install_scalar
#endif

/* Outputs at once, the columns of a product's panel: a constant, so that compilers keep them in
 * vector registers. */
#ifdef __AVX512F__
enum { PIECE = 32 };
#else
enum { PIECE = 16 };
#endif

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void store(void *out, size_t at, bool bf16, const float *x, size_t n) {
    if (!bf16) {
        memcpy((float *)out + at, x, n * sizeof *x);
        return;
    }
    uint16_t *to = (uint16_t *)out + at;
#ifdef __AVX512BF16__
    if (n == PIECE) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
        _mm512_storeu_si512(to, (__m512i)both);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        to[i] = ct_bf16_round(x[i]);
    }
}

/* As store, for what the backward pass reads next: whole lines go past the caches. */
ALWAYS void store_kept(void *out, size_t at, bool bf16, const float *x, size_t n) {
#ifdef __AVX512F__
    uint16_t *to = (uint16_t *)out + at;
    if (bf16 && n == PIECE && (uintptr_t)to % sizeof(__m512i) == 0) {
        uint16_t line[PIECE];
        store(line, 0, true, x, n);
        CT_SEEN_WRITE(to, sizeof line);
        _mm512_stream_si512((void *)to, _mm512_loadu_si512(line));
        return;
    }
#endif
    store(out, at, bf16, x, n);
}

/* What went past the caches is visible as other stores are. */
ALWAYS void end_kept(void) {
#ifdef __AVX512F__
    _mm_sfence();
#endif
}

ALWAYS void load(float *x, const void *in, size_t at, bool bf16, size_t n) {
    if (!bf16) {
        memcpy(x, (const float *)in + at, n * sizeof *x);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = ct_float32((uint32_t)((const uint16_t *)in)[at + i] << 16);
    }
}

/* Asks for what the same piece some rows further down will read of an array of values of `size`
 * bytes: it comes from memory, and no prefetcher follows rows that are pages apart. */
ALWAYS void ask(const struct ct_finish *f, const void *in, size_t at, size_t size) {
    enum { ROWS_AHEAD = 8, LINE = 64 };
    const uintptr_t from = (uintptr_t)in + (at + ROWS_AHEAD * f->stride) * size;
    for (size_t byte = 0; byte < PIECE * size; byte += LINE) {
        __builtin_prefetch((const void *)(from + byte));
    }
}

ALWAYS void ask_operand(const struct ct_finish *f, const void *in, size_t at) {
    ask(f, in, at, f->bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* Where there is no bias: v + (−0) is v, and pieces need no branch. */
#define EIGHT -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f
static const float no_bias[32] = {EIGHT, EIGHT, EIGHT, EIGHT};

/* x = c + the bias of columns from j on. */
ALWAYS void biased(float *restrict x, const float *restrict c, const struct ct_finish *f, size_t j,
                   size_t n) {
    const float *restrict bias = f->bias != NULL ? f->bias + j : no_bias;
    for (size_t i = 0; i < n; i++) {
        x[i] = c[i] + bias[i];
    }
}

ALWAYS void bias_piece(const struct ct_finish *f, size_t at, const float *c, size_t j, size_t n) {
    float x[PIECE];
    biased(x, c, f, j, n);
    store(f->out, at, f->bf16, x, n);
}

ALWAYS void residual_piece(const struct ct_finish *f, size_t at, const float *c, size_t j,
                           size_t n) {
    float x[PIECE];
    float *out = (float *)f->out + at;
    const float *through = (const float *)f->in + at;
    ask(f, f->in, at, sizeof *through);
    biased(x, c, f, j, n);
    for (size_t i = 0; i < n; i++) {
        x[i] = through[i] + x[i];
    }
    memcpy(out, x, n * sizeof *x);
}

ALWAYS void gelu_piece(const struct ct_finish *f, size_t at, const float *c, size_t j, size_t n) {
    float x[PIECE], y[PIECE];
    biased(x, c, f, j, n);
    for (size_t i = 0; i < n; i++) {
        y[i] = ct_gelu32(x[i]);
    }
    store_kept(f->out, at, f->bf16, x, n);
    store(f->out_2, at, f->bf16, y, n);
}

ALWAYS void gelu_backward_piece(const struct ct_finish *f, size_t at, const float *c, size_t j,
                                size_t n) {
    float x[PIECE], dx[PIECE];
    float *restrict sums = f->sums + j;
    ask_operand(f, f->in, at);
    load(x, f->in, at, f->bf16, n);
    for (size_t i = 0; i < n; i++) {
        dx[i] = ct_gelu_backward32(c[i], x[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sums[i] = sums[i] + dx[i];
    }
    store(f->out, at, f->bf16, dx, n);
}

ALWAYS void swiglu_piece(const struct ct_finish *f, size_t at, const float *c, size_t n) {
    float gate[PIECE], up[PIECE], y[PIECE];
    ask(f, f->in, at, sizeof *gate);
    memcpy(gate, (const float *)f->in + at, n * sizeof *gate);
    memcpy(up, c, n * sizeof *up);
    for (size_t i = 0; i < n; i++) {
        y[i] = ct_swiglu32(gate[i], up[i]);
    }
    store_kept(f->out, at, f->bf16, gate, n);
    store_kept(f->out_2, at, f->bf16, up, n);
    store(f->out_3, at, f->bf16, y, n);
}

ALWAYS void swiglu_backward_piece(const struct ct_finish *f, size_t at, const float *c, size_t n) {
    float gate[PIECE], up[PIECE], dgate[PIECE], dup[PIECE];
    ask_operand(f, f->in, at);
    ask_operand(f, f->in_2, at);
    load(gate, f->in, at, f->bf16, n);
    load(up, f->in_2, at, f->bf16, n);
    for (size_t i = 0; i < n; i++) {
        ct_swiglu_backward32(&dgate[i], &dup[i], c[i], gate[i], up[i]);
    }
    store(f->out, at, f->bf16, dgate, n);
    store(f->out_2, at, f->bf16, dup, n);
}

/* A finish from its piece: rows of exactly one piece, as panels have them, or of any length. */
#define FINISH(name, run, end)                                                                     \
    ALWAYS void name##_block(const struct ct_finish *any, const float *c, size_t ldc, size_t row,  \
                             size_t rows, size_t column, size_t columns, bool bf16, bool panel) {  \
        struct ct_finish f = *any;                                                                 \
        f.bf16 = bf16;                                                                             \
        for (size_t i = 0; i < rows; i++) {                                                        \
            const size_t at = (row + i) * f.stride + column;                                       \
            size_t j = 0;                                                                          \
            for (; !panel && j + PIECE <= columns; j += PIECE) {                                   \
                run(PIECE);                                                                        \
            }                                                                                      \
            if (panel) {                                                                           \
                run(PIECE);                                                                        \
            } else if (j < columns) {                                                              \
                run(columns - j);                                                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void name(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,  \
                     size_t columns) {                                                             \
        const struct ct_finish *f = context;                                                       \
        if (f->bf16 && columns == PIECE) {                                                         \
            name##_block(f, c, ldc, row, rows, column, columns, true, true);                       \
        } else if (f->bf16) {                                                                      \
            name##_block(f, c, ldc, row, rows, column, columns, true, false);                      \
        } else if (columns == PIECE) {                                                             \
            name##_block(f, c, ldc, row, rows, column, columns, false, true);                      \
        } else {                                                                                   \
            name##_block(f, c, ldc, row, rows, column, columns, false, false);                     \
        }                                                                                          \
        end;                                                                                       \
    }

#define RUN_SWIGLU(n)          swiglu_piece(&f, at + j, c + i * ldc + j, n)
#define RUN_SWIGLU_BACKWARD(n) swiglu_backward_piece(&f, at + j, c + i * ldc + j, n)
#define RUN_BIAS(n)            bias_piece(&f, at + j, c + i * ldc + j, column + j, n)
#define RUN_RESIDUAL(n)        residual_piece(&f, at + j, c + i * ldc + j, column + j, n)
#define RUN_GELU(n)            gelu_piece(&f, at + j, c + i * ldc + j, column + j, n)
#define RUN_GELU_BACKWARD(n)   gelu_backward_piece(&f, at + j, c + i * ldc + j, column + j, n)

FINISH(bias, RUN_BIAS, (void)0)
FINISH(residual, RUN_RESIDUAL, (void)0)
FINISH(gelu, RUN_GELU, end_kept())
FINISH(gelu_backward, RUN_GELU_BACKWARD, (void)0)
FINISH(swiglu, RUN_SWIGLU, end_kept())
FINISH(swiglu_backward, RUN_SWIGLU_BACKWARD, (void)0)

void CT_FINISH_INSTALL(struct ct_finishes *finishes) {
    finishes->bias = bias;
    finishes->residual = residual;
    finishes->gelu = gelu;
    finishes->gelu_backward = gelu_backward;
    finishes->swiglu = swiglu;
    finishes->swiglu_backward = swiglu_backward;
}
