#include <cotrain/buf.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ct_err fail_errno(const char *what, const char *path) {
    enum ct_err err = errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO;
    return ct_fail(err, "%s %s: %s", what, path, strerror(errno));
}

static enum ct_err read_all(int fd, const char *path, struct ct_buf *buf) {
    for (;;) {
        if (buf->length == buf->maximum) {
            uint8_t one;
            ssize_t more = read(fd, &one, 1);
            if (more == 0) {
                return CT_OK;
            }
            if (more > 0) {
                return ct_fail(CT_ERR_TOO_LARGE, "%s is larger than the %zu bytes allowed", path,
                               buf->maximum);
            }
        } else {
            size_t room = buf->capacity - buf->length;
            if (room == 0) {
                CT_TRY(ct_buf_reserve(buf, 1));
                room = buf->capacity - buf->length;
            }
            ssize_t count = read(fd, buf->data + buf->length, room);
            if (count == 0) {
                return CT_OK;
            }
            if (count > 0) {
                buf->length += (size_t)count;
                continue;
            }
        }
        if (errno != EINTR) {
            return fail_errno("cannot read", path);
        }
    }
}

enum ct_err ct_file_read(const char *path, struct ct_buf *buf) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno("cannot open", path);
    }
    size_t old_length = buf->length;
    enum ct_err err = CT_OK;
    struct stat status;
    if (fstat(fd, &status) != 0) {
        err = fail_errno("cannot read", path);
    } else if (S_ISREG(status.st_mode) && (uintmax_t)status.st_size > buf->maximum - buf->length) {
        err = ct_fail(CT_ERR_TOO_LARGE, "%s has %jd bytes, more than the %zu allowed", path,
                      (intmax_t)status.st_size, buf->maximum - buf->length);
    } else if (S_ISREG(status.st_mode)) {
        err = ct_buf_reserve(buf, (size_t)status.st_size);
    }
    if (err == CT_OK) {
        err = read_all(fd, path, buf);
    }
    close(fd);
    if (err != CT_OK) {
        buf->length = old_length;
    }
    return err;
}

static enum ct_err write_all(int fd, const char *path, struct ct_bytes bytes) {
    while (bytes.length > 0) {
        ssize_t count = write(fd, bytes.data, bytes.length);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return fail_errno("cannot write", path);
        }
        bytes.data += count;
        bytes.length -= (size_t)count;
    }
    if (fsync(fd) != 0) {
        return fail_errno("cannot sync", path);
    }
    return CT_OK;
}

enum ct_err ct_dir_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno("cannot open directory", path);
    }
    enum ct_err err = fsync(fd) == 0 ? CT_OK : fail_errno("cannot sync directory", path);
    close(fd);
    return err;
}

static enum ct_err sync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return ct_dir_sync(".");
    }
    char parent[PATH_MAX];
    /* "/name" lies in "/". */
    int length = slash == path ? 1 : (int)(slash - path);
    snprintf(parent, sizeof parent, "%.*s", length, path);
    return ct_dir_sync(parent);
}

/* "PATH.tmp" with the bytes, synced. */
static enum ct_err write_temporary(const char *path, struct ct_bytes bytes, mode_t mode,
                                   char temporary[PATH_MAX]) {
    int length = snprintf(temporary, PATH_MAX, "%s.tmp", path);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_IO, "the path %.100s... is too long", path);
    }
    /* A leftover may have another mode, or be a link that someone put there. */
    unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return fail_errno("cannot make", temporary);
    }
    enum ct_err err = write_all(fd, temporary, bytes);
    if (close(fd) != 0 && err == CT_OK) {
        err = fail_errno("cannot write", temporary);
    }
    if (err != CT_OK) {
        unlink(temporary);
    }
    return err;
}

enum ct_err ct_file_replace(const char *path, struct ct_bytes bytes) {
    char temporary[PATH_MAX];
    CT_TRY(write_temporary(path, bytes, 0644, temporary));
    if (rename(temporary, path) != 0) {
        enum ct_err err = fail_errno("cannot replace", path);
        unlink(temporary);
        return err;
    }
    return sync_parent(path);
}

enum ct_err ct_file_create_private(const char *path, struct ct_bytes bytes) {
    char temporary[PATH_MAX];
    CT_TRY(write_temporary(path, bytes, 0600, temporary));
    /* link, unlike rename, never takes the place of something. */
    enum ct_err err = CT_OK;
    if (link(temporary, path) != 0) {
        err = errno == EEXIST ? ct_fail(CT_ERR_EXISTS, "%s exists already and stays as it is", path)
                              : fail_errno("cannot make", path);
    }
    unlink(temporary);
    return err == CT_OK ? sync_parent(path) : err;
}

static enum ct_err make_one(const char *path) {
    if (mkdir(path, 0777) == 0) {
        return sync_parent(path);
    }
    int reason = errno;
    struct stat status;
    if (reason == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        return CT_OK;
    }
    return ct_fail(CT_ERR_IO, "cannot make directory %s: %s", path, strerror(reason));
}

enum ct_err ct_dir_make(const char *path) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    if (length == 0 || length >= sizeof part) {
        return ct_fail(CT_ERR_IO, "'%.100s' is no path for a directory", path);
    }
    memcpy(part, path, length);
    part[length] = '\0';
    struct stat status;
    if (stat(part, &status) == 0 && S_ISDIR(status.st_mode)) {
        return CT_OK;
    }
    for (size_t i = 1; i < length; i++) {
        if (part[i] != '/' || part[i - 1] == '/') {
            continue;
        }
        part[i] = '\0';
        CT_TRY(make_one(part));
        part[i] = '/';
    }
    return make_one(part);
}
