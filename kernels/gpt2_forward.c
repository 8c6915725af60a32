#include "gpt2.h"

#include "gpt2_rows.h"

#include <string.h>

/* Residual stream 0: token and position rows, one addition. */
static void embed(const struct ct_engine *e, const struct ct_micro *micro, struct ct_span rows) {
    const size_t d = e->layout->shape.width;
    const float *wte = e->theta + e->places.wte, *wpe = e->theta + e->places.wpe;
    for (size_t row = rows.begin; row < rows.end; row++) {
        const size_t sequence = row / micro->length, position = row % micro->length;
        const size_t token = micro->tokens[sequence * micro->stride + position];
        ct_ops.add(e->stream[0] + row * d, wte + token * d, wpe + position * d, d);
    }
}

/* Rows of a LayerNorm, stored as operands. `narrow` is scratch for the same rows. */
static void norm_rows(const struct ct_engine *e, struct ct_span rows, const float *x,
                      struct ct_linear_place place, float *mean, float *rstd, void *out) {
    const size_t d = e->layout->shape.width;
    for (size_t row = rows.begin; row < rows.end; row++) {
        float *y = e->narrow + row * d;
        ct_ops.layernorm(y, &mean[row], &rstd[row], x + row * d, e->theta + place.weight,
                         e->theta + place.bias, 1e-5f, d);
        ct_operand_store(e->options.numerics, ct_operand(e, out, row * d), y, d);
    }
}

static void add_bias(const struct ct_engine *e, struct ct_span rows, float *y, size_t n,
                     size_t bias) {
    for (size_t row = rows.begin; row < rows.end; row++) {
        ct_ops.add(y + row * n, y + row * n, e->theta + bias, n);
    }
}

/* out = x + (input·W + bias): how both halves of a layer end. */
static void project_rows(const struct ct_engine *e, struct ct_span rows, const void *input,
                         size_t k, struct ct_linear_place place, const float *x, float *out) {
    const size_t d = e->layout->shape.width;
    ct_rows_forward(e, rows, input, k, place.weight, d, e->narrow);
    add_bias(e, rows, e->narrow, d, place.bias);
    const size_t from = rows.begin * d;
    ct_ops.add(out + from, x + from, e->narrow + from, (rows.end - rows.begin) * d);
}

static void qkv_rows(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    const size_t d = e->layout->shape.width;
    const struct ct_gpt2_layer *place = &e->places.layers[layer];
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    norm_rows(e, rows, e->stream[layer], place->ln_1, kept->mean_1, kept->rstd_1, kept->norm_1);
    /* Rows of 3·D, moved so that they begin where this hand's rows of 4·D do: another hand may
     * still be in the layer before. */
    float *y = e->wide + rows.begin * d;
    ct_rows_forward(e, rows, kept->norm_1, d, place->qkv.weight, 3 * d, y);
    add_bias(e, rows, y, 3 * d, place->qkv.bias);
    ct_rows_store(e, rows, kept->qkv, y, 3 * d);
}

static void mlp_rows(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    const size_t d = e->layout->shape.width;
    const struct ct_gpt2_layer *place = &e->places.layers[layer];
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    norm_rows(e, rows, kept->middle, place->ln_2, kept->mean_2, kept->rstd_2, kept->norm_2);
    ct_rows_forward(e, rows, kept->norm_2, d, place->fc.weight, 4 * d, e->wide);
    add_bias(e, rows, e->wide, 4 * d, place->fc.bias);
    ct_rows_store(e, rows, kept->before_gelu, e->wide, 4 * d);
    float *y = e->wide + rows.begin * 4 * d;
    ct_ops.gelu(y, y, (rows.end - rows.begin) * 4 * d);
    ct_rows_store(e, rows, kept->activation, e->wide, 4 * d);
    project_rows(e, rows, kept->activation, 4 * d, place->fc_projection, kept->middle,
                 e->stream[layer + 1]);
}

/* What of a layer comes before its attention. */
static void before_attention(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    struct ct_span block;
    while (ct_next_rows(&rows, &block)) {
        qkv_rows(e, layer, block);
    }
}

/* What of a layer comes after its attention, and of the next one before. */
static void after_attention(const struct ct_engine *e, size_t layer, struct ct_span rows) {
    const size_t layers = e->layout->shape.layers;
    const struct ct_gpt2_kept *kept = &e->kept[layer];
    struct ct_span block;
    while (ct_next_rows(&rows, &block)) {
        project_rows(e, block, kept->attention, e->layout->shape.width,
                     e->places.layers[layer].projection, e->stream[layer], kept->middle);
        mlp_rows(e, layer, block);
        if (layer + 1 < layers) {
            qkv_rows(e, layer + 1, block);
        } else {
            norm_rows(e, block, e->stream[layers], e->places.ln_f, e->mean_f, e->rstd_f, e->norm_f);
        }
    }
}

void ct_gpt2_forward(struct ct_engine *e, const struct ct_micro *micro, struct ct_hand hand) {
    const struct ct_span rows = ct_share(hand, micro->rows, CT_ROW_GRAIN);
    embed(e, micro, rows);
    before_attention(e, 0, rows);
    for (size_t layer = 0; layer < e->layout->shape.layers; layer++) {
        const struct ct_gpt2_kept *kept = &e->kept[layer];
        ct_barrier(hand);
        ct_attention_forward(e, micro, kept->qkv, kept->attention, hand);
        ct_barrier(hand);
        after_attention(e, layer, rows);
    }
}
