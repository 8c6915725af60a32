#include <cotrain/buf.h>

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "scratch.h"

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static void assert_content(const char *path, const char *expected) {
    struct ct_buf buf;
    ct_buf_init(&buf, 100);
    assert_int_equal(ct_file_read(path, &buf), CT_OK);
    assert_int_equal(buf.length, strlen(expected));
    assert_memory_equal(buf.data, expected, buf.length);
    ct_buf_deinit(&buf);
}

static void reads_and_replaces_whole_files(void **state) {
    (void)state;
    const char *path = scratch_path("file");
    assert_int_equal(ct_file_replace(path, text_bytes("first")), CT_OK);
    assert_content(path, "first");
    assert_int_equal(ct_file_replace(path, text_bytes("2")), CT_OK);
    assert_content(path, "2");
    assert_int_not_equal(access(scratch_path("file.tmp"), F_OK), 0);
    struct ct_buf buf;
    ct_buf_init(&buf, 3);
    assert_int_equal(ct_buf_append(&buf, "ab", 2), CT_OK);
    assert_int_equal(ct_file_read(path, &buf), CT_OK);
    assert_memory_equal(buf.data, "ab2", 3);
    assert_int_equal(ct_file_read(path, &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(ct_file_read(scratch_path("missing"), &buf), CT_ERR_NOT_FOUND);
    assert_int_equal(buf.length, 3);
    ct_buf_clear(&buf);
    assert_int_equal(ct_file_read(scratch_dir, &buf), CT_ERR_IO);
    ct_buf_deinit(&buf);
}

/* Files whose size the system does not tell are held to the maximum as well. */
static void reads_files_without_a_size(void **state) {
    (void)state;
    struct ct_buf buf;
    ct_buf_init(&buf, 4096);
    assert_int_equal(ct_file_read("/proc/self/cmdline", &buf), CT_OK);
    assert_true(buf.length > 0);
    ct_buf_deinit(&buf);
    ct_buf_init(&buf, 100000);
    assert_int_equal(ct_file_read("/dev/zero", &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void a_link_left_as_temporary_is_not_followed(void **state) {
    (void)state;
    const char *victim = scratch_path("victim");
    assert_int_equal(ct_file_replace(victim, text_bytes("mine")), CT_OK);
    assert_int_equal(symlink(victim, scratch_path("target.tmp")), 0);
    assert_int_equal(ct_file_replace(scratch_path("target"), text_bytes("new")), CT_OK);
    assert_content(scratch_path("victim"), "mine");
    assert_content(scratch_path("target"), "new");
}

static void private_files_are_made_once(void **state) {
    (void)state;
    const char *path = scratch_path("private");
    assert_int_equal(ct_file_create_private(path, text_bytes("secret")), CT_OK);
    assert_int_equal(ct_file_create_private(path, text_bytes("other")), CT_ERR_EXISTS);
    assert_content(path, "secret");
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_nlink, 1);
    assert_int_equal(symlink("nowhere", scratch_path("dangling")), 0);
    assert_int_equal(ct_file_create_private(scratch_path("dangling"), text_bytes("x")),
                     CT_ERR_EXISTS);
}

static void makes_directories_with_their_parents(void **state) {
    (void)state;
    assert_int_equal(ct_dir_make(scratch_path("a//b/c/")), CT_OK);
    assert_int_equal(ct_dir_make(scratch_path("a/b/c")), CT_OK);
    assert_int_equal(ct_dir_make("/"), CT_OK);
    assert_int_equal(ct_file_replace(scratch_path("a/b/c/file"), text_bytes("x")), CT_OK);
    assert_int_equal(ct_dir_make(scratch_path("a/b/c/file")), CT_ERR_IO);
    assert_int_equal(ct_dir_make(scratch_path("a/b/c/file/d")), CT_ERR_IO);
    assert_int_equal(ct_dir_make(""), CT_ERR_IO);
    assert_int_equal(ct_file_replace(scratch_path("none/file"), text_bytes("x")), CT_ERR_NOT_FOUND);
    assert_int_equal(ct_dir_sync(scratch_path("none")), CT_ERR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_replaces_whole_files),
        cmocka_unit_test(reads_files_without_a_size),
        cmocka_unit_test(a_link_left_as_temporary_is_not_followed),
        cmocka_unit_test(private_files_are_made_once),
        cmocka_unit_test(makes_directories_with_their_parents),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
