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

#endif
