#include <cotrain/assert.h>
#include <cotrain/buf.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ct_buf_init(struct ct_buf *buf, size_t maximum) {
    *buf = (struct ct_buf){.maximum = maximum};
}

void ct_buf_deinit(struct ct_buf *buf) {
    free(buf->data);
    *buf = (struct ct_buf){.maximum = buf->maximum};
}

void ct_buf_clear(struct ct_buf *buf) {
    buf->length = 0;
}

enum ct_err ct_buf_reserve(struct ct_buf *buf, size_t length) {
    if (length > buf->maximum - buf->length) {
        return ct_fail(CT_ERR_TOO_LARGE, "%zu bytes more after %zu are over the maximum of %zu",
                       length, buf->length, buf->maximum);
    }
    size_t needed = buf->length + length;
    if (needed <= buf->capacity) {
        return CT_OK;
    }
    size_t capacity = buf->capacity < buf->maximum / 2 ? buf->capacity * 2 : buf->maximum;
    if (capacity < 64) {
        capacity = buf->maximum < 64 ? buf->maximum : 64;
    }
    if (capacity < needed) {
        capacity = needed;
    }
    uint8_t *data = realloc(buf->data, capacity);
    if (data == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a buffer of %zu bytes", capacity);
    }
    buf->data = data;
    buf->capacity = capacity;
    return CT_OK;
}

enum ct_err ct_buf_append(struct ct_buf *buf, const void *data, size_t length) {
    CT_TRY(ct_buf_reserve(buf, length));
    if (length > 0) {
        memcpy(buf->data + buf->length, data, length);
        buf->length += length;
    }
    return CT_OK;
}

enum ct_err ct_buf_printf(struct ct_buf *buf, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    CT_ASSERT(length >= 0);
    /* vsnprintf wants room for a NUL that does not count against the maximum. */
    char *text = malloc((size_t)length + 1);
    enum ct_err err = CT_OK;
    if (text == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for a text of %d bytes", length);
    } else {
        vsnprintf(text, (size_t)length + 1, format, again);
        err = ct_buf_append(buf, text, (size_t)length);
    }
    free(text);
    va_end(again);
    return err;
}

struct ct_bytes ct_buf_bytes(const struct ct_buf *buf) {
    return (struct ct_bytes){.data = buf->data, .length = buf->length};
}
