#include <cotrain/buf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void grows_to_its_maximum_and_not_past_it(void **state) {
    (void)state;
    struct ct_buf buf;
    ct_buf_init(&buf, 1000);
    assert_null(buf.data);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ct_buf_append(&buf, "0123456789", 10), CT_OK);
    }
    assert_int_equal(buf.length, 1000);
    assert_true(buf.capacity <= 1000);
    assert_memory_equal(buf.data + 990, "0123456789", 10);
    assert_int_equal(ct_buf_append(&buf, "x", 1), CT_ERR_TOO_LARGE);
    assert_int_equal(ct_buf_append(&buf, NULL, 0), CT_OK);
    assert_int_equal(buf.length, 1000);
    assert_int_equal(ct_buf_reserve(&buf, SIZE_MAX), CT_ERR_TOO_LARGE);
    ct_buf_clear(&buf);
    assert_int_equal(ct_buf_bytes(&buf).length, 0);
    assert_int_equal(ct_buf_append(&buf, "abc", 3), CT_OK);
    assert_memory_equal(ct_buf_bytes(&buf).data, "abc", 3);
    ct_buf_deinit(&buf);
    assert_null(buf.data);
    assert_int_equal(buf.maximum, 1000);
}

static void no_room_at_all(void **state) {
    (void)state;
    struct ct_buf buf;
    ct_buf_init(&buf, 0);
    assert_int_equal(ct_buf_append(&buf, NULL, 0), CT_OK);
    assert_int_equal(ct_buf_append(&buf, "x", 1), CT_ERR_TOO_LARGE);
    ct_buf_deinit(&buf);
}

static void prints_up_to_the_last_byte(void **state) {
    (void)state;
    struct ct_buf buf;
    ct_buf_init(&buf, 8);
    assert_int_equal(ct_buf_printf(&buf, "%s %d", "ab", 12), CT_OK);
    /* The NUL that printf writes does not count. */
    assert_int_equal(ct_buf_printf(&buf, "%03d", 7), CT_OK);
    assert_int_equal(ct_buf_printf(&buf, "%c", 'x'), CT_ERR_TOO_LARGE);
    assert_int_equal(buf.length, 8);
    assert_memory_equal(buf.data, "ab 12007", 8);
    ct_buf_deinit(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_to_its_maximum_and_not_past_it),
        cmocka_unit_test(no_room_at_all),
        cmocka_unit_test(prints_up_to_the_last_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
