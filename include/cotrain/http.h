/* What a coordinator or a mirror serves for reading, relative to its base URL
 * ("http://host:port/"), by GET and HEAD; byte ranges ("bytes=N-") are answered with 206 for all of
 * it but the list.
 *
 *   checkpoint           the newest signed note, text/plain, not cached
 *   witnessed            the newest one with the quorum of witnesses, likewise; 404 before the
 *                        first
 *   checkpoints          the sizes of all that are kept, one per closed round, ascending, a line
 *                        each
 *   checkpoints/N        the kept one of that size
 *   tile/…               tiles and entry bundles, the paths of tlog-tiles (ledger.h, ct_tile_path)
 *   blobs/ab/cdef…       a blob; the path is that of the store (blob.h): two digits of its
 *                        SHA-256, a slash, the other 62. Payloads of an open round: 404
 *   profiles/DIGEST      a volunteer's record (volunteer.h), 64 digits; not cached; 404 where none
 * is shown, and of a mirror
 *
 * A run directory's `ledger` and `blobs` behind any static web server are a mirror; it lacks the
 * list alone. */
#ifndef COTRAIN_HTTP_H
#define COTRAIN_HTTP_H

#define CT_HTTP_CHECKPOINT "checkpoint"
#define CT_HTTP_WITNESSED  "witnessed"
#define CT_HTTP_KEPT       "checkpoints"
#define CT_HTTP_BLOBS      "blobs"
#define CT_HTTP_PROFILES   "profiles"

#endif
