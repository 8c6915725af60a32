/* cotrain audit: checks a run without trusting anyone. */
#include "audit_pass.h"
#include "audit_report.h"
#include "commands.h"

#include <cotrain/command.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain audit SOURCE [--replay] [--recompute N|all|i/n] [--seed S]\n"
    "                     [--since CHECKPOINT_FILE] [--policy FILE]\n"
    "                     [--range A-B] [--node N] [--round R] [--mirror URL]… [--blobs DIR|URL]\n"
    "                     [--state DIR] [--fresh] [--disk GIB] [--threads N]\n"
    "                     [--json] [--html FILE] [--sqlite FILE]\n"
    "       cotrain audit merge REPORT.json REPORT.json…\n"
    "\n"
    "Checks a run from its ledger. SOURCE is a coordinator's run directory or its HTTP address.\n"
    "Always: every entry under the signed checkpoint, every signature, every rule of rounds,\n"
    "every digest, every file of a run directory.\n"
    "\n"
    "  --replay           also recompute every aggregation, from the first model to the last\n"
    "  --recompute N      also recompute N units of work to the bit, drawn at random; a unit is\n"
    "                     what one node did in one audit epoch. `all` recomputes every\n"
    "                     contribution, i/n the i-th of n shares, which `merge` joins. What it\n"
    "                     takes is told first\n"
    "  --seed S           draw with this number; one is drawn and printed otherwise. Shares of "
    "one\n"
    "                     audit have the same\n"
    "  --since FILE       a checkpoint of this log that you have from another time or place: the\n"
    "                     log must lead on from it. If it shows another history, a file that\n"
    "                     proves so is written, for `cotrain evidence` and for everybody\n"
    "  --policy FILE      the witnesses that you trust, as C2SP tlog-policy, in place of those "
    "that\n"
    "                     the run names; a quorum of them is insisted on either way, and what no\n"
    "                     quorum has cosigned yet is told\n"
    "  --range A-B        look at entries A to B alone\n"
    "  --node N           look at what node N did alone\n"
    "  --round R          look at round R alone\n"
    "  --mirror URL       another address of the same run, asked for what SOURCE lacks or has\n"
    "                     wrong; may be repeated\n"
    "  --blobs DIR|URL    look for blobs there too\n"
    "  --state DIR        keep there what was fetched and verified, and go on from it. For a URL\n"
    "                     by default below $XDG_CACHE_HOME/cotrain/audit; `none` keeps nothing\n"
    "  --fresh            verify again what an earlier audit verified\n"
    "  --disk GIB         store at most so much of what is fetched (default: half of what is "
    "free)\n"
    "  --threads N        work with N threads (default: all cores)\n"
    "  --json             print one object; node/audit_report.h has its schema, cotrain-audit-1:\n"
    "                     ok, entries, rounds, contributions, replayed_rounds, recomputed,\n"
    "                     mismatches, unavailable, model_sha256, failures[], nodes[], chance[], …\n"
    "  --html FILE        also write a page for people: one file, nothing loaded from elsewhere\n"
    "  --sqlite FILE      also write a database: nodes, rounds, contributions, checks, findings;\n"
    "                     the README has its tables and queries\n"
    "\n"
    "`mismatch` accuses an author; `unavailable` accuses nobody. Updates that have expired by the\n"
    "run's own manifest (`retention`) are neither: what cannot be recomputed for that is told,\n"
    "and is in no draw. They are looked for in a directory, and with --blobs.\n"
    "Exit status: 0 everything that was asked for holds, 1 something does not, 2 wrong usage.\n";

struct options {
    struct ct_source_options source;
    const char *mirrors[CT_FETCH_BASES_MAX];
    bool json, has_seed;
    const char *html, *sqlite;
    struct ct_audit_options audit;
};

static bool parse_number(const char *text, uint64_t maximum, uint64_t *out) {
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return errno == 0 && end != text && *end == '\0' && text[0] >= '0' && text[0] <= '9' &&
           value <= maximum;
}

/* Two numbers with `between` in the middle. */
static bool parse_pair(const char *text, char between, uint64_t maximum, uint64_t *out_first,
                       uint64_t *out_second) {
    char first[24];
    const char *middle = strchr(text, between);
    if (middle == NULL || (size_t)(middle - text) >= sizeof first) {
        return false;
    }
    snprintf(first, sizeof first, "%.*s", (int)(middle - text), text);
    return parse_number(first, maximum, out_first) && parse_number(middle + 1, maximum, out_second);
}

static bool parse_recompute(const char *text, struct ct_audit_options *out) {
    uint64_t first = 0, second = 0;
    if (strcmp(text, "all") == 0) {
        out->draw = CT_DRAW_ALL;
        return true;
    }
    if (strchr(text, '/') != NULL) {
        out->draw = CT_DRAW_SHARE;
        const bool valid =
            parse_pair(text, '/', 1000000, &first, &second) && first >= 1 && first <= second;
        out->draw_share = (uint32_t)first;
        out->draw_shares = (uint32_t)second;
        return valid;
    }
    out->draw = CT_DRAW_SOME;
    const bool valid = parse_number(text, 1u << 30, &first) && first > 0;
    out->draw_units = (uint32_t)first;
    return valid;
}

static bool parse_range(const char *text, struct ct_audit_narrow *out) {
    out->has_range = true;
    return parse_pair(text, '-', UINT64_MAX, &out->first, &out->last) && out->first <= out->last;
}

static bool parse_u32(const char *text, uint32_t maximum, uint32_t *out) {
    uint64_t number = 0;
    const bool valid = parse_number(text, maximum, &number) && number > 0;
    *out = (uint32_t)number;
    return valid;
}

static bool add_mirror(struct options *options, const char *url) {
    if (options->source.mirror_count + 1 >= CT_FETCH_BASES_MAX) {
        return false;
    }
    options->mirrors[options->source.mirror_count++] = url;
    return true;
}

static bool take_option(int option, const char *value, struct options *out) {
    uint64_t number = 0;
    switch (option) {
    case 'r':
        out->audit.replay = true;
        return true;
    case 'c':
        return parse_recompute(value, &out->audit);
    case 's':
        out->has_seed = true;
        return parse_number(value, UINT64_MAX, &out->audit.seed);
    case 'S':
        out->audit.since = value;
        return value[0] != '\0';
    case 'p':
        out->audit.policy = value;
        return value[0] != '\0';
    case 'R':
        return parse_range(value, &out->audit.narrow);
    case 'n':
        return parse_u32(value, CT_NODES_MAX, &out->audit.narrow.node);
    case 'o':
        return parse_u32(value, UINT32_MAX - 1, &out->audit.narrow.round);
    case 'm':
        return add_mirror(out, value);
    case 'b':
        out->source.blobs = value;
        return true;
    case 'd':
        out->audit.keep_default = strcmp(value, "none") != 0 && out->audit.keep_default;
        out->audit.state_dir = strcmp(value, "none") != 0 ? value : NULL;
        return value[0] != '\0';
    case 'f':
        out->audit.fresh = true;
        return true;
    case 'D':
        out->source.budget_bytes = parse_number(value, 1u << 20, &number) ? number << 30 : 0;
        return out->source.budget_bytes > 0;
    case 't':
        return parse_u32(value, 1024, &out->audit.threads);
    case 'j':
        out->json = true;
        return true;
    case 'H':
        out->html = value;
        return true;
    case 'q':
        out->sqlite = value;
        return true;
    default:
        return false;
    }
}

/* CT_EXIT_DONE to go on; *help tells that all was said. */
static int parse_options(int argc, char **argv, struct options *out, bool *help) {
    static const struct option known[] = {
        {"replay", no_argument, NULL, 'r'},
        {"recompute", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {"since", required_argument, NULL, 'S'},
        {"policy", required_argument, NULL, 'p'},
        {"range", required_argument, NULL, 'R'},
        {"node", required_argument, NULL, 'n'},
        {"round", required_argument, NULL, 'o'},
        {"mirror", required_argument, NULL, 'm'},
        {"blobs", required_argument, NULL, 'b'},
        {"state", required_argument, NULL, 'd'},
        {"fresh", no_argument, NULL, 'f'},
        {"disk", required_argument, NULL, 'D'},
        {"threads", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},
        {"html", required_argument, NULL, 'H'},
        {"sqlite", required_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h') {
            fputs(usage, stdout);
            *help = true;
            return CT_EXIT_DONE;
        }
        if (option == '?' || option == ':') {
            fputs(usage, stderr);
            return CT_EXIT_USAGE;
        }
        if (!take_option(option, optarg, out)) {
            fprintf(stderr, "cotrain audit: '%s' is no value for that option\n%s", optarg, usage);
            return CT_EXIT_USAGE;
        }
    }
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    out->source.where = argv[optind];
    out->source.mirrors = out->mirrors;
    return CT_EXIT_DONE;
}

/* A line that is written over on a terminal; elsewhere one every ten seconds, and at the end. */
struct teller {
    bool terminal;
    const char *what;
    double told;
    bool open; /* a line that has no end yet */
};

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void end_line(struct teller *teller) {
    if (teller->open) {
        fputc('\n', stderr);
        teller->open = false;
    }
}

static void show_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    struct teller *teller = user;
    const double now = seconds_now();
    const bool fresh = teller->what == NULL || strcmp(teller->what, what) != 0;
    if (fresh) {
        end_line(teller);
        teller->what = what;
        teller->told = now - (teller->terminal ? 1.0 : 0.0);
    }
    const double wait = teller->terminal ? 0.1 : 10.0;
    if (now - teller->told < wait && (done != total || !teller->terminal)) {
        return;
    }
    teller->told = now;
    fputs(teller->terminal ? "\r\033[K" : "", stderr);
    if (total > 0) {
        fprintf(stderr, "%s %" PRIu64 " of %" PRIu64, what, done, total);
    } else {
        fprintf(stderr, "%s %" PRIu64, what, done);
    }
    teller->open = true;
    if (!teller->terminal || done == total) {
        end_line(teller);
    }
    fflush(stderr);
}

static void show_cost(void *user, const struct ct_audit_report *report) {
    end_line(user);
    ct_audit_cost_text(stderr, report);
    if (report->options->draw != CT_DRAW_ALL) {
        fprintf(stderr, "seed           %" PRIu64 " (--seed draws the same units again)\n",
                report->options->seed);
    }
    fflush(stderr);
}

static enum ct_err audit(const struct options *options, struct ct_audit_report *report) {
    struct ct_source *source = NULL;
    CT_TRY(ct_source_open(&options->source, &source));
    const enum ct_err err = ct_audit_run(source, &options->audit, report);
    ct_source_close(source);
    return err;
}

static enum ct_err print(const struct options *options, const struct ct_audit_report *report) {
    if (options->html != NULL) {
        CT_TRY(ct_audit_html(options->html, report));
    }
    if (options->json) {
        return ct_audit_json(stdout, report);
    }
    ct_audit_text(stdout, report);
    return CT_OK;
}

int ct_cmd_audit(int argc, char **argv) {
    struct options options = {.audit.keep_default = true};
    struct teller teller = {.terminal = isatty(STDERR_FILENO) == 1};
    struct ct_audit_sqlite *sqlite = NULL;
    struct ct_audit_watch watch = {0};
    bool help = false;
    if (argc > 1 && strcmp(argv[1], "merge") == 0) {
        return ct_audit_merge(argc - 1, argv + 1);
    }
    const int parsed = parse_options(argc, argv, &options, &help);
    if (parsed != CT_EXIT_DONE || help) {
        return parsed;
    }
    if (!options.has_seed) {
        /* 53 bits, so that every JSON reader keeps them. */
        ct_random(&options.audit.seed, sizeof options.audit.seed);
        options.audit.seed >>= 11;
    }
    options.audit.progress = show_progress;
    options.audit.cost = show_cost;
    options.audit.progress_user = &teller;
    struct ct_audit_report *report = calloc(1, sizeof *report);
    enum ct_err err = report != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for a report");
    if (err == CT_OK && options.sqlite != NULL) {
        err = ct_audit_sqlite_open(options.sqlite, &sqlite, &watch);
        options.audit.watch = &watch;
    }
    if (err == CT_OK) {
        err = audit(&options, report);
    }
    end_line(&teller);
    if (sqlite != NULL) {
        const enum ct_err closed = ct_audit_sqlite_close(sqlite, err == CT_OK ? report : NULL);
        err = err == CT_OK ? closed : err;
    }
    if (err == CT_OK) {
        err = print(&options, report);
    }
    int status = CT_EXIT_FAILED;
    if (err != CT_OK) {
        ct_command_fail("cotrain audit", err);
    } else if (report->finding_count == 0) {
        status = CT_EXIT_DONE;
    }
    if (report != NULL) {
        ct_audit_report_deinit(report);
    }
    free(report);
    return status;
}
