/* Servers that lie to an audit: whatever they send, it ends, with a finding or an error, within
 * what it may store. */
#include "fixture.h"
#include "http_files.h"

#include "node/audit.h"

#include <cotrain/merkle.h>
#include <cotrain/note.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#define ORIGIN "example.org/liar"

struct liar {
    char dir[64];
    struct http_files server;
    struct ct_key *key;
};

static void put(const struct liar *liar, const char *name, const void *data, size_t length) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", liar->dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, length, file), length);
    fclose(file);
}

static void sign(const struct liar *liar, uint64_t size) {
    struct ct_checkpoint checkpoint = {.origin = ORIGIN, .size = size};
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, liar->key, &note), CT_OK);
    put(liar, "checkpoint", note.data, note.length);
    ct_buf_deinit(&note);
}

static int start(void **state) {
    struct liar *liar = calloc(1, sizeof *liar);
    assert_non_null(liar);
    strcpy(liar->dir, "/tmp/cotrain-liar-XXXXXX");
    assert_non_null(mkdtemp(liar->dir));
    char path[256];
    snprintf(path, sizeof path, "%s/tile", liar->dir);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/tile/entries", liar->dir);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(ct_key_generate(&liar->key), CT_OK);
    assert_int_equal(http_files_start(&liar->server, liar->dir, NULL), 0);
    *state = liar;
    return 0;
}

static int stop(void **state) {
    struct liar *liar = *state;
    char command[128];
    http_files_stop(&liar->server);
    snprintf(command, sizeof command, "rm -rf %s", liar->dir);
    assert_int_equal(system(command), 0);
    ct_key_free(liar->key);
    free(liar);
    return 0;
}

static enum ct_err audit(const struct liar *liar, uint64_t budget, struct ct_audit_report *out) {
    const struct ct_source_options options = {.where = liar->server.url, .budget_bytes = budget};
    const struct ct_audit_options how = {.replay = true, .threads = 2};
    struct ct_source *source = NULL;
    assert_int_equal(ct_source_open(&options, &source), CT_OK);
    const enum ct_err err = ct_audit_run(source, &how, out);
    ct_source_close(source);
    return err;
}

/* It fails, by a finding or by an error. */
static void expect_nothing(const struct liar *liar, uint64_t budget) {
    struct ct_audit_report *report = calloc(1, sizeof *report);
    assert_non_null(report);
    if (audit(liar, budget, report) == CT_OK) {
        assert_true(report->finding_count > 0);
        assert_int_equal(report->entries, 0);
    }
    ct_audit_report_deinit(report);
    free(report);
}

static void sizes_that_nothing_backs(void **state) {
    const struct liar *liar = *state;
    static const uint64_t sizes[] = {0, 1, 255, 256, 1000000000000ull, UINT64_MAX / 2, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sign(liar, sizes[i]);
        expect_nothing(liar, 1u << 20);
    }
}

static void checkpoints_that_are_none(void **state) {
    const struct liar *liar = *state;
    static const char *const notes[] = {"", "\n\n\n", "example.org/liar\n", "a\n1\nb\n\n— a b\n"};
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        put(liar, "checkpoint", notes[i], strlen(notes[i]));
        expect_nothing(liar, 1u << 20);
    }
    char *large = malloc(1u << 20);
    assert_non_null(large);
    memset(large, 'x', 1u << 20);
    put(liar, "checkpoint", large, 1u << 20);
    expect_nothing(liar, 1u << 20);
    free(large);
}

/* Bundles of the right form whose entries are nothing, many of them, the largest that there can be:
 * no more is stored than allowed, and memory stays below what eight of them take. */
static void endless_entries(void **state) {
    const struct liar *liar = *state;
    const size_t length = 256u * (2 + 65535u);
    uint8_t *bundle = calloc(1, length);
    assert_non_null(bundle);
    for (uint32_t i = 0; i < 256; i++) {
        bundle[i * 65537u] = 0xff;
        bundle[i * 65537u + 1] = 0xff;
    }
    sign(liar, 256 * 900);
    for (uint32_t i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "tile/entries/%03u", i);
        put(liar, name, bundle, length);
    }
    struct ct_audit_report *report = calloc(1, sizeof *report);
    assert_non_null(report);
    assert_int_equal(audit(liar, 20u << 20, report), CT_ERR_TOO_LARGE);
    assert_non_null(strstr(ct_err_detail(), "--disk"));
    ct_audit_report_deinit(report);
    free(report);
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss < 400 * 1024);
    /* Entries of no length: more in memory than sent, if they were taken. */
    memset(bundle, 0, 512);
    put(liar, "tile/entries/000", bundle, 512);
    expect_nothing(liar, 40u << 20);
    free(bundle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sizes_that_nothing_backs, start, stop),
        cmocka_unit_test_setup_teardown(checkpoints_that_are_none, start, stop),
        cmocka_unit_test_setup_teardown(endless_entries, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
