/* Llama's loss, logits and gradients in double precision, as plain loops written from the formulas:
 * the independent definition that the engine is held to (test_llama_reference.c holds it to others'
 * numbers). `rounded` as in gpt2_reference.h. */
#ifndef TESTS_LLAMA_REFERENCE_H
#define TESTS_LLAMA_REFERENCE_H

#include "gpt2_reference.h"

/* Sizes by their usual names. */
struct llama_sizes {
    size_t t, d, heads, kv_heads, head, kv, hidden, vocab;
};

static inline struct llama_sizes llama_sizes(const struct reference *r) {
    const struct ct_model_shape *s = &r->layout->shape;
    const size_t head = s->width / s->heads;
    return (struct llama_sizes){s->context, s->width,           s->heads,  s->kv_heads,
                                head,       head * s->kv_heads, s->hidden, s->vocab};
}

static inline size_t llama_offset(const struct reference *r, int layer, const char *name) {
    char full[CT_TENSOR_NAME_MAX];
    snprintf(full, sizeof full, "model.layers.%d.%.40s.weight", layer, name);
    return ct_layout_find(r->layout, full)->offset;
}

static inline double llama_weight(const struct reference *r, size_t index) {
    return reference_round(r, (double)r->theta[index]);
}

/* y[m][n] = x[m][k] W[n][k]ᵀ, x already rounded */
static inline void llama_linear(const struct reference *r, double *y, const double *x, size_t m,
                                size_t k, size_t n, size_t weight) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t p = 0; p < k; p++) {
                sum += x[i * k + p] * llama_weight(r, weight + j * k + p);
            }
            y[i * n + j] = sum;
        }
    }
}

/* dx += and dW += from dy, which is rounded for the products */
static inline void llama_linear_back(struct reference *r, double *dx, const double *dy,
                                     const double *x, size_t m, size_t k, size_t n, size_t weight) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            const double d = reference_round(r, dy[i * n + j]);
            for (size_t p = 0; p < k; p++) {
                dx[i * k + p] += d * llama_weight(r, weight + j * k + p);
                r->gradient[weight + j * k + p] += d * x[i * k + p];
            }
        }
    }
}

static inline double llama_rstd(const struct reference *r, const double *x) {
    const size_t d = r->layout->shape.width;
    double mean_square = 0;
    for (size_t j = 0; j < d; j++) {
        mean_square += x[j] * x[j] / (double)d;
    }
    return 1 / sqrt(mean_square + (double)r->layout->shape.norm_epsilon);
}

static inline void llama_norm(const struct reference *r, double *y, const double *x, size_t gain) {
    const struct llama_sizes s = llama_sizes(r);
    for (size_t i = 0; i < s.t; i++) {
        const double rstd = llama_rstd(r, x + i * s.d);
        for (size_t j = 0; j < s.d; j++) {
            y[i * s.d + j] = reference_round(r, x[i * s.d + j] * rstd * (double)r->theta[gain + j]);
        }
    }
}

/* dx += through the norm */
static inline void llama_norm_back(struct reference *r, double *dx, const double *dy,
                                   const double *x, size_t gain) {
    const struct llama_sizes s = llama_sizes(r);
    for (size_t i = 0; i < s.t; i++) {
        const double *row = x + i * s.d, rstd = llama_rstd(r, row);
        double b = 0;
        for (size_t j = 0; j < s.d; j++) {
            b += dy[i * s.d + j] * (double)r->theta[gain + j] * row[j] * rstd / (double)s.d;
            r->gradient[gain + j] += dy[i * s.d + j] * row[j] * rstd;
        }
        for (size_t j = 0; j < s.d; j++) {
            const double h = dy[i * s.d + j] * (double)r->theta[gain + j];
            dx[i * s.d + j] += rstd * (h - row[j] * rstd * b);
        }
    }
}

/* Turns x[t][heads · head] by the positions' angles, or back. */
static inline void llama_rope(const struct reference *r, double *x, size_t heads, double sign) {
    const struct llama_sizes s = llama_sizes(r);
    const size_t half = s.head / 2;
    for (size_t i = 0; i < s.t * heads * half; i++) {
        const size_t position = i / (heads * half), pair = i % half;
        double *a = x + i / half * s.head + pair, *b = a + half, first = *a;
        const double angle =
            sign * (double)position *
            pow((double)r->layout->shape.rope_theta, -2.0 * (double)pair / (double)s.head);
        *a = first * cos(angle) - *b * sin(angle);
        *b = first * sin(angle) + *b * cos(angle);
    }
}

/* p[i][j] unrounded exp(s − max) and sums[i] of one head; q at its first column, k at its group's
 */
static inline void llama_scores(const struct reference *r, const double *q, const double *k,
                                double *p, double *sums) {
    const struct llama_sizes s = llama_sizes(r);
    for (size_t i = 0; i < s.t; i++) {
        double max = -(double)INFINITY;
        for (size_t j = 0; j <= i; j++) {
            double score = 0;
            for (size_t c = 0; c < s.head; c++) {
                score += q[i * s.d + c] * k[j * s.kv + c];
            }
            p[i * s.t + j] = score / sqrt((double)s.head);
            max = p[i * s.t + j] > max ? p[i * s.t + j] : max;
        }
        sums[i] = 0;
        for (size_t j = 0; j <= i; j++) {
            p[i * s.t + j] = exp(p[i * s.t + j] - max);
            sums[i] += p[i * s.t + j];
        }
    }
}

static inline void llama_attention(const struct reference *r, const double *q, const double *k,
                                   const double *v, double *out) {
    const struct llama_sizes s = llama_sizes(r);
    double *p = reference_array(s.t * s.t), *sums = reference_array(s.t);
    for (size_t head = 0; head < s.heads; head++) {
        const size_t mine = head * s.head, group = head / (s.heads / s.kv_heads) * s.head;
        llama_scores(r, q + mine, k + group, p, sums);
        for (size_t i = 0; i < s.t * s.head; i++) {
            const size_t row = i / s.head, c = i % s.head;
            double o = 0;
            for (size_t j = 0; j <= row; j++) {
                o += reference_round(r, p[row * s.t + j]) * v[j * s.kv + group + c];
            }
            out[row * s.d + mine + c] = reference_round(r, o / sums[row]);
        }
    }
    free(p);
    free(sums);
}

/* dq, dk, dv start at 0 */
static inline void llama_attention_back(const struct reference *r, const double *q, const double *k,
                                        const double *v, const double *dout, double *dq, double *dk,
                                        double *dv) {
    const struct llama_sizes s = llama_sizes(r);
    double *p = reference_array(s.t * s.t), *sums = reference_array(s.t);
    double *dp = reference_array(s.t);
    for (size_t head = 0; head < s.heads; head++) {
        const size_t mine = head * s.head, group = head / (s.heads / s.kv_heads) * s.head;
        llama_scores(r, q + mine, k + group, p, sums);
        for (size_t i = 0; i < s.t; i++) {
            const double *qi = q + i * s.d + mine, *go = dout + i * s.d + mine;
            double delta = 0;
            for (size_t j = 0; j <= i; j++) {
                dp[j] = 0;
                for (size_t c = 0; c < s.head; c++) {
                    const double g = reference_round(r, go[c] / sums[i]);
                    dp[j] += g * v[j * s.kv + group + c];
                    dv[j * s.kv + group + c] += reference_round(r, p[i * s.t + j]) * g;
                }
                delta += p[i * s.t + j] * dp[j] / sums[i];
            }
            for (size_t j = 0; j <= i; j++) {
                const double ds =
                    reference_round(r, p[i * s.t + j] * (dp[j] - delta) / sqrt((double)s.head));
                for (size_t c = 0; c < s.head; c++) {
                    dq[i * s.d + mine + c] += ds * k[j * s.kv + group + c];
                    dk[j * s.kv + group + c] += ds * qi[c];
                }
            }
        }
    }
    free(p);
    free(sums);
    free(dp);
}

/* What one layer keeps. */
struct llama_layer {
    double *x, *norm_1, *q, *k, *v, *attention, *middle, *norm_2, *gate, *up, *activation;
};

/* x → the layer's output, a new array */
static inline double *llama_layer_forward(const struct reference *r, int l, double *x,
                                          struct llama_layer *kept) {
    const struct llama_sizes s = llama_sizes(r);
    *kept = (struct llama_layer){
        .x = x,
        .norm_1 = reference_array(s.t * s.d),
        .q = reference_array(s.t * s.d),
        .k = reference_array(s.t * s.kv),
        .v = reference_array(s.t * s.kv),
        .attention = reference_array(s.t * s.d),
        .middle = reference_array(s.t * s.d),
        .norm_2 = reference_array(s.t * s.d),
        .gate = reference_array(s.t * s.hidden),
        .up = reference_array(s.t * s.hidden),
        .activation = reference_array(s.t * s.hidden),
    };
    llama_norm(r, kept->norm_1, x, llama_offset(r, l, "input_layernorm"));
    llama_linear(r, kept->q, kept->norm_1, s.t, s.d, s.d, llama_offset(r, l, "self_attn.q_proj"));
    llama_linear(r, kept->k, kept->norm_1, s.t, s.d, s.kv, llama_offset(r, l, "self_attn.k_proj"));
    llama_linear(r, kept->v, kept->norm_1, s.t, s.d, s.kv, llama_offset(r, l, "self_attn.v_proj"));
    llama_rope(r, kept->q, s.heads, 1);
    llama_rope(r, kept->k, s.kv_heads, 1);
    reference_round_all(r, kept->q, s.t * s.d);
    reference_round_all(r, kept->k, s.t * s.kv);
    reference_round_all(r, kept->v, s.t * s.kv);
    llama_attention(r, kept->q, kept->k, kept->v, kept->attention);
    llama_linear(r, kept->middle, kept->attention, s.t, s.d, s.d,
                 llama_offset(r, l, "self_attn.o_proj"));
    for (size_t i = 0; i < s.t * s.d; i++) {
        kept->middle[i] += x[i];
    }
    llama_norm(r, kept->norm_2, kept->middle, llama_offset(r, l, "post_attention_layernorm"));
    llama_linear(r, kept->gate, kept->norm_2, s.t, s.d, s.hidden,
                 llama_offset(r, l, "mlp.gate_proj"));
    llama_linear(r, kept->up, kept->norm_2, s.t, s.d, s.hidden, llama_offset(r, l, "mlp.up_proj"));
    for (size_t i = 0; i < s.t * s.hidden; i++) {
        const double gate = kept->gate[i];
        kept->activation[i] = reference_round(r, gate / (1 + exp(-gate)) * kept->up[i]);
    }
    reference_round_all(r, kept->gate, s.t * s.hidden);
    reference_round_all(r, kept->up, s.t * s.hidden);
    double *out = reference_array(s.t * s.d);
    llama_linear(r, out, kept->activation, s.t, s.hidden, s.d, llama_offset(r, l, "mlp.down_proj"));
    for (size_t i = 0; i < s.t * s.d; i++) {
        out[i] += kept->middle[i];
    }
    return out;
}

/* dx, the gradient of the layer's output, becomes that of its input */
static inline void llama_layer_back(struct reference *r, int l, double *dx,
                                    const struct llama_layer *kept) {
    const struct llama_sizes s = llama_sizes(r);
    double *wide = reference_array(s.t * s.hidden), *dup = reference_array(s.t * s.hidden);
    double *dnorm = reference_array(s.t * s.d), *dattention = reference_array(s.t * s.d);
    double *dq = reference_array(s.t * s.d);
    double *dk = reference_array(s.t * s.kv), *dv = reference_array(s.t * s.kv);
    llama_linear_back(r, wide, dx, kept->activation, s.t, s.hidden, s.d,
                      llama_offset(r, l, "mlp.down_proj"));
    for (size_t i = 0; i < s.t * s.hidden; i++) {
        const double gate = kept->gate[i], sigma = 1 / (1 + exp(-gate));
        dup[i] = wide[i] * gate * sigma;
        wide[i] *= kept->up[i] * (sigma + gate * sigma * (1 - sigma));
    }
    llama_linear_back(r, dnorm, wide, kept->norm_2, s.t, s.d, s.hidden,
                      llama_offset(r, l, "mlp.gate_proj"));
    llama_linear_back(r, dnorm, dup, kept->norm_2, s.t, s.d, s.hidden,
                      llama_offset(r, l, "mlp.up_proj"));
    llama_norm_back(r, dx, dnorm, kept->middle, llama_offset(r, l, "post_attention_layernorm"));
    llama_linear_back(r, dattention, dx, kept->attention, s.t, s.d, s.d,
                      llama_offset(r, l, "self_attn.o_proj"));
    llama_attention_back(r, kept->q, kept->k, kept->v, dattention, dq, dk, dv);
    llama_rope(r, dq, s.heads, -1);
    llama_rope(r, dk, s.kv_heads, -1);
    memset(dnorm, 0, s.t * s.d * sizeof *dnorm);
    llama_linear_back(r, dnorm, dq, kept->norm_1, s.t, s.d, s.d,
                      llama_offset(r, l, "self_attn.q_proj"));
    llama_linear_back(r, dnorm, dk, kept->norm_1, s.t, s.d, s.kv,
                      llama_offset(r, l, "self_attn.k_proj"));
    llama_linear_back(r, dnorm, dv, kept->norm_1, s.t, s.d, s.kv,
                      llama_offset(r, l, "self_attn.v_proj"));
    llama_norm_back(r, dx, dnorm, kept->x, llama_offset(r, l, "input_layernorm"));
    double *const all[] = {wide,       dup,      dnorm,           dattention,   dq,
                           dk,         dv,       kept->x,         kept->norm_1, kept->q,
                           kept->k,    kept->v,  kept->attention, kept->middle, kept->norm_2,
                           kept->gate, kept->up, kept->activation};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

/* Loss and gradient of norm[t][d] through the head; logits[t][vocab] are left behind. */
static inline void llama_head(struct reference *r, const uint32_t *tokens, double factor,
                              const double *norm, double *dnorm, double *logits) {
    const struct llama_sizes s = llama_sizes(r);
    const char *name = r->layout->shape.tied ? "model.embed_tokens.weight" : "lm_head.weight";
    const size_t head = ct_layout_find(r->layout, name)->offset;
    double *dlogits = reference_array(s.t * s.vocab);
    llama_linear(r, logits, norm, s.t, s.d, s.vocab, head);
    for (size_t i = 0; i < s.t; i++) {
        const double *row = logits + i * s.vocab;
        double max = row[0], sum = 0;
        for (size_t v = 0; v < s.vocab; v++) {
            max = row[v] > max ? row[v] : max;
        }
        for (size_t v = 0; v < s.vocab; v++) {
            sum += exp(row[v] - max);
        }
        r->loss += factor * (log(sum) + max - row[tokens[i + 1]]);
        for (size_t v = 0; v < s.vocab; v++) {
            const double hit = v == tokens[i + 1] ? 1.0 : 0.0;
            dlogits[i * s.vocab + v] = (exp(row[v] - max) / sum - hit) * factor;
        }
    }
    llama_linear_back(r, dnorm, dlogits, norm, s.t, s.d, s.vocab, head);
    free(dlogits);
}

/* One sequence: adds its loss and gradients with weight `factor` (1/N). */
static inline void llama_sequence(struct reference *r, const uint32_t *tokens, double factor,
                                  double *logits) {
    const struct llama_sizes s = llama_sizes(r);
    const int layers = (int)r->layout->shape.layers;
    const size_t embedding = ct_layout_find(r->layout, "model.embed_tokens.weight")->offset;
    const size_t gain = ct_layout_find(r->layout, "model.norm.weight")->offset;
    struct llama_layer *kept = calloc((size_t)layers, sizeof *kept);
    double *x = reference_array(s.t * s.d), *norm = reference_array(s.t * s.d);
    double *dx = reference_array(s.t * s.d), *dnorm = reference_array(s.t * s.d);
    if (kept == NULL) {
        abort();
    }
    for (size_t i = 0; i < s.t * s.d; i++) {
        x[i] = (double)r->theta[embedding + tokens[i / s.d] * s.d + i % s.d];
    }
    for (int l = 0; l < layers; l++) {
        x = llama_layer_forward(r, l, x, &kept[l]);
    }
    llama_norm(r, norm, x, gain);
    llama_head(r, tokens, factor, norm, dnorm, logits);
    llama_norm_back(r, dx, dnorm, x, gain);
    for (int l = layers - 1; l >= 0; l--) {
        llama_layer_back(r, l, dx, &kept[l]);
    }
    for (size_t i = 0; i < s.t * s.d; i++) {
        r->gradient[embedding + tokens[i / s.d] * s.d + i % s.d] += dx[i];
    }
    free(kept);
    free(x);
    free(norm);
    free(dx);
    free(dnorm);
}

/* Mean loss and its gradient over tokens[batch][context + 1]; the caller frees r->gradient.
 * logits[context][vocab] are those of the last sequence. */
static inline void llama_reference_run(struct reference *r, const uint32_t *tokens, size_t batch,
                                       double *logits) {
    const size_t context = r->layout->shape.context;
    r->gradient = reference_array(r->layout->parameters);
    r->loss = 0;
    for (size_t i = 0; i < batch; i++) {
        llama_sequence(r, tokens + i * (context + 1), 1.0 / (double)(batch * context), logits);
    }
}

#endif
