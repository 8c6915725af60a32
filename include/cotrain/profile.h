/* How much of a computation is matmul: time and operations, counted while somebody asks.
 *
 * Kernels have no clock, so the caller lends one. Off, it costs a load and a branch a product. */
#ifndef COTRAIN_PROFILE_H
#define COTRAIN_PROFILE_H

#include <stdint.h>

/* Of all threads together since ct_profile_start. */
struct ct_profile {
    double matmul_s;
    /* 2·m·n·k of every product, without what a mask makes zero. */
    double matmul_operations;
};

/* Counts from zero with `clock_ns`, monotonic and callable from every thread. Call it, and
 * ct_profile_stop, while nothing computes. */
void ct_profile_start(uint64_t (*clock_ns)(void));
struct ct_profile ct_profile_stop(void);

#endif
