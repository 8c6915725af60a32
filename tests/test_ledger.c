#include "ledger_world.h"

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
    assert_false(there(world, "tile.0.tmp"));
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

static enum ct_err check_all(const struct world *world) {
    struct ct_ledger *ledger = open_ledger(world);
    enum ct_err err = ct_ledger_check(ledger);
    ct_ledger_close(ledger);
    return err;
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
        assert_int_equal(check_all(world), CT_OK);
        assert_file(world, names[i], right.data, right.length);
        fixture_write(below(world, names[i]), right.data, right.length - 1);
        assert_int_equal(reopen(world), CT_OK);
        assert_int_equal(check_all(world), CT_OK);
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
    fixture_write(below(world, "tile.63.tmp"), "x", 1);
    assert_int_equal(reopen(world), CT_OK);
    assert_false(there(world, "tile/0/001.p/45"));
    assert_false(there(world, "tile/0/001"));
    assert_false(there(world, "tile.63.tmp"));
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

/* A log that other programs wrote and accepted: our geometry names its files, our parser reads
 * them, our frontier gives its root. */
static enum ct_err grow(void *user, struct ct_bytes entry) {
    struct ct_frontier *frontier = user;
    char expected[64];
    snprintf(expected, sizeof expected, "{\"contribution\":%llu}",
             (unsigned long long)frontier->size);
    assert_int_equal(entry.length, strlen(expected));
    assert_memory_equal(entry.data, expected, entry.length);
    struct ct_hash leaf = ct_leaf_hash(entry);
    ct_frontier_append(frontier, &leaf);
    return CT_OK;
}

static void foreign_log(void **state) {
    (void)state;
    char path[PATH_MAX];
    struct ct_buf note = fixture_read(fixture_vector("selfmade/log3001/log/checkpoint", path));
    struct ct_checkpoint checkpoint;
    assert_int_equal(ct_checkpoint_parse(ct_buf_bytes(&note), &checkpoint), CT_OK);
    assert_int_equal(checkpoint.size, 3001);
    struct ct_frontier frontier = {.size = 0};
    for (uint64_t index = 0; index <= 3001 / 256; index++) {
        char tile[CT_TILE_PATH_MAX];
        char name[2 * CT_TILE_PATH_MAX];
        uint32_t width = index < 3001 / 256 ? 256 : 3001 % 256;
        ct_tile_path(-1, index, width, tile);
        snprintf(name, sizeof name, "selfmade/log3001/log/%s", tile);
        struct ct_buf bundle = fixture_read(fixture_vector(name, path));
        assert_int_equal(ct_bundle_parse(ct_buf_bytes(&bundle), width, grow, &frontier), CT_OK);
        ct_buf_deinit(&bundle);
    }
    struct ct_hash root = ct_frontier_root(&frontier);
    assert_memory_equal(&root, &checkpoint.root, sizeof root);
    ct_buf_deinit(&note);
}

/* The same entries in a ledger of ours give the foreign log's tiles, byte for byte. */
static void same_files_as_the_foreign_log(void **state) {
    const struct world *world = *state;
    char path[PATH_MAX];
    (void)fixture_vector("selfmade/log3001/log/checkpoint", path);
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    for (uint64_t i = 0; i < 3001; i++) {
        char text[64];
        uint64_t index = 0;
        int length = snprintf(text, sizeof text, "{\"contribution\":%llu}", (unsigned long long)i);
        struct ct_bytes entry = {(const uint8_t *)text, (size_t)length};
        assert_int_equal(ct_ledger_append(ledger, entry, &index), CT_OK);
        if (i % 1000 == 77) {
            assert_int_equal(ct_ledger_publish(ledger), CT_OK);
        }
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
    for (int level = -1; level < 2; level++) {
        uint64_t nodes = level == 1 ? 3001 / 256 : 3001;
        for (uint64_t index = 0; index <= nodes / 256; index++) {
            char tile[CT_TILE_PATH_MAX];
            char name[2 * CT_TILE_PATH_MAX];
            ct_tile_path(level, index, index < nodes / 256 ? 256 : (uint32_t)(nodes % 256), tile);
            snprintf(name, sizeof name, "selfmade/log3001/log/%s", tile);
            struct ct_buf foreign = fixture_read(fixture_vector(name, path));
            assert_file(world, tile, foreign.data, foreign.length);
            ct_buf_deinit(&foreign);
        }
    }
}

/* Opening reads the log's end alone: not the entries before it, nor tiles. What is read later is
 * held to the tree; a check of all finds what opening did not look at. */
static void opening_reads_only_the_end(void **state) {
    const struct world *world = *state;
    make_ledger(world, 3000);
    struct ct_buf entries = fixture_read(below(world, "entries"));
    struct ct_buf tile = fixture_read(below(world, "tile/0/003"));
    struct ct_buf bundle = fixture_read(below(world, "tile/entries/005"));
    uint8_t *wrong = malloc(entries.length);
    assert_non_null(wrong);
    memcpy(wrong, entries.data, entries.length);
    memset(wrong, 0xaa, entries.length / 2);
    fixture_write(below(world, "entries"), wrong, entries.length);
    tile.data[100] ^= 1;
    bundle.data[100] ^= 1;
    fixture_write(below(world, "tile/0/003"), tile.data, tile.length);
    fixture_write(below(world, "tile/entries/005"), bundle.data, bundle.length);

    struct ct_ledger *ledger = open_ledger(world);
    struct ct_buf entry;
    struct ct_proof proof;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_ledger_read(ledger, 2900, &entry), CT_OK);
    assert_int_equal(ct_ledger_read(ledger, 0, &entry), CT_OK);
    assert_int_equal(ct_ledger_read(ledger, 3 * 256, &entry), CT_ERR_DIGEST);
    assert_int_equal(ct_ledger_prove(ledger, 3 * 256 + 17, &proof), CT_ERR_DIGEST);
    assert_int_equal(ct_ledger_read(ledger, 5 * 256 + 9, &entry), CT_ERR_DIGEST);
    assert_int_equal(ct_ledger_read(ledger, 6 * 256 + 9, &entry), CT_OK);
    ct_buf_deinit(&entry);
    assert_int_equal(ct_ledger_check(ledger), CT_ERR_DIGEST);
    ct_ledger_close(ledger);

    /* With the entries whole again the tiles that were found wrong are written again. */
    fixture_write(below(world, "entries"), entries.data, entries.length);
    ledger = open_ledger(world);
    assert_holds(world, ledger, 3000, 3000);
    assert_int_equal(ct_ledger_check(ledger), CT_OK);
    ct_ledger_close(ledger);
    tile.data[100] ^= 1;
    bundle.data[100] ^= 1;
    assert_file(world, "tile/0/003", tile.data, tile.length);
    assert_file(world, "tile/entries/005", bundle.data, bundle.length);
    free(wrong);
    ct_buf_deinit(&entries);
    ct_buf_deinit(&tile);
    ct_buf_deinit(&bundle);
}

/* Geometry and root (as in test_merkle.c) of 70,000 entries. */
static void seventy_thousand_entries(void **state) {
    const struct world *world = *state;
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    for (int i = 0; i < 70000; i++) {
        char text[64];
        uint64_t index = 0;
        int length = snprintf(text, sizeof text, "{\"contribution\":%d}", i);
        struct ct_bytes entry = {(const uint8_t *)text, (size_t)length};
        assert_int_equal(ct_ledger_append(ledger, entry, &index), CT_OK);
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    struct ct_bytes note = ct_ledger_checkpoint(ledger);
    assert_non_null(memmem(note.data, note.length,
                           "\n70000\nr2HB8dJJrGcH4CTxqeyH9TWVqNq8W+V+yyIuJvnVwQg=\n", 52));
    ct_ledger_close(ledger);
    static const char *const last[] = {
        "tile/0/272",
        "tile/0/273.p/112",
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/entries/272",
        "tile/entries/273.p/112",
    };
    for (size_t i = 0; i < sizeof last / sizeof last[0]; i++) {
        assert_true(there(world, last[i]));
    }
    assert_false(there(world, "tile/0/273"));
    assert_false(there(world, "tile/2/000"));
    assert_false(there(world, "tile/3"));
    assert_int_equal(reopen(world), CT_OK);
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
        cmocka_unit_test_setup_teardown(opening_reads_only_the_end, world_open, world_close),
        cmocka_unit_test_setup_teardown(foreign_log, world_open, world_close),
        cmocka_unit_test_setup_teardown(same_files_as_the_foreign_log, world_open, world_close),
        cmocka_unit_test_setup_teardown(seventy_thousand_entries, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
