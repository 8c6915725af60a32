/* The compute engine: tokens and parameters to loss and gradients, to the bit (numerics.md).
 *
 * An engine plans all its memory when opened and allocates nothing afterwards. It belongs to one
 * thread at a time; it uses `threads` OpenMP threads inside and gives the same bits for any number.
 * Every entry enters and leaves the mode of E1 by itself. */
#ifndef COTRAIN_ENGINE_H
#define COTRAIN_ENGINE_H

#include <cotrain/layout.h>

enum ct_numerics {
    CT_NUMERICS_BF16_1 = 1, /* "bf16-1", the default */
    CT_NUMERICS_FP32_1 = 2, /* "fp32-1" */
    CT_NUMERICS_FAST = 3,   /* "fast": OpenBLAS, no promise on bits; never in a run */
};

/* The name as a manifest spells it, and back (CT_ERR_CONFIG for another). */
const char *ct_numerics_name(enum ct_numerics numerics);
CT_MUST_CHECK enum ct_err ct_numerics_parse(const char *name, enum ct_numerics *out);

struct ct_engine_options {
    enum ct_numerics numerics;
    uint32_t batch;  /* sequences of a step, B */
    uint32_t leaves; /* S of E6; divides B */
    uint32_t
        micro_batch; /* sequences at once, at most B/S; 0 lets the engine choose. Not in the bits */
    uint32_t threads; /* 0: all that OpenMP offers. Not in the bits */
    bool recompute;   /* keep one block's activations and compute them again in the backward pass:
                         less memory, a third more work. Not in the bits */
    uint32_t ranks;   /* engines that share each step, a power of two; 0 or 1: this one has it all.
                         Else batch and leaves are this one's part, and N counts all parts */
};

/* What an engine will reserve, by term, in bytes. */
struct ct_engine_plan {
    size_t activations;
    size_t gradients; /* the leaves' buffers beyond the caller's one */
    size_t scratch;
    size_t total;
};

struct ct_engine;

CT_MUST_CHECK enum ct_err ct_engine_plan(const struct ct_layout *layout,
                                         const struct ct_engine_options *options,
                                         struct ct_engine_plan *out);

/* `layout` must outlive the engine. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_engine_open(const struct ct_layout *layout,
                                         const struct ct_engine_options *options,
                                         struct ct_engine **out);
void ct_engine_close(struct ct_engine *engine);

/* One step's mean loss (nats per token, binary32) and its gradient. A leaf's loss is the binary64
 * chain over its tokens' binary32 losses in order; leaves are added pairwise in binary64, the sum
 * is divided by the tokens of the step and rounded once. theta[parameters]; tokens[batch][context +
 * 1], each below vocab (asserted); gradient[parameters] is overwritten. Blocking; no error:
 * non-finite results are the caller's to judge. */
void ct_engine_gradient(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                        float *gradient, float *out_loss);

/* Who is told, while the gradient is made, that its values [begin, end) are final. Each value is
 * told of once, the layers from the last to the first, in the same order in every step. The call
 * comes from one of the engine's threads and holds up the others before long: it must be short. */
struct ct_ready {
    void (*told)(void *context, size_t begin, size_t end);
    void *context;
};

/* One rank's part of a step (E6): of R ranks, rank r has the leaves [rS/R, (r + 1)S/R), a whole
 * subtree, so the parts in the order of ranks are added pairwise as leaves are (pairwise.h).
 * tokens[batch][context + 1] and gradient as above; `ready` may be NULL. Returns the sum of the
 * part's losses, which is added likewise and given to ct_engine_mean_loss. */
double ct_engine_part(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      float *gradient, const struct ct_ready *ready);

/* The step's loss from the sum over all its leaves. */
float ct_engine_mean_loss(const struct ct_engine *engine, double sum);

/* Sum of the losses (binary64, nats) over sequences × length predictions.
 * tokens[sequences][length + 1], length ≤ context, sequences ≤ batch. */
double ct_engine_loss(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      uint32_t sequences, uint32_t length);

/* The logits that follow tokens[count], count in 1..context: out_logits[vocab]. */
void ct_engine_logits(struct ct_engine *engine, const float *theta, const uint32_t *tokens,
                      uint32_t count, float *out_logits);

#endif
