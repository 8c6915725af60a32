#include "matmul.h"

#include "functions.h"

enum { TILE = 64 };

_Static_assert((int)TILE <= (int)CT_EPILOGUE_ROWS && (int)TILE <= (int)CT_EPILOGUE_COLUMNS,
               "epilogues see whole tiles");

/* One operand as the chain sees it: element (outer, p) for chain step p. */
struct operand {
    const void *data;
    size_t outer_stride, chain_stride;
    bool bf16;    /* stored so */
    bool rounded; /* to bf16 when read */
};

static inline float element(const struct operand *operand, size_t outer, size_t p) {
    const size_t index = outer * operand->outer_stride + p * operand->chain_stride;
    if (operand->bf16) {
        return ct_float32((uint32_t)((const uint16_t *)operand->data)[index] << 16);
    }
    const float value = ((const float *)operand->data)[index];
    return operand->rounded ? ct_float32((uint32_t)ct_bf16_round(value) << 16) : value;
}

/* A tile of C and the operands of its chains. */
struct tile {
    const struct ct_matmul *job;
    struct operand a, b;
    bool bf16;
    size_t row, rows, column, columns;
};

/* Chain steps first … first + count − 1. The step t takes element t, or under E3 element t ^ 1: of
 * each pair the odd one first. */
static void run_steps(const struct tile *tile, size_t first, size_t count,
                      float chains[TILE][TILE]) {
    float b[TILE][TILE];
    const size_t swap = tile->bf16 ? 1 : 0;
    const size_t k = tile->job->k;
    for (size_t t = 0; t < count; t++) {
        const size_t p = (first + t) ^ swap;
        for (size_t j = 0; j < TILE; j++) {
            const bool there = j < tile->columns && p < k;
            b[t][j] = there ? element(&tile->b, tile->column + j, p) : 0.0f;
        }
    }
    for (size_t i = 0; i < tile->rows; i++) {
        float *chain = chains[i];
        for (size_t t = 0; t < count; t++) {
            const size_t p = (first + t) ^ swap;
            const float a = p < k ? element(&tile->a, tile->row + i, p) : 0.0f;
            for (size_t j = 0; j < TILE; j++) {
                chain[j] = ct_fma(a, b[t][j], chain[j]);
            }
        }
    }
}

static void run_tile(const struct tile *tile) {
    const struct ct_matmul *job = tile->job;
    float chains[TILE][TILE] = {{0}};
    const size_t steps = tile->bf16 ? (job->k + 1) / 2 * 2 : job->k;
    float *c = job->c == NULL ? NULL : job->c + tile->row * job->ldc + tile->column;
    const size_t bytes = tile->columns * sizeof(float);
    for (size_t i = 0; job->resume && i < tile->rows; i++) {
        memcpy(chains[i], c + i * job->ldc, bytes);
    }
    for (size_t first = 0; first < steps; first += TILE) {
        run_steps(tile, first, steps - first < TILE ? steps - first : TILE, chains);
    }
    float *out = &chains[0][0];
    const size_t ld = c != NULL ? job->ldc : tile->columns;
    for (size_t i = 0; i < tile->rows; i++) {
        for (size_t j = 0; j < tile->columns; j++) {
            chains[i][j] += 0.0f;
        }
        /* Without C the rows are moved together; none overtakes the next. */
        memmove(c != NULL ? c + i * ld : out + i * ld, chains[i], bytes);
    }
    if (job->epilogue != NULL) {
        job->epilogue->run(job->epilogue->context, c != NULL ? c : out, ld, tile->row, tile->rows,
                           tile->column, tile->columns);
    }
}

static void run(const struct ct_matmul *job, struct ct_hand hand, bool bf16) {
    const bool tn = job->form == CT_TN;
    const bool nt = job->form == CT_NT;
    struct tile tile = {
        .job = job,
        .a = {job->a, tn ? 1 : job->lda, tn ? job->lda : 1, bf16 && !job->a_float, bf16},
        .b = {job->b, nt ? job->ldb : 1, nt ? 1 : job->ldb, bf16 && !job->b_float, bf16},
        .bf16 = bf16,
    };
    ct_barrier(hand);
    const struct ct_rectangle mine = ct_matmul_share(hand, job, TILE, TILE);
    for (tile.column = mine.columns.begin; tile.column < mine.columns.end; tile.column += TILE) {
        const size_t right = mine.columns.end - tile.column;
        tile.columns = right < TILE ? right : TILE;
        for (tile.row = mine.rows.begin; tile.row < mine.rows.end; tile.row += TILE) {
            const size_t below = mine.rows.end - tile.row;
            tile.rows = below < TILE ? below : TILE;
            run_tile(&tile);
        }
    }
}

void ct_matmul_f32_scalar(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    (void)room;
    run(job, hand, false);
}

void ct_matmul_bf16_scalar(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    (void)room;
    run(job, hand, true);
}
