/* A fuzzer against everything that reads what a stranger made of a log: notes, checkpoints,
 * cosignatures, receipts, policies, add-checkpoint requests, evidence, bundles, tiles, verifier
 * keys, and a ledger's directory. What must hold of every input: no crash, nothing accepted that
 * its key did not sign.
 *
 * LLVMFuzzerTestOneInput is libFuzzer's: clang -fsanitize=fuzzer,address -DCT_FUZZ … runs it
 * without the driver below. The first byte chooses the reader. As a test it takes the seeds, and
 * damages to them by the clock for FUZZ_SECONDS (2) with the seed FUZZ_SEED (drawn and printed). */
#include "ledger_world.h"
#include "mutate.h"

#include "coordinator/witness.h"

#include <cotrain/add_checkpoint.h>
#include <cotrain/cosignature.h>
#include <cotrain/evidence.h>
#include <cotrain/log.h>
#include <cotrain/policy.h>
#include <cotrain/receipt.h>
#include <cotrain/tile_source.h>

#include <time.h>

#define WITNESS "witness.example/w"
#define SIZE    300u

enum reader {
    READ_CHECKPOINT,
    READ_COSIGNATURES,
    READ_RECEIPT,
    READ_POLICY,
    READ_REQUEST,
    READ_EVIDENCE,
    READ_BUNDLE,
    READ_TILE,
    READ_VKEY,
    READ_COUNT,
};

/* What is honest, and was signed by keys that no input has. */
static struct {
    bool ready;
    struct world *world;
    char vkey[CT_VKEY_BYTES_MAX], witness_vkey[CT_VKEY_BYTES_MAX];
    struct ct_hash witness_key;
    struct ct_witness witness; /* one of ours, which knows the log */
    struct ct_buf note;        /* of SIZE entries, cosigned */
    size_t text;               /* of it, what is signed */
    struct ct_hash root;
    struct ct_buf seeds[READ_COUNT];
} honest;

static void seed(enum reader reader, const void *data, size_t length) {
    ct_buf_init(&honest.seeds[reader], 1u << 20);
    uint8_t first = (uint8_t)reader;
    assert_int_equal(ct_buf_append(&honest.seeds[reader], &first, 1), CT_OK);
    assert_int_equal(ct_buf_append(&honest.seeds[reader], data, length), CT_OK);
}

static void seed_buf(enum reader reader, struct ct_buf *buf) {
    seed(reader, buf->data, buf->length);
    ct_buf_clear(buf);
}

static enum ct_err own_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    return ct_tile_source_hash(user, level, index, out);
}

static void seed_evidence(struct ct_buf *buf) {
    struct ct_checkpoint other = {.origin = ORIGIN, .size = 7};
    struct ct_buf note;
    static struct ct_tile_source source;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&other, honest.world->key, &note), CT_OK);
    ct_tile_source_init(&source, SIZE, ct_tile_read_dir, honest.world->path);
    assert_int_equal(ct_evidence_seek(honest.vkey, ct_buf_bytes(&note), ct_buf_bytes(&honest.note),
                                      own_hash, &source, buf),
                     CT_ERR_FORKED);
    ct_tile_source_deinit(&source);
    ct_buf_deinit(&note);
    seed_buf(READ_EVIDENCE, buf);
}

static void prepare(void) {
    void *state = NULL;
    struct ct_key *witness = NULL;
    struct ct_proof proof;
    struct ct_buf buf;
    char entry[64];
    honest.ready = true;
    assert_int_equal(world_open(&state), 0);
    honest.world = state;
    make_ledger(honest.world, SIZE);
    honest.root = expected_root(SIZE);
    ct_vkey_format(ORIGIN, &honest.world->public_key, honest.vkey);
    assert_int_equal(ct_key_generate(&witness), CT_OK);
    honest.witness_key = ct_key_public(witness);
    ct_cosigner_format(WITNESS, &honest.witness_key, honest.witness_vkey);
    honest.note = fixture_read(below(honest.world, "checkpoint"));
    honest.text = (size_t)(strstr((char *)honest.note.data, "\n\n") - (char *)honest.note.data);
    assert_int_equal(ct_cosign(ct_buf_bytes(&honest.note), WITNESS, witness, 99, &honest.note),
                     CT_OK);
    ct_key_free(witness);
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/witness", honest.world->dir);
    assert_int_equal(ct_witness_open(dir, "witness.example/ours", &honest.witness), CT_OK);
    assert_int_equal(ct_witness_add_log(&honest.witness, honest.vkey), CT_OK);

    ct_buf_init(&buf, 1u << 20);
    seed(READ_CHECKPOINT, honest.note.data, honest.note.length);
    seed(READ_COSIGNATURES, honest.note.data, honest.note.length);
    struct ct_ledger *ledger = open_ledger(honest.world);
    assert_int_equal(ct_ledger_prove(ledger, 77, &proof), CT_OK);
    size_t length = entry_text(77, entry);
    assert_int_equal(ct_receipt_format(77, (struct ct_bytes){(const uint8_t *)entry, length},
                                       &proof, ct_buf_bytes(&honest.note), &buf),
                     CT_OK);
    ct_ledger_close(ledger);
    seed_buf(READ_RECEIPT, &buf);
    proof.count = 0;
    assert_int_equal(ct_add_checkpoint_format(0, &proof, ct_buf_bytes(&honest.note), &buf), CT_OK);
    seed_buf(READ_REQUEST, &buf);
    assert_int_equal(ct_buf_printf(&buf, "log %s\nwitness w %s http://w/\ngroup g 1 w\nquorum g\n",
                                   honest.vkey, honest.witness_vkey),
                     CT_OK);
    seed_buf(READ_POLICY, &buf);
    seed_evidence(&buf);
    seed(READ_VKEY, honest.vkey, strlen(honest.vkey));
    static const char *const files[] = {"tile/entries/001.p/44", "tile/0/001.p/44"};
    for (int i = 0; i < 2; i++) {
        struct ct_buf file = fixture_read(below(honest.world, files[i]));
        seed(i == 0 ? READ_BUNDLE : READ_TILE, file.data, file.length);
        ct_buf_deinit(&file);
    }
    ct_buf_deinit(&buf);
}

static bool is_honest(const struct ct_checkpoint *checkpoint) {
    return checkpoint->size == SIZE && ct_hash_equal(&checkpoint->root, &honest.root) &&
           strcmp(checkpoint->origin, ORIGIN) == 0;
}

static void read_checkpoint(struct ct_bytes bytes) {
    struct ct_checkpoint checkpoint;
    struct ct_buf stripped;
    if (ct_checkpoint_open(bytes, ORIGIN, &honest.world->public_key, &checkpoint) == CT_OK) {
        assert_true(is_honest(&checkpoint));
    }
    ct_buf_init(&stripped, CT_CHECKPOINT_BYTES_MAX);
    if (ct_checkpoint_parse(bytes, &checkpoint) == CT_OK) {
        (void)!ct_checkpoint_strip(bytes, &stripped);
    }
    ct_buf_deinit(&stripped);
}

static void read_cosignatures(struct ct_bytes bytes) {
    uint64_t time_s = 0;
    if (ct_cosignature_check(bytes, WITNESS, &honest.witness_key, &time_s) == CT_OK) {
        assert_true(bytes.length > honest.text &&
                    memcmp(bytes.data, honest.note.data, honest.text) == 0 && time_s == 99);
    }
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_buf_append(&note, honest.note.data, honest.note.length), CT_OK);
    if (ct_cosignature_take(bytes, WITNESS, &honest.witness_key, &note) == CT_OK) {
        assert_int_equal(
            ct_cosignature_check(ct_buf_bytes(&note), WITNESS, &honest.witness_key, &time_s),
            CT_OK);
    }
    ct_buf_deinit(&note);
}

static void read_receipt(struct ct_bytes bytes) {
    struct ct_receipt receipt;
    char entry[64];
    if (ct_receipt_open(bytes, honest.vkey, &receipt) == CT_OK) {
        assert_true(is_honest(&receipt.checkpoint) && receipt.index < SIZE);
        size_t length = entry_text(receipt.index, entry);
        assert_int_equal(receipt.entry.length, length);
        assert_memory_equal(receipt.entry.data, entry, length);
        ct_receipt_deinit(&receipt);
    }
}

/* Whatever quorum a damaged policy has, only the true witness's line counts towards it. */
static void read_policy(struct ct_bytes bytes) {
    static struct ct_policy policy;
    uint64_t cosigned = 0;
    if (ct_policy_parse(bytes, &policy) == CT_OK) {
        assert_true(ct_policy_least(&policy) <= ct_policy_witnesses(&policy));
        if (ct_policy_check(&policy, ct_buf_bytes(&honest.note), &cosigned) == CT_OK) {
            assert_true((uint32_t)__builtin_popcountll(cosigned) >= ct_policy_least(&policy));
        }
    }
}

/* A witness cosigns nothing that the log's key did not sign. */
static void read_request(struct ct_bytes bytes) {
    struct ct_add_checkpoint request;
    struct ct_buf answer;
    const char *type = NULL;
    uint64_t size;
    ct_buf_init(&answer, 16384);
    const unsigned status = ct_witness_add_checkpoint(&honest.witness, bytes, 99, &answer, &type);
    assert_true(status == 200 || status == 400 || status == 403 || status == 404 || status == 409 ||
                status == 422);
    if (status == 200) {
        struct ct_checkpoint checkpoint;
        assert_int_equal(ct_add_checkpoint_parse(bytes, &request), CT_OK);
        assert_int_equal(
            ct_checkpoint_open(request.note, ORIGIN, &honest.world->public_key, &checkpoint),
            CT_OK);
        assert_true(is_honest(&checkpoint));
    }
    ct_buf_deinit(&answer);
    if (ct_add_checkpoint_parse(bytes, &request) == CT_OK) {
        read_checkpoint(request.note);
    }
    (void)!ct_add_checkpoint_size(bytes, &size);
}

/* The two heads that were signed are the only ones that evidence can speak of. */
static void read_evidence(struct ct_bytes bytes) {
    struct ct_evidence evidence;
    if (ct_evidence_open(bytes, &evidence) == CT_OK && strcmp(evidence.vkey, honest.vkey) == 0) {
        assert_int_equal(evidence.smaller.size, 7);
        assert_true(is_honest(&evidence.larger));
    }
}

static enum ct_err count_entry(void *user, struct ct_bytes entry) {
    *(size_t *)user += 2 + entry.length;
    return CT_OK;
}

static void read_bundle(struct ct_bytes bytes) {
    size_t total = 0;
    if (ct_bundle_parse(bytes, 44, count_entry, &total) == CT_OK) {
        assert_int_equal(total, bytes.length);
    }
}

static enum ct_err serve_tile(void *user, const char *path, struct ct_buf *out) {
    const struct ct_bytes *bytes = user;
    if (strstr(path, "tile/0/001") == NULL) {
        return ct_tile_read_dir(honest.world->path, path, out);
    }
    ct_buf_clear(out);
    return ct_buf_append(out, bytes->data, bytes->length);
}

/* Proofs made of a false tile do not verify. */
static void read_tile(struct ct_bytes bytes) {
    static struct ct_tile_source source;
    struct ct_proof proof;
    struct ct_hash leaf = expected_leaf(280);
    ct_tile_source_init(&source, SIZE, serve_tile, &bytes);
    bool same = bytes.length + 1 == honest.seeds[READ_TILE].length &&
                memcmp(bytes.data, honest.seeds[READ_TILE].data + 1, bytes.length) == 0;
    struct ct_hash root;
    if (ct_root_of(SIZE, ct_tile_source_hash, &source, &root) == CT_OK) {
        assert_int_equal(same, ct_hash_equal(&root, &honest.root));
    }
    if (ct_prove_inclusion(280, SIZE, ct_tile_source_hash, &source, &proof) == CT_OK && same) {
        assert_int_equal(ct_verify_inclusion(280, SIZE, &leaf, &proof, &honest.root), CT_OK);
    }
    ct_tile_source_deinit(&source);
}

static void read_vkey(struct ct_bytes bytes) {
    char text[512], name[CT_ORIGIN_BYTES_MAX], again[CT_VKEY_BYTES_MAX];
    struct ct_hash key;
    size_t length = bytes.length < sizeof text - 1 ? bytes.length : sizeof text - 1;
    memcpy(text, bytes.data, length);
    text[length] = '\0';
    if (ct_vkey_parse(text, name, &key) == CT_OK) {
        ct_vkey_format(name, &key, again);
        assert_string_equal(text, again);
    }
    (void)!ct_cosigner_parse(text, name, &key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const readers[READ_COUNT])(struct ct_bytes) = {
        read_checkpoint, read_cosignatures, read_receipt, read_policy, read_request,
        read_evidence,   read_bundle,       read_tile,    read_vkey};
    if (!honest.ready) {
        prepare();
    }
    if (size > 0) {
        readers[data[0] % READ_COUNT]((struct ct_bytes){data + 1, size - 1});
    }
    return 0;
}

#ifndef CT_FUZZ
static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void damaged_inputs_are_never_accepted(void **state) {
    (void)state;
    uint64_t random = from_environment("FUZZ_SEED", (uint64_t)time(NULL));
    double end = now_s() + (double)from_environment("FUZZ_SECONDS", 2);
    print_message("FUZZ_SEED=%llu\n", (unsigned long long)random);
    prepare();
    for (int i = 0; i < READ_COUNT; i++) {
        LLVMFuzzerTestOneInput(honest.seeds[i].data, honest.seeds[i].length);
    }
    unsigned long inputs = 0;
    for (; now_s() < end; inputs++) {
        const struct ct_buf *good = &honest.seeds[mutate_draw(&random) % READ_COUNT];
        size_t length;
        uint8_t *bad = mutate(&random, good->data + 1, good->length - 1, &length);
        uint8_t *input = malloc(length + 1);
        /* Mostly for its own reader, at times for another. */
        input[0] = mutate_draw(&random) % 16 == 0 ? (uint8_t)mutate_draw(&random) : good->data[0];
        memcpy(input + 1, bad, length);
        LLVMFuzzerTestOneInput(input, length + 1);
        free(input);
        free(bad);
    }
    print_message("%lu inputs\n", inputs);
}

/* A damaged file of a ledger: opening for reading and for writing says so or mends it, and what
 * opens gives the signed root. */
static void damaged_ledgers_are_mended_or_refused(void **state) {
    (void)state;
    static const char *const files[] = {"entries", "checkpoint", "tile/0/000", "tile/entries/000",
                                        "tile/0/001.p/44"};
    uint64_t random = from_environment("FUZZ_SEED", (uint64_t)time(NULL));
    ct_log_to("/dev/null"); /* what is mended is told many times */
    for (int round = 0; round < 60; round++) {
        const char *name = files[round % 5];
        struct ct_buf good = fixture_read(below(honest.world, name));
        size_t length;
        uint8_t *bad = mutate(&random, good.data, good.length, &length);
        fixture_write(below(honest.world, name), bad, length);
        struct ct_ledger *ledger = NULL;
        if (ct_ledger_open(honest.world->path, ORIGIN, NULL, &ledger) == CT_OK) {
            ct_ledger_close(ledger);
        }
        if (ct_ledger_open(honest.world->path, ORIGIN, honest.world->key, &ledger) == CT_OK) {
            /* Opening reads the log's end alone; the check finds the rest, and mends tiles. */
            if (ct_ledger_check(ledger) == CT_OK) {
                assert_holds(honest.world, ledger, ct_ledger_size(ledger), SIZE);
            }
            ct_ledger_close(ledger);
        }
        fixture_write(below(honest.world, name), good.data, good.length);
        assert_int_equal(reopen(honest.world), CT_OK);
        free(bad);
        ct_buf_deinit(&good);
    }
}

static int end(void **state) {
    for (int i = 0; i < READ_COUNT; i++) {
        ct_buf_deinit(&honest.seeds[i]);
    }
    ct_buf_deinit(&honest.note);
    ct_witness_close(&honest.witness);
    void *world = honest.world;
    *state = world;
    return world_close(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_inputs_are_never_accepted),
        cmocka_unit_test(damaged_ledgers_are_mended_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
#endif
