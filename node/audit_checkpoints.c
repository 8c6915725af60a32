/* The kept checkpoints of a run directory: each is signed, is named for its size, and is a prefix
 * of the newest. They are taken in ascending order, so one pass over the log's hashes gives all
 * roots. */
#include "audit_pass.h"

#include <cotrain/run_dir.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256u

struct kept {
    uint64_t size; /* by its name */
    bool valid;    /* signed, and for that size */
    struct ct_hash root;
    char reason[400];
};

struct checking {
    struct ct_audit *audit;
    const char *directory;
    const uint64_t *sizes;
    struct kept kept[BATCH];
};

static int compare_sizes(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void name_of(uint64_t size, char out[160]) {
    snprintf(out, 160, CT_RUN_LEDGER "/checkpoints/%" PRIu64, size);
}

/* In a worker: the file's signature. */
static void open_kept(void *user, size_t at) {
    struct checking *checking = user;
    const struct ct_audit_log *log = &checking->audit->log;
    struct kept *kept = &checking->kept[at];
    char name[160], path[8192];
    struct ct_buf note;
    struct ct_checkpoint checkpoint;
    kept->size = checking->sizes[at];
    kept->valid = false;
    name_of(kept->size, name);
    snprintf(path, sizeof path, "%s/%s", checking->directory, name);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    if (ct_file_read(path, &note) != CT_OK ||
        ct_checkpoint_open(ct_buf_bytes(&note), log->opened.origin, &log->opened.log_key,
                           &checkpoint) != CT_OK) {
        snprintf(kept->reason, sizeof kept->reason, "%s", ct_err_detail());
    } else if (checkpoint.size != kept->size || checkpoint.size > log->known) {
        snprintf(kept->reason, sizeof kept->reason, "it is signed for %" PRIu64 " entries",
                 checkpoint.size);
    } else {
        kept->root = checkpoint.root;
        kept->valid = true;
    }
    ct_buf_deinit(&note);
}

static enum ct_err judge(struct checking *checking, const struct kept *kept,
                         struct ct_audit_roots *roots) {
    struct ct_audit_report *report = checking->audit->report;
    char name[160];
    name_of(kept->size, name);
    if (!kept->valid) {
        ct_audit_find(report, CT_FINDING_BROKEN, -1, name, "%s", kept->reason);
        return CT_OK;
    }
    struct ct_hash root;
    CT_TRY(ct_audit_roots_at(roots, kept->size, &root));
    if (!ct_hash_equal(&root, &kept->root)) {
        ct_audit_find(report, CT_FINDING_BROKEN, -1, name,
                      "it signs another history than the newest checkpoint: keep this file, it "
                      "proves a fork");
    }
    return CT_OK;
}

/* The sizes that are names of files, ascending; the caller frees them. */
static enum ct_err list_sizes(struct ct_audit *audit, const char *directory, uint64_t **out,
                              size_t *out_count) {
    char path[8192];
    size_t capacity = 0;
    enum ct_err err = CT_OK;
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER "/checkpoints", directory);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        ct_audit_find(audit->report, CT_FINDING_UNAVAILABLE, -1, CT_RUN_LEDGER "/checkpoints",
                      "it cannot be listed: %s", strerror(errno));
        return CT_OK;
    }
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        char *end = NULL;
        char canonical[32];
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) {
            continue;
        }
        const uint64_t size = strtoull(item->d_name, &end, 10);
        snprintf(canonical, sizeof canonical, "%" PRIu64, size);
        const size_t length = strlen(item->d_name);
        if (length > 4 && strcmp(item->d_name + length - 4, ".tmp") == 0) {
            continue; /* an interrupted write */
        }
        if (strcmp(canonical, item->d_name) != 0) {
            ct_audit_find(audit->report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoints",
                          "%.100s: no name of a kept checkpoint", item->d_name);
            continue;
        }
        if (*out_count == capacity) {
            capacity = capacity == 0 ? 256 : 2 * capacity;
            uint64_t *grown = realloc(*out, capacity * sizeof *grown);
            err = grown != NULL ? CT_OK
                                : ct_fail(CT_ERR_MEMORY, "no memory for %zu numbers", capacity);
            *out = grown != NULL ? grown : *out;
        }
        if (err == CT_OK) {
            (*out)[(*out_count)++] = size;
        }
    }
    closedir(dir);
    if (*out_count > 0) {
        qsort(*out, *out_count, sizeof **out, compare_sizes);
    }
    return err;
}

enum ct_err ct_audit_checkpoints(struct ct_audit *audit, const char *directory) {
    uint64_t *sizes = NULL;
    size_t count = 0;
    struct checking *checking = calloc(1, sizeof *checking);
    struct ct_audit_roots *roots = calloc(1, sizeof *roots);
    enum ct_err err = checking == NULL || roots == NULL
                          ? ct_fail(CT_ERR_MEMORY, "no memory to check kept checkpoints")
                          : list_sizes(audit, directory, &sizes, &count);
    for (size_t first = 0; first < count && err == CT_OK; first += BATCH) {
        const size_t batch = count - first < BATCH ? count - first : BATCH;
        checking->audit = audit;
        checking->directory = directory;
        checking->sizes = sizes + first;
        roots->log = &audit->log;
        ct_pool_run(audit->pool, batch, open_kept, checking);
        for (size_t i = 0; i < batch && err == CT_OK; i++) {
            err = judge(checking, &checking->kept[i], roots);
        }
        ct_audit_progress(audit->report, "kept checkpoints", first + batch, count);
    }
    free(sizes);
    free(roots);
    free(checking);
    return err;
}
