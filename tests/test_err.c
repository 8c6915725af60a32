#include <cotrain/err.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void detail_may_quote_the_old_one(void **state) {
    (void)state;
    assert_int_equal(ct_fail(CT_ERR_IO, "inner %d", 7), CT_ERR_IO);
    assert_int_equal(ct_fail(CT_ERR_FORMAT, "outer: %s", ct_err_detail()), CT_ERR_FORMAT);
    assert_string_equal(ct_err_detail(), "outer: inner 7");
}

static void long_detail_is_cut(void **state) {
    (void)state;
    char text[1000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(ct_fail(CT_ERR_IO, "%s", text), CT_ERR_IO);
    assert_int_equal(strlen(ct_err_detail()), 511);
}

static void every_code_has_a_text(void **state) {
    (void)state;
    assert_string_equal(ct_err_text(CT_OK), "done");
    assert_string_equal(ct_err_text(CT_ERR_UNSUPPORTED), "not supported here");
    assert_string_equal(ct_err_text((enum ct_err)999), "unknown error");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detail_may_quote_the_old_one),
        cmocka_unit_test(long_detail_is_cut),
        cmocka_unit_test(every_code_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
