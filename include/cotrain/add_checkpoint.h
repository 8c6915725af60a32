/* The body of C2SP tlog-witness's add-checkpoint: what a log sends to a witness.
 *
 *   old <size>                   of the last checkpoint that the witness cosigned
 *   <base64 hash>                0 to 63 lines: a consistency proof from there
 *                                (empty line)
 *   <signed checkpoint> */
#ifndef COTRAIN_ADD_CHECKPOINT_H
#define COTRAIN_ADD_CHECKPOINT_H

#include <cotrain/merkle.h>
#include <cotrain/note.h>

#define CT_ADD_CHECKPOINT_BYTES_MAX (CT_CHECKPOINT_BYTES_MAX + 4096u)
#define CT_ADD_CHECKPOINT_PATH      "add-checkpoint"
/* What a 409 is answered with: the size that the witness has, and a line feed. */
#define CT_ADD_CHECKPOINT_SIZE_TYPE "text/x.tlog.size"

struct ct_add_checkpoint {
    uint64_t old_size;
    struct ct_proof proof;
    struct ct_bytes note; /* points into the body */
};

CT_MUST_CHECK enum ct_err ct_add_checkpoint_format(uint64_t old_size, const struct ct_proof *proof,
                                                   struct ct_bytes note, struct ct_buf *out);
/* Form alone: signatures, sizes and the proof are not judged. CT_ERR_FORMAT, CT_ERR_TOO_LARGE. */
CT_MUST_CHECK enum ct_err ct_add_checkpoint_parse(struct ct_bytes body,
                                                  struct ct_add_checkpoint *out);
/* "<size>\n" without leading zeros, as 409 is answered. */
CT_MUST_CHECK enum ct_err ct_add_checkpoint_size(struct ct_bytes body, uint64_t *out);

#endif
