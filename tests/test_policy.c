#include "fixture.h"

#include <cotrain/policy.h>

#define DASH "\xe2\x80\x94"
#define TEXT "example.org/run\n1\n10LCC2WDYdfzqYDrgMB8hKRwPJlQLSi1BJWajPgZJLs=\n"

enum { WITNESSES = 6 };

/* Six witnesses with keys of their own. */
struct world {
    struct ct_key *log_key, *keys[WITNESSES];
    char log_vkey[CT_VKEY_BYTES_MAX], vkeys[WITNESSES][CT_VKEY_BYTES_MAX];
    struct ct_policy policy;
};

static int world_open(void **state) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    assert_int_equal(ct_key_generate(&world->log_key), CT_OK);
    struct ct_hash public_key = ct_key_public(world->log_key);
    ct_vkey_format("example.org/run", &public_key, world->log_vkey);
    for (int i = 0; i < WITNESSES; i++) {
        char name[32];
        snprintf(name, sizeof name, "witness.example/%d", i);
        assert_int_equal(ct_key_generate(&world->keys[i]), CT_OK);
        public_key = ct_key_public(world->keys[i]);
        ct_cosigner_format(name, &public_key, world->vkeys[i]);
    }
    *state = world;
    return 0;
}

static int world_close(void **state) {
    struct world *world = *state;
    ct_key_free(world->log_key);
    for (int i = 0; i < WITNESSES; i++) {
        ct_key_free(world->keys[i]);
    }
    free(world);
    return 0;
}

static struct ct_buf make_text(const struct world *world, const char *rules) {
    struct ct_buf text;
    ct_buf_init(&text, CT_POLICY_BYTES_MAX + 4096);
    assert_int_equal(
        ct_buf_printf(&text, "# a comment\n\t \nlog %s http://log.example/\n", world->log_vkey),
        CT_OK);
    for (int i = 0; i < WITNESSES; i++) {
        assert_int_equal(ct_buf_printf(&text, " witness %c%d\t%s%s\n", i < 3 ? 'X' : 'Y', i % 3 + 1,
                                       world->vkeys[i], i == 0 ? " http://witness.example/" : ""),
                         CT_OK);
    }
    assert_int_equal(ct_buf_append(&text, rules, strlen(rules)), CT_OK);
    return text;
}

static enum ct_err parse(struct world *world, const char *rules) {
    struct ct_buf text = make_text(world, rules);
    enum ct_err err = ct_policy_parse(ct_buf_bytes(&text), &world->policy);
    ct_buf_deinit(&text);
    return err;
}

/* A note that the witnesses of the mask have cosigned. */
static struct ct_buf make_note(const struct world *world, unsigned mask) {
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    struct ct_checkpoint checkpoint = {.origin = "example.org/run", .size = 1};
    assert_int_equal(ct_checkpoint_sign(&checkpoint, world->log_key, &note), CT_OK);
    for (unsigned i = 0; i < WITNESSES; i++) {
        char name[32];
        snprintf(name, sizeof name, "witness.example/%u", i);
        if ((mask >> i & 1) != 0) {
            assert_int_equal(ct_cosign(ct_buf_bytes(&note), name, world->keys[i], 7, &note), CT_OK);
        }
    }
    return note;
}

/* The example of the specification: two of three X and one of three Y. */
static void quorum_of_groups(void **state) {
    struct world *world = *state;
    assert_int_equal(parse(world, "group X 2 X1 X2 X3\ngroup Y any Y1 Y2 Y3\n"
                                  "group both all X Y\nquorum both\n"),
                     CT_OK);
    assert_int_equal(ct_policy_witnesses(&world->policy), WITNESSES);
    assert_int_equal(ct_policy_least(&world->policy), 3);
    assert_non_null(ct_policy_find_log(&world->policy, "example.org/run"));
    assert_string_equal(ct_policy_find_log(&world->policy, "example.org/run")->url,
                        "http://log.example/");
    assert_null(ct_policy_find_log(&world->policy, "example.org/rum"));
    assert_string_equal(world->policy.members[0].url, "http://witness.example/");
    assert_string_equal(world->policy.members[1].url, "");
    for (unsigned mask = 0; mask < 1u << WITNESSES; mask++) {
        struct ct_buf note = make_note(world, mask);
        uint64_t cosigned = 99;
        bool good = __builtin_popcount(mask & 7) >= 2 && mask >> 3 != 0;
        assert_int_equal(ct_policy_check(&world->policy, ct_buf_bytes(&note), &cosigned),
                         good ? CT_OK : CT_ERR_SIGNATURE);
        assert_int_equal(cosigned, mask);
        ct_buf_deinit(&note);
    }
    struct ct_buf note = make_note(world, 1);
    assert_int_equal(ct_policy_check(&world->policy, ct_buf_bytes(&note), NULL), CT_ERR_SIGNATURE);
    assert_non_null(strstr(ct_err_detail(), "X2, X3, Y1, Y2, Y3"));
    ct_buf_deinit(&note);
}

/* A quorum is there, but one witness's line was made for another text: the note is malformed. */
static void false_line_refuses_the_note(void **state) {
    struct world *world = *state;
    assert_int_equal(parse(world, "quorum X1\n"), CT_OK);
    struct ct_buf note = make_note(world, 1);
    struct ct_buf other = make_note(world, 2);
    const char *line = strstr((const char *)other.data, DASH " witness.example/1");
    assert_non_null(line);
    size_t before = note.length;
    assert_int_equal(
        ct_buf_append(&note, line, other.length - (size_t)(line - (const char *)other.data)),
        CT_OK);
    assert_int_equal(ct_policy_check(&world->policy, ct_buf_bytes(&note), NULL), CT_OK);
    note.data[before + 30] ^= 1;
    assert_int_not_equal(ct_policy_check(&world->policy, ct_buf_bytes(&note), NULL), CT_OK);
    ct_buf_deinit(&other);
    ct_buf_deinit(&note);
}

static void plain_quorums(void **state) {
    struct world *world = *state;
    static const struct {
        const char *rules;
        unsigned least;
    } cases[] = {
        {"quorum none\n", 0},
        {"quorum Y3 # no comment here\n", 99},
        {"quorum Y3\n", 1},
        {"group g all X1 X2 X3 Y1 Y2 Y3\nquorum g\n", 6},
        {"group a 2 X1 X2\ngroup b 3 X3 Y1 Y2\ngroup c any a b\nquorum c\n", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(parse(world, cases[i].rules),
                         cases[i].least == 99 ? CT_ERR_FORMAT : CT_OK);
        if (cases[i].least != 99) {
            assert_int_equal(ct_policy_least(&world->policy), cases[i].least);
        }
    }
    assert_int_equal(
        ct_policy_parse((struct ct_bytes){(const uint8_t *)"quorum none\n", 12}, &world->policy),
        CT_OK);
    assert_int_equal(ct_policy_parse((struct ct_bytes){NULL, 0}, &world->policy), CT_ERR_FORMAT);
}

static void what_is_no_policy(void **state) {
    struct world *world = *state;
    static const char *const bad[] = {
        "",
        "quorum",
        "quorum none",
        "quorum none\nquorum none\n",
        "quorum Z\n",
        "group g any\nquorum g\n",
        "group g 0 X1\nquorum g\n",
        "group g 2 X1\nquorum g\n",
        "group g 01 X1\nquorum g\n",
        "group g 1 Z\nquorum g\n",
        "group g 1 g\nquorum g\n",
        "group g 1 X1\ngroup h 1 X1\nquorum h\n",
        "group g 2 X1 X1\nquorum g\n",
        "group none 1 X1\nquorum none\n",
        "group X1 1 X2\nquorum X1\n",
        "group g some X1\nquorum g\n",
        "mirror x\nquorum none\n",
        "quorum none\r\n",
        "quorum none\n\001\n",
        "witness w\nquorum none\n",
        "log\nquorum none\n",
        "witness w example.org/w+00000000+AAAA\nquorum w\n",
        "group g 4294967297 X1 X2\nquorum g\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        print_message("%s\n", bad[i]);
        assert_int_equal(parse(world, bad[i]), CT_ERR_FORMAT);
    }
    /* A log's key for a witness, a witness's for a log, and keys that are there already. */
    char rules[1024];
    static const char *const forms[] = {"witness w %s\nquorum none\n", "log %s\nquorum none\n"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(rules, sizeof rules, forms[i % 2], i < 2 ? world->log_vkey : world->vkeys[0]);
        assert_int_equal(parse(world, rules), CT_ERR_FORMAT);
    }
    char long_text[CT_POLICY_BYTES_MAX + 100];
    memset(long_text, '#', sizeof long_text);
    assert_int_equal(
        ct_policy_parse((struct ct_bytes){(const uint8_t *)long_text, sizeof long_text},
                        &world->policy),
        CT_ERR_TOO_LARGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quorum_of_groups),
        cmocka_unit_test(false_line_refuses_the_note),
        cmocka_unit_test(plain_quorums),
        cmocka_unit_test(what_is_no_policy),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
