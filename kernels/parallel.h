/* Loops over independent outputs, split over threads that compute in the mode of E1. */
#ifndef COTRAIN_KERNELS_PARALLEL_H
#define COTRAIN_KERNELS_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/* Works on the items begin … end − 1. It may be called from several threads at once. */
typedef void ct_range_fn(void *context, size_t begin, size_t end);

/* Cuts 0 … count − 1 into at most `threads` contiguous ranges of whole grains (the last one may end
 * short) and runs `body` on each, in E1 mode, returning when all are done. threads 0: all that
 * OpenMP offers. Runs in the calling thread when one range is enough or inside another region.
 * The result must not depend on the cut: each output belongs to one item. */
void ct_parallel(uint32_t threads, size_t count, size_t grain, ct_range_fn *body, void *context);

#endif
