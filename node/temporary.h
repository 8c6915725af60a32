/* Temporary files and directories, below $TMPDIR or /tmp. */
#ifndef NODE_TEMPORARY_H
#define NODE_TEMPORARY_H

#include <cotrain/err.h>
#include <cotrain/types.h>

/* A file without a name, gone when it is closed. */
CT_MUST_CHECK enum ct_err ct_temporary_file(int *out_fd);
/* All of it, or CT_ERR_IO. */
CT_MUST_CHECK enum ct_err ct_temporary_write(int fd, const void *data, size_t length,
                                             uint64_t offset);
CT_MUST_CHECK enum ct_err ct_temporary_read(int fd, void *out, size_t length, uint64_t offset);

#define CT_TEMPORARY_DIR_MAX 256
CT_MUST_CHECK enum ct_err ct_temporary_dir(char out[CT_TEMPORARY_DIR_MAX]);
/* Removes a directory and all that is in it. */
void ct_temporary_remove(const char *directory);

#endif
