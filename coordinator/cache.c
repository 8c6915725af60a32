#include "cache.h"

#include "run.h"

#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ct_err slot_path(const char *dir, uint32_t slot, const char *suffix, char *out) {
    char name[32];
    snprintf(name, sizeof name, CT_RUN_CACHE "/%u%s", slot, suffix);
    return ct_run_path(dir, name, out);
}

/* Gives the bytes the name, without a sync. */
static enum ct_err write_slot(const char *fresh, const char *path, struct ct_bytes bytes) {
    int fd = -1;
    CT_TRY(ct_disk_make(fresh, &fd));
    enum ct_err err = ct_disk_write(fd, fresh, bytes, 0);
    if (close(fd) != 0 && err == CT_OK) {
        err = ct_fail(ct_disk_code(errno), "cannot write %s: %s", fresh, strerror(errno));
    }
    return err == CT_OK ? ct_disk_rename(fresh, path) : err;
}

void ct_cache_save(const char *dir, uint32_t round, const struct ct_layout *layout,
                   const float *theta) {
    char folder[PATH_MAX], path[PATH_MAX], fresh[PATH_MAX];
    if (ct_run_path(dir, CT_RUN_CACHE, folder) != CT_OK ||
        slot_path(dir, round & 1, "", path) != CT_OK ||
        slot_path(dir, round & 1, ".new", fresh) != CT_OK) {
        return;
    }
    const struct ct_bytes bytes = {(const uint8_t *)theta, layout->parameters * sizeof theta[0]};
    enum ct_err err = ct_disk_make_dir(folder);
    if (err == CT_OK) {
        err = write_slot(fresh, path, bytes);
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "cache", "the model is not kept for a restart: %s", ct_err_detail());
        ct_disk_discard(fresh);
    }
}

static bool read_slot(const char *path, uint8_t *out, size_t length) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    bool right = fd >= 0 && fstat(fd, &status) == 0 && (uintmax_t)status.st_size == length;
    while (right && length > 0) {
        ssize_t count = read(fd, out, length);
        if (count > 0) {
            out += count;
            length -= (size_t)count;
        } else if (count == 0 || errno != EINTR) {
            right = false;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return right;
}

bool ct_cache_load(const char *dir, const struct ct_layout *layout, const struct ct_hash *model,
                   float *theta) {
    for (uint32_t slot = 0; slot < 2; slot++) {
        char path[PATH_MAX];
        if (slot_path(dir, slot, "", path) == CT_OK &&
            read_slot(path, (uint8_t *)theta, layout->parameters * sizeof theta[0])) {
            struct ct_hash digest = ct_model_digest(layout, theta);
            if (ct_hash_equal(&digest, model)) {
                return true;
            }
        }
    }
    return false;
}
