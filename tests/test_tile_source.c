#include "fixture.h"
#include "ledger_world.h"

#include <cotrain/tile_source.h>

static uint64_t reads;

static enum ct_err counted(void *user, const char *path, struct ct_buf *out) {
    reads++;
    return ct_tile_read_dir(user, path, out);
}

/* Roots and proofs of every size that a ledger on disk had, from its tiles alone, also when the
 * partial tiles of then are gone. */
static void roots_and_proofs_out_of_tiles(void **state) {
    struct world *world = *state;
    enum { SIZE = 67000 };
    make_ledger(world, SIZE);
    struct ct_hash whole = expected_root(SIZE);
    static const uint64_t sizes[] = {1, 2, 255, 256, 257, 511, 512, 65535, 65536, 65537, 66999};
    static struct ct_tile_source source;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct ct_hash root, expected = expected_root(sizes[i]);
        struct ct_proof proof;
        ct_tile_source_init(&source, SIZE, counted, world->path);
        reads = 0;
        assert_int_equal(ct_root_of(sizes[i], ct_tile_source_hash, &source, &root), CT_OK);
        assert_memory_equal(&root, &expected, sizeof root);
        assert_int_equal(ct_prove_consistency(sizes[i], SIZE, ct_tile_source_hash, &source, &proof),
                         CT_OK);
        assert_int_equal(ct_verify_consistency(sizes[i], SIZE, &proof, &root, &whole), CT_OK);
        assert_int_equal(ct_prove_inclusion(sizes[i], SIZE, ct_tile_source_hash, &source, &proof),
                         CT_OK);
        struct ct_hash leaf = expected_leaf(sizes[i]);
        assert_int_equal(ct_verify_inclusion(sizes[i], SIZE, &leaf, &proof, &whole), CT_OK);
        assert_in_range(reads, 1, 12);
        ct_tile_source_deinit(&source);
        /* As of then: its partial tiles were never written, the full ones stand for them. */
        if (sizes[i] < 65536) {
            ct_tile_source_init(&source, sizes[i], ct_tile_read_dir, world->path);
            assert_int_equal(ct_root_of(sizes[i], ct_tile_source_hash, &source, &root), CT_OK);
            assert_memory_equal(&root, &expected, sizeof root);
            ct_tile_source_deinit(&source);
        }
    }
    struct ct_hash root;
    ct_tile_source_init(&source, SIZE, ct_tile_read_dir, world->path);
    assert_int_equal(truncate(below(world, "tile/0/000"), 8190), 0);
    assert_int_equal(ct_tile_source_hash(&source, 0, 3, &root), CT_ERR_FORMAT);
    assert_int_equal(unlink(below(world, "tile/0/000")), 0);
    assert_int_equal(ct_tile_source_hash(&source, 0, 3, &root), CT_ERR_NOT_FOUND);
    ct_tile_source_deinit(&source);
}

/* A real log of others: its sixteen checkpoints are consistent, by its partial tiles. */
static void tessera_tiles(void **state) {
    (void)state;
    static const char vkey[] =
        "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    char origin[CT_ORIGIN_BYTES_MAX], path[PATH_MAX], dir[PATH_MAX];
    struct ct_hash key;
    assert_int_equal(ct_vkey_parse(vkey, origin, &key), CT_OK);
    snprintf(dir, sizeof dir, "%s", fixture_vector("tlog-tiles", path));
    struct ct_checkpoint checkpoints[16];
    for (uint64_t size = 0; size < 16; size++) {
        char name[64];
        snprintf(name, sizeof name, "tlog-tiles/checkpoint.%d", (int)size);
        struct ct_buf note = fixture_read(fixture_vector(name, path));
        assert_int_equal(ct_checkpoint_open(ct_buf_bytes(&note), origin, &key, &checkpoints[size]),
                         CT_OK);
        ct_buf_deinit(&note);
        struct ct_tile_source source;
        struct ct_hash root;
        ct_tile_source_init(&source, size, ct_tile_read_dir, dir);
        assert_int_equal(ct_root_of(size, ct_tile_source_hash, &source, &root), CT_OK);
        assert_memory_equal(&root, &checkpoints[size].root, sizeof root);
        for (uint64_t old = 1; old < size; old++) {
            struct ct_proof proof;
            assert_int_equal(ct_prove_consistency(old, size, ct_tile_source_hash, &source, &proof),
                             CT_OK);
            assert_int_equal(
                ct_verify_consistency(old, size, &proof, &checkpoints[old].root, &root), CT_OK);
        }
        ct_tile_source_deinit(&source);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(roots_and_proofs_out_of_tiles, world_open, world_close),
        cmocka_unit_test(tessera_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
