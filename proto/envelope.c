#include "message.h"

#include <cotrain/assert.h>
#include <cotrain/entry.h>

#include <stdio.h>
#include <string.h>

#include <cotrain.pb-c.h>

enum { FIELD_PAYLOAD = 2 };

/* The constant equal to `text`, or NULL. */
static const char *known_type(const char *text) {
    static const char *const types[] = {CT_TYPE_ENTRY, CT_TYPE_COMMIT};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(text, types[i]) == 0) {
            return types[i];
        }
    }
    return NULL;
}

enum ct_err ct_envelope_seal(const char *type, struct ct_bytes payload, uint32_t key_number,
                             const struct ct_key *key, struct ct_buf *out) {
    CT_ASSERT(known_type(type) != NULL);
    struct ct_signature signature = ct_dsse_sign(key, type, payload);
    char type_text[64];
    int type_length = snprintf(type_text, sizeof type_text, "%s", type);
    CT_ASSERT(type_length > 0 && (size_t)type_length < sizeof type_text);
    Cotrain__Envelope message = COTRAIN__ENVELOPE__INIT;
    message.payload_type = type_text;
    message.payload = ct_field_put_bytes(payload);
    message.key_number = key_number;
    message.signature =
        ct_field_put_bytes((struct ct_bytes){signature.bytes, sizeof signature.bytes});
    size_t maximum =
        strcmp(type, CT_TYPE_COMMIT) == 0 ? CT_STATEMENT_BYTES_MAX : CT_ENTRY_BYTES_MAX;
    size_t length = cotrain__envelope__get_packed_size(&message);
    if (length > maximum) {
        return ct_fail(CT_ERR_TOO_LARGE, "a statement of %zu bytes is over the maximum of %zu",
                       length, maximum);
    }
    return ct_message_encode(&message.base, out);
}

static enum ct_err read_envelope(const Cotrain__Envelope *message, struct ct_bytes bytes,
                                 struct ct_envelope *out) {
    struct ct_envelope envelope = {.type = known_type(message->payload_type),
                                   .payload = ct_message_span(bytes, FIELD_PAYLOAD),
                                   .key_number = message->key_number};
    if (envelope.type == NULL) {
        return ct_fail(CT_ERR_FORMAT, "a statement is of no known type");
    }
    bool commit = strcmp(envelope.type, CT_TYPE_COMMIT) == 0;
    if (commit && bytes.length > CT_STATEMENT_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a commit of %zu bytes is over the maximum of %u",
                       bytes.length, CT_STATEMENT_BYTES_MAX);
    }
    if (commit != (envelope.key_number != 0) || envelope.key_number > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "key number %u signs no statement of type %s",
                       envelope.key_number, envelope.type);
    }
    CT_TRY(ct_field_get_fixed(&message->signature, sizeof envelope.signature.bytes,
                              "a statement's signature", envelope.signature.bytes));
    *out = envelope;
    return CT_OK;
}

enum ct_err ct_envelope_open(struct ct_bytes bytes, struct ct_envelope *out) {
    if (bytes.length > CT_ENTRY_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a statement of %zu bytes is over the maximum of %u",
                       bytes.length, CT_ENTRY_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__envelope__descriptor, bytes, &message));
    enum ct_err err = read_envelope((const Cotrain__Envelope *)(void *)message, bytes, out);
    ct_message_free(message);
    return err;
}

enum ct_err ct_envelope_verify(const struct ct_envelope *envelope,
                               const struct ct_hash *public_key) {
    if (!ct_dsse_verify(public_key, envelope->type, envelope->payload, &envelope->signature)) {
        return ct_fail(CT_ERR_SIGNATURE, "a statement's signature does not verify under key %u",
                       envelope->key_number);
    }
    return CT_OK;
}

struct ct_hash ct_run_id(struct ct_bytes run_opened_payload) {
    return ct_sha256(run_opened_payload);
}

struct ct_hash ct_run_seed(const struct ct_hash *run_id) {
    static const char label[] = "cotrain run seed";
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, label, sizeof label - 1);
    ct_sha256_update(&sha, run_id->bytes, sizeof run_id->bytes);
    return ct_sha256_final(&sha);
}

enum ct_err ct_run_opening(struct ct_bytes entry, struct ct_run_opened *out,
                           struct ct_hash *out_run_id) {
    struct ct_envelope envelope;
    struct ct_entry decoded;
    CT_TRY(ct_envelope_open(entry, &envelope));
    CT_TRY(ct_entry_decode(envelope.payload, &decoded));
    if (decoded.kind != CT_ENTRY_RUN_OPENED) {
        return ct_fail(CT_ERR_RULE, "entry 0 does not open a run");
    }
    *out = decoded.body.run_opened;
    *out_run_id = ct_run_id(envelope.payload);
    return CT_OK;
}
