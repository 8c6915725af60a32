/* C2SP tlog-cosignature v1 (Ed25519, type 0x04): a witness's signature line under a checkpoint. It
 * says: of this log I have seen no larger tree that is consistent with all that I saw before. It
 * covers "cosignature/v1", its time and the checkpoint's whole text, but not the witness's name:
 * two witnesses must not share a key. */
#ifndef COTRAIN_COSIGNATURE_H
#define COTRAIN_COSIGNATURE_H

#include <cotrain/note.h>

/* Most bytes of one line. */
#define CT_COSIGNATURE_BYTES_MAX (CT_ORIGIN_BYTES_MAX + 128u)

/* A witness's verifier key: "<name>+<8 hex of key id>+base64(0x04 ‖ public key)". */
void ct_cosigner_format(const char *name, const struct ct_hash *public_key,
                        char out[CT_VKEY_BYTES_MAX]);
CT_MUST_CHECK enum ct_err ct_cosigner_parse(const char *vkey, char out_name[CT_ORIGIN_BYTES_MAX],
                                            struct ct_hash *out_key);

/* Appends the line of the witness `name` for the text of a note; time_s is Unix time, above 0.
 * CT_ERR_CONFIG for a name that is none. That the checkpoint is one to sign is the caller's to
 * know. */
CT_MUST_CHECK enum ct_err ct_cosign(struct ct_bytes note, const char *name,
                                    const struct ct_key *key, uint64_t time_s, struct ct_buf *out);

/* Looks for the witness's line in a note. CT_ERR_NOT_FOUND when there is none, CT_ERR_SIGNATURE
 * when one of its lines does not verify. out_time_s (the newest line's) may be NULL. */
CT_MUST_CHECK enum ct_err ct_cosignature_check(struct ct_bytes note, const char *name,
                                               const struct ct_hash *public_key,
                                               uint64_t *out_time_s);

/* Takes the witness's line out of `lines` (a witness's answer: whole signature lines, others are
 * passed over), verifies it for the note's text and appends it to the note in place of an older one
 * of the same witness. Errors as above; then the note is unchanged. */
CT_MUST_CHECK enum ct_err ct_cosignature_take(struct ct_bytes lines, const char *name,
                                              const struct ct_hash *public_key,
                                              struct ct_buf *note);

#endif
