#include <cotrain/sample.h>

#include <cotrain/assert.h>
#include <cotrain/mode.h>

#include "ops.h"

#include <stdlib.h>
#include <string.h>

static int descending(const void *a, const void *b) {
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x < y) - (x > y);
}

static uint32_t largest(const float *logits, uint32_t vocab) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

/* Sets p to 0 for all but the k tokens with the largest logits. */
static void keep_largest(float *p, const float *logits, uint32_t vocab, uint32_t k, float *sorted) {
    memcpy(sorted, logits, vocab * sizeof *sorted);
    qsort(sorted, vocab, sizeof *sorted, descending);
    const float threshold = sorted[k - 1];
    uint32_t ties = 0; /* tokens at the threshold that still find a place */
    while (ties < k && sorted[k - 1 - ties] == threshold) {
        ties++;
    }
    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] == threshold && ties > 0) {
            ties--;
        } else if (!(logits[i] > threshold)) {
            p[i] = 0.0f;
        }
    }
}

uint32_t ct_sample(const float *logits, uint32_t vocab, const struct ct_sample_options *options,
                   const struct ct_philox *philox, uint64_t index, float *scratch) {
    CT_ASSERT(vocab > 0);
    const uint32_t best = largest(logits, vocab);
    if (!(options->temperature > 0.0f)) {
        return best;
    }
    const struct ct_mode mode = ct_mode_enter();
    float *p = scratch;
    const float max = logits[best] / options->temperature;
    for (uint32_t i = 0; i < vocab; i++) {
        p[i] = logits[i] / options->temperature - max;
    }
    ct_ops.exp(p, p, vocab);
    if (options->top_k > 0 && options->top_k < vocab) {
        keep_largest(p, logits, vocab, options->top_k, scratch + vocab);
    }
    double total = 0.0;
    for (uint32_t i = 0; i < vocab; i++) {
        total += (double)p[i];
    }
    uint32_t words[4];
    ct_philox_block(philox, index, 0, words);
    const uint64_t bits = ((uint64_t)words[0] << 32 | words[1]) >> 11;
    const double target = (double)bits * 0x1p-53 * total;
    double sum = 0.0;
    uint32_t token = best;
    for (uint32_t i = 0; i < vocab; i++) {
        sum += (double)p[i];
        if (sum > target) {
            token = i;
            break;
        }
    }
    ct_mode_leave(mode);
    return token;
}
