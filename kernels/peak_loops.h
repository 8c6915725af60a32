/* What a core does at most, for the vectors that the including file defines:
 *
 *   LANES                    binary32 values of a vector
 *   CHAINS                   multiply-adds in flight: more than latency × units, fewer than
 *                            registers
 *   vec, set, load, add      a vector, one value in all lanes, loads from anywhere, sums
 *   multiply_add(a, b, c)    a·b + c, fused
 *   stream(to, values)       a store that passes the caches by; `to` is aligned to a vector
 *   fence()                  makes such stores visible
 *   LOOPS                    the name of the set */
#ifndef COTRAIN_KERNELS_PEAK_LOOPS_H
#define COTRAIN_KERNELS_PEAK_LOOPS_H

#include "peak.h"

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

static float lanes_sum(const vec *chains, size_t count) {
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++) {
        float lanes[LANES];
        memcpy(lanes, &chains[i], sizeof lanes);
        for (size_t lane = 0; lane < LANES; lane++) {
            sum += lanes[lane];
        }
    }
    return sum;
}

static double multiply_add_loop(uint64_t rounds, float *sink) {
    vec chains[CHAINS];
    const vec half = set(0.5f + *sink), one = set(1.0f + *sink);
    UNROLL
    for (size_t i = 0; i < CHAINS; i++) {
        chains[i] = set((float)i);
    }
    for (uint64_t round = 0; round < rounds; round++) {
        UNROLL
        for (size_t i = 0; i < CHAINS; i++) {
            chains[i] = multiply_add(chains[i], half, one);
        }
    }
    *sink = lanes_sum(chains, CHAINS);
    return 2.0 * LANES * CHAINS * (double)rounds;
}

enum { READ_CHAINS = 8 };

static float read_loop(const float *data, size_t count) {
    vec chains[READ_CHAINS];
    UNROLL
    for (size_t i = 0; i < READ_CHAINS; i++) {
        chains[i] = set(0.0f);
    }
    const size_t step = (size_t)READ_CHAINS * LANES;
    for (size_t at = 0; at + step <= count; at += step) {
        UNROLL
        for (size_t i = 0; i < READ_CHAINS; i++) {
            chains[i] = add(chains[i], load(data + at + i * LANES));
        }
    }
    return lanes_sum(chains, READ_CHAINS);
}

static void triad_loop(float *out, const float *a, const float *b, size_t count) {
    const vec three = set(3.0f);
    for (size_t at = 0; at + LANES <= count; at += LANES) {
        stream(out + at, multiply_add(three, load(b + at), load(a + at)));
    }
    fence();
}

const struct ct_peak_loops LOOPS = {multiply_add_loop, read_loop, triad_loop};

#endif
