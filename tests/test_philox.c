#include <cotrain/philox.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Random123 1.14, kat_vectors, philox4x32 with 10 rounds. */
static const struct {
    uint32_t counter[4], key[2], out[4];
} vectors[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void known_answers_hold(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const uint32_t *c = vectors[i].counter;
        const struct ct_philox philox = {{vectors[i].key[0], vectors[i].key[1]}, c[3]};
        uint32_t out[4];
        ct_philox_block(&philox, c[0] | (uint64_t)c[1] << 32, c[2], out);
        assert_memory_equal(out, vectors[i].out, sizeof out);
    }
}

static void key_is_the_seeds_first_bytes(void **state) {
    (void)state;
    const struct ct_hash seed = {{0x22, 0x38, 0x09, 0xa4, 0xd0, 0x31, 0x9f, 0x29, 0x77}};
    const struct ct_philox philox = ct_philox_make(&seed, CT_STREAM_DATA);
    assert_int_equal(philox.key[0], 0xa4093822);
    assert_int_equal(philox.key[1], 0x299f31d0);
    assert_int_equal(philox.stream, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers_hold),
        cmocka_unit_test(key_is_the_seeds_first_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
