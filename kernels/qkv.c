/* Queries, keys and values: GPT-2 has one map with bias for all three, Llama one for each and turns
 * queries and keys (RoPE) before they are rounded. */
#include "block.h"

/* A map's outputs to columns of an array [M][Q], operands when `bf16`. */
static void forward_map(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                        const struct ct_kept *kept, void *out, bool bf16, struct ct_hand hand) {
    struct ct_finish finish = {
        .out = out,
        .bias = linear->bias != CT_ABSENT ? e->theta + linear->bias : NULL,
        .stride = e->qkv_width,
        .bf16 = bf16,
    };
    ct_linear_forward(e, rows, linear, (struct ct_rows){kept->norm_1, e->layout->shape.width}, NULL,
                      &(struct ct_epilogue){ct_ops.finish.bias, &finish, false}, hand);
}

/* Columns of queries and keys, which stand side by side. */
static size_t turned_columns(const struct ct_engine *e) {
    const struct ct_model_shape *shape = &e->layout->shape;
    return (size_t)shape->width / shape->heads * (shape->heads + shape->kv_heads);
}

/* Turns a token's queries and keys by its position, or back. */
static void turn_row(const struct ct_engine *e, size_t position, float *row, bool back) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t half = shape->width / shape->heads / 2;
    const float *cosine = e->cosine + position * half, *sine = e->sine + position * half;
    (back ? ct_ops.rope_backward : ct_ops.rope)(row, cosine, sine, shape->heads + shape->kv_heads,
                                                half);
}

void ct_qkv_forward(const struct ct_engine *e, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand) {
    const bool bf16 = e->options.numerics == CT_NUMERICS_BF16_1;
    const size_t rows = micro->rows, width = e->qkv_width, turned = turned_columns(e);
    if (block->qkv_count == 1) {
        forward_map(e, rows, &block->qkv[0], kept, kept->qkv, bf16, hand);
        ct_barrier(hand);
        return;
    }
    forward_map(e, rows, &block->qkv[0], kept, e->qkv_float, false, hand);
    forward_map(e, rows, &block->qkv[1], kept, e->qkv_float + block->qkv[0].out, false, hand);
    /* With the barrier that it begins with, queries and keys are visible to all hands; it touches
     * neither them nor the columns that they go to. */
    forward_map(e, rows, &block->qkv[2], kept, ct_operand(e, kept->qkv, turned), bf16, hand);
    const struct ct_span span = ct_share(hand, rows, CT_ROW_GRAIN);
    for (size_t row = span.begin; row < span.end; row++) {
        float *x = e->qkv_float + row * width;
        turn_row(e, row % micro->length, x, false);
        ct_operand_store(e->options.numerics, ct_operand(e, kept->qkv, row * width), x, turned);
    }
    ct_barrier(hand);
}

void ct_qkv_backward(const struct ct_engine *e, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept,
                     struct ct_hand hand) {
    const size_t width = e->qkv_width, rows = micro->rows;
    const struct ct_span span = ct_share(hand, rows, CT_ROW_GRAIN);
    const struct ct_rows x = {kept->norm_1, e->layout->shape.width};
    for (size_t row = span.begin; block->qkv_count > 1 && row < span.end; row++) {
        turn_row(e, row % micro->length, e->qkv_float + row * width, true);
    }
    ct_operand_store(e->options.numerics, ct_operand(e, e->d_qkv, span.begin * width),
                     e->qkv_float + span.begin * width, (span.end - span.begin) * width);
    ct_bias_gradient(e, rows, &block->qkv[0], e->qkv_float, width, hand);
    size_t column = 0;
    for (uint32_t i = 0; i < block->qkv_count; i++) {
        const struct ct_linear *linear = &block->qkv[i];
        const struct ct_rows dy = {ct_operand(e, e->d_qkv, column), width};
        ct_linear_backward(e, rows, linear, dy, e->d_norm, i > 0, NULL, hand);
        ct_linear_gradient(e, rows, linear, x, dy, !micro->first, hand);
        column += linear->out;
    }
}
