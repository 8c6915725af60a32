/* What nodes send, judged and answered. Whatever is refused leaves a line in the log, module
 * "intake", and an answer that says why. */
#include "incoming.h"
#include "profiles.h"
#include "rollback.h"
#include "serve.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>
#include <cotrain/receipt.h>

#include <stdio.h>
#include <string.h>

static bool is_open(const struct ct_fold *fold, uint32_t round) {
    return round == fold->round &&
           (fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD);
}

static const char *name_of(const struct ct_member *member, char out[24]) {
    snprintf(out, 24, "key %02x%02x%02x%02x…", member->key.bytes[0], member->key.bytes[1],
             member->key.bytes[2], member->key.bytes[3]);
    return out;
}

void ct_intake_send(struct ct_member *member, const struct ct_wire *wire) {
    if (member->closing) {
        return;
    }
    struct ct_buf frame;
    ct_buf_init(&frame, CT_FRAME_BYTES_MAX_UPLOAD);
    enum ct_err err = ct_wire_encode(wire, &frame);
    CT_ASSERT(err != CT_ERR_FORMAT);
    if (err == CT_OK) {
        err = ct_link_send(member->link, ct_buf_bytes(&frame));
    }
    ct_buf_deinit(&frame);
    if (err != CT_OK && err != CT_ERR_STATE) {
        member->closing = true;
        ct_roster_unseat(member);
        ct_link_close(member->link, err, ct_err_detail());
    }
}

static void refuse(struct ct_member *member, uint32_t code, bool final, const char *text) {
    struct ct_wire wire = {.kind = CT_WIRE_REFUSAL};
    char name[24];
    wire.body.refusal.code = code;
    wire.body.refusal.final = final;
    snprintf(wire.body.refusal.text, sizeof wire.body.refusal.text, "%s", text);
    ct_refusals_log(&member->owner->refusals, ct_serve_now_ms(), "%s: %s", name_of(member, name),
                    text);
    ct_intake_send(member, &wire);
}

void ct_intake_drop(struct ct_member *member, uint32_t code, bool final, const char *text) {
    refuse(member, code, final, text);
    if (!member->closing) {
        member->closing = true;
        ct_roster_unseat(member);
        ct_link_close(member->link, CT_ERR_REFUSED, text);
    }
}

void ct_intake_notice(struct ct_serve *serve, struct ct_member *member) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_wire wire = {.kind = CT_WIRE_NOTICE};
    wire.body.notice.checkpoint = ct_buf_bytes(&serve->journal.checkpoint);
    wire.body.notice.round = fold->round;
    wire.body.notice.phase = fold->phase;
    wire.body.notice.remaining_ms = ct_round_remaining_ms(&serve->round, ct_serve_now_ms());
    ct_intake_send(member, &wire);
}

/* A node that owes a payload may send large frames. */
static void allow_upload(struct ct_serve *serve, const struct ct_member *member) {
    uint32_t round = serve->run.replay.fold.round;
    const struct ct_contribution *contribution = ct_seat_find(member->seat, round);
    bool published = contribution != NULL && contribution->index < serve->journal.published;
    ct_link_frame_max(member->link, published ? CT_FRAME_BYTES_MAX_UPLOAD : CT_FRAME_BYTES_MAX);
}

/* A listed node's word of what this log was; false when the coordinator must stop. */
static bool check_history(struct ct_serve *serve, struct ct_member *member,
                          struct ct_bytes checkpoint) {
    char name[24], whose[40];
    if (checkpoint.length == 0) {
        return true;
    }
    snprintf(whose, sizeof whose, "the node with %s", name_of(member, name));
    enum ct_err err = ct_rollback_check(&serve->run, checkpoint, whose);
    if (err == CT_ERR_RULE) {
        ct_serve_fail(serve, err, ct_err_detail());
        return false;
    }
    if (err != CT_OK) {
        ct_refusals_log(&serve->refusals, ct_serve_now_ms(), "%s: its checkpoint: %s", whose,
                        ct_err_detail());
    } else if (member->seat != NULL) {
        ct_serve_heard(serve, member->seat);
    }
    return true;
}

/* A profile that is not shown is no reason to turn a node away. */
static void hear_profile(struct ct_serve *serve, struct ct_member *member, struct ct_bytes record) {
    char name[24];
    if (ct_profiles_heard(serve->run.dir, &serve->run.replay.fold, member->seat, record) != CT_OK) {
        ct_refusals_log(&serve->refusals, ct_serve_now_ms(), "%s: its profile: %s",
                        name_of(member, name), ct_err_detail());
    }
}

static void on_hello(struct ct_serve *serve, struct ct_member *member, const struct ct_wire *wire) {
    struct ct_member *replaced;
    char name[24];
    uint32_t code = ct_roster_welcome(&serve->roster, member, wire, &serve->run.replay.fold.run_id,
                                      ct_serve_now_ms(), &replaced);
    switch (code) {
    case 0:
        break;
    case CT_REFUSED_VERSION:
        ct_intake_drop(member, code, true, "another version of the protocol: update cotrain");
        return;
    case CT_REFUSED_RUN:
        ct_intake_drop(member, code, true, "this is another run: ask for its current ticket");
        return;
    case CT_REFUSED_NOT_LISTED:
        ct_intake_drop(member, code, true,
                       "this key is not on the run's list: ask the operator to list it");
        return;
    default:
        ct_intake_drop(member, code, false,
                       "another process is connected with this key: stop that one, or wait a "
                       "minute if it is gone");
        return;
    }
    if (!check_history(serve, member, wire->body.hello.checkpoint)) {
        return;
    }
    hear_profile(serve, member, wire->body.hello.profile);
    if (replaced != NULL && !replaced->closing) {
        replaced->closing = true;
        ct_link_close(replaced->link, CT_OK, "replaced by a newer connection");
    }
    allow_upload(serve, member);
    struct ct_wire welcome = {.kind = CT_WIRE_WELCOME};
    welcome.body.welcome.http_port = serve->ports.http;
    welcome.body.welcome.mirror_count = serve->options.mirror_count;
    for (uint32_t i = 0; i < serve->options.mirror_count; i++) {
        snprintf(welcome.body.welcome.mirrors[i], sizeof welcome.body.welcome.mirrors[i], "%s",
                 serve->options.mirrors[i]);
    }
    ct_intake_send(member, &welcome);
    if (member->seat != NULL) {
        ct_log(CT_LOG_INFO, "intake", "connected, %s", name_of(member, name));
        ct_intake_notice(serve, member);
    }
}

/* A node that caught up to a checkpoint of a round ago is as good as any: it follows on. */
static void on_ready(struct ct_member *member, const struct ct_wire *wire) {
    member->ready = true;
    member->state = wire->body.ready.state;
    if (wire->body.ready.tokens_per_s > 0.0f) {
        member->tokens_per_s = wire->body.ready.tokens_per_s;
    }
}

/* A well-formed statement of an assigned node for the open round: kept as evidence, and logged
 * before the round closes. The entry waits because there is one at most for a node in a round
 * (protocol.md section 7), and that of a refused payload decides what is merged. */
static void refuse_commit(struct ct_serve *serve, struct ct_member *member,
                          const struct ct_commit *commit, struct ct_bytes statement,
                          enum ct_refusal reason, const char *text) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    if (is_open(fold, commit->round)) {
        member->seat->refused_round = commit->round;
        member->seat->refused = reason;
    }
    ct_evidence_keep(serve->run.dir, commit->author, commit->round, statement);
    refuse(member, reason == CT_REFUSAL_LATE ? CT_REFUSED_LATE : CT_REFUSED_STATEMENT, false, text);
}

struct opened_commit {
    struct ct_bytes statement;
    struct ct_commit commit;
    struct ct_fold_node node; /* a copy */
};

/* A well-formed commit of this run signed by this member's key; else *out_why. */
static bool open_commit(struct ct_serve *serve, const struct ct_member *member,
                        struct ct_bytes statement, struct opened_commit *out,
                        const char **out_why) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_envelope envelope;
    out->statement = statement;
    if (statement.length > CT_STATEMENT_BYTES_MAX ||
        ct_envelope_open(statement, &envelope) != CT_OK ||
        strcmp(envelope.type, CT_TYPE_COMMIT) != 0 ||
        ct_commit_decode(envelope.payload, &out->commit) != CT_OK) {
        *out_why = "a malformed commit";
        return false;
    }
    if (!ct_hash_equal(&out->commit.run_id, &fold->run_id)) {
        *out_why = "a commit of another run";
        return false;
    }
    const struct ct_fold_node *node = ct_fold_find_key(fold, &member->key);
    if (node == NULL || out->commit.author != node->number || envelope.key_number != node->number) {
        *out_why = "a commit in another node's name";
        return false;
    }
    if (ct_envelope_verify(&envelope, &node->key) != CT_OK) {
        *out_why = "a commit whose signature does not verify";
        return false;
    }
    out->node = *node;
    return true;
}

static void accept_commit(struct ct_serve *serve, struct ct_member *member,
                          const struct opened_commit *opened) {
    struct ct_entry entry = {.kind = CT_ENTRY_COMMIT, .round = opened->commit.round};
    entry.body.commit.length = (uint32_t)opened->statement.length;
    memcpy(entry.body.commit.envelope, opened->statement.data, opened->statement.length);
    uint64_t index;
    struct ct_bytes bytes;
    enum ct_err err = ct_journal_append(&serve->journal, &entry, &index, &bytes);
    if (err == CT_ERR_RULE || err == CT_ERR_FORMAT) {
        char text[200];
        snprintf(text, sizeof text, "a commit against the rules: %.160s", ct_err_detail());
        refuse_commit(serve, member, &opened->commit, opened->statement,
                      CT_REFUSAL_WRONG_ASSIGNMENT, text);
        return;
    }
    if (err == CT_OK) {
        err = ct_seat_commit(member->seat, index, &opened->commit, opened->statement, bytes);
    }
    if (err != CT_OK) {
        ct_serve_fail(serve, err, ct_err_detail());
        return;
    }
    struct ct_contribution *contribution = ct_seat_find(member->seat, opened->commit.round);
    contribution->receipt_due = true;
    member->state = opened->commit.state;
    const struct ct_assignment *assignment =
        ct_assignments_find(&serve->run.replay.fold.assignments, opened->commit.author);
    uint64_t elapsed_ms = ct_serve_now_ms() - serve->tally.opened_ms;
    const struct ct_manifest *manifest = &serve->run.replay.fold.manifest;
    if (assignment != NULL && elapsed_ms > 0) {
        double tokens = (double)assignment->steps * manifest->batch * manifest->model.context;
        member->tokens_per_s = (float)(tokens * 1000.0 / (double)elapsed_ms);
    }
}

static void on_commit(struct ct_serve *serve, struct ct_member *member,
                      const struct ct_wire *wire) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct opened_commit opened;
    const char *why = NULL;
    if (!open_commit(serve, member, wire->body.commit.envelope, &opened, &why)) {
        refuse(member, CT_REFUSED_STATEMENT, false, why);
        return;
    }
    if (serve->to_hear > 0) {
        ct_intake_drop(member, CT_REFUSED_BUSY, false,
                       "the run was restored from a copy, and other nodes are to confirm it first");
        return;
    }
    uint32_t round = opened.commit.round;
    struct ct_seat *seat = member->seat;
    struct ct_contribution *held = ct_seat_find(seat, round);
    if (held != NULL) {
        struct ct_bytes known = ct_buf_bytes(&held->envelope);
        if (known.length == opened.statement.length &&
            memcmp(known.data, opened.statement.data, known.length) == 0) {
            if (held->receipt_sent && !is_open(fold, round)) {
                refuse(member, CT_REFUSED_STATEMENT, false,
                       "a commit of a closed round, acknowledged before: replayed");
                return;
            }
            held->receipt_due = true;
            if (!serve->journal.running) {
                ct_intake_receipts(serve);
            }
            return;
        }
        refuse_commit(serve, member, &opened.commit, opened.statement, CT_REFUSAL_SECOND_COMMIT,
                      "another commit for this round than the first");
        return;
    }
    if (round != fold->round || opened.node.last_round != round) {
        refuse(member, CT_REFUSED_STATEMENT, false, "a commit of a round that is not open to it");
        return;
    }
    if (fold->phase != CT_PHASE_COMMIT) {
        refuse_commit(serve, member, &opened.commit, opened.statement, CT_REFUSAL_LATE,
                      "a commit after commits had closed");
        return;
    }
    accept_commit(serve, member, &opened);
}

static void send_receipt(struct ct_serve *serve, struct ct_member *member,
                         struct ct_contribution *contribution) {
    struct ct_proof proof;
    struct ct_buf text;
    ct_buf_init(&text, CT_FRAME_BYTES_MAX);
    enum ct_err err = ct_ledger_prove(serve->run.ledger, contribution->index, &proof);
    if (err == CT_OK) {
        err = ct_receipt_format(contribution->index, ct_buf_bytes(&contribution->entry), &proof,
                                ct_buf_bytes(&serve->journal.checkpoint), &text);
    }
    if (err != CT_OK) {
        ct_serve_fail(serve, err, ct_err_detail());
    } else {
        struct ct_wire wire = {.kind = CT_WIRE_RECEIPT};
        wire.body.receipt.round = contribution->round;
        wire.body.receipt.text = ct_buf_bytes(&text);
        contribution->receipt_due = false;
        contribution->receipt_sent = true;
        allow_upload(serve, member);
        ct_intake_send(member, &wire);
    }
    ct_buf_deinit(&text);
}

void ct_intake_receipts(struct ct_serve *serve) {
    CT_ASSERT(!serve->journal.running);
    for (uint32_t i = 0; i < serve->roster.seat_count; i++) {
        struct ct_seat *seat = &serve->roster.seats[i];
        for (int j = 0; j < 2; j++) {
            struct ct_contribution *contribution = &seat->contributions[j];
            /* Sending may end the member. */
            if (contribution->round != 0 && contribution->receipt_due && seat->member != NULL &&
                contribution->index < serve->journal.published) {
                send_receipt(serve, seat->member, contribution);
            }
        }
    }
}

static void on_leave(struct ct_member *member) {
    char name[24];
    ct_log(CT_LOG_INFO, "intake", "left, %s", name_of(member, name));
    member->seat->left = true;
    ct_roster_unseat(member);
    member->closing = true;
    ct_link_close(member->link, CT_OK, "left");
}

/* Messages of a welcomed node. */
static void on_welcomed_frame(struct ct_serve *serve, struct ct_member *member,
                              const struct ct_wire *wire) {
    switch (wire->kind) {
    case CT_WIRE_READY:
        on_ready(member, wire);
        break;
    case CT_WIRE_COMMIT:
        on_commit(serve, member, wire);
        break;
    case CT_WIRE_UPLOAD:
        ct_payload_upload(serve, member, wire);
        break;
    case CT_WIRE_LEAVE:
        on_leave(member);
        break;
    case CT_WIRE_PING: {
        struct ct_wire pong = {.kind = CT_WIRE_PONG};
        pong.body.ping.token = wire->body.ping.token;
        ct_intake_send(member, &pong);
        break;
    }
    case CT_WIRE_PONG:
        break;
    default:
        ct_intake_drop(member, CT_REFUSED_PROTOCOL, false, "a message that does not belong here");
        break;
    }
}

void ct_intake_frame(struct ct_serve *serve, struct ct_member *member, struct ct_bytes frame) {
    if (member->closing) {
        return;
    }
    member->heard_ms = ct_serve_now_ms();
    struct ct_wire wire;
    if (ct_wire_decode(frame, &wire) != CT_OK) {
        char text[200];
        snprintf(text, sizeof text, "a malformed frame of %zu bytes: %.120s", frame.length,
                 ct_err_detail());
        ct_intake_drop(member, CT_REFUSED_PROTOCOL, false, text);
        return;
    }
    if (member->seat != NULL) {
        on_welcomed_frame(serve, member, &wire);
    } else if (wire.kind == CT_WIRE_HELLO) {
        on_hello(serve, member, &wire);
    } else {
        ct_intake_drop(member, CT_REFUSED_PROTOCOL, false, "a message before hello");
    }
    ct_serve_advance(serve);
}
