/* The parts of a signed note that checkpoints and cosignatures share. */
#ifndef PROTO_NOTE_PARTS_H
#define PROTO_NOTE_PARTS_H

#include <cotrain/note.h>

/* Signature types of signed-note. */
enum ct_note_type { CT_NOTE_ED25519 = 1, CT_NOTE_COSIGNATURE = 4 };

struct ct_note_id {
    uint8_t bytes[4];
};
/* The first bytes of SHA-256(name ‖ LF ‖ type ‖ public key). */
struct ct_note_id ct_note_id(struct ct_bytes name, enum ct_note_type type,
                             const struct ct_hash *public_key);
bool ct_note_is_name(struct ct_bytes name);

/* Verifier keys: "<name>+<8 hex of the id>+base64(type ‖ public key)"; see note.h. */
void ct_note_vkey_format(const char *name, enum ct_note_type type, const struct ct_hash *public_key,
                         char out[CT_VKEY_BYTES_MAX]);
CT_MUST_CHECK enum ct_err ct_note_vkey_parse(const char *vkey, enum ct_note_type type,
                                             char out_name[CT_ORIGIN_BYTES_MAX],
                                             struct ct_hash *out_key);

/* Splits at the last empty line and refuses what is no note. The text keeps its final line feed,
 * the signatures are whole lines, at least one. Both point into `note`. */
CT_MUST_CHECK enum ct_err ct_note_split(struct ct_bytes note, struct ct_bytes *out_text,
                                        struct ct_bytes *out_signatures);

/* The line that starts at *at, without its line feed; *at moves behind that. False at the end, or
 * if the last line has no line feed. */
bool ct_note_next_line(struct ct_bytes text, size_t *at, struct ct_bytes *out);

#define CT_NOTE_LINES_MAX     100u /* as golang.org/x/mod/sumdb/note */
#define CT_NOTE_PAYLOAD_BYTES 72u  /* a time and an Ed25519 signature */

struct ct_note_line {
    struct ct_bytes name; /* points into the line */
    struct ct_note_id id;
    size_t length; /* of what is behind the id, as written; at most these bytes are kept: */
    uint8_t payload[CT_NOTE_PAYLOAD_BYTES];
};
/* "— NAME BASE64" without the line feed. */
CT_MUST_CHECK enum ct_err ct_note_line_parse(struct ct_bytes line, struct ct_note_line *out);
/* Whether the line claims to be this key's. */
bool ct_note_line_by(const struct ct_note_line *line, const char *name, struct ct_note_id id);
/* Appends the line with its line feed; length at most CT_NOTE_PAYLOAD_BYTES. */
CT_MUST_CHECK enum ct_err ct_note_line_format(const char *name, struct ct_note_id id,
                                              const uint8_t *payload, size_t length,
                                              struct ct_buf *out);

#endif
