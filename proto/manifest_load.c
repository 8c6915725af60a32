/* RUN.yaml to a manifest: defaults, tables, the data set's sheet. */
#include "manifest_check.h"
#include "manifest_yaml.h"

#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t or_default(uint64_t value, uint64_t otherwise) {
    return value != 0 ? value : otherwise;
}

static enum ct_err make_rates(const struct ct_run_yaml *yaml, struct ct_manifest *out) {
    const struct ct_run_plan *plan = &yaml->plan;
    if (plan->rate_peak <= 0 || plan->rate_floor > plan->rate_peak) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line_near(yaml, "training", "rate_peak"),
                                "training.rate_peak must be above 0 and not below rate_floor");
    }
    if (plan->warmup_tokens >= plan->total_tokens) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line_near(yaml, "training", "warmup_tokens"),
                                "training.warmup_tokens must be below total_tokens");
    }
    uint64_t unit = or_default(plan->rate_unit_tokens, or_default(plan->total_tokens / 1000, 1));
    uint64_t count = plan->total_tokens / unit + (plan->total_tokens % unit != 0);
    if (count > CT_RATE_ENTRIES_MAX) {
        return ct_run_yaml_fail(
            yaml, ct_run_yaml_line_near(yaml, "training", "rate_unit_tokens"),
            "training.rate_unit_tokens: the table would have %llu entries, at most %u "
            "are allowed",
            (unsigned long long)count, CT_RATE_ENTRIES_MAX);
    }
    out->rates = calloc(count, sizeof out->rates[0]);
    if (out->rates == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the learning rates");
    }
    out->rate_unit = unit;
    out->rate_count = (uint32_t)count;
    ct_rate_table(out->rates, out->rate_count, (uint32_t)(plan->warmup_tokens / unit),
                  plan->rate_peak, plan->rate_floor);
    return CT_OK;
}

/* The data set's sheet: its reference, tokenizer, licence, and whether there is enough of it. */
static enum ct_err read_data(const struct ct_run_yaml *yaml, struct ct_manifest *out,
                             char *out_data_dir) {
    const struct ct_run_plan *plan = &yaml->plan;
    unsigned line = ct_run_yaml_line_near(yaml, "data", "path");
    const char *slash = strrchr(yaml->path, '/');
    int length = plan->data_path[0] == '/' || slash == NULL
                     ? snprintf(out_data_dir, PATH_MAX, "%s", plan->data_path)
                     : snprintf(out_data_dir, PATH_MAX, "%.*s/%s", (int)(slash - yaml->path),
                                yaml->path, plan->data_path);
    char sheet[PATH_MAX];
    if (length < 0 || length >= PATH_MAX ||
        (size_t)snprintf(sheet, sizeof sheet, "%s/%s", out_data_dir, CT_DATASET_FILE) >=
            sizeof sheet) {
        return ct_run_yaml_fail(yaml, line, "data.path is too long");
    }
    struct ct_buf buf;
    ct_buf_init(&buf, CT_DATASET_BYTES_MAX);
    struct ct_dataset dataset = {0};
    enum ct_err err = ct_file_read(sheet, &buf);
    if (err == CT_OK) {
        err = ct_dataset_parse(ct_buf_bytes(&buf), &dataset);
    }
    if (err != CT_OK) {
        err = ct_run_yaml_fail(yaml, line, "data.path: %s; `cotrain data build` makes a data set",
                               ct_err_detail());
        goto out;
    }
    if (strcmp(dataset.license, plan->data_license) != 0) {
        err = ct_run_yaml_fail(yaml, ct_run_yaml_line_near(yaml, "data", "license"),
                               "data.license is '%s', the data set's own sheet says '%s'",
                               plan->data_license, dataset.license);
        goto out;
    }
    if (ct_dataset_tokens(&dataset, CT_SPLIT_TRAIN) < 3 * plan->context) {
        err = ct_run_yaml_fail(yaml, line,
                               "data.path: %llu tokens to train on, a context of %llu needs "
                               "at least %llu",
                               (unsigned long long)ct_dataset_tokens(&dataset, CT_SPLIT_TRAIN),
                               (unsigned long long)plan->context,
                               (unsigned long long)(3 * plan->context));
        goto out;
    }
    out->dataset = (struct ct_blob_ref){ct_sha256(ct_buf_bytes(&buf)), buf.length};
    out->model.vocab = dataset.vocab;
    memcpy(out->tokenizer, dataset.tokenizer, sizeof out->tokenizer);
out:
    ct_dataset_deinit(&dataset);
    ct_buf_deinit(&buf);
    return err;
}

/* Keys that only a Llama has; and `hidden`, which it must have. */
static enum ct_err check_llama_keys(const struct ct_run_yaml *yaml, enum ct_arch arch) {
    static const char *const keys[] = {"kv_heads", "hidden", "tied_head", "norm_epsilon",
                                       "rope_theta"};
    for (size_t i = 0; arch != CT_ARCH_LLAMA && i < sizeof keys / sizeof keys[0]; i++) {
        const unsigned line = ct_run_yaml_line(yaml, "model", keys[i]);
        if (line != 0) {
            return ct_run_yaml_fail(yaml, line, "model.%s: a %s has none, only a llama", keys[i],
                                    ct_arch_name(arch));
        }
    }
    if (arch == CT_ARCH_LLAMA && ct_run_yaml_line(yaml, "model", "hidden") == 0) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line(yaml, "model", "arch"),
                                "model lacks 'hidden', the width of a llama's MLP");
    }
    return CT_OK;
}

/* model.vocab is the data set's and stands already. */
static enum ct_err make_model(const struct ct_run_yaml *yaml, struct ct_model_shape *out) {
    const struct ct_run_plan *plan = &yaml->plan;
    if (ct_arch_parse(plan->arch, &out->arch) != CT_OK) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line(yaml, "model", "arch"), "model.arch: %s",
                                ct_err_detail());
    }
    CT_TRY(check_llama_keys(yaml, out->arch));
    out->context = (uint32_t)plan->context;
    out->layers = (uint32_t)plan->layers;
    out->heads = (uint32_t)plan->heads;
    out->width = (uint32_t)plan->width;
    out->kv_heads = (uint32_t)plan->kv_heads;
    out->hidden = (uint32_t)plan->hidden;
    out->tied = plan->tied_head;
    out->norm_epsilon = (float)plan->norm_epsilon;
    out->rope_theta = (float)plan->rope_theta;
    if (ct_run_yaml_line(yaml, "model", "norm_epsilon") != 0 && out->norm_epsilon == 0.0f) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line(yaml, "model", "norm_epsilon"),
                                "model.norm_epsilon must be above 0");
    }
    if ((uint64_t)out->rope_theta != plan->rope_theta) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line(yaml, "model", "rope_theta"),
                                "model.rope_theta is no binary32 number; the nearest is %.0f",
                                (double)out->rope_theta);
    }
    return CT_OK;
}

/* Plain values and defaults; texts have the sizes of the manifest's. */
static enum ct_err make_manifest(struct ct_run_yaml *yaml, struct ct_manifest *out) {
    struct ct_run_plan *plan = &yaml->plan;
    if (ct_numerics_parse(plan->numerics, &out->numerics) != CT_OK ||
        out->numerics == CT_NUMERICS_FAST) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line_near(yaml, "training", "numerics"),
                                "training.numerics '%s' is not bf16-1 or fp32-1", plan->numerics);
    }
    out->version = 1;
    memcpy(out->name, plan->name, sizeof out->name);
    memcpy(out->license, plan->license, sizeof out->license);
    memcpy(out->description, plan->description, sizeof out->description);
    memcpy(out->provenance, plan->provenance, sizeof out->provenance);
    memcpy(out->data_license, plan->data_license, sizeof out->data_license);
    CT_TRY(make_model(yaml, &out->model));
    out->rounds = (uint32_t)plan->rounds;
    out->batch = (uint32_t)plan->batch;
    out->leaves = (uint32_t)or_default(plan->leaves, 1);
    out->steps = (uint32_t)or_default(plan->steps, 30);
    uint32_t steps_min = out->steps < 8 ? out->steps : 8;
    out->steps_min = (uint32_t)or_default(plan->steps_min, steps_min);
    out->steps_max = (uint32_t)or_default(plan->steps_max, CT_STEPS_MAX);
    out->adamw = ct_adamw_default();
    out->epoch_rounds = (uint32_t)or_default(plan->epoch_rounds, 16);
    out->snapshot_rounds = (uint32_t)or_default(plan->snapshot_rounds, 64);
    out->retention_rounds = (uint32_t)plan->retention_rounds;
    out->quorum_nodes = (uint32_t)or_default(plan->quorum_nodes, 2);
    out->round_time_ms = (uint32_t)or_default(plan->round_seconds, 60) * 1000;
    out->upload_time_ms = (uint32_t)or_default(plan->upload_seconds, 60) * 1000;
    out->checkpoint_time_ms = (uint32_t)or_default(plan->checkpoint_ms, 1000);
    if (plan->policy[0] != '\0') { /* read_text cut the last line feed */
        snprintf(out->policy, sizeof out->policy, "%s\n", plan->policy);
    }
    out->node_count = plan->node_count;
    out->nodes = plan->nodes;
    plan->nodes = NULL;
    CT_TRY(make_rates(yaml, out));
    const char *section, *key;
    if (ct_manifest_check(out, &section, &key) != CT_OK) {
        return ct_run_yaml_fail(yaml, ct_run_yaml_line_near(yaml, section, key), "%s%s%s: %s",
                                section, key != NULL ? "." : "", key != NULL ? key : "",
                                ct_err_detail());
    }
    return ct_shape_settle(&out->model);
}

enum ct_err ct_manifest_load(const char *path, struct ct_manifest *out, char *out_data_dir) {
    *out = (struct ct_manifest){0};
    struct ct_buf text;
    ct_buf_init(&text, CT_MANIFEST_SOURCE_BYTES_MAX);
    struct ct_run_yaml *yaml = calloc(1, sizeof *yaml);
    enum ct_err err = CT_OK;
    if (yaml == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory to read %s", path);
        goto out;
    }
    yaml->path = path;
    err = ct_file_read(path, &text);
    if (err != CT_OK) {
        goto out;
    }
    err = ct_run_yaml_read(yaml, ct_buf_bytes(&text));
    if (err != CT_OK) {
        goto out;
    }
    /* libyaml refuses NUL bytes, so the text is a C string. */
    out->source = strndup((const char *)text.data, text.length);
    if (out->source == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for %s", path);
        goto out;
    }
    err = read_data(yaml, out, out_data_dir);
    if (err == CT_OK) {
        err = make_manifest(yaml, out);
    }
out:
    if (yaml != NULL) {
        free(yaml->plan.nodes);
    }
    free(yaml);
    ct_buf_deinit(&text);
    if (err != CT_OK) {
        ct_manifest_deinit(out);
    }
    return err;
}
