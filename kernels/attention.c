#include "gpt2.h"

#include <string.h>

/* One head of one sequence. Pointers into qkv stand at the head's first column of the sequence's
 * first row; rows are 3·D apart. */
struct head {
    const struct ct_engine *e;
    const struct ct_attention_scratch *scratch;
    const void *q, *k, *v;
    size_t d, width, length;
    float scale; /* fp32(1/√d) */
};

/* Queries [first, first + count) against keys [0, last). */
struct block {
    size_t first, count, last;
};

static struct block query_block(const struct head *head, size_t first) {
    const size_t left = head->length - first;
    const size_t count = left < CT_QUERY_BLOCK ? left : CT_QUERY_BLOCK;
    return (struct block){first, count, first + count};
}

static struct head make_head(const struct ct_engine *e, const struct ct_micro *micro,
                             const void *qkv, size_t pair,
                             const struct ct_attention_scratch *scratch) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t width = shape->width, d = width / shape->heads;
    const size_t sequence = pair / shape->heads, number = pair % shape->heads;
    const size_t start = sequence * micro->length * 3 * width + number * d;
    return (struct head){
        .e = e,
        .scratch = scratch,
        .q = ct_operand(e, qkv, start),
        .k = ct_operand(e, qkv, start + width),
        .v = ct_operand(e, qkv, start + 2 * width),
        .d = d,
        .width = width,
        .length = micro->length,
        .scale = 1.0f / __builtin_sqrtf((float)d),
    };
}

static const void *row_of(const struct head *head, const void *base, size_t row) {
    return ct_operand(head->e, base, row * 3 * head->width);
}

/* p[count][last] = exp(s − max) with zeros after the diagonal, as float and as operand; sums[count]
 * = Σp. */
static void scores(const struct head *head, struct block block, float *sums) {
    const enum ct_numerics numerics = head->e->options.numerics;
    float *p = head->scratch->p;
    ct_matmul(numerics, &(struct ct_matmul){
                            .form = CT_NT,
                            .m = block.count,
                            .n = block.last,
                            .k = head->d,
                            .a = row_of(head, head->q, block.first),
                            .lda = 3 * head->width,
                            .b = head->k,
                            .ldb = 3 * head->width,
                            .c = p,
                            .ldc = block.last,
                            .skip = CT_SKIP_UPPER_C,
                            .diagonal = (ptrdiff_t)block.first,
                            .threads = 1,
                        });
    for (size_t i = 0; i < block.count; i++) {
        float *row = p + i * block.last;
        const size_t n = block.first + i + 1;
        sums[i] = ct_ops.attention_softmax(row, row, head->scale, n);
        memset(row + n, 0, (block.last - n) * sizeof(float));
    }
    ct_operand_store(numerics, head->scratch->p_operand, p, block.count * block.last);
}

static void forward_block(const struct head *head, struct block block, void *out) {
    const enum ct_numerics numerics = head->e->options.numerics;
    float sums[CT_QUERY_BLOCK];
    scores(head, block, sums);
    ct_matmul(numerics, &(struct ct_matmul){
                            .form = CT_NN,
                            .m = block.count,
                            .n = head->d,
                            .k = block.last,
                            .a = head->scratch->p_operand,
                            .lda = block.last,
                            .b = head->v,
                            .ldb = 3 * head->width,
                            .c = head->scratch->out,
                            .ldc = head->d,
                            .skip = CT_SKIP_LATE,
                            .diagonal = (ptrdiff_t)block.first,
                            .threads = 1,
                        });
    for (size_t i = 0; i < block.count; i++) {
        float *row = head->scratch->out + i * head->d;
        ct_ops.divide(row, row, sums[i], head->d);
        ct_operand_store(numerics, ct_operand(head->e, out, (block.first + i) * head->width), row,
                         head->d);
    }
}

void ct_attention_forward(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                          void *out, struct ct_hand hand) {
    const size_t heads = e->layout->shape.heads;
    const struct ct_span pairs = ct_share(hand, micro->sequences * heads, 1);
    for (size_t pair = pairs.begin; pair < pairs.end; pair++) {
        const struct head head = make_head(e, micro, qkv, pair, &e->attention[hand.me]);
        const size_t start = pair / heads * micro->length * head.width + pair % heads * head.d;
        for (size_t first = 0; first < head.length; first += CT_QUERY_BLOCK) {
            forward_block(&head, query_block(&head, first), ct_operand(e, out, start));
        }
    }
}

/* g = dO/Σ as operand, dP = g·Vᵀ and dS as operand, with zeros after the diagonal. */
static void score_gradients(const struct head *head, struct block block, const float *sums,
                            const float *d_out) {
    const enum ct_numerics numerics = head->e->options.numerics;
    const struct ct_attention_scratch *scratch = head->scratch;
    for (size_t i = 0; i < block.count; i++) {
        ct_ops.divide(scratch->out + i * head->d, d_out + (block.first + i) * head->width, sums[i],
                      head->d);
    }
    ct_operand_store(numerics, scratch->g_operand, scratch->out, block.count * head->d);
    ct_matmul(numerics, &(struct ct_matmul){
                            .form = CT_NT,
                            .m = block.count,
                            .n = block.last,
                            .k = head->d,
                            .a = scratch->g_operand,
                            .lda = head->d,
                            .b = head->v,
                            .ldb = 3 * head->width,
                            .c = scratch->dp,
                            .ldc = block.last,
                            .skip = CT_SKIP_UPPER_C,
                            .diagonal = (ptrdiff_t)block.first,
                            .threads = 1,
                        });
    for (size_t i = 0; i < block.count; i++) {
        float *dp = scratch->dp + i * block.last;
        const float *p = scratch->p + i * block.last;
        const size_t n = block.first + i + 1;
        const float delta = ct_ops.dot(p, dp, n) / sums[i];
        ct_ops.attention_backward(dp, p, dp, delta, head->scale, n);
        memset(dp + n, 0, (block.last - n) * sizeof(float));
    }
    ct_operand_store(numerics, scratch->ds_operand, scratch->dp, block.count * block.last);
}

/* out[last][d] += left[count][last]ᵀ · right[count][d]: chains over queries, ascending. */
static void over_queries(const struct head *head, struct block block, const void *left,
                         const void *right, size_t right_stride, float *out) {
    ct_matmul(head->e->options.numerics, &(struct ct_matmul){
                                             .form = CT_TN,
                                             .m = block.last,
                                             .n = head->d,
                                             .k = block.count,
                                             .a = left,
                                             .lda = block.last,
                                             .b = right,
                                             .ldb = right_stride,
                                             .c = out,
                                             .ldc = 3 * head->width,
                                             .resume = true,
                                             .skip = CT_SKIP_EARLY,
                                             .diagonal = -(ptrdiff_t)block.first,
                                             .threads = 1,
                                         });
}

/* The gradients of q, k and v stand in d_qkv as q, k, v do in qkv; those of k and v start at +0. */
static void backward_block(const struct head *head, struct block block, const float *d_out,
                           float *d_qkv) {
    const struct ct_attention_scratch *scratch = head->scratch;
    const size_t stride = 3 * head->width;
    float sums[CT_QUERY_BLOCK];
    scores(head, block, sums);
    score_gradients(head, block, sums, d_out);
    over_queries(head, block, scratch->p_operand, scratch->g_operand, head->d,
                 d_qkv + 2 * head->width);
    over_queries(head, block, scratch->ds_operand, row_of(head, head->q, block.first), stride,
                 d_qkv + head->width);
    ct_matmul(head->e->options.numerics, &(struct ct_matmul){
                                             .form = CT_NN,
                                             .m = block.count,
                                             .n = head->d,
                                             .k = block.last,
                                             .a = scratch->ds_operand,
                                             .lda = block.last,
                                             .b = head->k,
                                             .ldb = stride,
                                             .c = d_qkv + block.first * stride,
                                             .ldc = stride,
                                             .skip = CT_SKIP_LATE,
                                             .diagonal = (ptrdiff_t)block.first,
                                             .threads = 1,
                                         });
}

void ct_attention_backward(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                           const float *d_attention, float *d_qkv, struct ct_hand hand) {
    const size_t heads = e->layout->shape.heads;
    const struct ct_span pairs = ct_share(hand, micro->sequences * heads, 1);
    for (size_t pair = pairs.begin; pair < pairs.end; pair++) {
        const struct head head = make_head(e, micro, qkv, pair, &e->attention[hand.me]);
        const size_t row = pair / heads * micro->length, column = pair % heads * head.d;
        const float *d_out = d_attention + row * head.width + column;
        float *d_head = d_qkv + row * 3 * head.width + column;
        for (size_t i = 0; i < head.length; i++) {
            memset(d_head + (i * 3 + 1) * head.width, 0, head.d * sizeof(float));
            memset(d_head + (i * 3 + 2) * head.width, 0, head.d * sizeof(float));
        }
        for (size_t first = 0; first < head.length; first += CT_QUERY_BLOCK) {
            backward_block(&head, query_block(&head, first), d_out, d_head);
        }
    }
}
