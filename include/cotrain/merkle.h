/* RFC 6962 Merkle trees over SHA-256: hashes, the frontier of a growing tree, proofs and their
 * verification (RFC 9162 sections 2.1.3.2 and 2.1.4.2). */
#ifndef COTRAIN_MERKLE_H
#define COTRAIN_MERKLE_H

#include <cotrain/err.h>
#include <cotrain/limits.h>
#include <cotrain/types.h>

struct ct_hash ct_leaf_hash(struct ct_bytes entry);
struct ct_hash ct_node_hash(const struct ct_hash *left, const struct ct_hash *right);
struct ct_hash ct_empty_root(void);

/* The roots of the full subtrees of a tree of `size` leaves, largest first: enough to go on
 * appending and to know the root. Zeroed is empty. */
struct ct_frontier {
    uint64_t size;
    uint32_t count;
    struct ct_hash roots[64];
};
void ct_frontier_append(struct ct_frontier *frontier, const struct ct_hash *leaf);
struct ct_hash ct_frontier_root(const struct ct_frontier *frontier);

struct ct_proof {
    uint32_t count;
    struct ct_hash hashes[CT_PROOF_HASHES_MAX];
};

/* Gives the hash of the full subtree `index` of 2^level leaves, from tiles or memory. */
typedef enum ct_err (*ct_subtree_hash)(void *user, uint32_t level, uint64_t index,
                                       struct ct_hash *out);
/* The root of the first `size` leaves; ct_empty_root for none. */
CT_MUST_CHECK enum ct_err ct_root_of(uint64_t size, ct_subtree_hash hash, void *user,
                                     struct ct_hash *out);
CT_MUST_CHECK enum ct_err ct_prove_inclusion(uint64_t index, uint64_t size, ct_subtree_hash hash,
                                             void *user, struct ct_proof *out);
CT_MUST_CHECK enum ct_err ct_prove_consistency(uint64_t old_size, uint64_t size,
                                               ct_subtree_hash hash, void *user,
                                               struct ct_proof *out);

CT_MUST_CHECK enum ct_err ct_verify_inclusion(uint64_t index, uint64_t size,
                                              const struct ct_hash *leaf,
                                              const struct ct_proof *proof,
                                              const struct ct_hash *root);
/* Old size 0 is refused here, and is for the caller to treat. Equal sizes: an empty proof and equal
 * roots. */
CT_MUST_CHECK enum ct_err ct_verify_consistency(uint64_t old_size, uint64_t size,
                                                const struct ct_proof *proof,
                                                const struct ct_hash *old_root,
                                                const struct ct_hash *root);

/* The same for the leaves [start, end) as a tree of their own, of which the tree of a size is the
 * case [0, size) (draft-ietf-plants-merkle-tree-certs section 4): valid when start is a multiple of
 * the smallest power of two that is not below end − start, so that the range is a node of every
 * larger tree or its ragged right edge; an empty range is valid and is part of every tree.
 * tlog-mirror and ML-DSA cosignatures speak of these. */
bool ct_subtree_valid(uint64_t start, uint64_t end);
CT_MUST_CHECK enum ct_err ct_prove_subtree_inclusion(uint64_t index, uint64_t start, uint64_t end,
                                                     ct_subtree_hash hash, void *user,
                                                     struct ct_proof *out);
CT_MUST_CHECK enum ct_err ct_prove_subtree_consistency(uint64_t start, uint64_t end, uint64_t size,
                                                       ct_subtree_hash hash, void *user,
                                                       struct ct_proof *out);
CT_MUST_CHECK enum ct_err ct_verify_subtree_inclusion(uint64_t index, uint64_t start, uint64_t end,
                                                      const struct ct_hash *leaf,
                                                      const struct ct_proof *proof,
                                                      const struct ct_hash *root);
CT_MUST_CHECK enum ct_err ct_verify_subtree_consistency(uint64_t start, uint64_t end, uint64_t size,
                                                        const struct ct_proof *proof,
                                                        const struct ct_hash *subtree_root,
                                                        const struct ct_hash *root);

#endif
