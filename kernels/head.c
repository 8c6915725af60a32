#include "gpt2.h"

/* Rows [rows) of the micro-batch as the chunk's logits from `first` on. */
static void logits_rows(const struct ct_engine *e, size_t first, struct ct_span rows) {
    const size_t d = e->layout->shape.width, vocab = e->layout->shape.vocab;
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_NT,
                                       .m = rows.end - rows.begin,
                                       .n = vocab,
                                       .k = d,
                                       .a = ct_operand(e, e->norm_f, (first + rows.begin) * d),
                                       .lda = d,
                                       .b = ct_operand(e, e->weights, e->places.wte),
                                       .ldb = d,
                                       .c = e->logits + rows.begin * vocab,
                                       .ldc = vocab,
                                       .threads = 1,
                                   });
}

static void entropy_rows(const struct ct_engine *e, const struct ct_micro *micro, size_t first,
                         struct ct_span rows, float factor, float *losses) {
    const size_t vocab = e->layout->shape.vocab;
    for (size_t row = rows.begin; row < rows.end; row++) {
        const size_t sequence = (first + row) / micro->length;
        const size_t position = (first + row) % micro->length;
        const uint32_t target = micro->tokens[sequence * micro->stride + position + 1];
        float *logits = e->logits + row * vocab;
        losses[first + row] =
            ct_ops.cross_entropy(factor > 0.0f ? logits : NULL, logits, target, factor, vocab);
        if (factor > 0.0f) {
            ct_operand_store(e->options.numerics, ct_operand(e, e->d_logits, row * vocab), logits,
                             vocab);
        }
    }
}

static void d_norm_rows(const struct ct_engine *e, size_t first, struct ct_span rows) {
    const size_t d = e->layout->shape.width, vocab = e->layout->shape.vocab;
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_NN,
                                       .m = rows.end - rows.begin,
                                       .n = d,
                                       .k = vocab,
                                       .a = ct_operand(e, e->d_logits, rows.begin * vocab),
                                       .lda = vocab,
                                       .b = ct_operand(e, e->weights, e->places.wte),
                                       .ldb = d,
                                       .c = e->d_norm_f + (first + rows.begin) * d,
                                       .ldc = d,
                                       .threads = 1,
                                   });
}

/* The chunk's part of dW's chain over tokens; hands take rows of the vocabulary. */
static void weight_gradient(const struct ct_engine *e, size_t first, size_t count,
                            struct ct_hand hand) {
    const size_t d = e->layout->shape.width, vocab = e->layout->shape.vocab;
    const struct ct_span span = ct_share(hand, vocab, CT_ROW_GRAIN);
    ct_matmul(e->options.numerics, &(struct ct_matmul){
                                       .form = CT_TN,
                                       .m = span.end - span.begin,
                                       .n = d,
                                       .k = count,
                                       .a = ct_operand(e, e->d_logits, span.begin),
                                       .lda = vocab,
                                       .b = ct_operand(e, e->norm_f, first * d),
                                       .ldb = d,
                                       .c = e->gradient + e->places.wte + span.begin * d,
                                       .ldc = d,
                                       .resume = true,
                                       .threads = 1,
                                   });
}

void ct_head_run(struct ct_engine *e, const struct ct_micro *micro, float factor, float *losses,
                 struct ct_hand hand) {
    ct_barrier(hand);
    for (size_t first = 0; first < micro->rows; first += CT_HEAD_ROWS) {
        const size_t left = micro->rows - first;
        const size_t count = left < CT_HEAD_ROWS ? left : CT_HEAD_ROWS;
        const struct ct_span rows = ct_share(hand, count, CT_ROW_GRAIN);
        logits_rows(e, first, rows);
        entropy_rows(e, micro, first, rows, factor, losses);
        if (factor > 0.0f) {
            d_norm_rows(e, first, rows);
            ct_barrier(hand);
            weight_gradient(e, first, count, hand);
        }
        ct_barrier(hand);
    }
}
