/* What several tests need: a scratch directory, whole files, and the shared vectors. */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include <cotrain/buf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new directory, in memory where that is possible: what is synced here need not outlive a power
 * cut. The caller frees the path. */
static inline char *fixture_dir(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/cotrain-test-XXXXXX", base);
    assert_non_null(mkdtemp(path));
    return strdup(path);
}

static inline int fixture_remove_one(const char *path, const struct stat *status, int kind,
                                     struct FTW *walk) {
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* Removes a directory with all that is in it. */
static inline void fixture_remove(const char *path) {
    assert_int_equal(nftw(path, fixture_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Reads a file into a buffer that the caller ends. */
static inline struct ct_buf fixture_read(const char *path) {
    struct ct_buf buf;
    ct_buf_init(&buf, 64u << 20);
    if (ct_file_read(path, &buf) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    return buf;
}

static inline void fixture_write(const char *path, const void *data, size_t length) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* The path of a shared vector; skips the test with a message where the folder is missing. */
static inline const char *fixture_vector(const char *name, char out[PATH_MAX]) {
    snprintf(out, PATH_MAX, "%s/vectors/%s", CT_SHARED_DIR, name);
    if (access(out, R_OK) != 0) {
        print_message("skipped: %s is missing\n", out);
        skip();
    }
    return out;
}

#endif
