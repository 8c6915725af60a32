/* Shapes of models for tests, as initialisers. */
#ifndef TESTS_SHAPES_H
#define TESTS_SHAPES_H

#include <cotrain/layout.h>

#define GPT2_SHAPE(vocab_, context_, layers_, heads_, width_)                                      \
    {                                                                                              \
        .arch = CT_ARCH_GPT2, .vocab = (vocab_), .context = (context_), .layers = (layers_),       \
        .heads = (heads_), .width = (width_)                                                       \
    }

#define LLAMA_SHAPE(vocab_, context_, layers_, heads_, kv_heads_, width_, hidden_, tied_)          \
    {                                                                                              \
        .arch = CT_ARCH_LLAMA, .vocab = (vocab_), .context = (context_), .layers = (layers_),      \
        .heads = (heads_), .width = (width_), .kv_heads = (kv_heads_), .hidden = (hidden_),        \
        .tied = (tied_)                                                                            \
    }

static inline bool same_shape(const struct ct_model_shape *a, const struct ct_model_shape *b) {
    return a->arch == b->arch && a->vocab == b->vocab && a->context == b->context &&
           a->layers == b->layers && a->heads == b->heads && a->width == b->width &&
           a->kv_heads == b->kv_heads && a->hidden == b->hidden && a->tied == b->tied &&
           a->norm_epsilon == b->norm_epsilon && a->rope_theta == b->rope_theta;
}

#endif
