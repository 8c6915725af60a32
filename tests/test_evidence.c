#include "fixture.h"
#include "mutate.h"

#include <cotrain/evidence.h>

#define ORIGIN "example.org/run"

enum { SIZE = 130 };

/* Two histories that share their first `common` leaves. */
struct world {
    struct ct_key *key;
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_hash leaves[2][SIZE];
};

static enum ct_err subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    const struct ct_hash *leaves = user;
    if (level == 0) {
        *out = leaves[index];
        return CT_OK;
    }
    struct ct_hash left, right;
    CT_TRY(subtree(user, level - 1, 2 * index, &left));
    CT_TRY(subtree(user, level - 1, 2 * index + 1, &right));
    *out = ct_node_hash(&left, &right);
    return CT_OK;
}

static void make_leaves(struct world *world, uint64_t common) {
    for (uint64_t i = 0; i < SIZE; i++) {
        for (int side = 0; side < 2; side++) {
            uint8_t bytes[2] = {(uint8_t)i, (uint8_t)(i < common ? 0 : side)};
            world->leaves[side][i] = ct_leaf_hash((struct ct_bytes){bytes, sizeof bytes});
        }
    }
}

static int world_open(void **state) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    assert_int_equal(ct_key_generate(&world->key), CT_OK);
    struct ct_hash public_key = ct_key_public(world->key);
    ct_vkey_format(ORIGIN, &public_key, world->vkey);
    *state = world;
    return 0;
}

static int world_close(void **state) {
    struct world *world = *state;
    ct_key_free(world->key);
    free(world);
    return 0;
}

static struct ct_buf sign(struct world *world, int side, uint64_t size) {
    struct ct_checkpoint checkpoint = {.origin = ORIGIN, .size = size};
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_root_of(size, subtree, world->leaves[side], &checkpoint.root), CT_OK);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, world->key, &note), CT_OK);
    return note;
}

/* Every pair of sizes: evidence exactly where the histories differ, whatever the order, and it
 * convinces who has nothing else. */
static void two_histories_are_told_from_one(void **state) {
    struct world *world = *state;
    struct ct_buf evidence;
    ct_buf_init(&evidence, CT_EVIDENCE_BYTES_MAX);
    for (uint64_t common = 0; common <= 70; common += 7) {
        make_leaves(world, common);
        for (uint64_t a = 0; a <= SIZE; a += a < 9 ? 1 : 13) {
            for (uint64_t b = 0; b <= SIZE; b += b < 9 ? 1 : 17) {
                struct ct_buf first = sign(world, 0, a), second = sign(world, 1, b);
                bool differ = (a < b ? a : b) > common;
                enum ct_err err =
                    ct_evidence_seek(world->vkey, ct_buf_bytes(&first), ct_buf_bytes(&second),
                                     subtree, world->leaves[a > b ? 0 : 1], &evidence);
                assert_int_equal(err, differ ? CT_ERR_FORKED : CT_OK);
                if (differ) {
                    struct ct_evidence found;
                    assert_int_equal(ct_evidence_open(ct_buf_bytes(&evidence), &found), CT_OK);
                    assert_string_equal(found.vkey, world->vkey);
                    assert_int_equal(found.smaller.size, a < b ? a : b);
                    assert_int_equal(found.larger.size, a < b ? b : a);
                }
                ct_buf_deinit(&first);
                ct_buf_deinit(&second);
            }
        }
    }
    ct_buf_deinit(&evidence);
}

/* What accuses an honest log must not verify: no changed byte, no cut, nothing of one history. */
static void nothing_else_convinces(void **state) {
    struct world *world = *state;
    make_leaves(world, 5);
    static const uint64_t sizes[][2] = {{9, 9}, {8, 21}, {11, 100}};
    struct ct_buf evidence, honest;
    struct ct_evidence found;
    ct_buf_init(&evidence, CT_EVIDENCE_BYTES_MAX);
    ct_buf_init(&honest, CT_EVIDENCE_BYTES_MAX);
    for (size_t i = 0; i < 3; i++) {
        struct ct_buf a = sign(world, 0, sizes[i][0]), b = sign(world, 1, sizes[i][1]);
        assert_int_equal(ct_evidence_seek(world->vkey, ct_buf_bytes(&a), ct_buf_bytes(&b), subtree,
                                          world->leaves[1], &evidence),
                         CT_ERR_FORKED);
        for (size_t at = 0; at < evidence.length; at++) {
            evidence.data[at] ^= 1;
            assert_int_not_equal(ct_evidence_open(ct_buf_bytes(&evidence), &found), CT_OK);
            evidence.data[at] ^= 1;
            assert_int_not_equal(ct_evidence_open((struct ct_bytes){evidence.data, at}, &found),
                                 CT_OK);
        }
        uint64_t seed = i;
        for (int round = 0; round < 3000; round++) {
            size_t length;
            uint8_t *damaged = mutate(&seed, evidence.data, evidence.length, &length);
            bool same = length == evidence.length && memcmp(damaged, evidence.data, length) == 0;
            assert_true(same ||
                        ct_evidence_open((struct ct_bytes){damaged, length}, &found) != CT_OK);
            free(damaged);
        }
        /* The same text with the honest checkpoint in the smaller one's place. */
        struct ct_buf same = sign(world, 1, sizes[i][0]);
        const char *at = strstr((const char *)evidence.data, "checkpoint ");
        size_t head = (size_t)(at - (const char *)evidence.data);
        ct_buf_clear(&honest);
        assert_int_equal(ct_buf_append(&honest, evidence.data, head), CT_OK);
        assert_int_equal(ct_buf_printf(&honest, "checkpoint %zu\n", same.length), CT_OK);
        assert_int_equal(ct_buf_append(&honest, same.data, same.length), CT_OK);
        assert_int_equal(ct_buf_printf(&honest, "checkpoint %zu\n", b.length), CT_OK);
        assert_int_equal(ct_buf_append(&honest, b.data, b.length), CT_OK);
        assert_int_equal(ct_evidence_open(ct_buf_bytes(&honest), &found), CT_ERR_DIGEST);
        ct_buf_deinit(&same);
        ct_buf_deinit(&a);
        ct_buf_deinit(&b);
    }
    /* Hashes of another tree than the larger checkpoint's decide nothing. */
    struct ct_buf a = sign(world, 0, 8), b = sign(world, 1, 21);
    assert_int_equal(ct_evidence_seek(world->vkey, ct_buf_bytes(&a), ct_buf_bytes(&b), subtree,
                                      world->leaves[0], &evidence),
                     CT_ERR_DIGEST);
    /* Nor does another's signature. */
    struct ct_key *other = NULL;
    char vkey[CT_VKEY_BYTES_MAX];
    assert_int_equal(ct_key_generate(&other), CT_OK);
    struct ct_hash public_key = ct_key_public(other);
    ct_vkey_format(ORIGIN, &public_key, vkey);
    assert_int_equal(ct_evidence_seek(vkey, ct_buf_bytes(&a), ct_buf_bytes(&b), subtree,
                                      world->leaves[1], &evidence),
                     CT_ERR_SIGNATURE);
    ct_key_free(other);
    ct_buf_deinit(&a);
    ct_buf_deinit(&b);
    ct_buf_deinit(&honest);
    ct_buf_deinit(&evidence);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_histories_are_told_from_one, world_open, world_close),
        cmocka_unit_test_setup_teardown(nothing_else_convinces, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
