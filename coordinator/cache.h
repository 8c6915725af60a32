/* The model as a cache beside the ledger, so that a restart need not repeat the rounds since the
 * last snapshot (protocol.md section 7). Never evidence: a slot counts only if its bytes have the
 * digest that the log names, and everything works without it. Two slots, DIR/cache/0 and 1: the
 * newest may be of a round whose closing never became durable. */
#ifndef COORDINATOR_CACHE_H
#define COORDINATOR_CACHE_H

#include <cotrain/fold.h>

/* Writes θ after `round`. Not synced, since a torn slot is found out. A failure is logged and costs
 * nothing but the cache. */
void ct_cache_save(const char *dir, uint32_t round, const struct ct_layout *layout,
                   const float *theta);
/* Reads the slot whose content has the digest `model` into theta[parameters]; false if none. */
bool ct_cache_load(const char *dir, const struct ct_layout *layout, const struct ct_hash *model,
                   float *theta);

#endif
