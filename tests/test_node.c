/* The node's state machine, without sockets, files, clocks or threads. */
#include "node/node.h"

#include <cotrain/receipt.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB 1048576ull

/* One coordinator, one node, one event at a time. */
struct world {
    struct ct_key *identity, *log_key, *node_key, *stranger;
    struct ct_hash run_id;
    struct ct_buf run_entry;
    struct ct_node node;
    struct ct_node_actions actions;
    uint64_t now;
    struct ct_view view;
    struct ct_wire frame;
};

static void make_run_entry(struct world *world, struct ct_buf *out, struct ct_hash *out_run_id,
                           const struct ct_key *identity, const struct ct_key *signer) {
    struct ct_entry *entry = calloc(1, sizeof *entry);
    entry->kind = CT_ENTRY_RUN_OPENED;
    entry->version = 1;
    entry->body.run_opened.manifest.length = 100;
    entry->body.run_opened.identity_key = ct_key_public(identity);
    entry->body.run_opened.log_key = ct_key_public(world->log_key);
    memcpy(entry->body.run_opened.origin, "example.org/run", 16);
    struct ct_buf payload;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    ct_buf_init(out, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, signer, out),
                     CT_OK);
    *out_run_id = ct_run_id(ct_buf_bytes(&payload));
    ct_buf_deinit(&payload);
    free(entry);
}

static int set_up(void **state) {
    struct world *world = calloc(1, sizeof *world);
    assert_int_equal(ct_key_generate(&world->identity), CT_OK);
    assert_int_equal(ct_key_generate(&world->log_key), CT_OK);
    assert_int_equal(ct_key_generate(&world->node_key), CT_OK);
    assert_int_equal(ct_key_generate(&world->stranger), CT_OK);
    make_run_entry(world, &world->run_entry, &world->run_id, world->identity, world->identity);
    world->now = 1000000;
    world->view.rounds = 10;
    world->view.phase = CT_PHASE_IDLE;
    world->view.theta_valid = true;
    world->view.node = 1;
    struct ct_node_config config = {.run_id = world->run_id};
    ct_node_init(&world->node, &config, 7);
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    struct world *world = *state;
    ct_buf_deinit(&world->run_entry);
    ct_key_free(world->identity);
    ct_key_free(world->log_key);
    ct_key_free(world->node_key);
    ct_key_free(world->stranger);
    free(world);
    return 0;
}

static void deliver(struct world *world, struct ct_node_event event) {
    event.now_ms = world->now;
    ct_node_handle(&world->node, &event, &world->actions);
}

static void tick(struct world *world, uint64_t later_ms) {
    world->now += later_ms;
    deliver(world, (struct ct_node_event){.kind = CT_NODE_TICK});
}

static void opened(struct world *world, const struct ct_key *peer) {
    deliver(world,
            (struct ct_node_event){.kind = CT_NODE_OPENED, .body.peer_key = ct_key_public(peer)});
}

static void closed(struct world *world) {
    struct ct_node_event event = {.kind = CT_NODE_CLOSED};
    event.body.failure.err = CT_ERR_NETWORK;
    event.body.failure.detail = "connection reset";
    deliver(world, event);
}

static struct ct_wire *new_frame(struct world *world, enum ct_wire_kind kind) {
    memset(&world->frame, 0, sizeof world->frame);
    world->frame.kind = kind;
    return &world->frame;
}

static void receive(struct world *world) {
    deliver(world, (struct ct_node_event){.kind = CT_NODE_FRAME, .body.frame = &world->frame});
}

static void receive_run(struct world *world, const struct ct_buf *entry) {
    new_frame(world, CT_WIRE_RUN)->body.run.entry = ct_buf_bytes(entry);
    receive(world);
}

static void receive_welcome(struct world *world) {
    new_frame(world, CT_WIRE_WELCOME)->body.welcome.http_port = 80;
    receive(world);
}

static void receive_notice(struct world *world, const char *note) {
    struct ct_wire *frame = new_frame(world, CT_WIRE_NOTICE);
    frame->body.notice.checkpoint = (struct ct_bytes){(const uint8_t *)note, strlen(note)};
    receive(world);
}

static void synced(struct world *world) {
    deliver(world, (struct ct_node_event){.kind = CT_NODE_SYNCED, .body.view = &world->view});
}

static void sync_failed(struct world *world) {
    struct ct_node_event event = {.kind = CT_NODE_SYNC_FAILED};
    event.body.failure.err = CT_ERR_NETWORK;
    event.body.failure.detail = "no route";
    deliver(world, event);
}

static uint32_t count_of(const struct world *world, enum ct_node_action_kind kind) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->actions.count; i++) {
        count += world->actions.items[i].kind == kind;
    }
    return count;
}

static const struct ct_node_action *find(const struct world *world, enum ct_node_action_kind kind) {
    for (uint32_t i = 0; i < world->actions.count; i++) {
        if (world->actions.items[i].kind == kind) {
            return &world->actions.items[i];
        }
    }
    fail_msg("no action %d among %u", kind, world->actions.count);
    return NULL;
}

static const struct ct_wire *sent(const struct world *world, enum ct_wire_kind kind) {
    for (uint32_t i = 0; i < world->actions.count; i++) {
        const struct ct_node_action *action = &world->actions.items[i];
        if (action->kind == CT_DO_SEND && action->frame.kind == kind) {
            return &action->frame;
        }
    }
    return NULL;
}

static void connect_to_welcome(struct world *world) {
    tick(world, 61000);
    assert_int_equal(find(world, CT_DO_CONNECT)->kind, CT_DO_CONNECT);
    opened(world, world->identity);
    receive_run(world, &world->run_entry);
    assert_non_null(sent(world, CT_WIRE_HELLO));
    receive_welcome(world);
}

static void connect_to_ready(struct world *world) {
    connect_to_welcome(world);
    synced(world);
    assert_non_null(sent(world, CT_WIRE_READY));
    assert_int_equal(world->node.link, CT_LINK_READY);
}

static void open_round(struct world *world, uint32_t round) {
    world->view.round = round;
    world->view.phase = CT_PHASE_COMMIT;
    world->view.part = CT_PART_ASSIGNED;
    world->view.theta_round = round - 1;
}

/* A computed contribution with a real signature and a payload of that many bytes. */
static struct ct_pending make_pending(struct world *world, uint32_t round, uint64_t bytes) {
    struct ct_commit commit = {.version = 1, .run_id = world->run_id, .round = round, .author = 1};
    struct ct_pending pending = {.round = round};
    memset(commit.update.sha256.bytes, (int)round + 3, 32);
    memset(commit.state.bytes, (int)round + 7, 32);
    commit.update.length = bytes;
    commit.steps = 8;
    struct ct_buf payload, envelope;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&envelope, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), 1, world->node_key, &envelope),
        CT_OK);
    pending.update = commit.update;
    pending.state = commit.state;
    pending.length = (uint32_t)envelope.length;
    memcpy(pending.envelope, envelope.data, envelope.length);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return pending;
}

static void computed(struct world *world, const struct ct_pending *pending) {
    deliver(world, (struct ct_node_event){.kind = CT_NODE_COMPUTED, .body.done = pending});
}

/* The receipt of a log that holds nothing but this commit. */
static void make_receipt(struct world *world, const struct ct_pending *pending,
                         const struct ct_key *log_key, struct ct_buf *out) {
    struct ct_entry *entry = calloc(1, sizeof *entry);
    entry->kind = CT_ENTRY_COMMIT;
    entry->version = 1;
    entry->run_id = world->run_id;
    entry->round = pending->round;
    entry->body.commit.length = pending->length;
    memcpy(entry->body.commit.envelope, pending->envelope, pending->length);
    struct ct_buf payload, sealed, note;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&sealed, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(out, CT_FRAME_BYTES_MAX);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, world->identity, &sealed),
        CT_OK);
    struct ct_checkpoint checkpoint = {.origin = "example.org/run", .size = 1};
    checkpoint.root = ct_leaf_hash(ct_buf_bytes(&sealed));
    assert_int_equal(ct_checkpoint_sign(&checkpoint, log_key, &note), CT_OK);
    struct ct_proof proof = {0};
    assert_int_equal(ct_receipt_format(0, ct_buf_bytes(&sealed), &proof, ct_buf_bytes(&note), out),
                     CT_OK);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&sealed);
    ct_buf_deinit(&note);
    free(entry);
}

static void receive_receipt(struct world *world, uint32_t round, const struct ct_buf *text) {
    struct ct_wire *frame = new_frame(world, CT_WIRE_RECEIPT);
    frame->body.receipt.round = round;
    frame->body.receipt.text = ct_buf_bytes(text);
    receive(world);
}

static void uploaded(struct world *world, uint32_t round, uint64_t offset, bool complete) {
    struct ct_wire *frame = new_frame(world, CT_WIRE_UPLOADED);
    frame->body.uploaded.round = round;
    frame->body.uploaded.offset = offset;
    frame->body.uploaded.complete = complete;
    receive(world);
}

static void a_round_from_notice_to_the_next(void **state) {
    struct world *world = *state;
    connect_to_welcome(world);
    assert_int_equal(find(world, CT_DO_FRAME_MAX)->bytes, CT_FRAME_BYTES_MAX);
    assert_int_equal(find(world, CT_DO_SOURCES)->frame.body.welcome.http_port, 80);
    assert_int_equal(find(world, CT_DO_SYNC)->text.length, 0);
    assert_null(sent(world, CT_WIRE_READY));
    synced(world);
    assert_non_null(sent(world, CT_WIRE_READY));
    receive_notice(world, "note");
    assert_memory_equal(find(world, CT_DO_SYNC)->text.data, "note", 4);
    open_round(world, 1);
    synced(world);
    assert_int_equal(find(world, CT_DO_COMPUTE)->round, 1);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 0);

    struct ct_pending pending = make_pending(world, 1, 500);
    computed(world, &pending);
    const struct ct_wire *commit = sent(world, CT_WIRE_COMMIT);
    assert_non_null(commit);
    assert_int_equal(commit->body.commit.envelope.length, pending.length);
    assert_memory_equal(commit->body.commit.envelope.data, pending.envelope, pending.length);
    assert_int_equal(count_of(world, CT_DO_CHUNK), 0);

    struct ct_buf text;
    make_receipt(world, &pending, world->log_key, &text);
    receive_receipt(world, 1, &text);
    /* N2: stored first, then the first byte goes up. */
    assert_int_equal(world->actions.items[0].kind, CT_DO_RECEIPT);
    assert_int_equal(world->actions.items[1].kind, CT_DO_CHUNK);
    assert_int_equal(world->actions.items[1].bytes, 0);
    receive_receipt(world, 1, &text);
    assert_int_equal(world->actions.count, 0);
    ct_buf_deinit(&text);
    uploaded(world, 1, 500, true);
    assert_int_equal(world->actions.count, 0);
    assert_int_equal(world->node.task, CT_TASK_DONE);

    world->view.phase = CT_PHASE_IDLE;
    world->view.part = CT_PART_NONE;
    world->view.last_round = 1;
    world->view.last_merged = true;
    world->view.merged_state = pending.state;
    synced(world);
    assert_int_equal(find(world, CT_DO_FORGET)->round, 1);
    assert_int_equal(count_of(world, CT_DO_SAY), 0);
    open_round(world, 2);
    synced(world);
    assert_int_equal(find(world, CT_DO_COMPUTE)->round, 2);
    struct ct_hash held = ct_node_state(&world->node);
    assert_true(ct_hash_equal(&held, &pending.state));
}

static void only_the_right_receipt_counts(void **state) {
    struct world *world = *state;
    struct ct_buf text;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    struct ct_pending pending = make_pending(world, 1, 500);
    struct ct_pending other = make_pending(world, 1, 501);
    computed(world, &pending);

    make_receipt(world, &pending, world->stranger, &text);
    receive_receipt(world, 1, &text);
    assert_int_equal(count_of(world, CT_DO_RECEIPT) + count_of(world, CT_DO_CHUNK), 0);
    assert_int_equal(count_of(world, CT_DO_SAY), 1);
    ct_buf_deinit(&text);

    make_receipt(world, &other, world->log_key, &text);
    receive_receipt(world, 1, &text);
    assert_int_equal(count_of(world, CT_DO_RECEIPT) + count_of(world, CT_DO_CHUNK), 0);
    ct_buf_deinit(&text);

    make_receipt(world, &pending, world->log_key, &text);
    receive_receipt(world, 2, &text);
    assert_int_equal(world->actions.count, 0);
    text.data[text.length / 2] ^= 1;
    receive_receipt(world, 1, &text);
    assert_int_equal(count_of(world, CT_DO_RECEIPT), 0);
    text.data[text.length / 2] ^= 1;
    receive_receipt(world, 1, &text);
    assert_int_equal(count_of(world, CT_DO_RECEIPT), 1);
    ct_buf_deinit(&text);
}

static void expect_end(struct world *world, enum ct_err err, const char *word) {
    const struct ct_node_action *action = find(world, CT_DO_END);
    assert_int_equal(action->err, err);
    if (strstr(action->say, word) == NULL) {
        fail_msg("'%s' does not say '%s'", action->say, word);
    }
    tick(world, 100000);
    assert_int_equal(world->actions.count, 0);
}

static void a_wrong_run_is_not_joined(void **state) {
    struct world *world = *state;
    struct ct_buf entry;
    struct ct_hash id;
    make_run_entry(world, &entry, &id, world->stranger, world->stranger);
    tick(world, 0);
    opened(world, world->stranger);
    receive_run(world, &entry);
    assert_null(sent(world, CT_WIRE_HELLO));
    expect_end(world, CT_ERR_REFUSED, "another run");
    ct_buf_deinit(&entry);
}

static void another_key_at_the_address_is_not_joined(void **state) {
    struct world *world = *state;
    tick(world, 0);
    assert_true(ct_hash_is_zero(&find(world, CT_DO_CONNECT)->key));
    opened(world, world->stranger);
    receive_run(world, &world->run_entry);
    assert_null(sent(world, CT_WIRE_HELLO));
    expect_end(world, CT_ERR_REFUSED, "key");
}

static void a_statement_signed_by_another_is_not_believed(void **state) {
    struct world *world = *state;
    struct ct_buf entry;
    struct ct_hash id;
    make_run_entry(world, &entry, &id, world->identity, world->stranger);
    struct ct_node_config config = {.run_id = id};
    ct_node_init(&world->node, &config, 7);
    tick(world, 0);
    opened(world, world->identity);
    receive_run(world, &entry);
    assert_null(sent(world, CT_WIRE_HELLO));
    expect_end(world, CT_ERR_REFUSED, "signature");
    ct_buf_deinit(&entry);
}

/* Who sits on the line later must not be able to send a node home. */
static void a_member_outlasts_an_impostor(void **state) {
    struct world *world = *state;
    struct ct_hash identity = ct_key_public(world->identity);
    connect_to_ready(world);
    closed(world);
    tick(world, 61000);
    assert_true(ct_hash_equal(&find(world, CT_DO_CONNECT)->key, &identity));
    opened(world, world->stranger);
    receive_run(world, &world->run_entry);
    assert_int_equal(count_of(world, CT_DO_END), 0);
    assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
    closed(world);
    connect_to_ready(world);
}

static void a_close_before_welcome_is_told_as_a_refusal(void **state) {
    struct world *world = *state;
    tick(world, 0);
    opened(world, world->identity);
    closed(world);
    assert_non_null(strstr(find(world, CT_DO_SAY)->say, "refused"));
    tick(world, 999);
    assert_int_equal(count_of(world, CT_DO_CONNECT), 0);
    tick(world, 1);
    opened(world, world->identity);
    receive_run(world, &world->run_entry);
    closed(world);
    assert_non_null(strstr(find(world, CT_DO_SAY)->say, "refused"));
}

static void retries_are_quick_first_and_never_over_a_minute(void **state) {
    struct world *world = *state;
    uint64_t longest = 0;
    tick(world, 0);
    for (int i = 0; i < 40; i++) {
        closed(world);
        uint64_t delay = ct_node_wake_ms(&world->node) - world->now;
        assert_in_range(delay, 1000, 60000);
        if (i < 3) {
            assert_int_equal(delay, 1000);
        }
        longest = delay > longest ? delay : longest;
        tick(world, delay);
        assert_int_equal(count_of(world, CT_DO_CONNECT), 1);
    }
    assert_true(longest > 30000);
    /* Being welcomed makes the next retry quick again. */
    opened(world, world->identity);
    receive_run(world, &world->run_entry);
    receive_welcome(world);
    closed(world);
    assert_int_equal(ct_node_wake_ms(&world->node), world->now + 1000);
}

static void refuse(struct world *world, enum ct_refusal_code code, bool final, const char *text) {
    struct ct_wire *frame = new_frame(world, CT_WIRE_REFUSAL);
    frame->body.refusal.code = code;
    frame->body.refusal.final = final;
    snprintf(frame->body.refusal.text, sizeof frame->body.refusal.text, "%s", text);
    receive(world);
}

static void refusals_are_passed_on_in_words(void **state) {
    struct world *world = *state;
    tick(world, 0);
    opened(world, world->identity);
    receive_run(world, &world->run_entry);
    refuse(world, CT_REFUSED_INSTANCE, false, "is at work elsewhere");
    assert_non_null(strstr(find(world, CT_DO_SAY)->say, "is at work elsewhere"));
    closed(world);
    /* Told already: the close says nothing more of a refusal, and it is tried again. */
    for (uint32_t i = 0; i < world->actions.count; i++) {
        assert_null(strstr(world->actions.items[i].say, "refused"));
    }
    tick(world, 1000);
    opened(world, world->identity);
    receive_run(world, &world->run_entry);
    refuse(world, CT_REFUSED_NOT_LISTED, true, "not on the list");
    expect_end(world, CT_ERR_REFUSED, "not on the list");
}

static void a_refused_commit_is_dropped(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    struct ct_pending pending = make_pending(world, 1, 500);
    computed(world, &pending);
    refuse(world, CT_REFUSED_LATE, false, "commits are closed");
    assert_int_equal(find(world, CT_DO_FORGET)->round, 1);
    /* N3: not a second time in this round. */
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 0);
}

static void restart_with(struct world *world, const struct ct_pending *pending) {
    struct ct_node_config config = {.run_id = world->run_id, .pending = *pending};
    ct_node_init(&world->node, &config, 8);
}

static void after_a_restart_the_same_bytes_are_sent(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 3, 500);
    restart_with(world, &pending);
    open_round(world, 3);
    connect_to_welcome(world);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 0);
    const struct ct_wire *commit = sent(world, CT_WIRE_COMMIT);
    assert_non_null(commit);
    assert_memory_equal(commit->body.commit.envelope.data, pending.envelope, pending.length);
    /* The ledger has it, the receipt was lost with the connection: the same again. */
    closed(world);
    world->view.part = CT_PART_COMMITTED;
    world->view.committed_update = pending.update.sha256;
    connect_to_welcome(world);
    synced(world);
    assert_non_null(sent(world, CT_WIRE_COMMIT));
}

static void after_a_restart_an_upload_goes_on(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 3, 5 * MIB);
    pending.receipt = true;
    restart_with(world, &pending);
    open_round(world, 3);
    world->view.part = CT_PART_COMMITTED;
    world->view.committed_update = pending.update.sha256;
    connect_to_welcome(world);
    synced(world);
    assert_null(sent(world, CT_WIRE_COMMIT));
    const struct ct_wire *ask = sent(world, CT_WIRE_UPLOAD);
    assert_non_null(ask);
    assert_int_equal(ask->body.upload.data.length, 0);
    assert_int_equal(count_of(world, CT_DO_CHUNK), 0);
    uploaded(world, 3, 4 * MIB, false);
    assert_int_equal(count_of(world, CT_DO_CHUNK), 1);
    assert_int_equal(find(world, CT_DO_CHUNK)->bytes, 4 * MIB);
}

/* What a coordinator that was restarted in mid-round is told, so that the epoch can continue. */
static void the_state_to_go_on_from_is_told(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 3, 500);
    struct ct_hash merged = {{42}};
    struct ct_node_config config = {
        .run_id = world->run_id, .pending = pending, .held = {merged, pending.state}};
    ct_node_init(&world->node, &config, 8);
    open_round(world, 3);
    world->view.merged_state = merged;
    connect_to_welcome(world);
    synced(world);
    assert_memory_equal(&sent(world, CT_WIRE_READY)->body.ready.state, &pending.state, 32);
    /* Killed before the state was kept: then the one before is told, and a reset will follow. */
    config.held[1] = (struct ct_hash){{0}};
    ct_node_init(&world->node, &config, 8);
    connect_to_welcome(world);
    synced(world);
    assert_memory_equal(&sent(world, CT_WIRE_READY)->body.ready.state, &merged, 32);
    config.held[0] = (struct ct_hash){{7}};
    ct_node_init(&world->node, &config, 8);
    connect_to_welcome(world);
    synced(world);
    struct ct_hash told = sent(world, CT_WIRE_READY)->body.ready.state;
    assert_true(ct_hash_is_zero(&told));
}

static void what_belongs_to_a_closed_round_is_forgotten(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 3, 500);
    restart_with(world, &pending);
    world->view.round = 3;
    connect_to_welcome(world);
    synced(world);
    assert_int_equal(find(world, CT_DO_FORGET)->round, 3);
    assert_null(sent(world, CT_WIRE_COMMIT));
}

static void another_commit_of_this_key_is_noticed(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 3, 500);
    restart_with(world, &pending);
    open_round(world, 3);
    world->view.part = CT_PART_COMMITTED;
    connect_to_welcome(world);
    synced(world);
    assert_int_equal(find(world, CT_DO_FORGET)->round, 3);
    assert_non_null(strstr(find(world, CT_DO_SAY)->say, "identity"));
}

static void too_slow_is_cancelled_and_the_next_round_comes(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    world->view.phase = CT_PHASE_UPLOAD;
    synced(world);
    assert_int_equal(count_of(world, CT_DO_CANCEL), 1);
    /* It had just been done when it was cancelled: not sent, not kept. */
    struct ct_pending pending = make_pending(world, 1, 500);
    computed(world, &pending);
    assert_null(sent(world, CT_WIRE_COMMIT));
    assert_int_equal(find(world, CT_DO_FORGET)->round, 1);
    open_round(world, 2);
    synced(world);
    assert_int_equal(find(world, CT_DO_COMPUTE)->round, 2);
    struct ct_node_event event = {.kind = CT_NODE_COMPUTE_FAILED};
    event.body.failure.round = 1;
    event.body.failure.detail = "cancelled";
    deliver(world, event);
    assert_int_equal(world->node.task, CT_TASK_COMPUTE);
    event.body.failure.round = 2;
    deliver(world, event);
    assert_int_equal(world->node.task, CT_TASK_NONE);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 0);
}

static void computing_outlasts_a_broken_connection(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    closed(world);
    assert_int_equal(count_of(world, CT_DO_CANCEL), 0);
    struct ct_pending pending = make_pending(world, 1, 500);
    computed(world, &pending);
    assert_int_equal(world->actions.count, 0);
    connect_to_welcome(world);
    synced(world);
    assert_non_null(sent(world, CT_WIRE_COMMIT));
}

static void a_lost_payload_is_sent_again(void **state) {
    struct world *world = *state;
    struct ct_pending pending = make_pending(world, 1, 500);
    pending.receipt = true;
    restart_with(world, &pending);
    open_round(world, 1);
    world->view.part = CT_PART_COMMITTED;
    world->view.committed_update = pending.update.sha256;
    connect_to_ready(world);
    uploaded(world, 1, 500, true);
    assert_int_equal(world->node.task, CT_TASK_DONE);
    closed(world);
    connect_to_ready(world);
    assert_non_null(sent(world, CT_WIRE_UPLOAD));
    world->view.part = CT_PART_RECEIVED;
    synced(world);
    closed(world);
    connect_to_ready(world);
    assert_null(sent(world, CT_WIRE_UPLOAD));
}

static void uploads_keep_to_their_window(void **state) {
    struct world *world = *state;
    struct ct_buf text;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    struct ct_pending pending = make_pending(world, 1, 10 * MIB + 5);
    computed(world, &pending);
    make_receipt(world, &pending, world->log_key, &text);
    receive_receipt(world, 1, &text);
    ct_buf_deinit(&text);
    assert_int_equal(count_of(world, CT_DO_CHUNK), 4);
    uint64_t next = 4 * MIB;
    for (uint64_t have = MIB; have <= 10 * MIB; have += MIB) {
        uploaded(world, 1, have, false);
        uint32_t expected = next <= 10 * MIB ? 1 : 0;
        assert_int_equal(count_of(world, CT_DO_CHUNK), expected);
        if (expected == 1) {
            assert_int_equal(find(world, CT_DO_CHUNK)->bytes, next);
            next += MIB;
        }
    }
    /* Beyond the end, backwards, of another round: without effect. */
    uploaded(world, 1, 11 * MIB, true);
    uploaded(world, 2, 10 * MIB + 5, true);
    assert_int_equal(world->node.task, CT_TASK_UPLOAD);
    refuse(world, CT_REFUSED_UPLOAD, false, "gap");
    assert_non_null(sent(world, CT_WIRE_UPLOAD));
    uploaded(world, 1, 9 * MIB, false);
    assert_int_equal(find(world, CT_DO_CHUNK)->bytes, 9 * MIB);
    assert_int_equal(count_of(world, CT_DO_CHUNK), 2);
    uploaded(world, 1, 10 * MIB + 5, true);
    assert_int_equal(world->node.task, CT_TASK_DONE);
}

static void silence_is_noticed(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    uint64_t start = world->now;
    uint32_t pings = 0;
    while (world->now < start + 59000) {
        tick(world, 1000);
        pings += sent(world, CT_WIRE_PING) != NULL;
        assert_int_equal(count_of(world, CT_DO_CLOSE), 0);
    }
    assert_int_equal(pings, 2);
    new_frame(world, CT_WIRE_PONG);
    receive(world);
    tick(world, 59999);
    assert_int_equal(count_of(world, CT_DO_CLOSE), 0);
    tick(world, 1);
    assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
    closed(world);
    assert_int_equal(world->node.link, CT_LINK_AWAY);
    new_frame(world, CT_WIRE_PING)->body.ping.token = 77;
    connect_to_ready(world);
    new_frame(world, CT_WIRE_PING)->body.ping.token = 77;
    receive(world);
    assert_int_equal(sent(world, CT_WIRE_PONG)->body.ping.token, 77);
}

static void a_coordinator_that_says_nothing_is_left(void **state) {
    struct world *world = *state;
    tick(world, 0);
    opened(world, world->identity);
    tick(world, 29999);
    assert_int_equal(count_of(world, CT_DO_CLOSE), 0);
    tick(world, 1);
    assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
}

static void messages_out_of_place_close_the_link(void **state) {
    struct world *world = *state;
    static const enum ct_wire_kind never[] = {CT_WIRE_HELLO, CT_WIRE_READY,  CT_WIRE_COMMIT,
                                              CT_WIRE_LEAVE, CT_WIRE_UPLOAD, CT_WIRE_WELCOME,
                                              CT_WIRE_RUN};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        connect_to_ready(world);
        new_frame(world, never[i]);
        receive(world);
        assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
        closed(world);
    }
    tick(world, 61000);
    opened(world, world->identity);
    receive_notice(world, "early");
    assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
    assert_int_equal(count_of(world, CT_DO_SYNC), 0);
}

static void only_the_newest_notice_waits(void **state) {
    struct world *world = *state;
    connect_to_welcome(world);
    receive_notice(world, "one");
    assert_int_equal(count_of(world, CT_DO_SYNC), 0);
    receive_notice(world, "two");
    synced(world);
    assert_memory_equal(find(world, CT_DO_SYNC)->text.data, "two", 3);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_SYNC), 0);
}

static void following_is_tried_again(void **state) {
    struct world *world = *state;
    connect_to_welcome(world);
    uint64_t last = 0;
    for (int i = 0; i < 10; i++) {
        sync_failed(world);
        uint64_t delay = ct_node_wake_ms(&world->node) - world->now;
        assert_true(delay <= 30000);
        last = world->node.sync_retry_ms - world->now;
        world->node.heard_ms = world->now + 1000000;
        tick(world, last);
        assert_int_equal(count_of(world, CT_DO_SYNC), 1);
    }
    assert_int_equal(last, 30000);
    synced(world);
    assert_non_null(sent(world, CT_WIRE_READY));
}

static void without_the_model_it_does_not_take_part(void **state) {
    struct world *world = *state;
    world->view.theta_valid = false;
    connect_to_welcome(world);
    open_round(world, 1);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 0);
    assert_null(sent(world, CT_WIRE_READY));
    world->view.theta_valid = true;
    synced(world);
    assert_int_equal(count_of(world, CT_DO_COMPUTE), 1);
    assert_non_null(sent(world, CT_WIRE_READY));
}

static void stopping_takes_leave(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    open_round(world, 1);
    synced(world);
    deliver(world, (struct ct_node_event){.kind = CT_NODE_STOP});
    assert_int_equal(count_of(world, CT_DO_CANCEL), 1);
    assert_non_null(sent(world, CT_WIRE_LEAVE));
    assert_int_equal(count_of(world, CT_DO_CLOSE), 1);
    assert_int_equal(count_of(world, CT_DO_END), 0);
    closed(world);
    expect_end(world, CT_OK, "left");
}

static void stopping_does_not_wait_for_a_dead_line(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    deliver(world, (struct ct_node_event){.kind = CT_NODE_STOP});
    tick(world, 2999);
    assert_int_equal(count_of(world, CT_DO_END), 0);
    tick(world, 1);
    expect_end(world, CT_OK, "left");
}

static void stopping_while_away_ends_at_once(void **state) {
    struct world *world = *state;
    deliver(world, (struct ct_node_event){.kind = CT_NODE_STOP});
    expect_end(world, CT_OK, "left");
}

static void at_the_end_the_model_is_written_first(void **state) {
    struct world *world = *state;
    connect_to_ready(world);
    world->view.round = 10;
    world->view.phase = CT_PHASE_FINISHED;
    synced(world);
    assert_int_equal(count_of(world, CT_DO_FINISH), 1);
    assert_int_equal(count_of(world, CT_DO_END), 0);
    synced(world);
    assert_int_equal(count_of(world, CT_DO_FINISH), 0);
    deliver(world, (struct ct_node_event){.kind = CT_NODE_SAVED});
    assert_non_null(sent(world, CT_WIRE_LEAVE));
    closed(world);
    expect_end(world, CT_OK, "left");
}

static void until_round_leaves_when_it_is_closed(void **state) {
    struct world *world = *state;
    struct ct_node_config config = {.run_id = world->run_id, .until_round = 2};
    ct_node_init(&world->node, &config, 9);
    connect_to_ready(world);
    open_round(world, 2);
    synced(world);
    assert_null(sent(world, CT_WIRE_LEAVE));
    world->view.phase = CT_PHASE_IDLE;
    synced(world);
    assert_non_null(sent(world, CT_WIRE_LEAVE));
}

/* Any order of events: nothing asserts, no round is computed twice, and only bytes that COMPUTED
 * gave are ever sent as a commit. */
static void any_order_of_events_keeps_the_invariants(void **state) {
    struct world *world = *state;
    uint64_t random = 12345;
    uint32_t computes = 0;
    uint32_t last_round = 0;
    bool given[64] = {false};
    struct ct_pending pending[8];
    for (uint32_t round = 1; round < 8; round++) {
        pending[round] = make_pending(world, round, round * MIB);
    }
    struct ct_buf text;
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t dice = (uint32_t)(random >> 33);
        uint32_t round = world->view.round > 0 ? world->view.round : 1;
        switch (dice % 16) {
        case 0:
            tick(world, dice / 16 % 70000);
            break;
        case 1:
            opened(world, world->identity);
            break;
        case 2:
            receive_run(world, &world->run_entry);
            break;
        case 3:
            receive_welcome(world);
            break;
        case 4:
            receive_notice(world, "note");
            break;
        case 5:
            if (dice / 16 % 20 == 0) {
                closed(world);
            }
            break;
        case 6:
            sync_failed(world);
            break;
        case 7:
            if (world->node.task == CT_TASK_COMPUTE) {
                given[world->node.task_round] = true;
                computed(world, &pending[world->node.task_round]);
            }
            break;
        case 8:
            uploaded(world, round, dice / 16 % 8 * MIB, dice / 128 % 4 == 0);
            break;
        case 9:
            if (dice / 16 % 50 == 0) {
                make_receipt(world, &pending[round], world->log_key, &text);
                receive_receipt(world, round, &text);
                ct_buf_deinit(&text);
            }
            break;
        case 10:
            if (dice / 16 % 3000 == 0 && world->view.round < 7) {
                open_round(world, world->view.round + 1);
            }
            break;
        case 11:
            world->view.phase = dice / 16 % 2 ? CT_PHASE_UPLOAD : CT_PHASE_COMMIT;
            break;
        case 12:
            world->view.part = (enum ct_part)(dice / 16 % 5);
            break;
        case 13:
            refuse(world, dice / 16 % 10, false, "no");
            break;
        default:
            synced(world);
            break;
        }
        for (uint32_t k = 0; k < world->actions.count; k++) {
            const struct ct_node_action *action = &world->actions.items[k];
            if (action->kind == CT_DO_COMPUTE) {
                assert_true(action->round > last_round);
                last_round = action->round;
                computes++;
            } else if (action->kind == CT_DO_SEND && action->frame.kind == CT_WIRE_COMMIT) {
                uint32_t of = world->node.pending.round;
                assert_true(given[of]);
                assert_memory_equal(action->frame.body.commit.envelope.data, pending[of].envelope,
                                    pending[of].length);
            }
            assert_int_not_equal(action->kind, CT_DO_END);
        }
        world->actions.count = 0;
    }
    assert_true(computes >= 3);
}

#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        NODE_TEST(a_round_from_notice_to_the_next),
        NODE_TEST(only_the_right_receipt_counts),
        NODE_TEST(a_wrong_run_is_not_joined),
        NODE_TEST(another_key_at_the_address_is_not_joined),
        NODE_TEST(a_statement_signed_by_another_is_not_believed),
        NODE_TEST(a_member_outlasts_an_impostor),
        NODE_TEST(a_close_before_welcome_is_told_as_a_refusal),
        NODE_TEST(retries_are_quick_first_and_never_over_a_minute),
        NODE_TEST(refusals_are_passed_on_in_words),
        NODE_TEST(a_refused_commit_is_dropped),
        NODE_TEST(after_a_restart_the_same_bytes_are_sent),
        NODE_TEST(after_a_restart_an_upload_goes_on),
        NODE_TEST(the_state_to_go_on_from_is_told),
        NODE_TEST(what_belongs_to_a_closed_round_is_forgotten),
        NODE_TEST(another_commit_of_this_key_is_noticed),
        NODE_TEST(too_slow_is_cancelled_and_the_next_round_comes),
        NODE_TEST(computing_outlasts_a_broken_connection),
        NODE_TEST(a_lost_payload_is_sent_again),
        NODE_TEST(uploads_keep_to_their_window),
        NODE_TEST(silence_is_noticed),
        NODE_TEST(a_coordinator_that_says_nothing_is_left),
        NODE_TEST(messages_out_of_place_close_the_link),
        NODE_TEST(only_the_newest_notice_waits),
        NODE_TEST(following_is_tried_again),
        NODE_TEST(without_the_model_it_does_not_take_part),
        NODE_TEST(stopping_takes_leave),
        NODE_TEST(stopping_does_not_wait_for_a_dead_line),
        NODE_TEST(stopping_while_away_ends_at_once),
        NODE_TEST(at_the_end_the_model_is_written_first),
        NODE_TEST(until_round_leaves_when_it_is_closed),
        NODE_TEST(any_order_of_events_keeps_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
