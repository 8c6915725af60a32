/* What the benchmarks of `cotrain bench` share: options, clock, repeats, one form of report.
 *
 * A benchmark is a file node/bench_NAME.c with `int ct_bench_NAME(int argc, char **argv)`, listed
 * in bench.h and cmd_bench.c. It fills a struct ct_bench and calls ct_bench_main, which reads the
 * options, calls `run` and prints each row when `run` reports it: a table, or with --json one
 * object
 *
 *   {"bench": NAME, "cpu": …, "isa": …, "threads": N, …, "rows": [
 *   {…}
 *   ,{…}
 *   ], …}
 *
 * with a line for each row, so that a benchmark may be watched, and one that was stopped has left
 * what it had measured. Only a report that is whole parses.
 *
 * Every figure stands beside its yardstick, and beside that their ratio. */
#ifndef NODE_BENCH_H
#define NODE_BENCH_H

#include <cotrain/err.h>
#include <cotrain/layout.h>

#include <getopt.h>
#include <jansson.h>

struct ct_bench {
    const char *name;
    const char *usage;            /* the whole help; ends with CT_BENCH_USAGE */
    const struct option *options; /* the benchmark's own, ended by a NULL name, or NULL; their
                                     values are 1 to 99 */
    int arguments;                /* how many positional ones it takes */
    bool untimed;                 /* no --seconds; the help ends with CT_BENCH_USAGE_UNTIMED */
    enum ct_err (*take)(struct ct_bench *bench, int option, const char *text);
    enum ct_err (*run)(struct ct_bench *bench);
    void *user; /* the benchmark's own */

    /* Set by ct_bench_main before `run`. */
    uint32_t threads; /* settled: at least 1 */
    bool threads_given;
    double seconds; /* that one figure may take; preset for another default than 0.5 */
    bool json;
    char **argument; /* [arguments] */
    json_t *report;  /* the object around the rows; `run` may add fields at any time */
    json_t *row_before;
};

#define CT_BENCH_USAGE_UNTIMED                                                                     \
    "  --threads N      (all)\n"                                                                   \
    "  --json           one object, a line for each row, instead of a table\n"                     \
    "\n"                                                                                           \
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n"
#define CT_BENCH_USAGE                                                                             \
    "  --threads N      (all)\n"                                                                   \
    "  --seconds R      measuring time of one figure (0.5)\n"                                      \
    "  --json           one object, a line for each row, instead of a table\n"                     \
    "\n"                                                                                           \
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n"

/* The exit status. */
int ct_bench_main(struct ct_bench *bench, int argc, char **argv);

/* Adds a row and takes the reference; NULL (no memory in json_pack) ends as an error of the whole
 * benchmark. Rows of one table have the same fields in the same order. A row is on its way to the
 * reader when this returns. */
CT_MUST_CHECK enum ct_err ct_bench_row(struct ct_bench *bench, json_t *row);

/* Monotonic. */
double ct_bench_now_s(void);

/* Rivals take turns, A B A B …, until `seconds` are over and each had at least three: so what else
 * the machine does meets all alike. out_median_s[count] are the medians of a turn's seconds. The
 * first turns, which pay for cold caches and pages, do not count. At most 8 rivals. */
struct ct_rival {
    void (*run)(void *context);
    void *context;
};
void ct_bench_race(const struct ct_rival *rivals, size_t count, double seconds,
                   double *out_median_s);
/* The same for kernels: `seconds` are those of all rivals together, each has at least five turns,
 * and what counts is the best of them, as the kernel runs when nothing else happens on the machine.
 * Runs of less than a millisecond are repeated within a turn, whose mean is then taken. */
void ct_bench_best(const struct ct_rival *rivals, size_t count, double seconds, double *out_best_s);
/* One rival alone, by the median. */
double ct_bench_time(void (*run)(void *context), void *context, double seconds);

/* The machine's own limits with `threads` threads, measured now, the best of several repeats. */
struct ct_bench_peaks {
    double fp32_gflops;
    double bf16_gflops; /* that of fp32 where there is no pair step */
};
struct ct_bench_peaks ct_bench_peaks(uint32_t threads, double seconds);
/* The better of reading and a triad, beyond the caches, in 10^9 bytes a second. Takes 192 MiB
 * meanwhile. */
CT_MUST_CHECK enum ct_err ct_bench_bandwidth(uint32_t threads, double seconds, double *out);
/* The same over the caller's arrays of `count` floats, 64-byte aligned; out is overwritten. What
 * fits into a cache can be above the memory's. */
double ct_bench_bandwidth_over(uint32_t threads, double seconds, const float *a, const float *b,
                               float *out, size_t count);

/* The most memory that this process has had. */
double ct_bench_peak_rss_mib(void);

/* The workloads of the benchmarks: GPT-2 of three sizes. */
struct ct_workload {
    const char *name; /* T, S, M; tiny, for tests */
    struct ct_model_shape shape;
    uint32_t batch;
};
/* NULL for another name. */
const struct ct_workload *ct_workload_find(const char *name);
/* The value of --workload; CT_ERR_USAGE. */
CT_MUST_CHECK enum ct_err ct_workload_take(const char *text, const struct ct_workload **out);

/* A first model that is quick to make: gains 1, biases 0, the rest noise of deviation 0.02. */
void ct_bench_model(const struct ct_layout *layout, float *out_theta);

/* About normal values of deviation `deviation`, a function of the seed. */
void ct_bench_noise(float *out, size_t count, float deviation, uint64_t seed);

int ct_bench_aggregate(int argc, char **argv);
int ct_bench_codec(int argc, char **argv);
int ct_bench_gradients(int argc, char **argv);
int ct_bench_kernels(int argc, char **argv);
int ct_bench_plan(int argc, char **argv);
int ct_bench_step(int argc, char **argv);
int ct_bench_ledger(int argc, char **argv);

#endif
