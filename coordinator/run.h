/* A run directory (run_dir.h) that is open: its keys, its ledger folded, its model. */
#ifndef COORDINATOR_RUN_H
#define COORDINATOR_RUN_H

#include <cotrain/blob.h>
#include <cotrain/ledger.h>
#include <cotrain/replay.h>
#include <cotrain/run_dir.h>

#include <limits.h>

/* What DIR/ports holds: "host HOST\nwork PORT\nhttp PORT\n"; a port of 0 was never bound. */
struct ct_ports {
    char host[256]; /* for tickets: by which name or address others reach this machine */
    uint16_t work, http;
};
CT_MUST_CHECK enum ct_err ct_ports_load(const char *dir, struct ct_ports *out);
CT_MUST_CHECK enum ct_err ct_ports_save(const char *dir, const struct ct_ports *ports);
/* Where ledger and blobs are read: "http://HOST:PORT/". */
#define CT_URL_BYTES_MAX 288
void ct_ports_url(const struct ct_ports *ports, char out[CT_URL_BYTES_MAX]);

struct ct_run {
    char dir[PATH_MAX];
    int lock_fd;              /* −1: opened for reading */
    struct ct_key *identity;  /* NULL when opened for reading */
    struct ct_key *log_key;   /* likewise */
    struct ct_ledger *ledger; /* NULL when opened for reading */
    struct ct_blobs blobs;
    struct ct_replay replay; /* fold and θ; θ only when opened for writing */
    struct ct_buf first;     /* entry 0 */
};

/* "DIR/NAME" into out[PATH_MAX]; CT_ERR_CONFIG when it is too long. */
CT_MUST_CHECK enum ct_err ct_run_path(const char *dir, const char *name, char *out);

/* Opens as the one writer: locks DIR (CT_ERR_STATE when another process has it), folds the ledger
 * from the newest cached fold that the log confirms, or checks all of the ledger and folds it from
 * the start; and takes θ from the cache or recomputes it from the newest snapshot. `each` is told
 * entry 0, the commits of the last closed round, and all entries since, after they were applied; it
 * may be told others, may be NULL. On success ended with ct_run_close, which does not publish; on
 * failure nothing is owned.
 */
typedef enum ct_err (*ct_run_entry)(void *user, const struct ct_fold *fold, uint64_t index,
                                    struct ct_bytes entry);
CT_MUST_CHECK enum ct_err ct_run_open(const char *dir, ct_run_entry each, void *user,
                                      struct ct_run *out);
/* Opens for reading, beside a writer: folds what is published, without signatures and θ. */
CT_MUST_CHECK enum ct_err ct_run_read(const char *dir, struct ct_run *out);
void ct_run_close(struct ct_run *run);
/* Takes the lock of the one writer (also of a mirror's directory) until *out_fd is closed;
 * CT_ERR_STATE when another process has it. */
CT_MUST_CHECK enum ct_err ct_run_lock(const char *dir, int *out_fd);
/* Whether a process has DIR open as its writer. */
bool ct_run_is_served(const char *dir);

/* Encodes, signs and appends the bytes of an entry of this run; time and version are set here. */
CT_MUST_CHECK enum ct_err ct_run_seal(const struct ct_key *identity, struct ct_entry *entry,
                                      struct ct_buf *out);

#endif
