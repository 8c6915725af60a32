#include <cotrain/crypto.h>
#include <cotrain/dataset.h>

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char scratch[] = "/tmp/cotrain-test-dataset-XXXXXX";

static int make_scratch(void **state) {
    (void)state;
    return mkdtemp(scratch) == NULL;
}

static int remove_scratch(void **state) {
    (void)state;
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

static const char *in_scratch(const char *name) {
    static char paths[32][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 32];
    snprintf(path, PATH_MAX, "%s/%s", scratch, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Two files of 1,000 and 37 bytes; shards of at most 300 tokens. */
static struct ct_dataset_recipe make_recipe(const char *const *paths) {
    return (struct ct_dataset_recipe){
        .name = "sample",
        .license = "CC0-1.0",
        .source = "written by the test",
        .paths = paths,
        .path_count = 2,
        .heldout_percent = 10,
        .shard_tokens = 300,
    };
}

static uint8_t text_a[1000], text_b[37];

static void build_sample(const char *dir) {
    for (size_t i = 0; i < sizeof text_a; i++) {
        text_a[i] = (uint8_t)(i * 7);
    }
    for (size_t i = 0; i < sizeof text_b; i++) {
        text_b[i] = (uint8_t)(i + 200);
    }
    write_file(in_scratch("a.txt"), text_a, sizeof text_a);
    write_file(in_scratch("b.txt"), text_b, sizeof text_b);
    const char *paths[] = {in_scratch("a.txt"), in_scratch("b.txt")};
    struct ct_dataset_recipe recipe = make_recipe(paths);
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_OK);
}

static void splits_hold_the_files_in_order(void **state) {
    (void)state;
    const char *dir = in_scratch("set");
    build_sample(dir);
    struct ct_dataset dataset;
    struct ct_corpus train, heldout;
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, &dataset, &train), CT_OK);
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_HELDOUT, NULL, &heldout), CT_OK);
    assert_string_equal(dataset.name, "sample");
    assert_string_equal(dataset.license, "CC0-1.0");
    assert_int_equal(dataset.vocab, 256);
    /* 900 = 3 · 300 and 100 of a; 34 and 3 of b */
    assert_int_equal(dataset.shard_count, 6);
    assert_int_equal(train.count, 900 + 34);
    assert_int_equal(heldout.count, 100 + 3);
    assert_int_equal(ct_dataset_tokens(&dataset, CT_SPLIT_TRAIN), train.count);
    assert_int_equal(ct_dataset_tokens(&dataset, CT_SPLIT_HELDOUT), heldout.count);
    for (size_t i = 0; i < 900; i++) {
        assert_int_equal(train.tokens[i], text_a[i]);
    }
    for (size_t i = 0; i < 34; i++) {
        assert_int_equal(train.tokens[900 + i], text_b[i]);
    }
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(heldout.tokens[i], text_a[900 + i]);
    }
    assert_int_equal(heldout.tokens[102], text_b[36]);
    ct_corpus_deinit(&train);
    ct_corpus_deinit(&heldout);
    ct_dataset_deinit(&dataset);
}

static void read_all(const char *path, struct ct_buf *out) {
    ct_buf_init(out, 1 << 20);
    assert_int_equal(ct_file_read(path, out), CT_OK);
}

static void building_twice_gives_the_same_bytes(void **state) {
    (void)state;
    build_sample(in_scratch("set"));
    build_sample(in_scratch("again"));
    struct ct_buf a, b;
    read_all(in_scratch("set/dataset.json"), &a);
    read_all(in_scratch("again/dataset.json"), &b);
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.data, b.data, a.length);
    ct_buf_deinit(&a);
    ct_buf_deinit(&b);
}

static void a_changed_shard_is_found(void **state) {
    (void)state;
    const char *dir = in_scratch("broken");
    build_sample(dir);
    struct ct_dataset dataset;
    struct ct_corpus corpus;
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, &dataset, &corpus), CT_OK);
    ct_corpus_deinit(&corpus);
    char path[PATH_MAX];
    assert_int_equal(ct_shard_in_dir((void *)(uintptr_t)dir, &dataset.shards[1], path), CT_OK);
    struct ct_buf shard;
    read_all(path, &shard);
    shard.data[17] ^= 1;
    write_file(path, shard.data, shard.length);
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, NULL, &corpus), CT_ERR_DIGEST);
    assert_non_null(strstr(ct_err_detail(), path));
    shard.data[17] ^= 1;
    write_file(path, shard.data, shard.length - 2);
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, NULL, &corpus), CT_ERR_DIGEST);
    write_file(path, shard.data, shard.length);
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    fputc(0, file);
    fclose(file);
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, NULL, &corpus), CT_ERR_DIGEST);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ct_corpus_load_dir(dir, CT_SPLIT_TRAIN, NULL, &corpus), CT_ERR_NOT_FOUND);
    ct_buf_deinit(&shard);
    ct_dataset_deinit(&dataset);
}

/* A shard whose digest is right and whose token 1 is 256. */
static void tokens_outside_the_vocabulary_are_refused(void **state) {
    (void)state;
    const uint8_t tokens[] = {255, 0, 0, 1};
    struct ct_hash digest = ct_sha256((struct ct_bytes){tokens, sizeof tokens});
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&digest, hex);
    assert_int_equal(ct_dir_make(in_scratch("vocab")), CT_OK);
    char name[128];
    snprintf(name, sizeof name, "vocab/%s.tokens", hex);
    write_file(in_scratch(name), tokens, sizeof tokens);
    char json[1024];
    snprintf(
        json, sizeof json,
        "{\"format\":\"cotrain-dataset-1\",\"name\":\"n\",\"license\":\"MIT\",\"source\":\"s\","
        "\"processing\":\"\",\"tokenizer\":{\"kind\":\"bytes\",\"vocab\":256},\"shards\":[{"
        "\"split\":\"train\",\"sha256\":\"%s\",\"bytes\":4,\"tokens\":2,\"source\":\"\","
        "\"license\":\"MIT\"}]}",
        hex);
    write_file(in_scratch("vocab/dataset.json"), json, strlen(json));
    struct ct_corpus corpus;
    assert_int_equal(ct_corpus_load_dir(in_scratch("vocab"), CT_SPLIT_TRAIN, NULL, &corpus),
                     CT_ERR_FORMAT);
    assert_non_null(strstr(ct_err_detail(), "token 1 is 256"));
    assert_int_equal(ct_corpus_load_dir(in_scratch("vocab"), CT_SPLIT_HELDOUT, NULL, &corpus),
                     CT_ERR_NOT_FOUND);
}

static enum ct_err parse(const char *text) {
    struct ct_dataset dataset;
    enum ct_err err =
        ct_dataset_parse((struct ct_bytes){(const uint8_t *)text, strlen(text)}, &dataset);
    if (err == CT_OK) {
        ct_dataset_deinit(&dataset);
    }
    return err;
}

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define GOOD                                                                                       \
    "{\"format\":\"cotrain-dataset-1\",\"name\":\"n\",\"license\":\"MIT OR CC0-1.0\","             \
    "\"source\":\"s\",\"processing\":\"\",\"tokenizer\":{\"kind\":\"bytes\",\"vocab\":256},"       \
    "\"shards\":[{\"split\":\"train\",\"sha256\":\"" SHA "\",\"bytes\":4,\"tokens\":2,"            \
    "\"source\":\"\",\"license\":\"MIT\"}]}"

/* GOOD with the first `from` replaced by `to`. */
static enum ct_err parse_changed(const char *from, const char *to) {
    char text[2048];
    const char *at = strstr(GOOD, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
    return parse(text);
}

static void malformed_sheets_are_refused(void **state) {
    (void)state;
    assert_int_equal(parse(GOOD), CT_OK);
    static const struct {
        const char *from, *to;
        enum ct_err err;
    } cases[] = {
        {"cotrain-dataset-1", "cotrain-dataset-2", CT_ERR_UNSUPPORTED},
        {"\"name\":\"n\",", "", CT_ERR_FORMAT},
        {"\"name\":\"n\"", "\"name\":\"\"", CT_ERR_FORMAT},
        {"\"name\":\"n\"", "\"name\":7", CT_ERR_FORMAT},
        {"\"name\":\"n\"", "\"name\":\"\\u001b[2J\"", CT_ERR_FORMAT},
        {"\"name\":\"n\"", "\"name\":\"n\",\"name\":\"m\"", CT_ERR_FORMAT},
        {"\"name\":\"n\"", "\"name\":\"n\",\"extra\":1", CT_ERR_FORMAT},
        {"MIT OR CC0-1.0", "", CT_ERR_FORMAT},
        {"MIT OR CC0-1.0", "Public Domain", CT_ERR_FORMAT},
        {"\"source\":\"s\"", "\"source\":\"\"", CT_ERR_FORMAT},
        {"\"vocab\":256", "\"vocab\":257", CT_ERR_UNSUPPORTED},
        {"\"vocab\":256", "\"vocab\":256,\"x\":0", CT_ERR_FORMAT},
        {"\"train\"", "\"test\"", CT_ERR_FORMAT},
        {SHA, "0123", CT_ERR_FORMAT},
        {"\"bytes\":4", "\"bytes\":5", CT_ERR_FORMAT},
        {"\"bytes\":4", "\"bytes\":-4", CT_ERR_FORMAT},
        {"\"bytes\":4,\"tokens\":2", "\"bytes\":0,\"tokens\":0", CT_ERR_FORMAT},
        {"\"tokens\":2", "\"tokens\":9223372036854775807", CT_ERR_FORMAT},
        {"\"tokens\":2", "\"tokens\":2.0", CT_ERR_FORMAT},
        {"\"shards\":[", "\"shards\":[1,", CT_ERR_FORMAT},
        {"\"license\":\"MIT\"}", "\"license\":\"\"}", CT_ERR_FORMAT},
        {"]}", "]} x", CT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum ct_err err = parse_changed(cases[i].from, cases[i].to);
        if (err != cases[i].err) {
            fail_msg("%s -> %s gave %d: %s", cases[i].from, cases[i].to, (int)err, ct_err_detail());
        }
    }
    for (size_t length = 0; length < strlen(GOOD); length++) {
        struct ct_dataset dataset;
        assert_int_equal(
            ct_dataset_parse((struct ct_bytes){(const uint8_t *)GOOD, length}, &dataset),
            CT_ERR_FORMAT);
    }
}

static void recipes_without_licence_or_source_are_refused(void **state) {
    (void)state;
    build_sample(in_scratch("set"));
    write_file(in_scratch("empty.txt"), "", 0);
    const char *paths[] = {in_scratch("a.txt"), in_scratch("empty.txt")};
    const char *dir = in_scratch("none");
    struct ct_dataset_recipe recipe = make_recipe(paths);
    recipe.license = NULL;
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_CONFIG);
    recipe.license = "Public Domain";
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_CONFIG);
    recipe = make_recipe(paths);
    recipe.source = "";
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_CONFIG);
    recipe = make_recipe(paths);
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_CONFIG);
    assert_non_null(strstr(ct_err_detail(), "empty.txt"));
    recipe.heldout_percent = 91;
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_CONFIG);
    paths[1] = in_scratch("missing.txt");
    recipe = make_recipe(paths);
    assert_int_equal(ct_dataset_build(&recipe, dir), CT_ERR_NOT_FOUND);
    char sheet[PATH_MAX];
    snprintf(sheet, sizeof sheet, "%s/dataset.json", dir);
    assert_int_not_equal(access(sheet, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_hold_the_files_in_order),
        cmocka_unit_test(building_twice_gives_the_same_bytes),
        cmocka_unit_test(a_changed_shard_is_found),
        cmocka_unit_test(tokens_outside_the_vocabulary_are_refused),
        cmocka_unit_test(malformed_sheets_are_refused),
        cmocka_unit_test(recipes_without_licence_or_source_are_refused),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
