#include "incoming.h"

#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A node on the list can make the coordinator keep one file a round; a bound on all of them. */
#define EVIDENCE_FILES_MAX 4096u

static enum ct_err incoming_path(const char *dir, uint32_t node, uint32_t round, char *out) {
    char name[64];
    snprintf(name, sizeof name, CT_RUN_INCOMING "/%" PRIu32 "-%" PRIu32, node, round);
    return ct_run_path(dir, name, out);
}

static enum ct_err fail_errno(const char *what, const char *path) {
    return ct_fail(ct_disk_code(errno), "cannot %s %s: %s", what, path, strerror(errno));
}

enum ct_err ct_incoming_length(const char *dir, uint32_t node, uint32_t round, uint64_t *out) {
    char path[PATH_MAX];
    struct stat status;
    *out = 0;
    CT_TRY(incoming_path(dir, node, round, path));
    if (stat(path, &status) == 0) {
        *out = (uint64_t)status.st_size;
    } else if (errno != ENOENT) {
        return fail_errno("look at", path);
    }
    return CT_OK;
}

enum ct_err ct_incoming_write(const char *dir, uint32_t node, uint32_t round, uint64_t offset,
                              struct ct_bytes data) {
    char path[PATH_MAX];
    CT_TRY(incoming_path(dir, node, round, path));
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        CT_TRY(ct_disk_make_new(path, true, &fd));
    } else if (fd < 0) {
        return fail_errno("open", path);
    }
    enum ct_err err = ct_disk_cut(fd, path, offset);
    if (err == CT_OK) {
        err = ct_disk_write(fd, path, data, offset);
    }
    if (close(fd) != 0 && err == CT_OK) {
        err = fail_errno("write", path);
    }
    return err;
}

enum ct_err ct_incoming_room(const char *dir) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_INCOMING "/room", path));
    uint8_t *chunk = calloc(1, CT_UPLOAD_CHUNK_BYTES);
    if (chunk == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a chunk");
    }
    int fd = -1;
    enum ct_err err = ct_disk_make_new(path, true, &fd);
    if (err == CT_OK) {
        err = ct_disk_write(fd, path, (struct ct_bytes){chunk, CT_UPLOAD_CHUNK_BYTES}, 0);
        close(fd);
        ct_disk_discard(path);
    }
    free(chunk);
    return err;
}

static enum ct_err sync_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ct_fail(CT_ERR_NOT_FOUND, "%s is not there", path)
                               : fail_errno("open", path);
    }
    enum ct_err err = ct_disk_sync(fd, path);
    close(fd);
    return err;
}

enum ct_err ct_incoming_check(const struct ct_run *run, const struct ct_commit *commit,
                              struct ct_hash *body) {
    char path[PATH_MAX], folder[PATH_MAX];
    CT_TRY(incoming_path(run->dir, commit->author, commit->round, path));
    CT_TRY(ct_run_path(run->dir, CT_RUN_INCOMING, folder));
    struct ct_buf payload;
    ct_buf_init(&payload, commit->update.length);
    enum ct_err err = sync_file(path);
    if (err == CT_OK) {
        err = ct_dir_sync(folder);
    }
    if (err == CT_OK) {
        err = ct_file_read(path, &payload);
    } else if (err == CT_ERR_NOT_FOUND) {
        /* A stop came between the move and its entry. */
        err = ct_blobs_get(&run->blobs, &commit->update, commit->update.length, &payload);
        if (err != CT_OK) {
            return err;
        }
    }
    if (err == CT_OK) {
        err = ct_payload_check(&run->replay.fold, commit, ct_buf_bytes(&payload), body);
    }
    ct_buf_deinit(&payload);
    return err;
}

enum ct_err ct_incoming_store(const struct ct_run *run, const struct ct_commit *commit,
                              bool is_evidence) {
    char path[PATH_MAX], kept[PATH_MAX], name[64];
    CT_TRY(incoming_path(run->dir, commit->author, commit->round, path));
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        return CT_OK;
    }
    if (is_evidence) {
        snprintf(name, sizeof name, CT_RUN_EVIDENCE "/%" PRIu32 "-%" PRIu32 ".payload",
                 commit->author, commit->round);
        CT_TRY(ct_run_path(run->dir, name, kept));
        return ct_disk_rename(path, kept);
    }
    struct ct_blob_ref ref;
    CT_TRY(ct_blobs_import(&run->blobs, path, &ref));
    if (!ct_hash_equal(&ref.sha256, &commit->update.sha256)) {
        return ct_fail(CT_ERR_DIGEST, "%s changed after it was checked: is the disk sound?", path);
    }
    return ct_disk_remove(path);
}

void ct_incoming_sweep(const char *dir, uint32_t round) {
    char folder[PATH_MAX];
    if (ct_run_path(dir, CT_RUN_INCOMING, folder) != CT_OK) {
        return;
    }
    DIR *handle = opendir(folder);
    if (handle == NULL) {
        return;
    }
    for (const struct dirent *item; (item = readdir(handle)) != NULL;) {
        uint32_t node, of_round;
        int end = 0;
        if (sscanf(item->d_name, "%" SCNu32 "-%" SCNu32 "%n", &node, &of_round, &end) == 2 &&
            item->d_name[end] == '\0' && of_round <= round) {
            unlinkat(dirfd(handle), item->d_name, 0);
        }
    }
    closedir(handle);
}

static bool folder_is_full(const char *folder) {
    DIR *handle = opendir(folder);
    if (handle == NULL) {
        return true;
    }
    uint32_t count = 0;
    while (readdir(handle) != NULL) {
        count++;
    }
    closedir(handle);
    return count > EVIDENCE_FILES_MAX;
}

void ct_evidence_keep(const char *dir, uint32_t node, uint32_t round, struct ct_bytes statement) {
    char path[PATH_MAX], folder[PATH_MAX], name[160], hex[CT_HEX_BYTES];
    struct ct_hash sha256 = ct_sha256(statement);
    ct_hash_hex(&sha256, hex);
    snprintf(name, sizeof name, CT_RUN_EVIDENCE "/%" PRIu32 "-%" PRIu32 "-%.16s.commit", node,
             round, hex);
    enum ct_err err = ct_run_path(dir, CT_RUN_EVIDENCE, folder);
    if (err == CT_OK) {
        err = ct_run_path(dir, name, path);
    }
    if (err != CT_OK || folder_is_full(folder)) {
        return;
    }
    err = ct_file_create_private(path, statement);
    if (err != CT_OK && err != CT_ERR_EXISTS) {
        ct_log(CT_LOG_WARN, "intake", "evidence could not be kept: %s", ct_err_detail());
    }
}
