/* Where a run is read from: a coordinator's run directory, or the HTTP address of a coordinator or
 * mirror. Names are those of the run directory (run_dir.h): "ledger/checkpoint", "ledger/tile/…".
 */
#ifndef NODE_SOURCE_H
#define NODE_SOURCE_H

#include <cotrain/blob.h>

struct ct_source;

/* `where` is a directory or an http(s) URL. Blobs are looked for in `blobs` too, if not NULL (a
 * directory in the layout of blob.h, or a URL). On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_source_open(const char *where, const char *blobs,
                                         struct ct_source **out);
void ct_source_close(struct ct_source *source);

/* The run directory, or NULL for a URL. */
const char *ct_source_directory(const struct ct_source *source);

/* Reads a whole public file below the run directory into `out`, which is initialised here with that
 * maximum; on success the caller ends it, on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_source_read(struct ct_source *source, const char *name, size_t maximum,
                                         struct ct_buf *out);

/* Makes sure that a blob lies, verified, in a local file and gives its path (4096 bytes). Blobs of
 * a URL are kept in a temporary directory until the source is closed. */
CT_MUST_CHECK enum ct_err ct_source_blob_path(struct ct_source *source,
                                              const struct ct_blob_ref *ref, char *out_path);

/* A ct_blob_source; user is the struct ct_source. */
enum ct_err ct_source_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                           struct ct_buf *out);

#endif
