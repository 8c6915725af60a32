#include <cotrain/volunteer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct ct_key *key;
static struct ct_hash public_key;
static const struct ct_hash run = {{7}}, other_run = {{8}};

static int make_key(void **state) {
    (void)state;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    public_key = ct_key_public(key);
    return 0;
}

static int free_key(void **state) {
    (void)state;
    ct_key_free(key);
    return 0;
}

static void sign(const char *name, const char *region, struct ct_buf *out) {
    struct ct_volunteer volunteer = {"", ""};
    assert_int_equal(ct_volunteer_set(volunteer.name, "name", name), CT_OK);
    assert_int_equal(ct_volunteer_set(volunteer.region, "region", region), CT_OK);
    ct_buf_init(out, CT_PROFILE_BYTES_MAX);
    assert_int_equal(ct_volunteer_sign(&volunteer, &run, key, out), CT_OK);
}

static void a_record_comes_back(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"Ada", "north sea"},
        {"", "eu-1"},
        {"a", ""},
        {"12345678901234567890123456789012", "12345678901234567890123456789012"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ct_buf record;
        struct ct_volunteer back;
        sign(cases[i][0], cases[i][1], &record);
        assert_int_equal(ct_volunteer_open(ct_buf_bytes(&record), &run, &public_key, &back, NULL),
                         CT_OK);
        assert_string_equal(back.name, cases[i][0]);
        assert_string_equal(back.region, cases[i][1]);
        ct_buf_deinit(&record);
    }
}

/* The digest is SHA-256 of salt and profile, found in the bytes by hand: field 1 of 32 bytes, then
 * field 2 of less than 128. */
static void the_digest_is_that_of_salt_and_profile(void **state) {
    (void)state;
    struct ct_buf record;
    struct ct_hash digest, again;
    uint8_t bound[32 + 127];
    sign("Ada", "north sea", &record);
    assert_int_equal(record.data[0], 0x0a);
    assert_int_equal(record.data[1], 32);
    assert_int_equal(record.data[34], 0x12);
    const size_t length = record.data[35];
    assert_true(length < 128);
    memcpy(bound, record.data + 2, 32);
    memcpy(bound + 32, record.data + 36, length);
    assert_int_equal(ct_volunteer_open(ct_buf_bytes(&record), &run, &public_key, NULL, &digest),
                     CT_OK);
    again = ct_sha256((struct ct_bytes){bound, 32 + length});
    assert_true(ct_hash_equal(&digest, &again));
    ct_buf_deinit(&record);
    /* Another salt each time: the same words are not recognised. */
    sign("Ada", "north sea", &record);
    assert_int_equal(ct_volunteer_open(ct_buf_bytes(&record), &run, &public_key, NULL, &again),
                     CT_OK);
    assert_false(ct_hash_equal(&digest, &again));
    ct_buf_deinit(&record);
}

static void texts_of_another_alphabet_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {" a",       "a ",   " ",
                                      "a\n",      "<b>",  "a/b",
                                      "\xc3\xa9", "a\"b", "123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char field[33];
        assert_int_equal(ct_volunteer_set(field, "name", bad[i]), CT_ERR_FORMAT);
    }
}

static void another_run_or_key_is_refused(void **state) {
    (void)state;
    struct ct_buf record;
    struct ct_hash wrong = public_key;
    wrong.bytes[3] ^= 1;
    sign("Ada", "", &record);
    assert_int_equal(ct_volunteer_open(ct_buf_bytes(&record), &other_run, &public_key, NULL, NULL),
                     CT_ERR_RULE);
    assert_int_equal(ct_volunteer_open(ct_buf_bytes(&record), &run, &wrong, NULL, NULL),
                     CT_ERR_SIGNATURE);
    ct_buf_deinit(&record);
}

static void every_flipped_bit_and_cut_is_refused(void **state) {
    (void)state;
    struct ct_buf record;
    sign("Ada", "north sea", &record);
    for (size_t bit = 0; bit < record.length * 8; bit++) {
        record.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(
            ct_volunteer_open(ct_buf_bytes(&record), &run, &public_key, NULL, NULL), CT_OK);
        record.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t length = 0; length < record.length; length++) {
        assert_int_not_equal(ct_volunteer_open((struct ct_bytes){record.data, length}, &run,
                                               &public_key, NULL, NULL),
                             CT_OK);
    }
    uint8_t long_record[CT_PROFILE_BYTES_MAX + 1] = {0};
    assert_int_equal(ct_volunteer_open((struct ct_bytes){long_record, sizeof long_record}, &run,
                                       &public_key, NULL, NULL),
                     CT_ERR_TOO_LARGE);
    ct_buf_deinit(&record);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back),
        cmocka_unit_test(the_digest_is_that_of_salt_and_profile),
        cmocka_unit_test(texts_of_another_alphabet_are_refused),
        cmocka_unit_test(another_run_or_key_is_refused),
        cmocka_unit_test(every_flipped_bit_and_cut_is_refused),
    };
    return cmocka_run_group_tests(tests, make_key, free_key);
}
