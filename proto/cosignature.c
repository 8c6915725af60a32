#include <cotrain/cosignature.h>

#include "note_parts.h"

#include <cotrain/assert.h>

#include <inttypes.h>
#include <string.h>

#define TIME_BYTES 8u

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

void ct_cosigner_format(const char *name, const struct ct_hash *public_key,
                        char out[CT_VKEY_BYTES_MAX]) {
    ct_note_vkey_format(name, CT_NOTE_COSIGNATURE, public_key, out);
}

enum ct_err ct_cosigner_parse(const char *vkey, char out_name[CT_ORIGIN_BYTES_MAX],
                              struct ct_hash *out_key) {
    return ct_note_vkey_parse(vkey, CT_NOTE_COSIGNATURE, out_name, out_key);
}

/* What is signed: two lines and the whole text. */
static enum ct_err make_message(struct ct_bytes text, uint64_t time_s, struct ct_buf *out) {
    ct_buf_init(out, CT_CHECKPOINT_BYTES_MAX + 64);
    enum ct_err err = ct_buf_printf(out, "cosignature/v1\ntime %" PRIu64 "\n", time_s);
    if (err == CT_OK) {
        err = ct_buf_append(out, text.data, text.length);
    }
    if (err != CT_OK) {
        ct_buf_deinit(out);
    }
    return err;
}

enum ct_err ct_cosign(struct ct_bytes note, const char *name, const struct ct_key *key,
                      uint64_t time_s, struct ct_buf *out) {
    CT_ASSERT(time_s > 0);
    if (strlen(name) >= CT_ORIGIN_BYTES_MAX || !ct_note_is_name(text_bytes(name))) {
        return ct_fail(CT_ERR_CONFIG,
                       "a witness's name must be 1 to %u characters without spaces and plus signs",
                       CT_ORIGIN_BYTES_MAX - 1);
    }
    struct ct_bytes text, signatures;
    struct ct_buf message;
    CT_TRY(ct_note_split(note, &text, &signatures));
    CT_TRY(make_message(text, time_s, &message));
    struct ct_signature signature = ct_key_sign(key, ct_buf_bytes(&message));
    ct_buf_deinit(&message);
    struct ct_hash public_key = ct_key_public(key);
    struct ct_note_id id = ct_note_id(text_bytes(name), CT_NOTE_COSIGNATURE, &public_key);
    uint8_t payload[TIME_BYTES + sizeof signature.bytes];
    for (uint32_t i = 0; i < TIME_BYTES; i++) {
        payload[i] = (uint8_t)(time_s >> (8 * (TIME_BYTES - 1 - i)));
    }
    memcpy(payload + TIME_BYTES, signature.bytes, sizeof signature.bytes);
    return ct_note_line_format(name, id, payload, sizeof payload, out);
}

/* A time of 0 says that there is none, which a witness of checkpoints must not. */
static enum ct_err verify_line(const struct ct_note_line *line, struct ct_bytes text,
                               const char *name, const struct ct_hash *public_key,
                               uint64_t *out_time_s) {
    struct ct_signature signature;
    uint64_t time_s = 0;
    for (uint32_t i = 0; i < TIME_BYTES; i++) {
        time_s = time_s << 8 | line->payload[i];
    }
    memcpy(signature.bytes, line->payload + TIME_BYTES, sizeof signature.bytes);
    bool good =
        line->length == TIME_BYTES + sizeof signature.bytes && time_s > 0 && time_s <= INT64_MAX;
    if (good) {
        struct ct_buf message;
        CT_TRY(make_message(text, time_s, &message));
        good = ct_verify(public_key, ct_buf_bytes(&message), &signature);
        ct_buf_deinit(&message);
    }
    if (!good) {
        return ct_fail(CT_ERR_SIGNATURE, "checkpoint: the cosignature of %s does not verify", name);
    }
    *out_time_s = time_s;
    return CT_OK;
}

/* The newest of the witness's lines, whole with its line feed; all of them must verify. */
static enum ct_err find(struct ct_bytes lines, struct ct_bytes text, const char *name,
                        const struct ct_hash *public_key, struct ct_bytes *out_line,
                        uint64_t *out_time_s) {
    struct ct_note_id id = ct_note_id(text_bytes(name), CT_NOTE_COSIGNATURE, public_key);
    bool found = false;
    uint32_t count = 0;
    for (size_t at = 0; at < lines.length; count++) {
        struct ct_bytes bytes = {NULL, 0};
        if (count == CT_NOTE_LINES_MAX || !ct_note_next_line(lines, &at, &bytes)) {
            return ct_fail(CT_ERR_FORMAT, "cosignatures: not up to %u whole lines",
                           CT_NOTE_LINES_MAX);
        }
        struct ct_note_line line;
        uint64_t time_s = 0;
        CT_TRY(ct_note_line_parse(bytes, &line));
        if (!ct_note_line_by(&line, name, id)) {
            continue;
        }
        CT_TRY(verify_line(&line, text, name, public_key, &time_s));
        if (!found || time_s > *out_time_s) {
            *out_time_s = time_s;
            *out_line = (struct ct_bytes){bytes.data, bytes.length + 1};
        }
        found = true;
    }
    return found ? CT_OK : ct_fail(CT_ERR_NOT_FOUND, "checkpoint: not cosigned by %s", name);
}

enum ct_err ct_cosignature_check(struct ct_bytes note, const char *name,
                                 const struct ct_hash *public_key, uint64_t *out_time_s) {
    struct ct_bytes text, signatures, line;
    uint64_t time_s = 0;
    CT_TRY(ct_note_split(note, &text, &signatures));
    CT_TRY(find(signatures, text, name, public_key, &line, &time_s));
    if (out_time_s != NULL) {
        *out_time_s = time_s;
    }
    return CT_OK;
}

/* Appends the note without the lines of one key. */
static enum ct_err copy_without(struct ct_bytes text, struct ct_bytes signatures, const char *name,
                                struct ct_note_id id, struct ct_buf *out) {
    CT_TRY(ct_buf_append(out, text.data, text.length));
    CT_TRY(ct_buf_append(out, "\n", 1));
    for (size_t at = 0; at < signatures.length;) {
        struct ct_bytes bytes = {NULL, 0};
        struct ct_note_line line;
        if (!ct_note_next_line(signatures, &at, &bytes)) {
            return ct_fail(CT_ERR_FORMAT, "checkpoint: a signature line without an end");
        }
        CT_TRY(ct_note_line_parse(bytes, &line));
        if (!ct_note_line_by(&line, name, id)) {
            CT_TRY(ct_buf_append(out, bytes.data, bytes.length + 1));
        }
    }
    return CT_OK;
}

enum ct_err ct_cosignature_take(struct ct_bytes lines, const char *name,
                                const struct ct_hash *public_key, struct ct_buf *note) {
    struct ct_bytes text, signatures, line;
    uint64_t time_s = 0;
    CT_TRY(ct_note_split(ct_buf_bytes(note), &text, &signatures));
    CT_TRY(find(lines, text, name, public_key, &line, &time_s));
    struct ct_note_id id = ct_note_id(text_bytes(name), CT_NOTE_COSIGNATURE, public_key);
    struct ct_buf merged;
    ct_buf_init(&merged, note->maximum);
    enum ct_err err = copy_without(text, signatures, name, id, &merged);
    if (err == CT_OK) {
        err = ct_buf_append(&merged, line.data, line.length);
    }
    if (err != CT_OK) {
        ct_buf_deinit(&merged);
        return err;
    }
    ct_buf_deinit(note);
    *note = merged;
    return CT_OK;
}
