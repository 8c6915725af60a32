/* tlog-proof files: a header, the entry, its index, the path to the root, the signed checkpoint.
 * There is one text for each proof: whatever is not exactly as it would be written is refused. */
#include <cotrain/receipt.h>

#include <cotrain/assert.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER             "c2sp.org/tlog-proof@v1\n"
#define EXTRA              "extra "
#define INDEX              "index "
#define ENTRY_BASE64_MAX   (4u * ((CT_ENTRY_BYTES_MAX + 2u) / 3u) + 1u)
#define HASH_BASE64_LENGTH 44u

static enum ct_err append_base64(struct ct_buf *out, struct ct_bytes bytes) {
    size_t room = 4 * ((bytes.length + 2) / 3) + 1;
    CT_TRY(ct_buf_reserve(out, room));
    out->length += ct_base64_encode(bytes, (char *)out->data + out->length);
    return ct_buf_append(out, "\n", 1);
}

enum ct_err ct_receipt_format(uint64_t index, struct ct_bytes entry, const struct ct_proof *proof,
                              struct ct_bytes checkpoint, struct ct_buf *out) {
    CT_ASSERT(entry.length > 0 && entry.length <= CT_ENTRY_BYTES_MAX);
    CT_ASSERT(proof->count <= CT_PROOF_HASHES_MAX);
    CT_TRY(ct_buf_printf(out, HEADER EXTRA));
    CT_TRY(append_base64(out, entry));
    CT_TRY(ct_buf_printf(out, INDEX "%" PRIu64 "\n", index));
    for (uint32_t i = 0; i < proof->count; i++) {
        const struct ct_hash *hash = &proof->hashes[i];
        CT_TRY(append_base64(out, (struct ct_bytes){hash->bytes, sizeof hash->bytes}));
    }
    CT_TRY(ct_buf_append(out, "\n", 1));
    return ct_buf_append(out, checkpoint.data, checkpoint.length);
}

/* What is left of the text. */
struct reader {
    const char *at;
    size_t left;
};

static bool skip_prefix(struct reader *reader, const char *prefix) {
    size_t length = strlen(prefix);
    if (reader->left < length || memcmp(reader->at, prefix, length) != 0) {
        return false;
    }
    reader->at += length;
    reader->left -= length;
    return true;
}

/* Takes the bytes before the next line feed, and it. */
static bool take_line(struct reader *reader, const char **out, size_t *out_length) {
    const char *end = reader->left > 0 ? memchr(reader->at, '\n', reader->left) : NULL;
    if (end == NULL) {
        return false;
    }
    *out = reader->at;
    *out_length = (size_t)(end - reader->at);
    reader->at += *out_length + 1;
    reader->left -= *out_length + 1;
    return true;
}

static enum ct_err malformed(const char *what) {
    return ct_fail(CT_ERR_FORMAT, "receipt: %s", what);
}

static enum ct_err parse_extra(struct reader *reader, struct ct_buf *out) {
    const char *line = NULL;
    size_t length = 0;
    if (!take_line(reader, &line, &length) || length == 0 || length >= ENTRY_BASE64_MAX) {
        return malformed("the extra line holds no entry");
    }
    CT_TRY(ct_buf_reserve(out, CT_ENTRY_BYTES_MAX));
    if (ct_base64_decode(line, length, out->data, CT_ENTRY_BYTES_MAX, &out->length) != CT_OK) {
        return malformed("the extra line is not base64 of an entry");
    }
    return CT_OK;
}

static enum ct_err parse_index(struct reader *reader, uint64_t *out) {
    const char *line = NULL;
    size_t length = 0;
    if (!skip_prefix(reader, INDEX) || !take_line(reader, &line, &length) || length == 0 ||
        length > 19 || (line[0] == '0' && length > 1)) {
        return malformed("no index line where one must be");
    }
    uint64_t index = 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] < '0' || line[i] > '9') {
            return malformed("the index is no number");
        }
        index = index * 10 + (uint64_t)(line[i] - '0');
    }
    *out = index;
    return CT_OK;
}

/* The hashes, up to and with the empty line. */
static enum ct_err parse_proof(struct reader *reader, struct ct_proof *out) {
    out->count = 0;
    for (;;) {
        const char *line = NULL;
        size_t length = 0;
        if (!take_line(reader, &line, &length)) {
            return malformed("no checkpoint after an empty line");
        }
        if (length == 0) {
            return CT_OK;
        }
        if (out->count == CT_PROOF_HASHES_MAX) {
            return malformed("too many hashes");
        }
        struct ct_hash *hash = &out->hashes[out->count];
        size_t decoded = 0;
        if (length != HASH_BASE64_LENGTH ||
            ct_base64_decode(line, length, hash->bytes, sizeof hash->bytes, &decoded) != CT_OK ||
            decoded != sizeof hash->bytes) {
            return malformed("a line of the proof is no hash");
        }
        out->count++;
    }
}

/* All of it but the header; entry and note are initialised and the caller's in any case. */
static enum ct_err open_body(struct reader *reader, const struct ct_bytes *entry, const char *vkey,
                             struct ct_receipt *out) {
    if (skip_prefix(reader, EXTRA)) {
        CT_TRY(parse_extra(reader, &out->entry));
        if (entry != NULL && (out->entry.length != entry->length ||
                              memcmp(out->entry.data, entry->data, entry->length) != 0)) {
            return ct_fail(CT_ERR_DIGEST, "receipt: it is for another entry");
        }
    } else if (entry != NULL) {
        CT_TRY(ct_buf_append(&out->entry, entry->data, entry->length));
    } else {
        return malformed("no extra line with the entry");
    }
    struct ct_proof proof;
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_hash log_key;
    CT_TRY(parse_index(reader, &out->index));
    CT_TRY(parse_proof(reader, &proof));
    CT_TRY(ct_vkey_parse(vkey, origin, &log_key));
    struct ct_bytes note = {(const uint8_t *)reader->at, reader->left};
    CT_TRY(ct_checkpoint_open(note, origin, &log_key, &out->checkpoint));
    CT_TRY(ct_buf_append(&out->note, note.data, note.length));
    struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(&out->entry));
    return ct_verify_inclusion(out->index, out->checkpoint.size, &leaf, &proof,
                               &out->checkpoint.root);
}

static enum ct_err open_text(struct ct_bytes text, const struct ct_bytes *entry, const char *vkey,
                             struct ct_receipt *out) {
    struct reader reader = {(const char *)text.data, text.length};
    if (text.length > CT_RECEIPT_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "receipt: longer than %u bytes", CT_RECEIPT_BYTES_MAX);
    }
    if (!skip_prefix(&reader, HEADER)) {
        return malformed("the first line is not c2sp.org/tlog-proof@v1");
    }
    struct ct_receipt receipt;
    ct_buf_init(&receipt.entry, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&receipt.note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = open_body(&reader, entry, vkey, &receipt);
    if (err != CT_OK) {
        ct_receipt_deinit(&receipt);
        return err;
    }
    *out = receipt;
    return CT_OK;
}

enum ct_err ct_receipt_open(struct ct_bytes text, const char *vkey, struct ct_receipt *out) {
    return open_text(text, NULL, vkey, out);
}

enum ct_err ct_receipt_open_with(struct ct_bytes text, struct ct_bytes entry, const char *vkey,
                                 struct ct_receipt *out) {
    return open_text(text, &entry, vkey, out);
}

void ct_receipt_deinit(struct ct_receipt *receipt) {
    ct_buf_deinit(&receipt->entry);
    ct_buf_deinit(&receipt->note);
}
