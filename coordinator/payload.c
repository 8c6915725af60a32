/* Payloads: received in chunks beside the store, checked by a job when complete, moved into the
 * store by another once the closing of commits is published, and then received or refused. */
#include "incoming.h"
#include "serve.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct payload_job {
    uv_work_t work;
    struct ct_serve *serve;
    struct ct_seat *seat;
    uint32_t round;
    bool stores; /* else it checks */
    struct ct_commit commit;
    bool is_evidence;
    struct ct_hash body;
    enum ct_err err;
    char detail[512];
};

static void run_job(uv_work_t *work) {
    struct payload_job *job = work->data;
    job->err = job->stores ? ct_incoming_store(&job->serve->run, &job->commit, job->is_evidence)
                           : ct_incoming_check(&job->serve->run, &job->commit, &job->body);
    snprintf(job->detail, sizeof job->detail, "%s", job->err == CT_OK ? "" : ct_err_detail());
}

static void tell_uploaded(struct ct_seat *seat, const struct ct_contribution *contribution) {
    if (seat->member == NULL) {
        return;
    }
    struct ct_wire wire = {.kind = CT_WIRE_UPLOADED};
    wire.body.uploaded.round = contribution->round;
    wire.body.uploaded.offset = contribution->uploaded_bytes;
    wire.body.uploaded.complete = contribution->upload == CT_UPLOAD_GOOD ||
                                  contribution->upload == CT_UPLOAD_STORING ||
                                  contribution->upload == CT_UPLOAD_STORED;
    ct_intake_send(seat->member, &wire);
}

static void refuse_upload(struct ct_member *member, const char *text) {
    struct ct_wire wire = {.kind = CT_WIRE_REFUSAL};
    wire.body.refusal.code = CT_REFUSED_UPLOAD;
    snprintf(wire.body.refusal.text, sizeof wire.body.refusal.text, "%s", text);
    ct_refusals_log(&member->owner->refusals, ct_serve_now_ms(), "key %02x%02x%02x%02x…: %s",
                    member->key.bytes[0], member->key.bytes[1], member->key.bytes[2],
                    member->key.bytes[3], text);
    ct_intake_send(member, &wire);
}

/* What lay here after a power cut is not what was sent: that is no fault of the node's. */
static void start_over(struct ct_seat *seat, struct ct_contribution *contribution) {
    ct_log(CT_LOG_WARN, "payload",
           "node %u's upload of round %u did not survive a restart whole; it is asked for again",
           contribution->node, contribution->round);
    contribution->resumed = false;
    contribution->uploaded_bytes = 0;
    contribution->upload = CT_UPLOAD_OPEN;
    tell_uploaded(seat, contribution);
}

static void on_checked(struct ct_serve *serve, struct ct_seat *seat,
                       struct ct_contribution *contribution, const struct payload_job *job) {
    switch (job->err) {
    case CT_OK:
        contribution->body = job->body;
        contribution->has_body = true;
        contribution->upload = CT_UPLOAD_GOOD;
        break;
    case CT_ERR_DIGEST:
        if (contribution->resumed) {
            start_over(seat, contribution);
            return;
        }
        __attribute__((fallthrough));
    case CT_ERR_FORMAT:
        if (seat->member == NULL) {
            ct_refusals_log(&serve->refusals, ct_serve_now_ms(), "%s", job->detail);
        }
        contribution->upload = CT_UPLOAD_BAD;
        contribution->is_evidence = job->err == CT_ERR_DIGEST;
        if (seat->member != NULL) {
            refuse_upload(seat->member, job->detail);
        }
        return;
    default:
        contribution->upload = CT_UPLOAD_OPEN;
        ct_serve_trouble(serve, job->err, job->detail);
        return;
    }
    tell_uploaded(seat, contribution);
}

static enum ct_err append_refused(struct ct_serve *serve, uint32_t node, enum ct_refusal reason) {
    struct ct_entry entry = {.kind = CT_ENTRY_REFUSED, .round = serve->run.replay.fold.round};
    entry.body.refused.node = node;
    entry.body.refused.reason = reason;
    return ct_journal_append(&serve->journal, &entry, NULL, NULL);
}

static enum ct_err append_received(struct ct_serve *serve,
                                   const struct ct_contribution *contribution) {
    struct ct_entry entry = {.kind = CT_ENTRY_RECEIVED, .round = contribution->round};
    entry.body.received.commit_index = contribution->index;
    return ct_journal_append(&serve->journal, &entry, NULL, NULL);
}

/* Of two equal bodies the lower commit index stands, whichever came first. */
static enum ct_err settle(struct ct_serve *serve, struct ct_contribution *contribution) {
    if (!contribution->has_body) {
        return append_refused(serve, contribution->node, CT_REFUSAL_MALFORMED);
    }
    for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
        struct ct_contribution *other = ct_seat_find(&serve->roster.seats[i], contribution->round);
        if (other == NULL || other == contribution || other->upload != CT_UPLOAD_STORED ||
            !other->has_body || !ct_hash_equal(&other->body, &contribution->body)) {
            continue;
        }
        bool later = other->index < contribution->index;
        const struct ct_contribution *copy = later ? contribution : other;
        ct_refusals_log(&serve->refusals, ct_serve_now_ms(),
                        "node %u's payload of round %u is node %u's", copy->node, copy->round,
                        later ? other->node : contribution->node);
        if (later) {
            return append_refused(serve, contribution->node, CT_REFUSAL_COPY);
        }
        CT_TRY(append_refused(serve, other->node, CT_REFUSAL_COPY));
        other->has_body = false;
    }
    return append_received(serve, contribution);
}

static void on_stored(struct ct_serve *serve, struct ct_contribution *contribution,
                      const struct payload_job *job) {
    if (job->err != CT_OK) {
        contribution->upload = contribution->has_body ? CT_UPLOAD_GOOD : CT_UPLOAD_BAD;
        ct_serve_trouble(serve, job->err, job->detail);
        return;
    }
    const struct ct_fold *fold = &serve->run.replay.fold;
    /* V1: what comes while the round is merged comes too late. */
    if (serve->merge.running || serve->merge.done || fold->phase != CT_PHASE_UPLOAD ||
        fold->round != contribution->round) {
        contribution->upload = CT_UPLOAD_STORED;
        return;
    }
    enum ct_err err = settle(serve, contribution);
    contribution->upload = CT_UPLOAD_STORED;
    if (err != CT_OK) {
        ct_serve_fail(serve, err, ct_err_detail());
    }
}

static void on_job_done(uv_work_t *work, int status) {
    (void)status;
    struct payload_job *job = work->data;
    struct ct_serve *serve = job->serve;
    struct ct_contribution *contribution = ct_seat_find(job->seat, job->round);
    CT_ASSERT(serve->jobs > 0);
    serve->jobs--;
    if (contribution != NULL && !serve->stopping) {
        if (job->stores) {
            on_stored(serve, contribution, job);
        } else {
            on_checked(serve, job->seat, contribution, job);
        }
    }
    free(job);
    ct_serve_advance(serve);
}

static void start_job(struct ct_serve *serve, struct ct_seat *seat,
                      struct ct_contribution *contribution, bool stores) {
    struct payload_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        ct_serve_fail(serve, CT_ERR_MEMORY, "out of memory for a job");
        return;
    }
    *job = (struct payload_job){.work = {.data = job},
                                .serve = serve,
                                .seat = seat,
                                .round = contribution->round,
                                .stores = stores,
                                .commit = contribution->commit,
                                .is_evidence = contribution->is_evidence};
    if (uv_queue_work(&serve->loop, &job->work, run_job, on_job_done) < 0) {
        free(job);
        ct_serve_fail(serve, CT_ERR_MEMORY, "no job could be started");
        return;
    }
    serve->jobs++;
    contribution->upload = stores ? CT_UPLOAD_STORING : CT_UPLOAD_CHECKING;
}

void ct_payload_advance(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    if (serve->stopping || serve->merge.running || serve->full ||
        (fold->phase != CT_PHASE_COMMIT && fold->phase != CT_PHASE_UPLOAD)) {
        return;
    }
    /* Blobs are served: nothing enters the store before the closing of commits is public. */
    bool closed = fold->phase == CT_PHASE_UPLOAD && serve->journal.published > serve->closed_index;
    for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
        struct ct_seat *seat = &serve->roster.seats[i];
        struct ct_contribution *contribution = ct_seat_find(seat, fold->round);
        if (contribution == NULL) {
            continue;
        }
        if (contribution->upload == CT_UPLOAD_OPEN &&
            contribution->uploaded_bytes == contribution->commit.update.length) {
            start_job(serve, seat, contribution, false);
        } else if (closed && (contribution->upload == CT_UPLOAD_GOOD ||
                              contribution->upload == CT_UPLOAD_BAD)) {
            start_job(serve, seat, contribution, true);
        }
    }
}

void ct_payload_upload(struct ct_serve *serve, struct ct_member *member,
                       const struct ct_wire *wire) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    uint32_t round = wire->body.upload.round;
    struct ct_contribution *contribution = ct_seat_find(member->seat, round);
    if (contribution == NULL || contribution->index >= serve->journal.published) {
        refuse_upload(member, "a payload without an acknowledged commit");
        return;
    }
    if (contribution->upload == CT_UPLOAD_BAD) {
        refuse_upload(member, "the payload was refused before");
        return;
    }
    if (contribution->upload != CT_UPLOAD_OPEN) {
        tell_uploaded(member->seat, contribution);
        return;
    }
    if (round != fold->round ||
        (fold->phase != CT_PHASE_COMMIT && fold->phase != CT_PHASE_UPLOAD)) {
        refuse_upload(member, "a payload of a round that is closed");
        return;
    }
    if (contribution->ask_again) {
        return; /* chunks that follow the one there was no room for */
    }
    struct ct_bytes data = wire->body.upload.data;
    if (data.length == 0) {
        tell_uploaded(member->seat, contribution);
        return;
    }
    if (wire->body.upload.offset != contribution->uploaded_bytes) {
        tell_uploaded(member->seat, contribution);
        return;
    }
    if (data.length > contribution->commit.update.length - contribution->uploaded_bytes) {
        refuse_upload(member, "more bytes than were committed");
        return;
    }
    enum ct_err err = ct_incoming_write(serve->run.dir, contribution->node, round,
                                        contribution->uploaded_bytes, data);
    if (err != CT_OK) {
        contribution->ask_again = err == CT_ERR_FULL;
        ct_serve_trouble(serve, err, ct_err_detail());
        return;
    }
    contribution->uploaded_bytes += data.length;
    if (contribution->uploaded_bytes < contribution->commit.update.length) {
        tell_uploaded(member->seat, contribution);
    }
}

void ct_payload_ask_again(struct ct_serve *serve) {
    for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
        struct ct_seat *seat = &serve->roster.seats[i];
        for (int j = 0; j < 2; j++) {
            if (seat->contributions[j].ask_again) {
                seat->contributions[j].ask_again = false;
                /* It asks where to go on. */
                if (seat->member != NULL) {
                    refuse_upload(seat->member, "the disk was full: go on where the upload stands");
                }
            }
        }
    }
}

/* Of a received payload only the body's digest is needed, to find copies. */
static enum ct_err resume_one(struct ct_serve *serve, const struct ct_fold_node *node,
                              struct ct_contribution *contribution) {
    if (node->part == CT_PART_RECEIVED) {
        CT_TRY(ct_incoming_check(&serve->run, &contribution->commit, &contribution->body));
        contribution->has_body = true;
        contribution->upload = CT_UPLOAD_STORED;
        contribution->uploaded_bytes = contribution->commit.update.length;
        return CT_OK;
    }
    if (node->part == CT_PART_REFUSED) {
        contribution->upload = CT_UPLOAD_STORED;
        return CT_OK;
    }
    CT_TRY(ct_incoming_length(serve->run.dir, node->number, contribution->round,
                              &contribution->uploaded_bytes));
    contribution->resumed = contribution->uploaded_bytes > 0;
    if (contribution->uploaded_bytes == 0 &&
        ct_blobs_have(&serve->run.blobs, &contribution->commit.update)) {
        contribution->uploaded_bytes = contribution->commit.update.length;
    }
    if (contribution->uploaded_bytes > contribution->commit.update.length) {
        contribution->uploaded_bytes = 0;
    }
    return CT_OK;
}

enum ct_err ct_payload_resume(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    bool open = fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        struct ct_seat *seat = ct_roster_seat(&serve->roster, &node->key);
        CT_ASSERT(seat != NULL);
        for (int j = 0; j < 2; j++) {
            struct ct_contribution *contribution = &seat->contributions[j];
            if (contribution->round == 0) {
                continue;
            }
            if (!open || contribution->round != fold->round) {
                bool stored = ct_blobs_have(&serve->run.blobs, &contribution->commit.update);
                contribution->upload = stored ? CT_UPLOAD_STORED : CT_UPLOAD_OPEN;
            } else {
                CT_TRY(resume_one(serve, node, contribution));
            }
        }
    }
    return CT_OK;
}
