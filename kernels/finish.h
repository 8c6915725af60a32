/* What stands behind a product: epilogues for ct_matmul (ops.h) that end its outputs in one pass
 * while they are in cache. Each is the plain composition of row operations written beside it, to
 * the bit. Outputs are elements of arrays [.][stride]; row and column are those of the product.
 *
 * Fields name arrays by their part in the formula; c is the chain's end. "operand" arrays are bf16
 * when `bf16` is set, else float, and `bias` NULL adds nothing. */
#ifndef COTRAIN_KERNELS_FINISH_H
#define COTRAIN_KERNELS_FINISH_H

#include <stdbool.h>
#include <stddef.h>

/* The context of a finish. */
struct ct_finish {
    void *out;
    void *out_2;
    void *out_3;
    const void *in;
    const void *in_2;
    const float *bias;
    float *sums;
    size_t stride;
    bool bf16;
};

typedef void ct_finish_fn(void *context, float *c, size_t ldc, size_t row, size_t rows,
                          size_t column, size_t columns);

struct ct_finishes {
    ct_finish_fn *bias;     /* out (operand) = c + bias */
    ct_finish_fn *residual; /* out (float) = in (float) + (c + bias); out may be in */
    ct_finish_fn *gelu;     /* x = c + bias; out (operand) = x, out_2 (operand) = gelu(x) */
    /* dx = c·gelu'(in (operand)); out (operand) = dx; sums[column] += dx: chains over rows, so the
     * product hands them over in order */
    ct_finish_fn *gelu_backward;
    /* g = in (float), u = c; out (operand) = g, out_2 (operand) = u, out_3 (operand) = swiglu(g, u)
     */
    ct_finish_fn *swiglu;
    /* out, out_2 (operands) = swiglu's gradients of gate and up from dy = c, gate = in (operand),
     * up = in_2 (operand) */
    ct_finish_fn *swiglu_backward;
};

void ct_finish_install_scalar(struct ct_finishes *finishes);
void ct_finish_install_avx2(struct ct_finishes *finishes);
void ct_finish_install_avx512(struct ct_finishes *finishes);
void ct_finish_install_avx512bf16(struct ct_finishes *finishes);

/* On ARM: `bare` is right only where nothing was flushed; `neon` is it, watched. */
void ct_finish_install_bare(struct ct_finishes *finishes);
void ct_finish_install_neon(struct ct_finishes *finishes);

#endif
