#include <cotrain/layout.h>

#include <cotrain/assert.h>
#include <cotrain/mode.h>
#include <cotrain/philox.h>

#include "draw.h"
#include "parallel.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Most that an architecture has. */
enum { TENSORS_OF_LAYER = 12, TENSORS_OUTSIDE = 4 };

static void add(struct ct_layout *layout, enum ct_tensor_kind kind, uint32_t rows, uint32_t columns,
                const char *format, ...) __attribute__((format(printf, 5, 6)));

static void add(struct ct_layout *layout, enum ct_tensor_kind kind, uint32_t rows, uint32_t columns,
                const char *format, ...) {
    struct ct_tensor *tensor = &layout->tensors[layout->tensor_count++];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(tensor->name, sizeof tensor->name, format, arguments);
    va_end(arguments);
    CT_ASSERT(length > 0 && (size_t)length < sizeof tensor->name);
    tensor->kind = kind;
    tensor->rows = rows;
    tensor->columns = columns;
}

static void add_gpt2_layer(struct ct_layout *layout, uint32_t layer) {
    const uint32_t d = layout->shape.width;
    for (int norm = 1; norm <= 2; norm++) {
        add(layout, CT_TENSOR_VECTOR, 1, d, "transformer.h.%u.ln_%d.weight", layer, norm);
        add(layout, CT_TENSOR_VECTOR, 1, d, "transformer.h.%u.ln_%d.bias", layer, norm);
    }
    const struct {
        const char *name;
        uint32_t inputs, outputs;
    } linear[] = {
        {"attn.c_attn", d, 3 * d},
        {"attn.c_proj", d, d},
        {"mlp.c_fc", d, 4 * d},
        {"mlp.c_proj", 4 * d, d},
    };
    for (size_t i = 0; i < sizeof linear / sizeof linear[0]; i++) {
        add(layout, CT_TENSOR_MATRIX, linear[i].inputs, linear[i].outputs,
            "transformer.h.%u.%s.weight", layer, linear[i].name);
        add(layout, CT_TENSOR_VECTOR, 1, linear[i].outputs, "transformer.h.%u.%s.bias", layer,
            linear[i].name);
    }
}

static void add_gpt2(struct ct_layout *layout) {
    const struct ct_model_shape *shape = &layout->shape;
    add(layout, CT_TENSOR_EMBEDDING, shape->vocab, shape->width, "transformer.wte.weight");
    add(layout, CT_TENSOR_EMBEDDING, shape->context, shape->width, "transformer.wpe.weight");
    add(layout, CT_TENSOR_VECTOR, 1, shape->width, "transformer.ln_f.weight");
    add(layout, CT_TENSOR_VECTOR, 1, shape->width, "transformer.ln_f.bias");
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        add_gpt2_layer(layout, layer);
    }
}

static void add_llama_layer(struct ct_layout *layout, uint32_t layer) {
    const uint32_t d = layout->shape.width, hidden = layout->shape.hidden;
    const uint32_t kv = d / layout->shape.heads * layout->shape.kv_heads;
    const struct {
        const char *name;
        uint32_t outputs, inputs;
    } linear[] = {
        {"self_attn.q_proj", d, d},   {"self_attn.k_proj", kv, d},  {"self_attn.v_proj", kv, d},
        {"self_attn.o_proj", d, d},   {"mlp.gate_proj", hidden, d}, {"mlp.up_proj", hidden, d},
        {"mlp.down_proj", d, hidden},
    };
    for (size_t i = 0; i < sizeof linear / sizeof linear[0]; i++) {
        add(layout, CT_TENSOR_MATRIX, linear[i].outputs, linear[i].inputs,
            "model.layers.%u.%s.weight", layer, linear[i].name);
    }
    add(layout, CT_TENSOR_VECTOR, 1, d, "model.layers.%u.input_layernorm.weight", layer);
    add(layout, CT_TENSOR_VECTOR, 1, d, "model.layers.%u.post_attention_layernorm.weight", layer);
}

static void add_llama(struct ct_layout *layout) {
    const struct ct_model_shape *shape = &layout->shape;
    add(layout, CT_TENSOR_EMBEDDING, shape->vocab, shape->width, "model.embed_tokens.weight");
    add(layout, CT_TENSOR_VECTOR, 1, shape->width, "model.norm.weight");
    if (!shape->tied) {
        add(layout, CT_TENSOR_EMBEDDING, shape->vocab, shape->width, "lm_head.weight");
    }
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        add_llama_layer(layout, layer);
    }
}

static int compare_names(const void *a, const void *b) {
    const struct ct_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

enum ct_err ct_layout_init(struct ct_layout *layout, const struct ct_model_shape *shape) {
    memset(layout, 0, sizeof *layout);
    struct ct_model_shape settled = *shape;
    CT_TRY(ct_shape_settle(&settled));
    const size_t count = TENSORS_OUTSIDE + (size_t)TENSORS_OF_LAYER * settled.layers;
    layout->tensors = calloc(count, sizeof *layout->tensors);
    if (layout->tensors == NULL) {
        return ct_fail(CT_ERR_MEMORY, "model: no memory for a catalogue of %zu tensors", count);
    }
    layout->shape = settled;
    if (settled.arch == CT_ARCH_GPT2) {
        add_gpt2(layout);
    } else {
        add_llama(layout);
    }
    CT_ASSERT(layout->tensor_count <= count);
    qsort(layout->tensors, layout->tensor_count, sizeof *layout->tensors, compare_names);
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        struct ct_tensor *tensor = &layout->tensors[i];
        tensor->offset = layout->parameters;
        layout->parameters += (size_t)tensor->rows * tensor->columns;
    }
    CT_ASSERT(layout->parameters == ct_shape_parameters(&layout->shape));
    return CT_OK;
}

void ct_layout_deinit(struct ct_layout *layout) {
    free(layout->tensors);
    memset(layout, 0, sizeof *layout);
}

static int compare_key(const void *key, const void *element) {
    const struct ct_tensor *tensor = element;
    return strcmp(key, tensor->name);
}

const struct ct_tensor *ct_layout_find(const struct ct_layout *layout, const char *name) {
    return bsearch(name, layout->tensors, layout->tensor_count, sizeof *layout->tensors,
                   compare_key);
}

static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Whether a matrix's products are added to the residual stream. */
static bool ends_in_stream(const struct ct_tensor *tensor) {
    return ends_with(tensor->name, ".c_proj.weight") || ends_with(tensor->name, ".o_proj.weight") ||
           ends_with(tensor->name, ".down_proj.weight");
}

/* A tensor to draw. */
struct drawing {
    const struct ct_ops *ops;
    const struct ct_philox *philox;
    double deviation;
    size_t offset;
    float *theta;
};

static void draw_values(void *context, size_t begin, size_t end) {
    const struct drawing *drawing = context;
    const size_t first = drawing->offset + begin;
    drawing->ops->normals(drawing->theta + first, drawing->philox, first, drawing->deviation,
                          end - begin);
}

void ct_layout_draw(const struct ct_layout *layout, const struct ct_hash *seed, float *theta) {
    /* A coordinator draws as well, and has filled no table with overlays. */
    struct ct_ops definition;
    ct_draw_install_scalar(&definition);
    const struct ct_ops *ops = ct_ops.normals != NULL ? &ct_ops : &definition;
    const struct ct_mode mode = ct_mode_enter();
    const struct ct_philox philox = ct_philox_make(seed, CT_STREAM_INIT);
    const double residual = 0.02 / __builtin_sqrt(2.0 * layout->shape.layers);
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        const size_t count = (size_t)tensor->rows * tensor->columns;
        if (tensor->kind == CT_TENSOR_VECTOR) {
            const float value = ends_with(tensor->name, ".weight") ? 1.0f : 0.0f;
            for (size_t j = 0; j < count; j++) {
                theta[tensor->offset + j] = value;
            }
            continue;
        }
        struct drawing drawing = {ops, &philox, ends_in_stream(tensor) ? residual : 0.02,
                                  tensor->offset, theta};
        ct_parallel(0, count, 4096, draw_values, &drawing);
    }
    ct_mode_leave(mode);
}
