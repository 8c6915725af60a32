/* Matmul implementations behind the table; struct ct_matmul in ops.h says what each computes. */
#ifndef COTRAIN_KERNELS_MATMUL_H
#define COTRAIN_KERNELS_MATMUL_H

#include "ops.h"

/* The definitions (E2, E3). They use no room. */
void ct_matmul_f32_scalar(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_bf16_scalar(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);

/* The overlays (tiles.h); the CPU must have the instruction set. */
void ct_matmul_f32_avx2(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_bf16_avx2(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_f32_avx512(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_bf16_avx512(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_bf16_avx512bf16(const struct ct_matmul *job, struct ct_hand hand,
                               struct ct_room room);
void ct_matmul_f32_neon(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
void ct_matmul_bf16_neon(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);

/* OpenBLAS, float operands; no promise on bits. Not to be called where ct_blas_present is false:
 * in a build without that library. */
void ct_matmul_blas(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room);
bool ct_blas_present(void);

/* The whole product as OpenBLAS would do it by itself, with job->threads of its own threads; float
 * operands, no epilogue. The yardstick of the others. */
void ct_blas_product(const struct ct_matmul *job);

/* The whole product in the calling thread, which is in E1 mode, with room on its stack. */
void ct_matmul_alone(ct_matmul_fn *run, const struct ct_matmul *job);

/* A hand's rectangle of C: the hands stand in a grid of rows by columns, as many columns as balance
 * best, cut at multiples of the grains; in columns alone for an epilogue in order. */
struct ct_rectangle {
    struct ct_span rows, columns;
};
struct ct_rectangle ct_matmul_share(struct ct_hand hand, const struct ct_matmul *job,
                                    size_t row_grain, size_t column_grain);

/* Whether the job's epilogue wants a column's rows in order. */
static inline bool ct_matmul_in_order(const struct ct_matmul *job) {
    return job->epilogue != NULL && job->epilogue->in_order;
}

#endif
