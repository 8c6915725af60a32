/* cotrain bench gradients: the loss and every gradient of one batch, for another framework to agree
 * with. */
#include "bench.h"
#include "option.h"
#include "token_file.h"

#include <cotrain/engine.h>
#include <cotrain/fold.h>
#include <cotrain/model_dir.h>
#include <cotrain/optimizer.h>
#include <cotrain/safetensors.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: cotrain bench gradients MODEL_DIR TOKENS OUT.safetensors [OPTIONS]\n"
    "\n"
    "Writes the gradient of the mean loss of one batch, one tensor for each of the model's, with "
    "its\n"
    "name and shape; the file's metadata has loss, numerics, batch, length and the model's "
    "digest.\n"
    "tests/bench/compare_gradients computes the same in PyTorch with binary64.\n"
    "\n"
    "  MODEL_DIR        config.json and model.safetensors in Hugging Face's layout\n"
    "  TOKENS           a file of little-endian ids, 2 bytes each for a vocabulary of at most "
    "65536\n"
    "                   tokens, else 4; or ids with commas between: 3,1,4. They are sequences of\n"
    "                   --length + 1 tokens each, the last of which is only predicted.\n"
    "  --length N       predictions in a sequence, at most the model's context (as many as there\n"
    "                   are tokens for, at most the context)\n"
    "  --numerics NAME  bf16-1, fp32-1 or fast (fp32-1)\n"
    "  --leaves N       1, 2, 4, 8 or 16 partial sums of the gradient (1)\n"
    "  --micro-batch N  sequences in memory at once (chosen)\n" CT_BENCH_USAGE_UNTIMED;

enum { OPTION_LENGTH = 1, OPTION_NUMERICS, OPTION_LEAVES, OPTION_MICRO };

struct gradients {
    uint32_t length;
    struct ct_engine_options options;
    struct ct_layout layout; /* of the model */
    struct ct_layout used;   /* the same with `length` for context: fewer rows of positions */
    float *theta, *used_theta;
    float *gradient, *used_gradient;
    uint32_t *tokens;
    float loss;
};

/* Copies every tensor's first rows, as many as both layouts have. */
static void copy_rows(const struct ct_layout *to_layout, float *to,
                      const struct ct_layout *from_layout, const float *from) {
    for (uint32_t i = 0; i < to_layout->tensor_count; i++) {
        const struct ct_tensor *target = &to_layout->tensors[i];
        const struct ct_tensor *source = &from_layout->tensors[i];
        const uint32_t rows = target->rows < source->rows ? target->rows : source->rows;
        memcpy(to + target->offset, from + source->offset,
               (size_t)rows * target->columns * sizeof(float));
    }
}

/* How many tokens there are decides the batch. */
static enum ct_err settle_batch(struct gradients *self, size_t count) {
    const uint32_t context = self->layout.shape.context;
    if (self->length > context) {
        return ct_fail(CT_ERR_CONFIG, "--length %u is more than the model's context of %u",
                       self->length, context);
    }
    if (count < 2) {
        return ct_fail(CT_ERR_CONFIG, "one token predicts nothing: give at least two");
    }
    if (self->length == 0) {
        self->length = count - 1 < context ? (uint32_t)(count - 1) : context;
    }
    const size_t row = (size_t)self->length + 1;
    if (count % row != 0 || count / row > UINT32_MAX) {
        return ct_fail(CT_ERR_CONFIG,
                       "%zu tokens are not sequences of %zu: --length %u and the one after", count,
                       row, self->length);
    }
    self->options.batch = (uint32_t)(count / row);
    return CT_OK;
}

static enum ct_err prepare(struct gradients *self, const char *dir, const char *tokens) {
    size_t count;
    CT_TRY(ct_model_load(dir, &self->layout, &self->theta));
    CT_TRY(ct_tokens_read(tokens, self->layout.shape.vocab, &self->tokens, &count));
    CT_TRY(settle_batch(self, count));
    struct ct_model_shape shape = self->layout.shape;
    shape.context = self->length;
    CT_TRY(ct_layout_init(&self->used, &shape));
    self->gradient = calloc(self->layout.parameters, sizeof(float));
    self->used_theta = malloc(self->used.parameters * sizeof(float));
    self->used_gradient = malloc(self->used.parameters * sizeof(float));
    if (self->gradient == NULL || self->used_theta == NULL || self->used_gradient == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for gradients of %zu parameters",
                       self->layout.parameters);
    }
    copy_rows(&self->used, self->used_theta, &self->layout, self->theta);
    return CT_OK;
}

static enum ct_err save(const struct gradients *self, const char *path) {
    const struct ct_hash digest = ct_model_digest(&self->layout, self->theta);
    char hex[CT_HEX_BYTES], loss[32], batch[16], length[16];
    ct_hash_hex(&digest, hex);
    snprintf(loss, sizeof loss, "%.9g", (double)self->loss);
    snprintf(batch, sizeof batch, "%u", self->options.batch);
    snprintf(length, sizeof length, "%u", self->length);
    const struct ct_safetensors_note notes[] = {
        {"loss", loss},        {"numerics", ct_numerics_name(self->options.numerics)},
        {"batch", batch},      {"length", length},
        {"model_sha256", hex},
    };
    return ct_safetensors_save(path, &self->layout, self->gradient, notes,
                               sizeof notes / sizeof notes[0]);
}

static enum ct_err compute(struct ct_bench *bench, struct gradients *self) {
    struct ct_engine *engine;
    self->options.threads = bench->threads;
    CT_TRY(ct_engine_open(&self->used, &self->options, &engine));
    ct_engine_gradient(engine, self->used_theta, self->tokens, self->used_gradient, &self->loss);
    ct_engine_close(engine);
    copy_rows(&self->layout, self->gradient, &self->used, self->used_gradient);
    const double norm = ct_gradient_norm(&self->layout, self->gradient, bench->threads);
    CT_TRY(save(self, bench->argument[2]));
    return ct_bench_row(
        bench, json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f}", "out", bench->argument[2],
                         "numerics", ct_numerics_name(self->options.numerics), "parameters",
                         (json_int_t)self->layout.parameters, "batch",
                         (json_int_t)self->options.batch, "length", (json_int_t)self->length,
                         "loss", (double)self->loss, "gradient_norm", norm));
}

static enum ct_err run(struct ct_bench *bench) {
    struct gradients *self = bench->user;
    enum ct_err err = prepare(self, bench->argument[0], bench->argument[1]);
    if (err == CT_OK) {
        err = compute(bench, self);
    }
    free(self->tokens);
    free(self->used_gradient);
    free(self->used_theta);
    free(self->gradient);
    free(self->theta);
    ct_layout_deinit(&self->used);
    ct_layout_deinit(&self->layout);
    return err;
}

static enum ct_err take(struct ct_bench *bench, int option, const char *text) {
    struct gradients *self = bench->user;
    switch (option) {
    case OPTION_LENGTH:
        return ct_option_u32("length", text, 1, CT_CONTEXT_MAX, &self->length);
    case OPTION_NUMERICS:
        return ct_numerics_parse(text, &self->options.numerics) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--numerics takes bf16-1, fp32-1 or fast");
    case OPTION_LEAVES:
        return ct_option_u32("leaves", text, 1, 16, &self->options.leaves);
    default:
        return ct_option_u32("micro-batch", text, 0, 1u << 20, &self->options.micro_batch);
    }
}

int ct_bench_gradients(int argc, char **argv) {
    static const struct option options[] = {
        {"length", required_argument, NULL, OPTION_LENGTH},
        {"numerics", required_argument, NULL, OPTION_NUMERICS},
        {"leaves", required_argument, NULL, OPTION_LEAVES},
        {"micro-batch", required_argument, NULL, OPTION_MICRO},
        {NULL, 0, NULL, 0},
    };
    struct gradients self = {.options = {.numerics = CT_NUMERICS_FP32_1, .leaves = 1}};
    struct ct_bench bench = {.name = "gradients",
                             .usage = usage,
                             .options = options,
                             .arguments = 3,
                             .untimed = true,
                             .take = take,
                             .run = run,
                             .user = &self};
    return ct_bench_main(&bench, argc, argv);
}
