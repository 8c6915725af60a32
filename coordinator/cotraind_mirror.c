/* cotraind mirror: keeps a verified copy of a run, and serves it. */
#include "cotraind.h"
#include "listen.h"
#include "mirror.h"
#include "web.h"

#include <cotrain/command.h>
#include <cotrain/log.h>

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: cotraind mirror URL DIR [--once] [--listen HOST:PORT] [--run RUNID]\n"
    "                       [--keep-expired] [--json]\n"
    "\n"
    "Keeps in DIR a full copy of the run that a coordinator or another mirror serves at URL:\n"
    "ledger, checkpoints and every blob that entries name, each verified. It follows the run\n"
    "until Ctrl-C; stopped in any way at any time, the same command goes on where it stood.\n"
    "A checkpoint that the copy does not lead to is refused and nothing is replaced; if the log's\n"
    "key signed two histories, the proof is left in DIR/evidence (cotrain evidence reads it).\n"
    "\n"
    "cotrain audit DIR audits the copy; nodes and audits read from it once it is served; cotraind\n"
    "restore makes a run directory of it again.\n"
    "\n"
    "  --once              copy what is there now, and end: status 1 if something was not to be "
    "had\n"
    "  --listen HOST:PORT  serve the copy over HTTP as the coordinator does (port 0: any free "
    "one)\n"
    "  --run RUNID         the run that is meant, as its ticket ends; without it the first "
    "contact\n"
    "                      decides, and the run's id is printed for you to compare\n"
    "  --keep-expired      an archive: updates that the run lets expire (its `retention`) are "
    "kept,\n"
    "                      and taken where they are still to be had; else they are removed here "
    "too\n"
    "  --json              one JSON object per line instead of text\n";

#define POLL_MS     1000
#define POLL_MS_MAX 60000 /* of a source that is away */
#define AGAIN_MS    60000 /* lacking blobs are looked for again */

struct options {
    struct ct_mirror_options mirror;
    struct ct_hash run_id;
    bool once, json, listens;
    char host[CT_LISTEN_HOST_BYTES];
    uint16_t port;
};

static int fail_usage(const char *text) {
    fprintf(stderr, "cotraind mirror: %s; cotraind mirror --help tells how\n", text);
    return CT_EXIT_USAGE;
}

static sigset_t ends;

/* The signals are blocked: one that came waits to be asked for. */
static bool is_asked_to_end(void *user) {
    (void)user;
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1;
}

/* True: a signal asked for the end. */
static bool rest(int64_t time_ms) {
    const struct timespec time = {.tv_sec = time_ms / 1000, .tv_nsec = time_ms % 1000 * 1000000};
    return sigtimedwait(&ends, NULL, &time) > 0;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static char *state_json(const struct ct_mirror *mirror, const char *url) {
    char id[CT_HEX_BYTES];
    ct_hash_hex(&mirror->run_id, id);
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "event", "mirror", "of", url,
                  "run", id, "name", mirror->named.manifest.name, "origin", mirror->opened.origin,
                  "entries", (json_int_t)ct_ledger_published(mirror->ledger), "rounds",
                  (json_int_t)mirror->named.round, "lacking", (json_int_t)mirror->named.lacking,
                  "fetched_bytes", (json_int_t)ct_fetch_received(mirror->fetch));
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

/* For people and programs: on standard output, and where the copy is served. */
static void show(const struct ct_mirror *mirror, const struct options *options,
                 struct ct_web *web) {
    char *json = state_json(mirror, options->mirror.url);
    char page[1024], id[CT_HEX_BYTES];
    ct_hash_hex(&mirror->run_id, id);
    if (options->json && json != NULL) {
        puts(json);
    } else if (!options->json) {
        printf("entries %" PRIu64 "  rounds %" PRIu32 "  fetched %.1f MB", //
               ct_ledger_published(mirror->ledger), mirror->named.round,
               (double)ct_fetch_received(mirror->fetch) / 1e6);
        if (mirror->named.lacking > 0) {
            printf("  lacking %" PRIu64 " blobs", mirror->named.lacking);
        }
        puts("");
    }
    fflush(stdout);
    if (web != NULL && json != NULL) {
        snprintf(page, sizeof page,
                 "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cotrain "
                 "mirror</title><h1>A mirror</h1><p>of the run <code>%s</code>: %" PRIu64
                 " entries, %" PRIu32 " rounds.</p><p>cotrain audit takes this page's address.</p>"
                 "</html>\n",
                 id, ct_ledger_published(mirror->ledger), mirror->named.round);
        ct_web_show(web, page, json);
    }
    free(json);
}

static enum ct_err open_web(const struct options *options, const struct ct_mirror *mirror,
                            struct ct_web **out) {
    char ledger[PATH_MAX], blobs[PATH_MAX], url[CT_LISTEN_URL_BYTES];
    uint16_t port = 0;
    if (!options->listens) {
        return CT_OK;
    }
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_LEDGER, ledger));
    CT_TRY(ct_run_path(mirror->dir, CT_RUN_BLOBS, blobs));
    const struct ct_web_options web = {
        .ledger_dir = ledger, .blobs_dir = blobs, .host = options->host, .port = options->port};
    CT_TRY(ct_web_open(&web, out, &port));
    ct_listen_url(options->host, port, url);
    printf(options->json ? "{\"event\":\"listening\",\"url\":\"%s\"}\n" : "url  %s\n", url);
    fflush(stdout);
    return CT_OK;
}

static void greet(const struct ct_mirror *mirror, const struct options *options) {
    char id[CT_HEX_BYTES];
    ct_hash_hex(&mirror->run_id, id);
    if (!options->json) {
        printf("run  %s\nlog  %s\n", id, mirror->opened.origin);
        fflush(stdout);
    }
}

/* Whether following may go on after this: not when nobody could make it good by waiting. */
static bool may_pass(enum ct_err err) {
    switch (err) {
    case CT_ERR_NETWORK:
    case CT_ERR_NOT_FOUND:
    case CT_ERR_TOO_LARGE:
    case CT_ERR_FORMAT:
    case CT_ERR_SIGNATURE:
    case CT_ERR_DIGEST:
    case CT_ERR_RULE:
    case CT_ERR_FULL:
        return true;
    default:
        return false;
    }
}

static enum ct_err follow(struct ct_mirror *mirror, const struct options *options,
                          struct ct_web *web) {
    int64_t wait_ms = POLL_MS;
    int64_t again_ms = now_ms() + AGAIN_MS;
    uint64_t shown = UINT64_MAX, shown_lacking = 0;
    bool looked_again = false;
    char told[400] = "";
    for (;;) {
        enum ct_err err = ct_mirror_advance(mirror);
        if (err == CT_OK && mirror->named.lacking > 0 && now_ms() > again_ms) {
            again_ms = now_ms() + AGAIN_MS;
            err = ct_mirror_again(mirror);
        }
        if (err == CT_ERR_STATE && is_asked_to_end(NULL)) {
            return CT_OK;
        }
        if (err == CT_OK && options->once && mirror->named.lacking > 0 && !looked_again) {
            /* More may have expired while it was copied: then nothing lacks. */
            looked_again = true;
            continue;
        }
        if (shown != ct_ledger_published(mirror->ledger) ||
            shown_lacking != mirror->named.lacking || (err == CT_OK && options->once)) {
            shown = ct_ledger_published(mirror->ledger);
            shown_lacking = mirror->named.lacking;
            show(mirror, options, web);
        }
        if (options->once || (err != CT_OK && !may_pass(err))) {
            return err;
        }
        if (err != CT_OK && strncmp(told, ct_err_detail(), sizeof told - 1) != 0) {
            snprintf(told, sizeof told, "%s", ct_err_detail());
            ct_log(CT_LOG_WARN, "mirror", "%s; trying again", told);
        }
        wait_ms = err == CT_OK ? POLL_MS : wait_ms < POLL_MS_MAX / 2 ? 2 * wait_ms : POLL_MS_MAX;
        if (rest(wait_ms)) {
            return CT_OK;
        }
    }
}

static enum ct_err run(const struct options *options) {
    struct ct_mirror mirror;
    struct ct_web *web = NULL;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    CT_TRY(ct_mirror_open(&options->mirror, &mirror));
    greet(&mirror, options);
    enum ct_err err = open_web(options, &mirror, &web);
    if (err == CT_OK) {
        err = follow(&mirror, options, web);
    }
    if (err == CT_OK && options->once && mirror.named.lacking > 0) {
        err = ct_fail(CT_ERR_NOT_FOUND,
                      "%" PRIu64 " blobs are lacking that entries name, the first one %s (entry "
                      "%" PRIu64 "); another mirror may have them: run the same command with its "
                      "URL",
                      mirror.named.lacking, mirror.named.lacking_name, mirror.named.lacking_entry);
    }
    if (web != NULL) {
        ct_web_close(web);
    }
    ct_mirror_close(&mirror);
    return err;
}

int ct_cmd_mirror(int argc, char **argv) {
    static const struct option long_options[] = {
        {"once", no_argument, NULL, 'o'},
        {"listen", required_argument, NULL, 'l'},
        {"run", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {"keep-expired", no_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.mirror.fetch.cancelled = is_asked_to_end};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'o':
            options.once = true;
            break;
        case 'l':
            if (!ct_listen_parse(optarg, options.host, &options.port)) {
                return fail_usage("--listen takes HOST:PORT");
            }
            options.listens = true;
            break;
        case 'r':
            if (ct_hash_parse(optarg, &options.run_id) != CT_OK) {
                return fail_usage("--run takes the 64 hexadecimal digits of a run's id");
            }
            options.mirror.run_id = &options.run_id;
            break;
        case 'k':
            options.mirror.keep_expired = true;
            break;
        case 'j':
            options.json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        default:
            return CT_EXIT_USAGE;
        }
    }
    if (argc - optind != 2) {
        return fail_usage("it needs URL and DIR");
    }
    options.mirror.url = argv[optind];
    options.mirror.dir = argv[optind + 1];
    const enum ct_err err = run(&options);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind mirror", err);
}
