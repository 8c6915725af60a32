/* The operator's RUN.yaml, and the door to libyaml. (libcyaml, which binds YAML to structs, names
 * line before an unknown or missing key's and reads "3 4" as 3; the line that an operator goes to
 * must be the right one, so the document with its marks is read here directly.)
 *
 *   run:
 *     name: jargon                  # one line, below 64 bytes
 *     description: what it is for   # optional
 *     license: Apache-2.0           # of the model; an SPDX expression
 *     rounds: 200
 *   model:
 *     arch: gpt2                    # or llama, which has the keys after context too
 *     layers: 4
 *     heads: 4
 *     width: 128
 *     context: 64
 *     kv_heads: 2                   # optional, heads; of keys and values, a divisor of heads
 *     hidden: 344                   # width of the MLP
 *     tied_head: true               # optional, false: the head is the token embedding
 *     norm_epsilon: 1.0e-5          # optional
 *     rope_theta: 10000             # optional
 *   training:
 *     numerics: bf16-1              # or fp32-1
 *     batch: 12                     # sequences of a node's step
 *     leaves: 1                     # optional, 1; also 2, 4, 8, 16
 *     steps: 15                     # optional, 30; inner steps of a node with nothing measured yet
 *     steps_min: 8                  # optional, 8 (or steps, if that is less)
 *     steps_max: 64                 # optional, 64
 *     rate_peak: 3.0e-3
 *     rate_floor: 3.0e-4
 *     warmup_tokens: 230400
 *     total_tokens: 6912000
 *     rate_unit_tokens: 6912        # optional, total_tokens / 1000; tokens per entry of the table
 *   data:
 *     path: ./data                  # of `cotrain data build`, relative to this file
 *     license: CC0-1.0              # as in the data set's own sheet
 *     provenance: where it comes from and how it was made
 *   admission:
 *     nodes:                        # keys that `cotrain key` prints
 *       - 0123…
 *   timing:                         # optional, each key too
 *     round_seconds: 60
 *     upload_seconds: 60
 *     quorum_nodes: 2
 *     checkpoint_ms: 1000
 *   audit:                          # optional, each key too
 *     epoch_rounds: 16
 *     snapshot_rounds: 64
 *   retention:                      # optional, `retention: all`
 *     rounds: 64                    # updates: work of the last so many can be recomputed
 *   witnesses:                      # optional
 *     policy: |                     # lines of C2SP tlog-policy (policy.h), without the log
 *       witness w w.example+01234567+BASE64 https://w.example/
 *       quorum w
 *
 * Numbers are plain decimals: quoted they are text, and text is refused where a number belongs. */
#include "manifest_yaml.h"

#include <cotrain/assert.h>
#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

enum field_type { FIELD_TEXT, FIELD_COUNT, FIELD_REAL, FIELD_FLAG, FIELD_KEYS };

struct field {
    const char *section, *key;
    enum field_type type;
    bool required;
    size_t offset;
    size_t capacity;           /* of a text */
    uint64_t minimum, maximum; /* of a count */
};

#define TEXT(section, key, required, member)                                                       \
    {                                                                                              \
        section, key, FIELD_TEXT, required, offsetof(struct ct_run_plan, member),                  \
            sizeof(((struct ct_run_plan *)NULL)->member), 0, 0                                     \
    }
#define COUNT(section, key, required, minimum, maximum)                                            \
    { section, #key, FIELD_COUNT, required, offsetof(struct ct_run_plan, key), 0, minimum, maximum }
#define REAL(section, key, required)                                                               \
    { section, #key, FIELD_REAL, required, offsetof(struct ct_run_plan, key), 0, 0, 0 }
#define FLAG(section, key)                                                                         \
    { section, #key, FIELD_FLAG, false, offsetof(struct ct_run_plan, key), 0, 0, 0 }

static const struct field fields[] = {
    TEXT("run", "name", true, name),
    TEXT("run", "description", false, description),
    TEXT("run", "license", true, license),
    COUNT("run", rounds, true, 1, 1000000),
    TEXT("model", "arch", true, arch),
    COUNT("model", layers, true, 1, CT_LAYERS_MAX),
    COUNT("model", heads, true, 1, CT_WIDTH_MAX),
    COUNT("model", width, true, 1, CT_WIDTH_MAX),
    COUNT("model", context, true, 1, CT_CONTEXT_MAX),
    COUNT("model", kv_heads, false, 1, CT_WIDTH_MAX),
    COUNT("model", hidden, false, 1, CT_HIDDEN_MAX),
    FLAG("model", tied_head),
    REAL("model", norm_epsilon, false),
    COUNT("model", rope_theta, false, (uint64_t)CT_ROPE_THETA_MIN, (uint64_t)CT_ROPE_THETA_MAX),
    TEXT("training", "numerics", true, numerics),
    COUNT("training", batch, true, 1, 65536),
    COUNT("training", leaves, false, 1, 16),
    COUNT("training", steps, false, 1, CT_STEPS_MAX),
    COUNT("training", steps_min, false, 1, CT_STEPS_MAX),
    COUNT("training", steps_max, false, 1, CT_STEPS_MAX),
    REAL("training", rate_peak, true),
    REAL("training", rate_floor, true),
    COUNT("training", warmup_tokens, true, 0, INT64_MAX),
    COUNT("training", total_tokens, true, 1, INT64_MAX),
    COUNT("training", rate_unit_tokens, false, 1, INT64_MAX),
    TEXT("data", "path", true, data_path),
    TEXT("data", "license", true, data_license),
    TEXT("data", "provenance", true, provenance),
    {"admission", "nodes", FIELD_KEYS, true, 0, 0, 0, 0},
    COUNT("timing", round_seconds, false, 1, 86400),
    COUNT("timing", upload_seconds, false, 1, 86400),
    COUNT("timing", quorum_nodes, false, 1, CT_NODES_MAX),
    COUNT("timing", checkpoint_ms, false, 100, 60000),
    COUNT("audit", epoch_rounds, false, 1, 65536),
    COUNT("audit", snapshot_rounds, false, 1, 1000000),
    {"retention", "rounds", FIELD_COUNT, false, offsetof(struct ct_run_plan, retention_rounds), 0,
     1, 1000000},
    TEXT("witnesses", "policy", false, policy),
};
#define FIELD_COUNT_ALL (sizeof fields / sizeof fields[0])

_Static_assert(FIELD_COUNT_ALL <= CT_RUN_KEYS_MAX, "lines has room for every key");

struct reader {
    struct ct_run_yaml *yaml;
    yaml_document_t document;
};

static unsigned line_of(const yaml_node_t *node) {
    return (unsigned)node->start_mark.line + 1;
}

enum ct_err ct_run_yaml_fail(const struct ct_run_yaml *yaml, unsigned line, const char *format,
                             ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return ct_fail(CT_ERR_CONFIG, "%s:%u: %s", yaml->path, line, text);
}

static yaml_node_t *node_at(struct reader *reader, int index) {
    return yaml_document_get_node(&reader->document, index);
}

/* A scalar's text, without NULs; NULL for another node. */
static const char *scalar_text(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE ||
        strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        return NULL;
    }
    return (const char *)node->data.scalar.value;
}

static bool is_plain(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static enum ct_err read_text(struct reader *reader, const struct field *field,
                             const yaml_node_t *node, char *out) {
    const char *text = scalar_text(node);
    if (text == NULL) {
        return ct_run_yaml_fail(reader->yaml, line_of(node), "%s.%s must be text", field->section,
                                field->key);
    }
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '\n') {
        length--; /* a block scalar ends its last line */
    }
    if (length == 0 || (is_plain(node) && (strcmp(text, "~") == 0 || strcmp(text, "null") == 0))) {
        return ct_run_yaml_fail(reader->yaml, line_of(node), "%s.%s is empty", field->section,
                                field->key);
    }
    if (length >= field->capacity) {
        return ct_run_yaml_fail(reader->yaml, line_of(node),
                                "%s.%s has %zu bytes, at most %zu are allowed", field->section,
                                field->key, length, field->capacity - 1);
    }
    memcpy(out, text, length);
    out[length] = '\0';
    return CT_OK;
}

static enum ct_err read_count(struct reader *reader, const struct field *field,
                              const yaml_node_t *node, uint64_t *out) {
    const char *text = scalar_text(node);
    uint64_t value = 0;
    bool good = text != NULL && is_plain(node) && text[0] != '\0' &&
                strspn(text, "0123456789") == strlen(text) && (text[0] != '0' || text[1] == '\0');
    if (good) {
        errno = 0;
        value = strtoull(text, NULL, 10);
        good = errno == 0 && value >= field->minimum && value <= field->maximum;
    }
    if (!good) {
        return ct_run_yaml_fail(reader->yaml, line_of(node),
                                "%s.%s must be a whole number from %llu to %llu", field->section,
                                field->key, (unsigned long long)field->minimum,
                                (unsigned long long)field->maximum);
    }
    *out = value;
    return CT_OK;
}

static enum ct_err read_real(struct reader *reader, const struct field *field,
                             const yaml_node_t *node, double *out) {
    const char *text = scalar_text(node);
    char *end = NULL;
    bool good = text != NULL && is_plain(node) && text[0] >= '0' && text[0] <= '9' &&
                strspn(text, "0123456789.eE+-") == strlen(text);
    if (good) {
        *out = strtod(text, &end);
        good = *end == '\0' && isfinite(*out) && *out <= 1;
    }
    if (!good) {
        return ct_run_yaml_fail(reader->yaml, line_of(node),
                                "%s.%s must be a number from 0 to 1, such as 3.0e-3",
                                field->section, field->key);
    }
    return CT_OK;
}

static enum ct_err read_flag(struct reader *reader, const struct field *field,
                             const yaml_node_t *node, bool *out) {
    const char *text = scalar_text(node);
    if (text == NULL || !is_plain(node) ||
        (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)) {
        return ct_run_yaml_fail(reader->yaml, line_of(node), "%s.%s must be true or false",
                                field->section, field->key);
    }
    *out = text[0] == 't';
    return CT_OK;
}

static enum ct_err read_keys(struct reader *reader, const struct field *field,
                             const yaml_node_t *node) {
    if (node->type != YAML_SEQUENCE_NODE) {
        return ct_run_yaml_fail(reader->yaml, line_of(node),
                                "%s.%s must be a list of keys, one a line after '- '",
                                field->section, field->key);
    }
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count == 0 || count > CT_NODES_MAX) {
        return ct_run_yaml_fail(
            reader->yaml, line_of(node),
            "%s.%s must have 1 to %u keys: `cotrain key` makes a node's identity and "
            "prints its key",
            field->section, field->key, CT_NODES_MAX);
    }
    struct ct_run_plan *plan = &reader->yaml->plan;
    plan->nodes = calloc(count, sizeof plan->nodes[0]);
    if (plan->nodes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %zu keys", count);
    }
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = node_at(reader, node->data.sequence.items.start[i]);
        const char *text = scalar_text(item);
        if (text == NULL || ct_hash_parse(text, &plan->nodes[i]) != CT_OK ||
            ct_hash_is_zero(&plan->nodes[i])) {
            return ct_run_yaml_fail(
                reader->yaml, line_of(item),
                "a node's key has 64 lower-case hex digits, as `cotrain key` prints it");
        }
        for (size_t j = 0; j < i; j++) {
            if (ct_hash_equal(&plan->nodes[i], &plan->nodes[j])) {
                return ct_run_yaml_fail(reader->yaml, line_of(item),
                                        "this key is in the list twice");
            }
        }
    }
    plan->node_count = (uint32_t)count;
    return CT_OK;
}

static enum ct_err read_field(struct reader *reader, size_t index, const yaml_node_t *node) {
    const struct field *field = &fields[index];
    void *to = (char *)&reader->yaml->plan + field->offset;
    reader->yaml->lines[index] = line_of(node);
    switch (field->type) {
    case FIELD_TEXT:
        return read_text(reader, field, node, to);
    case FIELD_COUNT:
        return read_count(reader, field, node, to);
    case FIELD_REAL:
        return read_real(reader, field, node, to);
    case FIELD_FLAG:
        return read_flag(reader, field, node, to);
    case FIELD_KEYS:
        return read_keys(reader, field, node);
    }
    return CT_OK;
}

/* Index of the field, or of the section's first field where key is NULL; FIELD_COUNT_ALL if none.
 */
static size_t find_field(const char *section, const char *key) {
    for (size_t i = 0; i < FIELD_COUNT_ALL; i++) {
        if (strcmp(fields[i].section, section) == 0 &&
            (key == NULL || strcmp(fields[i].key, key) == 0)) {
            return i;
        }
    }
    return FIELD_COUNT_ALL;
}

/* The first required field of the section that has not been read; NULL for any section. */
static const struct field *find_missing(const struct reader *reader, const char *section) {
    for (size_t i = 0; i < FIELD_COUNT_ALL; i++) {
        if (fields[i].required && reader->yaml->lines[i] == 0 &&
            (section == NULL || strcmp(fields[i].section, section) == 0)) {
            return &fields[i];
        }
    }
    return NULL;
}

static enum ct_err read_section(struct reader *reader, const char *section,
                                const yaml_node_t *section_key, const yaml_node_t *node) {
    if (node->type != YAML_MAPPING_NODE) {
        return ct_run_yaml_fail(reader->yaml, line_of(section_key),
                                "%s must hold indented 'key: value' lines", section);
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = node_at(reader, pair->key);
        const char *key = scalar_text(key_node);
        size_t index = key == NULL ? FIELD_COUNT_ALL : find_field(section, key);
        if (index == FIELD_COUNT_ALL) {
            return ct_run_yaml_fail(reader->yaml, line_of(key_node), "unknown key '%.60s' in %s",
                                    key != NULL ? key : "", section);
        }
        if (reader->yaml->lines[index] != 0) {
            return ct_run_yaml_fail(reader->yaml, line_of(key_node), "%s.%s is there twice",
                                    section, key);
        }
        CT_TRY(read_field(reader, index, node_at(reader, pair->value)));
    }
    const struct field *missing = find_missing(reader, section);
    if (missing != NULL) {
        return ct_run_yaml_fail(reader->yaml, line_of(section_key), "%s lacks '%s'", section,
                                missing->key);
    }
    return CT_OK;
}

/* `all`, or a section like others. */
static enum ct_err read_retention(struct reader *reader, const yaml_node_t *key,
                                  const yaml_node_t *node) {
    const size_t rounds = find_field("retention", "rounds");
    const char *text = scalar_text(node);
    if (text != NULL && is_plain(node) && strcmp(text, "all") == 0) {
        return CT_OK;
    }
    if (node->type == YAML_MAPPING_NODE) {
        CT_TRY(read_section(reader, "retention", key, node));
    }
    return reader->yaml->lines[rounds] != 0
               ? CT_OK
               : ct_run_yaml_fail(reader->yaml, line_of(node),
                                  "retention must be 'all', or hold an indented 'rounds: N'");
}

static enum ct_err read_root(struct reader *reader) {
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        return ct_run_yaml_fail(reader->yaml, 1,
                                "a run's manifest has the sections run, model, training, data "
                                "and admission");
    }
    bool seen[FIELD_COUNT_ALL] = {false};
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = node_at(reader, pair->key);
        const char *section = scalar_text(key_node);
        size_t first = section == NULL ? FIELD_COUNT_ALL : find_field(section, NULL);
        if (first == FIELD_COUNT_ALL) {
            return ct_run_yaml_fail(reader->yaml, line_of(key_node), "unknown section '%.60s'",
                                    section != NULL ? section : "");
        }
        if (seen[first]) {
            return ct_run_yaml_fail(reader->yaml, line_of(key_node), "section %s is there twice",
                                    section);
        }
        seen[first] = true;
        const yaml_node_t *node = node_at(reader, pair->value);
        CT_TRY(strcmp(section, "retention") == 0 ? read_retention(reader, key_node, node)
                                                 : read_section(reader, section, key_node, node));
    }
    const struct field *missing = find_missing(reader, NULL);
    if (missing != NULL) {
        return ct_run_yaml_fail(reader->yaml, line_of(root), "the section '%s' is missing",
                                missing->section);
    }
    return CT_OK;
}

/* Parses the file's text as one YAML document and reads its fields. */
static enum ct_err read_document(struct reader *reader, struct ct_bytes text) {
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the YAML parser");
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, text.data, text.length);
    enum ct_err err = CT_OK;
    yaml_document_t next;
    if (yaml_parser_load(&parser, &reader->document) == 0) {
        err = ct_run_yaml_fail(reader->yaml, (unsigned)parser.problem_mark.line + 1, "%s",
                               parser.problem != NULL ? parser.problem : "not YAML");
        goto out_parser;
    }
    err = read_root(reader);
    if (err != CT_OK) {
        goto out_document;
    }
    if (yaml_parser_load(&parser, &next) == 0) {
        err = ct_run_yaml_fail(reader->yaml, (unsigned)parser.problem_mark.line + 1, "%s",
                               parser.problem != NULL ? parser.problem : "not YAML");
        goto out_document;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&next);
    if (root != NULL) {
        err = ct_run_yaml_fail(reader->yaml, line_of(root),
                               "a second document: a run has one manifest");
    }
    yaml_document_delete(&next);
out_document:
    yaml_document_delete(&reader->document);
out_parser:
    yaml_parser_delete(&parser);
    return err;
}

enum ct_err ct_run_yaml_read(struct ct_run_yaml *yaml, struct ct_bytes text) {
    struct reader reader = {.yaml = yaml};
    return read_document(&reader, text);
}

unsigned ct_run_yaml_line(const struct ct_run_yaml *yaml, const char *section, const char *key) {
    const size_t index = find_field(section, key);
    return index < FIELD_COUNT_ALL ? yaml->lines[index] : 0;
}

unsigned ct_run_yaml_line_near(const struct ct_run_yaml *yaml, const char *section,
                               const char *key) {
    size_t exact = key == NULL ? FIELD_COUNT_ALL : find_field(section, key);
    if (exact != FIELD_COUNT_ALL && yaml->lines[exact] != 0) {
        return yaml->lines[exact];
    }
    for (size_t i = 0; i < FIELD_COUNT_ALL; i++) {
        if (strcmp(fields[i].section, section) == 0 && yaml->lines[i] != 0) {
            return yaml->lines[i];
        }
    }
    return 1;
}
