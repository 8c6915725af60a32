/* The few types that every folder uses. */
#ifndef COTRAIN_TYPES_H
#define COTRAIN_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A SHA-256 digest, also an Ed25519 public key where a comment says so. */
struct ct_hash {
    uint8_t bytes[32];
};

/* Bytes that somebody else owns. */
struct ct_bytes {
    const uint8_t *data;
    size_t length;
};

/* A blob: content-addressed bytes in the store beside the ledger. */
struct ct_blob_ref {
    struct ct_hash sha256;
    uint64_t length;
};

#endif
