#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>
#include <cotrain/manifest.h>
#include <cotrain/policy.h>

#include "fixture.h"
#include "shapes.h"

#define KEY_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define KEY_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static const char good[] = "run:\n"                                   /* 1 */
                           "  name: jargon\n"                         /* 2 */
                           "  description: \"a small one: a test\"\n" /* 3 */
                           "  license: Apache-2.0\n"                  /* 4 */
                           "  rounds: 200\n"                          /* 5 */
                           "model:\n"                                 /* 6 */
                           "  arch: gpt2\n"                           /* 7 */
                           "  layers: 4\n"                            /* 8 */
                           "  heads: 4\n"                             /* 9 */
                           "  width: 128\n"                           /* 10 */
                           "  context: 64\n"                          /* 11 */
                           "training:\n"                              /* 12 */
                           "  numerics: bf16-1\n"                     /* 13 */
                           "  batch: 12\n"                            /* 14 */
                           "  leaves: 2\n"                            /* 15 */
                           "  steps: 15\n"                            /* 16 */
                           "  steps_min: 10\n"                        /* 17 */
                           "  steps_max: 60\n"                        /* 18 */
                           "  rate_peak: 3.0e-3\n"                    /* 19 */
                           "  rate_floor: 3.0e-4\n"                   /* 20 */
                           "  warmup_tokens: 230400\n"                /* 21 */
                           "  total_tokens: 6912000\n"                /* 22 */
                           "  rate_unit_tokens: 6912\n"               /* 23 */
                           "data:\n"                                  /* 24 */
                           "  path: ./data\n"                         /* 25 */
                           "  license: CC0-1.0\n"                     /* 26 */
                           "  provenance: |\n"                        /* 27 */
                           "    Written by the test.\n"               /* 28 */
                           "    Twice.\n"                             /* 29 */
                           "admission:\n"                             /* 30 */
                           "  nodes:\n"                               /* 31 */
                           "    - " KEY_A "\n"                        /* 32 */
                           "    - " KEY_B "\n"                        /* 33 */
                           "timing:\n"                                /* 34 */
                           "  round_seconds: 20\n"                    /* 35 */
                           "  upload_seconds: 30\n"                   /* 36 */
                           "  quorum_nodes: 1\n"                      /* 37 */
                           "  checkpoint_ms: 100\n"                   /* 38 */
                           "audit:\n"                                 /* 39 */
                           "  epoch_rounds: 8\n"                      /* 40 */
                           "  snapshot_rounds: 32\n";                 /* 41 */

static char *dir;
static char yaml_path[PATH_MAX];

static int setup(void **state) {
    (void)state;
    dir = fixture_dir();
    char path[PATH_MAX], data[PATH_MAX];
    snprintf(path, sizeof path, "%s/text", dir);
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(yaml_path, sizeof yaml_path, "%s/RUN.yaml", dir);
    char text[1000];
    memset(text, 'x', sizeof text);
    fixture_write(path, text, sizeof text);
    const char *paths[] = {path};
    const struct ct_dataset_recipe recipe = {.name = "x",
                                             .license = "CC0-1.0",
                                             .source = "the test",
                                             .paths = paths,
                                             .path_count = 1,
                                             .shard_tokens = 600};
    return ct_dataset_build(&recipe, data) == CT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    fixture_remove(dir);
    free(dir);
    return 0;
}

static enum ct_err load_text(const char *text, struct ct_manifest *out) {
    char data_dir[PATH_MAX];
    fixture_write(yaml_path, text, strlen(text));
    return ct_manifest_load(yaml_path, out, data_dir);
}

static void every_key_arrives(void **state) {
    (void)state;
    struct ct_manifest m;
    char data_dir[PATH_MAX], expected[PATH_MAX];
    fixture_write(yaml_path, good, strlen(good));
    if (ct_manifest_load(yaml_path, &m, data_dir) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    snprintf(expected, sizeof expected, "%s/./data", dir);
    assert_string_equal(data_dir, expected);
    assert_int_equal(m.version, 1);
    assert_string_equal(m.name, "jargon");
    assert_string_equal(m.description, "a small one: a test");
    assert_string_equal(m.license, "Apache-2.0");
    assert_string_equal(m.data_license, "CC0-1.0");
    assert_string_equal(m.provenance, "Written by the test.\nTwice.");
    assert_string_equal(m.tokenizer, "bytes");
    assert_string_equal(m.source, good);
    struct ct_model_shape shape = GPT2_SHAPE(256, 64, 4, 4, 128);
    assert_int_equal(ct_shape_settle(&shape), CT_OK);
    assert_true(same_shape(&m.model, &shape));
    assert_int_equal(m.numerics, CT_NUMERICS_BF16_1);
    const uint32_t numbers[] = {
        m.rounds,       m.batch,          m.leaves,         m.steps,        m.steps_min,
        m.steps_max,    m.round_time_ms,  m.upload_time_ms, m.quorum_nodes, m.checkpoint_time_ms,
        m.epoch_rounds, m.snapshot_rounds};
    const uint32_t wanted[] = {200, 12, 2, 15, 10, 60, 20000, 30000, 1, 100, 8, 32};
    assert_memory_equal(numbers, wanted, sizeof wanted);
    assert_int_equal(m.node_count, 2);
    assert_int_equal(m.nodes[0].bytes[31], 0xaa);
    assert_int_equal(m.nodes[1].bytes[0], 0xbb);

    float rates[1000];
    ct_rate_table(rates, 1000, 33, 3.0e-3, 3.0e-4);
    assert_int_equal(m.rate_unit, 6912);
    assert_int_equal(m.rate_count, 1000);
    assert_memory_equal(m.rates, rates, sizeof rates);
    struct ct_adamw adamw = ct_adamw_default();
    assert_memory_equal(&m.adamw, &adamw, sizeof adamw);

    char sheet_path[PATH_MAX];
    snprintf(sheet_path, sizeof sheet_path, "%s/data/dataset.json", dir);
    struct ct_buf sheet = fixture_read(sheet_path);
    struct ct_hash digest = ct_sha256(ct_buf_bytes(&sheet));
    assert_int_equal(m.dataset.length, sheet.length);
    assert_memory_equal(&m.dataset.sha256, &digest, sizeof digest);
    ct_buf_deinit(&sheet);
    ct_manifest_deinit(&m);
}

/* `good` without the lines first…last, counted from 1. */
static void without_lines(int first, int last, char *out) {
    int line = 1;
    for (const char *at = good; *at != '\0'; at++) {
        if (line < first || line > last) {
            *out++ = *at;
        }
        line += *at == '\n';
    }
    *out = '\0';
}

static void optional_keys_have_defaults(void **state) {
    (void)state;
    char text[sizeof good];
    struct ct_manifest m;
    without_lines(34, 41, text);
    assert_int_equal(load_text(text, &m), CT_OK);
    const uint32_t numbers[] = {m.round_time_ms,      m.upload_time_ms, m.quorum_nodes,
                                m.checkpoint_time_ms, m.epoch_rounds,   m.snapshot_rounds};
    const uint32_t wanted[] = {60000, 60000, 2, 1000, 16, 64};
    assert_memory_equal(numbers, wanted, sizeof wanted);
    ct_manifest_deinit(&m);
    without_lines(15, 18, text);
    assert_int_equal(load_text(text, &m), CT_OK);
    assert_int_equal(m.leaves, 1);
    assert_int_equal(m.steps_min, 8);
    assert_int_equal(m.steps, 30);
    assert_int_equal(m.steps_max, 64);
    ct_manifest_deinit(&m);
    without_lines(23, 23, text);
    assert_int_equal(load_text(text, &m), CT_OK);
    assert_int_equal(m.rate_unit, 6912);
    ct_manifest_deinit(&m);
    without_lines(3, 3, text);
    assert_int_equal(load_text(text, &m), CT_OK);
    assert_string_equal(m.description, "");
    ct_manifest_deinit(&m);
}

static void expect_line(const char *text, unsigned line, const char *words, const char *what) {
    struct ct_manifest m;
    enum ct_err err = load_text(text, &m);
    char place[PATH_MAX + 16];
    snprintf(place, sizeof place, "%s:%u: ", yaml_path, line);
    if (err != CT_ERR_CONFIG || strncmp(ct_err_detail(), place, strlen(place)) != 0 ||
        strstr(ct_err_detail(), words) == NULL) {
        fail_msg("%s: wanted line %u and '%s', got %d: %s", what, line, words, (int)err,
                 ct_err_detail());
    }
}

/* `good` with the first `from` replaced. */
static void changed(const char *from, const char *to, char *out, size_t capacity) {
    const char *at = strstr(good, from);
    assert_non_null(at);
    snprintf(out, capacity, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
}

static void mistakes_are_named_with_their_line(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        unsigned line;
        const char *words;
    } cases[] = {
        /* unknown and repeated keys */
        {"  rounds: 200\n", "  rounds: 200\n  round: 3\n", 6, "unknown key 'round' in run"},
        {"  rounds: 200", "  rond: 200", 5, "unknown key 'rond'"},
        {"model:\n", "modle:\n", 6, "unknown section 'modle'"},
        {"audit:\n", "timing:\n", 39, "section timing is there twice"},
        {"  heads: 4\n", "  heads: 4\n  heads: 4\n", 10, "model.heads is there twice"},
        {"model:\n", "? [a]\n: b\nmodel:\n", 6, "unknown section"},
        /* missing ones: the line of their section */
        {"  license: Apache-2.0\n", "", 1, "run lacks 'license'"},
        {"  license: CC0-1.0\n", "", 24, "data lacks 'license'"},
        {"  provenance: |\n    Written by the test.\n    Twice.\n", "", 24,
         "data lacks 'provenance'"},
        {"  numerics: bf16-1\n", "", 12, "training lacks 'numerics'"},
        {"admission:\n  nodes:\n    - " KEY_A "\n    - " KEY_B "\n", "", 1,
         "section 'admission' is missing"},
        /* empty ones */
        {"license: Apache-2.0", "license:", 4, "run.license is empty"},
        {"license: Apache-2.0", "license: ~", 4, "run.license is empty"},
        {"|\n    Written by the test.\n    Twice.\n", "\"\"\n", 27, "data.provenance is empty"},
        {"nodes:\n    - " KEY_A "\n    - " KEY_B "\n", "nodes: []\n", 31, "1 to 1024 keys"},
        /* wrong types */
        {"rounds: 200", "rounds: many", 5, "whole number"},
        {"rounds: 200", "rounds: \"200\"", 5, "whole number"},
        {"rounds: 200", "rounds: 2 00", 5, "whole number"},
        {"rounds: 200", "rounds: 0200", 5, "whole number"},
        {"rounds: 200", "rounds: 1.5", 5, "whole number"},
        {"rounds: 200", "rounds: [200]", 5, "whole number"},
        {"name: jargon", "name: [jargon]", 2, "run.name must be text"},
        {"rate_peak: 3.0e-3", "rate_peak: high", 19, "training.rate_peak must be a number"},
        {"rate_peak: 3.0e-3", "rate_peak: 0x1p-3", 19, "must be a number"},
        {"rate_peak: 3.0e-3", "rate_peak: 1e999", 19, "must be a number"},
        {"nodes:\n    - " KEY_A "\n    - " KEY_B "\n", "nodes: " KEY_A "\n", 31, "must be a list"},
        {"model:\n  arch: gpt2\n  layers: 4\n  heads: 4\n  width: 128\n  context: 64\n",
         "model: small\n", 6, "model must hold"},
        /* out of range */
        {"rounds: 200", "rounds: 0", 5, "from 1 to 1000000"},
        {"rounds: 200", "rounds: -3", 5, "whole number"},
        {"rounds: 200", "rounds: 99999999999999999999999", 5, "whole number"},
        {"checkpoint_ms: 100", "checkpoint_ms: 99", 38, "from 100 to 60000"},
        {"checkpoint_ms: 100", "checkpoint_ms: 60001", 38, "from 100 to 60000"},
        {"rate_peak: 3.0e-3", "rate_peak: 3.0e-5", 19, "not below rate_floor"},
        {"rate_peak: 3.0e-3", "rate_peak: 1.5", 19, "from 0 to 1"},
        {"warmup_tokens: 230400", "warmup_tokens: 6912000", 21, "below total_tokens"},
        {"rate_unit_tokens: 6912", "rate_unit_tokens: 1", 23, "6912000 entries"},
        /* what does not go together */
        {"width: 128", "width: 130", 10, "multiple of heads"},
        {"leaves: 2", "leaves: 3", 15, "leaves are 1, 2, 4, 8 or 16"},
        {"leaves: 2", "leaves: 8", 15, "divide the batch"},
        {"steps: 15", "steps: 9", 16, "training.steps"},
        {"steps_min: 10", "steps_min: 61", 17, "training.steps_min"},
        {"arch: gpt2", "arch: llama", 7, "hidden"},
        {"numerics: bf16-1", "numerics: fast", 13, "not bf16-1 or fp32-1"},
        {"license: Apache-2.0", "license: Apache 2", 4, "no SPDX licence expression"},
        {"license: CC0-1.0", "license: MIT", 26, "the data set's own sheet says 'CC0-1.0'"},
        {"name: jargon", "name: \"a\\tb\"", 2, "printable"},
        {"path: ./data", "path: ./nothing", 25, "data.path: "},
        {"context: 64", "context: 512", 25, "needs at least 1536"},
        {KEY_B, KEY_A, 33, "twice"},
        {KEY_B, "BBBB", 33, "64 lower-case hex digits"},
        {"- " KEY_B, "- [x]", 33, "64 lower-case hex digits"},
        {KEY_B, "0000000000000000000000000000000000000000000000000000000000000000", 33, "64 lower"},
        /* not YAML, or not one document */
        {"  rounds: 200", "  rounds: \"200", 42, ""},
        {"  rounds: 200", "\trounds: 200", 5, ""},
        {"  snapshot_rounds: 32\n", "  snapshot_rounds: 32\n---\nrun: 1\n", 43, "second document"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[4096];
        changed(cases[i].from, cases[i].to, text, sizeof text);
        expect_line(text, cases[i].line, cases[i].words, cases[i].to);
    }
    expect_line("", 1, "sections", "an empty file");
    expect_line("- a\n", 1, "sections", "a list");
    struct ct_manifest m;
    char data_dir[PATH_MAX];
    assert_int_equal(ct_manifest_load("/nonexistent/RUN.yaml", &m, data_dir), CT_ERR_NOT_FOUND);
}

static void long_texts_are_refused(void **state) {
    (void)state;
    char name[80], text[4096];
    memcpy(name, "name: ", 6);
    memset(name + 6, 'n', 64);
    name[70] = '\0';
    changed("name: jargon", name, text, sizeof text);
    expect_line(text, 2, "at most 63", "a long name");
    name[69] = '\0';
    changed("name: jargon", name, text, sizeof text);
    struct ct_manifest m;
    assert_int_equal(load_text(text, &m), CT_OK);
    ct_manifest_deinit(&m);
}

static void load_good(struct ct_manifest *out) {
    if (load_text(good, out) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
}

/* The good file with another model section. */
static void with_model(const char *model, char *out, size_t capacity) {
    const char *from = strstr(good, "model:\n"), *to = strstr(good, "training:\n");
    snprintf(out, capacity, "%.*smodel:\n%s%s", (int)(from - good), good, model, to);
}

static void a_llama_arrives_and_comes_back(void **state) {
    (void)state;
    static const struct {
        const char *rest;
        struct ct_model_shape shape;
    } cases[] = {
        {"  hidden: 96\n", LLAMA_SHAPE(256, 64, 2, 4, 4, 32, 96, false)},
        {"  kv_heads: 2\n  hidden: 97\n  tied_head: true\n  norm_epsilon: 1.0e-6\n"
         "  rope_theta: 500000\n",
         {.arch = CT_ARCH_LLAMA,
          .vocab = 256,
          .context = 64,
          .layers = 2,
          .heads = 4,
          .width = 32,
          .kv_heads = 2,
          .hidden = 97,
          .tied = true,
          .norm_epsilon = 1e-6f,
          .rope_theta = 500000.0f}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char model[400], text[8192];
        struct ct_manifest m, back;
        struct ct_model_shape expected = cases[i].shape;
        assert_int_equal(ct_shape_settle(&expected), CT_OK);
        snprintf(model, sizeof model,
                 "  arch: llama\n  layers: 2\n  heads: 4\n  width: 32\n  context: 64\n%s",
                 cases[i].rest);
        with_model(model, text, sizeof text);
        if (load_text(text, &m) != CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        assert_true(same_shape(&m.model, &expected));
        struct ct_buf bytes, again;
        ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
        ct_buf_init(&again, CT_MANIFEST_BYTES_MAX);
        assert_int_equal(ct_manifest_encode(&m, &bytes), CT_OK);
        assert_int_equal(ct_manifest_decode(ct_buf_bytes(&bytes), &back), CT_OK);
        assert_true(same_shape(&back.model, &expected));
        assert_int_equal(ct_manifest_encode(&back, &again), CT_OK);
        assert_int_equal(bytes.length, again.length);
        assert_memory_equal(bytes.data, again.data, bytes.length);
        ct_buf_deinit(&again);
        ct_buf_deinit(&bytes);
        ct_manifest_deinit(&back);
        ct_manifest_deinit(&m);
    }
}

static void wrong_models_are_named_with_their_line(void **state) {
    (void)state;
#define GPT2_LINES  "  arch: gpt2\n  layers: 2\n  heads: 4\n  width: 32\n  context: 64\n"
#define LLAMA_LINES "  arch: llama\n  layers: 2\n  heads: 4\n  width: 32\n  context: 64\n"
    static const struct {
        const char *model;
        unsigned line;
        const char *words;
    } cases[] = {
        {"  arch: bert\n  layers: 2\n  heads: 4\n  width: 32\n  context: 64\n", 7, "gpt2 or llama"},
        {GPT2_LINES "  kv_heads: 4\n", 12, "only a llama"},
        {GPT2_LINES "  tied_head: true\n", 12, "only a llama"},
        {GPT2_LINES "  hidden: 128\n", 12, "only a llama"},
        {GPT2_LINES "  norm_epsilon: 1.0e-5\n", 12, "only a llama"},
        {GPT2_LINES "  rope_theta: 10000\n", 12, "only a llama"},
        {LLAMA_LINES, 7, "hidden"},
        {LLAMA_LINES "  hidden: 64\n  kv_heads: 3\n", 13, "kv_heads 3"},
        {LLAMA_LINES "  hidden: 64\n  tied_head: yes\n", 13, "true or false"},
        {LLAMA_LINES "  hidden: 64\n  tied_head: 'true'\n", 13, "true or false"},
        {LLAMA_LINES "  hidden: 64\n  norm_epsilon: 0\n", 13, "above 0"},
        {LLAMA_LINES "  hidden: 64\n  norm_epsilon: 0.5\n", 13, "norm_epsilon"},
        {LLAMA_LINES "  hidden: 64\n  rope_theta: 16777217\n", 13, "nearest is 16777216"},
        {LLAMA_LINES "  hidden: 64\n  rope_theta: 0\n", 13, "whole number"},
        {"  arch: llama\n  layers: 2\n  heads: 32\n  width: 32\n  context: 64\n  hidden: 8\n", 10,
         "even"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[8192];
        with_model(cases[i].model, text, sizeof text);
        expect_line(text, cases[i].line, cases[i].words, cases[i].model);
    }
}

/* One manifest has one encoding: what another architecture has, or has by itself, is refused. */
static void models_have_one_encoding(void **state) {
    (void)state;
    struct ct_manifest m, back;
    load_good(&m);
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    assert_int_equal(ct_manifest_encode(&m, &bytes), CT_OK);
    /* the model's fields, context to width */
    static const uint8_t model[] = {0x08, 1, 0x10, 0x80, 2,    0x18, 64,
                                    0x20, 4, 0x28, 4,    0x30, 128,  1};
    uint8_t *place = memmem(bytes.data, bytes.length, model, sizeof model);
    assert_non_null(place);
    assert_int_equal(place[-1], sizeof model);
    const size_t end = (size_t)(place - bytes.data) + sizeof model;
    /* kv_heads 4, heads' own number; two bytes more in the message */
    uint8_t *longer = malloc(bytes.length + 2);
    assert_non_null(longer);
    memcpy(longer, bytes.data, end);
    memcpy(longer + end, (const uint8_t[]){0x38, 4}, 2);
    memcpy(longer + end + 2, bytes.data + end, bytes.length - end);
    longer[place - bytes.data - 1] += 2;
    assert_int_equal(ct_manifest_decode((struct ct_bytes){longer, bytes.length + 2}, &back),
                     CT_ERR_FORMAT);
    assert_non_null(strstr(ct_err_detail(), "architecture"));
    place[1] = 2; /* a Llama without what it must have */
    assert_int_equal(ct_manifest_decode(ct_buf_bytes(&bytes), &back), CT_ERR_FORMAT);
    assert_non_null(strstr(ct_err_detail(), "architecture"));
    free(longer);
    ct_buf_deinit(&bytes);
    ct_manifest_deinit(&m);
}

#define WITNESS "witness w lite.example/w+5219dabb+BBx91b4BOlA/WNLI9q6CSLRepzDtxvRSVx9ULtKbUjSo"
#define SECTION "witnesses:\n  policy: |\n    "

static void witnesses_arrive_as_a_policy(void **state) {
    (void)state;
    char text[8192];
    struct ct_manifest m;
    struct ct_policy *policy = NULL;
    load_good(&m);
    assert_int_equal(ct_manifest_policy(&m, &policy), CT_OK);
    assert_null(policy);
    ct_manifest_deinit(&m);
    snprintf(text, sizeof text, "%s" SECTION WITNESS " http://lite.example/\n    quorum w\n", good);
    if (load_text(text, &m) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    struct ct_buf blob;
    ct_buf_init(&blob, CT_MANIFEST_BYTES_MAX);
    assert_int_equal(ct_manifest_encode(&m, &blob), CT_OK);
    ct_manifest_deinit(&m);
    assert_int_equal(ct_manifest_decode(ct_buf_bytes(&blob), &m), CT_OK);
    assert_int_equal(ct_manifest_policy(&m, &policy), CT_OK);
    assert_non_null(policy);
    assert_int_equal(policy->member_count, 1);
    assert_int_equal(policy->quorum, 0);
    assert_string_equal(policy->members[0].url, "http://lite.example/");
    free(policy);
    ct_manifest_deinit(&m);
    ct_buf_deinit(&blob);
    static const char *const bad[][2] = {
        {WITNESS " http://lite.example/\n", "quorum"},
        {WITNESS "\n    quorum w\n", "URL"},
        {WITNESS " http://lite.example/\n    quorum v\n", "line 2"},
        {"log lite.example/w+5219dabb+BBx91b4BOlA/WNLI9q6CSLRepzDtxvRSVx9ULtKbUjSo\n", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "%s" SECTION "%s", good, bad[i][0]);
        assert_int_equal(load_text(text, &m), CT_ERR_CONFIG);
        assert_non_null(strstr(ct_err_detail(), "witnesses.policy"));
        assert_non_null(strstr(ct_err_detail(), bad[i][1]));
    }
}

/* What `retention` makes of a run's text; the blob of `all` is that of a text without it. */
static void retention_is_all_or_rounds(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint32_t rounds;
    } right[] = {{"", 0},
                 {"retention: all\n", 0},
                 {"retention:\n  rounds: 8\n", 8},
                 {"retention: {rounds: 1000000}\n", 1000000}};
    char text[4096];
    struct ct_manifest m, back;
    size_t plain = 0;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        struct ct_buf blob;
        snprintf(text, sizeof text, "%s%s", good, right[i].text);
        if (load_text(text, &m) != CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        assert_int_equal(m.retention_rounds, right[i].rounds);
        ct_buf_init(&blob, CT_MANIFEST_BYTES_MAX);
        assert_int_equal(ct_manifest_encode(&m, &blob), CT_OK);
        assert_int_equal(ct_manifest_decode(ct_buf_bytes(&blob), &back), CT_OK);
        assert_int_equal(back.retention_rounds, right[i].rounds);
        /* The text in it aside, `all` adds nothing, and a number its field: two bytes and it. */
        const size_t rest = blob.length - strlen(right[i].text);
        plain = i == 0 ? rest : plain;
        assert_int_equal(rest, plain + (right[i].rounds == 0 ? 0 : right[i].rounds < 128 ? 3 : 5));
        ct_buf_deinit(&blob);
        ct_manifest_deinit(&back);
        ct_manifest_deinit(&m);
    }
    static const struct {
        const char *text, *words;
        unsigned line;
    } wrong[] = {
        {"retention: some\n", "must be 'all', or hold", 42},
        {"retention: \"all\"\n", "must be 'all', or hold", 42},
        {"retention: 8\n", "must be 'all', or hold", 42},
        {"retention:\n  - rounds\n", "must be 'all', or hold", 43},
        {"retention: {}\n", "must be 'all', or hold", 42},
        {"retention:\n  rounds: all\n", "must be a whole number", 43},
        {"retention:\n  rounds: 0\n", "must be a whole number", 43},
        {"retention:\n  rounds: 7\n", "less than audit.epoch_rounds, 8", 43},
        {"retention:\n  round: 9\n", "unknown key 'round'", 43},
        {"retention: all\nretention: all\n", "there twice", 43},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(text, sizeof text, "%s%s", good, wrong[i].text);
        expect_line(text, wrong[i].line, wrong[i].words, wrong[i].text);
    }
}

static void blobs_come_back_as_they_were(void **state) {
    (void)state;
    struct ct_manifest m, back;
    load_good(&m);
    struct ct_buf bytes, again;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    ct_buf_init(&again, CT_MANIFEST_BYTES_MAX);
    assert_int_equal(ct_manifest_encode(&m, &bytes), CT_OK);
    assert_int_equal(ct_manifest_decode(ct_buf_bytes(&bytes), &back), CT_OK);
    assert_int_equal(back.rate_count, m.rate_count);
    assert_memory_equal(back.rates, m.rates, m.rate_count * sizeof m.rates[0]);
    assert_memory_equal(back.nodes, m.nodes, m.node_count * sizeof m.nodes[0]);
    assert_memory_equal(&back.adamw, &m.adamw, sizeof m.adamw);
    assert_true(same_shape(&back.model, &m.model));
    assert_memory_equal(&back.dataset, &m.dataset, sizeof m.dataset);
    assert_string_equal(back.source, good);
    assert_string_equal(back.provenance, m.provenance);
    assert_int_equal(back.checkpoint_time_ms, 100);
    assert_int_equal(ct_manifest_encode(&back, &again), CT_OK);
    assert_int_equal(again.length, bytes.length);
    assert_memory_equal(again.data, bytes.data, bytes.length);

    struct ct_manifest none;
    for (size_t length = 0; length < bytes.length; length++) {
        assert_int_equal(ct_manifest_decode((struct ct_bytes){bytes.data, length}, &none),
                         CT_ERR_FORMAT);
    }
    assert_int_equal(ct_buf_append(&bytes, "\xf8\x07\x01", 3), CT_OK); /* field 127 */
    assert_int_equal(ct_manifest_decode(ct_buf_bytes(&bytes), &none), CT_ERR_FORMAT);
    assert_int_equal(
        ct_manifest_decode((struct ct_bytes){bytes.data, CT_MANIFEST_BYTES_MAX + 1}, &none),
        CT_ERR_TOO_LARGE);
    ct_buf_deinit(&again);
    ct_buf_deinit(&bytes);
    ct_manifest_deinit(&back);
    ct_manifest_deinit(&m);
}

/* Damage to any byte is refused or gives a manifest that encodes to the damaged bytes. */
static void damaged_blobs(void **state) {
    (void)state;
    struct ct_manifest m, back;
    load_good(&m);
    m.rate_count = 3;
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    assert_int_equal(ct_manifest_encode(&m, &bytes), CT_OK);
    for (size_t bit = 0; bit < bytes.length * 8; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (ct_manifest_decode(ct_buf_bytes(&bytes), &back) == CT_OK) {
            struct ct_buf again;
            ct_buf_init(&again, CT_MANIFEST_BYTES_MAX);
            assert_int_equal(ct_manifest_encode(&back, &again), CT_OK);
            assert_int_equal(again.length, bytes.length);
            assert_memory_equal(again.data, bytes.data, bytes.length);
            ct_buf_deinit(&again);
            ct_manifest_deinit(&back);
        }
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ct_buf_deinit(&bytes);
    ct_manifest_deinit(&m);
}

static void values_out_of_range_are_not_encoded(void **state) {
    (void)state;
    struct ct_manifest m;
    load_good(&m);
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    uint32_t *const numbers[] = {
        &m.version,           &m.rounds,       &m.batch,         &m.leaves,
        &m.steps_min,         &m.steps,        &m.steps_max,     &m.epoch_rounds,
        &m.snapshot_rounds,   &m.quorum_nodes, &m.round_time_ms, &m.upload_time_ms,
        &m.model.context,     &m.node_count,   &m.rate_count,    &m.model.vocab,
        &m.checkpoint_time_ms};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint32_t kept = *numbers[i];
        *numbers[i] = 0;
        assert_int_equal(ct_manifest_encode(&m, &bytes), CT_ERR_CONFIG);
        *numbers[i] = kept;
    }
    float *const reals[] = {&m.adamw.beta1,   &m.adamw.beta2,        &m.adamw.one_minus_beta1,
                            &m.adamw.epsilon, &m.adamw.weight_decay, &m.adamw.clip_norm,
                            &m.rates[7]};
    const float bad[] = {-1.0f, 1e30f, 1e-40f};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        float kept = *reals[i];
        for (size_t j = 0; j < 3; j++) {
            *reals[i] = bad[j];
            assert_int_equal(ct_manifest_encode(&m, &bytes), CT_ERR_CONFIG);
        }
        const uint32_t nan = 0x7fc00000;
        memcpy(reals[i], &nan, sizeof nan);
        assert_int_equal(ct_manifest_encode(&m, &bytes), CT_ERR_CONFIG);
        *reals[i] = kept;
    }
    assert_int_equal(ct_manifest_encode(&m, &bytes), CT_OK);
    ct_buf_deinit(&bytes);
    ct_manifest_deinit(&m);
}

static void rates_follow_tokens_in_integers(void **state) {
    (void)state;
    float rates[] = {1, 2, 3, 4};
    struct ct_manifest m = {.rate_unit = 10, .rate_count = 4, .rates = rates};
    assert_true(ct_manifest_rate(&m, 0, 100, 0, 10) == 1);
    assert_true(ct_manifest_rate(&m, 9, 100, 0, 10) == 1);
    assert_true(ct_manifest_rate(&m, 10, 100, 0, 10) == 2);
    assert_true(ct_manifest_rate(&m, 0, 29, 2, 3) == 2); /* floor(58 / 3) = 19 */
    assert_true(ct_manifest_rate(&m, 0, 30, 2, 3) == 3);
    assert_true(ct_manifest_rate(&m, 1, 29, 2, 3) == 3);
    assert_true(ct_manifest_rate(&m, 1000000, 29, 2, 3) == 4);
    /* 63 · 2^58 / 64 passes 64 bits on the way; exactly 63 · 2^52 */
    m.rate_unit = 63ull << 52;
    assert_true(ct_manifest_rate(&m, 0, 1ull << 58, 63, 64) == 2);
    m.rate_unit++;
    assert_true(ct_manifest_rate(&m, 0, 1ull << 58, 63, 64) == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_arrives),
        cmocka_unit_test(optional_keys_have_defaults),
        cmocka_unit_test(mistakes_are_named_with_their_line),
        cmocka_unit_test(long_texts_are_refused),
        cmocka_unit_test(witnesses_arrive_as_a_policy),
        cmocka_unit_test(retention_is_all_or_rounds),
        cmocka_unit_test(a_llama_arrives_and_comes_back),
        cmocka_unit_test(wrong_models_are_named_with_their_line),
        cmocka_unit_test(models_have_one_encoding),
        cmocka_unit_test(blobs_come_back_as_they_were),
        cmocka_unit_test(damaged_blobs),
        cmocka_unit_test(values_out_of_range_are_not_encoded),
        cmocka_unit_test(rates_follow_tokens_in_integers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
