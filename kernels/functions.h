/* E5: our own binary32 elementary functions, each a fixed sequence of +, −, ×, ÷ and fma, to the
 * bit; binary64.h has those for tables.
 *
 * They are inline and free of branches, so that row operations vectorise; they need the mode of E1.
 * Coefficients are minimax fits of ours (Remez in 200 bits). NaN gives NaN. The largest errors
 * against the exact value are held by test_functions. */
#ifndef COTRAIN_KERNELS_FUNCTIONS_H
#define COTRAIN_KERNELS_FUNCTIONS_H

#include "flush.h"

#include <stdint.h>
#include <string.h>

static inline uint32_t ct_bits32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ct_float32(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Limits by bits, since the minimum of integers is one instruction. As signed integers floats above
 * 0 are ordered upwards and stand above all others, as unsigned ones those below 0 are ordered
 * downwards and stand above all others. Not for NaN. */
static inline float ct_at_most(float x, float positive) {
    const int32_t bits = (int32_t)ct_bits32(x), most = (int32_t)ct_bits32(positive);
    return ct_float32((uint32_t)(bits < most ? bits : most));
}

static inline float ct_at_least(float x, float negative) {
    const uint32_t bits = ct_bits32(x), most = ct_bits32(negative);
    return ct_float32(bits < most ? bits : most);
}

/* To bf16, as the bits of the same value in binary32: nearest even on the upper half, subnormals to
 * signed zero, NaN to a quiet NaN (E3). */
static inline uint32_t ct_bf16_widened(float x) {
    const uint32_t bits = ct_bits32(x);
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    rounded = magnitude < 0x00800000u ? bits & 0x80000000u : rounded;
    rounded = magnitude > 0x7f800000u ? bits | 0x00400000u : rounded;
    return rounded & 0xffff0000u;
}

static inline uint16_t ct_bf16_round(float x) {
    return (uint16_t)(ct_bf16_widened(x) >> 16);
}

/* 1.5·2^23: adding it rounds |x| < 2^22 to an integer, which then stands in the low bits. */
#define CT_ROUND32 0x1.8p+23f

/* e^x. n = round(x·log2 e); r = x − n·ln 2 in two steps; 1 + r + r²·q(r), q of degree 4, times 2^n
 * in two factors, so that overflow and underflow come from the last product alone. */
static inline float ct_exp32(float x) {
    const float held = ct_at_most(ct_at_least(x, -104.0f), 89.0f);
    const float shifted = ct_fma(held, 0x1.715476p+0f, CT_ROUND32);
    const float n = shifted - CT_ROUND32;
    float r = ct_fma(n, -0x1.62e43p-1f, held);
    r = ct_fma(n, 0x1.05c61p-29f, r);
    float q = 0x1.6dbc4cp-10f;
    q = ct_fma(q, r, 0x1.124146p-7f);
    q = ct_fma(q, r, 0x1.555454p-5f);
    q = ct_fma(q, r, 0x1.555486p-3f);
    q = ct_fma(q, r, 0.5f);
    float y = ct_fma(ct_mul(r, r), q, r) + 1.0f;
    /* n + 254 ≥ 104 is positive, so halving it by a shift rounds down as wanted. */
    const uint32_t biased = ct_bits32(shifted) - ct_bits32(CT_ROUND32) + 254u;
    const uint32_t half = biased >> 1;
    y = ct_mul(ct_mul(y, ct_float32(half << 23)), ct_float32((biased - half) << 23));
    return x != x ? x : y;
}

/* ln x for normal x > 0; −∞ for zero, NaN below. x = 2^e·(1 + f), 1 + f in [√½, √2);
 * f − f²/2 + f³·q(f), q of degree 8, plus e·ln 2 in two parts. */
static inline float ct_log32(float x) {
    const uint32_t offset = ct_bits32(x) - 0x3f3504f3u;
    const float e = (float)((int32_t)offset >> 23);
    const float f = ct_float32((offset & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float q = 0x1.1457e4p-4f;
    q = ct_fma(q, f, -0x1.de3bf6p-4f);
    q = ct_fma(q, f, 0x1.e6f03cp-4f);
    q = ct_fma(q, f, -0x1.fc2208p-4f);
    q = ct_fma(q, f, 0x1.23376cp-3f);
    q = ct_fma(q, f, -0x1.555c4ep-3f);
    q = ct_fma(q, f, 0x1.99a4b6p-3f);
    q = ct_fma(q, f, -0x1.000006p-2f);
    q = ct_fma(q, f, 0x1.555548p-2f);
    const float square = ct_mul(f, f);
    float tail = ct_mul(q, ct_mul(square, f));
    tail = ct_fma(e, -0x1.05c61p-29f, tail);
    tail = ct_fma(square, -0.5f, tail);
    float y = ct_fma(e, 0x1.62e43p-1f, f + tail);
    y = x <= 0x1.fffffep+127f ? y : x;
    y = x < 0.0f ? __builtin_nanf("") : y;
    return x == 0.0f ? -__builtin_inff() : y;
}

/* tanh x: below 5/8 x + x³·q(x²), q of degree 4; above 1 − 2/(e^2|x| + 1) with the sign of x. */
static inline float ct_tanh32(float x) {
    const uint32_t sign = ct_bits32(x) & 0x80000000u;
    const float t = ct_float32(ct_bits32(x) ^ sign);
    const float s = ct_mul(x, x);
    float q = -0x1.752156p-8f;
    q = ct_fma(q, s, 0x1.520234p-6f);
    q = ct_fma(q, s, -0x1.b837fp-5f);
    q = ct_fma(q, s, 0x1.110710p-3f);
    q = ct_fma(q, s, -0x1.555532p-2f);
    const float small = ct_fma(ct_mul(t, s), q, t);
    const float large = 1.0f - 2.0f / (ct_exp32(t + t) + 1.0f);
    return ct_float32(ct_bits32(t < 0.625f ? small : large) | sign);
}

/* erf x: below 0.925 x + x·q(x²), q of degree 5; above 1 − e^p(|x|), p = ln erfc of degree 7, with
 * |x| held to 4, where erf is 1 in binary32. */
static inline float ct_erf32(float x) {
    const uint32_t sign = ct_bits32(x) & 0x80000000u;
    float t = ct_float32(ct_bits32(x) ^ sign);
    const float s = ct_mul(x, x);
    float q = -0x1.395c6ep-11f;
    q = ct_fma(q, s, 0x1.4716bap-8f);
    q = ct_fma(q, s, -0x1.b686ecp-6f);
    q = ct_fma(q, s, 0x1.ce1a46p-4f);
    q = ct_fma(q, s, -0x1.8126e6p-2f);
    q = ct_fma(q, s, 0x1.06eba6p-3f);
    const float small = ct_fma(t, q, t);
    const int is_small = t < 0.925f;
    t = t > 4.0f ? 4.0f : t;
    float p = -0x1.630acp-16f;
    p = ct_fma(p, t, 0x1.c85cf6p-12f);
    p = ct_fma(p, t, -0x1.11972p-8f);
    p = ct_fma(p, t, 0x1.9bb54p-6f);
    p = ct_fma(p, t, -0x1.bb9276p-4f);
    p = ct_fma(p, t, -0x1.44446ep-1f);
    p = ct_fma(p, t, -0x1.212848p+0f);
    p = ct_fma(p, t, 0x1.70d8c6p-13f);
    const float large = 1.0f - ct_exp32(p);
    return ct_float32(ct_bits32(is_small ? small : large) | sign);
}

/* sin(x + quarters·π/2), |x| ≤ 2^17. k = round(x·2/π); r = x − k·π/2 in three steps; the sine
 * r + r³·q(r²), degree 3, or the cosine 1 + (r⁴·q(r²) − r²/2), degree 3, by the quadrant. */
static inline float ct_quadrant32(float x, uint32_t quarters) {
    const float shifted = ct_fma(x, 0x1.45f306p-1f, CT_ROUND32);
    const float k = shifted - CT_ROUND32;
    float r = ct_fma(k, -0x1.921fb6p+0f, x);
    r = ct_fma(k, 0x1.777a5cp-25f, r);
    r = ct_fma(k, 0x1.ee59dap-50f, r);
    const uint32_t quadrant = ct_bits32(shifted) + quarters;
    const float s = ct_mul(r, r);
    float q = 0x1.6cbecep-19f;
    q = ct_fma(q, s, -0x1.a00f32p-13f);
    q = ct_fma(q, s, 0x1.111108p-7f);
    q = ct_fma(q, s, -0x1.555554p-3f);
    const float sine = ct_fma(ct_mul(r, s), q, r);
    float c = -0x1.2417ep-22f;
    c = ct_fma(c, s, 0x1.a010c4p-16f);
    c = ct_fma(c, s, -0x1.6c16b8p-10f);
    c = ct_fma(c, s, 0x1.555554p-5f);
    const float cosine = ct_fma(s, -0.5f, ct_mul(ct_mul(s, s), c)) + 1.0f;
    const float y = (quadrant & 1u) != 0 ? cosine : sine;
    return ct_float32(ct_bits32(y) ^ ((quadrant & 2u) << 30));
}

static inline float ct_sin32(float x) {
    return ct_quadrant32(x, 0);
}

static inline float ct_cos32(float x) {
    return ct_quadrant32(x, 1);
}

/* exp(−2u) of the GELU at x; formulas in ops.h. −2 is in u's constant: a power of two rounds
 * nothing, and where u is flushed or overflows, exp is 1, or at its ends, either way. */
static inline float ct_gelu_exp32(float x) {
    const float cubic = ct_fma(ct_mul(0x1.6e4e26p-5f, x), x, 1.0f);
    return ct_exp32(ct_mul(ct_mul(-0x1.988454p+0f, x), cubic));
}

static inline float ct_gelu32(float x) {
    return x / (1.0f + ct_gelu_exp32(x));
}

/* dy times the slope of the GELU at x. */
static inline float ct_gelu_backward32(float dy, float x) {
    float e = ct_gelu_exp32(x);
    e = e > 0x1.fffffep+127f ? 0x1.fffffep+127f : e; /* infinity · 0 is no gradient */
    const float s = 1.0f / (1.0f + e);
    const float square = ct_fma(ct_mul(0x1.12ba9ep-3f, x), x, 1.0f);
    const float w = ct_mul(0x1.988454p+0f, square);
    const float slope = ct_fma(ct_mul(ct_mul(x, s), ct_mul(e, s)), w, s);
    return ct_mul(dy, slope);
}

/* SwiGLU and its gradients; formulas in ops.h. */
static inline float ct_swiglu32(float gate, float up) {
    return ct_mul(gate / (1.0f + ct_exp32(-gate)), up);
}

static inline void ct_swiglu_backward32(float *dgate, float *dup, float dy, float gate, float up) {
    float e = ct_exp32(-gate);
    e = e > 0x1.fffffep+127f ? 0x1.fffffep+127f : e; /* infinity · 0 is no gradient */
    const float s = 1.0f / (1.0f + e);
    const float y = ct_mul(gate, s);
    *dgate = ct_mul(ct_mul(dy, up), ct_fma(y, ct_mul(e, s), s));
    *dup = ct_mul(dy, y);
}

#endif
