/* cotrain join: take part in a run. */
#include "commands.h"
#include "crew.h"
#include "join.h"
#include "node_dir.h"

#include <cotrain/buf.h>
#include <cotrain/command.h>

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain join TICKET [--dir DIR] [--identity FILE] [--threads N] [--yes]\n"
    "                    [--name NAME] [--region REGION] [--until-round N] [--json]\n"
    "\n"
    "Trains with others until the run is finished or you stop it (Ctrl-C takes leave in order; "
    "the\n"
    "same command later goes on). TICKET is cotrain://HOST:PORT/RUNID, from the run's operator.\n"
    "\n"
    "  --dir DIR         where the node keeps its data; default $XDG_STATE_HOME/cotrain/RUNID\n"
    "  --identity FILE   the node's key; default DIR/identity.pem, else the one of 'cotrain key'\n"
    "  --threads N       threads that compute; default all cores\n"
    "  --name NAME       shown beside this node's number, for as long as it is given; so is\n"
    "  --region REGION   a coarse region, as 'north sea'\n"
    "  --yes             agree to the conditions without being asked\n"
    "  --until-round N   leave when round N is closed\n"
    "  --json            one JSON object per line instead of text\n"
    "\n"
    "When the run is finished, DIR/model holds the model. DIR/receipts holds the proof of each\n"
    "contribution; 'cotrain receipt FILE --vkey DIR/log.vkey' checks one.\n";

static const char conditions[] =
    "You are about to take part in the training run\n"
    "    %s\n"
    "  coordinated by %s.\n"
    "\n"
    "  - Your computer computes for it and sends small updates, until you stop (Ctrl-C).\n"
    "  - Public for ever, and not to be deleted: this node's key, which updates it contributed, "
    "when,\n"
    "    and how its training loss was. They stand in the run's open ledger.\n"
    "  - Not in the ledger: your name, your address, anything else from this computer. Where you\n"
    "    give --name or --region, the coordinator shows them until you join without them. It\n"
    "    sees your network address while you are connected, as any server does.\n"
    "  - The model and all records are open to everyone, under the licence of the run.\n"
    "\n";

struct arguments {
    struct ct_site *site;
    const char *ticket, *dir, *identity;
    struct ct_volunteer volunteer;
    uint32_t threads, until_round;
    bool yes, json;
};

static bool parse_number(const char *text, uint32_t *out) {
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value == 0 ||
        value > 1000000000ul) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool take_text(const struct arguments *arguments, char field[33], const char *what,
                      const char *text) {
    const bool good = ct_volunteer_set(field, what, text) == CT_OK;
    if (!good && arguments->site->rank == 0) {
        fprintf(stderr, "cotrain join: %s\n", ct_err_detail());
    }
    return good;
}

/* −1: go on; else the exit status. */
static int parse(int argc, char **argv, struct arguments *out) {
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},     {"identity", required_argument, NULL, 'i'},
        {"threads", required_argument, NULL, 't'}, {"until-round", required_argument, NULL, 'u'},
        {"name", required_argument, NULL, 'n'},    {"region", required_argument, NULL, 'r'},
        {"yes", no_argument, NULL, 'y'},           {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    int option = 0;
    bool good = true;
    opterr = out->site->rank == 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            out->dir = optarg;
            break;
        case 'i':
            out->identity = optarg;
            break;
        case 't':
            good = good && parse_number(optarg, &out->threads);
            break;
        case 'u':
            good = good && parse_number(optarg, &out->until_round);
            break;
        case 'n':
            good = good && take_text(out, out->volunteer.name, "name", optarg);
            break;
        case 'r':
            good = good && take_text(out, out->volunteer.region, "region", optarg);
            break;
        case 'y':
            out->yes = true;
            break;
        case 'j':
            out->json = true;
            break;
        case 'h':
            if (out->site->rank == 0) {
                fputs(usage, stdout);
            }
            return CT_EXIT_DONE;
        default:
            good = false;
            break;
        }
    }
    if (!good || optind + 1 != argc) {
        if (out->site->rank == 0) {
            fputs(usage, stderr);
        }
        return CT_EXIT_USAGE;
    }
    out->ticket = argv[optind];
    return -1;
}

static enum ct_err ask(const struct ct_ticket *ticket, bool yes) {
    if (yes) {
        return CT_OK;
    }
    char hex[CT_HEX_BYTES];
    char answer[16];
    ct_hash_hex(&ticket->run_id, hex);
    printf(conditions, hex, ticket->host);
    if (!isatty(STDIN_FILENO)) {
        return ct_fail(CT_ERR_USAGE, "nobody is there to be asked: add --yes to agree");
    }
    printf("Take part? [y/N] ");
    fflush(stdout);
    if (fgets(answer, sizeof answer, stdin) == NULL ||
        (strcmp(answer, "y\n") != 0 && strcmp(answer, "yes\n") != 0)) {
        return ct_fail(CT_ERR_STATE, "not joined");
    }
    return CT_OK;
}

/* --identity, else DIR/identity.pem, else the one that `cotrain key` keeps for all runs; if there
 * is none yet, it is made: in DIR when that was named, for all runs otherwise. */
static enum ct_err open_identity(const struct arguments *arguments, const char *dir,
                                 struct ct_key **out) {
    char path[CT_NODE_PATH_MAX];
    bool made = false;
    if (arguments->identity != NULL) {
        return ct_identity_open(arguments->identity, false, out, NULL);
    }
    CT_TRY(ct_node_path(dir, CT_NODE_IDENTITY, path));
    if (access(path, F_OK) != 0 && arguments->dir == NULL) {
        CT_TRY(ct_node_dir_default(CT_NODE_IDENTITY, path));
    }
    CT_TRY(ct_identity_open(path, true, out, &made));
    if (made && !arguments->json) {
        printf("made a new identity: %s\n", path);
    }
    return CT_OK;
}

/* The model is written when the run is finished, as the last thing. */
static bool is_finished(const char *dir, bool json) {
    char path[CT_NODE_PATH_MAX];
    if (ct_node_path(dir, CT_NODE_MODEL "/model.safetensors", path) != CT_OK ||
        access(path, F_OK) != 0) {
        return false;
    }
    if (!json) {
        printf("this run is finished; the model is in %s/" CT_NODE_MODEL "\n", dir);
    }
    return true;
}

static enum ct_err find_dir(const struct arguments *arguments, struct ct_ticket *out_ticket,
                            char out[CT_NODE_PATH_MAX]) {
    char hex[CT_HEX_BYTES];
    if (ct_ticket_parse(arguments->ticket, out_ticket) != CT_OK) {
        return ct_fail(CT_ERR_USAGE, "%s", ct_err_detail());
    }
    ct_hash_hex(&out_ticket->run_id, hex);
    if (arguments->dir == NULL) {
        return ct_node_dir_default(hex, out);
    }
    snprintf(out, CT_NODE_PATH_MAX, "%s", arguments->dir);
    return CT_OK;
}

/* The ranks beside rank 0 meet it once DIR is locked. */
static enum ct_err meet(const struct arguments *arguments, const struct ct_key *key) {
    char text[512];
    const struct ct_hash public = ct_key_public(key);
    CT_TRY(ct_crew_meet(arguments->site, &public, text, sizeof text));
    if (text[0] != '\0') {
        printf(arguments->json ? "{\"event\":\"message\",\"text\":\"%s\"}\n" : "%s\n", text);
        fflush(stdout);
    }
    return CT_OK;
}

static enum ct_err join(const struct arguments *arguments) {
    struct ct_join_options options = {.volunteer = arguments->volunteer,
                                      .site = arguments->site,
                                      .threads = arguments->threads,
                                      .until_round = arguments->until_round,
                                      .json = arguments->json};
    char dir[CT_NODE_PATH_MAX];
    int lock = -1;
    struct ct_key *key = NULL;
    CT_TRY(find_dir(arguments, &options.ticket, dir));
    if (is_finished(dir, arguments->json)) {
        return CT_OK;
    }
    CT_TRY(ask(&options.ticket, arguments->yes));
    CT_TRY(ct_dir_make(dir));
    CT_TRY(ct_node_dir_lock(dir, &lock));
    enum ct_err err = open_identity(arguments, dir, &key);
    if (err == CT_OK) {
        err = meet(arguments, key);
    }
    if (err == CT_OK) {
        options.dir = dir;
        options.key = key;
        err = ct_join_run(&options);
    }
    ct_key_free(key);
    close(lock);
    return err;
}

/* What a rank beside rank 0 does; the launcher's signals are rank 0's to answer. */
static enum ct_err serve(const struct arguments *arguments) {
    struct ct_ticket ticket;
    char dir[CT_NODE_PATH_MAX];
    const bool found = find_dir(arguments, &ticket, dir) == CT_OK;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    return ct_crew_serve(arguments->site, found ? dir : NULL, arguments->identity,
                         arguments->threads);
}

int ct_cmd_join(int argc, char **argv) {
    return ct_site_join(ct_site_alone(), argc, argv);
}

int ct_site_join(struct ct_site *site, int argc, char **argv) {
    struct arguments arguments = {.site = site};
    int status = parse(argc, argv, &arguments);
    if (status >= 0) {
        return status;
    }
    signal(SIGPIPE, SIG_IGN);
    if (site->rank != 0) {
        return serve(&arguments) == CT_OK ? CT_EXIT_DONE : CT_EXIT_FAILED;
    }
    enum ct_err err = join(&arguments);
    status = err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain join", err);
    ct_crew_dismiss(site);
    return status;
}
