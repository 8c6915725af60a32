#include "rows.h"

#include "functions.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifndef CT_ROWS_INSTALL
#define CT_ROWS_INSTALL ct_rows_install_scalar
#endif

enum { LANES = 16 };

/* Before a loop over elements that may run in place: outputs meet inputs at the same index or not
 * at all. Without it compilers take the scalar path when they do. */
#ifdef __clang__
#define EACH _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH _Pragma("GCC ivdep")
#endif

static void bf16_from(uint16_t *restrict out, const float *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = ct_bf16_round(in[i]);
    }
}

static void bf16_to(float *restrict out, const uint16_t *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = ct_float32((uint32_t)in[i] << 16);
    }
}

static void add(float *out, const float *a, const float *b, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

static void scale(float *out, const float *a, float factor, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = ct_mul(a[i], factor);
    }
}

static void divide(float *out, const float *a, float divisor, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = a[i] / divisor;
    }
}

#define MAP(name)                                                                                  \
    static void map_##name(float *out, const float *a, size_t n) {                                 \
        EACH for (size_t i = 0; i < n; i++) {                                                      \
            out[i] = ct_##name##32(a[i]);                                                          \
        }                                                                                          \
    }
MAP(exp)
MAP(log)
MAP(tanh)
MAP(erf)
MAP(sin)
MAP(cos)

static void gelu(float *out, const float *x, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = ct_gelu32(x[i]);
    }
}

static void gelu_backward(float *dx, const float *dy, const float *x, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        dx[i] = ct_gelu_backward32(dy[i], x[i]);
    }
}

static void swiglu(float *out, const float *gate, const float *up, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = ct_swiglu32(gate[i], up[i]);
    }
}

static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate,
                            const float *up, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        float first, second;
        ct_swiglu_backward32(&first, &second, dy[i], gate[i], up[i]);
        dgate[i] = first;
        dup[i] = second;
    }
}

static inline float fold(float lane[LANES]) {
    for (int l = 0; l < 8; l++) {
        lane[l] = lane[l] + lane[l + 8];
    }
    for (int l = 0; l < 4; l++) {
        lane[l] = lane[l] + lane[l + 4];
    }
    lane[0] = lane[0] + lane[2];
    lane[1] = lane[1] + lane[3];
    return lane[0] + lane[1];
}

/* The last, short block of a row, filled up with a value that changes no lane. */
static inline void fill_up(float block[LANES], const float *x, size_t rest, float filler) {
    for (size_t l = 0; l < LANES; l++) {
        block[l] = l < rest ? x[l] : filler;
    }
}

static inline void add_block(float lane[LANES], const float *x) {
    for (size_t l = 0; l < LANES; l++) {
        lane[l] = lane[l] + x[l];
    }
}

static float sum(const float *x, size_t n) {
    float lane[LANES] = {0};
    const size_t rest = n % LANES;
    for (size_t i = 0; i < n - rest; i += LANES) {
        add_block(lane, x + i);
    }
    if (rest > 0) {
        float block[LANES];
        fill_up(block, x + n - rest, rest, -0.0f); /* v + (−0) is v, −0 included */
        add_block(lane, block);
    }
    return fold(lane);
}

static inline void dot_block(float lane[LANES], const float *a, const float *b) {
    for (size_t l = 0; l < LANES; l++) {
        lane[l] = ct_fma(a[l], b[l], lane[l]);
    }
}

static float dot(const float *a, const float *b, size_t n) {
    float lane[LANES] = {0};
    const size_t rest = n % LANES;
    for (size_t i = 0; i < n - rest; i += LANES) {
        dot_block(lane, a + i, b + i);
    }
    if (rest > 0) {
        float block_a[LANES];
        float block_b[LANES];
        fill_up(block_a, a + n - rest, rest, -0.0f); /* v + (−0 · 0) is v */
        fill_up(block_b, b + n - rest, rest, 0.0f);
        dot_block(lane, block_a, block_b);
    }
    return fold(lane);
}

/* Lanes of squares are never −0, so v + 0 · 0 is v in its tail. */
static float sum_squares(const float *x, size_t n) {
    return dot(x, x, n);
}

/* lane = x > lane ? x : lane: one instruction, which GCC 12 finds for single values alone. */
static inline void max_block(float lane[LANES], const float *x) {
#if defined(__AVX512F__)
    _mm512_storeu_ps(lane, _mm512_max_ps(_mm512_loadu_ps(x), _mm512_loadu_ps(lane)));
#elif defined(__AVX2__)
    for (size_t l = 0; l < LANES; l += 8) {
        _mm256_storeu_ps(lane + l,
                         _mm256_max_ps(_mm256_loadu_ps(x + l), _mm256_loadu_ps(lane + l)));
    }
#else
    for (size_t l = 0; l < LANES; l++) {
        lane[l] = x[l] > lane[l] ? x[l] : lane[l];
    }
#endif
}

/* In lanes as well, so that the sign of a zero maximum is the same everywhere. */
static float max(const float *x, size_t n) {
    float lane[LANES];
    fill_up(lane, x, n < LANES ? n : LANES, x[0]);
    const size_t rest = n % LANES;
    for (size_t i = LANES; i + LANES <= n; i += LANES) {
        max_block(lane, x + i);
    }
    if (rest > 0) {
        float block[LANES];
        fill_up(block, x + n - rest, rest, x[0]);
        max_block(lane, block);
    }
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] = lane[l + width] > lane[l] ? lane[l + width] : lane[l];
        }
    }
    return lane[0];
}

static inline void variance_block(float lane[LANES], const float *x, float mean) {
    for (size_t l = 0; l < LANES; l++) {
        lane[l] = ct_fma(x[l] - mean, x[l] - mean, lane[l]);
    }
}

static void layernorm(float *out, float *out_mean, float *out_rstd, const float *x,
                      const float *gain, const float *bias, float epsilon, size_t n) {
    const float mean = sum(x, n) / (float)n;
    float lane[LANES] = {0};
    const size_t rest = n % LANES;
    for (size_t i = 0; i < n - rest; i += LANES) {
        variance_block(lane, x + i, mean);
    }
    if (rest > 0) {
        float block[LANES];
        fill_up(block, x + n - rest, rest, mean);
        variance_block(lane, block, mean);
    }
    const float rstd = 1.0f / __builtin_sqrtf(fold(lane) / (float)n + epsilon);
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = ct_fma(ct_mul(x[i] - mean, rstd), gain[i], bias[i]);
    }
    *out_mean = mean;
    *out_rstd = rstd;
}

/* Lanes of Σh and Σh·x̂ of the backward pass. */
static inline void slope_block(float lane_h[LANES], float lane_hx[LANES], const float *dy,
                               const float *gain, const float *x, float mean, float rstd) {
    for (size_t l = 0; l < LANES; l++) {
        lane_h[l] = lane_h[l] + ct_mul(dy[l], gain[l]);
    }
    for (size_t l = 0; l < LANES; l++) {
        lane_hx[l] = ct_fma(ct_mul(dy[l], gain[l]), ct_mul(x[l] - mean, rstd), lane_hx[l]);
    }
}

static void layernorm_backward(float *restrict dx, const float *restrict dy,
                               const float *restrict x, float mean, float rstd,
                               const float *restrict gain, size_t n) {
    float lane_h[LANES] = {0};
    float lane_hx[LANES] = {0};
    const size_t rest = n % LANES;
    const size_t whole = n - rest;
    for (size_t i = 0; i < whole; i += LANES) {
        slope_block(lane_h, lane_hx, dy + i, gain + i, x + i, mean, rstd);
    }
    if (rest > 0) {
        float block_dy[LANES];
        float block_gain[LANES];
        float block_x[LANES];
        fill_up(block_dy, dy + whole, rest, -0.0f); /* h = −0 · 1, h·x̂ = −0 · 0: both −0 */
        fill_up(block_gain, gain + whole, rest, 1.0f);
        fill_up(block_x, x + whole, rest, mean);
        slope_block(lane_h, lane_hx, block_dy, block_gain, block_x, mean, rstd);
    }
    const float a = fold(lane_h) / (float)n;
    const float b = fold(lane_hx) / (float)n;
    for (size_t i = 0; i < n; i++) {
        const float normal = ct_mul(x[i] - mean, rstd);
        const float inner = ct_fma(-normal, b, ct_mul(dy[i], gain[i]) - a);
        dx[i] = ct_fma(rstd, inner, dx[i]);
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
            dgain[i] = ct_fma(dy_row[i], ct_mul(x_row[i] - m, s), dgain[i]);
            dbias[i] = dbias[i] + dy_row[i];
        }
    }
}

static float rmsnorm(float *out, const float *x, const float *gain, float epsilon, size_t n) {
    const float rstd = 1.0f / __builtin_sqrtf(sum_squares(x, n) / (float)n + epsilon);
    EACH for (size_t i = 0; i < n; i++) {
        out[i] = ct_mul(ct_mul(x[i], rstd), gain[i]);
    }
    return rstd;
}

/* Lanes of Σh·x̂ of RMSNorm's backward pass. */
static inline void rms_slope_block(float lane[LANES], const float *dy, const float *gain,
                                   const float *x, float rstd) {
    for (size_t l = 0; l < LANES; l++) {
        lane[l] = ct_fma(ct_mul(dy[l], gain[l]), ct_mul(x[l], rstd), lane[l]);
    }
}

static void rmsnorm_backward(float *restrict dx, const float *restrict dy, const float *restrict x,
                             float rstd, const float *restrict gain, size_t n) {
    float lane[LANES] = {0};
    const size_t rest = n % LANES;
    const size_t whole = n - rest;
    for (size_t i = 0; i < whole; i += LANES) {
        rms_slope_block(lane, dy + i, gain + i, x + i, rstd);
    }
    if (rest > 0) {
        float block_dy[LANES];
        float block_gain[LANES];
        float block_x[LANES];
        fill_up(block_dy, dy + whole, rest, -0.0f); /* h·x̂ = −0 · 0 is −0 */
        fill_up(block_gain, gain + whole, rest, 1.0f);
        fill_up(block_x, x + whole, rest, 0.0f);
        rms_slope_block(lane, block_dy, block_gain, block_x, rstd);
    }
    const float b = fold(lane) / (float)n;
    for (size_t i = 0; i < n; i++) {
        const float inner = ct_fma(-ct_mul(x[i], rstd), b, ct_mul(dy[i], gain[i]));
        dx[i] = ct_fma(rstd, inner, dx[i]);
    }
}

static void rmsnorm_columns(float *restrict dgain, const float *restrict dy,
                            const float *restrict x, const float *restrict rstd, size_t rows,
                            size_t stride, size_t n) {
    for (size_t row = 0; row < rows; row++) {
        const float *restrict dy_row = dy + row * stride;
        const float *restrict x_row = x + row * stride;
        const float s = rstd[row];
        for (size_t i = 0; i < n; i++) {
            dgain[i] = ct_fma(dy_row[i], ct_mul(x_row[i], s), dgain[i]);
        }
    }
}

/* (a, b) of a head by (cosine, sign·sine). */
static inline void turn(float *restrict a, float *restrict b, const float *restrict cosine,
                        const float *restrict sine, float sign, size_t half) {
    for (size_t i = 0; i < half; i++) {
        const float x = a[i], y = b[i], s = ct_mul(sign, sine[i]);
        a[i] = ct_fma(-y, s, ct_mul(x, cosine[i]));
        b[i] = ct_fma(x, s, ct_mul(y, cosine[i]));
    }
}

static void rope(float *x, const float *cosine, const float *sine, size_t heads, size_t half) {
    for (size_t head = 0; head < heads; head++) {
        turn(x + head * 2 * half, x + (head * 2 + 1) * half, cosine, sine, 1.0f, half);
    }
}

static void rope_backward(float *x, const float *cosine, const float *sine, size_t heads,
                          size_t half) {
    for (size_t head = 0; head < heads; head++) {
        turn(x + head * 2 * half, x + (head * 2 + 1) * half, cosine, sine, -1.0f, half);
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

/* out = exp(in·factor − top), added to the lanes of E4. out may be in. */
static inline void exp_block(float lane[LANES], float *out, const float *in, float factor,
                             float top) {
    float x[LANES], p[LANES];
    memcpy(x, in, sizeof x);
    for (size_t l = 0; l < LANES; l++) {
        p[l] = ct_exp32(ct_mul(x[l], factor) - top);
    }
    add_block(lane, p);
    memcpy(out, p, sizeof p);
}

/* A row of exp(in·factor − top) and its sum. out may be in, or NULL: the sum alone. What lies
 * ahead_bytes behind is asked for, unless they are 0. */
static inline float exp_and_sum(float *out, const float *in, float factor, float top, size_t n,
                                size_t ahead_bytes) {
    float lane[LANES] = {0}, block[LANES];
    const size_t rest = n % LANES;
    for (size_t i = 0; i < n - rest; i += LANES) {
        if (ahead_bytes > 0) {
            __builtin_prefetch((const void *)((uintptr_t)(in + i) + ahead_bytes), 0, 2);
        }
        exp_block(lane, out != NULL ? out + i : block, in + i, factor, top);
    }
    if (rest > 0) {
        float unused[LANES] = {0};
        fill_up(block, in + n - rest, rest, in[n - 1]);
        exp_block(unused, block, block, factor, top);
        if (out != NULL) {
            memcpy(out + n - rest, block, rest * sizeof block[0]);
        }
        fill_up(block, block, rest, -0.0f);
        add_block(lane, block);
    }
    return fold(lane);
}

/* Rounding keeps order, so the largest product is that of the largest score. */
static float attention_softmax(float *p, const float *s, float factor, size_t n) {
    return exp_and_sum(p, s, factor, ct_mul(max(s, n), factor), n, 0);
}

static void attention_backward(float *ds, const float *p, const float *dp, float delta,
                               float factor, size_t n) {
    EACH for (size_t i = 0; i < n; i++) {
        ds[i] = ct_mul(ct_mul(p[i], dp[i] - delta), factor);
    }
}

static float cross_entropy(float *dlogits, const float *logits, uint32_t target, float factor,
                           size_t n) {
    const float top = max(logits, n);
    const float wanted = logits[target];
    /* Rows of logits come from memory and lie one behind the other: while this one is computed the
     * next is asked for. */
    const float total = exp_and_sum(dlogits, logits, 1.0f, top, n, n * sizeof *logits);
    if (dlogits != NULL) {
        const float inverse = 1.0f / total;
        const float hit = dlogits[target];
        EACH for (size_t i = 0; i < n; i++) {
            dlogits[i] = ct_mul(ct_mul(dlogits[i], inverse), factor);
        }
        dlogits[target] = ct_mul(ct_mul(hit, inverse) - 1.0f, factor);
    }
    return (ct_log32(total) + top) - wanted;
}

static inline void adamw_values(const struct ct_adamw_factors *f, float *restrict theta,
                                float *restrict m, float *restrict v, const float *restrict g,
                                size_t n, bool decay) {
    for (size_t i = 0; i < n; i++) {
        const float q = ct_mul(g[i], f->c);
        const float mi = ct_fma(f->beta1, m[i], ct_mul(f->one_minus_beta1, q));
        const float vi = ct_fma(f->beta2, v[i], ct_mul(ct_mul(f->one_minus_beta2, q), q));
        const float root = __builtin_sqrtf(ct_mul(vi, f->b2));
        const float base = decay ? ct_fma(f->minus_lr_decay, theta[i], theta[i]) : theta[i];
        theta[i] = ct_fma(f->minus_lr, ct_mul(mi, f->b1) / (root + f->epsilon), base);
        m[i] = mi;
        v[i] = vi;
    }
}

static void adamw(const struct ct_adamw_factors *factors, float *theta, float *m, float *v,
                  const float *g, size_t n) {
    const struct ct_adamw_factors f = *factors; /* no store can change it */
    if (f.decay) {
        adamw_values(&f, theta, m, v, g, n, true);
    } else {
        adamw_values(&f, theta, m, v, g, n, false);
    }
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
    ops->swiglu = swiglu;
    ops->swiglu_backward = swiglu_backward;
    ops->sum = sum;
    ops->sum_squares = sum_squares;
    ops->dot = dot;
    ops->max = max;
    ops->layernorm = layernorm;
    ops->layernorm_backward = layernorm_backward;
    ops->layernorm_columns = layernorm_columns;
    ops->rmsnorm = rmsnorm;
    ops->rmsnorm_backward = rmsnorm_backward;
    ops->rmsnorm_columns = rmsnorm_columns;
    ops->rope = rope;
    ops->rope_backward = rope_backward;
    ops->column_sums = column_sums;
    ops->attention_softmax = attention_softmax;
    ops->attention_backward = attention_backward;
    ops->cross_entropy = cross_entropy;
    ops->adamw = adamw;
}
