/* Logarithm and cosine of E5 in binary64, inline for loops that are built for several ISAs. */
#ifndef COTRAIN_KERNELS_FUNCTIONS64_H
#define COTRAIN_KERNELS_FUNCTIONS64_H

#include <stdint.h>
#include <string.h>

/* Free of branches, which random values would mispredict. */
static inline double ct_log64_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    const int large = m >= 0x1.6a09e667f3bcdp+0;
    m = large ? m * 0.5 : m;
    exponent += large;
    const double s = (m - 1.0) / (m + 1.0);
    const double square = s * s;
    /* s² ≤ 0.0295, so the first term left out, s²⁴/25, is below 2^-60 of the sum. */
    double sum = 0.0;
    for (int n = 23; n >= 3; n -= 2) {
        sum = sum * square + 1.0 / (double)n;
    }
    const double tail = 2.0 * s * (sum * square);
    const double k = (double)exponent;
    /* ln 2 in two parts: k times the first, 32 bits long, is exact. */
    return k * 0x1.62e42feep-1 + (2.0 * s + (tail + k * 0x1.a39ef35793c76p-33));
}

/* cos(magnitude − quarters·π/2) of magnitude in [0, 65,536]. Free of branches; of sine and cosine
 * only the one that the quadrant asks for is summed. */
static inline double ct_cosine64_of(double magnitude, int32_t quarters) {
    const int32_t quadrant = (int32_t)(magnitude * 0x1.45f306dc9c883p-1 + 0.5);
    const double k = (double)quadrant;
    /* π/2 in three parts of 33, 33 and 53 bits: the first two products are exact. */
    const double r =
        ((magnitude - k * 0x1.921fb544p+0) - k * 0x1.0b4611a6p-34) - k * 0x1.3198a2e037073p-69;
    const double square = r * r;
    const int32_t place = quadrant - quarters;
    /* 1 for the sine, else 0: Taylor's terms are divided by n·(n + 1) or n·(n − 1). */
    const double sine = (double)(place & 1);
    double sum = 1.0;
    for (int n = 18; n >= 2; n -= 2) {
        sum = 1.0 - sum * square / ((double)(n * (n - 1)) + sine * (double)(2 * n));
    }
    sum = sine != 0.0 ? sum * r : sum;
    const double sign = (double)(1 - ((place + 1) & 2));
    return sum * sign;
}

#endif
