/* The blobs that a log's entries name, brought into a mirror's store. What an entry means for the
 * run is not judged here: a copy of a log that breaks the rules is worth having, and an audit
 * tells.
 */
#include "mirror.h"

#include <cotrain/dataset.h>
#include <cotrain/log.h>
#include <cotrain/retention.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void lack(struct ct_mirror *mirror, const struct ct_blob_ref *ref, const char *why) {
    struct ct_mirror_blobs *named = &mirror->named;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&ref->sha256, hex);
    ct_log(CT_LOG_WARN, "mirror", "blob %s, named by entry %" PRIu64 ", is lacking: %s", hex,
           named->next, why);
    if (named->lacking++ == 0) {
        named->lacking_entry = named->next;
        memcpy(named->lacking_name, hex, sizeof hex);
    }
}

/* A blob of `maximum` bytes at most. */
static enum ct_err want(struct ct_mirror *mirror, const struct ct_blob_ref *ref, uint64_t maximum) {
    if (ref->length > maximum) {
        lack(mirror, ref, "it is longer than such a blob can be");
        return CT_OK;
    }
    const enum ct_err err = ct_fetch_blob(mirror->fetch, ref, &mirror->blobs);
    if (err == CT_ERR_NOT_FOUND || err == CT_ERR_DIGEST || err == CT_ERR_TOO_LARGE) {
        const bool may_expire =
            mirror->named.knows_run && mirror->named.manifest.retention_rounds > 0;
        lack(mirror, ref,
             err != CT_ERR_NOT_FOUND ? ct_err_detail()
             : may_expire ? "the source does not have it, or no more: it may have expired"
                          : "the source does not have it");
        return CT_OK;
    }
    return err;
}

static enum ct_err want_dataset(struct ct_mirror *mirror, const struct ct_blob_ref *ref) {
    struct ct_buf json;
    struct ct_dataset dataset;
    CT_TRY(want(mirror, ref, CT_DATASET_BYTES_MAX));
    if (!ct_blobs_have(&mirror->blobs, ref)) {
        return CT_OK;
    }
    CT_TRY(ct_blobs_get(&mirror->blobs, ref, CT_DATASET_BYTES_MAX, &json));
    enum ct_err err = ct_dataset_parse(ct_buf_bytes(&json), &dataset);
    ct_buf_deinit(&json);
    if (err == CT_ERR_MEMORY) {
        return err;
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "mirror", "the run's data set cannot be read: %s", ct_err_detail());
        return CT_OK;
    }
    for (uint32_t i = 0; i < dataset.shard_count && err == CT_OK; i++) {
        err = want(mirror, &dataset.shards[i].ref, CT_BLOB_BYTES_MAX);
    }
    ct_dataset_deinit(&dataset);
    return err;
}

/* How large the blobs of this run can be. */
static enum ct_err learn(struct ct_mirror_blobs *named, const struct ct_manifest *manifest) {
    struct ct_layout layout;
    struct ct_chunks chunks;
    CT_TRY(ct_layout_init(&layout, &manifest->model));
    enum ct_err err = ct_chunks_init(&chunks, &layout);
    if (err == CT_OK) {
        named->update_bytes_max = ct_update_bytes_max(&chunks);
        named->snapshot_bytes = layout.parameters * sizeof(float);
        ct_chunks_deinit(&chunks);
    }
    ct_layout_deinit(&layout);
    return err;
}

static enum ct_err want_run(struct ct_mirror *mirror, const struct ct_blob_ref *ref) {
    struct ct_manifest manifest;
    struct ct_buf bytes;
    CT_TRY(want(mirror, ref, CT_MANIFEST_BYTES_MAX));
    if (!ct_blobs_have(&mirror->blobs, ref)) {
        return CT_OK;
    }
    CT_TRY(ct_blobs_get(&mirror->blobs, ref, CT_MANIFEST_BYTES_MAX, &bytes));
    enum ct_err err = ct_manifest_decode(ct_buf_bytes(&bytes), &manifest);
    ct_buf_deinit(&bytes);
    CT_TRY(err);
    err = learn(&mirror->named, &manifest);
    if (err != CT_OK) {
        ct_manifest_deinit(&manifest);
        return err;
    }
    ct_mirror_forget_run(&mirror->named);
    mirror->named.manifest = manifest;
    mirror->named.knows_run = true;
    return want_dataset(mirror, &manifest.dataset);
}

void ct_mirror_forget_run(struct ct_mirror_blobs *named) {
    if (named->knows_run) {
        ct_manifest_deinit(&named->manifest);
        named->knows_run = false;
    }
}

static enum ct_err decode(struct ct_bytes bytes, struct ct_entry *out) {
    struct ct_envelope envelope;
    CT_TRY(ct_envelope_open(bytes, &envelope));
    return ct_entry_decode(envelope.payload, out);
}

/* Its payloads need not be anywhere any more. */
static bool has_expired(const struct ct_mirror_blobs *named, uint32_t round) {
    const uint32_t closed = named->hint > named->closed ? named->hint : named->closed;
    return named->knows_run && round <= ct_retention_expired(&named->manifest, closed);
}

/* An update; one that has expired is taken where it is still to be had, if at all. */
static enum ct_err want_payload(struct ct_mirror *mirror, const struct ct_blob_ref *ref,
                                uint32_t round) {
    const struct ct_mirror_blobs *named = &mirror->named;
    if (!has_expired(named, round)) {
        return want(mirror, ref, named->update_bytes_max);
    }
    if (!mirror->keep_expired || ref->length > named->update_bytes_max) {
        return CT_OK;
    }
    const enum ct_err err = ct_fetch_blob(mirror->fetch, ref, &mirror->blobs);
    return err == CT_ERR_NOT_FOUND || err == CT_ERR_DIGEST || err == CT_ERR_TOO_LARGE ? CT_OK : err;
}

/* The update of the commit that an entry says was received. */
static enum ct_err want_update(struct ct_mirror *mirror, uint64_t commit_index, uint32_t round) {
    struct ct_entry entry;
    struct ct_envelope envelope;
    struct ct_commit commit;
    struct ct_buf bytes;
    if (commit_index >= mirror->named.next) {
        return ct_fail(CT_ERR_RULE, "it names a later entry");
    }
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_ledger_read(mirror->ledger, commit_index, &bytes);
    if (err == CT_OK) {
        err = decode(ct_buf_bytes(&bytes), &entry);
    }
    ct_buf_deinit(&bytes);
    CT_TRY(err);
    if (entry.kind != CT_ENTRY_COMMIT) {
        return ct_fail(CT_ERR_RULE, "it names an entry that is no commit");
    }
    CT_TRY(ct_envelope_open((struct ct_bytes){entry.body.commit.envelope, entry.body.commit.length},
                            &envelope));
    CT_TRY(ct_commit_decode(envelope.payload, &commit));
    return want_payload(mirror, &commit.update, round);
}

static enum ct_err want_snapshot(struct ct_mirror *mirror, const struct ct_hash *model) {
    const struct ct_blob_ref ref = {*model, mirror->named.snapshot_bytes};
    return mirror->named.knows_run ? want(mirror, &ref, ref.length) : CT_OK;
}

static enum ct_err take(struct ct_mirror *mirror, const struct ct_entry *entry) {
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        return want_run(mirror, &entry->body.run_opened.manifest);
    case CT_ENTRY_ROUND_OPENED:
        return want(mirror, &entry->body.round_opened.assignments, CT_ASSIGNMENTS_BYTES_MAX);
    case CT_ENTRY_RECEIVED:
        return want_update(mirror, entry->body.received.commit_index, entry->round);
    case CT_ENTRY_ROUND_CLOSED:
        CT_TRY(want(mirror, &entry->body.round_closed.merged, CT_MERGE_LIST_BYTES_MAX));
        if (entry->body.round_closed.has_snapshot) {
            CT_TRY(want_snapshot(mirror, &entry->body.round_closed.model));
        }
        if (entry->round > mirror->named.round) {
            mirror->named.round = entry->round;
        }
        if (entry->round > mirror->named.closed) {
            mirror->named.closed = entry->round;
        }
        return CT_OK;
    case CT_ENTRY_NODE_ADMITTED:
    case CT_ENTRY_COMMIT:
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_REFUSED:
        break;
    }
    return CT_OK;
}

enum ct_err ct_mirror_fetch_blobs(struct ct_mirror *mirror, uint64_t size) {
    struct ct_mirror_blobs *named = &mirror->named;
    struct ct_buf bytes;
    struct ct_entry entry;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (; named->next < size && err == CT_OK; named->next += err == CT_OK) {
        err = ct_ledger_read(mirror->ledger, named->next, &bytes);
        if (err != CT_OK) {
            break;
        }
        err = decode(ct_buf_bytes(&bytes), &entry);
        if (err == CT_OK) {
            err = take(mirror, &entry);
        }
        if (err == CT_ERR_FORMAT || err == CT_ERR_RULE || err == CT_ERR_CONFIG) {
            ct_log(CT_LOG_WARN, "mirror", "entry %" PRIu64 ": %s; it is kept as it is", named->next,
                   ct_err_detail());
            err = CT_OK;
        }
    }
    ct_buf_deinit(&bytes);
    return err;
}

uint32_t ct_mirror_closed_by(struct ct_bytes bytes) {
    struct ct_entry entry;
    if (decode(bytes, &entry) != CT_OK || entry.round == 0) {
        return 0;
    }
    return entry.round - (entry.kind != CT_ENTRY_ROUND_CLOSED);
}

enum ct_err ct_mirror_find_closed(struct ct_mirror *mirror) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    mirror->named.closed = 0;
    for (uint64_t left = ct_ledger_published(mirror->ledger);
         left > 0 && err == CT_OK && mirror->named.closed == 0; left--) {
        err = ct_ledger_read(mirror->ledger, left - 1, &bytes);
        if (err == CT_OK) {
            mirror->named.closed = ct_mirror_closed_by(ct_buf_bytes(&bytes));
        }
    }
    ct_buf_deinit(&bytes);
    return err;
}
