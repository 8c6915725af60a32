#include "fixture.h"

#include <cotrain/blob.h>
#include <cotrain/disk.h>

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static int store_open(void **state) {
    char *dir = fixture_dir();
    struct ct_blobs *blobs = calloc(1, sizeof *blobs);
    assert_non_null(blobs);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/a/blobs", dir);
    assert_int_equal(ct_blobs_init(blobs, path), CT_OK);
    free(dir);
    *state = blobs;
    return 0;
}

static int store_close(void **state) {
    struct ct_blobs *blobs = *state;
    blobs->dir[strlen(blobs->dir) - strlen("/a/blobs")] = '\0';
    fixture_remove(blobs->dir);
    free(blobs);
    return 0;
}

static void put_and_get(void **state) {
    const struct ct_blobs *blobs = *state;
    struct ct_blob_ref ref;
    struct ct_buf out;
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
    assert_int_equal(ref.length, 3);
    char path[4096];
    char expected[PATH_MAX];
    ct_blobs_path(blobs, &ref.sha256, path);
    snprintf(expected, sizeof expected, "%.3000s/%.2s/%s", blobs->dir, ABC, &ABC[2]);
    assert_string_equal(path, expected);
    assert_int_equal(access(path, R_OK), 0);
    assert_true(ct_blobs_have(blobs, &ref));
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
    assert_int_equal(ct_blobs_get(blobs, &ref, 3, &out), CT_OK);
    assert_int_equal(out.length, 3);
    assert_memory_equal(out.data, "abc", 3);
    ct_buf_deinit(&out);
    assert_int_equal(ct_blobs_get(blobs, &ref, 2, &out), CT_ERR_TOO_LARGE);

    assert_int_equal(ct_blobs_put(blobs, text_bytes(""), &ref), CT_OK);
    assert_int_equal(ct_blobs_source(*state, &ref, 0, &out), CT_OK);
    assert_int_equal(out.length, 0);
    ct_buf_deinit(&out);

    ref.sha256.bytes[5] ^= 1;
    assert_false(ct_blobs_have(blobs, &ref));
    assert_int_equal(ct_blobs_get(blobs, &ref, 3, &out), CT_ERR_NOT_FOUND);
}

static void wrong_bytes_are_never_returned(void **state) {
    const struct ct_blobs *blobs = *state;
    struct ct_blob_ref ref;
    struct ct_buf out;
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
    char path[4096];
    ct_blobs_path(blobs, &ref.sha256, path);
    static const char *const damaged[] = {"abd", "ab", "abcd", ""};
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        fixture_write(path, damaged[i], strlen(damaged[i]));
        assert_int_equal(ct_blobs_get(blobs, &ref, 100, &out), CT_ERR_DIGEST);
        assert_int_equal(ct_blobs_have(blobs, &ref), strlen(damaged[i]) == 3);
        /* Storing it again heals it. */
        assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
        assert_int_equal(ct_blobs_get(blobs, &ref, 100, &out), CT_OK);
        ct_buf_deinit(&out);
    }
    struct ct_blob_ref longer = {ref.sha256, 4};
    struct ct_blob_ref shorter = {ref.sha256, 2};
    assert_int_equal(ct_blobs_get(blobs, &longer, 100, &out), CT_ERR_DIGEST);
    assert_int_equal(ct_blobs_get(blobs, &shorter, 100, &out), CT_ERR_DIGEST);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_not_equal(ct_blobs_get(blobs, &ref, 100, &out), CT_OK);
    assert_false(ct_blobs_have(blobs, &ref));
}

static void import_streams_a_file(void **state) {
    const struct ct_blobs *blobs = *state;
    size_t length = (1u << 20) + 17;
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)(i * 131 >> 3);
    }
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.3000s/../file", blobs->dir);
    fixture_write(path, bytes, length);
    struct ct_blob_ref ref;
    struct ct_hash expected = ct_sha256((struct ct_bytes){bytes, length});
    for (int round = 0; round < 2; round++) {
        assert_int_equal(ct_blobs_import(blobs, path, &ref), CT_OK);
        assert_int_equal(ref.length, length);
        assert_memory_equal(&ref.sha256, &expected, sizeof expected);
    }
    struct ct_buf out;
    assert_int_equal(ct_blobs_get(blobs, &ref, length, &out), CT_OK);
    assert_memory_equal(out.data, bytes, length);
    ct_buf_deinit(&out);
    free(bytes);
    assert_int_equal(ct_blobs_import(blobs, "/nonexistent/file", &ref), CT_ERR_NOT_FOUND);
}

/* What the disk is told, in its order; everything from operation `fail_at` on fails. */
struct journal {
    int count, fail_at;
    bool tear;
    char text[256];
};

static enum ct_disk_verdict record(void *user, const struct ct_disk_step *step) {
    static const char letters[] = {
        [CT_DISK_MAKE] = 'm',     [CT_DISK_WRITE] = 'w',  [CT_DISK_SYNC] = 's',
        [CT_DISK_CUT] = 'c',      [CT_DISK_RENAME] = 'r', [CT_DISK_MAKE_DIR] = 'M',
        [CT_DISK_SYNC_DIR] = 'S', [CT_DISK_REMOVE] = 'x', [CT_DISK_LINK] = 'l'};
    struct journal *journal = user;
    journal->text[journal->count] = letters[step->op];
    journal->count++;
    if (journal->count <= journal->fail_at) {
        return CT_DISK_GO;
    }
    return journal->tear ? CT_DISK_TEAR : CT_DISK_FAIL;
}

static void durable_before_it_has_a_name(void **state) {
    const struct ct_blobs *blobs = *state;
    struct journal journal = {.fail_at = 100};
    struct ct_blob_ref ref;
    ct_disk_watch(record, &journal);
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
    ct_disk_watch(NULL, NULL);
    /* File made, written, synced; folder; name; folder and store synced. */
    assert_string_equal(journal.text, "mwsMrSS");
}

static void every_operation_may_fail(void **state) {
    const struct ct_blobs *blobs = *state;
    struct ct_blob_ref ref = {{{0}}, 77};
    struct ct_blob_ref wanted = {ct_sha256(text_bytes("abc")), 3};
    struct ct_buf out;
    for (int tear = 0; tear < 2; tear++) {
        for (int n = 0; n < 7; n++) {
            struct journal journal = {.fail_at = n, .tear = tear != 0};
            ct_disk_watch(record, &journal);
            assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_ERR_IO);
            ct_disk_watch(NULL, NULL);
            assert_int_equal(ref.length, 77);
            enum ct_err err = ct_blobs_get(blobs, &wanted, 3, &out);
            if (err == CT_OK) {
                assert_memory_equal(out.data, "abc", 3);
                ct_buf_deinit(&out);
                assert_true(n >= 5); /* renamed, not yet known to be durable */
            } else {
                assert_int_equal(err, CT_ERR_NOT_FOUND);
            }
            char path[4096];
            ct_blobs_path(blobs, &wanted.sha256, path);
            unlink(path);
            *strrchr(path, '/') = '\0';
            rmdir(path);
        }
    }
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
}

static void sweep_removes_what_a_crash_left(void **state) {
    const struct ct_blobs *blobs = *state;
    struct ct_blob_ref ref;
    assert_int_equal(ct_blobs_put(blobs, text_bytes("abc"), &ref), CT_OK);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.3000s/" CT_BLOB_TEMPORARY "1-2", blobs->dir);
    fixture_write(path, "half", 4);
    assert_int_equal(ct_blobs_sweep(blobs), CT_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_true(ct_blobs_have(blobs, &ref));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(put_and_get, store_open, store_close),
        cmocka_unit_test_setup_teardown(wrong_bytes_are_never_returned, store_open, store_close),
        cmocka_unit_test_setup_teardown(import_streams_a_file, store_open, store_close),
        cmocka_unit_test_setup_teardown(durable_before_it_has_a_name, store_open, store_close),
        cmocka_unit_test_setup_teardown(every_operation_may_fail, store_open, store_close),
        cmocka_unit_test_setup_teardown(sweep_removes_what_a_crash_left, store_open, store_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
