/* The content-addressed store: DIR/ab/cdef… (SHA-256 in hex, two digits a folder). A blob is
 * complete and right, or it is not there. */
#ifndef COTRAIN_BLOB_H
#define COTRAIN_BLOB_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>

struct ct_blobs {
    char dir[4096];
};

/* Makes the directory if missing. */
CT_MUST_CHECK enum ct_err ct_blobs_init(struct ct_blobs *blobs, const char *dir);

/* A blob that is being written: DIR/tmp-…, never under a digest's name. */
#define CT_BLOB_TEMPORARY "tmp-"
/* Removes what a crash left half-written; for the store's one writer, before it writes. */
CT_MUST_CHECK enum ct_err ct_blobs_sweep(const struct ct_blobs *blobs);

/* Stores durably (temporary file, fsync, rename, fsync of the directory); no effect if present. A
 * present one is read again, and replaced if it is damaged. `out` is set on success alone. */
CT_MUST_CHECK enum ct_err ct_blobs_put(const struct ct_blobs *blobs, struct ct_bytes bytes,
                                       struct ct_blob_ref *out);
/* Stores a file's content, streaming. */
CT_MUST_CHECK enum ct_err ct_blobs_import(const struct ct_blobs *blobs, const char *path,
                                          struct ct_blob_ref *out);
bool ct_blobs_have(const struct ct_blobs *blobs, const struct ct_blob_ref *ref);
/* Reads and verifies: CT_ERR_NOT_FOUND, CT_ERR_DIGEST, CT_ERR_TOO_LARGE (over `maximum`). `out` is
 * initialised here; on success the caller ends it, on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_blobs_get(const struct ct_blobs *blobs, const struct ct_blob_ref *ref,
                                       uint64_t maximum, struct ct_buf *out);
/* The path a digest has, whether or not it is there. out has 4096 bytes. */
void ct_blobs_path(const struct ct_blobs *blobs, const struct ct_hash *sha256, char *out);

/* How rules that need blobs ask for them; user is a struct ct_blobs for ct_blobs_source. */
typedef enum ct_err (*ct_blob_source)(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                                      struct ct_buf *out);
enum ct_err ct_blobs_source(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                            struct ct_buf *out);

#endif
