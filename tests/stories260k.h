/* stories260K, a Llama that others trained, with the loss, logits and gradient that float64 PyTorch
 * gives for 64 of its tokens (shared/data/stories260k/SOURCE.md). */
#ifndef TESTS_STORIES260K_H
#define TESTS_STORIES260K_H

#include <cotrain/layout.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shapes.h"

#define STORIES_DIR CT_SHARED_DIR "/data/stories260k/"

enum { STORIES_TOKENS = 64, STORIES_VOCAB = 512, STORIES_PARAMETERS = 260032 };

struct stories {
    struct ct_layout layout; /* with the context of the golden tokens */
    float *theta, *gradient; /* [parameters] in the layout's order */
    float *logits;           /* [STORIES_TOKENS][STORIES_VOCAB] */
    uint32_t tokens[STORIES_TOKENS + 1];
    double loss;
};

/* `count` floats of a file from byte `offset` on; NULL if there are not as many. */
static inline float *stories_read(const char *path, long offset, size_t count) {
    FILE *file = fopen(path, "rb");
    float *values = malloc(count * sizeof *values);
    if (file == NULL || values == NULL || fseek(file, offset, SEEK_SET) != 0 ||
        fread(values, sizeof *values, count, file) != count) {
        free(values);
        values = NULL;
    }
    if (file != NULL) {
        fclose(file);
    }
    return values;
}

/* One tensor out of llama2.c's order, where each kind has all layers together. Rows of q and k are
 * in adjacent pairs there, in halves here. */
static inline const float *stories_take(const struct ct_layout *layout, const char *name,
                                        size_t pairs, const float *from, float *to) {
    const struct ct_tensor *tensor = ct_layout_find(layout, name);
    float *out = to + tensor->offset;
    const size_t columns = tensor->columns;
    for (size_t row = 0; row < tensor->rows; row++) {
        size_t source = row;
        if (pairs > 0) {
            const size_t head = row / (2 * pairs), half = row / pairs % 2, pair = row % pairs;
            source = head * 2 * pairs + 2 * pair + half;
        }
        memcpy(out + row * columns, from + source * columns, columns * sizeof(float));
    }
    return from + tensor->rows * columns;
}

static inline void stories_arrange(const struct ct_layout *layout, const float *from, float *to) {
    static const struct {
        const char *name;
        size_t pairs;
    } kinds[] = {
        {"input_layernorm", 0},  {"self_attn.q_proj", 4}, {"self_attn.k_proj", 4},
        {"self_attn.v_proj", 0}, {"self_attn.o_proj", 0}, {"post_attention_layernorm", 0},
        {"mlp.gate_proj", 0},    {"mlp.down_proj", 0},    {"mlp.up_proj", 0},
    };
    from = stories_take(layout, "model.embed_tokens.weight", 0, from, to);
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        for (unsigned layer = 0; layer < layout->shape.layers; layer++) {
            char name[CT_TENSOR_NAME_MAX];
            snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, kinds[kind].name);
            from = stories_take(layout, name, kinds[kind].pairs, from, to);
        }
    }
    (void)stories_take(layout, "model.norm.weight", 0, from, to);
}

static inline bool stories_read_golden(struct stories *stories) {
    json_t *golden = json_load_file(STORIES_DIR "golden.json", 0, NULL);
    const json_t *ids = json_object_get(golden, "ids");
    const bool whole = json_array_size(ids) == STORIES_TOKENS + 1;
    for (size_t i = 0; whole && i <= STORIES_TOKENS; i++) {
        stories->tokens[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    }
    stories->loss = json_real_value(json_object_get(golden, "loss"));
    json_decref(golden);
    return whole;
}

static inline void stories_free(struct stories *stories) {
    ct_layout_deinit(&stories->layout);
    free(stories->theta);
    free(stories->gradient);
    free(stories->logits);
}

/* False, and nothing owned, where the files are missing. */
static inline bool stories_load(struct stories *stories) {
    const struct ct_model_shape shape = LLAMA_SHAPE(512, STORIES_TOKENS, 5, 8, 4, 64, 172, true);
    *stories = (struct stories){.loss = 0};
    const size_t n = STORIES_PARAMETERS;
    float *weights = stories_read(STORIES_DIR "stories260K.bin", 7 * sizeof(int32_t), n);
    float *gradient = stories_read(STORIES_DIR "golden_grad.f32", 0, n);
    stories->theta = malloc(n * sizeof(float));
    stories->gradient = malloc(n * sizeof(float));
    stories->logits =
        stories_read(STORIES_DIR "golden_logits.f32", 0, (size_t)STORIES_TOKENS * STORIES_VOCAB);
    const bool loaded = weights != NULL && gradient != NULL && stories->theta != NULL &&
                        stories->gradient != NULL && stories->logits != NULL &&
                        stories_read_golden(stories) &&
                        ct_layout_init(&stories->layout, &shape) == CT_OK;
    if (loaded) {
        stories_arrange(&stories->layout, weights, stories->theta);
        stories_arrange(&stories->layout, gradient, stories->gradient);
    } else {
        stories_free(stories);
    }
    free(weights);
    free(gradient);
    return loaded;
}

#endif
