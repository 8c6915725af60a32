/* The content-addressed store. A blob gets its name by rename after its bytes are synced, so what
 * has a name is complete; what is read is digested again, so what is returned is right. */
#include <cotrain/blob.h>
#include <cotrain/disk.h>
#include <cotrain/limits.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 << 10)

static enum ct_err failed(const char *what, const char *path) {
    enum ct_err err = errno == ENOENT ? CT_ERR_NOT_FOUND : ct_disk_code(errno);
    return ct_fail(err, "cannot %s %s: %s", what, path, strerror(errno));
}

enum ct_err ct_blobs_init(struct ct_blobs *blobs, const char *dir) {
    /* Room for "/ab/" and 62 digits, and for a temporary name. */
    if (strlen(dir) + 80 > sizeof blobs->dir) {
        return ct_fail(CT_ERR_CONFIG, "the path of the blob store is too long: %.200s…", dir);
    }
    CT_TRY(ct_dir_make(dir));
    snprintf(blobs->dir, sizeof blobs->dir, "%s", dir);
    return CT_OK;
}

void ct_blobs_path(const struct ct_blobs *blobs, const struct ct_hash *sha256, char *out) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(sha256, hex);
    snprintf(out, sizeof blobs->dir, "%.4000s/%.2s/%s", blobs->dir, hex, hex + 2);
}

/* Digests a file from its start. */
static enum ct_err digest_file(int fd, const char *path, struct ct_blob_ref *out) {
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to digest %s", path);
    }
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    enum ct_err err = CT_OK;
    uint64_t length = 0;
    for (;;) {
        ssize_t count = pread(fd, chunk, CHUNK_BYTES, (off_t)length);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            err = failed("read", path);
        }
        if (count <= 0) {
            break;
        }
        ct_sha256_update(&sha, chunk, (size_t)count);
        length += (uint64_t)count;
    }
    out->sha256 = ct_sha256_final(&sha);
    out->length = length;
    free(chunk);
    return err;
}

static bool is_right(const struct ct_blobs *blobs, const struct ct_blob_ref *ref) {
    char path[sizeof blobs->dir];
    ct_blobs_path(blobs, &ref->sha256, path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct ct_blob_ref found;
    bool right = fd >= 0 && digest_file(fd, path, &found) == CT_OK && found.length == ref->length &&
                 ct_hash_equal(&found.sha256, &ref->sha256);
    if (fd >= 0) {
        close(fd);
    }
    return right;
}

/* A name that no other writer of this store has; it ends at a crash in ct_blobs_sweep. */
static void temporary_path(const struct ct_blobs *blobs, char out[sizeof blobs->dir]) {
    static atomic_uint counter;
    snprintf(out, sizeof blobs->dir, "%.4000s/" CT_BLOB_TEMPORARY "%ld-%u", blobs->dir,
             (long)getpid(), atomic_fetch_add(&counter, 1));
}

/* Gives a synced temporary file the blob's name and makes the name durable. Both directories are
 * synced every time: the folder may be there from a process that did not live to sync it. */
static enum ct_err settle(const struct ct_blobs *blobs, const char *temporary,
                          const struct ct_blob_ref *ref) {
    char path[sizeof blobs->dir];
    char folder[sizeof blobs->dir];
    ct_blobs_path(blobs, &ref->sha256, path);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    CT_TRY(ct_disk_make_dir(folder));
    CT_TRY(ct_disk_rename(temporary, path));
    CT_TRY(ct_disk_sync_dir(folder));
    return ct_disk_sync_dir(blobs->dir);
}

enum ct_err ct_blobs_put(const struct ct_blobs *blobs, struct ct_bytes bytes,
                         struct ct_blob_ref *out) {
    struct ct_blob_ref ref = {ct_sha256(bytes), bytes.length};
    if (!is_right(blobs, &ref)) {
        char temporary[sizeof blobs->dir];
        temporary_path(blobs, temporary);
        int fd = -1;
        CT_TRY(ct_disk_make(temporary, &fd));
        enum ct_err err = ct_disk_write(fd, temporary, bytes, 0);
        if (err == CT_OK) {
            err = ct_disk_sync(fd, temporary);
        }
        close(fd);
        if (err == CT_OK) {
            err = settle(blobs, temporary, &ref);
        }
        if (err != CT_OK) {
            ct_disk_discard(temporary);
            return err;
        }
    }
    *out = ref;
    return CT_OK;
}

/* Copies what `in` holds and digests what was copied, whatever happens to `in` meanwhile. */
static enum ct_err copy(int in, const char *in_path, int to, const char *to_path,
                        struct ct_blob_ref *out) {
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to copy %s", in_path);
    }
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    uint64_t length = 0;
    enum ct_err err = CT_OK;
    while (err == CT_OK) {
        ssize_t count = read(in, chunk, CHUNK_BYTES);
        if (count == 0) {
            break;
        }
        if (count > 0) {
            ct_sha256_update(&sha, chunk, (size_t)count);
            err = ct_disk_write(to, to_path, (struct ct_bytes){chunk, (size_t)count}, length);
            length += (uint64_t)count;
        } else if (errno != EINTR) {
            err = failed("read", in_path);
        }
    }
    *out = (struct ct_blob_ref){ct_sha256_final(&sha), length};
    free(chunk);
    return err;
}

enum ct_err ct_blobs_import(const struct ct_blobs *blobs, const char *path,
                            struct ct_blob_ref *out) {
    int in = open(path, O_RDONLY | O_CLOEXEC);
    if (in < 0) {
        return failed("open", path);
    }
    char temporary[sizeof blobs->dir];
    temporary_path(blobs, temporary);
    struct ct_blob_ref ref;
    int to = -1;
    enum ct_err err = ct_disk_make(temporary, &to);
    if (err == CT_OK) {
        err = copy(in, path, to, temporary, &ref);
        bool present = err == CT_OK && is_right(blobs, &ref);
        if (err == CT_OK && !present) {
            err = ct_disk_sync(to, temporary);
        }
        close(to);
        if (err == CT_OK && !present) {
            err = settle(blobs, temporary, &ref);
        }
        if (err != CT_OK || present) {
            ct_disk_discard(temporary);
        }
    }
    close(in);
    if (err == CT_OK) {
        *out = ref;
    }
    return err;
}

bool ct_blobs_have(const struct ct_blobs *blobs, const struct ct_blob_ref *ref) {
    char path[sizeof blobs->dir];
    ct_blobs_path(blobs, &ref->sha256, path);
    struct stat status;
    return lstat(path, &status) == 0 && S_ISREG(status.st_mode) &&
           (uint64_t)status.st_size == ref->length;
}

/* Fills `out` with the `length` bytes that the open file must have, and one more if it has it. */
static enum ct_err read_whole(int fd, const char *path, uint64_t length, struct ct_buf *out) {
    CT_TRY(ct_buf_reserve(out, (size_t)length + 1));
    while (out->length <= length) {
        ssize_t count = read(fd, out->data + out->length, (size_t)length + 1 - out->length);
        if (count == 0) {
            break;
        }
        if (count > 0) {
            out->length += (size_t)count;
        } else if (errno != EINTR) {
            return failed("read", path);
        }
    }
    return CT_OK;
}

enum ct_err ct_blobs_get(const struct ct_blobs *blobs, const struct ct_blob_ref *ref,
                         uint64_t maximum, struct ct_buf *out) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&ref->sha256, hex);
    if (ref->length > maximum || ref->length > CT_BLOB_IN_MEMORY_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE,
                       "blob %s has %" PRIu64 " bytes, more than are allowed here", hex,
                       ref->length);
    }
    char path[sizeof blobs->dir];
    ct_blobs_path(blobs, &ref->sha256, path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ct_fail(CT_ERR_NOT_FOUND, "blob %s is not in %s", hex, blobs->dir)
                               : failed("open", path);
    }
    struct ct_buf buf;
    ct_buf_init(&buf, (size_t)ref->length + 1);
    enum ct_err err = read_whole(fd, path, ref->length, &buf);
    close(fd);
    if (err == CT_OK) {
        struct ct_hash found = ct_sha256(ct_buf_bytes(&buf));
        if (buf.length != ref->length || !ct_hash_equal(&found, &ref->sha256)) {
            err =
                ct_fail(CT_ERR_DIGEST, "%s is damaged: its bytes are not those of its name", path);
        }
    }
    if (err != CT_OK) {
        ct_buf_deinit(&buf);
        return err;
    }
    *out = buf;
    return CT_OK;
}

enum ct_err ct_blobs_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                            struct ct_buf *out) {
    return ct_blobs_get(user, ref, maximum, out);
}

enum ct_err ct_blobs_sweep(const struct ct_blobs *blobs) {
    DIR *dir = opendir(blobs->dir);
    if (dir == NULL) {
        return failed("read", blobs->dir);
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        if (strncmp(item->d_name, CT_BLOB_TEMPORARY, strlen(CT_BLOB_TEMPORARY)) == 0) {
            char path[sizeof blobs->dir + sizeof item->d_name + 1];
            snprintf(path, sizeof path, "%s/%s", blobs->dir, item->d_name);
            err = ct_disk_remove(path);
        }
    }
    closedir(dir);
    return err;
}
