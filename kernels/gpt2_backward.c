#include "gpt2.h"

#include "gpt2_rows.h"

#include <string.h>

/* dW[k][n] += x[rows][k]ᵀ · dy[rows][n], the chain over tokens continued; hands take rows of dW. */
static void weight_gradient(const struct ct_engine *e, size_t rows, const void *x, size_t k,
                            const void *dy, size_t n, size_t weight, struct ct_hand hand) {
    const struct ct_span span = ct_share(hand, k, CT_ROW_GRAIN);
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_TN,
                                       .m = span.end - span.begin,
                                       .n = n,
                                       .k = rows,
                                       .a = ct_operand(e, x, span.begin),
                                       .lda = k,
                                       .b = dy,
                                       .ldb = n,
                                       .c = e->gradient + weight + span.begin * n,
                                       .ldc = n,
                                       .resume = true,
                                       .threads = 1,
                                   });
}

static void bias_gradient(const struct ct_engine *e, size_t rows, const float *dy, size_t n,
                          size_t bias, struct ct_hand hand) {
    const struct ct_span span = ct_share(hand, n, CT_ROW_GRAIN);
    if (span.begin < span.end) {
        ct_ops.column_sums(e->gradient + bias + span.begin, dy + span.begin, rows, n,
                           span.end - span.begin);
    }
}

static void norm_gradient(const struct ct_engine *e, size_t rows, const float *dy, const float *x,
                          const float *mean, const float *rstd, struct ct_linear_place place,
                          struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, d, CT_ROW_GRAIN);
    if (span.begin < span.end) {
        ct_ops.layernorm_columns(e->gradient + place.weight + span.begin,
                                 e->gradient + place.bias + span.begin, dy + span.begin,
                                 x + span.begin, mean, rstd, rows, d, span.end - span.begin);
    }
}

/* out = through + the gradient that comes back through a LayerNorm of x. */
static void norm_rows(const struct ct_engine *e, struct ct_span rows, float *out,
                      const float *through, const float *dy, const float *x, const float *mean,
                      const float *rstd, size_t gain) {
    const size_t d = e->layout->shape.width;
    memcpy(out + rows.begin * d, through + rows.begin * d,
           (rows.end - rows.begin) * d * sizeof(float));
    for (size_t row = rows.begin; row < rows.end; row++) {
        ct_ops.layernorm_backward(out + row * d, dy + row * d, x + row * d, mean[row], rstd[row],
                                  e->theta + gain, d);
    }
}

/* wide = wide · gelu'(the rounded pre-activation). */
static void gelu_rows(const struct ct_engine *e, struct ct_span rows, const void *before_gelu) {
    enum { PIECE = 2048 };
    const size_t width = 4 * (size_t)e->layout->shape.width;
    for (size_t from = rows.begin * width; from < rows.end * width; from += PIECE) {
        float before[PIECE];
        const size_t left = rows.end * width - from, n = left < PIECE ? left : PIECE;
        ct_operand_load(e->options.numerics, before, ct_operand(e, before_gelu, from), n);
        ct_ops.gelu_backward(e->wide + from, e->wide + from, before, n);
    }
}

/* The MLP half, then attention's projection: d_stream[0] → d_stream[1], d_attention. */
static void half_2_rows(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    const size_t d = e->layout->shape.width;
    const struct ct_gpt2_layer *place = &e->places.layers[layer];
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    ct_rows_store(e, rows, e->d_out, e->d_stream[0], d);
    ct_rows_backward(e, rows, e->d_out, d, place->fc_projection.weight, 4 * d, e->wide);
    gelu_rows(e, rows, kept->before_gelu);
    ct_rows_store(e, rows, e->d_wide, e->wide, 4 * d);
    ct_rows_backward(e, rows, e->d_wide, 4 * d, place->fc.weight, d, e->d_norm_2);
    norm_rows(e, rows, e->d_stream[1], e->d_stream[0], e->d_norm_2, kept->middle, kept->mean_2,
              kept->rstd_2, place->ln_2.weight);
    ct_rows_store(e, rows, e->d_middle, e->d_stream[1], d);
    ct_rows_backward(e, rows, e->d_middle, d, place->projection.weight, d, e->d_attention);
}

/* What is left of the attention half: d_qkv, d_stream[1] → d_stream[2]. */
static void half_1_rows(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    const size_t d = e->layout->shape.width;
    const struct ct_gpt2_layer *place = &e->places.layers[layer];
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    ct_rows_store(e, rows, e->d_qkv_operand, e->d_qkv, 3 * d);
    ct_rows_backward(e, rows, e->d_qkv_operand, 3 * d, place->qkv.weight, d, e->d_norm_1);
    norm_rows(e, rows, e->d_stream[2], e->d_stream[1], e->d_norm_1, e->stream[layer], kept->mean_1,
              kept->rstd_1, place->ln_1.weight);
}

/* Every parameter gradient of the layer; hands take outputs. */
static void layer_gradients(const struct ct_engine *e, size_t layer, size_t rows,
                            struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_gpt2_layer *place = &e->places.layers[layer];
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    weight_gradient(e, rows, kept->activation, 4 * d, e->d_out, d, place->fc_projection.weight,
                    hand);
    bias_gradient(e, rows, e->d_stream[0], d, place->fc_projection.bias, hand);
    weight_gradient(e, rows, kept->norm_2, d, e->d_wide, 4 * d, place->fc.weight, hand);
    bias_gradient(e, rows, e->wide, 4 * d, place->fc.bias, hand);
    norm_gradient(e, rows, e->d_norm_2, kept->middle, kept->mean_2, kept->rstd_2, place->ln_2,
                  hand);
    weight_gradient(e, rows, kept->attention, d, e->d_middle, d, place->projection.weight, hand);
    bias_gradient(e, rows, e->d_stream[1], d, place->projection.bias, hand);
    weight_gradient(e, rows, kept->norm_1, d, e->d_qkv_operand, 3 * d, place->qkv.weight, hand);
    bias_gradient(e, rows, e->d_qkv, 3 * d, place->qkv.bias, hand);
    norm_gradient(e, rows, e->d_norm_1, e->stream[layer], kept->mean_1, kept->rstd_1, place->ln_1,
                  hand);
}

/* The last LayerNorm: d_norm_f → d_stream[0]. */
static void last_norm_rows(const struct ct_engine *e, struct ct_span rows) {
    const size_t d = e->layout->shape.width, layers = e->layout->shape.layers;
    memset(e->d_stream[1] + rows.begin * d, 0, (rows.end - rows.begin) * d * sizeof(float));
    norm_rows(e, rows, e->d_stream[0], e->d_stream[1], e->d_norm_f, e->stream[layers], e->mean_f,
              e->rstd_f, e->places.ln_f.weight);
}

void ct_gpt2_backward(struct ct_engine *e, const struct ct_micro *micro, float *d_embedding,
                      struct ct_hand hand) {
    const size_t d = e->layout->shape.width, layers = e->layout->shape.layers;
    const struct ct_span mine = ct_share(hand, micro->rows, CT_ROW_GRAIN);
    const size_t first = mine.begin * d, bytes = (mine.end - mine.begin) * d * sizeof(float);
    last_norm_rows(e, mine);
    norm_gradient(e, micro->rows, e->d_norm_f, e->stream[layers], e->mean_f, e->rstd_f,
                  e->places.ln_f, hand);
    for (size_t layer = layers; layer-- > 0;) {
        struct ct_span rows = mine, block;
        while (ct_next_rows(&rows, &block)) {
            half_2_rows(e, layer, block);
        }
        ct_barrier(hand);
        ct_attention_backward(e, micro, e->kept[layer].qkv, e->d_attention, e->d_qkv, hand);
        ct_barrier(hand);
        rows = mine;
        while (ct_next_rows(&rows, &block)) {
            half_1_rows(e, layer, block);
        }
        ct_barrier(hand);
        layer_gradients(e, layer, micro->rows, hand);
        ct_barrier(hand);
        if (micro->last) {
            ct_engine_finish(e, e->places.layers[layer].all, hand);
        }
        memcpy(e->d_stream[0] + first, e->d_stream[2] + first, bytes);
    }
    memcpy(d_embedding + first, e->d_stream[0] + first, bytes);
    ct_barrier(hand);
}
