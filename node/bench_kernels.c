/* cotrain bench kernels: the engine's kernels one by one, beside OpenBLAS and the machine. */
#include "bench.h"
#include "option.h"

#include <cotrain/layout.h>
#include <cotrain/optimizer.h>
#include <cotrain/trial.h>
#include <cotrain/yardstick.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: cotrain bench kernels [OPTIONS]\n"
    "\n"
    "Products in the three forms of a training step, for the layers of GPT-2 at two sizes:\n"
    "Y = X.W' (NT), dX = dY.W (NN), dW = dY'.X (TN); under fp32-1 and bf16-1, beside OpenBLAS's\n"
    "sgemm in this process and the peak of the machine's multiply-adds. All of them take turns,\n"
    "so that what else the machine does meets all alike, and the best of at least five turns\n"
    "counts. Then causal attention, operations by rows and AdamW, beside the bandwidth of the\n"
    "memory; what fits into a cache can be above it. One thread, then all; with --threads only\n"
    "so many. --seconds are those of a row with its yardsticks.\n"
    "\n"
    "  --op NAME        only this: matmul, attention_forward, attention_backward, adamw or an\n"
    "                   operation by rows, as the table names it\n"
    "  --shape M,N,K    only products of this layer: M tokens, N outputs, K inputs; repeatable\n"
    "  --form F         only products of this form: NT, NN or TN\n"
    "  --type T         only products and attention of this type: fp32 or bf16\n" CT_BENCH_USAGE;

struct layer {
    size_t tokens, outputs, inputs;
};

enum { OPTION_OP = 1, OPTION_SHAPE, OPTION_FORM, OPTION_TYPE, SHAPES_MAX = 16 };
enum { FP32, BF16, TYPES };
static const char *const type_names[TYPES] = {"fp32", "bf16"};
static const enum ct_numerics type_numerics[TYPES] = {CT_NUMERICS_FP32_1, CT_NUMERICS_BF16_1};

/* What is asked for; NULL: all. */
struct kernels {
    const char *op, *form, *type;
    struct layer layers[SHAPES_MAX];
    size_t layer_count;
};

static const struct layer gpt2_layers[] = {
    {1024, 1152, 384}, {1024, 1536, 384}, {1024, 384, 1536}, {1024, 50304, 384},
    {512, 2304, 768},  {512, 3072, 768},  {512, 768, 3072},  {512, 50257, 768},
};

static const char *const attention_ops[] = {"attention_forward", "attention_backward"};

static bool is(const char *asked, const char *name) {
    return asked == NULL || strcmp(asked, name) == 0;
}

static bool wanted(const struct kernels *kernels, const char *op) {
    return is(kernels->op, op);
}

static void run_trial(void *context) {
    ct_trial_run(context);
}

/* The peaks as rivals: enough rounds for a millisecond. */
enum { PEAK_ROUNDS = 100000 };
struct peak {
    double (*run)(uint32_t threads, uint64_t rounds);
    uint32_t threads;
    double operations;
};

static void run_peak(void *context) {
    struct peak *peak = context;
    peak->operations = peak->run(peak->threads, PEAK_ROUNDS);
}

/* The trial of one type takes turns with the peak of its multiply-adds and, where there is one,
 * with OpenBLAS. */
struct contest {
    struct ct_trial *trial, *blas;
    uint32_t threads;
    bool bf16;
};
struct rates {
    double own, blas, peak; /* 10^9 operations a second */
};

static struct rates race(const struct contest *contest, double seconds) {
    struct peak fp32 = {.run = ct_peak_fp32, .threads = contest->threads};
    struct peak bf16 = {.run = ct_peak_bf16, .threads = contest->threads};
    struct peak *peak = &fp32;
    if (contest->bf16 && ct_peak_bf16(1, 1) > 0.0) {
        peak = &bf16;
    }
    const struct ct_rival rivals[] = {
        {run_trial, contest->trial}, {run_peak, peak}, {run_trial, contest->blas}};
    double best_s[3];
    ct_bench_best(rivals, contest->blas != NULL ? 3 : 2, seconds, best_s);
    return (struct rates){
        .own = ct_trial_operations(contest->trial) / best_s[0] * 1e-9,
        .peak = peak->operations / best_s[1] * 1e-9,
        .blas = contest->blas != NULL ? ct_trial_operations(contest->blas) / best_s[2] * 1e-9 : 0.0,
    };
}

static enum ct_err product_row(struct ct_bench *bench, const struct ct_trial_options *options,
                               const struct rates *rates) {
    return ct_bench_row(
        bench,
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "op", "matmul",
                  "form", options->form, "type",
                  type_names[options->numerics == CT_NUMERICS_BF16_1 ? BF16 : FP32], "m",
                  (json_int_t)options->m, "n", (json_int_t)options->n, "k", (json_int_t)options->k,
                  "threads", (json_int_t)options->threads, "gflops", rates->own, "openblas_gflops",
                  rates->blas, "peak_gflops", rates->peak, "openblas_ratio",
                  rates->own / rates->blas, "peak_ratio", rates->own / rates->peak));
}

static enum ct_err product(struct ct_bench *bench, struct ct_trial_options options,
                           struct ct_trial *blas) {
    struct contest contest = {
        .blas = blas, .threads = options.threads, .bf16 = options.numerics == CT_NUMERICS_BF16_1};
    CT_TRY(ct_trial_open(&options, &contest.trial));
    const struct rates rates = race(&contest, bench->seconds);
    ct_trial_close(contest.trial);
    return product_row(bench, &options, &rates);
}

static enum ct_err products(struct ct_bench *bench, struct ct_trial_options options) {
    const struct kernels *kernels = bench->user;
    struct ct_trial *blas;
    options.numerics = CT_NUMERICS_FAST;
    CT_TRY(ct_trial_open(&options, &blas));
    enum ct_err err = CT_OK;
    for (size_t i = 0; i < TYPES && err == CT_OK; i++) {
        if (is(kernels->type, type_names[i])) {
            options.numerics = type_numerics[i];
            err = product(bench, options, blas);
        }
    }
    ct_trial_close(blas);
    return err;
}

static enum ct_err matmuls(struct ct_bench *bench, uint32_t threads) {
    const struct kernels *kernels = bench->user;
    for (size_t i = 0; i < kernels->layer_count; i++) {
        const struct layer *l = &kernels->layers[i];
        const struct ct_trial_options forms[] = {
            {.form = "NT", .m = l->tokens, .n = l->outputs, .k = l->inputs},
            {.form = "NN", .m = l->tokens, .n = l->inputs, .k = l->outputs},
            {.form = "TN", .m = l->outputs, .n = l->inputs, .k = l->tokens},
        };
        for (size_t form = 0; form < sizeof forms / sizeof forms[0]; form++) {
            struct ct_trial_options options = forms[form];
            options.op = "matmul";
            options.threads = threads;
            if (is(kernels->form, options.form)) {
                CT_TRY(products(bench, options));
            }
        }
    }
    return CT_OK;
}

/* Causal attention as in workload M, beside the peak alone. */
static enum ct_err attention(struct ct_bench *bench, const char *op, size_t type,
                             uint32_t threads) {
    const struct ct_trial_options options = {.op = op,
                                             .numerics = type_numerics[type],
                                             .m = 512,
                                             .n = 768,
                                             .k = 256,
                                             .threads = threads};
    struct contest contest = {.threads = threads, .bf16 = type == BF16};
    CT_TRY(ct_trial_open(&options, &contest.trial));
    const struct rates rates = race(&contest, bench->seconds);
    ct_trial_close(contest.trial);
    return ct_bench_row(
        bench, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:n, s:f, s:n, s:f}", "op", op,
                         "form", "causal", "type", type_names[type], "m", (json_int_t)options.m,
                         "n", (json_int_t)options.n, "k", (json_int_t)options.k, "threads",
                         (json_int_t)threads, "gflops", rates.own, "openblas_gflops", "peak_gflops",
                         rates.peak, "openblas_ratio", "peak_ratio", rates.own / rates.peak));
}

static enum ct_err attentions(struct ct_bench *bench, uint32_t threads) {
    const struct kernels *kernels = bench->user;
    for (size_t i = 0; i < sizeof attention_ops / sizeof attention_ops[0]; i++) {
        for (size_t type = 0; wanted(kernels, attention_ops[i]) && type < TYPES; type++) {
            if (is(kernels->type, type_names[type])) {
                CT_TRY(attention(bench, attention_ops[i], type, threads));
            }
        }
    }
    return CT_OK;
}

static enum ct_err memory_row(struct ct_bench *bench, const char *op, size_t m, size_t n,
                              uint32_t threads, double bytes, double seconds, double memory) {
    const double rate = bytes / seconds * 1e-9;
    return ct_bench_row(bench,
                        json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "op", op, "m",
                                  (json_int_t)m, "n", (json_int_t)n, "threads", (json_int_t)threads,
                                  "us", seconds * 1e6, "gbytes_per_s", rate, "memory_gbytes_per_s",
                                  memory, "ratio", rate / memory));
}

/* Rows as workload M has them. */
static enum ct_err rows(struct ct_bench *bench, uint32_t threads, double memory) {
    const struct kernels *kernels = bench->user;
    const char *op;
    for (size_t i = 0; (op = ct_trial_row_op(i)) != NULL; i++) {
        if (!wanted(kernels, op)) {
            continue;
        }
        const size_t n = strcmp(op, "cross_entropy") == 0       ? 50257
                         : strcmp(op, "attention_softmax") == 0 ? 256
                         : strncmp(op, "layernorm", 9) == 0     ? 768
                                                                : 3072;
        const struct ct_trial_options options = {.op = op, .m = 512, .n = n, .threads = threads};
        struct ct_trial *trial;
        CT_TRY(ct_trial_open(&options, &trial));
        const struct ct_rival alone = {run_trial, trial};
        double seconds;
        ct_bench_best(&alone, 1, bench->seconds, &seconds);
        const double bytes = ct_trial_bytes(trial);
        ct_trial_close(trial);
        CT_TRY(memory_row(bench, op, options.m, options.n, threads, bytes, seconds, memory));
    }
    return CT_OK;
}

struct adamw {
    const struct ct_layout *layout;
    struct ct_train_state state;
    struct ct_adamw constants;
    float *gradient;
};

static void run_adamw(void *context) {
    struct adamw *adamw = context;
    (void)ct_adamw_step(&adamw->constants, adamw->layout, &adamw->state, adamw->gradient, 1.0f,
                        1e-4f);
}

/* Reads the gradient for its norm, then θ, m, v and the gradient again, and writes θ, m, v. */
enum { ADAMW_BYTES = 4 + 16 + 12 };

static enum ct_err adamw_step(struct ct_bench *bench, struct adamw *self, double memory) {
    const size_t count = self->layout->parameters;
    ct_bench_model(self->layout, self->state.theta);
    ct_bench_noise(self->gradient, count, 1e-4f, 3);
    const struct ct_rival alone = {run_adamw, self};
    double seconds;
    ct_bench_best(&alone, 1, bench->seconds, &seconds);
    return memory_row(bench, "adamw", 1, count, self->state.threads, ADAMW_BYTES * (double)count,
                      seconds, memory);
}

static enum ct_err adamw(struct ct_bench *bench, uint32_t threads, double memory) {
    struct ct_layout layout;
    struct adamw self = {.layout = &layout, .constants = ct_adamw_default()};
    CT_TRY(ct_layout_init(&layout, &ct_workload_find("S")->shape));
    enum ct_err err = ct_train_state_init(&self.state, &layout, false);
    self.state.threads = threads;
    self.gradient = malloc(layout.parameters * sizeof(float));
    if (err == CT_OK && self.gradient == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for %zu gradients", layout.parameters);
    }
    if (err == CT_OK) {
        err = adamw_step(bench, &self, memory);
    }
    free(self.gradient);
    ct_train_state_deinit(&self.state);
    ct_layout_deinit(&layout);
    return err;
}

static bool any_rows(const struct kernels *kernels) {
    bool any = wanted(kernels, "adamw");
    for (size_t i = 0; ct_trial_row_op(i) != NULL; i++) {
        any = any || wanted(kernels, ct_trial_row_op(i));
    }
    return any;
}

static enum ct_err run_threads(struct ct_bench *bench, uint32_t threads) {
    const struct kernels *kernels = bench->user;
    if (wanted(kernels, "matmul")) {
        CT_TRY(matmuls(bench, threads));
    }
    CT_TRY(attentions(bench, threads));
    if (!any_rows(kernels)) {
        return CT_OK;
    }
    double memory;
    CT_TRY(ct_bench_bandwidth(threads, bench->seconds, &memory));
    CT_TRY(rows(bench, threads, memory));
    return wanted(kernels, "adamw") ? adamw(bench, threads, memory) : CT_OK;
}

static enum ct_err run(struct ct_bench *bench) {
    struct kernels *kernels = bench->user;
    if (kernels->layer_count == 0) {
        memcpy(kernels->layers, gpt2_layers, sizeof gpt2_layers);
        kernels->layer_count = sizeof gpt2_layers / sizeof gpt2_layers[0];
    }
    if (!bench->threads_given && bench->threads > 1) {
        CT_TRY(run_threads(bench, 1));
    }
    return run_threads(bench, bench->threads);
}

static enum ct_err take_shape(struct kernels *kernels, const char *text) {
    unsigned values[3];
    int length = 0;
    const int found = sscanf(text, "%5u,%5u,%5u%n", &values[0], &values[1], &values[2], &length);
    if (found != 3 || text[length] != '\0' || values[0] == 0 || values[1] == 0 || values[2] == 0) {
        return ct_fail(CT_ERR_USAGE, "--shape takes M,N,K, each from 1 to 99999");
    }
    if (kernels->layer_count == SHAPES_MAX) {
        return ct_fail(CT_ERR_USAGE, "--shape: at most %d of them", SHAPES_MAX);
    }
    kernels->layers[kernels->layer_count++] = (struct layer){values[0], values[1], values[2]};
    return CT_OK;
}

static enum ct_err take_op(struct kernels *kernels, const char *text) {
    kernels->op = text;
    const bool known = strcmp(text, "matmul") == 0 || strcmp(text, attention_ops[0]) == 0 ||
                       strcmp(text, attention_ops[1]) == 0 || any_rows(kernels);
    return known ? CT_OK
                 : ct_fail(CT_ERR_USAGE,
                           "--op takes matmul, attention_forward, attention_backward, adamw or an "
                           "operation by rows, such as gelu; all are measured without it");
}

static enum ct_err take(struct ct_bench *bench, int option, const char *text) {
    struct kernels *kernels = bench->user;
    switch (option) {
    case OPTION_SHAPE:
        return take_shape(kernels, text);
    case OPTION_FORM:
        kernels->form = text;
        return is("NT", text) || is("NN", text) || is("TN", text)
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--form takes NT, NN or TN");
    case OPTION_TYPE:
        kernels->type = text;
        return is(type_names[FP32], text) || is(type_names[BF16], text)
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--type takes fp32 or bf16");
    default:
        return take_op(kernels, text);
    }
}

int ct_bench_kernels(int argc, char **argv) {
    static const struct option options[] = {
        {"op", required_argument, NULL, OPTION_OP},
        {"shape", required_argument, NULL, OPTION_SHAPE},
        {"form", required_argument, NULL, OPTION_FORM},
        {"type", required_argument, NULL, OPTION_TYPE},
        {NULL, 0, NULL, 0},
    };
    struct kernels kernels = {.op = NULL};
    struct ct_bench bench = {.name = "kernels",
                             .usage = usage,
                             .options = options,
                             .take = take,
                             .run = run,
                             .user = &kernels};
    return ct_bench_main(&bench, argc, argv);
}
