#include "witness_ask.h"

#include <cotrain/add_checkpoint.h>
#include <cotrain/assert.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The witness's size may move once between two requests, when somebody else offers checkpoints too.
 */
#define TRIES_MAX 4

static enum ct_err make_request(uint64_t old_size, uint64_t size, struct ct_bytes note,
                                ct_subtree_hash hash, void *user, struct ct_buf *out) {
    struct ct_proof proof = {.count = 0};
    if (old_size > 0) {
        CT_TRY(ct_prove_consistency(old_size, size, hash, user, &proof));
    }
    ct_buf_clear(out);
    return ct_add_checkpoint_format(old_size, &proof, note, out);
}

/* The line must be the witness's, for this note. */
static enum ct_err check_lines(const struct ct_policy_member *witness, struct ct_bytes note,
                               struct ct_bytes lines) {
    struct ct_buf copy;
    ct_buf_init(&copy, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_buf_append(&copy, note.data, note.length);
    if (err == CT_OK) {
        err = ct_cosignature_take(lines, witness->key_name, &witness->key, &copy);
    }
    ct_buf_deinit(&copy);
    return err == CT_OK ? CT_OK
                        : ct_fail(CT_ERR_REFUSED, "it answered without its cosignature: %s",
                                  ct_err_detail());
}

/* What a refusal says, for people: its first line. */
static enum ct_err refuse(unsigned status, const struct ct_buf *answer, enum ct_err err,
                          uint64_t known) {
    int length = 0;
    while ((size_t)length < answer->length && length < 100 && answer->data[length] >= ' ' &&
           answer->data[length] < 0x7f) {
        length++;
    }
    if (err == CT_ERR_DIGEST) {
        return ct_fail(err,
                       "it cosigned a tree of %" PRIu64 " entries that this one does not extend "
                       "(HTTP status %u: %.*s)",
                       known, status, length, (const char *)answer->data);
    }
    return ct_fail(err, "HTTP status %u: %.*s", status, length,
                   length > 0 ? (const char *)answer->data : "");
}

static enum ct_err ask(struct ct_exchange *exchange, const struct ct_policy_member *witness,
                       struct ct_bytes note, uint64_t size, ct_subtree_hash hash, void *user,
                       uint64_t *known, struct ct_buf *request, struct ct_buf *out) {
    char url[CT_POLICY_URL_MAX + 32];
    size_t length = strlen(witness->url);
    snprintf(url, sizeof url, "%s%s" CT_ADD_CHECKPOINT_PATH, witness->url,
             length > 0 && witness->url[length - 1] == '/' ? "" : "/");
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        unsigned status = 0;
        CT_TRY(make_request(*known, size, note, hash, user, request));
        struct ct_bytes body = ct_buf_bytes(request);
        CT_TRY(ct_exchange_run(exchange, url, &body, &status, out));
        if (status == 200) {
            CT_TRY(check_lines(witness, note, ct_buf_bytes(out)));
            *known = size;
            return CT_OK;
        }
        if (status == 422) {
            return refuse(status, out, *known > 0 ? CT_ERR_DIGEST : CT_ERR_REFUSED, *known);
        }
        if (status != 409) {
            return refuse(status, out, CT_ERR_REFUSED, *known);
        }
        uint64_t held = 0;
        CT_TRY(ct_add_checkpoint_size(ct_buf_bytes(out), &held));
        if (held == *known) {
            return refuse(status, out, CT_ERR_REFUSED, *known);
        }
        *known = held;
        if (held > size) {
            return ct_fail(CT_ERR_RULE,
                           "it cosigned a tree of %" PRIu64 " entries, this log has %" PRIu64, held,
                           size);
        }
    }
    return ct_fail(CT_ERR_REFUSED, "its size changed with every request");
}

enum ct_err ct_witness_ask(struct ct_exchange *exchange, const struct ct_policy_member *witness,
                           struct ct_bytes note, uint64_t size, ct_subtree_hash hash, void *user,
                           uint64_t *known, struct ct_buf *out) {
    if (*known > size) {
        *known = 0; /* asked again, it tells */
    }
    struct ct_buf request;
    ct_buf_init(&request, CT_ADD_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ask(exchange, witness, note, size, hash, user, known, &request, out);
    ct_buf_deinit(&request);
    return err;
}
