#include <cotrain/add_checkpoint.h>

#include "note_parts.h"

#include <cotrain/assert.h>

#include <inttypes.h>
#include <string.h>

#define OLD                "old "
#define HASH_BASE64_LENGTH 44u

enum ct_err ct_add_checkpoint_format(uint64_t old_size, const struct ct_proof *proof,
                                     struct ct_bytes note, struct ct_buf *out) {
    CT_ASSERT(proof->count <= CT_PROOF_HASHES_MAX);
    CT_TRY(ct_buf_printf(out, OLD "%" PRIu64 "\n", old_size));
    for (uint32_t i = 0; i < proof->count; i++) {
        char base64[HASH_BASE64_LENGTH + 1];
        ct_base64_encode((struct ct_bytes){proof->hashes[i].bytes, sizeof proof->hashes[i].bytes},
                         base64);
        CT_TRY(ct_buf_printf(out, "%s\n", base64));
    }
    CT_TRY(ct_buf_append(out, "\n", 1));
    return ct_buf_append(out, note.data, note.length);
}

static bool parse_number(struct ct_bytes text, uint64_t *out) {
    uint64_t value = 0;
    if (text.length == 0 || text.length > 19 || (text.data[0] == '0' && text.length > 1)) {
        return false;
    }
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return value <= INT64_MAX;
}

static bool parse_hash(struct ct_bytes line, struct ct_hash *out) {
    size_t length = 0;
    return line.length == HASH_BASE64_LENGTH &&
           ct_base64_decode((const char *)line.data, line.length, out->bytes, sizeof out->bytes,
                            &length) == CT_OK &&
           length == sizeof out->bytes;
}

enum ct_err ct_add_checkpoint_parse(struct ct_bytes body, struct ct_add_checkpoint *out) {
    struct ct_bytes line;
    size_t at = 0;
    if (body.length > CT_ADD_CHECKPOINT_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "add-checkpoint: longer than %u bytes",
                       CT_ADD_CHECKPOINT_BYTES_MAX);
    }
    if (!ct_note_next_line(body, &at, &line) || line.length <= strlen(OLD) ||
        memcmp(line.data, OLD, strlen(OLD)) != 0 ||
        !parse_number((struct ct_bytes){line.data + strlen(OLD), line.length - strlen(OLD)},
                      &out->old_size)) {
        return ct_fail(CT_ERR_FORMAT, "add-checkpoint: the first line is not 'old SIZE'");
    }
    out->proof.count = 0;
    for (;;) {
        if (!ct_note_next_line(body, &at, &line)) {
            return ct_fail(CT_ERR_FORMAT, "add-checkpoint: no checkpoint after an empty line");
        }
        if (line.length == 0) {
            break;
        }
        if (out->proof.count == CT_PROOF_HASHES_MAX ||
            !parse_hash(line, &out->proof.hashes[out->proof.count])) {
            return ct_fail(CT_ERR_FORMAT, "add-checkpoint: not up to %u lines of hashes",
                           CT_PROOF_HASHES_MAX);
        }
        out->proof.count++;
    }
    out->note = (struct ct_bytes){body.data + at, body.length - at};
    return CT_OK;
}

enum ct_err ct_add_checkpoint_size(struct ct_bytes body, uint64_t *out) {
    if (body.length < 2 || body.data[body.length - 1] != '\n' ||
        !parse_number((struct ct_bytes){body.data, body.length - 1}, out)) {
        return ct_fail(CT_ERR_FORMAT, "the witness's answer is no tree size");
    }
    return CT_OK;
}
