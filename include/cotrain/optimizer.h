/* AdamW with decoupled weight decay and gradient clipping, to the bit (numerics.md E4, E10;
 * Loshchilov and Hutter 2019), and the state that a node carries through an epoch. */
#ifndef COTRAIN_OPTIMIZER_H
#define COTRAIN_OPTIMIZER_H

#include <cotrain/layout.h>

/* Constants of a run; floats are bit patterns in the manifest. */
struct ct_adamw {
    float beta1, beta2;
    float one_minus_beta1, one_minus_beta2; /* their own constants: 1 − 0.9f is not 0.1f */
    float epsilon;
    float weight_decay; /* matrices and embeddings only */
    float clip_norm;    /* 1.0 */
};

/* β 0.9/0.95, ε 1e-8, decay 0.1, clip 1.0. */
struct ct_adamw ct_adamw_default(void);

/* Flat arrays of layout->parameters values each, owned by whoever made the state. */
struct ct_train_state {
    float *theta;
    float *m;
    float *v;
    float *e;         /* SL1's residual; NULL outside a run */
    uint32_t step;    /* t of the bias correction; 0 after a reset */
    uint32_t threads; /* 0: all. Not in the bits */
};

/* Allocates and zeroes the arrays (e only with `residual`). On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_train_state_init(struct ct_train_state *state,
                                              const struct ct_layout *layout, bool residual);
void ct_train_state_deinit(struct ct_train_state *state);

/* A reset of SL1: m, v, e and step to zero; theta stays. */
void ct_train_state_reset(struct ct_train_state *state, const struct ct_layout *layout);

struct ct_adamw_report {
    double gradient_norm; /* before clipping */
    bool applied;         /* false: loss or norm not finite; nothing was changed, step included */
};

/* One step with the learning rate lr. `loss` is only judged for being finite. E10 as it stands with
 * c = norm > clip_norm ? fp32(clip_norm/norm) : 1; a tensor that is not decayed takes θ in place of
 * fma(−lr·λ, θ, θ). state->step is t after it. */
struct ct_adamw_report ct_adamw_step(const struct ct_adamw *adamw, const struct ct_layout *layout,
                                     struct ct_train_state *state, const float *gradient,
                                     float loss, float lr);

/* The gradient norm of E4 alone: blocks of 4,096 start anew in each tensor; all blocks of all
 * tensors are one binary64 chain from +0. */
double ct_gradient_norm(const struct ct_layout *layout, const float *gradient, uint32_t threads);

/* Linear warm-up, then a cosine from peak to floor, as `entries` binary32 values, computed once in
 * binary64 with our own cosine. Entry i holds for tokens [i, i+1) · unit: peak·(i + 1)/w below the
 * w warm-up entries, then floor + (peak − floor)·(½·(1 + cos(π·(i − w + 1)/(entries − w)))), so
 * that entry w − 1 is the peak and the last one the floor. */
void ct_rate_table(float *out, uint32_t entries, uint32_t warmup_entries, double peak,
                   double floor);

/* The factor of the ramp after a reset: (step + 1)/5 for step 0…4 of the epoch, then 1 (SL1). */
float ct_reset_ramp(uint32_t step);

#endif
