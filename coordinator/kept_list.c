#include "kept_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGITS_MAX 18 /* of a size, so that nothing overflows */

/* Decimal without leading zeros, all of the text up to `end`. */
static bool parse_size(const char *text, const char *end, uint64_t *out) {
    *out = 0;
    if (end == text || end - text > DIGITS_MAX || (*text == '0' && end - text > 1)) {
        return false;
    }
    for (; text < end; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        *out = *out * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

static int ascending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

static enum ct_err read_names(DIR *dir, struct ct_buf *sizes) {
    for (struct dirent *item = readdir(dir); item != NULL; item = readdir(dir)) {
        uint64_t size;
        if (parse_size(item->d_name, item->d_name + strlen(item->d_name), &size)) {
            CT_TRY(ct_buf_append(sizes, &size, sizeof size));
        }
    }
    return CT_OK;
}

enum ct_err ct_kept_list_write(int ledger_fd, struct ct_buf *out) {
    const int fd = openat(ledger_fd, "checkpoints", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        const int reason = errno;
        if (fd >= 0) {
            close(fd);
        }
        return reason == ENOENT
                   ? CT_OK
                   : ct_fail(CT_ERR_IO, "cannot list checkpoints: %s", strerror(reason));
    }
    struct ct_buf sizes;
    ct_buf_init(&sizes, CT_KEPT_LIST_BYTES_MAX);
    enum ct_err err = read_names(dir, &sizes);
    closedir(dir);
    const size_t count = sizes.length / sizeof(uint64_t);
    if (count > 0) {
        qsort(sizes.data, count, sizeof(uint64_t), ascending);
    }
    for (size_t i = 0; i < count && err == CT_OK; i++) {
        uint64_t size;
        memcpy(&size, sizes.data + i * sizeof size, sizeof size);
        err = ct_buf_printf(out, "%" PRIu64 "\n", size);
    }
    ct_buf_deinit(&sizes);
    return err;
}

enum ct_err ct_kept_list_parse(struct ct_bytes text, uint64_t **out_sizes, size_t *out_count) {
    /* A line has two bytes at least. */
    uint64_t *sizes = malloc((text.length / 2 + 1) * sizeof *sizes);
    size_t count = 0;
    const char *at = (const char *)text.data;
    const char *const end = at + text.length;
    if (sizes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a list of checkpoints");
    }
    while (at < end) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        if (line == NULL || !parse_size(at, line, &sizes[count]) ||
            (count > 0 && sizes[count] <= sizes[count - 1])) {
            free(sizes);
            return ct_fail(CT_ERR_FORMAT, "no list of kept checkpoints");
        }
        count++;
        at = line + 1;
    }
    *out_sizes = sizes;
    *out_count = count;
    return CT_OK;
}
