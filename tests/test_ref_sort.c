/* The sort of references against qsort, over several parts, with repetitions. */
#include "node/ref_sort.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int compare(const void *left, const void *right) {
    const struct ct_named_ref *a = left;
    const struct ct_named_ref *b = right;
    const int order = memcmp(&a->ref.sha256, &b->ref.sha256, 32);
    const int gone = order != 0 ? order : a->may_be_gone - b->may_be_gone;
    return gone != 0 ? gone : (a->entry > b->entry) - (a->entry < b->entry);
}

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 20;
}

static void check(size_t count, uint64_t kinds) {
    struct ct_named_ref *all = calloc(count + 1, sizeof *all);
    struct ct_ref_sort *sort = NULL;
    uint64_t state = count;
    assert_non_null(all);
    assert_int_equal(ct_ref_sort_open(&sort), CT_OK);
    for (size_t i = 0; i < count; i++) {
        const uint64_t kind = next(&state) % kinds;
        uint64_t word = kind * 0x9e3779b97f4a7c15ull;
        memcpy(all[i].ref.sha256.bytes, &word, sizeof word);
        all[i].ref.length = kind;
        all[i].entry = next(&state) % 1000;
        all[i].may_be_gone = next(&state) % 2 == 0;
        assert_int_equal(ct_ref_sort_add(sort, &all[i].ref, all[i].entry, all[i].may_be_gone),
                         CT_OK);
    }
    qsort(all, count, sizeof *all, compare);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && memcmp(&all[i].ref.sha256, &all[i - 1].ref.sha256, 32) == 0) {
            continue;
        }
        struct ct_named_ref found;
        assert_int_equal(ct_ref_sort_next(sort, &found), CT_OK);
        assert_memory_equal(&found.ref.sha256, &all[i].ref.sha256, 32);
        assert_int_equal(found.ref.length, all[i].ref.length);
        assert_int_equal(found.entry, all[i].entry);
        assert_int_equal(found.may_be_gone, all[i].may_be_gone);
    }
    struct ct_named_ref none;
    assert_int_equal(ct_ref_sort_next(sort, &none), CT_ERR_NOT_FOUND);
    assert_int_equal(ct_ref_sort_next(sort, &none), CT_ERR_NOT_FOUND);
    ct_ref_sort_close(sort);
    free(all);
}

static void sorts_as_qsort_does(void **state) {
    (void)state;
    check(0, 1);
    check(1, 1);
    check(1000, 10);
    check(65536, 1u << 20);
    check(65537, 1u << 20);
    check(200000, 5000);
    check(150000, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sorts_as_qsort_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
