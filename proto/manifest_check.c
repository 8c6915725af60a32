#include "manifest_check.h"

#include <cotrain/crypto.h>
#include <cotrain/limits.h>
#include <cotrain/policy.h>
#include <cotrain/spdx.h>
#include <cotrain/text.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX    1000000u
#define BATCH_MAX     65536u
#define PHASE_MS_MIN  1000u
#define PHASE_MS_MAX  86400000u
#define NOTICE_MS_MIN 100u
#define NOTICE_MS_MAX 60000u

/* Where RUN.yaml says what is checked now. */
struct spot {
    const char *section, *key;
};

static void at(struct spot *spot, const char *section, const char *key) {
    spot->section = section;
    spot->key = key;
}

/* Lines of printable text, not empty unless allowed. */
static bool is_prose(const char *text, bool may_be_empty) {
    const char *line = text;
    for (;;) {
        size_t length = strcspn(line, "\n");
        if (!ct_text_printable((struct ct_bytes){(const uint8_t *)line, length})) {
            return false;
        }
        if (line[length] == '\0') {
            break;
        }
        line += length + 1;
    }
    return may_be_empty || text[0] != '\0';
}

static enum ct_err check_number(uint64_t value, uint64_t minimum, uint64_t maximum) {
    if (value < minimum || value > maximum) {
        return ct_fail(CT_ERR_CONFIG, "%llu is not in %llu…%llu", (unsigned long long)value,
                       (unsigned long long)minimum, (unsigned long long)maximum);
    }
    return CT_OK;
}

/* Finite, not subnormal (E9), in [minimum, maximum]. */
static enum ct_err check_real(float value, float minimum, float maximum) {
    if (!isfinite(value) || (value != 0.0f && fabsf(value) < FLT_MIN) || value < minimum ||
        value > maximum) {
        return ct_fail(CT_ERR_CONFIG, "%g is not in %g…%g", (double)value, (double)minimum,
                       (double)maximum);
    }
    return CT_OK;
}

static enum ct_err check_words(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "run", "name");
    if (m->name[0] == '\0' ||
        !ct_text_printable((struct ct_bytes){(const uint8_t *)m->name, strlen(m->name)})) {
        return ct_fail(CT_ERR_CONFIG, "the run needs a name: one line of printable text");
    }
    at(spot, "run", "description");
    if (!is_prose(m->description, true)) {
        return ct_fail(CT_ERR_CONFIG, "the description holds control characters");
    }
    at(spot, "run", "license");
    CT_TRY(ct_spdx_check(m->license));
    at(spot, "data", "license");
    CT_TRY(ct_spdx_check(m->data_license));
    at(spot, "data", "provenance");
    if (!is_prose(m->provenance, false)) {
        return ct_fail(CT_ERR_CONFIG, "say where the data comes from and how it was made: no run "
                                      "starts without its provenance");
    }
    return CT_OK;
}

/* Which of RUN.yaml's keys a shape fails by; ranges of single keys were met there already. */
static const char *key_at_fault(const struct ct_model_shape *shape) {
    if (shape->arch != CT_ARCH_LLAMA) {
        return "width";
    }
    if (shape->kv_heads != 0 && shape->heads % shape->kv_heads != 0) {
        return "kv_heads";
    }
    if (shape->norm_epsilon != 0.0f && !(shape->norm_epsilon >= CT_NORM_EPSILON_MIN &&
                                         shape->norm_epsilon <= CT_NORM_EPSILON_MAX)) {
        return "norm_epsilon";
    }
    return "width";
}

static enum ct_err check_model(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "model", key_at_fault(&m->model));
    struct ct_layout layout;
    CT_TRY(ct_layout_init(&layout, &m->model));
    ct_layout_deinit(&layout);
    at(spot, "data", "path");
    if (strcmp(m->tokenizer, "bytes") != 0 || m->model.vocab != 256) {
        return ct_fail(CT_ERR_CONFIG, "tokenizer '%s' with %u tokens is not known here",
                       m->tokenizer, m->model.vocab);
    }
    if (m->dataset.length == 0 || m->dataset.length > CT_BLOB_IN_MEMORY_MAX) {
        return ct_fail(CT_ERR_CONFIG, "a data set of %llu bytes is none",
                       (unsigned long long)m->dataset.length);
    }
    at(spot, "training", "numerics");
    if (m->numerics != CT_NUMERICS_BF16_1 && m->numerics != CT_NUMERICS_FP32_1) {
        return ct_fail(CT_ERR_CONFIG, "a run's numerics are bf16-1 or fp32-1");
    }
    return CT_OK;
}

static enum ct_err check_steps(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "run", "rounds");
    CT_TRY(check_number(m->rounds, 1, ROUNDS_MAX));
    at(spot, "training", "batch");
    CT_TRY(check_number(m->batch, 1, BATCH_MAX));
    at(spot, "training", "leaves");
    CT_TRY(check_number(m->leaves, 1, 16));
    if ((m->leaves & (m->leaves - 1)) != 0 || m->batch % m->leaves != 0) {
        return ct_fail(CT_ERR_CONFIG, "leaves are 1, 2, 4, 8 or 16 and divide the batch of %u",
                       m->batch);
    }
    at(spot, "training", "steps_max");
    CT_TRY(check_number(m->steps_max, 1, CT_STEPS_MAX));
    at(spot, "training", "steps_min");
    CT_TRY(check_number(m->steps_min, 1, m->steps_max));
    at(spot, "training", "steps");
    return check_number(m->steps, m->steps_min, m->steps_max);
}

static enum ct_err check_optimizer(const struct ct_manifest *m, struct spot *spot) {
    const struct ct_adamw *a = &m->adamw;
    at(spot, "training", NULL);
    const float below_one = 1.0f - FLT_EPSILON / 2;
    if (check_real(a->beta1, 0, below_one) != CT_OK ||
        check_real(a->beta2, 0, below_one) != CT_OK ||
        check_real(a->one_minus_beta1, FLT_MIN, 1) != CT_OK ||
        check_real(a->one_minus_beta2, FLT_MIN, 1) != CT_OK ||
        check_real(a->epsilon, FLT_MIN, 1) != CT_OK ||
        check_real(a->weight_decay, 0, 10) != CT_OK ||
        check_real(a->clip_norm, FLT_MIN, 1e6f) != CT_OK) {
        return ct_fail(CT_ERR_CONFIG, "a constant of AdamW: %s", ct_err_detail());
    }
    at(spot, "training", "rate_unit_tokens");
    CT_TRY(check_number(m->rate_unit, 1, INT64_MAX));
    CT_TRY(check_number(m->rate_count, 1, CT_RATE_ENTRIES_MAX));
    at(spot, "training", "rate_peak");
    for (uint32_t i = 0; i < m->rate_count; i++) {
        if (check_real(m->rates[i], 0, 1) != CT_OK) {
            return ct_fail(CT_ERR_CONFIG, "learning rate %u of the table: %s", i, ct_err_detail());
        }
    }
    return CT_OK;
}

/* A unit that has ended must stay for others to check it. */
static enum ct_err check_retention(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "retention", "rounds");
    if (m->retention_rounds != 0 && m->retention_rounds < m->epoch_rounds) {
        return ct_fail(
            CT_ERR_CONFIG,
            "%u is less than audit.epoch_rounds, %u: work must stay to be recomputed for "
            "an epoch at least; or keep all",
            m->retention_rounds, m->epoch_rounds);
    }
    return m->retention_rounds == 0 ? CT_OK : check_number(m->retention_rounds, 1, ROUNDS_MAX);
}

static enum ct_err check_rounds(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "audit", "epoch_rounds");
    CT_TRY(check_number(m->epoch_rounds, 1, 65536));
    at(spot, "audit", "snapshot_rounds");
    CT_TRY(check_number(m->snapshot_rounds, 1, ROUNDS_MAX));
    at(spot, "timing", "quorum_nodes");
    CT_TRY(check_number(m->quorum_nodes, 1, CT_NODES_MAX));
    at(spot, "timing", "round_seconds");
    CT_TRY(check_number(m->round_time_ms, PHASE_MS_MIN, PHASE_MS_MAX));
    at(spot, "timing", "upload_seconds");
    CT_TRY(check_number(m->upload_time_ms, PHASE_MS_MIN, PHASE_MS_MAX));
    at(spot, "timing", "checkpoint_ms");
    return check_number(m->checkpoint_time_ms, NOTICE_MS_MIN, NOTICE_MS_MAX);
}

static enum ct_err check_nodes(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "admission", "nodes");
    if (m->node_count == 0 || m->node_count > CT_NODES_MAX) {
        return ct_fail(CT_ERR_CONFIG,
                       "the list has %u keys, it needs 1 to %u: `cotrain key` makes "
                       "a node's identity and prints its key",
                       m->node_count, CT_NODES_MAX);
    }
    for (uint32_t i = 0; i < m->node_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (ct_hash_equal(&m->nodes[i], &m->nodes[j])) {
                return ct_fail(CT_ERR_CONFIG, "key %u of the list is there twice", i + 1);
            }
        }
        if (ct_hash_is_zero(&m->nodes[i])) {
            return ct_fail(CT_ERR_CONFIG, "key %u of the list is zero", i + 1);
        }
    }
    return CT_OK;
}

static enum ct_err check_witnesses(const struct ct_manifest *m, struct spot *spot) {
    at(spot, "witnesses", "policy");
    struct ct_policy *policy = NULL;
    enum ct_err err = ct_manifest_policy(m, &policy);
    if (err == CT_OK && policy != NULL && policy->log_count > 0) {
        err = ct_fail(CT_ERR_CONFIG, "the log's own key is made by cotraind init: leave the log "
                                     "lines out");
    }
    for (uint32_t i = 0; err == CT_OK && policy != NULL && i < policy->member_count; i++) {
        const struct ct_policy_member *member = &policy->members[i];
        if (!member->is_group && strncmp(member->url, "http://", 7) != 0 &&
            strncmp(member->url, "https://", 8) != 0) {
            err = ct_fail(CT_ERR_CONFIG, "the witness '%s' needs its URL (http:// or https://)",
                          member->name);
        }
    }
    free(policy);
    return err;
}

enum ct_err ct_manifest_check(const struct ct_manifest *manifest, const char **out_section,
                              const char **out_key) {
    struct spot spot = {"run", NULL};
    enum ct_err err = CT_OK;
    if (manifest->version != 1) {
        err = ct_fail(CT_ERR_CONFIG, "manifest version %u is not known here, only 1",
                      manifest->version);
    }
    static enum ct_err (*const checks[])(const struct ct_manifest *, struct spot *) = {
        check_words,  check_model,     check_steps, check_optimizer,
        check_rounds, check_retention, check_nodes, check_witnesses,
    };
    for (size_t i = 0; i < sizeof checks / sizeof checks[0] && err == CT_OK; i++) {
        err = checks[i](manifest, &spot);
    }
    size_t source_bytes = strlen(manifest->source);
    if (err == CT_OK && (source_bytes == 0 || source_bytes > CT_MANIFEST_SOURCE_BYTES_MAX)) {
        err = ct_fail(CT_ERR_CONFIG, "the operator's text has %zu bytes, it must have 1 to %u",
                      source_bytes, CT_MANIFEST_SOURCE_BYTES_MAX);
    }
    *out_section = spot.section;
    *out_key = spot.key;
    return err;
}
