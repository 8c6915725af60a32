#include <cotrain/crypto.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cotrain/buf.h>

#include <cmocka.h>

#include "scratch.h"

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return length;
}

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static void write_text(const char *path, struct ct_bytes text, mode_t mode) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.data, 1, text.length, file), text.length);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* A PKCS#8 file (RFC 8410 section 7) around a raw seed. */
static struct ct_key *key_from_seed(const char *seed_hex) {
    uint8_t der[48];
    assert_int_equal(from_hex("302e020100300506032b657004220420", der), 16);
    assert_int_equal(from_hex(seed_hex, der + 16), 32);
    char base64[128];
    ct_base64_encode((struct ct_bytes){der, sizeof der}, base64);
    char pem[256];
    snprintf(pem, sizeof pem, "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
             base64);
    const char *path = scratch_path("vector.pem");
    write_text(path, text_bytes(pem), 0600);
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_load(path, &key), CT_OK);
    return key;
}

static void sha256_of_fips_180(void **state) {
    (void)state;
    char hex[CT_HEX_BYTES];
    struct ct_hash hash = ct_sha256(text_bytes("abc"));
    ct_hash_hex(&hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash = ct_sha256((struct ct_bytes){NULL, 0});
    ct_hash_hex(&hash, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, "a", 1);
    ct_sha256_update(&sha, NULL, 0);
    ct_sha256_update(&sha, "bc", 2);
    struct ct_hash pieces = ct_sha256_final(&sha);
    hash = ct_sha256(text_bytes("abc"));
    assert_true(ct_hash_equal(&pieces, &hash));
}

static void digests_are_read_strictly(void **state) {
    (void)state;
    char hex[CT_HEX_BYTES + 1];
    struct ct_hash hash = ct_sha256(text_bytes("abc"));
    ct_hash_hex(&hash, hex);
    struct ct_hash parsed;
    assert_int_equal(ct_hash_parse(hex, &parsed), CT_OK);
    assert_true(ct_hash_equal(&parsed, &hash));
    assert_false(ct_hash_is_zero(&parsed));
    hex[64] = '0';
    hex[65] = '\0';
    assert_int_equal(ct_hash_parse(hex, &parsed), CT_ERR_FORMAT);
    hex[64] = '\0';
    hex[0] = 'B';
    assert_int_equal(ct_hash_parse(hex, &parsed), CT_ERR_FORMAT);
    hex[0] = 'b';
    hex[63] = '\0';
    assert_int_equal(ct_hash_parse(hex, &parsed), CT_ERR_FORMAT);
    assert_int_equal(ct_hash_parse("", &parsed), CT_ERR_FORMAT);
}

/* RFC 8032 section 7.1, tests 1 to 3. */
static const struct {
    const char *seed, *public_key, *message, *signature;
} vectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
     "f9b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
     "f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
     "4dc6594a7c15e9716ed28dc027beceea1ec40a"},
};

static void ed25519_of_rfc_8032(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        struct ct_key *key = key_from_seed(vectors[i].seed);
        struct ct_hash expected_public;
        from_hex(vectors[i].public_key, expected_public.bytes);
        struct ct_hash public_key = ct_key_public(key);
        assert_memory_equal(public_key.bytes, expected_public.bytes, 32);
        uint8_t data[8];
        struct ct_bytes message = {data, from_hex(vectors[i].message, data)};
        struct ct_signature signature = ct_key_sign(key, message);
        uint8_t expected[64];
        assert_int_equal(from_hex(vectors[i].signature, expected), 64);
        assert_memory_equal(signature.bytes, expected, 64);
        assert_true(ct_verify(&public_key, message, &signature));
        for (size_t bit = 0; bit < 512; bit += 37) {
            struct ct_signature broken = signature;
            broken.bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_false(ct_verify(&public_key, message, &broken));
        }
        ct_key_free(key);
    }
}

static void no_signature_under_a_key_that_is_none(void **state) {
    (void)state;
    struct ct_hash no_point;
    memset(no_point.bytes, 0xff, sizeof no_point.bytes);
    struct ct_signature signature = {{0}};
    assert_false(ct_verify(&no_point, text_bytes("x"), &signature));
}

/* The example of the DSSE specification's protocol.md. */
static void dsse_signs_the_encoding_of_its_specification(void **state) {
    (void)state;
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    struct ct_hash public_key = ct_key_public(key);
    const char *type = "http://example.com/HelloWorld";
    struct ct_signature signature = ct_dsse_sign(key, type, text_bytes("hello world"));
    const char *encoding = "DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    assert_true(ct_verify(&public_key, text_bytes(encoding), &signature));
    assert_true(ct_dsse_verify(&public_key, type, text_bytes("hello world"), &signature));
    assert_false(ct_dsse_verify(&public_key, type, text_bytes("hello worle"), &signature));
    assert_false(ct_dsse_verify(&public_key, "http://example.com/HelloWorlds",
                                text_bytes("hello world"), &signature));
    signature = ct_dsse_sign(key, type, (struct ct_bytes){NULL, 0});
    encoding = "DSSEv1 29 http://example.com/HelloWorld 0 ";
    assert_true(ct_verify(&public_key, text_bytes(encoding), &signature));
    ct_key_free(key);
}

static void keys_are_kept_private_and_never_overwritten(void **state) {
    (void)state;
    struct ct_key *key = NULL;
    struct ct_key *other = NULL;
    struct ct_key *loaded = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    assert_int_equal(ct_key_generate(&other), CT_OK);
    const char *path = scratch_path("key.pem");
    assert_int_equal(ct_key_save(key, path), CT_OK);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(ct_key_save(other, path), CT_ERR_EXISTS);
    assert_int_not_equal(access(scratch_path("key.pem.tmp"), F_OK), 0);
    assert_int_equal(ct_key_load(path, &loaded), CT_OK);
    struct ct_hash saved = ct_key_public(key);
    struct ct_hash read_back = ct_key_public(loaded);
    assert_true(ct_hash_equal(&saved, &read_back));
    ct_key_free(loaded);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(ct_key_load(path, &loaded), CT_ERR_CONFIG);
    ct_key_free(key);
    ct_key_free(other);
}

static void other_files_are_no_keys(void **state) {
    (void)state;
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_load(scratch_path("missing.pem"), &key), CT_ERR_NOT_FOUND);
    const char *path = scratch_path("odd.pem");
    write_text(path, text_bytes("no key\n"), 0600);
    assert_int_equal(ct_key_load(path, &key), CT_ERR_FORMAT);
    write_text(path, text_bytes(""), 0600);
    assert_int_equal(ct_key_load(path, &key), CT_ERR_FORMAT);
    /* X25519, RFC 8410: the same form with another algorithm. */
    write_text(path,
               text_bytes("-----BEGIN PRIVATE KEY-----\n"
                          "MC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
                          "-----END PRIVATE KEY-----\n"),
               0600);
    assert_int_equal(ct_key_load(path, &key), CT_ERR_FORMAT);
    char large[5000];
    memset(large, 'a', sizeof large);
    write_text(path, (struct ct_bytes){(const uint8_t *)large, sizeof large}, 0600);
    assert_int_equal(ct_key_load(path, &key), CT_ERR_TOO_LARGE);
    assert_null(key);
}

/* RFC 4648 section 10. */
static void base64_of_rfc_4648(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[16];
        assert_int_equal(ct_base64_encode(text_bytes(pairs[i][0]), text), strlen(pairs[i][1]));
        assert_string_equal(text, pairs[i][1]);
        uint8_t data[8];
        size_t length = 99;
        assert_int_equal(ct_base64_decode(text, strlen(text), data, strlen(pairs[i][0]), &length),
                         CT_OK);
        assert_int_equal(length, strlen(pairs[i][0]));
        assert_memory_equal(data, pairs[i][0], length);
        if (length > 0) {
            assert_int_equal(ct_base64_decode(text, strlen(text), data, length - 1, &length),
                             CT_ERR_TOO_LARGE);
        }
    }
}

static void base64_has_one_form(void **state) {
    (void)state;
    static const char *const refused[] = {
        "Zh==", "Zm9=",  "Zg=",   "Zg",     "Z",        "====",     "Zg==Zg==",
        "Z===", " Zg==", "Zg== ", "\nZg==", "Zm9v\n",   "    ",     "Zm9vZm 9",
        "Zm-v", "Zm_v",  "A=A=",  "=AAA",   "Zm9vYh==", "    Zm9v", "Zm9v    "};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        uint8_t data[16];
        size_t length;
        assert_int_equal(
            ct_base64_decode(refused[i], strlen(refused[i]), data, sizeof data, &length),
            CT_ERR_FORMAT);
    }
    /* A NUL in the middle. */
    uint8_t data[16];
    size_t length;
    assert_int_equal(ct_base64_decode("Zm\0v", 4, data, sizeof data, &length), CT_ERR_FORMAT);
}

static void random_bytes_differ(void **state) {
    (void)state;
    uint8_t a[32] = {0};
    uint8_t b[32] = {0};
    ct_random(a, sizeof a);
    ct_random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

/* A configuration under which nothing could be fetched, were it read. */
static int set_up(void **state) {
    if (scratch_make(state) != 0) {
        return -1;
    }
    const char *path = scratch_path("openssl.cnf");
    write_text(path,
               text_bytes("openssl_conf = all\n[all]\nalg_section = algorithms\n"
                          "[algorithms]\ndefault_properties = provider=none\n"),
               0600);
    return setenv("OPENSSL_CONF", path, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_of_fips_180),
        cmocka_unit_test(digests_are_read_strictly),
        cmocka_unit_test(ed25519_of_rfc_8032),
        cmocka_unit_test(no_signature_under_a_key_that_is_none),
        cmocka_unit_test(dsse_signs_the_encoding_of_its_specification),
        cmocka_unit_test(keys_are_kept_private_and_never_overwritten),
        cmocka_unit_test(other_files_are_no_keys),
        cmocka_unit_test(base64_of_rfc_4648),
        cmocka_unit_test(base64_has_one_form),
        cmocka_unit_test(random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_remove);
}
