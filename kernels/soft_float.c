#include "soft_float.h"

#include "functions.h"

enum { DOUBLE_BITS = 52, FLOAT_BITS = 23, DROPPED = DOUBLE_BITS - FLOAT_BITS };

#define DOUBLE_SIGN     (1ull << 63)
#define DOUBLE_EXPONENT (2047ull << DOUBLE_BITS)

static uint64_t bits64(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double float64(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double widen(float x) {
    const uint32_t bits = ct_bits32(x);
    const uint32_t magnitude = bits & 0x7fffffffu;
    return (double)ct_float32(magnitude < 0x00800000u ? bits ^ magnitude : bits);
}

float ct_soft_narrow(double x) {
    const uint64_t bits = bits64(x);
    const uint32_t sign = (uint32_t)(bits >> 32) & 0x80000000u;
    const uint64_t magnitude = bits & ~DOUBLE_SIGN;
    if (magnitude > DOUBLE_EXPONENT) {
        return ct_float32(sign | 0x7fc00000u);
    }
    /* Nearest even on what 24 bits keep; a carry runs into the exponent by itself. */
    const uint64_t half = (1ull << (DROPPED - 1)) - 1 + (magnitude >> DROPPED & 1);
    const uint64_t rounded = (magnitude + half) >> DROPPED;
    const uint64_t least = (1023ull - 126) << FLOAT_BITS, end = (1023ull + 128) << FLOAT_BITS;
    if (rounded < least) {
        return ct_float32(sign);
    }
    return ct_float32(sign |
                      (rounded < end ? (uint32_t)(rounded - least) + 0x00800000u : 0x7f800000u));
}

/* A product has 48 bits and lies between 2^-252 and 2^256: exact in binary64. */
float ct_soft_mul(float a, float b) {
    return ct_soft_narrow(widen(a) * widen(b));
}

/* A sum of binary64 rounded to odd: where it is inexact, that one of the two neighbours whose last
 * bit is 1. With more than two bits to spare, rounding it again to nearest gives what rounding the
 * exact sum once would. `product` is a multiple of 2^-298, c one of 2^-149, so nothing here comes
 * near binary64's subnormals, and Knuth's two-sum leaves the rounding error exactly. */
static double sum_to_odd(double product, double c) {
    const double sum = product + c;
    const uint64_t bits = bits64(sum);
    if ((bits & DOUBLE_EXPONENT) == DOUBLE_EXPONENT) {
        return sum;
    }
    const double part = sum - product;
    const double error = (product - (sum - part)) + (c - part);
    if (error == 0.0 || (bits & 1) != 0) {
        return sum;
    }
    /* sum is not zero, for then it would be exact. */
    const int outwards = (error < 0.0) == (sum < 0.0);
    return float64(outwards ? bits + 1 : bits - 1);
}

float ct_soft_fma(float a, float b, float c) {
    return ct_soft_narrow(sum_to_odd(widen(a) * widen(b), widen(c)));
}
