#include <cotrain/assert.h>
#include <cotrain/err.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char detail[512];

const char *ct_err_text(enum ct_err err) {
    static const char *const texts[] = {
#define CT_ERR_TEXT(name, text) text,
        CT_ERR_MAP(CT_ERR_TEXT)
#undef CT_ERR_TEXT
    };
    return (size_t)err < sizeof texts / sizeof texts[0] ? texts[err] : "unknown error";
}

enum ct_err ct_fail(enum ct_err err, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    /* An argument may be the old detail itself, so the new one is made beside it. */
    char text[sizeof detail];
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(detail, sizeof detail, "%s", text);
    return err;
}

const char *ct_err_detail(void) {
    return detail;
}

_Noreturn void ct_assert_failed(const char *file, int line, const char *expression) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
    abort();
}
