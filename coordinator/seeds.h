/* The seeds of rounds until they are revealed: the file DIR/round-seed holds those of the open
 * round and the one before, whose reveal may not be durable yet when the next round opens. */
#ifndef COORDINATOR_SEEDS_H
#define COORDINATOR_SEEDS_H

#include <cotrain/crypto.h>

struct ct_seeds {
    uint32_t rounds[2]; /* newest first; 0: none */
    uint8_t seeds[2][32];
};

/* No file: no seeds. */
CT_MUST_CHECK enum ct_err ct_seeds_load(const char *dir, struct ct_seeds *out);
/* Draws a round's seed and makes it durable, before its hash goes anywhere. */
CT_MUST_CHECK enum ct_err ct_seeds_draw(const char *dir, struct ct_seeds *seeds, uint32_t round,
                                        struct ct_hash *out_hash);
/* The seed of a round; CT_ERR_NOT_FOUND if it is not the one whose hash was logged. */
CT_MUST_CHECK enum ct_err ct_seeds_find(const struct ct_seeds *seeds, uint32_t round,
                                        const struct ct_hash *hash, uint8_t out[32]);

#endif
