#include "functions.h"
#include "sanitizer.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A tile of 6 × 16 keeps 12 chains in the 16 registers. */
#define LANES      8
#define TILE_ROWS  6
#define PANEL_ROWS 8

typedef __m256 vec;
typedef __m256i vec_mask;

static inline vec_mask lanes_mask(size_t count) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), index);
}

/* For the sanitizer: masks choose the first lanes. */
#define MASK_BYTES(mask)                                                                           \
    ((size_t)__builtin_popcount((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(mask))) *         \
     sizeof(float))

static inline vec load_lanes(const float *from, vec_mask mask) {
    CT_SEEN_READ(from, MASK_BYTES(mask));
    return _mm256_maskload_ps(from, mask);
}

/* A masked store costs some 20 times a plain one on some CPUs. */
static inline void store_lanes(float *to, vec_mask mask, vec values) {
    if (_mm256_movemask_ps(_mm256_castsi256_ps(mask)) == 0xff) {
        _mm256_storeu_ps(to, values);
    } else {
        CT_SEEN_WRITE(to, MASK_BYTES(mask));
        _mm256_maskstore_ps(to, mask, values);
    }
}

static inline void stream_lanes(float *to, vec values) {
    CT_SEEN_WRITE(to, sizeof values);
    _mm256_stream_ps(to, values);
}

static inline void stream_end(void) {
    _mm_sfence();
}

static inline vec zero_lanes(void) {
    return _mm256_setzero_ps();
}

static inline vec add_zero(vec values) {
    return _mm256_add_ps(values, _mm256_setzero_ps());
}

static inline vec load_step(const float *from) {
    return _mm256_load_ps(from);
}

static inline vec step(vec acc, const float *a, vec b) {
    CT_SEEN_READ(a, sizeof *a);
    return _mm256_fmadd_ps(_mm256_broadcast_ss(a), b, acc);
}

/* to[j] = the pair (even[j], odd[j]) for j < count, zero from there to 7; even is the low half. */
static inline void interleave(float *to, const uint16_t *even, const uint16_t *odd, size_t count) {
    uint16_t halves[2][8] = {{0}};
    if (count < 8) {
        memcpy(halves[0], even, count * sizeof *even);
        memcpy(halves[1], odd, count * sizeof *odd);
        even = halves[0];
        odd = halves[1];
    }
    const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)even));
    const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)odd));
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_or_si256(low, _mm256_slli_epi32(high, 16)));
}

/* to[unit·to_stride + row] = unit `unit` of row `row`, 4 bytes each, rows `row_bytes` apart; rows
 * from `rows` to 7 become zero; `units` ≤ 8. */
static inline void transpose(float *to, size_t to_stride, const char *from, size_t row_bytes,
                             size_t rows, size_t units) {
    if (rows < 8 || units < 8) {
        for (size_t u = 0; u < units; u++) {
            memset(to + u * to_stride, 0, 8 * sizeof(float));
            for (size_t row = 0; row < rows; row++) {
                memcpy(to + u * to_stride + row, from + row * row_bytes + u * 4, 4);
            }
        }
        return;
    }
    __m256 r[8];
    for (size_t i = 0; i < 8; i++) {
        r[i] = _mm256_loadu_ps((const float *)(const void *)(from + i * row_bytes));
    }
    for (size_t i = 0; i < 8; i += 4) {
        const __m256 low01 = _mm256_unpacklo_ps(r[i], r[i + 1]);
        const __m256 high01 = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const __m256 low23 = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        const __m256 high23 = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        r[i] = _mm256_shuffle_ps(low01, low23, 0x44);
        r[i + 1] = _mm256_shuffle_ps(low01, low23, 0xee);
        r[i + 2] = _mm256_shuffle_ps(high01, high23, 0x44);
        r[i + 3] = _mm256_shuffle_ps(high01, high23, 0xee);
    }
    /* r[i + c] now holds units c and c + 4 of rows i … i + 3. */
    for (size_t c = 0; c < 4; c++) {
        _mm256_storeu_ps(to + c * to_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
        _mm256_storeu_ps(to + (4 + c) * to_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
    }
}

/* to[j] = from[j] rounded for j < count ≤ 2·LANES. */
static inline void round_lanes(uint16_t *to, const float *from, size_t count) {
    for (size_t j = 0; j < count; j++) {
        to[j] = ct_bf16_round(from[j]);
    }
}

#include "tiles.h"

void ct_matmul_f32_avx2(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_F32);
}

void ct_matmul_bf16_avx2(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_WIDENED);
}
