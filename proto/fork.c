#include <cotrain/fork.h>

#include <cotrain/evidence.h>
#include <cotrain/log.h>
#include <cotrain/tile_source.h>

#include <stdio.h>
#include <stdlib.h>

#define PATH_BYTES 4096

/* One base's tree of a size. */
struct served {
    struct ct_fetch *fetch;
    uint32_t base;
};

static enum ct_err read_tile(void *user, const char *path, struct ct_buf *out) {
    const struct served *served = user;
    return ct_fetch_get_from(served->fetch, served->base, path, out);
}

static enum ct_err seek_served(const char *vkey, struct ct_bytes own, struct ct_bytes note,
                               uint64_t size, struct ct_fetch *fetch, struct ct_buf *evidence) {
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    enum ct_err err = CT_ERR_NOT_FOUND;
    for (uint32_t base = 0; base < ct_fetch_bases(fetch); base++) {
        struct served served = {fetch, base};
        ct_tile_source_init(source, size, read_tile, &served);
        err = ct_evidence_seek(vkey, own, note, ct_tile_source_hash, source, evidence);
        ct_tile_source_deinit(source);
        if (err == CT_OK || err == CT_ERR_FORKED || err == CT_ERR_STATE) {
            break;
        }
    }
    free(source);
    return err;
}

static enum ct_err keep(const char *dir, const struct ct_buf *evidence) {
    char path[PATH_BYTES];
    const int length = snprintf(path, sizeof path, "%s/" CT_FORK_EVIDENCE, dir);
    if (length < 0 || (size_t)length >= sizeof path) {
        return ct_fail(CT_ERR_CONFIG, "the path %.100s... is too long", dir);
    }
    CT_TRY(ct_file_replace(path, ct_buf_bytes(evidence)));
    ct_log(CT_LOG_ERROR, "fork", "the log's key signed two histories; %s proves it", path);
    return ct_fail(CT_ERR_FORKED,
                   "the coordinator signed two histories of this run. %.300s proves it to anybody "
                   "(cotrain evidence): keep it, and show it to the other nodes",
                   path);
}

enum ct_err ct_fork_seek(const struct ct_fork_side *own, struct ct_bytes note,
                         struct ct_fetch *fetch, const char *dir) {
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_checkpoint theirs, ours;
    struct ct_buf evidence;
    CT_TRY(ct_checkpoint_open(note, own->origin, own->log_key, &theirs));
    CT_TRY(ct_checkpoint_open(own->note, own->origin, own->log_key, &ours));
    ct_vkey_format(own->origin, own->log_key, vkey);
    ct_buf_init(&evidence, CT_EVIDENCE_BYTES_MAX);
    const bool smaller = theirs.size < ours.size;
    enum ct_err err =
        seek_served(vkey, own->note, note, smaller ? ours.size : theirs.size, fetch, &evidence);
    if (smaller && err != CT_OK && err != CT_ERR_FORKED && err != CT_ERR_STATE) {
        err = ct_evidence_seek(vkey, own->note, note, own->hash, own->user, &evidence);
    }
    if (err == CT_ERR_FORKED) {
        err = keep(dir, &evidence);
    }
    ct_buf_deinit(&evidence);
    return err;
}
