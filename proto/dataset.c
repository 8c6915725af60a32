#include <cotrain/assert.h>
#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>
#include <cotrain/spdx.h>
#include <cotrain/text.h>

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT_NAME "cotrain-dataset-1"

static const char *const split_names[] = {
    [CT_SPLIT_TRAIN] = "train",
    [CT_SPLIT_HELDOUT] = "heldout",
};

/* Exactly the named members, no other. */
static enum ct_err check_members(json_t *object, const char *what, const char *const *names,
                                 size_t count) {
    if (!json_is_object(object)) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: %s is not an object", what);
    }
    for (size_t i = 0; i < count; i++) {
        if (json_object_get(object, names[i]) == NULL) {
            return ct_fail(CT_ERR_FORMAT, "dataset.json: %s lacks '%s'", what, names[i]);
        }
    }
    if (json_object_size(object) != count) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: %s has members that are not known here", what);
    }
    return CT_OK;
}

static enum ct_err take_text(json_t *object, const char *name, bool may_be_empty, char *out,
                             size_t capacity) {
    json_t *value = json_object_get(object, name);
    if (!json_is_string(value) || json_string_length(value) >= capacity ||
        (!may_be_empty && json_string_length(value) == 0)) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: '%s' must be text of %d to %zu bytes", name,
                       may_be_empty ? 0 : 1, capacity - 1);
    }
    struct ct_bytes text = {(const uint8_t *)json_string_value(value), json_string_length(value)};
    if (!ct_text_printable(text)) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: '%s' holds control characters", name);
    }
    memcpy(out, text.data, text.length + 1);
    return CT_OK;
}

static enum ct_err take_count(json_t *object, const char *name, uint64_t maximum, uint64_t *out) {
    json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        (uint64_t)json_integer_value(value) > maximum) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: '%s' must be a number from 1 to %llu", name,
                       (unsigned long long)maximum);
    }
    *out = (uint64_t)json_integer_value(value);
    return CT_OK;
}

static enum ct_err parse_shard(json_t *object, struct ct_shard *out) {
    static const char *const names[] = {"split", "sha256", "bytes", "tokens", "source", "license"};
    CT_TRY(check_members(object, "a shard", names, sizeof names / sizeof names[0]));
    char text[512];
    CT_TRY(take_text(object, "split", false, text, sizeof text));
    if (strcmp(text, split_names[CT_SPLIT_TRAIN]) != 0 &&
        strcmp(text, split_names[CT_SPLIT_HELDOUT]) != 0) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: split '%.40s' is neither train nor heldout",
                       text);
    }
    out->split = strcmp(text, split_names[CT_SPLIT_TRAIN]) == 0 ? CT_SPLIT_TRAIN : CT_SPLIT_HELDOUT;
    CT_TRY(take_text(object, "sha256", false, text, sizeof text));
    CT_TRY(ct_hash_parse(text, &out->ref.sha256));
    CT_TRY(take_count(object, "bytes", CT_BLOB_BYTES_MAX, &out->ref.length));
    CT_TRY(take_count(object, "tokens", CT_BLOB_BYTES_MAX / 2, &out->tokens));
    if (out->ref.length != out->tokens * 2) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: a shard of %llu tokens has not %llu bytes",
                       (unsigned long long)out->tokens, (unsigned long long)out->ref.length);
    }
    CT_TRY(take_text(object, "source", true, text, sizeof text));
    CT_TRY(take_text(object, "license", false, text, 64));
    return ct_spdx_check(text) == CT_OK
               ? CT_OK
               : ct_fail(CT_ERR_FORMAT, "dataset.json: a shard: %s", ct_err_detail());
}

static enum ct_err parse_tokenizer(json_t *object, struct ct_dataset *out) {
    static const char *const names[] = {"kind", "vocab"};
    CT_TRY(check_members(object, "tokenizer", names, 2));
    CT_TRY(take_text(object, "kind", false, out->tokenizer, sizeof out->tokenizer));
    uint64_t vocab;
    CT_TRY(take_count(object, "vocab", 65536, &vocab));
    out->vocab = (uint32_t)vocab;
    if (strcmp(out->tokenizer, "bytes") != 0 || vocab != 256) {
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "dataset.json: tokenizer '%s' with %u tokens is not known here, only bytes "
                       "with 256",
                       out->tokenizer, out->vocab);
    }
    return CT_OK;
}

static enum ct_err parse_root(json_t *root, struct ct_dataset *out) {
    static const char *const names[] = {"format",     "name",      "license", "source",
                                        "processing", "tokenizer", "shards"};
    CT_TRY(check_members(root, "the document", names, sizeof names / sizeof names[0]));
    char format[32];
    CT_TRY(take_text(root, "format", false, format, sizeof format));
    if (strcmp(format, FORMAT_NAME) != 0) {
        return ct_fail(CT_ERR_UNSUPPORTED, "dataset.json: format '%s' is not " FORMAT_NAME, format);
    }
    CT_TRY(take_text(root, "name", false, out->name, sizeof out->name));
    CT_TRY(take_text(root, "license", false, out->license, sizeof out->license));
    if (ct_spdx_check(out->license) != CT_OK) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: %s", ct_err_detail());
    }
    CT_TRY(take_text(root, "source", false, out->source, sizeof out->source));
    CT_TRY(take_text(root, "processing", true, out->processing, sizeof out->processing));
    CT_TRY(parse_tokenizer(json_object_get(root, "tokenizer"), out));
    json_t *shards = json_object_get(root, "shards");
    size_t count = json_array_size(shards);
    if (count == 0) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json: 'shards' must be a list of at least one");
    }
    out->shards = calloc(count, sizeof out->shards[0]);
    if (out->shards == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a data set of %zu shards", count);
    }
    for (size_t i = 0; i < count; i++) {
        CT_TRY(parse_shard(json_array_get(shards, i), &out->shards[i]));
    }
    out->shard_count = (uint32_t)count;
    return CT_OK;
}

enum ct_err ct_dataset_parse(struct ct_bytes json, struct ct_dataset *out) {
    *out = (struct ct_dataset){0};
    if (json.length > CT_DATASET_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "dataset.json: %zu bytes, at most %u are read",
                       json.length, CT_DATASET_BYTES_MAX);
    }
    json_error_t error;
    json_t *root = json_loadb((const char *)json.data, json.length, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return ct_fail(CT_ERR_FORMAT, "dataset.json:%d: %s", error.line, error.text);
    }
    enum ct_err err = parse_root(root, out);
    json_decref(root);
    if (err != CT_OK) {
        ct_dataset_deinit(out);
    }
    return err;
}

void ct_dataset_deinit(struct ct_dataset *dataset) {
    free(dataset->shards);
    *dataset = (struct ct_dataset){0};
}

uint64_t ct_dataset_tokens(const struct ct_dataset *dataset, enum ct_split split) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < dataset->shard_count; i++) {
        tokens += dataset->shards[i].split == split ? dataset->shards[i].tokens : 0;
    }
    return tokens;
}

static void put_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

/* The next `count` bytes of the file as one shard: stored, and described in `shards`. */
static enum ct_err build_shard(const struct ct_dataset_recipe *recipe, const char *out_dir,
                               FILE *file, const char *path, enum ct_split split, uint64_t count,
                               json_t *shards) {
    enum ct_err err = CT_OK;
    uint8_t *text = malloc(count);
    uint8_t *tokens = malloc(count * 2);
    if (text == NULL || tokens == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for a shard of %llu tokens",
                      (unsigned long long)count);
        goto out;
    }
    if (fread(text, 1, count, file) != count) {
        err = ct_fail(CT_ERR_IO, "%s: became shorter while it was read", path);
        goto out;
    }
    for (uint64_t i = 0; i < count; i++) {
        put_u16(tokens + 2 * i, text[i]);
    }
    struct ct_bytes bytes = {tokens, count * 2};
    struct ct_shard shard = {
        .split = split, .ref = {ct_sha256(bytes), bytes.length}, .tokens = count};
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&shard.ref.sha256, hex);
    char shard_path[PATH_MAX];
    err = ct_shard_in_dir((void *)(uintptr_t)out_dir, &shard, shard_path);
    if (err == CT_OK) {
        err = ct_file_replace(shard_path, bytes);
    }
    if (err != CT_OK) {
        goto out;
    }
    const char *slash = strrchr(path, '/');
    json_t *entry =
        json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "split", split_names[split], "sha256", hex,
                  "bytes", (json_int_t)bytes.length, "tokens", (json_int_t)count, "source",
                  slash != NULL ? slash + 1 : path, "license", recipe->license);
    if (entry == NULL || json_array_append_new(shards, entry) != 0) {
        err = ct_fail(CT_ERR_CONFIG, "%s: its name or the licence is not UTF-8 text", path);
    }
out:
    free(tokens);
    free(text);
    return err;
}

static enum ct_err build_file(const struct ct_dataset_recipe *recipe, const char *out_dir,
                              const char *path, json_t *shards) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO, "%s: %s", path,
                       strerror(errno));
    }
    enum ct_err err = CT_OK;
    struct stat status;
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
        err = ct_fail(CT_ERR_CONFIG, "%s: not a file with text in it", path);
        goto out;
    }
    uint64_t size = (uint64_t)status.st_size;
    if (size > CT_BLOB_BYTES_MAX / 2) {
        err = ct_fail(CT_ERR_TOO_LARGE, "%s: larger than %llu bytes; split it", path,
                      (unsigned long long)(CT_BLOB_BYTES_MAX / 2));
        goto out;
    }
    uint64_t heldout = size * recipe->heldout_percent / 100;
    uint64_t left[] = {[CT_SPLIT_TRAIN] = size - heldout, [CT_SPLIT_HELDOUT] = heldout};
    for (int split = CT_SPLIT_TRAIN; split <= CT_SPLIT_HELDOUT; split++) {
        while (left[split] > 0 && err == CT_OK) {
            uint64_t count =
                left[split] < recipe->shard_tokens ? left[split] : recipe->shard_tokens;
            err = build_shard(recipe, out_dir, file, path, (enum ct_split)split, count, shards);
            left[split] -= count;
        }
    }
out:
    fclose(file);
    return err;
}

static enum ct_err check_recipe_text(const char *what, const char *text, size_t capacity,
                                     const char *advice) {
    if (text == NULL || text[0] == '\0') {
        return ct_fail(CT_ERR_CONFIG, "the data set needs a %s: %s", what, advice);
    }
    if (strlen(text) >= capacity) {
        return ct_fail(CT_ERR_CONFIG, "the data set's %s is longer than %zu bytes", what,
                       capacity - 1);
    }
    if (!ct_text_printable((struct ct_bytes){(const uint8_t *)text, strlen(text)})) {
        return ct_fail(CT_ERR_CONFIG, "the data set's %s must be one line of UTF-8 text", what);
    }
    return CT_OK;
}

static enum ct_err check_recipe(const struct ct_dataset_recipe *recipe) {
    struct ct_dataset *d = NULL;
    CT_TRY(check_recipe_text("name", recipe->name, sizeof d->name, "a few letters"));
    CT_TRY(check_recipe_text("licence", recipe->license, sizeof d->license,
                             "an SPDX expression such as CC0-1.0"));
    CT_TRY(ct_spdx_check(recipe->license));
    CT_TRY(check_recipe_text("source", recipe->source, sizeof d->source,
                             "where the text comes from, in words"));
    if (recipe->processing != NULL && recipe->processing[0] != '\0') {
        CT_TRY(check_recipe_text("processing", recipe->processing, sizeof d->processing, ""));
    }
    if (recipe->path_count == 0) {
        return ct_fail(CT_ERR_CONFIG, "the data set needs at least one text file");
    }
    if (recipe->heldout_percent > 90) {
        return ct_fail(CT_ERR_CONFIG, "%u %% held out leaves too little to train on: at most 90",
                       recipe->heldout_percent);
    }
    if (recipe->shard_tokens == 0 || recipe->shard_tokens > CT_BLOB_IN_MEMORY_MAX / 4) {
        return ct_fail(CT_ERR_CONFIG, "a shard has 1 to %llu tokens",
                       (unsigned long long)(CT_BLOB_IN_MEMORY_MAX / 4));
    }
    return CT_OK;
}

enum ct_err ct_dataset_build(const struct ct_dataset_recipe *recipe, const char *out_dir) {
    CT_TRY(check_recipe(recipe));
    CT_TRY(ct_dir_make(out_dir));
    enum ct_err err = CT_OK;
    char *text = NULL;
    json_t *shards = json_array();
    json_t *root = NULL;
    char path[PATH_MAX];
    for (uint32_t i = 0; i < recipe->path_count && err == CT_OK; i++) {
        err = build_file(recipe, out_dir, recipe->paths[i], shards);
    }
    if (err != CT_OK) {
        goto out;
    }
    root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:{s:s, s:i}, s:O}", "format", FORMAT_NAME, "name",
                     recipe->name, "license", recipe->license, "source", recipe->source,
                     "processing", recipe->processing != NULL ? recipe->processing : "",
                     "tokenizer", "kind", "bytes", "vocab", 256, "shards", shards);
    text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));
    if (text == NULL) {
        err = ct_fail(CT_ERR_CONFIG, "the data set's name, source or processing is not UTF-8 text");
        goto out;
    }
    if (strlen(text) > CT_DATASET_BYTES_MAX) {
        err = ct_fail(CT_ERR_TOO_LARGE, "too many shards: make them larger");
        goto out;
    }
    if ((size_t)snprintf(path, sizeof path, "%s/%s", out_dir, CT_DATASET_FILE) >= sizeof path) {
        err = ct_fail(CT_ERR_CONFIG, "%s: the path is too long", out_dir);
        goto out;
    }
    err = ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, strlen(text)});
out:
    free(text);
    json_decref(root);
    json_decref(shards);
    return err;
}
