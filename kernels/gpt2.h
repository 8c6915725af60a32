/* The inside of an engine: where a GPT-2's parameters and working memory lie, and the phases that
 * its threads walk through together.
 *
 * Names of shapes: M tokens of the micro-batch in hand, D width, V vocabulary, T context, L layers.
 * "operand" arrays hold matmul operands: bf16 under bf16-1, else float.
 *
 * All threads of one parallel region run the same functions; each takes its share of a phase's
 * outputs, and a barrier stands between a phase that writes what others read and the one that reads
 * it. So results cannot depend on the number of threads. A phase by rows gives every thread the
 * same rows each time, so consecutive phases by rows need no barrier. */
#ifndef COTRAIN_KERNELS_GPT2_H
#define COTRAIN_KERNELS_GPT2_H

#include <cotrain/engine.h>

#include "ops.h"
#include "team.h"

enum {
    CT_QUERY_BLOCK = 64, /* queries whose scores against all keys are in scratch */
    CT_HEAD_ROWS = 256,  /* tokens whose logits exist at once; even, see E3 */
    CT_ROW_GRAIN = 16,   /* rows and columns are dealt to threads in such groups */
    CT_BLOCK_ROWS = 784, /* rows that go through a phase together: few enough for L3, enough to be
                            worth the packing of weights, and whole tiles of 14 */
};

/* Offsets in the flat array. */
struct ct_linear_place {
    size_t weight, bias;
};
struct ct_gpt2_layer {
    struct ct_linear_place ln_1, qkv, projection, ln_2, fc, fc_projection;
    struct ct_span all; /* all tensors of the layer */
};
struct ct_gpt2_places {
    struct ct_gpt2_layer *layers;
    size_t wte, wpe;
    struct ct_linear_place ln_f;
    struct ct_span all_layers;
};

/* What the forward pass keeps of one layer for the backward pass. */
struct ct_gpt2_kept {
    float *middle;                            /* [M][D] residual stream after attention */
    float *mean_1, *rstd_1, *mean_2, *rstd_2; /* [M] */
    void *norm_1, *qkv, *attention, *norm_2;  /* operands [M][D], [M][3D], [M][D], [M][D] */
    void *before_gelu, *activation;           /* operands [M][4D] */
};

/* One thread's attention scratch. */
struct ct_attention_scratch {
    float *p;         /* [CT_QUERY_BLOCK][T] scores, then exp(s − max) */
    float *dp;        /* [CT_QUERY_BLOCK][T] */
    float *out;       /* [CT_QUERY_BLOCK][D/heads] */
    void *p_operand;  /* [CT_QUERY_BLOCK][T] */
    void *ds_operand; /* [CT_QUERY_BLOCK][T] */
    void *g_operand;  /* [CT_QUERY_BLOCK][D/heads] */
};

struct ct_engine {
    const struct ct_layout *layout;
    struct ct_engine_options options; /* threads, ranks and micro_batch are settled */
    size_t operand_bytes;
    void *arena;
    struct ct_gpt2_places places;

    const float *theta;           /* of the call in hand */
    const void *weights;          /* operands, flat as theta: the rounded copy, or theta itself */
    uint16_t *rounded;            /* [parameters] under bf16-1, else NULL */
    uint32_t leaf;                /* in hand */
    float *gradient;              /* its own */
    float *total;                 /* where the sum of all leaves goes */
    const struct ct_ready *ready; /* who is told when parts of it are final; may be NULL */
    float *spare[5];      /* gradients of leaves that wait for their partner, one per level */
    uint32_t spare_count; /* log2 S */

    /* kept by the forward pass */
    float **stream; /* [L + 1] of [M][D]: residual stream before each layer, and the last */
    struct ct_gpt2_kept *kept;
    float *mean_f, *rstd_f; /* [M] */
    void *norm_f;           /* operand [M][D] */
    float *losses;          /* [tokens of a leaf] */

    /* scratch of the row phases */
    float *wide;         /* [M][4D] */
    float *narrow;       /* [M][D] */
    float *d_norm_f;     /* [M][D] */
    float *d_stream[3];  /* [M][D]: gradient of the stream before, between and after the halves */
    void *d_out;         /* operand [M][D]: dY of the second half */
    void *d_middle;      /* operand [M][D]: dY of attention's projection */
    void *d_wide;        /* operand [M][4D] */
    float *d_norm_2;     /* [M][D] */
    float *d_norm_1;     /* [M][D] */
    float *d_attention;  /* [M][D] */
    float *d_qkv;        /* [M][3D] */
    void *d_qkv_operand; /* [M][3D] */
    float *d_embedding;  /* [tokens of a leaf][D]: waits for the end of the head's chain (E6) */
    float *logits;       /* [CT_HEAD_ROWS][V] */
    void *d_logits;      /* operand [CT_HEAD_ROWS][V] */
    struct ct_attention_scratch *attention; /* one per thread */
};

/* The address of element `index` of an operand array. */
static inline void *ct_operand(const struct ct_engine *engine, const void *base, size_t index) {
    return (char *)(uintptr_t)base + index * engine->operand_bytes;
}

/* Cuts the next CT_BLOCK_ROWS rows off `rows`, for `while (ct_next_rows(&rows, &block))`. */
static inline bool ct_next_rows(struct ct_span *rows, struct ct_span *out_block) {
    const size_t left = rows->end - rows->begin;
    *out_block =
        (struct ct_span){rows->begin, rows->begin + (left < CT_BLOCK_ROWS ? left : CT_BLOCK_ROWS)};
    rows->begin = out_block->end;
    return left > 0;
}

/* The micro-batch in hand: `sequences` rows of tokens, `stride` apart, `length` predictions each.
 */
struct ct_micro {
    const uint32_t *tokens;
    size_t stride, length, sequences;
    size_t rows; /* sequences × length, M */
    bool last;   /* of its leaf: a gradient is final when this one has passed */
};

/* tokens → norm_f, keeping what the backward pass reads. Ends without a barrier: a hand may read
 * only its own rows of norm_f. */
void ct_gpt2_forward(struct ct_engine *engine, const struct ct_micro *micro, struct ct_hand hand);

/* Values [range) of the leaf's gradient are final: adds them up the tree over leaves as far as it
 * is complete, and says so when it is. All hands, after a barrier; no barrier after. */
void ct_engine_finish(struct ct_engine *engine, struct ct_span range, struct ct_hand hand);

/* d_norm_f → all gradients but the embeddings', whose rows go to d_embedding[M][D]. Finishes
 * each layer of the last micro-batch. Starts after and ends with a barrier. */
void ct_gpt2_backward(struct ct_engine *engine, const struct ct_micro *micro, float *d_embedding,
                      struct ct_hand hand);

/* Attention of all (sequence, head) pairs: qkv → out, operands [M][3D] and [M][D]. */
void ct_attention_forward(const struct ct_engine *engine, const struct ct_micro *micro,
                          const void *qkv, void *out, struct ct_hand hand);

/* d_attention[M][D], qkv → d_qkv[M][3D].
 *
 * The forward pass is o = n/Σ with n = Σ_j p_j v_j and Σ = Σ_j p_j over unrounded p. Backward reads
 * the same rounded operands: g = dO/Σ, rounded once; dV = Pᵀ·g with rounded p; dP = g·Vᵀ;
 * δ = (Σ_j p_j·dP_j)/Σ, an E4 dot over j ≤ i; dS = (p·(dP − δ))·fp32(1/√d), rounded once; dQ =
 * dS·K; dK = dSᵀ·Q. */
void ct_attention_backward(const struct ct_engine *engine, const struct ct_micro *micro,
                           const void *qkv, const float *d_attention, float *d_qkv,
                           struct ct_hand hand);

/* Head and cross-entropy over the micro-batch in chunks of CT_HEAD_ROWS: norm_f → losses[M]. With
 * `factor` > 0 (fp32(1/N)) also dW of the head, continued in the gradient's wte, and d_norm_f.
 * Starts and ends with a barrier. */
void ct_head_run(struct ct_engine *engine, const struct ct_micro *micro, float factor,
                 float *losses, struct ct_hand hand);

#endif
