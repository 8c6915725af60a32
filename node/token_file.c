#include "token_file.h"

#include <cotrain/buf.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 30 };

static enum ct_err reserve(uint32_t **out, size_t count) {
    *out = malloc(count * sizeof **out);
    return *out != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for %zu tokens", count);
}

static enum ct_err parse_list(const char *text, uint32_t **out, size_t *out_count) {
    size_t count = 1;
    for (const char *c = text; *c != '\0'; c++) {
        count += *c == ',';
    }
    CT_TRY(reserve(out, count));
    const char *at = text;
    for (size_t i = 0; i < count; i++) {
        char *end;
        errno = 0;
        const unsigned long id = strtoul(at, &end, 10);
        if (*at < '0' || *at > '9' || *end != (i + 1 < count ? ',' : '\0') || errno != 0 ||
            id > UINT32_MAX) {
            free(*out);
            return ct_fail(CT_ERR_FORMAT, "'%.40s' is neither a file nor ids with commas between",
                           text);
        }
        (*out)[i] = (uint32_t)id;
        at = end + 1;
    }
    *out_count = count;
    return CT_OK;
}

static enum ct_err take_bytes(const char *path, struct ct_bytes bytes, size_t width, uint32_t **out,
                              size_t *out_count) {
    if (bytes.length == 0 || bytes.length % width != 0) {
        return ct_fail(CT_ERR_FORMAT, "%s: %zu bytes are not ids of %zu bytes each", path,
                       bytes.length, width);
    }
    const size_t count = bytes.length / width;
    CT_TRY(reserve(out, count));
    for (size_t i = 0; i < count; i++) {
        uint32_t id = 0;
        for (size_t byte = width; byte-- > 0;) {
            id = id << 8 | bytes.data[i * width + byte];
        }
        (*out)[i] = id;
    }
    *out_count = count;
    return CT_OK;
}

static enum ct_err read_file(const char *path, size_t width, uint32_t **out, size_t *out_count) {
    struct ct_buf file;
    ct_buf_init(&file, FILE_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &file);
    if (err == CT_OK) {
        err = take_bytes(path, ct_buf_bytes(&file), width, out, out_count);
    }
    ct_buf_deinit(&file);
    return err;
}

static enum ct_err check_ids(const uint32_t *tokens, size_t count, uint32_t vocab) {
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= vocab) {
            return ct_fail(CT_ERR_FORMAT, "token %zu is %u, the model knows %u", i, tokens[i],
                           vocab);
        }
    }
    return CT_OK;
}

enum ct_err ct_tokens_read(const char *text, uint32_t vocab, uint32_t **out, size_t *out_count) {
    const size_t width = vocab <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t);
    uint32_t *tokens = NULL;
    CT_TRY(access(text, F_OK) == 0 ? read_file(text, width, &tokens, out_count)
                                   : parse_list(text, &tokens, out_count));
    const enum ct_err err = check_ids(tokens, *out_count, vocab);
    if (err != CT_OK) {
        free(tokens);
        return err;
    }
    *out = tokens;
    return CT_OK;
}
