/* A whole run on a disk that fills up at every stage of a round: the coordinator says so,
 * acknowledges nothing, and goes on when there is room. */
#include "serve_world.h"

#include "coordinator/serve.h"

#include <cotrain/disk.h>

/* In the coordinator's process: there is no room below a folder as long as DIR/full names it. */
static enum ct_disk_verdict full_disk(void *user, const struct ct_disk_step *step) {
    char path[PATH_MAX], folder[64] = "";
    (void)user;
    if (step->op != CT_DISK_MAKE && step->op != CT_DISK_WRITE) {
        return CT_DISK_GO;
    }
    snprintf(path, sizeof path, "%s/full", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, folder, sizeof folder - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    return length > 0 && strstr(step->path, folder) != NULL ? CT_DISK_FULL : CT_DISK_GO;
}

static void fill(const char *folder) {
    char path[PATH_MAX], fresh[PATH_MAX];
    snprintf(path, sizeof path, "%s/full", dir);
    snprintf(fresh, sizeof fresh, "%s/full.new", dir);
    fixture_write(fresh, folder, strlen(folder));
    assert_int_equal(rename(fresh, path), 0);
}

static uint32_t times_said(const char *words) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run/" CT_RUN_LOG, dir);
    struct ct_buf log = fixture_read(path);
    assert_int_equal(ct_buf_append(&log, "", 1), CT_OK);
    uint32_t count = 0;
    for (const char *at = (const char *)log.data; (at = strstr(at, words)) != NULL; at++) {
        count++;
    }
    ct_buf_deinit(&log);
    return count;
}

/* Until the coordinator has noticed; connections are kept alive meanwhile. */
static void await_words(const char *words, uint32_t before) {
    while (times_said(words) == before) {
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(waitpid(server, NULL, WNOHANG), 0);
        usleep(1000);
    }
}

static void await_full(uint32_t before) {
    await_words("disk is full", before);
}

static void make_room(void) {
    char path[PATH_MAX];
    const uint32_t before = times_said("has room again");
    const bool noticed = times_said("disk is full") > before;
    snprintf(path, sizeof path, "%s/full", dir);
    assert_int_equal(unlink(path), 0);
    if (noticed) {
        await_words("has room again", before);
    }
}

static void start_server_with_small_disk(void) {
    char run[PATH_MAX];
    snprintf(run, sizeof run, "%s/run", dir);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        const struct ct_serve_options options = {.dir = run, .listen_host = "127.0.0.1"};
        ct_disk_watch(full_disk, NULL);
        _exit(ct_serve_run(&options) == CT_OK ? 0 : 1);
    }
    await_server();
}

static void upload_on_a_full_disk(struct client *client, const struct gift *gift) {
    const uint32_t before = times_said("disk is full"), refusals = client->count[CT_WIRE_REFUSAL];
    const uint32_t answers = client->count[CT_WIRE_UPLOADED];
    fill("incoming");
    send_upload(client, gift, 0, gift->commit.update.length);
    await_full(before);
    assert_int_equal(client->count[CT_WIRE_UPLOADED], answers);
    make_room();
    assert_int_equal(await_refusal(client, refusals), CT_REFUSED_UPLOAD);
    client->uploaded_round = 0;
    send_upload(client, gift, 0, 0);
    RUN_UNTIL(client->uploaded_round == gift->commit.round);
    assert_int_equal(client->uploaded, 0);
    upload_all(client, gift);
}

static void a_round_waits_for_room_at_every_stage(uint32_t round) {
    struct gift gifts[NODES];
    uint32_t receipts[NODES], before;
    await_round(&nodes[0], round);
    for (uint32_t i = 0; i < NODES; i++) {
        gifts[i] = gift_make(i, 10 * round + i);
        receipts[i] = nodes[i].count[CT_WIRE_RECEIPT];
    }
    /* Commits: no receipt before the entry is durable. */
    before = times_said("disk is full");
    fill("ledger");
    for (uint32_t i = 0; i < NODES; i++) {
        send_commit(&nodes[i], &gifts[i]);
    }
    await_full(before);
    for (uint32_t i = 0; i < NODES; i++) {
        assert_int_equal(nodes[i].count[CT_WIRE_RECEIPT], receipts[i]);
    }
    make_room();
    for (uint32_t i = 0; i < NODES; i++) {
        RUN_UNTIL(nodes[i].count[CT_WIRE_RECEIPT] > receipts[i]);
        receipt_holds(&nodes[i], &gifts[i]);
    }
    /* Uploads, and moving them into the store; then the merge's result and the next opening. */
    upload_on_a_full_disk(&nodes[0], &gifts[0]);
    before = times_said("disk is full");
    fill("blobs");
    for (uint32_t i = 1; i < NODES; i++) {
        upload_all(&nodes[i], &gifts[i]);
    }
    if (round < 3) {
        await_full(before);
    }
    make_room();
    RUN_UNTIL(round == 3 ? nodes[0].phase == CT_PHASE_FINISHED : nodes[0].round == round + 1);
    for (uint32_t i = 0; i < NODES; i++) {
        gift_end(&gifts[i]);
    }
}

static void a_run_goes_on_when_there_is_room(void **state) {
    (void)state;
    start_server_with_small_disk();
    const uint32_t before = times_said("disk is full");
    fill("blobs");
    for (uint32_t i = 0; i < NODES; i++) {
        client_join(&nodes[i], keys[i], (uint8_t)(10 + i));
        client_ready(&nodes[i]);
    }
    await_full(before);
    make_room();
    for (uint32_t round = 1; round <= 3; round++) {
        a_round_waits_for_room_at_every_stage(round);
    }
    for (uint32_t i = 0; i < NODES; i++) {
        client_end(&nodes[i]);
    }
    int status;
    kill(server, SIGTERM);
    assert_int_equal(waitpid(server, &status, 0), server);
    server = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(logged("the disk has room again"));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run", dir);
    struct ct_run run;
    assert_int_equal(ct_run_open(path, NULL, NULL, &run), CT_OK);
    assert_int_equal(run.replay.fold.phase, CT_PHASE_FINISHED);
    for (uint32_t i = 0; i < NODES; i++) {
        assert_int_equal(run.replay.fold.nodes[i].merged_rounds, 3);
    }
    ct_run_close(&run);
}

int main(void) {
    phase_seconds = 60; /* no phase ends by its time here */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_goes_on_when_there_is_room),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
