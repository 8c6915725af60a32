/* An assignment's computation: the same bytes for any number of threads and from scratch, and the
 * steps that numerics.md writes. */
#include "node/work.h"
#include "shapes.h"

#include <cotrain/fold.h>
#include <cotrain/mode.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS      3u
#define STEPS       4u
#define RATES       64u
#define TOKEN_COUNT 6000u

struct bench {
    struct ct_manifest manifest;
    struct ct_layout layout;
    struct ct_chunks chunks;
    struct ct_windows windows;
    struct ct_hash seed;
    float rates[RATES];
    uint16_t tokens[TOKEN_COUNT];
    struct ct_engine *engine;
    struct ct_train_state state;
    float *gradient, *base;
    struct ct_work work;
    uint32_t steps_seen, cancel_after;
};

static bool cancelled(void *user) {
    struct bench *bench = user;
    return bench->steps_seen == bench->cancel_after;
}

static void on_step(void *user, uint32_t step, float loss) {
    struct bench *bench = user;
    assert_true(loss > 0.0f);
    bench->steps_seen = step;
}

static struct bench *bench_open(uint32_t threads) {
    struct bench *bench = calloc(1, sizeof *bench);
    struct ct_manifest *manifest = &bench->manifest;
    *manifest = (struct ct_manifest){
        .model = GPT2_SHAPE(64, 16, 2, 2, 32),
        .numerics = CT_NUMERICS_BF16_1,
        .batch = 4,
        .leaves = 2,
        .adamw = ct_adamw_default(),
        .rate_unit = 100,
        .rate_count = RATES,
        .rates = bench->rates,
    };
    ct_rate_table(bench->rates, RATES, 4, 1e-2, 1e-3);
    memset(bench->seed.bytes, 5, sizeof bench->seed.bytes);
    for (uint32_t i = 0; i < TOKEN_COUNT; i++) {
        bench->tokens[i] = (uint16_t)((i * i / 7 + i % 13) % 64);
    }
    assert_int_equal(ct_layout_init(&bench->layout, &manifest->model), CT_OK);
    assert_int_equal(ct_chunks_init(&bench->chunks, &bench->layout), CT_OK);
    assert_int_equal(ct_windows_init(&bench->windows, &bench->seed, bench->tokens, TOKEN_COUNT, 16),
                     CT_OK);
    struct ct_engine_options options = {.numerics = manifest->numerics,
                                        .batch = manifest->batch,
                                        .leaves = manifest->leaves,
                                        .threads = threads};
    assert_int_equal(ct_engine_open(&bench->layout, &options, &bench->engine), CT_OK);
    assert_int_equal(ct_train_state_init(&bench->state, &bench->layout, true), CT_OK);
    bench->state.threads = threads;
    bench->gradient = calloc(bench->layout.parameters, sizeof(float));
    bench->base = calloc(bench->layout.parameters, sizeof(float));
    ct_layout_draw(&bench->layout, &bench->seed, bench->base);
    bench->cancel_after = UINT32_MAX;
    bench->work = (struct ct_work){manifest,      &bench->chunks,  &bench->windows,
                                   bench->engine, bench->gradient, cancelled,
                                   on_step,       bench,           ct_site_alone()};
    return bench;
}

static void bench_close(struct bench *bench) {
    free(bench->base);
    free(bench->gradient);
    ct_train_state_deinit(&bench->state);
    ct_engine_close(bench->engine);
    ct_chunks_deinit(&bench->chunks);
    ct_layout_deinit(&bench->layout);
    free(bench);
}

static struct ct_assignment assignment_of(uint32_t round) {
    return (struct ct_assignment){.node = 1,
                                  .index = round,
                                  .reset = round == 0,
                                  .steps = STEPS,
                                  .position = (uint64_t)round * STEPS * 4};
}

static struct ct_hash digest_of(uint32_t round) {
    struct ct_hash digest;
    memset(digest.bytes, (int)round + 1, sizeof digest.bytes);
    return digest;
}

static enum ct_err run_round(struct bench *bench, uint32_t round,
                             const struct ct_assignment *assignment, struct ct_work_result *out) {
    struct ct_hash digest = digest_of(round);
    bench->steps_seen = 0;
    return ct_work_run(&bench->work, assignment, &digest, 64ull * STEPS * round, 64ull * STEPS,
                       bench->base, &bench->state, out);
}

/* Three rounds of an epoch; the base of each is what the node itself made of the one before. */
static void run_unit(struct bench *bench, struct ct_work_result results[ROUNDS]) {
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct ct_assignment assignment = assignment_of(round);
        assert_int_equal(run_round(bench, round, &assignment, &results[round]), CT_OK);
        assert_int_equal(bench->steps_seen, STEPS);
        memcpy(bench->base, bench->state.theta, bench->layout.parameters * sizeof(float));
    }
}

static void assert_same(const struct ct_work_result *a, const struct ct_work_result *b) {
    assert_int_equal(a->payload.length, b->payload.length);
    assert_memory_equal(a->payload.data, b->payload.data, a->payload.length);
    assert_memory_equal(&a->state, &b->state, sizeof a->state);
    assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
    assert_int_equal(a->skipped_steps, b->skipped_steps);
}

static void a_unit_is_the_same_for_any_number_of_threads(void **state) {
    (void)state;
    struct ct_work_result first[ROUNDS];
    struct bench *bench = bench_open(1);
    run_unit(bench, first);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct ct_update update;
        struct ct_hash digest = digest_of(round);
        assert_int_equal(
            ct_update_decode(&bench->chunks, ct_buf_bytes(&first[round].payload), &update), CT_OK);
        assert_memory_equal(&update.header.assignment, &digest, sizeof digest);
        assert_int_equal(update.header.steps, STEPS);
        assert_true(update.norm > 0.0);
        ct_update_deinit(&update);
        assert_true(first[round].loss > 0.0f && first[round].loss < 5.0f);
    }
    bench_close(bench);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct ct_work_result again[ROUNDS];
        bench = bench_open(threads);
        run_unit(bench, again);
        for (uint32_t round = 0; round < ROUNDS; round++) {
            assert_same(&first[round], &again[round]);
            ct_buf_deinit(&again[round].payload);
        }
        bench_close(bench);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        ct_buf_deinit(&first[round].payload);
    }
}

/* What the state held before matters exactly when the assignment continues. */
static void a_reset_forgets_and_a_continuation_does_not(void **state) {
    (void)state;
    struct ct_work_result clean, after, kept;
    struct bench *bench = bench_open(1);
    struct ct_assignment assignment = assignment_of(0);
    assert_int_equal(run_round(bench, 0, &assignment, &clean), CT_OK);
    assert_int_equal(run_round(bench, 0, &assignment, &after), CT_OK);
    assert_same(&clean, &after);
    assignment.reset = false;
    assert_int_equal(run_round(bench, 0, &assignment, &kept), CT_OK);
    assert_memory_not_equal(&clean.state, &kept.state, sizeof clean.state);
    assert_int_equal(bench->state.step, 2 * STEPS);
    ct_buf_deinit(&clean.payload);
    ct_buf_deinit(&after.payload);
    ct_buf_deinit(&kept.payload);
    bench_close(bench);
}

/* The steps written out: data positions, the rate from the table times the ramp, the mean loss, the
 * update of what was learned, and the digest of what remains. */
static void the_steps_are_those_of_the_definition(void **state) {
    (void)state;
    struct ct_work_result result;
    struct bench *bench = bench_open(1);
    struct bench *by_hand = bench_open(1);
    struct ct_assignment assignment = assignment_of(0);
    assignment.position = 37;
    struct ct_hash digest = digest_of(9);
    const uint64_t at_base = 1234;
    const uint64_t planned = 5000;
    assert_int_equal(ct_work_run(&bench->work, &assignment, &digest, at_base, planned, bench->base,
                                 &bench->state, &result),
                     CT_OK);

    struct ct_train_state *hand = &by_hand->state;
    size_t parameters = by_hand->layout.parameters;
    memcpy(hand->theta, by_hand->base, parameters * sizeof(float));
    double sum = 0.0;
    static const float ramp[] = {0.2f, 0.4f, 0.6f, 0.8f};
    for (uint32_t s = 0; s < STEPS; s++) {
        uint32_t tokens[4 * 17];
        float loss = 0.0f;
        for (uint32_t b = 0; b < 4; b++) {
            uint64_t start = ct_window_start(&by_hand->windows, 37 + 4 * s + b);
            for (uint32_t t = 0; t < 17; t++) {
                tokens[b * 17 + t] = by_hand->tokens[start + t];
            }
        }
        ct_engine_gradient(by_hand->engine, hand->theta, tokens, by_hand->gradient, &loss);
        uint64_t entry = (at_base + s * planned / STEPS) / 100;
        float rate = by_hand->rates[entry < RATES ? entry : RATES - 1] * ramp[s];
        assert_true(ct_adamw_step(&by_hand->manifest.adamw, &by_hand->layout, hand,
                                  by_hand->gradient, loss, rate)
                        .applied);
        sum += (double)loss;
    }
    float mean = (float)(sum / STEPS);
    assert_memory_equal(&mean, &result.loss, sizeof mean);
    assert_memory_equal(hand->theta, bench->state.theta, parameters * sizeof(float));

    uint8_t *payload = malloc(ct_update_bytes_max(&by_hand->chunks));
    size_t length = 0;
    struct ct_update_header header = {digest, STEPS};
    ct_update_encode(&by_hand->chunks, &header, by_hand->base, hand->theta, hand->e, payload,
                     &length);
    assert_int_equal(length, result.payload.length);
    assert_memory_equal(payload, result.payload.data, length);
    struct ct_hash after = ct_state_digest(&by_hand->layout, hand);
    assert_memory_equal(&after, &result.state, sizeof after);
    free(payload);
    ct_buf_deinit(&result.payload);
    bench_close(by_hand);
    bench_close(bench);
}

static void steps_that_are_not_finite_end_the_assignment(void **state) {
    (void)state;
    struct ct_work_result result;
    struct bench *bench = bench_open(1);
    bench->work.progress = NULL;
    /* The products of the head overflow, and with them loss and gradient. */
    for (size_t i = 0; i < bench->layout.parameters; i++) {
        bench->base[i] = 1e30f;
    }
    struct ct_assignment assignment = assignment_of(0);
    assert_int_equal(run_round(bench, 0, &assignment, &result), CT_ERR_NUMERIC);
    assert_non_null(strstr(ct_err_detail(), "step 2 of 4"));
    /* One such step is let pass, and said. */
    assignment.steps = 1;
    assert_int_equal(run_round(bench, 0, &assignment, &result), CT_OK);
    assert_int_equal(result.skipped_steps, 1);
    assert_true(result.loss == 0.0f);
    ct_buf_deinit(&result.payload);
    bench_close(bench);
}

static void cancelling_and_wrong_assignments(void **state) {
    (void)state;
    struct ct_work_result result;
    struct bench *bench = bench_open(1);
    struct ct_assignment assignment = assignment_of(0);
    bench->cancel_after = 2;
    assert_int_equal(run_round(bench, 0, &assignment, &result), CT_ERR_STATE);
    assert_int_equal(bench->steps_seen, 2);
    bench->cancel_after = UINT32_MAX;
    assignment.steps = 0;
    assert_int_equal(run_round(bench, 0, &assignment, &result), CT_ERR_RULE);
    assignment.steps = CT_STEPS_MAX + 1;
    assert_int_equal(run_round(bench, 0, &assignment, &result), CT_ERR_RULE);
    bench_close(bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unit_is_the_same_for_any_number_of_threads),
        cmocka_unit_test(a_reset_forgets_and_a_continuation_does_not),
        cmocka_unit_test(the_steps_are_those_of_the_definition),
        cmocka_unit_test(steps_that_are_not_finite_end_the_assignment),
        cmocka_unit_test(cancelling_and_wrong_assignments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
