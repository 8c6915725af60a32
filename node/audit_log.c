#include "audit_log.h"

#include <cotrain/limits.h>
#include <cotrain/run_dir.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUNDLE_ENTRIES   256u
#define BUNDLE_BYTES_MAX (BUNDLE_ENTRIES * (CT_ENTRY_BYTES_MAX + 2u))
#define LOG_BYTES_MAX    (4ull << 30)

struct ct_bytes ct_audit_log_entry(const struct ct_audit_log *log, uint64_t index) {
    const uint64_t begin = log->offsets[index] + 2;
    return (struct ct_bytes){log->data.data + begin, (size_t)(log->offsets[index + 1] - begin)};
}

void ct_audit_log_file(const struct ct_audit_log *log, uint64_t index, char out[160]) {
    const uint64_t bundle = index / BUNDLE_ENTRIES;
    const uint64_t rest = log->checkpoint.size - bundle * BUNDLE_ENTRIES;
    char path[CT_TILE_PATH_MAX];
    ct_tile_path(-1, bundle, rest < BUNDLE_ENTRIES ? (uint32_t)rest : BUNDLE_ENTRIES, path);
    snprintf(out, 160, CT_RUN_LEDGER "/%s", path);
}

void ct_audit_log_deinit(struct ct_audit_log *log) {
    ct_buf_deinit(&log->data);
    free(log->offsets);
    free(log->leaves);
    memset(log, 0, sizeof *log);
}

/* The size line of a note whose signature cannot be judged yet. */
static bool peek_size(struct ct_bytes note, uint64_t *out) {
    const uint8_t *line = memchr(note.data, '\n', note.length);
    if (line == NULL) {
        return false;
    }
    uint64_t size = 0;
    size_t at = (size_t)(line - note.data) + 1;
    const size_t first = at;
    for (; at < note.length && note.data[at] >= '0' && note.data[at] <= '9'; at++) {
        if (at - first >= 15) {
            return false;
        }
        size = size * 10 + (uint64_t)(note.data[at] - '0');
    }
    *out = size;
    return at > first && at < note.length && note.data[at] == '\n';
}

/* Indexes the entries in log->data: offsets and leaf hashes of all whole ones. */
static enum ct_err index_entries(struct ct_audit_log *log) {
    const struct ct_buf *data = &log->data;
    uint64_t count = 0;
    size_t at = 0;
    while (data->length - at >= 2) {
        const size_t length = (size_t)(data->data[at] << 8 | data->data[at + 1]);
        if (data->length - at - 2 < length) {
            break;
        }
        at += 2 + length;
        count++;
    }
    log->offsets = malloc((count + 1) * sizeof *log->offsets);
    log->leaves = malloc((count + 1) * sizeof *log->leaves);
    if (log->offsets == NULL || log->leaves == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %" PRIu64 " entries", count);
    }
    log->known = count;
    at = 0;
    for (uint64_t i = 0; i < count; i++) {
        log->offsets[i] = at;
        at += 2 + (size_t)(data->data[at] << 8 | data->data[at + 1]);
        log->offsets[i + 1] = at;
        log->leaves[i] = ct_leaf_hash(ct_audit_log_entry(log, i));
    }
    return CT_OK;
}

static struct ct_hash root_of(const struct ct_audit_log *log, uint64_t begin, uint64_t end) {
    struct ct_frontier frontier = {0};
    for (uint64_t i = begin; i < end; i++) {
        ct_frontier_append(&frontier, &log->leaves[i]);
    }
    return ct_frontier_root(&frontier);
}

/* Entry 0 names the keys; the checkpoint must verify under them and cover these very entries. */
static enum ct_err authenticate(struct ct_audit_log *log, struct ct_bytes note) {
    if (log->known == 0) {
        return ct_fail(CT_ERR_FORMAT, "no entries");
    }
    struct ct_envelope envelope;
    struct ct_entry entry;
    CT_TRY(ct_envelope_open(ct_audit_log_entry(log, 0), &envelope));
    CT_TRY(ct_entry_decode(envelope.payload, &entry));
    if (entry.kind != CT_ENTRY_RUN_OPENED) {
        return ct_fail(CT_ERR_RULE, "entry 0 does not open a run");
    }
    log->opened = entry.body.run_opened;
    CT_TRY(ct_checkpoint_open(note, log->opened.origin, &log->opened.log_key, &log->checkpoint));
    if (log->checkpoint.size == 0 || log->known < log->checkpoint.size) {
        return ct_fail(CT_ERR_FORMAT, "%" PRIu64 " entries where the checkpoint covers %" PRIu64,
                       log->known, log->checkpoint.size);
    }
    const struct ct_hash root = root_of(log, 0, log->checkpoint.size);
    if (!ct_hash_equal(&root, &log->checkpoint.root)) {
        return ct_fail(CT_ERR_DIGEST, "the entries do not have the root that the checkpoint signs");
    }
    return CT_OK;
}

static enum ct_err count_entry(void *user, struct ct_bytes entry) {
    (void)user;
    (void)entry;
    return CT_OK;
}

/* Entries from the bundles that a checkpoint of `size` implies. */
static enum ct_err read_bundles(struct ct_source *source, uint64_t size,
                                struct ct_audit_report *report, struct ct_buf *out) {
    enum ct_err result = CT_OK;
    for (uint64_t begin = 0; begin < size; begin += BUNDLE_ENTRIES) {
        const uint64_t rest = size - begin;
        const uint32_t width = rest < BUNDLE_ENTRIES ? (uint32_t)rest : BUNDLE_ENTRIES;
        char path[CT_TILE_PATH_MAX];
        ct_tile_path(-1, begin / BUNDLE_ENTRIES, width, path);
        char name[160];
        snprintf(name, sizeof name, CT_RUN_LEDGER "/%s", path);
        struct ct_buf bundle;
        enum ct_err err = ct_source_read(source, name, BUNDLE_BYTES_MAX, &bundle);
        if (err == CT_OK) {
            err = ct_bundle_parse(ct_buf_bytes(&bundle), width, count_entry, NULL);
            if (err == CT_OK) {
                err = ct_buf_append(out, bundle.data, bundle.length);
            }
            ct_buf_deinit(&bundle);
        }
        if (err != CT_OK) {
            const bool missing = err == CT_ERR_NOT_FOUND || err == CT_ERR_NETWORK;
            ct_audit_find(report, missing ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN,
                          (int64_t)begin, name, "%s", ct_err_detail());
            result = err;
        }
    }
    return result;
}

/* Takes over `data`; on failure `log` owns nothing. */
static bool take_candidate(struct ct_audit_log *log, struct ct_buf *data,
                           const struct ct_buf *note) {
    log->data = *data;
    if (index_entries(log) == CT_OK && authenticate(log, ct_buf_bytes(note)) == CT_OK) {
        return true;
    }
    ct_audit_log_deinit(log);
    return false;
}

static bool load_sequential(struct ct_source *source, const struct ct_buf *note,
                            struct ct_audit_log *out, bool *absent) {
    char path[4200];
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER "/entries", ct_source_directory(source));
    struct ct_buf data;
    ct_buf_init(&data, LOG_BYTES_MAX);
    const enum ct_err err = ct_file_read(path, &data);
    *absent = err == CT_ERR_NOT_FOUND;
    if (err != CT_OK) {
        ct_buf_deinit(&data);
        return false;
    }
    return take_candidate(out, &data, note);
}

static bool load_bundles(struct ct_source *source, const struct ct_buf *note,
                         struct ct_audit_report *report, struct ct_audit_log *out) {
    uint64_t size = 0;
    if (!peek_size(ct_buf_bytes(note), &size)) {
        ct_audit_find(report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoint",
                      "no size on its second line");
        return false;
    }
    struct ct_buf data;
    ct_buf_init(&data, LOG_BYTES_MAX);
    if (read_bundles(source, size, report, &data) != CT_OK) {
        ct_buf_deinit(&data);
        return false;
    }
    if (!take_candidate(out, &data, note)) {
        ct_audit_find(report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoint",
                      "it does not hold for the entries: %s", ct_err_detail());
        return false;
    }
    return true;
}

/* Entries behind the checkpoint count only if the coordinator signed them. */
static void drop_unsigned_tail(struct ct_audit_log *log, struct ct_audit_report *report) {
    for (uint64_t i = log->checkpoint.size; i < log->known; i++) {
        struct ct_envelope envelope;
        enum ct_err err = ct_envelope_open(ct_audit_log_entry(log, i), &envelope);
        if (err == CT_OK) {
            err = ct_envelope_verify(&envelope, &log->opened.identity_key);
        }
        if (err != CT_OK) {
            ct_audit_find(report, CT_FINDING_BROKEN, (int64_t)i, CT_RUN_LEDGER "/entries",
                          "an entry behind the checkpoint: %s", ct_err_detail());
            log->known = i;
            return;
        }
    }
    const uint64_t end = log->offsets[log->known];
    if (end != log->data.length) {
        ct_audit_find(report, CT_FINDING_BROKEN, (int64_t)log->known, CT_RUN_LEDGER "/entries",
                      "%" PRIu64 " bytes at the end are no entry", log->data.length - end);
    }
}

bool ct_audit_log_load(struct ct_source *source, struct ct_audit_report *report,
                       struct ct_audit_log *out) {
    memset(out, 0, sizeof *out);
    struct ct_buf note;
    enum ct_err err =
        ct_source_read(source, CT_RUN_LEDGER "/checkpoint", CT_CHECKPOINT_BYTES_MAX, &note);
    if (err != CT_OK) {
        ct_audit_find(report, CT_FINDING_UNAVAILABLE, -1, CT_RUN_LEDGER "/checkpoint", "%s",
                      ct_err_detail());
        return false;
    }
    /* In a directory the sequential file has the entries too: the candidate whose entry 0 verifies
     * the checkpoint, and whose root it signs, is the truth that all files are then held to. */
    bool loaded = false;
    bool absent = false;
    char sequential_fault[400] = "";
    if (ct_source_directory(source) != NULL) {
        loaded = load_sequential(source, &note, out, &absent);
        if (loaded) {
            drop_unsigned_tail(out, report);
        } else {
            snprintf(sequential_fault, sizeof sequential_fault, "%s", ct_err_detail());
        }
    }
    if (!loaded) {
        loaded = load_bundles(source, &note, report, out);
        /* If neither holds, the checkpoint that both are measured by is what is broken. */
        if (loaded && sequential_fault[0] != '\0') {
            ct_audit_find(report, absent ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN, -1,
                          CT_RUN_LEDGER "/entries", "%s", sequential_fault);
        }
    }
    ct_buf_deinit(&note);
    return loaded;
}
