/* The blocked matmul that every overlay shares: packing, blocking and edges. A file that
 * includes it first defines the vectors:
 *
 *   LANES              binary32 values of a vector
 *   TILE_ROWS          rows of the register tile, at most PANEL_ROWS; its columns are 2·LANES
 *   PANEL_ROWS         stride of a packed A panel, a multiple of LANES
 *   vec, vec_mask      a vector; a choice of its lanes
 *   lanes_mask(count)  the first `count` lanes, count ≤ LANES
 *   load_lanes, store_lanes, zero_lanes, add_zero
 *   load_step(b), step(acc, a, b)   a vector of B's panel; one step of LANES chains with *a
 *   transpose, interleave   of 4-byte units and of pairs: see avx512_tiles.h
 *   round_lanes(to, from, count)   ct_bf16_round of `count` floats, at most 2·LANES
 *   RUN_KERNEL(kernel, rows, …)    if a register tile of so many rows takes more than a call
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

#define ALWAYS static inline __attribute__((always_inline))
#ifndef RUN_KERNEL
#define RUN_KERNEL(kernel, rows, ...) (kernel)(__VA_ARGS__)
#endif

enum {
    PANEL_COLUMNS = 2 * LANES,
    STEPS_MAX = 1024,  /* of a block: its panel of B takes half an L2 at most */
    AHEAD_LINES = 4,   /* rows along the chain are asked for so many lines before their use */
    WIDEN_UNITS = 128, /* that are packed as pairs before they are widened */
    ACROSS_UNITS = 8,  /* of rows across the chain that are packed together */
    LINE = 64,         /* bytes of the cache */
    AHEAD_STEPS = 32,  /* A is asked for so many steps before its use: it comes from L3 */
    AHEAD_TILES = 16,  /* the next block's B while the last so many tiles are run */
};

_Static_assert(PANEL_ROWS % LANES == 0 && TILE_ROWS <= PANEL_ROWS, "A panels are whole vectors");
_Static_assert(16 % PANEL_ROWS == 0, "what ops.h says of rooms");
_Static_assert((int)PANEL_COLUMNS <= (int)CT_EPILOGUE_COLUMNS, "epilogues see whole panels");

/* How a panel holds the chain. */
enum packing { PACK_F32, PACK_PAIRS, PACK_WIDENED };

/* One register tile: `steps` steps on packed panels; C starts from itself when `resume`. */
typedef void kernel(size_t steps, const float *a, const float *b, float *c, size_t ldc, bool resume,
                    vec_mask left, vec_mask right);

ALWAYS void run_tile(int rows, int vectors, size_t steps, const float *a, const float *b, float *c,
                     size_t ldc, bool resume, vec_mask left, vec_mask right) {
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
    size_t length;  /* elements of the chain */
};

/* What of an operand goes into a panel: `count` rows (columns) from `outer` on, units of the chain.
 */
struct piece {
    size_t outer, count;
    size_t first, units;
};

/* The least k such that the chain has no element from 2·units on. */
static inline size_t units_of(size_t elements, enum packing packing) {
    return packing == PACK_F32 ? elements : (elements + 1) / 2;
}

/* One transposition. `ahead`: there is more of these rows, which is asked for. */
ALWAYS void pack_group(float *to, size_t width, const struct source *source, const char *from,
                       size_t rows, size_t units, bool ahead) {
    for (size_t i = 0; ahead && i < rows; i++) {
        __builtin_prefetch(from + i * source->leading + AHEAD_LINES * LINE, 0, 3);
    }
    if (!source->rounded) {
        transpose(to, width, from, source->leading, rows, units);
        return;
    }
    _Alignas(64) uint16_t rounded[LANES][2 * LANES];
    for (size_t i = 0; i < rows; i++) {
        round_lanes(rounded[i], (const float *)(const void *)(from + i * source->leading),
                    2 * units);
    }
    transpose(to, width, (const char *)rounded, sizeof rounded[0], rows, units);
}

/* The last unit of an odd chain: its partner is zero. */
static void pack_half(float *to, const struct source *source, const char *from, size_t count) {
    for (size_t j = 0; j < count; j++, from += source->leading) {
        uint16_t pair[2 * LANES] = {0};
        if (source->rounded) {
            round_lanes(pair, (const float *)(const void *)from, 1);
        } else {
            memcpy(pair, from, 2);
        }
        memcpy(to + j, pair, 4);
    }
}

/* Rows that run along the chain, 4 bytes a unit: transpositions. */
ALWAYS void pack_along(float *panel, size_t width, const struct source *source, struct piece piece,
                       enum packing packing) {
    const size_t unit_bytes = source->rounded ? 8 : 4;
    const char *rows = source->data + piece.outer * source->leading + piece.first * unit_bytes;
    const bool half = packing != PACK_F32 && (piece.first + piece.units) * 2 > source->length;
    const size_t whole = half ? piece.units - 1 : piece.units;
    for (size_t group = 0; group < piece.count; group += LANES) {
        const size_t valid = piece.count - group < LANES ? piece.count - group : LANES;
        const char *from = rows + group * source->leading;
        for (size_t unit = 0; unit < whole; unit += LANES) {
            const size_t some = whole - unit < LANES ? whole - unit : LANES;
            pack_group(panel + unit * width + group, width, source, from + unit * unit_bytes, valid,
                       some, (whole - unit) * unit_bytes > AHEAD_LINES * LINE);
        }
    }
    if (half) {
        pack_half(panel + whole * width, source, rows + whole * unit_bytes, piece.count);
    }
}

/* A unit of pairs from two rows; odd NULL: zero. */
ALWAYS void pack_pairs(float *to, size_t width, const struct source *source, const char *even,
                       const char *odd, size_t count) {
    static const uint16_t zeros[2 * LANES];
    _Alignas(64) uint16_t rounded[2][2 * LANES];
    const uint16_t *low = rounded[0], *high = odd != NULL ? rounded[1] : zeros;
    if (source->rounded) {
        round_lanes(rounded[0], (const float *)(const void *)even, count);
        if (odd != NULL) {
            round_lanes(rounded[1], (const float *)(const void *)odd, count);
        }
    } else {
        low = (const uint16_t *)(const void *)even;
        high = odd != NULL ? (const uint16_t *)(const void *)odd : high;
    }
    const size_t left = count < LANES ? count : LANES;
    interleave(to, low, high, left);
    if (width > LANES) {
        interleave(to + LANES, low + LANES, high + LANES, count - left);
    }
}

/* Rows that run across the chain: copied, or for pairs interleaved. */
ALWAYS void pack_across(float *panel, size_t width, const struct source *source, struct piece piece,
                        enum packing packing) {
    const size_t left = piece.count < LANES ? piece.count : LANES;
    const vec_mask all = lanes_mask(LANES), left_mask = lanes_mask(left),
                   right_mask = lanes_mask(piece.count - left);
    const size_t rows = packing == PACK_F32 ? 1 : 2; /* of a unit */
    const size_t bytes = packing == PACK_F32 || source->rounded ? 4 : 2;
    const size_t leading = source->leading;
    const char *row = source->data + piece.first * rows * leading + piece.outer * bytes;
    for (size_t unit = piece.first; unit < piece.first + piece.units; unit++) {
        for (size_t i = 0; i < rows && (unit + ACROSS_UNITS + 1) * rows <= source->length; i++) {
            __builtin_prefetch(row + (rows * ACROSS_UNITS + i) * leading, 0, 3);
        }
        if (packing == PACK_F32) {
            const float *from = (const float *)(const void *)row;
            store_lanes(panel, all, load_lanes(from, left_mask));
            if (width > LANES) {
                store_lanes(panel + LANES, all, load_lanes(from + LANES, right_mask));
            }
        } else {
            const bool half = unit * 2 + 1 == source->length;
            pack_pairs(panel, width, source, row, half ? NULL : row + leading, piece.count);
        }
        row += rows * leading;
        panel += width;
    }
}

/* Whole panels are told apart, so that their masks are constants. */
ALWAYS void pack_units(float *panel, size_t width, const struct source *source, struct piece piece,
                       enum packing packing) {
    if (source->along) {
        pack_along(panel, width, source, piece, packing);
    } else if (piece.count == width) {
        piece.count = width;
        pack_across(panel, width, source, piece, packing);
    } else {
        pack_across(panel, width, source, piece, packing);
    }
}

/* Inlined twice, for A and for B, so that the width is a constant. */
ALWAYS void pack(float *panel, size_t width, const struct source *source, struct piece piece,
                 enum packing packing) {
    if (packing == PACK_F32) {
        pack_units(panel, width, source, piece, PACK_F32);
        return;
    }
    if (packing == PACK_PAIRS) {
        pack_units(panel, width, source, piece, PACK_PAIRS);
        return;
    }
    uint32_t pairs[WIDEN_UNITS * PANEL_COLUMNS];
    const size_t end = piece.first + piece.units;
    for (; piece.first < end; piece.first += piece.units) {
        piece.units = end - piece.first < WIDEN_UNITS ? end - piece.first : WIDEN_UNITS;
        pack_units((float *)(void *)pairs, width, source, piece, PACK_PAIRS);
        uint32_t *restrict out = (uint32_t *)(void *)panel;
        for (size_t unit = 0; unit < piece.units; unit++) {
            for (size_t j = 0; j < width; j++) {
                const uint32_t pair = pairs[unit * width + j];
                out[2 * unit * width + j] = pair & 0xffff0000u;
                out[(2 * unit + 1) * width + j] = pair << 16;
            }
        }
        panel += 2 * piece.units * width;
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
    size_t height, higher; /* of the tiles, the first `higher` have one row more */
    size_t first, units;
};

/* A hand's own memory: a panel of B, which stays in L2, and one of outputs that C does not get. */
struct own {
    _Alignas(64) float b[STEPS_MAX * PANEL_COLUMNS];
    _Alignas(64) float c[CT_EPILOGUE_ROWS * PANEL_COLUMNS];
};

static inline size_t tile_row(const struct slab *slab, size_t tile) {
    return slab->row + tile * slab->height + (tile < slab->higher ? tile : slab->higher);
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
static void prefetch(const struct source *source, struct piece piece, enum packing packing,
                     size_t part, size_t parts) {
    const size_t per_unit = packing == PACK_F32 ? 1 : 2;
    const size_t bytes = packing == PACK_F32 || source->rounded ? 4 : 2;
    const size_t elements = piece.units * per_unit, begin = piece.first * per_unit;
    const size_t rows = source->along ? piece.count : elements;
    const size_t length = (source->along ? elements : piece.count) * bytes;
    const char *from = source->data + (source->along ? piece.outer : begin) * source->leading +
                       (source->along ? begin : piece.outer) * bytes;
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
static __attribute__((noinline)) void pack_slab(const struct product *product,
                                                const struct slab *slab, struct ct_hand hand) {
    const struct ct_span tiles = ct_share(hand, slab->tiles, 1);
    const size_t end = slab->first + slab->units;
    const size_t most = product->a.along ? slab->units : ACROSS_UNITS;
    for (size_t first = slab->first; first < end; first += most) {
        const struct part some = {first, end - first < most ? end : first + most};
        for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
            const size_t i = tile_row(slab, tile);
            const struct part part = narrow(product, i, tile_row(slab, tile + 1), some);
            if (part.end > part.first) {
                /* Rows of the next tile fill the panel up, as long as there are any. */
                const size_t below = product->job->m - i;
                pack(tile_panel(product, slab, tile) +
                         (part.first - slab->first) * product->steps_per_unit * PANEL_ROWS,
                     PANEL_ROWS, &product->a,
                     (struct piece){i, below < PANEL_ROWS ? below : PANEL_ROWS, part.first,
                                    part.end - part.first},
                     product->packing);
            }
        }
    }
}

/* One panel of C's columns in some of a slab's tiles, and a part of the chain. */
struct block {
    struct ct_span tiles;
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
        if ((uintptr_t)row % LINE != 0) {
            __builtin_prefetch(row + block->width - 1, 1, 3);
        }
    }
}

/* All tiles of a block, with the panel of B; meanwhile what the next block needs is asked for. */
static __attribute__((noinline)) void run_block(const struct product *product,
                                                const struct slab *slab, const struct block *block,
                                                const struct block *next, float *b) {
    const struct ct_matmul *job = product->job;
    const struct ct_span tiles = block->tiles;
    const size_t steps = product->steps_per_unit;
    const size_t top = tile_row(slab, tiles.begin), bottom = tile_row(slab, tiles.end);
    const struct part needed = narrow(product, top, bottom, block->part);
    pack(b, PANEL_COLUMNS, &product->b,
         (struct piece){block->column, block->width, needed.first, needed.end - needed.first},
         product->packing);
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
            prefetch_tile(slab, next, next->tiles.begin);
        }
        if (next != NULL && tiles.end - tiles.begin >= AHEAD_TILES &&
            tiles.end - tile <= AHEAD_TILES) {
            prefetch(&product->b,
                     (struct piece){next->column, next->width, next->part.first,
                                    next->part.end - next->part.first},
                     product->packing, AHEAD_TILES - (tiles.end - tile), AHEAD_TILES);
        }
        const size_t skipped = part.end > part.first ? (part.first - needed.first) * steps : 0;
        RUN_KERNEL(kernels[i_end - i - 1][two ? 1 : 0], i_end - i, (part.end - part.first) * steps,
                   tile_panel(product, slab, tile) +
                       (part.first - slab->first) * steps * PANEL_ROWS,
                   b + skipped * PANEL_COLUMNS, block->c + (i - slab->row) * block->ldc, block->ldc,
                   job->resume || block->part.first > 0, left_mask, right_mask);
    }
}

/* A hand's way through a slab. Its outputs are dealt out in items: panels of columns, and where
 * these are few for so many hands, in groups of rows, each of which packs B again. An item goes by
 * the slab's part of the chain in blocks of equal length. */
struct walk {
    struct ct_hand hand;
    size_t panels, groups, parts;
    struct ct_span dealt;
    size_t item, part; /* what comes next */
};

static struct walk begin_walk(const struct product *product, const struct slab *slab,
                              struct ct_hand hand) {
    enum { ITEMS_OF_HAND = 4 };
    const size_t most = STEPS_MAX / product->steps_per_unit;
    struct walk walk = {
        .hand = hand,
        .panels = (product->job->n + PANEL_COLUMNS - 1) / PANEL_COLUMNS,
        .groups = 1,
        .parts = slab->units == 0 ? 1 : (slab->units + most - 1) / most,
    };
    while (hand.all > 1 && walk.groups < slab->tiles &&
           walk.panels * walk.groups < hand.all * ITEMS_OF_HAND) {
        walk.groups++;
    }
    return walk;
}

static bool next_block(const struct product *product, const struct slab *slab, struct walk *walk,
                       float *own_c, struct block *block) {
    const struct ct_matmul *job = product->job;
    if (walk->item == walk->dealt.end) {
        if (!ct_deal(walk->hand, walk->panels * walk->groups, &walk->dealt)) {
            return false;
        }
        walk->item = walk->dealt.begin;
    }
    const size_t group = walk->item / walk->panels;
    block->column = walk->item % walk->panels * PANEL_COLUMNS;
    block->width = job->n - block->column;
    block->width = block->width < PANEL_COLUMNS ? block->width : PANEL_COLUMNS;
    block->tiles.begin = slab->tiles * group / walk->groups;
    block->tiles.end = slab->tiles * (group + 1) / walk->groups;
    block->part.first = slab->first + slab->units * walk->part / walk->parts;
    block->part.end = slab->first + slab->units * (walk->part + 1) / walk->parts;
    block->c = job->c != NULL ? job->c + slab->row * job->ldc + block->column : own_c;
    block->ldc = job->c != NULL ? job->ldc : block->width;
    walk->part = (walk->part + 1) % walk->parts;
    walk->item += walk->part == 0;
    return true;
}

/* This hand's outputs, as far as the slab takes their chains. */
static void run_slab(const struct product *product, const struct slab *slab, struct ct_hand hand) {
    struct own own;
    const struct ct_epilogue *epilogue = product->job->epilogue;
    struct walk walk = begin_walk(product, slab, hand);
    struct block blocks[2];
    bool more = next_block(product, slab, &walk, own.c, &blocks[0]);
    for (size_t number = 0; more; number++) {
        const struct block *block = &blocks[number % 2], *next = &blocks[(number + 1) % 2];
        more = next_block(product, slab, &walk, own.c, &blocks[(number + 1) % 2]);
        run_block(product, slab, block, more ? next : NULL, own.b);
        if (epilogue != NULL && block->part.end == product->units) {
            const size_t row = tile_row(slab, block->tiles.begin);
            epilogue->run(epilogue->context, block->c + (row - slab->row) * block->ldc, block->ldc,
                          row, tile_row(slab, block->tiles.end) - row, block->column, block->width);
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
              pairs && job->a_float, job->k},
        .b = {job->b, job->ldb * (pairs && !job->b_float ? 2 : 4), job->form == CT_NT,
              pairs && job->b_float, job->k},
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
        slab.height = slab.rows / slab.tiles;
        slab.higher = slab.rows % slab.tiles;
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
