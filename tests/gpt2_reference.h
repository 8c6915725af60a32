/* GPT-2's loss and gradients in double precision, as plain loops written from the formulas: the
 * independent definition that the engine is held to. With `rounded`, every value that bf16-1 rounds
 * (numerics.md) is rounded to bf16, and only the order of sums and their precision differ. */
#ifndef TESTS_GPT2_REFERENCE_H
#define TESTS_GPT2_REFERENCE_H

#include <cotrain/layout.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reference {
    const struct ct_layout *layout;
    const float *theta;
    double *gradient; /* [parameters] */
    bool rounded;
    double loss;
};

static inline double reference_round(const struct reference *r, double x) {
    if (!r->rounded) {
        return x;
    }
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    float out;
    memcpy(&out, &bits, sizeof out);
    return (double)out;
}

static inline size_t reference_offset(const struct reference *r, int layer, const char *name) {
    char full[CT_TENSOR_NAME_MAX];
    if (layer < 0) {
        snprintf(full, sizeof full, "transformer.%.40s", name);
    } else {
        snprintf(full, sizeof full, "transformer.h.%d.%.32s", layer, name);
    }
    return ct_layout_find(r->layout, full)->offset;
}

static inline double *reference_array(size_t n) {
    double *values = calloc(n, sizeof *values);
    if (values == NULL) {
        abort();
    }
    return values;
}

/* y[m][n] = x[m][k] W[k][n] + b, x already rounded */
static inline void reference_linear(const struct reference *r, double *y, const double *x, size_t m,
                                    size_t k, size_t n, size_t weight, size_t bias) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t p = 0; p < k; p++) {
                sum += x[i * k + p] * reference_round(r, (double)r->theta[weight + p * n + j]);
            }
            y[i * n + j] = sum + (double)r->theta[bias + j];
        }
    }
}

/* dx (overwritten), dW and db from dy; dy is rounded for the products alone */
static inline void reference_linear_back(struct reference *r, double *dx, const double *dy,
                                         const double *x, size_t m, size_t k, size_t n,
                                         size_t weight, size_t bias) {
    memset(dx, 0, m * k * sizeof *dx);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            const double d = reference_round(r, dy[i * n + j]);
            r->gradient[bias + j] += dy[i * n + j];
            for (size_t p = 0; p < k; p++) {
                dx[i * k + p] += d * reference_round(r, (double)r->theta[weight + p * n + j]);
                r->gradient[weight + p * n + j] += x[i * k + p] * d;
            }
        }
    }
}

static inline void reference_norm(const struct reference *r, double *y, const double *x, size_t m,
                                  size_t gain, size_t bias) {
    const size_t d = r->layout->shape.width;
    for (size_t i = 0; i < m; i++) {
        double mean = 0, variance = 0;
        for (size_t j = 0; j < d; j++) {
            mean += x[i * d + j] / (double)d;
        }
        for (size_t j = 0; j < d; j++) {
            variance += (x[i * d + j] - mean) * (x[i * d + j] - mean) / (double)d;
        }
        const double rstd = 1 / sqrt(variance + 1e-5);
        for (size_t j = 0; j < d; j++) {
            const double normal = (x[i * d + j] - mean) * rstd;
            y[i * d + j] = reference_round(r, normal * (double)r->theta[gain + j] +
                                                  (double)r->theta[bias + j]);
        }
    }
}

/* dx += through the norm */
static inline void reference_norm_back(struct reference *r, double *dx, const double *dy,
                                       const double *x, size_t m, size_t gain, size_t bias) {
    const size_t d = r->layout->shape.width;
    for (size_t i = 0; i < m; i++) {
        double mean = 0, variance = 0, a = 0, b = 0;
        for (size_t j = 0; j < d; j++) {
            mean += x[i * d + j] / (double)d;
        }
        for (size_t j = 0; j < d; j++) {
            variance += (x[i * d + j] - mean) * (x[i * d + j] - mean) / (double)d;
        }
        const double rstd = 1 / sqrt(variance + 1e-5);
        for (size_t j = 0; j < d; j++) {
            const double normal = (x[i * d + j] - mean) * rstd;
            const double h = dy[i * d + j] * (double)r->theta[gain + j];
            a += h / (double)d;
            b += h * normal / (double)d;
            r->gradient[gain + j] += dy[i * d + j] * normal;
            r->gradient[bias + j] += dy[i * d + j];
        }
        for (size_t j = 0; j < d; j++) {
            const double normal = (x[i * d + j] - mean) * rstd;
            const double h = dy[i * d + j] * (double)r->theta[gain + j];
            dx[i * d + j] += rstd * (h - a - normal * b);
        }
    }
}

static const double reference_gelu_c = 0.79788456080286535588; /* sqrt(2/pi) */

static inline double reference_gelu(double x) {
    return 0.5 * x * (1 + tanh(reference_gelu_c * (x + 0.044715 * x * x * x)));
}

static inline double reference_gelu_slope(double x) {
    const double t = tanh(reference_gelu_c * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * reference_gelu_c * (1 + 3 * 0.044715 * x * x);
}

/* p[i][j] unrounded exp(s − max), sums[i]; one head of one sequence of T rows; qkv rounded */
static inline void reference_scores(const struct reference *r, const double *qkv, size_t head,
                                    double *p, double *sums) {
    const size_t t = r->layout->shape.context, d = r->layout->shape.width;
    const size_t n = d / r->layout->shape.heads;
    for (size_t i = 0; i < t; i++) {
        double max = -(double)INFINITY;
        for (size_t j = 0; j <= i; j++) {
            double s = 0;
            for (size_t c = 0; c < n; c++) {
                s += qkv[i * 3 * d + head * n + c] * qkv[j * 3 * d + d + head * n + c];
            }
            p[i * t + j] = s / sqrt((double)n);
            max = p[i * t + j] > max ? p[i * t + j] : max;
        }
        sums[i] = 0;
        for (size_t j = 0; j <= i; j++) {
            p[i * t + j] = exp(p[i * t + j] - max);
            sums[i] += p[i * t + j];
        }
    }
}

static inline void reference_attention(const struct reference *r, const double *qkv, double *out) {
    const size_t t = r->layout->shape.context, d = r->layout->shape.width;
    const size_t n = d / r->layout->shape.heads;
    double *p = reference_array(t * t), *sums = reference_array(t);
    for (size_t head = 0; head < r->layout->shape.heads; head++) {
        reference_scores(r, qkv, head, p, sums);
        for (size_t i = 0; i < t; i++) {
            for (size_t c = 0; c < n; c++) {
                double o = 0;
                for (size_t j = 0; j <= i; j++) {
                    o += reference_round(r, p[i * t + j]) * qkv[j * 3 * d + 2 * d + head * n + c];
                }
                out[i * d + head * n + c] = reference_round(r, o / sums[i]);
            }
        }
    }
    free(p);
    free(sums);
}

static inline void reference_attention_back(const struct reference *r, const double *qkv,
                                            const double *dout, double *dqkv) {
    const size_t t = r->layout->shape.context, d = r->layout->shape.width;
    const size_t n = d / r->layout->shape.heads;
    double *p = reference_array(t * t), *sums = reference_array(t), *dp = reference_array(t);
    memset(dqkv, 0, t * 3 * d * sizeof *dqkv);
    for (size_t head = 0; head < r->layout->shape.heads; head++) {
        const size_t q = head * n, k = d + head * n, v = 2 * d + head * n;
        reference_scores(r, qkv, head, p, sums);
        for (size_t i = 0; i < t; i++) {
            double delta = 0;
            for (size_t j = 0; j <= i; j++) {
                dp[j] = 0;
                for (size_t c = 0; c < n; c++) {
                    const double g = reference_round(r, dout[i * d + q + c] / sums[i]);
                    dp[j] += g * qkv[j * 3 * d + v + c];
                    dqkv[j * 3 * d + v + c] += reference_round(r, p[i * t + j]) * g;
                }
                delta += p[i * t + j] * dp[j] / sums[i];
            }
            for (size_t j = 0; j <= i; j++) {
                const double ds =
                    reference_round(r, p[i * t + j] * (dp[j] - delta) / sqrt((double)n));
                for (size_t c = 0; c < n; c++) {
                    dqkv[i * 3 * d + q + c] += ds * qkv[j * 3 * d + k + c];
                    dqkv[j * 3 * d + k + c] += ds * qkv[i * 3 * d + q + c];
                }
            }
        }
    }
    free(p);
    free(sums);
    free(dp);
}

static inline void reference_round_all(const struct reference *r, double *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = reference_round(r, x[i]);
    }
}

/* What one layer keeps. */
struct reference_layer {
    double *x, *norm_1, *qkv, *attention, *middle, *norm_2, *before, *activation;
};

/* One sequence: adds its loss and gradients with weight `factor` (1/N). */
static inline void reference_sequence(struct reference *r, const uint32_t *tokens, double factor) {
    const struct ct_model_shape *shape = &r->layout->shape;
    const size_t t = shape->context, d = shape->width, vocab = shape->vocab;
    const int layers = (int)shape->layers;
    const size_t wte = reference_offset(r, -1, "wte.weight");
    const size_t wpe = reference_offset(r, -1, "wpe.weight");
    struct reference_layer *kept = calloc((size_t)layers, sizeof *kept);
    if (kept == NULL) {
        abort();
    }
    double *x = reference_array(t * d);
    for (size_t i = 0; i < t * d; i++) {
        x[i] = (double)r->theta[wte + tokens[i / d] * d + i % d] + (double)r->theta[wpe + i];
    }
    for (int l = 0; l < layers; l++) {
        struct reference_layer *k = &kept[l];
        k->x = x;
        k->norm_1 = reference_array(t * d);
        k->qkv = reference_array(t * 3 * d);
        k->attention = reference_array(t * d);
        k->middle = reference_array(t * d);
        k->norm_2 = reference_array(t * d);
        k->before = reference_array(t * 4 * d);
        k->activation = reference_array(t * 4 * d);
        reference_norm(r, k->norm_1, x, t, reference_offset(r, l, "ln_1.weight"),
                       reference_offset(r, l, "ln_1.bias"));
        reference_linear(r, k->qkv, k->norm_1, t, d, 3 * d,
                         reference_offset(r, l, "attn.c_attn.weight"),
                         reference_offset(r, l, "attn.c_attn.bias"));
        reference_round_all(r, k->qkv, t * 3 * d);
        reference_attention(r, k->qkv, k->attention);
        reference_linear(r, k->middle, k->attention, t, d, d,
                         reference_offset(r, l, "attn.c_proj.weight"),
                         reference_offset(r, l, "attn.c_proj.bias"));
        for (size_t i = 0; i < t * d; i++) {
            k->middle[i] += x[i];
        }
        reference_norm(r, k->norm_2, k->middle, t, reference_offset(r, l, "ln_2.weight"),
                       reference_offset(r, l, "ln_2.bias"));
        reference_linear(r, k->before, k->norm_2, t, d, 4 * d,
                         reference_offset(r, l, "mlp.c_fc.weight"),
                         reference_offset(r, l, "mlp.c_fc.bias"));
        for (size_t i = 0; i < t * 4 * d; i++) {
            k->activation[i] = reference_round(r, reference_gelu(k->before[i]));
        }
        reference_round_all(r, k->before, t * 4 * d);
        x = reference_array(t * d);
        reference_linear(r, x, k->activation, t, 4 * d, d,
                         reference_offset(r, l, "mlp.c_proj.weight"),
                         reference_offset(r, l, "mlp.c_proj.bias"));
        for (size_t i = 0; i < t * d; i++) {
            x[i] += k->middle[i];
        }
    }
    double *norm = reference_array(t * d), *dnorm = reference_array(t * d);
    double *logits = reference_array(vocab);
    const size_t gain = reference_offset(r, -1, "ln_f.weight");
    const size_t bias = reference_offset(r, -1, "ln_f.bias");
    reference_norm(r, norm, x, t, gain, bias);
    for (size_t i = 0; i < t; i++) {
        double max = -(double)INFINITY, sum = 0;
        for (size_t v = 0; v < vocab; v++) {
            logits[v] = 0;
            for (size_t c = 0; c < d; c++) {
                logits[v] +=
                    norm[i * d + c] * reference_round(r, (double)r->theta[wte + v * d + c]);
            }
            max = logits[v] > max ? logits[v] : max;
        }
        for (size_t v = 0; v < vocab; v++) {
            sum += exp(logits[v] - max);
        }
        const uint32_t target = tokens[i + 1];
        r->loss += factor * (log(sum) + max - logits[target]);
        for (size_t v = 0; v < vocab; v++) {
            const double dlogit = reference_round(
                r, (exp(logits[v] - max) / sum - (v == target ? 1.0 : 0.0)) * factor);
            for (size_t c = 0; c < d; c++) {
                const double w = reference_round(r, (double)r->theta[wte + v * d + c]);
                dnorm[i * d + c] += dlogit * w;
                r->gradient[wte + v * d + c] += dlogit * norm[i * d + c];
            }
        }
    }
    double *dx = reference_array(t * d), *part = reference_array(t * d);
    double *wide = reference_array(t * 4 * d);
    reference_norm_back(r, dx, dnorm, x, t, gain, bias);
    free(x);
    for (int l = layers - 1; l >= 0; l--) {
        struct reference_layer *k = &kept[l];
        reference_linear_back(r, wide, dx, k->activation, t, 4 * d, d,
                              reference_offset(r, l, "mlp.c_proj.weight"),
                              reference_offset(r, l, "mlp.c_proj.bias"));
        for (size_t i = 0; i < t * 4 * d; i++) {
            wide[i] *= reference_gelu_slope(k->before[i]);
        }
        reference_linear_back(r, part, wide, k->norm_2, t, d, 4 * d,
                              reference_offset(r, l, "mlp.c_fc.weight"),
                              reference_offset(r, l, "mlp.c_fc.bias"));
        reference_norm_back(r, dx, part, k->middle, t, reference_offset(r, l, "ln_2.weight"),
                            reference_offset(r, l, "ln_2.bias"));
        reference_linear_back(r, part, dx, k->attention, t, d, d,
                              reference_offset(r, l, "attn.c_proj.weight"),
                              reference_offset(r, l, "attn.c_proj.bias"));
        reference_attention_back(r, k->qkv, part, wide);
        reference_linear_back(r, part, wide, k->norm_1, t, d, 3 * d,
                              reference_offset(r, l, "attn.c_attn.weight"),
                              reference_offset(r, l, "attn.c_attn.bias"));
        reference_norm_back(r, dx, part, k->x, t, reference_offset(r, l, "ln_1.weight"),
                            reference_offset(r, l, "ln_1.bias"));
        double *const all[] = {k->x,      k->norm_1, k->qkv,    k->attention,
                               k->middle, k->norm_2, k->before, k->activation};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            free(all[i]);
        }
    }
    for (size_t i = 0; i < t * d; i++) {
        r->gradient[wte + tokens[i / d] * d + i % d] += dx[i];
        r->gradient[wpe + i] += dx[i];
    }
    free(kept);
    free(norm);
    free(dnorm);
    free(logits);
    free(dx);
    free(part);
    free(wide);
}

/* Mean loss and its gradient over tokens[batch][context + 1]; the caller frees r->gradient. */
static inline void reference_run(struct reference *r, const uint32_t *tokens, size_t batch) {
    const size_t context = r->layout->shape.context;
    r->gradient = reference_array(r->layout->parameters);
    r->loss = 0;
    for (size_t s = 0; s < batch; s++) {
        reference_sequence(r, tokens + s * (context + 1), 1.0 / (double)(batch * context));
    }
}

#endif
