/* The first part of an audit: the log itself. Loads every entry below the signed checkpoint and
 * holds every file of the run directory to it. */
#ifndef NODE_AUDIT_LOG_H
#define NODE_AUDIT_LOG_H

#include "audit.h"

#include <cotrain/ledger.h>

/* The entries that the checkpoint covers, authenticated; behind them those of the run directory
 * that were durable but not yet published (a crash leaves such), signed by the coordinator. */
struct ct_audit_log {
    struct ct_checkpoint checkpoint; /* checkpoint.size entries are covered */
    struct ct_run_opened opened;
    struct ct_buf data;     /* u16 big-endian length ‖ entry, as in bundles */
    uint64_t *offsets;      /* [known + 1] into data */
    struct ct_hash *leaves; /* [known] */
    uint64_t known;         /* at least checkpoint.size */
};

/* Loads and authenticates; findings go to the report. False if there is no log to go on with. */
bool ct_audit_log_load(struct ct_source *source, struct ct_audit_report *report,
                       struct ct_audit_log *out);
void ct_audit_log_deinit(struct ct_audit_log *log);

struct ct_bytes ct_audit_log_entry(const struct ct_audit_log *log, uint64_t index);

/* The bundle that holds an entry, as a file name below the run directory. */
void ct_audit_log_file(const struct ct_audit_log *log, uint64_t index, char out[160]);

/* Accounts for every file below a run directory: verified, known and private, or a finding. `named`
 * are the digests that entries name, ascending by bytes; other blobs are spare. */
void ct_audit_files(const char *directory, const struct ct_audit_log *log,
                    const struct ct_hash *named, size_t named_count,
                    struct ct_audit_report *report);

#endif
