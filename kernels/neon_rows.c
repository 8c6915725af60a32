#include "rows.h"

#include "watch.h"

#include <cotrain/assert.h>

#include <string.h>

/* rows.c compiled for NEON without looking at zeros, and the definitions. Where a row operation
 * can flush, it runs bare and watched, and again by the definition if it flushed. What a call
 * overwrites of its inputs is kept for that. Sums, maxima, quotients, conversions and exp stay
 * bare: flush.h, and for exp: r is 0, or a multiple of 2^-49, or a tiny x itself; if r·r is
 * flushed, |r| < 2^-63 and fma(r·r, q, r) is r either way; the last two factors are powers of two.
 */
static struct ct_ops bare, definitions;

enum { PIECE = 1024, ROW_MAX = 65536 };

/* Runs a statement that computes by ops->…. It must not read what it writes. */
#define WATCHED(statement)                                                                         \
    do {                                                                                           \
        const struct ct_ops *ops = &bare;                                                          \
        ct_watch_begin();                                                                          \
        statement;                                                                                 \
        if (ct_watch_end()) {                                                                      \
            ops = &definitions;                                                                    \
            statement;                                                                             \
        }                                                                                          \
    } while (0)

static inline size_t piece(size_t n, size_t first) {
    return n - first < PIECE ? n - first : PIECE;
}

/* The input of an operation that writes `out`: a copy in `room` where they are the same. */
static inline const float *input(float *room, const float *out, const float *in, size_t n) {
    return out == in ? memcpy(room, in, n * sizeof *in) : in;
}

#define MAP(name)                                                                                  \
    static void map_##name(float *out, const float *a, size_t n) {                                 \
        float room[PIECE];                                                                         \
        for (size_t i = 0; i < n; i += PIECE) {                                                    \
            const size_t count = piece(n, i);                                                      \
            const float *in = input(room, out + i, a + i, count);                                  \
            WATCHED(ops->name(out + i, in, count));                                                \
        }                                                                                          \
    }
MAP(log)
MAP(tanh)
MAP(erf)
MAP(sin)
MAP(cos)
MAP(gelu)

static void scale(float *out, const float *a, float factor, size_t n) {
    float room[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i);
        const float *in = input(room, out + i, a + i, count);
        WATCHED(ops->scale(out + i, in, factor, count));
    }
}

static void gelu_backward(float *dx, const float *dy, const float *x, size_t n) {
    float room[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i);
        const float *in = input(room, dx + i, dy + i, count);
        WATCHED(ops->gelu_backward(dx + i, in, x + i, count));
    }
}

static void swiglu(float *out, const float *gate, const float *up, size_t n) {
    float room_gate[PIECE], room_up[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i);
        const float *in_gate = input(room_gate, out + i, gate + i, count);
        const float *in_up = input(room_up, out + i, up + i, count);
        WATCHED(ops->swiglu(out + i, in_gate, in_up, count));
    }
}

/* Either output may be any input, so the inputs are kept whatever they are. */
static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate,
                            const float *up, size_t n) {
    float in[3][PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i), bytes = count * sizeof(float);
        memcpy(in[0], dy + i, bytes);
        memcpy(in[1], gate + i, bytes);
        memcpy(in[2], up + i, bytes);
        WATCHED(ops->swiglu_backward(dgate + i, dup + i, in[0], in[1], in[2], count));
    }
}

static void attention_backward(float *ds, const float *p, const float *dp, float delta,
                               float factor, size_t n) {
    float room_p[PIECE], room_dp[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i);
        const float *in_p = input(room_p, ds + i, p + i, count);
        const float *in_dp = input(room_dp, ds + i, dp + i, count);
        WATCHED(ops->attention_backward(ds + i, in_p, in_dp, delta, factor, count));
    }
}

static float sum_squares(const float *x, size_t n) {
    float sum;
    WATCHED(sum = ops->sum_squares(x, n));
    return sum;
}

static float dot(const float *a, const float *b, size_t n) {
    float sum;
    WATCHED(sum = ops->dot(a, b, n));
    return sum;
}

/* Where a whole row that is overwritten is kept: 256 KiB of thread-local storage, of which only
 * threads that need it touch a page. A thread with a smaller stack than that cannot be created. */
static float *row_room(size_t n) {
    static _Thread_local float room[ROW_MAX];
    CT_ASSERT(n <= ROW_MAX);
    return room;
}

static void layernorm(float *out, float *out_mean, float *out_rstd, const float *x,
                      const float *gain, const float *bias, float epsilon, size_t n) {
    const float *in = input(row_room(n), out, x, n);
    WATCHED(ops->layernorm(out, out_mean, out_rstd, in, gain, bias, epsilon, n));
}

static void layernorm_backward(float *dx, const float *dy, const float *x, float mean, float rstd,
                               const float *gain, size_t n) {
    float *before = memcpy(row_room(n), dx, n * sizeof *dx);
    ct_watch_begin();
    bare.layernorm_backward(dx, dy, x, mean, rstd, gain, n);
    if (ct_watch_end()) {
        memcpy(dx, before, n * sizeof *dx);
        definitions.layernorm_backward(dx, dy, x, mean, rstd, gain, n);
    }
}

static void layernorm_columns(float *dgain, float *dbias, const float *dy, const float *x,
                              const float *mean, const float *rstd, size_t rows, size_t stride,
                              size_t n) {
    float before_gain[PIECE], before_bias[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i), bytes = count * sizeof(float);
        memcpy(before_gain, dgain + i, bytes);
        memcpy(before_bias, dbias + i, bytes);
        ct_watch_begin();
        bare.layernorm_columns(dgain + i, dbias + i, dy + i, x + i, mean, rstd, rows, stride,
                               count);
        if (ct_watch_end()) {
            memcpy(dgain + i, before_gain, bytes);
            memcpy(dbias + i, before_bias, bytes);
            definitions.layernorm_columns(dgain + i, dbias + i, dy + i, x + i, mean, rstd, rows,
                                          stride, count);
        }
    }
}

static float rmsnorm(float *out, const float *x, const float *gain, float epsilon, size_t n) {
    const float *in = input(row_room(n), out, x, n);
    float rstd;
    WATCHED(rstd = ops->rmsnorm(out, in, gain, epsilon, n));
    return rstd;
}

static void rmsnorm_backward(float *dx, const float *dy, const float *x, float rstd,
                             const float *gain, size_t n) {
    float *before = memcpy(row_room(n), dx, n * sizeof *dx);
    ct_watch_begin();
    bare.rmsnorm_backward(dx, dy, x, rstd, gain, n);
    if (ct_watch_end()) {
        memcpy(dx, before, n * sizeof *dx);
        definitions.rmsnorm_backward(dx, dy, x, rstd, gain, n);
    }
}

static void rmsnorm_columns(float *dgain, const float *dy, const float *x, const float *rstd,
                            size_t rows, size_t stride, size_t n) {
    float before[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i);
        memcpy(before, dgain + i, count * sizeof *dgain);
        ct_watch_begin();
        bare.rmsnorm_columns(dgain + i, dy + i, x + i, rstd, rows, stride, count);
        if (ct_watch_end()) {
            memcpy(dgain + i, before, count * sizeof *dgain);
            definitions.rmsnorm_columns(dgain + i, dy + i, x + i, rstd, rows, stride, count);
        }
    }
}

#define TURN(name)                                                                                 \
    static void name(float *x, const float *cosine, const float *sine, size_t heads,               \
                     size_t half) {                                                                \
        const size_t n = heads * 2 * half;                                                         \
        float *before = memcpy(row_room(n), x, n * sizeof *x);                                     \
        ct_watch_begin();                                                                          \
        bare.name(x, cosine, sine, heads, half);                                                   \
        if (ct_watch_end()) {                                                                      \
            memcpy(x, before, n * sizeof *x);                                                      \
            definitions.name(x, cosine, sine, heads, half);                                        \
        }                                                                                          \
    }
TURN(rope)
TURN(rope_backward)

static float attention_softmax(float *p, const float *s, float factor, size_t n) {
    const float *in = input(row_room(n), p, s, n);
    float sum;
    WATCHED(sum = ops->attention_softmax(p, in, factor, n));
    return sum;
}

/* A vocabulary may be larger than the room; then the definition computes. */
static float cross_entropy(float *dlogits, const float *logits, uint32_t target, float factor,
                           size_t n) {
    if (dlogits == logits && n > ROW_MAX) {
        return definitions.cross_entropy(dlogits, logits, target, factor, n);
    }
    const float *in = dlogits == logits ? memcpy(row_room(n), logits, n * sizeof *logits) : logits;
    float loss;
    WATCHED(loss = ops->cross_entropy(dlogits, in, target, factor, n));
    return loss;
}

static void adamw(const struct ct_adamw_factors *factors, float *theta, float *m, float *v,
                  const float *g, size_t n) {
    float before[3][PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t count = piece(n, i), bytes = count * sizeof(float);
        memcpy(before[0], theta + i, bytes);
        memcpy(before[1], m + i, bytes);
        memcpy(before[2], v + i, bytes);
        ct_watch_begin();
        bare.adamw(factors, theta + i, m + i, v + i, g + i, count);
        if (ct_watch_end()) {
            memcpy(theta + i, before[0], bytes);
            memcpy(m + i, before[1], bytes);
            memcpy(v + i, before[2], bytes);
            definitions.adamw(factors, theta + i, m + i, v + i, g + i, count);
        }
    }
}

void ct_rows_install_neon(struct ct_ops *ops) {
    ct_rows_install_scalar(&definitions);
    ct_rows_install_bare(&bare);
    ct_rows_install_bare(ops);
    ops->scale = scale;
    ops->log = map_log;
    ops->tanh = map_tanh;
    ops->erf = map_erf;
    ops->sin = map_sin;
    ops->cos = map_cos;
    ops->gelu = map_gelu;
    ops->gelu_backward = gelu_backward;
    ops->swiglu = swiglu;
    ops->swiglu_backward = swiglu_backward;
    ops->sum_squares = sum_squares;
    ops->dot = dot;
    ops->layernorm = layernorm;
    ops->layernorm_backward = layernorm_backward;
    ops->layernorm_columns = layernorm_columns;
    ops->rmsnorm = rmsnorm;
    ops->rmsnorm_backward = rmsnorm_backward;
    ops->rmsnorm_columns = rmsnorm_columns;
    ops->rope = rope;
    ops->rope_backward = rope_backward;
    ops->attention_softmax = attention_softmax;
    ops->attention_backward = attention_backward;
    ops->cross_entropy = cross_entropy;
    ops->adamw = adamw;
}
