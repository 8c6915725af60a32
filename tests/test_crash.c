/* Power cuts at every operation, with every outcome that a file system may leave (crash_disk.h):
 * the ledger never forks and never falls behind what was told, and blobs, caches and whole
 * files are right or not there. */
#include "coordinator/cache.h"
#include "coordinator/run.h"
#include "crash_disk.h"
#include "ledger_world.h"

#define PROMISES_MAX 4096

/* What anybody may have seen: checkpoints under their name, synced or not, and of those the newest
 * that was acknowledged. */
struct promises {
    const struct world *world;
    size_t count;
    struct ct_checkpoint seen[PROMISES_MAX];
    uint64_t told;
    unsigned generation; /* of the process; entries of different ones differ */
};

static void see(void *user, const struct ct_disk_step *step) {
    struct promises *promises = user;
    const char *slash = strrchr(step->path, '/');
    if (step->op != CT_DISK_RENAME || slash == NULL || strcmp(slash, "/checkpoint") != 0) {
        return;
    }
    /* The name is given after this. */
    struct ct_buf note = fixture_read(step->from);
    assert_true(promises->count < PROMISES_MAX);
    assert_int_equal(ct_checkpoint_open(ct_buf_bytes(&note), ORIGIN, &promises->world->public_key,
                                        &promises->seen[promises->count++]),
                     CT_OK);
    ct_buf_deinit(&note);
}

/* An entry that knows whether it is whole, as signed ones do. */
static struct ct_bytes make_entry(uint64_t index, unsigned generation, char out[128]) {
    char text[64], hex[CT_HEX_BYTES];
    int length = snprintf(text, sizeof text, "%llu of %u%.*s", (unsigned long long)index,
                          generation, (int)(index % 9), "         ");
    struct ct_hash digest = ct_sha256((struct ct_bytes){(const uint8_t *)text, (size_t)length});
    ct_hash_hex(&digest, hex);
    length = snprintf(out, 128, "%.16s %s", hex, text);
    return (struct ct_bytes){(const uint8_t *)out, (size_t)length};
}

static bool is_whole(struct ct_bytes entry) {
    char hex[CT_HEX_BYTES];
    if (entry.length < 18) {
        return false;
    }
    struct ct_hash digest = ct_sha256((struct ct_bytes){entry.data + 17, entry.length - 17});
    ct_hash_hex(&digest, hex);
    return memcmp(hex, entry.data, 16) == 0;
}

/* Opens the ledger and drops what is no entry, as a coordinator does. */
static enum ct_err reopen_ledger(const struct world *world, struct ct_ledger **out) {
    CT_TRY(ct_ledger_open(world->path, ORIGIN, world->key, out));
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (uint64_t i = ct_ledger_published(*out); i < ct_ledger_size(*out) && err == CT_OK; i++) {
        assert_int_equal(ct_ledger_read(*out, i, &entry), CT_OK);
        if (!is_whole(ct_buf_bytes(&entry))) {
            err = ct_ledger_cut(*out, i);
        }
    }
    ct_buf_deinit(&entry);
    if (err != CT_OK) {
        ct_ledger_close(*out);
    }
    return err;
}

/* One process: opens, appends and publishes some times, until something fails. */
static enum ct_err live(struct promises *promises, const uint32_t *batches, size_t count) {
    struct ct_ledger *ledger = NULL;
    promises->generation++;
    CT_TRY(reopen_ledger(promises->world, &ledger));
    enum ct_err err = CT_OK;
    for (size_t i = 0; i < count && err == CT_OK; i++) {
        for (uint32_t j = 0; j < batches[i]; j++) {
            char text[128];
            uint64_t index = 0;
            struct ct_bytes entry = make_entry(ct_ledger_size(ledger), promises->generation, text);
            assert_int_equal(ct_ledger_append(ledger, entry, &index), CT_OK);
        }
        for (int tries = 0; tries < 3; tries++) {
            err = ct_ledger_publish(ledger);
            if (err != CT_ERR_FULL) {
                break;
            }
        }
        if (err == CT_OK) {
            promises->told = ct_ledger_published(ledger);
            err = ct_ledger_keep(ledger);
        }
    }
    ct_ledger_close(ledger);
    return err;
}

static void assert_tile_files(const struct world *world, uint64_t size,
                              const struct ct_hash *leaves) {
    for (uint64_t first = 0; first < size; first += 256) {
        uint32_t width = size - first < 256 ? (uint32_t)(size - first) : 256;
        char name[CT_TILE_PATH_MAX];
        ct_tile_path(0, first / 256, width, name);
        assert_file(world, name, leaves[first].bytes, 32 * (size_t)width);
        ct_tile_path(-1, first / 256, width, name);
        assert_true(there(world, name));
    }
}

/* The log is an extension of everything that was seen, and as long as what was told. */
static void assert_kept(struct promises *promises) {
    const struct world *world = promises->world;
    struct ct_ledger *ledger = NULL;
    if (reopen_ledger(world, &ledger) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    const uint64_t size = ct_ledger_size(ledger);
    assert_true(ct_ledger_published(ledger) >= promises->told);
    struct ct_frontier frontier = {.size = 0};
    struct ct_hash *leaves = calloc(size + 1, sizeof leaves[0]);
    struct ct_hash *roots = calloc(size + 1, sizeof roots[0]);
    assert_true(leaves != NULL && roots != NULL);
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    for (uint64_t i = 0; i < size; i++) {
        assert_int_equal(ct_ledger_read(ledger, i, &entry), CT_OK);
        assert_true(is_whole(ct_buf_bytes(&entry)));
        leaves[i] = ct_leaf_hash(ct_buf_bytes(&entry));
        roots[i] = ct_frontier_root(&frontier);
        ct_frontier_append(&frontier, &leaves[i]);
    }
    roots[size] = ct_frontier_root(&frontier);
    for (size_t i = 0; i < promises->count; i++) {
        const struct ct_checkpoint *seen = &promises->seen[i];
        if (seen->size > size || !ct_hash_equal(&seen->root, &roots[seen->size])) {
            fail_msg("a checkpoint of %llu entries was seen; the log of %llu does not extend it",
                     (unsigned long long)seen->size, (unsigned long long)size);
        }
    }
    assert_tile_files(world, ct_ledger_published(ledger), leaves);
    ct_buf_deinit(&entry);
    free(leaves);
    free(roots);
    ct_ledger_close(ledger);
}

static struct promises *promises_new(const struct world *world) {
    struct promises *promises = calloc(1, sizeof *promises);
    assert_non_null(promises);
    promises->world = world;
    return promises;
}

static void begin(const struct world *world, struct promises *promises, uint32_t size) {
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_ledger_create(world->path, ORIGIN, world->key, &ledger), CT_OK);
    ct_ledger_close(ledger);
    assert_int_equal(live(promises, &size, 1), CT_OK);
}

/* From the end of the first tile into the second, a cut after each operation. */
static void ledger_survives_a_cut_after_every_operation(void **state) {
    const struct world *world = *state;
    static const uint32_t batches[] = {3, 5, 42};
    struct promises *promises = promises_new(world);
    begin(world, promises, 250);
    struct crash_disk *pristine = crash_disk_new(world->dir, 0);
    struct crash_disk *counter = crash_disk_new(world->dir, 0);
    assert_int_equal(live(promises, batches, 3), CT_OK);
    const unsigned operations = counter->operations;
    crash_disk_free(counter);
    assert_true(operations > 50);
    for (unsigned n = 0; n <= operations; n++) {
        for (uint64_t seed = 1; seed <= 4; seed++) {
            crash_disk_cut(pristine);
            promises->count = 0;
            promises->told = 250;
            struct crash_disk *disk = crash_disk_new(world->dir, 1000 * n + seed);
            disk->done = see;
            disk->user = promises;
            crash_disk_plan(disk, n, false, seed % 2 == 0 ? CT_DISK_TEAR : CT_DISK_FAIL);
            enum ct_err err = live(promises, batches, 3);
            assert_true(err != CT_OK || promises->told == 300);
            crash_disk_cut(disk);
            assert_kept(promises);
            crash_disk_free(disk);
        }
    }
    crash_disk_free(pristine);
    free(promises);
}

/* A run's long life: processes that die, disks that fail once or fill up, power cuts in between,
 * and also in the middle of recovering from the last one. */
static void ledger_survives_a_life_of_failures(void **state) {
    const struct world *world = *state;
    struct promises *promises = promises_new(world);
    begin(world, promises, 1);
    struct crash_disk *disk = crash_disk_new(world->dir, 4242);
    disk->done = see;
    disk->user = promises;
    for (int life = 0; life < 120; life++) {
        static const enum ct_disk_verdict verdicts[] = {CT_DISK_FAIL, CT_DISK_TEAR, CT_DISK_FULL};
        uint32_t batches[3];
        for (size_t i = 0; i < 3; i++) {
            batches[i] = 1 + crash_draw(disk, life % 25 == 0 ? 300 : 12);
        }
        crash_disk_plan(disk, crash_draw(disk, 90), crash_draw(disk, 2) == 0,
                        verdicts[crash_draw(disk, 3)]);
        enum ct_err err = live(promises, batches, 3);
        assert_true(err == CT_OK || err == CT_ERR_IO || err == CT_ERR_FULL);
        if (crash_draw(disk, 3) > 0) {
            crash_disk_cut(disk);
        } else {
            /* The process alone died: the next one finds what the kernel has. */
            crash_disk_plan(disk, UINT32_MAX, false, CT_DISK_FAIL);
        }
        if (life % 5 == 4) {
            assert_kept(promises);
        }
    }
    assert_true(promises->told > 500);
    crash_disk_free(disk);
    free(promises);
}

/* A blob that was stored stays; one that has a name is right. */
static void blobs_are_right_or_not_there(void **state) {
    const struct world *world = *state;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/blobs", world->dir);
    struct crash_disk *disk = crash_disk_new(world->dir, 7);
    enum { BLOBS = 120 };
    bool *stored = calloc(BLOBS, sizeof stored[0]);
    assert_non_null(stored);
    for (uint32_t life = 0; life < BLOBS; life++) {
        struct ct_blobs blobs;
        struct ct_blob_ref ref;
        char text[200];
        crash_disk_plan(disk, crash_draw(disk, 14), crash_draw(disk, 2) == 0,
                        (enum ct_disk_verdict)(1 + crash_draw(disk, 3)));
        memset(text, (int)life, sizeof text);
        snprintf(text, sizeof text, "blob %u", life % 40);
        const struct ct_bytes bytes = {(const uint8_t *)text, sizeof text / (1 + life % 3)};
        enum ct_err err = ct_blobs_init(&blobs, path);
        if (err == CT_OK) {
            err = ct_blobs_sweep(&blobs);
        }
        if (err == CT_OK) {
            err = ct_blobs_put(&blobs, bytes, &ref);
        }
        assert_true(err == CT_OK || err == CT_ERR_IO || err == CT_ERR_FULL);
        stored[life] = err == CT_OK;
        crash_disk_cut(disk);
        assert_int_equal(ct_blobs_init(&blobs, path), CT_OK);
        for (uint32_t i = 0; i <= life; i++) {
            memset(text, (int)i, sizeof text);
            snprintf(text, sizeof text, "blob %u", i % 40);
            const struct ct_bytes old = {(const uint8_t *)text, sizeof text / (1 + i % 3)};
            struct ct_buf found;
            ref = (struct ct_blob_ref){ct_sha256(old), old.length};
            err = ct_blobs_get(&blobs, &ref, 200, &found);
            assert_true(err == CT_OK || (err == CT_ERR_NOT_FOUND && !stored[i]));
            if (err == CT_OK) {
                ct_buf_deinit(&found);
            }
        }
    }
    free(stored);
    crash_disk_free(disk);
}

/* Never synced, so never trusted: what is taken from a slot has the model's digest. */
static void cached_models_are_right_or_not_taken(void **state) {
    const struct world *world = *state;
    static const struct ct_model_shape shape = {
        .arch = CT_ARCH_GPT2, .layers = 1, .heads = 2, .width = 8, .context = 8, .vocab = 16};
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    float *theta = calloc(layout.parameters, sizeof theta[0]);
    float *found = calloc(layout.parameters, sizeof found[0]);
    assert_true(theta != NULL && found != NULL);
    struct crash_disk *disk = crash_disk_new(world->dir, 13);
    unsigned taken = 0, lost = 0;
    for (uint32_t round = 1; round < 200; round++) {
        for (size_t i = 0; i < layout.parameters; i++) {
            theta[i] = (float)(round + i);
        }
        struct ct_hash model = ct_model_digest(&layout, theta);
        crash_disk_plan(disk, crash_draw(disk, 6), crash_draw(disk, 2) == 0,
                        (enum ct_disk_verdict)(1 + crash_draw(disk, 3)));
        ct_cache_save(world->dir, round, &layout, theta);
        crash_disk_cut(disk);
        if (ct_cache_load(world->dir, &layout, &model, found)) {
            assert_memory_equal(found, theta, layout.parameters * sizeof theta[0]);
            taken++;
        } else {
            lost++;
        }
    }
    assert_true(taken > 5 && lost > 20);
    free(theta);
    free(found);
    ct_layout_deinit(&layout);
    crash_disk_free(disk);
}

/* ct_file_replace leaves the old content or the new, and the new once it has said so. */
static void replaced_files_are_old_or_new(void **state) {
    const struct world *world = *state;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/file", world->dir);
    struct crash_disk *disk = crash_disk_new(world->dir, 17);
    uint32_t told = 0, last = 0;
    for (uint32_t life = 1; life < 300; life++) {
        char text[100];
        memset(text, 'a' + (int)(life % 26), sizeof text);
        snprintf(text, 12, "%010u", life);
        crash_disk_plan(disk, crash_draw(disk, 9), crash_draw(disk, 2) == 0,
                        (enum ct_disk_verdict)(1 + crash_draw(disk, 3)));
        if (ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, 100}) == CT_OK) {
            told = life;
        }
        crash_disk_cut(disk);
        if (access(path, F_OK) != 0) {
            assert_int_equal(told, 0);
            continue;
        }
        struct ct_buf bytes = fixture_read(path);
        assert_int_equal(bytes.length, 100);
        last = (uint32_t)strtoul((const char *)bytes.data, NULL, 10);
        assert_in_range(last, told, life);
        assert_int_equal(bytes.data[99], 'a' + (int)(last % 26));
        ct_buf_deinit(&bytes);
    }
    assert_true(told > 50);
    crash_disk_free(disk);
}

int main(void) {
    /* Recoveries warn, hundreds of times. */
    setenv("COTRAIN_LOG", "error", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ledger_survives_a_cut_after_every_operation, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(ledger_survives_a_life_of_failures, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(blobs_are_right_or_not_there, world_open, world_close),
        cmocka_unit_test_setup_teardown(cached_models_are_right_or_not_taken, world_open,
                                        world_close),
        cmocka_unit_test_setup_teardown(replaced_files_are_old_or_new, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
