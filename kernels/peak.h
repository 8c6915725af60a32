/* The loops behind yardstick.h, one set for each width of vectors (peak_loops.h). */
#ifndef COTRAIN_KERNELS_PEAK_H
#define COTRAIN_KERNELS_PEAK_H

#include <stddef.h>
#include <stdint.h>

struct ct_peak_loops {
    /* Returns the operations done; *sink keeps the compiler from dropping them. */
    double (*multiply_add)(uint64_t rounds, float *sink);
    float (*read)(const float *data, size_t count);
    void (*triad)(float *out, const float *a, const float *b, size_t count);
};

extern const struct ct_peak_loops ct_peak_loops_scalar;
extern const struct ct_peak_loops ct_peak_loops_avx2;
extern const struct ct_peak_loops ct_peak_loops_avx512;

/* vdpbf16ps. */
double ct_peak_pairs_avx512bf16(uint64_t rounds, float *sink);

#endif
