/* Seeded damage to encoded bytes, for tests of decoders. */
#ifndef COTRAIN_TESTS_MUTATE_H
#define COTRAIN_TESTS_MUTATE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64. */
static inline uint64_t mutate_draw(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A damaged copy in memory of exactly its length, so that a sanitizer sees every read past it:
 * one to four of a flipped bit, a drawn byte, a cut, a doubled stretch. The caller frees it. */
static inline uint8_t *mutate(uint64_t *state, const uint8_t *data, size_t length,
                              size_t *out_length) {
    uint8_t *copy = malloc(2 * length + 1);
    memcpy(copy, data, length);
    for (uint64_t times = 1 + mutate_draw(state) % 4; times > 0 && length > 0; times--) {
        size_t at = (size_t)(mutate_draw(state) % length);
        switch (mutate_draw(state) % 8) {
        case 0:
            length = at;
            break;
        case 1:
            if (times == 1) {
                size_t stretch = length - at;
                memmove(copy + length, copy + at, stretch);
                length += stretch;
            }
            break;
        case 2:
        case 3:
            copy[at] = (uint8_t)mutate_draw(state);
            break;
        default:
            copy[at] ^= (uint8_t)(1u << (mutate_draw(state) % 8));
        }
    }
    uint8_t *exact = malloc(length > 0 ? length : 1);
    memcpy(exact, copy, length);
    free(copy);
    *out_length = length;
    return exact;
}

#endif
