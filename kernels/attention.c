#include "block.h"

#include <string.h>

/* One head of one sequence. Pointers into qkv stand at the head's first column of the sequence's
 * first row; rows are `stride` apart. */
struct head {
    const struct ct_engine *e;
    const struct ct_hand_scratch *scratch;
    const void *q, *k, *v;
    size_t d, stride, length;
    float scale; /* fp32(1/√d) */
    bool first;  /* of its group: its chains of dK and dV start */
};

/* Queries [first, first + count) against keys [0, last). */
struct block {
    size_t first, count, last;
};

static struct block query_block(const struct head *head, size_t first) {
    const size_t left = head->length - first;
    const size_t most = head->e->query_block;
    const size_t count = left < most ? left : most;
    return (struct block){first, count, first + count};
}

/* Columns of a head's queries, keys and values; heads of a group share keys and values. */
struct columns {
    size_t q, k, v;
};

static struct columns head_columns(const struct ct_model_shape *shape, size_t number) {
    const size_t d = shape->width / shape->heads, group = shape->heads / shape->kv_heads;
    return (struct columns){number * d, (shape->heads + number / group) * d,
                            (shape->heads + shape->kv_heads + number / group) * d};
}

static struct head make_head(const struct ct_engine *e, const struct ct_micro *micro,
                             const void *qkv, size_t sequence, size_t number,
                             const struct ct_hand_scratch *scratch) {
    const struct columns columns = head_columns(&e->layout->shape, number);
    const size_t start = sequence * micro->length * e->qkv_width;
    const size_t d = e->layout->shape.width / e->layout->shape.heads;
    return (struct head){
        .e = e,
        .scratch = scratch,
        .q = ct_operand(e, qkv, start + columns.q),
        .k = ct_operand(e, qkv, start + columns.k),
        .v = ct_operand(e, qkv, start + columns.v),
        .d = d,
        .stride = e->qkv_width,
        .length = micro->length,
        .scale = 1.0f / __builtin_sqrtf((float)d),
        .first = number % (e->layout->shape.heads / e->layout->shape.kv_heads) == 0,
    };
}

static const void *row_of(const struct head *head, const void *base, size_t row) {
    return ct_operand(head->e, base, row * head->stride);
}

/* A row of scores or of their gradients as operands, with zeros from n on, behind the diagonal. */
static void store_row(const struct head *head, void *operands, struct block block, size_t row,
                      const float *from, size_t n) {
    void *to = ct_operand(head->e, operands, row * block.last);
    ct_operand_store(head->e->options.numerics, to, from, n);
    memset(ct_operand(head->e, to, n), 0, (block.last - n) * head->e->operand_bytes);
}

/* p[count][last] = exp(s − max) up to the diagonal, as float and as operand; sums[count] = Σp. */
static void scores(const struct head *head, struct block block, float *sums) {
    const enum ct_numerics numerics = head->e->options.numerics;
    float *p = head->scratch->p;
    ct_matmul(numerics, &(struct ct_matmul){
                            .form = CT_NT,
                            .m = block.count,
                            .n = block.last,
                            .k = head->d,
                            .a = row_of(head, head->q, block.first),
                            .lda = head->stride,
                            .b = head->k,
                            .ldb = head->stride,
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
        store_row(head, head->scratch->p_operand, block, i, row, n);
    }
}

static void forward_block(const struct head *head, struct block block, void *out) {
    const enum ct_numerics numerics = head->e->options.numerics;
    float sums[CT_QUERY_BLOCK_MAX];
    scores(head, block, sums);
    ct_matmul(numerics, &(struct ct_matmul){
                            .form = CT_NN,
                            .m = block.count,
                            .n = head->d,
                            .k = block.last,
                            .a = head->scratch->p_operand,
                            .lda = block.last,
                            .b = head->v,
                            .ldb = head->stride,
                            .c = head->scratch->out,
                            .ldc = head->d,
                            .skip = CT_SKIP_LATE,
                            .diagonal = (ptrdiff_t)block.first,
                            .threads = 1,
                        });
    for (size_t i = 0; i < block.count; i++) {
        float *row = head->scratch->out + i * head->d;
        ct_ops.divide(row, row, sums[i], head->d);
        ct_operand_store(numerics,
                         ct_operand(head->e, out, (block.first + i) * head->e->layout->shape.width),
                         row, head->d);
    }
}

static void forward_head(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                         size_t sequence, size_t number, const struct ct_hand_scratch *scratch,
                         void *out) {
    const struct head head = make_head(e, micro, qkv, sequence, number, scratch);
    const size_t start = sequence * micro->length * e->layout->shape.width + number * head.d;
    for (size_t first = 0; first < head.length; first += e->query_block) {
        forward_block(&head, query_block(&head, first), ct_operand(e, out, start));
    }
}

void ct_attention_forward(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                          void *out, struct ct_hand hand) {
    const size_t heads = e->layout->shape.heads;
    struct ct_span units = {0, 0};
    while (ct_deal(hand, micro->sequences * heads, &units)) {
        for (size_t unit = units.begin; unit < units.end; unit++) {
            forward_head(e, micro, qkv, unit / heads, unit % heads, &e->scratch[hand.me], out);
        }
    }
}

/* g = dO/Σ as operand, dP = g·Vᵀ and dS as operand, with zeros after the diagonal. */
static void score_gradients(const struct head *head, struct block block, const float *sums,
                            const float *d_out) {
    const enum ct_numerics numerics = head->e->options.numerics;
    const struct ct_hand_scratch *scratch = head->scratch;
    for (size_t i = 0; i < block.count; i++) {
        ct_ops.divide(scratch->out + i * head->d,
                      d_out + (block.first + i) * head->e->layout->shape.width, sums[i], head->d);
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
                            .ldb = head->stride,
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
        store_row(head, scratch->ds_operand, block, i, dp, n);
    }
}

/* out[last][d] += left[count][last]ᵀ · right[count][d]: chains over queries, ascending. The first
 * block of queries starts those of its keys. */
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
                                             .ldc = head->stride,
                                             .resume = !head->first || block.first > 0,
                                             .skip = CT_SKIP_EARLY,
                                             .diagonal = -(ptrdiff_t)block.first,
                                             .threads = 1,
                                         });
}

/* Places in d_qkv of the head's gradients, the sequence's first row. */
struct gradients {
    float *q, *k, *v;
};

/* The gradient of the block's queries; those of keys and values go on. */
static void backward_block(const struct head *head, struct block block, const float *d_out,
                           struct gradients to) {
    const struct ct_hand_scratch *scratch = head->scratch;
    float sums[CT_QUERY_BLOCK_MAX];
    scores(head, block, sums);
    score_gradients(head, block, sums, d_out);
    over_queries(head, block, scratch->p_operand, scratch->g_operand, head->d, to.v);
    over_queries(head, block, scratch->ds_operand, row_of(head, head->q, block.first), head->stride,
                 to.k);
    ct_matmul(head->e->options.numerics, &(struct ct_matmul){
                                             .form = CT_NN,
                                             .m = block.count,
                                             .n = head->d,
                                             .k = block.last,
                                             .a = scratch->ds_operand,
                                             .lda = block.last,
                                             .b = head->k,
                                             .ldb = head->stride,
                                             .c = to.q + block.first * head->stride,
                                             .ldc = head->stride,
                                             .skip = CT_SKIP_LATE,
                                             .diagonal = (ptrdiff_t)block.first,
                                             .threads = 1,
                                         });
}

/* The heads of one group of one sequence, one after the other. */
static void backward_group(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                           const float *d_attention, float *d_qkv, size_t sequence, size_t group,
                           const struct ct_hand_scratch *scratch) {
    const struct ct_model_shape *shape = &e->layout->shape;
    const size_t members = shape->heads / shape->kv_heads;
    float *d_rows = d_qkv + sequence * micro->length * e->qkv_width;
    const float *d_out = d_attention + sequence * micro->length * shape->width;
    for (size_t number = group * members; number < (group + 1) * members; number++) {
        const struct columns columns = head_columns(shape, number);
        const struct head head = make_head(e, micro, qkv, sequence, number, scratch);
        const struct gradients to = {d_rows + columns.q, d_rows + columns.k, d_rows + columns.v};
        /* The chains that the first block of queries does not start. */
        for (size_t i = e->query_block; head.first && i < head.length; i++) {
            memset(to.k + i * head.stride, 0, head.d * sizeof(float));
            memset(to.v + i * head.stride, 0, head.d * sizeof(float));
        }
        for (size_t first = 0; first < head.length; first += e->query_block) {
            backward_block(&head, query_block(&head, first), d_out + number * head.d, to);
        }
    }
}

void ct_attention_backward(const struct ct_engine *e, const struct ct_micro *micro, const void *qkv,
                           const float *d_attention, float *d_qkv, struct ct_hand hand) {
    const size_t groups = e->layout->shape.kv_heads;
    struct ct_span units = {0, 0};
    while (ct_deal(hand, micro->sequences * groups, &units)) {
        for (size_t unit = units.begin; unit < units.end; unit++) {
            backward_group(e, micro, qkv, d_attention, d_qkv, unit / groups, unit % groups,
                           &e->scratch[hand.me]);
        }
    }
    ct_barrier(hand);
}
