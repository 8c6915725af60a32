/* Normalisation of the residual stream: LayerNorm as GPT-2 has it, or RMSNorm, which has no bias.
 */
#include "block.h"

#include <string.h>

void ct_norm_forward(const struct ct_engine *e, size_t rows, const struct ct_norm *norm,
                     const float *x, float *mean, float *rstd, void *out, struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const float epsilon = e->layout->shape.norm_epsilon;
    const struct ct_span span = ct_share(hand, rows, CT_ROW_GRAIN);
    float *y = e->scratch[hand.me].row;
    for (size_t row = span.begin; row < span.end; row++) {
        if (norm->bias == CT_ABSENT) {
            rstd[row] = ct_ops.rmsnorm(y, x + row * d, e->theta + norm->gain, epsilon, d);
        } else {
            ct_ops.layernorm(y, &mean[row], &rstd[row], x + row * d, e->theta + norm->gain,
                             e->theta + norm->bias, epsilon, d);
        }
        ct_operand_store(e->options.numerics, ct_operand(e, out, row * d), y, d);
    }
}

/* Chains over tokens; hands take columns. */
static void gain_gradient(const struct ct_engine *e, size_t rows, const struct ct_norm *norm,
                          const float *x, const float *mean, const float *rstd,
                          struct ct_hand hand) {
    const size_t d = e->layout->shape.width;
    const struct ct_span span = ct_share(hand, d, CT_ROW_GRAIN);
    const size_t n = span.end - span.begin;
    if (n > 0 && norm->bias == CT_ABSENT) {
        ct_ops.rmsnorm_columns(e->gradient + norm->gain + span.begin, e->d_norm + span.begin,
                               x + span.begin, rstd, rows, d, n);
    } else if (n > 0) {
        ct_ops.layernorm_columns(e->gradient + norm->gain + span.begin,
                                 e->gradient + norm->bias + span.begin, e->d_norm + span.begin,
                                 x + span.begin, mean, rstd, rows, d, n);
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
        if (norm->bias == CT_ABSENT) {
            ct_ops.rmsnorm_backward(to, e->d_norm + row * d, x + row * d, rstd[row],
                                    e->theta + norm->gain, d);
        } else {
            ct_ops.layernorm_backward(to, e->d_norm + row * d, x + row * d, mean[row], rstd[row],
                                      e->theta + norm->gain, d);
        }
        if (out_operand != NULL) {
            ct_operand_store(e->options.numerics, ct_operand(e, out_operand, row * d), to, d);
        }
    }
    ct_barrier(hand);
}
