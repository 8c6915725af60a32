#include <cotrain/disk.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    ct_disk_hook hook;
    void *user;
} watch;

void ct_disk_watch(ct_disk_hook hook, void *user) {
    watch.hook = hook;
    watch.user = user;
}

/* Whether to go on; if not, errno says why. */
static enum ct_disk_verdict ask(const struct ct_disk_step *step) {
    enum ct_disk_verdict verdict = watch.hook == NULL ? CT_DISK_GO : watch.hook(watch.user, step);
    if (verdict != CT_DISK_GO) {
        errno = verdict == CT_DISK_FULL ? ENOSPC : EIO;
    }
    return verdict;
}

static bool refused(enum ct_disk_op op, const char *path) {
    return ask(&(struct ct_disk_step){.op = op, .path = path}) != CT_DISK_GO;
}

enum ct_err ct_disk_code(int reason) {
    return reason == ENOSPC || reason == EDQUOT ? CT_ERR_FULL : CT_ERR_IO;
}

static enum ct_err failed(const char *what, const char *path) {
    int reason = errno;
    return ct_fail(ct_disk_code(reason), "cannot %s %s: %s", what, path, strerror(reason));
}

enum ct_err ct_disk_make(const char *path, int *out_fd) {
    if (refused(CT_DISK_MAKE, path)) {
        return failed("make", path);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return failed("make", path);
    }
    *out_fd = fd;
    return CT_OK;
}

enum ct_err ct_disk_make_new(const char *path, bool secret, int *out_fd) {
    CT_TRY(ct_disk_remove(path));
    if (refused(CT_DISK_MAKE, path)) {
        return failed("make", path);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, secret ? 0600 : 0644);
    if (fd < 0) {
        enum ct_err err = errno == ENOENT ? CT_ERR_NOT_FOUND : CT_OK;
        enum ct_err other = failed("make", path);
        return err == CT_OK ? other : err;
    }
    *out_fd = fd;
    return CT_OK;
}

enum ct_err ct_disk_write(int fd, const char *path, struct ct_bytes bytes, uint64_t offset) {
    const struct ct_disk_step step = {
        .op = CT_DISK_WRITE, .path = path, .bytes = bytes, .offset = offset};
    enum ct_disk_verdict verdict = ask(&step);
    int reason = errno;
    size_t end = verdict == CT_DISK_GO     ? bytes.length
                 : verdict == CT_DISK_FAIL ? 0
                                           : bytes.length / 2;
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
        errno = reason;
        return failed("write", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_sync(int fd, const char *path) {
    if (refused(CT_DISK_SYNC, path) || fsync(fd) != 0) {
        return failed("sync", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_cut(int fd, const char *path, uint64_t length) {
    const struct ct_disk_step step = {.op = CT_DISK_CUT, .path = path, .offset = length};
    if (ask(&step) != CT_DISK_GO || ftruncate(fd, (off_t)length) != 0) {
        return failed("cut", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_rename(const char *from, const char *to) {
    const struct ct_disk_step step = {.op = CT_DISK_RENAME, .path = to, .from = from};
    if (ask(&step) != CT_DISK_GO || rename(from, to) != 0) {
        return failed("replace", to);
    }
    return CT_OK;
}

enum ct_err ct_disk_link(const char *from, const char *to) {
    const struct ct_disk_step step = {.op = CT_DISK_LINK, .path = to, .from = from};
    if (ask(&step) != CT_DISK_GO || link(from, to) != 0) {
        return errno == EEXIST ? ct_fail(CT_ERR_EXISTS, "%s exists already and stays as it is", to)
                               : failed("make", to);
    }
    return CT_OK;
}

static bool is_dir(const char *path) {
    struct stat status;
    int reason = errno;
    bool is = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    errno = reason;
    return is;
}

enum ct_err ct_disk_make_dir(const char *path) {
    if (is_dir(path)) {
        return CT_OK;
    }
    if (refused(CT_DISK_MAKE_DIR, path)) {
        return failed("make directory", path);
    }
    if (mkdir(path, 0777) != 0 && !(errno == EEXIST && is_dir(path))) {
        return failed("make directory", path);
    }
    return CT_OK;
}

enum ct_err ct_disk_sync_dir(const char *path) {
    if (refused(CT_DISK_SYNC_DIR, path)) {
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

enum ct_err ct_disk_sync_all(const char *dir, const struct ct_disk_unsynced *items, size_t count) {
    char path[PATH_MAX];
    /* What goes wrong here the sync of the file tells. */
    for (size_t i = 0; i < count; i++) {
        if (items[i].fd >= 0) {
            (void)sync_file_range(items[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = items[i].name;
        snprintf(path, sizeof path, "%s%s%s", dir, name[0] == '\0' ? "" : "/", name);
        CT_TRY(items[i].fd >= 0 ? ct_disk_sync(items[i].fd, path) : ct_disk_sync_dir(path));
    }
    return CT_OK;
}

enum ct_err ct_disk_remove(const char *path) {
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT ? CT_OK : failed("remove", path);
    }
    if (refused(CT_DISK_REMOVE, path) || remove(path) != 0) {
        return failed("remove", path);
    }
    return CT_OK;
}

void ct_disk_discard(const char *path) {
    if (!refused(CT_DISK_REMOVE, path)) {
        unlink(path);
    }
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
