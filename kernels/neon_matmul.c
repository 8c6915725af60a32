#include "flush.h"
#include "functions.h"
#include "watch.h"

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A tile of 6 × 16 keeps 24 vectors of chains in the 32 registers. BFDOT and BFMMLA are not used:
 * they add a pair's products before they add to the chain, with roundings of their own. */
#define LANES      8
#define TILE_ROWS  6
#define PANEL_ROWS 8

typedef struct {
    float32x4_t low, high;
} vec;
typedef size_t vec_mask; /* the first so many lanes */

static inline vec_mask lanes_mask(size_t count) {
    return count;
}

static inline vec load_step(const float *from) {
    return (vec){vld1q_f32(from), vld1q_f32(from + 4)};
}

static inline vec load_lanes(const float *from, vec_mask mask) {
    if (mask == LANES) {
        return load_step(from);
    }
    float values[LANES] = {0};
    memcpy(values, from, mask * sizeof *from);
    return load_step(values);
}

static inline void store_lanes(float *to, vec_mask mask, vec values) {
    if (mask == LANES) {
        vst1q_f32(to, values.low);
        vst1q_f32(to + 4, values.high);
        return;
    }
    float stored[LANES];
    vst1q_f32(stored, values.low);
    vst1q_f32(stored + 4, values.high);
    memcpy(to, stored, mask * sizeof *to);
}

/* No faster way past the caches is known here. */
static inline void stream_lanes(float *to, vec values) {
    store_lanes(to, LANES, values);
}

static inline void stream_end(void) {
}

static inline vec zero_lanes(void) {
    return (vec){vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
}

static inline vec add_zero(vec values) {
    const float32x4_t zero = vdupq_n_f32(0.0f);
    return (vec){vaddq_f32(values.low, zero), vaddq_f32(values.high, zero)};
}

static inline vec step(vec acc, const float *a, vec b) {
    return (vec){vfmaq_n_f32(acc.low, b.low, *a), vfmaq_n_f32(acc.high, b.high, *a)};
}

static inline void round_lanes(uint16_t *to, const float *from, size_t count) {
    for (size_t j = 0; j < count; j++) {
        to[j] = ct_bf16_round(from[j]);
    }
}

/* to[j] = the pair (even[j], odd[j]) for j < count, zero from there to 7; even is the low half. */
static inline void interleave(float *to, const uint16_t *even, const uint16_t *odd, size_t count) {
    uint16_t halves[2][LANES] = {{0}};
    if (count < LANES) {
        memcpy(halves[0], even, count * sizeof *even);
        memcpy(halves[1], odd, count * sizeof *odd);
        even = halves[0];
        odd = halves[1];
    }
    const uint16x8x2_t pairs = {{vld1q_u16(even), vld1q_u16(odd)}};
    vst2q_u16((uint16_t *)(void *)to, pairs);
}

/* Four rows of four units, transposed. */
static inline void transpose_4(float *to, size_t to_stride, const char *from, size_t row_bytes) {
    uint32x4_t r[4];
    for (size_t i = 0; i < 4; i++) {
        r[i] = vld1q_u32((const uint32_t *)(const void *)(from + i * row_bytes));
    }
    const uint32x4x2_t even = vzipq_u32(r[0], r[2]); /* units 0, 1; 2, 3 */
    const uint32x4x2_t odd = vzipq_u32(r[1], r[3]);
    for (size_t half = 0; half < 2; half++) {
        const uint32x4x2_t units = vzipq_u32(even.val[half], odd.val[half]);
        vst1q_u32((uint32_t *)(void *)(to + 2 * half * to_stride), units.val[0]);
        vst1q_u32((uint32_t *)(void *)(to + (2 * half + 1) * to_stride), units.val[1]);
    }
}

/* to[unit·to_stride + row] = unit `unit` of row `row`, 4 bytes each, rows `row_bytes` apart; rows
 * from `rows` to 7 become zero; `units` ≤ 8. */
static inline void transpose(float *to, size_t to_stride, const char *from, size_t row_bytes,
                             size_t rows, size_t units) {
    if (rows < LANES || units < LANES) {
        for (size_t u = 0; u < units; u++) {
            memset(to + u * to_stride, 0, LANES * sizeof(float));
            for (size_t row = 0; row < rows; row++) {
                memcpy(to + u * to_stride + row, from + row * row_bytes + u * 4, 4);
            }
        }
        return;
    }
    for (size_t row = 0; row < LANES; row += 4) {
        for (size_t unit = 0; unit < LANES; unit += 4) {
            transpose_4(to + unit * to_stride + row, to_stride, from + row * row_bytes + unit * 4,
                        row_bytes);
        }
    }
}

typedef void tile_kernel(size_t steps, const float *a, const float *b, float *c, size_t ldc,
                         bool resume, vec_mask left, vec_mask right);

/* A register tile whose steps flushed something is computed again by the definition, from the
 * panels and from what C held before. */
static void run_watched(tile_kernel *run, size_t rows, size_t steps, const float *a, const float *b,
                        float *c, size_t ldc, bool resume, vec_mask left, vec_mask right) {
    const size_t columns = left + right;
    float chains[TILE_ROWS][2 * LANES] = {{0}};
    for (size_t i = 0; resume && i < rows; i++) {
        memcpy(chains[i], c + i * ldc, columns * sizeof *c);
    }
    ct_watch_begin();
    run(steps, a, b, c, ldc, resume, left, right);
    if (!ct_watch_end()) {
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            float chain = chains[i][j];
            for (size_t s = 0; s < steps; s++) {
                chain = ct_fma(a[s * PANEL_ROWS + i], b[s * 2 * LANES + j], chain);
            }
            c[i * ldc + j] = chain + 0.0f;
        }
    }
}
#define RUN_KERNEL run_watched

#include "tiles.h"

void ct_matmul_f32_neon(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_F32);
}

void ct_matmul_bf16_neon(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_WIDENED);
}
