/* A directory of its own for a test program, removed with what is in it. */
#ifndef COTRAIN_TESTS_SCRATCH_H
#define COTRAIN_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char scratch_dir[64];

static inline int scratch_make(void **state) {
    (void)state;
    snprintf(scratch_dir, sizeof scratch_dir, "/tmp/cotrain-test-XXXXXX");
    return mkdtemp(scratch_dir) != NULL ? 0 : -1;
}

static inline int scratch_remove_one(const char *path, const struct stat *status, int kind,
                                     struct FTW *place) {
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline int scratch_remove(void **state) {
    (void)state;
    return nftw(scratch_dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in it; two calls' results live at a time. */
static inline const char *scratch_path(const char *name) {
    static char paths[2][256];
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_dir, name);
    return path;
}

#endif
