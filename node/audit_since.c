#include "audit_since.h"

#include "audit_copy.h"

#include <cotrain/evidence.h>
#include <cotrain/run_dir.h>
#include <cotrain/tile_source.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two checkpoints that are compared: the log's, and one that the auditor has. */
struct comparison {
    struct ct_audit *audit;
    const char *dir; /* of what earlier audits kept; "" for none */
    struct ct_bytes note;
    struct ct_checkpoint earlier;
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_buf evidence;
};

static enum ct_err seek(struct comparison *with, ct_subtree_hash hash, void *user) {
    return ct_evidence_seek(with->vkey, with->note, ct_buf_bytes(&with->audit->log.note), hash,
                            user, &with->evidence);
}

static enum ct_err seek_in_log(struct comparison *with, const struct ct_audit_log *log) {
    struct ct_audit_roots *roots = calloc(1, sizeof *roots);
    if (roots == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for hashes");
    }
    roots->log = log;
    const enum ct_err err = seek(with, ct_audit_roots_hash, roots);
    free(roots);
    return err;
}

/* In the entries that an earlier audit of a URL kept; the audit that found others under the same
 * name has put them aside. */
static enum ct_err seek_in_kept(struct comparison *with, const char *name) {
    char path[PATH_MAX];
    const int length = snprintf(path, sizeof path, "%s/%s", with->dir, name);
    const int fd = with->dir[0] != '\0' && length > 0 && (size_t)length < sizeof path
                       ? open(path, O_RDONLY | O_CLOEXEC)
                       : -1;
    if (fd < 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "no entries are kept there");
    }
    struct ct_audit_log kept;
    enum ct_err err = ct_audit_log_kept(with->audit->pool, fd, &kept);
    if (err == CT_OK) {
        err = seek_in_log(with, &kept);
    }
    ct_audit_log_deinit(&kept);
    return err;
}

static enum ct_err read_tile(void *user, const char *path, struct ct_buf *out) {
    char name[CT_TILE_PATH_MAX + sizeof CT_RUN_LEDGER];
    struct ct_buf bytes;
    snprintf(name, sizeof name, CT_RUN_LEDGER "/%s", path);
    CT_TRY(ct_source_read(user, name, CT_TILE_BYTES, &bytes));
    ct_buf_clear(out);
    const enum ct_err err = ct_buf_append(out, bytes.data, bytes.length);
    ct_buf_deinit(&bytes);
    return err;
}

static enum ct_err seek_in_tiles(struct comparison *with) {
    struct ct_tile_source *tiles = malloc(sizeof *tiles);
    if (tiles == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for tiles");
    }
    ct_tile_source_init(tiles, with->earlier.size, read_tile, with->audit->source);
    const enum ct_err err = seek(with, ct_tile_source_hash, tiles);
    ct_tile_source_deinit(tiles);
    free(tiles);
    return err;
}

static bool is_decided(enum ct_err err) {
    return err == CT_OK || err == CT_ERR_FORKED || err == CT_ERR_MEMORY;
}

/* The auditor's tree is the larger one: whoever still has it decides. */
static enum ct_err seek_in_larger(struct comparison *with) {
    static const char *const kept[] = {CT_AUDIT_ENTRIES, CT_AUDIT_ENTRIES ".before"};
    enum ct_err err = seek_in_log(with, &with->audit->log); /* entries behind its checkpoint */
    for (size_t i = 0; i < sizeof kept / sizeof kept[0] && !is_decided(err); i++) {
        err = seek_in_kept(with, kept[i]);
    }
    return is_decided(err) ? err : seek_in_tiles(with);
}

static enum ct_err write_evidence(struct comparison *with) {
    struct ct_audit_report *report = with->audit->report;
    char hex[CT_HEX_BYTES];
    const struct ct_hash digest = ct_sha256(ct_buf_bytes(&with->evidence));
    ct_hash_hex(&digest, hex);
    const char *dir = with->dir[0] != '\0' ? with->dir : ".";
    const int length = snprintf(report->evidence, sizeof report->evidence,
                                "%s/two-histories-%.16s.evidence", dir, hex);
    if (length < 0 || (size_t)length >= sizeof report->evidence) {
        report->evidence[0] = '\0';
        return ct_fail(CT_ERR_CONFIG, "the path of %.200s… is too long", dir);
    }
    return ct_file_replace(report->evidence, ct_buf_bytes(&with->evidence));
}

static void find(struct comparison *with, const char *whose, enum ct_audit_held held) {
    const struct ct_checkpoint *shown = &with->audit->log.checkpoint;
    const struct ct_checkpoint *earlier = &with->earlier;
    char here[CT_HEX_BYTES], there[CT_HEX_BYTES], both[300];
    ct_hash_hex(&shown->root, here);
    ct_hash_hex(&earlier->root, there);
    snprintf(both, sizeof both,
             "it signs %" PRIu64 " entries with root %.16s…, and %.100s, under the same key, "
             "%" PRIu64 " with root %.16s…",
             shown->size, here, whose, earlier->size, there);
    static const char file[] = CT_RUN_LEDGER "/checkpoint";
    if (held == CT_HELD_FORKED) {
        ct_audit_find(with->audit->report, CT_FINDING_BROKEN, -1, file,
                      "%s: two histories. %.100s proves it", both, with->audit->report->evidence);
    } else {
        ct_audit_find(with->audit->report, CT_FINDING_BROKEN, -1, file,
                      "%s: the log was cut. That is no proof of two histories; keep that "
                      "checkpoint, it tells others that there was more",
                      both);
    }
}

static enum ct_err compare(struct comparison *with, const char *whose, enum ct_audit_held *out) {
    const struct ct_checkpoint *shown = &with->audit->log.checkpoint;
    const enum ct_err err = with->earlier.size <= shown->size ? seek_in_log(with, &with->audit->log)
                                                              : seek_in_larger(with);
    if (err == CT_ERR_MEMORY) {
        return err;
    }
    if (err == CT_ERR_FORKED) {
        CT_TRY(write_evidence(with));
        *out = CT_HELD_FORKED;
    } else if (with->earlier.size > shown->size) {
        *out = CT_HELD_SHORTER;
    } else if (err == CT_OK) {
        *out = CT_HELD_CONSISTENT;
        return CT_OK;
    } else {
        return err; /* the loaded log gives its checkpoint's root, so it decides */
    }
    find(with, whose, *out);
    return CT_OK;
}

enum ct_err ct_audit_hold(struct ct_audit *audit, const char *dir, struct ct_bytes note,
                          const char *whose, struct ct_checkpoint *out_checkpoint,
                          enum ct_audit_held *out) {
    const struct ct_run_opened *opened = &audit->log.opened;
    struct comparison with = {.audit = audit, .dir = dir, .note = note};
    *out = CT_HELD_NEITHER;
    if (ct_checkpoint_open(note, opened->origin, &opened->log_key, &with.earlier) != CT_OK) {
        ct_audit_find(audit->report, CT_FINDING_BROKEN, -1, CT_RUN_LEDGER "/checkpoint",
                      "%.100s is no checkpoint of the log %.100s as it is shown (%.100s): another "
                      "log is shown than the one that it is from",
                      whose, opened->origin, ct_err_detail());
        return CT_OK;
    }
    *out_checkpoint = with.earlier;
    ct_vkey_format(opened->origin, &opened->log_key, with.vkey);
    ct_buf_init(&with.evidence, CT_EVIDENCE_BYTES_MAX);
    const enum ct_err err = compare(&with, whose, out);
    ct_buf_deinit(&with.evidence);
    return err;
}

enum ct_err ct_audit_since(struct ct_audit *audit, const char *dir) {
    struct ct_audit_report *report = audit->report;
    const char *path = audit->options->since;
    struct ct_checkpoint claimed;
    enum ct_audit_held held = CT_HELD_NEITHER;
    struct ct_buf note;
    if (path == NULL) {
        return CT_OK;
    }
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&note), &claimed);
    }
    if (err != CT_OK) {
        err = ct_fail(err, "--since %.200s: %.200s", path, ct_err_detail());
    } else {
        snprintf(report->since.file, sizeof report->since.file, "%s", path);
        report->since.size = claimed.size;
        report->since.root = claimed.root;
        err = ct_audit_hold(audit, dir, ct_buf_bytes(&note), path, &claimed, &held);
        report->since.holds = err == CT_OK && held == CT_HELD_CONSISTENT;
    }
    ct_buf_deinit(&note);
    return err;
}
