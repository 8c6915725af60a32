#include <cotrain/buf.h>
#include <cotrain/log.h>

#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "scratch.h"

static char *read_log(const char *path, struct ct_buf *buf) {
    ct_buf_init(buf, 1 << 20);
    assert_int_equal(ct_file_read(path, buf), CT_OK);
    assert_int_equal(ct_buf_append(buf, "", 1), CT_OK);
    return (char *)buf->data;
}

static void a_line_has_time_level_module_text(void **state) {
    (void)state;
    const char *path = scratch_path("plain.log");
    ct_log_to(path);
    errno = EDOM;
    ct_log(CT_LOG_DEBUG, "hidden", "below the level");
    ct_log(CT_LOG_WARN, "round", "node %d is %s", 3, "late");
    assert_int_equal(errno, EDOM);
    ct_log_to(NULL);
    struct ct_buf buf;
    const char *text = read_log(path, &buf);
    regex_t line;
    assert_int_equal(regcomp(&line,
                             "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
                             "warn round node 3 is late\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regexec(&line, text, 0, NULL, 0), 0);
    regfree(&line);
    ct_buf_deinit(&buf);
}

static void text_of_others_makes_no_lines_and_no_colours(void **state) {
    (void)state;
    const char *path = scratch_path("hostile.log");
    ct_log_to(path);
    ct_log(CT_LOG_INFO, "link", "said %s", "a\nb\x1b[2J \xff \xc2\x9b gr\xc3\xbcn");
    char large[3000];
    memset(large, 'y', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    ct_log(CT_LOG_INFO, "link", "%s", large);
    ct_log_to(NULL);
    struct ct_buf buf;
    char *text = read_log(path, &buf);
    char *end = strchr(text, '\n');
    assert_non_null(end);
    *end = '\0';
    assert_non_null(strstr(text, " info link said a?b?[2J ? ?? gr\xc3\xbcn"));
    char *second = end + 1;
    assert_int_equal(strlen(second), 1024);
    assert_ptr_equal(strchr(second, '\n'), second + 1023);
    ct_buf_deinit(&buf);
}

static void *write_lines(void *argument) {
    for (unsigned i = 0; i < 500; i++) {
        ct_log(CT_LOG_INFO, "thread", "%s", (const char *)argument);
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state) {
    (void)state;
    const char *path = scratch_path("threads.log");
    ct_log_to(path);
    static char texts[4][64];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        memset(texts[i], (int)('a' + i), 40);
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, texts[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    ct_log_to(NULL);
    struct ct_buf buf;
    char *line = read_log(path, &buf);
    unsigned lines = 0;
    for (char *end = strchr(line, '\n'); end != NULL; end = strchr(line, '\n')) {
        *end = '\0';
        const char *tail = strstr(line, "info thread ");
        assert_non_null(tail);
        assert_int_equal(strspn(tail + 12, (char[]){tail[12], '\0'}), 40);
        assert_int_equal(strlen(tail + 12), 40);
        lines++;
        line = end + 1;
    }
    assert_int_equal(lines, 2000);
    ct_buf_deinit(&buf);
}

int main(void) {
    unsetenv("COTRAIN_LOG");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_module_text),
        cmocka_unit_test(text_of_others_makes_no_lines_and_no_colours),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
