/* Removes the payloads of updates that a run's manifest lets expire (retention.h) from the store of
 * whoever keeps the run: coordinator and mirror.
 *
 * A payload goes when a published entry says that it was received in an expired round. Each removal
 * may happen before or after any other, twice, or not at all: a crash in the midst of them leaves
 * payloads more than there must be, and the next start goes over them again. What was removed is
 * not synced for the same reason.
 *
 * Nothing else goes. A commit may name anything as its update; so of what it names, only a file is
 * removed that begins as an update for that commit's assignments. No other blob of a run begins
 * with an update's magic, and assignments name their round, so an update of a later round is
 * another blob: what a kept entry names, stays. */
#ifndef COORDINATOR_EXPIRY_H
#define COORDINATOR_EXPIRY_H

#include <cotrain/blob.h>
#include <cotrain/ledger.h>
#include <cotrain/manifest.h>

struct ct_expiry {
    uint64_t next;  /* entries below have been gone through */
    uint32_t round; /* all is done up to this round */
    uint64_t removed, removed_bytes;
};

/* Whether there is something to go through when `closed` is the last closed round. */
bool ct_expiry_is_due(const struct ct_expiry *expiry, const struct ct_manifest *manifest,
                      uint32_t closed);

/* Goes through a bounded number of the ledger's published entries; again while ct_expiry_is_due.
 * `closed` must be published. CT_ERR_IO and others of the disk: tried again by the next call. */
CT_MUST_CHECK enum ct_err ct_expiry_advance(struct ct_expiry *expiry,
                                            const struct ct_manifest *manifest, uint32_t closed,
                                            struct ct_ledger *ledger, const struct ct_blobs *blobs);

#endif
