/* What the files of the ledger share: ledger.c writes, ledger_open.c opens and checks,
 * ledger_read.c reads what is no longer in memory, ledger_sync.c makes durable, ledger_tiles.c has
 * the tiles, ledger_tree.c the newest hashes. */
#ifndef PROTO_LEDGER_PARTS_H
#define PROTO_LEDGER_PARTS_H

#include <cotrain/ledger.h>

/* 256^8 entries are more than 64 bits count, so there are eight levels of tiles. */
#define CT_TREE_LEVELS 8

/* The right edge of the tree: of the floor(size / 256^l) hashes of level l those from `first` on,
 * which begins a tile. What lies before is in tiles on disk. */
struct ct_tree {
    uint64_t size;
    struct ct_tree_level {
        struct ct_hash *hashes; /* of nodes first … count − 1 */
        uint64_t first, count, capacity;
    } levels[CT_TREE_LEVELS];
};

void ct_tree_deinit(struct ct_tree *tree);
/* CT_ERR_MEMORY: the tree is as before. */
CT_MUST_CHECK enum ct_err ct_tree_append(struct ct_tree *tree, const struct ct_hash *leaf);
/* Drops leaves from `size` on; that tile is still in memory. */
void ct_tree_cut(struct ct_tree *tree, uint64_t size);
/* Forgets tiles that are full at this size. */
void ct_tree_forget(struct ct_tree *tree, uint64_t size);
/* The tree of `size` leaves whose right edge is rows[l][(size >> 8 l) mod 256]. */
CT_MUST_CHECK enum ct_err ct_tree_load(struct ct_tree *tree, uint64_t size,
                                       struct ct_hash rows[CT_TREE_LEVELS][CT_TILE_WIDTH]);
/* The hash over 2^height (at most 2^8) of them. */
struct ct_hash ct_tree_fold(const struct ct_hash *hashes, uint32_t height);

/* A full tile and a full entry bundle as last read from the disk, held to the tree. */
struct ct_tile_memory {
    bool valid;
    uint64_t index;
    struct ct_hash hashes[CT_TILE_WIDTH];
};
struct ct_bundle_memory {
    bool valid;
    uint64_t index;
    uint32_t count;
    size_t at[CT_TILE_WIDTH + 1]; /* where entry i begins behind its length, and the end + 2 */
    struct ct_buf bytes;
};

/* Directories by their path below DIR, "" for DIR itself; the oldest make room for new ones. */
#define CT_DIR_SET_MAX 32
struct ct_dir_set {
    uint32_t count, next;
    char paths[CT_DIR_SET_MAX][CT_TILE_PATH_MAX];
};

/* Files that are written and not synced, the i-th as DIR/tile.i.tmp, and the names they get. */
#define CT_STAGED_MAX    64
#define CT_TEMPORARY_MAX 24
struct ct_staged {
    uint32_t count;
    struct ct_staged_file {
        int fd;
        char name[CT_TILE_PATH_MAX];
    } files[CT_STAGED_MAX];
};

#define CT_LEDGER_ENTRIES    "entries"
#define CT_LEDGER_CHECKPOINT "checkpoint"
#define CT_LEDGER_KEPT       "checkpoints"
#define CT_LEDGER_TEMPORARY  "checkpoint.tmp"

#define CT_LEDGER_DIR_MAX  3800
#define CT_LEDGER_PATH_MAX (CT_LEDGER_DIR_MAX + 200)

struct ct_ledger {
    char dir[CT_LEDGER_DIR_MAX];
    char origin[CT_ORIGIN_BYTES_MAX];
    const struct ct_key *log_key; /* signs; NULL: for reading, or a copy */
    bool writes;                  /* it is more than read */
    struct ct_hash public_key;    /* of the log, where it is written */
    int fd;                       /* DIR/entries */
    bool failed;
    struct ct_tree tree;
    uint64_t published;
    uint64_t first; /* entry of the first offset: the tile of the checkpoint's end begins there */
    uint64_t *offsets; /* of entries `first` … in DIR/entries, and where entry `size` would start */
    uint64_t offsets_capacity;
    uint64_t stored;       /* bytes of DIR/entries that are there and synced */
    struct ct_buf pending; /* bytes behind those */
    bool written;          /* DIR/entries has them too, not synced */
    struct ct_staged staged;
    struct ct_buf note;      /* the newest checkpoint */
    struct ct_dir_set known; /* made, and their names synced, since the ledger was opened */
    struct ct_dir_set dirty; /* holding names that are not synced yet */
    struct ct_tile_memory rows[CT_TREE_LEVELS];
    struct ct_bundle_memory bundle;
};

/* DIR/name, or DIR for "". */
void ct_ledger_path(const struct ct_ledger *ledger, const char *name, char out[CT_LEDGER_PATH_MAX]);

/* One without content. */
CT_MUST_CHECK enum ct_err ct_ledger_new(const char *dir, const char *origin,
                                        const struct ct_key *log_key, struct ct_ledger **out);
/* Opens a note of this log; its signature is not looked at where it is open for reading. */
CT_MUST_CHECK enum ct_err ct_ledger_open_note(const struct ct_ledger *ledger, struct ct_bytes note,
                                              struct ct_checkpoint *out);
/* Room for one more offset; after this the first is there. */
CT_MUST_CHECK enum ct_err ct_ledger_reserve(struct ct_ledger *ledger);
/* Reads stored bytes of DIR/entries. */
CT_MUST_CHECK enum ct_err ct_ledger_bytes(const struct ct_ledger *ledger, uint64_t from,
                                          uint64_t to, struct ct_buf *out);

/* Where an entry from `first` on begins in DIR/entries, or would begin. */
static inline uint64_t ct_ledger_offset(const struct ct_ledger *ledger, uint64_t index) {
    return ledger->offsets[index - ledger->first];
}
/* Takes an entry into tree and offsets; its bytes are the caller's to keep. */
CT_MUST_CHECK enum ct_err ct_ledger_take(struct ct_ledger *ledger, struct ct_bytes entry);
/* Forgets hashes and offsets that tiles have at this size, which is published. */
void ct_ledger_forget(struct ct_ledger *ledger, uint64_t size);
/* A ct_subtree_hash; user is a struct ct_ledger. */
enum ct_err ct_ledger_subtree(void *user, uint32_t level, uint64_t index, struct ct_hash *out);

/* Writes a file below DIR; what is staged has its name after ct_ledger_land, which staging the one
 * after CT_STAGED_MAX implies. */
CT_MUST_CHECK enum ct_err ct_ledger_stage(struct ct_ledger *ledger, const char *name,
                                          struct ct_bytes bytes);
/* Makes `pending` durable where it is written, and the content of what is staged, and gives the
 * names. After an error nothing is staged or written, and what has its name is durable. */
CT_MUST_CHECK enum ct_err ct_ledger_land(struct ct_ledger *ledger);
/* Drops what is staged or written. */
void ct_ledger_unstage(struct ct_ledger *ledger);
/* Makes the names of landed files durable. */
CT_MUST_CHECK enum ct_err ct_ledger_sync_names(struct ct_ledger *ledger);
/* Makes those names durable, and then the note under the checkpoint's name. */
CT_MUST_CHECK enum ct_err ct_ledger_crown(struct ct_ledger *ledger, struct ct_bytes note);
/* The name of the i-th temporary file. */
void ct_ledger_temporary(uint32_t i, char out[CT_TEMPORARY_MAX]);

/* Stages all tiles that size `to` has and size `from` has not; DIR/entries has the entries. */
CT_MUST_CHECK enum ct_err ct_tiles_stage(struct ct_ledger *ledger, uint64_t from, uint64_t to);
/* Removes partial tiles that full ones replaced between two published sizes. What cannot be removed
 * now is removed at the next opening. */
void ct_tiles_prune(struct ct_ledger *ledger, uint64_t from, uint64_t to);
/* Stages a tile or bundle unless it is there with these bytes. */
CT_MUST_CHECK enum ct_err ct_tiles_hold(struct ct_ledger *ledger, int level, uint64_t index,
                                        uint32_t width, struct ct_bytes bytes);
/* Holds the last tile of each level to the tree: writes what is missing or damaged, removes what no
 * published checkpoint implies and what full tiles replaced. The partial tiles of the `kept_count`
 * sizes are among the implied.
 */
CT_MUST_CHECK enum ct_err ct_tiles_settle(struct ct_ledger *ledger, const uint64_t *kept,
                                          uint64_t kept_count);
/* Whether all full tiles are there with sizes that they can have; the bytes of the full bundles. */
bool ct_tiles_there(const struct ct_ledger *ledger, uint64_t size, uint64_t *out_bundle_bytes);

#endif
