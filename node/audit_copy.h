/* Brings a log's entries from the bundles of a source into one file, several bundles at a time. */
#ifndef NODE_AUDIT_COPY_H
#define NODE_AUDIT_COPY_H

#include "audit_log.h"

#define CT_AUDIT_ENTRIES "entries" /* the file in the directory that keeps them */

/* The first `size` entries as *out_fd, which the caller closes. `dir` keeps the file: whole bundles
 * that are there are not fetched again (*out_kept of them; what they hold is for the caller to
 * judge), unless `fresh`, which moves them aside as entries.before. Without `dir` the file has no
 * name. *out_whole is false when a bundle could not be had: then there are findings. An error is
 * ours: memory, disk, the budget. */
CT_MUST_CHECK enum ct_err ct_audit_copy(struct ct_source *source, struct ct_pool *pool,
                                        const char *dir, bool fresh, uint64_t size,
                                        struct ct_audit_report *report, int *out_fd,
                                        uint64_t *out_kept, bool *out_whole);

/* The first bundle of a log that claims to have `size` entries. */
CT_MUST_CHECK enum ct_err ct_audit_first_entry(struct ct_source *source, uint64_t size,
                                               struct ct_buf *out);
/* Calls back for each of the last entries of a log that claims to have `size` (not 0), a bundle's
 * at most; perhaps twice, and perhaps for some behind them. */
CT_MUST_CHECK enum ct_err ct_audit_last_entries(struct ct_source *source, uint64_t size,
                                                ct_bundle_entry each, void *user);

#endif
