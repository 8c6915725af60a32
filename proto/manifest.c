#include "manifest_check.h"
#include "message.h"

#include <cotrain/assert.h>
#include <cotrain/limits.h>
#include <cotrain/manifest.h>
#include <cotrain/policy.h>

#include <stdlib.h>
#include <string.h>

#include <cotrain.pb-c.h>

void ct_manifest_deinit(struct ct_manifest *manifest) {
    free(manifest->rates);
    free(manifest->nodes);
    free(manifest->source);
    *manifest = (struct ct_manifest){0};
}

/* The protobuf's strings are char *, ours are const. */
static char *text_of(const char *text) {
    return (char *)(uintptr_t)text;
}

/* A GPT-2's own values are left out, so that a manifest has one encoding. */
static enum ct_err put_model(const struct ct_model_shape *shape, Cotrain__Manifest__Model *out) {
    struct ct_model_shape settled = *shape;
    CT_TRY(ct_shape_settle(&settled));
    cotrain__manifest__model__init(out);
    out->arch = (uint32_t)settled.arch;
    out->vocab = settled.vocab;
    out->context = settled.context;
    out->layers = settled.layers;
    out->heads = settled.heads;
    out->width = settled.width;
    if (settled.arch != CT_ARCH_GPT2) {
        out->kv_heads = settled.kv_heads;
        out->hidden = settled.hidden;
        out->tied = settled.tied;
        out->norm_epsilon = ct_field_put_float(settled.norm_epsilon);
        out->rope_theta = ct_field_put_float(settled.rope_theta);
    }
    return CT_OK;
}

enum ct_err ct_manifest_encode(const struct ct_manifest *manifest, struct ct_buf *out) {
    const char *section, *key;
    CT_TRY(ct_manifest_check(manifest, &section, &key));
    enum ct_err err;
    Cotrain__BlobRef dataset;
    ct_field_put_blob(&manifest->dataset, &dataset);
    Cotrain__Manifest__Model model;
    CT_TRY(put_model(&manifest->model, &model));
    Cotrain__Manifest__AdamW adamw = COTRAIN__MANIFEST__ADAM_W__INIT;
    adamw.beta1 = ct_field_put_float(manifest->adamw.beta1);
    adamw.beta2 = ct_field_put_float(manifest->adamw.beta2);
    adamw.one_minus_beta1 = ct_field_put_float(manifest->adamw.one_minus_beta1);
    adamw.one_minus_beta2 = ct_field_put_float(manifest->adamw.one_minus_beta2);
    adamw.epsilon = ct_field_put_float(manifest->adamw.epsilon);
    adamw.weight_decay = ct_field_put_float(manifest->adamw.weight_decay);
    adamw.clip_norm = ct_field_put_float(manifest->adamw.clip_norm);
    Cotrain__Manifest message = COTRAIN__MANIFEST__INIT;
    message.version = manifest->version;
    message.name = text_of(manifest->name);
    message.license = text_of(manifest->license);
    message.description = text_of(manifest->description);
    message.provenance = text_of(manifest->provenance);
    message.data_license = text_of(manifest->data_license);
    message.model = &model;
    message.numerics = (uint32_t)manifest->numerics;
    message.tokenizer = text_of(manifest->tokenizer);
    message.dataset = &dataset;
    message.rounds = manifest->rounds;
    message.batch = manifest->batch;
    message.leaves = manifest->leaves;
    message.steps_min = manifest->steps_min;
    message.steps = manifest->steps;
    message.steps_max = manifest->steps_max;
    message.adamw = &adamw;
    message.rate_unit = manifest->rate_unit;
    message.epoch_rounds = manifest->epoch_rounds;
    message.snapshot_rounds = manifest->snapshot_rounds;
    message.quorum_nodes = manifest->quorum_nodes;
    message.round_time_ms = manifest->round_time_ms;
    message.upload_time_ms = manifest->upload_time_ms;
    message.checkpoint_time_ms = manifest->checkpoint_time_ms;
    message.source = text_of(manifest->source);
    message.policy = text_of(manifest->policy);
    message.retention_rounds = manifest->retention_rounds;
    message.n_rates = manifest->rate_count;
    message.rates = calloc(manifest->rate_count, sizeof message.rates[0]);
    message.n_nodes = manifest->node_count;
    message.nodes = calloc(manifest->node_count, sizeof message.nodes[0]);
    if (message.rates == NULL || message.nodes == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for a manifest");
        goto out;
    }
    for (uint32_t i = 0; i < manifest->rate_count; i++) {
        message.rates[i] = ct_field_put_float(manifest->rates[i]);
    }
    for (uint32_t i = 0; i < manifest->node_count; i++) {
        message.nodes[i] = ct_field_put_hash(&manifest->nodes[i]);
    }
    err = ct_message_encode(&message.base, out);
out:
    free(message.rates);
    free(message.nodes);
    return err;
}

/* Text of less than `capacity` bytes; what may stand in it is ct_manifest_check's affair. */
static enum ct_err take_text(const char *field, size_t capacity, const char *what, char *out) {
    if (strlen(field) >= capacity) {
        return ct_fail(CT_ERR_FORMAT, "manifest: %s has more than %zu bytes", what, capacity - 1);
    }
    memcpy(out, field, strlen(field) + 1);
    return CT_OK;
}

static enum ct_err take_words(const Cotrain__Manifest *message, struct ct_manifest *out) {
    CT_TRY(take_text(message->name, sizeof out->name, "name", out->name));
    CT_TRY(take_text(message->license, sizeof out->license, "license", out->license));
    CT_TRY(
        take_text(message->description, sizeof out->description, "description", out->description));
    CT_TRY(take_text(message->provenance, sizeof out->provenance, "provenance", out->provenance));
    CT_TRY(take_text(message->data_license, sizeof out->data_license, "data_license",
                     out->data_license));
    CT_TRY(take_text(message->tokenizer, sizeof out->tokenizer, "tokenizer", out->tokenizer));
    CT_TRY(take_text(message->policy, sizeof out->policy, "policy", out->policy));
    CT_TRY(ct_field_get_blob(message->dataset, "dataset", &out->dataset));
    out->source = strdup(message->source);
    return out->source != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for a manifest");
}

/* What put_model leaves out must be missing, what it writes must be there. */
static enum ct_err get_model(const Cotrain__Manifest__Model *message, struct ct_model_shape *out) {
    *out = (struct ct_model_shape){
        .arch = (enum ct_arch)message->arch,
        .vocab = message->vocab,
        .context = message->context,
        .layers = message->layers,
        .heads = message->heads,
        .width = message->width,
        .kv_heads = message->kv_heads,
        .hidden = message->hidden,
        .tied = message->tied != 0,
        .norm_epsilon = ct_field_get_float(message->norm_epsilon),
        .rope_theta = ct_field_get_float(message->rope_theta),
    };
    const bool gpt2 = out->arch == CT_ARCH_GPT2;
    const bool any = message->kv_heads != 0 || message->hidden != 0 || message->tied != 0 ||
                     message->norm_epsilon != 0 || message->rope_theta != 0;
    const bool all = out->kv_heads != 0 && out->hidden != 0 && out->norm_epsilon != 0.0f &&
                     out->rope_theta != 0.0f;
    if (gpt2 ? any : !all) {
        return ct_fail(CT_ERR_FORMAT, "manifest: the model has fields that its architecture has "
                                      "not, or lacks one");
    }
    return ct_shape_settle(out) == CT_OK ? CT_OK
                                         : ct_fail(CT_ERR_FORMAT, "manifest: %s", ct_err_detail());
}

static enum ct_err take_model(const Cotrain__Manifest *message, struct ct_manifest *out) {
    if (message->model == NULL || message->adamw == NULL) {
        return ct_fail(CT_ERR_FORMAT, "manifest: model or adamw is missing");
    }
    CT_TRY(get_model(message->model, &out->model));
    out->numerics = (enum ct_numerics)message->numerics;
    out->adamw = (struct ct_adamw){
        .beta1 = ct_field_get_float(message->adamw->beta1),
        .beta2 = ct_field_get_float(message->adamw->beta2),
        .one_minus_beta1 = ct_field_get_float(message->adamw->one_minus_beta1),
        .one_minus_beta2 = ct_field_get_float(message->adamw->one_minus_beta2),
        .epsilon = ct_field_get_float(message->adamw->epsilon),
        .weight_decay = ct_field_get_float(message->adamw->weight_decay),
        .clip_norm = ct_field_get_float(message->adamw->clip_norm),
    };
    return CT_OK;
}

static enum ct_err take_lists(const Cotrain__Manifest *message, struct ct_manifest *out) {
    if (message->n_rates == 0 || message->n_rates > CT_RATE_ENTRIES_MAX || message->n_nodes == 0 ||
        message->n_nodes > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT,
                       "manifest: %zu learning rates and %zu nodes are not 1 to %u "
                       "and 1 to %u",
                       message->n_rates, message->n_nodes, CT_RATE_ENTRIES_MAX, CT_NODES_MAX);
    }
    out->rates = calloc(message->n_rates, sizeof out->rates[0]);
    out->nodes = calloc(message->n_nodes, sizeof out->nodes[0]);
    if (out->rates == NULL || out->nodes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a manifest");
    }
    for (size_t i = 0; i < message->n_rates; i++) {
        out->rates[i] = ct_field_get_float(message->rates[i]);
    }
    for (size_t i = 0; i < message->n_nodes; i++) {
        CT_TRY(ct_field_get_hash(&message->nodes[i], "a node's key", &out->nodes[i]));
    }
    out->rate_count = (uint32_t)message->n_rates;
    out->node_count = (uint32_t)message->n_nodes;
    return CT_OK;
}

static enum ct_err take_manifest(const Cotrain__Manifest *message, struct ct_manifest *out) {
    CT_TRY(take_words(message, out));
    CT_TRY(take_model(message, out));
    CT_TRY(take_lists(message, out));
    out->version = message->version;
    out->rounds = message->rounds;
    out->batch = message->batch;
    out->leaves = message->leaves;
    out->steps_min = message->steps_min;
    out->steps = message->steps;
    out->steps_max = message->steps_max;
    out->rate_unit = message->rate_unit;
    out->epoch_rounds = message->epoch_rounds;
    out->snapshot_rounds = message->snapshot_rounds;
    out->retention_rounds = message->retention_rounds;
    out->quorum_nodes = message->quorum_nodes;
    out->round_time_ms = message->round_time_ms;
    out->upload_time_ms = message->upload_time_ms;
    out->checkpoint_time_ms = message->checkpoint_time_ms;
    const char *section, *key;
    if (ct_manifest_check(out, &section, &key) != CT_OK) {
        return ct_fail(CT_ERR_FORMAT, "manifest: %s.%s: %s", section, key != NULL ? key : "adamw",
                       ct_err_detail());
    }
    return CT_OK;
}

enum ct_err ct_manifest_decode(struct ct_bytes bytes, struct ct_manifest *out) {
    *out = (struct ct_manifest){0};
    if (bytes.length > CT_MANIFEST_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "manifest: %zu bytes, at most %u are read", bytes.length,
                       CT_MANIFEST_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__manifest__descriptor, bytes, &message));
    enum ct_err err = take_manifest((const Cotrain__Manifest *)(const void *)message, out);
    ct_message_free(message);
    if (err != CT_OK) {
        ct_manifest_deinit(out);
    }
    return err;
}

enum ct_err ct_manifest_policy(const struct ct_manifest *manifest, struct ct_policy **out) {
    *out = NULL;
    if (manifest->policy[0] == '\0') {
        return CT_OK;
    }
    struct ct_policy *policy = malloc(sizeof *policy);
    if (policy == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a policy");
    }
    enum ct_err err = ct_policy_parse(
        (struct ct_bytes){(const uint8_t *)manifest->policy, strlen(manifest->policy)}, policy);
    if (err != CT_OK) {
        free(policy);
        return err;
    }
    *out = policy;
    return CT_OK;
}

float ct_manifest_rate(const struct ct_manifest *manifest, uint64_t tokens_at_base,
                       uint64_t planned_tokens, uint32_t step, uint32_t steps) {
    CT_ASSERT(step < steps);
    /* floor(s · planned / H) without the product, which could pass 64 bits. */
    uint64_t done = step * (planned_tokens / steps) + step * (planned_tokens % steps) / steps;
    uint64_t entry = (tokens_at_base + done) / manifest->rate_unit;
    return manifest->rates[entry < manifest->rate_count ? entry : manifest->rate_count - 1];
}
