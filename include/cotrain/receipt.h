/* Receipts: a contribution and the proof that it is in the ledger, as a C2SP tlog-proof file
 * ("c2sp.org/tlog-proof@v1") whose `extra` line holds the entry itself. */
#ifndef COTRAIN_RECEIPT_H
#define COTRAIN_RECEIPT_H

#include <cotrain/merkle.h>
#include <cotrain/note.h>

/* Appends the text of a receipt. */
CT_MUST_CHECK enum ct_err ct_receipt_format(uint64_t index, struct ct_bytes entry,
                                            const struct ct_proof *proof,
                                            struct ct_bytes checkpoint, struct ct_buf *out);

struct ct_receipt {
    uint64_t index;
    struct ct_checkpoint checkpoint;
    struct ct_buf entry; /* owned */
};

/* Verifies a receipt from a stranger against the log's verifier key (vkey form): strict syntax,
 * checkpoint signature, inclusion. On success the caller ends it with ct_receipt_deinit. */
CT_MUST_CHECK enum ct_err ct_receipt_open(struct ct_bytes text, const char *vkey,
                                          struct ct_receipt *out);
void ct_receipt_deinit(struct ct_receipt *receipt);

#endif
