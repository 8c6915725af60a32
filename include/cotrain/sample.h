/* Drawing a token from logits, to the bit: a function of (logits, options, seed, index) alone. */
#ifndef COTRAIN_SAMPLE_H
#define COTRAIN_SAMPLE_H

#include <cotrain/philox.h>

struct ct_sample_options {
    float temperature; /* 0: the largest logit, ties to the lower token */
    uint32_t top_k;    /* only the k largest logits, ties to the lower token; 0: all */
};

/* x = logit/temperature; p = exp(x − max x) over the kept tokens, added in binary64 in the order of
 * tokens; u = ⌊(w0·2^32 + w1)/2^11⌋/2^53 from Philox block `index` (sub-stream 0); the first token
 * at which the running sum exceeds u times the whole. scratch[2 · vocab]. Enters E1 by itself. */
uint32_t ct_sample(const float *logits, uint32_t vocab, const struct ct_sample_options *options,
                   const struct ct_philox *philox, uint64_t index, float *scratch);

#endif
