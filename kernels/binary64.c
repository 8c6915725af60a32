#include "binary64.h"

#include "functions64.h"

#include <stdint.h>
#include <string.h>

double ct_log64(double x) {
    return ct_log64_of(x);
}

double ct_exp64(double x) {
    const double shifted = x * 0x1.71547652b82fep+0 + 0x1.8p+52; /* rounds to an integer */
    const double n = shifted - 0x1.8p+52;
    /* ln 2 in two parts: n times the first, 32 bits long, is exact. */
    const double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    /* |r| ≤ 0.347, so the first term left out, r^15/15!, is below 2^-62. */
    double tail = 0.0;
    for (int k = 14; k >= 2; k--) {
        tail = (tail + 1.0) * r / (double)k;
    }
    const double y = 1.0 + (r + r * tail);
    const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

double ct_cos64(double x) {
    return ct_cosine64_of(x < 0.0 ? -x : x, 0);
}

double ct_sin64(double x) {
    return x < 0.0 ? -ct_cosine64_of(-x, 1) : ct_cosine64_of(x, 1);
}
