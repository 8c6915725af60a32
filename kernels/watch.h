/* Watching for flushes on ARM. What is computed in E1 mode between ct_watch_begin and ct_watch_end
 * is right by E1's rule if nothing was flushed: the rule and ARM differ only in which results
 * become zero (flush.h). If something was, the caller computes again by the definitions.
 *
 * As with ct_mode_enter, what is watched stands behind a call that the compiler cannot see into, or
 * goes from memory to memory. */
#ifndef COTRAIN_KERNELS_WATCH_H
#define COTRAIN_KERNELS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* Clears the thread's cumulative flags. */
static inline void ct_watch_begin(void) {
    __asm__ volatile("msr fpsr, xzr" : : : "memory");
}

/* True when a result was flushed since: FPSR.UFC, which flushing sets whether or not the result was
 * exact. Also true for some that are right; never false for one that is not. */
static inline bool ct_watch_end(void) {
    uint64_t fpsr;
    __asm__ volatile("mrs %0, fpsr" : "=r"(fpsr) : : "memory");
    return (fpsr & 8) != 0;
}

#endif
