#include <cotrain/isa.h>
#include <cotrain/sample.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "every_isa.h"

enum { VOCAB = 7, DRAWS = 20000 };

static const float logits[VOCAB] = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, 2.0f, -30.0f};

static struct ct_philox philox(void) {
    return ct_philox_make(&(struct ct_hash){{5}}, CT_STREAM_SAMPLE);
}

static void counts(const struct ct_sample_options *options, double out[VOCAB]) {
    const struct ct_philox stream = philox();
    float scratch[2 * VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        out[i] = 0;
    }
    for (uint64_t i = 0; i < DRAWS; i++) {
        out[ct_sample(logits, VOCAB, options, &stream, i, scratch)] += 1.0 / DRAWS;
    }
}

static void frequencies_follow_the_softmax(void **state) {
    (void)state;
    const float temperatures[] = {0.5f, 1.0f, 2.0f};
    for (int t = 0; t < 3; t++) {
        double found[VOCAB], sum = 0;
        counts(&(struct ct_sample_options){.temperature = temperatures[t]}, found);
        for (int i = 0; i < VOCAB; i++) {
            sum += exp((double)(logits[i] / temperatures[t]));
        }
        for (int i = 0; i < VOCAB; i++) {
            const double p = exp((double)(logits[i] / temperatures[t])) / sum;
            /* five deviations of a binomial count */
            assert_true(fabs(found[i] - p) <= 5 * sqrt(p * (1 - p) / DRAWS) + 1e-9);
        }
    }
}

static void zero_temperature_takes_the_first_largest(void **state) {
    (void)state;
    double found[VOCAB];
    counts(&(struct ct_sample_options){.temperature = 0.0f}, found);
    assert_true(found[1] > 0.999);
    counts(&(struct ct_sample_options){.temperature = 1.0f, .top_k = 1}, found);
    assert_true(found[1] > 0.999);
}

static void top_k_breaks_ties_to_the_lower_token(void **state) {
    (void)state;
    double found[VOCAB];
    counts(&(struct ct_sample_options){.temperature = 1.0f, .top_k = 2}, found);
    assert_true(fabs(found[1] - 0.5) < 0.02 && fabs(found[3] - 0.5) < 0.02);
    assert_true(found[1] + found[3] > 0.9999);
    counts(&(struct ct_sample_options){.temperature = 1.0f, .top_k = 4}, found);
    assert_true(found[0] + found[2] + found[6] < 1e-9);
    assert_true(found[4] > 0.05);
}

static void draws_have_golden_values(void **state) {
    (void)state;
    static const uint32_t expected[] = {1, 5, 3, 3, 5, 1, 5, 4};
    const struct ct_philox stream = philox();
    float scratch[2 * VOCAB];
    for (uint64_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct ct_sample_options options = {.temperature = 1.5f};
        const uint32_t token = ct_sample(logits, VOCAB, &options, &stream, i, scratch);
        assert_int_equal(token, expected[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_follow_the_softmax),
        cmocka_unit_test(zero_temperature_takes_the_first_largest),
        cmocka_unit_test(top_k_breaks_ties_to_the_lower_token),
        cmocka_unit_test(draws_have_golden_values),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + run_under_every_isa();
}
