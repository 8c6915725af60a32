/* Threads that share out many small pieces of work: signatures, digests, downloads. Who calls takes
 * part, and gets control back when all pieces are done; what a piece gives goes into its own place,
 * so the result does not depend on which thread did it, or when. */
#ifndef NODE_POOL_H
#define NODE_POOL_H

#include <cotrain/err.h>
#include <cotrain/types.h>

#define CT_POOL_THREADS_MAX 64u

struct ct_pool;

/* `threads` counts the caller: 1 starts none; 0 is one for every core that this process may use.
 * CT_ERR_MEMORY when the system gives no thread. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_pool_open(uint32_t threads, struct ct_pool **out);
/* NULL is allowed. */
void ct_pool_close(struct ct_pool *pool);
uint32_t ct_pool_threads(const struct ct_pool *pool);

/* Calls job(user, i) for every i below count, each once, in any thread and order. One caller at a
 * time; a job does not call it. */
void ct_pool_run(struct ct_pool *pool, size_t count, void (*job)(void *user, size_t index),
                 void *user);

#endif
