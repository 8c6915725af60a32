#include <cotrain/engine.h>

#include <cotrain/assert.h>
#include <cotrain/isa.h>
#include <cotrain/mode.h>
#include <cotrain/pages.h>
#include <cotrain/pairwise.h>

#include "block.h"
#include "fork_join.h"
#include "matmul.h"
#include "rope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    THREADS_MAX = 1024,
    LINE = 64,
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

/* An operand array beside a float array of the same values: under fp32 they are one. */
static void *take_operand(const struct ct_engine *e, struct carve *carve, void *floats,
                          size_t count) {
    return e->options.numerics == CT_NUMERICS_BF16_1 ? take(carve, count * e->operand_bytes)
                                                     : floats;
}

static struct ct_kept carve_kept(const struct ct_engine *e, struct carve *carve, size_t rows) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t operand = rows * e->operand_bytes;
    struct ct_kept kept = {
        .middle = take_floats(carve, rows * shape->width),
        .mean_1 = take_floats(carve, rows),
        .rstd_1 = take_floats(carve, rows),
        .mean_2 = take_floats(carve, rows),
        .rstd_2 = take_floats(carve, rows),
        .norm_1 = take(carve, operand * shape->width),
        .qkv = take(carve, operand * e->qkv_width),
        .attention = take(carve, operand * shape->width),
        .norm_2 = take(carve, operand * shape->width),
        .activation = take(carve, operand * shape->hidden),
    };
    for (uint32_t i = 0; i < e->places.blocks[0].up_count; i++) {
        kept.before[i] = take(carve, operand * shape->hidden);
    }
    return kept;
}

static void carve_activations(struct ct_engine *e, struct carve *carve, size_t rows) {
    const size_t d = e->layout->shape.width, layers = e->layout->shape.layers;
    const size_t leaf = (size_t)e->options.batch / e->options.leaves * e->layout->shape.context;
    float **stream = take(carve, (layers + 1) * sizeof *stream);
    struct ct_kept *kept = take(carve, layers * sizeof *kept);
    struct ct_kept block = {0};
    for (size_t layer = 0; layer <= layers; layer++) {
        float *values = take_floats(carve, rows * d);
        if (stream != NULL) {
            stream[layer] = values;
        }
    }
    for (size_t layer = 0; layer < layers; layer++) {
        if (layer == 0 || !e->options.recompute) {
            block = carve_kept(e, carve, rows);
        }
        if (kept != NULL) {
            kept[layer] = block;
        }
    }
    e->stream = stream;
    e->kept = kept;
    e->mean_f = take_floats(carve, rows);
    e->rstd_f = take_floats(carve, rows);
    e->norm_f = take(carve, rows * d * e->operand_bytes);
    e->losses = take_floats(carve, leaf > rows ? leaf : rows);
    e->d_embedding = take_floats(carve, leaf * d);
}

/* More queries at once mean that keys and values are packed less often; the scratch should stay in
 * L2. */
static size_t settle_query_block(size_t context) {
    return context <= 256 ? CT_QUERY_BLOCK_MAX : CT_QUERY_BLOCK_MAX / 2;
}

static void carve_hands(struct ct_engine *e, struct carve *carve) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t head = shape->width / shape->heads;
    const size_t scores = e->query_block * shape->context;
    struct ct_hand_scratch *all = take(carve, e->options.threads * sizeof *all);
    for (uint32_t hand = 0; hand < e->options.threads; hand++) {
        struct ct_hand_scratch one = {
            .row = take_floats(carve, shape->width),
            .p = take_floats(carve, scores),
            .dp = take_floats(carve, scores),
            .out = take_floats(carve, e->query_block * head),
        };
        one.p_operand = take_operand(e, carve, one.p, scores);
        one.ds_operand = take_operand(e, carve, one.dp, scores);
        one.g_operand = take_operand(e, carve, one.out, e->query_block * head);
        if (all != NULL) {
            all[hand] = one;
        }
    }
    e->scratch = all;
}

/* As many tokens as fit into CT_LOGITS_BYTES, in chunks of one size, whole groups of 16. */
static size_t settle_head_rows(size_t rows, size_t vocab) {
    const size_t groups = (rows + 15) / 16;
    const size_t most = CT_LOGITS_BYTES / (16 * vocab * sizeof(float));
    const size_t chunks = most > 0 ? (groups + most - 1) / most : groups;
    return (groups + chunks - 1) / chunks * 16;
}

static void carve_scratch(struct ct_engine *e, struct carve *carve, size_t rows) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t d = shape->width;
    e->room = (struct ct_room){take_floats(carve, CT_MATMUL_ROOM), CT_MATMUL_ROOM};
    for (uint32_t i = 0; i < e->places.blocks[0].up_count; i++) {
        e->d_up[i] = take(carve, rows * shape->hidden * e->operand_bytes);
    }
    if (shape->arch == CT_ARCH_LLAMA) {
        e->gate = take_floats(carve, rows * shape->hidden);
    }
    e->qkv_float = take_floats(carve, rows * e->qkv_width);
    e->d_qkv = take_operand(e, carve, e->qkv_float, rows * e->qkv_width);
    for (int i = 0; i < 2; i++) {
        e->d_stream[i] = take_floats(carve, rows * d);
    }
    e->d_out = take(carve, rows * d * e->operand_bytes);
    e->d_norm = take_floats(carve, rows * d);
    e->d_attention = take_floats(carve, rows * d);
    e->query_block = settle_query_block(shape->context);
    e->head_rows = settle_head_rows(rows, shape->vocab);
    e->logits = take_floats(carve, e->head_rows * shape->vocab);
    if (shape->arch == CT_ARCH_LLAMA) {
        const size_t half = shape->width / shape->heads / 2;
        e->cosine = take_floats(carve, shape->context * half);
        e->sine = take_floats(carve, shape->context * half);
    }
    carve_hands(e, carve);
}

static void carve_all(struct ct_engine *e, struct carve *carve, struct ct_engine_plan *plan) {
    const size_t rows = (size_t)e->options.micro_batch * e->layout->shape.context;
    carve_activations(e, carve, rows);
    plan->activations = carve->used;
    for (uint32_t i = 0; i < e->spare_count; i++) {
        e->spare[i] = take_floats(carve, e->layout->parameters);
    }
    plan->gradients = carve->used - plan->activations;
    carve_scratch(e, carve, rows);
    plan->scratch = carve->used - plan->activations - plan->gradients;
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
    if (options->numerics == CT_NUMERICS_FAST && !ct_blas_present()) {
        return ct_fail(CT_ERR_UNSUPPORTED, "engine: this build is without OpenBLAS, which numerics "
                                           "'fast' is; take bf16-1 or fp32-1");
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
    if (options->threads == 0) {
        const size_t all = ct_fork_width(0);
        e->options.threads = all < THREADS_MAX ? (uint32_t)all : THREADS_MAX;
    }
    e->options.micro_batch = settle_micro_batch(layout, options->micro_batch, batch / leaves);
    while (1u << e->spare_count < leaves) {
        e->spare_count++;
    }
    e->operand_bytes = ct_operand_bytes(options->numerics);
    const struct ct_model_shape *shape = &layout->shape;
    e->qkv_width =
        (size_t)shape->width / shape->heads * (shape->heads + 2 * (size_t)shape->kv_heads);
    return CT_OK;
}

enum ct_err ct_engine_plan(const struct ct_layout *layout, const struct ct_engine_options *options,
                           struct ct_engine_plan *out) {
    struct ct_engine engine = {0};
    CT_TRY(settle(&engine, layout, options));
    CT_TRY(ct_places_init(&engine.places, layout));
    carve_all(&engine, &(struct carve){0}, out);
    ct_places_deinit(&engine.places);
    return CT_OK;
}

static void fill_tables(struct ct_engine *e) {
    const struct ct_model_shape *shape = &e->layout->shape;
    if (shape->arch == CT_ARCH_LLAMA) {
        const struct ct_mode mode = ct_mode_enter();
        ct_rope_table(e->cosine, e->sine, shape->context, shape->width / shape->heads / 2,
                      shape->rope_theta);
        ct_mode_leave(mode);
    }
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
        err = ct_places_init(&engine->places, layout);
    }
    if (err != CT_OK) {
        goto out;
    }
    carve_all(engine, &(struct carve){0}, &plan);
    engine->arena = ct_pages_reserve(plan.total);
    if (engine->arena == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "engine: %zu MiB are not to be had; try a smaller micro-batch",
                      plan.total >> 20);
        goto out;
    }
    carve_all(engine, &(struct carve){.base = engine->arena}, &plan);
    fill_tables(engine);
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
    ct_places_deinit(&engine->places);
    free(engine);
}
