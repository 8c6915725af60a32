/* The known-answer test that a table passes before a process uses it (numerics.md E9). */
#ifndef COTRAIN_KERNELS_SELFTEST_H
#define COTRAIN_KERNELS_SELFTEST_H

#include "ops.h"

/* Runs the vectors in E1 mode: flush threshold, signed zero, order in a pair, fma, ×, ÷, +, √,
 * conversions, then a few operations against `definitions` (NULL: not). Some 100 µs. Returns
 * NULL when all hold, else the name of the first vector that fails. */
const char *ct_selftest(const struct ct_ops *ops, const struct ct_ops *definitions);

#endif
