#include "message.h"

#include <cotrain/assert.h>
#include <cotrain/limits.h>
#include <cotrain/text.h>

#include <stdlib.h>
#include <string.h>

#include <cotrain.pb-c.h>

#define MEMORY_FACTOR    8u
#define MEMORY_BYTES_MIN 4096u
#define MEMORY_BYTES_MAX 8388608u

struct budget {
    size_t left;
    bool exhausted;
    bool no_memory;
};

/* Counts what was ever asked for in a decode: what it frees on the way is little. */
static void *budget_alloc(void *user, size_t size) {
    struct budget *budget = user;
    if (size > budget->left) {
        budget->exhausted = true;
        return NULL;
    }
    budget->left -= size;
    void *data = malloc(size);
    budget->no_memory = budget->no_memory || data == NULL;
    return data;
}

static void budget_free(void *user, void *data) {
    (void)user;
    free(data);
}

static bool has_unknown(const ProtobufCMessage *message);

static bool field_has_unknown(const ProtobufCMessage *message,
                              const ProtobufCFieldDescriptor *field) {
    if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return false;
    }
    const char *base = (const char *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
        ProtobufCMessage *const *items =
            *(ProtobufCMessage *const *const *)(const void *)(base + field->offset);
        for (size_t i = 0; i < count; i++) {
            if (has_unknown(items[i])) {
                return true;
            }
        }
        return false;
    }
    /* The members of a oneof share their place. */
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
        *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id) {
        return false;
    }
    const ProtobufCMessage *inner =
        *(ProtobufCMessage *const *)(const void *)(base + field->offset);
    return inner != NULL && has_unknown(inner);
}

static bool has_unknown(const ProtobufCMessage *message) {
    if (message->n_unknown_fields > 0) {
        return true;
    }
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        if (field_has_unknown(message, &message->descriptor->fields[i])) {
            return true;
        }
    }
    return false;
}

/* Compares what is packed with bytes that are there, instead of storing it. */
struct comparison {
    ProtobufCBuffer buffer;
    struct ct_bytes rest;
    bool differs;
};

static void compare_append(ProtobufCBuffer *buffer, size_t length, const uint8_t *data) {
    struct comparison *comparison = (struct comparison *)(void *)buffer;
    if (comparison->differs || length > comparison->rest.length ||
        (length > 0 && memcmp(comparison->rest.data, data, length) != 0)) {
        comparison->differs = true;
        return;
    }
    comparison->rest.data += length;
    comparison->rest.length -= length;
}

static bool is_the_encoding(const ProtobufCMessage *message, struct ct_bytes bytes) {
    struct comparison comparison = {.buffer = {.append = compare_append}, .rest = bytes};
    protobuf_c_message_pack_to_buffer(message, &comparison.buffer);
    return !comparison.differs && comparison.rest.length == 0;
}

static size_t memory_maximum(size_t length) {
    if (length >= MEMORY_BYTES_MAX / MEMORY_FACTOR) {
        return MEMORY_BYTES_MAX;
    }
    size_t maximum = length * MEMORY_FACTOR;
    return maximum < MEMORY_BYTES_MIN ? MEMORY_BYTES_MIN : maximum;
}

enum ct_err ct_message_decode(const ProtobufCMessageDescriptor *type, struct ct_bytes bytes,
                              ProtobufCMessage **out) {
    struct budget budget = {.left = memory_maximum(bytes.length)};
    ProtobufCAllocator allocator = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, &allocator, bytes.length, bytes.data);
    if (message == NULL && budget.exhausted) {
        return ct_fail(CT_ERR_TOO_LARGE, "a %s of %zu bytes wants more than its share of memory",
                       type->short_name, bytes.length);
    }
    if (message == NULL && budget.no_memory) {
        return ct_fail(CT_ERR_MEMORY, "no memory to decode a %s", type->short_name);
    }
    if (message == NULL) {
        return ct_fail(CT_ERR_FORMAT, "%zu bytes are no %s", bytes.length, type->short_name);
    }
    if (has_unknown(message)) {
        ct_message_free(message);
        return ct_fail(CT_ERR_FORMAT, "a %s has unknown fields", type->short_name);
    }
    if (!is_the_encoding(message, bytes)) {
        ct_message_free(message);
        return ct_fail(CT_ERR_FORMAT, "a %s of %zu bytes is not encoded in the one way allowed",
                       type->short_name, bytes.length);
    }
    *out = message;
    return CT_OK;
}

void ct_message_free(ProtobufCMessage *message) {
    /* budget_alloc's memory is malloc's, which is what protobuf-c frees without an allocator. */
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

enum ct_err ct_message_encode(const ProtobufCMessage *message, struct ct_buf *out) {
    size_t length = protobuf_c_message_get_packed_size(message);
    CT_TRY(ct_buf_reserve(out, length));
    if (length > 0) {
        CT_ASSERT(protobuf_c_message_pack(message, out->data + out->length) == length);
        out->length += length;
    }
    return CT_OK;
}

/* Reads a varint and moves past it. The bytes were decoded before, so that a failure is ours. */
static uint64_t take_varint(struct ct_bytes *bytes) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        CT_ASSERT(bytes->length > 0);
        uint8_t byte = *bytes->data++;
        bytes->length--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            break;
        }
    }
    return value;
}

static struct ct_bytes take(struct ct_bytes *bytes, uint64_t length) {
    CT_ASSERT(length <= bytes->length);
    struct ct_bytes taken = {.data = bytes->data, .length = (size_t)length};
    bytes->data += length;
    bytes->length -= (size_t)length;
    return taken;
}

struct ct_bytes ct_message_span(struct ct_bytes bytes, uint32_t number) {
    while (bytes.length > 0) {
        uint64_t tag = take_varint(&bytes);
        switch (tag & 7) {
        case 0:
            (void)take_varint(&bytes);
            break;
        case 1:
            (void)take(&bytes, 8);
            break;
        case 2: {
            struct ct_bytes content = take(&bytes, take_varint(&bytes));
            if (tag >> 3 == number) {
                return content;
            }
            break;
        }
        default:
            CT_ASSERT((tag & 7) == 5);
            (void)take(&bytes, 4);
        }
    }
    return bytes;
}

enum ct_err ct_field_get_fixed(const ProtobufCBinaryData *field, size_t length, const char *what,
                               uint8_t *out) {
    if (field->len != length) {
        return ct_fail(CT_ERR_FORMAT, "%s has %zu bytes instead of %zu", what, field->len, length);
    }
    memcpy(out, field->data, length);
    return CT_OK;
}

enum ct_err ct_field_get_hash(const ProtobufCBinaryData *field, const char *what,
                              struct ct_hash *out) {
    return ct_field_get_fixed(field, sizeof out->bytes, what, out->bytes);
}

enum ct_err ct_field_get_hash_or_none(const ProtobufCBinaryData *field, const char *what,
                                      struct ct_hash *out) {
    if (field->len == 0) {
        *out = (struct ct_hash){{0}};
        return CT_OK;
    }
    CT_TRY(ct_field_get_hash(field, what, out));
    if (ct_hash_is_zero(out)) {
        return ct_fail(CT_ERR_FORMAT, "%s is all zero instead of absent", what);
    }
    return CT_OK;
}

enum ct_err ct_field_get_text(const char *field, size_t capacity, const char *what, char *out) {
    size_t length = strlen(field);
    if (length >= capacity) {
        return ct_fail(CT_ERR_FORMAT, "%s has %zu bytes, more than the %zu allowed", what, length,
                       capacity - 1);
    }
    if (!ct_text_printable((struct ct_bytes){(const uint8_t *)field, length})) {
        return ct_fail(CT_ERR_FORMAT, "%s is not printable UTF-8", what);
    }
    memcpy(out, field, length + 1);
    return CT_OK;
}

float ct_field_get_float(uint32_t pattern) {
    float value;
    memcpy(&value, &pattern, sizeof value);
    return value;
}

uint32_t ct_field_put_float(float value) {
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return pattern;
}

ProtobufCBinaryData ct_field_put_bytes(struct ct_bytes bytes) {
    /* protobuf-c only reads what it packs. */
    return (ProtobufCBinaryData){.len = bytes.length, .data = (uint8_t *)(uintptr_t)bytes.data};
}

ProtobufCBinaryData ct_field_put_hash(const struct ct_hash *hash) {
    return ct_field_put_bytes((struct ct_bytes){hash->bytes, sizeof hash->bytes});
}

ProtobufCBinaryData ct_field_put_hash_or_none(const struct ct_hash *hash) {
    return ct_hash_is_zero(hash) ? (ProtobufCBinaryData){0} : ct_field_put_hash(hash);
}

enum ct_err ct_field_get_blob(const struct Cotrain__BlobRef *field, const char *what,
                              struct ct_blob_ref *out) {
    if (field == NULL) {
        return ct_fail(CT_ERR_FORMAT, "%s is missing", what);
    }
    CT_TRY(ct_field_get_hash(&field->sha256, what, &out->sha256));
    if (field->length > CT_BLOB_BYTES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "%s has %llu bytes, more than the %llu allowed", what,
                       (unsigned long long)field->length, CT_BLOB_BYTES_MAX);
    }
    out->length = field->length;
    return CT_OK;
}

void ct_field_put_blob(const struct ct_blob_ref *ref, struct Cotrain__BlobRef *out) {
    cotrain__blob_ref__init(out);
    out->sha256 = ct_field_put_hash(&ref->sha256);
    out->length = ref->length;
}
