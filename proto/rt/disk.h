/* The ledger's and the blob store's door to the disk. Every change goes through here, so that a
 * test can watch the order of operations and make each of them fail once. */
#ifndef PROTO_RT_DISK_H
#define PROTO_RT_DISK_H

#include <cotrain/err.h>
#include <cotrain/types.h>

enum ct_disk_op {
    CT_DISK_MAKE,     /* a file, empty */
    CT_DISK_WRITE,    /* into a file */
    CT_DISK_SYNC,     /* a file's content */
    CT_DISK_CUT,      /* a file to a length */
    CT_DISK_RENAME,   /* `path` is the new name */
    CT_DISK_MAKE_DIR, /* only when it was missing */
    CT_DISK_SYNC_DIR,
    CT_DISK_REMOVE, /* a file or an empty directory */
};

/* Asked before an operation in a test: whether it is done, fails, or (a write) is half done and
 * fails. */
enum ct_disk_verdict { CT_DISK_GO, CT_DISK_FAIL, CT_DISK_TEAR };
typedef enum ct_disk_verdict (*ct_disk_hook)(void *user, enum ct_disk_op op, const char *path);
/* Of this thread; NULL ends it. */
void ct_disk_watch(ct_disk_hook hook, void *user);

/* All of these: CT_ERR_IO with the path and the system's reason. */

/* Opens for writing; a file that is there is emptied, a link is not followed. */
CT_MUST_CHECK enum ct_err ct_disk_make(const char *path, int *out_fd);
CT_MUST_CHECK enum ct_err ct_disk_write(int fd, const char *path, struct ct_bytes bytes,
                                        uint64_t offset);
CT_MUST_CHECK enum ct_err ct_disk_sync(int fd, const char *path);
CT_MUST_CHECK enum ct_err ct_disk_cut(int fd, const char *path, uint64_t length);
CT_MUST_CHECK enum ct_err ct_disk_rename(const char *from, const char *to);
CT_MUST_CHECK enum ct_err ct_disk_make_dir(const char *path);
CT_MUST_CHECK enum ct_err ct_disk_sync_dir(const char *path);
/* Nothing there is no error. */
CT_MUST_CHECK enum ct_err ct_disk_remove(const char *path);

/* Writes `bytes` to `temporary`, syncs it and renames it to `path`; the directory is the caller's
 * to sync. */
CT_MUST_CHECK enum ct_err ct_disk_replace(const char *temporary, const char *path,
                                          struct ct_bytes bytes);

#endif
