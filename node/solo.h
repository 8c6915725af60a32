/* Training alone: the steps of `cotrain train`, without coordinator or ledger. */
#ifndef NODE_SOLO_H
#define NODE_SOLO_H

#include "site.h"
#include "text_split.h"

#include <cotrain/engine.h>
#include <cotrain/optimizer.h>

struct ct_solo_options {
    struct ct_text_source source;
    struct ct_model_shape shape; /* vocab is taken from the text */
    const char *from;      /* a model directory to go on from, instead of the shape; or NULL */
    uint32_t from_context; /* a shorter context than that model's own; 0: its own */
    struct ct_engine_options engine;
    uint32_t steps, warmup_steps, eval_every; /* eval_every 0: at the end only */
    double peak, floor;
    uint64_t seed;
};

/* What is reported, as it happens; `heldout` is NaN where it was not measured. */
struct ct_solo_start {
    const struct ct_layout *layout;
    struct ct_engine_plan plan; /* of this rank */
    uint32_t ranks;
    uint64_t training_state_bytes; /* θ, m, v and the gradient */
    uint64_t train_tokens, heldout_tokens;
};
struct ct_solo_step {
    uint32_t step, steps; /* steps done, of all */
    float loss, rate;
    double gradient_norm;
    double heldout;
    double tokens_per_s; /* of training alone, so far */
    double left_s;
};
struct ct_solo_end {
    const struct ct_layout *layout;
    const float *theta;
    double heldout; /* over the whole held-out split */
    uint64_t tokens;
    double tokens_per_s;
    uint32_t skipped_steps;
};
struct ct_solo_listener {
    void (*started)(void *user, const struct ct_solo_start *start);
    void (*stepped)(void *user, const struct ct_solo_step *step);
    enum ct_err (*ended)(void *user, const struct ct_solo_end *end);
    void *user;
};

/* CT_ERR_NUMERIC when a second step was not finite. The seed's number is the first 8 bytes of the
 * run seed, little-endian, the others zero: it draws the first model and the order of windows.
 *
 * Every rank of the site calls it with the same options (CT_ERR_CONFIG else); rank 0 alone reads
 * the text, measures and calls the listener. The model is the same for any number of ranks. */
CT_MUST_CHECK enum ct_err ct_solo_run(const struct ct_solo_options *options, struct ct_site *site,
                                      const struct ct_solo_listener *listener);

#endif
