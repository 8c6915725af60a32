/* The list of kept checkpoints: written from a directory, parsed from a stranger. */
#include "fixture.h"

#include "coordinator/kept_list.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct ct_bytes text_of(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static void names_become_a_list(void **state) {
    (void)state;
    char *dir = fixture_dir();
    char path[PATH_MAX];
    struct ct_buf list;
    ct_buf_init(&list, CT_KEPT_LIST_BYTES_MAX);
    const int fd = open(dir, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(ct_kept_list_write(fd, &list), CT_OK);
    assert_int_equal(list.length, 0);
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    static const char *const names[] = {"10", "9", "100000", "1", "10.tmp", "01", "x", "0"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/checkpoints/%s", dir, names[i]);
        assert_int_equal(ct_file_replace(path, text_of("note")), CT_OK);
    }
    assert_int_equal(ct_kept_list_write(fd, &list), CT_OK);
    static const char expected[] = "0\n1\n9\n10\n100000\n";
    assert_int_equal(list.length, sizeof expected - 1);
    assert_memory_equal(list.data, expected, list.length);
    uint64_t *sizes = NULL;
    size_t count = 0;
    assert_int_equal(ct_kept_list_parse(ct_buf_bytes(&list), &sizes, &count), CT_OK);
    static const uint64_t numbers[] = {0, 1, 9, 10, 100000};
    assert_int_equal(count, 5);
    assert_memory_equal(sizes, numbers, sizeof numbers);
    free(sizes);
    close(fd);
    ct_buf_deinit(&list);
    fixture_remove(dir);
    free(dir);
}

static void anything_else_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "1",
        "\n",
        "1\n1\n",
        "2\n1\n",
        "01\n",
        "-1\n",
        "1 \n",
        "1\r\n2",
        "<html>",
        "1\n\n2\n",
        "1\n2",
        "+1\n",
        "1234567890123456789\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint64_t *sizes = NULL;
        size_t count = 0;
        print_message("%s\n", texts[i]);
        assert_int_equal(ct_kept_list_parse(text_of(texts[i]), &sizes, &count), CT_ERR_FORMAT);
    }
    uint64_t *sizes = NULL;
    size_t count = 1;
    assert_int_equal(ct_kept_list_parse(text_of(""), &sizes, &count), CT_OK);
    assert_int_equal(count, 0);
    free(sizes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_a_list),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
