#include "join.h"

#include "contribution.h"
#include "node.h"
#include "node_dir.h"
#include "profile_file.h"
#include "progress.h"
#include "train_slot.h"

#include <cotrain/assert.h>
#include <cotrain/link.h>
#include <cotrain/log.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

/* Time passes at least so often for the state machine. */
#define TICK_MAX_MS 1000u

struct join {
    const struct ct_join_options *options;
    uv_loop_t loop;
    uv_timer_t timer;
    uv_async_t async;
    uv_signal_t interrupt, terminate;
    struct ct_link *link;
    bool link_closing, connect_failed, ended, handles_open;
    uint64_t link_up, link_down; /* of links that are closed */
    uint64_t http_down;
    enum ct_err result;
    char why[320];
    struct ct_node node;
    struct ct_node_actions actions;
    struct ct_blobs blobs;
    struct ct_sync *sync;
    struct ct_compute *compute;
    struct ct_run_facts facts;
    struct ct_progress progress;
    struct ct_sync_result sync_result;
    uint8_t *chunk; /* [CT_UPLOAD_CHUNK_BYTES] */
};

static uint64_t boot_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void count_traffic(struct join *join) {
    uint64_t down = 0;
    uint64_t up = 0;
    if (join->link != NULL) {
        ct_link_traffic(join->link, &down, &up);
    }
    join->progress.bytes_up = join->link_up + up;
    join->progress.bytes_down = join->link_down + down + join->http_down;
}

static void handle(struct join *join, struct ct_node_event *event);

static void handle_failure(struct join *join, enum ct_node_event_kind kind, enum ct_err err,
                           uint32_t round, const char *detail) {
    struct ct_node_event event = {.kind = kind};
    event.body.failure.err = err;
    event.body.failure.round = round;
    event.body.failure.detail = detail;
    handle(join, &event);
}

static void on_opened(void *user, struct ct_link *link, const struct ct_hash *peer_key) {
    (void)link;
    struct join *join = user;
    struct ct_node_event event = {.kind = CT_NODE_OPENED, .body.peer_key = *peer_key};
    handle(join, &event);
}

static void on_frame(void *user, struct ct_link *link, struct ct_bytes frame) {
    struct join *join = user;
    if (join->link_closing || join->ended) {
        return;
    }
    struct ct_wire wire;
    if (ct_wire_decode(frame, &wire) != CT_OK) {
        ct_log(CT_LOG_WARN, "node", "a frame from the coordinator: %s", ct_err_detail());
        join->link_closing = true;
        ct_link_close(link, CT_ERR_FORMAT, "a malformed frame");
        return;
    }
    struct ct_node_event event = {.kind = CT_NODE_FRAME, .body.frame = &wire};
    handle(join, &event);
}

static void on_closed(void *user, struct ct_link *link, enum ct_err why, const char *detail) {
    struct join *join = user;
    uint64_t down = 0;
    uint64_t up = 0;
    ct_link_traffic(link, &down, &up);
    join->link_up += up;
    join->link_down += down;
    join->link = NULL;
    join->link_closing = false;
    handle_failure(join, CT_NODE_CLOSED, why, 0, detail);
}

static const struct ct_link_events link_events = {on_opened, on_frame, on_closed};

static void do_connect(struct join *join, const struct ct_hash *expected) {
    const struct ct_ticket *ticket = &join->options->ticket;
    CT_ASSERT(join->link == NULL);
    if (ct_link_connect(&join->loop, ticket->host, ticket->port, join->options->key,
                        ct_hash_is_zero(expected) ? NULL : expected, &link_events, join,
                        &join->link) != CT_OK) {
        join->link = NULL;
        join->connect_failed = true;
    }
}

static void do_close(struct join *join, enum ct_err err, const char *text) {
    if (join->link != NULL && !join->link_closing) {
        join->link_closing = true;
        ct_link_close(join->link, err, text);
    }
}

static void do_send(struct join *join, const struct ct_wire *wire) {
    if (join->link == NULL || join->link_closing) {
        return;
    }
    struct ct_buf frame;
    ct_buf_init(&frame, CT_FRAME_BYTES_MAX_UPLOAD);
    enum ct_err err = ct_wire_encode(wire, &frame);
    if (err == CT_OK) {
        err = ct_link_send(join->link, ct_buf_bytes(&frame));
    }
    ct_buf_deinit(&frame);
    if (err != CT_OK) {
        ct_log(CT_LOG_WARN, "node", "cannot send: %s", ct_err_detail());
        do_close(join, err, "cannot send");
    }
}

static void do_chunk(struct join *join, uint32_t round, uint64_t offset) {
    const struct ct_blob_ref *update = &join->node.pending.update;
    char path[4096];
    CT_ASSERT(offset < update->length);
    uint64_t left = update->length - offset;
    size_t length = left < CT_UPLOAD_CHUNK_BYTES ? (size_t)left : CT_UPLOAD_CHUNK_BYTES;
    ct_blobs_path(&join->blobs, &update->sha256, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, join->chunk, length, (off_t)offset) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (n < 0 || (size_t)n != length) {
        ct_log(CT_LOG_ERROR, "node", "cannot read the payload %s: %s", path, strerror(errno));
        return;
    }
    struct ct_wire wire = {.kind = CT_WIRE_UPLOAD};
    wire.body.upload.round = round;
    wire.body.upload.offset = offset;
    wire.body.upload.data = (struct ct_bytes){join->chunk, length};
    do_send(join, &wire);
}

static void write_vkey(struct join *join) {
    char path[CT_NODE_PATH_MAX];
    char text[CT_VKEY_BYTES_MAX + 2];
    int n = snprintf(text, sizeof text, "%s\n", join->node.vkey);
    if (ct_node_path(join->options->dir, CT_NODE_LOG_VKEY, path) != CT_OK ||
        access(path, F_OK) == 0) {
        return;
    }
    if (ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, (size_t)n}) != CT_OK) {
        ct_log(CT_LOG_WARN, "node", "%s", ct_err_detail());
    }
}

static void do_sources(struct join *join, const struct ct_wire *welcome) {
    char bases[CT_FETCH_BASES_MAX][CT_FETCH_URL_MAX];
    uint32_t count = 1;
    const char *host = join->options->ticket.host;
    bool v6 = strchr(host, ':') != NULL;
    snprintf(bases[0], sizeof bases[0], "http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
             welcome->body.welcome.http_port);
    for (uint32_t i = 0; i < welcome->body.welcome.mirror_count && i < 8; i++) {
        const char *mirror = welcome->body.welcome.mirrors[i];
        if (ct_fetch_check_base(mirror) != CT_OK) {
            ct_log(CT_LOG_WARN, "node", "a mirror is left out: %s", ct_err_detail());
            continue;
        }
        snprintf(bases[count++], sizeof bases[0], "%s", mirror);
    }
    ct_sync_sources(join->sync, &join->node.opened, bases, count);
    write_vkey(join);
    ct_progress_state(&join->progress, "following");
}

static void do_compute(struct join *join) {
    const struct ct_view *view = &join->node.view;
    struct ct_compute_job job = {
        .round = view->round,
        .author = view->node,
        .assignment = view->assignment,
        .assignments_digest = view->assignments_digest,
        .tokens_at_base = view->tokens_at_base,
        .planned_tokens = view->planned_tokens,
        .merged_state = view->merged_state,
    };
    ct_progress_assigned(&join->progress, view);
    ct_compute_start(join->compute, &job);
}

static void do_receipt(struct join *join, uint32_t round, struct ct_bytes text) {
    if (ct_contribution_receipt(join->options->dir, round, text) != CT_OK) {
        /* N2: without it stored the round must not go on. */
        snprintf(join->why, sizeof join->why, "the receipt of round %u cannot be stored: %s", round,
                 ct_err_detail());
        join->result = CT_ERR_IO;
        join->ended = true;
        return;
    }
    char path[64];
    snprintf(path, sizeof path, CT_NODE_RECEIPTS "/round-%06u.tlog-proof", round);
    ct_progress_receipt(&join->progress, round, path);
}

static void act(struct join *join, const struct ct_node_action *action) {
    switch (action->kind) {
    case CT_DO_CONNECT:
        do_connect(join, &action->key);
        break;
    case CT_DO_FRAME_MAX:
        if (join->link != NULL) {
            ct_link_frame_max(join->link, (size_t)action->bytes);
        }
        break;
    case CT_DO_SEND:
        do_send(join, &action->frame);
        break;
    case CT_DO_CHUNK:
        do_chunk(join, action->round, action->bytes);
        break;
    case CT_DO_CLOSE:
        do_close(join, action->err, action->say);
        break;
    case CT_DO_SOURCES:
        do_sources(join, &action->frame);
        break;
    case CT_DO_SYNC:
        ct_sync_advance(join->sync, action->text);
        break;
    case CT_DO_COMPUTE:
        do_compute(join);
        break;
    case CT_DO_CANCEL:
        ct_compute_cancel(join->compute);
        break;
    case CT_DO_RECEIPT:
        do_receipt(join, action->round, action->text);
        break;
    case CT_DO_FORGET:
        ct_contribution_forget(join->options->dir, action->round);
        break;
    case CT_DO_SAY:
        ct_progress_say(&join->progress, action->say);
        break;
    case CT_DO_FINISH:
        ct_sync_save_model(join->sync);
        break;
    case CT_DO_END:
        join->result = action->err;
        snprintf(join->why, sizeof join->why, "%s", action->say);
        join->ended = true;
        break;
    }
}

static void on_timer(uv_timer_t *timer);

static void handle(struct join *join, struct ct_node_event *event) {
    if (join->ended) {
        return;
    }
    count_traffic(join);
    event->now_ms = boot_ms();
    ct_node_handle(&join->node, event, &join->actions);
    for (uint32_t i = 0; i < join->actions.count && !join->ended; i++) {
        act(join, &join->actions.items[i]);
    }
    if (join->ended) {
        uv_stop(&join->loop);
        return;
    }
    uint64_t wake = ct_node_wake_ms(&join->node);
    uint64_t now = boot_ms();
    uint64_t delay = wake <= now ? 0 : wake - now;
    /* The timer sleeps with the machine; the state machine's clock does not. */
    uv_timer_start(&join->timer, on_timer, delay < TICK_MAX_MS ? delay : TICK_MAX_MS, 0);
    if (join->connect_failed) {
        join->connect_failed = false;
        handle_failure(join, CT_NODE_CLOSED, CT_ERR_NETWORK, 0, ct_err_detail());
    }
}

static void on_timer(uv_timer_t *timer) {
    struct ct_node_event event = {.kind = CT_NODE_TICK};
    handle(timer->data, &event);
}

static void give_up(struct join *join, enum ct_err err, const char *why) {
    join->result = err;
    snprintf(join->why, sizeof join->why, "%s", why);
    join->ended = true;
    uv_stop(&join->loop);
}

static void on_signal(uv_signal_t *signal, int number) {
    (void)number;
    struct join *join = signal->data;
    struct ct_site *site = join->options->site;
    /* Launchers end a site that lost a rank with the signal that people stop it with. */
    if (site->calls->check(site) != CT_OK) {
        give_up(join, CT_ERR_NETWORK, ct_err_detail());
        return;
    }
    ct_progress_say(&join->progress, "stopping");
    struct ct_node_event event = {.kind = CT_NODE_STOP};
    handle(join, &event);
}

static void wake(void *user) {
    struct join *join = user;
    uv_async_send(&join->async);
}

/* The first view tells what is needed to compute. */
static enum ct_err open_compute(struct join *join) {
    if (join->compute != NULL) {
        return CT_OK;
    }
    struct ct_compute_options options = {
        .dir = join->options->dir,
        .key = join->options->key,
        .run_id = join->options->ticket.run_id,
        .run_seed = join->facts.run_seed,
        .manifest = join->facts.manifest,
        .blobs = join->blobs,
        .follow = ct_sync_follow(join->sync),
        .site = join->options->site,
        .threads = join->options->threads,
        .wake = wake,
        .user = join,
    };
    return ct_compute_open(&options, &join->compute);
}

static void on_sync_result(struct join *join, const struct ct_sync_result *result) {
    join->http_down = result->received;
    count_traffic(join);
    if (result->kind == CT_SYNC_SAVED) {
        if (result->err == CT_OK) {
            ct_progress_state(&join->progress, "finished");
            ct_progress_say(&join->progress, "the run is finished; the model is in " CT_NODE_MODEL);
        }
        handle_failure(join, CT_NODE_SAVED, result->err, 0, result->detail);
        return;
    }
    if (result->kind == CT_SYNC_FAILED) {
        ct_log(CT_LOG_WARN, "node", "following the ledger: %s", result->detail);
        handle_failure(join, CT_NODE_SYNC_FAILED, result->err, 0, result->detail);
        return;
    }
    join->facts = result->facts;
    if (open_compute(join) != CT_OK) {
        give_up(join, CT_ERR_MEMORY, ct_err_detail());
        return;
    }
    ct_progress_view(&join->progress, &result->facts, &result->view, boot_ms());
    struct ct_node_event event = {.kind = CT_NODE_SYNCED, .body.view = &result->view};
    handle(join, &event);
}

static void on_compute_result(struct join *join, const struct ct_compute_result *result) {
    if (result->over) {
        give_up(join, result->err, result->detail);
        return;
    }
    if (result->err != CT_OK) {
        handle_failure(join, CT_NODE_COMPUTE_FAILED, result->err, result->round, result->detail);
        return;
    }
    ct_progress_computed(&join->progress, result);
    struct ct_node_event event = {.kind = CT_NODE_COMPUTED,
                                  .body.done = &result->pending,
                                  .tokens_per_s = result->tokens_per_s};
    handle(join, &event);
}

static void on_async(uv_async_t *async) {
    struct join *join = async->data;
    struct ct_compute_progress step;
    struct ct_compute_result computed;
    /* Sends coalesce: everything that waits is taken. */
    while (!join->ended && ct_sync_take(join->sync, &join->sync_result)) {
        on_sync_result(join, &join->sync_result);
    }
    while (!join->ended && join->compute != NULL && ct_compute_look(join->compute, &step)) {
        ct_progress_step(&join->progress, &step);
    }
    while (!join->ended && join->compute != NULL && ct_compute_take(join->compute, &computed)) {
        on_compute_result(join, &computed);
    }
}

static void open_handles(struct join *join) {
    CT_ASSERT(uv_loop_init(&join->loop) == 0);
    CT_ASSERT(uv_timer_init(&join->loop, &join->timer) == 0);
    CT_ASSERT(uv_async_init(&join->loop, &join->async, on_async) == 0);
    CT_ASSERT(uv_signal_init(&join->loop, &join->interrupt) == 0);
    CT_ASSERT(uv_signal_init(&join->loop, &join->terminate) == 0);
    join->timer.data = join;
    join->async.data = join;
    join->interrupt.data = join;
    join->terminate.data = join;
    CT_ASSERT(uv_signal_start(&join->interrupt, on_signal, SIGINT) == 0);
    CT_ASSERT(uv_signal_start(&join->terminate, on_signal, SIGTERM) == 0);
    join->handles_open = true;
}

/* The threads first: they wake the loop. */
static void close_all(struct join *join) {
    ct_compute_close(join->compute);
    ct_sync_close(join->sync);
    if (join->handles_open) {
        do_close(join, CT_OK, "stopping");
        uv_close((uv_handle_t *)&join->timer, NULL);
        uv_close((uv_handle_t *)&join->async, NULL);
        uv_close((uv_handle_t *)&join->interrupt, NULL);
        uv_close((uv_handle_t *)&join->terminate, NULL);
        uv_run(&join->loop, UV_RUN_DEFAULT);
        CT_ASSERT(uv_loop_close(&join->loop) == 0);
    }
    free(join->chunk);
}

static enum ct_err load_profile(const struct ct_join_options *options,
                                struct ct_node_config *config) {
    struct ct_buf record;
    ct_buf_init(&record, sizeof config->profile);
    enum ct_err err = ct_profile_file_open(options->dir, &options->volunteer,
                                           &options->ticket.run_id, options->key, &record);
    if (err == CT_OK && record.length > 0) {
        memcpy(config->profile, record.data, record.length);
        config->profile_length = (uint32_t)record.length;
    }
    ct_buf_deinit(&record);
    return err;
}

/* What lies in DIR from earlier. */
static enum ct_err load(struct join *join, struct ct_node_config *config) {
    char path[CT_NODE_PATH_MAX];
    struct ct_train_slot slots[2];
    const struct ct_join_options *options = join->options;
    CT_TRY(ct_node_path(options->dir, CT_NODE_BLOBS, path));
    CT_TRY(ct_blobs_init(&join->blobs, path));
    CT_TRY(ct_contribution_load(options->dir, &join->blobs, &options->ticket.run_id,
                                &config->pending));
    CT_TRY(ct_node_path(options->dir, CT_NODE_STATE, path));
    ct_train_slots_peek(path, slots);
    for (int i = 0; i < 2; i++) {
        config->held[i] = slots[i].state;
    }
    CT_TRY(ct_node_path(options->dir, CT_NODE_LEDGER, path));
    config->checkpoint_length = ct_ledger_copy_checkpoint(path, config->checkpoint);
    CT_TRY(load_profile(options, config));
    CT_TRY(ct_progress_init(&join->progress, options->dir, &options->ticket.run_id, options->json));
    join->progress.receipts = ct_contribution_receipts(options->dir);
    join->chunk = malloc(CT_UPLOAD_CHUNK_BYTES);
    return join->chunk != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for uploads");
}

enum ct_err ct_join_run(const struct ct_join_options *options) {
    struct join *join = calloc(1, sizeof *join);
    if (join == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to take part");
    }
    join->options = options;
    struct ct_node_config config = {
        .run_id = options->ticket.run_id,
        .key = ct_key_public(options->key),
        .until_round = options->until_round,
    };
    ct_random(config.instance, sizeof config.instance);
    enum ct_err err = load(join, &config);
    if (err == CT_OK) {
        uint64_t seed = 0;
        ct_random(&seed, sizeof seed);
        ct_node_init(&join->node, &config, seed);
        open_handles(join);
        const struct ct_sync_options sync = {.dir = options->dir,
                                             .run_id = options->ticket.run_id,
                                             .key = config.key,
                                             .wake = wake,
                                             .user = join};
        err = ct_sync_open(&sync, &join->sync);
    }
    if (err == CT_OK) {
        struct ct_node_event event = {.kind = CT_NODE_TICK};
        handle(join, &event);
        uv_run(&join->loop, UV_RUN_DEFAULT);
        err = join->result;
        if (strcmp(join->progress.state, "finished") != 0) {
            ct_progress_state(&join->progress, "stopped");
        }
    }
    char why[320];
    snprintf(why, sizeof why, "%s",
             err == CT_OK || join->result == CT_OK ? ct_err_detail() : join->why);
    close_all(join);
    free(join);
    return err == CT_OK ? CT_OK : ct_fail(err, "%s", why);
}
