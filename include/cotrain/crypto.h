/* The door to OpenSSL's primitives: SHA-256, Ed25519, randomness, base64; and the DSSE envelope's
 * pre-authentication encoding. Failures of the library itself (no memory, no entropy) abort: they
 * are ours, not a peer's. */
#ifndef COTRAIN_CRYPTO_H
#define COTRAIN_CRYPTO_H

#include <cotrain/err.h>
#include <cotrain/types.h>

/* Sets OpenSSL up without reading any configuration file (OPENSSL_CONF). Every function here does
 * it first; the TLS door calls it before its own first use. Any thread, any number of times. */
void ct_crypto_init(void);

struct ct_hash ct_sha256(struct ct_bytes bytes);

/* Incremental; nothing is owned. */
struct ct_sha256 {
    uint32_t state[28]; /* OpenSSL's */
};
void ct_sha256_init(struct ct_sha256 *sha);
void ct_sha256_update(struct ct_sha256 *sha, const void *data, size_t length);
struct ct_hash ct_sha256_final(struct ct_sha256 *sha); /* ends it */

bool ct_hash_equal(const struct ct_hash *a, const struct ct_hash *b);
bool ct_hash_is_zero(const struct ct_hash *hash);
#define CT_HEX_BYTES 65
/* 64 lower-case digits and a NUL into out. */
void ct_hash_hex(const struct ct_hash *hash, char out[CT_HEX_BYTES]);
/* Exactly 64 lower-case digits, nothing after them. */
CT_MUST_CHECK enum ct_err ct_hash_parse(const char *hex, struct ct_hash *out);

void ct_random(void *out, size_t length);

/* Ed25519. */
struct ct_key; /* a private key */
struct ct_signature {
    uint8_t bytes[64];
};
CT_MUST_CHECK enum ct_err ct_key_generate(struct ct_key **out);
/* PKCS#8 PEM, mode 0600, written durably; CT_ERR_EXISTS if the file is there. */
CT_MUST_CHECK enum ct_err ct_key_save(const struct ct_key *key, const char *path);
/* CT_ERR_NOT_FOUND, CT_ERR_IO; CT_ERR_CONFIG when others may read or write the file; CT_ERR_FORMAT
 * when it is no unencrypted Ed25519 key. */
CT_MUST_CHECK enum ct_err ct_key_load(const char *path, struct ct_key **out);
void ct_key_free(struct ct_key *key);
struct ct_hash ct_key_public(const struct ct_key *key); /* raw 32 bytes */
struct ct_signature ct_key_sign(const struct ct_key *key, struct ct_bytes message);
bool ct_verify(const struct ct_hash *public_key, struct ct_bytes message,
               const struct ct_signature *signature);
/* The EVP_PKEY inside, for the TLS door alone. */
void *ct_key_native(const struct ct_key *key);

/* Padded standard base64. Encode: out has room for 4·⌈n/3⌉ + 1, NUL-terminated; returns the length.
 * Decode refuses whatever does not encode back to the same characters. */
size_t ct_base64_encode(struct ct_bytes bytes, char *out);
CT_MUST_CHECK enum ct_err ct_base64_decode(const char *text, size_t length, uint8_t *out,
                                           size_t capacity, size_t *out_length);

/* Signs and verifies "DSSEv1 <len(type)> <type> <len(payload)> <payload>". */
struct ct_signature ct_dsse_sign(const struct ct_key *key, const char *type,
                                 struct ct_bytes payload);
bool ct_dsse_verify(const struct ct_hash *public_key, const char *type, struct ct_bytes payload,
                    const struct ct_signature *signature);

#endif
