#include <cotrain/isa.h>

#include "node/heldout.h"
#include "shapes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CONTEXT = 8, BATCH = 3, TOKENS = 8 * 11 + 6 };

struct fixture {
    struct ct_layout layout;
    struct ct_engine *engine;
    float *theta;
    uint16_t tokens[TOKENS];
};

static int set_up(void **state) {
    static struct fixture f;
    const struct ct_model_shape shape = GPT2_SHAPE(31, CONTEXT, 1, 2, 8);
    assert_int_equal(ct_layout_init(&f.layout, &shape), CT_OK);
    const struct ct_engine_options options = {
        .numerics = CT_NUMERICS_FP32_1, .batch = BATCH, .leaves = 1, .threads = 1};
    assert_int_equal(ct_engine_open(&f.layout, &options, &f.engine), CT_OK);
    f.theta = malloc(f.layout.parameters * sizeof(float));
    assert_non_null(f.theta);
    ct_layout_draw(&f.layout, &(struct ct_hash){{1}}, f.theta);
    for (uint32_t i = 0; i < TOKENS; i++) {
        f.tokens[i] = (uint16_t)(i * i % 31);
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    free(f->theta);
    ct_engine_close(f->engine);
    ct_layout_deinit(&f->layout);
    return 0;
}

static double window_loss(struct fixture *f, uint32_t start, uint32_t length) {
    uint32_t tokens[CONTEXT + 1];
    for (uint32_t i = 0; i <= length; i++) {
        tokens[i] = f->tokens[start + i];
    }
    return ct_engine_loss(f->engine, f->theta, tokens, 1, length);
}

/* For every length of text: all full windows, then what is left. */
static void every_token_is_predicted_once(void **state) {
    struct fixture *f = *state;
    for (uint32_t count = 2; count <= TOKENS; count++) {
        const struct ct_corpus corpus = {f->tokens, count};
        struct ct_heldout heldout;
        assert_int_equal(ct_heldout_init(&heldout, f->engine, BATCH, CONTEXT, &corpus), CT_OK);
        double sum = 0;
        uint32_t start = 0;
        while (start + 1 < count) {
            const uint32_t left = count - 1 - start;
            const uint32_t length = left < CONTEXT ? left : CONTEXT;
            sum += window_loss(f, start, length);
            start += length;
        }
        assert_true(fabs(ct_heldout_loss(&heldout, f->theta, 0) - sum / (count - 1)) < 1e-12);
        ct_heldout_deinit(&heldout);
    }
}

static void a_sample_is_spread_evenly(void **state) {
    struct fixture *f = *state;
    const struct ct_corpus corpus = {f->tokens, TOKENS};
    struct ct_heldout heldout;
    assert_int_equal(ct_heldout_init(&heldout, f->engine, BATCH, CONTEXT, &corpus), CT_OK);
    /* 11 windows, 4 of them: 0, 2, 5, 8 */
    const double sum = window_loss(f, 0, 8) + window_loss(f, 16, 8) + window_loss(f, 40, 8) +
                       window_loss(f, 64, 8);
    assert_true(fabs(ct_heldout_loss(&heldout, f->theta, 4) - sum / 32) < 1e-12);
    assert_true(ct_heldout_loss(&heldout, f->theta, 11) == ct_heldout_loss(&heldout, f->theta, 0));
    ct_heldout_deinit(&heldout);
}

static void one_token_predicts_nothing(void **state) {
    struct fixture *f = *state;
    const struct ct_corpus corpus = {f->tokens, 1};
    struct ct_heldout heldout;
    assert_int_equal(ct_heldout_init(&heldout, f->engine, BATCH, CONTEXT, &corpus), CT_ERR_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_token_is_predicted_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sample_is_spread_evenly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_token_predicts_nothing, set_up, tear_down),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
