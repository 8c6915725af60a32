#include "solo.h"

#include "heldout.h"

#include <cotrain/window.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    EVAL_TOKENS = 16384, /* of the held-out split, between steps */
    SKIPPED_MAX = 1,
};

struct solo {
    const struct ct_solo_options *options;
    const struct ct_solo_listener *listener;
    struct ct_corpus train, heldout_text;
    struct ct_layout layout;
    struct ct_engine *engine;
    struct ct_engine_plan plan;
    struct ct_train_state state;
    struct ct_windows windows;
    struct ct_heldout heldout;
    float *gradient, *rates;
    uint32_t *tokens;
    uint32_t skipped;
    double train_s;
};

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static struct ct_hash seed_hash(uint64_t seed) {
    struct ct_hash hash = {{0}};
    for (int i = 0; i < 8; i++) {
        hash.bytes[i] = (uint8_t)(seed >> (8 * i));
    }
    return hash;
}

static enum ct_err load(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    uint32_t vocab;
    CT_TRY(ct_text_split_load(&options->source, CT_SPLIT_TRAIN, &solo->train, &vocab));
    CT_TRY(ct_text_split_load(&options->source, CT_SPLIT_HELDOUT, &solo->heldout_text, &vocab));
    struct ct_model_shape shape = options->shape;
    shape.vocab = vocab;
    CT_TRY(ct_layout_init(&solo->layout, &shape));
    CT_TRY(ct_engine_plan(&solo->layout, &options->engine, &solo->plan));
    const struct ct_solo_start start = {
        .layout = &solo->layout,
        .plan = solo->plan,
        .training_state_bytes = 4 * solo->layout.parameters * sizeof(float),
        .train_tokens = solo->train.count,
        .heldout_tokens = solo->heldout_text.count,
    };
    solo->listener->started(solo->listener->user, &start);
    return CT_OK;
}

static enum ct_err prepare(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    const uint32_t context = options->shape.context, batch = options->engine.batch;
    const struct ct_hash seed = seed_hash(options->seed);
    CT_TRY(ct_engine_open(&solo->layout, &options->engine, &solo->engine));
    CT_TRY(ct_train_state_init(&solo->state, &solo->layout, false));
    solo->state.threads = options->engine.threads;
    CT_TRY(ct_windows_init(&solo->windows, &seed, solo->train.tokens, solo->train.count, context));
    CT_TRY(ct_heldout_init(&solo->heldout, solo->engine, batch, context, &solo->heldout_text));
    solo->gradient = malloc(solo->layout.parameters * sizeof(float));
    solo->rates = malloc(options->steps * sizeof(float));
    solo->tokens = malloc((size_t)batch * (context + 1) * sizeof(uint32_t));
    if (solo->gradient == NULL || solo->rates == NULL || solo->tokens == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for gradients of %zu parameters",
                       solo->layout.parameters);
    }
    ct_rate_table(solo->rates, options->steps, options->warmup_steps, options->peak,
                  options->floor);
    ct_layout_draw(&solo->layout, &seed, solo->state.theta);
    return CT_OK;
}

static uint64_t step_tokens(const struct solo *solo) {
    return (uint64_t)solo->options->engine.batch * solo->options->shape.context;
}

static enum ct_err run_step(struct solo *solo, uint32_t step, struct ct_solo_step *out) {
    const uint32_t batch = solo->options->engine.batch;
    const struct ct_adamw adamw = ct_adamw_default();
    const double start = now_s();
    float loss;
    ct_windows_read(&solo->windows, (uint64_t)step * batch, batch, solo->tokens);
    ct_engine_gradient(solo->engine, solo->state.theta, solo->tokens, solo->gradient, &loss);
    const struct ct_adamw_report report =
        ct_adamw_step(&adamw, &solo->layout, &solo->state, solo->gradient, loss, solo->rates[step]);
    solo->train_s += now_s() - start;
    if (!report.applied && ++solo->skipped > SKIPPED_MAX) {
        return ct_fail(CT_ERR_NUMERIC,
                       "step %u: the loss or the gradient is not finite for the second time; try "
                       "a lower --rate",
                       step + 1);
    }
    const double done = (double)(step + 1) * (double)step_tokens(solo);
    *out = (struct ct_solo_step){
        .step = step + 1,
        .steps = solo->options->steps,
        .loss = loss,
        .rate = solo->rates[step],
        .gradient_norm = report.gradient_norm,
        .heldout = (double)NAN,
        .tokens_per_s = done / solo->train_s,
        .left_s = solo->train_s / (double)(step + 1) * (double)(solo->options->steps - step - 1),
    };
    return CT_OK;
}

static enum ct_err train(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    for (uint32_t step = 0; step < options->steps; step++) {
        struct ct_solo_step report;
        CT_TRY(run_step(solo, step, &report));
        const bool due = options->eval_every > 0 && (step + 1) % options->eval_every == 0;
        if (due && step + 1 < options->steps) {
            const uint64_t windows = EVAL_TOKENS / options->shape.context;
            report.heldout =
                ct_heldout_loss(&solo->heldout, solo->state.theta, windows > 0 ? windows : 1);
        }
        solo->listener->stepped(solo->listener->user, &report);
    }
    const struct ct_solo_end end = {
        .layout = &solo->layout,
        .theta = solo->state.theta,
        .heldout = ct_heldout_loss(&solo->heldout, solo->state.theta, 0),
        .tokens = step_tokens(solo) * options->steps,
        .tokens_per_s = (double)(step_tokens(solo) * options->steps) / solo->train_s,
        .skipped_steps = solo->skipped,
    };
    return solo->listener->ended(solo->listener->user, &end);
}

enum ct_err ct_solo_run(const struct ct_solo_options *options,
                        const struct ct_solo_listener *listener) {
    struct solo solo = {.options = options, .listener = listener};
    enum ct_err err = load(&solo);
    if (err == CT_OK) {
        err = prepare(&solo);
    }
    if (err == CT_OK) {
        err = train(&solo);
    }
    free(solo.tokens);
    free(solo.rates);
    free(solo.gradient);
    ct_heldout_deinit(&solo.heldout);
    ct_train_state_deinit(&solo.state);
    ct_engine_close(solo.engine);
    ct_layout_deinit(&solo.layout);
    ct_corpus_deinit(&solo.heldout_text);
    ct_corpus_deinit(&solo.train);
    return err;
}
