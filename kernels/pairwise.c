#include <cotrain/pairwise.h>

#include <cotrain/assert.h>
#include <cotrain/mode.h>

#include "ops.h"

#include <string.h>

enum { BLOCK = 512 }; /* values whose sums of all levels stay in the first cache */

double ct_sum_pairwise(const double *values, uint32_t count) {
    if (count == 1) {
        return values[0];
    }
    const uint32_t half = count / 2;
    return ct_sum_pairwise(values, half) + ct_sum_pairwise(values + half, half);
}

void ct_add_pairwise(float *out, const float *const *parts, uint32_t count, size_t length) {
    CT_ASSERT(count >= 2 && count <= CT_LEAVES_MAX && (count & (count - 1)) == 0);
    const struct ct_mode mode = ct_mode_enter();
    for (size_t at = 0; at < length; at += BLOCK) {
        float sums[CT_LEAVES_MAX / 2][BLOCK];
        const size_t n = length - at < BLOCK ? length - at : BLOCK;
        for (uint32_t i = 0; i < count / 2; i++) {
            ct_ops.add(sums[i], parts[2 * i] + at, parts[2 * i + 1] + at, n);
        }
        for (uint32_t left = count / 4; left > 0; left /= 2) {
            for (uint32_t i = 0; i < left; i++) {
                ct_ops.add(sums[i], sums[2 * i], sums[2 * i + 1], n);
            }
        }
        memcpy(out + at, sums[0], n * sizeof(float));
    }
    ct_mode_leave(mode);
}
