#include <cotrain/buf.h>
#include <cotrain/disk.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ct_err fail_errno(const char *what, const char *path) {
    enum ct_err err = errno == ENOENT ? CT_ERR_NOT_FOUND : ct_disk_code(errno);
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

enum ct_err ct_dir_sync(const char *path) {
    if (access(path, F_OK) != 0) {
        return fail_errno("cannot open directory", path);
    }
    return ct_disk_sync_dir(path);
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
static enum ct_err write_temporary(const char *path, struct ct_bytes bytes, bool secret,
                                   char temporary[PATH_MAX]) {
    int length = snprintf(temporary, PATH_MAX, "%s.tmp", path);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_IO, "the path %.100s... is too long", path);
    }
    int fd = -1;
    CT_TRY(ct_disk_make_new(temporary, secret, &fd));
    enum ct_err err = ct_disk_write(fd, temporary, bytes, 0);
    if (err == CT_OK) {
        err = ct_disk_sync(fd, temporary);
    }
    if (close(fd) != 0 && err == CT_OK) {
        err = fail_errno("cannot write", temporary);
    }
    if (err != CT_OK) {
        ct_disk_discard(temporary);
    }
    return err;
}

static enum ct_err replace(const char *path, struct ct_bytes bytes, bool secret) {
    char temporary[PATH_MAX];
    CT_TRY(write_temporary(path, bytes, secret, temporary));
    enum ct_err err = ct_disk_rename(temporary, path);
    if (err != CT_OK) {
        ct_disk_discard(temporary);
        return err;
    }
    return sync_parent(path);
}

enum ct_err ct_file_replace(const char *path, struct ct_bytes bytes) {
    return replace(path, bytes, false);
}

enum ct_err ct_file_replace_private(const char *path, struct ct_bytes bytes) {
    return replace(path, bytes, true);
}

enum ct_err ct_file_create_private(const char *path, struct ct_bytes bytes) {
    char temporary[PATH_MAX];
    CT_TRY(write_temporary(path, bytes, true, temporary));
    enum ct_err err = ct_disk_link(temporary, path);
    ct_disk_discard(temporary);
    return err == CT_OK ? sync_parent(path) : err;
}

static enum ct_err make_one(const char *path) {
    CT_TRY(ct_disk_make_dir(path));
    return sync_parent(path);
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
