#include <cotrain/model_dir.h>

#include "model_config.h"

#include <cotrain/buf.h>
#include <cotrain/pages.h>
#include <cotrain/safetensors.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "lm_head.weight"

static enum ct_err join(char out[PATH_MAX], const char *dir, const char *name) {
    const int length = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "%s: the path is too long", dir);
    }
    return CT_OK;
}

enum ct_err ct_model_save(const char *dir, const struct ct_layout *layout, const float *theta) {
    char path[PATH_MAX];
    CT_TRY(ct_dir_make(dir));
    CT_TRY(join(path, dir, "model.safetensors"));
    CT_TRY(ct_safetensors_save(path, layout, theta, NULL, 0));
    CT_TRY(join(path, dir, "config.json"));
    return ct_model_config_save(path, &layout->shape);
}

/* A file that is being read into θ. */
struct reading {
    const char *path;
    const struct ct_safetensors *file;
    const struct ct_layout *layout;
    float *theta;
};

/* The name without the architecture's prefix, which programs that save the bare model leave out. */
static const char *bare_name(const struct ct_layout *layout, const char *name) {
    const char *prefix = layout->shape.arch == CT_ARCH_GPT2 ? "transformer." : "model.";
    const size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : name;
}

static const struct ct_safetensors_entry *find_entry(const struct reading *reading,
                                                     const char *name) {
    const struct ct_safetensors_entry *entry = ct_safetensors_find(reading->file, name);
    return entry != NULL ? entry
                         : ct_safetensors_find(reading->file, bare_name(reading->layout, name));
}

static bool shape_matches(const struct ct_safetensors_entry *entry,
                          const struct ct_tensor *tensor) {
    if (tensor->kind == CT_TENSOR_VECTOR) {
        return entry->dimension_count == 1 && entry->dimensions[0] == tensor->columns;
    }
    return entry->dimension_count == 2 && entry->dimensions[0] == tensor->rows &&
           entry->dimensions[1] == tensor->columns;
}

static enum ct_err check_tensor(const struct reading *reading, const struct ct_tensor *tensor) {
    const struct ct_safetensors_entry *entry = find_entry(reading, tensor->name);
    if (entry == NULL) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s is missing", reading->path, tensor->name);
    }
    if (!shape_matches(entry, tensor)) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %s has not the shape that config.json says",
                       reading->path, tensor->name);
    }
    return CT_OK;
}

/* A head that is stored although it is tied must be the embedding. */
static enum ct_err check_tied_head(const struct reading *reading,
                                   const struct ct_safetensors_entry *entry) {
    const char *name = reading->layout->shape.arch == CT_ARCH_GPT2 ? "transformer.wte.weight"
                                                                   : "model.embed_tokens.weight";
    const struct ct_tensor *embedding = ct_layout_find(reading->layout, name);
    bool same = shape_matches(entry, embedding);
    if (same) {
        float *head = malloc(entry->values * sizeof *head);
        if (head == NULL) {
            return ct_fail(CT_ERR_MEMORY, "%s: no memory for %s", reading->path, entry->name);
        }
        const enum ct_err err = ct_safetensors_read(reading->file, entry, head);
        if (err != CT_OK) {
            free(head);
            return err;
        }
        same = memcmp(head, reading->theta + embedding->offset, entry->values * sizeof *head) == 0;
        free(head);
    }
    return same ? CT_OK
                : ct_fail(CT_ERR_FORMAT,
                          "%s: %s is another matrix than %s, to which config.json "
                          "ties it",
                          reading->path, entry->name, name);
}

static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* What other programs store besides the parameters and what follows from the shape alone: causal
 * masks and RoPE's frequencies. */
static bool is_constant(const struct ct_layout *layout, const char *name) {
    if (layout->shape.arch == CT_ARCH_GPT2) {
        return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias");
    }
    return ends_with(name, ".rotary_emb.inv_freq");
}

/* Whether the layout has a tensor of this name, or of the name without its prefix. */
static bool is_known(const struct ct_layout *layout, const char *name) {
    char full[CT_TENSOR_NAME_MAX];
    const char *prefix = layout->shape.arch == CT_ARCH_GPT2 ? "transformer." : "model.";
    const int length = snprintf(full, sizeof full, "%s%s", prefix, name);
    return ct_layout_find(layout, name) != NULL ||
           (length > 0 && (size_t)length < sizeof full && ct_layout_find(layout, full) != NULL);
}

/* Every entry of the file is a tensor of the layout, or of no consequence. */
static enum ct_err check_names(const struct reading *reading) {
    const size_t count = ct_safetensors_count(reading->file);
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        const struct ct_safetensors_entry *entry = ct_safetensors_at(reading->file, i);
        if (is_known(reading->layout, entry->name)) {
            known++;
        } else if (strcmp(entry->name, HEAD) != 0 && !is_constant(reading->layout, entry->name)) {
            return ct_fail(CT_ERR_FORMAT,
                           "%s: holds a tensor %.100s, which a model of config.json's shape has "
                           "not",
                           reading->path, entry->name);
        }
    }
    return known == reading->layout->tensor_count
               ? CT_OK
               : ct_fail(CT_ERR_FORMAT, "%s: holds a tensor with and without its prefix",
                         reading->path);
}

/* Nothing is reserved before the file is known to have all of it. */
static enum ct_err read_tensors(struct reading *reading) {
    const struct ct_layout *layout = reading->layout;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        CT_TRY(check_tensor(reading, &layout->tensors[i]));
    }
    CT_TRY(check_names(reading));
    reading->theta = ct_pages_reserve(layout->parameters * sizeof *reading->theta);
    if (reading->theta == NULL) {
        return ct_fail(CT_ERR_MEMORY, "%s: no memory for %zu parameters", reading->path,
                       layout->parameters);
    }
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        CT_TRY(ct_safetensors_read(reading->file, find_entry(reading, tensor->name),
                                   reading->theta + tensor->offset));
    }
    const struct ct_safetensors_entry *head = ct_safetensors_find(reading->file, HEAD);
    return head != NULL && layout->shape.tied ? check_tied_head(reading, head) : CT_OK;
}

enum ct_err ct_model_load_shape(const char *dir, struct ct_model_shape *out) {
    char path[PATH_MAX];
    CT_TRY(join(path, dir, "config.json"));
    return ct_model_config_load(path, out);
}

enum ct_err ct_model_load(const char *dir, struct ct_layout *layout, float **out_theta) {
    char path[PATH_MAX];
    struct ct_model_shape shape;
    struct ct_safetensors *file;
    CT_TRY(ct_model_load_shape(dir, &shape));
    CT_TRY(join(path, dir, "model.safetensors"));
    CT_TRY(ct_safetensors_open(path, &file));
    struct reading reading = {path, file, layout, NULL};
    enum ct_err err = ct_layout_init(layout, &shape);
    if (err == CT_OK) {
        err = read_tensors(&reading);
    }
    ct_safetensors_close(file);
    if (err != CT_OK) {
        free(reading.theta);
        ct_layout_deinit(layout);
        return err;
    }
    *out_theta = reading.theta;
    return CT_OK;
}
