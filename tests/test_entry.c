#include <cotrain/entry.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

/* A text into an array, zeros to its end. */
#define SET(array, text)                                                                           \
    do {                                                                                           \
        memset(array, 0, sizeof array);                                                            \
        memcpy(array, text, sizeof text - 1);                                                      \
    } while (0)

static struct ct_hash filled(int byte) {
    struct ct_hash hash;
    memset(hash.bytes, byte, sizeof hash.bytes);
    return hash;
}

/* An entry of the kind with every part there. */
static struct ct_entry example(enum ct_entry_kind kind) {
    struct ct_entry entry = {
        .kind = kind, .version = 1, .run_id = filled(9), .round = 300, .time_ms = 1700000000123};
    switch (kind) {
    case CT_ENTRY_RUN_OPENED: {
        struct ct_run_opened *opened = &entry.body.run_opened;
        entry.run_id = filled(0);
        entry.round = 0;
        opened->manifest = (struct ct_blob_ref){filled(1), 4321};
        memset(opened->nonce, 2, sizeof opened->nonce);
        opened->identity_key = filled(3);
        opened->log_key = filled(4);
        SET(opened->origin, "cotrain.example/gr\xc3\xbcn");
        opened->has_recovery_key = true;
        opened->recovery_key = filled(5);
        break;
    }
    case CT_ENTRY_NODE_ADMITTED:
        entry.body.node_admitted = (struct ct_node_admitted){1024, filled(1), filled(2)};
        break;
    case CT_ENTRY_ROUND_OPENED:
        entry.body.round_opened =
            (struct ct_round_opened){filled(1), {filled(2), 77}, filled(3), UINT64_MAX, 99999};
        break;
    case CT_ENTRY_COMMIT:
        entry.body.commit.length = CT_STATEMENT_BYTES_MAX;
        memset(entry.body.commit.envelope, 0xab, CT_STATEMENT_BYTES_MAX);
        break;
    case CT_ENTRY_COMMITS_CLOSED:
        memset(entry.body.commits_closed.seed, 8, 32);
        break;
    case CT_ENTRY_RECEIVED:
        entry.body.received.commit_index = 1234567890123;
        break;
    case CT_ENTRY_REFUSED:
        entry.body.refused.node = 17;
        entry.body.refused.reason = CT_REFUSAL_COPY;
        break;
    case CT_ENTRY_ROUND_CLOSED:
        entry.body.round_closed = (struct ct_round_closed){filled(1), {filled(2), 55}, 46080, true};
        break;
    }
    return entry;
}

static const enum ct_entry_kind kinds[] = {
    CT_ENTRY_RUN_OPENED,     CT_ENTRY_NODE_ADMITTED, CT_ENTRY_ROUND_OPENED, CT_ENTRY_COMMIT,
    CT_ENTRY_COMMITS_CLOSED, CT_ENTRY_RECEIVED,      CT_ENTRY_REFUSED,      CT_ENTRY_ROUND_CLOSED,
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static void encode(const struct ct_entry *entry, struct ct_buf *buf) {
    ct_buf_init(buf, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, buf), CT_OK);
}

static enum ct_err decode_and_encode(struct ct_bytes bytes) {
    struct ct_entry entry;
    enum ct_err err = ct_entry_decode(bytes, &entry);
    if (err == CT_OK) {
        struct ct_buf again;
        encode(&entry, &again);
        assert_int_equal(again.length, bytes.length);
        assert_memory_equal(again.data, bytes.data, bytes.length);
        ct_buf_deinit(&again);
    }
    return err;
}

static void every_kind_comes_back(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct ct_entry entry = example(kinds[i]);
        struct ct_buf buf;
        encode(&entry, &buf);
        struct ct_entry back;
        assert_int_equal(ct_entry_decode(ct_buf_bytes(&buf), &back), CT_OK);
        assert_int_equal(back.kind, kinds[i]);
        assert_int_equal(back.version, 1);
        assert_true(ct_hash_equal(&back.run_id, &entry.run_id));
        assert_int_equal(back.round, entry.round);
        assert_true(back.time_ms == entry.time_ms);
        ct_buf_deinit(&buf);
    }
}

static struct ct_entry there_and_back(enum ct_entry_kind kind) {
    struct ct_entry entry = example(kind);
    struct ct_buf buf;
    encode(&entry, &buf);
    struct ct_entry back;
    assert_int_equal(ct_entry_decode(ct_buf_bytes(&buf), &back), CT_OK);
    ct_buf_deinit(&buf);
    return back;
}

static void assert_filled(const struct ct_hash *hash, int byte) {
    struct ct_hash expected = filled(byte);
    assert_memory_equal(hash->bytes, expected.bytes, 32);
}

static void every_part_comes_back(void **state) {
    (void)state;
    struct ct_entry entry = there_and_back(CT_ENTRY_RUN_OPENED);
    const struct ct_run_opened *opened = &entry.body.run_opened;
    assert_filled(&opened->manifest.sha256, 1);
    assert_int_equal(opened->manifest.length, 4321);
    assert_int_equal(opened->nonce[31], 2);
    assert_filled(&opened->identity_key, 3);
    assert_filled(&opened->log_key, 4);
    assert_string_equal(opened->origin, "cotrain.example/gr\xc3\xbcn");
    assert_true(opened->has_recovery_key);
    assert_filled(&opened->recovery_key, 5);
    entry = there_and_back(CT_ENTRY_NODE_ADMITTED);
    assert_int_equal(entry.body.node_admitted.node, 1024);
    assert_filled(&entry.body.node_admitted.key, 1);
    assert_filled(&entry.body.node_admitted.profile, 2);
    entry = there_and_back(CT_ENTRY_ROUND_OPENED);
    const struct ct_round_opened *round = &entry.body.round_opened;
    assert_filled(&round->base, 1);
    assert_filled(&round->assignments.sha256, 2);
    assert_int_equal(round->assignments.length, 77);
    assert_filled(&round->seed_hash, 3);
    assert_true(round->tokens_at_base == UINT64_MAX);
    assert_int_equal(round->planned_tokens, 99999);
    entry = there_and_back(CT_ENTRY_COMMIT);
    assert_int_equal(entry.body.commit.length, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(entry.body.commit.envelope[CT_STATEMENT_BYTES_MAX - 1], 0xab);
    entry = there_and_back(CT_ENTRY_COMMITS_CLOSED);
    assert_int_equal(entry.body.commits_closed.seed[31], 8);
    entry = there_and_back(CT_ENTRY_RECEIVED);
    assert_true(entry.body.received.commit_index == 1234567890123);
    entry = there_and_back(CT_ENTRY_REFUSED);
    assert_int_equal(entry.body.refused.node, 17);
    assert_int_equal(entry.body.refused.reason, CT_REFUSAL_COPY);
    entry = there_and_back(CT_ENTRY_ROUND_CLOSED);
    const struct ct_round_closed *closed = &entry.body.round_closed;
    assert_filled(&closed->model, 1);
    assert_filled(&closed->merged.sha256, 2);
    assert_int_equal(closed->merged.length, 55);
    assert_int_equal(closed->tokens, 46080);
    assert_true(closed->has_snapshot);
}

static void damage_is_refused_or_is_another_entry(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct ct_entry entry = example(kinds[i]);
        if (kinds[i] == CT_ENTRY_COMMIT) {
            entry.body.commit.length = 40;
        }
        struct ct_buf buf;
        encode(&entry, &buf);
        unsigned refused = mutate_check(decode_and_encode, ct_buf_bytes(&buf), 0, i, 5000);
        assert_in_range(refused, 500, 4999);
        ct_buf_deinit(&buf);
    }
}

/* Kinds that are reserved, header fields that are, and two kinds at once. */
static void reserved_numbers_are_refused(void **state) {
    (void)state;
    struct ct_entry entry = example(CT_ENTRY_RECEIVED);
    struct ct_buf buf;
    encode(&entry, &buf);
    uint8_t odd[128];
    memcpy(odd, buf.data, buf.length);
    for (uint32_t field = 24; field <= 30; field++) {
        uint32_t tag = field << 3 | 2;
        odd[buf.length] = (uint8_t)(0x80 | (tag & 0x7f));
        odd[buf.length + 1] = (uint8_t)(tag >> 7);
        odd[buf.length + 2] = 0;
        assert_int_equal(decode_and_encode((struct ct_bytes){odd, buf.length + 3}), CT_ERR_FORMAT);
    }
    odd[buf.length] = 5 << 3;
    odd[buf.length + 1] = 1;
    assert_int_equal(decode_and_encode((struct ct_bytes){odd, buf.length + 2}), CT_ERR_FORMAT);
    /* refused (22) after received (21) */
    memcpy(odd + buf.length, (uint8_t[]){0xb2, 0x01, 4, 0x08, 1, 0x10, 1}, 7);
    assert_int_equal(decode_and_encode((struct ct_bytes){odd, buf.length + 7}), CT_ERR_FORMAT);
    ct_buf_deinit(&buf);
}

static void refused(struct ct_entry entry) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(&entry, &buf), CT_ERR_FORMAT);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void wrong_headers_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        bool opens = kinds[i] == CT_ENTRY_RUN_OPENED;
        struct ct_entry entry = example(kinds[i]);
        entry.version = 0;
        refused(entry);
        entry = example(kinds[i]);
        entry.time_ms = -1;
        refused(entry);
        entry = example(kinds[i]);
        entry.run_id = opens ? filled(1) : filled(0);
        refused(entry);
        entry = example(kinds[i]);
        entry.round = opens ? 1 : 0;
        if (kinds[i] != CT_ENTRY_NODE_ADMITTED) {
            refused(entry);
        }
    }
}

static void wrong_bodies_are_refused(void **state) {
    (void)state;
    struct ct_entry entry = example(CT_ENTRY_RUN_OPENED);
    entry.body.run_opened.origin[0] = '\0';
    refused(entry);
    memset(entry.body.run_opened.origin, 'a', CT_ORIGIN_BYTES_MAX);
    refused(entry);
    SET(entry.body.run_opened.origin, "two\nlines");
    refused(entry);
    SET(entry.body.run_opened.origin, "latin-1 \xe9");
    refused(entry);
    entry = example(CT_ENTRY_RUN_OPENED);
    entry.body.run_opened.has_recovery_key = false;
    refused(entry);
    entry = example(CT_ENTRY_RUN_OPENED);
    entry.body.run_opened.recovery_key = filled(0);
    refused(entry);
    entry = example(CT_ENTRY_NODE_ADMITTED);
    entry.body.node_admitted.node = 0;
    refused(entry);
    entry.body.node_admitted.node = CT_NODES_MAX + 1;
    refused(entry);
    entry = example(CT_ENTRY_COMMIT);
    entry.body.commit.length = 0;
    refused(entry);
    entry.body.commit.length = CT_STATEMENT_BYTES_MAX + 1;
    refused(entry);
    entry = example(CT_ENTRY_REFUSED);
    entry.body.refused.reason = (enum ct_refusal)0;
    refused(entry);
    entry.body.refused.reason = (enum ct_refusal)6;
    refused(entry);
    entry = example(CT_ENTRY_RECEIVED);
    entry.kind = (enum ct_entry_kind)24;
    refused(entry);
}

static void entries_have_a_maximum(void **state) {
    (void)state;
    uint8_t *large = calloc(1, CT_ENTRY_BYTES_MAX + 1);
    assert_int_equal(decode_and_encode((struct ct_bytes){large, CT_ENTRY_BYTES_MAX + 1}),
                     CT_ERR_TOO_LARGE);
    free(large);
    struct ct_entry entry = example(CT_ENTRY_RECEIVED);
    struct ct_buf buf;
    ct_buf_init(&buf, 10);
    assert_int_equal(ct_entry_encode(&entry, &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(every_part_comes_back),
        cmocka_unit_test(damage_is_refused_or_is_another_entry),
        cmocka_unit_test(reserved_numbers_are_refused),
        cmocka_unit_test(wrong_headers_are_refused),
        cmocka_unit_test(wrong_bodies_are_refused),
        cmocka_unit_test(entries_have_a_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
