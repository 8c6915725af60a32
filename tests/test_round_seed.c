/* Seeds of rounds against OpenSSL's command, which knows nothing of ours. */
#include "fixture.h"

#include "coordinator/round_seed.h"

static struct ct_hash run_of(uint8_t byte) {
    struct ct_hash run_id;
    memset(run_id.bytes, byte, sizeof run_id.bytes);
    return run_id;
}

static void the_same_as_someone_elses(void **state) {
    (void)state;
    static const uint32_t rounds[] = {1, 2, 0x01020304};
    char *dir = fixture_dir();
    char path[PATH_MAX], command[4 * PATH_MAX];
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    snprintf(path, sizeof path, "%s/key.pem", dir);
    assert_int_equal(ct_key_save(key, path), CT_OK);
    for (size_t i = 0; i < sizeof rounds / sizeof rounds[0]; i++) {
        uint8_t seed[32], message[22 + 32 + 4] = "cotrain round seed v1\n";
        const struct ct_hash run_id = run_of(0xa5);
        memcpy(message + 22, run_id.bytes, 32);
        memcpy(message + 54, &rounds[i], 4); /* this machine is little-endian */
        snprintf(path, sizeof path, "%s/message", dir);
        fixture_write(path, message, sizeof message);
        snprintf(
            command, sizeof command,
            "cd '%s' && openssl pkeyutl -sign -rawin -inkey key.pem -in message -out signature "
            "&& openssl dgst -sha256 -binary signature >seed",
            dir);
        assert_int_equal(system(command), 0);
        snprintf(path, sizeof path, "%s/seed", dir);
        struct ct_buf expected = fixture_read(path);
        ct_round_seed(key, &run_id, rounds[i], seed);
        assert_int_equal(expected.length, sizeof seed);
        assert_memory_equal(seed, expected.data, sizeof seed);
        ct_buf_deinit(&expected);
    }
    ct_key_free(key);
    fixture_remove(dir);
    free(dir);
}

static void each_round_run_and_key_has_its_own(void **state) {
    (void)state;
    struct ct_key *keys[2];
    uint8_t seeds[8][32];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ct_key_generate(&keys[i]), CT_OK);
    }
    for (uint32_t i = 0; i < 8; i++) {
        const struct ct_hash run_id = run_of((uint8_t)(i / 2 % 2));
        ct_round_seed(keys[i / 4], &run_id, 1 + i % 2, seeds[i]);
        for (uint32_t j = 0; j < i; j++) {
            assert_memory_not_equal(seeds[i], seeds[j], 32);
        }
    }
    uint8_t again[32];
    const struct ct_hash run_id = run_of(0);
    ct_round_seed(keys[0], &run_id, 1, again);
    assert_memory_equal(again, seeds[0], 32);
    ct_key_free(keys[0]);
    ct_key_free(keys[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_as_someone_elses),
        cmocka_unit_test(each_round_run_and_key_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
