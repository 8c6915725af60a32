#include "bits.h"

#include "threshold.h"

#include <cotrain/mode.h>

/* More than two of the pieces that an overlay may cut rows into, and no multiple of anything. */
enum { N = 2501 };

/* In the window 2^-126·(1 − 2^-25) … 2^-126. */
#define TARGET (0x1p-126 - 0x1p-152)

static uint64_t random_state;

static bool in_window(double exact) {
    return fabs(exact) < 0x1p-126 && fabs(exact) >= 0x1p-126 - 0x1p-151;
}

/* Two floats whose product is in the window; *x has the exponent given. */
static void find_pair(int exponent, float *x, float *y) {
    do {
        *x = threshold_scaled(&random_state, exponent);
        *y = (float)(TARGET / (double)*x);
    } while (!in_window((double)*x * (double)*y));
}

/* Plain values of order 1. */
static void fill(float *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        values[i] = threshold_scaled(&random_state, 0) - 1.5f;
    }
}

/* values[i] = the float that brings slope[i]·values[i] nearest to the window. */
static void aim(float *values, const float *slope) {
    for (size_t i = 0; i < N; i++) {
        values[i] = (float)(TARGET / (double)slope[i]);
    }
}

static void scale(const struct ct_ops *ops) {
    float x[N], hit, factor;
    find_pair(-60, &hit, &factor);
    fill(x, N);
    for (size_t i = 0; i < N; i += 3) {
        x[i] = hit;
    }
    const struct ct_mode mode = ct_mode_enter();
    ops->scale(x, x, factor, N);
    ct_mode_leave(mode);
    bits_print("threshold scale", x, sizeof x);
}

static void dot(const struct ct_ops *ops) {
    float x[16], y[16], sums[3];
    for (int i = 0; i < 16; i++) {
        find_pair(-40 - i, &x[i], &y[i]);
    }
    const struct ct_mode mode = ct_mode_enter();
    sums[0] = ops->dot(x, y, 16);
    sums[1] = ops->dot(x, y, 5);
    sums[2] = ops->sum_squares(x, 16);
    ct_mode_leave(mode);
    bits_print("threshold dot", sums, sizeof sums);
}

static void layernorm(const struct ct_ops *ops) {
    float x[N], gain[N], bias[N] = {0}, out[N], scalars[2];
    fill(x, N);
    for (size_t i = 0; i < N; i++) {
        gain[i] = 1.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->layernorm(out, &scalars[0], &scalars[1], x, gain, bias, 1e-5f, N);
    ct_mode_leave(mode);
    aim(gain, out);
    mode = ct_mode_enter();
    ops->layernorm(x, &scalars[0], &scalars[1], x, gain, bias, 1e-5f, N);
    ct_mode_leave(mode);
    bits_print("threshold layernorm", x, sizeof x);
}

static void layernorm_backward(const struct ct_ops *ops) {
    float dx[N] = {0}, dy[N], x[N], gain[N];
    fill(x, N);
    for (size_t i = 0; i < N; i++) {
        dy[i] = threshold_scaled(&random_state, -124);
        gain[i] = threshold_scaled(&random_state, 0);
    }
    struct ct_mode mode = ct_mode_enter();
    ops->layernorm_backward(dx, dy, x, 0.01f, 1.7777778f, gain, N);
    ct_mode_leave(mode);
    for (size_t i = 0; i < N; i++) {
        dx[i] = (float)(0x1p-126 - (double)dx[i]);
    }
    mode = ct_mode_enter();
    ops->layernorm_backward(dx, dy, x, 0.01f, 1.7777778f, gain, N);
    ct_mode_leave(mode);
    bits_print("threshold layernorm_backward", dx, sizeof dx);
}

static void layernorm_columns(const struct ct_ops *ops) {
    static float dy[2 * N], x[2 * N], dgain[N], dbias[N];
    const float mean[2] = {0.25f, 0.5f}, rstd[2] = {1.1f, 0.9f};
    fill(x, N);
    fill(x + N, N);
    for (size_t i = 0; i < N; i++) {
        dy[i] = 1.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->layernorm_columns(dgain, dbias, dy, x, mean, rstd, 1, N, N);
    ct_mode_leave(mode);
    aim(dy, dgain);
    memset(dgain, 0, sizeof dgain);
    mode = ct_mode_enter();
    ops->layernorm_columns(dgain, dbias, dy, x, mean, rstd, 2, N, N);
    ct_mode_leave(mode);
    bits_print("threshold layernorm_columns", dgain, sizeof dgain);
    bits_print("threshold layernorm_columns sums", dbias, sizeof dbias);
}

static void gelu_backward(const struct ct_ops *ops) {
    float dy[N], x[N], slope[N];
    fill(x, N);
    for (size_t i = 0; i < N; i++) {
        dy[i] = 1.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->gelu_backward(slope, dy, x, N);
    ct_mode_leave(mode);
    aim(dy, slope);
    mode = ct_mode_enter();
    ops->gelu_backward(dy, dy, x, N);
    ct_mode_leave(mode);
    bits_print("threshold gelu_backward", dy, sizeof dy);
}

/* The same where a product ends: gradients as chains' ends, in rows of COLUMNS, a block in the
 * middle. */
static void finish_gelu_backward(const struct ct_ops *ops) {
    enum { COLUMNS = 61, ROWS = N / COLUMNS };
    float c[N], x[N], out[N] = {0}, sums[COLUMNS] = {0};
    struct ct_finish finish = {.out = out, .in = x, .sums = sums, .stride = COLUMNS};
    fill(x, N);
    for (size_t i = 0; i < N; i++) {
        c[i] = 1.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->finish.gelu_backward(&finish, c, COLUMNS, 0, ROWS, 0, COLUMNS);
    ct_mode_leave(mode);
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++) {
        c[i] = (float)(TARGET / (double)out[i]);
    }
    memset(sums, 0, sizeof sums);
    mode = ct_mode_enter();
    ops->finish.gelu_backward(&finish, c + 3 * COLUMNS + 5, COLUMNS, 3, ROWS - 7, 5, COLUMNS - 9);
    ct_mode_leave(mode);
    bits_print("threshold finish_gelu_backward", out, sizeof out);
    bits_print("threshold finish_gelu_backward's sums", sums, sizeof sums);
}

static void swiglu(const struct ct_ops *ops) {
    float gate[N], up[N], dy[N], dgate[N], dup[N];
    fill(gate, N);
    for (size_t i = 0; i < N; i++) {
        up[i] = dy[i] = 1.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->swiglu(dup, gate, up, N);
    ct_mode_leave(mode);
    aim(up, dup);
    mode = ct_mode_enter();
    ops->swiglu(up, gate, up, N);
    ops->swiglu_backward(dgate, dup, dy, gate, dy, N);
    ct_mode_leave(mode);
    bits_print("threshold swiglu", up, sizeof up);
    aim(dy, dup);
    mode = ct_mode_enter();
    ops->swiglu_backward(gate, dy, dy, gate, gate, N);
    ct_mode_leave(mode);
    bits_print("threshold swiglu_backward", dy, sizeof dy);
    bits_print("threshold swiglu_backward gate", gate, sizeof gate);
}

static void rmsnorm(const struct ct_ops *ops) {
    float x[N], gain[N], out[N], dy[N], dx[N] = {0}, rstd;
    fill(x, N);
    for (size_t i = 0; i < N; i++) {
        gain[i] = 1.0f;
        dy[i] = threshold_scaled(&random_state, -124);
    }
    struct ct_mode mode = ct_mode_enter();
    rstd = ops->rmsnorm(out, x, gain, 1e-5f, N);
    ops->rmsnorm_backward(dx, dy, x, 1.7777778f, gain, N);
    ct_mode_leave(mode);
    for (size_t i = 0; i < N; i++) {
        dx[i] = (float)(0x1p-126 - (double)dx[i]);
    }
    mode = ct_mode_enter();
    ops->rmsnorm_backward(dx, dy, x, 1.7777778f, gain, N);
    ct_mode_leave(mode);
    bits_print("threshold rmsnorm_backward", dx, sizeof dx);
    aim(dy, out);
    memset(dx, 0, sizeof dx);
    mode = ct_mode_enter();
    ops->rmsnorm_columns(dx, dy, x, &rstd, 1, N, N);
    ct_mode_leave(mode);
    bits_print("threshold rmsnorm_columns", dx, sizeof dx);
    aim(gain, out);
    mode = ct_mode_enter();
    rstd = ops->rmsnorm(x, x, gain, 1e-5f, N);
    ct_mode_leave(mode);
    bits_print("threshold rmsnorm", x, sizeof x);
}

static void rope(const struct ct_ops *ops) {
    enum { HEADS = 3, HALF = 21 };
    float x[HEADS][2][HALF], back[HEADS][2][HALF], cosine[HALF], sine[HALF];
    fill(&x[0][0][0], HEADS * 2 * HALF);
    for (size_t i = 0; i < HALF; i++) {
        find_pair(-110, &x[0][0][i], &cosine[i]);
        sine[i] = threshold_scaled(&random_state, -2);
        x[0][1][i] = 0.0f;
    }
    memcpy(back, x, sizeof back);
    const struct ct_mode mode = ct_mode_enter();
    ops->rope(&x[0][0][0], cosine, sine, HEADS, HALF);
    ops->rope_backward(&back[0][0][0], cosine, sine, HEADS, HALF);
    ct_mode_leave(mode);
    bits_print("threshold rope", x, sizeof x);
    bits_print("threshold rope_backward", back, sizeof back);
}

static void attention(const struct ct_ops *ops) {
    float p[N], dp[N], hit, factor, sum;
    find_pair(-70, &hit, &factor);
    for (size_t i = 0; i < N; i++) {
        p[i] = i % 5 == 0 ? hit : 0.001f;
        dp[i] = 1.125f;
    }
    struct ct_mode mode = ct_mode_enter();
    ops->attention_backward(dp, p, dp, 0.125f, factor, N);
    ct_mode_leave(mode);
    bits_print("threshold attention_backward", dp, sizeof dp);
    fill(p, N);
    mode = ct_mode_enter();
    sum = ops->attention_softmax(p, p, 120.0f, N);
    ct_mode_leave(mode);
    bits_print("threshold attention_softmax", p, sizeof p);
    bits_print("threshold attention_softmax sum", &sum, sizeof sum);
}

/* Equal logits have one probability q; a factor is looked for that brings it into the window. */
static void cross_entropy(const struct ct_ops *ops) {
    for (size_t n = 3; n < 40; n++) {
        float logits[40] = {0}, loss, factor;
        struct ct_mode mode = ct_mode_enter();
        loss = ops->cross_entropy(logits, logits, 1, 1.0f, n);
        ct_mode_leave(mode);
        factor = (float)(TARGET / (double)logits[0]);
        if (!in_window((double)factor * (double)logits[0])) {
            continue;
        }
        memset(logits, 0, sizeof logits);
        mode = ct_mode_enter();
        loss += ops->cross_entropy(logits, logits, 1, factor, n);
        ct_mode_leave(mode);
        bits_print("threshold cross_entropy", logits, sizeof logits);
        bits_print("threshold cross_entropy loss", &loss, sizeof loss);
    }
}

static void adamw(const struct ct_ops *ops) {
    const struct ct_adamw_factors factors = {0.9f,  0.95f, 0.1f,   0.05f,  5.0f, 10.0f,
                                             1e-8f, 1.0f,  -1e-2f, -1e-3f, true};
    float theta[N], m[N] = {0}, v[N], g[N];
    fill(theta, N);
    for (size_t i = 0; i < N; i++) {
        v[i] = threshold_scaled(&random_state, -125);
        g[i] = threshold_scaled(&random_state, -121);
        m[i] = (float)((0x1p-126 - (double)0.1f * (double)g[i]) / (double)0.9f);
    }
    const struct ct_mode mode = ct_mode_enter();
    ops->adamw(&factors, theta, m, v, g, N);
    ct_mode_leave(mode);
    bits_print("threshold adamw", m, sizeof m);
    bits_print("threshold adamw v", v, sizeof v);
    bits_print("threshold adamw theta", theta, sizeof theta);
}

/* In place, on values whose squares flush. */
static void functions(const struct ct_ops *ops) {
    const struct {
        const char *name;
        void (*run)(float *out, const float *a, size_t n);
    } all[] = {
        {"threshold exp", ops->exp},   {"threshold log", ops->log}, {"threshold tanh", ops->tanh},
        {"threshold erf", ops->erf},   {"threshold sin", ops->sin}, {"threshold cos", ops->cos},
        {"threshold gelu", ops->gelu},
    };
    for (size_t f = 0; f < sizeof all / sizeof all[0]; f++) {
        float x[N];
        for (size_t i = 0; i < N; i++) {
            x[i] = threshold_scaled(&random_state, -(int)(i % 127)) * (i % 2 == 0 ? 1.0f : -1.0f);
        }
        const struct ct_mode mode = ct_mode_enter();
        all[f].run(x, x, N);
        ct_mode_leave(mode);
        for (size_t i = 0; i < N; i++) { /* which NaN is nobody's promise */
            x[i] = isnan(x[i]) ? 0.0f : x[i];
        }
        bits_print(all[f].name, x, sizeof x);
    }
}

void bits_threshold_rows(const struct ct_ops *ops) {
    random_state = 11;
    scale(ops);
    dot(ops);
    layernorm(ops);
    layernorm_backward(ops);
    layernorm_columns(ops);
    gelu_backward(ops);
    finish_gelu_backward(ops);
    swiglu(ops);
    rmsnorm(ops);
    rope(ops);
    attention(ops);
    cross_entropy(ops);
    adamw(ops);
    functions(ops);
}
