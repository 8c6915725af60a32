/* Operands into the panels that tiles.h multiplies; the vectors are defined as it says there.
 *
 * A unit of the chain is one element under fp32-1 and a pair under bf16-1. A packed panel holds
 * for each unit the values of TILE_ROWS rows (or 2·LANES columns) side by side: binary32; whole
 * pairs, for the hardware's pair step; or the odd elements and then the even ones, widened, for
 * two fused steps (E3). */
#ifndef COTRAIN_KERNELS_PACKING_H
#define COTRAIN_KERNELS_PACKING_H

#include "functions.h"

#include <stdbool.h>
#include <string.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define ALWAYS static inline __attribute__((always_inline))

enum {
    PANEL_COLUMNS = 2 * LANES,
    LINE = 64,        /* bytes of the cache */
    AHEAD_LINES = 4,  /* rows along the chain are asked for so many lines before their use */
    WIDEN_UNITS = 32, /* that are packed as pairs before they are widened */
    ACROSS_UNITS = 8, /* of rows across the chain that are packed together */
};

_Static_assert(PANEL_ROWS % LANES == 0 && TILE_ROWS <= PANEL_ROWS, "A panels are whole vectors");

/* How a panel holds the chain. */
enum packing { PACK_F32, PACK_PAIRS, PACK_WIDENED };

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

/* A row of bf16 as binary32, filled up with zeros; NULL: all zeros. */
ALWAYS void widen_row(float *to, size_t width, const struct source *source, const char *row,
                      size_t count) {
    uint32_t *restrict out = (uint32_t *)(void *)to;
    const uint16_t *from = (const uint16_t *)(const void *)row;
    const float *from_float = (const float *)(const void *)row;
    const size_t there = row != NULL ? count : 0;
    if (source->rounded) {
        for (size_t j = 0; j < there; j++) {
            out[j] = ct_bf16_widened(from_float[j]);
        }
    } else {
        for (size_t j = 0; j < there; j++) {
            out[j] = (uint32_t)from[j] << 16;
        }
    }
    for (size_t j = there; j < width; j++) {
        out[j] = 0;
    }
}

/* Rows that run across the chain: copied, or pairs of them interleaved or widened. */
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
            const char *odd = unit * 2 + 1 == source->length ? NULL : row + leading;
            if (packing == PACK_PAIRS) {
                pack_pairs(panel, width, source, row, odd, piece.count);
            } else {
                widen_row(panel, width, source, odd, piece.count);
                panel += width;
                widen_row(panel, width, source, row, piece.count);
            }
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

/* Rows along the chain are widened behind their transposition, which as pairs takes half the steps.
 */
ALWAYS void widen_along(float *panel, size_t width, const struct source *source,
                        struct piece piece) {
    float pairs[WIDEN_UNITS * PANEL_COLUMNS];
    pack_along(pairs, width, source, piece, PACK_PAIRS);
    uint32_t *restrict out = (uint32_t *)(void *)panel;
    for (size_t unit = 0; unit < piece.units; unit++) {
        for (size_t j = 0; j < width; j++) {
            const uint32_t pair = ct_bits32(pairs[unit * width + j]);
            out[2 * unit * width + j] = pair & 0xffff0000u;
            out[(2 * unit + 1) * width + j] = pair << 16;
        }
    }
}

/* Floats are rounded behind it too, where no half has to be moved. */
ALWAYS void round_along(float *panel, size_t width, const struct source *source,
                        struct piece piece) {
    float values[2 * WIDEN_UNITS * PANEL_COLUMNS];
    struct source plain = *source;
    plain.rounded = false;
    const size_t end = 2 * (piece.first + piece.units), missing = end > source->length ? 1 : 0;
    pack_along(values, width, &plain,
               (struct piece){piece.outer, piece.count, 2 * piece.first, 2 * piece.units - missing},
               PACK_F32);
    memset(values + (2 * piece.units - missing) * width, 0, missing * width * sizeof *values);
    uint32_t *restrict out = (uint32_t *)(void *)panel;
    for (size_t unit = 0; unit < piece.units; unit++) {
        for (size_t j = 0; j < width; j++) {
            out[2 * unit * width + j] = ct_bf16_widened(values[(2 * unit + 1) * width + j]);
            out[(2 * unit + 1) * width + j] = ct_bf16_widened(values[2 * unit * width + j]);
        }
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
    if (!source->along) {
        pack_units(panel, width, source, piece, PACK_WIDENED);
        return;
    }
    const size_t end = piece.first + piece.units;
    for (; piece.first < end; piece.first += piece.units) {
        piece.units = end - piece.first < WIDEN_UNITS ? end - piece.first : WIDEN_UNITS;
        if (source->rounded) {
            round_along(panel, width, source, piece);
        } else {
            widen_along(panel, width, source, piece);
        }
        panel += 2 * piece.units * width;
    }
}

#endif
