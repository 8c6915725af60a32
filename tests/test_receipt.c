#include "fixture.h"

#include <cotrain/ledger.h>
#include <cotrain/receipt.h>

#define ORIGIN "example.org/run"

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

/* A receipt for entry `index` of a ledger of `size` entries. */
struct sample {
    char vkey[CT_VKEY_BYTES_MAX];
    char entry[64];
    struct ct_buf text;
};

static void sample_make(struct sample *sample, uint64_t index, uint64_t size) {
    char *dir = fixture_dir();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/ledger", dir);
    struct ct_key *key = NULL;
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    assert_int_equal(ct_ledger_create(path, ORIGIN, key, &ledger), CT_OK);
    for (uint64_t i = 0; i < size; i++) {
        char entry[64];
        uint64_t got = 0;
        snprintf(entry, sizeof entry, "entry %llu", (unsigned long long)i);
        assert_int_equal(ct_ledger_append(ledger, text_bytes(entry), &got), CT_OK);
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    struct ct_proof proof;
    assert_int_equal(ct_ledger_prove(ledger, index, &proof), CT_OK);
    snprintf(sample->entry, sizeof sample->entry, "entry %llu", (unsigned long long)index);
    ct_buf_init(&sample->text, CT_RECEIPT_BYTES_MAX);
    assert_int_equal(ct_receipt_format(index, text_bytes(sample->entry), &proof,
                                       ct_ledger_checkpoint(ledger), &sample->text),
                     CT_OK);
    struct ct_hash public_key = ct_key_public(key);
    ct_vkey_format(ORIGIN, &public_key, sample->vkey);
    ct_ledger_close(ledger);
    ct_key_free(key);
    fixture_remove(dir);
    free(dir);
}

static void round_trip(void **state) {
    (void)state;
    static const uint64_t cases[][2] = {{0, 1}, {0, 2}, {6, 7}, {299, 300}, {17, 300}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sample sample;
        struct ct_receipt receipt;
        sample_make(&sample, cases[i][0], cases[i][1]);
        assert_int_equal(ct_receipt_open(ct_buf_bytes(&sample.text), sample.vkey, &receipt), CT_OK);
        assert_int_equal(receipt.index, cases[i][0]);
        assert_int_equal(receipt.checkpoint.size, cases[i][1]);
        assert_int_equal(receipt.entry.length, strlen(sample.entry));
        assert_memory_equal(receipt.entry.data, sample.entry, receipt.entry.length);
        ct_receipt_deinit(&receipt);
        assert_int_equal(ct_receipt_open_with(ct_buf_bytes(&sample.text), text_bytes(sample.entry),
                                              sample.vkey, &receipt),
                         CT_OK);
        ct_receipt_deinit(&receipt);
        assert_int_equal(ct_receipt_open_with(ct_buf_bytes(&sample.text), text_bytes("other"),
                                              sample.vkey, &receipt),
                         CT_ERR_DIGEST);
        ct_buf_deinit(&sample.text);
    }
}

static void every_changed_byte_is_refused(void **state) {
    (void)state;
    struct sample sample;
    struct ct_receipt receipt;
    sample_make(&sample, 5, 13);
    for (size_t i = 0; i < sample.text.length; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            sample.text.data[i] ^= (uint8_t)(1u << bit);
            if (ct_receipt_open(ct_buf_bytes(&sample.text), sample.vkey, &receipt) == CT_OK) {
                fail_msg("accepted with bit %u of byte %zu changed", bit, i);
            }
            sample.text.data[i] ^= (uint8_t)(1u << bit);
        }
        /* Cut there, in memory of just that size. */
        uint8_t *cut = malloc(i + 1);
        assert_non_null(cut);
        memcpy(cut, sample.text.data, i);
        assert_int_not_equal(ct_receipt_open((struct ct_bytes){cut, i}, sample.vkey, &receipt),
                             CT_OK);
        free(cut);
    }
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&sample.text), sample.vkey, &receipt), CT_OK);
    ct_receipt_deinit(&receipt);
    ct_buf_deinit(&sample.text);
}

/* Replaces the first `old` in the sample's text. */
static enum ct_err open_changed(const struct sample *sample, const char *old, const char *new) {
    char text[4096];
    char changed[8192];
    assert_true(sample->text.length < sizeof text);
    memcpy(text, sample->text.data, sample->text.length);
    text[sample->text.length] = '\0';
    const char *at = strstr(text, old);
    assert_non_null(at);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    struct ct_receipt receipt;
    enum ct_err err = ct_receipt_open(text_bytes(changed), sample->vkey, &receipt);
    if (err == CT_OK) {
        ct_receipt_deinit(&receipt);
    }
    return err;
}

static void other_spellings_are_refused(void **state) {
    (void)state;
    struct sample sample;
    sample_make(&sample, 5, 13);
    assert_int_equal(open_changed(&sample, "index 5\n", "index 5\n"), CT_OK);
    static const char *const changes[][2] = {
        {"index 5\n", "index 05\n"},
        {"index 5\n", "index +5\n"},
        {"index 5\n", "index 5 \n"},
        {"index 5\n", "index 5\r\n"},
        {"index 5\n", "index \n"},
        {"index 5\n", ""},
        {"index 5\n", "index 5\nindex 5\n"},
        {"index 5\n", "index 13\n"},
        {"index 5\n", "index 18446744073709551621\n"},
        {"index 5\n", "index 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"},
        {"index 5\n", "index 5\n\n"},
        {"extra ", "extra  "},
        {"extra ", "Extra "},
        {"extra ", "extra AAAA\nextra "},
        {"@v1", "@v2"},
        {"c2sp", "\nc2sp"},
        {"\n\n" ORIGIN, "\n" ORIGIN},
        {"\n\n" ORIGIN, "\n\n\n" ORIGIN},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        if (open_changed(&sample, changes[i][0], changes[i][1]) == CT_OK) {
            fail_msg("accepted: %s instead of %s", changes[i][1], changes[i][0]);
        }
    }
    struct ct_receipt receipt;
    uint8_t *large = calloc(1, CT_RECEIPT_BYTES_MAX + 1);
    assert_non_null(large);
    assert_int_equal(
        ct_receipt_open((struct ct_bytes){large, CT_RECEIPT_BYTES_MAX + 1}, sample.vkey, &receipt),
        CT_ERR_TOO_LARGE);
    free(large);
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    struct ct_hash public_key = ct_key_public(key);
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(ORIGIN, &public_key, vkey);
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&sample.text), vkey, &receipt), CT_ERR_SIGNATURE);
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&sample.text), "no key", &receipt),
                     CT_ERR_FORMAT);
    ct_key_free(key);
    ct_buf_deinit(&sample.text);
}

/* Made by other programs: a proof without an extra line. */
static void foreign_proof(void **state) {
    (void)state;
    char path[PATH_MAX];
    struct ct_buf text = fixture_read(fixture_vector("selfmade/log3001/log3k.tlog-proof", path));
    struct ct_buf entry = fixture_read(fixture_vector("selfmade/log3001/log3k.entry", path));
    struct ct_buf vkey = fixture_read(fixture_vector("selfmade/log3001/log3k.vkey", path));
    char key[CT_VKEY_BYTES_MAX];
    snprintf(key, sizeof key, "%.*s", (int)vkey.length, (const char *)vkey.data);
    key[strcspn(key, "\n")] = '\0';
    struct ct_receipt receipt;
    assert_int_equal(ct_receipt_open_with(ct_buf_bytes(&text), ct_buf_bytes(&entry), key, &receipt),
                     CT_OK);
    assert_int_equal(receipt.index, 777);
    assert_int_equal(receipt.checkpoint.size, 3001);
    ct_receipt_deinit(&receipt);
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&text), key, &receipt), CT_ERR_FORMAT);
    entry.data[0] ^= 1;
    assert_int_equal(ct_receipt_open_with(ct_buf_bytes(&text), ct_buf_bytes(&entry), key, &receipt),
                     CT_ERR_DIGEST);
    ct_buf_deinit(&text);
    ct_buf_deinit(&entry);
    ct_buf_deinit(&vkey);
}

static void largest_entry_fits(void **state) {
    (void)state;
    uint8_t *entry = malloc(CT_ENTRY_BYTES_MAX);
    assert_non_null(entry);
    memset(entry, 0xa5, CT_ENTRY_BYTES_MAX);
    struct ct_bytes bytes = {entry, CT_ENTRY_BYTES_MAX};
    struct ct_key *key = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    struct ct_hash public_key = ct_key_public(key);
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(ORIGIN, &public_key, vkey);
    struct ct_checkpoint checkpoint = {.origin = ORIGIN, .size = 1, .root = ct_leaf_hash(bytes)};
    struct ct_buf note;
    struct ct_buf text;
    struct ct_proof proof = {.count = 0};
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, key, &note), CT_OK);
    assert_int_equal(ct_receipt_format(0, bytes, &proof, ct_buf_bytes(&note), &text), CT_OK);
    struct ct_receipt receipt;
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&text), vkey, &receipt), CT_OK);
    assert_int_equal(receipt.entry.length, CT_ENTRY_BYTES_MAX);
    ct_receipt_deinit(&receipt);
    ct_buf_deinit(&note);
    ct_buf_deinit(&text);
    ct_key_free(key);
    free(entry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_changed_byte_is_refused),
        cmocka_unit_test(other_spellings_are_refused),
        cmocka_unit_test(foreign_proof),
        cmocka_unit_test(largest_entry_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
