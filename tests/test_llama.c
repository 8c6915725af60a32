/* The engine's Llama against the double-precision reference, and against PyTorch's numbers for a
 * model that others trained. */
#include <cotrain/engine.h>
#include <cotrain/isa.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "every_isa.h"
#include "llama_reference.h"
#include "stories260k.h"

static void expect_near(double got, double exact, double tolerance) {
    if (!(fabs(got - exact) <= tolerance)) {
        fail_msg("%.12g is not within %g of %.12g", got, tolerance, exact);
    }
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A model whose every parameter matters: gains away from 1. */
struct model {
    struct ct_layout layout;
    float *theta, *gradient;
    uint32_t *tokens, batch;
};

static void make_model(struct model *model, const struct ct_model_shape *shape, uint32_t batch) {
    assert_int_equal(ct_layout_init(&model->layout, shape), CT_OK);
    const size_t tokens = (size_t)batch * (shape->context + 1);
    model->batch = batch;
    model->theta = malloc(model->layout.parameters * sizeof(float));
    model->gradient = malloc(model->layout.parameters * sizeof(float));
    model->tokens = malloc(tokens * sizeof(uint32_t));
    assert_true(model->theta != NULL && model->gradient != NULL && model->tokens != NULL);
    uint32_t random = 23;
    for (uint32_t t = 0; t < model->layout.tensor_count; t++) {
        const struct ct_tensor *tensor = &model->layout.tensors[t];
        const float centre = tensor->kind == CT_TENSOR_VECTOR ? 1.0f : 0.0f;
        for (size_t i = 0; i < (size_t)tensor->rows * tensor->columns; i++) {
            const float value = (float)next_random(&random) * 0x1p-24f - 0.5f;
            model->theta[tensor->offset + i] = centre + value * 0.5f;
        }
    }
    for (size_t i = 0; i < tokens; i++) {
        model->tokens[i] = next_random(&random) % shape->vocab;
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

/* Largest distance of a tensor's gradient from `expected`, relative to the tensor's norm. */
static double worst_distance(const struct ct_layout *layout, const float *gradient,
                             const double *expected) {
    double worst = 0;
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const struct ct_tensor *tensor = &layout->tensors[t];
        const size_t end = tensor->offset + (size_t)tensor->rows * tensor->columns;
        double difference = 0, norm = 0;
        for (size_t i = tensor->offset; i < end; i++) {
            const double d = (double)gradient[i] - expected[i];
            difference += d * d;
            norm += expected[i] * expected[i];
        }
        const double distance = difference == 0 ? 0 : sqrt(difference / norm);
        if (getenv("CT_TEST_VERBOSE") != NULL) {
            printf("%-50s %.3g of %.3g\n", tensor->name, distance, sqrt(norm));
        }
        worst = distance <= worst ? worst : distance;
    }
    return worst;
}

struct shape_case {
    struct ct_model_shape shape;
    uint32_t batch, leaves;
};

static const struct shape_case cases[] = {
    {LLAMA_SHAPE(37, 13, 2, 3, 1, 30, 41, false), 4, 2}, /* odd sizes, an odd group */
    {LLAMA_SHAPE(65, 70, 1, 8, 1, 32, 27, true), 2, 1},  /* 8:1, two blocks of queries */
    {LLAMA_SHAPE(50, 1, 2, 1, 1, 8, 20, false), 3, 1},   /* one head, nothing to attend to */
    {LLAMA_SHAPE(19, 300, 1, 5, 5, 20, 33, true), 1, 1}, /* T no multiple of anything */
    {LLAMA_SHAPE(50257, 9, 1, 2, 1, 4, 6, false), 2, 1}, /* a large vocabulary */
};

static void compare_with_reference(enum ct_numerics numerics, bool rounded, double gradient_limit,
                                   double loss_limit) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model model;
        make_model(&model, &cases[i].shape, cases[i].batch);
        const struct ct_model_shape *shape = &model.layout.shape;
        struct reference reference = {&model.layout, model.theta, NULL, rounded, 0};
        double *logits = reference_array((size_t)shape->context * shape->vocab);
        llama_reference_run(&reference, model.tokens, model.batch, logits);
        const float loss = run_gradient(
            &model, (struct ct_engine_options){.numerics = numerics, .leaves = cases[i].leaves});
        const double distance = worst_distance(&model.layout, model.gradient, reference.gradient);
        const double loss_distance = fabs((double)loss - reference.loss) / reference.loss;
        if (!(distance <= gradient_limit && loss_distance <= loss_limit)) {
            fail_msg("case %zu: gradient %.3g, loss %.3g", i, distance, loss_distance);
        }
        free(logits);
        free(reference.gradient);
        free_model(&model);
    }
}

/* Sums of up to 50,257 binary32 terms: units of 2^-24 times √terms. */
static void fp32_1_equals_the_formulas(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_FP32_1, false, 1e-5, 1e-6);
}

/* With the same values rounded, only neighbours of a rounding boundary differ. */
static void bf16_1_rounds_where_it_says(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_BF16_1, true, 2e-3, 1e-5);
}

static void bf16_1_is_close_to_unrounded(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_BF16_1, false, 4e-2, 1e-3);
}

static void fast_equals_the_formulas(void **state) {
    (void)state;
    compare_with_reference(CT_NUMERICS_FAST, false, 1e-5, 1e-6);
}

/* Threads, micro-batches and recomputation are no part of the result. */
static void how_it_is_run_keeps_the_bits(void **state) {
    (void)state;
    const struct ct_model_shape shapes[] = {LLAMA_SHAPE(37, 13, 2, 6, 2, 48, 57, false),
                                            LLAMA_SHAPE(37, 16, 2, 2, 1, 36, 80, true)};
    for (size_t i = 0; i < 4; i++) {
        struct model model;
        make_model(&model, &shapes[i / 2], 12);
        struct ct_engine_options options = {.numerics = i % 2 == 0 ? CT_NUMERICS_BF16_1
                                                                   : CT_NUMERICS_FP32_1,
                                            .leaves = 2,
                                            .micro_batch = 6,
                                            .threads = 1};
        const size_t bytes = model.layout.parameters * sizeof(float);
        const float loss = run_gradient(&model, options);
        float *expected = malloc(bytes);
        assert_non_null(expected);
        memcpy(expected, model.gradient, bytes);
        for (uint32_t run = 0; run < 8; run++) {
            options.threads = 1 + run % 4;
            options.micro_batch = 1 + run / 2;
            options.recompute = run % 2 != 0;
            const float again = run_gradient(&model, options);
            assert_memory_equal(&again, &loss, sizeof loss);
            assert_memory_equal(model.gradient, expected, bytes);
        }
        free(expected);
        free_model(&model);
    }
}

static void loss_and_logits_agree_with_the_gradient(void **state) {
    (void)state;
    struct model model;
    make_model(&model, &(struct ct_model_shape)LLAMA_SHAPE(37, 13, 2, 4, 2, 24, 31, false), 5);
    struct ct_engine_options options = {.numerics = CT_NUMERICS_BF16_1, .leaves = 1};
    const float loss = run_gradient(&model, options);
    struct ct_engine *engine;
    options.batch = 5;
    options.micro_batch = 2;
    assert_int_equal(ct_engine_open(&model.layout, &options, &engine), CT_OK);
    expect_near(ct_engine_loss(engine, model.theta, model.tokens, 5, 13) / 65, (double)loss, 1e-6);
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
    expect_near(ct_engine_loss(engine, model.theta, model.tokens, 1, 13), total, 1e-4);
    ct_engine_close(engine);
    free_model(&model);
}

static void expect_logits(struct ct_engine *engine, const struct stories *stories,
                          double tolerance) {
    for (uint32_t count = 1; count <= STORIES_TOKENS; count += 9) {
        float logits[STORIES_VOCAB];
        const float *golden = stories->logits + (size_t)(count - 1) * STORIES_VOCAB;
        ct_engine_logits(engine, stories->theta, stories->tokens, count, logits);
        for (size_t v = 0; v < STORIES_VOCAB; v++) {
            expect_near((double)logits[v], (double)golden[v], tolerance);
        }
    }
}

/* Loss, logits and every tensor's gradient: fp32-1 as PyTorch in float64 has them; bf16-1 as its
 * own rounding moves them, and closely as the reference with that rounding has the gradient. */
static void stories260k_is_as_pytorch_has_it(void **state) {
    (void)state;
    struct stories stories;
    if (!stories_load(&stories)) {
        print_message("not here: %s\n", STORIES_DIR);
        skip();
    }
    struct reference rounded = {&stories.layout, stories.theta, NULL, true, 0};
    double *scratch = reference_array((size_t)STORIES_TOKENS * STORIES_VOCAB);
    double *golden = reference_array(STORIES_PARAMETERS);
    llama_reference_run(&rounded, stories.tokens, 1, scratch);
    for (size_t i = 0; i < STORIES_PARAMETERS; i++) {
        golden[i] = (double)stories.gradient[i];
    }
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct ct_engine *engine;
        const struct ct_engine_options options = {
            .numerics = bf16 ? CT_NUMERICS_BF16_1 : CT_NUMERICS_FP32_1, .batch = 1, .leaves = 1};
        assert_int_equal(ct_engine_open(&stories.layout, &options, &engine), CT_OK);
        float *gradient = malloc(STORIES_PARAMETERS * sizeof *gradient), loss;
        assert_non_null(gradient);
        ct_engine_gradient(engine, stories.theta, stories.tokens, gradient, &loss);
        expect_near((double)loss, stories.loss, bf16 ? 3e-3 : 1e-6);
        expect_logits(engine, &stories, bf16 ? 0.5 : 5e-5);
        expect_near(worst_distance(&stories.layout, gradient, golden), 0, bf16 ? 0.15 : 1e-5);
        if (bf16) {
            expect_near((double)loss, rounded.loss, 3e-4);
            expect_near(worst_distance(&stories.layout, gradient, rounded.gradient), 0, 2e-2);
        }
        free(gradient);
        ct_engine_close(engine);
    }
    free(golden);
    free(scratch);
    free(rounded.gradient);
    stories_free(&stories);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32_1_equals_the_formulas),
        cmocka_unit_test(bf16_1_rounds_where_it_says),
        cmocka_unit_test(bf16_1_is_close_to_unrounded),
        cmocka_unit_test(fast_equals_the_formulas),
        cmocka_unit_test(how_it_is_run_keeps_the_bits),
        cmocka_unit_test(loss_and_logits_agree_with_the_gradient),
        cmocka_unit_test(stories260k_is_as_pytorch_has_it),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + run_under_every_isa();
}
