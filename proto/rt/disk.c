#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static _Thread_local struct {
    ct_disk_hook hook;
    void *user;
} watch;

void ct_disk_watch(ct_disk_hook hook, void *user) {
    watch.hook = hook;
    watch.user = user;
}

static enum ct_disk_verdict ask(enum ct_disk_op op, const char *path) {
    enum ct_disk_verdict verdict =
        watch.hook == NULL ? CT_DISK_GO : watch.hook(watch.user, op, path);
    if (verdict != CT_DISK_GO) {
        errno = EIO;
    }
    return verdict;
}

static enum ct_err failed(const char *what, const char *path) {
    return ct_fail(CT_ERR_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

enum ct_err ct_disk_make(const char *path, int *out_fd) {
    if (ask(CT_DISK_MAKE, path) != CT_DISK_GO) {
        return failed("make", path);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return failed("make", path);
    }
    *out_fd = fd;
    return CT_OK;
}

enum ct_err ct_disk_write(int fd, const char *path, struct ct_bytes bytes, uint64_t offset) {
    enum ct_disk_verdict verdict = ask(CT_DISK_WRITE, path);
    size_t end =
        verdict == CT_DISK_GO ? bytes.length : (verdict == CT_DISK_TEAR ? bytes.length / 2 : 0);
    for (size_t at = 0; at < end;) {
        ssize_t count = pwrite(fd, bytes.data + at, end - at, (off_t)(offset + at));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return failed("write", path);
        }
        at += (size_t)count;
    }
    if (verdict != CT_DISK_GO) {
        errno = EIO;
        return failed("write", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_sync(int fd, const char *path) {
    if (ask(CT_DISK_SYNC, path) != CT_DISK_GO || fsync(fd) != 0) {
        return failed("sync", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_cut(int fd, const char *path, uint64_t length) {
    if (ask(CT_DISK_CUT, path) != CT_DISK_GO || ftruncate(fd, (off_t)length) != 0) {
        return failed("cut", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_rename(const char *from, const char *to) {
    if (ask(CT_DISK_RENAME, to) != CT_DISK_GO || rename(from, to) != 0) {
        return failed("replace", to);
    }
    return CT_OK;
}

enum ct_err ct_disk_make_dir(const char *path) {
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        return CT_OK;
    }
    if (ask(CT_DISK_MAKE_DIR, path) != CT_DISK_GO) {
        return failed("make directory", path);
    }
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        return failed("make directory", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_sync_dir(const char *path) {
    if (ask(CT_DISK_SYNC_DIR, path) != CT_DISK_GO) {
        return failed("sync directory", path);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return failed("open directory", path);
    }
    enum ct_err err = fsync(fd) == 0 ? CT_OK : failed("sync directory", path);
    close(fd);
    return err;
}

enum ct_err ct_disk_remove(const char *path) {
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT ? CT_OK : failed("remove", path);
    }
    if (ask(CT_DISK_REMOVE, path) != CT_DISK_GO || remove(path) != 0) {
        return failed("remove", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_replace(const char *temporary, const char *path, struct ct_bytes bytes) {
    int fd = -1;
    CT_TRY(ct_disk_make(temporary, &fd));
    enum ct_err err = ct_disk_write(fd, temporary, bytes, 0);
    if (err == CT_OK) {
        err = ct_disk_sync(fd, temporary);
    }
    if (close(fd) != 0 && err == CT_OK) {
        err = failed("write", temporary);
    }
    return err == CT_OK ? ct_disk_rename(temporary, path) : err;
}
