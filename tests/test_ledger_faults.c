/* The order in which the ledger writes, and each of its writes failing once. */
#include "ledger_world.h"

/* What the disk was told: which files hold bytes and which directories hold names that no sync has
 * covered. From operation `fail_at` on everything fails (a dead process), or that one alone. */
struct watcher {
    const char *root;
    unsigned count, fail_at, renames_of_checkpoint;
    enum ct_disk_verdict verdict;
    bool once;
    enum ct_disk_op failed_op;
    size_t dirty_count;
    char dirty[128][PATH_MAX];
};

static void set_dirty(struct watcher *watcher, const char *path, bool dirty) {
    size_t i = 0;
    while (i < watcher->dirty_count && strcmp(watcher->dirty[i], path) != 0) {
        i++;
    }
    if (dirty && i == watcher->dirty_count) {
        assert_true(i < 128);
        snprintf(watcher->dirty[i], sizeof watcher->dirty[i], "%s", path);
        watcher->dirty_count++;
    } else if (!dirty && i < watcher->dirty_count) {
        watcher->dirty_count--;
        memmove(watcher->dirty[i], watcher->dirty[watcher->dirty_count], PATH_MAX);
    }
}

static void parent_of(const char *path, char out[PATH_MAX]) {
    snprintf(out, PATH_MAX, "%.*s", (int)(strrchr(path, '/') - path), path);
}

static bool is_dirty(const struct watcher *watcher, const char *path) {
    for (size_t i = 0; i < watcher->dirty_count; i++) {
        if (strcmp(watcher->dirty[i], path) == 0) {
            return true;
        }
    }
    return false;
}

/* No name for bytes that are not synced, no tile over entries and no checkpoint over anything that
 * is not. */
static void check_rename(const struct watcher *watcher, const char *from, const char *path) {
    char entries[PATH_MAX];
    const char *name = path + strlen(watcher->root) + 1;
    snprintf(entries, sizeof entries, "%s/entries", watcher->root);
    if (is_dirty(watcher, from)) {
        fail_msg("%s gets its name before it is synced", path);
    }
    if (strncmp(name, "tile/", 5) == 0 && is_dirty(watcher, entries)) {
        fail_msg("%s gets its name before the entries are synced", path);
    }
    if (strcmp(name, "checkpoint") == 0 && watcher->dirty_count > 0) {
        fail_msg("%s gets its name before %s is synced", path, watcher->dirty[0]);
    }
}

static void follow(struct watcher *watcher, const struct ct_disk_step *step) {
    const char *path = step->path;
    char parent[PATH_MAX];
    parent_of(path, parent);
    switch (step->op) {
    case CT_DISK_WRITE:
    case CT_DISK_CUT:
        set_dirty(watcher, path, true);
        break;
    case CT_DISK_SYNC:
    case CT_DISK_SYNC_DIR:
        set_dirty(watcher, path, false);
        break;
    case CT_DISK_RENAME:
        check_rename(watcher, step->from, path);
        watcher->renames_of_checkpoint += strcmp(path + strlen(watcher->root), "/checkpoint") == 0;
        set_dirty(watcher, parent, true);
        break;
    case CT_DISK_MAKE_DIR:
        set_dirty(watcher, parent, true);
        break;
    case CT_DISK_MAKE:
    case CT_DISK_LINK:
    case CT_DISK_REMOVE:
        break;
    }
}

static enum ct_disk_verdict watch(void *user, const struct ct_disk_step *step) {
    struct watcher *watcher = user;
    watcher->count++;
    if (watcher->count > watcher->fail_at &&
        (!watcher->once || watcher->count == watcher->fail_at + 1)) {
        if (watcher->count == watcher->fail_at + 1) {
            watcher->failed_op = step->op;
        }
        if (watcher->renames_of_checkpoint > 0 && strcmp(step->path, watcher->root) == 0) {
            /* The name that is not synced is the checkpoint's own: trying again replaces it. */
            set_dirty(watcher, step->path, false);
        }
        return watcher->verdict;
    }
    follow(watcher, step);
    return CT_DISK_GO;
}

static struct watcher *watcher_new(const struct world *world, unsigned fail_at) {
    struct watcher *watcher = calloc(1, sizeof *watcher);
    assert_non_null(watcher);
    watcher->root = world->path;
    watcher->fail_at = fail_at;
    ct_disk_watch(watch, watcher);
    return watcher;
}

static void checkpoint_comes_last(void **state) {
    const struct world *world = *state;
    struct watcher *watcher = watcher_new(world, UINT32_MAX);
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    static const uint64_t sizes[] = {1, 2, 7, 255, 256, 257, 300, 2000, 11000};
    uint64_t size = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(append(ledger, size, sizes[i]), CT_OK);
        watcher->count = 0;
        assert_int_equal(ct_ledger_publish(ledger), CT_OK);
        size = sizes[i];
        assert_int_equal(watcher->dirty_count, 0);
        assert_int_equal(watcher->renames_of_checkpoint, i + 2);
        if (sizes[i] == 7) {
            /* Entries 2, bundle and tile 4 each with 2 directories synced, checkpoint 5. */
            assert_int_equal(watcher->count, 17);
        }
        assert_int_equal(ct_ledger_keep(ledger), CT_OK);
        assert_int_equal(watcher->dirty_count, 0);
    }
    ct_ledger_close(ledger);
    ledger = open_ledger(world);
    assert_int_equal(watcher->dirty_count, 0);
    assert_holds(world, ledger, 11000, 11000);
    ct_ledger_close(ledger);
    ct_disk_watch(NULL, NULL);
    free(watcher);
}

/* A session that starts from a ledger of 250 published entries: opens it and publishes three times,
 * over the end of the first tile; once more where the disk is full, with `retry`. out_told is the
 * newest size that it was told is published. */
static enum ct_err session(const struct world *world, bool retry, uint64_t *out_told) {
    static const uint64_t sizes[] = {253, 258, 300};
    struct ct_ledger *ledger = NULL;
    *out_told = 250;
    CT_TRY(ct_ledger_open(world->path, ORIGIN, world->key, &ledger));
    enum ct_err err = CT_OK;
    for (size_t i = 0; i < 3 && err == CT_OK; i++) {
        err = append(ledger, ct_ledger_size(ledger), sizes[i]);
        if (err == CT_OK) {
            err = ct_ledger_publish(ledger);
        }
        if (err == CT_ERR_FULL && retry) {
            err = ct_ledger_publish(ledger);
        }
        if (err == CT_OK) {
            *out_told = sizes[i];
            err = ct_ledger_keep(ledger);
        } else if (err != CT_ERR_FULL) {
            uint64_t index = 0;
            assert_int_equal(
                ct_ledger_append(ledger, (struct ct_bytes){(const uint8_t *)"x", 1}, &index),
                CT_ERR_STATE);
            assert_int_equal(ct_ledger_publish(ledger), CT_ERR_STATE);
        }
    }
    ct_ledger_close(ledger);
    return err;
}

/* All tiles that this size implies are there with the right bytes. */
static void assert_tiles(const struct world *world, uint64_t size) {
    struct ct_hash root;
    struct ct_frontier frontier = {.size = 0};
    for (uint64_t first = 0; first < size; first += 256) {
        uint32_t width = size - first < 256 ? (uint32_t)(size - first) : 256;
        char name[CT_TILE_PATH_MAX];
        ct_tile_path(0, first / 256, width, name);
        struct ct_buf tile = fixture_read(below(world, name));
        assert_int_equal(tile.length, 32 * width);
        for (uint32_t i = 0; i < width; i++) {
            struct ct_hash leaf;
            memcpy(leaf.bytes, tile.data + 32 * (size_t)i, 32);
            ct_frontier_append(&frontier, &leaf);
        }
        ct_buf_deinit(&tile);
        ct_tile_path(-1, first / 256, width, name);
        assert_true(there(world, name));
    }
    root = ct_frontier_root(&frontier);
    struct ct_hash expected = expected_root(size);
    assert_memory_equal(&root, &expected, sizeof root);
}

static void base_make(const struct world *world) {
    make_ledger(world, 250);
    /* The last session died in its middle: there is something to cut, and to settle. */
    FILE *file = fopen(below(world, "entries"), "ab");
    assert_non_null(file);
    char text[64];
    size_t length = entry_text(250, text);
    fputc(0, file);
    fputc((int)length, file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fwrite("\0\22torn", 1, 6, file), 6);
    fclose(file);
}

static void wipe(const struct world *world) {
    fixture_remove(world->path);
}

/* Whatever fails, what was told to be published is there after reopening, and the log goes on. */
static void every_operation_may_fail(void **state) {
    const struct world *world = *state;
    unsigned operations = 0, told_in_spite = 0;
    unsigned seen[CT_DISK_REMOVE + 1] = {0};
    base_make(world);
    struct watcher *watcher = watcher_new(world, UINT32_MAX);
    uint64_t told = 0;
    assert_int_equal(session(world, false, &told), CT_OK);
    operations = watcher->count;
    assert_int_equal(told, 300);
    ct_disk_watch(NULL, NULL);
    free(watcher);
    wipe(world);
    static const enum ct_disk_verdict verdicts[] = {CT_DISK_FAIL, CT_DISK_TEAR, CT_DISK_FULL};
    for (unsigned mode = 0; mode < 6; mode++) {
        for (unsigned n = 0; n < operations; n++) {
            base_make(world);
            watcher = watcher_new(world, n);
            watcher->verdict = verdicts[mode / 2];
            watcher->once = (mode & 1) != 0;
            bool full = watcher->verdict == CT_DISK_FULL;
            enum ct_err err = session(world, watcher->once, &told);
            ct_disk_watch(NULL, NULL);
            seen[watcher->failed_op]++;
            /* Removing replaced partial tiles may wait, and so may a full disk that has room again;
             * all else is an error. */
            assert_true(err == (full ? CT_ERR_FULL : CT_ERR_IO) ||
                        (err == CT_OK &&
                         (watcher->failed_op == CT_DISK_REMOVE || (full && watcher->once))));
            told_in_spite += err == CT_OK && full && told == 300;
            free(watcher);

            struct ct_ledger *ledger = open_ledger(world);
            uint64_t size = ct_ledger_size(ledger);
            uint64_t published = ct_ledger_published(ledger);
            assert_in_range(published, told, 300);
            assert_in_range(size, published, 300);
            assert_holds(world, ledger, size, published);
            assert_tiles(world, published);
            assert_int_equal(append(ledger, size, 310), CT_OK);
            assert_int_equal(ct_ledger_publish(ledger), CT_OK);
            ct_ledger_close(ledger);
            assert_tiles(world, 310);
            assert_false(there(world, "tile/0/000.p"));
            wipe(world);
        }
    }
    for (size_t op = 0; op <= CT_DISK_REMOVE; op++) {
        assert_int_equal(seen[op] != 0, op != CT_DISK_LINK);
    }
    assert_true(told_in_spite > operations / 2);
}

/* A publication of more files than are synced together, cut in its middle: the next process finds
 * what was published, and has all tiles after it has published more. */
static void a_large_publication_may_fail(void **state) {
    const struct world *world = *state;
    enum { BEFORE = 10, AFTER = 9000 };
    static const enum ct_disk_verdict verdicts[] = {CT_DISK_FAIL, CT_DISK_TEAR, CT_DISK_FULL};
    enum ct_err err = CT_ERR_IO;
    for (unsigned n = 0; err != CT_OK; n += 23) {
        make_ledger(world, BEFORE);
        struct ct_ledger *ledger = open_ledger(world);
        assert_int_equal(append(ledger, BEFORE, AFTER), CT_OK);
        struct watcher *watcher = watcher_new(world, n);
        watcher->verdict = verdicts[n % 3];
        err = ct_ledger_publish(ledger);
        ct_disk_watch(NULL, NULL);
        assert_true(err == CT_OK ? watcher->count <= n : n < 600);
        free(watcher);
        if (err == CT_ERR_FULL) {
            assert_int_equal(ct_ledger_publish(ledger), CT_OK);
        }
        ct_ledger_close(ledger);
        const uint64_t told = err == CT_OK || err == CT_ERR_FULL ? AFTER : BEFORE;
        ledger = open_ledger(world);
        assert_true(ct_ledger_published(ledger) == told || ct_ledger_published(ledger) == AFTER);
        assert_tiles(world, ct_ledger_published(ledger));
        assert_int_equal(append(ledger, ct_ledger_size(ledger), AFTER + 1), CT_OK);
        assert_int_equal(ct_ledger_publish(ledger), CT_OK);
        ct_ledger_close(ledger);
        assert_tiles(world, AFTER + 1);
        for (unsigned i = 0; i < 64; i++) {
            char name[32];
            snprintf(name, sizeof name, "tile.%u.tmp", i);
            assert_false(there(world, name));
        }
        wipe(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(checkpoint_comes_last, world_open, world_close),
        cmocka_unit_test_setup_teardown(every_operation_may_fail, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_large_publication_may_fail, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
