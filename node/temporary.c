#include "temporary.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *base(void) {
    const char *chosen = getenv("TMPDIR");
    return chosen == NULL || chosen[0] == '\0' || strlen(chosen) > 200 ? "/tmp" : chosen;
}

enum ct_err ct_temporary_file(int *out_fd) {
    char path[CT_TEMPORARY_DIR_MAX];
    snprintf(path, sizeof path, "%s/cotrain-XXXXXX", base());
    *out_fd = mkstemp(path);
    if (*out_fd < 0) {
        return ct_fail(CT_ERR_IO, "no temporary file below %s: %s", base(), strerror(errno));
    }
    unlink(path);
    return CT_OK;
}

enum ct_err ct_temporary_write(int fd, const void *data, size_t length, uint64_t offset) {
    for (const uint8_t *bytes = data; length > 0;) {
        const ssize_t n = pwrite(fd, bytes, length, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return ct_fail(CT_ERR_IO, "cannot write a temporary file: %s", strerror(errno));
        }
        bytes += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return CT_OK;
}

enum ct_err ct_temporary_read(int fd, void *out, size_t length, uint64_t offset) {
    for (uint8_t *bytes = out; length > 0;) {
        const ssize_t n = pread(fd, bytes, length, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return ct_fail(CT_ERR_IO, "cannot read a file back: %s",
                           n == 0 ? "it ends too early" : strerror(errno));
        }
        bytes += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return CT_OK;
}

enum ct_err ct_temporary_dir(char out[CT_TEMPORARY_DIR_MAX]) {
    snprintf(out, CT_TEMPORARY_DIR_MAX, "%s/cotrain-audit-XXXXXX", base());
    if (mkdtemp(out) == NULL) {
        out[0] = '\0';
        return ct_fail(CT_ERR_IO, "no temporary directory below %s: %s", base(), strerror(errno));
    }
    return CT_OK;
}

void ct_temporary_remove(const char *directory) {
    char *roots[] = {(char *)(uintptr_t)directory, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *item = fts == NULL ? NULL : fts_read(fts); item != NULL; item = fts_read(fts)) {
        if (item->fts_info == FTS_DP) {
            rmdir(item->fts_accpath);
        } else if (item->fts_info != FTS_D) {
            unlink(item->fts_accpath);
        }
    }
    if (fts != NULL) {
        fts_close(fts);
    }
}
