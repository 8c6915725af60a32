/* A small model with every kind of chunk, and a generator of test values. */
#ifndef TESTS_CODEC_FIXTURE_H
#define TESTS_CODEC_FIXTURE_H

#include <cotrain/codec.h>

#include <string.h>

static inline uint64_t fixture_random(uint64_t *state) {
    /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* About normal, deviation 1. */
static inline float fixture_normal(uint64_t *state) {
    float sum = 0.0f;
    for (int i = 0; i < 12; i++) {
        sum += (float)(fixture_random(state) >> 40) * 0x1p-24f;
    }
    return sum - 6.0f;
}

/* A layout over caller's tensors (name, kind, rows, columns filled in); sets the offsets. */
static inline struct ct_layout fixture_layout(struct ct_tensor *tensors, uint32_t count) {
    struct ct_layout layout = {.tensor_count = count, .tensors = tensors};
    for (uint32_t i = 0; i < count; i++) {
        tensors[i].offset = layout.parameters;
        layout.parameters += (size_t)tensors[i].rows * tensors[i].columns;
    }
    return layout;
}

#define FIXTURE_TENSORS                                                                            \
    {                                                                                              \
        {.name = "a", .kind = CT_TENSOR_MATRIX, .rows = 130, .columns = 70},                       \
            {.name = "b", .kind = CT_TENSOR_EMBEDDING, .rows = 40, .columns = 300},                \
            {.name = "c", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 5000},                   \
            {.name = "d", .kind = CT_TENSOR_EMBEDDING, .rows = 2, .columns = 5000},                \
            {.name = "e", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 7},                      \
            {.name = "f", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 1},                      \
    }
#define FIXTURE_TENSOR_COUNT 6

#endif
