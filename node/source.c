#include "source.h"

#include "fetch.h"

#include <cotrain/http.h>
#include <cotrain/run_dir.h>

#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ct_source {
    char *directory;              /* NULL for a URL */
    struct ct_fetch *fetch;       /* NULL for a directory */
    struct ct_fetch *blobs_fetch; /* a second place of blobs, or NULL */
    bool has_blobs_store;
    struct ct_blobs blobs_store; /* likewise */
    struct ct_blobs store;       /* the run's own, or what was fetched */
    char temporary[64];          /* of the fetched; "" if none was needed */
};

static bool is_url(const char *where) {
    return strncmp(where, "http://", 7) == 0 || strncmp(where, "https://", 8) == 0;
}

static enum ct_err make_temporary(struct ct_source *source) {
    const char *base = getenv("TMPDIR");
    if (base == NULL || strlen(base) > 30) {
        base = "/tmp";
    }
    snprintf(source->temporary, sizeof source->temporary, "%s/cotrain-audit-XXXXXX", base);
    if (mkdtemp(source->temporary) == NULL) {
        source->temporary[0] = '\0';
        return ct_fail(CT_ERR_IO, "no temporary directory below %s", base);
    }
    return ct_blobs_init(&source->store, source->temporary);
}

static enum ct_err open_blobs(struct ct_source *source, const char *blobs) {
    if (is_url(blobs)) {
        CT_TRY(ct_fetch_open(&blobs, 1, NULL, &source->blobs_fetch));
        return source->temporary[0] != '\0' ? CT_OK : make_temporary(source);
    }
    if (access(blobs, R_OK | X_OK) != 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "%s is no directory of blobs", blobs);
    }
    source->has_blobs_store = true;
    snprintf(source->blobs_store.dir, sizeof source->blobs_store.dir, "%s", blobs);
    return CT_OK;
}

static enum ct_err open_place(struct ct_source *source, const char *where) {
    if (is_url(where)) {
        CT_TRY(ct_fetch_open(&where, 1, NULL, &source->fetch));
        return make_temporary(source);
    }
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER, where);
    if (access(path, R_OK | X_OK) != 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "%s is no run directory: it has no " CT_RUN_LEDGER, where);
    }
    source->directory = realpath(where, NULL);
    if (source->directory == NULL || strlen(source->directory) > PATH_MAX - 256) {
        return ct_fail(CT_ERR_IO, "the path of %s cannot be resolved", where);
    }
    /* ct_blobs_init would make the directory; an audit makes nothing. */
    snprintf(source->store.dir, sizeof source->store.dir, "%s/" CT_RUN_BLOBS, source->directory);
    return CT_OK;
}

enum ct_err ct_source_open(const char *where, const char *blobs, struct ct_source **out) {
    struct ct_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a source");
    }
    enum ct_err err = open_place(source, where);
    if (err == CT_OK && blobs != NULL) {
        err = open_blobs(source, blobs);
    }
    if (err != CT_OK) {
        ct_source_close(source);
        return err;
    }
    *out = source;
    return CT_OK;
}

static void remove_tree(const char *directory) {
    char *roots[] = {(char *)(uintptr_t)directory, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *item = fts == NULL ? NULL : fts_read(fts); item != NULL; item = fts_read(fts)) {
        if (item->fts_info == FTS_DP) {
            rmdir(item->fts_accpath);
        } else if (item->fts_info != FTS_D) {
            unlink(item->fts_accpath);
        }
    }
    if (fts != NULL) {
        fts_close(fts);
    }
}

void ct_source_close(struct ct_source *source) {
    if (source == NULL) {
        return;
    }
    if (source->temporary[0] != '\0') {
        remove_tree(source->temporary);
    }
    ct_fetch_close(source->fetch);
    ct_fetch_close(source->blobs_fetch);
    free(source->directory);
    free(source);
}

const char *ct_source_directory(const struct ct_source *source) {
    return source->directory;
}

enum ct_err ct_source_read(struct ct_source *source, const char *name, size_t maximum,
                           struct ct_buf *out) {
    ct_buf_init(out, maximum);
    enum ct_err err;
    if (source->directory != NULL) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", source->directory, name);
        err = ct_file_read(path, out);
    } else {
        /* Over HTTP the ledger's files lie at the base (http.h). */
        static const char ledger[] = CT_RUN_LEDGER "/";
        const size_t prefix = sizeof ledger - 1;
        err = ct_fetch_get(source->fetch, strncmp(name, ledger, prefix) == 0 ? name + prefix : name,
                           out);
    }
    if (err != CT_OK) {
        ct_buf_deinit(out);
    }
    return err;
}

/* The store that has the blob, verified or not, fetching it if need be. */
static enum ct_err find_blob(struct ct_source *source, const struct ct_blob_ref *ref,
                             const struct ct_blobs **out) {
    *out = &source->store;
    if (ct_blobs_have(&source->store, ref)) {
        return CT_OK;
    }
    if (source->has_blobs_store && ct_blobs_have(&source->blobs_store, ref)) {
        *out = &source->blobs_store;
        return CT_OK;
    }
    enum ct_err err = CT_ERR_NOT_FOUND;
    if (source->fetch != NULL) {
        err = ct_fetch_blob(source->fetch, ref, &source->store);
    }
    if (err != CT_OK && source->blobs_fetch != NULL) {
        err = ct_fetch_blob(source->blobs_fetch, ref, &source->store);
    }
    if (err == CT_ERR_NOT_FOUND) {
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&ref->sha256, hex);
        return ct_fail(err, "blob %s is not there", hex);
    }
    return err;
}

enum ct_err ct_source_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                           struct ct_buf *out) {
    const struct ct_blobs *store;
    CT_TRY(find_blob(user, ref, &store));
    return ct_blobs_get(store, ref, maximum, out);
}

enum ct_err ct_source_blob_path(struct ct_source *source, const struct ct_blob_ref *ref,
                                char *out_path) {
    const struct ct_blobs *store;
    CT_TRY(find_blob(source, ref, &store));
    ct_blobs_path(store, &ref->sha256, out_path);
    return CT_OK;
}
