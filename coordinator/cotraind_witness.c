/* cotraind witness: co-signs someone's tree heads. */
#include "cotraind.h"
#include "listen.h"
#include "web.h"
#include "witness.h"

#include <cotrain/add_checkpoint.h>
#include <cotrain/command.h>

#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: cotraind witness DIR [--name NAME] [--log VKEY]… [--listen HOST:PORT] [--json]\n"
    "\n"
    "Serves a C2SP tlog-witness until Ctrl-C: it remembers the largest checkpoint of each log "
    "that\n"
    "it knows and cosigns only what extends it. Any log that speaks the protocol may be among "
    "them.\n"
    "Prints the verifier key and the URL that an operator puts into a manifest's "
    "witnesses.policy.\n"
    "\n"
    "  --name NAME         at the first start: its name for ever, a URL without scheme that is "
    "yours\n"
    "  --log VKEY          a log to witness, by its verifier key (cotraind ticket prints a "
    "run's);\n"
    "                      kept in DIR/logs, where one may also be written by hand\n"
    "  --listen HOST:PORT  where it answers (127.0.0.1:0; port 0 takes any free one)\n"
    "  --json              one object instead of words: verifier_key, url, logs[]\n";

#define LOG_OPTIONS_MAX 64

struct options {
    const char *dir, *name;
    const char *logs[LOG_OPTIONS_MAX];
    int log_count;
    char host[CT_LISTEN_HOST_BYTES];
    uint16_t port;
    bool json;
};

static int fail_usage(const char *text) {
    fprintf(stderr, "cotraind witness: %s; cotraind witness --help tells how\n", text);
    return CT_EXIT_USAGE;
}

/* "POST /add-checkpoint" and "GET /HEX/checkpoint". */
static unsigned answer(void *user, const char *method, const char *path, struct ct_bytes body,
                       struct ct_buf *out, const char **out_type) {
    struct ct_witness *witness = user;
    char hex[CT_HEX_BYTES];
    int end = 0;
    if (strcmp(path, "/" CT_ADD_CHECKPOINT_PATH) == 0) {
        if (strcmp(method, "POST") != 0) {
            return 405;
        }
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return ct_witness_add_checkpoint(witness, body, (uint64_t)now.tv_sec, out, out_type);
    }
    if (strcmp(method, "POST") != 0 && sscanf(path, "/%64[0-9a-f]/checkpoint%n", hex, &end) == 1 &&
        end > 0 && path[end] == '\0') {
        return ct_witness_checkpoint(witness, hex, out);
    }
    return 404;
}

static void print_json(const struct ct_witness *witness, const char *vkey, const char *url) {
    json_t *logs = json_array();
    for (uint32_t i = 0; i < witness->log_count; i++) {
        char log[CT_VKEY_BYTES_MAX];
        ct_vkey_format(witness->logs[i].origin, &witness->logs[i].key, log);
        json_array_append_new(logs, json_string(log));
    }
    json_t *root = json_pack("{s:s, s:s, s:o}", "verifier_key", vkey, "url", url, "logs", logs);
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    puts(text != NULL ? text : "{}");
    free(text);
    json_decref(root);
}

static enum ct_err serve(const struct options *options, struct ct_witness *witness) {
    struct ct_web *web = NULL;
    uint16_t port = 0;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    struct ct_web_options web_options = {.host = options->host,
                                         .port = options->port,
                                         .answer = answer,
                                         .user = witness,
                                         .body_max = CT_ADD_CHECKPOINT_BYTES_MAX};
    CT_TRY(ct_web_open(&web_options, &web, &port));
    char vkey[CT_VKEY_BYTES_MAX], url[CT_LISTEN_URL_BYTES];
    struct ct_hash public_key = ct_key_public(witness->key);
    ct_cosigner_format(witness->name, &public_key, vkey);
    ct_listen_url(options->host, port, url);
    if (options->json) {
        print_json(witness, vkey, url);
    } else {
        printf("verifier key  %s\nurl           %s\nlogs          %u\n", vkey, url,
               witness->log_count);
    }
    fflush(stdout);
    int number = 0;
    sigwait(&ends, &number);
    ct_web_close(web);
    return CT_OK;
}

static enum ct_err run(const struct options *options) {
    struct ct_witness witness;
    CT_TRY(ct_witness_open(options->dir, options->name, &witness));
    enum ct_err err = CT_OK;
    for (int i = 0; i < options->log_count && err == CT_OK; i++) {
        err = ct_witness_add_log(&witness, options->logs[i]);
    }
    if (err == CT_OK) {
        err = serve(options, &witness);
    }
    ct_witness_close(&witness);
    return err;
}

int ct_cmd_witness(int argc, char **argv) {
    static const struct option long_options[] = {
        {"name", required_argument, NULL, 'n'},   {"log", required_argument, NULL, 'l'},
        {"listen", required_argument, NULL, 'a'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    struct options options = {.host = "127.0.0.1"};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'n':
            options.name = optarg;
            break;
        case 'l':
            if (options.log_count == LOG_OPTIONS_MAX) {
                return fail_usage("too many --log; write them to DIR/logs");
            }
            options.logs[options.log_count++] = optarg;
            break;
        case 'a':
            if (!ct_listen_parse(optarg, options.host, &options.port)) {
                return fail_usage("--listen takes HOST:PORT");
            }
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
    if (argc - optind != 1) {
        return fail_usage("it needs DIR");
    }
    options.dir = argv[optind];
    enum ct_err err = run(&options);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind witness", err);
}
