/* A coordinator that lies: one log key, two histories, served to a node one after the other. */
#include "http_files.h"
#include "ledger_world.h"

#include "node/copy_fork.h"
#include "node/ledger_copy.h"

#include <cotrain/evidence.h>

/* What the liar tells: two ledgers in directories of their own, which part after `common` entries.
 */
struct liar {
    char paths[2][PATH_MAX];
    struct ct_ledger *ledgers[2];
    struct http_files server;
    struct ct_fetch *fetch;
    char node[PATH_MAX];
    struct ct_ledger_copy copy;
};

static void add(struct ct_ledger *ledger, uint64_t to, uint64_t common, int side) {
    for (uint64_t i = ct_ledger_size(ledger); i < to; i++) {
        char text[64];
        uint64_t index;
        int length =
            snprintf(text, sizeof text, "entry %d of history %d", (int)i, i < common ? 0 : side);
        assert_int_equal(ct_ledger_append(ledger,
                                          (struct ct_bytes){(const uint8_t *)text, (size_t)length},
                                          &index),
                         CT_OK);
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
}

static void serve(struct liar *liar, int side) {
    http_files_start(&liar->server, liar->paths[side], NULL);
    const char *bases[] = {liar->server.url};
    assert_int_equal(ct_fetch_open(bases, 1, NULL, &liar->fetch), CT_OK);
}

static void unserve(struct liar *liar) {
    ct_fetch_close(liar->fetch);
    http_files_stop(&liar->server);
}

static void open_liar(const struct world *world, struct liar *liar, uint64_t common,
                      const uint64_t sizes[2]) {
    for (int side = 0; side < 2; side++) {
        snprintf(liar->paths[side], PATH_MAX, "%s/history-%d-%d-%d", world->dir, side,
                 (int)sizes[0], (int)sizes[1]);
        assert_int_equal(
            ct_ledger_create(liar->paths[side], ORIGIN, world->key, &liar->ledgers[side]), CT_OK);
        add(liar->ledgers[side], sizes[side], common, side);
    }
    snprintf(liar->node, PATH_MAX, "%s/node-%d-%d", world->dir, (int)sizes[0], (int)sizes[1]);
    assert_int_equal(ct_dir_make(liar->node), CT_OK);
    char copy[PATH_MAX + 16];
    snprintf(copy, sizeof copy, "%s/copy", liar->node);
    assert_int_equal(ct_ledger_copy_open(copy, ORIGIN, &world->public_key, &liar->copy), CT_OK);
    /* The node saw the first history. */
    serve(liar, 0);
    assert_int_equal(
        ct_ledger_copy_advance(&liar->copy, ct_ledger_checkpoint(liar->ledgers[0]), liar->fetch),
        CT_OK);
    unserve(liar);
}

static void close_liar(struct liar *liar) {
    ct_ledger_copy_close(&liar->copy);
    ct_ledger_close(liar->ledgers[0]);
    ct_ledger_close(liar->ledgers[1]);
}

static void assert_convincing(const struct world *world, const struct liar *liar,
                              const uint64_t sizes[2]) {
    char path[PATH_MAX + 64], vkey[CT_VKEY_BYTES_MAX];
    struct ct_evidence evidence;
    snprintf(path, sizeof path, "%s/" CT_FORK_EVIDENCE, liar->node);
    struct ct_buf text = fixture_read(path);
    assert_int_equal(ct_evidence_open(ct_buf_bytes(&text), &evidence), CT_OK);
    ct_vkey_format(ORIGIN, &world->public_key, vkey);
    assert_string_equal(evidence.vkey, vkey);
    assert_int_equal(evidence.smaller.size, sizes[0] < sizes[1] ? sizes[0] : sizes[1]);
    assert_int_equal(evidence.larger.size, sizes[0] < sizes[1] ? sizes[1] : sizes[0]);
    /* As a third person would. */
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "'%s/cotrain' evidence '%s' --vkey '%s' >/dev/null",
             CT_BINARY_DIR, path, vkey);
    assert_int_equal(system(command), 0);
    ct_buf_deinit(&text);
}

static void a_liar_is_caught_with_evidence(void **state) {
    struct world *world = *state;
    static const uint64_t cases[][3] = {/* common, first, second */
                                        {3, 10, 10},    {3, 10, 25},     {3, 25, 10},
                                        {0, 1, 600},    {256, 300, 700}, {500, 700, 600},
                                        {511, 512, 513}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct liar liar;
        const uint64_t sizes[2] = {cases[i][1], cases[i][2]};
        open_liar(world, &liar, cases[i][0], sizes);
        struct ct_bytes note = ct_ledger_checkpoint(liar.ledgers[1]);
        serve(&liar, 1);
        assert_int_not_equal(ct_ledger_copy_advance(&liar.copy, note, liar.fetch), CT_OK);
        assert_int_equal(ct_copy_fork_seek(&liar.copy, liar.node, note, liar.fetch), CT_ERR_FORKED);
        assert_non_null(strstr(ct_err_detail(), CT_FORK_EVIDENCE));
        assert_convincing(world, &liar, sizes);
        /* The node holds on to what it saw first. */
        assert_int_equal(liar.copy.accepted.size, sizes[0]);
        unserve(&liar);
        close_liar(&liar);
    }
}

/* One history, smaller or larger: no accusation. A liar that serves no tree for what it signed is
 * not believed either, but cannot be convicted. */
static void no_accusation_without_proof(void **state) {
    struct world *world = *state;
    static struct liar liar;
    const uint64_t smaller[2] = {30, 20}, larger[2] = {30, 400}, silent[2] = {31, 400};
    open_liar(world, &liar, 1000, smaller);
    struct ct_bytes note = ct_ledger_checkpoint(liar.ledgers[1]);
    serve(&liar, 1);
    assert_int_equal(ct_ledger_copy_advance(&liar.copy, note, liar.fetch), CT_ERR_RULE);
    assert_int_equal(ct_copy_fork_seek(&liar.copy, liar.node, note, liar.fetch), CT_OK);
    unserve(&liar);
    close_liar(&liar);

    open_liar(world, &liar, 1000, larger);
    note = ct_ledger_checkpoint(liar.ledgers[1]);
    serve(&liar, 1);
    assert_int_equal(ct_copy_fork_seek(&liar.copy, liar.node, note, liar.fetch), CT_OK);
    unserve(&liar);
    close_liar(&liar);

    open_liar(world, &liar, 5, silent);
    note = ct_ledger_checkpoint(liar.ledgers[1]);
    serve(&liar, 0); /* the tiles of the other history */
    assert_int_not_equal(ct_ledger_copy_advance(&liar.copy, note, liar.fetch), CT_OK);
    enum ct_err err = ct_copy_fork_seek(&liar.copy, liar.node, note, liar.fetch);
    assert_true(err == CT_ERR_DIGEST || err == CT_ERR_NOT_FOUND);
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/" CT_FORK_EVIDENCE, liar.node);
    assert_int_not_equal(access(path, F_OK), 0);
    unserve(&liar);
    close_liar(&liar);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_liar_is_caught_with_evidence, world_open, world_close),
        cmocka_unit_test_setup_teardown(no_accusation_without_proof, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
