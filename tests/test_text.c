#include <cotrain/text.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Encodes as RFC 3629 section 3 says, in the length asked for. */
static size_t encode(uint32_t code, size_t length, uint8_t out[4]) {
    static const uint8_t lead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1;) {
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (uint8_t)(lead[length] | code);
    return length;
}

static size_t shortest(uint32_t code) {
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

static void every_code_point_in_every_length(void **state) {
    (void)state;
    static const uint32_t capacity[] = {0, 0x80, 0x800, 0x10000, 0x200000};
    for (size_t length = 1; length <= 4; length++) {
        for (uint32_t code = 0; code < capacity[length]; code++) {
            uint8_t bytes[4];
            encode(code, length, bytes);
            bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
            bool surrogate = code >= 0xd800 && code < 0xe000;
            bool good = length == shortest(code) && !control && !surrogate && code <= 0x10ffff;
            size_t expected = good ? length : 0;
            if (ct_text_character((struct ct_bytes){bytes, length}) != expected) {
                fail_msg("U+%04X in %zu bytes", (unsigned)code, length);
            }
            if (ct_text_character((struct ct_bytes){bytes, length - 1}) != 0) {
                fail_msg("U+%04X cut from %zu bytes", (unsigned)code, length);
            }
        }
    }
}

static void bytes_that_start_or_continue_nothing(void **state) {
    (void)state;
    for (unsigned lead = 0x80; lead < 0x100; lead++) {
        uint8_t bytes[4] = {(uint8_t)lead, 'a', 0x80, 0x80};
        assert_int_equal(ct_text_character((struct ct_bytes){bytes, 4}), 0);
        if (lead >= 0xe0) {
            uint8_t late[4] = {(uint8_t)lead, 0x90, 'a', 0x80};
            assert_int_equal(ct_text_character((struct ct_bytes){late, 4}), 0);
        }
        if (lead < 0xc2 || lead >= 0xf5) {
            uint8_t lone[4] = {(uint8_t)lead, 0xbf, 0xbf, 0xbf};
            assert_int_equal(ct_text_character((struct ct_bytes){lone, 4}), 0);
        }
    }
}

static bool printable(const char *text) {
    return ct_text_printable((struct ct_bytes){(const uint8_t *)text, strlen(text)});
}

static void whole_texts(void **state) {
    (void)state;
    assert_true(printable(""));
    assert_true(printable("plain ~text"));
    assert_true(printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x99\x82"));
    assert_false(printable("a\nb"));
    assert_false(printable("\x1b[31m"));
    assert_false(printable("caf\xe9"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_in_every_length),
        cmocka_unit_test(bytes_that_start_or_continue_nothing),
        cmocka_unit_test(whole_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
