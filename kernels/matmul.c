#include "matmul.h"

#include "functions.h"

enum { TILE = 64 };

/* One operand as the chain sees it: element (outer, p) for chain step p. */
struct operand {
    const void *data;
    size_t outer_stride, chain_stride;
    bool bf16;
};

static inline float element(const struct operand *operand, size_t outer, size_t p) {
    const size_t index = outer * operand->outer_stride + p * operand->chain_stride;
    if (operand->bf16) {
        return ct_float32((uint32_t)((const uint16_t *)operand->data)[index] << 16);
    }
    return ((const float *)operand->data)[index];
}

/* Chain steps first … first + count − 1 of the columns of one tile, for every row. The step t
 * takes element t, or under E3 element t ^ 1: of each pair the odd one first. */
static void run_tile(const struct ct_matmul *job, const struct operand *a, const struct operand *b,
                     size_t column, size_t width, size_t first, size_t count, bool last) {
    float tile[TILE][TILE];
    const size_t swap = a->bf16 ? 1 : 0;
    for (size_t t = 0; t < count; t++) {
        const size_t p = (first + t) ^ swap;
        for (size_t j = 0; j < TILE; j++) {
            tile[t][j] = j < width && p < job->k ? element(b, column + j, p) : 0.0f;
        }
    }
    for (size_t i = 0; i < job->m; i++) {
        float *c = job->c + i * job->ldc + column;
        float chain[TILE] = {0};
        if (job->resume || first > 0) {
            memcpy(chain, c, width * sizeof(float));
        }
        float values[TILE];
        for (size_t t = 0; t < count; t++) {
            const size_t p = (first + t) ^ swap;
            values[t] = p < job->k ? element(a, i, p) : 0.0f;
        }
        for (size_t t = 0; t < count; t++) {
            for (size_t j = 0; j < TILE; j++) {
                chain[j] = __builtin_fmaf(values[t], tile[t][j], chain[j]);
            }
        }
        for (size_t j = 0; j < width; j++) {
            c[j] = last ? chain[j] + 0.0f : chain[j];
        }
    }
}

static void run(const struct ct_matmul *job, bool bf16) {
    const bool tn = job->form == CT_TN;
    const bool nt = job->form == CT_NT;
    const struct operand a = {job->a, tn ? 1 : job->lda, tn ? job->lda : 1, bf16};
    const struct operand b = {job->b, nt ? job->ldb : 1, nt ? 1 : job->ldb, bf16};
    const size_t steps = bf16 ? (job->k + 1) / 2 * 2 : job->k;
    for (size_t column = 0; column < job->n; column += TILE) {
        const size_t width = job->n - column < TILE ? job->n - column : TILE;
        size_t first = 0;
        do {
            const size_t count = steps - first < TILE ? steps - first : TILE;
            run_tile(job, &a, &b, column, width, first, count, first + count == steps);
            first += count;
        } while (first < steps);
    }
}

struct ct_tile_room *ct_tile_room(void) {
    static _Thread_local struct ct_tile_room room;
    return &room;
}

void ct_matmul_f32_scalar(const struct ct_matmul *job) {
    run(job, false);
}

void ct_matmul_bf16_scalar(const struct ct_matmul *job) {
    run(job, true);
}
