/* cotrain audit merge: the reports of several auditors, each of one share of a draw, as one. */
#include "audit_report.h"

#include <cotrain/command.h>

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_BYTES_MAX (64u << 20)
#define REPORTS_MAX      1024
#define UNITS_MAX        100000000

static const char usage[] =
    "usage: cotrain audit merge REPORT.json REPORT.json… [--json]\n"
    "\n"
    "Joins reports that `cotrain audit --recompute i/n --seed S --json` wrote, of one tree and "
    "one\n"
    "seed. Whoever reads the result trusts the auditors who wrote them: nothing is recomputed "
    "here.\n"
    "\n"
    "  --json  one object of the same schema, with shares[], missing_shares[] and complete\n"
    "\n"
    "Exit status: 0 all shares are there and all holds, 1 not so, 2 wrong usage.\n";

struct merging {
    json_t *whole;    /* becomes the joined report */
    json_t *failures; /* borrowed from it */
    bool *joined;     /* [shares] */
    json_int_t shares;
    json_int_t recomputed, units, unlisted;
};

static json_int_t number(const json_t *object, const char *name) {
    return json_integer_value(json_object_get(object, name));
}

static const char *string(const json_t *object, const char *name) {
    const char *value = json_string_value(json_object_get(object, name));
    return value != NULL ? value : "";
}

/* A report of a share, as far as joining needs it. */
static enum ct_err load(const char *path, json_t **out) {
    struct ct_buf bytes;
    json_error_t error;
    ct_buf_init(&bytes, REPORT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &bytes);
    if (err != CT_OK) {
        ct_buf_deinit(&bytes);
        return err;
    }
    json_t *report =
        json_loadb((const char *)bytes.data, bytes.length, JSON_REJECT_DUPLICATES, &error);
    ct_buf_deinit(&bytes);
    const json_t *draw = json_object_get(report, "draw");
    const json_int_t share = number(draw, "share");
    const json_int_t shares = number(draw, "shares");
    if (report == NULL) {
        err = ct_fail(CT_ERR_FORMAT, "%s is no JSON: %s", path, error.text);
    } else if (strcmp(string(report, "schema"), CT_AUDIT_SCHEMA) != 0) {
        err = ct_fail(CT_ERR_FORMAT, "%s is no report of the schema " CT_AUDIT_SCHEMA, path);
    } else if (strcmp(string(draw, "kind"), "share") != 0 || share < 1 || share > shares ||
               shares > 1000000) {
        err = ct_fail(CT_ERR_FORMAT, "%s is no report of a share: --recompute i/n makes one", path);
    } else if (number(report, "units") < 0 || number(report, "units_total") > UNITS_MAX ||
               number(report, "units") > number(report, "units_total")) {
        err = ct_fail(CT_ERR_FORMAT, "%s counts units that there cannot be", path);
    } else if (!json_is_array(json_object_get(report, "failures")) ||
               !json_is_array(json_object_get(report, "nodes"))) {
        err = ct_fail(CT_ERR_FORMAT, "%s lacks failures or nodes", path);
    }
    if (err != CT_OK) {
        json_decref(report);
        return err;
    }
    *out = report;
    return CT_OK;
}

/* Both are about the same thing. */
static enum ct_err check_same(const json_t *first, const json_t *other, const char *path) {
    static const char *const members[] = {"run_id", "tree", "seed", "units_total", "narrow"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (!json_equal(json_object_get(first, members[i]), json_object_get(other, members[i]))) {
            return ct_fail(CT_ERR_FORMAT, "%s has another %s than the first report", path,
                           members[i]);
        }
    }
    return CT_OK;
}

/* A fault that every auditor saw counts once. */
static enum ct_err join_failures(struct merging *merging, const json_t *report) {
    const json_t *list = json_object_get(report, "failures");
    size_t i = 0;
    json_t *failure = NULL;
    json_array_foreach((json_t *)(uintptr_t)list, i, failure) {
        bool known = false;
        for (size_t k = 0; k < json_array_size(merging->failures) && !known; k++) {
            known = json_equal(json_array_get(merging->failures, k), failure);
        }
        if (!known && json_array_append(merging->failures, failure) != 0) {
            return ct_fail(CT_ERR_MEMORY, "no memory for failures");
        }
    }
    const json_int_t unlisted = number(report, "failure_count") - (json_int_t)json_array_size(list);
    merging->unlisted += unlisted > 0 ? unlisted : 0;
    return CT_OK;
}

static void join_nodes(struct merging *merging, const json_t *report) {
    json_t *nodes = json_object_get(merging->whole, "nodes");
    const json_t *others = json_object_get(report, "nodes");
    for (size_t i = 0; i < json_array_size(nodes) && i < json_array_size(others); i++) {
        static const char *const sums[] = {"recomputed", "mismatches"};
        json_t *node = json_array_get(nodes, i);
        for (size_t k = 0; k < 2; k++) {
            json_object_set_new(
                node, sums[k],
                json_integer(number(node, sums[k]) + number(json_array_get(others, i), sums[k])));
        }
    }
}

static enum ct_err join(struct merging *merging, json_t *report, const char *path) {
    const json_t *draw = json_object_get(report, "draw");
    const json_int_t share = number(draw, "share");
    if (merging->whole != NULL) {
        CT_TRY(check_same(merging->whole, report, path));
        if (number(draw, "shares") != merging->shares) {
            return ct_fail(CT_ERR_FORMAT, "%s is one of %lld shares, the first report one of %lld",
                           path, (long long)number(draw, "shares"), (long long)merging->shares);
        }
        if (merging->joined[share - 1]) {
            return ct_fail(CT_ERR_FORMAT, "%s is share %lld once more", path, (long long)share);
        }
        CT_TRY(join_failures(merging, report));
        join_nodes(merging, report);
    } else {
        merging->whole = json_deep_copy(report);
        merging->shares = number(draw, "shares");
        merging->joined = calloc((size_t)merging->shares, sizeof *merging->joined);
        merging->failures = json_object_get(merging->whole, "failures");
        if (merging->joined == NULL || merging->failures == NULL) {
            return ct_fail(CT_ERR_MEMORY, "no memory for a report");
        }
        const json_int_t unlisted =
            number(report, "failure_count") - (json_int_t)json_array_size(merging->failures);
        merging->unlisted = unlisted > 0 ? unlisted : 0;
    }
    merging->joined[share - 1] = true;
    merging->recomputed += number(report, "recomputed");
    merging->units += number(report, "units");
    return CT_OK;
}

static json_int_t count_kind(const json_t *failures, const char *kind) {
    json_int_t count = 0;
    for (size_t i = 0; i < json_array_size(failures); i++) {
        count += strcmp(string(json_array_get(failures, i), "kind"), kind) == 0;
    }
    return count;
}

/* The members that follow from all reports together. */
static bool conclude(struct merging *merging) {
    json_t *whole = merging->whole;
    json_t *shares = json_array();
    json_t *missing = json_array();
    json_t *chance = json_array();
    const json_int_t listed = (json_int_t)json_array_size(merging->failures);
    const json_int_t total = number(whole, "units_total");
    for (json_int_t i = 0; i < merging->shares; i++) {
        json_array_append_new(merging->joined[i] ? shares : missing, json_integer(i + 1));
    }
    for (uint32_t i = 0; i < CT_AUDIT_FRACTIONS; i++) {
        const struct ct_audit_report numbers = {.units_total = (uint32_t)total,
                                                .units = (uint32_t)merging->units};
        json_array_append_new(
            chance, json_pack("{s:f, s:f}", "fraction", ct_audit_fractions[i], "probability",
                              ct_audit_chance_of(&numbers, ct_audit_fractions[i])));
    }
    return json_object_set_new(whole, "complete", json_boolean(json_array_size(missing) == 0)) ==
               0 &&
           json_object_set_new(whole, "ok", json_boolean(listed + merging->unlisted == 0)) == 0 &&
           json_object_set_new(whole, "shares", shares) == 0 &&
           json_object_set_new(whole, "missing_shares", missing) == 0 &&
           json_object_set_new(whole, "chance", chance) == 0 &&
           json_object_set_new(whole, "recomputed", json_integer(merging->recomputed)) == 0 &&
           json_object_set_new(whole, "units", json_integer(merging->units)) == 0 &&
           json_object_set_new(whole, "failure_count", json_integer(listed + merging->unlisted)) ==
               0 &&
           json_object_set_new(whole, "mismatches",
                               json_integer(count_kind(merging->failures, "mismatch"))) == 0 &&
           json_object_set_new(whole, "unavailable",
                               json_integer(count_kind(merging->failures, "unavailable"))) == 0;
}

/* A report comes from a stranger: nothing in it commands the terminal. */
static void print_clean(const char *text) {
    for (; *text != '\0'; text++) {
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
    }
}

static void print_text(const json_t *whole) {
    const json_t *tree = json_object_get(whole, "tree");
    const json_t *missing = json_object_get(whole, "missing_shares");
    const json_t *failures = json_object_get(whole, "failures");
    const json_t *chance = json_object_get(whole, "chance");
    printf("run            ");
    print_clean(string(whole, "name"));
    printf(", ");
    print_clean(string(whole, "run_id"));
    printf("\ntree           %lld entries, root ", (long long)number(tree, "size"));
    print_clean(string(tree, "root"));
    printf("\nrecomputed     %lld contributions, %lld of %lld units, drawn with --seed ",
           (long long)number(whole, "recomputed"), (long long)number(whole, "units"),
           (long long)number(whole, "units_total"));
    print_clean(string(whole, "seed"));
    putchar('\n');
    printf("shares         %zu", json_array_size(json_object_get(whole, "shares")));
    for (size_t i = 0; i < json_array_size(missing) && i < 20; i++) {
        printf("%s %lld", i == 0 ? ", missing:" : ",",
               (long long)json_integer_value(json_array_get(missing, i)));
    }
    printf("%s\nchance         to meet cheating",
           json_array_size(missing) == 0 ? ", all of them" : "");
    for (size_t i = 0; i < json_array_size(chance); i++) {
        const json_t *item = json_array_get(chance, i);
        printf("%s in %.0f %% of the units: %.1f %%", i > 0 ? "," : "",
               100.0 * json_real_value(json_object_get(item, "fraction")),
               100.0 * json_real_value(json_object_get(item, "probability")));
    }
    const json_t *expired = json_object_get(whole, "retention");
    if (number(expired, "updates") > 0) {
        printf("\nexpired        %lld updates up to round %lld: %lld units can no longer be "
               "recomputed, and are in no draw",
               (long long)number(expired, "updates"), (long long)number(expired, "last_round"),
               (long long)number(expired, "units"));
    }
    printf("\nmismatches     %lld\nunavailable    %lld\n", (long long)number(whole, "mismatches"),
           (long long)number(whole, "unavailable"));
    for (size_t i = 0; i < json_array_size(failures); i++) {
        const json_t *failure = json_array_get(failures, i);
        printf("  ");
        print_clean(string(failure, "kind"));
        printf(": ");
        print_clean(string(failure, "file"));
        printf(": ");
        print_clean(string(failure, "reason"));
        putchar('\n');
    }
}

static enum ct_err merge(char **paths, int count, struct merging *merging) {
    for (int i = 0; i < count; i++) {
        json_t *report = NULL;
        CT_TRY(load(paths[i], &report));
        const enum ct_err err = join(merging, report, paths[i]);
        json_decref(report);
        if (err != CT_OK) {
            return err;
        }
    }
    return conclude(merging) ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for the joined report");
}

int ct_audit_merge(int argc, char **argv) {
    static const struct option known[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    struct merging merging = {0};
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h') {
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option != 'j') {
            fputs(usage, stderr);
            return CT_EXIT_USAGE;
        }
        json = true;
    }
    const int count = argc - optind;
    if (count < 1 || count > REPORTS_MAX) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    const enum ct_err err = merge(argv + optind, count, &merging);
    int status = CT_EXIT_FAILED;
    if (err != CT_OK) {
        ct_command_fail("cotrain audit merge", err);
    } else {
        if (json) {
            json_dumpf(merging.whole, stdout, JSON_INDENT(2));
            putchar('\n');
        } else {
            print_text(merging.whole);
        }
        const bool holds = json_is_true(json_object_get(merging.whole, "ok")) &&
                           json_is_true(json_object_get(merging.whole, "complete"));
        if (!json) {
            puts(holds ? "verdict        all of it holds" : "verdict        NOT all of it holds");
        }
        status = holds ? CT_EXIT_DONE : CT_EXIT_FAILED;
    }
    json_decref(merging.whole);
    free(merging.joined);
    return status;
}
