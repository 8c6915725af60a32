#include "bits.h"

#include "kernels/rows.h"
#include "twenty_steps.h"

#include <cotrain/isa.h>
#include <cotrain/optimizer.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void bits_print(const char *name, const void *data, size_t bytes) {
    printf("%s %016" PRIx64 "\n", name, twenty_steps_hash(0xcbf29ce484222325u, data, bytes));
}

static int train(void) {
    int failed = 0;
    for (size_t i = 0; i < TWENTY_STEPS_MODELS; i++) {
        const struct twenty_steps_model *model = &twenty_steps_models[i];
        const char *numerics = ct_numerics_name(model->numerics);
        uint64_t hash;
        if (twenty_steps_engine(model, 2, 1, &hash) != CT_OK) {
            fprintf(stderr, "%s\n", ct_err_detail());
            return 1;
        }
        printf("twenty steps, %s, %s: %016" PRIx64 "\n", model->name, numerics, hash);
        if (hash != model->hash) {
            fprintf(stderr, "twenty steps, %s, %s: golden is %016" PRIx64 "\n", model->name,
                    numerics, model->hash);
            failed = 1;
        }
    }
    return failed;
}

/* One whole step, for who is too slow for twenty. */
static enum ct_err run_step(const struct twenty_steps_model *model, struct ct_layout *layout,
                            struct ct_train_state *state, float *gradient, float *out_loss) {
    enum { BATCH = 2 };
    uint32_t tokens[BATCH * 64], random = 5;
    const struct ct_engine_options options = {
        .numerics = model->numerics, .batch = BATCH, .leaves = 2, .threads = 2};
    struct ct_engine *engine;
    CT_TRY(ct_engine_open(layout, &options, &engine));
    twenty_steps_tokens(&random, layout->shape.vocab, tokens, sizeof tokens / sizeof tokens[0]);
    ct_layout_draw(layout, &(struct ct_hash){{4}}, state->theta);
    ct_engine_gradient(engine, state->theta, tokens, gradient, out_loss);
    ct_engine_close(engine);
    const struct ct_adamw adamw = ct_adamw_default();
    return ct_adamw_step(&adamw, layout, state, gradient, *out_loss, 1e-2f).applied
               ? CT_OK
               : ct_fail(CT_ERR_NUMERIC, "the step was not applied");
}

static int step(void) {
    for (size_t i = 0; i < TWENTY_STEPS_MODELS; i++) {
        const struct twenty_steps_model *model = &twenty_steps_models[i];
        struct ct_layout layout;
        struct ct_train_state state;
        if (ct_layout_init(&layout, &model->shape) != CT_OK ||
            ct_train_state_init(&state, &layout, false) != CT_OK) {
            fprintf(stderr, "%s\n", ct_err_detail());
            return 1;
        }
        float *gradient = malloc(layout.parameters * sizeof *gradient), loss = 0.0f;
        if (gradient == NULL || run_step(model, &layout, &state, gradient, &loss) != CT_OK) {
            fprintf(stderr, "%s\n", ct_err_detail());
            return 1;
        }
        char name[64];
        snprintf(name, sizeof name, "step, %s, %s", model->name, ct_numerics_name(model->numerics));
        printf("%s: loss %a\n", name, (double)loss);
        bits_print(name, gradient, layout.parameters * sizeof *gradient);
        bits_print(name, state.theta, layout.parameters * sizeof *state.theta);
        free(gradient);
        ct_train_state_deinit(&state);
        ct_layout_deinit(&layout);
    }
    return 0;
}

/* A build without OpenBLAS says so when it is asked for; others have nothing to say here. */
static void fast(void) {
    const struct ct_model_shape shape = GPT2_SHAPE(61, 18, 1, 1, 36);
    struct ct_layout layout;
    struct ct_engine *engine;
    const struct ct_engine_options options = {
        .numerics = CT_NUMERICS_FAST, .batch = 1, .leaves = 1, .threads = 1};
    if (ct_layout_init(&layout, &shape) != CT_OK ||
        ct_engine_open(&layout, &options, &engine) != CT_OK) {
        printf("%s\n", ct_err_detail());
        return;
    }
    ct_engine_close(engine);
    ct_layout_deinit(&layout);
}

int main(int argc, char **argv) {
    const char *part = argc == 2 ? argv[1] : "";
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    if (strcmp(part, "isa") == 0) {
        printf("%s%s%s\n", ct_isa_name(ct_isa_active()), *ct_isa_refusal() != '\0' ? ": " : "",
               ct_isa_refusal());
    } else if (strcmp(part, "operations") == 0) {
        bits_plain_rows(&ct_ops);
        bits_threshold_rows(&ct_ops);
        bits_threshold_products();
        bits_threshold_codec();
    } else if (strcmp(part, "unwatched") == 0) {
        struct ct_ops ops;
#if defined(__aarch64__)
        ct_rows_install_bare(&ops);
        ct_finish_install_bare(&ops.finish);
#else
        ops = ct_ops;
#endif
        bits_threshold_rows(&ops);
    } else if (strcmp(part, "fast") == 0) {
        fast();
    } else if (strcmp(part, "step") == 0) {
        return step();
    } else if (strcmp(part, "train") == 0) {
        return train();
    } else {
        fprintf(stderr, "usage: bits isa | operations | unwatched | fast | step | train\n");
        return 2;
    }
    return 0;
}
