#include "fixture.h"
#include "proto/rt/disk.h"

#include <cotrain/ledger.h>

#define ORIGIN "example.org/run"

struct world {
    char *dir;  /* of the test */
    char *path; /* of the ledger */
    struct ct_key *key;
    struct ct_hash public_key;
};

static int world_open(void **state) {
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

static int world_close(void **state) {
    struct world *world = *state;
    ct_disk_watch(NULL, NULL);
    fixture_remove(world->dir);
    ct_key_free(world->key);
    free(world->path);
    free(world->dir);
    free(world);
    return 0;
}

static const char *below(const struct world *world, const char *name) {
    static char paths[2][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, PATH_MAX, "%s/%s", world->path, name);
    return path;
}

static bool there(const struct world *world, const char *name) {
    return access(below(world, name), F_OK) == 0;
}

/* Entry i of all logs here; lengths differ. */
static size_t entry_text(uint64_t i, char out[64]) {
    return (size_t)snprintf(out, 64, "{\"contribution\":%llu}%.*s", (unsigned long long)i,
                            (int)(i % 7), "       ");
}

static enum ct_err append(struct ct_ledger *ledger, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) {
        char text[64];
        uint64_t index = 0;
        size_t length = entry_text(i, text);
        CT_TRY(ct_ledger_append(ledger, (struct ct_bytes){(const uint8_t *)text, length}, &index));
        assert_int_equal(index, i);
    }
    return CT_OK;
}

static struct ct_hash expected_leaf(uint64_t i) {
    char text[64];
    size_t length = entry_text(i, text);
    return ct_leaf_hash((struct ct_bytes){(const uint8_t *)text, length});
}

static struct ct_hash expected_root(uint64_t size) {
    struct ct_frontier frontier = {.size = 0};
    for (uint64_t i = 0; i < size; i++) {
        struct ct_hash leaf = expected_leaf(i);
        ct_frontier_append(&frontier, &leaf);
    }
    return ct_frontier_root(&frontier);
}

/* A ledger with `size` entries, all published at once, closed again. */
static void make_ledger(const struct world *world, uint64_t size) {
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    assert_int_equal(append(ledger, 0, size), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
}

static struct ct_ledger *open_ledger(const struct world *world) {
    struct ct_ledger *ledger = NULL;
    if (ct_ledger_open(world->path, ORIGIN, world->key, &ledger) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    return ledger;
}

static enum ct_err reopen(const struct world *world) {
    struct ct_ledger *ledger = NULL;
    enum ct_err err = ct_ledger_open(world->path, ORIGIN, world->key, &ledger);
    if (err == CT_OK) {
        ct_ledger_close(ledger);
    }
    return err;
}

/* Entries, checkpoint and proofs of an open ledger are what they must be. */
static void assert_holds(const struct world *world, struct ct_ledger *ledger, uint64_t size,
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
    uint64_t step = size > 600 ? size / 97 : 1;
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

static void append_publish_reopen(void **state) {
    const struct world *world = *state;
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    assert_holds(world, ledger, 0, 0);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_int_equal(append(ledger, 0, 3), CT_OK);
    assert_holds(world, ledger, 3, 0);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_holds(world, ledger, 3, 3);
    assert_int_equal(append(ledger, 3, 5), CT_OK);
    assert_holds(world, ledger, 5, 3);
    ct_ledger_close(ledger); /* two entries were never published */
    ledger = open_ledger(world);
    assert_holds(world, ledger, 3, 3);
    assert_int_equal(append(ledger, 3, 700), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_holds(world, ledger, 700, 700);
    ct_ledger_close(ledger);
    ledger = open_ledger(world);
    assert_holds(world, ledger, 700, 700);
    ct_ledger_close(ledger);
}

static void misuse_is_refused(void **state) {
    const struct world *world = *state;
    struct ct_ledger *ledger = NULL;
    uint64_t index = 0;
    assert_int_equal(ct_ledger_open(world->path, ORIGIN, world->key, &ledger), CT_ERR_NOT_FOUND);
    make_ledger(world, 4);
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_ERR_EXISTS);
    assert_int_equal(unlink(below(world, "checkpoint")), 0);
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_ERR_EXISTS);
    assert_int_equal(ct_ledger_open(world->path, ORIGIN, world->key, &ledger), CT_ERR_NOT_FOUND);
    char other[PATH_MAX];
    snprintf(other, sizeof other, "%s/other", world->dir);
    assert_int_equal(ct_ledger_create(other, "with space", world->key, &ledger), CT_ERR_CONFIG);
    assert_int_equal(ct_ledger_create(other, ORIGIN, world->key, &ledger), CT_OK);
    uint8_t *large = calloc(1, CT_ENTRY_BYTES_MAX + 1);
    assert_non_null(large);
    assert_int_equal(ct_ledger_append(ledger, (struct ct_bytes){large, 0}, &index),
                     CT_ERR_TOO_LARGE);
    assert_int_equal(
        ct_ledger_append(ledger, (struct ct_bytes){large, CT_ENTRY_BYTES_MAX + 1}, &index),
        CT_ERR_TOO_LARGE);
    assert_int_equal(ct_ledger_append(ledger, (struct ct_bytes){large, CT_ENTRY_BYTES_MAX}, &index),
                     CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
    free(large);
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    assert_int_equal(ct_ledger_open(other, ORIGIN, key, &ledger), CT_ERR_SIGNATURE);
    ct_key_free(key);
    assert_int_equal(ct_ledger_open(other, "example.org/other", world->key, &ledger),
                     CT_ERR_SIGNATURE);
    assert_int_equal(ct_ledger_open(other, "example.org/other", NULL, &ledger), CT_ERR_FORMAT);
    assert_int_equal(ct_ledger_open(other, ORIGIN, NULL, &ledger), CT_OK);
    assert_int_equal(ct_ledger_append(ledger, (struct ct_bytes){(const uint8_t *)"a", 1}, &index),
                     CT_ERR_STATE);
    assert_int_equal(ct_ledger_publish(ledger), CT_ERR_STATE);
    assert_int_equal(ct_ledger_keep(ledger), CT_ERR_STATE);
    ct_ledger_close(ledger);
}

static void assert_file(const struct world *world, const char *name, const void *data,
                        size_t length) {
    struct ct_buf found = fixture_read(below(world, name));
    assert_int_equal(found.length, length);
    assert_memory_equal(found.data, data, length);
    ct_buf_deinit(&found);
}

static void partial_tiles_stay_until_the_full_one_is_there(void **state) {
    const struct world *world = *state;
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    static const uint64_t sizes[] = {1, 5, 200, 255};
    uint64_t size = 0;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(append(ledger, size, sizes[i]), CT_OK);
        assert_int_equal(ct_ledger_publish(ledger), CT_OK);
        size = sizes[i];
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        for (size_t i = 0; i < 4; i++) {
            char name[CT_TILE_PATH_MAX];
            ct_tile_path(0, 0, (uint32_t)sizes[i], name);
            assert_true(there(world, name));
            ct_tile_path(-1, 0, (uint32_t)sizes[i], name);
            assert_true(there(world, name));
        }
        assert_false(there(world, "tile/0/000"));
        assert_false(there(world, "tile/1"));
        ct_ledger_close(ledger);
        ledger = open_ledger(world);
    }
    assert_int_equal(append(ledger, 255, 600), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
    static const char *const present[] = {
        "tile/0/000",       "tile/0/001",       "tile/0/002.p/88",      "tile/1/000.p/2",
        "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"};
    for (size_t i = 0; i < sizeof present / sizeof present[0]; i++) {
        assert_true(there(world, present[i]));
    }
    assert_false(there(world, "tile/0/000.p"));
    assert_false(there(world, "tile/entries/000.p"));
    assert_false(there(world, "tile.tmp"));
    assert_false(there(world, "checkpoint.tmp"));
    struct ct_hash hashes[2] = {{{0}}};
    for (uint64_t tile = 0; tile < 2; tile++) {
        struct ct_frontier frontier = {.size = 0};
        for (uint64_t i = 0; i < 256; i++) {
            struct ct_hash leaf = expected_leaf(256 * tile + i);
            ct_frontier_append(&frontier, &leaf);
        }
        hashes[tile] = ct_frontier_root(&frontier);
    }
    assert_file(world, "tile/1/000.p/2", hashes, sizeof hashes);
}

static void torn_tail_is_cut(void **state) {
    const struct world *world = *state;
    make_ledger(world, 3);
    struct ct_buf entries = fixture_read(below(world, "entries"));
    static const struct {
        const char *bytes;
        size_t length;
    } tails[] = {{"\0", 1}, {"\0\5", 2}, {"\0\5abcd", 6}, {"\377\377", 2}, {"\0\0\0\0\0\0\0\0", 8}};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        FILE *file = fopen(below(world, "entries"), "ab");
        assert_non_null(file);
        assert_int_equal(fwrite(tails[i].bytes, 1, tails[i].length, file), tails[i].length);
        fclose(file);
        /* Reading leaves it alone. */
        struct ct_ledger *ledger = NULL;
        assert_int_equal(ct_ledger_open(world->path, ORIGIN, NULL, &ledger), CT_OK);
        assert_holds(world, ledger, 3, 3);
        ct_ledger_close(ledger);
        struct ct_buf found = fixture_read(below(world, "entries"));
        assert_int_equal(found.length, entries.length + tails[i].length);
        ct_buf_deinit(&found);

        ledger = open_ledger(world);
        assert_holds(world, ledger, 3, 3);
        ct_ledger_close(ledger);
        assert_file(world, "entries", entries.data, entries.length);
    }
    ct_buf_deinit(&entries);
}

static void whole_entries_behind_the_checkpoint_stay(void **state) {
    const struct world *world = *state;
    make_ledger(world, 3);
    FILE *file = fopen(below(world, "entries"), "ab");
    assert_non_null(file);
    for (uint64_t i = 3; i < 5; i++) {
        char text[64];
        size_t length = entry_text(i, text);
        fputc(0, file);
        fputc((int)length, file);
        assert_int_equal(fwrite(text, 1, length, file), length);
    }
    fclose(file);
    struct ct_ledger *ledger = open_ledger(world);
    assert_holds(world, ledger, 5, 3);
    assert_int_equal(ct_ledger_cut(ledger, 2), CT_ERR_RULE);
    assert_int_equal(ct_ledger_cut(ledger, 6), CT_ERR_RULE);
    assert_int_equal(append(ledger, 5, 8), CT_OK);
    assert_int_equal(ct_ledger_cut(ledger, 7), CT_OK);
    assert_holds(world, ledger, 7, 3);
    assert_int_equal(ct_ledger_cut(ledger, 4), CT_OK);
    assert_holds(world, ledger, 4, 3);
    assert_int_equal(append(ledger, 4, 9), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_holds(world, ledger, 9, 9);
    ct_ledger_close(ledger);
    ledger = open_ledger(world);
    assert_holds(world, ledger, 9, 9);
    ct_ledger_close(ledger);
}

static void damaged_tiles_are_written_again(void **state) {
    const struct world *world = *state;
    make_ledger(world, 300);
    static const char *const names[] = {"tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1",
                                        "tile/entries/000", "tile/entries/001.p/44"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct ct_buf right = fixture_read(below(world, names[i]));
        uint8_t *wrong = malloc(right.length + 1);
        assert_non_null(wrong);
        memcpy(wrong, right.data, right.length);
        wrong[right.length / 2] ^= 4;
        fixture_write(below(world, names[i]), wrong, right.length);
        assert_int_equal(reopen(world), CT_OK);
        assert_file(world, names[i], right.data, right.length);
        fixture_write(below(world, names[i]), right.data, right.length - 1);
        assert_int_equal(reopen(world), CT_OK);
        assert_file(world, names[i], right.data, right.length);
        assert_int_equal(unlink(below(world, names[i])), 0);
        assert_int_equal(reopen(world), CT_OK);
        assert_file(world, names[i], right.data, right.length);
        free(wrong);
        ct_buf_deinit(&right);
    }
    /* Left by a publication that did not come to its checkpoint. */
    fixture_write(below(world, "tile/0/001.p/45"), "x", 1);
    fixture_write(below(world, "tile/0/001"), "x", 1);
    fixture_write(below(world, "tile.tmp"), "x", 1);
    assert_int_equal(reopen(world), CT_OK);
    assert_false(there(world, "tile/0/001.p/45"));
    assert_false(there(world, "tile/0/001"));
    assert_false(there(world, "tile.tmp"));
}

static void every_changed_byte_of_published_entries_is_seen(void **state) {
    const struct world *world = *state;
    make_ledger(world, 20);
    struct ct_buf entries = fixture_read(below(world, "entries"));
    for (size_t i = 0; i < entries.length; i++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            entries.data[i] ^= (uint8_t)(1u << bit);
            fixture_write(below(world, "entries"), entries.data, entries.length);
            assert_int_equal(reopen(world), CT_ERR_DIGEST);
            /* Refused, not "repaired". */
            assert_file(world, "entries", entries.data, entries.length);
            entries.data[i] ^= (uint8_t)(1u << bit);
        }
        fixture_write(below(world, "entries"), entries.data, i);
        assert_int_equal(reopen(world), CT_ERR_DIGEST);
    }
    fixture_write(below(world, "entries"), entries.data, entries.length);
    assert_int_equal(reopen(world), CT_OK);
    ct_buf_deinit(&entries);
}

/* Kept checkpoints are published ones too: a ledger put back behind one of them is refused. */
static void rollback_behind_a_kept_checkpoint_is_refused(void **state) {
    const struct world *world = *state;
    make_ledger(world, 10);
    struct ct_buf old_entries = fixture_read(below(world, "entries"));
    struct ct_buf old_checkpoint = fixture_read(below(world, "checkpoint"));
    struct ct_ledger *ledger = open_ledger(world);
    assert_int_equal(append(ledger, 10, 12), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_int_equal(ct_ledger_keep(ledger), CT_OK);
    assert_int_equal(ct_ledger_keep(ledger), CT_OK);
    struct ct_bytes note = ct_ledger_checkpoint(ledger);
    assert_file(world, "checkpoints/12", note.data, note.length);
    assert_int_equal(append(ledger, 12, 14), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);

    /* Its partial tile is implied for good. */
    assert_int_equal(unlink(below(world, "tile/entries/000.p/12")), 0);
    assert_int_equal(reopen(world), CT_OK);
    assert_true(there(world, "tile/entries/000.p/12"));

    fixture_write(below(world, "checkpoint"), old_checkpoint.data, old_checkpoint.length);
    assert_int_equal(reopen(world), CT_ERR_DIGEST);
    fixture_write(below(world, "entries"), old_entries.data, old_entries.length);
    assert_int_equal(reopen(world), CT_ERR_DIGEST);
    ct_buf_deinit(&old_entries);
    ct_buf_deinit(&old_checkpoint);
}

/* An honest key over other entries of the same number. */
static void fork_under_a_valid_checkpoint_is_refused(void **state) {
    const struct world *world = *state;
    make_ledger(world, 10);
    struct ct_checkpoint checkpoint = {.origin = ORIGIN, .size = 10, .root = expected_root(9)};
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, world->key, &note), CT_OK);
    fixture_write(below(world, "checkpoint"), note.data, note.length);
    assert_int_equal(reopen(world), CT_ERR_DIGEST);
    ct_buf_deinit(&note);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(append_publish_reopen, world_open, world_close),
        cmocka_unit_test_setup_teardown(misuse_is_refused, world_open, world_close),
        cmocka_unit_test_setup_teardown(partial_tiles_stay_until_the_full_one_is_there, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(torn_tail_is_cut, world_open, world_close),
        cmocka_unit_test_setup_teardown(whole_entries_behind_the_checkpoint_stay, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(damaged_tiles_are_written_again, world_open, world_close),
        cmocka_unit_test_setup_teardown(every_changed_byte_of_published_entries_is_seen, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(rollback_behind_a_kept_checkpoint_is_refused, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(fork_under_a_valid_checkpoint_is_refused, world_open,
                                        world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
