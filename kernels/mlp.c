/* The MLP up to its last map: GPT-2 has one map with bias and a GELU. */
#include "block.h"

void ct_mlp_forward(const struct ct_engine *e, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand) {
    struct ct_finish finish = {
        .out = kept->before[0],
        .out_2 = kept->activation,
        .bias = e->theta + block->up[0].bias,
        .stride = e->layout->shape.hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_forward(e, micro->rows, &block->up[0],
                      (struct ct_rows){kept->norm_2, e->layout->shape.width}, NULL,
                      &(struct ct_epilogue){ct_ops.finish.gelu, &finish}, hand);
}

void ct_mlp_backward(const struct ct_engine *e, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept,
                     struct ct_hand hand) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t rows = micro->rows;
    const struct ct_rows dy = {e->d_out, shape->width}, dx = {e->d_wide[0], shape->hidden};
    struct ct_finish finish = {
        .out = e->wide[0],
        .out_2 = e->d_wide[0],
        .in = kept->before[0],
        .stride = shape->hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_gradient(e, rows, &block->down, (struct ct_rows){kept->activation, shape->hidden}, dy,
                       !micro->first, hand);
    ct_linear_backward(e, rows, &block->down, dy, NULL, false,
                       &(struct ct_epilogue){ct_ops.finish.gelu_backward, &finish}, hand);
    ct_bias_gradient(e, rows, &block->up[0], e->wide[0], shape->hidden, hand);
    ct_linear_gradient(e, rows, &block->up[0], (struct ct_rows){kept->norm_2, shape->width}, dx,
                       !micro->first, hand);
    ct_linear_backward(e, rows, &block->up[0], dx, e->d_norm, false, NULL, hand);
}
