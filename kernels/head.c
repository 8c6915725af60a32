/* Head and cross-entropy, in chunks of tokens. */
#include "block.h"

#include <string.h>

/* A row of dlogits becomes operands at the start of its own row: writing stays behind reading. */
static void store_in_place(enum ct_numerics numerics, float *row, size_t n) {
    enum { PIECE = 2048 };
    uint16_t piece[PIECE];
    if (numerics != CT_NUMERICS_BF16_1) {
        return;
    }
    for (size_t first = 0; first < n; first += PIECE) {
        const size_t left = n - first, count = left < PIECE ? left : PIECE;
        ct_ops.bf16_from(piece, row + first, count);
        memcpy((uint16_t *)(void *)row + first, piece, count * sizeof *piece);
    }
}

/* Losses of `count` tokens from `first` on, and dlogits as operands when factor > 0. */
static void entropy(const struct ct_engine *e, const struct ct_micro *micro, size_t first,
                    size_t count, float factor, float *losses, struct ct_hand hand) {
    const size_t vocab = e->layout->shape.vocab;
    const struct ct_span span = ct_share(hand, count, 1);
    for (size_t row = span.begin; row < span.end; row++) {
        const size_t sequence = (first + row) / micro->length;
        const size_t position = (first + row) % micro->length;
        const uint32_t target = micro->tokens[sequence * micro->stride + position + 1];
        float *logits = e->logits + row * vocab;
        losses[first + row] =
            ct_ops.cross_entropy(factor > 0.0f ? logits : NULL, logits, target, factor, vocab);
        if (factor > 0.0f) {
            store_in_place(e->options.numerics, logits, vocab);
        }
    }
}

void ct_head_run(struct ct_engine *e, const struct ct_micro *micro, float factor, float *losses,
                 struct ct_hand hand) {
    const size_t d = e->layout->shape.width, vocab = e->layout->shape.vocab;
    const struct ct_linear *head = &e->places.head;
    const struct ct_rows dy = {e->logits, vocab * sizeof(float) / e->operand_bytes};
    for (size_t first = 0; first < micro->rows; first += e->head_rows) {
        const size_t left = micro->rows - first;
        const size_t count = left < e->head_rows ? left : e->head_rows;
        const struct ct_rows x = {ct_operand(e, e->norm_f, first * d), d};
        ct_linear_forward(e, count, head, x, e->logits, NULL, hand);
        ct_barrier(hand);
        entropy(e, micro, first, count, factor, losses, hand);
        if (factor > 0.0f) {
            ct_linear_backward(e, count, head, dy, e->d_norm + first * d, false, NULL, hand);
            ct_linear_gradient(e, count, head, x, dy, !micro->first || first > 0, hand);
        }
    }
}
