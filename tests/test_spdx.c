#include <cotrain/spdx.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void expressions_of_the_standard_pass(void **state) {
    (void)state;
    static const char *const good[] = {
        "MIT",
        "CC0-1.0",
        "GPL-2.0+",
        "LicenseRef-public-domain",
        "DocumentRef-spdx-tool-1.2:LicenseRef-MIT-Style-2",
        "LGPL-2.1-only OR MIT OR BSD-3-Clause",
        "MIT AND (LGPL-2.1-or-later OR BSD-3-Clause)",
        "GPL-2.0-or-later WITH Bison-exception-2.2",
        "((MIT))",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(ct_spdx_check(good[i]), CT_OK);
    }
}

static void other_text_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",   " ",       "Public Domain", "MIT OR",       "OR MIT", "(MIT",        "MIT)",
        "()", "MIT/X11", "MIT (CC0-1.0)", "MIT AND OR X", "MIT\n",  "caf\xc3\xa9", ")(",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ct_spdx_check(bad[i]), CT_ERR_CONFIG);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_of_the_standard_pass),
        cmocka_unit_test(other_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
