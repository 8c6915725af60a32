/* A step: leaves, their micro-batches, and the sums over them (numerics.md E6). */
#include <cotrain/assert.h>
#include <cotrain/mode.h>

#include "gpt2.h"

#include <omp.h>
#include <string.h>

static void round_span(const struct ct_engine *e, size_t begin, size_t end) {
    ct_ops.bf16_from(e->rounded + begin, e->theta + begin, end - begin);
}

/* Each weight is rounded once per call; vectors lie in between and are rounded for nobody. */
static void prepare_weights(struct ct_engine *e, struct ct_hand hand) {
    if (e->rounded != NULL) {
        const struct ct_span span = ct_share(hand, e->layout->parameters, 1024);
        round_span(e, span.begin, span.end);
        ct_barrier(hand);
    }
}

/* The embeddings' gradients, in token order, into the place where the head's chain ended. Hands
 * take columns. */
static void embedding_gradient(const struct ct_engine *e, const uint32_t *tokens, size_t sequences,
                               struct ct_hand hand) {
    const size_t d = e->layout->shape.width, context = e->layout->shape.context;
    const struct ct_span span = ct_share(hand, d, CT_ROW_GRAIN);
    const size_t n = span.end - span.begin;
    float *wte = e->gradient + e->places.wte, *wpe = e->gradient + e->places.wpe;
    for (size_t s = 0; s < sequences; s++) {
        for (size_t t = 0; t < context; t++) {
            const size_t token = tokens[s * (context + 1) + t];
            const float *dx = e->d_embedding + (s * context + t) * d + span.begin;
            float *token_row = wte + token * d + span.begin, *row = wpe + t * d + span.begin;
            ct_ops.add(token_row, token_row, dx, n);
            ct_ops.add(row, row, dx, n);
        }
    }
}

/* The gradient of one leaf, from +0, into e->gradient; its tokens' losses into e->losses. */
static void run_leaf(struct ct_engine *e, const uint32_t *tokens, float factor,
                     struct ct_hand hand) {
    const size_t context = e->layout->shape.context, d = e->layout->shape.width;
    const size_t sequences = e->options.batch / e->options.leaves;
    const struct ct_span span = ct_share(hand, e->layout->parameters, 1024);
    memset(e->gradient + span.begin, 0, (span.end - span.begin) * sizeof(float));
    ct_barrier(hand);
    for (size_t first = 0; first < sequences; first += e->options.micro_batch) {
        const size_t left = sequences - first;
        struct ct_micro micro = {
            .tokens = tokens + first * (context + 1),
            .stride = context + 1,
            .length = context,
            .sequences = left < e->options.micro_batch ? left : e->options.micro_batch,
        };
        micro.rows = micro.sequences * context;
        ct_gpt2_forward(e, &micro, hand);
        ct_head_run(e, &micro, factor, e->losses + first * context, hand);
        ct_gpt2_backward(e, &micro, e->d_embedding + first * context * d, hand);
    }
    embedding_gradient(e, tokens, sequences, hand);
    ct_barrier(hand);
}

/* The binary64 chain over a leaf's losses. */
static double sum_losses(const float *losses, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)losses[i];
    }
    return sum;
}

/* Leaves [first, first + 2^level) into e->gradient; returns the sum of their losses. The right half
 * of a pair waits in the level's own spare buffer. */
static double run_leaves(struct ct_engine *e, const uint32_t *tokens, uint32_t first,
                         uint32_t level, float *gradient, float factor) {
    if (level == 0) {
        const size_t context = e->layout->shape.context;
        const size_t sequences = e->options.batch / e->options.leaves;
        e->gradient = gradient;
#pragma omp parallel num_threads((int)e->options.threads)
        {
            const struct ct_mode mode = ct_mode_enter();
            const struct ct_hand hand = {(size_t)omp_get_thread_num(),
                                         (size_t)omp_get_num_threads()};
            run_leaf(e, tokens + first * sequences * (context + 1), factor, hand);
            ct_mode_leave(mode);
        }
        return sum_losses(e->losses, sequences * context);
    }
    const uint32_t half = 1u << (level - 1);
    float *right = e->spare[level - 1];
    double sum = run_leaves(e, tokens, first, level - 1, gradient, factor);
    sum += run_leaves(e, tokens, first + half, level - 1, right, factor);
#pragma omp parallel num_threads((int)e->options.threads)
    {
        const struct ct_mode mode = ct_mode_enter();
        const struct ct_hand hand = {(size_t)omp_get_thread_num(), (size_t)omp_get_num_threads()};
        const struct ct_span span = ct_share(hand, e->layout->parameters, 1024);
        ct_ops.add(gradient + span.begin, gradient + span.begin, right + span.begin,
                   span.end - span.begin);
        ct_mode_leave(mode);
    }
    return sum;
}

static void use_theta(struct ct_engine *e, const float *theta) {
    e->theta = theta;
    e->weights = e->rounded != NULL ? (const void *)e->rounded : (const void *)theta;
#pragma omp parallel num_threads((int)e->options.threads)
    {
        const struct ct_mode mode = ct_mode_enter();
        prepare_weights(
            e, (struct ct_hand){(size_t)omp_get_thread_num(), (size_t)omp_get_num_threads()});
        ct_mode_leave(mode);
    }
}

static void assert_tokens(const struct ct_engine *e, const uint32_t *tokens, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        largest = tokens[i] > largest ? tokens[i] : largest;
    }
    CT_ASSERT(largest < e->layout->shape.vocab);
}

void ct_engine_gradient(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                        float *gradient, float *out_loss) {
    const struct ct_model_shape *shape = &engine->layout->shape;
    const size_t count = (size_t)engine->options.batch * shape->context;
    assert_tokens(engine, tokens, count + engine->options.batch);
    use_theta(engine, theta);
    const float factor = 1.0f / (float)count;
    const double sum = run_leaves(engine, tokens, 0, engine->spare_count, gradient, factor);
    *out_loss = (float)(sum / (double)count);
}

/* Forward of some sequences, in micro-batches; the losses' sum, or only norm_f when not asked. */
static double forward_only(struct ct_engine *e, const float *theta, struct ct_micro all,
                           bool losses) {
    use_theta(e, theta);
    double sum = 0.0;
    for (size_t first = 0; first < all.sequences; first += e->options.micro_batch) {
        const size_t left = all.sequences - first;
        struct ct_micro micro = all;
        micro.tokens += first * all.stride;
        micro.sequences = left < e->options.micro_batch ? left : e->options.micro_batch;
        micro.rows = micro.sequences * micro.length;
#pragma omp parallel num_threads((int)e->options.threads)
        {
            const struct ct_mode mode = ct_mode_enter();
            const struct ct_hand hand = {(size_t)omp_get_thread_num(),
                                         (size_t)omp_get_num_threads()};
            ct_gpt2_forward(e, &micro, hand);
            if (losses) {
                ct_head_run(e, &micro, 0.0f, e->losses, hand);
            }
            ct_mode_leave(mode);
        }
        if (losses) {
            sum += sum_losses(e->losses, micro.rows);
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

void ct_engine_logits(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      uint32_t count, float *out_logits) {
    const struct ct_model_shape *shape = &engine->layout->shape;
    CT_ASSERT(count > 0 && count <= shape->context);
    assert_tokens(engine, tokens, count);
    const struct ct_micro micro = {
        .tokens = tokens, .stride = count, .length = count, .sequences = 1};
    (void)forward_only(engine, theta, micro, false);
    ct_matmul(engine->options.numerics,
              &(struct ct_matmul){
                  .form = CT_NT,
                  .m = 1,
                  .n = shape->vocab,
                  .k = shape->width,
                  .a = ct_operand(engine, engine->norm_f, (size_t)(count - 1) * shape->width),
                  .lda = shape->width,
                  .b = ct_operand(engine, engine->weights, engine->places.wte),
                  .ldb = shape->width,
                  .c = out_logits,
                  .ldc = shape->vocab,
                  .threads = engine->options.threads,
              });
}
