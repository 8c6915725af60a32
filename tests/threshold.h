/* Arguments at E1's flush threshold: a·b + c in and beside the window 2^-126·(1 − 2^-25) … 2^-126,
 * which random numbers never meet, and numbers of every other kind. Made in the default mode. */
#ifndef TESTS_THRESHOLD_H
#define TESTS_THRESHOLD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

struct threshold_triple {
    float a, b, c;
};

/* splitmix64 */
static inline uint64_t threshold_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline float threshold_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Any float but NaN and infinity. */
static inline float threshold_any(uint64_t *state) {
    const uint32_t bits = (uint32_t)threshold_random(state);
    return threshold_float((bits & 0x7f800000u) == 0x7f800000u ? bits ^ 0x40000000u : bits);
}

/* A float with 24 random bits and the exponent `exponent`. */
static inline float threshold_scaled(uint64_t *state, int exponent) {
    const uint32_t mantissa = (uint32_t)threshold_random(state) >> 9;
    return threshold_float((uint32_t)(exponent + 127) << 23 | mantissa);
}

/* a and b such that a·b is as near to `target` as two floats come, or exactly it for a short one.
 */
static inline struct threshold_triple threshold_factors(uint64_t *state, double target, float c) {
    int exponent;
    (void)frexp(target, &exponent);
    const int half = exponent / 2;
    const float a =
        threshold_random(state) % 4 == 0 ? ldexpf(1.0f, half) : threshold_scaled(state, half);
    return (struct threshold_triple){a, (float)(target / (double)a), c};
}

static inline struct threshold_triple threshold_triple(uint64_t *state) {
    static const float special[] = {0.0f,        0x1p-149f, 0x1.fffffcp-127f, 0x1p-126f,
                                    0x1.8p-126f, 0x1p-125f, 0x1p-102f,        0x1p-63f,
                                    0x1.8p-64f,  1.0f,      0x1.fffffep-1f,   0x1.000002p+0f,
                                    0x1p+24f,    0x1p+126f, 0x1.fffffep+127f, 0x1.fffffep-64f};
    enum { SPECIAL = sizeof special / sizeof special[0] };
    const uint64_t word = threshold_random(state);
    const double unit = (double)(word >> 32) * 0x1p-32;
    const double beside = 0x1p-126 - 0x1p-151 * ((word & 16) != 0 ? 4 * unit : (double)(word % 5));
    struct threshold_triple t;
    switch (word >> 8 & 7) {
    case 0: /* a product alone */
    case 1:
        t = threshold_factors(state, beside, 0.0f);
        break;
    case 2: /* c next to 2^-126, the product makes up for it */
    case 3:
        t.c = threshold_float(0x00800000u + (uint32_t)(word >> 16 & 7));
        t = threshold_factors(state, beside - (double)t.c - 0x1p-175 * unit, t.c);
        break;
    case 4: /* cancellation from further off */
        t.c = threshold_scaled(state, -126 + (int)(word >> 16 & 31));
        t = threshold_factors(state, beside - (double)t.c, t.c);
        break;
    case 5:
        t.a = special[word % SPECIAL];
        t.b = special[(word >> 16) % SPECIAL] * ((word >> 24 & 1) != 0 ? -1.0f : 1.0f);
        t.c = special[(word >> 32) % SPECIAL];
        break;
    case 6: /* near exponents */
        t.a = threshold_scaled(state, (int)(word >> 16 & 63) - 95);
        t.b = -threshold_scaled(state, (int)(word >> 24 & 63) - 95);
        t.c = threshold_scaled(state, (int)(word >> 32 & 63) - 126);
        break;
    default:
        t = (struct threshold_triple){threshold_any(state), threshold_any(state),
                                      threshold_any(state)};
    }
    const uint64_t signs = threshold_random(state);
    t.a = (signs & 1) != 0 ? -t.a : t.a;
    t.c = (signs & 1) != 0 ? -t.c : t.c;
    t.a = (signs & 2) != 0 ? -t.a : t.a;
    t.b = (signs & 2) != 0 ? -t.b : t.b;
    return t;
}

/* A double to narrow: at the threshold, at a tie of 24 bits, or any finite one. */
static inline double threshold_double(uint64_t *state) {
    const uint64_t word = threshold_random(state);
    const double unit = (double)(word >> 32) * 0x1p-32;
    const double sign = (word & 1) != 0 ? -1.0 : 1.0;
    switch (word >> 1 & 3) {
    case 0:
        return sign * (0x1p-126 - 0x1p-151 * (4 * unit));
    case 1:
        return sign * (0x1p-126 - 0x1p-151 * (double)(word >> 32 & 7) -
                       0x1p-178 * (double)((int)(word >> 40 & 3) - 1));
    case 2: { /* half a unit of 24 bits, or nearly */
        const double x = (double)threshold_any(state);
        return x * (1.0 + 0x1p-24 + 0x1p-52 * (double)((int)(word >> 40 & 3) - 1));
    }
    default: {
        uint64_t bits = threshold_random(state);
        bits = (bits >> 52 & 0x7ff) == 0x7ff ? bits ^ (1ull << 62) : bits;
        double x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    }
}

#endif
