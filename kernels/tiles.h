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

#include "functions.h"
#include "matmul.h"

#include <cotrain/assert.h>

#include <string.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    PANEL_COLUMNS = 2 * LANES,
    STEPS_MAX = 384,  /* of a block: its B panel stays near L1 */
    ACROSS_UNITS = 8, /* of rows across the chain that are packed together */
    LINE = 64,        /* bytes of the cache */
    AHEAD_STEPS = 32, /* A is asked for so many steps before its use: it comes from L3 */
    AHEAD_TILES = 16, /* the next block's B while the last so many tiles are run */
};

_Static_assert(PANEL_ROWS % LANES == 0 && TILE_ROWS <= PANEL_ROWS, "A panels are whole vectors");
_Static_assert(16 % PANEL_ROWS == 0, "what ops.h says of rooms");
_Static_assert((int)PANEL_COLUMNS <= (int)CT_EPILOGUE_COLUMNS, "epilogues see whole panels");

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
        __builtin_prefetch(a + AHEAD_STEPS * PANEL_ROWS, 0, 3);
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
    bool rounded;   /* stored as float, but the chain is bf16's */
};

/* The least k such that the chain has no element from 2·units on. */
static inline size_t units_of(size_t elements, enum packing packing) {
    return packing == PACK_F32 ? elements : (elements + 1) / 2;
}

static void round_row(uint16_t *restrict out, const float *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = ct_bf16_round(in[i]);
    }
}

/* Rows that run along the chain, 4 bytes a unit: a transposition. A last half pair is filled with
 * zero. `last` is the chain's length. */
static void pack_along(float *panel, size_t width, const struct source *source, size_t outer,
                       size_t count, size_t first, size_t units, size_t last,
                       enum packing packing) {
    const size_t unit_bytes = source->rounded ? 8 : 4;
    const char *rows = source->data + outer * source->leading + first * unit_bytes;
    const bool half = packing != PACK_F32 && (first + units) * 2 > last;
    const size_t whole = half ? units - 1 : units;
    for (size_t group = 0; group < width; group += LANES) {
        const size_t used = count > group ? count - group : 0;
        const size_t valid = used < LANES ? used : LANES;
        for (size_t unit = 0; unit < whole; unit += LANES) {
            const size_t length = whole - unit < LANES ? whole - unit : LANES;
            const char *from = rows + group * source->leading + unit * unit_bytes;
            size_t row_bytes = source->leading;
            uint16_t rounded[LANES][2 * LANES];
            if (source->rounded) {
                for (size_t i = 0; i < valid; i++) {
                    round_row(rounded[i], (const float *)(const void *)(from + i * row_bytes),
                              2 * length);
                }
                from = (const char *)rounded;
                row_bytes = sizeof rounded[0];
            }
            transpose(panel + unit * width + group, width, from, row_bytes, valid, length);
        }
    }
    if (half) {
        for (size_t j = 0; j < width; j++) {
            uint32_t pair = 0;
            const char *from = rows + j * source->leading + whole * unit_bytes;
            if (j < count && source->rounded) {
                round_row((uint16_t *)(void *)&pair, (const float *)(const void *)from, 1);
            } else if (j < count) {
                memcpy(&pair, from, 2);
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
    uint16_t rounded[2][PANEL_COLUMNS > PANEL_ROWS ? PANEL_COLUMNS : PANEL_ROWS];
    for (size_t unit = 0; unit < units; unit++) {
        const size_t p = (first + unit) * 2;
        const char *row = source->data + p * source->leading + outer * (source->rounded ? 4 : 2);
        const void *low = row;
        const void *high = p + 1 < last ? row + source->leading : (const void *)zeros;
        if (source->rounded) {
            round_row(rounded[0], low, count);
            low = rounded[0];
            if (p + 1 < last) {
                round_row(rounded[1], high, count);
                high = rounded[1];
            }
        }
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
    if (packing != PACK_WIDENED) {
        (source->along ? pack_along : pack_across)(panel, width, source, outer, count, first, units,
                                                   last, packing);
        return;
    }
    uint32_t pairs[STEPS_MAX / 2 * PANEL_COLUMNS];
    while (units > 0) {
        const size_t some = units < STEPS_MAX / 2 ? units : STEPS_MAX / 2;
        (source->along ? pack_along : pack_across)((float *)(void *)pairs, width, source, outer,
                                                   count, first, some, last, packing);
        uint32_t *restrict out = (uint32_t *)(void *)panel;
        for (size_t unit = 0; unit < some; unit++) {
            for (size_t j = 0; j < width; j++) {
                const uint32_t pair = pairs[unit * width + j];
                out[2 * unit * width + j] = pair & 0xffff0000u;
                out[(2 * unit + 1) * width + j] = pair << 16;
            }
        }
        panel += 2 * some * width;
        first += some;
        units -= some;
    }
}

/* What all hands of a team know of their product. */
struct product {
    const struct ct_matmul *job;
    enum packing packing;
    size_t steps_per_unit;
    size_t units; /* of the chain */
    struct source a, b;
    struct ct_room room;
};

/* Rows of C and a part of the chain: A's side, packed by all hands together in panels of `tiles`
 * register tiles, each of which holds all units. */
struct slab {
    size_t row, rows, tiles;
    size_t first, units;
};

/* A hand's own memory: a panel of B, which stays in L1, and of outputs that C does not get. */
struct own {
    _Alignas(64) float b[STEPS_MAX * PANEL_COLUMNS];
    _Alignas(64) float c[CT_EPILOGUE_ROWS * PANEL_COLUMNS];
};

static inline size_t tile_row(const struct slab *slab, size_t tile) {
    return slab->row + slab->rows * tile / slab->tiles;
}

static inline float *tile_panel(const struct product *product, const struct slab *slab,
                                size_t tile) {
    return product->room.floats + tile * slab->units * product->steps_per_unit * PANEL_ROWS;
}

/* Units of the chain. */
struct part {
    size_t first, end;
};

/* What of `part` the rows i … i_end − 1 need, by the caller's promise. */
static struct part narrow(const struct product *product, size_t i, size_t i_end,
                          struct part whole) {
    const struct ct_matmul *job = product->job;
    struct part part = whole;
    if (job->skip == CT_SKIP_LATE) {
        const ptrdiff_t end = (ptrdiff_t)i_end + job->diagonal;
        const size_t units = end > 0 ? units_of((size_t)end, product->packing) : 0;
        part.end = units < part.end ? units : part.end;
    } else if (job->skip == CT_SKIP_EARLY) {
        const ptrdiff_t begin = (ptrdiff_t)i + job->diagonal;
        const size_t elements = begin > 0 ? (size_t)begin : 0;
        const size_t units = product->packing == PACK_F32 ? elements : elements / 2;
        part.first = units > part.first ? units : part.first;
    }
    return part.first < part.end ? part : (struct part){whole.first, whole.first};
}

/* Asks for one part in `parts` of what pack would read. */
static void prefetch(const struct source *source, size_t outer, size_t count, size_t first,
                     size_t units, enum packing packing, size_t part, size_t parts) {
    const size_t elements = packing == PACK_F32 ? units : 2 * units;
    const size_t begin = packing == PACK_F32 ? first : 2 * first;
    const size_t bytes = packing == PACK_F32 || source->rounded ? 4 : 2;
    const size_t rows = source->along ? count : elements;
    const size_t length = (source->along ? elements : count) * bytes;
    const char *from = source->data + (source->along ? outer : begin) * source->leading +
                       (source->along ? begin : outer) * bytes;
    for (size_t row = rows * part / parts; row < rows * (part + 1) / parts; row++) {
        const char *line = from + row * source->leading;
        for (size_t at = 0; at < length; at += LINE) {
            __builtin_prefetch(line + at, 0, 2);
        }
        __builtin_prefetch(line + length - 1, 0, 2);
    }
}

/* A's side. Where stored rows run across the chain, a few of them go to all tiles at once, so that
 * they are read as they lie. */
static void pack_slab(const struct product *product, const struct slab *slab, struct ct_hand hand) {
    const struct ct_span tiles = ct_share(hand, slab->tiles, 1);
    const size_t end = slab->first + slab->units;
    const size_t most = product->a.along ? slab->units : ACROSS_UNITS;
    for (size_t first = slab->first; first < end; first += most) {
        const struct part some = {first, end - first < most ? end : first + most};
        for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
            const size_t i = tile_row(slab, tile), i_end = tile_row(slab, tile + 1);
            const struct part part = narrow(product, i, i_end, some);
            if (part.end > part.first) {
                pack(tile_panel(product, slab, tile) +
                         (part.first - slab->first) * product->steps_per_unit * PANEL_ROWS,
                     PANEL_ROWS, &product->a, i, i_end - i, part.first, part.end - part.first,
                     product->job->k, product->packing);
            }
        }
    }
}

/* One panel of C's columns and a part of the chain, for the tiles that a hand has. */
struct block {
    size_t column, width;
    struct part part;
    float *c; /* of row 0 of the slab */
    size_t ldc;
};

/* Asks for the outputs of a tile. */
static inline void prefetch_tile(const struct slab *slab, const struct block *block, size_t tile) {
    const size_t end = tile_row(slab, tile + 1) - slab->row;
    for (size_t i = tile_row(slab, tile) - slab->row; i < end; i++) {
        const float *row = block->c + i * block->ldc;
        for (size_t j = 0; j < block->width; j += LINE / sizeof(float)) {
            __builtin_prefetch(row + j, 1, 3);
        }
        __builtin_prefetch(row + block->width - 1, 1, 3);
    }
}

/* All tiles of a block, with the panel of B; meanwhile what the next block needs is asked for. */
static void run_block(const struct product *product, const struct slab *slab, struct ct_span tiles,
                      const struct block *block, const struct block *next, float *b) {
    const struct ct_matmul *job = product->job;
    const size_t steps = product->steps_per_unit;
    const size_t top = tile_row(slab, tiles.begin), bottom = tile_row(slab, tiles.end);
    const struct part needed = narrow(product, top, bottom, block->part);
    pack(b, PANEL_COLUMNS, &product->b, block->column, block->width, needed.first,
         needed.end - needed.first, job->k, product->packing);
    const bool two = block->width > LANES;
    const size_t left = two ? LANES : block->width;
    const vec_mask left_mask = lanes_mask(left), right_mask = lanes_mask(block->width - left);
    for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
        const size_t i = tile_row(slab, tile), i_end = tile_row(slab, tile + 1);
        const struct part part = narrow(product, i, i_end, block->part);
        if (job->skip == CT_SKIP_UPPER_C &&
            (ptrdiff_t)block->column >= (ptrdiff_t)i_end + job->diagonal) {
            continue;
        }
        if (part.end == part.first && block->part.first > 0) {
            continue;
        }
        if (tile + 1 < tiles.end) {
            prefetch_tile(slab, block, tile + 1);
        } else if (next != NULL) {
            prefetch_tile(slab, next, tiles.begin);
        }
        if (next != NULL && tiles.end - tiles.begin >= AHEAD_TILES &&
            tiles.end - tile <= AHEAD_TILES) {
            prefetch(&product->b, next->column, next->width, next->part.first,
                     next->part.end - next->part.first, product->packing,
                     AHEAD_TILES - (tiles.end - tile), AHEAD_TILES);
        }
        const size_t skipped = part.end > part.first ? (part.first - needed.first) * steps : 0;
        kernels[i_end - i - 1][two ? 1 : 0](
            (part.end - part.first) * steps,
            tile_panel(product, slab, tile) + (part.first - slab->first) * steps * PANEL_ROWS,
            b + skipped * PANEL_COLUMNS, block->c + (i - slab->row) * block->ldc, block->ldc,
            job->resume || block->part.first > 0, left_mask, right_mask);
    }
}

/* This hand's outputs, as far as the slab takes their chains: column after column, and in each the
 * slab's part of the chain in blocks of equal length. */
static void run_slab(const struct product *product, const struct slab *slab, struct ct_hand hand) {
    struct own own;
    const struct ct_matmul *job = product->job;
    const struct ct_rectangle mine = ct_matmul_share(hand, slab->tiles, 1, job->n, PANEL_COLUMNS);
    const size_t width = mine.columns.end - mine.columns.begin;
    const size_t columns = (width + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    const size_t most = STEPS_MAX / product->steps_per_unit;
    const size_t parts = slab->units == 0 ? 1 : (slab->units + most - 1) / most;
    struct block blocks[2];
    for (size_t item = 0; item <= columns * parts; item++) {
        struct block *block = &blocks[item % 2];
        const size_t column = item / parts, part = item % parts;
        if (item < columns * parts) {
            block->column = mine.columns.begin + column * PANEL_COLUMNS;
            block->width = width - column * PANEL_COLUMNS;
            block->width = block->width < PANEL_COLUMNS ? block->width : PANEL_COLUMNS;
            block->part.first = slab->first + slab->units * part / parts;
            block->part.end = slab->first + slab->units * (part + 1) / parts;
            block->c = job->c != NULL ? job->c + slab->row * job->ldc + block->column : own.c;
            block->ldc = job->c != NULL ? job->ldc : block->width;
        }
        if (item == 0) {
            continue;
        }
        const struct block *ready = &blocks[(item - 1) % 2];
        run_block(product, slab, mine.rows, ready, item < columns * parts ? block : NULL, own.b);
        if (job->epilogue != NULL && part == 0 && slab->first + slab->units == product->units) {
            const size_t row = tile_row(slab, mine.rows.begin);
            job->epilogue->run(job->epilogue->context, ready->c + (row - slab->row) * ready->ldc,
                               ready->ldc, row, tile_row(slab, mine.rows.end) - row, ready->column,
                               ready->width);
        }
    }
}

/* Slabs as large as the room holds: whole chains where there is no C to hold them in between, else
 * at least LONG steps if there are as many. */
static void run_team(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room,
                     enum packing packing) {
    enum { LONG = 1024 };
    const bool pairs = packing != PACK_F32;
    const struct product product = {
        .job = job,
        .packing = packing,
        .steps_per_unit = packing == PACK_WIDENED ? 2 : 1,
        .units = units_of(job->k, packing),
        .a = {job->a, job->lda * (pairs && !job->a_float ? 2 : 4), job->form != CT_TN,
              pairs && job->a_float},
        .b = {job->b, job->ldb * (pairs && !job->b_float ? 2 : 4), job->form == CT_NT,
              pairs && job->b_float},
        .room = room,
    };
    const size_t held = room.count / (PANEL_ROWS * product.steps_per_unit); /* units of one tile */
    const size_t wanted = LONG / product.steps_per_unit;
    const size_t units = job->c != NULL && product.units > wanted ? wanted : product.units;
    size_t tiles = units == 0 ? held : held / units;
    tiles = tiles < CT_EPILOGUE_ROWS / TILE_ROWS ? tiles : CT_EPILOGUE_ROWS / TILE_ROWS;
    CT_ASSERT(tiles > 0);
    const size_t blocks = (job->m + tiles * TILE_ROWS - 1) / (tiles * TILE_ROWS);
    ct_barrier(hand);
    for (size_t block = 0; block < blocks; block++) {
        struct slab slab = {.row = job->m * block / blocks};
        slab.rows = job->m * (block + 1) / blocks - slab.row;
        slab.tiles = (slab.rows + TILE_ROWS - 1) / TILE_ROWS;
        const size_t most = held / slab.tiles / 16 * 16;
        do {
            const size_t left = product.units - slab.first;
            slab.units = left <= held / slab.tiles ? left : most;
            if (block > 0 || slab.first > 0) {
                ct_barrier(hand); /* the slab before is no longer read */
            }
            pack_slab(&product, &slab, hand);
            ct_barrier(hand);
            run_slab(&product, &slab, hand);
            slab.first += slab.units;
        } while (slab.first < product.units);
    }
}

#endif
