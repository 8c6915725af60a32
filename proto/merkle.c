/* RFC 6962 trees. A proof is collected from the root downwards and turned round at the end, since
 * the formats want the leaf's side first. */
#include <cotrain/assert.h>
#include <cotrain/crypto.h>
#include <cotrain/merkle.h>

#include <string.h>

/* A path has one hash per level, so this bounds the trees that a ct_proof can speak of. */
#define SIZE_MAX_PROVABLE (1ull << CT_PROOF_HASHES_MAX)

struct ct_hash ct_leaf_hash(struct ct_bytes entry) {
    static const uint8_t prefix = 0;
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, &prefix, 1);
    ct_sha256_update(&sha, entry.data, entry.length);
    return ct_sha256_final(&sha);
}

struct ct_hash ct_node_hash(const struct ct_hash *left, const struct ct_hash *right) {
    uint8_t bytes[1 + 2 * sizeof *left];
    bytes[0] = 1;
    memcpy(bytes + 1, left->bytes, sizeof left->bytes);
    memcpy(bytes + 1 + sizeof *left, right->bytes, sizeof right->bytes);
    return ct_sha256((struct ct_bytes){bytes, sizeof bytes});
}

struct ct_hash ct_empty_root(void) {
    return ct_sha256((struct ct_bytes){(const uint8_t *)"", 0});
}

void ct_frontier_append(struct ct_frontier *frontier, const struct ct_hash *leaf) {
    CT_ASSERT(frontier->size < UINT64_MAX);
    struct ct_hash hash = *leaf;
    /* A new leaf completes one subtree per trailing one bit of the size, as a carry does. */
    for (uint64_t carry = frontier->size; (carry & 1) != 0; carry >>= 1) {
        CT_ASSERT(frontier->count > 0);
        frontier->count--;
        hash = ct_node_hash(&frontier->roots[frontier->count], &hash);
    }
    CT_ASSERT(frontier->count < 64);
    frontier->roots[frontier->count] = hash;
    frontier->count++;
    frontier->size++;
}

struct ct_hash ct_frontier_root(const struct ct_frontier *frontier) {
    if (frontier->count == 0) {
        return ct_empty_root();
    }
    struct ct_hash hash = frontier->roots[frontier->count - 1];
    for (uint32_t i = frontier->count - 1; i > 0; i--) {
        hash = ct_node_hash(&frontier->roots[i - 1], &hash);
    }
    return hash;
}

/* The largest power of two below count; count > 1. */
static uint64_t split(uint64_t count) {
    return 1ull << (63 - __builtin_clzll(count - 1));
}

/* MTH(D[start : start + count]); start is a multiple of the smallest power of two >= count, so the
 * full subtrees of the range are aligned. */
static enum ct_err range_root(uint64_t start, uint64_t count, ct_subtree_hash hash, void *user,
                              struct ct_hash *out) {
    uint32_t level = (uint32_t)__builtin_ctzll(count);
    uint64_t end = start + count;
    uint64_t taken = 1ull << level;
    CT_TRY(hash(user, level, (end - taken) >> level, out));
    for (uint64_t rest = count - taken; rest != 0; rest &= rest - 1) {
        level = (uint32_t)__builtin_ctzll(rest);
        taken += 1ull << level;
        struct ct_hash left;
        CT_TRY(hash(user, level, (end - taken) >> level, &left));
        *out = ct_node_hash(&left, out);
    }
    return CT_OK;
}

enum ct_err ct_root_of(uint64_t size, ct_subtree_hash hash, void *user, struct ct_hash *out) {
    if (size == 0) {
        *out = ct_empty_root();
        return CT_OK;
    }
    return range_root(0, size, hash, user, out);
}

static enum ct_err push_range(struct ct_proof *proof, uint64_t start, uint64_t count,
                              ct_subtree_hash hash, void *user) {
    if (proof->count == CT_PROOF_HASHES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a proof of more than %u hashes", CT_PROOF_HASHES_MAX);
    }
    CT_TRY(range_root(start, count, hash, user, &proof->hashes[proof->count]));
    proof->count++;
    return CT_OK;
}

static void turn_round(struct ct_proof *proof) {
    for (uint32_t i = 0, j = proof->count; i + 1 < j; i++) {
        j--;
        struct ct_hash hash = proof->hashes[i];
        proof->hashes[i] = proof->hashes[j];
        proof->hashes[j] = hash;
    }
}

bool ct_subtree_valid(uint64_t start, uint64_t end) {
    if (start >= end) {
        return start == end;
    }
    /* A multiple of the smallest power of two that is not below the count; none is for 2^63 + 1. */
    uint64_t count = end - start;
    uint64_t ceiling = count == 1 ? 1 : 2 * split(count);
    return ceiling != 0 ? start % ceiling == 0 : start == 0;
}

enum ct_err ct_prove_subtree_inclusion(uint64_t index, uint64_t start, uint64_t end,
                                       ct_subtree_hash hash, void *user, struct ct_proof *out) {
    if (!ct_subtree_valid(start, end) || index < start || index >= end || end > SIZE_MAX_PROVABLE) {
        return ct_fail(CT_ERR_NOT_FOUND, "no leaf %llu in a tree of the leaves %llu to %llu",
                       (unsigned long long)index, (unsigned long long)start,
                       (unsigned long long)end);
    }
    out->count = 0;
    uint64_t count = end - start;
    while (count > 1) {
        uint64_t half = split(count);
        if (index - start < half) {
            CT_TRY(push_range(out, start + half, count - half, hash, user));
            count = half;
        } else {
            CT_TRY(push_range(out, start, half, hash, user));
            start += half;
            count -= half;
        }
    }
    turn_round(out);
    return CT_OK;
}

enum ct_err ct_prove_inclusion(uint64_t index, uint64_t size, ct_subtree_hash hash, void *user,
                               struct ct_proof *out) {
    return ct_prove_subtree_inclusion(index, 0, size, hash, user, out);
}

enum ct_err ct_prove_subtree_consistency(uint64_t start, uint64_t end, uint64_t size,
                                         ct_subtree_hash hash, void *user, struct ct_proof *out) {
    if (!ct_subtree_valid(start, end) || end > size || size > SIZE_MAX_PROVABLE) {
        return ct_fail(
            CT_ERR_NOT_FOUND, "no consistency proof from the leaves %llu to %llu to size %llu",
            (unsigned long long)start, (unsigned long long)end, (unsigned long long)size);
    }
    out->count = 0;
    if (start == end) {
        return CT_OK;
    }
    uint64_t at = 0; /* [at, at + count) is the tree on the way down that holds [start, end) */
    uint64_t count = size;
    bool root_known = true; /* the verifier holds the root of [start, end) */
    while (at != start || at + count != end) {
        uint64_t half = split(count);
        if (end - at <= half) {
            CT_TRY(push_range(out, at + half, count - half, hash, user));
            count = half;
        } else {
            CT_TRY(push_range(out, at, half, hash, user));
            if (start - at < half) {
                /* The range goes over the middle, so it begins here and its left half is known
                 * to the prover alone. */
                start = at + half;
                root_known = false;
            }
            at += half;
            count -= half;
        }
    }
    if (!root_known) {
        CT_TRY(push_range(out, at, count, hash, user));
    }
    turn_round(out);
    return CT_OK;
}

enum ct_err ct_prove_consistency(uint64_t old_size, uint64_t size, ct_subtree_hash hash, void *user,
                                 struct ct_proof *out) {
    if (old_size == 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "no consistency proof from size 0");
    }
    return ct_prove_subtree_consistency(0, old_size, size, hash, user, out);
}

static enum ct_err wrong_length(const char *kind) {
    return ct_fail(CT_ERR_FORMAT, "%s proof: wrong number of hashes for these sizes", kind);
}

enum ct_err ct_verify_subtree_inclusion(uint64_t index, uint64_t start, uint64_t end,
                                        const struct ct_hash *leaf, const struct ct_proof *proof,
                                        const struct ct_hash *root) {
    if (!ct_subtree_valid(start, end) || index < start || index >= end) {
        return ct_fail(
            CT_ERR_FORMAT, "inclusion proof: leaf %llu is outside the leaves %llu to %llu",
            (unsigned long long)index, (unsigned long long)start, (unsigned long long)end);
    }
    /* Names and steps of RFC 9162 section 2.1.3.2. */
    uint64_t fn = index - start;
    uint64_t sn = end - start - 1;
    struct ct_hash r = *leaf;
    for (uint32_t i = 0; i < proof->count; i++) {
        const struct ct_hash *p = &proof->hashes[i];
        if (sn == 0) {
            return wrong_length("inclusion");
        }
        if ((fn & 1) != 0 || fn == sn) {
            r = ct_node_hash(p, &r);
            while ((fn & 1) == 0 && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            r = ct_node_hash(&r, p);
        }
        fn >>= 1;
        sn >>= 1;
    }
    if (sn != 0) {
        return wrong_length("inclusion");
    }
    if (!ct_hash_equal(&r, root)) {
        return ct_fail(CT_ERR_DIGEST, "inclusion proof: leads to another root");
    }
    return CT_OK;
}

enum ct_err ct_verify_inclusion(uint64_t index, uint64_t size, const struct ct_hash *leaf,
                                const struct ct_proof *proof, const struct ct_hash *root) {
    return ct_verify_subtree_inclusion(index, 0, size, leaf, proof, root);
}

enum ct_err ct_verify_subtree_consistency(uint64_t start, uint64_t end, uint64_t size,
                                          const struct ct_proof *proof,
                                          const struct ct_hash *subtree_root,
                                          const struct ct_hash *root) {
    if (!ct_subtree_valid(start, end) || end > size) {
        return ct_fail(CT_ERR_FORMAT, "consistency proof: leaves %llu to %llu, size %llu",
                       (unsigned long long)start, (unsigned long long)end,
                       (unsigned long long)size);
    }
    if (start == end) {
        struct ct_hash empty = ct_empty_root();
        if (proof->count != 0) {
            return wrong_length("consistency");
        }
        return ct_hash_equal(subtree_root, &empty)
                   ? CT_OK
                   : ct_fail(CT_ERR_DIGEST, "consistency proof: no leaves, but not their root");
    }
    /* RFC 9162 section 2.1.4.2, and its extension to ranges in draft-ietf-plants-merkle-tree-certs:
     * fn and sn are the subtree's first and last node at a level, tn the tree's last. */
    uint64_t fn = start;
    uint64_t sn = end - 1;
    uint64_t tn = size - 1;
    while (fn != sn && (sn == tn || (sn & 1) != 0)) {
        fn >>= 1;
        sn >>= 1;
        tn >>= 1;
    }
    uint32_t used = 0;
    struct ct_hash fr = *subtree_root;
    if (fn != sn) {
        if (proof->count == 0) {
            return wrong_length("consistency");
        }
        fr = proof->hashes[0];
        used = 1;
    }
    struct ct_hash sr = fr;
    for (; used < proof->count; used++) {
        const struct ct_hash *c = &proof->hashes[used];
        if (tn == 0) {
            return wrong_length("consistency");
        }
        if ((sn & 1) != 0 || sn == tn) {
            if (fn < sn) {
                fr = ct_node_hash(c, &fr);
            }
            sr = ct_node_hash(c, &sr);
            while ((sn & 1) == 0 && sn != 0) {
                fn >>= 1;
                sn >>= 1;
                tn >>= 1;
            }
        } else {
            sr = ct_node_hash(&sr, c);
        }
        fn >>= 1;
        sn >>= 1;
        tn >>= 1;
    }
    if (tn != 0) {
        return wrong_length("consistency");
    }
    if (!ct_hash_equal(&fr, subtree_root) || !ct_hash_equal(&sr, root)) {
        return ct_fail(CT_ERR_DIGEST, "consistency proof: leads to other roots");
    }
    return CT_OK;
}

enum ct_err ct_verify_consistency(uint64_t old_size, uint64_t size, const struct ct_proof *proof,
                                  const struct ct_hash *old_root, const struct ct_hash *root) {
    if (old_size == 0) {
        return ct_fail(CT_ERR_FORMAT, "consistency proof: from size 0, which proves nothing");
    }
    return ct_verify_subtree_consistency(0, old_size, size, proof, old_root, root);
}
