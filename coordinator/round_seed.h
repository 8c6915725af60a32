/* The seeds of rounds, which are committed to when a round opens and revealed when its commits
 * close: SHA-256 of the identity key's Ed25519 signature over
 *
 *   "cotrain round seed v1\n" ‖ run id (32 bytes) ‖ round (little-endian u32)
 *
 * Such a signature is a function of key and message (RFC 8032), and nobody without the key can tell
 * it. So the keys are all that a coordinator has to keep secret and must not lose: an open round
 * can be closed by whoever restores the run from public copies. The message is no statement (those
 * begin with "DSSEv1 ") and no TLS transcript (64 spaces), so none can be passed off as another. */
#ifndef COORDINATOR_ROUND_SEED_H
#define COORDINATOR_ROUND_SEED_H

#include <cotrain/crypto.h>

void ct_round_seed(const struct ct_key *identity, const struct ct_hash *run_id, uint32_t round,
                   uint8_t out[32]);
/* What the entry that opens the round says of it: SHA-256 of the seed. */
struct ct_hash ct_round_seed_hash(const uint8_t seed[32]);

#endif
