#include "audit_log.h"

#include <cotrain/limits.h>
#include <cotrain/run_dir.h>

#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TILE_WIDTH     256u
#define TILE_LEVEL_MAX 7u /* 256^8 leaves do not fit 64 bits */

struct walk {
    const char *directory;
    const struct ct_audit_log *log;
    const struct ct_hash *named;
    size_t named_count;
    struct ct_audit_report *report;
};

static const char *const private_names[] = {
    CT_RUN_IDENTITY, CT_RUN_LOG_KEY, CT_RUN_CACHE,    CT_RUN_INCOMING, CT_RUN_SEED,
    CT_RUN_PORTS,    CT_RUN_LOCK,    CT_RUN_EVIDENCE, CT_RUN_LOG,
};

static bool is_private(const char *name) {
    for (size_t i = 0; i < sizeof private_names / sizeof private_names[0]; i++) {
        const size_t length = strlen(private_names[i]);
        if (strncmp(name, private_names[i], length) == 0 &&
            (name[length] == '\0' || name[length] == '/')) {
            return true;
        }
    }
    /* What an interrupted durable write left: never renamed into place, so part of nothing. */
    static const char unfinished[] = CT_RUN_BLOBS "/" CT_BLOB_TEMPORARY;
    const size_t length = strlen(name);
    return strncmp(name, unfinished, sizeof unfinished - 1) == 0 ||
           (length > 4 && strcmp(name + length - 4, ".tmp") == 0);
}

static void note_private(struct ct_audit_report *report, const char *name) {
    char(*grown)[160] = realloc(report->private_files, (report->private_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return;
    }
    report->private_files = grown;
    snprintf(grown[report->private_count++], sizeof *grown, "%s", name);
}

static bool read_name(const struct walk *walk, const char *name, size_t maximum,
                      struct ct_buf *out) {
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", walk->directory, name);
    ct_buf_init(out, maximum);
    if (ct_file_read(path, out) == CT_OK) {
        return true;
    }
    ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "%s", ct_err_detail());
    ct_buf_deinit(out);
    return false;
}

static struct ct_hash subtree(const struct ct_audit_log *log, uint64_t begin, uint64_t count) {
    struct ct_frontier frontier = {0};
    for (uint64_t i = begin; i < begin + count; i++) {
        ct_frontier_append(&frontier, &log->leaves[i]);
    }
    return ct_frontier_root(&frontier);
}

/* "x001/x234/067" or "067.p/12", as tlog-tiles writes a tile's index and width. */
static bool parse_tile_index(const char *text, uint64_t *out_index, uint32_t *out_width) {
    uint64_t index = 0;
    *out_width = TILE_WIDTH;
    for (int group = 0; group < 6; group++) {
        const bool more = *text == 'x';
        text += more;
        for (int digit = 0; digit < 3; digit++, text++) {
            if (*text < '0' || *text > '9') {
                return false;
            }
            index = index * 10 + (uint64_t)(*text - '0');
        }
        if (more && *text++ != '/') {
            return false;
        }
        if (!more) {
            *out_index = index;
            unsigned width = 0;
            int used = 0;
            if (*text == '\0') {
                return true;
            }
            if (sscanf(text, ".p/%3u%n", &width, &used) != 1 || text[used] != '\0') {
                return false;
            }
            *out_width = width;
            return width >= 1 && width < TILE_WIDTH;
        }
    }
    return false;
}

/* The bytes that a tile or bundle must have; false if the log has no such tile. */
static bool expect_tile(const struct ct_audit_log *log, int level, uint64_t index, uint32_t width,
                        struct ct_buf *out) {
    uint64_t span = 1;
    for (int l = 0; l < level; l++) {
        span *= TILE_WIDTH;
    }
    const uint64_t units = log->known / span;
    const uint64_t begin = index * TILE_WIDTH;
    if (begin + width > units) {
        return false;
    }
    if (level < 0) {
        const uint64_t from = log->offsets[begin];
        return ct_buf_append(out, log->data.data + from, log->offsets[begin + width] - from) ==
               CT_OK;
    }
    for (uint32_t i = 0; i < width; i++) {
        const struct ct_hash hash = subtree(log, (begin + i) * span, span);
        if (ct_buf_append(out, hash.bytes, sizeof hash.bytes) != CT_OK) {
            return false;
        }
    }
    return true;
}

static void check_tile(const struct walk *walk, const char *name) {
    const char *rest = name + strlen(CT_RUN_LEDGER "/tile/");
    int level = -1;
    if (strncmp(rest, "entries/", 8) == 0) {
        rest += 8;
    } else if (rest[0] >= '0' && rest[0] <= '0' + (int)TILE_LEVEL_MAX && rest[1] == '/') {
        level = rest[0] - '0';
        rest += 2;
    } else {
        rest = "";
    }
    uint64_t index;
    uint32_t width;
    if (!parse_tile_index(rest, &index, &width)) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "no name of a tile");
        return;
    }
    struct ct_buf expected;
    ct_buf_init(&expected, TILE_WIDTH * (CT_ENTRY_BYTES_MAX + 2u));
    struct ct_buf bytes;
    if (!expect_tile(walk->log, level, index, width, &expected)) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "the log has no such tile");
    } else if (read_name(walk, name, expected.maximum, &bytes)) {
        if (bytes.length != expected.length ||
            memcmp(bytes.data, expected.data, bytes.length) != 0) {
            ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name,
                          "it does not hold what the log's entries give");
        }
        ct_buf_deinit(&bytes);
    }
    ct_buf_deinit(&expected);
}

static void check_kept_checkpoint(const struct walk *walk, const char *name) {
    struct ct_buf note;
    if (!read_name(walk, name, CT_CHECKPOINT_BYTES_MAX, &note)) {
        return;
    }
    struct ct_checkpoint checkpoint;
    char expected[64];
    if (ct_checkpoint_open(ct_buf_bytes(&note), walk->log->opened.origin,
                           &walk->log->opened.log_key, &checkpoint) != CT_OK) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "%s", ct_err_detail());
        goto out;
    }
    snprintf(expected, sizeof expected, CT_RUN_LEDGER "/checkpoints/%" PRIu64, checkpoint.size);
    bool named = strcmp(expected, name) == 0 || strcmp(name, CT_RUN_LEDGER "/witnessed") == 0;
    if (!named || checkpoint.size > walk->log->known) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name,
                      "it is signed for %" PRIu64 " entries", checkpoint.size);
        goto out;
    }
    const struct ct_hash root = subtree(walk->log, 0, checkpoint.size);
    if (!ct_hash_equal(&root, &checkpoint.root)) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name,
                      "it signs another history than the newest checkpoint: keep this file, it "
                      "proves a fork");
    }
out:
    ct_buf_deinit(&note);
}

/* The sequential file holds the same bytes as the entries that were authenticated; where it was
 * their source, they are equal by construction. */
static void check_entries(const struct walk *walk, const char *name) {
    struct ct_buf bytes;
    if (!read_name(walk, name, SIZE_MAX, &bytes)) {
        return;
    }
    const uint64_t covered = walk->log->offsets[walk->log->checkpoint.size];
    if (bytes.length < covered || memcmp(bytes.data, walk->log->data.data, covered) != 0) {
        uint64_t entry = 0;
        while (entry < walk->log->checkpoint.size &&
               walk->log->offsets[entry + 1] <= bytes.length &&
               memcmp(bytes.data, walk->log->data.data, walk->log->offsets[entry + 1]) == 0) {
            entry++;
        }
        ct_audit_find(walk->report, CT_FINDING_BROKEN, (int64_t)entry, name,
                      "from here on it differs from the signed log");
    }
    ct_buf_deinit(&bytes);
}

static int compare_hashes(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct ct_hash));
}

static bool digest_file(const char *path, struct ct_hash *out) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    static const size_t block_bytes = 1u << 20;
    uint8_t *block = malloc(block_bytes);
    ssize_t got = -1;
    while (block != NULL && (got = read(file, block, block_bytes)) > 0) {
        ct_sha256_update(&sha, block, (size_t)got);
    }
    *out = ct_sha256_final(&sha);
    free(block);
    close(file);
    return got == 0;
}

static void check_blob(const struct walk *walk, const char *path, const char *name) {
    const char *rest = name + strlen(CT_RUN_BLOBS "/");
    char hex[CT_HEX_BYTES];
    struct ct_hash expected;
    if (strlen(rest) != 65 || rest[2] != '/') {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "no name of a blob");
        return;
    }
    snprintf(hex, sizeof hex, "%.2s%.62s", rest, rest + 3);
    struct ct_hash digest;
    if (ct_hash_parse(hex, &expected) != CT_OK) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "no name of a blob");
    } else if (!digest_file(path, &digest)) {
        ct_audit_find(walk->report, CT_FINDING_UNAVAILABLE, -1, name, "it cannot be read");
    } else if (!ct_hash_equal(&digest, &expected)) {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name,
                      "its content does not have the digest that is its name");
    } else if (bsearch(&expected, walk->named, walk->named_count, sizeof expected,
                       compare_hashes) == NULL) {
        walk->report->spare_count++;
    }
}

static void check_file(const struct walk *walk, const char *path, const char *name) {
    static const char tiles[] = CT_RUN_LEDGER "/tile/";
    static const char kept[] = CT_RUN_LEDGER "/checkpoints/";
    static const char blobs[] = CT_RUN_BLOBS "/";
    if (is_private(name)) {
        note_private(walk->report, name);
    } else if (strcmp(name, CT_RUN_LEDGER "/checkpoint") == 0) {
        /* authenticated when the log was loaded */
    } else if (strcmp(name, CT_RUN_LEDGER "/entries") == 0) {
        check_entries(walk, name);
    } else if (strncmp(name, tiles, sizeof tiles - 1) == 0) {
        check_tile(walk, name);
    } else if (strncmp(name, kept, sizeof kept - 1) == 0 ||
               strcmp(name, CT_RUN_LEDGER "/witnessed") == 0) {
        check_kept_checkpoint(walk, name);
    } else if (strncmp(name, blobs, sizeof blobs - 1) == 0) {
        check_blob(walk, path, name);
    } else {
        ct_audit_find(walk->report, CT_FINDING_BROKEN, -1, name, "no file of a run directory");
    }
}

void ct_audit_files(const char *directory, const struct ct_audit_log *log,
                    const struct ct_hash *named, size_t named_count,
                    struct ct_audit_report *report) {
    struct walk walk = {directory, log, named, named_count, report};
    char *roots[] = {strdup(directory), NULL};
    FTS *fts = roots[0] == NULL ? NULL : fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (fts == NULL) {
        ct_audit_find(report, CT_FINDING_UNAVAILABLE, -1, "", "%s cannot be listed", directory);
        free(roots[0]);
        return;
    }
    const size_t prefix = strlen(directory);
    for (FTSENT *item = fts_read(fts); item != NULL; item = fts_read(fts)) {
        const char *name = item->fts_path + prefix;
        name += *name == '/';
        switch (item->fts_info) {
        case FTS_D:
        case FTS_DP:
            break;
        case FTS_F:
            check_file(&walk, item->fts_path, name);
            break;
        default:
            ct_audit_find(report, CT_FINDING_BROKEN, -1, name, "neither a file nor a directory");
        }
    }
    fts_close(fts);
    free(roots[0]);
}
