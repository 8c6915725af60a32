#include "fixture.h"

#include <cotrain/cosignature.h>
#include <cotrain/merkle.h>

#define DASH "\xe2\x80\x94"

/* A note of a foreign log and the line that litewitness 0.9.0 answered for it. */
#define NOTE                                                                                       \
    "ledger.example/test\n3001\nECqJFfPWnsOv9/EoBZ5d0SSRTiSqABJ8DoStIBCvVYk=\n\n" DASH             \
    " ledger.example/test "                                                                        \
    "eoZAmc3cFu1Z0/L+arJhsjkk0JIm+neKWYf3dEHMxd6PwAPWkvDuDcxcL+ws+SQoaz61Oxz1U1sfsAWC3FUVPUv4MAk=" \
    "\n"
#define LITE_VKEY "lite.example/w+5219dabb+BBx91b4BOlA/WNLI9q6CSLRepzDtxvRSVx9ULtKbUjSo"
#define LITE_LINE                                                                                  \
    DASH " lite.example/w "                                                                        \
         "UhnauwAAAABrBpUGmjnZxE9dHw4SIbJ8kevzWPbGfp3q+2Trla6sHobujCPL400/"                        \
         "j13pmzectW6ogO66tyGJINQO2"                                                               \
         "Zj8hydc08YoBg==\n"
#define LITE_TIME 0x6b069506u

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static struct ct_buf buf_of(const char *text) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_buf_append(&buf, text, strlen(text)), CT_OK);
    return buf;
}

static void foreign_cosignature_verifies(void **state) {
    (void)state;
    char name[CT_ORIGIN_BYTES_MAX], vkey[CT_VKEY_BYTES_MAX];
    struct ct_hash key;
    uint64_t time_s = 0;
    assert_int_equal(ct_cosigner_parse(LITE_VKEY, name, &key), CT_OK);
    assert_string_equal(name, "lite.example/w");
    ct_cosigner_format(name, &key, vkey);
    assert_string_equal(vkey, LITE_VKEY);
    assert_int_equal(ct_vkey_parse(LITE_VKEY, name, &key), CT_ERR_FORMAT); /* is no log's */
    assert_int_equal(ct_cosignature_check(text_bytes(NOTE LITE_LINE), name, &key, &time_s), CT_OK);
    assert_int_equal(time_s, LITE_TIME);
    assert_int_equal(ct_cosignature_check(text_bytes(NOTE), name, &key, NULL), CT_ERR_NOT_FOUND);
    assert_int_equal(ct_cosignature_check(text_bytes(NOTE LITE_LINE), "lite.example/v", &key, NULL),
                     CT_ERR_NOT_FOUND);
    char changed[] = NOTE LITE_LINE;
    for (size_t i = 0; i + 1 < sizeof changed; i++) {
        changed[i] ^= 1;
        assert_int_not_equal(ct_cosignature_check(text_bytes(changed), name, &key, NULL), CT_OK);
        changed[i] ^= 1;
        /* The log's signature is not the witness's to cover; all before it is. */
        i = i == strlen(NOTE) - 140 ? strlen(NOTE) : i;
    }
}

/* Two witnesses, one of which signs again later. */
static void lines_are_taken_once_each(void **state) {
    (void)state;
    struct ct_key *keys[2];
    struct ct_hash public_keys[2];
    static const char *const names[] = {"one.example", "two.example/w"};
    struct ct_buf note = buf_of(NOTE);
    uint64_t time_s = 0;
    struct ct_buf answer;
    ct_buf_init(&answer, 4096);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ct_key_generate(&keys[i]), CT_OK);
        public_keys[i] = ct_key_public(keys[i]);
        ct_buf_clear(&answer);
        assert_int_equal(ct_buf_append(&answer, LITE_LINE, strlen(LITE_LINE)), CT_OK);
        assert_int_equal(ct_cosign(ct_buf_bytes(&note), names[i], keys[i], 1000 + i, &answer),
                         CT_OK);
        assert_true(answer.length - strlen(LITE_LINE) <= CT_COSIGNATURE_BYTES_MAX);
        assert_int_equal(
            ct_cosignature_take(ct_buf_bytes(&answer), names[i], &public_keys[i], &note), CT_OK);
    }
    size_t length = note.length;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(
            ct_cosignature_check(ct_buf_bytes(&note), names[i], &public_keys[i], &time_s), CT_OK);
        assert_int_equal(time_s, 1000 + i);
    }
    ct_buf_clear(&answer);
    assert_int_equal(ct_cosign(ct_buf_bytes(&note), names[0], keys[0], 5000, &answer), CT_OK);
    assert_int_equal(ct_cosignature_take(ct_buf_bytes(&answer), names[0], &public_keys[0], &note),
                     CT_OK);
    assert_int_equal(note.length, length);
    assert_int_equal(ct_cosignature_check(ct_buf_bytes(&note), names[0], &public_keys[0], &time_s),
                     CT_OK);
    assert_int_equal(time_s, 5000);
    /* Still the log's note. */
    struct ct_hash log_key;
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_checkpoint checkpoint;
    assert_int_equal(ct_vkey_parse("ledger.example/test+7a864099+"
                                   "AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
                                   origin, &log_key),
                     CT_OK);
    assert_int_equal(ct_checkpoint_open(ct_buf_bytes(&note), origin, &log_key, &checkpoint), CT_OK);
    assert_int_equal(checkpoint.size, 3001);

    /* Of another checkpoint, of nobody, and what is no line. */
    struct ct_buf other = buf_of("ledger.example/test\n1\n" DASH "\n\n" LITE_LINE);
    ct_buf_clear(&answer);
    assert_int_equal(ct_cosign(ct_buf_bytes(&other), names[0], keys[0], 5000, &answer), CT_OK);
    assert_int_equal(ct_cosignature_take(ct_buf_bytes(&answer), names[0], &public_keys[0], &note),
                     CT_ERR_SIGNATURE);
    assert_int_equal(ct_cosignature_take(text_bytes(LITE_LINE), names[0], &public_keys[0], &note),
                     CT_ERR_NOT_FOUND);
    assert_int_equal(ct_cosignature_take(text_bytes("hello\n"), names[0], &public_keys[0], &note),
                     CT_ERR_FORMAT);
    assert_int_equal(ct_cosignature_take(text_bytes(DASH " x"), names[0], &public_keys[0], &note),
                     CT_ERR_FORMAT);
    assert_int_equal(note.length, length);
    assert_int_equal(ct_cosign(ct_buf_bytes(&note), "a b", keys[0], 5000, &answer), CT_ERR_CONFIG);
    for (size_t i = 0; i < 2; i++) {
        ct_key_free(keys[i]);
    }
    ct_buf_deinit(&other);
    ct_buf_deinit(&answer);
    ct_buf_deinit(&note);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_cosignature_verifies),
        cmocka_unit_test(lines_are_taken_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
