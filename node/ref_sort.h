/* Sorts more references than fit into memory: a bounded part is sorted at a time and put into a
 * temporary file without a name, then the parts are merged. For telling which blobs a ledger names,
 * which are there, and which are neither, however many they are. */
#ifndef NODE_REF_SORT_H
#define NODE_REF_SORT_H

#include <cotrain/err.h>
#include <cotrain/types.h>

/* Something that names a blob; ordered by digest, those that must be there first, then entry. */
struct ct_named_ref {
    struct ct_blob_ref ref;
    uint64_t entry;
    bool may_be_gone; /* nothing is wrong if it is not there */
};

struct ct_ref_sort;

/* About 4 MiB at work. The file goes into $TMPDIR or /tmp. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_ref_sort_open(struct ct_ref_sort **out);
/* NULL is allowed. */
void ct_ref_sort_close(struct ct_ref_sort *sort);

/* Adds one; none after the first ct_ref_sort_next. CT_ERR_IO when the file cannot be written. */
CT_MUST_CHECK enum ct_err ct_ref_sort_add(struct ct_ref_sort *sort, const struct ct_blob_ref *ref,
                                          uint64_t entry, bool may_be_gone);
/* The next in order; of equal digests the first alone. CT_ERR_NOT_FOUND at the end. */
CT_MUST_CHECK enum ct_err ct_ref_sort_next(struct ct_ref_sort *sort, struct ct_named_ref *out);

#endif
