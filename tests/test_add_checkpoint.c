#include "fixture.h"
#include "mutate.h"

#include <cotrain/add_checkpoint.h>

#include <jansson.h>

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

static enum ct_err round_trip(struct ct_bytes body) {
    struct ct_add_checkpoint request;
    CT_TRY(ct_add_checkpoint_parse(body, &request));
    struct ct_buf again;
    ct_buf_init(&again, CT_ADD_CHECKPOINT_BYTES_MAX);
    assert_int_equal(
        ct_add_checkpoint_format(request.old_size, &request.proof, request.note, &again), CT_OK);
    assert_int_equal(again.length, body.length);
    assert_memory_equal(again.data, body.data, body.length);
    ct_buf_deinit(&again);
    return CT_OK;
}

static void foreign_requests_are_read_and_written_alike(void **state) {
    (void)state;
    char path[PATH_MAX];
    json_t *file = json_load_file(fixture_vector("witness/add-checkpoint.json", path), 0, NULL);
    assert_non_null(file);
    json_t *requests = json_object_get(file, "requests");
    assert_int_equal(json_array_size(requests), 9);
    size_t i;
    json_t *request;
    json_array_foreach(requests, i, request) {
        struct ct_bytes body = text_bytes(json_string_value(json_object_get(request, "body")));
        assert_int_equal(round_trip(body), CT_OK);
        uint64_t seed = i;
        for (int round = 0; round < 2000; round++) {
            size_t length;
            uint8_t *damaged = mutate(&seed, body.data, body.length, &length);
            (void)!round_trip((struct ct_bytes){damaged, length});
            free(damaged);
        }
    }
    json_decref(file);
    static const char *const own[] = {"log3k.old0", "log3k.oldm", "log3k.fork"};
    for (i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "selfmade/log3001/%s", own[i]);
        struct ct_buf body = fixture_read(fixture_vector(name, path));
        assert_int_equal(round_trip(ct_buf_bytes(&body)), CT_OK);
        ct_buf_deinit(&body);
    }
}

#define HASH "10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJLs=\n"

static void what_is_no_request(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "old\n\nx\n",
        "old \n\nx\n",
        "old 01\n\nx\n",
        "old -1\n\nx\n",
        "old 1 \n\nx\n",
        "old 9223372036854775808\n\nx\n",
        "old 1\n",
        ("old 1\n" HASH),
        "old 1\nhash\n\nx\n",
        "old 1\r\n\nx\n",
        "Old 1\n\nx\n",
        "old 1\n10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJLt=\n\nx\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(round_trip(text_bytes(bad[i])), CT_ERR_FORMAT);
    }
    char many[64 * (sizeof HASH - 1) + 32] = "old 1\n";
    for (size_t i = 0; i < 63; i++) {
        memcpy(many + 6 + i * (sizeof HASH - 1), HASH, sizeof HASH);
    }
    strcat(many, "\nx\n");
    assert_int_equal(round_trip(text_bytes(many)), CT_OK);
    memcpy(many + 6 + 63 * (sizeof HASH - 1), HASH, sizeof HASH);
    strcat(many, "\nx\n");
    assert_int_equal(round_trip(text_bytes(many)), CT_ERR_FORMAT);
}

static void sizes_in_answers(void **state) {
    (void)state;
    uint64_t size;
    assert_int_equal(ct_add_checkpoint_size(text_bytes("3001\n"), &size), CT_OK);
    assert_int_equal(size, 3001);
    assert_int_equal(ct_add_checkpoint_size(text_bytes("0\n"), &size), CT_OK);
    static const char *const bad[] = {"", "\n", "1", "01\n", "1\n\n", "a\n", " 1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ct_add_checkpoint_size(text_bytes(bad[i]), &size), CT_ERR_FORMAT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_requests_are_read_and_written_alike),
        cmocka_unit_test(what_is_no_request),
        cmocka_unit_test(sizes_in_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
