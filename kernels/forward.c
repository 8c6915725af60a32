/* The forward pass: tokens to the operand of the head. */
#include "block.h"

#include <string.h>

/* Residual stream 0: token and position rows, one addition. The norm behind it deals rows to hands
 * as this does, so no barrier stands between. */
static void embed(const struct ct_engine *e, const struct ct_micro *micro, struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, micro->rows, CT_ROW_GRAIN);
    for (size_t row = span.begin; row < span.end; row++) {
        const size_t sequence = row / micro->length, position = row % micro->length;
        const size_t token = micro->tokens[sequence * micro->stride + position];
        const float *from = e->theta + e->places.tokens + token * d;
        if (e->places.positions == CT_ABSENT) {
            memcpy(e->stream[0] + row * d, from, d * sizeof *from);
        } else {
            ct_ops.add(e->stream[0] + row * d, from, e->theta + e->places.positions + position * d,
                       d);
        }
    }
}

/* out = x + (input·W + bias): how both halves of a block end. */
static void project(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                    struct ct_rows input, const float *x, float *out, struct ct_hand hand) {
    struct ct_finish finish = {
        .out = out,
        .in = x,
        .bias = linear->bias == CT_ABSENT ? NULL : e->theta + linear->bias,
        .stride = e->layout->shape.width,
    };
    ct_linear_forward(e, rows, linear, input, NULL,
                      &(struct ct_epilogue){ct_ops.finish.residual, &finish, false}, hand);
    ct_barrier(hand);
}

void ct_block_forward(const struct ct_engine *e, const struct ct_micro *micro, size_t layer,
                      struct ct_hand hand) {
    const struct ct_block *block = &e->places.blocks[layer];
    const struct ct_kept *kept = &e->kept[layer];
    const size_t rows = micro->rows;
    ct_norm_forward(e, rows, &block->norm_1, e->stream[layer], kept->mean_1, kept->rstd_1,
                    kept->norm_1, hand);
    ct_qkv_forward(e, micro, block, kept, hand);
    ct_attention_forward(e, micro, kept->qkv, kept->attention, hand);
    project(e, rows, &block->projection, (struct ct_rows){kept->attention, e->layout->shape.width},
            e->stream[layer], kept->middle, hand);
    ct_norm_forward(e, rows, &block->norm_2, kept->middle, kept->mean_2, kept->rstd_2, kept->norm_2,
                    hand);
    ct_mlp_forward(e, micro, block, kept, hand);
}

void ct_forward(struct ct_engine *e, const struct ct_micro *micro, struct ct_hand hand) {
    const struct ct_model_shape *shape = &e->layout->shape;
    embed(e, micro, hand);
    for (size_t layer = 0; layer < shape->layers; layer++) {
        const struct ct_kept *kept = &e->kept[layer];
        ct_block_forward(e, micro, layer, hand);
        project(e, micro->rows, &e->places.blocks[layer].down,
                (struct ct_rows){kept->activation, shape->hidden}, kept->middle,
                e->stream[layer + 1], hand);
    }
    ct_norm_forward(e, micro->rows, &e->places.last, e->stream[shape->layers], e->mean_f, e->rstd_f,
                    e->norm_f, hand);
}
