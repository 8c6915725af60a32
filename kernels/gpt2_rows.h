/* Products over a span of rows, as the phases by rows need them. */
#ifndef COTRAIN_KERNELS_GPT2_ROWS_H
#define COTRAIN_KERNELS_GPT2_ROWS_H

#include "gpt2.h"

/* out[row][n] = x[row][k] · W[k][n]. */
static inline void ct_rows_forward(const struct ct_engine *e, struct ct_span rows, const void *x,
                                   size_t k, size_t weight, size_t n, float *out) {
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_NN,
                                       .m = rows.end - rows.begin,
                                       .n = n,
                                       .k = k,
                                       .a = ct_operand(e, x, rows.begin * k),
                                       .lda = k,
                                       .b = ct_operand(e, e->weights, weight),
                                       .ldb = n,
                                       .c = out + rows.begin * n,
                                       .ldc = n,
                                       .threads = 1,
                                   });
}

/* out[row][k] = dy[row][n] · W[k][n]ᵀ. */
static inline void ct_rows_backward(const struct ct_engine *e, struct ct_span rows, const void *dy,
                                    size_t n, size_t weight, size_t k, float *out) {
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_NT,
                                       .m = rows.end - rows.begin,
                                       .n = k,
                                       .k = n,
                                       .a = ct_operand(e, dy, rows.begin * n),
                                       .lda = n,
                                       .b = ct_operand(e, e->weights, weight),
                                       .ldb = n,
                                       .c = out + rows.begin * k,
                                       .ldc = k,
                                       .threads = 1,
                                   });
}

/* out[row][n], operands, from float. */
static inline void ct_rows_store(const struct ct_engine *e, struct ct_span rows, void *out,
                                 const float *in, size_t n) {
    ct_operand_store(e->options.numerics, ct_operand(e, out, rows.begin * n), in + rows.begin * n,
                     (rows.end - rows.begin) * n);
}

#endif
