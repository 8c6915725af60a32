#include "solo.h"

#include "heldout.h"

#include <cotrain/model_dir.h>
#include <cotrain/pages.h>
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
    struct ct_site *site;
    struct ct_engine_options part; /* of each step, this rank's */
    struct ct_corpus train, heldout_text;
    struct ct_layout layout;
    struct ct_engine *engine;
    struct ct_engine_plan plan;
    struct ct_train_state state;
    struct ct_windows windows;
    struct ct_heldout heldout;
    float *base; /* the model to go on from, until θ has it; rank 0 */
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

static uint64_t double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* What decides on the bits beside the first model, which is compared when it is drawn. */
static enum ct_err compare_options(const struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    const uint64_t numerics = options->engine.numerics;
    const uint64_t facts[] = {
        options->shape.layers,
        options->shape.width,
        options->shape.context,
        options->shape.heads,
        options->shape.arch,
        options->shape.kv_heads,
        options->shape.hidden,
        options->shape.tied,
        double_bits((double)options->shape.norm_epsilon),
        double_bits((double)options->shape.rope_theta),
        options->from != NULL,
        options->from_context,
        options->engine.batch,
        options->engine.leaves,
        options->steps,
        options->warmup_steps,
        double_bits(options->peak),
        double_bits(options->floor),
        options->seed,
    };
    CT_TRY(ct_site_same(solo->site, "the numerics", &numerics, sizeof numerics));
    return ct_site_same(solo->site, "the options", facts, sizeof facts);
}

static enum ct_err load_text(struct solo *solo, uint32_t *out_vocab) {
    const struct ct_text_source *source = &solo->options->source;
    if (solo->site->rank != 0) {
        return CT_OK;
    }
    CT_TRY(ct_text_split_load(source, CT_SPLIT_TRAIN, &solo->train, out_vocab));
    return ct_text_split_load(source, CT_SPLIT_HELDOUT, &solo->heldout_text, out_vocab);
}

/* The model to go on from; its shape takes the place of the options', but for a shorter context. */
static enum ct_err load_base(struct solo *solo, uint32_t vocab, struct ct_model_shape *shape) {
    const char *from = solo->options->from;
    const uint32_t context = solo->options->from_context;
    struct ct_layout layout;
    CT_TRY(ct_model_load(from, &layout, &solo->base));
    *shape = layout.shape;
    ct_layout_deinit(&layout);
    if (vocab > shape->vocab) {
        return ct_fail(CT_ERR_CONFIG, "%s: knows %u tokens, the text uses %u", from, shape->vocab,
                       vocab);
    }
    if (context != 0 && context != shape->context) {
        if (shape->arch == CT_ARCH_GPT2 || context > shape->context) {
            return ct_fail(CT_ERR_CONFIG,
                           "%s: has a context of %u; a llama's can be shorter, no other change is "
                           "possible",
                           from, shape->context);
        }
        shape->context = context;
    }
    return CT_OK;
}

/* The text's and the model's shape, on rank 0. */
static enum ct_err load_files(struct solo *solo, struct ct_model_shape *shape) {
    CT_TRY(load_text(solo, &shape->vocab));
    return solo->options->from != NULL && solo->site->rank == 0
               ? load_base(solo, shape->vocab, shape)
               : CT_OK;
}

static enum ct_err load(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    struct ct_model_shape shape = options->shape;
    CT_TRY(compare_options(solo));
    CT_TRY(ct_site_agree(solo->site, load_files(solo, &shape)));
    CT_TRY(solo->site->calls->share(solo->site, &shape, sizeof shape));
    CT_TRY(ct_layout_init(&solo->layout, &shape));
    solo->part = options->engine;
    CT_TRY(ct_site_options(solo->site, &solo->part));
    CT_TRY(ct_engine_plan(&solo->layout, &solo->part, &solo->plan));
    if (solo->site->rank == 0) {
        const struct ct_solo_start start = {
            .layout = &solo->layout,
            .plan = solo->plan,
            .ranks = solo->site->ranks,
            .training_state_bytes = 4 * solo->layout.parameters * sizeof(float),
            .train_tokens = solo->train.count,
            .heldout_tokens = solo->heldout_text.count,
        };
        solo->listener->started(solo->listener->user, &start);
    }
    return CT_OK;
}

static enum ct_err open_text(struct solo *solo, const struct ct_hash *seed) {
    const uint32_t context = solo->layout.shape.context;
    if (solo->site->rank != 0) {
        return CT_OK;
    }
    CT_TRY(ct_windows_init(&solo->windows, seed, solo->train.tokens, solo->train.count, context));
    return ct_heldout_init(&solo->heldout, solo->engine, solo->part.batch, context,
                           &solo->heldout_text);
}

/* θ before the first step: drawn, or rank 0's to all. */
static enum ct_err first_model(struct solo *solo, const struct ct_hash *seed) {
    const size_t bytes = solo->layout.parameters * sizeof(float);
    if (solo->options->from == NULL) {
        ct_layout_draw(&solo->layout, seed, solo->state.theta);
        return CT_OK;
    }
    if (solo->base != NULL) {
        memcpy(solo->state.theta, solo->base, bytes);
        free(solo->base);
        solo->base = NULL;
    }
    return solo->site->calls->share(solo->site, solo->state.theta, bytes);
}

static enum ct_err prepare(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    const struct ct_hash seed = seed_hash(options->seed);
    const size_t window = solo->layout.shape.context + 1;
    CT_TRY(ct_engine_open(&solo->layout, &solo->part, &solo->engine));
    CT_TRY(ct_train_state_init(&solo->state, &solo->layout, false));
    solo->state.threads = solo->part.threads;
    CT_TRY(open_text(solo, &seed));
    solo->gradient = ct_pages_reserve(solo->layout.parameters * sizeof(float));
    solo->rates = malloc(options->steps * sizeof(float));
    solo->tokens = malloc(options->engine.batch * window * sizeof(uint32_t));
    if (solo->gradient == NULL || solo->rates == NULL || solo->tokens == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for gradients of %zu parameters",
                       solo->layout.parameters);
    }
    ct_rate_table(solo->rates, options->steps, options->warmup_steps, options->peak,
                  options->floor);
    return first_model(solo, &seed);
}

static enum ct_err compare_models(const struct solo *solo, const char *what) {
    return ct_site_same(solo->site, what, solo->state.theta,
                        solo->layout.parameters * sizeof(float));
}

static uint64_t step_tokens(const struct solo *solo) {
    return (uint64_t)solo->options->engine.batch * solo->layout.shape.context;
}

static enum ct_err run_step(struct solo *solo, uint32_t step, struct ct_solo_step *out) {
    const uint32_t batch = solo->options->engine.batch;
    const struct ct_adamw adamw = ct_adamw_default();
    const double start = now_s();
    float loss;
    bool go = true;
    if (solo->site->rank == 0) {
        ct_windows_read(&solo->windows, (uint64_t)step * batch, batch, solo->tokens);
    }
    CT_TRY(ct_site_deal_tokens(solo->site, &go, solo->tokens,
                               (size_t)solo->part.batch * (solo->layout.shape.context + 1)));
    CT_TRY(ct_site_gradient(solo->site, solo->engine, &solo->layout, solo->state.theta,
                            solo->tokens, solo->gradient, &loss));
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

static void report(struct solo *solo, struct ct_solo_step *step) {
    const struct ct_solo_options *options = solo->options;
    const bool due = options->eval_every > 0 && step->step % options->eval_every == 0;
    if (due && step->step < options->steps) {
        const uint64_t windows = EVAL_TOKENS / solo->layout.shape.context;
        step->heldout =
            ct_heldout_loss(&solo->heldout, solo->state.theta, windows > 0 ? windows : 1);
    }
    solo->listener->stepped(solo->listener->user, step);
}

static enum ct_err train(struct solo *solo) {
    const struct ct_solo_options *options = solo->options;
    for (uint32_t step = 0; step < options->steps; step++) {
        struct ct_solo_step done;
        CT_TRY(run_step(solo, step, &done));
        if (solo->site->rank == 0) {
            report(solo, &done);
        }
    }
    CT_TRY(compare_models(solo, "the trained model"));
    if (solo->site->rank != 0) {
        return CT_OK;
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

enum ct_err ct_solo_run(const struct ct_solo_options *options, struct ct_site *site,
                        const struct ct_solo_listener *listener) {
    struct solo solo = {.options = options, .listener = listener, .site = site};
    enum ct_err err = load(&solo);
    if (err == CT_OK) {
        err = ct_site_agree(site, prepare(&solo));
    }
    if (err == CT_OK) {
        err = compare_models(&solo, "the first model");
    }
    if (err == CT_OK) {
        err = train(&solo);
    }
    free(solo.tokens);
    free(solo.rates);
    free(solo.gradient);
    free(solo.base);
    ct_heldout_deinit(&solo.heldout);
    ct_train_state_deinit(&solo.state);
    ct_engine_close(solo.engine);
    ct_layout_deinit(&solo.layout);
    ct_corpus_deinit(&solo.heldout_text);
    ct_corpus_deinit(&solo.train);
    return err;
}
