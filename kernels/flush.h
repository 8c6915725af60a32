/* The operations of binary32 whose results E1's flush rule can reach, as every text in kernels/
 * that computes in the mode of E1 writes them: ct_mul for ×, ct_fma, and ct_narrow for double to
 * float. On x86 each is one instruction.
 *
 * The rule flushes what is below 2^-126 *after* rounding to 24 bits. ARM flushes before, so it
 * differs where the exact result x lies in the window 2^-126·(1 − 2^-25) ≤ |x| < 2^-126 and rounds
 * up to 2^-126: ARM gives zero. Nothing else differs: in E1 mode both read subnormals as zeros, and
 * what is not flushed is rounded alike. So here a zero that ARM returns is looked at again in
 * software.
 *
 * Plain operators are right on both for the rest:
 * - a sum or difference of binary32 values is a multiple of 2^-149; below 2^-126 it is at most
 *   2^-126·(1 − 2^-23);
 * - a quotient just below a power of two is that power times m/N with integers m < N, m < 2^24: at
 *   most 1 − 2^-24 of it, N being at most 2^24 or not;
 * - √x is at least 2^-63, or zero;
 * - integers as float are zero or at least 1;
 * - a product with a power of two has 24 bits: below 2^-126 it is at most 2^-126·(1 − 2^-24).
 *
 * An overlay that watches for flushes itself (watch.h) is compiled with CT_FLUSH_WATCHED and gets
 * the bare instructions there too. test_arm64.sh compiles kernels/ for ARM with these three only
 * declared, and refuses every multiplication and narrowing that is left. */
#ifndef COTRAIN_KERNELS_FLUSH_H
#define COTRAIN_KERNELS_FLUSH_H

#if defined(__aarch64__) && !defined(CT_FLUSH_WATCHED)

#include "soft_float.h"

static inline float ct_mul(float a, float b) {
    const float product = a * b;
    return product != 0.0f ? product : ct_soft_mul(a, b);
}

static inline float ct_fma(float a, float b, float c) {
    const float sum = __builtin_fmaf(a, b, c);
    return sum != 0.0f ? sum : ct_soft_fma(a, b, c);
}

static inline float ct_narrow(double x) {
    const float narrow = (float)x;
    return narrow != 0.0f ? narrow : ct_soft_narrow(x);
}

#else

static inline float ct_mul(float a, float b) {
    return a * b;
}

static inline float ct_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

static inline float ct_narrow(double x) {
    return (float)x;
}

#endif

#endif
