/* Linear maps: y = x·W, its gradients, and the bias's. Weights are read as float and rounded while
 * they are packed, so that no rounded copy of the model exists. */
#include "block.h"

void ct_linear_forward(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                       struct ct_rows x, float *y, const struct ct_epilogue *epilogue,
                       struct ct_hand hand) {
    const struct ct_matmul job = {
        .form = linear->out_major ? CT_NT : CT_NN,
        .m = rows,
        .n = linear->out,
        .k = linear->in,
        .a = x.data,
        .lda = x.stride,
        .b = e->theta + linear->weight,
        .ldb = linear->out_major ? linear->in : linear->out,
        .b_float = true,
        .c = y,
        .ldc = linear->out,
        .epilogue = epilogue,
    };
    ct_matmul_team(e->options.numerics, &job, hand, e->room);
}

void ct_linear_backward(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                        struct ct_rows dy, float *dx, bool resume,
                        const struct ct_epilogue *epilogue, struct ct_hand hand) {
    const struct ct_matmul job = {
        .form = linear->out_major ? CT_NN : CT_NT,
        .m = rows,
        .n = linear->in,
        .k = linear->out,
        .a = dy.data,
        .lda = dy.stride,
        .b = e->theta + linear->weight,
        .ldb = linear->out_major ? linear->in : linear->out,
        .b_float = true,
        .c = dx,
        .ldc = linear->in,
        .resume = resume,
        .epilogue = epilogue,
    };
    ct_matmul_team(e->options.numerics, &job, hand, e->room);
}

void ct_linear_gradient(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                        struct ct_rows x, struct ct_rows dy, bool resume, struct ct_hand hand) {
    const struct ct_rows left = linear->out_major ? dy : x, right = linear->out_major ? x : dy;
    const struct ct_matmul job = {
        .form = CT_TN,
        .m = linear->out_major ? linear->out : linear->in,
        .n = linear->out_major ? linear->in : linear->out,
        .k = rows,
        .a = left.data,
        .lda = left.stride,
        .b = right.data,
        .ldb = right.stride,
        .c = e->gradient + linear->weight,
        .ldc = linear->out_major ? linear->in : linear->out,
        .resume = resume,
    };
    ct_matmul_team(e->options.numerics, &job, hand, e->room);
}

void ct_bias_gradient(const struct ct_engine *e, size_t rows, const struct ct_linear *linear,
                      const float *dy, size_t stride, struct ct_hand hand) {
    const struct ct_span span = ct_share(hand, linear->out, CT_ROW_GRAIN);
    if (linear->bias != CT_ABSENT && span.begin < span.end) {
        ct_ops.column_sums(e->gradient + linear->bias + span.begin, dy + span.begin, rows, stride,
                           span.end - span.begin);
    }
}
