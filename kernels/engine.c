#include <cotrain/engine.h>

#include <cotrain/assert.h>
#include <cotrain/isa.h>
#include <cotrain/pairwise.h>

#include "gpt2.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    THREADS_MAX = 1024,
    LINE = 64,
    HUGE_PAGE = 2 << 20,
    MICRO_TOKENS = 4096, /* of a micro-batch that the engine chooses */
    STEP_TOKENS_MAX = 1 << 28,
};

static const struct {
    const char *name;
    enum ct_numerics numerics;
} names[] = {
    {"bf16-1", CT_NUMERICS_BF16_1},
    {"fp32-1", CT_NUMERICS_FP32_1},
    {"fast", CT_NUMERICS_FAST},
};

const char *ct_numerics_name(enum ct_numerics numerics) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].numerics == numerics) {
            return names[i].name;
        }
    }
    return "unknown";
}

enum ct_err ct_numerics_parse(const char *name, enum ct_numerics *out) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].numerics;
            return CT_OK;
        }
    }
    return ct_fail(CT_ERR_CONFIG, "numerics '%.32s' is not known: bf16-1, fp32-1 or fast", name);
}

/* Memory is handed out twice by the same text: once from nowhere, to measure, once from the arena.
 */
struct carve {
    uint8_t *base; /* NULL while measuring */
    size_t used;
};

static void *take(struct carve *carve, size_t bytes) {
    void *place = carve->base != NULL ? carve->base + carve->used : NULL;
    carve->used += (bytes + LINE - 1) / LINE * LINE;
    return place;
}

static float *take_floats(struct carve *carve, size_t count) {
    return take(carve, count * sizeof(float));
}

static void carve_kept(struct ct_engine *e, struct carve *carve, size_t rows) {
    const size_t d = e->layout->shape.width, layers = e->layout->shape.layers;
    const size_t leaf = (size_t)e->options.batch / e->options.leaves * e->layout->shape.context;
    const size_t operand = rows * d * e->operand_bytes;
    float **stream = take(carve, (layers + 1) * sizeof *stream);
    struct ct_gpt2_kept *kept = take(carve, layers * sizeof *kept);
    for (size_t layer = 0; layer <= layers; layer++) {
        float *values = take_floats(carve, rows * d);
        if (stream != NULL) {
            stream[layer] = values;
        }
    }
    for (size_t layer = 0; layer < layers; layer++) {
        struct ct_gpt2_kept one = {
            .middle = take_floats(carve, rows * d),
            .mean_1 = take_floats(carve, rows),
            .rstd_1 = take_floats(carve, rows),
            .mean_2 = take_floats(carve, rows),
            .rstd_2 = take_floats(carve, rows),
            .norm_1 = take(carve, operand),
            .qkv = take(carve, 3 * operand),
            .attention = take(carve, operand),
            .norm_2 = take(carve, operand),
            .before_gelu = take(carve, 4 * operand),
            .activation = take(carve, 4 * operand),
        };
        if (kept != NULL) {
            kept[layer] = one;
        }
    }
    e->stream = stream;
    e->kept = kept;
    e->mean_f = take_floats(carve, rows);
    e->rstd_f = take_floats(carve, rows);
    e->norm_f = take(carve, operand);
    e->losses = take_floats(carve, leaf > rows ? leaf : rows);
}

static void carve_attention(struct ct_engine *e, struct carve *carve) {
    const size_t head = e->layout->shape.width / e->layout->shape.heads;
    const size_t scores = (size_t)CT_QUERY_BLOCK * e->layout->shape.context;
    struct ct_attention_scratch *all = take(carve, e->options.threads * sizeof *all);
    for (uint32_t thread = 0; thread < e->options.threads; thread++) {
        const struct ct_attention_scratch one = {
            .p = take_floats(carve, scores),
            .dp = take_floats(carve, scores),
            .out = take_floats(carve, CT_QUERY_BLOCK * head),
            .p_operand = take(carve, scores * e->operand_bytes),
            .ds_operand = take(carve, scores * e->operand_bytes),
            .g_operand = take(carve, CT_QUERY_BLOCK * head * e->operand_bytes),
        };
        if (all != NULL) {
            all[thread] = one;
        }
    }
    e->attention = all;
}

static void carve_scratch(struct ct_engine *e, struct carve *carve, size_t rows) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t d = shape->width, vocab = shape->vocab;
    const size_t leaf = (size_t)e->options.batch / e->options.leaves * shape->context;
    const size_t operand = rows * d * e->operand_bytes;
    const size_t head_rows = rows < CT_HEAD_ROWS ? rows : CT_HEAD_ROWS;
    e->wide = take_floats(carve, 4 * rows * d);
    e->narrow = take_floats(carve, rows * d);
    e->d_norm_f = take_floats(carve, rows * d);
    for (int i = 0; i < 3; i++) {
        e->d_stream[i] = take_floats(carve, rows * d);
    }
    e->d_out = take(carve, operand);
    e->d_middle = take(carve, operand);
    e->d_wide = take(carve, 4 * operand);
    e->d_norm_2 = take_floats(carve, rows * d);
    e->d_norm_1 = take_floats(carve, rows * d);
    e->d_attention = take_floats(carve, rows * d);
    e->d_qkv = take_floats(carve, 3 * rows * d);
    e->d_qkv_operand = take(carve, 3 * operand);
    e->d_embedding = take_floats(carve, leaf * d);
    e->logits = take_floats(carve, head_rows * vocab);
    e->d_logits = take(carve, head_rows * vocab * e->operand_bytes);
    carve_attention(e, carve);
}

static void carve_all(struct ct_engine *e, struct carve *carve, struct ct_engine_plan *plan) {
    const size_t rows = (size_t)e->options.micro_batch * e->layout->shape.context;
    carve_kept(e, carve, rows);
    plan->activations = carve->used;
    for (uint32_t i = 0; i < e->spare_count; i++) {
        e->spare[i] = take_floats(carve, e->layout->parameters);
    }
    plan->gradients = carve->used - plan->activations;
    if (e->options.numerics == CT_NUMERICS_BF16_1) {
        e->rounded = take(carve, e->layout->parameters * sizeof *e->rounded);
    }
    plan->packed_weights = carve->used - plan->activations - plan->gradients;
    carve_scratch(e, carve, rows);
    plan->scratch = carve->used - plan->activations - plan->gradients - plan->packed_weights;
    plan->total = carve->used;
}

/* Whole sequences, and even numbers of tokens but at a leaf's end: chains pair tokens (E3, E6). */
static uint32_t settle_micro_batch(const struct ct_layout *layout, uint32_t wanted, uint32_t leaf) {
    const uint32_t context = layout->shape.context;
    uint32_t micro = wanted;
    if (micro == 0) {
        micro = MICRO_TOKENS / context > 0 ? MICRO_TOKENS / context : 1;
    }
    if (context % 2 != 0 && micro % 2 != 0) {
        micro++;
    }
    return micro < leaf ? micro : leaf;
}

static enum ct_err settle(struct ct_engine *e, const struct ct_layout *layout,
                          const struct ct_engine_options *options) {
    e->layout = layout;
    e->options = *options;
    const uint32_t leaves = options->leaves, batch = options->batch;
    const uint32_t ranks = options->ranks > 1 ? options->ranks : 1;
    if (options->numerics != CT_NUMERICS_BF16_1 && options->numerics != CT_NUMERICS_FP32_1 &&
        options->numerics != CT_NUMERICS_FAST) {
        return ct_fail(CT_ERR_CONFIG, "engine: unknown numerics");
    }
    if (leaves == 0 || leaves > CT_LEAVES_MAX || (leaves & (leaves - 1)) != 0) {
        return ct_fail(CT_ERR_CONFIG, "engine: leaves is %u, must be 1, 2, 4, 8 or 16", leaves);
    }
    if (batch == 0 || batch % leaves != 0) {
        return ct_fail(CT_ERR_CONFIG, "engine: batch %u is not a positive multiple of %u leaves",
                       batch, leaves);
    }
    if ((ranks & (ranks - 1)) != 0 || ranks > CT_LEAVES_MAX / leaves) {
        return ct_fail(CT_ERR_CONFIG,
                       "engine: %u ranks of %u leaves; a power of two, with at most %d leaves in "
                       "all, is possible",
                       ranks, leaves, CT_LEAVES_MAX);
    }
    if ((uint64_t)batch * ranks * layout->shape.context > STEP_TOKENS_MAX) {
        return ct_fail(CT_ERR_CONFIG, "engine: batch %u × context %u is more than %d tokens",
                       batch * ranks, layout->shape.context, STEP_TOKENS_MAX);
    }
    e->options.ranks = ranks;
    if (options->micro_batch > batch / leaves) {
        return ct_fail(CT_ERR_CONFIG, "engine: micro-batch %u is more than the %u of a leaf",
                       options->micro_batch, batch / leaves);
    }
    if (options->threads > THREADS_MAX) {
        return ct_fail(CT_ERR_CONFIG, "engine: %u threads, at most %d", options->threads,
                       THREADS_MAX);
    }
    const int all = omp_get_max_threads();
    if (options->threads == 0) {
        e->options.threads = all < THREADS_MAX ? (uint32_t)all : THREADS_MAX;
    }
    e->options.micro_batch = settle_micro_batch(layout, options->micro_batch, batch / leaves);
    while (1u << e->spare_count < leaves) {
        e->spare_count++;
    }
    e->operand_bytes = ct_operand_bytes(options->numerics);
    return CT_OK;
}

enum ct_err ct_engine_plan(const struct ct_layout *layout, const struct ct_engine_options *options,
                           struct ct_engine_plan *out) {
    struct ct_engine engine = {0};
    CT_TRY(settle(&engine, layout, options));
    carve_all(&engine, &(struct carve){0}, out);
    return CT_OK;
}

static size_t offset_of(const struct ct_layout *layout, const char *name) {
    const struct ct_tensor *tensor = ct_layout_find(layout, name);
    CT_ASSERT(tensor != NULL);
    return tensor->offset;
}

static struct ct_linear_place find_linear(const struct ct_layout *layout, const char *prefix,
                                          const char *name) {
    char weight[CT_TENSOR_NAME_MAX], bias[CT_TENSOR_NAME_MAX];
    snprintf(weight, sizeof weight, "%s%s.weight", prefix, name);
    snprintf(bias, sizeof bias, "%s%s.bias", prefix, name);
    return (struct ct_linear_place){offset_of(layout, weight), offset_of(layout, bias)};
}

/* The tensors whose names begin so: neighbours, in byte order of names. */
static struct ct_span span_of(const struct ct_layout *layout, const char *prefix) {
    struct ct_span span = {layout->parameters, 0};
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        if (strncmp(tensor->name, prefix, strlen(prefix)) == 0) {
            span.begin = tensor->offset < span.begin ? tensor->offset : span.begin;
            span.end = tensor->offset + (size_t)tensor->rows * tensor->columns;
        }
    }
    CT_ASSERT(span.begin < span.end);
    return span;
}

static enum ct_err find_places(const struct ct_layout *layout, struct ct_gpt2_places *out) {
    out->layers = calloc(layout->shape.layers, sizeof *out->layers);
    if (out->layers == NULL) {
        return ct_fail(CT_ERR_MEMORY, "engine: no memory for %u layers", layout->shape.layers);
    }
    for (uint32_t i = 0; i < layout->shape.layers; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "transformer.h.%u.", i);
        out->layers[i] = (struct ct_gpt2_layer){
            .ln_1 = find_linear(layout, prefix, "ln_1"),
            .qkv = find_linear(layout, prefix, "attn.c_attn"),
            .projection = find_linear(layout, prefix, "attn.c_proj"),
            .ln_2 = find_linear(layout, prefix, "ln_2"),
            .fc = find_linear(layout, prefix, "mlp.c_fc"),
            .fc_projection = find_linear(layout, prefix, "mlp.c_proj"),
            .all = span_of(layout, prefix),
        };
    }
    out->wte = offset_of(layout, "transformer.wte.weight");
    out->wpe = offset_of(layout, "transformer.wpe.weight");
    out->ln_f = find_linear(layout, "transformer.", "ln_f");
    out->all_layers = span_of(layout, "transformer.h.");
    return CT_OK;
}

enum ct_err ct_engine_open(const struct ct_layout *layout, const struct ct_engine_options *options,
                           struct ct_engine **out) {
    struct ct_engine_plan plan;
    enum ct_err err = ct_isa_start();
    struct ct_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) {
        return ct_fail(CT_ERR_MEMORY, "engine: no memory");
    }
    if (err == CT_OK) {
        err = settle(engine, layout, options);
    }
    if (err == CT_OK) {
        err = find_places(layout, &engine->places);
    }
    if (err != CT_OK) {
        goto out;
    }
    carve_all(engine, &(struct carve){0}, &plan);
    const size_t bytes = (plan.total + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    engine->arena = aligned_alloc(HUGE_PAGE, bytes);
    if (engine->arena == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "engine: %zu MiB are not to be had; try a smaller micro-batch",
                      bytes >> 20);
        goto out;
    }
    /* Advice only: without huge pages the engine is slower, not wrong. */
    (void)madvise(engine->arena, bytes, MADV_HUGEPAGE);
    carve_all(engine, &(struct carve){.base = engine->arena}, &plan);
out:
    if (err != CT_OK) {
        ct_engine_close(engine);
        return err;
    }
    *out = engine;
    return CT_OK;
}

void ct_engine_close(struct ct_engine *engine) {
    if (engine == NULL) {
        return;
    }
    free(engine->arena);
    free(engine->places.layers);
    free(engine);
}
