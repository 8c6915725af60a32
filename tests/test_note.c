#include "fixture.h"

#include <cotrain/note.h>

#include <jansson.h>

#define DASH "\xe2\x80\x94"

static struct ct_bytes text_bytes(const char *text) {
    return (struct ct_bytes){(const uint8_t *)text, strlen(text)};
}

/* A log of this test's own; the note is of a tree of one leaf. */
struct log {
    struct ct_key *key;
    struct ct_hash public_key;
    struct ct_checkpoint checkpoint;
    struct ct_buf note;
};

static int log_open(void **state) {
    struct log *log = calloc(1, sizeof *log);
    assert_non_null(log);
    assert_int_equal(ct_key_generate(&log->key), CT_OK);
    log->public_key = ct_key_public(log->key);
    snprintf(log->checkpoint.origin, sizeof log->checkpoint.origin, "example.org/run");
    log->checkpoint.size = 1;
    log->checkpoint.root = ct_sha256(text_bytes("root"));
    ct_buf_init(&log->note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&log->checkpoint, log->key, &log->note), CT_OK);
    *state = log;
    return 0;
}

static int log_close(void **state) {
    struct log *log = *state;
    ct_key_free(log->key);
    ct_buf_deinit(&log->note);
    free(log);
    return 0;
}

static enum ct_err open_text(const struct log *log, const char *text) {
    struct ct_checkpoint out;
    return ct_checkpoint_open(text_bytes(text), log->checkpoint.origin, &log->public_key, &out);
}

/* The signature line of `text` as this log makes it. */
static void sign_text(const struct log *log, const char *text, char out[512]) {
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(log->checkpoint.origin, &log->public_key, vkey);
    uint8_t payload[68];
    const char *hex = strchr(vkey, '+') + 1;
    for (size_t i = 0; i < 4; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        payload[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    struct ct_signature signature = ct_key_sign(log->key, text_bytes(text));
    memcpy(payload + 4, signature.bytes, sizeof signature.bytes);
    char base64[96];
    ct_base64_encode((struct ct_bytes){payload, sizeof payload}, base64);
    snprintf(out, 512, DASH " %s %s\n", log->checkpoint.origin, base64);
}

static enum ct_err open_signed(const struct log *log, const char *text) {
    char line[512];
    char note[2048];
    sign_text(log, text, line);
    snprintf(note, sizeof note, "%s\n%s", text, line);
    return open_text(log, note);
}

static void signed_checkpoint_opens(void **state) {
    struct log *log = *state;
    struct ct_checkpoint out;
    assert_int_equal(
        ct_checkpoint_open(ct_buf_bytes(&log->note), "example.org/run", &log->public_key, &out),
        CT_OK);
    assert_string_equal(out.origin, "example.org/run");
    assert_int_equal(out.size, 1);
    assert_memory_equal(&out.root, &log->checkpoint.root, sizeof out.root);
    assert_int_equal(ct_checkpoint_parse(ct_buf_bytes(&log->note), &out), CT_OK);
    assert_int_equal(out.size, 1);
    assert_int_equal(
        ct_checkpoint_open(ct_buf_bytes(&log->note), "example.org/rum", &log->public_key, &out),
        CT_ERR_SIGNATURE);
    struct ct_hash other = log->public_key;
    other.bytes[0] ^= 1;
    assert_int_equal(ct_checkpoint_open(ct_buf_bytes(&log->note), "example.org/run", &other, &out),
                     CT_ERR_SIGNATURE);
}

static void every_flipped_byte_is_refused(void **state) {
    struct log *log = *state;
    struct ct_checkpoint out;
    for (size_t i = 0; i < log->note.length; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            log->note.data[i] ^= (uint8_t)(1u << bit);
            assert_int_not_equal(ct_checkpoint_open(ct_buf_bytes(&log->note), "example.org/run",
                                                    &log->public_key, &out),
                                 CT_OK);
            log->note.data[i] ^= (uint8_t)(1u << bit);
        }
        assert_int_not_equal(ct_checkpoint_open((struct ct_bytes){log->note.data, i},
                                                "example.org/run", &log->public_key, &out),
                             CT_OK);
    }
}

/* Texts with a valid signature of the log that are no checkpoints. */
static void signed_nonsense_is_refused(void **state) {
    struct log *log = *state;
#define ROOT  "10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJLs="
#define EMPTY "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert_int_equal(open_signed(log, "example.org/run\n7\n" ROOT "\n"), CT_OK);
    assert_int_equal(open_signed(log, "example.org/run\n7\n" ROOT "\nextension\n"), CT_OK);
    assert_int_equal(open_signed(log, "example.org/run\n0\n" EMPTY "\n"), CT_OK);
    assert_int_equal(open_signed(log, "example.org/run\n9223372036854775807\n" ROOT "\n"), CT_OK);
    static const char *const bad[] = {
        "example.org/run\n7\n",
        "example.org/run\n",
        "\n7\n" ROOT "\n",
        "example.org/run2\n7\n" ROOT "\n",
        "example.org/run\n0\n" ROOT "\n",
        "example.org/run\n07\n" ROOT "\n",
        "example.org/run\n+7\n" ROOT "\n",
        "example.org/run\n-7\n" ROOT "\n",
        "example.org/run\n 7\n" ROOT "\n",
        "example.org/run\n7 \n" ROOT "\n",
        "example.org/run\n7a\n" ROOT "\n",
        "example.org/run\n\n" ROOT "\n",
        "example.org/run\n9223372036854775808\n" ROOT "\n",
        "example.org/run\n18446744073709551617\n" ROOT "\n",
        "example.org/run\n99999999999999999999999\n" ROOT "\n",
        "example.org/run\n7\n10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJLt=\n",
        "example.org/run\n7\n10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJA==\n",
        "example.org/run\n7\n" ROOT " \n",
        "example.org/run\n7\n" ROOT "\n\nafter an empty line\n",
        "example.org/run\r\n7\n" ROOT "\n",
        "example.org/run\n7\n" ROOT "\n\ttab\n",
        "example.org/run\n7\n" ROOT "\n\xc0\xafoverlong\n",
        "example.org/run\n7\n" ROOT "\n\xed\xa0\x80surrogate\n",
        "example.org/run\n7\n" ROOT "\n\xff\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (open_signed(log, bad[i]) == CT_OK) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}

/* Signature blocks around a good text. */
static void signature_lines_are_strict(void **state) {
    struct log *log = *state;
    const char *text = "example.org/run\n7\n" ROOT "\n";
    const char *unknown = DASH " other.org/witness Uw2QOkn8srV1yJGh2VYRlL1Tnag=\n";
    char good[512];
    char broken[512];
    char note[CT_CHECKPOINT_BYTES_MAX + 1];
    sign_text(log, text, good);
    sign_text(log, "example.org/run\n8\n" ROOT "\n", broken);

    /* Sixteen unknown ones before ours. */
    int used = snprintf(note, sizeof note, "%s\n", text);
    for (int i = 0; i < 16; i++) {
        used += snprintf(note + used, sizeof note - (size_t)used, "%s", unknown);
    }
    snprintf(note + used, sizeof note - (size_t)used, "%s", good);
    assert_int_equal(open_text(log, note), CT_OK);

    const char *const blocks[][2] = {
        {good, broken}, /* a failing line of the known key */
        {broken, good},
        {"", ""},                                  /* none */
        {unknown, ""},                             /* no known one */
        {good, "\n"},                              /* an empty line at the end */
        {good, DASH " other.org/witness\n"},       /* no base64 */
        {good, DASH "  Uw2QOkn8srU=\n"},           /* empty name */
        {good, DASH " a+b Uw2QOkn8srU=\n"},        /* plus in a name */
        {good, DASH " a\xc2\xa0z Uw2QOkn8srU=\n"}, /* a Unicode space in a name */
        {good, DASH " a Uw2QOkn8srU\n"},           /* padding missing */
        {good, DASH " a Uw2QOkn8srV=\n"},          /* bits behind the end */
        {good, DASH " a Uw2QOg==\n"},              /* a key id alone */
        {good, "- a Uw2QOkn8srU=\n"},              /* no em dash */
        {good, DASH " a Uw2QOkn8srU= \n"},         /* space at the end */
        {good, DASH " a Uw2QOkn8srU="},            /* no line feed */
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        snprintf(note, sizeof note, "%s\n%s%s", text, blocks[i][0], blocks[i][1]);
        if (open_text(log, note) == CT_OK) {
            fail_msg("accepted block %zu:\n%s", i, note);
        }
    }
    /* Ours, cut to another length. */
    char *line = strdup(good);
    assert_non_null(line);
    size_t length = strlen(line);
    memcpy(line + length - 5, "\n", 2);
    snprintf(note, sizeof note, "%s\n%s", text, line);
    assert_int_equal(open_text(log, note), CT_ERR_SIGNATURE);
    free(line);

    char *large = malloc(CT_CHECKPOINT_BYTES_MAX + 2);
    assert_non_null(large);
    memset(large, 'a', CT_CHECKPOINT_BYTES_MAX + 1);
    large[CT_CHECKPOINT_BYTES_MAX + 1] = '\0';
    assert_int_equal(open_text(log, large), CT_ERR_TOO_LARGE);
    free(large);
}

static void verifier_keys_round_trip(void **state) {
    struct log *log = *state;
    char vkey[CT_VKEY_BYTES_MAX];
    char name[CT_ORIGIN_BYTES_MAX];
    struct ct_hash key;
    ct_vkey_format("example.org/run", &log->public_key, vkey);
    assert_int_equal(ct_vkey_parse(vkey, name, &key), CT_OK);
    assert_string_equal(name, "example.org/run");
    assert_memory_equal(&key, &log->public_key, sizeof key);
    for (size_t i = 0; vkey[i] != '\0'; i++) {
        vkey[i] ^= 1;
        assert_int_not_equal(ct_vkey_parse(vkey, name, &key), CT_OK);
        vkey[i] ^= 1;
    }
    static const char *const bad[] = {
        "",
        "a",
        "a+b",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_not_equal(ct_vkey_parse(bad[i], name, &key), CT_OK);
    }
    char longest[CT_ORIGIN_BYTES_MAX];
    memset(longest, 'n', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    ct_vkey_format(longest, &log->public_key, vkey);
    assert_int_equal(ct_vkey_parse(vkey, name, &key), CT_OK);
    assert_string_equal(name, longest);
}

static void origins_that_are_no_key_names(void **state) {
    struct log *log = *state;
    static const char *const bad[] = {"", "a b", "a+b", "a\nb", "a\xe2\x80\x83z", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ct_checkpoint checkpoint = log->checkpoint;
        snprintf(checkpoint.origin, sizeof checkpoint.origin, "%s", bad[i]);
        assert_int_equal(ct_checkpoint_sign(&checkpoint, log->key, &log->note), CT_ERR_CONFIG);
    }
}

/* The specification's example is a note without a checkpoint in it: its signature must hold, so
 * that only the text is refused. */
static void c2sp_example(void **state) {
    (void)state;
    char path[PATH_MAX];
    json_t *examples = json_load_file(fixture_vector("notes/c2sp-examples.json", path), 0, NULL);
    json_t *example = json_object_get(examples, "signed_note");
    const char *note = json_string_value(json_object_get(example, "note"));
    char name[CT_ORIGIN_BYTES_MAX];
    struct ct_hash key;
    assert_int_equal(ct_vkey_parse(json_string_value(json_object_get(example, "vkey")), name, &key),
                     CT_OK);
    struct ct_checkpoint out;
    assert_int_equal(ct_checkpoint_open(text_bytes(note), name, &key, &out), CT_ERR_FORMAT);
    char *changed = strdup(note);
    assert_non_null(changed);
    changed[0] = 't';
    assert_int_equal(ct_checkpoint_open(text_bytes(changed), name, &key, &out), CT_ERR_SIGNATURE);
    free(changed);
    json_decref(examples);
}

static void tessera_checkpoints(void **state) {
    (void)state;
    char name[CT_ORIGIN_BYTES_MAX];
    struct ct_hash key;
    assert_int_equal(
        ct_vkey_parse(
            "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", name,
            &key),
        CT_OK);
    for (unsigned size = 0; size <= 15; size++) {
        char file[64];
        char path[PATH_MAX];
        snprintf(file, sizeof file, "tlog-tiles/checkpoint.%u", size);
        struct ct_buf note = fixture_read(fixture_vector(file, path));
        struct ct_checkpoint out;
        assert_int_equal(ct_checkpoint_open(ct_buf_bytes(&note), name, &key, &out), CT_OK);
        assert_int_equal(out.size, size);
        ct_buf_deinit(&note);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(signed_checkpoint_opens, log_open, log_close),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_refused, log_open, log_close),
        cmocka_unit_test_setup_teardown(signed_nonsense_is_refused, log_open, log_close),
        cmocka_unit_test_setup_teardown(signature_lines_are_strict, log_open, log_close),
        cmocka_unit_test_setup_teardown(verifier_keys_round_trip, log_open, log_close),
        cmocka_unit_test_setup_teardown(origins_that_are_no_key_names, log_open, log_close),
        cmocka_unit_test(c2sp_example),
        cmocka_unit_test(tessera_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
