/* Evidence that a log showed two histories: one file that convinces a third person, who needs
 * nothing but SHA-256, Ed25519 and this text. Two checkpoints signed by one key, and, unless they
 * tell two roots of one size, the proof that the larger tree begins with another tree than the
 * smaller checkpoint says: from that other root a consistency proof leads to the larger one.
 *
 *   cotrain/log-evidence@v1
 *   log <vkey>
 *   prefix <base64 root>         of the larger tree's first leaves, as many as the smaller has
 *   <base64 hash>                0 to 63 lines: the consistency proof from there
 *   checkpoint <bytes>
 *   <the smaller signed checkpoint, so many bytes>
 *   checkpoint <bytes>
 *   <the larger one>
 *
 * The prefix line and the proof are left out for equal sizes. */
#ifndef COTRAIN_EVIDENCE_H
#define COTRAIN_EVIDENCE_H

#include <cotrain/merkle.h>
#include <cotrain/note.h>

#define CT_EVIDENCE_BYTES_MAX (2u * CT_CHECKPOINT_BYTES_MAX + 8192u)

/* What was proven: both checkpoints were signed under `vkey`, and no log of one history has both.
 */
struct ct_evidence {
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_checkpoint smaller, larger;
    struct ct_hash prefix; /* what the larger tree begins with; smaller.root would be honest */
};

/* Compares two signed checkpoints of a log. `hash` gives the hashes of the larger one's tree (of
 * any source; asked only where sizes differ and neither is 0).
 *
 * CT_OK: one history. CT_ERR_FORKED: two, and `evidence` (initialised) holds the file. Anything
 * else: not decided; CT_ERR_DIGEST when what `hash` gave is not the larger tree. */
CT_MUST_CHECK enum ct_err ct_evidence_seek(const char *vkey, struct ct_bytes note,
                                           struct ct_bytes other, ct_subtree_hash hash, void *user,
                                           struct ct_buf *evidence);

/* Verifies a file from a stranger: CT_OK only when it proves what it says. */
CT_MUST_CHECK enum ct_err ct_evidence_open(struct ct_bytes text, struct ct_evidence *out);

#endif
