/* Checkpoints: the log's signed tree head as a note, and the log's verifier key. */
#include "note_parts.h"

#include <cotrain/assert.h>
#include <cotrain/merkle.h>

#include <stdio.h>
#include <string.h>

#define ROOT_BASE64_LENGTH 44u

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

void ct_vkey_format(const char *name, const struct ct_hash *public_key,
                    char out[CT_VKEY_BYTES_MAX]) {
    ct_note_vkey_format(name, CT_NOTE_ED25519, public_key, out);
}

enum ct_err ct_vkey_parse(const char *vkey, char out_name[CT_ORIGIN_BYTES_MAX],
                          struct ct_hash *out_key) {
    return ct_note_vkey_parse(vkey, CT_NOTE_ED25519, out_name, out_key);
}

enum ct_err ct_checkpoint_sign(const struct ct_checkpoint *checkpoint, const struct ct_key *log_key,
                               struct ct_buf *out) {
    size_t length = strnlen(checkpoint->origin, sizeof checkpoint->origin);
    if (length == sizeof checkpoint->origin || !ct_note_is_name(text_bytes(checkpoint->origin))) {
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
    struct ct_note_id id = ct_note_id(text_bytes(checkpoint->origin), CT_NOTE_ED25519, &public_key);
    struct ct_signature signature =
        ct_key_sign(log_key, (struct ct_bytes){(const uint8_t *)text, (size_t)used});
    CT_TRY(ct_buf_printf(out, "%s\n", text));
    return ct_note_line_format(checkpoint->origin, id, signature.bytes, sizeof signature.bytes,
                               out);
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
    if (!ct_note_next_line(text, &at, &origin) || !ct_note_next_line(text, &at, &size) ||
        !ct_note_next_line(text, &at, &root)) {
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
        return ct_fail(CT_ERR_DIGEST, "checkpoint: size 0 with the root of another tree");
    }
    while (at < text.length) {
        struct ct_bytes extension = {NULL, 0};
        if (!ct_note_next_line(text, &at, &extension) || extension.length == 0) {
            return ct_fail(CT_ERR_FORMAT, "checkpoint: an empty extension line");
        }
    }
    return CT_OK;
}

/* Checks the form of all signature lines and, if log_key is given, its signatures. */
static enum ct_err check_signatures(struct ct_bytes text, struct ct_bytes signatures,
                                    const char *origin, const struct ct_hash *log_key) {
    struct ct_note_id id = {{0}};
    if (log_key != NULL) {
        id = ct_note_id(text_bytes(origin), CT_NOTE_ED25519, log_key);
    }
    bool verified = false;
    uint32_t count = 0;
    for (size_t at = 0; at < signatures.length; count++) {
        struct ct_bytes bytes = {NULL, 0};
        if (count == CT_NOTE_LINES_MAX || !ct_note_next_line(signatures, &at, &bytes)) {
            return ct_fail(CT_ERR_FORMAT, "checkpoint: more than %u signatures", CT_NOTE_LINES_MAX);
        }
        struct ct_note_line line;
        CT_TRY(ct_note_line_parse(bytes, &line));
        if (log_key == NULL || !ct_note_line_by(&line, origin, id)) {
            continue;
        }
        struct ct_signature signature;
        memcpy(signature.bytes, line.payload, sizeof signature.bytes);
        if (line.length != sizeof signature.bytes || !ct_verify(log_key, text, &signature)) {
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
    CT_TRY(ct_note_split(note, &text, &signatures));
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
    CT_TRY(ct_note_split(note, &text, &signatures));
    CT_TRY(check_signatures(text, signatures, "", NULL));
    struct ct_checkpoint checkpoint;
    CT_TRY(parse_text(text, &checkpoint));
    *out = checkpoint;
    return CT_OK;
}

enum ct_err ct_checkpoint_strip(struct ct_bytes note, struct ct_buf *out) {
    struct ct_bytes text, signatures, origin, bytes;
    size_t at = 0;
    CT_TRY(ct_note_split(note, &text, &signatures));
    if (!ct_note_next_line(text, &at, &origin)) {
        return ct_fail(CT_ERR_FORMAT, "checkpoint: no origin");
    }
    CT_TRY(ct_buf_append(out, text.data, text.length));
    CT_TRY(ct_buf_append(out, "\n", 1));
    for (at = 0; at < signatures.length && ct_note_next_line(signatures, &at, &bytes);) {
        struct ct_note_line line;
        CT_TRY(ct_note_line_parse(bytes, &line));
        if (line.name.length == origin.length &&
            memcmp(line.name.data, origin.data, origin.length) == 0) {
            CT_TRY(ct_buf_append(out, bytes.data, bytes.length + 1));
        }
    }
    return CT_OK;
}
