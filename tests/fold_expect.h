/* For tests of the fold: an entry is refused by the rule it breaks, and nothing has changed. */
#ifndef TESTS_FOLD_EXPECT_H
#define TESTS_FOLD_EXPECT_H

#include "run_maker.h"

#include <stdio.h>

/* A digest of all that a fold holds, pointers included: equal means nothing was touched. */
static inline struct ct_hash fingerprint(const struct ct_fold *fold) {
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, fold, sizeof *fold);
    if (fold->phase != CT_PHASE_EMPTY) {
        ct_sha256_update(&sha, fold->nodes, fold->manifest.node_count * sizeof fold->nodes[0]);
    }
    if (fold->returned_count > 0) {
        ct_sha256_update(&sha, fold->returned, fold->returned_count * sizeof fold->returned[0]);
    }
    if (fold->assignments.count > 0) {
        ct_sha256_update(&sha, fold->assignments.items,
                         fold->assignments.count * sizeof fold->assignments.items[0]);
    }
    return ct_sha256_final(&sha);
}

static inline void expect_broken(struct maker *maker, const char *rule, struct ct_hash before,
                                 enum ct_err err, int line) {
    char cited[16];
    snprintf(cited, sizeof cited, "rule %s:", rule);
    if (err != CT_ERR_RULE && err != CT_ERR_SIGNATURE) {
        fail_msg("line %d: error %d: %s", line, (int)err, ct_err_detail());
    }
    if (strstr(ct_err_detail(), cited) == NULL) {
        fail_msg("line %d: '%s' does not cite %s", line, ct_err_detail(), rule);
    }
    char number[32];
    snprintf(number, sizeof number, "entry %llu ", (unsigned long long)maker->fold.entries);
    assert_non_null(strstr(ct_err_detail(), number));
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);
}

#define REFUSED_BY(maker, rule, entry)                                                             \
    do {                                                                                           \
        struct ct_hash before_ = fingerprint(&(maker)->fold);                                      \
        expect_broken(maker, rule, before_, maker_apply(maker, entry), __LINE__);                  \
    } while (0)

/* A run maker as the state of a test. */
static inline int setup(void **state) {
    struct maker *maker = malloc(sizeof *maker);
    if (maker == NULL) {
        return -1;
    }
    maker_init(maker);
    *state = maker;
    return 0;
}

static inline int teardown(void **state) {
    maker_deinit(*state);
    free(*state);
    return 0;
}

#define WITH_MAKER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
