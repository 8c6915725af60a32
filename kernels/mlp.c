/* The MLP up to its last map: GPT-2 has one map with bias and a GELU, Llama two maps, gate and up,
 * and SwiGLU. */
#include "block.h"

static void gelu_forward(const struct ct_engine *e, const struct ct_micro *micro,
                         const struct ct_block *block, const struct ct_kept *kept,
                         struct ct_hand hand) {
    struct ct_finish finish = {
        .out = kept->before[0],
        .out_2 = kept->activation,
        .bias = e->theta + block->up[0].bias,
        .stride = e->layout->shape.hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_forward(e, micro->rows, &block->up[0],
                      (struct ct_rows){kept->norm_2, e->layout->shape.width}, NULL,
                      &(struct ct_epilogue){ct_ops.finish.gelu, &finish, false}, hand);
}

/* The gate waits as float for the up map, which ends both. */
static void swiglu_forward(const struct ct_engine *e, const struct ct_micro *micro,
                           const struct ct_block *block, const struct ct_kept *kept,
                           struct ct_hand hand) {
    const struct ct_rows x = {kept->norm_2, e->layout->shape.width};
    struct ct_finish finish = {
        .out = kept->before[0],
        .out_2 = kept->before[1],
        .out_3 = kept->activation,
        .in = e->gate,
        .stride = e->layout->shape.hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_forward(e, micro->rows, &block->up[0], x, e->gate, NULL, hand);
    ct_linear_forward(e, micro->rows, &block->up[1], x, NULL,
                      &(struct ct_epilogue){ct_ops.finish.swiglu, &finish, false}, hand);
}

void ct_mlp_forward(const struct ct_engine *e, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand) {
    if (block->up_count == 1) {
        gelu_forward(e, micro, block, kept, hand);
    } else {
        swiglu_forward(e, micro, block, kept, hand);
    }
}

/* d_out → d_up[0], and the gradient of the bias. */
static void gelu_backward(const struct ct_engine *e, size_t rows, const struct ct_block *block,
                          const struct ct_kept *kept, struct ct_hand hand) {
    const struct ct_model_shape *shape = &e->layout->shape;
    struct ct_finish finish = {
        .out = e->d_up[0],
        .in = kept->before[0],
        .sums = e->gradient + block->up[0].bias,
        .stride = shape->hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_backward(e, rows, &block->down, (struct ct_rows){e->d_out, shape->width}, NULL, false,
                       &(struct ct_epilogue){ct_ops.finish.gelu_backward, &finish, true}, hand);
}

/* d_out → d_up[0] and [1], the gradients of gate and up. */
static void swiglu_backward(const struct ct_engine *e, size_t rows, const struct ct_block *block,
                            const struct ct_kept *kept, struct ct_hand hand) {
    const struct ct_model_shape *shape = &e->layout->shape;
    struct ct_finish finish = {
        .out = e->d_up[0],
        .out_2 = e->d_up[1],
        .in = kept->before[0],
        .in_2 = kept->before[1],
        .stride = shape->hidden,
        .bf16 = e->options.numerics == CT_NUMERICS_BF16_1,
    };
    ct_linear_backward(e, rows, &block->down, (struct ct_rows){e->d_out, shape->width}, NULL, false,
                       &(struct ct_epilogue){ct_ops.finish.swiglu_backward, &finish, false}, hand);
}

void ct_mlp_backward(const struct ct_engine *e, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept,
                     struct ct_hand hand) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t rows = micro->rows;
    const struct ct_rows activation = {kept->activation, shape->hidden};
    const struct ct_rows dy = {e->d_out, shape->width}, x = {kept->norm_2, shape->width};
    ct_linear_gradient(e, rows, &block->down, activation, dy, !micro->first, hand);
    if (block->up_count == 1) {
        gelu_backward(e, rows, block, kept, hand);
    } else {
        swiglu_backward(e, rows, block, kept, hand);
    }
    for (uint32_t i = 0; i < block->up_count; i++) {
        const struct ct_rows d_up = {e->d_up[i], shape->hidden};
        ct_linear_backward(e, rows, &block->up[i], d_up, e->d_norm, i > 0, NULL, hand);
        ct_linear_gradient(e, rows, &block->up[i], x, d_up, !micro->first, hand);
    }
}
