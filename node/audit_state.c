#include "audit_state.h"

#include "audit_copy.h"
#include "audit_since.h"
#include "node_dir.h"

#include <cotrain/log.h>
#include <cotrain/run_dir.h>

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERIFIED_BYTES_MAX 4096u

static enum ct_err path_of(const struct ct_audit_state *state, const char *name,
                           char out[PATH_MAX]) {
    const int length = snprintf(out, PATH_MAX, "%s/%s", state->dir, name);
    return length > 0 && length < PATH_MAX ? CT_OK : ct_fail(CT_ERR_CONFIG, "the path is too long");
}

/* $XDG_CACHE_HOME/cotrain/audit/RUNID; "" when there is no home, or no log to take the id from. */
static void default_dir(struct ct_source *source, char out[PATH_MAX]) {
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    struct ct_buf note, entry;
    struct ct_checkpoint claimed;
    struct ct_run_opened opened;
    struct ct_hash run_id;
    out[0] = '\0';
    const bool has_cache = cache != NULL && cache[0] == '/';
    if (!has_cache && (home == NULL || home[0] != '/')) {
        return;
    }
    if (ct_source_read(source, CT_RUN_LEDGER "/checkpoint", CT_CHECKPOINT_BYTES_MAX, &note) !=
        CT_OK) {
        return; /* the audit will say so */
    }
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    if (ct_checkpoint_parse(ct_buf_bytes(&note), &claimed) == CT_OK &&
        ct_audit_first_entry(source, claimed.size, &entry) == CT_OK &&
        ct_run_opening(ct_buf_bytes(&entry), &opened, &run_id) == CT_OK) {
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&run_id, hex);
        const int length = snprintf(out, PATH_MAX, "%s%s/cotrain/audit/%s",
                                    has_cache ? cache : home, has_cache ? "" : "/.cache", hex);
        if (length < 0 || length > PATH_MAX - 128) {
            out[0] = '\0';
        }
    }
    ct_buf_deinit(&entry);
    ct_buf_deinit(&note);
}

/* A file that says something else is as good as none. */
static void load(struct ct_audit_state *state) {
    char path[PATH_MAX];
    struct ct_buf bytes;
    const char *run_id = NULL, *root = NULL;
    json_int_t version = 0, size = 0, round = 0;
    if (path_of(state, "verified.json", path) != CT_OK) {
        return;
    }
    ct_buf_init(&bytes, VERIFIED_BYTES_MAX);
    json_t *object = ct_file_read(path, &bytes) == CT_OK
                         ? json_loadb((const char *)bytes.data, bytes.length, 0, NULL)
                         : NULL;
    state->has_verified =
        object != NULL &&
        json_unpack(object, "{s:I, s:s, s:I, s:s, s:I}", "version", &version, "run_id", &run_id,
                    "size", &size, "root", &root, "replayed_round", &round) == 0 &&
        version == 1 && size > 0 && round >= 0 && round < UINT32_MAX &&
        ct_hash_parse(run_id, &state->run_id) == CT_OK &&
        ct_hash_parse(root, &state->root) == CT_OK;
    state->size = (uint64_t)size;
    state->replayed_round = (uint32_t)round;
    json_decref(object);
    ct_buf_deinit(&bytes);
}

enum ct_err ct_audit_state_open(struct ct_source *source, const struct ct_audit_options *options,
                                struct ct_audit_state *out) {
    memset(out, 0, sizeof *out);
    out->lock = -1;
    const bool remote = ct_source_directory(source) == NULL;
    if (options->state_dir != NULL) {
        if (strlen(options->state_dir) > PATH_MAX - 128) {
            return ct_fail(CT_ERR_CONFIG, "the path of --state is too long");
        }
        snprintf(out->dir, sizeof out->dir, "%s", options->state_dir);
    } else if (remote && options->keep_default) {
        default_dir(source, out->dir);
    }
    if (out->dir[0] == '\0') {
        return CT_OK;
    }
    CT_TRY(ct_dir_make(out->dir));
    if (ct_node_dir_lock(out->dir, &out->lock) != CT_OK) {
        return ct_fail(CT_ERR_STATE,
                       "another audit is at work in %s: wait for it, or choose another directory "
                       "with --state",
                       out->dir);
    }
    load(out);
    return remote ? ct_source_keep(source, out->dir) : CT_OK;
}

void ct_audit_state_close(struct ct_audit_state *state) {
    if (state->lock >= 0) {
        close(state->lock);
        state->lock = -1;
    }
}

/* Whether the note is that of what was verified; anything else is a damaged file of ours, and no
 * word against the log. */
static bool belongs(const struct ct_audit_state *state, const struct ct_run_opened *opened,
                    struct ct_bytes note) {
    struct ct_checkpoint kept;
    return ct_checkpoint_open(note, opened->origin, &opened->log_key, &kept) == CT_OK &&
           kept.size == state->size && ct_hash_equal(&kept.root, &state->root);
}

enum ct_err ct_audit_state_match(const struct ct_audit_state *state, struct ct_audit *audit) {
    char path[PATH_MAX];
    struct ct_checkpoint kept;
    enum ct_audit_held held = CT_HELD_NEITHER;
    struct ct_buf note;
    if (!state->has_verified || !ct_hash_equal(&state->run_id, &audit->log.run_id)) {
        return CT_OK;
    }
    CT_TRY(path_of(state, "checkpoint", path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK && belongs(state, &audit->log.opened, ct_buf_bytes(&note))) {
        err = ct_audit_hold(audit, state->dir, ct_buf_bytes(&note), path, &kept, &held);
    } else if (err == CT_OK || err == CT_ERR_TOO_LARGE) {
        ct_log(CT_LOG_WARN, "audit",
               "%s is damaged: starting anew, without holding the log to what was seen before",
               path);
        err = CT_OK;
    } else if (err == CT_ERR_NOT_FOUND) {
        err = CT_OK;
    }
    ct_buf_deinit(&note);
    CT_TRY(err);
    if (held == CT_HELD_CONSISTENT && !audit->options->fresh) {
        audit->verified = state->size;
        audit->report->from_entry = state->size;
        audit->report->from_round = audit->options->replay ? state->replayed_round : 0;
    }
    return CT_OK;
}

enum ct_err ct_audit_state_save(struct ct_audit_state *state, const struct ct_audit *audit,
                                uint32_t replayed_round) {
    char path[PATH_MAX], run_id[CT_HEX_BYTES], root[CT_HEX_BYTES];
    if (state->dir[0] == '\0' || audit->report->finding_count > 0 ||
        audit->end != audit->log.checkpoint.size || ct_audit_is_narrow(&audit->options->narrow)) {
        return CT_OK;
    }
    ct_hash_hex(&audit->log.run_id, run_id);
    ct_hash_hex(&audit->log.checkpoint.root, root);
    json_t *object = json_pack("{s:i, s:s, s:I, s:s, s:I}", "version", 1, "run_id", run_id, "size",
                               (json_int_t)audit->log.checkpoint.size, "root", root,
                               "replayed_round", (json_int_t)replayed_round);
    char *text = object == NULL ? NULL : json_dumps(object, JSON_INDENT(2));
    json_decref(object);
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a record");
    }
    /* The note first: it is what proves something. */
    enum ct_err err = path_of(state, "checkpoint", path);
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&audit->log.note));
    }
    if (err == CT_OK) {
        err = path_of(state, "verified.json", path);
    }
    if (err == CT_OK) {
        err = ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, strlen(text)});
    }
    free(text);
    return err;
}
