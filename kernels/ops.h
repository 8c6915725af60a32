/* The arithmetic below the model: matmul and row operations, to the bit (numerics.md).
 *
 * `ct_ops` is a table. ct_isa_start fills it with the plain C definitions, then overwrites entries
 * with overlays that give the same bits. All entries compute in the calling thread, which must be
 * in the mode of E1 (ct_parallel sets it); they allocate nothing and cannot fail. ct_matmul alone
 * may use several threads. Values are finite (E9); NaN and infinities spread and crash nothing, but
 * their bits are not part of the promise. Arrays do not overlap unless a comment allows it. */
#ifndef COTRAIN_KERNELS_OPS_H
#define COTRAIN_KERNELS_OPS_H

#include "finish.h"
#include "team.h"

#include <cotrain/engine.h>
#include <cotrain/isa.h>
#include <cotrain/philox.h>
#include <cotrain/types.h>

enum ct_form {
    CT_NN, /* C[m][n] = A[m][k] · B[k][n]: Y = X·W */
    CT_NT, /* C[m][n] = A[m][k] · B[n][k]ᵀ: dX = dY·Wᵀ */
    CT_TN, /* C[m][n] = A[k][m]ᵀ · B[k][n]: dW += Xᵀ·dY */
};

/* What the caller promises about zeros, so that overlays may skip them; not in the bits. i, j and p
 * count rows of C, columns of C and the chain, and d is `diagonal`. */
enum ct_skip {
    CT_SKIP_NONE,
    CT_SKIP_UPPER_C, /* outputs with j > i + d are not wanted: they may hold anything afterwards */
    CT_SKIP_LATE,    /* op(A)[i][p] is zero for p > i + d: causal chains over j ≤ i */
    CT_SKIP_EARLY,   /* op(A)[i][p] is zero for p < i + d: chains over i ≥ j */
};

/* What is done with outputs while they are in cache, by the thread that computed them, once their
 * chains have ended: c[i·ldc + j] is output (row + i, column + j), i < rows, j < columns. Every
 * output is handed over exactly once; blocks are at most CT_EPILOGUE_ROWS × CT_EPILOGUE_COLUMNS,
 * and what `run` leaves in c is kept. Where CT_SKIP_UPPER_C promised nothing it sees anything. */
struct ct_epilogue {
    void (*run)(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,
                size_t columns);
    void *context;
    bool in_order; /* a column's rows come ascending, one call after the other: for chains over
                    * rows. Hands then share out columns alone. */
};
enum { CT_EPILOGUE_ROWS = 1040, CT_EPILOGUE_COLUMNS = 64 };

/* One matrix product. Operands are float under fp32-1 and fast, bf16 (uint16_t) under bf16-1; C is
 * always float. Leading dimensions are in elements. Each output is one chain over p = 0 … k−1:
 * fma(A, B, c) in ascending order (E2), or under E3 for pairs element 2p+1 then 2p, a missing
 * partner being zero. It starts from +0, or goes on from C when `resume`, and ends with + (+0.0).
 * So p = 0 must be an even absolute index: cut a chain at even places only. */
struct ct_matmul {
    enum ct_form form;
    size_t m, n, k;
    const void *a;
    size_t lda;
    bool a_float; /* under bf16-1: a is float, rounded on the way as bf16_from does */
    const void *b;
    size_t ldb;
    bool b_float;
    float *c; /* NULL, with an epilogue and no resume: outputs are seen by the epilogue alone, in
               * rows of `columns` without gaps; k < room.count / 16 then */
    size_t ldc;
    bool resume;
    enum ct_skip skip;
    ptrdiff_t diagonal;
    uint32_t threads; /* of ct_matmul. 0: all; 1: the calling thread, which is in E1 mode then */
    const struct ct_epilogue *epilogue; /* NULL: none */
};

/* Working memory that a team shares: packed operands. Aligned to 64 bytes. */
struct ct_room {
    float *floats;
    size_t count;
};

/* `count` that a team should have, whatever the product and its size (4.6 MiB); and the least. */
enum { CT_MATMUL_ROOM = 74 * 16 * 1024, CT_MATMUL_ROOM_LEAST = 16 * 2048 };

/* How an instruction set runs a product: as ct_matmul_team does. job->threads is ignored. */
typedef void ct_matmul_fn(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);

/* Runs the product under `numerics`, C not NULL. Not in the bits: threads, skip. C overlaps no
 * operand. Takes a MiB of the stack: meant for small products and for callers without a team.
 */
void ct_matmul(enum ct_numerics numerics, const struct ct_matmul *job);

/* The product by a whole team: every hand comes with the same job and room, and computes its share
 * of the outputs. Begins with a barrier, so operands may have been written by other hands just
 * before, and room and C used by them. Ends without one: outputs of other hands may be read, and
 * operands and C overwritten, after a further barrier (that of the next product will do). A hand of
 * a team of one needs no meeting. `room` is CT_MATMUL_ROOM floats, 64-byte aligned; less is
 * allowed, down to CT_MATMUL_ROOM_LEAST, and slower. */
void ct_matmul_team(enum ct_numerics numerics, const struct ct_matmul *job, struct ct_hand hand,
                    struct ct_room room);

/* Bytes of one matmul operand element: 2 under bf16-1, else 4. */
size_t ct_operand_bytes(enum ct_numerics numerics);

/* Rounds n values to the operand type (a copy unless bf16-1; nothing when out is in then). */
void ct_operand_store(enum ct_numerics numerics, void *out, const float *in, size_t n);

/* The operand as float again (exact). */
void ct_operand_load(enum ct_numerics numerics, float *out, const void *in, size_t n);

/* What AdamW multiplies by in one step, for one kind of tensor (E10). */
struct ct_adamw_factors {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float b1, b2; /* fp32(1/(1 − β^t)) */
    float epsilon;
    float c; /* clip */
    float minus_lr, minus_lr_decay;
    bool decay;
};

struct ct_ops {
    ct_matmul_fn *matmul_f32;
    ct_matmul_fn *matmul_bf16;

    /* Conversion: nearest even, subnormals to signed zero (E3); NaN becomes a quiet NaN. */
    void (*bf16_from)(uint16_t *out, const float *in, size_t n);
    void (*bf16_to)(float *out, const uint16_t *in, size_t n);

    /* Element by element; out may be an input. */
    void (*add)(float *out, const float *a, const float *b, size_t n);
    void (*scale)(float *out, const float *a, float factor, size_t n);   /* a·factor */
    void (*divide)(float *out, const float *a, float divisor, size_t n); /* a/divisor */
    void (*exp)(float *out, const float *a, size_t n);
    void (*log)(float *out, const float *a, size_t n);
    void (*tanh)(float *out, const float *a, size_t n);
    void (*erf)(float *out, const float *a, size_t n);
    void (*sin)(float *out, const float *a, size_t n); /* |a| ≤ 2^17 */
    void (*cos)(float *out, const float *a, size_t n);

    /* GELU in its tanh form, u = √(2/π)·(x + 0.044715·x³), as x·σ(2u), which is the same function:
     * u = (0.797884561f·x)·fma(0.044715f·x, x, 1); y = x / (1 + exp(−2u)). out may be x. */
    void (*gelu)(float *out, const float *x, size_t n);
    /* dx = dy·(σ + x·σ(1−σ)·2u'): e = min(exp(−2u), largest float); s = 1/(1 + e), so 1 − σ = e·s;
     * w = 1.595769122f·fma(0.134145f·x, x, 1); dx = dy·fma((x·s)·(e·s), w, s). dx may be dy. */
    void (*gelu_backward)(float *dx, const float *dy, const float *x, size_t n);

    /* SwiGLU: out = (g / (1 + exp(−g)))·up, g = gate. out may be either. */
    void (*swiglu)(float *out, const float *gate, const float *up, size_t n);
    /* e = min(exp(−g), largest float); s = 1/(1 + e), so 1 − σ = e·s; y = g·s;
     * dgate = (dy·up)·fma(y, e·s, s); dup = dy·y. Each output may be an input. */
    void (*swiglu_backward)(float *dgate, float *dup, const float *dy, const float *gate,
                            const float *up, size_t n);

    /* E4 over one row, n ≤ 65,536: 16 lanes, lane = index mod 16, folded 8, 4, 2, 1. */
    float (*sum)(const float *x, size_t n);
    float (*sum_squares)(const float *x, size_t n);         /* fma(x, x, lane) */
    float (*dot)(const float *a, const float *b, size_t n); /* fma(a, b, lane) */
    float (*max)(const float *x, size_t n);                 /* exact; n > 0 */

    /* One row: mean = sum(x)/n; d = x − mean; rstd = 1/√(sum_squares(d)/n + epsilon);
     * out = fma(d·rstd, gain, bias). out may be x. */
    void (*layernorm)(float *out, float *out_mean, float *out_rstd, const float *x,
                      const float *gain, const float *bias, float epsilon, size_t n);
    /* One row, added to dx: x̂ = (x − mean)·rstd; h = dy·gain; a = sum(h)/n; b = dot(h, x̂)/n;
     * dx = fma(rstd, fma(−x̂, b, h − a), dx). */
    void (*layernorm_backward)(float *dx, const float *dy, const float *x, float mean, float rstd,
                               const float *gain, size_t n);
    /* Chains over rows, ascending, continued in place: dgain = fma(dy, x̂, dgain); dbias += dy.
     * dy and x are [rows][stride]; n columns of them from the pointers given. */
    void (*layernorm_columns)(float *dgain, float *dbias, const float *dy, const float *x,
                              const float *mean, const float *rstd, size_t rows, size_t stride,
                              size_t n);
    /* One row: rstd = 1/√(sum_squares(x)/n + epsilon), returned; out = (x·rstd)·gain. out may be x.
     */
    float (*rmsnorm)(float *out, const float *x, const float *gain, float epsilon, size_t n);
    /* One row, added to dx: x̂ = x·rstd; h = dy·gain; b = dot(h, x̂)/n;
     * dx = fma(rstd, fma(−x̂, b, h), dx). */
    void (*rmsnorm_backward)(float *dx, const float *dy, const float *x, float rstd,
                             const float *gain, size_t n);
    /* dgain = fma(dy, x̂, dgain): chains over rows as in layernorm_columns. */
    void (*rmsnorm_columns)(float *dgain, const float *dy, const float *x, const float *rstd,
                            size_t rows, size_t stride, size_t n);

    /* RoPE of one token: turns x[heads][2·half] in place by the position's angles. Of each head,
     * a = x[i] and b = x[half + i] become fma(−b, sine[i], a·cosine[i]) and
     * fma(a, sine[i], b·cosine[i]). */
    void (*rope)(float *x, const float *cosine, const float *sine, size_t heads, size_t half);
    /* The turn back, which is its gradient: fma(b, sine[i], a·cosine[i]) and
     * fma(−a, sine[i], b·cosine[i]). */
    void (*rope_backward)(float *x, const float *cosine, const float *sine, size_t heads,
                          size_t half);

    /* out[column] += x[row][column], a chain over rows, ascending, continued in place. */
    void (*column_sums)(float *out, const float *x, size_t rows, size_t stride, size_t n);

    /* Attention, one query: p = exp(s·scale − max(s·scale)); returns Σp (E4). p may be s. n > 0,
     * scale > 0. */
    float (*attention_softmax)(float *p, const float *s, float scale, size_t n);
    /* ds = (p·(dp − delta))·scale. ds may be dp or p. */
    void (*attention_backward)(float *ds, const float *p, const float *dp, float delta, float scale,
                               size_t n);

    /* Cross-entropy of one row: e = exp(l − max), returns (log Σe + max) − l[target], nats; when
     * dlogits is not NULL, dlogits = (e·(1/Σe) − onehot)·factor. dlogits may be logits. */
    float (*cross_entropy)(float *dlogits, const float *logits, uint32_t target, float factor,
                           size_t n);

    /* AdamW over n values: q = g·c; m = fma(β1, m, (1−β1)·q); v = fma(β2, v, ((1−β2)·q)·q);
     * θ = fma(−lr, (m·b1) / (√(v·b2) + ε), decay ? fma(−lr·λ, θ, θ) : θ). */
    void (*adamw)(const struct ct_adamw_factors *factors, float *theta, float *m, float *v,
                  const float *g, size_t n);

    /* Normal values by Box and Muller in binary64: out[i] from block first + i of the stream, times
     * deviation, rounded once (E7). */
    void (*normals)(float *out, const struct ct_philox *philox, uint64_t first, double deviation,
                    size_t n);

    struct ct_finishes finish; /* epilogues of products */
};

extern struct ct_ops ct_ops;

/* Fills a table for one instruction set, without a self-test. CT_ERR_UNSUPPORTED when the CPU lacks
 * it; the table is unchanged then. */
CT_MUST_CHECK enum ct_err ct_ops_install(struct ct_ops *ops, enum ct_isa isa);

#endif
