/* Hashes of a tree out of tlog-tiles, wherever those lie: a directory, another's HTTP server. A
 * proof costs a few tiles, whatever the tree's size. Nothing is believed: who uses a root or a
 * proof made from these verifies it against a signed one. */
#ifndef COTRAIN_TILE_SOURCE_H
#define COTRAIN_TILE_SOURCE_H

#include <cotrain/buf.h>
#include <cotrain/ledger.h>
#include <cotrain/merkle.h>

#define CT_TILE_BYTES (CT_TILE_WIDTH * 32u)

/* Replaces out's content (maximum CT_TILE_BYTES) by the file at a path of ct_tile_path;
 * CT_ERR_NOT_FOUND where there is none. */
typedef enum ct_err (*ct_tile_read)(void *user, const char *path, struct ct_buf *out);
/* One that reads below a ledger's directory; user is its path. */
enum ct_err ct_tile_read_dir(void *user, const char *path, struct ct_buf *out);

#define CT_TILE_SOURCE_KEPT 8u
struct ct_tile_source {
    uint64_t size; /* of the tree */
    ct_tile_read read;
    void *user;
    struct ct_buf scratch;
    uint32_t next;
    struct ct_tile_kept {
        bool valid;
        uint32_t level;
        uint64_t index;
        uint32_t width;
        struct ct_hash hashes[CT_TILE_WIDTH];
    } kept[CT_TILE_SOURCE_KEPT];
};

void ct_tile_source_init(struct ct_tile_source *source, uint64_t size, ct_tile_read read,
                         void *user);
void ct_tile_source_deinit(struct ct_tile_source *source);

/* A ct_subtree_hash; user is a struct ct_tile_source. Of a partial tile that is not there any more
 * the full one is read. CT_ERR_FORMAT: a tile of another length than its width says. */
enum ct_err ct_tile_source_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out);

#endif
