#include "mirror.h"

#include "kept_list.h"

#include <cotrain/assert.h>
#include <cotrain/fork.h>
#include <cotrain/log.h>
#include <cotrain/retention.h>
#include <cotrain/tile_source.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUNDLE_BYTES_MAX (CT_TILE_WIDTH * (CT_ENTRY_BYTES_MAX + 2u))

/* Entries wait in memory up to about so many bytes, then on the disk. */
#define WAITING_BYTES_MAX (4u << 20)

#define SOURCE 0u /* the one base of the fetch */

/* A note as its server gives it; empty where there is none. */
static enum ct_err get_note(struct ct_mirror *mirror, const char *path, struct ct_buf *out) {
    const enum ct_err err = ct_fetch_get_from(mirror->fetch, SOURCE, path, out);
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

/* --- which log it is --- */

static enum ct_err take_first(void *user, struct ct_bytes entry) {
    struct ct_buf *out = user;
    return out->length > 0 ? CT_OK : ct_buf_append(out, entry.data, entry.length);
}

/* Entry 0 as the URL has it: of the partial bundle of its checkpoint, or of the full one. */
static enum ct_err ask_first_entry(struct ct_mirror *mirror, struct ct_buf *out) {
    struct ct_buf bytes;
    struct ct_checkpoint checkpoint;
    char path[CT_TILE_PATH_MAX];
    ct_buf_init(&bytes, BUNDLE_BYTES_MAX);
    enum ct_err err = ct_fetch_get_from(mirror->fetch, SOURCE, CT_HTTP_CHECKPOINT, &bytes);
    if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&bytes), &checkpoint);
    }
    if (err == CT_OK && checkpoint.size == 0) {
        err = ct_fail(CT_ERR_NOT_FOUND, "the log has no entries yet");
    }
    uint32_t width = CT_TILE_WIDTH;
    if (err == CT_OK) {
        width = checkpoint.size < CT_TILE_WIDTH ? (uint32_t)checkpoint.size : CT_TILE_WIDTH;
        ct_tile_path(-1, 0, width, path);
        err = ct_fetch_get_from(mirror->fetch, SOURCE, path, &bytes);
    }
    if (err == CT_ERR_NOT_FOUND && width < CT_TILE_WIDTH) {
        width = CT_TILE_WIDTH;
        ct_tile_path(-1, 0, width, path);
        err = ct_fetch_get_from(mirror->fetch, SOURCE, path, &bytes);
    }
    if (err == CT_OK) {
        err = ct_bundle_parse(ct_buf_bytes(&bytes), width, take_first, out);
    }
    ct_buf_deinit(&bytes);
    return err;
}

/* Entry 0 of the copy; CT_ERR_NOT_FOUND before it has a checkpoint. */
static enum ct_err read_first_entry(const char *ledger_dir, struct ct_buf *out) {
    char path[PATH_MAX];
    struct ct_buf note;
    struct ct_checkpoint checkpoint;
    struct ct_ledger *ledger = NULL;
    CT_TRY(ct_run_path(ledger_dir, "checkpoint", path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&note), &checkpoint);
    }
    ct_buf_deinit(&note);
    CT_TRY(err);
    CT_TRY(ct_ledger_open(ledger_dir, checkpoint.origin, NULL, &ledger));
    err = ct_ledger_read(ledger, 0, out);
    ct_ledger_close(ledger);
    return err;
}

static enum ct_err identify(struct ct_mirror *mirror, const char *ledger_dir,
                            const struct ct_hash *wanted) {
    struct ct_buf entry;
    char id[CT_HEX_BYTES], wanted_id[CT_HEX_BYTES];
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = read_first_entry(ledger_dir, &entry);
    if (err == CT_ERR_NOT_FOUND) {
        err = ask_first_entry(mirror, &entry);
    }
    if (err == CT_OK) {
        err = ct_run_opening(ct_buf_bytes(&entry), &mirror->opened, &mirror->run_id);
    }
    ct_buf_deinit(&entry);
    CT_TRY(err);
    if (wanted != NULL && !ct_hash_equal(wanted, &mirror->run_id)) {
        ct_hash_hex(&mirror->run_id, id);
        ct_hash_hex(wanted, wanted_id);
        return ct_fail(CT_ERR_CONFIG, "this is the run %s, not %s", id, wanted_id);
    }
    return CT_OK;
}

static enum ct_err make_dir(struct ct_mirror *mirror) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_LOG_KEY, path));
    if (access(path, F_OK) == 0) {
        return ct_fail(CT_ERR_CONFIG,
                       "%s has the run's keys: it is a coordinator's directory, and no mirror "
                       "writes there; choose another",
                       mirror->dir);
    }
    CT_TRY(ct_dir_make(mirror->dir));
    CT_TRY(ct_run_lock(mirror->dir, &mirror->lock_fd));
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_EVIDENCE, path));
    CT_TRY(ct_dir_make(path));
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_BLOBS, path));
    CT_TRY(ct_blobs_init(&mirror->blobs, path));
    return ct_blobs_sweep(&mirror->blobs);
}

static enum ct_err open_parts(struct ct_mirror *mirror, const struct ct_mirror_options *options) {
    const char *bases[] = {options->url};
    char path[PATH_MAX];
    CT_TRY(make_dir(mirror));
    CT_TRY(ct_fetch_open(bases, 1, &options->fetch, &mirror->fetch));
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_LEDGER, path));
    CT_TRY(identify(mirror, path, options->run_id));
    CT_TRY(
        ct_ledger_open_copy(path, mirror->opened.origin, &mirror->opened.log_key, &mirror->ledger));
    return ct_mirror_find_closed(mirror);
}

enum ct_err ct_mirror_open(const struct ct_mirror_options *options, struct ct_mirror *out) {
    memset(out, 0, sizeof *out);
    out->lock_fd = -1;
    out->keep_expired = options->keep_expired;
    if (snprintf(out->dir, sizeof out->dir, "%s", options->dir) >= (int)sizeof out->dir) {
        return ct_fail(CT_ERR_CONFIG, "the path %.100s... is too long", options->dir);
    }
    enum ct_err err = open_parts(out, options);
    if (err != CT_OK) {
        ct_mirror_close(out);
    }
    return err;
}

void ct_mirror_close(struct ct_mirror *mirror) {
    ct_ledger_close(mirror->ledger);
    ct_fetch_close(mirror->fetch);
    ct_mirror_forget_run(&mirror->named);
    if (mirror->lock_fd >= 0) {
        close(mirror->lock_fd);
    }
    memset(mirror, 0, sizeof *mirror);
    mirror->lock_fd = -1;
}

/* --- growing --- */

struct arrival {
    struct ct_ledger *ledger;
    uint64_t wanted; /* the size to stop at */
};

static enum ct_err append(void *user, struct ct_bytes entry) {
    const struct arrival *arrival = user;
    uint64_t index;
    return ct_ledger_size(arrival->ledger) >= arrival->wanted
               ? CT_OK
               : ct_ledger_append(arrival->ledger, entry, &index);
}

/* How many bytes of its last, partial bundle the copy has. */
static enum ct_err bytes_of_bundle(struct ct_ledger *ledger, uint64_t *out) {
    const uint64_t size = ct_ledger_size(ledger);
    struct ct_buf entry;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    *out = 0;
    for (uint64_t i = size / CT_TILE_WIDTH * CT_TILE_WIDTH; i < size && err == CT_OK; i++) {
        err = ct_ledger_read(ledger, i, &entry);
        *out += 2 + entry.length;
    }
    ct_buf_deinit(&entry);
    return err;
}

/* What the copy lacks of one bundle: of its partial form at this size, or of the full one that has
 * replaced it. */
static enum ct_err fetch_bundle(struct ct_mirror *mirror, uint64_t size, struct ct_buf *out) {
    struct arrival arrival = {mirror->ledger, size};
    const uint64_t index = ct_ledger_size(mirror->ledger) / CT_TILE_WIDTH;
    const uint32_t here = (uint32_t)(ct_ledger_size(mirror->ledger) % CT_TILE_WIDTH);
    const uint64_t left = size - index * CT_TILE_WIDTH;
    uint32_t width = left < CT_TILE_WIDTH ? (uint32_t)left : CT_TILE_WIDTH;
    uint64_t offset = 0;
    char path[CT_TILE_PATH_MAX];
    CT_TRY(bytes_of_bundle(mirror->ledger, &offset));
    ct_tile_path(-1, index, width, path);
    enum ct_err err = ct_fetch_get_rest(mirror->fetch, SOURCE, path, offset, out);
    if (err == CT_ERR_NOT_FOUND && width < CT_TILE_WIDTH) {
        width = CT_TILE_WIDTH;
        ct_tile_path(-1, index, width, path);
        err = ct_fetch_get_rest(mirror->fetch, SOURCE, path, offset, out);
    }
    CT_TRY(err);
    return ct_bundle_parse(ct_buf_bytes(out), width - here, append, &arrival);
}

static enum ct_err fetch_entries(struct ct_mirror *mirror, uint64_t size) {
    struct ct_buf bundle;
    size_t waiting = 0;
    ct_buf_init(&bundle, BUNDLE_BYTES_MAX);
    enum ct_err err = CT_OK;
    while (err == CT_OK && ct_ledger_size(mirror->ledger) < size) {
        err = fetch_bundle(mirror, size, &bundle);
        waiting += bundle.length;
        if (err == CT_OK && waiting > WAITING_BYTES_MAX) {
            err = ct_ledger_store(mirror->ledger);
            waiting = 0;
        }
    }
    ct_buf_deinit(&bundle);
    return err;
}

/* --- two histories --- */

/* `note` does not follow from the copy, for the reason that was just given. */
static enum ct_err seek_fork(struct ct_mirror *mirror, struct ct_bytes note, enum ct_err why) {
    char detail[400], evidence[PATH_MAX], ledger[PATH_MAX];
    snprintf(detail, sizeof detail, "%s", ct_err_detail());
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_EVIDENCE, evidence));
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_LEDGER, ledger));
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    ct_tile_source_init(source, ct_ledger_published(mirror->ledger), ct_tile_read_dir, ledger);
    const struct ct_fork_side own = {mirror->opened.origin, &mirror->opened.log_key,
                                     ct_ledger_checkpoint(mirror->ledger), ct_tile_source_hash,
                                     source};
    /* Before the first checkpoint there is nothing to compare with. */
    const enum ct_err found =
        own.note.length > 0 ? ct_fork_seek(&own, note, mirror->fetch, evidence) : CT_ERR_NOT_FOUND;
    ct_tile_source_deinit(source);
    free(source);
    return found == CT_ERR_FORKED || found == CT_ERR_STATE ? found : ct_fail(why, "%s", detail);
}

/* --- one checkpoint --- */

static enum ct_err open_note(const struct ct_mirror *mirror, struct ct_bytes note,
                             struct ct_checkpoint *out) {
    return ct_checkpoint_open(note, mirror->opened.origin, &mirror->opened.log_key, out);
}

/* Brings entries and their blobs up to a larger checkpoint, and publishes it. */
static enum ct_err step_to(struct ct_mirror *mirror, struct ct_bytes note,
                           const struct ct_checkpoint *checkpoint) {
    struct ct_ledger *ledger = mirror->ledger;
    struct ct_hash root;
    if (ct_ledger_size(ledger) > checkpoint->size) {
        /* Left by an interrupted way to a larger one. */
        CT_TRY(ct_ledger_cut(ledger, checkpoint->size));
    }
    CT_TRY(fetch_entries(mirror, checkpoint->size));
    CT_TRY(ct_ledger_root(ledger, checkpoint->size, &root));
    if (!ct_hash_equal(&root, &checkpoint->root)) {
        CT_TRY(ct_ledger_cut(ledger, ct_ledger_published(ledger)));
        const enum ct_err err =
            ct_fail(CT_ERR_DIGEST,
                    "the entries that are served do not lead from this copy of %" PRIu64
                    " entries to the checkpoint of %" PRIu64 "; nothing was replaced",
                    ct_ledger_published(ledger), checkpoint->size);
        return seek_fork(mirror, note, err);
    }
    CT_TRY(ct_mirror_fetch_blobs(mirror, checkpoint->size));
    return ct_ledger_accept(ledger, note);
}

/* A note over no more than the copy has: of its history, or of another. */
static enum ct_err check_old(struct ct_mirror *mirror, struct ct_bytes note,
                             const struct ct_checkpoint *checkpoint) {
    struct ct_hash root;
    CT_TRY(ct_ledger_root(mirror->ledger, checkpoint->size, &root));
    if (ct_hash_equal(&root, &checkpoint->root)) {
        return CT_OK;
    }
    const enum ct_err err =
        ct_fail(CT_ERR_DIGEST,
                "a checkpoint of %" PRIu64 " entries that this copy's first entries do not give",
                checkpoint->size);
    return seek_fork(mirror, note, err);
}

/* The same checkpoint with more signatures takes the place of the one that is here. */
static enum ct_err take_cosigned(struct ct_mirror *mirror, struct ct_bytes note) {
    return note.length > ct_ledger_checkpoint(mirror->ledger).length
               ? ct_ledger_cosign(mirror->ledger, note, false)
               : CT_OK;
}

static enum ct_err take_kept(struct ct_mirror *mirror, uint64_t size, struct ct_buf *note) {
    char path[64];
    struct ct_checkpoint checkpoint;
    snprintf(path, sizeof path, CT_HTTP_KEPT "/%" PRIu64, size);
    CT_TRY(get_note(mirror, path, note));
    if (note->length == 0 || open_note(mirror, ct_buf_bytes(note), &checkpoint) != CT_OK ||
        checkpoint.size != size) {
        ct_log(CT_LOG_WARN, "mirror", "%s is no checkpoint of this log: left out", path);
        return CT_OK;
    }
    if (size > ct_ledger_published(mirror->ledger)) {
        CT_TRY(step_to(mirror, ct_buf_bytes(note), &checkpoint));
    } else {
        CT_TRY(check_old(mirror, ct_buf_bytes(note), &checkpoint));
    }
    return ct_ledger_keep_note(mirror->ledger, ct_buf_bytes(note));
}

/* From one kept checkpoint to the next, up to `size`. A source that tells none is a static one. */
static enum ct_err take_all_kept(struct ct_mirror *mirror, uint64_t size) {
    struct ct_buf text, note;
    uint64_t *sizes = NULL;
    size_t count = 0;
    ct_buf_init(&text, CT_KEPT_LIST_BYTES_MAX);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = get_note(mirror, CT_HTTP_KEPT, &text);
    if (err == CT_OK && ct_kept_list_parse(ct_buf_bytes(&text), &sizes, &count) != CT_OK) {
        ct_log(CT_LOG_DEBUG, "mirror", "the source does not list its kept checkpoints");
    }
    for (size_t i = 0; i < count && err == CT_OK && sizes[i] <= size; i++) {
        if (!ct_ledger_has_kept(mirror->ledger, sizes[i])) {
            err = take_kept(mirror, sizes[i], &note);
        }
    }
    free(sizes);
    ct_buf_deinit(&note);
    ct_buf_deinit(&text);
    return err;
}

/* The newest checkpoint with the quorum of witnesses, once the copy leads to it. */
static enum ct_err take_witnessed(struct ct_mirror *mirror) {
    struct ct_buf note, own;
    struct ct_checkpoint checkpoint;
    char path[PATH_MAX];
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_LEDGER "/" CT_HTTP_WITNESSED, path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&own, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = get_note(mirror, CT_HTTP_WITNESSED, &note);
    const bool here = ct_file_read(path, &own) == CT_OK && own.length == note.length &&
                      memcmp(own.data, note.data, own.length) == 0;
    if (err == CT_OK && note.length > 0 && !here &&
        open_note(mirror, ct_buf_bytes(&note), &checkpoint) == CT_OK &&
        checkpoint.size <= ct_ledger_published(mirror->ledger)) {
        err = check_old(mirror, ct_buf_bytes(&note), &checkpoint);
        if (err == CT_OK) {
            err = ct_ledger_cosign(mirror->ledger, ct_buf_bytes(&note), true);
        }
    }
    ct_buf_deinit(&own);
    ct_buf_deinit(&note);
    return err;
}

static enum ct_err advance_to(struct ct_mirror *mirror, struct ct_bytes note) {
    struct ct_checkpoint checkpoint;
    CT_TRY(open_note(mirror, note, &checkpoint));
    if (checkpoint.size < ct_ledger_published(mirror->ledger)) {
        CT_TRY(check_old(mirror, note, &checkpoint));
        return ct_fail(CT_ERR_RULE,
                       "the source shows an older checkpoint, of %" PRIu64
                       " entries, than this copy of %" PRIu64
                       " has: it was rolled back, or lags behind; nothing was replaced",
                       checkpoint.size, ct_ledger_published(mirror->ledger));
    }
    CT_TRY(take_all_kept(mirror, checkpoint.size));
    if (checkpoint.size > ct_ledger_published(mirror->ledger)) {
        CT_TRY(step_to(mirror, note, &checkpoint));
    } else {
        CT_TRY(check_old(mirror, note, &checkpoint));
        CT_TRY(take_cosigned(mirror, note));
    }
    return take_witnessed(mirror);
}

/* --- what has expired --- */

static enum ct_err hear_entry(void *user, struct ct_bytes entry) {
    uint32_t *hint = user;
    const uint32_t closed = ct_mirror_closed_by(entry);
    *hint = closed > *hint ? closed : *hint;
    return CT_OK;
}

/* A copy that is far behind would ask for payloads that expired while it was: what the last entries
 * say has closed is taken as a hint what need not be asked for, until the copy knows. */
static void take_hint(struct ct_mirror *mirror, struct ct_bytes note) {
    struct ct_checkpoint checkpoint;
    struct ct_buf bundle;
    char path[CT_TILE_PATH_MAX];
    /* Not for what two rounds on the average have: nothing of them has expired. */
    const uint64_t near = 2 * mirror->named.next / (mirror->named.closed + 1u);
    if (open_note(mirror, note, &checkpoint) != CT_OK ||
        checkpoint.size <= ct_ledger_published(mirror->ledger) + near) {
        return;
    }
    const uint64_t index = (checkpoint.size - 1) / CT_TILE_WIDTH;
    uint32_t width = (uint32_t)(checkpoint.size - index * CT_TILE_WIDTH);
    ct_buf_init(&bundle, BUNDLE_BYTES_MAX);
    ct_tile_path(-1, index, width, path);
    enum ct_err err = ct_fetch_get_from(mirror->fetch, SOURCE, path, &bundle);
    if (err == CT_ERR_NOT_FOUND) {
        width = CT_TILE_WIDTH;
        ct_tile_path(-1, index, width, path);
        err = ct_fetch_get_from(mirror->fetch, SOURCE, path, &bundle);
    }
    if (err == CT_OK) {
        err = ct_bundle_parse(ct_buf_bytes(&bundle), width, hear_entry, &mirror->named.hint);
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_DEBUG, "mirror", "no word of the last round: %s", ct_err_detail());
    }
    ct_buf_deinit(&bundle);
}

static uint32_t line_at(const struct ct_mirror *mirror, uint32_t closed) {
    return mirror->named.knows_run ? ct_retention_expired(&mirror->named.manifest, closed) : 0;
}

/* The copy knows now what has expired. What a false hint let out is looked for after all; what was
 * lacking and has expired since lacks no more. */
static enum ct_err settle_expired(struct ct_mirror *mirror) {
    struct ct_mirror_blobs *named = &mirror->named;
    const uint32_t line = line_at(mirror, named->closed);
    if (line_at(mirror, named->hint) > line) {
        named->next = 0;
        named->lacking = 0;
    }
    named->hint = 0;
    if (named->lacking > 0 && line > named->settled_round) {
        named->settled_round = line;
        CT_TRY(ct_mirror_again(mirror));
    }
    CT_TRY(ct_mirror_fetch_blobs(mirror, ct_ledger_published(mirror->ledger)));
    while (named->knows_run && !mirror->keep_expired &&
           ct_expiry_is_due(&mirror->expiry, &named->manifest, named->closed)) {
        CT_TRY(ct_expiry_advance(&mirror->expiry, &named->manifest, named->closed, mirror->ledger,
                                 &mirror->blobs));
    }
    return CT_OK;
}

enum ct_err ct_mirror_advance(struct ct_mirror *mirror) {
    struct ct_buf note;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_fetch_get_from(mirror->fetch, SOURCE, CT_HTTP_CHECKPOINT, &note);
    const struct ct_bytes own = ct_ledger_checkpoint(mirror->ledger);
    const bool same = note.length == own.length && memcmp(note.data, own.data, own.length) == 0;
    if (err == CT_OK) {
        take_hint(mirror, ct_buf_bytes(&note));
        /* After a start, all that the copy covers is looked through once: blobs may have been lost.
         */
        err = ct_mirror_fetch_blobs(mirror, ct_ledger_published(mirror->ledger));
    }
    /* A checkpoint is kept a moment after it is published: asked for once more. */
    if (err == CT_OK && !(same && mirror->settled)) {
        mirror->settled = same;
        err = advance_to(mirror, ct_buf_bytes(&note));
    }
    ct_buf_deinit(&note);
    return err == CT_OK ? settle_expired(mirror) : err;
}

enum ct_err ct_mirror_again(struct ct_mirror *mirror) {
    struct ct_mirror_blobs *named = &mirror->named;
    if (named->lacking > 0) {
        named->next = named->lacking_entry;
        named->lacking = 0;
    }
    return ct_mirror_fetch_blobs(mirror, ct_ledger_published(mirror->ledger));
}
