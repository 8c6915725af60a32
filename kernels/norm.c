/* Normalisation of the residual stream: LayerNorm as GPT-2 has it. */
#include "block.h"

#include <string.h>

/* Epsilon of GPT-2's LayerNorm. */
#define EPSILON 1e-5f

void ct_norm_forward(const struct ct_engine *e, size_t rows, const struct ct_norm *norm,
                     const float *x, float *mean, float *rstd, void *out, struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, rows, CT_ROW_GRAIN);
    float *y = e->scratch[hand.me].row;
    for (size_t row = span.begin; row < span.end; row++) {
        ct_ops.layernorm(y, &mean[row], &rstd[row], x + row * d, e->theta + norm->gain,
                         e->theta + norm->bias, EPSILON, d);
        ct_operand_store(e->options.numerics, ct_operand(e, out, row * d), y, d);
    }
    ct_barrier(hand);
}

/* Chains over tokens; hands take columns. */
static void gain_gradient(const struct ct_engine *e, size_t rows, const struct ct_norm *norm,
                          const float *x, const float *mean, const float *rstd,
                          struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, d, CT_ROW_GRAIN);
    if (span.begin < span.end) {
        ct_ops.layernorm_columns(e->gradient + norm->gain + span.begin,
                                 e->gradient + norm->bias + span.begin, e->d_norm + span.begin,
                                 x + span.begin, mean, rstd, rows, d, span.end - span.begin);
    }
}

void ct_norm_backward(const struct ct_engine *e, size_t rows, const struct ct_norm *norm,
                      const float *x, const float *mean, const float *rstd, const float *through,
                      float *out, void *out_operand, struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, rows, CT_ROW_GRAIN);
    gain_gradient(e, rows, norm, x, mean, rstd, hand);
    for (size_t row = span.begin; row < span.end; row++) {
        float *to = out + row * d;
        if (through == NULL) {
            memset(to, 0, d * sizeof *to);
        } else if (through != out) {
            memcpy(to, through + row * d, d * sizeof *to);
        }
        ct_ops.layernorm_backward(to, e->d_norm + row * d, x + row * d, mean[row], rstd[row],
                                  e->theta + norm->gain, d);
        if (out_operand != NULL) {
            ct_operand_store(e->options.numerics, ct_operand(e, out_operand, row * d), to, d);
        }
    }
    ct_barrier(hand);
}
