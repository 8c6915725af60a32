#include "codec_fixture.h"

#include <cotrain/codec.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void the_map_is_the_written_one(void **state) {
    (void)state;
    struct ct_tensor tensors[] = FIXTURE_TENSORS;
    const struct ct_layout layout = fixture_layout(tensors, FIXTURE_TENSOR_COUNT);
    struct ct_chunks chunks;
    assert_int_equal(ct_chunks_init(&chunks, &layout), CT_OK);
    const size_t b = 130 * 70;
    const size_t c = b + 40 * 300;
    const size_t d = c + 5000;
    const size_t e = d + 2 * 5000;
    const struct ct_chunk expected[] = {
        {0, 64, 64, 70, 4096, 64},
        {64, 64, 6, 70, 384, 6},
        {64 * 70, 64, 64, 70, 4096, 64},
        {64 * 70 + 64, 64, 6, 70, 384, 6},
        {128 * 70, 2, 64, 70, 128, 2},
        {128 * 70 + 64, 2, 6, 70, 12, 1},
        {b, 1, 3900, 3900, 3900, 61}, /* 13 rows of 300; (3900 + 32) >> 6 */
        {b + 3900, 1, 3900, 3900, 3900, 61},
        {b + 7800, 1, 3900, 3900, 3900, 61},
        {b + 11700, 1, 300, 300, 300, 5},
        {c, 1, 4096, 4096, 4096, 64},
        {c + 4096, 1, 904, 904, 904, 14},
        {d, 1, 4096, 4096, 4096, 64}, /* rows longer than a chunk, each in runs */
        {d + 4096, 1, 904, 904, 904, 14},
        {d + 5000, 1, 4096, 4096, 4096, 64},
        {d + 9096, 1, 904, 904, 904, 14},
        {e, 1, 7, 7, 7, 1},
        {e + 7, 1, 1, 1, 1, 1},
    };
    assert_int_equal(chunks.count, sizeof expected / sizeof expected[0]);
    uint64_t selected = 0;
    for (uint32_t i = 0; i < chunks.count; i++) {
        const struct ct_chunk *chunk = &chunks.chunks[i];
        assert_int_equal(chunk->offset, expected[i].offset);
        assert_int_equal(chunk->rows, expected[i].rows);
        assert_int_equal(chunk->columns, expected[i].columns);
        assert_true(chunk->rows == 1 || chunk->stride == expected[i].stride);
        assert_int_equal(chunk->values, expected[i].values);
        assert_int_equal(chunk->selected, expected[i].selected);
        selected += chunk->selected;
    }
    assert_int_equal(chunks.selected_total, selected);
    ct_chunks_deinit(&chunks);
}

static void every_value_lies_in_one_chunk(void **state) {
    (void)state;
    for (uint32_t rows = 1; rows < 140; rows += 23) {
        for (uint32_t columns = 1; columns < 9000; columns = columns * 3 + 1) {
            struct ct_tensor tensors[] = {
                {.kind = CT_TENSOR_MATRIX, .rows = rows, .columns = columns},
                {.kind = CT_TENSOR_EMBEDDING, .rows = rows, .columns = columns},
                {.kind = CT_TENSOR_VECTOR, .rows = 1, .columns = columns},
            };
            const struct ct_layout layout = fixture_layout(tensors, 3);
            struct ct_chunks chunks;
            assert_int_equal(ct_chunks_init(&chunks, &layout), CT_OK);
            uint8_t *seen = calloc(layout.parameters, 1);
            assert_non_null(seen);
            for (uint32_t c = 0; c < chunks.count; c++) {
                const struct ct_chunk *chunk = &chunks.chunks[c];
                assert_int_equal(chunk->values, chunk->rows * chunk->columns);
                for (uint32_t i = 0; i < chunk->values; i++) {
                    const size_t at = chunk->offset + (size_t)(i / chunk->columns) * chunk->stride +
                                      i % chunk->columns;
                    assert_true(at < layout.parameters);
                    assert_int_equal(seen[at]++, 0);
                }
            }
            for (size_t i = 0; i < layout.parameters; i++) {
                assert_int_equal(seen[i], 1);
            }
            free(seen);
            ct_chunks_deinit(&chunks);
        }
    }
}

static void too_many_chunks_are_refused(void **state) {
    (void)state;
    struct ct_tensor tensors[] = {
        {.kind = CT_TENSOR_EMBEDDING, .rows = UINT32_MAX, .columns = 4097}};
    const struct ct_layout layout = {.tensor_count = 1, .tensors = tensors};
    struct ct_chunks chunks;
    assert_int_equal(ct_chunks_init(&chunks, &layout), CT_ERR_TOO_LARGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_is_the_written_one),
        cmocka_unit_test(every_value_lies_in_one_chunk),
        cmocka_unit_test(too_many_chunks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
