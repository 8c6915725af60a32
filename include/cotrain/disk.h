/* The door to the disk for all that must outlive a crash: ledger, blobs, uploads. Every
 * change goes through here, so that a test can watch the order of operations, make each of them
 * fail, and work out what a power cut would have left. */
#ifndef COTRAIN_DISK_H
#define COTRAIN_DISK_H

#include <cotrain/err.h>
#include <cotrain/types.h>

enum ct_disk_op {
    CT_DISK_MAKE,     /* a file, empty */
    CT_DISK_WRITE,    /* into a file */
    CT_DISK_SYNC,     /* a file's content */
    CT_DISK_CUT,      /* a file to a length */
    CT_DISK_RENAME,   /* `from` gets the name `path` */
    CT_DISK_LINK,     /* the same, and keeps its own */
    CT_DISK_MAKE_DIR, /* only when it was missing */
    CT_DISK_SYNC_DIR,
    CT_DISK_REMOVE, /* a file or an empty directory */
};

struct ct_disk_step {
    enum ct_disk_op op;
    const char *path;
    const char *from;      /* of a rename or link */
    struct ct_bytes bytes; /* of a write */
    uint64_t offset;       /* of a write; the length of a cut */
};

/* Asked before an operation in a test: whether it is done, fails, or finds no room; of a write that
 * is torn or finds no room the first half is done. */
enum ct_disk_verdict { CT_DISK_GO, CT_DISK_FAIL, CT_DISK_TEAR, CT_DISK_FULL };
typedef enum ct_disk_verdict (*ct_disk_hook)(void *user, const struct ct_disk_step *step);
/* Of this process; NULL ends it. Set while no other thread uses the disk. */
void ct_disk_watch(ct_disk_hook hook, void *user);

/* All of these: CT_ERR_FULL when the disk or a quota has no room, else CT_ERR_IO, with the path and
 * the system's reason. */

/* Opens for writing; a file that is there is emptied, a link is not followed. */
CT_MUST_CHECK enum ct_err ct_disk_make(const char *path, int *out_fd);
/* The same for a file that is readable by the owner alone from its first byte on (`secret`), or by
 * all; one that is there is removed first, for it may have another mode or be a link.
 * CT_ERR_NOT_FOUND: the directory is missing. */
CT_MUST_CHECK enum ct_err ct_disk_make_new(const char *path, bool secret, int *out_fd);
CT_MUST_CHECK enum ct_err ct_disk_write(int fd, const char *path, struct ct_bytes bytes,
                                        uint64_t offset);
CT_MUST_CHECK enum ct_err ct_disk_sync(int fd, const char *path);
CT_MUST_CHECK enum ct_err ct_disk_cut(int fd, const char *path, uint64_t length);
CT_MUST_CHECK enum ct_err ct_disk_rename(const char *from, const char *to);
/* CT_ERR_EXISTS if `to` is there: unlike a rename it never takes the place of something. */
CT_MUST_CHECK enum ct_err ct_disk_link(const char *from, const char *to);
CT_MUST_CHECK enum ct_err ct_disk_make_dir(const char *path);
CT_MUST_CHECK enum ct_err ct_disk_sync_dir(const char *path);

struct ct_disk_unsynced {
    const char *name; /* below the directory, "" for itself */
    int fd;           /* of a file; −1 for a directory, which is opened by its name */
};
/* Syncs files and directories below `dir` in order, and in about the time that one takes: all
 * writes are under way before the first sync, which commits for them all. After a failure those in
 * front of it are safe. */
CT_MUST_CHECK enum ct_err ct_disk_sync_all(const char *dir, const struct ct_disk_unsynced *items,
                                           size_t count);
/* Nothing there is no error. */
CT_MUST_CHECK enum ct_err ct_disk_remove(const char *path);
/* The same for what no longer matters: a failure is let pass, and the thread's detail stays. */
void ct_disk_discard(const char *path);

/* Writes `bytes` to `temporary`, syncs it and renames it to `path`; the directory is the caller's
 * to sync. */
CT_MUST_CHECK enum ct_err ct_disk_replace(const char *temporary, const char *path,
                                          struct ct_bytes bytes);

/* CT_ERR_FULL or CT_ERR_IO, for an errno. */
enum ct_err ct_disk_code(int reason);

#endif
