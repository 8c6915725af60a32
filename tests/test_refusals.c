#include "coordinator/refusals.h"

#include <cotrain/log.h>

#include "fixture.h"

static void a_flood_leaves_a_bounded_log(void **state) {
    (void)state;
    char *dir = fixture_dir(), path[PATH_MAX];
    snprintf(path, sizeof path, "%s/log", dir);
    ct_log_to(path);
    struct ct_refusals refusals = {0};
    uint32_t logged = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        logged += ct_refusals_log(&refusals, 50000, "number %u", i);
    }
    assert_int_equal(logged, CT_REFUSALS_LINES_MAX);
    assert_false(ct_refusals_log(&refusals, 59999, "still"));
    assert_true(ct_refusals_log(&refusals, 60000, "again"));
    assert_int_equal(refusals.count, 100002);
    ct_log_to(NULL);
    struct ct_buf log = fixture_read(path);
    assert_int_equal(ct_buf_append(&log, "", 1), CT_OK);
    assert_non_null(strstr((const char *)log.data, "refused, number 99\n"));
    assert_null(strstr((const char *)log.data, "number 100\n"));
    assert_non_null(strstr((const char *)log.data, "refused: 99901 more"));
    assert_non_null(strstr((const char *)log.data, "refused, again"));
    ct_buf_deinit(&log);
    fixture_remove(dir);
    free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_flood_leaves_a_bounded_log)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
