/* C2SP signed-note and tlog-checkpoint (v1.0.0), Ed25519 (type 0x01): the log's signed tree head.
 */
#ifndef COTRAIN_NOTE_H
#define COTRAIN_NOTE_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>
#include <cotrain/limits.h>

struct ct_checkpoint {
    char origin[CT_ORIGIN_BYTES_MAX];
    uint64_t size;
    struct ct_hash root;
};

#define CT_VKEY_BYTES_MAX (CT_ORIGIN_BYTES_MAX + 64u)

/* "<name>+<8 hex of key id>+base64(0x01 ‖ public key)"; the name is the origin. */
void ct_vkey_format(const char *name, const struct ct_hash *public_key,
                    char out[CT_VKEY_BYTES_MAX]);
CT_MUST_CHECK enum ct_err ct_vkey_parse(const char *vkey, char out_name[CT_ORIGIN_BYTES_MAX],
                                        struct ct_hash *out_key);

/* Appends the signed note of a checkpoint. CT_ERR_CONFIG for an origin that can be no key name:
 * empty, with spaces, plus signs or control characters. */
CT_MUST_CHECK enum ct_err ct_checkpoint_sign(const struct ct_checkpoint *checkpoint,
                                             const struct ct_key *log_key, struct ct_buf *out);

/* Parses a note from a stranger strictly and verifies the signature of (origin, log key): unknown
 * keys are ignored, a failing line of the known key refuses the note, none of it refuses it too. */
CT_MUST_CHECK enum ct_err ct_checkpoint_open(struct ct_bytes note, const char *origin,
                                             const struct ct_hash *log_key,
                                             struct ct_checkpoint *out);

/* Appends the note with those signature lines alone that bear the origin's name: the log's own,
 * which a cosigned note has first. */
CT_MUST_CHECK enum ct_err ct_checkpoint_strip(struct ct_bytes note, struct ct_buf *out);

/* The same strictness without any key: nothing that it returns is authenticated. For who has yet to
 * learn the key, or trusts the place that the note comes from. */
CT_MUST_CHECK enum ct_err ct_checkpoint_parse(struct ct_bytes note, struct ct_checkpoint *out);

#endif
