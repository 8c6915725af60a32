/* cotrain bench step: whole training steps, and how much of one is matmul. */
#include "bench.h"
#include "bench_training.h"

#include <cotrain/optimizer.h>
#include <cotrain/pages.h>
#include <cotrain/profile.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: cotrain bench step [OPTIONS]\n"
    "\n"
    "Trains a GPT-2 on random tokens: forward, backward, clip, AdamW; the median of several "
    "steps.\n"
    "The yardstick is the peak of the machine's multiply-adds in the type of the numerics, "
    "measured\n"
    "just before. A step is counted as tokens x (6N + 12LDT) operations, as everybody counts it: "
    "N\n"
    "parameters of matrices, L layers, D width, T context, attention without its mask. Inside "
    "matmul\n"
    "the operations that were really done are counted. Of what is outside, adamw is the share of\n"
    "the gradient's norm and AdamW, which read and write 32 bytes a parameter; beside their rate\n"
    "stands that of the memory, measured just after over the same arrays.\n"
    "\n" CT_BENCH_TRAINING_USAGE CT_BENCH_USAGE;

struct step {
    struct ct_bench_training training; /* first: ct_bench_training_take */
    struct ct_layout layout;
    struct ct_engine *engine;
    struct ct_train_state state;
    struct ct_adamw adamw;
    float *gradient;
    uint32_t *tokens;
    double adamw_s; /* of the steps so far */
    float loss;
    bool applied;
};

static void train(void *context) {
    struct step *step = context;
    ct_engine_gradient(step->engine, step->state.theta, step->tokens, step->gradient, &step->loss);
    const double start = ct_bench_now_s();
    step->applied =
        ct_adamw_step(&step->adamw, &step->layout, &step->state, step->gradient, step->loss, 1e-4f)
            .applied;
    step->adamw_s += ct_bench_now_s() - start;
}

static void draw_tokens(struct step *step) {
    const struct ct_model_shape *shape = &step->layout.shape;
    const size_t count = (size_t)step->training.options.batch * (shape->context + 1);
    uint64_t state = 1;
    for (size_t i = 0; i < count; i++) {
        /* Knuth's MMIX generator; the upper bits are good. */
        state = state * 6364136223846793005u + 1442695040888963407u;
        step->tokens[i] = (uint32_t)((state >> 33) % shape->vocab);
    }
}

static enum ct_err prepare(struct ct_bench *bench, struct step *step) {
    step->training.options.threads = bench->threads;
    step->adamw = ct_adamw_default();
    CT_TRY(ct_layout_init(&step->layout, &step->training.shape));
    CT_TRY(ct_engine_open(&step->layout, &step->training.options, &step->engine));
    CT_TRY(ct_train_state_init(&step->state, &step->layout, false));
    step->state.threads = bench->threads;
    const uint32_t context = step->layout.shape.context;
    step->gradient = ct_pages_reserve(step->layout.parameters * sizeof(float));
    step->tokens = malloc((size_t)step->training.options.batch * (context + 1) * sizeof(uint32_t));
    if (step->gradient == NULL || step->tokens == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for gradients of %zu parameters",
                       step->layout.parameters);
    }
    ct_bench_model(&step->layout, step->state.theta);
    draw_tokens(step);
    return CT_OK;
}

/* What everybody counts for one step. */
static double step_operations(const struct step *step) {
    const struct ct_model_shape *shape = &step->layout.shape;
    const double width = shape->width, layers = shape->layers;
    const double matrices = 12.0 * layers * width * width + (double)shape->vocab * width;
    const double tokens = (double)step->training.options.batch * shape->context;
    return tokens * (6.0 * matrices + 12.0 * layers * width * shape->context);
}

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Half a figure's time for steps that are profiled; they are not the ones whose speed is told. */
struct shares {
    double outside; /* of the step's core seconds, not spent in matmul */
    double adamw;   /* of the step's time */
    double adamw_gbytes_per_s;
    double inside_gflops; /* of all threads together, while in matmul */
};

static struct shares profile(struct step *step, double seconds, uint32_t threads) {
    enum { STEPS = 4 }; /* at least: single steps differ by a hundredth in the share */
    const double start = ct_bench_now_s();
    int steps = 0;
    step->adamw_s = 0.0;
    ct_profile_start(clock_ns);
    for (; steps < STEPS || ct_bench_now_s() < start + seconds; steps++) {
        train(step);
    }
    const struct ct_profile profile = ct_profile_stop();
    const double whole_s = ct_bench_now_s() - start;
    return (struct shares){
        .outside = 1.0 - profile.matmul_s / (whole_s * threads),
        .adamw = step->adamw_s / whole_s,
        .adamw_gbytes_per_s = 32e-9 * (double)step->layout.parameters * steps / step->adamw_s,
        .inside_gflops = profile.matmul_operations / profile.matmul_s * threads * 1e-9,
    };
}

static enum ct_err measure(struct ct_bench *bench, struct step *step) {
    const struct ct_bench_peaks peaks = ct_bench_peaks(bench->threads, bench->seconds / 10);
    const double peak = step->training.options.numerics == CT_NUMERICS_BF16_1 ? peaks.bf16_gflops
                                                                              : peaks.fp32_gflops;
    const double seconds = ct_bench_time(train, step, bench->seconds);
    const struct shares shares = profile(step, bench->seconds / 2, bench->threads);
    if (!step->applied) {
        return ct_fail(CT_ERR_NUMERIC, "the loss or the gradient of random tokens is not finite");
    }
    const double memory =
        ct_bench_bandwidth_over(bench->threads, bench->seconds / 10, step->state.theta,
                                step->state.m, step->gradient, step->layout.parameters);
    const double tokens = (double)step->training.options.batch * step->layout.shape.context;
    const double gflops = step_operations(step) / seconds * 1e-9;
    return ct_bench_row(
        bench,
        json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
                  "s:f, s:f, s:f}",
                  "workload", step->training.workload->name, "numerics",
                  ct_numerics_name(step->training.options.numerics), "threads",
                  (json_int_t)bench->threads, "parameters", (json_int_t)step->layout.parameters,
                  "loss", (double)step->loss, "ms", seconds * 1e3, "tokens_per_s", tokens / seconds,
                  "gflops", gflops, "peak_gflops", peak, "ratio", gflops / peak, "matmul_gflops",
                  shares.inside_gflops, "matmul_ratio", shares.inside_gflops / peak,
                  "outside_matmul", shares.outside, "adamw", shares.adamw, "adamw_gbytes_per_s",
                  shares.adamw_gbytes_per_s, "memory_gbytes_per_s", memory, "peak_rss_mib",
                  ct_bench_peak_rss_mib()));
}

static enum ct_err run(struct ct_bench *bench) {
    struct step *step = bench->user;
    enum ct_err err = prepare(bench, step);
    if (err == CT_OK) {
        err = measure(bench, step);
    }
    free(step->tokens);
    free(step->gradient);
    ct_train_state_deinit(&step->state);
    ct_engine_close(step->engine);
    ct_layout_deinit(&step->layout);
    return err;
}

int ct_bench_step(int argc, char **argv) {
    struct step step = {.training = ct_bench_training_default()};
    struct ct_bench bench = {.name = "step",
                             .usage = usage,
                             .options = ct_bench_training_options,
                             .take = ct_bench_training_take,
                             .run = run,
                             .user = &step};
    return ct_bench_main(&bench, argc, argv);
}
