/* Queries, keys and values: GPT-2 has one map with bias for all three. */
#include "block.h"

void ct_qkv_forward(const struct ct_engine *e, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand) {
    const struct ct_linear *linear = &block->qkv[0];
    struct ct_finish finish = {
        .out = kept->qkv,
        .bias = e->theta + linear->bias,
        .stride = e->qkv_width,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_forward(e, micro->rows, linear,
                      (struct ct_rows){kept->norm_1, e->layout->shape.width}, NULL,
                      &(struct ct_epilogue){ct_ops.finish.bias, &finish}, hand);
}

void ct_qkv_backward(const struct ct_engine *e, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept,
                     struct ct_hand hand) {
    const struct ct_linear *linear = &block->qkv[0];
    const size_t width = e->qkv_width;
    const struct ct_span span = ct_share(hand, micro->rows, CT_ROW_GRAIN);
    const struct ct_rows dy = {e->d_qkv, width};
    ct_operand_store(e->options.numerics, ct_operand(e, e->d_qkv, span.begin * width),
                     e->qkv_float + span.begin * width, (span.end - span.begin) * width);
    ct_bias_gradient(e, micro->rows, linear, e->qkv_float, width, hand);
    ct_barrier(hand);
    ct_linear_backward(e, micro->rows, linear, dy, e->d_norm, false, NULL, hand);
    ct_linear_gradient(e, micro->rows, linear,
                       (struct ct_rows){kept->norm_1, e->layout->shape.width}, dy, !micro->first,
                       hand);
}
