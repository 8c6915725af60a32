#include <cotrain/spdx.h>

#include <stdbool.h>
#include <string.h>

#define WORD_BYTES_MAX 63u

static bool is_word_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '+' || c == ':';
}

static bool is_operator(const char *word) {
    return strcmp(word, "AND") == 0 || strcmp(word, "OR") == 0 || strcmp(word, "WITH") == 0;
}

enum ct_err ct_spdx_check(const char *expression) {
    unsigned depth = 0;
    bool want_identifier = true; /* else an operator, a closing parenthesis or the end */
    const char *at = expression;
    while (*at != '\0') {
        if (*at == ' ') {
            at++;
        } else if (*at == '(' && want_identifier) {
            depth++;
            at++;
        } else if (*at == ')' && !want_identifier && depth > 0) {
            depth--;
            at++;
        } else {
            char word[WORD_BYTES_MAX + 1];
            size_t length = 0;
            while (is_word_byte(at[length]) && length < WORD_BYTES_MAX) {
                word[length] = at[length];
                length++;
            }
            word[length] = '\0';
            if (length == 0 || is_operator(word) == want_identifier) {
                break;
            }
            want_identifier = !want_identifier;
            at += length;
        }
    }
    if (*at != '\0' || want_identifier || depth != 0) {
        return ct_fail(
            CT_ERR_CONFIG,
            "'%.80s' is no SPDX licence expression: write an identifier such as CC0-1.0, "
            "several joined by AND or OR, or LicenseRef-NAME for one without an "
            "identifier",
            expression);
    }
    return CT_OK;
}
