/* Which checkpoints a ledger keeps, for mirrors: their sizes, ascending, a decimal number a line.
 */
#ifndef COORDINATOR_KEPT_LIST_H
#define COORDINATOR_KEPT_LIST_H

#include <cotrain/buf.h>

#define CT_KEPT_LIST_BYTES_MAX (32u << 20)

/* Appends the list of the ledger whose directory is open as `ledger_fd`; nothing for one that keeps
 * none yet. Any thread. */
CT_MUST_CHECK enum ct_err ct_kept_list_write(int ledger_fd, struct ct_buf *out);

/* Parses one from a stranger into sizes[count], allocated here and the caller's on success.
 * CT_ERR_FORMAT unless it is what ct_kept_list_write writes. */
CT_MUST_CHECK enum ct_err ct_kept_list_parse(struct ct_bytes text, uint64_t **out_sizes,
                                             size_t *out_count);

#endif
