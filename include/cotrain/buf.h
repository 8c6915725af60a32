/* A growable byte buffer that is born with a maximum; and whole small files. */
#ifndef COTRAIN_BUF_H
#define COTRAIN_BUF_H

#include <cotrain/err.h>
#include <cotrain/types.h>

struct ct_buf {
    uint8_t *data;
    size_t length, capacity, maximum;
};

/* Reserves nothing yet. */
void ct_buf_init(struct ct_buf *buf, size_t maximum);
void ct_buf_deinit(struct ct_buf *buf);
void ct_buf_clear(struct ct_buf *buf);
/* CT_ERR_TOO_LARGE past the maximum, CT_ERR_MEMORY; the buffer is then unchanged. */
CT_MUST_CHECK enum ct_err ct_buf_append(struct ct_buf *buf, const void *data, size_t length);
/* Room for `length` bytes more. */
CT_MUST_CHECK enum ct_err ct_buf_reserve(struct ct_buf *buf, size_t length);
CT_MUST_CHECK enum ct_err ct_buf_printf(struct ct_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct ct_bytes ct_buf_bytes(const struct ct_buf *buf);

/* Appends a whole file; CT_ERR_NOT_FOUND, CT_ERR_TOO_LARGE (the buffer's maximum), CT_ERR_IO. On
 * failure the buffer's content is unchanged. */
CT_MUST_CHECK enum ct_err ct_file_read(const char *path, struct ct_buf *buf);
/* Durable replacement: write "PATH.tmp", fsync, rename, fsync of the directory. The temporary name
 * is always the same, so that what a crash left is overwritten by the next call; one writer of a
 * path at a time. */
CT_MUST_CHECK enum ct_err ct_file_replace(const char *path, struct ct_bytes bytes);
/* The same with mode 0600. */
CT_MUST_CHECK enum ct_err ct_file_replace_private(const char *path, struct ct_bytes bytes);
/* As durable, with mode 0600, whole or not at all; CT_ERR_EXISTS if anything has the name. */
CT_MUST_CHECK enum ct_err ct_file_create_private(const char *path, struct ct_bytes bytes);
/* Makes the directory and its parents, durably. */
CT_MUST_CHECK enum ct_err ct_dir_make(const char *path);
/* fsync of a directory: names made, renamed or removed in it before are durable after. */
CT_MUST_CHECK enum ct_err ct_dir_sync(const char *path);

#endif
