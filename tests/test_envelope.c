#include <cotrain/entry.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

static const struct ct_bytes payload = {(const uint8_t *)"some payload", 12};

static struct ct_key *new_key(void) {
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    return key;
}

static void sealed_opens_and_verifies(void **state) {
    (void)state;
    struct ct_key *key = new_key();
    struct ct_hash public_key = ct_key_public(key);
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, payload, 5, key, &buf), CT_OK);
    struct ct_envelope envelope;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(&buf), &envelope), CT_OK);
    assert_string_equal(envelope.type, CT_TYPE_COMMIT);
    assert_int_equal(envelope.key_number, 5);
    assert_int_equal(envelope.payload.length, payload.length);
    assert_memory_equal(envelope.payload.data, payload.data, payload.length);
    assert_true(envelope.payload.data > buf.data &&
                envelope.payload.data + payload.length <= buf.data + buf.length);
    assert_int_equal(ct_envelope_verify(&envelope, &public_key), CT_OK);
    assert_true(ct_dsse_verify(&public_key, CT_TYPE_COMMIT, payload, &envelope.signature));
    struct ct_key *other = new_key();
    struct ct_hash other_public = ct_key_public(other);
    assert_int_equal(ct_envelope_verify(&envelope, &other_public), CT_ERR_SIGNATURE);
    ct_key_free(other);
    ct_key_free(key);
    ct_buf_deinit(&buf);
}

/* The same payload, key and signature under the other type. */
static void a_signature_holds_for_its_type_alone(void **state) {
    (void)state;
    struct ct_key *key = new_key();
    struct ct_hash public_key = ct_key_public(key);
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, payload, 0, key, &buf), CT_OK);
    struct ct_envelope envelope;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(&buf), &envelope), CT_OK);
    assert_int_equal(ct_envelope_verify(&envelope, &public_key), CT_OK);
    envelope.type = CT_TYPE_COMMIT;
    assert_int_equal(ct_envelope_verify(&envelope, &public_key), CT_ERR_SIGNATURE);
    envelope.type = CT_TYPE_ENTRY;
    envelope.payload.length--;
    assert_int_equal(ct_envelope_verify(&envelope, &public_key), CT_ERR_SIGNATURE);
    ct_key_free(key);
    ct_buf_deinit(&buf);
}

/* Builds an envelope by hand. */
static enum ct_err open_parts(const char *type, int key_number, size_t signature_length) {
    struct ct_buf buf;
    ct_buf_init(&buf, 1000);
    uint8_t signature[100] = {1};
    uint8_t type_head[] = {0x0a, (uint8_t)strlen(type)};
    assert_int_equal(ct_buf_append(&buf, type_head, 2), CT_OK);
    assert_int_equal(ct_buf_append(&buf, type, strlen(type)), CT_OK);
    assert_int_equal(ct_buf_append(&buf, (uint8_t[]){0x12, 1, 'p'}, 3), CT_OK);
    if (key_number > 0) {
        assert_int_equal(ct_buf_append(&buf, (uint8_t[]){0x18, (uint8_t)key_number}, 2), CT_OK);
    }
    uint8_t signature_head[] = {0x22, (uint8_t)signature_length};
    assert_int_equal(ct_buf_append(&buf, signature_head, 2), CT_OK);
    assert_int_equal(ct_buf_append(&buf, signature, signature_length), CT_OK);
    struct ct_envelope envelope;
    enum ct_err err = ct_envelope_open(ct_buf_bytes(&buf), &envelope);
    ct_buf_deinit(&buf);
    return err;
}

static void parts_are_checked(void **state) {
    (void)state;
    assert_int_equal(open_parts(CT_TYPE_ENTRY, 0, 64), CT_OK);
    assert_int_equal(open_parts(CT_TYPE_COMMIT, 1, 64), CT_OK);
    assert_int_equal(open_parts(CT_TYPE_COMMIT, 0, 64), CT_ERR_FORMAT);
    assert_int_equal(open_parts(CT_TYPE_ENTRY, 1, 64), CT_ERR_FORMAT);
    assert_int_equal(open_parts(CT_TYPE_ENTRY, 0, 63), CT_ERR_FORMAT);
    assert_int_equal(open_parts(CT_TYPE_ENTRY, 0, 65), CT_ERR_FORMAT);
    assert_int_equal(open_parts("application/vnd.cotrain.entry.v2", 0, 64), CT_ERR_FORMAT);
}

static enum ct_err open_only(struct ct_bytes bytes) {
    struct ct_envelope envelope;
    enum ct_err err = ct_envelope_open(bytes, &envelope);
    if (err == CT_OK) {
        assert_true(envelope.payload.data >= bytes.data &&
                    envelope.payload.data + envelope.payload.length <= bytes.data + bytes.length);
    }
    return err;
}

static void damage_never_verifies(void **state) {
    (void)state;
    struct ct_key *key = new_key();
    struct ct_hash public_key = ct_key_public(key);
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, payload, 5, key, &buf), CT_OK);
    unsigned refused = mutate_check(open_only, ct_buf_bytes(&buf), 0, 3, 20000);
    assert_in_range(refused, 1000, 19999);
    for (size_t bit = 0; bit < buf.length * 8; bit++) {
        buf.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        struct ct_envelope envelope;
        if (ct_envelope_open(ct_buf_bytes(&buf), &envelope) == CT_OK) {
            /* The number is no part of what is signed: whose key it is says the ledger. */
            bool number_alone = envelope.key_number != 5;
            assert_int_equal(ct_envelope_verify(&envelope, &public_key),
                             number_alone ? CT_OK : CT_ERR_SIGNATURE);
        }
        buf.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    ct_key_free(key);
    ct_buf_deinit(&buf);
}

static void statements_have_a_maximum(void **state) {
    (void)state;
    struct ct_key *key = new_key();
    uint8_t *large = calloc(1, 70000);
    struct ct_buf buf;
    ct_buf_init(&buf, 100000);
    struct ct_bytes bytes = {large, CT_STATEMENT_BYTES_MAX};
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, bytes, 1, key, &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, bytes, 0, key, &buf), CT_OK);
    bytes.length = CT_ENTRY_BYTES_MAX;
    ct_buf_clear(&buf);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, bytes, 0, key, &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(buf.length, 0);
    struct ct_envelope envelope;
    bytes.length = CT_ENTRY_BYTES_MAX + 1;
    assert_int_equal(ct_envelope_open(bytes, &envelope), CT_ERR_TOO_LARGE);
    free(large);
    ct_buf_deinit(&buf);
    ct_key_free(key);
}

/* Against digests made with sha256sum. */
static void run_id_and_seed(void **state) {
    (void)state;
    struct ct_hash id = ct_run_id((struct ct_bytes){(const uint8_t *)"abc", 3});
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&id, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct ct_hash seed = ct_run_seed(&id);
    ct_hash_hex(&seed, hex);
    assert_string_equal(hex, "32f05ad2f6e60e65c972f9d54b05e7339bf94b84ea77c1539a41a23f167e0057");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_opens_and_verifies),
        cmocka_unit_test(a_signature_holds_for_its_type_alone),
        cmocka_unit_test(parts_are_checked),
        cmocka_unit_test(damage_never_verifies),
        cmocka_unit_test(statements_have_a_maximum),
        cmocka_unit_test(run_id_and_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
