/* Matmul implementations behind the table; struct ct_matmul in ops.h says what each computes. */
#ifndef COTRAIN_KERNELS_MATMUL_H
#define COTRAIN_KERNELS_MATMUL_H

#include "ops.h"

/* The definitions (E2, E3), in the calling thread. */
void ct_matmul_f32_scalar(const struct ct_matmul *job);
void ct_matmul_bf16_scalar(const struct ct_matmul *job);

/* OpenBLAS, float operands, in the calling thread; no promise on bits. */
void ct_matmul_blas(const struct ct_matmul *job);

#endif
