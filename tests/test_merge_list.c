#include <cotrain/entry.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

static struct ct_merge_item items[CT_NODES_MAX];

static struct ct_merge_list example(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (struct ct_merge_item){.commit_index = 1000000000000u + 3 * i,
                                          .node = CT_NODES_MAX - i,
                                          .outcome = (enum ct_outcome)(1 + i % 3)};
        if (items[i].outcome == CT_OUTCOME_MERGED) {
            items[i].weight = UINT64_MAX - i;
            items[i].weight_q22 = 1u << 22;
            items[i].clip_q15 = 1u << 15;
        }
    }
    return (struct ct_merge_list){.round = 12, .count = count, .items = items};
}

static enum ct_err decode_and_encode(struct ct_bytes bytes) {
    struct ct_merge_list list;
    enum ct_err err = ct_merge_list_decode(bytes, &list);
    if (err == CT_OK) {
        struct ct_buf again;
        ct_buf_init(&again, CT_MERGE_LIST_BYTES_MAX);
        assert_int_equal(ct_merge_list_encode(&list, &again), CT_OK);
        assert_int_equal(again.length, bytes.length);
        assert_memory_equal(again.data, bytes.data, bytes.length);
        ct_buf_deinit(&again);
        ct_merge_list_deinit(&list);
    }
    return err;
}

static void comes_back_for_none_and_for_all(void **state) {
    (void)state;
    const uint32_t counts[] = {0, 1, CT_NODES_MAX};
    for (size_t c = 0; c < 3; c++) {
        struct ct_merge_list list = example(counts[c]);
        struct ct_buf buf;
        ct_buf_init(&buf, CT_MERGE_LIST_BYTES_MAX);
        assert_int_equal(ct_merge_list_encode(&list, &buf), CT_OK);
        struct ct_merge_list back;
        assert_int_equal(ct_merge_list_decode(ct_buf_bytes(&buf), &back), CT_OK);
        assert_int_equal(back.count, counts[c]);
        assert_int_equal(back.round, 12);
        for (uint32_t i = 0; i < back.count; i++) {
            assert_true(back.items[i].commit_index == items[i].commit_index);
            assert_int_equal(back.items[i].node, items[i].node);
            assert_int_equal(back.items[i].outcome, items[i].outcome);
            assert_true(back.items[i].weight == items[i].weight);
            assert_int_equal(back.items[i].weight_q22, items[i].weight_q22);
            assert_int_equal(back.items[i].clip_q15, items[i].clip_q15);
        }
        ct_merge_list_deinit(&back);
        ct_buf_deinit(&buf);
    }
}

static void damage_is_refused_or_is_another_list(void **state) {
    (void)state;
    struct ct_merge_list list = example(5);
    struct ct_buf buf;
    ct_buf_init(&buf, CT_MERGE_LIST_BYTES_MAX);
    assert_int_equal(ct_merge_list_encode(&list, &buf), CT_OK);
    /* One cut leaves the round alone: a round without commits. */
    unsigned refused = mutate_check(decode_and_encode, ct_buf_bytes(&buf), 1, 6, 20000);
    assert_in_range(refused, 1000, 19999);
    ct_buf_deinit(&buf);
}

static void refused(const struct ct_merge_list *list) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_MERGE_LIST_BYTES_MAX);
    assert_int_equal(ct_merge_list_encode(list, &buf), CT_ERR_FORMAT);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void wrong_lists_are_refused(void **state) {
    (void)state;
    struct ct_merge_list list = example(4);
    list.round = 0;
    refused(&list);
    list = example(4);
    list.count = CT_NODES_MAX + 1;
    refused(&list);
    list = example(4);
    items[2].commit_index = items[1].commit_index;
    refused(&list);
    list = example(4);
    items[2].node = 0;
    refused(&list);
    items[2].node = CT_NODES_MAX + 1;
    refused(&list);
    list = example(4);
    items[0].outcome = (enum ct_outcome)4;
    refused(&list);
    list = example(4);
    items[1].weight = 1;
    refused(&list);
    list = example(4);
    items[2].clip_q15 = 1;
    refused(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_for_none_and_for_all),
        cmocka_unit_test(damage_is_refused_or_is_another_list),
        cmocka_unit_test(wrong_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
