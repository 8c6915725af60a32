#include "node_dir.h"

#include <cotrain/buf.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum ct_err ct_node_path(const char *dir, const char *name, char out[CT_NODE_PATH_MAX]) {
    int n = snprintf(out, CT_NODE_PATH_MAX, "%s/%s", dir, name);
    /* Room for what is put behind it: digests and names of receipts. */
    if (n < 0 || n >= CT_NODE_PATH_MAX - 128) {
        return ct_fail(CT_ERR_CONFIG, "the directory's path is too long: %.100s…", dir);
    }
    return CT_OK;
}

enum ct_err ct_node_dir_default(const char *sub, char out[CT_NODE_PATH_MAX]) {
    char dir[CT_NODE_PATH_MAX];
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (state != NULL && state[0] == '/') {
        CT_TRY(ct_node_path(state, "cotrain", dir));
    } else if (home != NULL && home[0] == '/') {
        CT_TRY(ct_node_path(home, ".local/state/cotrain", dir));
    } else {
        return ct_fail(CT_ERR_CONFIG, "neither XDG_STATE_HOME nor HOME is set: name a directory "
                                      "with --dir");
    }
    if (sub == NULL) {
        memcpy(out, dir, CT_NODE_PATH_MAX);
        return CT_OK;
    }
    return ct_node_path(dir, sub, out);
}

enum ct_err ct_identity_open(const char *path, bool make, struct ct_key **out, bool *out_made) {
    if (out_made != NULL) {
        *out_made = false;
    }
    if (access(path, F_OK) == 0) {
        return ct_key_load(path, out);
    }
    if (!make) {
        return ct_fail(CT_ERR_NOT_FOUND, "there is no identity at %s: 'cotrain key' makes one",
                       path);
    }
    char dir[CT_NODE_PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s", path);
    char *slash = n > 0 && (size_t)n < sizeof dir ? strrchr(dir, '/') : NULL;
    if (slash != NULL && slash != dir) {
        *slash = '\0';
        CT_TRY(ct_dir_make(dir));
    }
    struct ct_key *key = NULL;
    CT_TRY(ct_key_generate(&key));
    enum ct_err err = ct_key_save(key, path);
    if (err != CT_OK) {
        ct_key_free(key);
        return err;
    }
    *out = key;
    if (out_made != NULL) {
        *out_made = true;
    }
    return CT_OK;
}

enum ct_err ct_node_dir_lock(const char *dir, int *out_fd) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_node_path(dir, CT_NODE_LOCK, path));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int cause = errno;
        close(fd);
        if (cause == EWOULDBLOCK) {
            return ct_fail(CT_ERR_STATE,
                           "another cotrain is at work in %s: stop it first, or use another --dir",
                           dir);
        }
        return ct_fail(CT_ERR_IO, "cannot lock %s: %s", path, strerror(cause));
    }
    *out_fd = fd;
    return CT_OK;
}
