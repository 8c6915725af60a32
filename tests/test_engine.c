#include <cotrain/engine.h>
#include <cotrain/isa.h>
#include <cotrain/optimizer.h>
#include <cotrain/pairwise.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "every_isa.h"
#include "gpt2_reference.h"
#include "shapes.h"

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance)) {
        print_error("%.9g is not %.9g\n", value, expected);
        fail();
    }
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A model whose every parameter matters: gains and biases away from 1 and 0. */
struct model {
    struct ct_layout layout;
    float *theta;
    float *gradient;
    uint32_t *tokens;
    uint32_t batch;
};

static void make_model(struct model *model, struct ct_model_shape shape, uint32_t batch) {
    assert_int_equal(ct_layout_init(&model->layout, &shape), CT_OK);
    model->batch = batch;
    const size_t tokens = (size_t)batch * (shape.context + 1);
    model->theta = malloc(model->layout.parameters * sizeof(float));
    model->gradient = malloc(model->layout.parameters * sizeof(float));
    model->tokens = malloc(tokens * sizeof(uint32_t));
    assert_true(model->theta != NULL && model->gradient != NULL && model->tokens != NULL);
    uint32_t random = 17;
    for (size_t i = 0; i < model->layout.parameters; i++) {
        model->theta[i] = ((float)next_random(&random) * 0x1p-24f - 0.5f) * 0.4f;
    }
    for (uint32_t t = 0; t < model->layout.tensor_count; t++) {
        const struct ct_tensor *tensor = &model->layout.tensors[t];
        if (strstr(tensor->name, "ln_") != NULL && strstr(tensor->name, ".weight") != NULL) {
            for (size_t i = 0; i < tensor->columns; i++) {
                model->theta[tensor->offset + i] += 1.0f;
            }
        }
    }
    for (size_t i = 0; i < tokens; i++) {
        model->tokens[i] = next_random(&random) % shape.vocab;
    }
}

static void free_model(struct model *model) {
    ct_layout_deinit(&model->layout);
    free(model->theta);
    free(model->gradient);
    free(model->tokens);
}

static float run_gradient(struct model *model, struct ct_engine_options options) {
    struct ct_engine *engine;
    float loss;
    options.batch = model->batch;
    assert_int_equal(ct_engine_open(&model->layout, &options, &engine), CT_OK);
    ct_engine_gradient(engine, model->theta, model->tokens, model->gradient, &loss);
    ct_engine_close(engine);
    return loss;
}

/* Largest distance of a tensor's gradient from the reference, relative to the tensor's norm. */
static double worst_distance(const struct model *model, const struct reference *reference) {
    double worst = 0;
    for (uint32_t t = 0; t < model->layout.tensor_count; t++) {
        const struct ct_tensor *tensor = &model->layout.tensors[t];
        const size_t end = tensor->offset + (size_t)tensor->rows * tensor->columns;
        double difference = 0, norm = 0;
        for (size_t i = tensor->offset; i < end; i++) {
            const double expected = reference->gradient[i];
            const double d = (double)model->gradient[i] - expected;
            difference += d * d;
            norm += expected * expected;
        }
        /* The keys' bias has no influence on the loss: its part of this gradient is all rounding.
         */
        const double distance = sqrt(difference / norm);
        if (!(distance < worst)) {
            worst = distance;
        }
        if (getenv("CT_TEST_VERBOSE") != NULL) {
            printf("%-36s %.3g of %.3g\n", tensor->name, distance, sqrt(norm));
        }
    }
    return worst;
}

struct shape_case {
    struct ct_model_shape shape;
    uint32_t batch, leaves;
};

static const struct shape_case cases[] = {
    {GPT2_SHAPE(37, 13, 2, 3, 21), 4, 2},  /* odd everything */
    {GPT2_SHAPE(65, 70, 1, 2, 34), 2, 1},  /* more than one block of queries */
    {GPT2_SHAPE(50, 1, 2, 1, 8), 3, 1},    /* nothing to attend to */
    {GPT2_SHAPE(19, 300, 1, 5, 20), 1, 1}, /* several blocks of queries */
};

static void compare_with_reference(enum ct_numerics numerics, bool rounded, double gradient_limit,
                                   double loss_limit) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model model;
        make_model(&model, cases[i].shape, cases[i].batch);
        struct reference reference = {&model.layout, model.theta, NULL, rounded, 0};
        reference_run(&reference, model.tokens, model.batch);
        const float loss = run_gradient(
            &model, (struct ct_engine_options){.numerics = numerics, .leaves = cases[i].leaves});
        const double distance = worst_distance(&model, &reference);
        const double loss_distance = fabs((double)loss - reference.loss) / reference.loss;
        if (!(distance <= gradient_limit && loss_distance <= loss_limit)) {
            print_error("case %zu: gradient %.3g, loss %.3g\n", i, distance, loss_distance);
            fail();
        }
        free(reference.gradient);
        free_model(&model);
    }
}

/* Sums of some hundred binary32 terms: a few units of 2^-24 times √terms. */
static void fp32_1_equals_the_formulas(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_FP32_1, false, 5e-6, 1e-6);
}

/* With the same values rounded, only neighbours of a rounding boundary differ. */
static void bf16_1_rounds_where_it_says(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_BF16_1, true, 1e-3, 1e-5);
}

static void fast_equals_the_formulas(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_FAST, false, 5e-6, 1e-6);
}

static void bf16_1_is_close_to_unrounded(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_BF16_1, false, 4e-2, 1e-3);
}

/* Threads and micro-batches are no part of the result, with odd and with even contexts. */
static void threads_and_micro_batches_keep_the_bits(void **state) {
    (void)state;
    const enum ct_numerics all[] = {CT_NUMERICS_BF16_1, CT_NUMERICS_FP32_1};
    const struct ct_model_shape shapes[] = {GPT2_SHAPE(37, 13, 2, 3, 48),
                                            GPT2_SHAPE(37, 16, 1, 2, 34)};
    for (size_t i = 0; i < 4; i++) {
        struct model model;
        make_model(&model, shapes[i / 2], 12);
        struct ct_engine_options options = {
            .numerics = all[i % 2], .leaves = 2, .micro_batch = 6, .threads = 1};
        const float loss = run_gradient(&model, options);
        float *expected = malloc(model.layout.parameters * sizeof(float));
        assert_non_null(expected);
        memcpy(expected, model.gradient, model.layout.parameters * sizeof(float));
        for (uint32_t threads = 1; threads <= 3; threads++) {
            for (uint32_t micro = 1; micro <= 5; micro += 2) {
                options.threads = threads;
                options.micro_batch = micro;
                const float again = run_gradient(&model, options);
                assert_memory_equal(&again, &loss, sizeof loss);
                assert_memory_equal(model.gradient, expected,
                                    model.layout.parameters * sizeof(float));
            }
        }
        free(expected);
        free_model(&model);
    }
}

/* 200 rows of so many logits go through the head in two chunks, 100 in one. */
static void chunks_of_the_head_keep_the_bits(void **state) {
    (void)state;
    struct model model;
    make_model(&model, (struct ct_model_shape)GPT2_SHAPE(200001, 100, 1, 1, 2), 2);
    struct ct_engine_options options = {
        .numerics = CT_NUMERICS_BF16_1, .leaves = 1, .micro_batch = 1};
    const float loss = run_gradient(&model, options);
    float *expected = malloc(model.layout.parameters * sizeof(float));
    assert_non_null(expected);
    memcpy(expected, model.gradient, model.layout.parameters * sizeof(float));
    options.micro_batch = 2;
    const float again = run_gradient(&model, options);
    assert_memory_equal(&again, &loss, sizeof loss);
    assert_memory_equal(model.gradient, expected, model.layout.parameters * sizeof(float));
    free(expected);
    free_model(&model);
}

/* One block's activations at a time, computed twice: the same bits. */
static void recomputing_keeps_the_bits(void **state) {
    (void)state;
    const enum ct_numerics all[] = {CT_NUMERICS_BF16_1, CT_NUMERICS_FP32_1};
    for (size_t i = 0; i < 2; i++) {
        struct model model;
        make_model(&model, (struct ct_model_shape)GPT2_SHAPE(37, 13, 3, 3, 48), 4);
        struct ct_engine_options options = {.numerics = all[i], .leaves = 2, .micro_batch = 1};
        const float loss = run_gradient(&model, options);
        float *expected = malloc(model.layout.parameters * sizeof(float));
        assert_non_null(expected);
        memcpy(expected, model.gradient, model.layout.parameters * sizeof(float));
        options.recompute = true;
        const float again = run_gradient(&model, options);
        assert_memory_equal(&again, &loss, sizeof loss);
        assert_memory_equal(model.gradient, expected, model.layout.parameters * sizeof(float));
        free(expected);
        free_model(&model);
    }
}

/* E6: the gradient of S leaves is the pairwise sum of what each leaf alone gives. */
static void leaves_are_added_pairwise(void **state) {
    (void)state;
    struct model model;
    make_model(&model, (struct ct_model_shape)GPT2_SHAPE(37, 6, 1, 2, 16), 4);
    const size_t n = model.layout.parameters;
    float *leaf[4], sum_loss[4];
    for (uint32_t s = 0; s < 4; s++) {
        leaf[s] = malloc(n * sizeof(float));
        assert_non_null(leaf[s]);
        struct model one = model;
        one.batch = 1;
        one.tokens += s * 7;
        one.gradient = leaf[s];
        /* 1/N is a power of two apart, so scaling is exact */
        sum_loss[s] = run_gradient(
            &one, (struct ct_engine_options){.numerics = CT_NUMERICS_FP32_1, .leaves = 1});
    }
    const float loss = run_gradient(
        &model, (struct ct_engine_options){.numerics = CT_NUMERICS_FP32_1, .leaves = 4});
    for (size_t i = 0; i < n; i++) {
        const double expected = (double)((leaf[0][i] + leaf[1][i]) + (leaf[2][i] + leaf[3][i])) / 4;
        assert_near((double)model.gradient[i], expected, 1e-7 + 1e-6 * fabs(expected));
    }
    assert_near((double)loss, (double)(sum_loss[0] + sum_loss[1] + sum_loss[2] + sum_loss[3]) / 4,
                1e-6);
    for (uint32_t s = 0; s < 4; s++) {
        free(leaf[s]);
    }
    free_model(&model);
}

/* Ranges as they are told, checked for being final then by comparing them with the end. */
struct told {
    const float *gradient;
    float *seen; /* [parameters], as it was when told */
    uint8_t *times;
    size_t first_begin;
    uint32_t count;
};

static void take_told(void *context, size_t begin, size_t end) {
    struct told *told = context;
    assert_true(begin < end);
    if (told->count++ == 0) {
        told->first_begin = begin;
    }
    memcpy(told->seen + begin, told->gradient + begin, (end - begin) * sizeof(float));
    for (size_t i = begin; i < end; i++) {
        told->times[i]++;
    }
}

/* E6: of 8 leaves, R ranks give the bits of one, and each value is told of once, when final. */
static void ranks_share_a_step_to_the_bit(void **state) {
    (void)state;
    struct model model;
    make_model(&model, (struct ct_model_shape)GPT2_SHAPE(37, 7, 11, 2, 48), 16);
    const size_t n = model.layout.parameters;
    const struct ct_engine_options alone = {.numerics = CT_NUMERICS_BF16_1, .leaves = 8};
    const float loss = run_gradient(&model, alone);
    for (uint32_t ranks = 2; ranks <= 8; ranks *= 2) {
        float *parts[8];
        double sums[8];
        struct ct_engine *engine;
        const struct ct_engine_options options = {.numerics = CT_NUMERICS_BF16_1,
                                                  .leaves = 8 / ranks,
                                                  .batch = 16 / ranks,
                                                  .micro_batch = 1,
                                                  .threads = ranks % 3,
                                                  .ranks = ranks};
        assert_int_equal(ct_engine_open(&model.layout, &options, &engine), CT_OK);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            parts[rank] = malloc(n * sizeof(float));
            struct told told = {parts[rank], malloc(n * sizeof(float)), calloc(n, 1), 0, 0};
            assert_true(parts[rank] != NULL && told.seen != NULL && told.times != NULL);
            sums[rank] =
                ct_engine_part(engine, model.theta, model.tokens + rank * options.batch * 8,
                               parts[rank], &(struct ct_ready){take_told, &told});
            assert_memory_equal(told.seen, parts[rank], n * sizeof(float));
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(told.times[i], 1);
            }
            assert_int_equal(told.count, 11 + 1);
            assert_int_equal(
                told.first_begin,
                ct_layout_find(&model.layout, "transformer.h.10.attn.c_attn.bias")->offset);
            free(told.seen);
            free(told.times);
        }
        ct_add_pairwise(parts[0], (const float *const *)parts, ranks, n);
        assert_memory_equal(parts[0], model.gradient, n * sizeof(float));
        const float again = ct_engine_mean_loss(engine, ct_sum_pairwise(sums, ranks));
        assert_memory_equal(&again, &loss, sizeof loss);
        ct_engine_close(engine);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            free(parts[rank]);
        }
    }
    free_model(&model);
}

static void loss_and_logits_agree_with_the_gradient(void **state) {
    (void)state;
    struct model model;
    make_model(&model, (struct ct_model_shape)GPT2_SHAPE(37, 13, 2, 3, 21), 5);
    const float loss = run_gradient(
        &model, (struct ct_engine_options){.numerics = CT_NUMERICS_BF16_1, .leaves = 1});
    struct ct_engine *engine;
    assert_int_equal(ct_engine_open(&model.layout,
                                    &(struct ct_engine_options){.numerics = CT_NUMERICS_BF16_1,
                                                                .leaves = 1,
                                                                .batch = 5,
                                                                .micro_batch = 2},
                                    &engine),
                     CT_OK);
    const double sum = ct_engine_loss(engine, model.theta, model.tokens, 5, 13);
    assert_near(sum / 65, (double)loss, 1e-6);
    float logits[37];
    double total = 0;
    for (uint32_t count = 1; count <= 13; count++) {
        ct_engine_logits(engine, model.theta, model.tokens, count, logits);
        double exps = 0;
        for (int v = 0; v < 37; v++) {
            exps += exp((double)logits[v]);
        }
        total += log(exps) - (double)logits[model.tokens[count]];
    }
    assert_near(ct_engine_loss(engine, model.theta, model.tokens, 1, 13), total, 1e-4);
    /* a shorter length reads its tokens that much closer */
    const double first = ct_engine_loss(engine, model.theta, model.tokens, 1, 6);
    const double second = ct_engine_loss(engine, model.theta, model.tokens + 7, 1, 6);
    assert_near(ct_engine_loss(engine, model.theta, model.tokens, 2, 6), first + second, 1e-9);
    ct_engine_close(engine);
    free_model(&model);
}

/* FNV-1a over the bits: the golden value of a short training run, the same for every overlay. */
static uint64_t train_hash(enum ct_numerics numerics) {
    struct ct_layout layout;
    const struct ct_model_shape shape = GPT2_SHAPE(61, 18, 2, 2, 36);
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    struct ct_train_state train;
    assert_int_equal(ct_train_state_init(&train, &layout, false), CT_OK);
    ct_layout_draw(&layout, &(struct ct_hash){{9}}, train.theta);
    float *gradient = malloc(layout.parameters * sizeof(float));
    assert_non_null(gradient);
    struct ct_engine *engine;
    const struct ct_engine_options options = {.numerics = numerics, .batch = 4, .leaves = 2};
    assert_int_equal(ct_engine_open(&layout, &options, &engine), CT_OK);
    const struct ct_adamw adamw = ct_adamw_default();
    uint32_t random = 3, tokens[4 * 19];
    uint64_t hash = 0xcbf29ce484222325u;
    for (int step = 0; step < 8; step++) {
        for (size_t i = 0; i < 4 * 19; i++) {
            tokens[i] = next_random(&random) % 61;
        }
        float loss;
        ct_engine_gradient(engine, train.theta, tokens, gradient, &loss);
        assert_true(ct_adamw_step(&adamw, &layout, &train, gradient, loss, 1e-2f).applied);
        hash = (hash ^ (uint64_t)(loss * 0x1p20f)) * 0x100000001b3u;
    }
    const uint8_t *bytes = (const uint8_t *)train.theta;
    for (size_t i = 0; i < layout.parameters * sizeof(float); i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    ct_engine_close(engine);
    free(gradient);
    ct_train_state_deinit(&train);
    ct_layout_deinit(&layout);
    return hash;
}

static void a_training_run_has_its_golden_bits(void **state) {
    (void)state;
    const uint64_t bf16 = train_hash(CT_NUMERICS_BF16_1), fp32 = train_hash(CT_NUMERICS_FP32_1);
    printf("bf16-1 %016llx fp32-1 %016llx\n", (unsigned long long)bf16, (unsigned long long)fp32);
    assert_true(bf16 == 0x4a4f84e3759e5904u && fp32 == 0x8be712e346a4f3f9u);
}

static void plans_and_refusals(void **state) {
    (void)state;
    struct ct_layout layout;
    const struct ct_model_shape shape = GPT2_SHAPE(50257, 1024, 12, 12, 768);
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    struct ct_engine_plan small, large;
    struct ct_engine_options options = {
        .numerics = CT_NUMERICS_BF16_1, .batch = 8, .leaves = 4, .micro_batch = 1, .threads = 2};
    assert_int_equal(ct_engine_plan(&layout, &options, &small), CT_OK);
    assert_int_equal(small.gradients, 2 * layout.parameters * 4);
    assert_int_equal(small.total, small.activations + small.gradients + small.scratch);
    options.micro_batch = 2;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_OK);
    assert_true(large.activations > small.activations * 19 / 10);
    options.micro_batch = 3;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    options.micro_batch = 0;
    options.leaves = 3;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    options.leaves = 16;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    options.leaves = 4;
    options.ranks = 3;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    options.ranks = 8;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    options.leaves = 1;
    options.numerics = (enum ct_numerics)7;
    assert_int_equal(ct_engine_plan(&layout, &options, &large), CT_ERR_CONFIG);
    ct_layout_deinit(&layout);
    enum ct_numerics numerics;
    assert_int_equal(ct_numerics_parse("fp32-1", &numerics), CT_OK);
    assert_string_equal(ct_numerics_name(numerics), "fp32-1");
    assert_int_equal(ct_numerics_parse("fp64", &numerics), CT_ERR_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32_1_equals_the_formulas),
        cmocka_unit_test(bf16_1_rounds_where_it_says),
        cmocka_unit_test(bf16_1_is_close_to_unrounded),
        cmocka_unit_test(fast_equals_the_formulas),
        cmocka_unit_test(threads_and_micro_batches_keep_the_bits),
        cmocka_unit_test(chunks_of_the_head_keep_the_bits),
        cmocka_unit_test(recomputing_keeps_the_bits),
        cmocka_unit_test(leaves_are_added_pairwise),
        cmocka_unit_test(ranks_share_a_step_to_the_bit),
        cmocka_unit_test(loss_and_logits_agree_with_the_gradient),
        cmocka_unit_test(a_training_run_has_its_golden_bits),
        cmocka_unit_test(plans_and_refusals),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + run_under_every_isa();
}
