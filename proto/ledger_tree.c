/* The newest hashes of the tree, one array per tile level: from the tile that the checkpoint ends
 * in to the end, so a few kilobytes whatever the tree's size. */
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
    if (level->count - level->first < level->capacity) {
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

struct ct_hash ct_tree_fold(const struct ct_hash *hashes, uint32_t height) {
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
        level->hashes[level->count - level->first] = hash;
        level->count++;
        if (level->count % CT_TILE_WIDTH != 0) {
            break;
        }
        hash = ct_tree_fold(&level->hashes[level->count - level->first - CT_TILE_WIDTH], 8);
    }
    return CT_OK;
}

void ct_tree_cut(struct ct_tree *tree, uint64_t size) {
    CT_ASSERT(size <= tree->size);
    tree->size = size;
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        CT_ASSERT(size >> (8 * i) >= tree->levels[i].first);
        tree->levels[i].count = size >> (8 * i);
    }
}

void ct_tree_forget(struct ct_tree *tree, uint64_t size) {
    CT_ASSERT(size <= tree->size);
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        struct ct_tree_level *level = &tree->levels[i];
        const uint64_t first = (size >> (8 * i)) / CT_TILE_WIDTH * CT_TILE_WIDTH;
        if (first > level->first) {
            memmove(level->hashes, &level->hashes[first - level->first],
                    (level->count - first) * sizeof level->hashes[0]);
            level->first = first;
        }
    }
}

enum ct_err ct_tree_load(struct ct_tree *tree, uint64_t size,
                         struct ct_hash rows[CT_TREE_LEVELS][CT_TILE_WIDTH]) {
    for (size_t i = 0; i < CT_TREE_LEVELS; i++) {
        struct ct_tree_level *level = &tree->levels[i];
        level->first = level->count = 0;
        CT_TRY(reserve_one(level));
        level->count = size >> (8 * i);
        level->first = level->count / CT_TILE_WIDTH * CT_TILE_WIDTH;
        memcpy(level->hashes, rows[i], (level->count - level->first) * sizeof rows[i][0]);
    }
    tree->size = size;
    return CT_OK;
}
