#include <cotrain/entry.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

static struct ct_assignment items[CT_NODES_MAX];

static struct ct_assignments example(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (struct ct_assignment){.node = i + 1,
                                          .epoch = i % 3,
                                          .index = i % 4,
                                          .reset = i % 4 == 0,
                                          .steps = 8 + i % 57,
                                          .position = (uint64_t)i << 40};
    }
    struct ct_assignments assignments = {.round = 9, .count = count, .items = items};
    memset(assignments.run_id.bytes, 7, 32);
    return assignments;
}

static enum ct_err decode_and_encode(struct ct_bytes bytes) {
    struct ct_assignments assignments;
    enum ct_err err = ct_assignments_decode(bytes, &assignments);
    if (err == CT_OK) {
        struct ct_buf again;
        ct_buf_init(&again, CT_ASSIGNMENTS_BYTES_MAX);
        assert_int_equal(ct_assignments_encode(&assignments, &again), CT_OK);
        assert_int_equal(again.length, bytes.length);
        assert_memory_equal(again.data, bytes.data, bytes.length);
        ct_buf_deinit(&again);
        ct_assignments_deinit(&assignments);
    }
    return err;
}

static void comes_back_for_one_node_and_for_all(void **state) {
    (void)state;
    const uint32_t counts[] = {1, 3, CT_NODES_MAX};
    for (size_t c = 0; c < 3; c++) {
        struct ct_assignments assignments = example(counts[c]);
        struct ct_buf buf;
        ct_buf_init(&buf, CT_ASSIGNMENTS_BYTES_MAX);
        assert_int_equal(ct_assignments_encode(&assignments, &buf), CT_OK);
        struct ct_assignments back;
        assert_int_equal(ct_assignments_decode(ct_buf_bytes(&buf), &back), CT_OK);
        assert_int_equal(back.count, counts[c]);
        assert_int_equal(back.round, 9);
        assert_memory_equal(back.run_id.bytes, assignments.run_id.bytes, 32);
        for (uint32_t i = 0; i < back.count; i++) {
            const struct ct_assignment *item = &back.items[i];
            assert_int_equal(item->node, i + 1);
            assert_int_equal(item->epoch, items[i].epoch);
            assert_int_equal(item->index, items[i].index);
            assert_int_equal(item->reset, items[i].reset);
            assert_int_equal(item->steps, items[i].steps);
            assert_true(item->position == items[i].position);
            assert_ptr_equal(ct_assignments_find(&back, i + 1), item);
        }
        assert_null(ct_assignments_find(&back, 0));
        assert_null(ct_assignments_find(&back, counts[c] + 1));
        ct_assignments_deinit(&back);
        ct_buf_deinit(&buf);
    }
}

static void damage_is_refused_or_is_another_list(void **state) {
    (void)state;
    struct ct_assignments assignments = example(5);
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ASSIGNMENTS_BYTES_MAX);
    assert_int_equal(ct_assignments_encode(&assignments, &buf), CT_OK);
    unsigned refused = mutate_check(decode_and_encode, ct_buf_bytes(&buf), 0, 5, 20000);
    assert_in_range(refused, 1000, 19999);
    ct_buf_deinit(&buf);
}

static void refused(const struct ct_assignments *assignments) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ASSIGNMENTS_BYTES_MAX);
    assert_int_equal(ct_assignments_encode(assignments, &buf), CT_ERR_FORMAT);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void wrong_lists_are_refused(void **state) {
    (void)state;
    struct ct_assignments assignments = example(4);
    assignments.round = 0;
    refused(&assignments);
    assignments = example(4);
    assignments.count = 0;
    refused(&assignments);
    assignments.count = CT_NODES_MAX + 1;
    refused(&assignments);
    assignments = example(4);
    items[2].node = 2;
    refused(&assignments);
    assignments = example(4);
    items[0].node = 0;
    refused(&assignments);
    assignments = example(4);
    items[3].node = CT_NODES_MAX + 1;
    refused(&assignments);
    assignments = example(4);
    items[1].steps = 0;
    refused(&assignments);
    items[1].steps = CT_STEPS_MAX + 1;
    refused(&assignments);
    assignments = example(4);
    items[0].reset = false;
    refused(&assignments);
}

/* A megabyte in one list: more elements than nodes. */
static void long_lists_are_refused(void **state) {
    (void)state;
    size_t length = 1000000;
    uint8_t *bytes = malloc(length + 4);
    memcpy(bytes, (uint8_t[]){0x1a, 0xc0, 0x84, 0x3d}, 4);
    memset(bytes + 4, 1, length);
    assert_int_equal(decode_and_encode((struct ct_bytes){bytes, length + 4}), CT_ERR_FORMAT);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_for_one_node_and_for_all),
        cmocka_unit_test(damage_is_refused_or_is_another_list),
        cmocka_unit_test(wrong_lists_are_refused),
        cmocka_unit_test(long_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
