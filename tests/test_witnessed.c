/* Receipts whose checkpoint got its quorum only later. */
#include "http_files.h"
#include "ledger_world.h"

#include "node/contribution.h"
#include "node/copy_fork.h"
#include "node/witnessed.h"

#include <cotrain/cosignature.h>
#include <cotrain/receipt.h>

/* A node with one receipt a round, for entry 10 · round, and a log whose witnesses it is told of.
 */
struct node {
    struct world *world;
    struct ct_key *witness_key;
    struct http_files server;
    struct ct_fetch *fetch;
    char dir[PATH_MAX];
    struct ct_ledger_copy copy;
    struct ct_fold fold;
    struct ct_witnessed witnessed;
    struct ct_buf plain; /* the newest checkpoint */
};

#define ROUNDS 3u
#define FORMER 290u /* published before */
#define SIZE   300u

static void store_receipt(struct node *node, struct ct_ledger *ledger, uint32_t round) {
    struct ct_proof proof;
    struct ct_buf entry, text;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    assert_int_equal(ct_ledger_read(ledger, 10 * round, &entry), CT_OK);
    assert_int_equal(ct_ledger_prove(ledger, 10 * round, &proof), CT_OK);
    assert_int_equal(ct_receipt_format(10 * round, ct_buf_bytes(&entry), &proof,
                                       ct_buf_bytes(&node->plain), &text),
                     CT_OK);
    assert_int_equal(ct_contribution_receipt(node->dir, round, ct_buf_bytes(&text)), CT_OK);
    ct_buf_deinit(&text);
    ct_buf_deinit(&entry);
}

static int node_open(void **state) {
    static struct node node;
    memset(&node, 0, sizeof node);
    world_open((void **)&node.world);
    struct world *world = node.world;
    make_ledger(world, FORMER);
    struct ct_ledger *ledger = open_ledger(world);
    assert_int_equal(append(ledger, FORMER, SIZE), CT_OK);
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_buf_init(&node.plain, CT_CHECKPOINT_BYTES_MAX);
    const struct ct_bytes note = ct_ledger_checkpoint(ledger);
    assert_int_equal(ct_buf_append(&node.plain, note.data, note.length), CT_OK);
    snprintf(node.dir, sizeof node.dir, "%s/node", world->dir);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/receipts", node.dir);
    assert_int_equal(ct_dir_make(path), CT_OK);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        store_receipt(&node, ledger, round);
    }
    ct_ledger_close(ledger);
    assert_int_equal(http_files_start(&node.server, world->path, NULL), 0);
    const char *bases[] = {node.server.url};
    assert_int_equal(ct_fetch_open(bases, 1, NULL, &node.fetch), CT_OK);
    snprintf(path, sizeof path, "%s/copy", node.dir);
    assert_int_equal(ct_ledger_copy_open(path, ORIGIN, &world->public_key, &node.copy), CT_OK);
    assert_int_equal(ct_ledger_copy_advance(&node.copy, ct_buf_bytes(&node.plain), node.fetch),
                     CT_OK);
    assert_int_equal(ct_key_generate(&node.witness_key), CT_OK);
    char vkey[CT_VKEY_BYTES_MAX];
    const struct ct_hash key = ct_key_public(node.witness_key);
    ct_cosigner_format("w.example/1", &key, vkey);
    node.fold.phase = CT_PHASE_IDLE;
    node.fold.round = ROUNDS;
    memcpy(node.fold.opened.origin, ORIGIN, sizeof ORIGIN);
    node.fold.opened.log_key = world->public_key;
    snprintf(node.fold.manifest.policy, sizeof node.fold.manifest.policy,
             "witness one %s https://w.example/\nquorum one\n", vkey);
    *state = &node;
    return 0;
}

static int node_close(void **state) {
    struct node *node = *state;
    ct_witnessed_deinit(&node->witnessed);
    ct_ledger_copy_close(&node->copy);
    ct_fetch_close(node->fetch);
    http_files_stop(&node->server);
    ct_buf_deinit(&node->plain);
    ct_key_free(node->witness_key);
    return world_close((void **)&node->world);
}

/* What is served as `witnessed`: the tree of that size, or another one of that size. */
static void witness(struct node *node, uint64_t size, bool other, bool cosigned) {
    struct ct_checkpoint checkpoint = {.origin = ORIGIN, .size = size};
    struct ct_buf note, line;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&line, CT_CHECKPOINT_BYTES_MAX);
    checkpoint.root = expected_root(size);
    checkpoint.root.bytes[0] ^= other;
    assert_int_equal(ct_checkpoint_sign(&checkpoint, node->world->key, &note), CT_OK);
    assert_int_equal(
        ct_cosign(ct_buf_bytes(&note), "w.example/1", node->witness_key, 1234567890, &line), CT_OK);
    if (cosigned) {
        assert_int_equal(ct_buf_append(&note, line.data, line.length), CT_OK);
    }
    fixture_write(below(node->world, "witnessed"), note.data, note.length);
    ct_buf_deinit(&line);
    ct_buf_deinit(&note);
}

static enum ct_err advance(struct node *node) {
    return ct_witnessed_advance(&node->witnessed, node->dir, &node->copy, &node->fold,
                                ct_buf_bytes(&node->plain), node->fetch);
}

/* The size of the tree that the round's receipt is under; with the quorum or not. */
static uint64_t receipt_size(struct node *node, uint32_t round, bool *out_quorum) {
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_buf text;
    struct ct_receipt receipt;
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    ct_vkey_format(ORIGIN, &node->world->public_key, vkey);
    assert_int_equal(ct_contribution_read_receipt(node->dir, round, &text), CT_OK);
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&text), vkey, &receipt), CT_OK);
    assert_int_equal(receipt.index, 10 * round);
    *out_quorum =
        ct_policy_check(node->witnessed.policy, ct_buf_bytes(&receipt.note), NULL) == CT_OK;
    const uint64_t size = receipt.checkpoint.size;
    ct_receipt_deinit(&receipt);
    ct_buf_deinit(&text);
    return size;
}

static void expect(struct node *node, const uint64_t sizes[ROUNDS], uint32_t with_quorum) {
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        bool quorum = false;
        assert_int_equal(receipt_size(node, round, &quorum), sizes[round - 1]);
        assert_int_equal(quorum, round <= with_quorum);
    }
    assert_int_equal(ct_witnessed_pending(&node->witnessed, node->dir, &node->fold),
                     with_quorum < ROUNDS);
}

static void every_receipt_gets_the_quorum(void **state) {
    struct node *node = *state;
    assert_int_equal(advance(node), CT_OK); /* nothing is served yet */
    expect(node, (uint64_t[]){SIZE, SIZE, SIZE}, 0);
    witness(node, 25, false, true); /* holds the entries of two rounds */
    assert_int_equal(advance(node), CT_OK);
    expect(node, (uint64_t[]){25, 25, SIZE}, 2);
    assert_int_equal(node->witnessed.size, 25);
    witness(node, FORMER, false, true);
    assert_int_equal(advance(node), CT_OK);
    expect(node, (uint64_t[]){25, 25, FORMER}, 3);
    /* With nothing left to do, nobody is asked. */
    const unsigned requests = atomic_load(&node->server.requests);
    assert_int_equal(advance(node), CT_OK);
    assert_int_equal(atomic_load(&node->server.requests), requests);
}

/* After a restart all receipts are looked at again. */
static void a_restart_looks_again(void **state) {
    struct node *node = *state;
    witness(node, 25, false, true);
    assert_int_equal(advance(node), CT_OK);
    ct_witnessed_deinit(&node->witnessed);
    memset(&node->witnessed, 0, sizeof node->witnessed);
    witness(node, SIZE, false, true);
    assert_int_equal(advance(node), CT_OK);
    expect(node, (uint64_t[]){25, 25, SIZE}, 3);
}

static void what_has_no_quorum_is_not_used(void **state) {
    struct node *node = *state;
    witness(node, FORMER, false, false);
    assert_int_equal(advance(node), CT_OK);
    expect(node, (uint64_t[]){SIZE, SIZE, SIZE}, 0);
    fixture_write(below(node->world, "witnessed"), "no note\n", 8);
    assert_int_equal(advance(node), CT_OK);
    expect(node, (uint64_t[]){SIZE, SIZE, SIZE}, 0);
}

/* Witnesses were shown another history: the node has proof of it, and no receipt changes. */
static void another_history_ends_it(void **state) {
    struct node *node = *state;
    static const uint64_t sizes[] = {25, SIZE};
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX + 64];
        witness(node, sizes[i], true, true);
        assert_int_equal(advance(node), CT_ERR_FORKED);
        snprintf(path, sizeof path, "%s/" CT_FORK_EVIDENCE, node->dir);
        assert_int_equal(remove(path), 0);
        expect(node, (uint64_t[]){SIZE, SIZE, SIZE}, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_receipt_gets_the_quorum, node_open, node_close),
        cmocka_unit_test_setup_teardown(a_restart_looks_again, node_open, node_close),
        cmocka_unit_test_setup_teardown(what_has_no_quorum_is_not_used, node_open, node_close),
        cmocka_unit_test_setup_teardown(another_history_ends_it, node_open, node_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
