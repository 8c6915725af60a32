/* The shape of a C2SP tlog-tiles log: paths and entry bundles. */
#include <cotrain/assert.h>
#include <cotrain/ledger.h>

#include <stdio.h>

void ct_tile_path(int level, uint64_t index, uint32_t width, char out[CT_TILE_PATH_MAX]) {
    CT_ASSERT(level >= -1 && level <= 63);
    CT_ASSERT(width >= 1 && width <= CT_TILE_WIDTH);
    /* Groups of three digits, lowest first; 2^64 has seven. */
    unsigned groups[7];
    size_t count = 0;
    do {
        groups[count] = (unsigned)(index % 1000);
        count++;
        index /= 1000;
    } while (index != 0);
    size_t used = level < 0 ? (size_t)snprintf(out, CT_TILE_PATH_MAX, "tile/entries")
                            : (size_t)snprintf(out, CT_TILE_PATH_MAX, "tile/%d", level);
    while (count > 0) {
        count--;
        used += (size_t)snprintf(out + used, CT_TILE_PATH_MAX - used,
                                 count > 0 ? "/x%03u" : "/%03u", groups[count]);
    }
    if (width < CT_TILE_WIDTH) {
        used += (size_t)snprintf(out + used, CT_TILE_PATH_MAX - used, ".p/%u", width);
    }
    CT_ASSERT(used < CT_TILE_PATH_MAX);
}

enum ct_err ct_bundle_parse(struct ct_bytes bundle, uint32_t count, ct_bundle_entry each,
                            void *user) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (bundle.length - at < 2) {
            return ct_fail(CT_ERR_FORMAT, "entry bundle ends before entry %u of %u", i, count);
        }
        size_t length = (size_t)bundle.data[at] << 8 | bundle.data[at + 1];
        at += 2;
        if (bundle.length - at < length) {
            return ct_fail(CT_ERR_FORMAT, "entry bundle ends inside entry %u of %u", i, count);
        }
        CT_TRY(each(user, (struct ct_bytes){bundle.data + at, length}));
        at += length;
    }
    if (at != bundle.length) {
        return ct_fail(CT_ERR_FORMAT, "entry bundle goes on after its %u entries", count);
    }
    return CT_OK;
}
