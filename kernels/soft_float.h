/* E1's flush rule in software: a result is rounded to 24 bits as if exponents had no end, and only
 * then is it a zero of the same sign if it is below 2^-126. Subnormal arguments count as signed
 * zeros. Exact for all finite arguments; NaN and infinities spread.
 *
 * These functions use integers and binary64 far from its own limits, so they give the same bits on
 * every CPU, whatever the thread's mode flushes; rounding must be to nearest even. x86 follows the
 * rule in hardware, which test_soft_float holds them to. CPUs that flush before they round need
 * them for ×, fma and narrowing; flush.h shows that +, −, ÷ and √ cannot differ. */
#ifndef COTRAIN_KERNELS_SOFT_FLOAT_H
#define COTRAIN_KERNELS_SOFT_FLOAT_H

float ct_soft_mul(float a, float b);          /* a·b */
float ct_soft_fma(float a, float b, float c); /* a·b + c, rounded once */
float ct_soft_narrow(double x);               /* x as binary32 */

#endif
