/* Elementary functions in binary64 for what is computed once: first models, schedules, tables
 * (numerics.md E5). Operation order is as written in the definitions; no libm, no fused steps. */
#ifndef COTRAIN_KERNELS_BINARY64_H
#define COTRAIN_KERNELS_BINARY64_H

/* Natural logarithm of a positive normal x, within 2 units in the last place:
 * x = 2^k·m, √½ ≤ m < √2, log x = k·ln 2 + 2·artanh((m − 1)/(m + 1)). */
double ct_log64(double x);

/* e^x for |x| ≤ 700, within 2 units in the last place; exactly 1 at 0: x = n·ln 2 + r, Taylor's
 * series of e^r, times 2^n. */
double ct_exp64(double x);

/* Cosine and sine of |x| ≤ 65,536, absolute error below 2^-51: Taylor's series around the nearest
 * multiple of π/2. */
double ct_cos64(double x);
double ct_sin64(double x);

#endif
