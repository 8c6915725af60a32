/* Receipts: a contribution and the proof that it is in the ledger, as a C2SP tlog-proof file
 * ("c2sp.org/tlog-proof@v1") whose `extra` line holds the entry itself. */
#ifndef COTRAIN_RECEIPT_H
#define COTRAIN_RECEIPT_H

#include <cotrain/merkle.h>
#include <cotrain/note.h>

#define CT_RECEIPT_BYTES_MAX 131072u /* the largest entry in base64, 63 hashes, a checkpoint */

/* Appends the text of a receipt. */
CT_MUST_CHECK enum ct_err ct_receipt_format(uint64_t index, struct ct_bytes entry,
                                            const struct ct_proof *proof,
                                            struct ct_bytes checkpoint, struct ct_buf *out);

struct ct_receipt {
    uint64_t index;
    struct ct_checkpoint checkpoint;
    struct ct_buf entry; /* owned */
    struct ct_buf note;  /* owned; the checkpoint as it was signed, for policy.h */
};

/* Verifies a receipt from a stranger against the log's verifier key (vkey form): strict syntax,
 * checkpoint signature, inclusion. On success the caller ends it with ct_receipt_deinit. */
CT_MUST_CHECK enum ct_err ct_receipt_open(struct ct_bytes text, const char *vkey,
                                          struct ct_receipt *out);
/* The same for a proof whose entry is kept beside it: the `extra` line may be missing; if it is
 * there it must hold that entry. */
CT_MUST_CHECK enum ct_err ct_receipt_open_with(struct ct_bytes text, struct ct_bytes entry,
                                               const char *vkey, struct ct_receipt *out);
void ct_receipt_deinit(struct ct_receipt *receipt);

#endif
