/* Seeded damage to encoded bytes, for tests of decoders. Include after cmocka.h. */
#ifndef COTRAIN_TESTS_MUTATE_H
#define COTRAIN_TESTS_MUTATE_H

#include <cotrain/err.h>
#include <cotrain/types.h>

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

/* Decodes; when that succeeds, asserts that encoding again gives the same bytes. */
typedef enum ct_err (*mutate_decode)(struct ct_bytes bytes);

static inline enum ct_err mutate_decode_copy(mutate_decode decode, const uint8_t *data,
                                             size_t length) {
    uint8_t *exact = malloc(length > 0 ? length : 1);
    memcpy(exact, data, length);
    enum ct_err err = decode((struct ct_bytes){exact, length});
    free(exact);
    return err;
}

/* A good encoding and what must not be taken for one: each cut (but for `cuts_taken`: without its
 * last number a message says that this is 0), fields nobody knows at the end, the whole twice; then
 * `rounds` drawn damages, which must not crash. Returns how many of those were refused. */
static inline unsigned mutate_check(mutate_decode decode, struct ct_bytes good, unsigned cuts_taken,
                                    uint64_t seed, unsigned rounds) {
    assert_int_equal(mutate_decode_copy(decode, good.data, good.length), CT_OK);
    unsigned taken = 0;
    for (size_t length = 0; length < good.length; length++) {
        taken += mutate_decode_copy(decode, good.data, length) == CT_OK;
    }
    assert_in_range(taken, 0, cuts_taken);
    /* Field 500 as varint, fixed64, bytes, fixed32; then group ends and reserved wire types. */
    static const uint8_t unknown[][11] = {{0xa0, 0x1f, 0x01},
                                          {0xa1, 0x1f, 1, 2, 3, 4, 5, 6, 7, 8},
                                          {0xa2, 0x1f, 0x00},
                                          {0xa5, 0x1f, 1, 2, 3, 4},
                                          {0xa3, 0x1f},
                                          {0xa4, 0x1f},
                                          {0xa6, 0x1f},
                                          {0xa7, 0x1f},
                                          {0x00},
                                          {0x00, 0x00}};
    static const size_t lengths[] = {3, 10, 3, 6, 2, 2, 2, 2, 1, 2};
    uint8_t *longer = malloc(2 * good.length + sizeof unknown[0]);
    memcpy(longer, good.data, good.length);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(longer + good.length, unknown[i], lengths[i]);
        assert_int_not_equal(mutate_decode_copy(decode, longer, good.length + lengths[i]), CT_OK);
    }
    memcpy(longer + good.length, good.data, good.length);
    assert_int_not_equal(mutate_decode_copy(decode, longer, 2 * good.length), CT_OK);
    free(longer);
    unsigned refused = 0;
    for (unsigned i = 0; i < rounds; i++) {
        size_t length;
        uint8_t *damaged = mutate(&seed, good.data, good.length, &length);
        refused += decode((struct ct_bytes){damaged, length}) != CT_OK;
        free(damaged);
    }
    return refused;
}

#endif
