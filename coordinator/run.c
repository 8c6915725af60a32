#include "run.h"

#include "cache.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PORTS_BYTES_MAX 1024u

enum ct_err ct_run_path(const char *dir, const char *name, char *out) {
    int length = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_CONFIG, "the path %.100s... is too long", dir);
    }
    return CT_OK;
}

enum ct_err ct_ports_load(const char *dir, struct ct_ports *out) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_PORTS, path));
    struct ct_buf buf;
    ct_buf_init(&buf, PORTS_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &buf);
    if (err == CT_OK) {
        err = ct_buf_append(&buf, "", 1);
    }
    if (err == CT_OK) {
        unsigned work, http;
        int end = 0;
        *out = (struct ct_ports){0};
        if (sscanf((const char *)buf.data, "host %255[^ \n]\nwork %u\nhttp %u\n%n", out->host,
                   &work, &http, &end) != 3 ||
            (size_t)end != buf.length - 1 || work > UINT16_MAX || http > UINT16_MAX) {
            err = ct_fail(CT_ERR_FORMAT, "%s is not \"host HOST, work PORT, http PORT\"", path);
        } else {
            out->work = (uint16_t)work;
            out->http = (uint16_t)http;
        }
    }
    ct_buf_deinit(&buf);
    return err;
}

enum ct_err ct_ports_save(const char *dir, const struct ct_ports *ports) {
    char path[PATH_MAX], text[PORTS_BYTES_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_PORTS, path));
    int length = snprintf(text, sizeof text, "host %s\nwork %u\nhttp %u\n", ports->host,
                          (unsigned)ports->work, (unsigned)ports->http);
    return ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, (size_t)length});
}

void ct_ports_url(const struct ct_ports *ports, char out[CT_URL_BYTES_MAX]) {
    bool version_6 = strchr(ports->host, ':') != NULL;
    snprintf(out, CT_URL_BYTES_MAX, version_6 ? "http://[%s]:%u/" : "http://%s:%u/", ports->host,
             (unsigned)ports->http);
}

enum ct_err ct_run_seal(const struct ct_key *identity, struct ct_entry *entry, struct ct_buf *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    entry->version = 1;
    entry->time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    struct ct_buf payload;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_entry_encode(entry, &payload);
    if (err == CT_OK) {
        err = ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, identity, out);
    }
    ct_buf_deinit(&payload);
    return err;
}

/* The lock belongs to the open file: it ends with the process, however that ends. */
static struct flock whole_file(void) {
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

enum ct_err ct_run_lock(const char *dir, int *out_fd) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_LOCK, path));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    struct flock whole = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        close(fd);
        return ct_fail(CT_ERR_STATE,
                       "%s is in use by another cotraind; a run has one writer at a time", dir);
    }
    *out_fd = fd;
    return CT_OK;
}

bool ct_run_is_served(const char *dir) {
    char path[PATH_MAX];
    int fd = ct_run_path(dir, CT_RUN_LOCK, path) == CT_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        return false;
    }
    struct flock whole = whole_file();
    bool held = fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
    close(fd);
    return held;
}

/* The origin as the published checkpoint has it; entry 0 confirms it later. */
static enum ct_err read_origin(const char *dir, char out[CT_ORIGIN_BYTES_MAX]) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, CT_RUN_LEDGER "/checkpoint", path));
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    struct ct_checkpoint checkpoint;
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_ERR_NOT_FOUND) {
        err = ct_fail(err, "%s holds no run: cotraind init makes one", dir);
    } else if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&note), &checkpoint);
    }
    if (err == CT_OK) {
        memcpy(out, checkpoint.origin, CT_ORIGIN_BYTES_MAX);
    }
    ct_buf_deinit(&note);
    return err;
}

static enum ct_err load_keys(struct ct_run *run) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(run->dir, CT_RUN_IDENTITY, path));
    CT_TRY(ct_key_load(path, &run->identity));
    CT_TRY(ct_run_path(run->dir, CT_RUN_LOG_KEY, path));
    return ct_key_load(path, &run->log_key);
}

struct folding {
    struct ct_run *run;
    struct ct_ledger *ledger;
    ct_run_entry each;
    void *user;
    struct ct_buf entry;
};

static enum ct_err tell(struct folding *folding, uint64_t index) {
    return folding->each == NULL ? CT_OK
                                 : folding->each(folding->user, &folding->run->replay.fold, index,
                                                 ct_buf_bytes(&folding->entry));
}

/* The ledger holds what it reads to the signed checkpoint. */
static enum ct_err apply_next(struct folding *folding) {
    struct ct_run *run = folding->run;
    const uint64_t index = run->replay.fold.entries;
    CT_TRY(ct_ledger_read(folding->ledger, index, &folding->entry));
    CT_TRY(ct_replay_apply(&run->replay, ct_buf_bytes(&folding->entry), false, ct_blobs_source,
                           &run->blobs));
    if (index == 0) {
        ct_buf_clear(&run->first);
        CT_TRY(ct_buf_append(&run->first, folding->entry.data, folding->entry.length));
    }
    return tell(folding, index);
}

/* Applies entries up to `count`; from_round as ct_replay_init has it. */
static enum ct_err fold_all(struct folding *folding, uint64_t count, uint32_t from_round) {
    struct ct_run *run = folding->run;
    ct_replay_deinit(&run->replay);
    ct_replay_init(&run->replay, from_round);
    if (count == 0) {
        return ct_fail(CT_ERR_STATE,
                       "the ledger of %s is empty: its init did not finish; remove the "
                       "directory and init again",
                       run->dir);
    }
    while (run->replay.fold.entries < count) {
        CT_TRY(apply_next(folding));
    }
    return CT_OK;
}

/* Brings the fold to the newest cached one, and tells what of the last round may still be asked
 * for. False: there is none that holds, and the fold is to be made from the start. */
static bool fold_from_cache(struct folding *folding) {
    struct ct_run *run = folding->run;
    struct ct_fold *fold = &run->replay.fold;
    struct ct_buf bytes;
    uint64_t size;
    ct_buf_init(&bytes, (size_t)64 << 20);
    bool found = ct_cache_load_fold(run->dir, folding->ledger, &size, &bytes) && size > 1 &&
                 apply_next(folding) == CT_OK &&
                 ct_fold_restore(fold, ct_buf_bytes(&bytes)) == CT_OK && fold->entries == size;
    ct_buf_deinit(&bytes);
    for (uint32_t i = 0; i < fold->node_count && found; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        if (node->commit.round == fold->round && node->commit_index > 0) {
            found = node->commit_index < size &&
                    ct_ledger_read(folding->ledger, node->commit_index, &folding->entry) == CT_OK &&
                    tell(folding, node->commit_index) == CT_OK;
        }
    }
    return found;
}

/* The state after `count` entries. */
static enum ct_err fold_ledger(struct folding *folding, uint64_t count) {
    struct ct_run *run = folding->run;
    ct_replay_deinit(&run->replay);
    ct_replay_init(&run->replay, CT_REPLAY_NEVER);
    if (count > 0 && fold_from_cache(folding)) {
        while (run->replay.fold.entries < count) {
            CT_TRY(apply_next(folding));
        }
        return CT_OK;
    }
    if (run->ledger != NULL) {
        CT_TRY(ct_ledger_check(run->ledger));
    }
    return fold_all(folding, count, CT_REPLAY_NEVER);
}

/* Of what a power cut left behind the last checkpoint some may have the length of an entry and not
 * its bytes. Nobody was told of it: it goes, with what follows. */
static enum ct_err drop_torn_entries(struct ct_run *run) {
    const struct ct_hash key = ct_key_public(run->identity);
    const uint64_t size = ct_ledger_size(run->ledger);
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (uint64_t i = ct_ledger_published(run->ledger); i < size && err == CT_OK; i++) {
        struct ct_envelope envelope;
        err = ct_ledger_read(run->ledger, i, &entry);
        if (err == CT_OK && (ct_envelope_open(ct_buf_bytes(&entry), &envelope) != CT_OK ||
                             ct_envelope_verify(&envelope, &key) != CT_OK)) {
            ct_log(CT_LOG_WARN, "run",
                   "entry %" PRIu64
                   " was torn before it was published, by a power cut it seems: it "
                   "is dropped, with %" PRIu64 " behind it",
                   i, size - i - 1);
            err = ct_ledger_cut(run->ledger, i);
            break;
        }
    }
    ct_buf_deinit(&entry);
    return err;
}

static enum ct_err check_identity(const struct ct_run *run, const char *origin) {
    const struct ct_run_opened *opened = &run->replay.fold.opened;
    struct ct_hash identity = ct_key_public(run->identity), log_key = ct_key_public(run->log_key);
    if (strcmp(opened->origin, origin) != 0 || !ct_hash_equal(&identity, &opened->identity_key) ||
        !ct_hash_equal(&log_key, &opened->log_key)) {
        return ct_fail(CT_ERR_CONFIG, "the keys or the origin in %s are not those of its run",
                       run->dir);
    }
    return CT_OK;
}

static bool take_cached_model(struct ct_replay *replay, const char *dir) {
    const struct ct_fold *fold = &replay->fold;
    if (!fold->model_known || replay->theta != NULL) {
        return false;
    }
    replay->theta = malloc(fold->layout.parameters * sizeof replay->theta[0]);
    if (replay->theta == NULL || !ct_cache_load(dir, &fold->layout, &fold->model, replay->theta)) {
        return false;
    }
    bool open = fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
    replay->theta_valid = true;
    replay->theta_round = open ? fold->round - 1 : fold->round;
    return true;
}

static enum ct_err begin(const char *dir, struct ct_run *out) {
    memset(out, 0, sizeof *out);
    out->lock_fd = -1;
    ct_replay_init(&out->replay, CT_REPLAY_NEVER);
    ct_buf_init(&out->first, CT_ENTRY_BYTES_MAX);
    if (snprintf(out->dir, sizeof out->dir, "%s", dir) >= (int)sizeof out->dir) {
        return ct_fail(CT_ERR_CONFIG, "the path %.100s... is too long", dir);
    }
    return CT_OK;
}

enum ct_err ct_run_open(const char *dir, ct_run_entry each, void *user, struct ct_run *out) {
    char origin[CT_ORIGIN_BYTES_MAX], path[PATH_MAX];
    CT_TRY(begin(dir, out));
    enum ct_err err = read_origin(dir, origin);
    if (err == CT_OK) {
        err = ct_run_lock(dir, &out->lock_fd);
    }
    if (err == CT_OK) {
        err = load_keys(out);
    }
    if (err == CT_OK) {
        err = ct_run_path(dir, CT_RUN_BLOBS, path);
    }
    if (err == CT_OK) {
        err = ct_blobs_init(&out->blobs, path);
    }
    if (err == CT_OK) {
        err = ct_blobs_sweep(&out->blobs);
    }
    if (err == CT_OK) {
        err = ct_run_path(dir, CT_RUN_LEDGER, path);
    }
    if (err == CT_OK) {
        err = ct_ledger_open(path, origin, out->log_key, &out->ledger);
    }
    if (err == CT_OK) {
        err = drop_torn_entries(out);
    }
    uint64_t count = err == CT_OK ? ct_ledger_size(out->ledger) : 0;
    struct folding folding = {out, out->ledger, each, user, {0}};
    ct_buf_init(&folding.entry, CT_ENTRY_BYTES_MAX);
    if (err == CT_OK) {
        err = fold_ledger(&folding, count);
    }
    if (err == CT_OK) {
        err = check_identity(out, origin);
    }
    if (err == CT_OK && !take_cached_model(&out->replay, dir)) {
        /* The fold tells where the newest snapshot is, from which θ is cheapest to have. */
        folding.each = NULL;
        err = fold_all(&folding, count, out->replay.fold.snapshot_round);
    }
    ct_buf_deinit(&folding.entry);
    if (err == CT_OK && !out->replay.theta_valid) {
        err = ct_fail(CT_ERR_STATE, "the model of %s could not be recomputed", dir);
    }
    if (err != CT_OK) {
        ct_run_close(out);
    }
    return err;
}

enum ct_err ct_run_read(const char *dir, struct ct_run *out) {
    char origin[CT_ORIGIN_BYTES_MAX], path[PATH_MAX];
    CT_TRY(begin(dir, out));
    enum ct_err err = read_origin(dir, origin);
    if (err == CT_OK) {
        err = ct_run_path(dir, CT_RUN_BLOBS, path);
    }
    if (err == CT_OK) {
        err = ct_blobs_init(&out->blobs, path);
    }
    if (err == CT_OK) {
        err = ct_run_path(dir, CT_RUN_LEDGER, path);
    }
    struct ct_ledger *ledger = NULL;
    if (err == CT_OK) {
        err = ct_ledger_open(path, origin, NULL, &ledger);
    }
    if (err == CT_OK) {
        struct folding folding = {.run = out, .ledger = ledger};
        ct_buf_init(&folding.entry, CT_ENTRY_BYTES_MAX);
        err = fold_ledger(&folding, ct_ledger_published(ledger));
        ct_buf_deinit(&folding.entry);
        ct_ledger_close(ledger);
    }
    if (err != CT_OK) {
        ct_run_close(out);
    }
    return err;
}

void ct_run_close(struct ct_run *run) {
    if (run->ledger != NULL) {
        ct_ledger_close(run->ledger);
    }
    ct_replay_deinit(&run->replay);
    ct_buf_deinit(&run->first);
    ct_key_free(run->identity);
    ct_key_free(run->log_key);
    if (run->lock_fd >= 0) {
        close(run->lock_fd);
    }
    memset(run, 0, sizeof *run);
    run->lock_fd = -1;
}
