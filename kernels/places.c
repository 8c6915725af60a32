/* Where an architecture's parameters lie in the flat array. */
#include "block.h"

#include <cotrain/assert.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t offset_of(const struct ct_layout *layout, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static size_t offset_of(const struct ct_layout *layout, const char *format, ...) {
    char name[CT_TENSOR_NAME_MAX];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    CT_ASSERT(length > 0 && (size_t)length < sizeof name);
    const struct ct_tensor *tensor = ct_layout_find(layout, name);
    CT_ASSERT(tensor != NULL);
    return tensor->offset;
}

/* The tensors whose names begin so: neighbours, in byte order of names. */
static struct ct_span span_of(const struct ct_layout *layout, const char *prefix) {
    struct ct_span span = {layout->parameters, 0};
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        if (strncmp(tensor->name, prefix, strlen(prefix)) == 0) {
            span.begin = tensor->offset < span.begin ? tensor->offset : span.begin;
            span.end = tensor->offset + (size_t)tensor->rows * tensor->columns;
        }
    }
    CT_ASSERT(span.begin < span.end);
    return span;
}

static struct ct_linear gpt2_linear(const struct ct_layout *layout, uint32_t layer,
                                    const char *name, size_t in, size_t out) {
    return (struct ct_linear){
        .weight = offset_of(layout, "transformer.h.%u.%s.weight", layer, name),
        .bias = offset_of(layout, "transformer.h.%u.%s.bias", layer, name),
        .in = in,
        .out = out,
    };
}

static struct ct_norm gpt2_norm(const struct ct_layout *layout, uint32_t layer, int number) {
    return (struct ct_norm){
        offset_of(layout, "transformer.h.%u.ln_%d.weight", layer, number),
        offset_of(layout, "transformer.h.%u.ln_%d.bias", layer, number),
    };
}

static void find_gpt2(struct ct_places *places, const struct ct_layout *layout) {
    const struct ct_model_shape *shape = &layout->shape;
    const size_t d = shape->width;
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "transformer.h.%u.", layer);
        places->blocks[layer] = (struct ct_block){
            .norm_1 = gpt2_norm(layout, layer, 1),
            .norm_2 = gpt2_norm(layout, layer, 2),
            .qkv = {gpt2_linear(layout, layer, "attn.c_attn", d, 3 * d)},
            .projection = gpt2_linear(layout, layer, "attn.c_proj", d, d),
            .up = {gpt2_linear(layout, layer, "mlp.c_fc", d, shape->hidden)},
            .down = gpt2_linear(layout, layer, "mlp.c_proj", shape->hidden, d),
            .qkv_count = 1,
            .up_count = 1,
            .all = span_of(layout, prefix),
        };
    }
    places->tokens = offset_of(layout, "transformer.wte.weight");
    places->positions = offset_of(layout, "transformer.wpe.weight");
    places->last = (struct ct_norm){offset_of(layout, "transformer.ln_f.weight"),
                                    offset_of(layout, "transformer.ln_f.bias")};
    places->head = (struct ct_linear){
        .weight = places->tokens,
        .bias = CT_ABSENT,
        .in = d,
        .out = shape->vocab,
        .out_major = true,
    };
    places->all_blocks = span_of(layout, "transformer.h.");
}

/* Llama's maps are stored output × input and have no biases. */
static struct ct_linear llama_linear(const struct ct_layout *layout, uint32_t layer,
                                     const char *name, size_t in, size_t out) {
    return (struct ct_linear){
        .weight = offset_of(layout, "model.layers.%u.%s.weight", layer, name),
        .bias = CT_ABSENT,
        .in = in,
        .out = out,
        .out_major = true,
    };
}

static struct ct_norm llama_norm(const struct ct_layout *layout, uint32_t layer, const char *name) {
    return (struct ct_norm){offset_of(layout, "model.layers.%u.%s.weight", layer, name), CT_ABSENT};
}

static void find_llama(struct ct_places *places, const struct ct_layout *layout) {
    const struct ct_model_shape *shape = &layout->shape;
    const size_t d = shape->width, kv = d / shape->heads * shape->kv_heads;
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
        places->blocks[layer] = (struct ct_block){
            .norm_1 = llama_norm(layout, layer, "input_layernorm"),
            .norm_2 = llama_norm(layout, layer, "post_attention_layernorm"),
            .qkv = {llama_linear(layout, layer, "self_attn.q_proj", d, d),
                    llama_linear(layout, layer, "self_attn.k_proj", d, kv),
                    llama_linear(layout, layer, "self_attn.v_proj", d, kv)},
            .projection = llama_linear(layout, layer, "self_attn.o_proj", d, d),
            .up = {llama_linear(layout, layer, "mlp.gate_proj", d, shape->hidden),
                   llama_linear(layout, layer, "mlp.up_proj", d, shape->hidden)},
            .down = llama_linear(layout, layer, "mlp.down_proj", shape->hidden, d),
            .qkv_count = 3,
            .up_count = 2,
            .all = span_of(layout, prefix),
        };
    }
    places->tokens = offset_of(layout, "model.embed_tokens.weight");
    places->positions = CT_ABSENT;
    places->last = (struct ct_norm){offset_of(layout, "model.norm.weight"), CT_ABSENT};
    places->head = (struct ct_linear){
        .weight = shape->tied ? places->tokens : offset_of(layout, "lm_head.weight"),
        .bias = CT_ABSENT,
        .in = d,
        .out = shape->vocab,
        .out_major = true,
    };
    places->all_blocks = span_of(layout, "model.layers.");
}

enum ct_err ct_places_init(struct ct_places *places, const struct ct_layout *layout) {
    places->blocks = calloc(layout->shape.layers, sizeof *places->blocks);
    if (places->blocks == NULL) {
        return ct_fail(CT_ERR_MEMORY, "engine: no memory for %u layers", layout->shape.layers);
    }
    if (layout->shape.arch == CT_ARCH_GPT2) {
        find_gpt2(places, layout);
    } else {
        find_llama(places, layout);
    }
    return CT_OK;
}

void ct_places_deinit(struct ct_places *places) {
    free(places->blocks);
}
