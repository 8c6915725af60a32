#include "draw.h"

#include "flush.h"
#include "functions64.h"

#ifndef CT_DRAW_INSTALL
#define CT_DRAW_INSTALL ct_draw_install_scalar
#endif

/* Values at once, each step of all of them before the next step of one: so no value waits for the
 * one before, and every loop is vectors. */
enum { TOGETHER = 64 };

/* words[i][j] = word i of block first + j of the stream, as ct_philox_block gives it. */
static void philox_blocks(const struct ct_philox *philox, uint64_t first,
                          uint32_t words[4][TOGETHER]) {
    for (size_t j = 0; j < TOGETHER; j++) {
        words[0][j] = (uint32_t)(first + j);
        words[1][j] = (uint32_t)((first + j) >> 32);
        words[2][j] = 0;
        words[3][j] = philox->stream;
    }
    uint32_t key_0 = philox->key[0], key_1 = philox->key[1];
    for (int round = 0; round < 10; round++) {
        for (size_t j = 0; j < TOGETHER; j++) {
            const uint64_t even = (uint64_t)words[0][j] * 0xd2511f53u;
            const uint64_t odd = (uint64_t)words[2][j] * 0xcd9e8d57u;
            words[0][j] = (uint32_t)(odd >> 32) ^ words[1][j] ^ key_0;
            words[1][j] = (uint32_t)odd;
            words[2][j] = (uint32_t)(even >> 32) ^ words[3][j] ^ key_1;
            words[3][j] = (uint32_t)even;
        }
        key_0 += 0x9e3779b9u;
        key_1 += 0xbb67ae85u;
    }
}

/* 53 bits of two words as a number in (0, 1]. In two parts, as AVX2 converts 32 bits alone; each
 * step is exact. */
static inline double unit_interval(uint32_t high, uint32_t low) {
    const double upper = (double)(int32_t)(high >> 1);
    const double lower = (double)(int32_t)((high & 1) << 21 | low >> 11);
    return (upper * 0x1p22 + (lower + 1.0)) * 0x1p-53;
}

static void draw_together(const struct ct_philox *philox, uint64_t first, double deviation,
                          float out[TOGETHER]) {
    uint32_t words[4][TOGETHER];
    double radius[TOGETHER], cosine[TOGETHER];
    philox_blocks(philox, first, words);
    for (size_t j = 0; j < TOGETHER; j++) {
        radius[j] = unit_interval(words[0][j], words[1][j]);
        cosine[j] = unit_interval(words[2][j], words[3][j]) * 0x1.921fb54442d18p+2;
    }
    for (size_t j = 0; j < TOGETHER; j++) {
        radius[j] = __builtin_sqrt(-2.0 * ct_log64_of(radius[j]));
    }
    for (size_t j = 0; j < TOGETHER; j++) {
        cosine[j] = ct_cosine64_of(cosine[j], 0);
    }
    for (size_t j = 0; j < TOGETHER; j++) {
        out[j] = ct_narrow(radius[j] * cosine[j] * deviation);
    }
}

static void normals(float *out, const struct ct_philox *philox, uint64_t first, double deviation,
                    size_t n) {
    for (size_t i = 0; i < n; i += TOGETHER) {
        float some[TOGETHER];
        draw_together(philox, first + i, deviation, some);
        memcpy(out + i, some, (n - i < TOGETHER ? n - i : TOGETHER) * sizeof *some);
    }
}

void CT_DRAW_INSTALL(struct ct_ops *ops) {
    ops->normals = normals;
}
