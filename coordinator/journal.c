#include "journal.h"

#include "cache.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FULL_RETRY_MS  1000u
#define FOLD_BYTES_MAX ((size_t)32 << 20)

static void publish(struct ct_journal *journal);

static void on_timer(uv_timer_t *timer) {
    publish(timer->data);
}

/* Several entries of one turn of the loop share a publication: even one that is due waits for the
 * timer. */
static void schedule(struct ct_journal *journal) {
    if (journal->running || journal->failed || journal->stopped ||
        uv_is_active((uv_handle_t *)&journal->timer)) {
        return;
    }
    uint64_t now_ms = uv_now(journal->loop);
    uint64_t due_ms = journal->last_ms == 0 || journal->queued == 0
                          ? now_ms
                          : journal->last_ms + journal->interval_ms;
    if (journal->full) {
        due_ms = now_ms + FULL_RETRY_MS;
    }
    uv_timer_start(&journal->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

static void take_checkpoint(struct ct_journal *journal) {
    struct ct_bytes note = ct_ledger_checkpoint(journal->run->ledger);
    ct_buf_clear(&journal->checkpoint);
    if (ct_buf_append(&journal->checkpoint, note.data, note.length) != CT_OK) {
        journal->err = CT_ERR_MEMORY;
    }
    journal->published = ct_ledger_published(journal->run->ledger);
}

static void save_fold(struct ct_journal *journal) {
    struct ct_folded *folded = &journal->folded_now;
    struct ct_hash root;
    if (folded->size > 0 && folded->size <= ct_ledger_published(journal->run->ledger) &&
        ct_ledger_root(journal->run->ledger, folded->size, &root) == CT_OK) {
        ct_cache_save_fold(journal->run->dir, folded->round, folded->size, &root,
                           ct_buf_bytes(&folded->bytes));
        folded->size = 0;
    }
}

/* Failing costs room alone: it is tried again when the next round has closed. */
static void expire(struct ct_journal *journal) {
    struct ct_run *run = journal->run;
    struct ct_expiry *expiry = &journal->expiry;
    const struct ct_manifest *manifest = &run->replay.fold.manifest;
    if (!journal->expires) {
        return;
    }
    const uint64_t before = expiry->next;
    const enum ct_err err =
        ct_expiry_advance(expiry, manifest, journal->closed_now, run->ledger, &run->blobs);
    journal->expires = err == CT_OK && ct_expiry_is_due(expiry, manifest, journal->closed_now);
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "journal", "updates that have expired are still there: %s",
               ct_err_detail());
    } else if (!journal->expires && expiry->next > before) {
        ct_log(CT_LOG_INFO, "journal",
               "updates of rounds up to %u have expired: %" PRIu64 " removed since the start, "
               "%.1f MB",
               expiry->round, expiry->removed, 1e-6 * (double)expiry->removed_bytes);
    }
    if (expiry->next > before) {
        ct_cache_save_expiry(run->dir, expiry->next);
    }
}

static void run_job(uv_work_t *job) {
    struct ct_journal *journal = job->data;
    if (journal->cosigned_now.length > 0 &&
        ct_ledger_cosign(journal->run->ledger, ct_buf_bytes(&journal->cosigned_now),
                         journal->witnessed_now) != CT_OK) {
        ct_log(CT_LOG_WARN, "journal", "the cosigned checkpoint was not published: %s",
               ct_err_detail());
    }
    journal->err = ct_ledger_publish(journal->run->ledger);
    if (journal->err == CT_OK && journal->keep_now) {
        journal->err = ct_ledger_keep(journal->run->ledger);
    }
    snprintf(journal->detail, sizeof journal->detail, "%s",
             journal->err == CT_OK ? "" : ct_err_detail());
    if (journal->err == CT_OK) {
        save_fold(journal);
        expire(journal);
    }
}

static void on_job_done(uv_work_t *job, int status) {
    (void)status;
    struct ct_journal *journal = job->data;
    journal->running = false;
    enum ct_err err = journal->err;
    journal->full = err == CT_ERR_FULL;
    if (err == CT_OK || journal->full) {
        take_checkpoint(journal);
        journal->keep |= journal->full && journal->keep_now;
    }
    journal->failed = journal->err != CT_OK && !journal->full;
    if (!journal->failed && (journal->full || journal->queued > 0 || journal->cosigned.length > 0 ||
                             journal->expires)) {
        schedule(journal);
    }
    journal->done(journal->user, journal->failed ? journal->err : err, journal->detail);
}

static void publish(struct ct_journal *journal) {
    CT_ASSERT(!journal->running);
    enum ct_err err = CT_OK;
    uint32_t appended = journal->queued;
    for (uint32_t i = 0; i < journal->queued; i++) {
        uint64_t index;
        if (err == CT_OK) {
            err = ct_ledger_append(journal->run->ledger, ct_buf_bytes(&journal->queue[i]), &index);
        }
        ct_buf_deinit(&journal->queue[i]);
    }
    journal->queued = 0;
    journal->keep_now = journal->keep;
    journal->keep = false;
    journal->expires = journal->expires || journal->closed_now != journal->closed;
    journal->closed_now = journal->closed;
    if (appended > 0) {
        journal->last_ms = uv_now(journal->loop);
    }
    struct ct_buf former = journal->cosigned_now;
    journal->cosigned_now = journal->cosigned;
    journal->witnessed_now = journal->witnessed;
    journal->cosigned = former;
    ct_buf_clear(&journal->cosigned);
    if (journal->folded.size > 0) {
        const struct ct_folded folded = journal->folded_now;
        journal->folded_now = journal->folded;
        journal->folded = folded;
        journal->folded.size = 0;
    }
    journal->job.data = journal;
    if (err == CT_OK && uv_queue_work(journal->loop, &journal->job, run_job, on_job_done) < 0) {
        err = ct_fail(CT_ERR_MEMORY, "no job could be started");
    }
    if (err != CT_OK) {
        journal->failed = true;
        journal->done(journal->user, err, ct_err_detail());
        return;
    }
    journal->running = true;
}

enum ct_err ct_journal_init(struct ct_journal *journal, uv_loop_t *loop, struct ct_run *run,
                            uint32_t interval_ms,
                            void (*done)(void *user, enum ct_err err, const char *detail),
                            void *user) {
    *journal = (struct ct_journal){
        .run = run, .loop = loop, .interval_ms = interval_ms, .done = done, .user = user};
    ct_buf_init(&journal->checkpoint, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&journal->cosigned, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&journal->cosigned_now, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&journal->folded.bytes, FOLD_BYTES_MAX);
    ct_buf_init(&journal->folded_now.bytes, FOLD_BYTES_MAX);
    CT_TRY(ct_ledger_publish(run->ledger));
    if (run->replay.fold.phase == CT_PHASE_IDLE || run->replay.fold.phase == CT_PHASE_FINISHED) {
        /* A stop may have come between a round's publication and this. */
        CT_TRY(ct_ledger_keep(run->ledger));
    }
    take_checkpoint(journal);
    if (journal->err != CT_OK) {
        return journal->err;
    }
    const struct ct_fold *fold = &run->replay.fold;
    const bool open = fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
    journal->closed = journal->closed_now = open ? fold->round - 1 : fold->round;
    journal->expiry.next = ct_cache_load_expiry(run->dir);
    for (journal->expires = true; journal->expires;) {
        expire(journal);
    }
    uv_timer_init(loop, &journal->timer);
    journal->timer.data = journal;
    return CT_OK;
}

void ct_journal_stop(struct ct_journal *journal) {
    CT_ASSERT(!journal->running);
    journal->stopped = true;
    uv_close((uv_handle_t *)&journal->timer, NULL);
}

void ct_journal_deinit(struct ct_journal *journal) {
    for (uint32_t i = 0; i < journal->queued; i++) {
        ct_buf_deinit(&journal->queue[i]);
    }
    free(journal->queue);
    ct_buf_deinit(&journal->checkpoint);
    ct_buf_deinit(&journal->cosigned);
    ct_buf_deinit(&journal->cosigned_now);
    ct_buf_deinit(&journal->folded.bytes);
    ct_buf_deinit(&journal->folded_now.bytes);
    *journal = (struct ct_journal){0};
}

static enum ct_err grow(struct ct_journal *journal) {
    if (journal->queued < journal->capacity) {
        return CT_OK;
    }
    uint32_t capacity = journal->capacity == 0 ? 64 : 2 * journal->capacity;
    struct ct_buf *queue = realloc(journal->queue, capacity * sizeof queue[0]);
    if (queue == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u entries", capacity);
    }
    journal->queue = queue;
    journal->capacity = capacity;
    return CT_OK;
}

enum ct_err ct_journal_append(struct ct_journal *journal, struct ct_entry *entry,
                              uint64_t *out_index, struct ct_bytes *out_bytes) {
    struct ct_run *run = journal->run;
    struct ct_fold *fold = &run->replay.fold;
    if (journal->failed) {
        return ct_fail(CT_ERR_STATE, "the ledger has failed");
    }
    CT_TRY(grow(journal));
    entry->run_id = fold->run_id;
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_run_seal(run->identity, entry, &bytes);
    if (err == CT_OK) {
        /* The writer is held to the same rules as everybody who reads; only its own signature,
         * made a moment ago, is not verified. */
        err = ct_fold_apply(fold, ct_buf_bytes(&bytes), false, ct_blobs_source, &run->blobs);
    }
    if (err != CT_OK) {
        ct_buf_deinit(&bytes);
        return err;
    }
    journal->queue[journal->queued++] = bytes;
    if (out_index != NULL) {
        *out_index = fold->entries - 1;
    }
    if (out_bytes != NULL) {
        *out_bytes = ct_buf_bytes(&bytes);
    }
    schedule(journal);
    return CT_OK;
}

void ct_journal_keep(struct ct_journal *journal) {
    const struct ct_fold *fold = &journal->run->replay.fold;
    struct ct_folded *folded = &journal->folded;
    journal->keep = true;
    journal->closed = fold->round;
    ct_buf_clear(&folded->bytes);
    folded->round = fold->round;
    folded->size = ct_fold_save(fold, &folded->bytes) == CT_OK ? fold->entries : 0;
}

void ct_journal_cosign(struct ct_journal *journal, struct ct_bytes note, bool witnessed) {
    ct_buf_clear(&journal->cosigned);
    if (ct_buf_append(&journal->cosigned, note.data, note.length) == CT_OK) {
        journal->witnessed = witnessed;
        schedule(journal);
    }
}

void ct_journal_hurry(struct ct_journal *journal) {
    if (!journal->running && !journal->failed && (journal->queued > 0 || journal->full)) {
        uv_timer_stop(&journal->timer);
        publish(journal);
    }
}

bool ct_journal_idle(const struct ct_journal *journal) {
    return !journal->running && journal->queued == 0 && journal->cosigned.length == 0 &&
           !journal->full;
}
