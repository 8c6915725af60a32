/* Signed notes: text, an empty line and signature lines. Who reads one from a stranger refuses
 * whatever a strict writer would not have written. */
#include "note_parts.h"

#include <cotrain/assert.h>
#include <cotrain/text.h>

#include <stdio.h>
#include <string.h>

#define EM_DASH      "\xe2\x80\x94"
#define KEY_ID_BYTES sizeof(struct ct_note_id)

struct ct_note_id ct_note_id(struct ct_bytes name, enum ct_note_type type,
                             const struct ct_hash *public_key) {
    const uint8_t tail[2] = {'\n', (uint8_t)type};
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, name.data, name.length);
    ct_sha256_update(&sha, tail, sizeof tail);
    ct_sha256_update(&sha, public_key->bytes, sizeof public_key->bytes);
    struct ct_hash hash = ct_sha256_final(&sha);
    struct ct_note_id id;
    memcpy(id.bytes, hash.bytes, sizeof id.bytes);
    return id;
}

/* Unicode's White_Space, of which ct_text_character leaves these. */
static bool is_space(const uint8_t *character, size_t length) {
    static const char *const spaces[] = {" ",      "\u00a0", "\u1680", "\u2000", "\u2001",
                                         "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
                                         "\u2007", "\u2008", "\u2009", "\u200a", "\u2028",
                                         "\u2029", "\u202f", "\u205f", "\u3000"};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        if (strlen(spaces[i]) == length && memcmp(spaces[i], character, length) == 0) {
            return true;
        }
    }
    return false;
}

/* A key name: not empty, UTF-8, no space, no plus, no control character. */
bool ct_note_is_name(struct ct_bytes name) {
    for (size_t at = 0; at < name.length;) {
        const uint8_t *character = name.data + at;
        size_t length = ct_text_character((struct ct_bytes){character, name.length - at});
        if (length == 0 || *character == '+' || is_space(character, length)) {
            return false;
        }
        at += length;
    }
    return name.length > 0;
}

/* The text of a note: UTF-8 without control characters but the line feed. signed-note forbids those
 * below U+0020 alone; nothing that is written needs the others (U+007F to U+009F). */
static bool is_note_text(struct ct_bytes text) {
    for (size_t at = 0; at < text.length;) {
        size_t length = ct_text_character((struct ct_bytes){text.data + at, text.length - at});
        if (length == 0 && text.data[at] != '\n') {
            return false;
        }
        at += length == 0 ? 1 : length;
    }
    return true;
}

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

void ct_note_vkey_format(const char *name, enum ct_note_type type, const struct ct_hash *public_key,
                         char out[CT_VKEY_BYTES_MAX]) {
    size_t length = strlen(name);
    CT_ASSERT(length < CT_ORIGIN_BYTES_MAX && ct_note_is_name(text_bytes(name)));
    uint8_t typed[1 + sizeof public_key->bytes];
    typed[0] = (uint8_t)type;
    memcpy(typed + 1, public_key->bytes, sizeof public_key->bytes);
    char base64[4 * ((sizeof typed + 2) / 3) + 1];
    ct_base64_encode((struct ct_bytes){typed, sizeof typed}, base64);
    struct ct_note_id id = ct_note_id(text_bytes(name), type, public_key);
    int used = snprintf(out, CT_VKEY_BYTES_MAX, "%s+%02x%02x%02x%02x+%s", name, id.bytes[0],
                        id.bytes[1], id.bytes[2], id.bytes[3], base64);
    CT_ASSERT(used > 0 && (unsigned)used < CT_VKEY_BYTES_MAX);
}

enum ct_err ct_note_vkey_parse(const char *vkey, enum ct_note_type type,
                               char out_name[CT_ORIGIN_BYTES_MAX], struct ct_hash *out_key) {
    const char *plus = strchr(vkey, '+');
    const char *second = plus == NULL ? NULL : strchr(plus + 1, '+');
    if (second == NULL || second - plus != 1 + 2 * KEY_ID_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "verifier key: not of the form NAME+8 HEX DIGITS+BASE64");
    }
    size_t length = (size_t)(plus - vkey);
    if (length >= CT_ORIGIN_BYTES_MAX ||
        !ct_note_is_name((struct ct_bytes){(const uint8_t *)vkey, length})) {
        return ct_fail(CT_ERR_FORMAT,
                       "verifier key: its name is empty, longer than %u bytes or "
                       "holds a space or control character",
                       CT_ORIGIN_BYTES_MAX - 1);
    }
    uint8_t typed[1 + sizeof out_key->bytes];
    size_t typed_length = 0;
    if (ct_base64_decode(second + 1, strlen(second + 1), typed, sizeof typed, &typed_length) !=
            CT_OK ||
        typed_length != sizeof typed || typed[0] != type) {
        return ct_fail(CT_ERR_FORMAT, "verifier key: no %s after the second plus sign",
                       type == CT_NOTE_ED25519 ? "Ed25519 key of a log"
                                               : "Ed25519 key of a witness (cosignature/v1)");
    }
    memcpy(out_key->bytes, typed + 1, sizeof out_key->bytes);
    struct ct_note_id id =
        ct_note_id((struct ct_bytes){(const uint8_t *)vkey, length}, type, out_key);
    char hex[2 * KEY_ID_BYTES + 1];
    snprintf(hex, sizeof hex, "%02x%02x%02x%02x", id.bytes[0], id.bytes[1], id.bytes[2],
             id.bytes[3]);
    if (memcmp(hex, plus + 1, 2 * KEY_ID_BYTES) != 0) {
        return ct_fail(CT_ERR_DIGEST, "verifier key: its key id should be %s", hex);
    }
    memcpy(out_name, vkey, length);
    out_name[length] = '\0';
    return CT_OK;
}

bool ct_note_next_line(struct ct_bytes text, size_t *at, struct ct_bytes *out) {
    const uint8_t *start = text.data + *at;
    const uint8_t *end = *at < text.length ? memchr(start, '\n', text.length - *at) : NULL;
    if (end == NULL) {
        return false;
    }
    *out = (struct ct_bytes){start, (size_t)(end - start)};
    *at += out->length + 1;
    return true;
}

enum ct_err ct_note_split(struct ct_bytes note, struct ct_bytes *out_text,
                          struct ct_bytes *out_signatures) {
    if (note.length > CT_CHECKPOINT_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "checkpoint: longer than %u bytes",
                       CT_CHECKPOINT_BYTES_MAX);
    }
    if (!is_note_text(note)) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: not UTF-8, or with control characters");
    }
    size_t at = note.length;
    while (at >= 2 && !(note.data[at - 1] == '\n' && note.data[at - 2] == '\n')) {
        at--;
    }
    if (at < 2 || at == note.length || note.data[note.length - 1] != '\n') {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: no signature lines after an empty line");
    }
    *out_text = (struct ct_bytes){note.data, at - 1};
    *out_signatures = (struct ct_bytes){note.data + at, note.length - at};
    return CT_OK;
}

enum ct_err ct_note_line_parse(struct ct_bytes line, struct ct_note_line *out) {
    size_t dash = strlen(EM_DASH " ");
    const uint8_t *space = NULL;
    if (line.length > dash && memcmp(line.data, EM_DASH " ", dash) == 0) {
        space = memchr(line.data + dash, ' ', line.length - dash);
    }
    if (space == NULL) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: a signature line that is none");
    }
    out->name = (struct ct_bytes){line.data + dash, (size_t)(space - line.data) - dash};
    uint8_t payload[CT_CHECKPOINT_BYTES_MAX];
    size_t payload_length = 0;
    const char *base64 = (const char *)space + 1;
    size_t base64_length = line.length - (size_t)(space + 1 - line.data);
    if (!ct_note_is_name(out->name) ||
        ct_base64_decode(base64, base64_length, payload, sizeof payload, &payload_length) !=
            CT_OK ||
        payload_length <= KEY_ID_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: a signature line with a wrong name or base64");
    }
    memcpy(out->id.bytes, payload, KEY_ID_BYTES);
    out->length = payload_length - KEY_ID_BYTES;
    memcpy(out->payload, payload + KEY_ID_BYTES,
           out->length < sizeof out->payload ? out->length : sizeof out->payload);
    return CT_OK;
}

bool ct_note_line_by(const struct ct_note_line *line, const char *name, struct ct_note_id id) {
    return line->name.length == strlen(name) && memcmp(line->name.data, name, strlen(name)) == 0 &&
           memcmp(line->id.bytes, id.bytes, sizeof id.bytes) == 0;
}

enum ct_err ct_note_line_format(const char *name, struct ct_note_id id, const uint8_t *payload,
                                size_t length, struct ct_buf *out) {
    uint8_t bytes[KEY_ID_BYTES + CT_NOTE_PAYLOAD_BYTES];
    char base64[4 * ((sizeof bytes + 2) / 3) + 1];
    CT_ASSERT(length <= CT_NOTE_PAYLOAD_BYTES);
    memcpy(bytes, id.bytes, sizeof id.bytes);
    memcpy(bytes + sizeof id.bytes, payload, length);
    ct_base64_encode((struct ct_bytes){bytes, sizeof id.bytes + length}, base64);
    return ct_buf_printf(out, EM_DASH " %s %s\n", name, base64);
}
