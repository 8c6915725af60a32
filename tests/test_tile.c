#include "fixture.h"

#include <cotrain/ledger.h>

#include <jansson.h>

static void assert_path(int level, uint64_t index, uint32_t width, const char *expected) {
    char path[CT_TILE_PATH_MAX];
    ct_tile_path(level, index, width, path);
    assert_string_equal(path, expected);
}

static void paths_as_the_specification_has_them(void **state) {
    (void)state;
    assert_path(0, 0, 256, "tile/0/000");
    assert_path(0, 1234067, 256, "tile/0/x001/x234/067");
    assert_path(0, 273, 112, "tile/0/273.p/112");
    assert_path(1, 1, 17, "tile/1/001.p/17");
    assert_path(2, 0, 1, "tile/2/000.p/1");
    assert_path(-1, 0, 5, "tile/entries/000.p/5");
    assert_path(-1, 1000, 256, "tile/entries/x001/000");
    assert_path(-1, 999, 255, "tile/entries/999.p/255");
    assert_path(63, UINT64_MAX, 255, "tile/63/x018/x446/x744/x073/x709/x551/615.p/255");
}

static void specified_path_example(void **state) {
    (void)state;
    char file[PATH_MAX];
    json_t *examples = json_load_file(fixture_vector("notes/c2sp-examples.json", file), 0, NULL);
    json_t *example = json_object_get(examples, "tile_path");
    char path[CT_TILE_PATH_MAX];
    ct_tile_path(5, (uint64_t)json_integer_value(json_object_get(example, "index")), 256, path);
    assert_string_equal(path + strlen("tile/5/"),
                        json_string_value(json_object_get(example, "path")));
    json_decref(examples);
}

struct seen {
    uint32_t count;
    size_t bytes;
};

static enum ct_err see(void *user, struct ct_bytes entry) {
    struct seen *seen = user;
    seen->count++;
    seen->bytes += entry.length;
    return seen->count == 3 && entry.length == 1 ? CT_ERR_RULE : CT_OK;
}

static void bundles_hold_exactly_their_entries(void **state) {
    (void)state;
    const uint8_t bundle[] = {0, 3, 'o', 'n', 'e', 0, 0, 0, 2, 'b', 'c'};
    struct seen seen = {0, 0};
    struct ct_bytes whole = {bundle, sizeof bundle};
    assert_int_equal(ct_bundle_parse(whole, 3, see, &seen), CT_OK);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.bytes, 5);
    assert_int_equal(ct_bundle_parse(whole, 2, see, &seen), CT_ERR_FORMAT);
    assert_int_equal(ct_bundle_parse(whole, 4, see, &seen), CT_ERR_FORMAT);
    for (size_t length = 0; length < sizeof bundle; length++) {
        /* A copy of just that size, so that a sanitizer sees a read behind the end. */
        uint8_t *cut = malloc(length + 1);
        assert_non_null(cut);
        memcpy(cut, bundle, length);
        assert_int_equal(ct_bundle_parse((struct ct_bytes){cut, length}, 3, see, &seen),
                         CT_ERR_FORMAT);
        free(cut);
    }
    const uint8_t refused[] = {0, 1, 'a', 0, 1, 'b', 0, 1, 'c'};
    seen = (struct seen){0, 0};
    assert_int_equal(ct_bundle_parse((struct ct_bytes){refused, sizeof refused}, 3, see, &seen),
                     CT_ERR_RULE);
    assert_int_equal(ct_bundle_parse((struct ct_bytes){NULL, 0}, 0, see, &seen), CT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_as_the_specification_has_them),
        cmocka_unit_test(specified_path_example),
        cmocka_unit_test(bundles_hold_exactly_their_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
