/* The model and the fold as a cache beside the ledger, so that a restart need not begin at entry 0
 * (protocol.md section 7). Never evidence: a model counts only if its bytes have the digest that
 * the log names, a fold only if the log's first entries have the root that it was saved under, and
 * everything works without them. Two slots each, DIR/cache/0 and 1, fold-0 and fold-1: the newest
 * may be of a round whose closing never became durable. */
#ifndef COORDINATOR_CACHE_H
#define COORDINATOR_CACHE_H

#include <cotrain/fold.h>
#include <cotrain/ledger.h>

/* Writes θ after `round`. Not synced, since a torn slot is found out. A failure is logged and costs
 * nothing but the cache. */
void ct_cache_save(const char *dir, uint32_t round, const struct ct_layout *layout,
                   const float *theta);
/* Reads the slot whose content has the digest `model` into theta[parameters]; false if none. */
bool ct_cache_load(const char *dir, const struct ct_layout *layout, const struct ct_hash *model,
                   float *theta);

/* Writes the bytes of a fold (ct_fold_save) over the first `size` entries, whose root this is; as
 * little synced and as harmless when it fails. */
void ct_cache_save_fold(const char *dir, uint32_t round, uint64_t size, const struct ct_hash *root,
                        struct ct_bytes fold);
/* Appends the bytes of the newest fold that the published part of the ledger confirms; false if
 * there is none. */
bool ct_cache_load_fold(const char *dir, struct ct_ledger *ledger, uint64_t *out_size,
                        struct ct_buf *out);

/* Up to which entry expired payloads were removed (expiry.h); 0 when it is not known, so that all
 * is gone through again. */
void ct_cache_save_expiry(const char *dir, uint64_t next);
uint64_t ct_cache_load_expiry(const char *dir);

#endif
