/* cotrain bench plan: the memory that training takes, told before any of it is reserved. */
#include "bench.h"
#include "bench_training.h"

#include <stdio.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain bench plan [OPTIONS]\n"
    "\n"
    "The memory of a training step, term by term, before anything is reserved: what\n"
    "/usr/bin/time -v then shows for `cotrain bench step` with the same options. `cotrain train`\n"
    "holds its text as well, 4 bytes a token.\n"
    "\n" CT_BENCH_TRAINING_USAGE CT_BENCH_USAGE_UNTIMED;

struct plan {
    struct ct_bench_training training;
    double total_mib;
};

static double resident_mib(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL) {
        if (fscanf(file, "%*u %lu", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
}

static enum ct_err term(struct ct_bench *bench, const char *name, double mib, const char *what) {
    struct plan *plan = bench->user;
    plan->total_mib += mib;
    return ct_bench_row(bench,
                        json_pack("{s:s, s:f, s:s}", "term", name, "mib", mib, "what", what));
}

static double bytes_mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

/* What ct_pages_reserve takes: large arrays end on a whole huge page. */
static size_t pages(size_t bytes) {
    const size_t page = (size_t)2 << 20;
    return bytes < page ? bytes : (bytes + page - 1) / page * page;
}

static enum ct_err tell(struct ct_bench *bench, const struct ct_layout *layout) {
    struct plan *plan = bench->user;
    struct ct_engine_plan engine;
    plan->training.options.threads = bench->threads;
    CT_TRY(ct_engine_plan(layout, &plan->training.options, &engine));
    const double model = bytes_mib(pages(layout->parameters * sizeof(float)));
    CT_TRY(
        term(bench, "process", resident_mib(), "the program and its libraries, as they are now"));
    CT_TRY(term(bench, "weights", model, "binary32"));
    CT_TRY(term(bench, "gradient", model, "binary32"));
    CT_TRY(term(bench, "m", model, "AdamW's first moment"));
    CT_TRY(term(bench, "v", model, "AdamW's second moment"));
    CT_TRY(term(bench, "leaves", bytes_mib(engine.gradients), "gradients that wait to be added"));
    CT_TRY(term(bench, "activations", bytes_mib(engine.activations), "kept for the backward pass"));
    CT_TRY(term(bench, "scratch",
                bytes_mib(pages(engine.total) - engine.gradients - engine.activations),
                "of both passes, packed weights among it"));
    CT_TRY(term(bench, "threads", 1.0 + 0.5 * bench->threads, "stacks, and code not yet touched"));
    const double total = plan->total_mib;
    CT_TRY(term(bench, "total", total, "the most that is ever resident"));
    json_object_set_new(bench->report, "total_mib", json_real(total));
    json_object_set_new(bench->report, "parameters", json_integer((json_int_t)layout->parameters));
    return CT_OK;
}

static enum ct_err run(struct ct_bench *bench) {
    struct plan *plan = bench->user;
    struct ct_layout layout;
    CT_TRY(ct_layout_init(&layout, &plan->training.shape));
    const enum ct_err err = tell(bench, &layout);
    ct_layout_deinit(&layout);
    return err;
}

int ct_bench_plan(int argc, char **argv) {
    struct plan plan = {.training = ct_bench_training_default()};
    struct ct_bench bench = {.name = "plan",
                             .usage = usage,
                             .options = ct_bench_training_options,
                             .untimed = true,
                             .take = ct_bench_training_take,
                             .run = run,
                             .user = &plan};
    return ct_bench_main(&bench, argc, argv);
}
