/* Signed notes and checkpoints. A note is text, an empty line and signature lines; who reads one
 * from a stranger refuses whatever a strict writer would not have written. */
#include <cotrain/assert.h>
#include <cotrain/merkle.h>
#include <cotrain/note.h>
#include <cotrain/text.h>

#include <stdio.h>
#include <string.h>

#define EM_DASH            "\xe2\x80\x94"
#define TYPE_ED25519       1
#define KEY_ID_BYTES       4
#define SIGNATURES_MAX     100u /* as golang.org/x/mod/sumdb/note */
#define ROOT_BASE64_LENGTH 44u

struct key_id {
    uint8_t bytes[KEY_ID_BYTES];
};

static struct key_id key_id_of(const char *name, size_t length, const struct ct_hash *public_key) {
    static const uint8_t tail[2] = {'\n', TYPE_ED25519};
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, name, length);
    ct_sha256_update(&sha, tail, sizeof tail);
    ct_sha256_update(&sha, public_key->bytes, sizeof public_key->bytes);
    struct ct_hash hash = ct_sha256_final(&sha);
    struct key_id id;
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
static bool is_key_name(struct ct_bytes name) {
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

void ct_vkey_format(const char *name, const struct ct_hash *public_key,
                    char out[CT_VKEY_BYTES_MAX]) {
    size_t length = strlen(name);
    CT_ASSERT(length < CT_ORIGIN_BYTES_MAX && is_key_name(text_bytes(name)));
    uint8_t typed[1 + sizeof public_key->bytes];
    typed[0] = TYPE_ED25519;
    memcpy(typed + 1, public_key->bytes, sizeof public_key->bytes);
    char base64[4 * ((sizeof typed + 2) / 3) + 1];
    ct_base64_encode((struct ct_bytes){typed, sizeof typed}, base64);
    struct key_id id = key_id_of(name, length, public_key);
    int used = snprintf(out, CT_VKEY_BYTES_MAX, "%s+%02x%02x%02x%02x+%s", name, id.bytes[0],
                        id.bytes[1], id.bytes[2], id.bytes[3], base64);
    CT_ASSERT(used > 0 && (unsigned)used < CT_VKEY_BYTES_MAX);
}

enum ct_err ct_vkey_parse(const char *vkey, char out_name[CT_ORIGIN_BYTES_MAX],
                          struct ct_hash *out_key) {
    const char *plus = strchr(vkey, '+');
    const char *second = plus == NULL ? NULL : strchr(plus + 1, '+');
    if (second == NULL || second - plus != 1 + 2 * KEY_ID_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "verifier key: not of the form NAME+8 HEX DIGITS+BASE64");
    }
    size_t length = (size_t)(plus - vkey);
    if (length >= CT_ORIGIN_BYTES_MAX ||
        !is_key_name((struct ct_bytes){(const uint8_t *)vkey, length})) {
        return ct_fail(CT_ERR_FORMAT,
                       "verifier key: its name is empty, longer than %u bytes or "
                       "holds a space or control character",
                       CT_ORIGIN_BYTES_MAX - 1);
    }
    uint8_t typed[1 + sizeof out_key->bytes];
    size_t typed_length = 0;
    if (ct_base64_decode(second + 1, strlen(second + 1), typed, sizeof typed, &typed_length) !=
            CT_OK ||
        typed_length != sizeof typed || typed[0] != TYPE_ED25519) {
        return ct_fail(CT_ERR_FORMAT, "verifier key: no Ed25519 key after the second plus sign");
    }
    memcpy(out_key->bytes, typed + 1, sizeof out_key->bytes);
    struct key_id id = key_id_of(vkey, length, out_key);
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

enum ct_err ct_checkpoint_sign(const struct ct_checkpoint *checkpoint, const struct ct_key *log_key,
                               struct ct_buf *out) {
    size_t length = strnlen(checkpoint->origin, sizeof checkpoint->origin);
    if (length == sizeof checkpoint->origin || !is_key_name(text_bytes(checkpoint->origin))) {
        return ct_fail(CT_ERR_CONFIG,
                       "the log's origin must be 1 to %u characters without spaces "
                       "and plus signs",
                       CT_ORIGIN_BYTES_MAX - 1);
    }
    char root[ROOT_BASE64_LENGTH + 1];
    ct_base64_encode((struct ct_bytes){checkpoint->root.bytes, sizeof checkpoint->root.bytes},
                     root);
    char text[CT_ORIGIN_BYTES_MAX + 32 + sizeof root];
    int used = snprintf(text, sizeof text, "%s\n%llu\n%s\n", checkpoint->origin,
                        (unsigned long long)checkpoint->size, root);
    CT_ASSERT(used > 0 && (size_t)used < sizeof text);

    struct ct_hash public_key = ct_key_public(log_key);
    struct key_id id = key_id_of(checkpoint->origin, length, &public_key);
    struct ct_signature signature =
        ct_key_sign(log_key, (struct ct_bytes){(const uint8_t *)text, (size_t)used});
    uint8_t payload[KEY_ID_BYTES + sizeof signature.bytes];
    memcpy(payload, id.bytes, sizeof id.bytes);
    memcpy(payload + sizeof id.bytes, signature.bytes, sizeof signature.bytes);
    char base64[4 * ((sizeof payload + 2) / 3) + 1];
    ct_base64_encode((struct ct_bytes){payload, sizeof payload}, base64);
    return ct_buf_printf(out, "%s\n" EM_DASH " %s %s\n", text, checkpoint->origin, base64);
}

/* The line that starts at *at, without its line feed; *at moves behind that. False at the end, or
 * if the last line has no line feed. */
static bool next_line(struct ct_bytes text, size_t *at, struct ct_bytes *out) {
    const uint8_t *start = text.data + *at;
    const uint8_t *end = *at < text.length ? memchr(start, '\n', text.length - *at) : NULL;
    if (end == NULL) {
        return false;
    }
    *out = (struct ct_bytes){start, (size_t)(end - start)};
    *at += out->length + 1;
    return true;
}

/* Splits at the last empty line; the text keeps its final line feed. */
static enum ct_err split_note(struct ct_bytes note, struct ct_bytes *out_text,
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

static enum ct_err parse_size(struct ct_bytes line, uint64_t *out) {
    uint64_t size = 0;
    bool good = line.length > 0 && line.length <= 19 && (line.data[0] != '0' || line.length == 1);
    for (size_t i = 0; good && i < line.length; i++) {
        good = line.data[i] >= '0' && line.data[i] <= '9';
        size = size * 10 + (uint64_t)(line.data[i] - '0');
    }
    if (!good || size > INT64_MAX) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: the second line is no tree size");
    }
    *out = size;
    return CT_OK;
}

static enum ct_err parse_text(struct ct_bytes text, struct ct_checkpoint *out) {
    struct ct_bytes origin = {NULL, 0};
    struct ct_bytes size = {NULL, 0};
    struct ct_bytes root = {NULL, 0};
    size_t at = 0;
    if (!next_line(text, &at, &origin) || !next_line(text, &at, &size) ||
        !next_line(text, &at, &root)) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: fewer than three lines");
    }
    if (origin.length == 0 || origin.length >= sizeof out->origin ||
        memchr(origin.data, '\0', origin.length) != NULL) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: origin empty or longer than %u bytes",
                       CT_ORIGIN_BYTES_MAX - 1);
    }
    memcpy(out->origin, origin.data, origin.length);
    out->origin[origin.length] = '\0';
    CT_TRY(parse_size(size, &out->size));
    size_t root_length = 0;
    if (root.length != ROOT_BASE64_LENGTH ||
        ct_base64_decode((const char *)root.data, root.length, out->root.bytes,
                         sizeof out->root.bytes, &root_length) != CT_OK ||
        root_length != sizeof out->root.bytes) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: the third line is no root hash");
    }
    struct ct_hash empty = ct_empty_root();
    if (out->size == 0 && !ct_hash_equal(&out->root, &empty)) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: size 0 with the root of another tree");
    }
    while (at < text.length) {
        struct ct_bytes extension = {NULL, 0};
        if (!next_line(text, &at, &extension) || extension.length == 0) {
            return ct_fail(CT_ERR_FORMAT, "checkpoint: an empty extension line");
        }
    }
    return CT_OK;
}

struct signature_line {
    struct ct_bytes name;
    struct key_id id;
    size_t length; /* of the signature behind the key id, as written; at most these are kept: */
    struct ct_signature signature;
};

static enum ct_err parse_signature(struct ct_bytes line, struct signature_line *out) {
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
    if (!is_key_name(out->name) ||
        ct_base64_decode(base64, base64_length, payload, sizeof payload, &payload_length) !=
            CT_OK ||
        payload_length <= KEY_ID_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: a signature line with a wrong name or base64");
    }
    memcpy(out->id.bytes, payload, KEY_ID_BYTES);
    out->length = payload_length - KEY_ID_BYTES;
    if (out->length == sizeof out->signature.bytes) {
        memcpy(out->signature.bytes, payload + KEY_ID_BYTES, sizeof out->signature.bytes);
    }
    return CT_OK;
}

/* Checks the form of all signature lines and, if log_key is given, its signatures. */
static enum ct_err check_signatures(struct ct_bytes text, struct ct_bytes signatures,
                                    const char *origin, const struct ct_hash *log_key) {
    struct key_id id = {{0}};
    if (log_key != NULL) {
        id = key_id_of(origin, strlen(origin), log_key);
    }
    bool verified = false;
    uint32_t count = 0;
    for (size_t at = 0; at < signatures.length; count++) {
        struct ct_bytes line = {NULL, 0};
        if (count == SIGNATURES_MAX || !next_line(signatures, &at, &line)) {
            return ct_fail(CT_ERR_FORMAT, "checkpoint: more than %u signatures", SIGNATURES_MAX);
        }
        struct signature_line signature;
        CT_TRY(parse_signature(line, &signature));
        bool known = log_key != NULL && signature.name.length == strlen(origin) &&
                     memcmp(signature.name.data, origin, signature.name.length) == 0 &&
                     memcmp(signature.id.bytes, id.bytes, sizeof id.bytes) == 0;
        if (!known) {
            continue;
        }
        if (signature.length != sizeof signature.signature.bytes ||
            !ct_verify(log_key, text, &signature.signature)) {
            return ct_fail(CT_ERR_SIGNATURE, "checkpoint: the signature of %s does not verify",
                           origin);
        }
        verified = true;
    }
    if (log_key != NULL && !verified) {
        return ct_fail(CT_ERR_SIGNATURE, "checkpoint: not signed by the key expected of %s",
                       origin);
    }
    return CT_OK;
}

enum ct_err ct_checkpoint_open(struct ct_bytes note, const char *origin,
                               const struct ct_hash *log_key, struct ct_checkpoint *out) {
    struct ct_bytes text = {NULL, 0};
    struct ct_bytes signatures = {NULL, 0};
    CT_TRY(split_note(note, &text, &signatures));
    CT_TRY(check_signatures(text, signatures, origin, log_key));
    struct ct_checkpoint checkpoint;
    CT_TRY(parse_text(text, &checkpoint));
    if (strcmp(checkpoint.origin, origin) != 0) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: of another log than %s", origin);
    }
    *out = checkpoint;
    return CT_OK;
}

enum ct_err ct_checkpoint_parse(struct ct_bytes note, struct ct_checkpoint *out) {
    struct ct_bytes text = {NULL, 0};
    struct ct_bytes signatures = {NULL, 0};
    CT_TRY(split_note(note, &text, &signatures));
    CT_TRY(check_signatures(text, signatures, "", NULL));
    struct ct_checkpoint checkpoint;
    CT_TRY(parse_text(text, &checkpoint));
    *out = checkpoint;
    return CT_OK;
}
