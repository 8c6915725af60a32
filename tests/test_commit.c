#include <cotrain/entry.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

static struct ct_commit example(void) {
    struct ct_commit commit = {
        .version = 1,
        .round = 7,
        .author = 3,
        .update.length = 12345,
        .steps = 30,
        .skipped_steps = 1,
        .loss = 2.5f,
    };
    memset(commit.run_id.bytes, 1, 32);
    memset(commit.assignment.bytes, 2, 32);
    memset(commit.update.sha256.bytes, 3, 32);
    memset(commit.state.bytes, 4, 32);
    return commit;
}

static enum ct_err decode_and_encode(struct ct_bytes bytes) {
    struct ct_commit commit;
    enum ct_err err = ct_commit_decode(bytes, &commit);
    if (err == CT_OK) {
        struct ct_buf again;
        ct_buf_init(&again, CT_STATEMENT_BYTES_MAX);
        assert_int_equal(ct_commit_encode(&commit, &again), CT_OK);
        assert_int_equal(again.length, bytes.length);
        assert_memory_equal(again.data, bytes.data, bytes.length);
        ct_buf_deinit(&again);
    }
    return err;
}

/* Field by field from the protobuf encoding's specification. */
static void encoding_is_protobuf(void **state) {
    (void)state;
    struct ct_commit commit = example();
    struct ct_buf buf;
    ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &buf), CT_OK);
    uint8_t expected[256];
    size_t at = 0;
    static const uint8_t head[] = {0x08, 1, 0x12, 32};
    static const uint8_t numbers[] = {0x18, 7, 0x20, 3, 0x2a, 32};
    static const uint8_t update[] = {0x32, 37, 0x0a, 32};
    static const uint8_t update_length[] = {0x10, 0xb9, 0x60, 0x3a, 32};
    static const uint8_t tail[] = {0x40, 30, 0x48, 1, 0x55, 0x00, 0x00, 0x20, 0x40};
#define PUT(bytes) memcpy(expected + at, bytes, sizeof bytes), at += sizeof bytes
    PUT(head), memset(expected + at, 1, 32), at += 32;
    PUT(numbers), memset(expected + at, 2, 32), at += 32;
    PUT(update), memset(expected + at, 3, 32), at += 32;
    PUT(update_length), memset(expected + at, 4, 32), at += 32;
    PUT(tail);
#undef PUT
    assert_int_equal(buf.length, at);
    assert_memory_equal(buf.data, expected, at);
    ct_buf_deinit(&buf);
}

static void comes_back_and_survives_damage(void **state) {
    (void)state;
    struct ct_commit commit = example();
    struct ct_buf buf;
    ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &buf), CT_OK);
    struct ct_commit back;
    assert_int_equal(ct_commit_decode(ct_buf_bytes(&buf), &back), CT_OK);
    assert_memory_equal(back.state.bytes, commit.state.bytes, 32);
    assert_memory_equal(back.update.sha256.bytes, commit.update.sha256.bytes, 32);
    assert_int_equal(back.update.length, 12345);
    assert_int_equal(back.author, 3);
    assert_int_equal(back.skipped_steps, 1);
    assert_memory_equal(&back.loss, &commit.loss, sizeof back.loss);
    unsigned refused = mutate_check(decode_and_encode, ct_buf_bytes(&buf), 2, 1, 20000);
    assert_in_range(refused, 1000, 19999);
    ct_buf_deinit(&buf);
}

static void every_nan_is_one_nan(void **state) {
    (void)state;
    struct ct_commit commit = example();
    commit.loss = -NAN;
    struct ct_buf buf;
    ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &buf), CT_OK);
    static const uint8_t quiet[] = {0x55, 0x00, 0x00, 0xc0, 0x7f};
    assert_memory_equal(buf.data + buf.length - 5, quiet, 5);
    struct ct_commit back;
    assert_int_equal(ct_commit_decode(ct_buf_bytes(&buf), &back), CT_OK);
    assert_true(isnan(back.loss));
    buf.data[buf.length - 1] = 0xff;
    assert_int_equal(ct_commit_decode(ct_buf_bytes(&buf), &back), CT_ERR_FORMAT);
    ct_buf_deinit(&buf);
}

static void signed_zero_and_infinity_stay(void **state) {
    (void)state;
    const float values[] = {0.0f, -0.0f, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        struct ct_commit commit = example();
        commit.loss = values[i];
        struct ct_buf buf;
        ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
        assert_int_equal(ct_commit_encode(&commit, &buf), CT_OK);
        struct ct_commit back;
        assert_int_equal(ct_commit_decode(ct_buf_bytes(&buf), &back), CT_OK);
        assert_memory_equal(&back.loss, &values[i], sizeof back.loss);
        ct_buf_deinit(&buf);
    }
}

static void refused(struct ct_commit commit) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &buf), CT_ERR_FORMAT);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void numbers_out_of_range_are_refused(void **state) {
    (void)state;
    struct ct_commit commit = example();
    commit.version = 2;
    refused(commit);
    commit = example();
    commit.round = 0;
    refused(commit);
    commit = example();
    commit.author = 0;
    refused(commit);
    commit.author = CT_NODES_MAX + 1;
    refused(commit);
    commit = example();
    commit.steps = 0;
    commit.skipped_steps = 0;
    refused(commit);
    commit.steps = CT_STEPS_MAX + 1;
    refused(commit);
    commit = example();
    commit.skipped_steps = commit.steps + 1;
    refused(commit);
    commit = example();
    commit.update.length = 0;
    refused(commit);
    commit.update.length = CT_BLOB_BYTES_MAX + 1;
    refused(commit);
}

static void other_encodings_are_refused(void **state) {
    (void)state;
    struct ct_commit commit = example();
    struct ct_buf buf;
    ct_buf_init(&buf, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &buf), CT_OK);
    struct ct_commit back;
    uint8_t odd[512];
    /* version 1 as a varint of two bytes */
    memcpy(odd, (uint8_t[]){0x08, 0x81, 0x00}, 3);
    memcpy(odd + 3, buf.data + 2, buf.length - 2);
    struct ct_bytes bytes = {odd, buf.length + 1};
    assert_int_equal(ct_commit_decode(bytes, &back), CT_ERR_FORMAT);
    /* version at the end */
    memcpy(odd, buf.data + 2, buf.length - 2);
    memcpy(odd + buf.length - 2, buf.data, 2);
    bytes.length = buf.length;
    assert_int_equal(ct_commit_decode(bytes, &back), CT_ERR_FORMAT);
    /* a field nobody knows inside the update's reference, 37 bytes long at offset 74 */
    assert_int_equal(buf.data[74], 0x32);
    memcpy(odd, buf.data, 74 + 39);
    odd[75] = 39;
    memcpy(odd + 74 + 39, (uint8_t[]){0x78, 0x01}, 2);
    memcpy(odd + 74 + 41, buf.data + 74 + 39, buf.length - 74 - 39);
    bytes.length = buf.length + 2;
    assert_int_equal(ct_commit_decode(bytes, &back), CT_ERR_FORMAT);
    assert_non_null(strstr(ct_err_detail(), "unknown fields"));
    bytes.length = CT_STATEMENT_BYTES_MAX + 1;
    assert_int_equal(ct_commit_decode(bytes, &back), CT_ERR_TOO_LARGE);
    ct_buf_deinit(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoding_is_protobuf),
        cmocka_unit_test(comes_back_and_survives_damage),
        cmocka_unit_test(every_nan_is_one_nan),
        cmocka_unit_test(signed_zero_and_infinity_stay),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(other_encodings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
