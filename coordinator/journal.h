/* The ledger's writing side on the loop: entries are applied to the fold and queued at once, and
 * published together by a job, at most once in a checkpoint time (protocol.md section 7).
 *
 * J1  Nothing leaves the process that depends on an entry before ct_journal_published covers it.
 * J2  The ledger is touched by the job alone while one runs, by the loop otherwise.
 * J3  On a full disk nothing is published, entries wait, and publishing is tried again. */
#ifndef COORDINATOR_JOURNAL_H
#define COORDINATOR_JOURNAL_H

#include "expiry.h"
#include "run.h"

#include <uv.h>

struct ct_journal {
    struct ct_run *run;
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_work_t job;
    uint32_t interval_ms;
    uint64_t last_ms; /* begin of the last publication, loop time; 0: none */
    bool running, keep, keep_now, failed, stopped;
    bool full; /* the last publication found no room; it is tried again */
    enum ct_err err;
    char detail[512];
    uint32_t queued, capacity;
    struct ct_buf *queue; /* owned; entries that the ledger does not have yet */
    uint64_t published;   /* entries that the newest checkpoint covers */
    struct ct_buf checkpoint;
    struct ct_buf cosigned; /* a note that the next job puts in the plain one's place; or empty */
    bool witnessed, witnessed_now;
    struct ct_buf cosigned_now; /* the running job's */
    /* The last closed round, and the running job's: once its closing is published, what has expired
     * by it is removed, a part in each job. */
    uint32_t closed, closed_now;
    bool expires; /* there may be more to remove */
    struct ct_expiry expiry;
    /* Of the last closed round, for the cache: over how many entries, and the job's own copy. */
    struct ct_folded {
        uint32_t round;
        uint64_t size; /* 0: nothing */
        struct ct_buf bytes;
    } folded, folded_now;
    /* After every publication; with CT_ERR_FULL as long as the disk has no room; and once with
     * another error, after which the journal is dead. */
    void (*done)(void *user, enum ct_err err, const char *detail);
    void *user;
};

/* Entries that the ledger holds without a checkpoint are published, and expired payloads that are
 * still there removed, at once. `run` must outlive it.
 */
CT_MUST_CHECK enum ct_err
ct_journal_init(struct ct_journal *journal, uv_loop_t *loop, struct ct_run *run,
                uint32_t interval_ms, void (*done)(void *user, enum ct_err err, const char *detail),
                void *user);
/* Ends the timer; a running job must have ended. */
void ct_journal_stop(struct ct_journal *journal);
void ct_journal_deinit(struct ct_journal *journal);

/* Seals the entry, applies it to the fold and queues it. *out_index and *out_bytes (valid until the
 * publication) may be NULL. CT_ERR_RULE and others of the fold: nothing was changed. */
CT_MUST_CHECK enum ct_err ct_journal_append(struct ct_journal *journal, struct ct_entry *entry,
                                            uint64_t *out_index, struct ct_bytes *out_bytes);
/* A round has closed: the next publication's checkpoint is kept for ever, the fold as it is now
 * becomes a cache, and payloads that have expired by it are removed from the store. */
void ct_journal_keep(struct ct_journal *journal);
/* Has a cosigned form of a published checkpoint published (ct_ledger_cosign), soon; a later call
 * may take an earlier one's place. What goes wrong with it is logged and hurts nothing else. */
void ct_journal_cosign(struct ct_journal *journal, struct ct_bytes note, bool witnessed);
/* Publishes as soon as it can, whatever the checkpoint time. */
void ct_journal_hurry(struct ct_journal *journal);
bool ct_journal_idle(const struct ct_journal *journal);

#endif
