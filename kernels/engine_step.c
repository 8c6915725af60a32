/* A step: leaves, their micro-batches, and the sums over them (numerics.md E6). */
#include <cotrain/assert.h>
#include <cotrain/pairwise.h>

#include "block.h"

#include <string.h>

/* The embeddings' gradients, in token order; a tied one's where the head's chain ended. Hands take
 * columns. */
static void embedding_gradient(const struct ct_engine *e, const uint32_t *tokens, size_t sequences,
                               struct ct_hand hand) {
    const size_t d = e->layout->shape.width, context = e->layout->shape.context;
    const struct ct_span span = ct_share(hand, d, CT_ROW_GRAIN);
    const size_t n = span.end - span.begin;
    for (size_t row = 0; row < sequences * context; row++) {
        const size_t position = row % context;
        const size_t token = tokens[row / context * (context + 1) + position];
        const float *dx = e->d_embedding + row * d + span.begin;
        float *sum = e->gradient + e->places.tokens + token * d + span.begin;
        ct_ops.add(sum, sum, dx, n);
        if (e->places.positions != CT_ABSENT) {
            sum = e->gradient + e->places.positions + position * d + span.begin;
            ct_ops.add(sum, sum, dx, n);
        }
    }
    ct_barrier(hand);
}

/* Leaves are added as a binary counter counts: the sum of the leaves [s, s + 2^l) stands in the
 * buffer of leaf s, and leaf s takes the buffer that its lowest bit names, which is free by then.
 */
static float *leaf_buffer(const struct ct_engine *e, uint32_t leaf) {
    return leaf == 0 ? e->total : e->spare[__builtin_ctz(leaf)];
}

void ct_engine_finish(struct ct_engine *e, struct ct_span range, struct ct_hand hand) {
    const struct ct_span share = ct_share(hand, range.end - range.begin, 1024);
    const size_t from = range.begin + share.begin, count = share.end - share.begin;
    /* As many of the leaf's low bits are ones, so many subtrees end with it. */
    for (uint32_t half = 1; (e->leaf & half) != 0; half *= 2) {
        const uint32_t right = e->leaf + 1 - half;
        float *sum = leaf_buffer(e, right - half) + from;
        ct_ops.add(sum, sum, leaf_buffer(e, right) + from, count);
    }
    if (e->ready == NULL || e->leaf + 1 < e->options.leaves) {
        return;
    }
    ct_barrier(hand);
    if (hand.me == 0 && range.begin < range.end) {
        e->ready->told(e->ready->context, range.begin, range.end);
    }
}

/* Zeroes what is only added to: all but the matrices, whose first chain starts from +0. Nobody adds
 * before the forward pass, with its barriers, is over. */
static void clear_sums(const struct ct_engine *e, struct ct_hand hand) {
    for (uint32_t i = 0; i < e->layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &e->layout->tensors[i];
        if (tensor->kind != CT_TENSOR_MATRIX && tensor->offset != e->places.head.weight) {
            const struct ct_span span =
                ct_share(hand, (size_t)tensor->rows * tensor->columns, CT_ROW_GRAIN);
            memset(e->gradient + tensor->offset + span.begin, 0,
                   (span.end - span.begin) * sizeof *e->gradient);
        }
    }
}

/* The gradient of one leaf, from +0, into e->gradient; its tokens' losses into e->losses. */
static void run_leaf(struct ct_engine *e, const uint32_t *tokens, float factor,
                     struct ct_hand hand) {
    const size_t context = e->layout->shape.context, d = e->layout->shape.width;
    const size_t sequences = e->options.batch / e->options.leaves;
    const struct ct_span blocks = e->places.all_blocks;
    clear_sums(e, hand);
    for (size_t first = 0; first < sequences; first += e->options.micro_batch) {
        const size_t left = sequences - first;
        struct ct_micro micro = {
            .tokens = tokens + first * (context + 1),
            .stride = context + 1,
            .length = context,
            .sequences = left < e->options.micro_batch ? left : e->options.micro_batch,
            .first = first == 0,
            .last = left <= e->options.micro_batch,
        };
        micro.rows = micro.sequences * context;
        ct_forward(e, &micro, hand);
        ct_head_run(e, &micro, factor, e->losses + first * context, hand);
        ct_backward(e, &micro, e->d_embedding + first * context * d, hand);
    }
    embedding_gradient(e, tokens, sequences, hand);
    ct_engine_finish(e, (struct ct_span){0, blocks.begin}, hand);
    ct_engine_finish(e, (struct ct_span){blocks.end, e->layout->parameters}, hand);
}

/* The binary64 chain over a leaf's losses. */
static double sum_losses(const float *losses, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)losses[i];
    }
    return sum;
}

struct leaf {
    struct ct_engine *engine;
    const uint32_t *tokens;
    float factor;
};

static void leaf_body(void *context, struct ct_hand hand) {
    const struct leaf *leaf = context;
    run_leaf(leaf->engine, leaf->tokens, leaf->factor, hand);
}

/* All leaves into e->total; returns the sum of their losses, added in the same tree. */
static double run_leaves(struct ct_engine *e, const uint32_t *tokens, float factor) {
    const uint32_t leaves = e->options.leaves, sequences = e->options.batch / leaves;
    const size_t context = e->layout->shape.context;
    double sums[CT_LEAVES_MAX];
    for (e->leaf = 0; e->leaf < leaves; e->leaf++) {
        struct leaf leaf = {e, tokens + e->leaf * sequences * (context + 1), factor};
        e->gradient = leaf_buffer(e, e->leaf);
        ct_team(e->options.threads, leaf_body, &leaf);
        sums[e->leaf] = sum_losses(e->losses, sequences * context);
    }
    return ct_sum_pairwise(sums, leaves);
}

static void assert_tokens(const struct ct_engine *e, const uint32_t *tokens, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        largest = tokens[i] > largest ? tokens[i] : largest;
    }
    CT_ASSERT(largest < e->layout->shape.vocab);
}

static size_t step_tokens(const struct ct_engine *e) {
    return (size_t)e->options.batch * e->options.ranks * e->layout->shape.context;
}

double ct_engine_part(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      float *gradient, const struct ct_ready *ready) {
    assert_tokens(engine, tokens,
                  (size_t)engine->options.batch * (engine->layout->shape.context + 1));
    engine->theta = theta;
    engine->total = gradient;
    engine->ready = ready;
    return run_leaves(engine, tokens, 1.0f / (float)step_tokens(engine));
}

float ct_engine_mean_loss(const struct ct_engine *engine, double sum) {
    return (float)(sum / (double)step_tokens(engine));
}

void ct_engine_gradient(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                        float *gradient, float *out_loss) {
    CT_ASSERT(engine->options.ranks == 1);
    const double sum = ct_engine_part(engine, theta, tokens, gradient, NULL);
    *out_loss = ct_engine_mean_loss(engine, sum);
}

struct forward {
    struct ct_engine *engine;
    struct ct_micro micro;
    bool losses;
};

static void forward_body(void *context, struct ct_hand hand) {
    const struct forward *forward = context;
    ct_forward(forward->engine, &forward->micro, hand);
    if (forward->losses) {
        ct_head_run(forward->engine, &forward->micro, 0.0f, forward->engine->losses, hand);
    }
}

/* Forward of some sequences, in micro-batches; the losses' sum, or only norm_f when not asked. */
static double forward_only(struct ct_engine *e, const float *theta, struct ct_micro all,
                           bool losses) {
    e->theta = theta;
    double sum = 0.0;
    for (size_t first = 0; first < all.sequences; first += e->options.micro_batch) {
        const size_t left = all.sequences - first;
        struct forward forward = {e, all, losses};
        struct ct_micro *micro = &forward.micro;
        micro->tokens += first * all.stride;
        micro->sequences = left < e->options.micro_batch ? left : e->options.micro_batch;
        micro->rows = micro->sequences * micro->length;
        ct_team(e->options.threads, forward_body, &forward);
        if (losses) {
            sum += sum_losses(e->losses, micro->rows);
        }
    }
    return sum;
}

double ct_engine_loss(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      uint32_t sequences, uint32_t length) {
    CT_ASSERT(length > 0 && length <= engine->layout->shape.context);
    CT_ASSERT(sequences <= engine->options.batch);
    assert_tokens(engine, tokens, (size_t)sequences * (length + 1));
    const struct ct_micro micro = {
        .tokens = tokens, .stride = length + 1, .length = length, .sequences = sequences};
    return forward_only(engine, theta, micro, true);
}

struct last_logits {
    struct ct_engine *engine;
    size_t row;
    float *out;
};

static void last_logits_body(void *context, struct ct_hand hand) {
    const struct last_logits *last = context;
    const struct ct_engine *e = last->engine;
    const size_t d = e->layout->shape.width;
    ct_linear_forward(e, 1, &e->places.head,
                      (struct ct_rows){ct_operand(e, e->norm_f, last->row * d), d}, last->out, NULL,
                      hand);
}

void ct_engine_logits(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      uint32_t count, float *out_logits) {
    CT_ASSERT(count > 0 && count <= engine->layout->shape.context);
    assert_tokens(engine, tokens, count);
    const struct ct_micro micro = {
        .tokens = tokens, .stride = count, .length = count, .sequences = 1};
    (void)forward_only(engine, theta, micro, false);
    struct last_logits last = {engine, count - 1, out_logits};
    ct_team(engine->options.threads, last_logits_body, &last);
}
