/* A coordinator as nodes and strangers see it: the real program, and nodes by hand that need no
 * training, since what they commit and upload is theirs to choose. */
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

static void on_opened(void *user, struct ct_link *link, const struct ct_hash *peer_key) {
    (void)link;
    (void)peer_key;
    ((struct client *)user)->opened = true;
}

static void on_frame(void *user, struct ct_link *link, struct ct_bytes frame) {
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

static void on_closed(void *user, struct ct_link *link, enum ct_err why, const char *detail) {
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

static void client_connect(struct client *client, const struct ct_key *key) {
    memset(client, 0, sizeof *client);
    ct_buf_init(&client->receipt, CT_FRAME_BYTES_MAX);
    assert_int_equal(
        ct_link_connect(&loop, ticket.host, ticket.port, key, NULL, &events, client, &client->link),
        CT_OK);
    RUN_UNTIL(client->count[CT_WIRE_RUN] == 1 || client->closed);
}

static void client_send(struct client *client, const struct ct_wire *wire) {
    struct ct_buf frame;
    ct_buf_init(&frame, CT_FRAME_BYTES_MAX_UPLOAD);
    assert_int_equal(ct_wire_encode(wire, &frame), CT_OK);
    assert_int_equal(ct_link_send(client->link, ct_buf_bytes(&frame)), CT_OK);
    ct_buf_deinit(&frame);
}

static void client_hello(struct client *client, uint8_t instance) {
    struct ct_wire hello = {.kind = CT_WIRE_HELLO};
    hello.body.hello.protocol = CT_PROTOCOL_VERSION;
    hello.body.hello.run_id = ticket.run_id;
    memset(hello.body.hello.instance, instance, CT_INSTANCE_BYTES);
    snprintf(hello.body.hello.software, sizeof hello.body.hello.software, "test");
    client_send(client, &hello);
}

static void client_join(struct client *client, const struct ct_key *key, uint8_t instance) {
    client_connect(client, key);
    client_hello(client, instance);
    RUN_UNTIL(client->count[CT_WIRE_NOTICE] > 0);
    assert_int_equal(client->count[CT_WIRE_WELCOME], 1);
}

static void client_ready(struct client *client) {
    struct ct_wire ready = {.kind = CT_WIRE_READY};
    client_send(client, &ready);
}

static void client_end(struct client *client) {
    if (!client->closed) {
        ct_link_close(client->link, CT_OK, "");
        RUN_UNTIL(client->closed);
    }
    ct_buf_deinit(&client->receipt);
}

/* The next refusal's code, after something was sent. */
static uint32_t await_refusal(struct client *client, uint32_t before) {
    RUN_UNTIL(client->count[CT_WIRE_REFUSAL] > before || client->closed);
    assert_int_equal(client->count[CT_WIRE_REFUSAL], before + 1);
    return client->refusal;
}

static int run_command(const char *const *argv) {
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
static void start_server(void) {
    char run[PATH_MAX];
    snprintf(run, sizeof run, "%s/run", dir);
    const char *const argv[] = {COTRAIND, "serve", run, "--listen", "127.0.0.1:0", NULL};
    run_command(argv);
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

static void write_manifest(const char *path) {
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
    assert_int_equal(ct_buf_printf(&yaml, "timing:\n  round_seconds: 2\n  upload_seconds: 2\n"
                                          "  quorum_nodes: 2\n  checkpoint_ms: 100\n"
                                          "audit:\n  epoch_rounds: 8\n  snapshot_rounds: 2\n"),
                     CT_OK);
    fixture_write(path, yaml.data, yaml.length);
    ct_buf_deinit(&yaml);
}

static int setup(void **state) {
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

static int teardown(void **state) {
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

static struct ct_run read_run(void) {
    char path[PATH_MAX];
    struct ct_run run;
    snprintf(path, sizeof path, "%s/run", dir);
    if (ct_run_read(path, &run) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    return run;
}

/* Whether the coordinator's log has a line of intake with these words. */
static bool logged(const char *words) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_LOG, dir);
    struct ct_buf log = fixture_read(path);
    assert_int_equal(ct_buf_append(&log, "", 1), CT_OK);
    bool found = strstr((const char *)log.data, words) != NULL;
    ct_buf_deinit(&log);
    return found;
}

static void strangers_are_refused_and_told_why(void **state) {
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

static void one_process_holds_a_seat(void **state) {
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

/* What a node by hand does in a round: an update that somebody could have made. */
struct gift {
    struct ct_commit commit;
    uint8_t *payload;
    struct ct_buf statement;
};

static void gift_seal(struct gift *gift, const struct ct_key *key) {
    struct ct_buf payload;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_clear(&gift->statement);
    assert_int_equal(ct_commit_encode(&gift->commit, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), gift->commit.author,
                                      key, &gift->statement),
                     CT_OK);
    ct_buf_deinit(&payload);
}

static void gift_digest(struct gift *gift) {
    gift->commit.update.sha256 =
        ct_sha256((struct ct_bytes){gift->payload, gift->commit.update.length});
}

/* `flavour` decides the values: equal ones give equal bodies. */
static struct gift gift_make(uint32_t node, uint32_t flavour) {
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

static void gift_end(struct gift *gift) {
    free(gift->payload);
    ct_buf_deinit(&gift->statement);
}

static void send_commit(struct client *client, const struct gift *gift) {
    struct ct_wire wire = {.kind = CT_WIRE_COMMIT};
    wire.body.commit.envelope = ct_buf_bytes(&gift->statement);
    client_send(client, &wire);
}

static void send_upload(struct client *client, const struct gift *gift, uint64_t offset,
                        size_t length) {
    struct ct_wire wire = {.kind = CT_WIRE_UPLOAD};
    wire.body.upload.round = gift->commit.round;
    wire.body.upload.offset = offset;
    wire.body.upload.data = (struct ct_bytes){gift->payload + offset, length};
    client_send(client, &wire);
}

static void commit_and_await(struct client *client, const struct gift *gift) {
    uint32_t before = client->count[CT_WIRE_RECEIPT];
    send_commit(client, gift);
    RUN_UNTIL(client->count[CT_WIRE_RECEIPT] > before);
    assert_int_equal(client->receipt_round, gift->commit.round);
}

static void receipt_holds(const struct client *client, const struct gift *gift) {
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

static bool in_store(const struct gift *gift) {
    char path[PATH_MAX];
    struct ct_blobs blobs;
    snprintf(path, sizeof path, "%s/run/" CT_RUN_BLOBS, dir);
    assert_int_equal(ct_blobs_init(&blobs, path), CT_OK);
    return ct_blobs_have(&blobs, &gift->commit.update);
}

static struct client nodes[NODES];

/* Tries what a dishonest node could; the right commit is sent last. */
static void hostile_commits(struct client *client, struct gift *gift) {
    uint32_t refusals = client->count[CT_WIRE_REFUSAL];
    struct ct_commit right = gift->commit;

    gift->commit.run_id.bytes[5] ^= 1;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("a commit of another run"));

    gift->commit = right;
    gift_seal(gift, keys[1]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("signature does not verify"));

    gift->commit.author = right.author % NODES + 1;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("in another node's name"));

    gift->commit = right;
    gift->commit.round++;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);

    gift->commit = right;
    gift->commit.steps++;
    gift_seal(gift, keys[0]);
    send_commit(client, gift);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_STATEMENT);
    assert_true(logged("against the rules"));

    gift->commit = right;
    gift_seal(gift, keys[0]);
    send_upload(client, gift, 0, 100);
    assert_int_equal(await_refusal(client, refusals++), CT_REFUSED_UPLOAD);
    assert_true(logged("without an acknowledged commit"));
}

static void second_commit(struct client *client, const struct gift *gift) {
    struct gift other = {.commit = gift->commit};
    ct_buf_init(&other.statement, CT_STATEMENT_BYTES_MAX);
    other.commit.loss = 1.0f;
    gift_seal(&other, keys[0]);
    send_commit(client, &other);
    assert_int_equal(await_refusal(client, client->count[CT_WIRE_REFUSAL]), CT_REFUSED_STATEMENT);
    assert_true(logged("another commit for this round"));
    ct_buf_deinit(&other.statement);
}

static void upload_all(struct client *client, const struct gift *gift) {
    send_upload(client, gift, 0, gift->commit.update.length);
    RUN_UNTIL(client->uploaded_round == gift->commit.round && client->complete);
    client->complete = false;
}

static void a_round_with_hostile_nodes_closes(void **state) {
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        client_join(&nodes[i], keys[i], (uint8_t)(10 + i));
        client_ready(&nodes[i]);
    }
    RUN_UNTIL(nodes[0].round == 1 && nodes[0].phase == CT_PHASE_COMMIT);
    struct gift gift = gift_make(0, 7);
    hostile_commits(&nodes[0], &gift);
    commit_and_await(&nodes[0], &gift);
    receipt_holds(&nodes[0], &gift);
    second_commit(&nodes[0], &gift);
    commit_and_await(&nodes[0], &gift);

    /* Half of the payload, then the coordinator is killed and started again. */
    size_t half = gift.commit.update.length / 2;
    send_upload(&nodes[0], &gift, 0, half);
    RUN_UNTIL(nodes[0].uploaded == half);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    uint16_t port = ticket.port;
    for (uint32_t i = 0; i < NODES; i++) {
        RUN_UNTIL(nodes[i].closed);
        client_end(&nodes[i]);
    }
    start_server();
    assert_int_equal(ticket.port, port);
    for (uint32_t i = 0; i < NODES; i++) {
        client_join(&nodes[i], keys[i], (uint8_t)(20 + i));
        assert_int_equal(nodes[i].phase, CT_PHASE_COMMIT);
    }
    commit_and_await(&nodes[0], &gift);
    receipt_holds(&nodes[0], &gift);
    send_upload(&nodes[0], &gift, 0, 0);
    RUN_UNTIL(nodes[0].uploaded_round == 1);
    assert_int_equal(nodes[0].uploaded, half);
    send_upload(&nodes[0], &gift, half, gift.commit.update.length - half);
    RUN_UNTIL(nodes[0].complete);
    /* Nothing of an open round is in the store, which is served. */
    assert_false(in_store(&gift));

    struct gift second = gift_make(1, 8), copy = gift_make(2, 7);
    for (uint32_t i = 1; i < NODES; i++) {
        client_ready(&nodes[i]);
    }
    client_ready(&nodes[0]);
    commit_and_await(&nodes[1], &second);
    upload_all(&nodes[1], &second);
    assert_false(in_store(&second));
    commit_and_await(&nodes[2], &copy);
    send_upload(&nodes[2], &copy, 0, copy.commit.update.length);
    RUN_UNTIL(nodes[0].round == 2);
    assert_true(in_store(&gift) && in_store(&second));
    assert_true(logged("payload of round 1 is node"));

    /* A replay of what was acknowledged. */
    uint32_t refusals = nodes[0].count[CT_WIRE_REFUSAL];
    send_commit(&nodes[0], &gift);
    assert_int_equal(await_refusal(&nodes[0], refusals), CT_REFUSED_STATEMENT);
    assert_true(logged("replayed"));
    gift_end(&gift);
    gift_end(&second);
    gift_end(&copy);
}

static void payloads_that_are_no_updates_are_refused(void **state) {
    (void)state;
    RUN_UNTIL(nodes[0].round == 2 && nodes[0].phase == CT_PHASE_COMMIT);
    struct gift good = gift_make(0, 1), bent = gift_make(1, 2), other = gift_make(2, 3);
    bent.payload[bent.commit.update.length - 1] ^= 0x80; /* a padding bit, or another sign */
    bent.payload[4] ^= 1;                                /* the version */
    gift_digest(&bent);
    gift_seal(&bent, keys[1]);
    commit_and_await(&nodes[0], &good);
    commit_and_await(&nodes[1], &bent);
    commit_and_await(&nodes[2], &other);
    /* More than was committed. */
    uint32_t refusals = nodes[2].count[CT_WIRE_REFUSAL];
    struct ct_wire more = {.kind = CT_WIRE_UPLOAD};
    uint8_t *zeros = calloc(1, other.commit.update.length + 1);
    more.body.upload.round = 2;
    more.body.upload.data = (struct ct_bytes){zeros, other.commit.update.length + 1};
    client_send(&nodes[2], &more);
    assert_int_equal(await_refusal(&nodes[2], refusals), CT_REFUSED_UPLOAD);
    free(zeros);
    /* Not what was committed. */
    other.payload[60] ^= 1;
    send_upload(&nodes[2], &other, 0, other.commit.update.length);
    assert_int_equal(await_refusal(&nodes[2], refusals + 1), CT_REFUSED_UPLOAD);
    refusals = nodes[1].count[CT_WIRE_REFUSAL];
    send_upload(&nodes[1], &bent, 0, bent.commit.update.length);
    assert_int_equal(await_refusal(&nodes[1], refusals), CT_REFUSED_UPLOAD);
    send_upload(&nodes[0], &good, 0, good.commit.update.length);
    RUN_UNTIL(nodes[0].round == 3);
    gift_end(&good);
    gift_end(&bent);
    gift_end(&other);
}

static void who_commits_late_is_told_so(void **state) {
    (void)state;
    RUN_UNTIL(nodes[0].round == 3 && nodes[0].phase == CT_PHASE_COMMIT);
    struct gift first = gift_make(0, 4), second = gift_make(1, 5), late = gift_make(2, 6);
    commit_and_await(&nodes[0], &first);
    commit_and_await(&nodes[1], &second);
    upload_all(&nodes[0], &first);
    /* After two seconds, with a quorum of two. */
    RUN_UNTIL(nodes[2].phase == CT_PHASE_UPLOAD);
    uint32_t refusals = nodes[2].count[CT_WIRE_REFUSAL];
    send_commit(&nodes[2], &late);
    assert_int_equal(await_refusal(&nodes[2], refusals), CT_REFUSED_LATE);
    upload_all(&nodes[1], &second);
    RUN_UNTIL(nodes[1].phase == CT_PHASE_FINISHED);
    gift_end(&first);
    gift_end(&second);
    gift_end(&late);
}

static void the_ledger_says_what_was_refused_and_holds(void **state) {
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        struct ct_wire leave = {.kind = CT_WIRE_LEAVE};
        client_send(&nodes[i], &leave);
        RUN_UNTIL(nodes[i].closed);
        client_end(&nodes[i]);
    }
    int status;
    kill(server, SIGTERM);
    assert_int_equal(waitpid(server, &status, 0), server);
    server = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);

    struct ct_run run = read_run();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_LEDGER, dir);
    struct ct_ledger *ledger;
    assert_int_equal(ct_ledger_open(path, run.replay.fold.opened.origin, NULL, &ledger), CT_OK);
    struct ct_replay replay;
    ct_replay_init(&replay, 0);
    uint32_t refused[4][8] = {{0}};
    for (uint64_t i = 0; i < ct_ledger_size(ledger); i++) {
        struct ct_buf bytes;
        ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
        assert_int_equal(ct_ledger_read(ledger, i, &bytes), CT_OK);
        if (ct_replay_apply(&replay, ct_buf_bytes(&bytes), true, ct_blobs_source, &run.blobs) !=
            CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        struct ct_envelope envelope;
        struct ct_entry entry;
        assert_int_equal(ct_envelope_open(ct_buf_bytes(&bytes), &envelope), CT_OK);
        assert_int_equal(ct_entry_decode(envelope.payload, &entry), CT_OK);
        if (entry.kind == CT_ENTRY_REFUSED) {
            refused[entry.round][entry.body.refused.reason]++;
        }
        ct_buf_deinit(&bytes);
    }
    assert_true(replay.theta_valid);
    assert_int_equal(replay.fold.phase, CT_PHASE_FINISHED);
    assert_int_equal(refused[1][CT_REFUSAL_COPY], 1);
    assert_int_equal(refused[2][CT_REFUSAL_MALFORMED], 2);
    assert_int_equal(refused[3][CT_REFUSAL_LATE], 1);
    ct_replay_deinit(&replay);
    ct_ledger_close(ledger);
    ct_run_close(&run);
}

/* The cache saves time and decides nothing. */
static void the_model_is_the_same_without_the_cache(void **state) {
    (void)state;
    char path[PATH_MAX], cache[PATH_MAX];
    snprintf(path, sizeof path, "%s/run", dir);
    struct ct_hash models[3];
    static const bool valid[3] = {true, false, false};
    for (uint32_t i = 0; i < 3; i++) {
        struct ct_run run;
        if (ct_run_open(path, NULL, NULL, &run) != CT_OK) {
            fail_msg("%s", ct_err_detail());
        }
        struct ct_replay *replay = &run.replay;
        assert_true(replay->theta_valid);
        assert_int_equal(replay->theta_round, replay->fold.round);
        assert_int_equal(replay->from_round == CT_REPLAY_NEVER, valid[i]);
        models[i] = ct_model_digest(&replay->fold.layout, replay->theta);
        assert_true(ct_hash_equal(&models[i], &replay->fold.model));
        ct_run_close(&run);
        for (int slot = 0; slot < 2; slot++) {
            snprintf(cache, sizeof cache, "%s/run/" CT_RUN_CACHE "/%d", dir, slot);
            if (i == 0) {
                struct ct_buf bytes = fixture_read(cache);
                bytes.data[bytes.length / 2] ^= 1;
                fixture_write(cache, bytes.data, bytes.length);
                ct_buf_deinit(&bytes);
            } else if (i == 1) {
                assert_int_equal(unlink(cache), 0);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_are_refused_and_told_why),
        cmocka_unit_test(one_process_holds_a_seat),
        cmocka_unit_test(a_round_with_hostile_nodes_closes),
        cmocka_unit_test(payloads_that_are_no_updates_are_refused),
        cmocka_unit_test(who_commits_late_is_told_so),
        cmocka_unit_test(the_ledger_says_what_was_refused_and_holds),
        cmocka_unit_test(the_model_is_the_same_without_the_cache),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
