/* The blocked matmul that every x86 overlay shares: packing, blocking and edges. A file that
 * includes it first defines the vectors:
 *
 *   LANES              binary32 values of a vector
 *   TILE_ROWS          rows of the register tile, at most PANEL_ROWS; its columns are 2·LANES
 *   PANEL_ROWS         stride of a packed A panel, a multiple of LANES
 *   vec, vec_mask      a vector; a choice of its lanes
 *   lanes_mask(count)  the first `count` lanes, count ≤ LANES
 *   load_lanes, store_lanes, zero_lanes, add_zero, load_step, step
 *   transpose, interleave   of 4-byte units and of pairs
 *
 * Chains run inside one register lane, so blocking decides which outputs are computed together and
 * never the order inside a chain. Between blocks of the chain C holds it; adding +0 at each store
 * instead of the last one alone turns −0 into +0 earlier, which the next store would do as well.
 *
 * A unit of the chain is one element under fp32-1 and a pair under bf16-1. A packed panel holds
 * for each unit the values of TILE_ROWS rows (or 2·LANES columns) side by side: binary32; whole
 * pairs, for the hardware's pair step; or the odd elements and then the even ones, widened, for
 * two fused steps (E3). */
#ifndef COTRAIN_KERNELS_TILES_H
#define COTRAIN_KERNELS_TILES_H

#include "matmul.h"

#include <string.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    PANEL_COLUMNS = 2 * LANES,
    STEPS_MAX = CT_TILE_STEPS, /* of a block: one A panel and one B panel stay in L1 */
    BLOCK_COLUMNS = CT_TILE_COLUMNS,
};

_Static_assert(PANEL_ROWS % LANES == 0 && TILE_ROWS <= PANEL_ROWS, "A panels are whole vectors");
_Static_assert(PANEL_ROWS <= CT_TILE_ROWS, "the A buffer holds one panel");
_Static_assert(BLOCK_COLUMNS % PANEL_COLUMNS == 0, "blocks are whole panels");

/* How a panel holds the chain. */
enum packing { PACK_F32, PACK_PAIRS, PACK_WIDENED };

/* One register tile: `steps` steps on packed panels; C starts from itself when `resume`. */
typedef void kernel(size_t steps, const float *a, const float *b, float *c, size_t ldc, bool resume,
                    vec_mask left, vec_mask right);

static inline __attribute__((always_inline)) void run_tile(int rows, int vectors, size_t steps,
                                                           const float *a, const float *b, float *c,
                                                           size_t ldc, bool resume, vec_mask left,
                                                           vec_mask right) {
    vec acc[TILE_ROWS][2];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            acc[i][v] = resume ? load_lanes(c + (size_t)i * ldc + v * LANES, v == 0 ? left : right)
                               : zero_lanes();
        }
    }
    for (size_t s = 0; s < steps; s++) {
        vec values[2];
        UNROLL
        for (int v = 0; v < vectors; v++) {
            values[v] = load_step(b + v * LANES);
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int v = 0; v < vectors; v++) {
                acc[i][v] = step(acc[i][v], a + i, values[v]);
            }
        }
        a += PANEL_ROWS;
        b += PANEL_COLUMNS;
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            store_lanes(c + (size_t)i * ldc + v * LANES, v == 0 ? left : right,
                        add_zero(acc[i][v]));
        }
    }
}

#define KERNEL(rows, vectors)                                                                      \
    static void tile_##rows##_##vectors(size_t steps, const float *a, const float *b, float *c,    \
                                        size_t ldc, bool resume, vec_mask left, vec_mask right) {  \
        run_tile(rows, vectors, steps, a, b, c, ldc, resume, left, right);                         \
    }
#define KERNELS(rows) KERNEL(rows, 1) KERNEL(rows, 2)
KERNELS(1)
KERNELS(2)
KERNELS(3)
KERNELS(4)
KERNELS(5)
KERNELS(6)
#define KERNEL_PAIR(rows)                                                                          \
    { tile_##rows##_1, tile_##rows##_2 }
#if TILE_ROWS == 14
KERNELS(7)
KERNELS(8)
KERNELS(9)
KERNELS(10)
KERNELS(11)
KERNELS(12)
KERNELS(13)
KERNELS(14)
#endif

/* kernels[rows − 1][vectors − 1] */
static kernel *const kernels[TILE_ROWS][2] = {
    KERNEL_PAIR(1),  KERNEL_PAIR(2),  KERNEL_PAIR(3),  KERNEL_PAIR(4),
    KERNEL_PAIR(5),  KERNEL_PAIR(6),
#if TILE_ROWS == 14
    KERNEL_PAIR(7),  KERNEL_PAIR(8),  KERNEL_PAIR(9),  KERNEL_PAIR(10),
    KERNEL_PAIR(11), KERNEL_PAIR(12), KERNEL_PAIR(13), KERNEL_PAIR(14),
#endif
};

/* An operand: element (outer, p) of the chain's element p, as stored. */
struct source {
    const char *data;
    size_t leading; /* bytes from one stored row to the next */
    bool along;     /* stored rows run along the chain; else across it */
};

/* The least k such that the chain has no element from 2·units on. */
static inline size_t units_of(size_t elements, enum packing packing) {
    return packing == PACK_F32 ? elements : (elements + 1) / 2;
}

/* Rows that run along the chain, 4 bytes a unit: a transposition. A last half pair is filled with
 * zero. `last` is the chain's length. */
static void pack_along(float *panel, size_t width, const struct source *source, size_t outer,
                       size_t count, size_t first, size_t units, size_t last,
                       enum packing packing) {
    const char *rows = source->data + outer * source->leading + first * 4;
    const bool half = packing != PACK_F32 && (first + units) * 2 > last;
    const size_t whole = half ? units - 1 : units;
    for (size_t group = 0; group < width; group += LANES) {
        const size_t used = count > group ? count - group : 0;
        const size_t valid = used < LANES ? used : LANES;
        for (size_t unit = 0; unit < whole; unit += LANES) {
            const size_t length = whole - unit < LANES ? whole - unit : LANES;
            transpose(panel + unit * width + group, width,
                      rows + group * source->leading + unit * 4, source->leading, valid, length);
        }
    }
    if (half) {
        for (size_t j = 0; j < width; j++) {
            uint32_t pair = 0;
            if (j < count) {
                memcpy(&pair, rows + j * source->leading + whole * 4, 2);
            }
            memcpy(panel + whole * width + j, &pair, 4);
        }
    }
}

/* Rows that run across the chain: copied, or for pairs interleaved. */
static void pack_across(float *panel, size_t width, const struct source *source, size_t outer,
                        size_t count, size_t first, size_t units, size_t last,
                        enum packing packing) {
    if (packing == PACK_F32) {
        for (size_t unit = 0; unit < units; unit++) {
            const char *row = source->data + (first + unit) * source->leading + outer * 4;
            for (size_t group = 0; group < width; group += LANES) {
                const size_t used = count > group ? count - group : 0;
                const vec_mask mask = lanes_mask(used < LANES ? used : LANES);
                store_lanes(panel + unit * width + group, lanes_mask(LANES),
                            load_lanes((const float *)(const void *)row + group, mask));
            }
        }
        return;
    }
    static const uint16_t zeros[PANEL_COLUMNS > PANEL_ROWS ? PANEL_COLUMNS : PANEL_ROWS];
    for (size_t unit = 0; unit < units; unit++) {
        const size_t p = (first + unit) * 2;
        const void *low = source->data + p * source->leading + outer * 2;
        const void *high = p + 1 < last ? (const char *)low + source->leading : (const void *)zeros;
        for (size_t group = 0; group < width; group += LANES) {
            const size_t used = count > group ? count - group : 0;
            interleave(panel + unit * width + group, (const uint16_t *)low + group,
                       (const uint16_t *)high + group, used < LANES ? used : LANES);
        }
    }
}

/* Packs units first … first + units − 1 of `count` rows (columns) from `outer` on. */
static void pack(float *panel, size_t width, const struct source *source, size_t outer,
                 size_t count, size_t first, size_t units, size_t last, enum packing packing) {
    uint32_t pairs[STEPS_MAX / 2 * PANEL_COLUMNS];
    float *target = packing == PACK_WIDENED ? (float *)(void *)pairs : panel;
    (source->along ? pack_along : pack_across)(target, width, source, outer, count, first, units,
                                               last, packing);
    if (packing == PACK_WIDENED) {
        uint32_t *restrict out = (uint32_t *)(void *)panel;
        for (size_t unit = 0; unit < units; unit++) {
            for (size_t j = 0; j < width; j++) {
                const uint32_t pair = pairs[unit * width + j];
                out[2 * unit * width + j] = pair & 0xffff0000u;
                out[(2 * unit + 1) * width + j] = pair << 16;
            }
        }
    }
}

/* A block of C's columns and of the chain, its B panels packed. */
struct block {
    size_t column, width; /* columns of C */
    size_t first, units;  /* of the chain */
};

/* The part of the block's chain that rows i … i_end − 1 need, by the caller's promise. */
static void narrow(const struct ct_matmul *job, enum packing packing, size_t i, size_t i_end,
                   const struct block *block, size_t *out_first, size_t *out_end) {
    *out_first = block->first;
    *out_end = block->first + block->units;
    if (job->skip == CT_SKIP_LATE) {
        const ptrdiff_t end = (ptrdiff_t)i_end + job->diagonal;
        const size_t units = end > 0 ? units_of((size_t)end, packing) : 0;
        *out_end = units < *out_end ? units : *out_end;
    } else if (job->skip == CT_SKIP_EARLY) {
        const ptrdiff_t begin = (ptrdiff_t)i + job->diagonal;
        const size_t elements = begin > 0 ? (size_t)begin : 0;
        const size_t units = packing == PACK_F32 ? elements : elements / 2;
        *out_first = units > *out_first ? units : *out_first;
    }
    if (*out_end <= *out_first) {
        *out_end = *out_first;
    }
}

/* All register tiles of rows i … i_end − 1 in one block. */
static void run_rows(const struct ct_matmul *job, enum packing packing, const struct source *a,
                     size_t i, size_t i_end, const struct block *block, struct ct_tile_room *room) {
    size_t first;
    size_t end;
    narrow(job, packing, i, i_end, block, &first, &end);
    if (end == first && block->first > 0) {
        return;
    }
    const size_t steps_per_unit = packing == PACK_WIDENED ? 2 : 1;
    pack(room->a, PANEL_ROWS, a, i, i_end - i, first, end - first, job->k, packing);
    const size_t offset = (first - block->first) * steps_per_unit * PANEL_COLUMNS;
    const size_t panel_size = block->units * steps_per_unit * PANEL_COLUMNS;
    for (size_t j = 0; j < block->width; j += PANEL_COLUMNS) {
        const size_t column = block->column + j;
        if (job->skip == CT_SKIP_UPPER_C && (ptrdiff_t)column >= (ptrdiff_t)i_end + job->diagonal) {
            return;
        }
        const size_t width = block->width - j;
        const bool two = width > LANES;
        const size_t left = two ? LANES : width;
        const size_t right = width >= PANEL_COLUMNS ? LANES : width - left;
        kernels[i_end - i - 1][two ? 1 : 0](
            (end - first) * steps_per_unit, room->a,
            room->b + j / PANEL_COLUMNS * panel_size + (end > first ? offset : 0),
            job->c + i * job->ldc + column, job->ldc, job->resume || block->first > 0,
            lanes_mask(left), lanes_mask(right));
    }
}

static void run_blocks(const struct ct_matmul *job, enum packing packing) {
    struct ct_tile_room *room = ct_tile_room();
    const size_t bytes = packing == PACK_F32 ? 4 : 2;
    const struct source a = {job->a, job->lda * bytes, job->form != CT_TN};
    const struct source b = {job->b, job->ldb * bytes, job->form == CT_NT};
    const size_t units = units_of(job->k, packing);
    const size_t units_max = packing == PACK_WIDENED ? STEPS_MAX / 2 : STEPS_MAX;
    const size_t panel_unit = packing == PACK_WIDENED ? 2 * PANEL_COLUMNS : PANEL_COLUMNS;
    const size_t tiles = (job->m + TILE_ROWS - 1) / TILE_ROWS;
    struct block block;
    for (block.column = 0; block.column < job->n; block.column += BLOCK_COLUMNS) {
        const size_t left = job->n - block.column;
        block.width = left < BLOCK_COLUMNS ? left : BLOCK_COLUMNS;
        block.first = 0;
        do {
            const size_t rest = units - block.first;
            block.units = rest < units_max ? rest : units_max;
            for (size_t j = 0; j < block.width; j += PANEL_COLUMNS) {
                const size_t width = block.width - j;
                pack(room->b + j / PANEL_COLUMNS * block.units * panel_unit, PANEL_COLUMNS, &b,
                     block.column + j, width < PANEL_COLUMNS ? width : PANEL_COLUMNS, block.first,
                     block.units, job->k, packing);
            }
            for (size_t tile = 0; tile < tiles; tile++) {
                run_rows(job, packing, &a, job->m * tile / tiles, job->m * (tile + 1) / tiles,
                         &block, room);
            }
            block.first += block.units;
        } while (block.first < units);
    }
}

#endif
