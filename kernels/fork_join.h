/* The one place where threads of kernels/ begin and end: each runs the same body, in E1 mode. */
#ifndef COTRAIN_KERNELS_FORK_JOIN_H
#define COTRAIN_KERNELS_FORK_JOIN_H

#include <stddef.h>
#include <stdint.h>

/* What thread `me` of `all` does. */
typedef void ct_thread_fn(void *context, size_t me, size_t all);

/* Runs `body` once in each of at most `threads` threads, of which the calling one is number 0, and
 * returns when all are done. The team may come out smaller than asked: `all` tells. Inside another
 * such call it is the calling thread alone. */
void ct_fork_join(size_t threads, ct_thread_fn *body, void *context);

/* The number of threads that `threads` stands for here: 0 for all that OpenMP offers; 1 inside
 * ct_fork_join. */
size_t ct_fork_width(uint32_t threads);

#endif
