#include "fixture.h"

#include "coordinator/witness.h"

#include <cotrain/add_checkpoint.h>
#include <cotrain/cosignature.h>
#include <cotrain/merkle.h>

#include <jansson.h>

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

struct world {
    char *dir;
    struct ct_witness witness;
    struct ct_buf answer;
    const char *type;
};

static int world_open(void **state) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->dir = fixture_dir();
    ct_buf_init(&world->answer, 16384);
    assert_int_equal(ct_witness_open(world->dir, "w.example/1", &world->witness), CT_OK);
    *state = world;
    return 0;
}

static int world_close(void **state) {
    struct world *world = *state;
    ct_witness_close(&world->witness);
    ct_buf_deinit(&world->answer);
    fixture_remove(world->dir);
    free(world->dir);
    free(world);
    return 0;
}

/* As after a crash: whatever was answered is there again. */
static void reopen(struct world *world) {
    ct_witness_close(&world->witness);
    assert_int_equal(ct_witness_open(world->dir, NULL, &world->witness), CT_OK);
}

static unsigned post(struct world *world, struct ct_bytes body) {
    return ct_witness_add_checkpoint(&world->witness, body, 1234567890, &world->answer,
                                     &world->type);
}

static void assert_answer(const struct world *world, const char *text) {
    assert_int_equal(world->answer.length, strlen(text));
    assert_memory_equal(world->answer.data, text, strlen(text));
}

/* The answer is this witness's cosignature of the request's note. */
static void assert_cosigned(struct world *world, struct ct_bytes body) {
    struct ct_add_checkpoint request;
    struct ct_buf note;
    struct ct_hash key = ct_key_public(world->witness.key);
    uint64_t time_s = 0;
    assert_int_equal(ct_add_checkpoint_parse(body, &request), CT_OK);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_buf_append(&note, request.note.data, request.note.length), CT_OK);
    assert_int_equal(ct_buf_append(&note, world->answer.data, world->answer.length), CT_OK);
    assert_int_equal(ct_cosignature_check(ct_buf_bytes(&note), "w.example/1", &key, &time_s),
                     CT_OK);
    assert_int_equal(time_s, 1234567890);
    ct_buf_deinit(&note);
}

/* torchwood's requests, in their order, with the statuses that litewitness gives; the witness is
 * closed and opened after each. */
static void foreign_requests_have_their_statuses(void **state) {
    struct world *world = *state;
    char path[PATH_MAX], vkey[CT_VKEY_BYTES_MAX];
    json_t *file = json_load_file(fixture_vector("witness/add-checkpoint.json", path), 0, NULL);
    assert_non_null(file);
    struct ct_hash key;
    assert_int_equal(
        ct_hash_parse(json_string_value(json_object_get(file, "log_ed25519_public_key_hex")), &key),
        CT_OK);
    ct_vkey_format(json_string_value(json_object_get(file, "origin")), &key, vkey);
    assert_int_equal(ct_witness_add_log(&world->witness, vkey), CT_OK);
    assert_int_equal(ct_witness_add_log(&world->witness, vkey), CT_OK);
    size_t i;
    json_t *request;
    json_array_foreach(json_object_get(file, "requests"), i, request) {
        struct ct_bytes body = text_bytes(json_string_value(json_object_get(request, "body")));
        unsigned status = post(world, body);
        assert_int_equal(status, json_integer_value(json_object_get(request, "status")));
        if (status == 200) {
            assert_cosigned(world, body);
        } else if (status == 409) {
            assert_string_equal(world->type, CT_ADD_CHECKPOINT_SIZE_TYPE);
            assert_answer(world, i == 6 ? "3\n" : "5\n");
        }
        reopen(world);
    }
    json_decref(file);
}

static void the_log_of_3001(void **state) {
    struct world *world = *state;
    static const struct {
        const char *name;
        unsigned status;
    } steps[] = {{"oldm", 409}, {"old0", 200}, {"old0", 409},
                 {"oldm", 200}, {"oldm", 409}, {"fork", 422}};
    char path[PATH_MAX], name[64];
    struct ct_buf vkey = fixture_read(fixture_vector("selfmade/log3001/log3k.vkey", path));
    assert_int_equal(ct_buf_append(&vkey, "", 1), CT_OK);
    vkey.data[strcspn((char *)vkey.data, "\n")] = '\0';
    assert_int_equal(ct_witness_add_log(&world->witness, (char *)vkey.data), CT_OK);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        snprintf(name, sizeof name, "selfmade/log3001/log3k.%s", steps[i].name);
        struct ct_buf body = fixture_read(fixture_vector(name, path));
        assert_int_equal(post(world, ct_buf_bytes(&body)), steps[i].status);
        ct_buf_deinit(&body);
    }
    assert_int_equal(world->witness.cosigned, 2);
    assert_int_equal(world->witness.refused, 4);
    ct_buf_deinit(&vkey);
}

/* A log of this test's own that signs whatever it is told. */
static struct ct_buf make_body(const struct ct_key *key, uint64_t old, uint64_t size,
                               const struct ct_hash *root, const struct ct_proof *proof) {
    struct ct_checkpoint checkpoint = {.origin = "log.example", .size = size, .root = *root};
    struct ct_buf note, body;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&body, CT_ADD_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, key, &note), CT_OK);
    assert_int_equal(ct_add_checkpoint_format(old, proof, ct_buf_bytes(&note), &body), CT_OK);
    ct_buf_deinit(&note);
    return body;
}

static void sizes_and_empty_trees(void **state) {
    struct world *world = *state;
    struct ct_key *key = NULL;
    char vkey[CT_VKEY_BYTES_MAX];
    assert_int_equal(ct_key_generate(&key), CT_OK);
    struct ct_hash public_key = ct_key_public(key);
    ct_vkey_format("log.example", &public_key, vkey);
    assert_int_equal(ct_witness_add_log(&world->witness, vkey), CT_OK);
    struct ct_hash a = ct_leaf_hash(text_bytes("a")), b = ct_leaf_hash(text_bytes("b"));
    struct ct_hash ab = ct_node_hash(&a, &b), empty = ct_empty_root();
    const struct ct_proof none = {.count = 0}, with_b = {.count = 1, .hashes = {b}};
    const struct {
        uint64_t old, size;
        const struct ct_hash *root;
        const struct ct_proof *proof;
        unsigned status;
    } steps[] = {
        {0, 0, &a, &none, 422},                             /* size 0 with another root */
        {0, 0, &empty, &none, 200},                         /* an empty tree */
        {0, 1, &a, &with_b, 422},                           /* a proof from nothing */
        {2, 1, &a, &none, 400},                             /* old above new */
        {1, 2, &ab, &with_b, 409},                          /* not its size yet */
        {0, 1, &a, &none, 200},     {1, 1, &a, &none, 200}, /* again: a newer time */
        {1, 1, &b, &none, 422},                             /* same size, another root */
        {1, 1, &a, &with_b, 422},                           /* a proof that is too long */
        {1, 2, &ab, &none, 422},    {1, 2, &ab, &with_b, 200},
        {1, 2, &ab, &with_b, 409},  {0, 1, &a, &none, 409},
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct ct_buf body =
            make_body(key, steps[i].old, steps[i].size, steps[i].root, steps[i].proof);
        print_message("%d\n", (int)i);
        assert_int_equal(post(world, ct_buf_bytes(&body)), steps[i].status);
        if (steps[i].status == 200) {
            assert_cosigned(world, ct_buf_bytes(&body));
        }
        ct_buf_deinit(&body);
    }
    assert_int_equal(post(world, text_bytes("old 1\n")), 400);
    assert_int_equal(post(world, text_bytes("")), 400);
    assert_int_equal(post(world, text_bytes("old 1\n\nlog.example\nx")), 403);
    assert_int_equal(post(world, text_bytes("old 1\n\nlog.example.org\n")), 404);

    /* What it cosigned is told by the origin's digest; damaged, it signs no more. */
    char hex[CT_HEX_BYTES], path[PATH_MAX];
    struct ct_hash digest = ct_sha256(text_bytes("log.example"));
    ct_hash_hex(&digest, hex);
    assert_int_equal(ct_witness_checkpoint(&world->witness, hex, &world->answer), 200);
    struct ct_checkpoint told;
    assert_int_equal(
        ct_checkpoint_open(ct_buf_bytes(&world->answer), "log.example", &public_key, &told), CT_OK);
    assert_int_equal(told.size, 2);
    hex[0] = hex[0] == '0' ? '1' : '0';
    assert_int_equal(ct_witness_checkpoint(&world->witness, hex, &world->answer), 404);
    assert_int_equal(ct_witness_checkpoint(&world->witness, "../name", &world->answer), 404);
    hex[0] = "0123456789abcdef"[digest.bytes[0] >> 4];
    snprintf(path, sizeof path, "%s/state/%s", world->dir, hex);
    fixture_write(path, "?", 1);
    struct ct_buf body = make_body(key, 2, 2, &ab, &none);
    assert_int_equal(post(world, ct_buf_bytes(&body)), 500);
    ct_buf_deinit(&body);
    ct_key_free(key);
}

static void a_name_stays_with_its_key(void **state) {
    struct world *world = *state;
    struct ct_witness other;
    assert_int_equal(ct_witness_open(world->dir, NULL, &other), CT_ERR_STATE);
    struct ct_hash before = ct_key_public(world->witness.key);
    reopen(world);
    struct ct_hash after = ct_key_public(world->witness.key);
    assert_memory_equal(&before, &after, sizeof before);
    assert_string_equal(world->witness.name, "w.example/1");
    ct_witness_close(&world->witness);
    assert_int_equal(ct_witness_open(world->dir, "w.example/2", &other), CT_ERR_CONFIG);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/new", world->dir);
    assert_int_equal(ct_witness_open(path, NULL, &other), CT_ERR_USAGE);
    assert_int_equal(ct_witness_open(path, "a b", &other), CT_ERR_CONFIG);
    assert_int_equal(ct_witness_open(world->dir, NULL, &world->witness), CT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(foreign_requests_have_their_statuses, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(the_log_of_3001, world_open, world_close),
        cmocka_unit_test_setup_teardown(sizes_and_empty_trees, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_name_stays_with_its_key, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
