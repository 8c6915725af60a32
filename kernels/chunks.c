#include <cotrain/assert.h>
#include <cotrain/codec.h>

#include <assert.h>
#include <stdlib.h>

#define TILE_EDGE 64u

static_assert(TILE_EDGE * TILE_EDGE == CT_CHUNK_VALUES, "a full tile is a full chunk");
static_assert((CT_CHUNK_VALUES + 32) >> 6 == CT_CHUNK_SELECTED_MAX, "k of a full chunk");

static uint64_t ceil_div(uint64_t a, uint64_t b) {
    return (a + b - 1) / b;
}

/* Whole rows of a chunk of an embedding; 0 when a row is longer than a chunk and is cut itself. */
static uint32_t rows_per_chunk(const struct ct_tensor *tensor) {
    return CT_CHUNK_VALUES / tensor->columns;
}

static uint64_t tensor_chunks(const struct ct_tensor *tensor) {
    const uint64_t rows = tensor->rows;
    const uint64_t columns = tensor->columns;
    switch (tensor->kind) {
    case CT_TENSOR_MATRIX:
        return ceil_div(rows, TILE_EDGE) * ceil_div(columns, TILE_EDGE);
    case CT_TENSOR_EMBEDDING:
        return rows_per_chunk(tensor) > 0 ? ceil_div(rows, rows_per_chunk(tensor))
                                          : rows * ceil_div(columns, CT_CHUNK_VALUES);
    case CT_TENSOR_VECTOR:
        break;
    }
    return ceil_div(rows * columns, CT_CHUNK_VALUES);
}

static void append(struct ct_chunks *chunks, size_t offset, uint32_t rows, uint32_t columns,
                   uint32_t stride) {
    const uint32_t values = rows * columns;
    CT_ASSERT(values > 0 && values <= CT_CHUNK_VALUES);
    const uint32_t rounded = (values + 32) >> 6;
    const uint32_t selected = rounded > 0 ? rounded : 1;
    chunks->chunks[chunks->count++] = (struct ct_chunk){
        .offset = offset,
        .rows = rows,
        .columns = columns,
        .stride = stride,
        .values = values,
        .selected = selected,
    };
    chunks->selected_total += selected;
}

/* `values` contiguous values in runs of at most `run`. */
static void append_runs(struct ct_chunks *chunks, size_t offset, uint64_t values, uint32_t run) {
    for (uint64_t done = 0; done < values; done += run) {
        const uint64_t left = values - done;
        const uint32_t length = left < run ? (uint32_t)left : run;
        append(chunks, offset + (size_t)done, 1, length, length);
    }
}

static void append_tiles(struct ct_chunks *chunks, const struct ct_tensor *tensor) {
    for (uint32_t row = 0; row < tensor->rows; row += TILE_EDGE) {
        const uint32_t rows_left = tensor->rows - row;
        const uint32_t rows = rows_left < TILE_EDGE ? rows_left : TILE_EDGE;
        for (uint32_t column = 0; column < tensor->columns; column += TILE_EDGE) {
            const uint32_t columns_left = tensor->columns - column;
            const uint32_t columns = columns_left < TILE_EDGE ? columns_left : TILE_EDGE;
            append(chunks, tensor->offset + (size_t)row * tensor->columns + column, rows, columns,
                   tensor->columns);
        }
    }
}

static void append_tensor(struct ct_chunks *chunks, const struct ct_tensor *tensor) {
    const uint64_t values = (uint64_t)tensor->rows * tensor->columns;
    switch (tensor->kind) {
    case CT_TENSOR_MATRIX:
        append_tiles(chunks, tensor);
        return;
    case CT_TENSOR_EMBEDDING:
        if (rows_per_chunk(tensor) > 0) {
            append_runs(chunks, tensor->offset, values, rows_per_chunk(tensor) * tensor->columns);
            return;
        }
        for (uint32_t row = 0; row < tensor->rows; row++) {
            append_runs(chunks, tensor->offset + (size_t)row * tensor->columns, tensor->columns,
                        CT_CHUNK_VALUES);
        }
        return;
    case CT_TENSOR_VECTOR:
        break;
    }
    append_runs(chunks, tensor->offset, values, CT_CHUNK_VALUES);
}

enum ct_err ct_chunks_init(struct ct_chunks *chunks, const struct ct_layout *layout) {
    *chunks = (struct ct_chunks){.layout = layout};
    uint64_t count = 0;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        CT_ASSERT(layout->tensors[i].rows > 0 && layout->tensors[i].columns > 0);
        count += tensor_chunks(&layout->tensors[i]);
    }
    if (count == 0 || count > UINT32_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "the model makes %llu chunks, 1 to %lu are possible",
                       (unsigned long long)count, (unsigned long)UINT32_MAX);
    }
    chunks->chunks = calloc((size_t)count, sizeof *chunks->chunks);
    if (chunks->chunks == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the map of %llu chunks",
                       (unsigned long long)count);
    }
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        append_tensor(chunks, &layout->tensors[i]);
    }
    CT_ASSERT(chunks->count == count);
    return CT_OK;
}

void ct_chunks_deinit(struct ct_chunks *chunks) {
    free(chunks->chunks);
    *chunks = (struct ct_chunks){0};
}
