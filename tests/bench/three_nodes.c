/* What a run costs in loss: three nodes under SL1 against plain AdamW in one process, with the same
 * tokens in all and the same global batch. The nodes are simulated one after the other with the
 * functions that a run uses: ct_work_run, ct_update_decode, ct_aggregate, epochs, ramps and rates.
 *
 * Both learning rates are tuned on a validation part, the last tenth of the training part; the
 * compared runs train on the whole training part, the first nine tenths of the text, and are judged
 * on the rest, which nothing before has seen. */
#include "three_nodes_run.h"

#include <cotrain/buf.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT_BYTES_MAX (64u << 20)
#define RATES_MAX      16u
#define SEEDS_MAX      16u
#define JOBS_MAX       64u

static const char *const method_names[] = {"plain", "sl1"};

struct options {
    struct setting setting;
    const char *path;    /* of the text */
    const char *results; /* finished runs are kept here; NULL: nowhere */
    uint32_t seeds, jobs;
    uint32_t rate_counts[2];
    double rates[2][RATES_MAX];
    bool json;
};

/* The results file: a line a run, read back so that a broken-off bench goes on where it was. */

static void print_line(FILE *file, const struct options *options, const struct run *run) {
    fprintf(file, "%s %s text %llu rate %.9g seed %u rounds %u nats %.6f %.6f %.6f seconds %.1f\n",
            method_names[run->method], run->tuning ? "validation" : "test",
            (unsigned long long)options->setting.text_count, run->rate, run->seed,
            options->setting.rounds, run->loss[0], run->loss[1], run->loss[2], run->seconds);
}

static void recall(const struct options *options, struct run *run) {
    FILE *file = options->results != NULL ? fopen(options->results, "r") : NULL;
    if (file == NULL) {
        return;
    }
    char line[256];
    char key[128];
    snprintf(key, sizeof key, "%s %s text %llu rate %.9g seed %u rounds %u nats ",
             method_names[run->method], run->tuning ? "validation" : "test",
             (unsigned long long)options->setting.text_count, run->rate, run->seed,
             options->setting.rounds);
    while (fgets(line, sizeof line, file) != NULL) {
        run->done =
            run->done || (strncmp(line, key, strlen(key)) == 0 &&
                          sscanf(line + strlen(key), "%lf %lf %lf seconds %lf", &run->loss[0],
                                 &run->loss[1], &run->loss[2], &run->seconds) == 4);
    }
    fclose(file);
}

static void remember(const struct options *options, const struct run *run) {
    if (!options->json) {
        print_line(stdout, options, run);
        fflush(stdout);
    } else {
        print_line(stderr, options, run);
    }
    FILE *file = options->results != NULL ? fopen(options->results, "a") : NULL;
    if (file != NULL) {
        print_line(file, options, run);
        fclose(file);
    }
}

struct job {
    pid_t pid;
    int pipe;
    struct run *run;
};

/* A run in a child of its own, so that runs can go side by side; its result comes by a pipe. */
static void start_job(struct job *job, const struct options *options, struct run *run) {
    int ends[2];
    if (pipe(ends) != 0 || (job->pid = fork()) < 0) {
        fprintf(stderr, "three_nodes: no process for a run: %s\n", strerror(errno));
        exit(1);
    }
    if (job->pid == 0) {
        do_run(&options->setting, run);
        const bool told = write(ends[1], run, sizeof *run) == (ssize_t)sizeof *run;
        _exit(told ? 0 : 1);
    }
    close(ends[1]);
    job->pipe = ends[0];
    job->run = run;
}

static void finish_job(struct job *jobs, uint32_t count, const struct options *options) {
    int status = 0;
    const pid_t pid = wait(&status);
    for (uint32_t j = 0; j < count; j++) {
        if (jobs[j].run != NULL && jobs[j].pid == pid) {
            if (status != 0 || read(jobs[j].pipe, jobs[j].run, sizeof *jobs[j].run) !=
                                   (ssize_t)sizeof *jobs[j].run) {
                fprintf(stderr, "three_nodes: a run failed\n");
                exit(1);
            }
            close(jobs[j].pipe);
            remember(options, jobs[j].run);
            jobs[j].run = NULL;
        }
    }
}

static void do_runs(const struct options *options, struct run *runs, uint32_t count) {
    struct job jobs[JOBS_MAX] = {0};
    uint32_t busy = 0;
    for (uint32_t i = 0; i < count; i++) {
        recall(options, &runs[i]);
        if (runs[i].done) {
            continue;
        }
        while (busy == options->jobs) {
            finish_job(jobs, options->jobs, options);
            busy--;
        }
        uint32_t j = 0;
        while (jobs[j].run != NULL) {
            j++;
        }
        start_job(&jobs[j], options, &runs[i]);
        busy++;
    }
    for (; busy > 0; busy--) {
        finish_job(jobs, options->jobs, options);
    }
}

/* The rate with the least validation loss at the end; a warning when it is the grid's edge. */
static double best_rate(const struct options *options, const struct run *runs, enum method method) {
    const uint32_t count = options->rate_counts[method];
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        best = runs[i].loss[POINTS - 1] < runs[best].loss[POINTS - 1] ? i : best;
    }
    if (count > 1 && (best == 0 || best == count - 1)) {
        fprintf(stderr, "three_nodes: the best %s rate %g is the first or last tried: widen them\n",
                method_names[method], runs[best].rate);
    }
    return runs[best].rate;
}

static double gap_percent(const struct run *plain, const struct run *sl1, uint32_t point) {
    return 100.0 * (sl1->loss[point] / plain->loss[point] - 1.0);
}

static double mean_gap(const struct options *options, const struct run *finals, uint32_t point) {
    double sum = 0.0;
    for (uint32_t s = 0; s < options->seeds; s++) {
        sum += gap_percent(&finals[2 * s], &finals[2 * s + 1], point);
    }
    return sum / options->seeds;
}

static void print_text(const struct options *options, const struct run *finals) {
    printf("\n%u nodes, H = %u, %u tokens per node-step, %u rounds, %.2f M tokens in all\n", NODES,
           STEPS, BATCH * CONTEXT, options->setting.rounds,
           1e-6 * (double)(ROUND_TOKENS * options->setting.rounds));
    printf("rates chosen on the validation part: plain %g, SL1 %g\n", finals[0].rate,
           finals[1].rate);
    printf("%-6s %6s %12s %12s %8s\n", "seed", "round", "plain", "SL1", "gap");
    for (uint32_t s = 0; s < options->seeds; s++) {
        for (uint32_t p = 0; p < POINTS; p++) {
            printf("%-6u %6u %12.4f %12.4f %+7.2f%%\n", finals[2 * s].seed,
                   options->setting.points[p], finals[2 * s].loss[p], finals[2 * s + 1].loss[p],
                   gap_percent(&finals[2 * s], &finals[2 * s + 1], p));
        }
    }
    for (uint32_t p = 0; p < POINTS; p++) {
        printf("%-6s %6u %34.2f%%\n", "mean", options->setting.points[p],
               mean_gap(options, finals, p));
    }
}

static void print_json(const struct options *options, const struct run *tuning,
                       const struct run *finals) {
    printf("{\"nodes\": %u, \"steps\": %u, \"tokens_per_node_step\": %u, \"rounds\": %u, ", NODES,
           STEPS, BATCH * CONTEXT, options->setting.rounds);
    printf("\"tokens\": %llu, \"tuning\": [",
           (unsigned long long)(ROUND_TOKENS * options->setting.rounds));
    const uint32_t tuned = options->rate_counts[PLAIN] + options->rate_counts[SL1];
    for (uint32_t i = 0; i < tuned; i++) {
        printf("%s{\"method\": \"%s\", \"rate\": %g, \"validation_nats_per_byte\": %.6f}",
               i > 0 ? ", " : "", method_names[tuning[i].method], tuning[i].rate,
               tuning[i].loss[POINTS - 1]);
    }
    printf("], \"plain_rate\": %g, \"sl1_rate\": %g, \"seeds\": [", finals[0].rate, finals[1].rate);
    for (uint32_t s = 0; s < options->seeds; s++) {
        for (uint32_t p = 0; p < POINTS; p++) {
            printf("%s{\"seed\": %u, \"round\": %u, \"plain_nats_per_byte\": %.6f, "
                   "\"sl1_nats_per_byte\": %.6f, \"gap_percent\": %.3f}",
                   s + p > 0 ? ", " : "", finals[2 * s].seed, options->setting.points[p],
                   finals[2 * s].loss[p], finals[2 * s + 1].loss[p],
                   gap_percent(&finals[2 * s], &finals[2 * s + 1], p));
        }
    }
    printf("], \"mean\": [");
    for (uint32_t p = 0; p < POINTS; p++) {
        printf("%s{\"round\": %u, \"gap_percent\": %.3f}", p > 0 ? ", " : "",
               options->setting.points[p], mean_gap(options, finals, p));
    }
    printf("], \"gap_percent\": %.3f}\n", mean_gap(options, finals, POINTS - 1));
}

static void bench_all(const struct options *options) {
    struct run tuning[2 * RATES_MAX] = {0};
    struct run finals[2 * SEEDS_MAX] = {0};
    uint32_t tuned = 0;
    for (uint32_t method = PLAIN; method <= SL1; method++) {
        for (uint32_t i = 0; i < options->rate_counts[method]; i++) {
            tuning[tuned++] = (struct run){
                .method = (enum method)method, .tuning = true, .rate = options->rates[method][i]};
        }
    }
    /* One rate alone needs no tuning. */
    if (tuned > 2) {
        do_runs(options, tuning, tuned);
    }
    const double plain_rate = best_rate(options, tuning, PLAIN);
    const double sl1_rate = best_rate(options, tuning + options->rate_counts[PLAIN], SL1);
    for (uint32_t s = 0; s < options->seeds; s++) {
        finals[2 * s] = (struct run){.method = PLAIN, .rate = plain_rate, .seed = s + 1};
        finals[2 * s + 1] = (struct run){.method = SL1, .rate = sl1_rate, .seed = s + 1};
    }
    do_runs(options, finals, 2 * options->seeds);
    if (options->json) {
        print_json(options, tuning, finals);
    } else {
        print_text(options, finals);
    }
}

static uint16_t *read_text(const char *path, uint64_t *out_count) {
    struct ct_buf buf;
    ct_buf_init(&buf, TEXT_BYTES_MAX);
    if (ct_file_read(path, &buf) != CT_OK) {
        fprintf(stderr, "three_nodes: %s\n", ct_err_detail());
        exit(1);
    }
    if (buf.length < 100000) {
        fprintf(stderr, "three_nodes: %s has %zu bytes; a hundred thousand are the least\n", path,
                buf.length);
        exit(1);
    }
    uint16_t *text = calloc(buf.length, sizeof *text);
    if (text == NULL) {
        fprintf(stderr, "three_nodes: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < buf.length; i++) {
        text[i] = buf.data[i];
    }
    *out_count = buf.length;
    ct_buf_deinit(&buf);
    return text;
}

static void usage(FILE *file) {
    fprintf(file, "usage: three_nodes [options] TEXT\n"
                  "Three nodes under SL1 against plain AdamW, same tokens and global batch.\n"
                  "  --rounds N         rounds of a run (200)\n"
                  "  --seeds N          compared runs of each (3)\n"
                  "  --plain-rates A,B  learning rates to try for plain AdamW\n"
                  "  --sl1-rates A,B    learning rates to try for SL1\n"
                  "  --threads N        threads of a run (1)\n"
                  "  --jobs N           runs side by side (the cores by the threads)\n"
                  "  --results FILE     keep finished runs in FILE and do not repeat them\n"
                  "  --json             one object at the end, progress on standard error\n");
}

static bool parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *out) {
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    *out = (uint32_t)value;
    return *text != '\0' && *end == '\0' && value >= least && value <= most;
}

static bool parse_rates(const char *text, double *rates, uint32_t *out_count) {
    char *end;
    for (*out_count = 0; *out_count < RATES_MAX; text = end + 1) {
        const double rate = strtod(text, &end);
        if (end == text || !(rate > 0.0 && rate < 1.0) || (*end != ',' && *end != '\0')) {
            return false;
        }
        rates[(*out_count)++] = rate;
        if (*end == '\0') {
            return true;
        }
    }
    return false;
}

static bool parse(int argc, char **argv, struct options *options) {
    static const struct option names[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seeds", required_argument, NULL, 's'},
        {"plain-rates", required_argument, NULL, 'p'},
        {"sl1-rates", required_argument, NULL, 'l'},
        {"threads", required_argument, NULL, 't'},
        {"jobs", required_argument, NULL, 'j'},
        {"results", required_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool good = true;
    int letter;
    while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (letter) {
        case 'r':
            good = good && parse_number(optarg, 4, 4000, &options->setting.rounds);
            break;
        case 's':
            good = good && parse_number(optarg, 1, SEEDS_MAX, &options->seeds);
            break;
        case 'p':
            good = good && parse_rates(optarg, options->rates[PLAIN], &options->rate_counts[PLAIN]);
            break;
        case 'l':
            good = good && parse_rates(optarg, options->rates[SL1], &options->rate_counts[SL1]);
            break;
        case 't':
            good = good && parse_number(optarg, 1, 256, &options->setting.threads);
            break;
        case 'j':
            good = good && parse_number(optarg, 1, JOBS_MAX, &options->jobs);
            break;
        case 'f':
            options->results = optarg;
            break;
        case 'o':
            options->json = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            good = false;
        }
    }
    options->path = optind + 1 == argc ? argv[optind] : NULL;
    return good && options->path != NULL;
}

int main(int argc, char **argv) {
    struct options options = {
        .setting = {.rounds = 200, .threads = 1},
        .seeds = 3,
        .rate_counts = {5, 5},
        .rates = {{1.3e-3, 2e-3, 3e-3, 4.5e-3, 6.7e-3}, {1.3e-3, 2e-3, 3e-3, 4.5e-3, 6.7e-3}},
    };
    if (!parse(argc, argv, &options)) {
        usage(stderr);
        return 2;
    }
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (options.jobs == 0) {
        const long jobs = cores / (long)options.setting.threads;
        options.jobs = jobs < 1 ? 1 : (jobs < (long)JOBS_MAX ? (uint32_t)jobs : JOBS_MAX);
    }
    options.setting.points[0] = options.setting.rounds / 4;
    options.setting.points[1] = options.setting.rounds / 2;
    options.setting.points[2] = options.setting.rounds;
    uint16_t *text = read_text(options.path, &options.setting.text_count);
    options.setting.text = text;
    bench_all(&options);
    free(text);
    return 0;
}
