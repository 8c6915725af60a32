#include "seeds.h"

#include "run.h"

#include <cotrain/buf.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEEDS_BYTES_MAX 512u

enum ct_err ct_seeds_load(const char *dir, struct ct_seeds *out) {
    memset(out, 0, sizeof *out);
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_SEED, path));
    struct ct_buf buf;
    ct_buf_init(&buf, SEEDS_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &buf);
    if (err == CT_OK) {
        err = ct_buf_append(&buf, "", 1);
    }
    const char *at = err == CT_OK ? (const char *)buf.data : "";
    for (int i = 0; i < 2 && *at != '\0' && err == CT_OK; i++) {
        char hex[CT_HEX_BYTES];
        struct ct_hash seed;
        int end = 0;
        if (sscanf(at, "%" SCNu32 " %64[0-9a-f]\n%n", &out->rounds[i], hex, &end) != 2 ||
            end == 0 || ct_hash_parse(hex, &seed) != CT_OK) {
            err = ct_fail(CT_ERR_FORMAT, "%s holds no seeds", path);
        } else {
            memcpy(out->seeds[i], seed.bytes, sizeof seed.bytes);
            at += end;
        }
    }
    ct_buf_deinit(&buf);
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

static enum ct_err save(const char *dir, const struct ct_seeds *seeds) {
    char path[PATH_MAX], text[SEEDS_BYTES_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_SEED, path));
    size_t length = 0;
    for (int i = 0; i < 2 && seeds->rounds[i] != 0; i++) {
        struct ct_hash seed;
        char hex[CT_HEX_BYTES];
        memcpy(seed.bytes, seeds->seeds[i], sizeof seed.bytes);
        ct_hash_hex(&seed, hex);
        length += (size_t)snprintf(text + length, sizeof text - length, "%" PRIu32 " %s\n",
                                   seeds->rounds[i], hex);
    }
    return ct_file_replace_private(path, (struct ct_bytes){(const uint8_t *)text, length});
}

enum ct_err ct_seeds_draw(const char *dir, struct ct_seeds *seeds, uint32_t round,
                          struct ct_hash *out_hash) {
    /* One that was drawn for this round before a stop was never told: it gives way, and not the
     * round before, whose reveal may still be on its way to the disk. */
    const int before = seeds->rounds[0] == round ? 1 : 0;
    struct ct_seeds next = {{round, seeds->rounds[before]}, {{0}}};
    ct_random(next.seeds[0], sizeof next.seeds[0]);
    memcpy(next.seeds[1], seeds->seeds[before], sizeof next.seeds[1]);
    CT_TRY(save(dir, &next));
    *seeds = next;
    *out_hash = ct_sha256((struct ct_bytes){next.seeds[0], sizeof next.seeds[0]});
    return CT_OK;
}

enum ct_err ct_seeds_find(const struct ct_seeds *seeds, uint32_t round, const struct ct_hash *hash,
                          uint8_t out[32]) {
    for (int i = 0; i < 2; i++) {
        struct ct_hash made = ct_sha256((struct ct_bytes){seeds->seeds[i], 32});
        if (seeds->rounds[i] == round && ct_hash_equal(&made, hash)) {
            memcpy(out, seeds->seeds[i], 32);
            return CT_OK;
        }
    }
    return ct_fail(CT_ERR_NOT_FOUND,
                   "the seed of round %" PRIu32 " is lost: " CT_RUN_SEED " does not have it",
                   round);
}
