#include "serve.h"

#include "incoming.h"
#include "profiles.h"
#include "rollback.h"

#include <cotrain/assert.h>
#include <cotrain/disk.h>
#include <cotrain/log.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS       1000u
#define GATHER_MS     3000u
#define FINISH_MIN_MS 3000u /* with --exit-when-done: for nodes that come back at the end */
#define FINISH_MAX_MS 60000u
#define WITNESSES_MS  5000u /* at the start, for what they hold */
#define SPARE_LINKS   64u   /* strangers and replacements beside two for each listed node */

uint64_t ct_serve_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void stop(struct ct_serve *serve);
static void close_rest(struct ct_serve *serve);

void ct_serve_fail(struct ct_serve *serve, enum ct_err err, const char *detail) {
    CT_ASSERT(err != CT_OK);
    if (serve->err == CT_OK) {
        serve->err = err;
        snprintf(serve->detail, sizeof serve->detail, "%s", detail);
        ct_log(CT_LOG_ERROR, "serve", "stopping: %s", serve->detail);
    }
    stop(serve);
}

void ct_serve_full(struct ct_serve *serve, const char *detail) {
    if (!serve->full) {
        serve->full = true;
        ct_log(CT_LOG_ERROR, "serve", "the disk is full, waiting for room: %s", detail);
        ct_report_disk(serve, detail);
    }
}

void ct_serve_trouble(struct ct_serve *serve, enum ct_err err, const char *detail) {
    if (err == CT_ERR_FULL && !serve->stopping) {
        ct_serve_full(serve, detail);
    } else {
        ct_serve_fail(serve, err, detail);
    }
}

/* Whatever found no room is tried once more; a journal that waits does so by itself. */
static void try_again(struct ct_serve *serve) {
    if (!serve->full || serve->journal.full || serve->journal.running) {
        return;
    }
    enum ct_err err = ct_incoming_room(serve->run.dir);
    if (err == CT_OK) {
        serve->full = false;
        err = ct_turn_again(serve);
    }
    if (err != CT_OK) {
        ct_serve_trouble(serve, err, ct_err_detail());
        return;
    }
    ct_payload_ask_again(serve);
}

static void on_deadline(uv_timer_t *timer) {
    ct_serve_advance(timer->data);
}

static void check_finished(struct ct_serve *serve, uint64_t now_ms) {
    if (serve->round.state != CT_ROUND_FINISHED) {
        return;
    }
    if (serve->finished_ms == 0) {
        serve->finished_ms = now_ms;
    }
    uint64_t since_ms = now_ms - serve->finished_ms;
    if (serve->options.exit_when_done && ct_journal_idle(&serve->journal) &&
        ((serve->roster.member_count == 0 && since_ms >= FINISH_MIN_MS) ||
         since_ms >= FINISH_MAX_MS)) {
        stop(serve);
    }
}

void ct_serve_heard(struct ct_serve *serve, struct ct_seat *seat) {
    char path[PATH_MAX];
    const bool counts = serve->to_hear > 0 && !seat->heard;
    seat->heard = true;
    if (!counts || --serve->to_hear > 0) {
        return;
    }
    enum ct_err err = ct_run_path(serve->run.dir, CT_RUN_RESTORED, path);
    if (err == CT_OK) {
        err = ct_disk_remove(path);
    }
    if (err != CT_OK) {
        ct_serve_fail(serve, err, ct_err_detail());
        return;
    }
    ct_log(CT_LOG_INFO, "serve", "nodes confirm the restored ledger: the run goes on");
}

/* How many nodes a restored run has to hear first. */
static enum ct_err count_to_hear(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    char path[PATH_MAX];
    CT_TRY(ct_run_path(serve->options.dir, CT_RUN_RESTORED, path));
    if (access(path, F_OK) == 0 && fold->node_count > 0 && fold->phase != CT_PHASE_FINISHED) {
        const uint32_t quorum = fold->manifest.quorum_nodes;
        serve->to_hear = quorum < fold->node_count ? quorum : fold->node_count;
        ct_log(CT_LOG_INFO, "serve", "restored: nothing is appended before %u nodes were heard",
               serve->to_hear);
    }
    return CT_OK;
}

void ct_serve_advance(struct ct_serve *serve) {
    if (serve->stopping) {
        close_rest(serve);
        return;
    }
    if (serve->to_hear > 0) {
        return;
    }
    for (;;) {
        ct_payload_advance(serve);
        if (serve->stopping || serve->merge.running || serve->full) {
            return;
        }
        const struct ct_round before = serve->round;
        struct ct_round_facts facts = ct_turn_facts(serve);
        enum ct_round_action action = ct_round_step(&serve->round, &facts, ct_serve_now_ms());
        if (action == CT_ROUND_NONE) {
            break;
        }
        enum ct_err err = ct_turn_do(serve, action);
        if (err != CT_OK) {
            serve->round = before;
            ct_serve_trouble(serve, err, ct_err_detail());
            return;
        }
    }
    uint64_t now_ms = ct_serve_now_ms();
    if (serve->round.deadline_ms != UINT64_MAX) {
        uint64_t deadline_ms = serve->round.deadline_ms;
        uv_timer_start(&serve->deadline, on_deadline,
                       deadline_ms > now_ms ? deadline_ms - now_ms : 0, 0);
    } else {
        uv_timer_stop(&serve->deadline);
    }
    check_finished(serve, now_ms);
}

/* W3: what is published is durable. */
static void offer_checkpoint(struct ct_serve *serve) {
    if (serve->witnesses != NULL && serve->journal.published != serve->offered) {
        serve->offered = serve->journal.published;
        ct_witnesses_offer(serve->witnesses, ct_buf_bytes(&serve->journal.checkpoint));
    }
}

static void on_cosigned(uv_async_t *async) {
    struct ct_serve *serve = async->data;
    struct ct_buf note;
    bool quorum = false;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    if (!serve->stopping && ct_witnesses_take(serve->witnesses, &note, &quorum)) {
        ct_journal_cosign(&serve->journal, ct_buf_bytes(&note), quorum);
    }
    ct_buf_deinit(&note);
}

static void wake(void *user) {
    struct ct_serve *serve = user;
    uv_async_send(&serve->cosigned);
}

static enum ct_err ask_mirrors(const struct ct_serve *serve) {
    for (uint32_t i = 0; i < serve->options.mirror_count; i++) {
        CT_TRY(ct_rollback_ask_mirror(&serve->run, serve->options.mirrors[i]));
    }
    return CT_OK;
}

/* What a witness says against this ledger stops it, unless the operator has named its key. */
static enum ct_err judge_witness(const struct ct_witness_report *report, const char *dir) {
    if (report->state != CT_WITNESS_AHEAD && report->state != CT_WITNESS_FORKED) {
        return CT_OK;
    }
    if (report->overruled) {
        ct_log(CT_LOG_ERROR, "witness",
               "OVERRULED by the operator: the witness %s says: %s. Serving all the same: if it is "
               "right, this run shows two histories",
               report->name, report->detail);
        fprintf(stderr, "cotraind serve: the witness %s is OVERRULED; it says: %s\n", report->name,
                report->detail);
        return CT_OK;
    }
    return ct_fail(CT_ERR_RULE,
                   "the witness %s says: %s. This ledger was rolled back or is another "
                   "copy's; serving it would show two histories. Restore the newest copy "
                   "of %s, or of a mirror (where the witness is known to be wrong, "
                   "--overrule-witness goes on against its word)",
                   report->name, report->detail, dir);
}

static enum ct_err overrule(struct ct_serve *serve) {
    for (uint32_t i = 0; i < serve->options.overruled_count; i++) {
        CT_TRY(ct_witnesses_overrule(serve->witnesses, serve->options.overruled[i]));
    }
    return CT_OK;
}

/* No rollback (protocol.md section 7): before anything is appended, mirrors and witnesses are asked
 * what they hold; nodes tell it in their hello. Who is away is no reason not to serve. */
static enum ct_err ask_witnesses(struct ct_serve *serve) {
    struct ct_policy *policy = NULL;
    char ledger[PATH_MAX];
    CT_TRY(ct_manifest_policy(&serve->run.replay.fold.manifest, &policy));
    if (policy == NULL) {
        return serve->options.overruled_count == 0
                   ? CT_OK
                   : ct_fail(CT_ERR_CONFIG, "--overrule-witness: the run names no witnesses");
    }
    enum ct_err err = ct_run_path(serve->options.dir, CT_RUN_LEDGER, ledger);
    if (err == CT_OK) {
        err = ct_witnesses_open(policy, ledger, wake, serve, &serve->witnesses);
    }
    free(policy);
    CT_TRY(err);
    CT_TRY(overrule(serve));
    offer_checkpoint(serve);
    ct_witnesses_settle(serve->witnesses, WITNESSES_MS);
    for (uint32_t i = 0; i < ct_witnesses_count(serve->witnesses); i++) {
        struct ct_witness_report report;
        ct_witnesses_report(serve->witnesses, i, &report);
        CT_TRY(judge_witness(&report, serve->options.dir));
    }
    return CT_OK;
}

/* The journal has published, or failed. */
static void on_published(void *user, enum ct_err err, const char *detail) {
    struct ct_serve *serve = user;
    if (err != CT_OK) {
        ct_serve_trouble(serve, err, detail);
        if (serve->stopping) {
            close_rest(serve);
            return;
        }
    }
    if (!serve->stopping) {
        offer_checkpoint(serve);
        ct_intake_receipts(serve);
    }
    for (uint32_t i = 0; i < serve->roster.seat_count && !serve->stopping; i++) {
        struct ct_member *member = serve->roster.seats[i].member;
        if (member != NULL) {
            ct_intake_notice(serve, member);
        }
    }
    if (!serve->stopping) {
        ct_report_show(serve);
    }
    ct_serve_advance(serve);
}

static void on_tick(uv_timer_t *timer) {
    struct ct_serve *serve = timer->data;
    uint64_t now_ms = ct_serve_now_ms();
    for (struct ct_member *member = serve->roster.members, *next; member != NULL; member = next) {
        next = member->next;
        switch (ct_roster_need(member, now_ms)) {
        case CT_MEMBER_DEAD:
            ct_log(CT_LOG_INFO, "intake", "a connection is dead: nothing heard from it");
            member->closing = true;
            ct_roster_unseat(member);
            ct_link_close(member->link, CT_ERR_NETWORK, "nothing heard");
            break;
        case CT_MEMBER_PING: {
            struct ct_wire ping = {.kind = CT_WIRE_PING};
            member->pinged_ms = now_ms;
            ct_intake_send(member, &ping);
            break;
        }
        case CT_MEMBER_FINE:
            break;
        }
    }
    bool was_full = serve->full;
    try_again(serve);
    ct_serve_advance(serve);
    if (was_full && !serve->full && !serve->stopping) {
        ct_log(CT_LOG_INFO, "serve", "the disk has room again");
        ct_report_disk(serve, NULL);
    }
    if (!serve->stopping) {
        ct_report_show(serve);
    }
}

static void on_opened(void *user, struct ct_link *link, const struct ct_hash *peer_key) {
    struct ct_member *member = user;
    struct ct_serve *serve = member->owner;
    (void)link;
    member->opened = true;
    member->key = *peer_key;
    member->opened_ms = member->heard_ms = ct_serve_now_ms();
    struct ct_wire run = {.kind = CT_WIRE_RUN};
    run.body.run.entry = ct_buf_bytes(&serve->run.first);
    ct_intake_send(member, &run);
}

static void on_frame(void *user, struct ct_link *link, struct ct_bytes frame) {
    (void)link;
    struct ct_member *member = user;
    ct_intake_frame(member->owner, member, frame);
}

static void on_closed(void *user, struct ct_link *link, enum ct_err why, const char *detail) {
    struct ct_member *member = user;
    struct ct_serve *serve = member->owner;
    uint64_t received, sent;
    ct_link_traffic(link, &received, &sent);
    serve->tally.closed_links_up += received;
    serve->tally.closed_links_down += sent;
    if (why == CT_ERR_TLS || why == CT_ERR_TOO_LARGE || why == CT_ERR_FORMAT) {
        ct_refusals_log(&serve->refusals, ct_serve_now_ms(), "%s: %s",
                        member->opened ? "a connection" : "a stranger", detail);
    } else if (why != CT_ERR_REFUSED && member->opened) {
        ct_log(CT_LOG_INFO, "intake", "disconnected, key %02x%02x%02x%02x…: %s",
               member->key.bytes[0], member->key.bytes[1], member->key.bytes[2],
               member->key.bytes[3], detail);
    }
    ct_roster_remove(&serve->roster, member);
    ct_serve_advance(serve);
}

static void *on_accept(void *user, struct ct_link *link) {
    struct ct_serve *serve = user;
    struct ct_member *member = ct_roster_add(&serve->roster, link, ct_serve_now_ms());
    if (member != NULL) {
        member->owner = serve;
    }
    return member;
}

static void on_signal(uv_signal_t *signal, int number) {
    struct ct_serve *serve = signal->data;
    ct_log(CT_LOG_INFO, "serve", "stopping on signal %d", number);
    stop(serve);
}

/* Ends what takes work in; jobs that run end by themselves, then close_rest closes the rest. */
static void stop(struct ct_serve *serve) {
    if (serve->stopping) {
        return;
    }
    serve->stopping = true;
    uv_close((uv_handle_t *)&serve->tick, NULL);
    uv_close((uv_handle_t *)&serve->deadline, NULL);
    uv_close((uv_handle_t *)&serve->interrupt, NULL);
    uv_close((uv_handle_t *)&serve->terminate, NULL);
    ct_witnesses_close(serve->witnesses); /* their threads wake the loop no more */
    serve->witnesses = NULL;
    uv_close((uv_handle_t *)&serve->cosigned, NULL);
    if (serve->server != NULL) {
        ct_link_server_close(serve->server);
        serve->server = NULL;
    }
    ct_journal_hurry(&serve->journal);
    close_rest(serve);
}

static void close_rest(struct ct_serve *serve) {
    CT_ASSERT(serve->stopping);
    if (serve->closed || serve->journal.running || serve->merge.running || serve->jobs > 0) {
        return;
    }
    if (serve->err == CT_OK && serve->journal.queued > 0) {
        /* Queued while the last publication ran; its end comes here again. */
        ct_journal_hurry(&serve->journal);
        return;
    }
    serve->closed = true;
    ct_journal_stop(&serve->journal);
}

/* Rebuilds what a seat knows of its commits in the open and the last round. */
static enum ct_err remember_commit(void *user, const struct ct_fold *fold, uint64_t index,
                                   struct ct_bytes bytes) {
    struct ct_serve *serve = user;
    struct ct_envelope envelope;
    struct ct_entry entry;
    CT_TRY(ct_envelope_open(bytes, &envelope));
    CT_TRY(ct_entry_decode(envelope.payload, &entry));
    if (entry.kind == CT_ENTRY_RUN_OPENED) {
        /* Told again when a cached fold did not hold. */
        ct_roster_deinit(&serve->roster);
        return ct_roster_init(&serve->roster, &fold->manifest);
    }
    if (entry.kind == CT_ENTRY_COMMITS_CLOSED) {
        serve->closed_index = index;
    }
    if (entry.kind != CT_ENTRY_COMMIT) {
        return CT_OK;
    }
    struct ct_bytes statement = {entry.body.commit.envelope, entry.body.commit.length};
    struct ct_commit commit;
    CT_TRY(ct_envelope_open(statement, &envelope));
    CT_TRY(ct_commit_decode(envelope.payload, &commit));
    struct ct_seat *seat = ct_roster_seat(&serve->roster, &fold->nodes[commit.author - 1].key);
    CT_ASSERT(seat != NULL);
    return ct_seat_commit(seat, index, &commit, statement, bytes);
}

static const struct ct_link_events link_events = {on_opened, on_frame, on_closed};

static enum ct_err open_ports(struct ct_serve *serve) {
    const struct ct_serve_options *options = &serve->options;
    CT_TRY(ct_ports_load(options->dir, &serve->ports));
    uint16_t work = options->listen_port != 0 ? options->listen_port : serve->ports.work;
    uint16_t http = options->http_port != 0 ? options->http_port : serve->ports.http;
    char ledger[PATH_MAX], blobs[PATH_MAX], profiles[PATH_MAX];
    CT_TRY(ct_run_path(options->dir, CT_RUN_LEDGER, ledger));
    CT_TRY(ct_run_path(options->dir, CT_RUN_BLOBS, blobs));
    CT_TRY(ct_run_path(options->dir, CT_RUN_PROFILES, profiles));
    struct ct_web_options http_options = {.ledger_dir = ledger,
                                          .blobs_dir = blobs,
                                          .profiles_dir = profiles,
                                          .host = options->listen_host,
                                          .port = http};
    CT_TRY(ct_web_open(&http_options, &serve->web, &serve->ports.http));
    CT_TRY(ct_link_listen(&serve->loop, options->listen_host, work, serve->run.identity,
                          2 * serve->roster.seat_count + SPARE_LINKS, on_accept, &link_events,
                          serve, &serve->server, &serve->ports.work));
    return ct_ports_save(options->dir, &serve->ports);
}

static enum ct_err prepare(struct ct_serve *serve) {
    static const char *const folders[] = {CT_RUN_INCOMING, CT_RUN_EVIDENCE, CT_RUN_PROFILES};
    const struct ct_fold *fold = &serve->run.replay.fold;
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        CT_TRY(ct_run_path(serve->options.dir, folders[i], path));
        CT_TRY(ct_dir_make(path));
    }
    ct_profiles_sweep(serve->options.dir, fold);
    CT_TRY(count_to_hear(serve));
    CT_TRY(ct_payload_resume(serve));
    struct ct_round_times times = {GATHER_MS, fold->manifest.round_time_ms,
                                   fold->manifest.upload_time_ms};
    ct_round_init(&serve->round, &times, fold->phase, ct_serve_now_ms());
    return ct_journal_init(&serve->journal, &serve->loop, &serve->run,
                           fold->manifest.checkpoint_time_ms, on_published, serve);
}

static void start_timers(struct ct_serve *serve) {
    uv_timer_init(&serve->loop, &serve->tick);
    uv_timer_init(&serve->loop, &serve->deadline);
    uv_signal_init(&serve->loop, &serve->interrupt);
    uv_signal_init(&serve->loop, &serve->terminate);
    uv_async_init(&serve->loop, &serve->cosigned, on_cosigned);
    serve->cosigned.data = serve;
    serve->tick.data = serve->deadline.data = serve;
    serve->interrupt.data = serve->terminate.data = serve;
    uv_timer_start(&serve->tick, on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&serve->interrupt, on_signal, SIGINT);
    uv_signal_start(&serve->terminate, on_signal, SIGTERM);
}

enum ct_err ct_serve_run(const struct ct_serve_options *options) {
    struct ct_serve *serve = calloc(1, sizeof *serve);
    if (serve == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory");
    }
    serve->options = *options;
    serve->run.lock_fd = -1;
    CT_ASSERT(uv_loop_init(&serve->loop) == 0);
    char log_path[PATH_MAX];
    bool opened = false, journal = false;
    enum ct_err err = ct_run_open(options->dir, remember_commit, serve, &serve->run);
    opened = err == CT_OK;
    if (err == CT_OK) {
        err = ct_run_path(options->dir, CT_RUN_LOG, log_path);
    }
    if (err == CT_OK) {
        ct_log_to(log_path);
        err = prepare(serve);
        journal = err == CT_OK;
    }
    if (journal) {
        start_timers(serve);
        err = ask_mirrors(serve);
        if (err == CT_OK) {
            err = ask_witnesses(serve);
        }
        if (err == CT_OK) {
            err = open_ports(serve);
        }
        if (err != CT_OK) {
            serve->err = err;
            snprintf(serve->detail, sizeof serve->detail, "%s%s", ct_err_detail(),
                     err == CT_ERR_NETWORK ? "; --listen and --http take other ports, and nodes "
                                             "then need the new ticket"
                                           : "");
            stop(serve);
        } else {
            serve->tally.opened_ms = ct_serve_now_ms();
            ct_report_serving(serve);
            ct_report_show(serve);
            ct_serve_advance(serve);
        }
        uv_run(&serve->loop, UV_RUN_DEFAULT);
        err = serve->err == CT_OK ? CT_OK : ct_fail(serve->err, "%s", serve->detail);
    }
    if (serve->web != NULL) {
        ct_web_close(serve->web);
    }
    uv_run(&serve->loop, UV_RUN_DEFAULT);
    uv_loop_close(&serve->loop);
    if (journal) {
        ct_journal_deinit(&serve->journal);
    }
    ct_roster_deinit(&serve->roster);
    if (opened) {
        ct_run_close(&serve->run);
    }
    free(serve->merge.theta);
    free(serve);
    ct_log_to(NULL);
    return err;
}
