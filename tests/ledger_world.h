/* A ledger of numbered entries in a directory of its own, and what must hold of it. */
#ifndef TESTS_LEDGER_WORLD_H
#define TESTS_LEDGER_WORLD_H

#include "fixture.h"

#include <cotrain/disk.h>
#include <cotrain/ledger.h>

#define ORIGIN "example.org/run"

struct world {
    char *dir;  /* of the test */
    char *path; /* of the ledger */
    struct ct_key *key;
    struct ct_hash public_key;
};

static inline int world_open(void **state) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->dir = fixture_dir();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/ledger", world->dir);
    world->path = strdup(path);
    assert_int_equal(ct_key_generate(&world->key), CT_OK);
    world->public_key = ct_key_public(world->key);
    *state = world;
    return 0;
}

static inline int world_close(void **state) {
    struct world *world = *state;
    ct_disk_watch(NULL, NULL);
    fixture_remove(world->dir);
    ct_key_free(world->key);
    free(world->path);
    free(world->dir);
    free(world);
    return 0;
}

static inline const char *below(const struct world *world, const char *name) {
    static char paths[2][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, PATH_MAX, "%s/%s", world->path, name);
    return path;
}

static inline bool there(const struct world *world, const char *name) {
    return access(below(world, name), F_OK) == 0;
}

/* Entry i of all logs here; lengths differ. */
static inline size_t entry_text(uint64_t i, char out[64]) {
    return (size_t)snprintf(out, 64, "{\"contribution\":%llu}%.*s", (unsigned long long)i,
                            (int)(i % 7), "       ");
}

static inline enum ct_err append(struct ct_ledger *ledger, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) {
        char text[64];
        uint64_t index = 0;
        size_t length = entry_text(i, text);
        CT_TRY(ct_ledger_append(ledger, (struct ct_bytes){(const uint8_t *)text, length}, &index));
        assert_int_equal(index, i);
    }
    return CT_OK;
}

static inline struct ct_hash expected_leaf(uint64_t i) {
    char text[64];
    size_t length = entry_text(i, text);
    return ct_leaf_hash((struct ct_bytes){(const uint8_t *)text, length});
}

static inline struct ct_hash expected_root(uint64_t size) {
    struct ct_frontier frontier = {.size = 0};
    for (uint64_t i = 0; i < size; i++) {
        struct ct_hash leaf = expected_leaf(i);
        ct_frontier_append(&frontier, &leaf);
    }
    return ct_frontier_root(&frontier);
}

/* A ledger with `size` entries, all published at once, closed again. */
static inline void make_ledger(const struct world *world, uint64_t size) {
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    assert_int_equal(append(ledger, 0, size), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
}

static inline struct ct_ledger *open_ledger(const struct world *world) {
    struct ct_ledger *ledger = NULL;
    if (ct_ledger_open(world->path, ORIGIN, world->key, &ledger) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    return ledger;
}

static inline enum ct_err reopen(const struct world *world) {
    struct ct_ledger *ledger = NULL;
    enum ct_err err = ct_ledger_open(world->path, ORIGIN, world->key, &ledger);
    if (err == CT_OK) {
        ct_ledger_close(ledger);
    }
    return err;
}

/* Entries, checkpoint and proofs of an open ledger are what they must be. */
static inline void assert_holds(const struct world *world, struct ct_ledger *ledger, uint64_t size,
                                uint64_t published) {
    assert_int_equal(ct_ledger_size(ledger), size);
    assert_int_equal(ct_ledger_published(ledger), published);
    struct ct_checkpoint checkpoint;
    assert_int_equal(
        ct_checkpoint_open(ct_ledger_checkpoint(ledger), ORIGIN, &world->public_key, &checkpoint),
        CT_OK);
    struct ct_hash root = expected_root(published);
    assert_int_equal(checkpoint.size, published);
    assert_memory_equal(&checkpoint.root, &root, sizeof root);
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    uint64_t step = size > 30 ? size / 19 : 1;
    for (uint64_t i = 0; i < size; i += step) {
        char text[64];
        size_t length = entry_text(i, text);
        assert_int_equal(ct_ledger_read(ledger, i, &entry), CT_OK);
        assert_int_equal(entry.length, length);
        assert_memory_equal(entry.data, text, length);
        struct ct_proof proof;
        struct ct_hash leaf = expected_leaf(i);
        if (i < published) {
            assert_int_equal(ct_ledger_prove(ledger, i, &proof), CT_OK);
            assert_int_equal(ct_verify_inclusion(i, published, &leaf, &proof, &root), CT_OK);
        } else {
            assert_int_equal(ct_ledger_prove(ledger, i, &proof), CT_ERR_NOT_FOUND);
        }
    }
    assert_int_equal(ct_ledger_read(ledger, size, &entry), CT_ERR_NOT_FOUND);
    ct_buf_deinit(&entry);
}

static inline void assert_file(const struct world *world, const char *name, const void *data,
                               size_t length) {
    struct ct_buf found = fixture_read(below(world, name));
    assert_int_equal(found.length, length);
    assert_memory_equal(found.data, data, length);
    ct_buf_deinit(&found);
}

#endif
