/* Stands in for kernels/flush.h when test_arm64.sh looks for operations that bypass it: what is
 * called here leaves no multiplication in the assembler's text. */
#ifndef COTRAIN_KERNELS_FLUSH_H
#define COTRAIN_KERNELS_FLUSH_H

float ct_mul(float a, float b);
float ct_fma(float a, float b, float c);
float ct_narrow(double x);

#endif
