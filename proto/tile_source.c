#include <cotrain/tile_source.h>

#include <cotrain/assert.h>

#include <stdio.h>
#include <string.h>

enum ct_err ct_tile_read_dir(void *user, const char *path, struct ct_buf *out) {
    char full[4096];
    int length = snprintf(full, sizeof full, "%s/%s", (const char *)user, path);
    if (length < 0 || (size_t)length >= sizeof full) {
        return ct_fail(CT_ERR_CONFIG, "the ledger's path is too long");
    }
    ct_buf_clear(out);
    return ct_file_read(full, out);
}

void ct_tile_source_init(struct ct_tile_source *source, uint64_t size, ct_tile_read read,
                         void *user) {
    memset(source, 0, sizeof *source);
    source->size = size;
    source->read = read;
    source->user = user;
    ct_buf_init(&source->scratch, CT_TILE_BYTES);
}

void ct_tile_source_deinit(struct ct_tile_source *source) {
    ct_buf_deinit(&source->scratch);
}

static enum ct_err read_tile(struct ct_tile_source *source, uint32_t level, uint64_t index,
                             uint32_t width, struct ct_tile_kept *out) {
    char path[CT_TILE_PATH_MAX];
    uint32_t found = width;
    ct_tile_path((int)level, index, width, path);
    enum ct_err err = source->read(source->user, path, &source->scratch);
    if (err == CT_ERR_NOT_FOUND && width < CT_TILE_WIDTH) {
        found = CT_TILE_WIDTH;
        ct_tile_path((int)level, index, found, path);
        err = source->read(source->user, path, &source->scratch);
    }
    CT_TRY(err);
    if (source->scratch.length != found * sizeof out->hashes[0]) {
        return ct_fail(CT_ERR_FORMAT, "%s has %zu bytes, %zu are a tile of its width", path,
                       source->scratch.length, found * sizeof out->hashes[0]);
    }
    out->valid = true;
    out->level = level;
    out->index = index;
    out->width = width;
    memcpy(out->hashes, source->scratch.data, width * sizeof out->hashes[0]);
    return CT_OK;
}

static enum ct_err find_tile(struct ct_tile_source *source, uint32_t level, uint64_t index,
                             uint32_t width, const struct ct_tile_kept **out) {
    for (uint32_t i = 0; i < CT_TILE_SOURCE_KEPT; i++) {
        const struct ct_tile_kept *kept = &source->kept[i];
        if (kept->valid && kept->level == level && kept->index == index) {
            *out = kept;
            return CT_OK;
        }
    }
    struct ct_tile_kept *kept = &source->kept[source->next];
    source->next = (source->next + 1) % CT_TILE_SOURCE_KEPT;
    kept->valid = false;
    CT_TRY(read_tile(source, level, index, width, kept));
    *out = kept;
    return CT_OK;
}

enum ct_err ct_tile_source_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    struct ct_tile_source *source = user;
    const uint32_t row = level / 8; /* of tiles */
    const uint32_t height = level % 8;
    const uint64_t first = index << height; /* among the hashes of that row */
    const uint64_t last = first + (1ull << height) - 1;
    const uint64_t hashes = row < 8 ? source->size >> (8 * row) : 0;
    CT_ASSERT(last < hashes);
    const uint64_t tile = first / CT_TILE_WIDTH;
    const uint64_t left = hashes - tile * CT_TILE_WIDTH;
    const struct ct_tile_kept *kept = NULL;
    CT_TRY(
        find_tile(source, row, tile, left < CT_TILE_WIDTH ? (uint32_t)left : CT_TILE_WIDTH, &kept));
    struct ct_hash hash[CT_TILE_WIDTH / 2];
    uint32_t count = 1u << height;
    memcpy(hash, &kept->hashes[first % CT_TILE_WIDTH], count * sizeof hash[0]);
    for (; count > 1; count /= 2) {
        for (uint32_t i = 0; i < count / 2; i++) {
            hash[i] = ct_node_hash(&hash[2 * i], &hash[2 * i + 1]);
        }
    }
    *out = hash[0];
    return CT_OK;
}
