/* The first part of an audit: the log itself, as one file of entries that the signed checkpoint
 * covers. Memory is 40 bytes for every 256 entries. */
#ifndef NODE_AUDIT_LOG_H
#define NODE_AUDIT_LOG_H

#include "audit.h"
#include "pool.h"

#include <cotrain/ledger.h>

#define CT_BUNDLE_BYTES_MAX (CT_TILE_WIDTH * (CT_ENTRY_BYTES_MAX + 2u))

/* An entry is an envelope, which holds a signature of 64 bytes. So what is kept in memory is a
 * fraction of what a server has to send. */
#define CT_AUDIT_ENTRY_MIN 64u

/* The entries that the checkpoint covers, authenticated; behind them those of the run directory
 * that were durable but not yet published (a crash leaves such), signed by the coordinator. */
struct ct_audit_log {
    struct ct_checkpoint checkpoint; /* checkpoint.size entries are covered */
    struct ct_buf note;              /* as it was read */
    struct ct_run_opened opened;
    struct ct_hash run_id;
    int fd;              /* u16 big-endian length ‖ entry, as in bundles */
    uint64_t known;      /* whole entries in the file; at least checkpoint.size */
    uint64_t file_bytes; /* length of the file, when it was indexed */
    uint64_t *offsets;   /* [⌈known / 256⌉ + 1] where bundles begin, and the end of the last */
    struct ct_hash *subtrees; /* [⌊known / 256⌋] hashes of full bundles: the tiles of level 1 */
};

/* A bundle in memory. */
struct ct_audit_bundle {
    uint64_t first; /* index of its first entry */
    uint32_t count;
    uint32_t at[CT_TILE_WIDTH + 1]; /* offsets of entries, their length first, in bytes */
    struct ct_buf bytes;
};

/* Loads and authenticates; findings go to the report. *out_loaded tells whether there is a log to
 * go on with, and is then ended by the caller. `dir`, if not NULL, keeps the entries of a URL, and
 * has perhaps some from an earlier time. An error is ours (memory, disk). */
CT_MUST_CHECK enum ct_err ct_audit_log_load(struct ct_source *source, struct ct_pool *pool,
                                            const char *dir, struct ct_audit_report *report,
                                            struct ct_audit_log *out, bool *out_loaded);
void ct_audit_log_deinit(struct ct_audit_log *log);

/* Finds where the whole entries of log->fd begin, bundle by bundle, whatever they hold: known,
 * file_bytes and offsets. */
CT_MUST_CHECK enum ct_err ct_audit_log_scan(struct ct_audit_log *log);

/* Reads bundle number `index` into a bundle whose buffer is initialised (CT_BUNDLE_BYTES_MAX), any
 * thread. */
CT_MUST_CHECK enum ct_err ct_audit_log_bundle(const struct ct_audit_log *log, uint64_t index,
                                              struct ct_audit_bundle *out);
struct ct_bytes ct_audit_bundle_entry(const struct ct_audit_bundle *bundle, uint32_t at);

/* Reads entries in order. Zeroed but for `log` it is at the first; ended with
 * ct_audit_cursor_deinit. */
struct ct_audit_cursor {
    const struct ct_audit_log *log;
    uint64_t next;
    bool loaded;
    struct ct_audit_bundle bundle;
};
/* Valid until the next call. The caller knows how many there are. */
CT_MUST_CHECK enum ct_err ct_audit_cursor_next(struct ct_audit_cursor *cursor,
                                               struct ct_bytes *out);
void ct_audit_cursor_deinit(struct ct_audit_cursor *cursor);

/* The bundle that holds an entry, as a file name below the run directory. */
void ct_audit_log_file(const struct ct_audit_log *log, uint64_t index, char out[160]);

/* Roots of the log's first `size` entries, for ascending sizes up to `known`. Zeroed but for `log`
 * it is at the start. */
struct ct_audit_roots {
    const struct ct_audit_log *log;
    struct ct_frontier full; /* over subtrees of full bundles, as if they were leaves */
    bool loaded;
    uint64_t bundle; /* the one whose leaves are loaded */
    struct ct_hash leaves[CT_TILE_WIDTH];
};
CT_MUST_CHECK enum ct_err ct_audit_roots_at(struct ct_audit_roots *roots, uint64_t size,
                                            struct ct_hash *out);

/* A ct_subtree_hash of the log's entries, in any order; user is a struct ct_audit_roots.
 * CT_ERR_NOT_FOUND behind the entries that are known. */
enum ct_err ct_audit_roots_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out);

/* Entries that were kept in a file, whatever they are: a log without a checkpoint, of which only
 * hashes may be asked. Takes over `fd`; ended with ct_audit_log_deinit in both cases. */
CT_MUST_CHECK enum ct_err ct_audit_log_kept(struct ct_pool *pool, int fd, struct ct_audit_log *out);

#endif
