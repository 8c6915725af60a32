/* The door to protobuf-c, for the files that turn messages into structs (entry.c, wire.c,
 * manifest.c): strict and bounded decoding, encoding, and the few field types they share.
 *
 * Every decoder here takes one encoding of a message only, the one that the encoder writes, so that
 * nothing can be said twice: unknown fields, fields twice or out of order, explicit defaults, long
 * varints and NULs in strings are CT_ERR_FORMAT. */
#ifndef COTRAIN_PROTO_MESSAGE_H
#define COTRAIN_PROTO_MESSAGE_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>

#include <protobuf-c/protobuf-c.h>

/* From a stranger. Memory: at most 8 × the bytes' length (4 KiB for short ones), never above 8 MiB;
 * CT_ERR_TOO_LARGE when a message wants more. On success the caller ends it with ct_message_free.
 */
CT_MUST_CHECK enum ct_err ct_message_decode(const ProtobufCMessageDescriptor *type,
                                            struct ct_bytes bytes, ProtobufCMessage **out);
/* `message` is the ProtobufCMessage at the start of what decode gave; NULL is nothing. */
void ct_message_free(ProtobufCMessage *message);

/* Appends; CT_ERR_TOO_LARGE by the buffer's maximum. */
CT_MUST_CHECK enum ct_err ct_message_encode(const ProtobufCMessage *message, struct ct_buf *out);

/* The content of the length-delimited field `number` in the bytes of a message that was decoded
 * here: protobuf-c copies it, this gives where it lies. No such field: no bytes, but a pointer into
 * the message. */
struct ct_bytes ct_message_span(struct ct_bytes bytes, uint32_t number);

/* Field types, from the decoded form. `what` names the field in the failure's sentence. */
CT_MUST_CHECK enum ct_err ct_field_get_fixed(const ProtobufCBinaryData *field, size_t length,
                                             const char *what, uint8_t *out);
CT_MUST_CHECK enum ct_err ct_field_get_hash(const ProtobufCBinaryData *field, const char *what,
                                            struct ct_hash *out);
/* Absent is the zero digest, and the zero digest itself is refused. */
CT_MUST_CHECK enum ct_err ct_field_get_hash_or_none(const ProtobufCBinaryData *field,
                                                    const char *what, struct ct_hash *out);
/* Printable UTF-8 of less than `capacity` bytes into out[capacity]. */
CT_MUST_CHECK enum ct_err ct_field_get_text(const char *field, size_t capacity, const char *what,
                                            char *out);
/* A binary32 number from its bit pattern and back. */
float ct_field_get_float(uint32_t pattern);
uint32_t ct_field_put_float(float value);

/* Views for encoding; what they point to must outlive the message. */
ProtobufCBinaryData ct_field_put_hash(const struct ct_hash *hash);
ProtobufCBinaryData ct_field_put_hash_or_none(const struct ct_hash *hash);
ProtobufCBinaryData ct_field_put_bytes(struct ct_bytes bytes);

/* BlobRef. The decoded form is NULL where the field is missing, which is refused. */
struct Cotrain__BlobRef;
CT_MUST_CHECK enum ct_err ct_field_get_blob(const struct Cotrain__BlobRef *field, const char *what,
                                            struct ct_blob_ref *out);
void ct_field_put_blob(const struct ct_blob_ref *ref, struct Cotrain__BlobRef *out);

#endif
