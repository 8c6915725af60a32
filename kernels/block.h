/* The inside of an engine: where a model's parameters and working memory lie, and the phases that
 * its threads walk through together.
 *
 * A model is a chain of blocks, x → x + attention(norm(x)) → x + MLP(norm(x)), between an embedding
 * and a head. Architectures differ in parts alone: the norm (norm.c), how queries, keys and values
 * come about (qkv.c), and the MLP (mlp.c).
 *
 * Names of shapes: M tokens of the micro-batch in hand, D width, V vocabulary, T context, L layers,
 * F hidden width of the MLP, Q columns of queries, keys and values together, (heads + 2·kv_heads)·d
 * with d the width of a head. "operand" arrays hold matmul operands: bf16 under bf16-1, else float.
 *
 * All threads of one parallel region (hands of a team) run the same functions; each takes its share
 * of a phase's outputs. A phase begins when all it reads is visible to every hand. Products begin
 * with a barrier, so what only a product reads next needs none of its own; functions say what they
 * end with. Results cannot depend on the number of hands: every output is computed
 * by one hand in its written order. */
#ifndef COTRAIN_KERNELS_BLOCK_H
#define COTRAIN_KERNELS_BLOCK_H

#include <cotrain/engine.h>

#include "ops.h"
#include "team.h"

enum {
    CT_QUERY_BLOCK_MAX = 128,
    CT_LOGITS_BYTES = 128 << 20, /* of the logits that exist at once, about */
    CT_ROW_GRAIN = 16,           /* rows and columns are dealt to hands in such groups */
};

/* No such tensor, where an offset is asked for. */
#define CT_ABSENT SIZE_MAX

/* y[out] = x[in]·W + bias, by offsets in the flat array. */
struct ct_linear {
    size_t weight, bias; /* bias may be CT_ABSENT */
    size_t in, out;
    bool out_major; /* W is stored [out][in], else [in][out] */
};

/* Gain and bias (CT_ABSENT under RMSNorm) of a normalisation. */
struct ct_norm {
    size_t gain, bias;
};

struct ct_block {
    struct ct_norm norm_1, norm_2;
    struct ct_linear qkv[3]; /* GPT-2: one for all; Llama: queries, keys, values */
    struct ct_linear projection;
    struct ct_linear up[2]; /* GPT-2: one; Llama: gate, up */
    struct ct_linear down;
    uint32_t qkv_count, up_count;
    struct ct_span all; /* all its tensors */
};

struct ct_places {
    struct ct_block *blocks;  /* [L] */
    size_t tokens, positions; /* embeddings; positions may be CT_ABSENT */
    struct ct_norm last;      /* before the head */
    struct ct_linear head;    /* its weight is `tokens` when tied */
    struct ct_span all_blocks;
};

/* What the forward pass keeps of one block for the backward pass. */
struct ct_kept {
    float *middle;                            /* [M][D] residual stream after attention */
    float *mean_1, *rstd_1, *mean_2, *rstd_2; /* [M] */
    void *norm_1, *qkv, *attention, *norm_2;  /* operands [M][D], [M][Q], [M][D], [M][D] */
    void *before[2];                          /* operands [M][F]: of GELU; or gate and up */
    void *activation;                         /* operand [M][F] */
};

/* One hand's scratch. */
struct ct_hand_scratch {
    float *row; /* [D] */
    float *p;   /* [query_block][T] scores, then exp(s − max) */
    float *dp;  /* [query_block][T] */
    float *out; /* [query_block][d] */
    /* Rounded for products; where nothing is, these are p, dp and out. */
    void *p_operand;  /* [query_block][T] */
    void *ds_operand; /* [query_block][T] */
    void *g_operand;  /* [query_block][d] */
};

struct ct_engine {
    const struct ct_layout *layout;
    struct ct_engine_options options; /* threads, ranks and micro_batch are settled */
    size_t operand_bytes;
    size_t qkv_width; /* Q */
    void *arena;
    size_t arena_bytes;
    struct ct_places places;

    const float *theta;           /* of the call in hand */
    uint32_t leaf;                /* in hand */
    float *gradient;              /* its own */
    float *total;                 /* where the sum of all leaves goes */
    const struct ct_ready *ready; /* who is told when parts of it are final; may be NULL */
    float *spare[5];      /* gradients of leaves that wait for their partner, one per level */
    uint32_t spare_count; /* log2 S */

    /* kept by the forward pass */
    float **stream;         /* [L + 1] of [M][D]: residual stream before each block, and the last */
    struct ct_kept *kept;   /* [L]; all the same buffers when recomputed */
    float *mean_f, *rstd_f; /* [M] */
    void *norm_f;           /* operand [M][D] */
    float *losses;          /* [tokens of a leaf] */

    /* scratch */
    struct ct_room room; /* of the team's products */
    float *gate;         /* [M][F], of Llama: what the forward pass ends with the up map */
    float *qkv_float;    /* [M][Q]: d_qkv; Llama: queries, keys and values before they are turned */
    void *d_qkv;         /* operand [M][Q] */
    float *d_stream[2];  /* [M][D]: gradient of the stream after and between the halves */
    void *d_out;         /* operand [M][D]: dY of the half in hand */
    void *d_up[2];       /* operands [M][F]: dY of the maps up; of Llama's, of gate and up */
    float *d_norm;       /* [M][D]: gradient of a norm's output */
    float *d_attention;  /* [M][D] */
    float *d_embedding;  /* [tokens of a leaf][D]: waits for the end of the head's chain (E6) */
    float *logits;       /* [head_rows][V]; dlogits as operands in the same places afterwards */
    size_t query_block;  /* queries whose scores against all keys are in scratch; even, see E3 */
    float *cosine, *sine;            /* [T][d/2], of RoPE; NULL without it */
    size_t head_rows;                /* tokens whose logits exist at once; even, see E3 */
    struct ct_hand_scratch *scratch; /* one a hand */
};

/* The address of element `index` of an operand array. */
static inline void *ct_operand(const struct ct_engine *engine, const void *base, size_t index) {
    return (char *)(uintptr_t)base + index * engine->operand_bytes;
}

/* The micro-batch in hand: `sequences` rows of tokens, `stride` apart, `length` predictions each.
 */
struct ct_micro {
    const uint32_t *tokens;
    size_t stride, length, sequences;
    size_t rows; /* sequences × length, M */
    bool first;  /* of its leaf: chains over tokens start here */
    bool last;   /* of its leaf: gradients are final when this one has passed */
};

/* Fills engine->places from the layout; the arrays go with ct_places_deinit. */
CT_MUST_CHECK enum ct_err ct_places_init(struct ct_places *places, const struct ct_layout *layout);
void ct_places_deinit(struct ct_places *places);

/* What a block keeps, from stream[layer]: all but its last map. Ends with a product. */
void ct_block_forward(const struct ct_engine *engine, const struct ct_micro *micro, size_t layer,
                      struct ct_hand hand);

/* tokens → norm_f, keeping what the backward pass reads. Ends without a barrier. */
void ct_forward(struct ct_engine *engine, const struct ct_micro *micro, struct ct_hand hand);

/* Values [range) of the leaf's gradient are final: adds them up the tree over leaves as far as it
 * is complete, and says so when it is. All hands, after a barrier; no barrier after. */
void ct_engine_finish(struct ct_engine *engine, struct ct_span range, struct ct_hand hand);

/* d_norm (of the last norm) → all gradients but the embeddings', whose rows go to
 * d_embedding[M][D]. Finishes each block of the last micro-batch. Ends with a barrier. */
void ct_backward(struct ct_engine *engine, const struct ct_micro *micro, float *d_embedding,
                 struct ct_hand hand);

/* Linear maps (linear.c): x, dy are operands with rows `stride` apart. As a product by a team each
 * begins with a barrier and ends without: what it wrote may be read after the next barrier or
 * inside the next product. */
struct ct_rows {
    const void *data;
    size_t stride;
};
/* y[rows][out] = x·W, without the bias; y may be NULL with an epilogue. */
void ct_linear_forward(const struct ct_engine *engine, size_t rows, const struct ct_linear *linear,
                       struct ct_rows x, float *y, const struct ct_epilogue *epilogue,
                       struct ct_hand hand);
/* dx[rows][in] = dy·Wᵀ, or dx continued by these chains when `resume`; dx may be NULL with an
 * epilogue. */
void ct_linear_backward(const struct ct_engine *engine, size_t rows, const struct ct_linear *linear,
                        struct ct_rows dy, float *dx, bool resume,
                        const struct ct_epilogue *epilogue, struct ct_hand hand);
/* dW in the gradient, a chain over tokens, from +0 or continued when `resume`. */
void ct_linear_gradient(const struct ct_engine *engine, size_t rows, const struct ct_linear *linear,
                        struct ct_rows x, struct ct_rows dy, bool resume, struct ct_hand hand);
/* The bias's gradient, a chain over tokens of the unrounded dy[rows][stride]; nothing when there
 * is no bias. No barrier. */
void ct_bias_gradient(const struct ct_engine *engine, size_t rows, const struct ct_linear *linear,
                      const float *dy, size_t stride, struct ct_hand hand);

/* Normalisation (norm.c) of x[M][D], by rows of the hand's share: forward without a barrier behind
 * it, backward with one. */
void ct_norm_forward(const struct ct_engine *engine, size_t rows, const struct ct_norm *norm,
                     const float *x, float *mean, float *rstd, void *out, struct ct_hand hand);
/* out = through + the gradient that comes back through the norm of x from d_norm, also rounded to
 * the operand out_operand when that is not NULL; and the gradients of gain and bias. `through` NULL
 * stands for zeros; it may be out. */
void ct_norm_backward(const struct ct_engine *engine, size_t rows, const struct ct_norm *norm,
                      const float *x, const float *mean, const float *rstd, const float *through,
                      float *out, void *out_operand, struct ct_hand hand);

/* norm_1 → queries, keys and values (qkv.c), and back: qkv_float holds their gradients, d_norm
 * receives norm_1's; the gradients of the weights. Forward ends with a barrier; backward with a
 * product, behind the one that made d_norm.
 *
 * Where several maps read one input, its gradient is one chain: the outputs of the first map, then
 * those of the next, each counted from 0, so that pairs (E3) never span two maps. Queries and keys
 * are turned as binary32, then rounded; back, the binary32 gradients are turned, then rounded. */
void ct_qkv_forward(const struct ct_engine *engine, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand);
void ct_qkv_backward(const struct ct_engine *engine, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand);

/* norm_2 → kept->activation (mlp.c) of the unrounded `before`, and back from d_out, dY of the MLP's
 * last map: d_norm receives norm_2's gradient; the gradients of all weights of the MLP but those
 * that sum d_stream[0]. Each ends with a product; that of the way back stands behind the one that
 * made d_norm. */
void ct_mlp_forward(const struct ct_engine *engine, const struct ct_micro *micro,
                    const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand);
void ct_mlp_backward(const struct ct_engine *engine, const struct ct_micro *micro,
                     const struct ct_block *block, const struct ct_kept *kept, struct ct_hand hand);

/* Attention of all sequences and heads: qkv → out, operands [M][Q] and [M][D]. Begins behind a
 * barrier and ends without. */
void ct_attention_forward(const struct ct_engine *engine, const struct ct_micro *micro,
                          const void *qkv, void *out, struct ct_hand hand);

/* d_attention[M][D], qkv → d_qkv[M][Q]. Begins behind a barrier and ends with one.
 *
 * The forward pass is o = n/Σ with n = Σ_j p_j v_j and Σ = Σ_j p_j over unrounded p. Backward reads
 * the same rounded operands: g = dO/Σ, rounded once; dV = Pᵀ·g with rounded p; dP = g·Vᵀ;
 * δ = (Σ_j p_j·dP_j)/Σ, an E4 dot over j ≤ i; dS = (p·(dP − δ))·fp32(1/√d), rounded once; dQ =
 * dS·K; dK = dSᵀ·Q. Heads that share keys and values add to the same chains of dK and dV, one head
 * after the other. */
void ct_attention_backward(const struct ct_engine *engine, const struct ct_micro *micro,
                           const void *qkv, const float *d_attention, float *d_qkv,
                           struct ct_hand hand);

/* Head and cross-entropy over the micro-batch in chunks of head_rows: norm_f → losses[M]. With
 * `factor` > 0 (fp32(1/N)) also dW of the head, and d_norm, which is visible then. */
void ct_head_run(struct ct_engine *engine, const struct ct_micro *micro, float factor,
                 float *losses, struct ct_hand hand);

#endif
