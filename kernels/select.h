/* SL1's selection inside one chunk. */
#ifndef KERNELS_SELECT_H
#define KERNELS_SELECT_H

#include <cotrain/limits.h>

#include <stdint.h>

/* The k largest of keys[n], ties to the lower index, as ascending indices in out_indices[k].
 * keys are bit patterns of finite magnitudes, so each is below 2^31 and integer order is the order
 * of the values. 1 ≤ k ≤ n ≤ 4,096, k ≤ 64. Bounded work whatever the keys: one pass for lane
 * maxima, one to filter, at most 31 counts over what is left. */
void ct_select_largest(const int32_t *keys, uint32_t n, uint32_t k, uint16_t *out_indices);

#endif
