/* Which payloads of updates a run may have deleted (protocol.md section 7, Retention). One pure
 * function, so that who deletes, who copies and who audits draw the line in the same place: what is
 * missing on this side of it has expired, what is missing on the other side is unavailable.
 *
 * With N = the manifest's retention_rounds, A = epoch_rounds, S = snapshot_rounds and `closed` the
 * last closed round, the payloads of rounds up to
 *
 *   E = the last round with a snapshot among those up to closed − (N + A − 1); 0 if there is none
 *
 * have expired. R15 puts snapshots at the multiples of S (and at the last round, which E never
 * reaches), so E is ⌊(closed − N − A + 1) / S⌋ · S. Nothing else ever expires: entries, snapshots,
 * assignments, merge lists, manifest and data stay.
 *
 * What that leaves whole. (1) Every aggregation behind E can be recomputed: from the snapshot of E
 * on, whose payloads are all there. So the model can be had from the newest snapshot, which is E's
 * or a later one. (2) Every contribution to the last N rounds can be recomputed: it belongs to an
 * epoch, which is at most A rounds that follow each other without a gap (section 4), so the epoch
 * of a contribution to round r > closed − N began at r − A + 1 > closed − N − A + 1 ≥ E at the
 * earliest; it began with a reset, and all bases from its first round on follow from E's snapshot.
 * With A − 1 rounds less an epoch could straddle E, and the work of its later rounds would be lost
 * though their payloads are kept. (3) E at a snapshot and no later: payloads between E and the next
 * snapshot would be of no use without their base. (4) E does not decrease as rounds close. */
#ifndef COTRAIN_RETENTION_H
#define COTRAIN_RETENTION_H

#include <cotrain/manifest.h>

/* E; 0 with `retention: all`. */
uint32_t ct_retention_expired(const struct ct_manifest *manifest, uint32_t closed);

#endif
