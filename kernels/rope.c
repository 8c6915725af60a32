#include "rope.h"

#include "binary64.h"
#include "flush.h"

void ct_rope_table(float *cosine, float *sine, size_t positions, size_t half, float theta) {
    const double log_theta = ct_log64((double)theta);
    for (size_t i = 0; i < half; i++) {
        const double frequency = ct_exp64(-((double)i / (double)half) * log_theta);
        for (size_t position = 0; position < positions; position++) {
            const double angle = (double)position * frequency;
            cosine[position * half + i] = ct_narrow(ct_cos64(angle));
            sine[position * half + i] = ct_narrow(ct_sin64(angle));
        }
    }
}
