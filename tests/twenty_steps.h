/* Twenty training steps of a small model, hashed: the arithmetic contract in one number a model.
 * The same for every CPU, overlay, number of threads and ranks, compiler and build type. No test
 * framework here, so that plain programs (under mpirun, under an emulator) can run it too:
 *
 *     for (size_t i = 0; i < TWENTY_STEPS_MODELS; i++) {
 *         uint64_t hash;
 *         twenty_steps_engine(&twenty_steps_models[i], threads, micro_batch, &hash) == CT_OK
 *         hash == twenty_steps_models[i].hash
 *     }
 *
 * Whoever computes gradients in another way hands a function to twenty_steps_run. */
#ifndef TESTS_TWENTY_STEPS_H
#define TESTS_TWENTY_STEPS_H

#include <cotrain/engine.h>
#include <cotrain/optimizer.h>

#include "shapes.h"

#include <stdlib.h>
#include <string.h>

enum { TWENTY_STEPS_BATCH = 16, TWENTY_STEPS_LEAVES = 8 };

struct twenty_steps_model {
    const char *name;
    enum ct_numerics numerics;
    struct ct_model_shape shape;
    uint64_t hash; /* golden */
};

/* Sizes that are no multiples of any tile. */
static const struct twenty_steps_model twenty_steps_models[] = {
    {"gpt2", CT_NUMERICS_BF16_1, GPT2_SHAPE(61, 18, 2, 3, 39), 0x3beb71a7026d93ceu},
    {"gpt2", CT_NUMERICS_FP32_1, GPT2_SHAPE(61, 18, 2, 3, 39), 0x50f6639ad91ce1f7u},
    {"llama", CT_NUMERICS_BF16_1, LLAMA_SHAPE(61, 18, 2, 4, 2, 40, 52, false), 0x6f28e2f7615f0181u},
    {"llama", CT_NUMERICS_FP32_1, LLAMA_SHAPE(61, 18, 2, 4, 2, 40, 52, false), 0xda8e270841a46d3du},
    {"llama, tied", CT_NUMERICS_BF16_1, LLAMA_SHAPE(61, 18, 1, 3, 1, 42, 37, true),
     0x106cec9145c1ccf2u},
    {"llama, tied", CT_NUMERICS_FP32_1, LLAMA_SHAPE(61, 18, 1, 3, 1, 42, 37, true),
     0x0da0279053fdc2ebu},
};
#define TWENTY_STEPS_MODELS (sizeof twenty_steps_models / sizeof twenty_steps_models[0])

/* As ct_engine_gradient: the mean loss of tokens[TWENTY_STEPS_BATCH][context + 1] and its gradient,
 * of TWENTY_STEPS_LEAVES leaves. */
typedef void twenty_steps_gradient(void *user, const float *theta, const uint32_t *tokens,
                                   float *gradient, float *out_loss);

/* FNV-1a. */
static inline uint64_t twenty_steps_hash(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *byte = data;
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ byte[i]) * 0x100000001b3u;
    }
    return hash;
}

/* Tokens with something to learn: mostly the next in a circle, sometimes any. */
static inline void twenty_steps_tokens(uint32_t *random, uint32_t vocab, uint32_t *tokens,
                                       size_t count) {
    uint32_t last = 0;
    for (size_t i = 0; i < count; i++) {
        *random = *random * 1664525u + 1013904223u;
        last = (*random >> 30) != 0 ? (last + 1) % vocab : (*random >> 8) % vocab;
        tokens[i] = last;
    }
}

/* Hashes the losses' bits, step by step, then θ, m and v. CT_ERR_MEMORY, or CT_ERR_NUMERIC if a
 * step was not applied. */
static inline enum ct_err twenty_steps_run(const struct ct_layout *layout,
                                           twenty_steps_gradient *gradient_of, void *user,
                                           uint64_t *out_hash) {
    const size_t count = (size_t)TWENTY_STEPS_BATCH * (layout->shape.context + 1);
    const size_t bytes = layout->parameters * sizeof(float);
    const struct ct_adamw adamw = ct_adamw_default();
    struct ct_train_state state;
    enum ct_err err = ct_train_state_init(&state, layout, false);
    if (err != CT_OK) {
        return err;
    }
    float *gradient = malloc(bytes);
    uint32_t *tokens = malloc(count * sizeof *tokens), random = 3;
    uint64_t hash = 0xcbf29ce484222325u;
    err = gradient != NULL && tokens != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory");
    if (err == CT_OK) {
        ct_layout_draw(layout, &(struct ct_hash){{9}}, state.theta);
    }
    for (int step = 0; err == CT_OK && step < 20; step++) {
        float loss;
        twenty_steps_tokens(&random, layout->shape.vocab, tokens, count);
        gradient_of(user, state.theta, tokens, gradient, &loss);
        hash = twenty_steps_hash(hash, &loss, sizeof loss);
        if (!ct_adamw_step(&adamw, layout, &state, gradient, loss, 5e-3f).applied) {
            err = ct_fail(CT_ERR_NUMERIC, "step %d was not applied", step);
        }
    }
    if (err == CT_OK) {
        hash = twenty_steps_hash(hash, state.theta, bytes);
        hash = twenty_steps_hash(hash, state.m, bytes);
        *out_hash = twenty_steps_hash(hash, state.v, bytes);
    }
    free(tokens);
    free(gradient);
    ct_train_state_deinit(&state);
    return err;
}

static inline void twenty_steps_of_engine(void *user, const float *theta, const uint32_t *tokens,
                                          float *gradient, float *out_loss) {
    ct_engine_gradient(user, theta, tokens, gradient, out_loss);
}

/* The model's hash by one engine in this process. */
static inline enum ct_err twenty_steps_engine(const struct twenty_steps_model *model,
                                              uint32_t threads, uint32_t micro_batch,
                                              uint64_t *out_hash) {
    const struct ct_engine_options options = {.numerics = model->numerics,
                                              .batch = TWENTY_STEPS_BATCH,
                                              .leaves = TWENTY_STEPS_LEAVES,
                                              .micro_batch = micro_batch,
                                              .threads = threads};
    struct ct_layout layout;
    struct ct_engine *engine;
    enum ct_err err = ct_layout_init(&layout, &model->shape);
    if (err != CT_OK) {
        return err;
    }
    err = ct_engine_open(&layout, &options, &engine);
    if (err == CT_OK) {
        err = twenty_steps_run(&layout, twenty_steps_of_engine, engine, out_hash);
        ct_engine_close(engine);
    }
    ct_layout_deinit(&layout);
    return err;
}

#endif
