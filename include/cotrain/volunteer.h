/* A volunteer's profile: the name and the coarse region that they agree to show beside their node's
 * number. The ledger holds its digest alone, so that the record can be deleted and the log stays
 * valid; the salt keeps the digest from being guessed (protocol.md section 2).
 *
 * A record is the message ProfileRecord, signed by the node's key as DSSE type CT_TYPE_PROFILE over
 * salt and profile together; SHA-256 of the same bytes is what the admission names. */
#ifndef COTRAIN_VOLUNTEER_H
#define COTRAIN_VOLUNTEER_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>
#include <cotrain/limits.h>

#define CT_TYPE_PROFILE "application/vnd.cotrain.profile.v1"

/* Each at most 32 letters, digits and "-_. ", no space at its ends; one of them may be empty. */
struct ct_volunteer {
    char name[33], region[33];
};
bool ct_volunteer_is_empty(const struct ct_volunteer *volunteer);
bool ct_volunteer_equal(const struct ct_volunteer *a, const struct ct_volunteer *b);
/* Copies a name or region into a field of the struct; CT_ERR_FORMAT with the rule in words. */
CT_MUST_CHECK enum ct_err ct_volunteer_set(char field[33], const char *what, const char *text);

/* Appends a new record, with a salt of its own: at most CT_PROFILE_BYTES_MAX bytes. */
CT_MUST_CHECK enum ct_err ct_volunteer_sign(const struct ct_volunteer *volunteer,
                                            const struct ct_hash *run_id, const struct ct_key *key,
                                            struct ct_buf *out);

/* A stranger's bytes: CT_ERR_TOO_LARGE, CT_ERR_FORMAT, CT_ERR_RULE for another run's,
 * CT_ERR_SIGNATURE. *out_digest is what an admission names; either output may be NULL. */
CT_MUST_CHECK enum ct_err ct_volunteer_open(struct ct_bytes record, const struct ct_hash *run_id,
                                            const struct ct_hash *public_key,
                                            struct ct_volunteer *out, struct ct_hash *out_digest);

#endif
