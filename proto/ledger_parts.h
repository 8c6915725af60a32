/* What ledger.c, ledger_tree.c and ledger_tiles.c share. */
#ifndef PROTO_LEDGER_PARTS_H
#define PROTO_LEDGER_PARTS_H

#include <cotrain/ledger.h>

/* 256^8 entries are more than 64 bits count, so there are eight levels of tiles. */
#define CT_TREE_LEVELS 8

/* The hashes of all full tiles' rows, in memory: level l holds floor(size / 256^l) of them. */
struct ct_tree {
    uint64_t size;
    struct ct_tree_level {
        struct ct_hash *hashes;
        uint64_t count, capacity;
    } levels[CT_TREE_LEVELS];
};

void ct_tree_deinit(struct ct_tree *tree);
/* CT_ERR_MEMORY: the tree is as before. */
CT_MUST_CHECK enum ct_err ct_tree_append(struct ct_tree *tree, const struct ct_hash *leaf);
/* Forgets leaves from `size` on. */
void ct_tree_cut(struct ct_tree *tree, uint64_t size);
/* The root of the first `size` leaves. */
struct ct_hash ct_tree_root(const struct ct_tree *tree, uint64_t size);
/* A ct_subtree_hash; user is a struct ct_tree. */
enum ct_err ct_tree_subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out);

/* Directories by their path below DIR, "" for DIR itself; the oldest make room for new ones. */
#define CT_DIR_SET_MAX 32
struct ct_dir_set {
    uint32_t count, next;
    char paths[CT_DIR_SET_MAX][CT_TILE_PATH_MAX];
};

#define CT_LEDGER_DIR_MAX  3800
#define CT_LEDGER_PATH_MAX (CT_LEDGER_DIR_MAX + 200)

struct ct_ledger {
    char dir[CT_LEDGER_DIR_MAX];
    char origin[CT_ORIGIN_BYTES_MAX];
    const struct ct_key *log_key; /* NULL: for reading */
    int fd;                       /* DIR/entries */
    bool failed;
    struct ct_tree tree;
    uint64_t published;
    uint64_t *offsets; /* of entry i in DIR/entries, and where entry `size` would start */
    uint64_t offsets_capacity;
    uint64_t stored;         /* bytes of DIR/entries that are there and synced */
    struct ct_buf pending;   /* bytes behind those */
    struct ct_buf note;      /* the newest checkpoint */
    struct ct_dir_set known; /* made, and their names synced, since the ledger was opened */
    struct ct_dir_set dirty; /* holding names that are not synced yet */
};

/* DIR/name, or DIR for "". */
void ct_ledger_path(const struct ct_ledger *ledger, const char *name, char out[CT_LEDGER_PATH_MAX]);

/* Reads stored bytes of DIR/entries. */
CT_MUST_CHECK enum ct_err ct_ledger_bytes(const struct ct_ledger *ledger, uint64_t from,
                                          uint64_t to, struct ct_buf *out);

/* Makes durable all tiles that size `to` has and size `from` has not; the entries are stored. */
CT_MUST_CHECK enum ct_err ct_tiles_write(struct ct_ledger *ledger, uint64_t from, uint64_t to);
/* Removes partial tiles that full ones replaced between two published sizes. What cannot be removed
 * now is removed at the next opening. */
void ct_tiles_prune(struct ct_ledger *ledger, uint64_t from, uint64_t to);
/* Holds all tiles to the entries: writes what is missing or damaged, removes what no published
 * checkpoint implies. The partial tiles of the `kept_count` sizes are among the implied. */
CT_MUST_CHECK enum ct_err ct_tiles_repair(struct ct_ledger *ledger, const uint64_t *kept,
                                          uint32_t kept_count);

#endif
