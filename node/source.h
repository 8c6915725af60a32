/* Where a run is read from: a coordinator's run directory, or the HTTP address of a coordinator or
 * mirror. Names are those of the run directory (run_dir.h): "ledger/checkpoint", "ledger/tile/…".
 *
 * Reading is for any number of threads at once; each has connections of its own. Whatever a server
 * answers is held to a maximum before it is stored, and all that is stored to a budget. */
#ifndef NODE_SOURCE_H
#define NODE_SOURCE_H

#include <cotrain/fetch.h>

struct ct_source;

struct ct_source_options {
    const char *where; /* a directory or an http(s) URL */
    /* Further URLs of the same run, asked for a file when `where` does not have it right. With a
     * directory, for blobs alone. */
    const char *const *mirrors;
    uint32_t mirror_count;
    const char *blobs;     /* one more place of blobs: a directory in the layout of blob.h, or a
                              URL; NULL for none */
    uint64_t budget_bytes; /* what may be stored of a URL; 0: half of what is free there */
};

/* On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_source_open(const struct ct_source_options *options,
                                         struct ct_source **out);
void ct_source_close(struct ct_source *source);

/* The run directory, or NULL for a URL. */
const char *ct_source_directory(const struct ct_source *source);

/* Whether one more place of blobs was given. */
bool ct_source_has_blobs(const struct ct_source *source);

/* Keeps what is fetched below `dir`/blobs, where it stays, and looks for it there first. Before the
 * first blob is asked for; without it a temporary directory is made, and removed at the end. */
CT_MUST_CHECK enum ct_err ct_source_keep(struct ct_source *source, const char *dir);

/* Reads a whole public file below the run directory into `out`, which is initialised here with that
 * maximum; on success the caller ends it, on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_source_read(struct ct_source *source, const char *name, size_t maximum,
                                         struct ct_buf *out);

/* Makes sure that a blob lies, verified, in a local file and gives its path (4096 bytes). */
CT_MUST_CHECK enum ct_err ct_source_blob_path(struct ct_source *source,
                                              const struct ct_blob_ref *ref, char *out_path);

/* A ct_blob_source; user is the struct ct_source. */
enum ct_err ct_source_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                           struct ct_buf *out);

/* Frees the room of a blob that was fetched and is not needed again soon. Nothing happens to blobs
 * that lie in a directory of somebody else. */
void ct_source_drop(struct ct_source *source, const struct ct_blob_ref *ref);

/* Accounts for `bytes` more that somebody stores beside the blobs: CT_ERR_TOO_LARGE beyond the
 * budget, with what to do. */
CT_MUST_CHECK enum ct_err ct_source_charge(struct ct_source *source, uint64_t bytes);

/* Bytes of bodies received so far. */
uint64_t ct_source_received(struct ct_source *source);

#endif
