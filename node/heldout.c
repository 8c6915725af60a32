#include "heldout.h"

#include <stdlib.h>
#include <string.h>

enum ct_err ct_heldout_init(struct ct_heldout *heldout, struct ct_engine *engine, uint32_t batch,
                            uint32_t context, const struct ct_corpus *corpus) {
    if (corpus->count < 2) {
        return ct_fail(CT_ERR_CONFIG, "the held-out text has fewer than two tokens");
    }
    *heldout = (struct ct_heldout){engine, batch, context, corpus, NULL};
    heldout->tokens = malloc((size_t)batch * (context + 1) * sizeof *heldout->tokens);
    if (heldout->tokens == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a batch of held-out text");
    }
    return CT_OK;
}

void ct_heldout_deinit(struct ct_heldout *heldout) {
    free(heldout->tokens);
    memset(heldout, 0, sizeof *heldout);
}

static void copy_window(const struct ct_heldout *heldout, uint64_t start, uint32_t length,
                        uint32_t *out) {
    for (uint32_t i = 0; i <= length; i++) {
        out[i] = heldout->corpus->tokens[start + i];
    }
}

double ct_heldout_loss(struct ct_heldout *heldout, const float *theta, uint64_t windows) {
    const uint32_t context = heldout->context;
    const uint64_t all = (heldout->corpus->count - 1) / context;
    const uint32_t rest = (uint32_t)((heldout->corpus->count - 1) % context);
    const bool sample = windows > 0 && windows < all;
    const uint64_t count = sample ? windows : all;
    double sum = 0.0;
    uint32_t held = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t window = sample ? i * (all / count) + i * (all % count) / count : i;
        copy_window(heldout, window * context, context,
                    heldout->tokens + (size_t)held * (context + 1));
        if (++held == heldout->batch || i + 1 == count) {
            sum += ct_engine_loss(heldout->engine, theta, heldout->tokens, held, context);
            held = 0;
        }
    }
    if (sample) {
        return sum / (double)(count * context);
    }
    if (rest > 0) {
        copy_window(heldout, all * context, rest, heldout->tokens);
        sum += ct_engine_loss(heldout->engine, theta, heldout->tokens, 1, rest);
    }
    return sum / (double)(heldout->corpus->count - 1);
}
