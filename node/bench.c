#include "bench.h"

#include "option.h"

#include <cotrain/assert.h>
#include <cotrain/command.h>
#include <cotrain/isa.h>
#include <cotrain/yardstick.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OPTION_THREADS = 100, OPTION_SECONDS, OPTION_JSON, OPTION_HELP, OPTIONS_MAX = 24 };

static const struct option common_options[] = {
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
};
enum { COMMON_OPTIONS = sizeof common_options / sizeof common_options[0] };

double ct_bench_now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The processor's name for itself, as /proc/cpuinfo has it; "unknown" where it has none. */
static void cpu_name(char *out, size_t room) {
    snprintf(out, room, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL) {
        return;
    }
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL && colon[1] == ' ') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, room, "%s", colon + 2);
            break;
        }
    }
    fclose(file);
}

static enum ct_err take_common(struct ct_bench *bench, int option, const char *text) {
    switch (option) {
    case OPTION_THREADS:
        return ct_option_u32("threads", text, 0, 1024, &bench->threads);
    case OPTION_SECONDS:
        if (bench->untimed) {
            return ct_fail(CT_ERR_USAGE, "nothing is timed here: there is no --seconds");
        }
        return ct_option_double("seconds", text, 0.0, 3600.0, &bench->seconds);
    case OPTION_JSON:
        bench->json = true;
        return CT_OK;
    default:
        return bench->take(bench, option, text);
    }
}

static enum ct_err open_report(struct ct_bench *bench) {
    char cpu[256];
    cpu_name(cpu, sizeof cpu);
    bench->report = json_pack("{s:s, s:s, s:s, s:s, s:I}", "bench", bench->name, "cpu", cpu, "isa",
                              ct_isa_name(ct_isa_active()), "openblas", ct_blas_core(), "threads",
                              (json_int_t)bench->threads);
    return bench->report != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for the report");
}

/* The value without the brace at its start and, when `open`, without the one at its end. */
static enum ct_err print_object(const json_t *object, bool open) {
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the report");
    }
    printf("%.*s", (int)strlen(text) - (open ? 2 : 1), text + 1);
    free(text);
    return CT_OK;
}

/* What the report says so far, and the start of its rows. */
static enum ct_err print_head(struct ct_bench *bench) {
    putchar('{');
    CT_TRY(print_object(bench->report, true));
    puts(",\"rows\":[");
    json_object_clear(bench->report);
    return CT_OK;
}

/* The end of the rows, and what the report was told since they began. */
static enum ct_err print_foot(struct ct_bench *bench) {
    putchar(']');
    if (json_object_size(bench->report) > 0) {
        putchar(',');
    }
    CT_TRY(print_object(bench->report, false));
    putchar('\n');
    return CT_OK;
}

static enum ct_err print_json_row(struct ct_bench *bench, const json_t *row) {
    if (bench->row_before == NULL) {
        CT_TRY(print_head(bench));
    }
    fputs(bench->row_before == NULL ? "{" : ",{", stdout);
    CT_TRY(print_object(row, false));
    putchar('\n');
    fflush(stdout);
    return CT_OK;
}

/* The first column names the row. */
static void print_cell(const char *name, const json_t *value, bool first, bool head) {
    const int least = first ? 18 : 9;
    const int width = (int)strlen(name) > least ? (int)strlen(name) : least;
    if (head) {
        printf("%*s", json_is_string(value) ? -width : width, name);
    } else if (json_is_string(value)) {
        printf("%-*s", width, json_string_value(value));
    } else if (json_is_integer(value)) {
        printf("%*" JSON_INTEGER_FORMAT, width, json_integer_value(value));
    } else if (json_is_real(value)) {
        printf("%*.4g", width, json_real_value(value));
    } else {
        printf("%*s", width, "-");
    }
}

static void print_line(json_t *row, bool head) {
    const char *name;
    json_t *value;
    bool first = true;
    json_object_foreach(row, name, value) {
        fputs(first ? "" : "  ", stdout);
        print_cell(name, value, first, head);
        first = false;
    }
    putchar('\n');
    fflush(stdout);
}

enum ct_err ct_bench_row(struct ct_bench *bench, json_t *row) {
    enum ct_err err = CT_OK;
    if (row == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a row of the report");
    }
    if (bench->json) {
        err = print_json_row(bench, row);
    } else {
        const json_t *before = bench->row_before;
        if (before == NULL || json_object_size(before) != json_object_size(row)) {
            print_line(row, true);
        }
        print_line(row, false);
    }
    json_decref(bench->row_before);
    bench->row_before = row;
    return err;
}

static enum ct_err run(struct ct_bench *bench) {
    CT_TRY(ct_isa_start());
    bench->threads_given = bench->threads != 0;
    if (!bench->threads_given) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        bench->threads = online > 0 ? (uint32_t)online : 1;
    }
    CT_TRY(open_report(bench));
    if (!bench->json) {
        printf("%s on %s, %s\n", bench->name,
               json_string_value(json_object_get(bench->report, "cpu")),
               ct_isa_name(ct_isa_active()));
    }
    CT_TRY(bench->run(bench));
    return bench->json ? print_foot(bench) : CT_OK;
}

static size_t join_options(const struct option *own, struct option *out) {
    memcpy(out, common_options, sizeof common_options);
    size_t count = COMMON_OPTIONS;
    for (; own != NULL && own->name != NULL; own++) {
        CT_ASSERT(count + 1 < OPTIONS_MAX);
        out[count++] = *own;
    }
    out[count] = (struct option){NULL, 0, NULL, 0};
    return count;
}

int ct_bench_main(struct ct_bench *bench, int argc, char **argv) {
    char program[64];
    snprintf(program, sizeof program, "cotrain bench %s", bench->name);
    struct option options[OPTIONS_MAX];
    join_options(bench->options, options);
    if (bench->seconds == 0.0) {
        bench->seconds = 0.5;
    }
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            fputs(bench->usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option == '?') {
            return CT_EXIT_USAGE;
        }
        if (take_common(bench, option, optarg) != CT_OK) {
            return ct_command_fail(program, CT_ERR_USAGE);
        }
    }
    if (argc - optind != bench->arguments) {
        fprintf(stderr, "%s: takes %d arguments; %s --help tells which\n", program,
                bench->arguments, program);
        return CT_EXIT_USAGE;
    }
    bench->argument = argv + optind;
    const enum ct_err err = run(bench);
    json_decref(bench->row_before);
    json_decref(bench->report);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail(program, err);
}

enum { TURNS_MIN = 3, BEST_TURNS_MIN = 5, TURNS_MAX = 1000, RIVALS_MAX = 8, REPEATS_MAX = 1000 };

static double turns[RIVALS_MAX][TURNS_MAX]; /* seconds */

static int compare_doubles(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 == 1 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

static double smallest(const double *values, size_t count) {
    double best = values[0];
    for (size_t i = 1; i < count; i++) {
        best = values[i] < best ? values[i] : best;
    }
    return best;
}

/* Seconds of one run, the mean of `repeats`. */
static double time_runs(const struct ct_rival *rival, size_t repeats) {
    const double start = ct_bench_now_s();
    for (size_t i = 0; i < repeats; i++) {
        rival->run(rival->context);
    }
    return (ct_bench_now_s() - start) / (double)repeats;
}

/* Fills `turns` and returns how many each rival had: until `seconds` are over, and at least
 * `turns_min`. */
static size_t take_turns(const struct ct_rival *rivals, size_t count, const size_t *repeats,
                         double seconds, size_t turns_min) {
    const double end = ct_bench_now_s() + seconds;
    size_t done = 0;
    while (done < TURNS_MAX && (done < turns_min || ct_bench_now_s() < end)) {
        for (size_t i = 0; i < count; i++) {
            turns[i][done] = time_runs(&rivals[i], repeats[i]);
        }
        done++;
    }
    return done;
}

void ct_bench_race(const struct ct_rival *rivals, size_t count, double seconds,
                   double *out_median_s) {
    size_t repeats[RIVALS_MAX] = {0};
    CT_ASSERT(count > 0 && count <= RIVALS_MAX);
    for (size_t i = 0; i < count; i++) {
        rivals[i].run(rivals[i].context);
        repeats[i] = 1;
    }
    const size_t done = take_turns(rivals, count, repeats, seconds * (double)count, TURNS_MIN);
    for (size_t i = 0; i < count; i++) {
        out_median_s[i] = median(turns[i], done);
    }
}

void ct_bench_best(const struct ct_rival *rivals, size_t count, double seconds,
                   double *out_best_s) {
    static const double turn_s = 1e-3;
    size_t repeats[RIVALS_MAX] = {0};
    CT_ASSERT(count > 0 && count <= RIVALS_MAX);
    for (size_t i = 0; i < count; i++) {
        rivals[i].run(rivals[i].context);
        const double runs = turn_s / time_runs(&rivals[i], 1);
        repeats[i] = runs < 1.0 ? 1 : runs > REPEATS_MAX ? REPEATS_MAX : (size_t)runs;
    }
    const size_t done = take_turns(rivals, count, repeats, seconds, BEST_TURNS_MIN);
    for (size_t i = 0; i < count; i++) {
        out_best_s[i] = smallest(turns[i], done);
    }
}

double ct_bench_time(void (*body)(void *context), void *context, double seconds) {
    double median_s;
    ct_bench_race(&(struct ct_rival){body, context}, 1, seconds, &median_s);
    return median_s;
}

const struct ct_workload *ct_workload_find(const char *name) {
    static const struct ct_workload workloads[] = {
        {"tiny",
         {CT_ARCH_GPT2, .vocab = 61, .context = 24, .layers = 2, .heads = 2, .width = 32},
         4},
        {"T",
         {CT_ARCH_GPT2, .vocab = 256, .context = 256, .layers = 4, .heads = 4, .width = 256},
         8},
        {"S",
         {CT_ARCH_GPT2, .vocab = 50257, .context = 256, .layers = 6, .heads = 6, .width = 384},
         4},
        {"M",
         {CT_ARCH_GPT2, .vocab = 50257, .context = 256, .layers = 12, .heads = 12, .width = 768},
         2},
    };
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (strcmp(name, workloads[i].name) == 0) {
            return &workloads[i];
        }
    }
    return NULL;
}

enum ct_err ct_workload_take(const char *text, const struct ct_workload **out) {
    *out = ct_workload_find(text);
    return *out != NULL ? CT_OK : ct_fail(CT_ERR_USAGE, "--workload takes T, S, M or tiny");
}

void ct_bench_model(const struct ct_layout *layout, float *out_theta) {
    ct_bench_noise(out_theta, layout->parameters, 0.02f, 1);
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        const size_t count = (size_t)tensor->rows * tensor->columns;
        const bool bias = strcmp(strrchr(tensor->name, '.'), ".bias") == 0;
        for (size_t j = 0; tensor->kind == CT_TENSOR_VECTOR && j < count; j++) {
            out_theta[tensor->offset + j] = bias ? 0.0f : 1.0f;
        }
    }
}

void ct_bench_noise(float *out, size_t count, float deviation, uint64_t seed) {
    /* Sums of four 16-bit parts of splitmix64: deviation √(4/12) of their width. */
    const float factor = deviation * 1.7320508f / 65536.0f;
    for (size_t i = 0; i < count; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        const int32_t sum =
            (int32_t)((z & 65535) + (z >> 16 & 65535) + (z >> 32 & 65535) + (z >> 48));
        out[i] = (float)(sum - 131070) * factor;
    }
}
