/* Everything the engine does in phases, by 1 to 4 hands: how many they are is no part of the
 * result. Small enough for the thread sanitizer (preset tsan), which sees a barrier that is missing
 * whether or not a bit went wrong for it. */
#include "kernels/sanitizer.h"

#include <cotrain/engine.h>
#include <cotrain/isa.h>
#include <cotrain/optimizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "every_isa.h"
#include "shapes.h"

enum { BATCH = 6, HANDS_MAX = 4, LOGITS_OF = 5 };

/* What comes of one step and its forward passes. */
struct outcome {
    struct ct_train_state train; /* after the step */
    float *told;                 /* [parameters] of the gradient, when it was said to be final */
    float *logits;               /* [vocab] */
    double part, loss, norm;
};

static void init_outcome(struct outcome *outcome, const struct ct_layout *layout) {
    assert_int_equal(ct_train_state_init(&outcome->train, layout, false), CT_OK);
    outcome->told = calloc(layout->parameters, sizeof(float));
    outcome->logits = malloc(layout->shape.vocab * sizeof(float));
    assert_true(outcome->told != NULL && outcome->logits != NULL);
}

static void free_outcome(struct outcome *outcome) {
    ct_train_state_deinit(&outcome->train);
    free(outcome->told);
    free(outcome->logits);
}

struct listener {
    const float *gradient;
    float *told;
};

static void take(void *context, size_t begin, size_t end) {
    const struct listener *listener = context;
    memcpy(listener->told + begin, listener->gradient + begin, (end - begin) * sizeof(float));
}

/* A step of an engine with these options, from a first model with all gains and biases moved. */
static void run(const struct ct_layout *layout, const struct ct_engine_options *options,
                struct outcome *outcome) {
    struct ct_train_state *train = &outcome->train;
    uint32_t tokens[BATCH * 32];
    const size_t count = BATCH * (layout->shape.context + (size_t)1);
    assert_true(count <= sizeof tokens / sizeof tokens[0]);
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (uint32_t)(i * i * 7 + i) % layout->shape.vocab;
    }
    ct_train_state_reset(train, layout);
    train->threads = options->threads;
    ct_layout_draw(layout, &(struct ct_hash){{7}}, train->theta);
    for (size_t i = 0; i < layout->parameters; i++) {
        train->theta[i] += (float)(i % 29) * 0x1p-8f;
    }
    float *gradient = malloc(layout->parameters * sizeof(float));
    assert_non_null(gradient);
    struct ct_engine *engine;
    assert_int_equal(ct_engine_open(layout, options, &engine), CT_OK);
    struct listener listener = {gradient, outcome->told};
    outcome->part =
        ct_engine_part(engine, train->theta, tokens, gradient, &(struct ct_ready){take, &listener});
    outcome->loss = ct_engine_loss(engine, train->theta, tokens, BATCH, layout->shape.context - 1);
    ct_engine_logits(engine, train->theta, tokens, LOGITS_OF, outcome->logits);
    const struct ct_adamw adamw = ct_adamw_default();
    const struct ct_adamw_report report =
        ct_adamw_step(&adamw, layout, train, gradient, 1.0f, 1e-2f);
    assert_true(report.applied);
    outcome->norm = report.gradient_norm;
    ct_engine_close(engine);
    free(gradient);
}

static void assert_same(const struct ct_layout *layout, const struct outcome *a,
                        const struct outcome *b) {
    const size_t bytes = layout->parameters * sizeof(float);
    assert_memory_equal(a->told, b->told, bytes);
    assert_memory_equal(a->train.theta, b->train.theta, bytes);
    assert_memory_equal(a->train.m, b->train.m, bytes);
    assert_memory_equal(a->train.v, b->train.v, bytes);
    assert_memory_equal(a->logits, b->logits, layout->shape.vocab * sizeof(float));
    assert_memory_equal(&a->part, &b->part, sizeof a->part);
    assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
    assert_memory_equal(&a->norm, &b->norm, sizeof a->norm);
}

/* Micro-batches of 1, 2 and 3 of a leaf's 3 sequences: the last one may be short. */
static void hands_keep_the_bits(void **state) {
    (void)state;
    static const struct ct_model_shape shapes[] = {
        GPT2_SHAPE(37, 13, 2, 3, 21), /* odd everything */
        GPT2_SHAPE(70, 16, 2, 4, 64), /* whole vectors */
        LLAMA_SHAPE(37, 13, 2, 6, 2, 36, 57, false),
        LLAMA_SHAPE(70, 16, 2, 4, 2, 64, 96, true),
    };
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
        struct ct_layout layout;
        struct outcome alone, shared;
        assert_int_equal(ct_layout_init(&layout, &shapes[i / 2]), CT_OK);
        init_outcome(&alone, &layout);
        init_outcome(&shared, &layout);
        struct ct_engine_options options = {
            .numerics = i % 2 == 0 ? CT_NUMERICS_BF16_1 : CT_NUMERICS_FP32_1,
            .batch = BATCH,
            .leaves = 2,
            .micro_batch = 3,
            .threads = 1,
        };
        run(&layout, &options, &alone);
        for (uint32_t hands = 2; hands <= HANDS_MAX; hands++) {
            options.threads = hands;
            options.micro_batch = hands - 1;
            options.recompute = (hands + i) % 2 == 0;
            run(&layout, &options, &shared);
            assert_same(&layout, &alone, &shared);
        }
        free_outcome(&alone);
        free_outcome(&shared);
        ct_layout_deinit(&layout);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_keep_the_bits),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    /* Under the sanitizer the others take a minute; COTRAIN_ISA has one of them. */
    return CT_THREAD_SANITIZER ? failed : failed + run_under_every_isa();
}
