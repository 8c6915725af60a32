/* Tiles and entry bundles on disk. They derive from the tree and the entries, so one that is
 * missing or damaged is written again; but a published checkpoint's tiles are durable before it is,
 * and stay until full ones replace them. */
#include "ledger_parts.h"

#include <cotrain/assert.h>
#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Level −1 is the bundles', whose geometry is that of level 0. */
static uint64_t nodes_at(int level, uint64_t size) {
    return level < 0 ? size : size >> (8 * level);
}

/* What a tile holds that is still in memory. The span lives as long as `scratch` and the tree stay
 * as they are. */
static enum ct_err content(const struct ct_ledger *ledger, int level, uint64_t index,
                           uint32_t width, struct ct_buf *scratch, struct ct_bytes *out) {
    uint64_t first = index * CT_TILE_WIDTH;
    if (level < 0) {
        ct_buf_clear(scratch);
        CT_TRY(ct_ledger_bytes(ledger, ct_ledger_offset(ledger, first),
                               ct_ledger_offset(ledger, first + width), scratch));
        *out = ct_buf_bytes(scratch);
        return CT_OK;
    }
    const struct ct_tree_level *row = &ledger->tree.levels[level];
    CT_ASSERT(first >= row->first && first + width <= row->count);
    *out = (struct ct_bytes){row->hashes[first - row->first].bytes, width * sizeof row->hashes[0]};
    return CT_OK;
}

static void scratch_init(struct ct_buf *scratch) {
    ct_buf_init(scratch, CT_TILE_WIDTH * (2u + CT_ENTRY_BYTES_MAX));
}

static enum ct_err stage_tile(struct ct_ledger *ledger, int level, uint64_t index, uint32_t width,
                              struct ct_bytes bytes) {
    char tile[CT_TILE_PATH_MAX];
    ct_tile_path(level, index, width, tile);
    return ct_ledger_stage(ledger, tile, bytes);
}

static enum ct_err stage_level(struct ct_ledger *ledger, int level, uint64_t from, uint64_t to,
                               struct ct_buf *scratch) {
    for (uint64_t index = from / CT_TILE_WIDTH; index <= to / CT_TILE_WIDTH; index++) {
        uint32_t width =
            index < to / CT_TILE_WIDTH ? CT_TILE_WIDTH : (uint32_t)(to % CT_TILE_WIDTH);
        if (width > 0) {
            struct ct_bytes bytes;
            CT_TRY(content(ledger, level, index, width, scratch, &bytes));
            CT_TRY(stage_tile(ledger, level, index, width, bytes));
        }
    }
    return CT_OK;
}

enum ct_err ct_tiles_stage(struct ct_ledger *ledger, uint64_t from, uint64_t to) {
    struct ct_buf scratch;
    scratch_init(&scratch);
    enum ct_err err = CT_OK;
    for (int level = -1; level < CT_TREE_LEVELS && err == CT_OK; level++) {
        if (nodes_at(level, from) < nodes_at(level, to)) {
            err = stage_level(ledger, level, nodes_at(level, from), nodes_at(level, to), &scratch);
        }
    }
    ct_buf_deinit(&scratch);
    return err;
}

/* Reads the width in the name of a partial tile: 1 to 255, no leading zero; 0 for other names. */
static uint32_t width_in(const char *name) {
    uint32_t width = 0;
    for (const char *c = name; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || (c == name && *c == '0') || c - name >= 3) {
            return 0;
        }
        width = width * 10 + (uint32_t)(*c - '0');
    }
    return width < CT_TILE_WIDTH ? width : 0;
}

/* The directory of a tile's partial forms, below DIR. */
static void partial_dir(int level, uint64_t index, char out[CT_TILE_PATH_MAX]) {
    ct_tile_path(level, index, 1, out);
    *strrchr(out, '/') = '\0';
}

/* Removes the partial forms wider than `width`, and whatever is no tile; with width 0 the directory
 * too. `out_have`, if not NULL, gets which others there are. */
static enum ct_err remove_partials(struct ct_ledger *ledger, int level, uint64_t index,
                                   uint32_t width, bool out_have[CT_TILE_WIDTH]) {
    char tile[CT_TILE_PATH_MAX];
    char folder[CT_LEDGER_PATH_MAX];
    partial_dir(level, index, tile);
    ct_ledger_path(ledger, tile, folder);
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return errno == ENOENT ? CT_OK
                               : ct_fail(CT_ERR_IO, "cannot read %s: %s", folder, strerror(errno));
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        uint32_t found = width_in(item->d_name);
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) {
            continue;
        }
        if (found == 0 || found > width) {
            char path[CT_LEDGER_PATH_MAX + sizeof item->d_name + 1];
            snprintf(path, sizeof path, "%s/%s", folder, item->d_name);
            err = ct_disk_remove(path);
        } else if (out_have != NULL) {
            out_have[found] = true;
        }
    }
    closedir(dir);
    if (err == CT_OK && width == 0) {
        ledger->known.count = 0;
        ledger->known.next = 0;
        err = ct_disk_remove(folder);
    }
    return err;
}

void ct_tiles_prune(struct ct_ledger *ledger, uint64_t from, uint64_t to) {
    for (int level = -1; level < CT_TREE_LEVELS; level++) {
        uint64_t first = nodes_at(level, from) / CT_TILE_WIDTH;
        if (first < nodes_at(level, to) / CT_TILE_WIDTH &&
            remove_partials(ledger, level, first, 0, NULL) != CT_OK) {
            ct_log(CT_LOG_WARN, "ledger", "replaced partial tiles stay for now: %s",
                   ct_err_detail());
        }
    }
}

enum ct_err ct_tiles_hold(struct ct_ledger *ledger, int level, uint64_t index, uint32_t width,
                          struct ct_bytes bytes) {
    char tile[CT_TILE_PATH_MAX];
    char path[CT_LEDGER_PATH_MAX];
    ct_tile_path(level, index, width, tile);
    ct_ledger_path(ledger, tile, path);
    struct ct_buf found;
    scratch_init(&found);
    enum ct_err err = ct_file_read(path, &found);
    const bool right = err == CT_OK && found.length == bytes.length &&
                       memcmp(found.data, bytes.data, bytes.length) == 0;
    ct_buf_deinit(&found);
    if (right) {
        return CT_OK;
    }
    ct_log(CT_LOG_WARN, "ledger", "%s is %s and is written again", path,
           err == CT_ERR_NOT_FOUND ? "missing" : "damaged");
    return stage_tile(ledger, level, index, width, bytes);
}

static enum ct_err remove_full(struct ct_ledger *ledger, int level, uint64_t index) {
    char tile[CT_TILE_PATH_MAX];
    char path[CT_LEDGER_PATH_MAX];
    ct_tile_path(level, index, CT_TILE_WIDTH, tile);
    ct_ledger_path(ledger, tile, path);
    return ct_disk_remove(path);
}

static enum ct_err settle_level(struct ct_ledger *ledger, int level, const uint64_t *kept,
                                uint64_t kept_count, struct ct_buf *scratch) {
    uint64_t published = nodes_at(level, ledger->published);
    uint64_t last = published / CT_TILE_WIDTH;
    uint32_t width = (uint32_t)(published % CT_TILE_WIDTH);
    /* What could not be removed when full tiles replaced it. */
    for (uint64_t index = 0; index < last; index++) {
        CT_TRY(remove_partials(ledger, level, index, 0, NULL));
    }
    bool implied[CT_TILE_WIDTH] = {false};
    CT_TRY(remove_partials(ledger, level, last, width, implied));
    implied[width] = true;
    for (uint64_t i = 0; i < kept_count; i++) {
        uint64_t nodes = nodes_at(level, kept[i]);
        implied[nodes % CT_TILE_WIDTH] |= nodes / CT_TILE_WIDTH == last;
    }
    for (uint32_t i = 1; i <= width; i++) {
        if (implied[i]) {
            struct ct_bytes bytes;
            CT_TRY(content(ledger, level, last, i, scratch, &bytes));
            CT_TRY(ct_tiles_hold(ledger, level, last, i, bytes));
        }
    }
    /* What an interrupted publication wrote ahead of its checkpoint. */
    CT_TRY(remove_full(ledger, level, last));
    uint64_t end = nodes_at(level, ledger->tree.size) / CT_TILE_WIDTH;
    for (uint64_t index = last + 1; index <= end; index++) {
        CT_TRY(remove_full(ledger, level, index));
        CT_TRY(remove_partials(ledger, level, index, 0, NULL));
    }
    return CT_OK;
}

/* What a publication did not come to name. */
static enum ct_err remove_temporaries(const struct ct_ledger *ledger) {
    for (uint32_t i = 0; i < CT_STAGED_MAX; i++) {
        char temporary[CT_TEMPORARY_MAX], path[CT_LEDGER_PATH_MAX];
        ct_ledger_temporary(i, temporary);
        ct_ledger_path(ledger, temporary, path);
        CT_TRY(ct_disk_remove(path));
    }
    return CT_OK;
}

enum ct_err ct_tiles_settle(struct ct_ledger *ledger, const uint64_t *kept, uint64_t kept_count) {
    CT_TRY(remove_temporaries(ledger));
    struct ct_buf scratch;
    scratch_init(&scratch);
    enum ct_err err = CT_OK;
    for (int level = -1; level < CT_TREE_LEVELS && err == CT_OK; level++) {
        err = settle_level(ledger, level, kept, kept_count, &scratch);
    }
    ct_buf_deinit(&scratch);
    if (err == CT_OK) {
        err = ct_ledger_land(ledger);
    }
    return err == CT_OK ? ct_ledger_sync_names(ledger) : err;
}

bool ct_tiles_there(const struct ct_ledger *ledger, uint64_t size, uint64_t *out_bundle_bytes) {
    *out_bundle_bytes = 0;
    for (int level = -1; level < CT_TREE_LEVELS; level++) {
        for (uint64_t index = 0; index < nodes_at(level, size) / CT_TILE_WIDTH; index++) {
            char tile[CT_TILE_PATH_MAX];
            char path[CT_LEDGER_PATH_MAX];
            struct stat status;
            ct_tile_path(level, index, CT_TILE_WIDTH, tile);
            ct_ledger_path(ledger, tile, path);
            if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) ||
                (level >= 0 && status.st_size != CT_TILE_WIDTH * sizeof(struct ct_hash))) {
                return false;
            }
            *out_bundle_bytes += level < 0 ? (uint64_t)status.st_size : 0;
        }
    }
    return true;
}
