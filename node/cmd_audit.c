/* cotrain audit: checks a run without trusting anyone. */
#include "audit.h"
#include "commands.h"

#include <cotrain/command.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain audit SOURCE [--replay] [--recompute N|all] [--seed S] [--blobs DIR|URL]\n"
    "                     [--threads N] [--json]\n"
    "\n"
    "Checks a run from its ledger. SOURCE is a coordinator's run directory or its HTTP address.\n"
    "Always: every entry under the signed checkpoint, every signature, every rule of rounds, "
    "every\n"
    "digest, every file of a run directory.\n"
    "\n"
    "  --replay          also recompute every aggregation, from the first model to the last\n"
    "  --recompute N     also recompute N units of work to the bit; a unit is what one node did "
    "in\n"
    "                    one audit epoch. `all` recomputes every contribution\n"
    "  --seed S          draw the units with this number; one is drawn and printed otherwise\n"
    "  --blobs DIR|URL   look for blobs there too\n"
    "  --threads N       compute with N threads (default: all)\n"
    "  --json            print one object: ok, entries, rounds, contributions, replayed_rounds,\n"
    "                    recomputed, mismatches, unavailable, model_sha256, failures[] (entry, "
    "file,\n"
    "                    reason, kind), and run_id, origin, log_key, units, seed, spare_blobs,\n"
    "                    private[]\n"
    "\n"
    "Exit status: 0 everything that was asked for holds, 1 something does not, 2 wrong usage.\n";

struct options {
    const char *source;
    const char *blobs;
    bool json;
    bool has_seed;
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

/* CT_EXIT_DONE to go on; *help tells that all was said. */
static int parse_options(int argc, char **argv, struct options *out, bool *help) {
    static const struct option known[] = {
        {"replay", no_argument, NULL, 'r'},        {"recompute", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},    {"blobs", required_argument, NULL, 'b'},
        {"threads", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    int option = 0;
    uint64_t number = 0;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        bool valid = true;
        switch (option) {
        case 'r':
            out->audit.replay = true;
            break;
        case 'c':
            out->audit.recompute_all = strcmp(optarg, "all") == 0;
            valid = out->audit.recompute_all ||
                    (parse_number(optarg, UINT32_MAX, &number) && number > 0);
            out->audit.recompute_units = out->audit.recompute_all ? 0 : (uint32_t)number;
            break;
        case 's':
            valid = parse_number(optarg, UINT64_MAX, &out->audit.seed);
            out->has_seed = true;
            break;
        case 'b':
            out->blobs = optarg;
            break;
        case 't':
            valid = parse_number(optarg, 1024, &number) && number > 0;
            out->audit.threads = (uint32_t)number;
            break;
        case 'j':
            out->json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            *help = true;
            return CT_EXIT_DONE;
        default:
            fputs(usage, stderr);
            return CT_EXIT_USAGE;
        }
        if (!valid) {
            fprintf(stderr, "cotrain audit: '%s' is no value for that option\n%s", optarg, usage);
            return CT_EXIT_USAGE;
        }
    }
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    out->source = argv[optind];
    return CT_EXIT_DONE;
}

static void show_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    fprintf(stderr, "\r\033[K%s %" PRIu64 " of %" PRIu64 "%s", what, done, total,
            done == total ? "\n" : "");
}

static const char *kind_name(enum ct_finding_kind kind) {
    switch (kind) {
    case CT_FINDING_MISMATCH:
        return "mismatch";
    case CT_FINDING_UNAVAILABLE:
        return "unavailable";
    case CT_FINDING_BROKEN:
        break;
    }
    return "broken";
}

static uint32_t listed(const struct ct_audit_report *report) {
    return report->finding_count < CT_FINDINGS_MAX ? (uint32_t)report->finding_count
                                                   : CT_FINDINGS_MAX;
}

static json_t *json_text(const char *text) {
    json_t *value = json_string(text);
    return value != NULL ? value : json_string("(not UTF-8)");
}

static void print_json(const struct ct_audit_report *report, const struct options *options) {
    char model[CT_HEX_BYTES];
    char run_id[CT_HEX_BYTES];
    char log_key[CT_HEX_BYTES];
    ct_hash_hex(&report->model, model);
    ct_hash_hex(&report->run_id, run_id);
    ct_hash_hex(&report->log_key, log_key);
    json_t *failures = json_array();
    for (uint32_t i = 0; i < listed(report); i++) {
        const struct ct_finding *finding = &report->findings[i];
        json_array_append_new(
            failures, json_pack("{s:o, s:o, s:o, s:s}", "entry",
                                finding->entry < 0 ? json_null() : json_integer(finding->entry),
                                "file", json_text(finding->file), "reason",
                                json_text(finding->reason), "kind", kind_name(finding->kind)));
    }
    json_t *private_files = json_array();
    for (uint32_t i = 0; i < report->private_count; i++) {
        json_array_append_new(private_files, json_text(report->private_files[i]));
    }
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, options->audit.seed);
    json_t *object = json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:s, s:o, s:s, s:I, s:s, s:I, s:o}",
        "ok", report->finding_count == 0, "entries", (json_int_t)report->entries, "rounds",
        (json_int_t)report->rounds, "contributions", (json_int_t)report->contributions,
        "replayed_rounds", (json_int_t)report->replayed_rounds, "recomputed",
        (json_int_t)report->recomputed, "mismatches", (json_int_t)report->mismatches, "unavailable",
        (json_int_t)report->unavailable, "model_sha256", model, "failures", failures, "run_id",
        run_id, "origin", json_text(report->origin), "log_key", log_key, "units",
        (json_int_t)report->units, "seed", seed, "spare_blobs", (json_int_t)report->spare_count,
        "private", private_files);
    if (object != NULL) {
        json_dumpf(object, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(object);
}

static void print_text(const struct ct_audit_report *report, const struct options *options) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&report->run_id, hex);
    printf("run            %s (%.16s…)\n", report->name, hex);
    printf("log            %s\n", report->origin);
    printf("entries        %" PRIu64 ", every signature and rule checked\n", report->entries);
    printf("rounds         %u closed", report->rounds);
    if (options->audit.replay || report->replayed_rounds > 0) {
        printf(", %u replayed", report->replayed_rounds);
    }
    printf("\ncontributions  %u", report->contributions);
    if (report->units > 0) {
        printf(", %u recomputed to the bit (%u units", report->recomputed, report->units);
        if (options->audit.recompute_all) {
            printf(")");
        } else {
            printf(", drawn with --seed %" PRIu64 ")", options->audit.seed);
        }
    }
    ct_hash_hex(&report->model, hex);
    printf("\nmodel          sha256 %s%s\n", hex,
           report->replayed_rounds > 0 ? " (recomputed)" : " (as logged)");
    if (report->private_count > 0) {
        printf("not judged     %u private files of the operator (--json lists them)\n",
               report->private_count);
    }
    if (report->spare_count > 0) {
        printf("spare          %u blobs that no entry names\n", report->spare_count);
    }
    printf("mismatches     %" PRIu64 "\nunavailable    %" PRIu64 "\n", report->mismatches,
           report->unavailable);
    for (uint32_t i = 0; i < listed(report); i++) {
        const struct ct_finding *finding = &report->findings[i];
        printf("  %s: ", kind_name(finding->kind));
        if (finding->entry >= 0) {
            printf("entry %" PRId64 ", ", finding->entry);
        }
        printf("%s: %s\n", finding->file, finding->reason);
    }
    if (report->finding_count > listed(report)) {
        printf("  … and %" PRIu64 " more\n", report->finding_count - listed(report));
    }
    puts(report->finding_count == 0 ? "verdict        all that was asked for holds"
                                    : "verdict        NOT all of it holds");
}

int ct_cmd_audit(int argc, char **argv) {
    struct options options = {0};
    bool help = false;
    const int parsed = parse_options(argc, argv, &options, &help);
    if (parsed != CT_EXIT_DONE || help) {
        return parsed;
    }
    if (!options.has_seed) {
        /* 53 bits, so that every JSON reader keeps them. */
        ct_random(&options.audit.seed, sizeof options.audit.seed);
        options.audit.seed >>= 11;
    }
    if (isatty(STDERR_FILENO)) {
        options.audit.progress = show_progress;
    }
    struct ct_source *source = NULL;
    struct ct_audit_report report = {0};
    enum ct_err err = ct_source_open(options.source, options.blobs, &source);
    if (err == CT_OK) {
        err = ct_audit_run(source, &options.audit, &report);
    }
    ct_source_close(source);
    if (err != CT_OK) {
        ct_audit_report_deinit(&report);
        return ct_command_fail("cotrain audit", err);
    }
    if (options.json) {
        print_json(&report, &options);
    } else {
        print_text(&report, &options);
    }
    const int status = report.finding_count == 0 ? CT_EXIT_DONE : CT_EXIT_FAILED;
    ct_audit_report_deinit(&report);
    return status;
}
