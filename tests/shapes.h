/* Shapes of models for tests, as initialisers. */
#ifndef TESTS_SHAPES_H
#define TESTS_SHAPES_H

#include <cotrain/layout.h>

#define GPT2_SHAPE(vocab_, context_, layers_, heads_, width_)                                      \
    {                                                                                              \
        .arch = CT_ARCH_GPT2, .vocab = (vocab_), .context = (context_), .layers = (layers_),       \
        .heads = (heads_), .width = (width_)                                                       \
    }

#endif
