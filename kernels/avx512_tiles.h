/* AVX-512 vectors for tiles.h: a tile of 14 × 32 keeps 28 chains in registers, two vectors of B and
 * one broadcast operand from memory. */
#ifndef COTRAIN_KERNELS_AVX512_TILES_H
#define COTRAIN_KERNELS_AVX512_TILES_H

#include "sanitizer.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define LANES      16
#define TILE_ROWS  14
#define PANEL_ROWS 16

typedef __m512 vec;
typedef __mmask16 vec_mask;

/* For the sanitizer: masks choose the first lanes. */
#define MASK_BYTES(mask) ((size_t)__builtin_popcount(mask) * sizeof(float))

static inline vec_mask lanes_mask(size_t count) {
    return (vec_mask)((1u << count) - 1u);
}

static inline vec load_lanes(const float *from, vec_mask mask) {
    CT_SEEN_READ(from, MASK_BYTES(mask));
    return _mm512_maskz_loadu_ps(mask, from);
}

static inline void store_lanes(float *to, vec_mask mask, vec values) {
    CT_SEEN_WRITE(to, MASK_BYTES(mask));
    _mm512_mask_storeu_ps(to, mask, values);
}

static inline void stream_lanes(float *to, vec values) {
    CT_SEEN_WRITE(to, sizeof values);
    _mm512_stream_ps(to, values);
}

static inline void stream_end(void) {
    _mm_sfence();
}

static inline vec zero_lanes(void) {
    return _mm512_setzero_ps();
}

static inline vec add_zero(vec values) {
    return _mm512_add_ps(values, _mm512_setzero_ps());
}

static inline vec load_step(const float *from) {
    return _mm512_load_ps(from);
}

/* to[j] = the pair (even[j], odd[j]) for j < count, zero from there to 15; even is the low half. */
static inline void interleave(float *to, const uint16_t *even, const uint16_t *odd, size_t count) {
    const __mmask16 mask = lanes_mask(count);
    CT_SEEN_READ(even, count * sizeof *even);
    CT_SEEN_READ(odd, count * sizeof *odd);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, even));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, odd));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

static inline void store_unit(float *to, size_t to_stride, size_t unit, size_t units,
                              __m512i values) {
    if (unit < units) {
        _mm512_storeu_si512(to + unit * to_stride, values);
    }
}

/* to[unit·to_stride + row] = unit `unit` of row `row`, 4 bytes each, rows `row_bytes` apart; rows
 * from `rows` to 15 become zero; `units` ≤ 16. */
static inline void transpose(float *to, size_t to_stride, const char *from, size_t row_bytes,
                             size_t rows, size_t units) {
    static const float zeros[16];
    const vec_mask mask = lanes_mask(units);
    __m512i r[16];
    for (size_t i = 0; i < 16; i++) {
        const char *row = i < rows ? from + i * row_bytes : (const char *)zeros;
        CT_SEEN_READ(row, MASK_BYTES(mask));
        r[i] = _mm512_maskz_loadu_epi32(mask, row);
    }
    for (size_t i = 0; i < 16; i += 4) {
        const __m512i low01 = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        const __m512i high01 = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i low23 = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
        const __m512i high23 = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        r[i] = _mm512_unpacklo_epi64(low01, low23);
        r[i + 1] = _mm512_unpackhi_epi64(low01, low23);
        r[i + 2] = _mm512_unpacklo_epi64(high01, high23);
        r[i + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    /* r[i + c] now holds units c, c + 4, c + 8, c + 12 of rows i … i + 3. */
    for (size_t c = 0; c < 4; c++) {
        const __m512i top_even = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        const __m512i top_odd = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        const __m512i low_even = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        const __m512i low_odd = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        store_unit(to, to_stride, c, units, _mm512_shuffle_i32x4(top_even, low_even, 0x88));
        store_unit(to, to_stride, 4 + c, units, _mm512_shuffle_i32x4(top_odd, low_odd, 0x88));
        store_unit(to, to_stride, 8 + c, units, _mm512_shuffle_i32x4(top_even, low_even, 0xdd));
        store_unit(to, to_stride, 12 + c, units, _mm512_shuffle_i32x4(top_odd, low_odd, 0xdd));
    }
}

#endif
