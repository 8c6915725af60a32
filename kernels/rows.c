#include "rows.h"

#include "functions.h"

#ifndef CT_ROWS_INSTALL
#define CT_ROWS_INSTALL ct_rows_install_scalar
#endif

enum { LANES = 16 };

/* Nearest even on the upper half, subnormals to signed zero, NaN to a quiet NaN. */
static inline uint16_t round_bf16(float x) {
    const uint32_t bits = ct_bits32(x);
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    rounded = magnitude < 0x00800000u ? bits & 0x80000000u : rounded;
    rounded = magnitude > 0x7f800000u ? bits | 0x00400000u : rounded;
    return (uint16_t)(rounded >> 16);
}

static void bf16_from(uint16_t *restrict out, const float *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = round_bf16(in[i]);
    }
}

static void bf16_to(float *restrict out, const uint16_t *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = ct_float32((uint32_t)in[i] << 16);
    }
}

static void add(float *out, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

static void scale(float *out, const float *a, float factor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] * factor;
    }
}

static void divide(float *out, const float *a, float divisor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] / divisor;
    }
}

#define MAP(name)                                                                                  \
    static void map_##name(float *out, const float *a, size_t n) {                                 \
        for (size_t i = 0; i < n; i++) {                                                           \
            out[i] = ct_##name##32(a[i]);                                                          \
        }                                                                                          \
    }
MAP(exp)
MAP(log)
MAP(tanh)
MAP(erf)
MAP(sin)
MAP(cos)

/* exp(−2u) of the GELU at x. */
static inline float gelu_exp(float x) {
    const float u = (0x1.988454p-1f * x) * __builtin_fmaf(0x1.6e4e26p-5f * x, x, 1.0f);
    return ct_exp32(-2.0f * u);
}

static void gelu(float *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] / (1.0f + gelu_exp(x[i]));
    }
}

static void gelu_backward(float *dx, const float *dy, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float e = gelu_exp(x[i]);
        e = e > 0x1.fffffep+127f ? 0x1.fffffep+127f : e; /* infinity · 0 is no gradient */
        const float s = 1.0f / (1.0f + e);
        const float w = 0x1.988454p+0f * __builtin_fmaf(0x1.12ba9ep-3f * x[i], x[i], 1.0f);
        dx[i] = dy[i] * __builtin_fmaf((x[i] * s) * (e * s), w, s);
    }
}

static inline float fold(float lane[LANES]) {
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] = lane[l] + lane[l + width];
        }
    }
    return lane[0];
}

/* E4: `term` is an expression of the lane's old value `acc` and the index i. */
#define LANE_SUM(term)                                                                             \
    do {                                                                                           \
        size_t base = 0;                                                                           \
        for (; base + LANES <= n; base += LANES) {                                                 \
            for (size_t l = 0; l < LANES; l++) {                                                   \
                const size_t i = base + l;                                                         \
                const float acc = lane[l];                                                         \
                lane[l] = (term);                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (size_t l = 0; l < n - base; l++) {                                                    \
            const size_t i = base + l;                                                             \
            const float acc = lane[l];                                                             \
            lane[l] = (term);                                                                      \
        }                                                                                          \
    } while (0)

static float sum(const float *x, size_t n) {
    float lane[LANES] = {0};
    LANE_SUM(acc + x[i]);
    return fold(lane);
}

static float sum_squares(const float *x, size_t n) {
    float lane[LANES] = {0};
    LANE_SUM(__builtin_fmaf(x[i], x[i], acc));
    return fold(lane);
}

static float dot(const float *a, const float *b, size_t n) {
    float lane[LANES] = {0};
    LANE_SUM(__builtin_fmaf(a[i], b[i], acc));
    return fold(lane);
}

/* In lanes as well, so that the sign of a zero maximum is the same everywhere. */
static float max(const float *x, size_t n) {
    float lane[LANES];
    for (int l = 0; l < LANES; l++) {
        lane[l] = x[0];
    }
    LANE_SUM(x[i] > acc ? x[i] : acc);
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] = lane[l + width] > lane[l] ? lane[l + width] : lane[l];
        }
    }
    return lane[0];
}

static void layernorm(float *out, float *out_mean, float *out_rstd, const float *x,
                      const float *gain, const float *bias, float epsilon, size_t n) {
    const float mean = sum(x, n) / (float)n;
    float lane[LANES] = {0};
    LANE_SUM(__builtin_fmaf(x[i] - mean, x[i] - mean, acc));
    const float rstd = 1.0f / __builtin_sqrtf(fold(lane) / (float)n + epsilon);
    for (size_t i = 0; i < n; i++) {
        out[i] = __builtin_fmaf((x[i] - mean) * rstd, gain[i], bias[i]);
    }
    *out_mean = mean;
    *out_rstd = rstd;
}

static void layernorm_backward(float *restrict dx, const float *restrict dy,
                               const float *restrict x, float mean, float rstd,
                               const float *restrict gain, size_t n) {
    float lane[LANES] = {0};
    LANE_SUM(acc + dy[i] * gain[i]);
    const float a = fold(lane) / (float)n;
    memset(lane, 0, sizeof lane);
    LANE_SUM(__builtin_fmaf(dy[i] * gain[i], (x[i] - mean) * rstd, acc));
    const float b = fold(lane) / (float)n;
    for (size_t i = 0; i < n; i++) {
        const float normal = (x[i] - mean) * rstd;
        dx[i] = __builtin_fmaf(rstd, __builtin_fmaf(-normal, b, dy[i] * gain[i] - a), dx[i]);
    }
}

static void layernorm_columns(float *restrict dgain, float *restrict dbias,
                              const float *restrict dy, const float *restrict x,
                              const float *restrict mean, const float *restrict rstd, size_t rows,
                              size_t stride, size_t n) {
    for (size_t row = 0; row < rows; row++) {
        const float *restrict dy_row = dy + row * stride;
        const float *restrict x_row = x + row * stride;
        const float m = mean[row];
        const float s = rstd[row];
        for (size_t i = 0; i < n; i++) {
            dgain[i] = __builtin_fmaf(dy_row[i], (x_row[i] - m) * s, dgain[i]);
            dbias[i] = dbias[i] + dy_row[i];
        }
    }
}

static void column_sums(float *restrict out, const float *restrict x, size_t rows, size_t stride,
                        size_t n) {
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < n; i++) {
            out[i] = out[i] + x[row * stride + i];
        }
    }
}

static float attention_softmax(float *p, const float *s, float factor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        p[i] = s[i] * factor;
    }
    const float top = max(p, n);
    for (size_t i = 0; i < n; i++) {
        p[i] = ct_exp32(p[i] - top);
    }
    return sum(p, n);
}

static void attention_backward(float *ds, const float *p, const float *dp, float delta,
                               float factor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ds[i] = (p[i] * (dp[i] - delta)) * factor;
    }
}

static float cross_entropy(float *dlogits, const float *logits, uint32_t target, float factor,
                           size_t n) {
    const float top = max(logits, n);
    const float wanted = logits[target];
    float lane[LANES] = {0};
    if (dlogits == NULL) {
        LANE_SUM(acc + ct_exp32(logits[i] - top));
        return (ct_log32(fold(lane)) + top) - wanted;
    }
    for (size_t i = 0; i < n; i++) {
        dlogits[i] = ct_exp32(logits[i] - top);
    }
    const float total = sum(dlogits, n);
    const float inverse = 1.0f / total;
    const float hit = dlogits[target];
    for (size_t i = 0; i < n; i++) {
        dlogits[i] = (dlogits[i] * inverse) * factor;
    }
    dlogits[target] = (hit * inverse - 1.0f) * factor;
    return (ct_log32(total) + top) - wanted;
}

void CT_ROWS_INSTALL(struct ct_ops *ops) {
    ops->bf16_from = bf16_from;
    ops->bf16_to = bf16_to;
    ops->add = add;
    ops->scale = scale;
    ops->divide = divide;
    ops->exp = map_exp;
    ops->log = map_log;
    ops->tanh = map_tanh;
    ops->erf = map_erf;
    ops->sin = map_sin;
    ops->cos = map_cos;
    ops->gelu = gelu;
    ops->gelu_backward = gelu_backward;
    ops->sum = sum;
    ops->sum_squares = sum_squares;
    ops->dot = dot;
    ops->max = max;
    ops->layernorm = layernorm;
    ops->layernorm_backward = layernorm_backward;
    ops->layernorm_columns = layernorm_columns;
    ops->column_sums = column_sums;
    ops->attention_softmax = attention_softmax;
    ops->attention_backward = attention_backward;
    ops->cross_entropy = cross_entropy;
}
