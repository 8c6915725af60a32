/* Mean loss over a corpus: every token but the first is predicted once, in consecutive windows of
 * the model's context. */
#ifndef NODE_HELDOUT_H
#define NODE_HELDOUT_H

#include <cotrain/dataset.h>
#include <cotrain/engine.h>

struct ct_heldout {
    struct ct_engine *engine; /* of batch `batch` */
    uint32_t batch, context;
    const struct ct_corpus *corpus;
    uint32_t *tokens; /* owned: [batch][context + 1] */
};

/* The engine and the corpus must outlive it. CT_ERR_CONFIG for a corpus of fewer than two tokens.
 */
CT_MUST_CHECK enum ct_err ct_heldout_init(struct ct_heldout *heldout, struct ct_engine *engine,
                                          uint32_t batch, uint32_t context,
                                          const struct ct_corpus *corpus);
void ct_heldout_deinit(struct ct_heldout *heldout);

/* Nats per token. windows 0: all of the corpus; else about so many windows, evenly spread. */
double ct_heldout_loss(struct ct_heldout *heldout, const float *theta, uint64_t windows);

#endif
