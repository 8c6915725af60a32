#include "fixture.h"

#include <cotrain/crypto.h>
#include <cotrain/merkle.h>

#include <jansson.h>

/* All leaf hashes in memory; a subtree hash straight from the recursive definition. */
struct leaves {
    struct ct_hash *hashes;
    uint64_t count;
};

static struct ct_hash tree_hash(const struct ct_hash *leaves, uint64_t count) {
    if (count == 0) {
        return ct_empty_root();
    }
    if (count == 1) {
        return leaves[0];
    }
    uint64_t half = 1;
    while (half * 2 < count) {
        half *= 2;
    }
    struct ct_hash left = tree_hash(leaves, half);
    struct ct_hash right = tree_hash(leaves + half, count - half);
    return ct_node_hash(&left, &right);
}

static enum ct_err subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    const struct leaves *leaves = user;
    assert_true((index + 1) << level <= leaves->count);
    *out = tree_hash(leaves->hashes + (index << level), 1ull << level);
    return CT_OK;
}

static struct ct_hash from_base64(const json_t *text) {
    struct ct_hash hash = {{0}};
    size_t length = 0;
    assert_int_equal(ct_base64_decode(json_string_value(text), json_string_length(text), hash.bytes,
                                      sizeof hash.bytes, &length),
                     CT_OK);
    return hash; /* the vectors' shorter ones are filled up with zeros */
}

static struct ct_hash from_hex(const json_t *text) {
    struct ct_hash hash;
    assert_int_equal(ct_hash_parse(json_string_value(text), &hash), CT_OK);
    return hash;
}

static uint64_t number(const json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    /* 2^64 - 1 does not fit jansson's integers and comes as a real. */
    return json_is_real(value) ? UINT64_MAX : (uint64_t)json_integer_value(value);
}

enum kind { INCLUSION, CONSISTENCY, SUBTREE_INCLUSION, SUBTREE_CONSISTENCY };

static enum ct_err run_inclusion(const json_t *vector, const struct ct_proof *proof, bool subtree) {
    struct ct_hash leaf = from_base64(json_object_get(vector, "leafHash"));
    struct ct_hash root = from_base64(json_object_get(vector, "root"));
    if (json_string_length(json_object_get(vector, "root")) == 0) {
        return CT_ERR_FORMAT; /* no hash at all: struct ct_hash cannot even say it */
    }
    uint64_t index = number(vector, "leafIdx");
    return subtree ? ct_verify_subtree_inclusion(index, number(vector, "start"),
                                                 number(vector, "end"), &leaf, proof, &root)
                   : ct_verify_inclusion(index, number(vector, "treeSize"), &leaf, proof, &root);
}

static enum ct_err run_consistency(const json_t *vector, const struct ct_proof *proof,
                                   bool subtree) {
    struct ct_hash old_root = from_base64(json_object_get(vector, "root1"));
    struct ct_hash root = from_base64(json_object_get(vector, "root2"));
    return subtree ? ct_verify_subtree_consistency(number(vector, "start"), number(vector, "end"),
                                                   number(vector, "size"), proof, &old_root, &root)
                   : ct_verify_consistency(number(vector, "size1"), number(vector, "size2"), proof,
                                           &old_root, &root);
}

static enum ct_err run_vector(const json_t *vector, enum kind kind) {
    struct ct_proof proof = {.count = 0};
    size_t i = 0;
    json_t *item = NULL;
    json_array_foreach(json_object_get(vector, "proof"), i, item) {
        assert_true(proof.count < CT_PROOF_HASHES_MAX);
        proof.hashes[proof.count] = from_base64(item);
        proof.count++;
    }
    return kind == INCLUSION || kind == SUBTREE_INCLUSION
               ? run_inclusion(vector, &proof, kind == SUBTREE_INCLUSION)
               : run_consistency(vector, &proof, kind == SUBTREE_CONSISTENCY);
}

static unsigned run_file(const char *name, enum kind kind) {
    char path[PATH_MAX];
    FILE *file = fopen(fixture_vector(name, path), "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    unsigned count = 0;
    for (; getline(&line, &capacity, file) > 0; count++) {
        json_t *vector = json_loads(line, 0, NULL);
        if (vector == NULL) {
            vector = json_loads(line, JSON_DECODE_INT_AS_REAL, NULL);
        }
        assert_non_null(vector);
        const char *title = json_string_value(json_object_get(vector, "file"));
        bool want_error = json_is_true(json_object_get(vector, "wantErr"));
        bool failed = run_vector(vector, kind) != CT_OK;
        if (failed != want_error) {
            fail_msg("%s: %s", title, failed ? "refused" : "accepted");
        }
        json_decref(vector);
    }
    free(line);
    fclose(file);
    return count;
}

static void foreign_inclusion_vectors(void **state) {
    (void)state;
    assert_int_equal(run_file("merkle/inclusion.jsonl", INCLUSION), 98);
    assert_int_equal(run_file("merkle/subtreeinclusion.jsonl", SUBTREE_INCLUSION), 204);
}

static void foreign_consistency_vectors(void **state) {
    (void)state;
    assert_int_equal(run_file("merkle/consistency.jsonl", CONSISTENCY), 98);
    assert_int_equal(run_file("merkle/subtreeconsistency.jsonl", SUBTREE_CONSISTENCY), 118);
}

static void feed_hash(struct ct_sha256 *sha, const char *before, const struct ct_hash *hash) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(hash, hex);
    ct_sha256_update(sha, before, strlen(before));
    ct_sha256_update(sha, hex, strlen(hex));
}

static void feed_proof(struct ct_sha256 *sha, const char *title, const struct ct_proof *proof) {
    ct_sha256_update(sha, title, strlen(title));
    for (uint32_t i = 0; i < proof->count; i++) {
        feed_hash(sha, " ", &proof->hashes[i]);
    }
    ct_sha256_update(sha, "\n", 1);
}

static void assert_accumulated(const json_t *accumulated, const char *name, struct ct_sha256 *sha) {
    struct ct_hash got = ct_sha256_final(sha);
    struct ct_hash expected =
        from_hex(json_object_get(json_object_get(accumulated, name), "sha256"));
    print_message("%s\n", name);
    assert_memory_equal(&got, &expected, sizeof got);
}

/* The hash, every inclusion proof and every consistency proof of every subtree of trees of up to
 * 130 leaves, told as text, give digests that others published; and every proof verifies. */
static void foreign_subtrees_up_to_130(void **state) {
    (void)state;
    enum { SIZE = 130 };
    char path[PATH_MAX];
    json_t *tree = json_load_file(fixture_vector("merkle/rfc6962-tree.json", path), 0, NULL);
    assert_non_null(tree);
    const json_t *accumulated = json_object_get(tree, "accumulated");
    struct ct_hash hashes[SIZE];
    for (uint8_t i = 0; i < SIZE; i++) {
        hashes[i] = ct_leaf_hash((struct ct_bytes){&i, 1});
    }
    struct leaves leaves = {hashes, SIZE};
    struct ct_sha256 of_hashes, of_inclusion, of_consistency;
    ct_sha256_init(&of_hashes);
    ct_sha256_init(&of_inclusion);
    ct_sha256_init(&of_consistency);
    char title[64];
    struct ct_proof proof;
    for (uint64_t end = 0; end <= SIZE; end++) {
        for (uint64_t start = 0; start <= end; start++) {
            if (!ct_subtree_valid(start, end)) {
                continue;
            }
            struct ct_hash root = tree_hash(hashes + start, end - start);
            snprintf(title, sizeof title, "[%d, %d) ", (int)start, (int)end);
            feed_hash(&of_hashes, title, &root);
            ct_sha256_update(&of_hashes, "\n", 1);
            for (uint64_t index = start; index < end; index++) {
                snprintf(title, sizeof title, "%d [%d, %d)", (int)index, (int)start, (int)end);
                assert_int_equal(
                    ct_prove_subtree_inclusion(index, start, end, subtree, &leaves, &proof), CT_OK);
                feed_proof(&of_inclusion, title, &proof);
                assert_int_equal(
                    ct_verify_subtree_inclusion(index, start, end, &hashes[index], &proof, &root),
                    CT_OK);
            }
        }
    }
    for (uint64_t size = 0; size <= SIZE; size++) {
        struct ct_hash whole = tree_hash(hashes, size);
        for (uint64_t end = 0; end <= size; end++) {
            for (uint64_t start = 0; start <= end; start++) {
                if (!ct_subtree_valid(start, end)) {
                    continue;
                }
                struct ct_hash root = tree_hash(hashes + start, end - start);
                assert_int_equal(
                    ct_prove_subtree_consistency(start, end, size, subtree, &leaves, &proof),
                    CT_OK);
                assert_int_equal(
                    ct_verify_subtree_consistency(start, end, size, &proof, &root, &whole), CT_OK);
                snprintf(title, sizeof title, "[%d, %d) %d", (int)start, (int)end, (int)size);
                feed_proof(&of_consistency, title, &proof);
            }
        }
    }
    assert_accumulated(accumulated, "subtree_hash", &of_hashes);
    assert_accumulated(accumulated, "subtree_inclusion", &of_inclusion);
    assert_accumulated(accumulated, "subtree_consistency", &of_consistency);
    json_decref(tree);
}

static void foreign_tree_of_eight(void **state) {
    (void)state;
    char path[PATH_MAX];
    json_t *tree = json_load_file(fixture_vector("merkle/rfc6962-tree.json", path), 0, NULL);
    assert_non_null(tree);
    json_t *inputs = json_object_get(tree, "leaf_inputs_hex");
    json_t *levels = json_object_get(tree, "node_hashes_by_level");
    json_t *roots = json_object_get(tree, "roots_by_size");
    assert_int_equal(json_array_size(inputs), 8);
    assert_int_equal(json_array_size(roots), 9);
    struct ct_frontier frontier = {.size = 0};
    struct ct_hash hashes[8];
    for (size_t i = 0; i <= 8; i++) {
        struct ct_hash root = ct_frontier_root(&frontier);
        struct ct_hash expected = from_hex(json_array_get(roots, i));
        assert_memory_equal(&root, &expected, sizeof root);
        if (i == 8) {
            break;
        }
        const char *hex = json_string_value(json_array_get(inputs, i));
        uint8_t bytes[16];
        size_t length = strlen(hex) / 2;
        for (size_t j = 0; j < length; j++) {
            char digits[3] = {hex[2 * j], hex[2 * j + 1], '\0'};
            bytes[j] = (uint8_t)strtoul(digits, NULL, 16);
        }
        hashes[i] = ct_leaf_hash((struct ct_bytes){bytes, length});
        ct_frontier_append(&frontier, &hashes[i]);
    }
    for (size_t level = 0; level < 4; level++) {
        json_t *nodes = json_array_get(levels, level);
        for (size_t i = 0; i < json_array_size(nodes); i++) {
            struct ct_hash hash = tree_hash(hashes + (i << level), 1ull << level);
            struct ct_hash expected = from_hex(json_array_get(nodes, i));
            assert_memory_equal(&hash, &expected, sizeof hash);
        }
    }
    json_decref(tree);
}

static void assert_refused_when_changed(uint64_t index, uint64_t size, const struct ct_hash *leaf,
                                        const struct ct_proof *proof, const struct ct_hash *root) {
    struct ct_proof changed = *proof;
    for (uint32_t i = 0; i < proof->count; i++) {
        changed.hashes[i].bytes[i % 32] ^= 0x10;
        assert_int_not_equal(ct_verify_inclusion(index, size, leaf, &changed, root), CT_OK);
        changed = *proof;
    }
    changed.count++;
    assert_int_not_equal(ct_verify_inclusion(index, size, leaf, &changed, root), CT_OK);
    if (proof->count > 0) {
        changed.count = proof->count - 1;
        assert_int_not_equal(ct_verify_inclusion(index, size, leaf, &changed, root), CT_OK);
    }
}

/* Every proof of every tree of up to 70 leaves verifies against roots by the recursive definition,
 * and no proof for another index, size or hash does. */
static void own_proofs_of_small_trees(void **state) {
    (void)state;
    enum { SIZE = 70 };
    struct ct_hash hashes[SIZE];
    struct ct_hash roots[SIZE + 1];
    struct ct_frontier frontier = {.size = 0};
    for (uint8_t i = 0; i < SIZE; i++) {
        hashes[i] = ct_leaf_hash((struct ct_bytes){&i, 1});
    }
    for (uint64_t size = 0; size <= SIZE; size++) {
        roots[size] = tree_hash(hashes, size);
        struct ct_hash root = ct_frontier_root(&frontier);
        assert_memory_equal(&root, &roots[size], sizeof root);
        if (size < SIZE) {
            ct_frontier_append(&frontier, &hashes[size]);
        }
    }
    for (uint64_t size = 1; size <= SIZE; size++) {
        struct leaves leaves = {hashes, size};
        struct ct_proof proof = {.count = 0};
        for (uint64_t index = 0; index < size; index++) {
            assert_int_equal(ct_prove_inclusion(index, size, subtree, &leaves, &proof), CT_OK);
            assert_int_equal(ct_verify_inclusion(index, size, &hashes[index], &proof, &roots[size]),
                             CT_OK);
            assert_refused_when_changed(index, size, &hashes[index], &proof, &roots[size]);
            assert_int_not_equal(
                ct_verify_inclusion(index ^ 1, size, &hashes[index], &proof, &roots[size]), CT_OK);
        }
        for (uint64_t old = 1; old <= size; old++) {
            assert_int_equal(ct_prove_consistency(old, size, subtree, &leaves, &proof), CT_OK);
            assert_int_equal(ct_verify_consistency(old, size, &proof, &roots[old], &roots[size]),
                             CT_OK);
            assert_int_not_equal(
                ct_verify_consistency(old, size, &proof, &roots[old - 1], &roots[size]), CT_OK);
            assert_int_not_equal(
                ct_verify_consistency(old, size, &proof, &roots[old], &roots[size - 1]), CT_OK);
        }
        assert_int_equal(ct_prove_inclusion(size, size, subtree, &leaves, &proof),
                         CT_ERR_NOT_FOUND);
        assert_int_equal(ct_prove_consistency(0, size, subtree, &leaves, &proof), CT_ERR_NOT_FOUND);
        assert_int_equal(ct_prove_consistency(size + 1, size, subtree, &leaves, &proof),
                         CT_ERR_NOT_FOUND);
    }
}

/* Known answer: two other implementations of RFC 6962 give this root. */
static void golden_root_of_70000(void **state) {
    (void)state;
    struct ct_frontier frontier = {.size = 0};
    for (int i = 0; i < 70000; i++) {
        char text[32];
        int length = snprintf(text, sizeof text, "{\"contribution\":%d}", i);
        struct ct_hash leaf =
            ct_leaf_hash((struct ct_bytes){(const uint8_t *)text, (size_t)length});
        ct_frontier_append(&frontier, &leaf);
    }
    struct ct_hash root = ct_frontier_root(&frontier);
    char base64[45];
    ct_base64_encode((struct ct_bytes){root.bytes, sizeof root.bytes}, base64);
    assert_string_equal(base64, "r2HB8dJJrGcH4CTxqeyH9TWVqNq8W+V+yyIuJvnVwQg=");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_inclusion_vectors), cmocka_unit_test(foreign_consistency_vectors),
        cmocka_unit_test(foreign_tree_of_eight),     cmocka_unit_test(foreign_subtrees_up_to_130),
        cmocka_unit_test(own_proofs_of_small_trees), cmocka_unit_test(golden_root_of_70000),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
