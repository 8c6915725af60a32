/* The backward pass: from the gradient of the last norm's output to all gradients. */
#include "block.h"

#include <string.h>

/* d_stream[0], rounded in d_out, is the gradient of what the block gives; at the end that of what
 * it took. The products that the two halves end with are y = x·W + bias with dY = d_stream. */
static void block_backward(const struct ct_engine *e, const struct ct_micro *micro, size_t layer,
                           struct ct_hand hand) {
    const struct ct_block *block = &e->places.blocks[layer];
    const struct ct_kept *kept = &e->kept[layer];
    const size_t rows = micro->rows, d = e->layout->shape.width;
    const struct ct_rows dy = {e->d_out, d};

    ct_bias_gradient(e, rows, &block->down, e->d_stream[0], d, hand);
    ct_mlp_backward(e, micro, block, kept, hand);
    ct_norm_backward(e, rows, &block->norm_2, kept->middle, kept->mean_2, kept->rstd_2,
                     e->d_stream[0], e->d_stream[1], e->d_out, hand);

    ct_bias_gradient(e, rows, &block->projection, e->d_stream[1], d, hand);
    ct_linear_gradient(e, rows, &block->projection, (struct ct_rows){kept->attention, d}, dy,
                       !micro->first, hand);
    ct_linear_backward(e, rows, &block->projection, dy, e->d_attention, false, NULL, hand);
    ct_barrier(hand);
    ct_attention_backward(e, micro, kept->qkv, e->d_attention, e->qkv_float, hand);
    ct_qkv_backward(e, micro, block, kept, hand);
    ct_norm_backward(e, rows, &block->norm_1, e->stream[layer], kept->mean_1, kept->rstd_1,
                     e->d_stream[1], e->d_stream[0], e->d_out, hand);
}

void ct_backward(struct ct_engine *e, const struct ct_micro *micro, float *d_embedding,
                 struct ct_hand hand) {
    const size_t d = e->layout->shape.width, layers = e->layout->shape.layers;
    ct_norm_backward(e, micro->rows, &e->places.last, e->stream[layers], e->mean_f, e->rstd_f, NULL,
                     e->d_stream[0], e->d_out, hand);
    for (size_t layer = layers; layer-- > 0;) {
        if (e->options.recompute && layer + 1 < layers) {
            ct_block_forward(e, micro, layer, hand);
        }
        block_backward(e, micro, layer, hand);
        if (micro->last) {
            ct_engine_finish(e, e->places.blocks[layer].all, hand);
        }
    }
    const struct ct_span span = ct_share(hand, micro->rows * d, CT_ROW_GRAIN);
    memcpy(d_embedding + span.begin, e->d_stream[0] + span.begin,
           (span.end - span.begin) * sizeof *d_embedding);
    ct_barrier(hand);
}
