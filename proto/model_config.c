#include "model_config.h"

#include <cotrain/buf.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* The fewest digits that give the same binary32 again. */
static void format_float(float value, char out[32]) {
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(out, 32, "%.*g", digits, (double)value);
        if (strtof(out, NULL) == value) {
            return;
        }
    }
}

static enum ct_err print_gpt2(struct ct_buf *text, const struct ct_model_shape *shape) {
    return ct_buf_printf(text,
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
}

static enum ct_err print_llama(struct ct_buf *text, const struct ct_model_shape *shape) {
    char epsilon[32], theta[32];
    format_float(shape->norm_epsilon, epsilon);
    format_float(shape->rope_theta, theta);
    return ct_buf_printf(text,
                         "{\n"
                         "  \"architectures\": [\"LlamaForCausalLM\"],\n"
                         "  \"model_type\": \"llama\",\n"
                         "  \"vocab_size\": %u,\n"
                         "  \"max_position_embeddings\": %u,\n"
                         "  \"hidden_size\": %u,\n"
                         "  \"intermediate_size\": %u,\n"
                         "  \"num_hidden_layers\": %u,\n"
                         "  \"num_attention_heads\": %u,\n"
                         "  \"num_key_value_heads\": %u,\n"
                         "  \"hidden_act\": \"silu\",\n"
                         "  \"rms_norm_eps\": %s,\n"
                         "  \"rope_theta\": %s,\n"
                         "  \"rope_scaling\": null,\n"
                         "  \"attention_bias\": false,\n"
                         "  \"mlp_bias\": false,\n"
                         "  \"bos_token_id\": null,\n"
                         "  \"eos_token_id\": null,\n"
                         "  \"tie_word_embeddings\": %s,\n"
                         "  \"torch_dtype\": \"float32\"\n"
                         "}\n",
                         shape->vocab, shape->context, shape->width, shape->hidden, shape->layers,
                         shape->heads, shape->kv_heads, epsilon, theta,
                         shape->tied ? "true" : "false");
}

enum ct_err ct_model_config_save(const char *path, const struct ct_model_shape *shape) {
    struct ct_buf text;
    ct_buf_init(&text, CONFIG_BYTES_MAX);
    enum ct_err err =
        shape->arch == CT_ARCH_GPT2 ? print_gpt2(&text, shape) : print_llama(&text, shape);
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&text));
    }
    ct_buf_deinit(&text);
    return err;
}

/* A file's object, and its name for messages. */
struct config {
    const char *path;
    const json_t *object;
};

/* The key's value; NULL where it is missing or null, which mean the same to those who write it. */
static const json_t *value_of(const struct config *config, const char *key) {
    const json_t *value = json_object_get(config->object, key);
    return json_is_null(value) ? NULL : value;
}

static enum ct_err read_size(const struct config *config, const char *key, bool required,
                             uint32_t *out) {
    const json_t *value = value_of(config, key);
    const json_int_t number = json_integer_value(value);
    if (value == NULL && !required) {
        return CT_OK;
    }
    if (!json_is_integer(value) || number < 1 || number > UINT32_MAX) {
        return ct_fail(CT_ERR_FORMAT, "%s: %s is missing or not a positive number", config->path,
                       key);
    }
    *out = (uint32_t)number;
    return CT_OK;
}

static enum ct_err read_real(const struct config *config, const char *key, float *out) {
    const json_t *value = value_of(config, key);
    if (value == NULL) {
        return CT_OK;
    }
    /* Zero would stand for the default in a shape; no model has it. */
    if (!json_is_number(value) || !((float)json_number_value(value) > 0.0f)) {
        return ct_fail(CT_ERR_FORMAT, "%s: %s is not a positive number", config->path, key);
    }
    *out = (float)json_number_value(value);
    return CT_OK;
}

static enum ct_err read_flag(const struct config *config, const char *key, bool *out) {
    const json_t *value = value_of(config, key);
    if (value != NULL && !json_is_boolean(value)) {
        return ct_fail(CT_ERR_FORMAT, "%s: %s is not true or false", config->path, key);
    }
    *out = value != NULL ? json_is_true(value) : *out;
    return CT_OK;
}

/* A key that may be there must say this. */
static enum ct_err expect_text(const struct config *config, const char *key, const char *expected) {
    const json_t *value = value_of(config, key);
    if (value != NULL &&
        (!json_is_string(value) || strcmp(json_string_value(value), expected) != 0)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: %s is not %s", config->path, key, expected);
    }
    return CT_OK;
}

static enum ct_err expect_flags(const struct config *config, const char *const *keys,
                                bool expected) {
    for (; *keys != NULL; keys++) {
        bool flag = expected;
        CT_TRY(read_flag(config, *keys, &flag));
        if (flag != expected) {
            return ct_fail(CT_ERR_UNSUPPORTED, "%s: %s is %s, which is not computed here",
                           config->path, *keys, flag ? "true" : "false");
        }
    }
    return CT_OK;
}

static enum ct_err load_gpt2(const struct config *config, struct ct_model_shape *out) {
    CT_TRY(read_size(config, "vocab_size", true, &out->vocab));
    CT_TRY(read_size(config, "n_positions", true, &out->context));
    CT_TRY(read_size(config, "n_embd", true, &out->width));
    CT_TRY(read_size(config, "n_layer", true, &out->layers));
    CT_TRY(read_size(config, "n_head", true, &out->heads));
    CT_TRY(expect_text(config, "activation_function", "gelu_new"));
    float epsilon = 1e-5f;
    CT_TRY(read_real(config, "layer_norm_epsilon", &epsilon));
    if (epsilon != 1e-5f) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: layer_norm_epsilon is not 1e-05", config->path);
    }
    uint32_t inner = 0;
    CT_TRY(read_size(config, "n_inner", false, &inner));
    if (inner != 0 && inner != 4 * (uint64_t)out->width) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: n_inner is not four times n_embd", config->path);
    }
    static const char *const off[] = {"scale_attn_by_inverse_layer_idx", "add_cross_attention",
                                      NULL};
    static const char *const on[] = {"scale_attn_weights", "tie_word_embeddings", NULL};
    CT_TRY(expect_flags(config, off, false));
    return expect_flags(config, on, true);
}

/* RoPE as it is, without scaling for longer contexts: both spellings, rope_scaling (which also
 * called its type "type") and the later rope_parameters. */
static enum ct_err load_rope(const struct config *config, struct ct_model_shape *out) {
    static const char *const places[] = {"rope_scaling", "rope_parameters"};
    CT_TRY(read_real(config, "rope_theta", &out->rope_theta));
    for (int i = 0; i < 2; i++) {
        const struct config inner = {config->path, value_of(config, places[i])};
        if (inner.object == NULL) {
            continue;
        }
        if (!json_is_object(inner.object)) {
            return ct_fail(CT_ERR_FORMAT, "%s: %s is not an object", config->path, places[i]);
        }
        CT_TRY(expect_text(&inner, "rope_type", "default"));
        CT_TRY(expect_text(&inner, "type", "default"));
        CT_TRY(read_real(&inner, "rope_theta", &out->rope_theta));
    }
    return CT_OK;
}

static enum ct_err load_llama(const struct config *config, struct ct_model_shape *out) {
    CT_TRY(read_size(config, "vocab_size", true, &out->vocab));
    CT_TRY(read_size(config, "max_position_embeddings", true, &out->context));
    CT_TRY(read_size(config, "hidden_size", true, &out->width));
    CT_TRY(read_size(config, "intermediate_size", true, &out->hidden));
    CT_TRY(read_size(config, "num_hidden_layers", true, &out->layers));
    CT_TRY(read_size(config, "num_attention_heads", true, &out->heads));
    CT_TRY(read_size(config, "num_key_value_heads", false, &out->kv_heads));
    CT_TRY(expect_text(config, "hidden_act", "silu"));
    out->norm_epsilon = 1e-6f; /* what Hugging Face's LlamaConfig has when none is given */
    CT_TRY(read_real(config, "rms_norm_eps", &out->norm_epsilon));
    CT_TRY(load_rope(config, out));
    uint32_t head = 0;
    CT_TRY(read_size(config, "head_dim", false, &head));
    if (head != 0 && (uint64_t)head * out->heads != out->width) {
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "%s: head_dim %u times %u heads is not hidden_size %u, which is not "
                       "computed here",
                       config->path, head, out->heads, out->width);
    }
    static const char *const off[] = {"attention_bias", "mlp_bias", NULL};
    CT_TRY(expect_flags(config, off, false));
    return read_flag(config, "tie_word_embeddings", &out->tied);
}

static enum ct_err load_shape(const struct config *config, struct ct_model_shape *out) {
    const char *type = json_string_value(json_object_get(config->object, "model_type"));
    if (type == NULL || ct_arch_parse(type, &out->arch) != CT_OK) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: model_type is not gpt2 or llama", config->path);
    }
    CT_TRY(out->arch == CT_ARCH_GPT2 ? load_gpt2(config, out) : load_llama(config, out));
    const enum ct_err err = ct_shape_settle(out);
    if (err != CT_OK) {
        char reason[300];
        snprintf(reason, sizeof reason, "%.299s", ct_err_detail());
        return ct_fail(err, "%s: %s", config->path, reason);
    }
    return CT_OK;
}

enum ct_err ct_model_config_load(const char *path, struct ct_model_shape *out) {
    struct ct_buf text;
    ct_buf_init(&text, CONFIG_BYTES_MAX);
    *out = (struct ct_model_shape){.arch = CT_ARCH_GPT2};
    enum ct_err err = ct_file_read(path, &text);
    json_t *object = NULL;
    if (err == CT_OK) {
        json_error_t error;
        object = json_loadb((const char *)text.data, text.length, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(object)) {
            err = ct_fail(CT_ERR_FORMAT, "%s: line %d: %s", path, object == NULL ? error.line : 1,
                          object == NULL ? error.text : "is not a JSON object");
        }
    }
    if (err == CT_OK) {
        err = load_shape(&(struct config){path, object}, out);
    }
    json_decref(object);
    ct_buf_deinit(&text);
    return err;
}
