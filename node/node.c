#include "node.h"

#include "node_round.h"

#include <cotrain/assert.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RETRY_FIRST_MS    1000u
#define RETRY_MAX_MS      60000u
#define QUICK_RETRIES     3u
#define PING_MS           20000u
#define DEAD_MS           60000u
#define GREETING_MAX_MS   30000u
#define LEAVING_MAX_MS    3000u
#define SYNC_RETRY_MS     1000u
#define SYNC_RETRY_MAX_MS 30000u

struct ct_node_action *ct_node_do(struct ct_node_actions *out, enum ct_node_action_kind kind) {
    CT_ASSERT(out->count < CT_NODE_ACTIONS_MAX);
    struct ct_node_action *action = &out->items[out->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

struct ct_wire *ct_node_send(struct ct_node_actions *out, enum ct_wire_kind kind) {
    struct ct_node_action *action = ct_node_do(out, CT_DO_SEND);
    action->frame.kind = kind;
    return &action->frame;
}

void ct_node_say(struct ct_node_actions *out, const char *format, ...) {
    struct ct_node_action *action = ct_node_do(out, CT_DO_SAY);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(action->say, sizeof action->say, format, arguments);
    va_end(arguments);
}

static void close_link(struct ct_node_actions *out, enum ct_err err, const char *text) {
    struct ct_node_action *action = ct_node_do(out, CT_DO_CLOSE);
    action->err = err;
    snprintf(action->say, sizeof action->say, "%s", text);
}

static void end(struct ct_node *node, struct ct_node_actions *out, enum ct_err err,
                const char *text) {
    struct ct_node_action *action = ct_node_do(out, CT_DO_END);
    action->err = err;
    snprintf(action->say, sizeof action->say, "%s", text);
    node->link = CT_LINK_ENDED;
}

/* splitmix64 (Steele, Lea and Flood 2014); nothing depends on its quality. */
static uint64_t next_random(struct ct_node *node) {
    uint64_t z = node->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 1 s for the first retries, then a doubling span up to 60 s, and a point in it by chance. */
static uint64_t retry_delay(struct ct_node *node) {
    uint64_t span = RETRY_FIRST_MS;
    for (uint32_t i = QUICK_RETRIES; i < node->failures && span < RETRY_MAX_MS; i++) {
        span *= 2;
    }
    span = span < RETRY_MAX_MS ? span : RETRY_MAX_MS;
    return RETRY_FIRST_MS + next_random(node) % (span - RETRY_FIRST_MS + 1);
}

void ct_node_init(struct ct_node *node, const struct ct_node_config *config, uint64_t seed) {
    memset(node, 0, sizeof *node);
    node->config = *config;
    node->random = seed;
    node->held[0] = config->held[0];
    node->held[1] = config->held[1];
    if (config->pending.round != 0) {
        node->pending = config->pending;
        node->task_round = config->pending.round;
        node->over_round = config->pending.round;
        node->task = config->pending.receipt ? CT_TASK_UPLOAD : CT_TASK_COMMIT;
    }
}

static bool is_held(const struct ct_node *node, const struct ct_hash *state) {
    return !ct_hash_is_zero(state) &&
           (ct_hash_equal(&node->held[0], state) || ct_hash_equal(&node->held[1], state));
}

struct ct_hash ct_node_state(const struct ct_node *node) {
    if (node->pending.round != 0 && is_held(node, &node->pending.state)) {
        return node->pending.state;
    }
    if (is_held(node, &node->view.merged_state)) {
        return node->view.merged_state;
    }
    return (struct ct_hash){{0}};
}

uint64_t ct_node_wake_ms(const struct ct_node *node) {
    uint64_t wake = UINT64_MAX;
    switch (node->link) {
    case CT_LINK_AWAY:
        return node->retry_ms;
    case CT_LINK_OPENING:
    case CT_LINK_GREETING:
    case CT_LINK_HELLO:
        return node->opened_ms + GREETING_MAX_MS;
    case CT_LINK_LEAVING:
        return node->opened_ms + LEAVING_MAX_MS;
    case CT_LINK_WELCOMED:
    case CT_LINK_READY:
        wake = node->heard_ms + DEAD_MS;
        wake = node->ping_ms < wake ? node->ping_ms : wake;
        if (node->sync_retry_ms != 0 && node->sync_retry_ms < wake) {
            wake = node->sync_retry_ms;
        }
        return wake;
    default:
        return UINT64_MAX;
    }
}

static void sync_to(struct ct_node *node, struct ct_bytes note, struct ct_node_actions *out) {
    node->sync_retry_ms = 0;
    if (node->syncing) {
        if (note.length > 0 && note.length <= sizeof node->note) {
            memcpy(node->note, note.data, note.length);
            node->note_length = (uint32_t)note.length;
        }
        return;
    }
    node->syncing = true;
    ct_node_do(out, CT_DO_SYNC)->text = note;
}

static void say_hello(struct ct_node *node, struct ct_node_actions *out) {
    struct ct_wire *wire = ct_node_send(out, CT_WIRE_HELLO);
    wire->body.hello.protocol = CT_PROTOCOL_VERSION;
    wire->body.hello.run_id = node->config.run_id;
    memcpy(wire->body.hello.instance, node->config.instance, CT_INSTANCE_BYTES);
    if (node->synced_once && node->view.theta_valid) {
        wire->body.hello.model = node->view.model;
    }
    wire->body.hello.state = ct_node_state(node);
    wire->body.hello.checkpoint =
        (struct ct_bytes){node->config.checkpoint, node->config.checkpoint_length};
    wire->body.hello.profile = (struct ct_bytes){node->config.profile, node->config.profile_length};
    snprintf(wire->body.hello.software, sizeof wire->body.hello.software, "cotrain");
    node->link = CT_LINK_HELLO;
}

/* N5. Refused statements end a node that never took part: the ticket is wrong. One that did goes on
 * trying, since whoever sits on the line must not be able to send it home. */
static void distrust(struct ct_node *node, struct ct_node_actions *out, const char *why) {
    node->refused = true;
    close_link(out, CT_ERR_REFUSED, why);
    if (!node->welcomed_once) {
        end(node, out, CT_ERR_REFUSED, why);
        return;
    }
    ct_node_say(out, "%s", why);
}

static void on_run(struct ct_node *node, const struct ct_wire *frame, struct ct_node_actions *out) {
    struct ct_envelope envelope;
    struct ct_entry entry;
    char why[320];
    if (ct_envelope_open(frame->body.run.entry, &envelope) != CT_OK ||
        ct_entry_decode(envelope.payload, &entry) != CT_OK || entry.kind != CT_ENTRY_RUN_OPENED) {
        snprintf(why, sizeof why, "the coordinator's run statement is malformed: %s",
                 ct_err_detail());
        distrust(node, out, why);
        return;
    }
    struct ct_hash id = ct_run_id(envelope.payload);
    if (!ct_hash_equal(&id, &node->config.run_id)) {
        distrust(node, out,
                 "the coordinator at this address runs another run than the ticket's: "
                 "ask the operator for the current ticket");
        return;
    }
    const struct ct_run_opened *opened = &entry.body.run_opened;
    if (!ct_hash_equal(&opened->identity_key, &node->peer_key)) {
        distrust(node, out,
                 "the other side shows a key that is not the run's: somebody else "
                 "answers at the coordinator's address");
        return;
    }
    if (ct_envelope_verify(&envelope, &opened->identity_key) != CT_OK) {
        distrust(node, out, "the run statement's signature does not verify");
        return;
    }
    node->opened = *opened;
    node->opened_known = true;
    ct_vkey_format(opened->origin, &opened->log_key, node->vkey);
    say_hello(node, out);
}

static void on_welcome(struct ct_node *node, uint64_t now, const struct ct_wire *frame,
                       struct ct_node_actions *out) {
    if (!node->welcomed_once) {
        ct_node_say(out, "welcome: connected to the coordinator");
    } else {
        ct_node_say(out, "connected again");
    }
    node->welcomed_once = true;
    node->refused = false;
    node->failures = 0;
    node->ping_ms = now + PING_MS;
    node->link = CT_LINK_WELCOMED;
    ct_node_do(out, CT_DO_FRAME_MAX)->bytes = CT_FRAME_BYTES_MAX;
    ct_node_do(out, CT_DO_SOURCES)->frame = *frame;
    sync_to(node, (struct ct_bytes){NULL, 0}, out);
}

static void on_refusal(struct ct_node *node, const struct ct_wire *frame,
                       struct ct_node_actions *out) {
    char why[320];
    const char *text = frame->body.refusal.text;
    node->refused = true;
    if (frame->body.refusal.code == CT_REFUSED_NOT_LISTED) {
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&node->config.key, hex);
        snprintf(why, sizeof why, "refused: %.150s (this node's key is %s)", text, hex);
    } else {
        snprintf(why, sizeof why, "refused: %.250s", text);
    }
    if (frame->body.refusal.final) {
        close_link(out, CT_ERR_REFUSED, "refused");
        end(node, out, CT_ERR_REFUSED, why);
        return;
    }
    ct_node_say(out, "%s", why);
    ct_node_round_refused(node, frame->body.refusal.code, out);
}

static void on_notice(struct ct_node *node, uint64_t now, const struct ct_wire *frame,
                      struct ct_node_actions *out) {
    node->phase_round = frame->body.notice.round;
    node->phase = frame->body.notice.phase;
    node->phase_end_ms = now + frame->body.notice.remaining_ms;
    sync_to(node, frame->body.notice.checkpoint, out);
}

/* What may arrive in a state; anything else is a breach of the protocol and closes the link. */
static const uint32_t frames_of[CT_LINK_COUNT] = {
    [CT_LINK_GREETING] = 1u << CT_WIRE_RUN | 1u << CT_WIRE_REFUSAL,
    [CT_LINK_HELLO] = 1u << CT_WIRE_WELCOME | 1u << CT_WIRE_REFUSAL | 1u << CT_WIRE_PING,
    [CT_LINK_WELCOMED] = 1u << CT_WIRE_NOTICE | 1u << CT_WIRE_REFUSAL | 1u << CT_WIRE_PING |
                         1u << CT_WIRE_PONG | 1u << CT_WIRE_RECEIPT | 1u << CT_WIRE_UPLOADED,
    [CT_LINK_READY] = 1u << CT_WIRE_NOTICE | 1u << CT_WIRE_REFUSAL | 1u << CT_WIRE_PING |
                      1u << CT_WIRE_PONG | 1u << CT_WIRE_RECEIPT | 1u << CT_WIRE_UPLOADED,
};

static void on_frame(struct ct_node *node, const struct ct_node_event *event,
                     struct ct_node_actions *out) {
    const struct ct_wire *frame = event->body.frame;
    node->heard_ms = event->now_ms;
    if ((frames_of[node->link] >> frame->kind & 1u) == 0) {
        close_link(out, CT_ERR_FORMAT, "the coordinator sent a message that does not belong here");
        return;
    }
    switch (frame->kind) {
    case CT_WIRE_RUN:
        on_run(node, frame, out);
        break;
    case CT_WIRE_WELCOME:
        on_welcome(node, event->now_ms, frame, out);
        break;
    case CT_WIRE_NOTICE:
        on_notice(node, event->now_ms, frame, out);
        break;
    case CT_WIRE_REFUSAL:
        on_refusal(node, frame, out);
        break;
    case CT_WIRE_RECEIPT:
        ct_node_round_receipt(node, frame, out);
        break;
    case CT_WIRE_UPLOADED:
        ct_node_round_uploaded(node, frame, out);
        break;
    case CT_WIRE_PING:
        ct_node_send(out, CT_WIRE_PONG)->body.ping.token = frame->body.ping.token;
        break;
    default:
        break;
    }
}

static void on_opened(struct ct_node *node, const struct ct_node_event *event,
                      struct ct_node_actions *out) {
    (void)out;
    node->peer_key = event->body.peer_key;
    node->heard_ms = event->now_ms;
    node->link = CT_LINK_GREETING;
}

static void on_closed(struct ct_node *node, const struct ct_node_event *event,
                      struct ct_node_actions *out) {
    bool before_welcome = node->link == CT_LINK_GREETING || node->link == CT_LINK_HELLO;
    const char *detail = event->body.failure.detail;
    node->failures++;
    node->retry_ms = event->now_ms + retry_delay(node);
    unsigned seconds = (unsigned)((node->retry_ms - event->now_ms + 500) / 1000);
    if (before_welcome && !node->refused) {
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&node->config.key, hex);
        ct_node_say(out,
                    "refused: the coordinator closed the connection before its welcome (%.100s); "
                    "is this node's key listed? %s; trying again in %u s",
                    detail, hex, seconds);
    } else if (node->failures == 1 || node->failures == QUICK_RETRIES + 1) {
        ct_node_say(out, "no connection (%.180s); trying again in %u s", detail, seconds);
    }
    node->refused = false;
    node->link = CT_LINK_AWAY;
}

static void on_tick(struct ct_node *node, const struct ct_node_event *event,
                    struct ct_node_actions *out) {
    uint64_t now = event->now_ms;
    switch (node->link) {
    case CT_LINK_AWAY:
        if (now >= node->retry_ms) {
            struct ct_node_action *action = ct_node_do(out, CT_DO_CONNECT);
            if (node->opened_known) {
                action->key = node->opened.identity_key;
            }
            node->opened_ms = now;
            node->link = CT_LINK_OPENING;
        }
        break;
    case CT_LINK_OPENING:
    case CT_LINK_GREETING:
    case CT_LINK_HELLO:
        if (now >= node->opened_ms + GREETING_MAX_MS) {
            node->opened_ms = now;
            close_link(out, CT_ERR_NETWORK, "the coordinator does not answer");
        }
        break;
    case CT_LINK_WELCOMED:
    case CT_LINK_READY:
        if (now >= node->heard_ms + DEAD_MS) {
            node->heard_ms = now;
            close_link(out, CT_ERR_NETWORK, "nothing was heard for 60 s");
            break;
        }
        if (now >= node->ping_ms) {
            node->ping_ms = now + PING_MS;
            ct_node_send(out, CT_WIRE_PING)->body.ping.token = next_random(node);
        }
        if (node->sync_retry_ms != 0 && now >= node->sync_retry_ms) {
            sync_to(node, (struct ct_bytes){NULL, 0}, out);
        }
        break;
    case CT_LINK_LEAVING:
        if (now >= node->opened_ms + LEAVING_MAX_MS) {
            end(node, out, CT_OK, "left");
        }
        break;
    default:
        break;
    }
}

static void leave(struct ct_node *node, uint64_t now, struct ct_node_actions *out) {
    if (node->task == CT_TASK_COMPUTE) {
        ct_node_do(out, CT_DO_CANCEL);
    }
    if (node->link == CT_LINK_WELCOMED || node->link == CT_LINK_READY) {
        ct_node_send(out, CT_WIRE_LEAVE);
        close_link(out, CT_OK, "left");
        node->opened_ms = now;
        node->link = CT_LINK_LEAVING;
        return;
    }
    end(node, out, CT_OK, "left");
}

static void become_ready(struct ct_node *node, struct ct_node_actions *out) {
    const struct ct_view *view = &node->view;
    struct ct_wire *wire = ct_node_send(out, CT_WIRE_READY);
    wire->body.ready.round = view->theta_round;
    wire->body.ready.model = view->model;
    wire->body.ready.state = ct_node_state(node);
    wire->body.ready.tokens_per_s = node->tokens_per_s;
    node->link = CT_LINK_READY;
    ct_node_round_resume(node, out);
}

static void on_synced(struct ct_node *node, const struct ct_node_event *event,
                      struct ct_node_actions *out) {
    node->syncing = false;
    node->sync_failures = 0;
    node->synced_once = true;
    node->view = *event->body.view;
    if (node->view.checkpoint_length > 0) {
        node->config.checkpoint_length = node->view.checkpoint_length;
        memcpy(node->config.checkpoint, node->view.checkpoint, sizeof node->config.checkpoint);
    }
    if (node->note_length > 0) {
        /* A newer checkpoint came meanwhile; its view follows. */
        uint32_t length = node->note_length;
        node->note_length = 0;
        sync_to(node, (struct ct_bytes){node->note, length}, out);
    }
    const struct ct_view *view = &node->view;
    bool idle = view->phase == CT_PHASE_IDLE || view->phase == CT_PHASE_FINISHED;
    ct_node_round_view(node, out);
    if (view->phase == CT_PHASE_FINISHED && view->theta_valid) {
        if (!node->saving) {
            node->saving = true;
            ct_node_do(out, CT_DO_FINISH);
        }
        return;
    }
    uint32_t until = node->config.until_round;
    if (until != 0 && (view->round > until || (view->round == until && idle))) {
        leave(node, event->now_ms, out);
        return;
    }
    if (node->link == CT_LINK_WELCOMED && view->theta_valid) {
        become_ready(node, out);
    }
}

static void on_sync_failed(struct ct_node *node, const struct ct_node_event *event,
                           struct ct_node_actions *out) {
    if (event->body.failure.err == CT_ERR_FORKED) {
        /* Nothing that this coordinator says can be built on. */
        end(node, out, CT_ERR_FORKED, event->body.failure.detail);
        return;
    }
    uint64_t delay = SYNC_RETRY_MS;
    for (uint32_t i = 1; i < node->sync_failures && delay < SYNC_RETRY_MAX_MS; i++) {
        delay *= 2;
    }
    node->syncing = false;
    node->sync_failures++;
    node->sync_retry_ms = event->now_ms + (delay < SYNC_RETRY_MAX_MS ? delay : SYNC_RETRY_MAX_MS);
    if (node->sync_failures == 2 || node->sync_failures % 16 == 0) {
        ct_node_say(out, "cannot follow the ledger: %.250s", event->body.failure.detail);
    }
    if (node->note_length > 0) {
        uint32_t length = node->note_length;
        node->note_length = 0;
        if (node->sync_failures == 1) {
            sync_to(node, (struct ct_bytes){node->note, length}, out);
        }
    }
}

static void on_computed(struct ct_node *node, const struct ct_node_event *event,
                        struct ct_node_actions *out) {
    node->tokens_per_s = event->tokens_per_s;
    ct_node_round_computed(node, event->body.done, out);
}

static void on_compute_failed(struct ct_node *node, const struct ct_node_event *event,
                              struct ct_node_actions *out) {
    ct_node_round_failed(node, event->body.failure.round, event->body.failure.detail, out);
}

static void on_saved(struct ct_node *node, const struct ct_node_event *event,
                     struct ct_node_actions *out) {
    if (event->body.failure.err != CT_OK) {
        end(node, out, event->body.failure.err, event->body.failure.detail);
        return;
    }
    leave(node, event->now_ms, out);
}

static void on_stop(struct ct_node *node, const struct ct_node_event *event,
                    struct ct_node_actions *out) {
    leave(node, event->now_ms, out);
}

static void on_left(struct ct_node *node, const struct ct_node_event *event,
                    struct ct_node_actions *out) {
    (void)event;
    end(node, out, CT_OK, "left");
}

typedef void (*handler)(struct ct_node *node, const struct ct_node_event *event,
                        struct ct_node_actions *out);

/* The transitions; an empty place means that the event has no effect in that state. */
#define WORK_EVENTS                                                                                \
    [CT_NODE_SYNCED] = on_synced, [CT_NODE_SYNC_FAILED] = on_sync_failed,                          \
    [CT_NODE_COMPUTED] = on_computed, [CT_NODE_COMPUTE_FAILED] = on_compute_failed,                \
    [CT_NODE_SAVED] = on_saved, [CT_NODE_STOP] = on_stop, [CT_NODE_TICK] = on_tick
static const handler transitions[CT_LINK_COUNT][CT_NODE_EVENT_COUNT] = {
    [CT_LINK_AWAY] = {WORK_EVENTS},
    [CT_LINK_OPENING] = {WORK_EVENTS, [CT_NODE_OPENED] = on_opened, [CT_NODE_CLOSED] = on_closed},
    [CT_LINK_GREETING] = {WORK_EVENTS, [CT_NODE_FRAME] = on_frame, [CT_NODE_CLOSED] = on_closed},
    [CT_LINK_HELLO] = {WORK_EVENTS, [CT_NODE_FRAME] = on_frame, [CT_NODE_CLOSED] = on_closed},
    [CT_LINK_WELCOMED] = {WORK_EVENTS, [CT_NODE_FRAME] = on_frame, [CT_NODE_CLOSED] = on_closed},
    [CT_LINK_READY] = {WORK_EVENTS, [CT_NODE_FRAME] = on_frame, [CT_NODE_CLOSED] = on_closed},
    [CT_LINK_LEAVING] =
        {[CT_NODE_TICK] = on_tick, [CT_NODE_CLOSED] = on_left, [CT_NODE_STOP] = on_left},
    [CT_LINK_ENDED] = {0},
};

void ct_node_handle(struct ct_node *node, const struct ct_node_event *event,
                    struct ct_node_actions *out) {
    CT_ASSERT(node->link < CT_LINK_COUNT && event->kind < CT_NODE_EVENT_COUNT);
    out->count = 0;
    handler handle = transitions[node->link][event->kind];
    if (handle != NULL) {
        handle(node, event, out);
    }
}
