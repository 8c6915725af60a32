/* A coordinator as nodes and strangers see it: the real program, and nodes by hand that need no
 * training, since what they commit and upload is theirs to choose. */
#ifndef TESTS_SERVE_WORLD_H
#define TESTS_SERVE_WORLD_H

#include <cotrain/dataset.h>
#include <cotrain/fold.h>
#include <cotrain/link.h>
#include <cotrain/receipt.h>
#include <cotrain/ticket.h>
#include <cotrain/wire.h>

#include "coordinator/run.h"
#include "fixture.h"

#include <cotrain/log.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <uv.h>

#define NODES 3u

static char *dir;                      /* dir/run, dir/data, dir/run.yaml, dir/out */
static struct ct_key *keys[NODES + 1]; /* the last one is not listed */
static pid_t server;
static struct ct_ticket ticket;
static uv_loop_t loop;
static unsigned phase_seconds = 2; /* of the manifest that setup writes */

/* One connection and what came over it. */
struct client {
    struct ct_link *link;
    bool opened, closed;
    enum ct_err why;
    uint32_t count[16]; /* frames by kind */
    struct ct_hash run_id;
    uint32_t refusal;
    bool refusal_final;
    char refusal_text[256];
    uint32_t round, phase; /* of the last notice */
    uint32_t receipt_round;
    struct ct_buf receipt;
    uint32_t uploaded_round;
    uint64_t uploaded;
    bool complete;
};

static inline void on_opened(void *user, struct ct_link *link, const struct ct_hash *peer_key) {
    (void)link;
    (void)peer_key;
    ((struct client *)user)->opened = true;
}

static inline void on_frame(void *user, struct ct_link *link, struct ct_bytes frame) {
    struct client *client = user;
    struct ct_wire wire;
    assert_int_equal(ct_wire_decode(frame, &wire), CT_OK);
    client->count[wire.kind]++;
    switch (wire.kind) {
    case CT_WIRE_RUN: {
        struct ct_envelope envelope;
        assert_int_equal(ct_envelope_open(wire.body.run.entry, &envelope), CT_OK);
        client->run_id = ct_run_id(envelope.payload);
        break;
    }
    case CT_WIRE_WELCOME:
        ct_link_frame_max(link, CT_FRAME_BYTES_MAX);
        break;
    case CT_WIRE_REFUSAL:
        client->refusal = wire.body.refusal.code;
        client->refusal_final = wire.body.refusal.final;
        snprintf(client->refusal_text, sizeof client->refusal_text, "%s", wire.body.refusal.text);
        break;
    case CT_WIRE_NOTICE:
        client->round = wire.body.notice.round;
        client->phase = wire.body.notice.phase;
        break;
    case CT_WIRE_RECEIPT:
        client->receipt_round = wire.body.receipt.round;
        ct_buf_clear(&client->receipt);
        assert_int_equal(ct_buf_append(&client->receipt, wire.body.receipt.text.data,
                                       wire.body.receipt.text.length),
                         CT_OK);
        break;
    case CT_WIRE_UPLOADED:
        client->uploaded_round = wire.body.uploaded.round;
        client->uploaded = wire.body.uploaded.offset;
        client->complete = wire.body.uploaded.complete;
        break;
    default:
        break;
    }
}

static inline void on_closed(void *user, struct ct_link *link, enum ct_err why,
                             const char *detail) {
    struct client *client = user;
    (void)link;
    (void)detail;
    client->closed = true;
    client->why = why;
    client->link = NULL;
}

static const struct ct_link_events events = {on_opened, on_frame, on_closed};

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition)) {                                                                         \
        assert_true(uv_run(&loop, UV_RUN_ONCE) != 0 || (condition));                               \
    }

static inline void client_connect(struct client *client, const struct ct_key *key) {
    memset(client, 0, sizeof *client);
    ct_buf_init(&client->receipt, CT_FRAME_BYTES_MAX);
    assert_int_equal(
        ct_link_connect(&loop, ticket.host, ticket.port, key, NULL, &events, client, &client->link),
        CT_OK);
    RUN_UNTIL(client->count[CT_WIRE_RUN] == 1 || client->closed);
}

static inline void client_send(struct client *client, const struct ct_wire *wire) {
    struct ct_buf frame;
    ct_buf_init(&frame, CT_FRAME_BYTES_MAX_UPLOAD);
    assert_int_equal(ct_wire_encode(wire, &frame), CT_OK);
    assert_int_equal(ct_link_send(client->link, ct_buf_bytes(&frame)), CT_OK);
    ct_buf_deinit(&frame);
}

static inline void client_hello_with(struct client *client, uint8_t instance,
                                     struct ct_bytes profile) {
    struct ct_wire hello = {.kind = CT_WIRE_HELLO};
    hello.body.hello.protocol = CT_PROTOCOL_VERSION;
    hello.body.hello.run_id = ticket.run_id;
    memset(hello.body.hello.instance, instance, CT_INSTANCE_BYTES);
    snprintf(hello.body.hello.software, sizeof hello.body.hello.software, "test");
    hello.body.hello.profile = profile;
    client_send(client, &hello);
}

static inline void client_hello(struct client *client, uint8_t instance) {
    client_hello_with(client, instance, (struct ct_bytes){NULL, 0});
}

static inline void client_join(struct client *client, const struct ct_key *key, uint8_t instance) {
    client_connect(client, key);
    client_hello(client, instance);
    RUN_UNTIL(client->count[CT_WIRE_NOTICE] > 0);
    assert_int_equal(client->count[CT_WIRE_WELCOME], 1);
}

static inline void client_ready(struct client *client) {
    struct ct_wire ready = {.kind = CT_WIRE_READY};
    client_send(client, &ready);
}

static inline void client_end(struct client *client) {
    if (!client->closed) {
        ct_link_close(client->link, CT_OK, "");
        RUN_UNTIL(client->closed);
    }
    ct_buf_deinit(&client->receipt);
}

/* The next refusal's code, after something was sent. */
static inline uint32_t await_refusal(struct client *client, uint32_t before) {
    RUN_UNTIL(client->count[CT_WIRE_REFUSAL] > before || client->closed);
    assert_int_equal(client->count[CT_WIRE_REFUSAL], before + 1);
    return client->refusal;
}

static inline int run_command(const char *const *argv) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/out", dir);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid;
    extern char **environ;
    assert_int_equal(posix_spawn(&pid, argv[0], &actions, NULL, (char **)(uintptr_t)argv, environ),
                     0);
    posix_spawn_file_actions_destroy(&actions);
    if (strcmp(argv[1], "serve") == 0) {
        server = pid;
        return 0;
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define COTRAIND CT_BINARY_DIR "/cotraind"

/* Started, and answering on the port that the ticket tells. */
static inline void await_server(void) {
    char run[PATH_MAX];
    snprintf(run, sizeof run, "%s/run", dir);
    for (;;) {
        struct ct_ports ports;
        if (ct_ports_load(run, &ports) == CT_OK && ports.work != 0) {
            snprintf(ticket.host, sizeof ticket.host, "%s", ports.host);
            ticket.port = ports.work;
            struct client client;
            client_connect(&client, keys[NODES]);
            bool answers = client.opened;
            ticket.run_id = client.run_id;
            client_end(&client);
            if (answers) {
                return;
            }
        }
        assert_int_equal(waitpid(server, NULL, WNOHANG), 0);
    }
}

static inline void start_server(void) {
    char run[PATH_MAX];
    snprintf(run, sizeof run, "%s/run", dir);
    const char *const argv[] = {COTRAIND, "serve", run, "--listen", "127.0.0.1:0", NULL};
    run_command(argv);
    await_server();
}

static inline void write_manifest(const char *path) {
    struct ct_buf yaml;
    ct_buf_init(&yaml, 8192);
    assert_int_equal(
        ct_buf_printf(&yaml,
                      "run:\n  name: test\n  description: \"a test\"\n  license: Apache-2.0\n"
                      "  rounds: 3\nmodel:\n  arch: gpt2\n  layers: 1\n  heads: 2\n  width: 64\n"
                      "  context: 8\ntraining:\n  numerics: fp32-1\n  batch: 2\n  leaves: 1\n"
                      "  steps: 8\n  steps_min: 8\n  steps_max: 8\n  rate_peak: 1.0e-3\n"
                      "  rate_floor: 1.0e-4\n  warmup_tokens: 16\n  total_tokens: 1600\n"
                      "  rate_unit_tokens: 16\ndata:\n  path: ./data\n  license: CC0-1.0\n"
                      "  provenance: made by the test\nadmission:\n  nodes:\n"),
        CT_OK);
    for (uint32_t i = 0; i < NODES; i++) {
        char hex[CT_HEX_BYTES];
        struct ct_hash key = ct_key_public(keys[i]);
        ct_hash_hex(&key, hex);
        assert_int_equal(ct_buf_printf(&yaml, "    - %s\n", hex), CT_OK);
    }
    assert_int_equal(ct_buf_printf(&yaml,
                                   "timing:\n  round_seconds: %u\n  upload_seconds: %u\n"
                                   "  quorum_nodes: 2\n  checkpoint_ms: 100\n"
                                   "audit:\n  epoch_rounds: 8\n  snapshot_rounds: 2\n",
                                   phase_seconds, phase_seconds),
                     CT_OK);
    fixture_write(path, yaml.data, yaml.length);
    ct_buf_deinit(&yaml);
}

static inline int setup(void **state) {
    (void)state;
    dir = fixture_dir();
    assert_int_equal(uv_loop_init(&loop), 0);
    for (uint32_t i = 0; i <= NODES; i++) {
        assert_int_equal(ct_key_generate(&keys[i]), CT_OK);
    }
    char text[PATH_MAX], data[PATH_MAX], yaml[PATH_MAX], run[PATH_MAX];
    snprintf(text, sizeof text, "%s/text", dir);
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(yaml, sizeof yaml, "%s/run.yaml", dir);
    snprintf(run, sizeof run, "%s/run", dir);
    char letters[4000];
    for (size_t i = 0; i < sizeof letters; i++) {
        letters[i] = (char)('a' + i * i % 26);
    }
    fixture_write(text, letters, sizeof letters);
    const char *paths[] = {text};
    struct ct_dataset_recipe recipe = {.name = "test",
                                       .license = "CC0-1.0",
                                       .source = "made",
                                       .paths = paths,
                                       .path_count = 1,
                                       .heldout_percent = 10,
                                       .shard_tokens = 100000};
    assert_int_equal(ct_dataset_build(&recipe, data), CT_OK);
    write_manifest(yaml);
    const char *const argv[] = {COTRAIND, "init", yaml, run, "--host", "127.0.0.1", NULL};
    assert_int_equal(run_command(argv), 0);
    start_server();
    return 0;
}

static inline int teardown(void **state) {
    (void)state;
    if (server != 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    for (uint32_t i = 0; i <= NODES; i++) {
        ct_key_free(keys[i]);
    }
    fixture_remove(dir);
    free(dir);
    return 0;
}

static inline struct ct_run read_run(void) {
    char path[PATH_MAX];
    struct ct_run run;
    snprintf(path, sizeof path, "%s/run", dir);
    if (ct_run_read(path, &run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    return run;
}

/* Whether the coordinator's log has a line of intake with these words. */
static inline bool logged(const char *words) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_LOG, dir);
    struct ct_buf log = fixture_read(path);
    assert_int_equal(ct_buf_append(&log, "", 1), CT_OK);
    bool found = strstr((const char *)log.data, words) != NULL;
    ct_buf_deinit(&log);
    return found;
}

static inline void strangers_are_refused_and_told_why(void **state) {
    (void)state;
    struct client client;
    /* A key that is not listed. */
    client_connect(&client, keys[NODES]);
    client_hello(&client, 1);
    assert_int_equal(await_refusal(&client, 0), CT_REFUSED_NOT_LISTED);
    assert_true(client.refusal_final);
    RUN_UNTIL(client.closed);
    client_end(&client);
    assert_true(logged("not on the run's list"));

    /* Another run, another version. */
    client_connect(&client, keys[0]);
    struct ct_hash right = ticket.run_id;
    ticket.run_id.bytes[0] ^= 1;
    client_hello(&client, 1);
    ticket.run_id = right;
    assert_int_equal(await_refusal(&client, 0), CT_REFUSED_RUN);
    client_end(&client);

    /* A malformed frame, one too early, one too long. */
    client_connect(&client, keys[0]);
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){(const uint8_t *)"\xff\xff", 2}),
                     CT_OK);
    assert_int_equal(await_refusal(&client, 0), CT_REFUSED_PROTOCOL);
    RUN_UNTIL(client.closed);
    client_end(&client);
    assert_true(logged("malformed frame"));
    client_connect(&client, keys[0]);
    client_ready(&client);
    assert_int_equal(await_refusal(&client, 0), CT_REFUSED_PROTOCOL);
    client_end(&client);
    client_connect(&client, keys[0]);
    static const uint8_t zeros[CT_FRAME_BYTES_MAX_EARLY + 1];
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){zeros, sizeof zeros}), CT_OK);
    RUN_UNTIL(client.closed);
    client_end(&client);
    /* Logged when the server's side has ended too, which may be a moment later. */
    for (uint64_t end = uv_hrtime() + 10000000000u; !logged("frame of 4097 bytes");) {
        assert_true(uv_hrtime() < end);
    }
}

static inline void one_process_holds_a_seat(void **state) {
    (void)state;
    struct client first, other, again;
    client_join(&first, keys[0], 1);
    client_connect(&other, keys[0]);
    client_hello(&other, 2);
    assert_int_equal(await_refusal(&other, 0), CT_REFUSED_INSTANCE);
    assert_false(other.refusal_final);
    assert_false(first.closed);
    client_end(&other);
    client_join(&again, keys[0], 1);
    RUN_UNTIL(first.closed);
    client_end(&first);
    struct ct_wire ping = {.kind = CT_WIRE_PING};
    client_send(&again, &ping);
    RUN_UNTIL(again.count[CT_WIRE_PONG] == 1);
    client_end(&again);
}

/* A notice may run ahead of the publication that others read. */
static inline void await_round(struct client *client, uint32_t round) {
    for (bool open = false; !open;) {
        RUN_UNTIL(client->round == round && client->phase == CT_PHASE_COMMIT);
        struct ct_run run = read_run();
        open = run.replay.fold.round == round && run.replay.fold.phase == CT_PHASE_COMMIT;
        ct_run_close(&run);
        if (!open) {
            assert_true(uv_run(&loop, UV_RUN_ONCE) != 0);
        }
    }
}

/* What a node by hand does in a round: an update that somebody could have made. */
struct gift {
    struct ct_commit commit;
    uint8_t *payload;
    struct ct_buf statement;
};

static inline void gift_seal(struct gift *gift, const struct ct_key *key) {
    struct ct_buf payload;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_clear(&gift->statement);
    assert_int_equal(ct_commit_encode(&gift->commit, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), gift->commit.author,
                                      key, &gift->statement),
                     CT_OK);
    ct_buf_deinit(&payload);
}

static inline void gift_digest(struct gift *gift) {
    gift->commit.update.sha256 =
        ct_sha256((struct ct_bytes){gift->payload, gift->commit.update.length});
}

/* `flavour` decides the values: equal ones give equal bodies. */
static inline struct gift gift_make(uint32_t node, uint32_t flavour) {
    struct ct_run run = read_run();
    const struct ct_fold *fold = &run.replay.fold;
    const struct ct_fold_node *self = NULL;
    struct ct_hash key = ct_key_public(keys[node]);
    self = ct_fold_find_key(fold, &key);
    assert_non_null(self);
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, self->number);
    assert_non_null(assignment);
    struct gift gift = {.payload = malloc(ct_update_bytes_max(&fold->chunks))};
    ct_buf_init(&gift.statement, CT_STATEMENT_BYTES_MAX);
    size_t count = fold->layout.parameters, length;
    float *base = calloc(count, sizeof *base), *local = calloc(count, sizeof *local),
          *residual = calloc(count, sizeof *residual);
    for (size_t i = 0; i < count; i++) {
        local[i] = (float)(int)(i * 2654435761u * (flavour + 1) >> 8 & 0xffff) * 1e-6f;
    }
    struct ct_update_header header = {fold->round_opened.assignments.sha256, assignment->steps};
    ct_update_encode(&fold->chunks, &header, base, local, residual, gift.payload, &length);
    gift.commit = (struct ct_commit){.version = 1,
                                     .run_id = fold->run_id,
                                     .round = fold->round,
                                     .author = self->number,
                                     .assignment = fold->round_opened.assignments.sha256,
                                     .update = {.length = length},
                                     .state = {{(uint8_t)(node + 1)}},
                                     .steps = assignment->steps,
                                     .loss = 3.0f};
    gift_digest(&gift);
    gift_seal(&gift, keys[node]);
    free(base);
    free(local);
    free(residual);
    ct_run_close(&run);
    return gift;
}

static inline void gift_end(struct gift *gift) {
    free(gift->payload);
    ct_buf_deinit(&gift->statement);
}

static inline void send_commit(struct client *client, const struct gift *gift) {
    struct ct_wire wire = {.kind = CT_WIRE_COMMIT};
    wire.body.commit.envelope = ct_buf_bytes(&gift->statement);
    client_send(client, &wire);
}

static inline void send_upload(struct client *client, const struct gift *gift, uint64_t offset,
                               size_t length) {
    struct ct_wire wire = {.kind = CT_WIRE_UPLOAD};
    wire.body.upload.round = gift->commit.round;
    wire.body.upload.offset = offset;
    wire.body.upload.data = (struct ct_bytes){gift->payload + offset, length};
    client_send(client, &wire);
}

static inline void commit_and_await(struct client *client, const struct gift *gift) {
    uint32_t before = client->count[CT_WIRE_RECEIPT];
    send_commit(client, gift);
    RUN_UNTIL(client->count[CT_WIRE_RECEIPT] > before);
    assert_int_equal(client->receipt_round, gift->commit.round);
}

static inline void receipt_holds(const struct client *client, const struct gift *gift) {
    struct ct_run run = read_run();
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(run.replay.fold.opened.origin, &run.replay.fold.opened.log_key, vkey);
    struct ct_receipt receipt;
    assert_int_equal(ct_receipt_open(ct_buf_bytes(&client->receipt), vkey, &receipt), CT_OK);
    struct ct_envelope envelope;
    struct ct_entry entry;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(&receipt.entry), &envelope), CT_OK);
    assert_int_equal(ct_entry_decode(envelope.payload, &entry), CT_OK);
    assert_int_equal(entry.kind, CT_ENTRY_COMMIT);
    assert_int_equal(entry.body.commit.length, gift->statement.length);
    assert_memory_equal(entry.body.commit.envelope, gift->statement.data, gift->statement.length);
    ct_receipt_deinit(&receipt);
    ct_run_close(&run);
}

static inline bool in_store(const struct gift *gift) {
    char path[PATH_MAX];
    struct ct_blobs blobs;
    snprintf(path, sizeof path, "%s/run/" CT_RUN_BLOBS, dir);
    assert_int_equal(ct_blobs_init(&blobs, path), CT_OK);
    return ct_blobs_have(&blobs, &gift->commit.update);
}

static struct client nodes[NODES];

static inline void upload_all(struct client *client, const struct gift *gift) {
    send_upload(client, gift, 0, gift->commit.update.length);
    RUN_UNTIL(client->uploaded_round == gift->commit.round && client->complete);
    client->complete = false;
}

#endif
