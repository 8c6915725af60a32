/* The test of a test's definition: the double-precision Llama against float64 PyTorch and against
 * differences of its own loss. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llama_reference.h"
#include "stories260k.h"

static void expect_near(double got, double exact, double tolerance) {
    if (!(fabs(got - exact) <= tolerance)) {
        fail_msg("%.12g is not within %g of %.12g", got, tolerance, exact);
    }
}

static void stories260k_has_pytorchs_loss_logits_and_gradient(void **state) {
    (void)state;
    struct stories stories;
    if (!stories_load(&stories)) {
        print_message("not here: %s\n", STORIES_DIR);
        skip();
    }
    assert_int_equal(stories.layout.parameters, STORIES_PARAMETERS);
    struct reference reference = {&stories.layout, stories.theta, NULL, false, 0};
    double *logits = reference_array((size_t)STORIES_TOKENS * STORIES_VOCAB);
    llama_reference_run(&reference, stories.tokens, 1, logits);
    expect_near(reference.loss, stories.loss, 1e-12);
    /* the golden values are rounded to binary32 */
    for (size_t i = 0; i < (size_t)STORIES_TOKENS * STORIES_VOCAB; i++) {
        expect_near(logits[i], (double)stories.logits[i], 1e-10 + 6e-8 * fabs(logits[i]));
    }
    for (size_t i = 0; i < STORIES_PARAMETERS; i++) {
        const double got = reference.gradient[i];
        expect_near(got, (double)stories.gradient[i], 1e-12 + 6e-8 * fabs(got));
    }
    free(logits);
    free(reference.gradient);
    stories_free(&stories);
}

static double loss_of(const struct ct_layout *layout, const float *theta, const uint32_t *tokens,
                      double *logits) {
    struct reference reference = {layout, theta, NULL, false, 0};
    llama_reference_run(&reference, tokens, 2, logits);
    free(reference.gradient);
    return reference.loss;
}

/* An untied head, one key for four queries' heads, an odd MLP, other constants. */
static void gradient_is_the_slope_of_the_loss(void **state) {
    (void)state;
    struct ct_model_shape shape = LLAMA_SHAPE(11, 7, 2, 4, 1, 16, 9, false);
    shape.rope_theta = 100.0f;
    shape.norm_epsilon = 1e-3f;
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    float *theta = malloc(layout.parameters * sizeof *theta);
    assert_non_null(theta);
    uint32_t random = 5, tokens[2 * 8];
    for (size_t i = 0; i < layout.parameters; i++) {
        random = random * 1664525u + 1013904223u;
        theta[i] = (float)(int32_t)random * 0x1p-32f;
    }
    for (size_t i = 0; i < 16; i++) {
        random = random * 1664525u + 1013904223u;
        tokens[i] = (random >> 8) % 11;
    }
    struct reference reference = {&layout, theta, NULL, false, 0};
    double *logits = reference_array(7 * 11);
    llama_reference_run(&reference, tokens, 2, logits);
    for (uint32_t t = 0; t < layout.tensor_count; t++) {
        const struct ct_tensor *tensor = &layout.tensors[t];
        /* A few values of each tensor, the last one among them. */
        const size_t count = (size_t)tensor->rows * tensor->columns, step = count / 3;
        for (size_t i = tensor->offset + count - 1; i > tensor->offset; i -= step) {
            const float kept = theta[i];
            theta[i] = kept + 0x1p-10f;
            const double above = loss_of(&layout, theta, tokens, logits), up = (double)theta[i];
            theta[i] = kept - 0x1p-10f;
            const double below = loss_of(&layout, theta, tokens, logits);
            const double slope = (above - below) / (up - (double)theta[i]);
            theta[i] = kept;
            expect_near(reference.gradient[i], slope, 3e-7);
            if (i < tensor->offset + step) {
                break;
            }
        }
    }
    free(logits);
    free(reference.gradient);
    free(theta);
    ct_layout_deinit(&layout);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k_has_pytorchs_loss_logits_and_gradient),
        cmocka_unit_test(gradient_is_the_slope_of_the_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
