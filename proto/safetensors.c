#include <cotrain/safetensors.h>

#include <cotrain/buf.h>

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are written as they lie");

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    HEADER_BYTES_MAX = 16 << 20,
    LENGTH_BYTES = 8,
};

static enum ct_err join(char out[PATH_MAX], const char *dir, const char *name) {
    const int length = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "%s: the path is too long", dir);
    }
    return CT_OK;
}

static enum ct_err save_config(const char *path, const struct ct_model_shape *shape) {
    struct ct_buf text;
    ct_buf_init(&text, CONFIG_BYTES_MAX);
    enum ct_err err =
        ct_buf_printf(&text,
                      "{\n"
                      "  \"architectures\": [\"GPT2LMHeadModel\"],\n"
                      "  \"model_type\": \"gpt2\",\n"
                      "  \"vocab_size\": %u,\n"
                      "  \"n_positions\": %u,\n"
                      "  \"n_embd\": %u,\n"
                      "  \"n_layer\": %u,\n"
                      "  \"n_head\": %u,\n"
                      "  \"activation_function\": \"gelu_new\",\n"
                      "  \"layer_norm_epsilon\": 1e-05,\n"
                      "  \"bos_token_id\": null,\n"
                      "  \"eos_token_id\": null,\n"
                      "  \"tie_word_embeddings\": true,\n"
                      "  \"torch_dtype\": \"float32\"\n"
                      "}\n",
                      shape->vocab, shape->context, shape->width, shape->layers, shape->heads);
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&text));
    }
    ct_buf_deinit(&text);
    return err;
}

static enum ct_err append_header(struct ct_buf *file, const struct ct_layout *layout) {
    static const uint8_t room[LENGTH_BYTES] = {0};
    CT_TRY(ct_buf_append(file, room, sizeof room));
    CT_TRY(ct_buf_printf(file, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        const size_t begin = tensor->offset * sizeof(float);
        const size_t end = begin + (size_t)tensor->rows * tensor->columns * sizeof(float);
        char shape[32];
        if (tensor->kind == CT_TENSOR_VECTOR) {
            snprintf(shape, sizeof shape, "%u", tensor->columns);
        } else {
            snprintf(shape, sizeof shape, "%u,%u", tensor->rows, tensor->columns);
        }
        CT_TRY(ct_buf_printf(
            file, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            tensor->name, shape, begin, end));
    }
    CT_TRY(ct_buf_printf(file, "}"));
    while (file->length % 8 != 0) {
        CT_TRY(ct_buf_printf(file, " "));
    }
    const uint64_t length = file->length - LENGTH_BYTES;
    memcpy(file->data, &length, sizeof length);
    return CT_OK;
}

static enum ct_err save_tensors(const char *path, const struct ct_layout *layout,
                                const float *theta) {
    const size_t bytes = layout->parameters * sizeof(float);
    struct ct_buf file;
    ct_buf_init(&file, bytes + HEADER_BYTES_MAX);
    enum ct_err err = append_header(&file, layout);
    if (err == CT_OK) {
        err = ct_buf_append(&file, theta, bytes);
    }
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&file));
    }
    ct_buf_deinit(&file);
    return err;
}

enum ct_err ct_model_save(const char *dir, const struct ct_layout *layout, const float *theta) {
    char path[PATH_MAX];
    CT_TRY(ct_dir_make(dir));
    CT_TRY(join(path, dir, "model.safetensors"));
    CT_TRY(save_tensors(path, layout, theta));
    CT_TRY(join(path, dir, "config.json"));
    return save_config(path, &layout->shape);
}

static enum ct_err parse_object(const char *path, struct ct_bytes text, json_t **out) {
    json_error_t error;
    json_t *json = json_loadb((const char *)text.data, text.length, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        return ct_fail(CT_ERR_FORMAT, "%s: line %d: %s", path, error.line, error.text);
    }
    if (!json_is_object(json)) {
        json_decref(json);
        return ct_fail(CT_ERR_FORMAT, "%s: is not a JSON object", path);
    }
    *out = json;
    return CT_OK;
}

static enum ct_err read_size(const char *path, const json_t *config, const char *key,
                             uint32_t *out) {
    const json_t *value = json_object_get(config, key);
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > UINT32_MAX) {
        return ct_fail(CT_ERR_FORMAT, "%s: %s is missing or not a positive number", path, key);
    }
    *out = (uint32_t)number;
    return CT_OK;
}

/* What a GPT-2 configuration may say otherwise must say what the engine does. */
static enum ct_err check_variants(const char *path, const json_t *config,
                                  const struct ct_model_shape *shape) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (type == NULL || strcmp(type, "gpt2") != 0) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: model_type is not gpt2", path);
    }
    const json_t *activation = json_object_get(config, "activation_function");
    if (activation != NULL &&
        (!json_is_string(activation) || strcmp(json_string_value(activation), "gelu_new") != 0)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: activation_function is not gelu_new", path);
    }
    const json_t *epsilon = json_object_get(config, "layer_norm_epsilon");
    if (epsilon != NULL &&
        (!json_is_number(epsilon) || (float)json_number_value(epsilon) != 1e-5f)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: layer_norm_epsilon is not 1e-05", path);
    }
    const json_t *inner = json_object_get(config, "n_inner");
    if (inner != NULL && !json_is_null(inner) &&
        (!json_is_integer(inner) || json_integer_value(inner) != 4 * (json_int_t)shape->width)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: n_inner is not four times n_embd", path);
    }
    if (json_is_false(json_object_get(config, "tie_word_embeddings"))) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: the head is not tied to the embedding", path);
    }
    static const char *const unsupported[] = {"scale_attn_by_inverse_layer_idx",
                                              "add_cross_attention"};
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        if (json_is_true(json_object_get(config, unsupported[i]))) {
            return ct_fail(CT_ERR_UNSUPPORTED, "%s: %s is not supported", path, unsupported[i]);
        }
    }
    if (json_is_false(json_object_get(config, "scale_attn_weights"))) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: scale_attn_weights is not supported off", path);
    }
    return CT_OK;
}

static enum ct_err load_config(const char *path, struct ct_model_shape *out) {
    struct ct_buf text;
    json_t *config = NULL;
    ct_buf_init(&text, CONFIG_BYTES_MAX);
    *out = (struct ct_model_shape){.arch = CT_ARCH_GPT2};
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        err = parse_object(path, ct_buf_bytes(&text), &config);
    }
    const struct {
        const char *key;
        uint32_t *value;
    } sizes[] = {
        {"vocab_size", &out->vocab}, {"n_positions", &out->context}, {"n_embd", &out->width},
        {"n_layer", &out->layers},   {"n_head", &out->heads},
    };
    for (size_t i = 0; err == CT_OK && i < sizeof sizes / sizeof sizes[0]; i++) {
        err = read_size(path, config, sizes[i].key, sizes[i].value);
    }
    if (err == CT_OK) {
        err = check_variants(path, config, out);
    }
    json_decref(config);
    ct_buf_deinit(&text);
    return err;
}

static bool shape_matches(const json_t *shape, const struct ct_tensor *tensor) {
    const size_t dimensions = tensor->kind == CT_TENSOR_VECTOR ? 1 : 2;
    if (!json_is_array(shape) || json_array_size(shape) != dimensions) {
        return false;
    }
    const json_int_t expected[] = {tensor->rows, tensor->columns};
    for (size_t i = 0; i < dimensions; i++) {
        const json_t *value = json_array_get(shape, i);
        if (!json_is_integer(value) || json_integer_value(value) != expected[2 - dimensions + i]) {
            return false;
        }
    }
    return true;
}

/* One tensor out of the buffer; *out_begin is where its bytes start there. */
static enum ct_err load_tensor(const char *path, const json_t *header,
                               const struct ct_tensor *tensor, struct ct_bytes buffer, float *theta,
                               size_t *out_begin) {
    const json_t *entry = json_object_get(header, tensor->name);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (entry == NULL) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s is missing", path, tensor->name);
    }
    if (json_object_size(entry) != 3 || type == NULL || strcmp(type, "F32") != 0) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s is not F32", path, tensor->name);
    }
    if (!shape_matches(json_object_get(entry, "shape"), tensor)) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s has not the shape that config.json says", path,
                       tensor->name);
    }
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    const size_t bytes = (size_t)tensor->rows * tensor->columns * sizeof(float);
    const json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        begin < 0 || end < begin || (uint64_t)end > buffer.length ||
        (uint64_t)(end - begin) != bytes) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s has impossible data_offsets", path,
                       tensor->name);
    }
    memcpy(theta + tensor->offset, buffer.data + begin, bytes);
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        uint32_t bits;
        memcpy(&bits, theta + tensor->offset + i, sizeof bits);
        const uint32_t exponent = bits >> 23 & 0xffu;
        if (exponent == 0xffu) {
            return ct_fail(CT_ERR_NUMERIC, "%s: tensor %s holds a value that is not finite", path,
                           tensor->name);
        }
        if (exponent == 0) {
            bits &= 0x80000000u;
            memcpy(theta + tensor->offset + i, &bits, sizeof bits);
        }
    }
    *out_begin = (size_t)begin;
    return CT_OK;
}

static int compare_sizes(const void *a, const void *b) {
    const size_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum ct_err check_metadata(const char *path, const json_t *header,
                                  const struct ct_layout *layout) {
    json_t *metadata = json_object_get(header, "__metadata__");
    const size_t expected = layout->tensor_count + (metadata != NULL ? 1u : 0u);
    if (json_object_size(header) != expected) {
        return ct_fail(CT_ERR_FORMAT, "%s: holds %zu entries, a model of this shape has %zu", path,
                       json_object_size(header), expected);
    }
    if (metadata == NULL) {
        return CT_OK;
    }
    const char *key;
    json_t *value;
    bool strings = json_is_object(metadata);
    json_object_foreach(metadata, key, value) {
        strings = strings && json_is_string(value);
    }
    return strings ? CT_OK : ct_fail(CT_ERR_FORMAT, "%s: __metadata__ is not all strings", path);
}

/* All tensors, in whatever order they lie: equal sizes in all and no two at one place leave no
 * holes and no overlaps. */
static enum ct_err load_all(const char *path, const json_t *header, struct ct_bytes buffer,
                            const struct ct_layout *layout, float *theta) {
    if (buffer.length != layout->parameters * sizeof(float)) {
        return ct_fail(CT_ERR_FORMAT, "%s: holds %zu bytes of tensors, this shape has %zu", path,
                       buffer.length, layout->parameters * sizeof(float));
    }
    CT_TRY(check_metadata(path, header, layout));
    /* begin and end of every tensor, sorted: each boundary but the outer ones must come twice. */
    size_t *places = calloc(2 * (size_t)layout->tensor_count, sizeof *places);
    if (places == NULL) {
        return ct_fail(CT_ERR_MEMORY, "%s: no memory for %u tensors", path, layout->tensor_count);
    }
    enum ct_err err = CT_OK;
    const size_t count = 2 * (size_t)layout->tensor_count;
    for (uint32_t i = 0; err == CT_OK && i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        size_t begin = 0;
        err = load_tensor(path, header, tensor, buffer, theta, &begin);
        places[2 * i] = begin;
        places[2 * i + 1] = begin + (size_t)tensor->rows * tensor->columns * sizeof(float);
    }
    qsort(places, count, sizeof *places, compare_sizes);
    bool whole = places[0] == 0 && places[count - 1] == buffer.length;
    for (size_t i = 1; i + 1 < count; i += 2) {
        whole = whole && places[i] == places[i + 1];
    }
    if (err == CT_OK && !whole) {
        err = ct_fail(CT_ERR_FORMAT, "%s: tensors overlap or leave holes", path);
    }
    free(places);
    return err;
}

static enum ct_err load_tensors(const char *path, const struct ct_layout *layout, float *theta) {
    struct ct_buf file;
    json_t *header = NULL;
    ct_buf_init(&file, layout->parameters * sizeof(float) + LENGTH_BYTES + HEADER_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &file);
    uint64_t length = 0;
    if (err == CT_OK && file.length < LENGTH_BYTES) {
        err = ct_fail(CT_ERR_FORMAT, "%s: is cut short", path);
    }
    if (err == CT_OK) {
        memcpy(&length, file.data, sizeof length);
        if (length > HEADER_BYTES_MAX || length > file.length - LENGTH_BYTES || length == 0 ||
            file.data[LENGTH_BYTES] != '{') {
            err = ct_fail(CT_ERR_FORMAT, "%s: has no safetensors header", path);
        }
    }
    if (err == CT_OK) {
        err = parse_object(path, (struct ct_bytes){file.data + LENGTH_BYTES, length}, &header);
    }
    if (err == CT_OK) {
        const struct ct_bytes buffer = {file.data + LENGTH_BYTES + length,
                                        file.length - LENGTH_BYTES - length};
        err = load_all(path, header, buffer, layout, theta);
    }
    json_decref(header);
    ct_buf_deinit(&file);
    return err;
}

enum ct_err ct_model_load(const char *dir, struct ct_layout *layout, float **out_theta) {
    char path[PATH_MAX];
    struct ct_model_shape shape;
    CT_TRY(join(path, dir, "config.json"));
    CT_TRY(load_config(path, &shape));
    CT_TRY(ct_layout_init(layout, &shape));
    float *theta = NULL;
    enum ct_err err = join(path, dir, "model.safetensors");
    if (err == CT_OK) {
        theta = malloc(layout->parameters * sizeof *theta);
        err = theta != NULL ? load_tensors(path, layout, theta)
                            : ct_fail(CT_ERR_MEMORY, "%s: no memory for %zu parameters", dir,
                                      layout->parameters);
    }
    if (err != CT_OK) {
        free(theta);
        ct_layout_deinit(layout);
        return err;
    }
    *out_theta = theta;
    return CT_OK;
}
