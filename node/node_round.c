#include "node_round.h"

#include <cotrain/assert.h>
#include <cotrain/receipt.h>

#include <string.h>

/* Chunks on their way beyond what the coordinator has told to have. */
#define UPLOAD_WINDOW_BYTES (4ull * CT_UPLOAD_CHUNK_BYTES)
#define UPLOAD_REFUSALS_MAX 5u

static bool has_pending(const struct ct_node *node) {
    return node->task == CT_TASK_COMMIT || node->task == CT_TASK_UPLOAD ||
           node->task == CT_TASK_DONE;
}

static void task_over(struct ct_node *node, struct ct_node_actions *out) {
    if (node->task == CT_TASK_COMPUTE) {
        ct_node_do(out, CT_DO_CANCEL);
    } else if (has_pending(node)) {
        ct_node_do(out, CT_DO_FORGET)->round = node->pending.round;
        node->pending = (struct ct_pending){0};
    }
    node->over_round = node->task_round;
    node->task = CT_TASK_NONE;
}

/* N4: the ledger says when a round's work is over. */
static void end_task(struct ct_node *node, struct ct_node_actions *out) {
    const struct ct_view *view = &node->view;
    bool open = view->round == node->task_round &&
                (view->phase == CT_PHASE_COMMIT || view->phase == CT_PHASE_UPLOAD);
    if (view->round < node->task_round) {
        return;
    }
    if (!open) {
        if (view->last_round == node->task_round && !view->last_merged) {
            ct_node_say(out, "round %u was closed without this node's update; a new epoch begins",
                        node->task_round);
        }
        task_over(node, out);
        return;
    }
    bool commits_closed = view->phase == CT_PHASE_UPLOAD && view->part == CT_PART_ASSIGNED;
    if (node->task == CT_TASK_COMPUTE && commits_closed) {
        ct_node_say(out, "round %u: too slow, its commits are closed; going on with the next round",
                    node->task_round);
        task_over(node, out);
    } else if (node->task == CT_TASK_COMMIT && commits_closed) {
        ct_node_say(out, "round %u: the commit came too late", node->task_round);
        task_over(node, out);
    } else if (view->part == CT_PART_REFUSED) {
        ct_node_say(out, "round %u: the ledger refuses this node's update", node->task_round);
        task_over(node, out);
    } else if (has_pending(node) &&
               (view->part == CT_PART_COMMITTED || view->part == CT_PART_RECEIVED) &&
               !ct_hash_equal(&view->committed_update, &node->pending.update.sha256)) {
        ct_node_say(out,
                    "round %u: the ledger has another commit of this key; is the same identity "
                    "used on another machine?",
                    node->task_round);
        task_over(node, out);
    } else if (node->task == CT_TASK_UPLOAD && view->part == CT_PART_RECEIVED) {
        node->task = CT_TASK_DONE;
    }
}

void ct_node_round_view(struct ct_node *node, struct ct_node_actions *out) {
    const struct ct_view *view = &node->view;
    if (node->task != CT_TASK_NONE) {
        end_task(node, out);
    }
    /* N3: over_round keeps a round from being computed twice. */
    if (node->task == CT_TASK_NONE && view->phase == CT_PHASE_COMMIT &&
        view->part == CT_PART_ASSIGNED && view->theta_valid && view->round > node->over_round) {
        node->task = CT_TASK_COMPUTE;
        node->task_round = view->round;
        ct_node_do(out, CT_DO_COMPUTE)->round = view->round;
    }
}

static void send_commit(struct ct_node *node, struct ct_node_actions *out) {
    CT_ASSERT(has_pending(node) && node->pending.length > 0);
    ct_node_send(out, CT_WIRE_COMMIT)->body.commit.envelope =
        (struct ct_bytes){node->pending.envelope, node->pending.length};
}

static void ask_upload(struct ct_node *node, struct ct_node_actions *out) {
    struct ct_wire *wire = ct_node_send(out, CT_WIRE_UPLOAD);
    wire->body.upload.round = node->pending.round;
    node->asked = true;
}

static void pump(struct ct_node *node, struct ct_node_actions *out) {
    const uint64_t length = node->pending.update.length;
    while (node->upload_sent < length &&
           node->upload_sent - node->upload_acked < UPLOAD_WINDOW_BYTES) {
        struct ct_node_action *action = ct_node_do(out, CT_DO_CHUNK);
        action->round = node->pending.round;
        action->bytes = node->upload_sent;
        uint64_t left = length - node->upload_sent;
        node->upload_sent += left < CT_UPLOAD_CHUNK_BYTES ? left : CT_UPLOAD_CHUNK_BYTES;
    }
}

void ct_node_round_resume(struct ct_node *node, struct ct_node_actions *out) {
    if (node->task == CT_TASK_COMMIT) {
        send_commit(node, out);
    } else if (node->task == CT_TASK_UPLOAD ||
               (node->task == CT_TASK_DONE && node->view.part != CT_PART_RECEIVED)) {
        /* A coordinator that was restarted may not have all that it had acknowledged to hold. */
        node->task = CT_TASK_UPLOAD;
        ask_upload(node, out);
    }
}

void ct_node_round_computed(struct ct_node *node, const struct ct_pending *done,
                            struct ct_node_actions *out) {
    for (int i = 0; i < 2; i++) {
        if (ct_hash_is_zero(&node->held[i]) ||
            !ct_hash_equal(&node->held[i], &node->view.merged_state)) {
            node->held[i] = done->state;
            break;
        }
    }
    if (node->task != CT_TASK_COMPUTE || done->round != node->task_round) {
        ct_node_do(out, CT_DO_FORGET)->round = done->round;
        return;
    }
    node->pending = *done;
    node->task = CT_TASK_COMMIT;
    node->over_round = done->round;
    node->upload_sent = 0;
    node->upload_acked = 0;
    node->upload_refusals = 0;
    if (node->link == CT_LINK_READY) {
        send_commit(node, out);
    }
}

void ct_node_round_failed(struct ct_node *node, uint32_t round, const char *detail,
                          struct ct_node_actions *out) {
    if (node->task != CT_TASK_COMPUTE || round != node->task_round) {
        return;
    }
    ct_node_say(out, "round %u: not computed: %.230s", round, detail);
    node->over_round = round;
    node->task = CT_TASK_NONE;
}

/* The receipt must be for exactly the bytes that were sent. */
static bool receipt_is_ours(const struct ct_node *node, struct ct_bytes text) {
    struct ct_receipt receipt;
    if (ct_receipt_open(text, node->vkey, &receipt) != CT_OK) {
        return false;
    }
    struct ct_envelope envelope;
    struct ct_entry entry;
    bool ours =
        ct_envelope_open(ct_buf_bytes(&receipt.entry), &envelope) == CT_OK &&
        ct_envelope_verify(&envelope, &node->opened.identity_key) == CT_OK &&
        ct_entry_decode(envelope.payload, &entry) == CT_OK && entry.kind == CT_ENTRY_COMMIT &&
        entry.round == node->pending.round && entry.body.commit.length == node->pending.length &&
        memcmp(entry.body.commit.envelope, node->pending.envelope, node->pending.length) == 0;
    ct_receipt_deinit(&receipt);
    if (!ours) {
        (void)ct_fail(CT_ERR_RULE, "it is not for the commit that was sent");
    }
    return ours;
}

void ct_node_round_receipt(struct ct_node *node, const struct ct_wire *frame,
                           struct ct_node_actions *out) {
    uint32_t round = frame->body.receipt.round;
    if (node->task != CT_TASK_COMMIT || round != node->pending.round) {
        return; /* a duplicate, or of a round that is over */
    }
    if (!receipt_is_ours(node, frame->body.receipt.text)) {
        ct_node_say(out, "round %u: the coordinator's receipt is wrong: %.200s", round,
                    ct_err_detail());
        return;
    }
    struct ct_node_action *action = ct_node_do(out, CT_DO_RECEIPT);
    action->round = round;
    action->text = frame->body.receipt.text;
    node->pending.receipt = true;
    node->task = CT_TASK_UPLOAD;
    node->asked = false;
    pump(node, out);
}

void ct_node_round_uploaded(struct ct_node *node, const struct ct_wire *frame,
                            struct ct_node_actions *out) {
    uint64_t offset = frame->body.uploaded.offset;
    if (node->task != CT_TASK_UPLOAD || frame->body.uploaded.round != node->pending.round ||
        offset > node->pending.update.length) {
        return;
    }
    if (frame->body.uploaded.complete) {
        node->task = CT_TASK_DONE;
        return;
    }
    if (node->asked || offset < node->upload_acked) {
        /* The coordinator says where to go on; it may have lost what it had. */
        node->asked = false;
        node->upload_sent = offset;
        node->upload_acked = offset;
    } else if (offset > node->upload_acked && offset <= node->upload_sent) {
        node->upload_acked = offset;
    }
    pump(node, out);
}

void ct_node_round_refused(struct ct_node *node, uint32_t code, struct ct_node_actions *out) {
    if (node->task == CT_TASK_COMMIT && (code == CT_REFUSED_LATE || code == CT_REFUSED_STATEMENT)) {
        task_over(node, out);
    } else if (node->task == CT_TASK_UPLOAD && code == CT_REFUSED_UPLOAD) {
        if (node->upload_refusals++ < UPLOAD_REFUSALS_MAX) {
            ask_upload(node, out);
        } else {
            task_over(node, out);
        }
    }
}
