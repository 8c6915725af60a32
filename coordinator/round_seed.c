#include "round_seed.h"

#include <string.h>

#define LABEL "cotrain round seed v1\n"

void ct_round_seed(const struct ct_key *identity, const struct ct_hash *run_id, uint32_t round,
                   uint8_t out[32]) {
    uint8_t message[sizeof LABEL - 1 + sizeof run_id->bytes + 4];
    uint8_t *at = message;
    memcpy(at, LABEL, sizeof LABEL - 1);
    at += sizeof LABEL - 1;
    memcpy(at, run_id->bytes, sizeof run_id->bytes);
    at += sizeof run_id->bytes;
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(round >> (8 * i));
    }
    const struct ct_signature signature =
        ct_key_sign(identity, (struct ct_bytes){message, sizeof message});
    const struct ct_hash seed =
        ct_sha256((struct ct_bytes){signature.bytes, sizeof signature.bytes});
    memcpy(out, seed.bytes, sizeof seed.bytes);
}

struct ct_hash ct_round_seed_hash(const uint8_t seed[32]) {
    return ct_sha256((struct ct_bytes){seed, 32});
}
