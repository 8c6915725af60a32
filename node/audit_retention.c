/* What the run's manifest lets expire, as far as an audit meets it (retention.h). */
#include "audit_copy.h"
#include "audit_pass.h"

#include <cotrain/retention.h>
#include <cotrain/run_dir.h>

#include <stdio.h>
#include <time.h>

/* The last round that has closed before the log's newest entry of a round: a later round's entries
 * tell that too. Whether the rules allow them is for the pass to say. */
static enum ct_err find_closed(const struct ct_audit_log *log, uint32_t *out) {
    struct ct_audit_bundle bundle = {0};
    enum ct_err err = CT_OK;
    bool found = false;
    *out = 0;
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    const uint64_t size = log->checkpoint.size;
    for (uint64_t left = (size + CT_TILE_WIDTH - 1) / CT_TILE_WIDTH; left > 0 && !found; left--) {
        err = ct_audit_log_bundle(log, left - 1, &bundle);
        if (err != CT_OK) {
            break;
        }
        const uint64_t rest = size - (left - 1) * CT_TILE_WIDTH;
        for (uint32_t at = rest < bundle.count ? (uint32_t)rest : bundle.count; at > 0 && !found;) {
            struct ct_envelope envelope;
            struct ct_entry entry;
            found = ct_envelope_open(ct_audit_bundle_entry(&bundle, --at), &envelope) == CT_OK &&
                    ct_entry_decode(envelope.payload, &entry) == CT_OK && entry.round > 0;
            if (found) {
                *out = entry.round - (entry.kind != CT_ENTRY_ROUND_CLOSED);
            }
        }
    }
    ct_buf_deinit(&bundle.bytes);
    return err;
}

enum ct_err ct_audit_draw_line(struct ct_audit *audit) {
    struct ct_audit_expired *expired = &audit->report->expired;
    struct ct_manifest *manifest = &audit->manifest;
    struct ct_buf bytes;
    uint32_t closed = 0;
    enum ct_err err =
        ct_source_blob(audit->source, &audit->log.opened.manifest, CT_MANIFEST_BYTES_MAX, &bytes);
    if (err != CT_OK) {
        return err == CT_ERR_MEMORY ? err : CT_OK; /* the pass will say so */
    }
    err = ct_manifest_decode(ct_buf_bytes(&bytes), manifest);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return err == CT_ERR_MEMORY ? err : CT_OK;
    }
    expired->rounds = manifest->retention_rounds;
    if (expired->rounds > 0) {
        err = find_closed(&audit->log, &closed);
        expired->line = ct_retention_expired(manifest, closed);
    }
    /* A server is not asked for what it need not have. */
    audit->seeks_expired =
        ct_source_directory(audit->source) != NULL || ct_source_has_blobs(audit->source);
    return err;
}

struct hearing {
    const struct ct_hash *key;
    uint32_t closed;
};

/* The coordinator's signed word is enough: it answers for it. */
static enum ct_err hear_entry(void *user, struct ct_bytes bytes) {
    struct hearing *hearing = user;
    struct ct_envelope envelope;
    struct ct_entry entry;
    if (ct_envelope_open(bytes, &envelope) == CT_OK &&
        ct_entry_decode(envelope.payload, &entry) == CT_OK && entry.round > 0 &&
        ct_envelope_verify(&envelope, hearing->key) == CT_OK) {
        const uint32_t closed = entry.round - (entry.kind != CT_ENTRY_ROUND_CLOSED);
        hearing->closed = closed > hearing->closed ? closed : hearing->closed;
    }
    return CT_OK;
}

static uint64_t seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec + 1;
}

/* The run goes on while it is audited: its newest entries may have moved the line. */
static void look_again(struct ct_audit *audit) {
    const struct ct_run_opened *opened = &audit->log.opened;
    struct ct_audit_expired *expired = &audit->report->expired;
    struct hearing hearing = {.key = &opened->identity_key};
    struct ct_checkpoint checkpoint;
    struct ct_buf note;
    if (ct_source_read(audit->source, CT_RUN_LEDGER "/checkpoint", CT_CHECKPOINT_BYTES_MAX,
                       &note) != CT_OK) {
        return;
    }
    if (ct_checkpoint_open(ct_buf_bytes(&note), opened->origin, &opened->log_key, &checkpoint) ==
            CT_OK &&
        checkpoint.size > audit->log.checkpoint.size &&
        ct_audit_last_entries(audit->source, checkpoint.size, hear_entry, &hearing) == CT_OK) {
        const uint32_t line = ct_retention_expired(&audit->manifest, hearing.closed);
        expired->line = line > expired->line ? line : expired->line;
    }
    ct_buf_deinit(&note);
}

bool ct_audit_has_expired(struct ct_audit *audit, uint32_t round) {
    const struct ct_audit_expired *expired = &audit->report->expired;
    const uint64_t now = seconds_now();
    if (round > expired->line && expired->rounds > 0 && now != audit->looked_seconds) {
        char reason[400]; /* why the caller asks */
        snprintf(reason, sizeof reason, "%s", ct_err_detail());
        audit->looked_seconds = now;
        look_again(audit);
        (void)!ct_fail(CT_ERR_NOT_FOUND, "%s", reason);
    }
    return round <= expired->line;
}

void ct_audit_note_gone(struct ct_audit *audit, uint32_t round, const struct ct_blob_ref *update) {
    struct ct_audit_expired *expired = &audit->report->expired;
    expired->first_round = expired->updates == 0 ? round : expired->first_round;
    expired->last_round = round;
    expired->updates++;
    expired->bytes += update->length;
}

void ct_audit_note_base(struct ct_audit *audit, const struct ct_fold *fold, bool merges,
                        bool *base_known) {
    struct ct_audit_expired *expired = &audit->report->expired;
    const bool follows = *base_known && merges;
    expired->aggregations += !follows;
    *base_known = follows || fold->round_closed.has_snapshot;
    if (*base_known && !follows) {
        expired->trusted_round = fold->round;
    }
}
