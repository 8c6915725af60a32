/* cotraind serve: runs it. */
#include "cotraind.h"
#include "serve.h"

#include <cotrain/command.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: cotraind serve DIR [--listen HOST:PORT] [--http PORT] [--mirror URL]…\n"
    "                          [--overrule-witness VKEY]… [--exit-when-done] [--json]\n"
    "\n"
    "Coordinates the run in DIR until Ctrl-C: waits for nodes, opens and closes rounds, publishes "
    "the\n"
    "ledger. Stopped in any way at any time, the same command goes on where it stood. Diagnostics "
    "go\n"
    "to DIR/coordinator.log.\n"
    "\n"
    "  --listen HOST:PORT  where nodes connect; HOST also serves HTTP (0.0.0.0:0, all addresses).\n"
    "                      Port 0 takes the port of the last time, at first any free one\n"
    "  --http PORT         where ledger and blobs are read (0, as above)\n"
    "  --mirror URL        another place where ledger and blobs are read, told to nodes, and asked "
    "at\n"
    "                      the start what it holds; up to 8\n"
    "  --overrule-witness VKEY\n"
    "                      go on although the run's witness with that verifier key says that the\n"
    "                      ledger was rolled back or is another one: only where you know that it "
    "is\n"
    "                      the witness that is wrong. It is logged at every start\n"
    "  --exit-when-done    end when the run is finished and its nodes have gone, or after a "
    "minute\n"
    "  --json              one JSON object per line instead of text\n";

static int fail_usage(const char *text) {
    fprintf(stderr, "cotraind serve: %s; cotraind serve --help tells how\n", text);
    return CT_EXIT_USAGE;
}

static bool parse_port(const char *text, uint16_t *out) {
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || value > UINT16_MAX) {
        return false;
    }
    *out = (uint16_t)value;
    return true;
}

/* "HOST:PORT", "[V6]:PORT" or "HOST"; cuts text. */
static bool parse_listen(char *text, struct ct_serve_options *out) {
    char *colon = strrchr(text, ':');
    if (text[0] == '[') {
        char *bracket = strchr(text, ']');
        if (bracket == NULL || (bracket[1] != ':' && bracket[1] != '\0')) {
            return false;
        }
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
        *bracket = '\0';
        text++;
    } else if (colon != NULL && strchr(text, ':') != colon) {
        colon = NULL; /* an IPv6 address without brackets */
    }
    if (colon != NULL) {
        if (!parse_port(colon + 1, &out->listen_port)) {
            return false;
        }
        *colon = '\0';
    }
    out->listen_host = text;
    return text[0] != '\0';
}

int ct_cmd_serve(int argc, char **argv) {
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'},
        {"http", required_argument, NULL, 'p'},
        {"mirror", required_argument, NULL, 'm'},
        {"overrule-witness", required_argument, NULL, 'w'},
        {"exit-when-done", no_argument, NULL, 'e'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct ct_serve_options serve = {.listen_host = "0.0.0.0"};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'l':
            if (!parse_listen(optarg, &serve)) {
                return fail_usage("--listen takes HOST:PORT");
            }
            break;
        case 'p':
            if (!parse_port(optarg, &serve.http_port)) {
                return fail_usage("--http takes a port");
            }
            break;
        case 'm':
            if (serve.mirror_count == CT_SERVE_MIRRORS_MAX || strlen(optarg) > 255) {
                return fail_usage("--mirror takes up to 8 URLs of at most 255 bytes");
            }
            serve.mirrors[serve.mirror_count++] = optarg;
            break;
        case 'w':
            if (serve.overruled_count == CT_POLICY_MEMBERS_MAX) {
                return fail_usage("too many --overrule-witness");
            }
            serve.overruled[serve.overruled_count++] = optarg;
            break;
        case 'e':
            serve.exit_when_done = true;
            break;
        case 'j':
            serve.json = true;
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
    serve.dir = argv[optind];
    enum ct_err err = ct_serve_run(&serve);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind serve", err);
}
