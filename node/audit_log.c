#include "audit_log.h"

#include "audit_copy.h"
#include "temporary.h"

#include <cotrain/assert.h>
#include <cotrain/run_dir.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCAN_BYTES  ((size_t)1 << 20)
#define TILE_LEVELS 8u /* of a tree are in a bundle's tile */

void ct_audit_log_file(const struct ct_audit_log *log, uint64_t index, char out[160]) {
    const uint64_t bundle = index / CT_TILE_WIDTH;
    const uint64_t rest = log->checkpoint.size - bundle * CT_TILE_WIDTH;
    char path[CT_TILE_PATH_MAX];
    ct_tile_path(-1, bundle, rest < CT_TILE_WIDTH ? (uint32_t)rest : CT_TILE_WIDTH, path);
    snprintf(out, 160, CT_RUN_LEDGER "/%s", path);
}

void ct_audit_log_deinit(struct ct_audit_log *log) {
    if (log->fd >= 0) {
        close(log->fd);
    }
    ct_buf_deinit(&log->note);
    free(log->offsets);
    free(log->subtrees);
    memset(log, 0, sizeof *log);
    log->fd = -1;
}

struct ct_bytes ct_audit_bundle_entry(const struct ct_audit_bundle *bundle, uint32_t at) {
    CT_ASSERT(at < bundle->count);
    const uint32_t begin = bundle->at[at] + 2;
    return (struct ct_bytes){bundle->bytes.data + begin, bundle->at[at + 1] - begin};
}

enum ct_err ct_audit_log_bundle(const struct ct_audit_log *log, uint64_t index,
                                struct ct_audit_bundle *out) {
    const uint64_t begin = log->offsets[index];
    const size_t length = (size_t)(log->offsets[index + 1] - begin);
    const uint64_t left = log->known - index * CT_TILE_WIDTH;
    out->first = index * CT_TILE_WIDTH;
    out->count = left < CT_TILE_WIDTH ? (uint32_t)left : CT_TILE_WIDTH;
    ct_buf_clear(&out->bytes);
    CT_TRY(ct_buf_reserve(&out->bytes, length));
    CT_TRY(ct_temporary_read(log->fd, out->bytes.data, length, begin));
    out->bytes.length = length;
    uint32_t at = 0;
    for (uint32_t i = 0; i < out->count; i++) {
        /* Somebody may write to the file meanwhile: lengths are judged anew at every reading. */
        out->at[i] = at;
        at += at + 2 <= length ? 2u + ((uint32_t)out->bytes.data[at] << 8 | out->bytes.data[at + 1])
                               : 2u;
        if (at > length) {
            return ct_fail(CT_ERR_FORMAT, "the entries changed while they were read");
        }
    }
    out->at[out->count] = at;
    return at == length ? CT_OK
                        : ct_fail(CT_ERR_FORMAT, "the entries changed while they were read");
}

enum ct_err ct_audit_cursor_next(struct ct_audit_cursor *cursor, struct ct_bytes *out) {
    CT_ASSERT(cursor->next < cursor->log->known);
    const uint32_t at = (uint32_t)(cursor->next % CT_TILE_WIDTH);
    if (!cursor->loaded || at == 0) {
        cursor->bundle.bytes.maximum = CT_BUNDLE_BYTES_MAX;
        CT_TRY(ct_audit_log_bundle(cursor->log, cursor->next / CT_TILE_WIDTH, &cursor->bundle));
        cursor->loaded = true;
    }
    *out = ct_audit_bundle_entry(&cursor->bundle, at);
    cursor->next++;
    return CT_OK;
}

void ct_audit_cursor_deinit(struct ct_audit_cursor *cursor) {
    ct_buf_deinit(&cursor->bundle.bytes);
}

enum ct_err ct_audit_log_scan(struct ct_audit_log *log) {
    uint8_t *window = malloc(SCAN_BYTES);
    const off_t end = lseek(log->fd, 0, SEEK_END);
    uint64_t capacity = 0, at = 0, window_at = 0, window_end = 0;
    enum ct_err err = CT_OK;
    if (window == NULL || end < 0) {
        free(window);
        return ct_fail(CT_ERR_IO, "the entries cannot be read: %s", strerror(errno));
    }
    log->file_bytes = (uint64_t)end;
    for (;;) {
        if (log->known % CT_TILE_WIDTH == 0 && log->known / CT_TILE_WIDTH + 2 > capacity) {
            capacity = capacity == 0 ? 64 : 2 * capacity;
            uint64_t *grown = realloc(log->offsets, capacity * sizeof *grown);
            if (grown == NULL) {
                err = ct_fail(CT_ERR_MEMORY, "no memory for %" PRIu64 " entries", log->known);
                break;
            }
            log->offsets = grown;
        }
        if (log->known % CT_TILE_WIDTH == 0) {
            log->offsets[log->known / CT_TILE_WIDTH] = at;
        }
        if (log->file_bytes - at < 2) {
            break;
        }
        if (at + 2 > window_end) {
            window_at = at;
            window_end = log->file_bytes - at < SCAN_BYTES ? log->file_bytes : at + SCAN_BYTES;
            err = ct_temporary_read(log->fd, window, (size_t)(window_end - at), at);
            if (err != CT_OK) {
                break;
            }
        }
        const uint8_t *prefix = window + (at - window_at);
        const uint64_t length = 2u + ((uint64_t)prefix[0] << 8 | prefix[1]);
        if (length > log->file_bytes - at || length < 2 + CT_AUDIT_ENTRY_MIN) {
            break;
        }
        at += length;
        log->known++;
    }
    if (err == CT_OK) {
        log->offsets[(log->known + CT_TILE_WIDTH - 1) / CT_TILE_WIDTH] = at;
    }
    free(window);
    return err;
}

struct hashing {
    struct ct_audit_log *log;
    atomic_uint failed; /* an enum ct_err */
};

static void hash_bundle(void *user, size_t index) {
    struct hashing *hashing = user;
    struct ct_audit_bundle bundle = {0};
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    const enum ct_err err = ct_audit_log_bundle(hashing->log, index, &bundle);
    if (err == CT_OK) {
        struct ct_frontier frontier = {0};
        for (uint32_t i = 0; i < bundle.count; i++) {
            const struct ct_hash leaf = ct_leaf_hash(ct_audit_bundle_entry(&bundle, i));
            ct_frontier_append(&frontier, &leaf);
        }
        hashing->log->subtrees[index] = ct_frontier_root(&frontier);
    } else {
        atomic_store(&hashing->failed, (unsigned)err);
    }
    ct_buf_deinit(&bundle.bytes);
}

static enum ct_err index_entries(struct ct_audit_log *log, struct ct_pool *pool) {
    CT_TRY(ct_audit_log_scan(log));
    const size_t full = (size_t)(log->known / CT_TILE_WIDTH);
    log->subtrees = malloc((full + 1) * sizeof *log->subtrees);
    if (log->subtrees == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %" PRIu64 " entries", log->known);
    }
    struct hashing hashing = {.log = log};
    ct_pool_run(pool, full, hash_bundle, &hashing);
    const enum ct_err err = (enum ct_err)atomic_load(&hashing.failed);
    return err == CT_OK ? CT_OK : ct_fail(err, "the entries cannot be read");
}

/* Leaves of the bundle in which `size` ends, unless they are there. */
static enum ct_err load_leaves(struct ct_audit_roots *roots, uint64_t index) {
    if (roots->loaded && roots->bundle == index) {
        return CT_OK;
    }
    struct ct_audit_bundle bundle = {0};
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    const enum ct_err err = ct_audit_log_bundle(roots->log, index, &bundle);
    for (uint32_t i = 0; err == CT_OK && i < bundle.count; i++) {
        roots->leaves[i] = ct_leaf_hash(ct_audit_bundle_entry(&bundle, i));
    }
    roots->loaded = err == CT_OK;
    roots->bundle = index;
    ct_buf_deinit(&bundle.bytes);
    return err;
}

enum ct_err ct_audit_roots_at(struct ct_audit_roots *roots, uint64_t size, struct ct_hash *out) {
    const uint64_t bundles = size / CT_TILE_WIDTH;
    const uint32_t rest = (uint32_t)(size % CT_TILE_WIDTH);
    CT_ASSERT(size <= roots->log->known && roots->full.size <= bundles);
    while (roots->full.size < bundles) {
        ct_frontier_append(&roots->full, &roots->log->subtrees[roots->full.size]);
    }
    struct ct_frontier frontier = {0};
    if (rest > 0) {
        CT_TRY(load_leaves(roots, bundles));
    }
    for (uint32_t i = 0; i < rest; i++) {
        ct_frontier_append(&frontier, &roots->leaves[i]);
    }
    /* The full subtrees of the whole: those of the bundles, then those of the rest. */
    struct ct_frontier whole = roots->full;
    CT_ASSERT(whole.count + frontier.count <= 64);
    memcpy(whole.roots + whole.count, frontier.roots, frontier.count * sizeof frontier.roots[0]);
    whole.count += frontier.count;
    *out = ct_frontier_root(&whole);
    return CT_OK;
}

enum ct_err ct_audit_roots_hash(void *user, uint32_t level, uint64_t index, struct ct_hash *out) {
    struct ct_audit_roots *roots = user;
    const struct ct_audit_log *log = roots->log;
    CT_ASSERT(level < 64);
    if (index >= log->known >> level) {
        return ct_fail(CT_ERR_NOT_FOUND, "there are only %" PRIu64 " entries", log->known);
    }
    struct ct_frontier frontier = {0};
    if (level >= TILE_LEVELS) {
        const uint64_t count = 1ull << (level - TILE_LEVELS);
        for (uint64_t i = 0; i < count; i++) {
            ct_frontier_append(&frontier, &log->subtrees[index * count + i]);
        }
    } else {
        const uint64_t first = index << level;
        CT_TRY(load_leaves(roots, first / CT_TILE_WIDTH));
        for (uint64_t i = 0; i < 1ull << level; i++) {
            ct_frontier_append(&frontier, &roots->leaves[first % CT_TILE_WIDTH + i]);
        }
    }
    *out = ct_frontier_root(&frontier);
    return CT_OK;
}

enum ct_err ct_audit_log_kept(struct ct_pool *pool, int fd, struct ct_audit_log *out) {
    memset(out, 0, sizeof *out);
    out->fd = fd;
    return index_entries(out, pool);
}

/* Entry 0 names the keys; the checkpoint must verify under them and cover these very entries. */
static enum ct_err authenticate(struct ct_audit_log *log) {
    if (log->known == 0) {
        return ct_fail(CT_ERR_FORMAT, "no entries");
    }
    struct ct_audit_bundle bundle = {0};
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    enum ct_err err = ct_audit_log_bundle(log, 0, &bundle);
    if (err == CT_OK) {
        err = ct_run_opening(ct_audit_bundle_entry(&bundle, 0), &log->opened, &log->run_id);
    }
    ct_buf_deinit(&bundle.bytes);
    CT_TRY(err);
    CT_TRY(ct_checkpoint_open(ct_buf_bytes(&log->note), log->opened.origin, &log->opened.log_key,
                              &log->checkpoint));
    if (log->checkpoint.size == 0 || log->known < log->checkpoint.size) {
        return ct_fail(CT_ERR_FORMAT, "%" PRIu64 " entries where the checkpoint covers %" PRIu64,
                       log->known, log->checkpoint.size);
    }
    struct ct_audit_roots roots = {.log = log};
    struct ct_hash root;
    CT_TRY(ct_audit_roots_at(&roots, log->checkpoint.size, &root));
    if (!ct_hash_equal(&root, &log->checkpoint.root)) {
        return ct_fail(CT_ERR_DIGEST, "the entries do not have the root that the checkpoint signs");
    }
    return CT_OK;
}

/* Takes over `fd`; on failure only the note is left to `log`. */
static enum ct_err take_candidate(struct ct_audit_log *log, struct ct_pool *pool, int fd) {
    log->fd = fd;
    enum ct_err err = index_entries(log, pool);
    if (err == CT_OK) {
        err = authenticate(log);
    }
    if (err != CT_OK) {
        const struct ct_buf note = log->note;
        log->note = (struct ct_buf){0};
        ct_audit_log_deinit(log);
        log->note = note;
    }
    return err;
}

static enum ct_err load_sequential(struct ct_source *source, struct ct_pool *pool,
                                   struct ct_audit_log *out) {
    char path[4200];
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER "/entries", ct_source_directory(source));
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO, "cannot open %s: %s", path,
                       strerror(errno));
    }
    return take_candidate(out, pool, fd);
}

/* A copy of the bundles that the note implies. One that was kept from an earlier time and does not
 * fit is fetched once more from the start. */
static enum ct_err load_bundles(struct ct_source *source, struct ct_pool *pool, const char *dir,
                                struct ct_audit_report *report, struct ct_audit_log *out,
                                bool *out_loaded) {
    struct ct_checkpoint claimed;
    if (ct_checkpoint_parse(ct_buf_bytes(&out->note), &claimed) != CT_OK) {
        ct_audit_find(report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoint", "%s",
                      ct_err_detail());
        return CT_OK;
    }
    for (bool fresh = false;; fresh = true) {
        int fd = -1;
        uint64_t kept = 0;
        bool whole = false;
        CT_TRY(ct_audit_copy(source, pool, dir, fresh, claimed.size, report, &fd, &kept, &whole));
        if (!whole) {
            close(fd);
            return CT_OK;
        }
        const enum ct_err err = take_candidate(out, pool, fd);
        *out_loaded = err == CT_OK;
        if (err == CT_OK || err == CT_ERR_MEMORY || err == CT_ERR_IO) {
            return err;
        }
        if (kept == 0) {
            ct_audit_find(report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoint",
                          "it does not hold for the entries: %s", ct_err_detail());
            return CT_OK;
        }
    }
}

/* Entries behind the checkpoint count only if the coordinator signed them. */
static enum ct_err drop_unsigned_tail(struct ct_audit_log *log, struct ct_audit_report *report) {
    struct ct_audit_bundle bundle = {.first = UINT64_MAX};
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (uint64_t i = log->checkpoint.size; i < log->known && err == CT_OK; i++) {
        if (bundle.first != i / CT_TILE_WIDTH * CT_TILE_WIDTH) {
            err = ct_audit_log_bundle(log, i / CT_TILE_WIDTH, &bundle);
        }
        struct ct_envelope envelope;
        enum ct_err judged = err;
        if (err == CT_OK) {
            judged = ct_envelope_open(ct_audit_bundle_entry(&bundle, (uint32_t)(i - bundle.first)),
                                      &envelope);
        }
        if (err == CT_OK && judged == CT_OK) {
            judged = ct_envelope_verify(&envelope, &log->opened.identity_key);
        }
        if (err == CT_OK && judged != CT_OK) {
            ct_audit_find(report, CT_FINDING_BROKEN, (int64_t)i, CT_RUN_LEDGER "/entries",
                          "an entry behind the checkpoint: %s", ct_err_detail());
            log->offsets[i / CT_TILE_WIDTH + (i % CT_TILE_WIDTH != 0)] =
                log->offsets[i / CT_TILE_WIDTH] + bundle.at[i - bundle.first];
            log->known = i;
            ct_buf_deinit(&bundle.bytes);
            return CT_OK;
        }
    }
    ct_buf_deinit(&bundle.bytes);
    const uint64_t end = log->offsets[(log->known + CT_TILE_WIDTH - 1) / CT_TILE_WIDTH];
    if (err == CT_OK && end != log->file_bytes) {
        ct_audit_find(report, CT_FINDING_BROKEN, (int64_t)log->known, CT_RUN_LEDGER "/entries",
                      "%" PRIu64 " bytes at the end are no entry", log->file_bytes - end);
    }
    return err;
}

enum ct_err ct_audit_log_load(struct ct_source *source, struct ct_pool *pool, const char *dir,
                              struct ct_audit_report *report, struct ct_audit_log *out,
                              bool *out_loaded) {
    memset(out, 0, sizeof *out);
    out->fd = -1;
    *out_loaded = false;
    enum ct_err err =
        ct_source_read(source, CT_RUN_LEDGER "/checkpoint", CT_CHECKPOINT_BYTES_MAX, &out->note);
    if (err != CT_OK) {
        ct_audit_find(report, CT_FINDING_UNAVAILABLE, -1, CT_RUN_LEDGER "/checkpoint", "%s",
                      ct_err_detail());
        return CT_OK;
    }
    /* In a directory the sequential file has the entries too: the candidate whose entry 0 verifies
     * the checkpoint, and whose root it signs, is the truth that all files are then held to. */
    enum ct_err sequential = CT_OK;
    char fault[400] = "";
    if (ct_source_directory(source) != NULL) {
        sequential = load_sequential(source, pool, out);
        *out_loaded = sequential == CT_OK;
        snprintf(fault, sizeof fault, "%s", sequential == CT_OK ? "" : ct_err_detail());
        err = *out_loaded                   ? drop_unsigned_tail(out, report)
              : sequential == CT_ERR_MEMORY ? sequential
                                            : CT_OK;
    }
    if (!*out_loaded && err == CT_OK) {
        err = load_bundles(source, pool, dir, report, out, out_loaded);
        /* If neither holds, the checkpoint that both are measured by is what is broken. */
        if (*out_loaded && fault[0] != '\0') {
            ct_audit_find(
                report, sequential == CT_ERR_NOT_FOUND ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN,
                -1, CT_RUN_LEDGER "/entries", "%s", fault);
        }
    }
    if (!*out_loaded || err != CT_OK) {
        ct_audit_log_deinit(out);
        *out_loaded = false;
    }
    return err;
}
