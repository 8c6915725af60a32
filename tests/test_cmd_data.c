#include "node/commands.h"

#include <cotrain/command.h>
#include <cotrain/dataset.h>

#include "fixture.h"

#include <getopt.h>

static char *dir;
static char text_path[PATH_MAX], set_path[PATH_MAX];

static int setup(void **state) {
    (void)state;
    dir = fixture_dir();
    snprintf(text_path, sizeof text_path, "%s/text", dir);
    snprintf(set_path, sizeof set_path, "%s/set", dir);
    fixture_write(text_path, "The quick brown fox jumps over the lazy dog.", 44);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* The command's exit status; arguments end with NULL. */
static int run(const char *first, ...) {
    char *argv[24] = {strdup("data"), strdup(first)};
    int argc = 2;
    va_list arguments;
    va_start(arguments, first);
    for (const char *next; (next = va_arg(arguments, const char *)) != NULL && argc < 23;) {
        argv[argc++] = strdup(next);
    }
    va_end(arguments);
    char *owned[24];
    memcpy(owned, argv, sizeof owned); /* getopt_long reorders argv */
    optind = 0;
    int status = ct_cmd_data(argc, argv);
    for (int i = 0; i < argc; i++) {
        free(owned[i]);
    }
    return status;
}

static void build_then_show(void **state) {
    (void)state;
    assert_int_equal(run("build", "--name", "fox", "--license", "CC0-1.0", "--source", "a pangram",
                         "--heldout", "25", set_path, text_path, NULL),
                     CT_EXIT_DONE);
    struct ct_dataset dataset;
    struct ct_corpus corpus;
    assert_int_equal(ct_corpus_load_dir(set_path, CT_SPLIT_HELDOUT, &dataset, &corpus), CT_OK);
    assert_int_equal(corpus.count, 11);
    assert_int_equal(corpus.tokens[10], '.');
    assert_string_equal(dataset.source, "a pangram");
    assert_int_equal(run("show", set_path, NULL), CT_EXIT_DONE);
    assert_int_equal(run("show", set_path, "--json", NULL), CT_EXIT_DONE);

    char shard[PATH_MAX];
    assert_int_equal(ct_shard_in_dir(set_path, &dataset.shards[1], shard), CT_OK);
    fixture_write(shard, "x", 1);
    assert_int_equal(run("show", set_path, NULL), CT_EXIT_FAILED);
    assert_int_equal(unlink(shard), 0);
    assert_int_equal(run("show", set_path, NULL), CT_EXIT_FAILED);
    ct_corpus_deinit(&corpus);
    ct_dataset_deinit(&dataset);
}

static void wrong_usage_and_failures(void **state) {
    (void)state;
    assert_int_equal(run("--help", NULL), CT_EXIT_DONE);
    assert_int_equal(run("burn", NULL), CT_EXIT_USAGE);
    assert_int_equal(run("show", NULL), CT_EXIT_USAGE);
    assert_int_equal(run("show", "--loud", set_path, NULL), CT_EXIT_USAGE);
    char none[PATH_MAX];
    snprintf(none, sizeof none, "%s/none", dir);
    assert_int_equal(run("show", none, NULL), CT_EXIT_FAILED);
    assert_int_equal(run("build", "--name", "n", "--source", "s", none, text_path, NULL),
                     CT_EXIT_USAGE);
    assert_int_equal(run("build", "--name", "n", "--license", "MIT", none, text_path, NULL),
                     CT_EXIT_USAGE);
    assert_int_equal(run("build", "--name", "n", "--license", "MIT", "--source", "s", none, NULL),
                     CT_EXIT_USAGE);
    assert_int_equal(run("build", "--name", "n", "--license", "MIT", "--source", "s", "--heldout",
                         "1x", none, text_path, NULL),
                     CT_EXIT_USAGE);
    assert_int_equal(run("build", "--name", "n", "--license", "for free", "--source", "s", none,
                         text_path, NULL),
                     CT_EXIT_FAILED);
    assert_int_not_equal(access(none, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(build_then_show),
        cmocka_unit_test(wrong_usage_and_failures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
