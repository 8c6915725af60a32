/* A node's life as a pure state machine: events and the time in, actions out. It touches no socket,
 * file, clock or thread; join.c carries the actions out. Rules: protocol.md sections 2 to 5.
 *
 * Link                                Task (one round's work; survives a broken link)
 *   AWAY      waits for its retry       NONE     not assigned, or the round is over for us
 *   OPENING   TCP and TLS               COMPUTE  on the compute thread
 *   GREETING  waits for the run         COMMIT   commit and payload are on disk; the commit is
 *             statement                          sent whenever the link is READY
 *   HELLO     said hello                UPLOAD   the receipt is stored; the payload goes up
 *   WELCOMED  admitted, catching up     DONE     all of it is durable at the coordinator
 *   READY     takes part
 *   LEAVING   said leave, closing
 *   ENDED
 *
 * Invariants
 *   N1  a commit is sent only when it and its payload are on disk (COMPUTED says so)
 *   N2  the payload is sent only after a verified receipt for exactly these commit bytes was given
 *       out to be stored
 *   N3  one commit per round: once COMMIT is reached in a round, that round is never computed again
 *   N4  what was computed for a round is forgotten only when the ledger closed the round, refused
 *       the commit, or closed the commits without it
 *   N5  nothing but the run statement is believed before it matched run id, TLS key and signature
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "follow.h"

#include <cotrain/wire.h>

enum ct_node_link {
    CT_LINK_AWAY,
    CT_LINK_OPENING,
    CT_LINK_GREETING,
    CT_LINK_HELLO,
    CT_LINK_WELCOMED,
    CT_LINK_READY,
    CT_LINK_LEAVING,
    CT_LINK_ENDED,
    CT_LINK_COUNT,
};

enum ct_node_task {
    CT_TASK_NONE,
    CT_TASK_COMPUTE,
    CT_TASK_COMMIT,
    CT_TASK_UPLOAD,
    CT_TASK_DONE,
};

/* What was computed for a round and lies on disk (contribution.h). */
struct ct_pending {
    uint32_t round; /* 0: none */
    struct ct_blob_ref update;
    struct ct_hash state;
    bool receipt; /* stored already */
    uint32_t length;
    uint8_t envelope[CT_STATEMENT_BYTES_MAX];
};

struct ct_node_config {
    struct ct_hash run_id;
    struct ct_hash key; /* this node's public key, for what is told to people */
    uint8_t instance[CT_INSTANCE_BYTES];
    uint32_t until_round; /* leave when it is closed; 0: to the end */
    struct ct_pending pending;
    struct ct_hash held[2];     /* digests of the states on disk; zero: none */
    uint32_t checkpoint_length; /* of the newest accepted checkpoint; 0: none */
    uint8_t checkpoint[CT_HELLO_NOTE_MAX];
    uint32_t profile_length; /* of the record that the volunteer shows; 0: none */
    uint8_t profile[CT_PROFILE_BYTES_MAX];
};

enum ct_node_event_kind {
    CT_NODE_TICK,   /* time passed */
    CT_NODE_OPENED, /* the handshake is done */
    CT_NODE_FRAME,
    CT_NODE_CLOSED,
    CT_NODE_SYNCED, /* the ledger's copy and θ are at the last checkpoint given */
    CT_NODE_SYNC_FAILED,
    CT_NODE_COMPUTED, /* a contribution is on disk */
    CT_NODE_COMPUTE_FAILED,
    CT_NODE_SAVED, /* answer to FINISH */
    CT_NODE_STOP,  /* the volunteer wants to stop */
    CT_NODE_EVENT_COUNT,
};

struct ct_node_event {
    enum ct_node_event_kind kind;
    uint64_t now_ms; /* CLOCK_BOOTTIME */
    union {
        struct ct_hash peer_key;       /* OPENED */
        const struct ct_wire *frame;   /* FRAME */
        const struct ct_view *view;    /* SYNCED */
        const struct ct_pending *done; /* COMPUTED */
        struct {
            enum ct_err err; /* CLOSED, SYNC_FAILED, COMPUTE_FAILED, SAVED */
            uint32_t round;  /* COMPUTE_FAILED */
            const char *detail;
        } failure;
    } body;
    float tokens_per_s; /* COMPUTED */
};

enum ct_node_action_kind {
    CT_DO_CONNECT,   /* to the ticket's address; `key` is expected unless it is zero */
    CT_DO_FRAME_MAX, /* `bytes` */
    CT_DO_SEND,
    CT_DO_CHUNK, /* send the payload of `round` from `bytes` on, one chunk */
    CT_DO_CLOSE,
    CT_DO_SOURCES, /* where to read; frame is the welcome */
    CT_DO_SYNC,    /* to the note, or to what GET /checkpoint says if it is empty */
    CT_DO_COMPUTE,
    CT_DO_CANCEL,
    CT_DO_RECEIPT, /* store the text for `round`, durably, before anything after it */
    CT_DO_FORGET,  /* the pending files of `round` are no longer needed */
    CT_DO_SAY,     /* tell the volunteer */
    CT_DO_FINISH,  /* write the finished model, then SAVED */
    CT_DO_END,     /* leave the loop; `err` is the result */
};

/* Spans point into the event or the node and are valid until the next event. */
struct ct_node_action {
    enum ct_node_action_kind kind;
    uint32_t round;
    uint64_t bytes;
    enum ct_err err;
    struct ct_hash key;
    struct ct_bytes text; /* SYNC, RECEIPT */
    char say[320];        /* SAY, CLOSE, END */
    struct ct_wire frame; /* SEND, SOURCES */
};

#define CT_NODE_ACTIONS_MAX 24u
struct ct_node_actions {
    uint32_t count;
    struct ct_node_action items[CT_NODE_ACTIONS_MAX];
};

struct ct_node {
    struct ct_node_config config;
    uint64_t random; /* state of the jitter */
    enum ct_node_link link;
    enum ct_node_task task;
    bool welcomed_once;
    bool saving;
    bool refused; /* why was told already */

    bool opened_known; /* from the run statement on */
    struct ct_run_opened opened;
    struct ct_hash peer_key;
    char vkey[CT_VKEY_BYTES_MAX];

    uint32_t failures; /* connections in a row that did not lead to welcome */
    uint64_t retry_ms, heard_ms, ping_ms, opened_ms;

    bool syncing, synced_once;
    uint64_t sync_retry_ms; /* 0: none */
    uint32_t sync_failures;
    uint32_t note_length; /* a note that waits for the running sync */
    uint8_t note[CT_CHECKPOINT_BYTES_MAX];
    struct ct_view view;

    uint32_t task_round;
    uint32_t over_round; /* no work in this round any more */
    struct ct_pending pending;
    struct ct_hash held[2];
    float tokens_per_s;
    bool asked; /* the next `uploaded` says where to go on */
    uint64_t upload_sent, upload_acked;
    uint32_t upload_refusals;

    uint32_t phase_round; /* of the last notice, for people */
    uint32_t phase;
    uint64_t phase_end_ms;
};

/* `seed` feeds the jitter only. A pending contribution in the config is taken up where it stood. */
void ct_node_init(struct ct_node *node, const struct ct_node_config *config, uint64_t seed);

/* One event; replaces the actions. They are carried out in order. */
void ct_node_handle(struct ct_node *node, const struct ct_node_event *event,
                    struct ct_node_actions *out);

/* When the next TICK is due. */
uint64_t ct_node_wake_ms(const struct ct_node *node);

/* The state digest that it could go on from in the next round, or zero: of the contribution to the
 * open round if it made one, else of its last merged commit; only if the state is still there. */
struct ct_hash ct_node_state(const struct ct_node *node);

#endif
