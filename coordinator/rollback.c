#include "rollback.h"

#include <cotrain/exchange.h>
#include <cotrain/http.h>
#include <cotrain/log.h>
#include <cotrain/note.h>
#include <cotrain/tile_source.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIRROR_MS 5000u

/* The newest checkpoint that has its name on disk: what the process was told of it may be older. */
static enum ct_err read_published(const struct ct_run *run, const char *ledger,
                                  struct ct_checkpoint *out) {
    char path[PATH_MAX];
    struct ct_buf note;
    CT_TRY(ct_run_path(ledger, "checkpoint", path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_checkpoint_open(ct_buf_bytes(&note), run->replay.fold.opened.origin,
                                 &run->replay.fold.opened.log_key, out);
    }
    ct_buf_deinit(&note);
    return err;
}

/* The root that the published log has at an earlier size. */
static enum ct_err root_at(char *ledger, const struct ct_checkpoint *published, uint64_t size,
                           struct ct_hash *out) {
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    ct_tile_source_init(source, published->size, ct_tile_read_dir, ledger);
    enum ct_err err = ct_root_of(size, ct_tile_source_hash, source, out);
    ct_tile_source_deinit(source);
    free(source);
    return err;
}

static void keep(const struct ct_run *run, uint64_t size, struct ct_bytes note) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, CT_RUN_EVIDENCE "/checkpoint-%" PRIu64, size);
    if (ct_run_path(run->dir, name, path) != CT_OK || ct_file_replace(path, note) != CT_OK) {
        ct_log(CT_LOG_ERROR, "serve", "the checkpoint is not kept: %s", ct_err_detail());
    }
}

enum ct_err ct_rollback_check(const struct ct_run *run, struct ct_bytes note, const char *whose) {
    const struct ct_run_opened *opened = &run->replay.fold.opened;
    struct ct_checkpoint held, published;
    char ledger[PATH_MAX];
    CT_TRY(ct_checkpoint_open(note, opened->origin, &opened->log_key, &held));
    CT_TRY(ct_run_path(run->dir, CT_RUN_LEDGER, ledger));
    CT_TRY(read_published(run, ledger, &published));
    struct ct_hash root = {{0}};
    if (held.size <= published.size) {
        CT_TRY(root_at(ledger, &published, held.size, &root));
        if (ct_hash_equal(&root, &held.root)) {
            return CT_OK;
        }
    }
    keep(run, held.size, note);
    return ct_fail(CT_ERR_RULE,
                   "%.100s holds a checkpoint of %" PRIu64
                   " entries that this log's key signed, and "
                   "this log of %" PRIu64 " does not lead there: it was rolled back, or there are "
                   "two of it. Serving it would show two histories; restore the newest copy of it",
                   whose, held.size, published.size);
}

static enum ct_err ask(const char *url, struct ct_buf *out) {
    struct ct_exchange *exchange = NULL;
    char full[600];
    unsigned status = 0;
    size_t length = strlen(url);
    if (length > 500) {
        return ct_fail(CT_ERR_CONFIG, "the URL of a mirror is too long");
    }
    snprintf(full, sizeof full, "%s%s" CT_HTTP_CHECKPOINT, url,
             length > 0 && url[length - 1] == '/' ? "" : "/");
    CT_TRY(ct_exchange_open(MIRROR_MS, NULL, NULL, &exchange));
    enum ct_err err = ct_exchange_run(exchange, full, NULL, &status, out);
    ct_exchange_close(exchange);
    if (err == CT_OK && status != 200) {
        err = ct_fail(CT_ERR_NETWORK, "%s: HTTP status %u", full, status);
    }
    return err;
}

enum ct_err ct_rollback_ask_mirror(const struct ct_run *run, const char *url) {
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ask(url, &note);
    if (err == CT_OK) {
        err = ct_rollback_check(run, ct_buf_bytes(&note), url);
    }
    ct_buf_deinit(&note);
    if (err != CT_OK && err != CT_ERR_RULE) {
        ct_log(CT_LOG_WARN, "serve", "mirror %s: %s", url, ct_err_detail());
        return CT_OK;
    }
    return err;
}
