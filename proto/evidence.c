#include <cotrain/evidence.h>

#include "note_parts.h"

#include <cotrain/assert.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER             "cotrain/log-evidence@v1"
#define LOG                "log "
#define PREFIX             "prefix "
#define CHECKPOINT         "checkpoint "
#define HASH_BASE64_LENGTH 44u

/* Two checkpoints of one key, the smaller first. */
struct pair {
    struct ct_checkpoint smaller, larger;
    struct ct_bytes smaller_note, larger_note;
};

static enum ct_err open_pair(const char *vkey, struct ct_bytes note, struct ct_bytes other,
                             struct pair *out) {
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_hash key;
    CT_TRY(ct_vkey_parse(vkey, origin, &key));
    CT_TRY(ct_checkpoint_open(note, origin, &key, &out->smaller));
    CT_TRY(ct_checkpoint_open(other, origin, &key, &out->larger));
    out->smaller_note = note;
    out->larger_note = other;
    if (out->smaller.size > out->larger.size) {
        struct ct_checkpoint checkpoint = out->smaller;
        out->smaller = out->larger;
        out->larger = checkpoint;
        out->smaller_note = other;
        out->larger_note = note;
    }
    return CT_OK;
}

static enum ct_err put_hash(const char *before, const struct ct_hash *hash, struct ct_buf *out) {
    char base64[HASH_BASE64_LENGTH + 1];
    ct_base64_encode((struct ct_bytes){hash->bytes, sizeof hash->bytes}, base64);
    return ct_buf_printf(out, "%s%s\n", before, base64);
}

static enum ct_err put_note(struct ct_bytes note, struct ct_buf *out) {
    CT_TRY(ct_buf_printf(out, CHECKPOINT "%zu\n", note.length));
    return ct_buf_append(out, note.data, note.length);
}

/* proof NULL: equal sizes. */
static enum ct_err format(const char *vkey, const struct pair *pair, const struct ct_hash *prefix,
                          const struct ct_proof *proof, struct ct_buf *out) {
    ct_buf_clear(out);
    CT_TRY(ct_buf_printf(out, HEADER "\n" LOG "%s\n", vkey));
    if (proof != NULL) {
        CT_TRY(put_hash(PREFIX, prefix, out));
        for (uint32_t i = 0; i < proof->count; i++) {
            CT_TRY(put_hash("", &proof->hashes[i], out));
        }
    }
    CT_TRY(put_note(pair->smaller_note, out));
    return put_note(pair->larger_note, out);
}

static enum ct_err forked(void) {
    return ct_fail(CT_ERR_FORKED, "the log's key signed two histories");
}

enum ct_err ct_evidence_seek(const char *vkey, struct ct_bytes note, struct ct_bytes other,
                             ct_subtree_hash hash, void *user, struct ct_buf *evidence) {
    struct pair pair;
    CT_TRY(open_pair(vkey, note, other, &pair));
    const struct ct_checkpoint *smaller = &pair.smaller, *larger = &pair.larger;
    if (smaller->size == larger->size) {
        if (ct_hash_equal(&smaller->root, &larger->root)) {
            return CT_OK;
        }
        CT_TRY(format(vkey, &pair, NULL, NULL, evidence));
        return forked();
    }
    if (smaller->size == 0) {
        return CT_OK; /* every tree extends the empty one */
    }
    struct ct_hash prefix;
    struct ct_proof proof;
    CT_TRY(ct_root_of(smaller->size, hash, user, &prefix));
    CT_TRY(ct_prove_consistency(smaller->size, larger->size, hash, user, &proof));
    CT_TRY(ct_verify_consistency(smaller->size, larger->size, &proof, &prefix, &larger->root));
    if (ct_hash_equal(&prefix, &smaller->root)) {
        return CT_OK;
    }
    CT_TRY(format(vkey, &pair, &prefix, &proof, evidence));
    return forked();
}

static enum ct_err malformed(const char *what) {
    return ct_fail(CT_ERR_FORMAT, "evidence: %s", what);
}

/* What is left of the line behind `before`; false if it begins otherwise. */
static bool skip(struct ct_bytes *line, const char *before) {
    size_t length = strlen(before);
    if (line->length < length || memcmp(line->data, before, length) != 0) {
        return false;
    }
    line->data += length;
    line->length -= length;
    return true;
}

static bool take_hash(struct ct_bytes text, struct ct_hash *out) {
    size_t length = 0;
    return text.length == HASH_BASE64_LENGTH &&
           ct_base64_decode((const char *)text.data, text.length, out->bytes, sizeof out->bytes,
                            &length) == CT_OK &&
           length == sizeof out->bytes;
}

/* The note whose length the line tells. */
static bool take_note(struct ct_bytes text, size_t *at, struct ct_bytes line,
                      struct ct_bytes *out) {
    size_t length = 0;
    if (!skip(&line, CHECKPOINT) || line.length == 0 || line.length > 5 || line.data[0] == '0') {
        return false;
    }
    for (size_t i = 0; i < line.length; i++) {
        if (line.data[i] < '0' || line.data[i] > '9') {
            return false;
        }
        length = length * 10 + (size_t)(line.data[i] - '0');
    }
    if (length > CT_CHECKPOINT_BYTES_MAX || length > text.length - *at) {
        return false;
    }
    *out = (struct ct_bytes){text.data + *at, length};
    *at += length;
    return true;
}

struct parts {
    char vkey[CT_VKEY_BYTES_MAX];
    bool has_prefix;
    struct ct_hash prefix;
    struct ct_proof proof;
    struct ct_bytes notes[2];
};

static enum ct_err parse(struct ct_bytes text, struct parts *out) {
    struct ct_bytes line;
    size_t at = 0;
    if (!ct_note_next_line(text, &at, &line) || !skip(&line, HEADER) || line.length != 0) {
        return malformed("the first line is not " HEADER);
    }
    if (!ct_note_next_line(text, &at, &line) || !skip(&line, LOG) ||
        line.length >= sizeof out->vkey || memchr(line.data, '\0', line.length) != NULL) {
        return malformed("no log line with a verifier key");
    }
    memcpy(out->vkey, line.data, line.length);
    out->vkey[line.length] = '\0';
    bool more = ct_note_next_line(text, &at, &line);
    if (more && skip(&line, PREFIX)) {
        out->has_prefix = true;
        if (!take_hash(line, &out->prefix)) {
            return malformed("the prefix is no hash");
        }
        more = ct_note_next_line(text, &at, &line);
        for (; more && line.length == HASH_BASE64_LENGTH;
             more = ct_note_next_line(text, &at, &line)) {
            if (out->proof.count == CT_PROOF_HASHES_MAX ||
                !take_hash(line, &out->proof.hashes[out->proof.count])) {
                return malformed("a line of the proof is no hash");
            }
            out->proof.count++;
        }
    }
    if (!more || !take_note(text, &at, line, &out->notes[0]) ||
        !ct_note_next_line(text, &at, &line) || !take_note(text, &at, line, &out->notes[1]) ||
        at != text.length) {
        return malformed("not two checkpoints of the lengths told, and nothing behind them");
    }
    return CT_OK;
}

static enum ct_err judge(const struct parts *parts, const struct pair *pair) {
    const struct ct_checkpoint *smaller = &pair->smaller, *larger = &pair->larger;
    if (pair->smaller_note.data != parts->notes[0].data) {
        return malformed("the smaller checkpoint comes first");
    }
    if (parts->has_prefix != (smaller->size != larger->size)) {
        return malformed("a prefix belongs to checkpoints of two sizes");
    }
    const struct ct_hash *prefix = parts->has_prefix ? &parts->prefix : &larger->root;
    if (parts->has_prefix) {
        CT_TRY(ct_verify_consistency(smaller->size, larger->size, &parts->proof, prefix,
                                     &larger->root));
    }
    if (ct_hash_equal(prefix, &smaller->root)) {
        return ct_fail(CT_ERR_DIGEST, "evidence: the two checkpoints are of one history");
    }
    return CT_OK;
}

enum ct_err ct_evidence_open(struct ct_bytes text, struct ct_evidence *out) {
    if (text.length > CT_EVIDENCE_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "evidence: longer than %u bytes", CT_EVIDENCE_BYTES_MAX);
    }
    struct parts *parts = calloc(1, sizeof *parts);
    if (parts == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to read evidence");
    }
    struct pair pair;
    enum ct_err err = parse(text, parts);
    if (err == CT_OK) {
        err = open_pair(parts->vkey, parts->notes[0], parts->notes[1], &pair);
    }
    if (err == CT_OK) {
        err = judge(parts, &pair);
    }
    if (err == CT_OK) {
        memcpy(out->vkey, parts->vkey, sizeof out->vkey);
        out->smaller = pair.smaller;
        out->larger = pair.larger;
        out->prefix = parts->has_prefix ? parts->prefix : pair.larger.root;
    }
    free(parts);
    return err;
}
