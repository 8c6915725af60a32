/* Matmul implementations behind the table; struct ct_matmul in ops.h says what each computes. */
#ifndef COTRAIN_KERNELS_MATMUL_H
#define COTRAIN_KERNELS_MATMUL_H

#include "ops.h"

/* The definitions (E2, E3), in the calling thread. */
void ct_matmul_f32_scalar(const struct ct_matmul *job);
void ct_matmul_bf16_scalar(const struct ct_matmul *job);

/* The overlays (tiles.h), in the calling thread; the CPU must have the instruction set. */
void ct_matmul_f32_avx2(const struct ct_matmul *job);
void ct_matmul_bf16_avx2(const struct ct_matmul *job);
void ct_matmul_f32_avx512(const struct ct_matmul *job);
void ct_matmul_bf16_avx512(const struct ct_matmul *job);
void ct_matmul_bf16_avx512bf16(const struct ct_matmul *job);

/* The bounds of the overlays' blocks, and the thread's room for packed panels: A rows × steps, and
 * steps × columns of B. */
enum { CT_TILE_ROWS = 16, CT_TILE_STEPS = 256, CT_TILE_COLUMNS = 256 };
struct ct_tile_room {
    _Alignas(64) float a[CT_TILE_ROWS * CT_TILE_STEPS];
    _Alignas(64) float b[CT_TILE_STEPS * CT_TILE_COLUMNS];
};

/* This thread's room, as old as the thread: 272 KiB of thread-local storage, of which only threads
 * that multiply touch a page. A thread with a smaller stack than that cannot be created. */
struct ct_tile_room *ct_tile_room(void);

/* OpenBLAS, float operands, in the calling thread; no promise on bits. */
void ct_matmul_blas(const struct ct_matmul *job);

#endif
