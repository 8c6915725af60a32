/* The blocked matmul that every overlay shares: blocking and edges; packing.h
 * fills the panels. A file that includes it first defines the vectors:
 *
 *   LANES              binary32 values of a vector
 *   TILE_ROWS          rows of the register tile, at most PANEL_ROWS; its columns are 2·LANES
 *   PANEL_ROWS         stride of a packed A panel, a multiple of LANES
 *   vec, vec_mask      a vector; a choice of its lanes
 *   lanes_mask(count)  the first `count` lanes, count ≤ LANES
 *   load_lanes, store_lanes, zero_lanes, add_zero
 *   stream_lanes(to, values)   to an aligned place, past the caches where that can be
 *   stream_end()       what was streamed is visible as other stores are
 *   load_step(b), step(acc, a, b)   a vector of B's panel; one step of LANES chains with *a
 *   transpose, interleave   of 4-byte units and of pairs: see avx512_tiles.h
 *   round_lanes(to, from, count)   ct_bf16_round of `count` floats, at most 2·LANES
 *   RUN_KERNEL(kernel, rows, …)    if a register tile of so many rows takes more than a call
 *
 * Chains run inside one register lane, so blocking decides which outputs are computed together and
 * never the order inside a chain. Between blocks of the chain C holds it; adding +0 at each store
 * instead of the last one alone turns −0 into +0 earlier, which the next store would do as well. */
#ifndef COTRAIN_KERNELS_TILES_H
#define COTRAIN_KERNELS_TILES_H

#include "matmul.h"
#include "packing.h"

#include <cotrain/assert.h>

#include <string.h>

#ifndef RUN_KERNEL
#define RUN_KERNEL(kernel, rows, ...) (kernel)(__VA_ARGS__)
#endif

enum {
    STREAM_BYTES = 4 << 20,          /* of C: more than an L2, which would be emptied for it */
    STREAM_GRADIENT_BYTES = 1 << 20, /* of a gradient of weights, which is read much later */
    STEPS_MAX = 1536,                /* of a block: its panel of B, 96 KiB or 192, stays in L2 */
    AHEAD_STEPS = 32, /* A is asked for so many steps before its use: it comes from L3 */
    AHEAD_TILES = 16, /* the next block's B while the last so many tiles are run */
};

_Static_assert(16 % PANEL_ROWS == 0, "what ops.h says of rooms");
_Static_assert((int)PANEL_COLUMNS <= (int)CT_EPILOGUE_COLUMNS, "epilogues see whole panels");

/* One register tile: `steps` steps on packed panels; C starts from itself when `resume`. */
typedef void kernel(size_t steps, const float *a, const float *b, float *c, size_t ldc, bool resume,
                    vec_mask left, vec_mask right);

ALWAYS void run_tile(int rows, int vectors, bool streams, size_t steps, const float *a,
                     const float *b, float *c, size_t ldc, bool resume, vec_mask left,
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
            float *to = c + (size_t)i * ldc + v * LANES;
            if (streams) {
                stream_lanes(to, add_zero(acc[i][v]));
            } else {
                store_lanes(to, v == 0 ? left : right, add_zero(acc[i][v]));
            }
        }
    }
}

#define KERNEL(rows, vectors, streams, name)                                                       \
    static void tile_##rows##_##name(size_t steps, const float *a, const float *b, float *c,       \
                                     size_t ldc, bool resume, vec_mask left, vec_mask right) {     \
        run_tile(rows, vectors, streams, steps, a, b, c, ldc, resume, left, right);                \
    }
#define KERNELS(rows)                                                                              \
    KERNEL(rows, 1, false, narrow) KERNEL(rows, 2, false, wide) KERNEL(rows, 2, true, streamed)
KERNELS(1)
KERNELS(2)
KERNELS(3)
KERNELS(4)
KERNELS(5)
KERNELS(6)
#define KERNEL_ROW(rows)                                                                           \
    { tile_##rows##_narrow, tile_##rows##_wide, tile_##rows##_streamed }
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

/* kernels[rows − 1]; NARROW has one vector of columns. */
enum { NARROW, WIDE, STREAMED };
static kernel *const kernels[TILE_ROWS][3] = {
    KERNEL_ROW(1),  KERNEL_ROW(2),  KERNEL_ROW(3), KERNEL_ROW(4),  KERNEL_ROW(5),  KERNEL_ROW(6),
#if TILE_ROWS == 14
    KERNEL_ROW(7),  KERNEL_ROW(8),  KERNEL_ROW(9), KERNEL_ROW(10), KERNEL_ROW(11), KERNEL_ROW(12),
    KERNEL_ROW(13), KERNEL_ROW(14),
#endif
};

/* What all hands of a team know of their product. */
struct product {
    const struct ct_matmul *job;
    enum packing packing;
    size_t steps_per_unit;
    size_t units; /* of the chain */
    struct source a, b;
    float *room;   /* a hand's own part of it, when it packs its rows alone */
    size_t held;   /* steps of one register tile there */
    size_t blocks; /* of C's rows */
    bool streams;  /* whole panels of C go past the caches */
};

/* Rows of C and a part of the chain: A's side, packed by all hands together, or by the one that
 * takes these rows alone, in `tiles` panels of a register tile, each of which holds all units. */
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
    return product->room + tile * slab->units * product->steps_per_unit * PANEL_ROWS;
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
    const bool streams = product->streams && block->width == PANEL_COLUMNS &&
                         block->part.first == 0 && block->part.end == product->units;
    const size_t left = block->width > LANES ? LANES : block->width;
    const int which = streams ? STREAMED : block->width > LANES ? WIDE : NARROW;
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
        if (tile + 1 < tiles.end && !streams) {
            prefetch_tile(slab, block, tile + 1);
        } else if (next != NULL && !streams) {
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
        RUN_KERNEL(kernels[i_end - i - 1][which], i_end - i, (part.end - part.first) * steps,
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
    while (hand.all > 1 && !ct_matmul_in_order(product->job) && walk.groups < slab->tiles &&
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
    if (product->streams) {
        stream_end();
    }
}

/* Rows of C, one slab of their chains after the other. Begins behind a barrier, ends without. */
static void run_rows(const struct product *product, size_t block, struct ct_hand hand) {
    struct slab slab = {.row = product->job->m * block / product->blocks};
    slab.rows = product->job->m * (block + 1) / product->blocks - slab.row;
    slab.tiles = (slab.rows + TILE_ROWS - 1) / TILE_ROWS;
    slab.height = slab.rows / slab.tiles;
    slab.higher = slab.rows % slab.tiles;
    const size_t most = product->held / slab.tiles / product->steps_per_unit;
    do {
        const size_t left = product->units - slab.first;
        slab.units = left <= most ? left : most / 16 * 16;
        if (slab.first > 0) {
            ct_barrier(hand); /* the slab before is no longer read */
        }
        pack_slab(product, &slab, hand);
        ct_barrier(hand);
        run_slab(product, &slab, hand);
        slab.first += slab.units;
    } while (slab.first < product->units);
}

/* Of a slab's chains: whole ones where there is no C to hold them in between, else at least LONG
 * steps if there are as many. */
static size_t slab_steps(const struct product *product) {
    enum { LONG = 1024 };
    const size_t steps = product->units * product->steps_per_unit;
    return product->job->c != NULL && steps > LONG ? LONG : steps;
}

/* Whether every hand packs rows for itself alone, in its own part of the room. Cores that share no
 * cache lose much time over a common room; but all of B is packed by each hand then, which many
 * rows and few columns repay. */
static bool takes_rows(const struct product *product, struct ct_hand hand) {
    enum { TILES = 32, COLUMNS_OF_ROW = 4 };
    const struct ct_matmul *job = product->job;
    return hand.all > 1 && !ct_matmul_in_order(job) && job->m >= hand.all * TILES * TILE_ROWS &&
           job->n <= COLUMNS_OF_ROW * job->m &&
           product->held / hand.all >= TILES * slab_steps(product);
}

/* Gradients of weights are next read when all of them are there; elsewhere who asked for a product
 * reads it at once, in a cache if it is small. */
static bool may_stream(const struct ct_matmul *job) {
    const size_t least = job->form == CT_TN ? STREAM_GRADIENT_BYTES : STREAM_BYTES;
    return !job->resume && job->epilogue == NULL && job->m * job->n * sizeof *job->c >= least &&
           ((uintptr_t)job->c | job->ldc * sizeof *job->c) % LINE == 0;
}

/* Slabs as large as the room holds. */
static void run_team(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room,
                     enum packing packing) {
    enum { MOST = CT_EPILOGUE_ROWS / TILE_ROWS };
    const bool pairs = packing != PACK_F32;
    struct product product = {
        .job = job,
        .packing = packing,
        .steps_per_unit = packing == PACK_WIDENED ? 2 : 1,
        .units = units_of(job->k, packing),
        .a = {job->a, job->lda * (pairs && !job->a_float ? 2 : 4), job->form != CT_TN,
              pairs && job->a_float, job->k},
        .b = {job->b, job->ldb * (pairs && !job->b_float ? 2 : 4), job->form == CT_NT,
              pairs && job->b_float, job->k},
        .room = room.floats,
        .held = room.count / PANEL_ROWS,
        .streams = may_stream(job),
    };
    const bool alone = takes_rows(&product, hand);
    const size_t rooms = alone ? hand.all : 1;
    if (alone) {
        product.held /= rooms;
        product.room += product.held * PANEL_ROWS * hand.me;
    }
    const size_t steps = slab_steps(&product), whole = steps > 0 ? product.held / steps : MOST;
    const size_t tiles = whole < MOST ? whole : MOST, together = tiles * TILE_ROWS * rooms;
    CT_ASSERT(tiles > 0);
    product.blocks = (job->m + together - 1) / together * rooms;
    ct_barrier(hand);
    if (alone) {
        struct ct_span dealt = {0, 0};
        while (ct_deal(hand, product.blocks, &dealt)) {
            for (size_t block = dealt.begin; block < dealt.end; block++) {
                run_rows(&product, block, (struct ct_hand){0, 1, NULL});
            }
        }
        return;
    }
    for (size_t block = 0; block < product.blocks; block++) {
        if (block > 0) {
            ct_barrier(hand);
        }
        run_rows(&product, block, hand);
    }
}

#endif
