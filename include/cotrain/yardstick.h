/* Yardsticks for benchmarks: what this machine can do at most, and what OpenBLAS does on it. They
 * do the work and tell how much it was; the caller holds the clock.
 *
 * Every call uses `threads` threads (0: all) and the instruction set in use (ct_isa_start comes
 * first): its widest multiply-add, its pair step of bf16 where it has one. */
#ifndef COTRAIN_YARDSTICK_H
#define COTRAIN_YARDSTICK_H

#include <stddef.h>
#include <stdint.h>

/* Independent fused multiply-adds in registers, `rounds` times in each thread; returns the
 * floating-point operations of all threads together. A round is some 10 ns. */
double ct_peak_fp32(uint32_t threads, uint64_t rounds);
/* The same with bf16 operands, pairs into binary32: vdpbf16ps, or 0 where bf16-1 runs on the
 * multiply-adds of binary32, for want of such a thing or because they are faster. */
double ct_peak_bf16(uint32_t threads, uint64_t rounds);

/* Reads data[count], in as many stretches as threads; returns the bytes read. */
double ct_peak_read(uint32_t threads, const float *data, size_t count);
/* out = a + 3·b over [count], each thread its stretch, with stores that pass the caches by where
 * there are such; returns the bytes read and written. */
double ct_peak_triad(uint32_t threads, float *out, const float *a, const float *b, size_t count);

/* The core type for which OpenBLAS chose its kernels. */
const char *ct_blas_core(void);

#endif
