/* The tree in memory, one array of hashes per tile level: 32 bytes an entry and 1/255 of that
 * above. Levels between are folded when they are asked for, from at most 128 hashes. */
#include "ledger_parts.h"

#include <cotrain/assert.h>

#include <stdlib.h>
#include <string.h>

void ct_tree_deinit(struct ct_tree *tree) {
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        free(tree->levels[i].hashes);
    }
    *tree = (struct ct_tree){.size = 0};
}

static enum ct_err reserve_one(struct ct_tree_level *level) {
    if (level->count < level->capacity) {
        return CT_OK;
    }
    uint64_t capacity = level->capacity == 0 ? 256 : level->capacity * 2;
    struct ct_hash *hashes = realloc(level->hashes, capacity * sizeof *hashes);
    if (hashes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the hashes of %llu entries",
                       (unsigned long long)capacity);
    }
    level->hashes = hashes;
    level->capacity = capacity;
    return CT_OK;
}

/* Folds 2^height hashes into their root. */
static struct ct_hash fold(const struct ct_hash *hashes, uint32_t height) {
    struct ct_hash row[128];
    if (height == 0) {
        return hashes[0];
    }
    CT_ASSERT(height <= 8);
    for (size_t i = 0; i < (size_t)1 << (height - 1); i++) {
        row[i] = ct_node_hash(&hashes[2 * i], &hashes[2 * i + 1]);
    }
    for (uint32_t h = height - 1; h > 0; h--) {
        for (size_t i = 0; i < (size_t)1 << (h - 1); i++) {
            row[i] = ct_node_hash(&row[2 * i], &row[2 * i + 1]);
        }
    }
    return row[0];
}

enum ct_err ct_tree_append(struct ct_tree *tree, const struct ct_hash *leaf) {
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        CT_TRY(reserve_one(&tree->levels[i]));
    }
    tree->size++;
    struct ct_hash hash = *leaf;
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        struct ct_tree_level *level = &tree->levels[i];
        level->hashes[level->count] = hash;
        level->count++;
        if (level->count % CT_TILE_WIDTH != 0) {
            break;
        }
        hash = fold(&level->hashes[level->count - CT_TILE_WIDTH], 8);
    }
    return CT_OK;
}

void ct_tree_cut(struct ct_tree *tree, uint64_t size) {
    CT_ASSERT(size <= tree->size);
    tree->size = size;
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        tree->levels[i].count = size >> (8 * i);
    }
}

enum ct_err ct_tree_subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    const struct ct_tree *tree = user;
    CT_ASSERT(level < 8 * CT_TREE_LEVELS);
    const struct ct_tree_level *row = &tree->levels[level / 8];
    uint32_t height = level % 8;
    CT_ASSERT((index + 1) << height <= row->count);
    *out = fold(&row->hashes[index << height], height);
    return CT_OK;
}

struct ct_hash ct_tree_root(const struct ct_tree *tree, uint64_t size) {
    CT_ASSERT(size <= tree->size);
    struct ct_frontier frontier = {.size = size};
    uint64_t start = 0;
    for (uint32_t level = 64; level > 0; level--) {
        uint64_t count = 1ull << (level - 1);
        if ((size & count) != 0) {
            /* Memory is the only thing that could fail, and there is none to get. */
            enum ct_err err =
                ct_tree_subtree((void *)(uintptr_t)tree, level - 1, start >> (level - 1),
                                &frontier.roots[frontier.count]);
            CT_ASSERT(err == CT_OK);
            frontier.count++;
            start += count;
        }
    }
    return ct_frontier_root(&frontier);
}
