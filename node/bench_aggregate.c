/* cotrain bench aggregate: a round's updates to the next model. */
#include "bench.h"

#include <cotrain/aggregate.h>

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: cotrain bench aggregate [OPTIONS]\n"
    "\n"
    "Merges the decoded updates of 3, 16 and 64 senders into a model, as coordinator, nodes and\n"
    "auditors do. It reads 3 bytes for each value that a sender sent, and reads and writes the "
    "model;\n"
    "the yardstick is the bandwidth of the memory.\n"
    "\n"
    "  --workload NAME  the model: T, S or M (S)\n" CT_BENCH_USAGE;

/* Senders beyond these repeat them: enough that no two neighbours in memory are alike. */
enum { DISTINCT = 4, SENDERS_MAX = 64 };

struct merge {
    const struct ct_workload *workload;
    struct ct_layout layout;
    struct ct_chunks chunks;
    float *base, *next;
    struct ct_update updates[DISTINCT];
    uint32_t decoded;
    struct ct_sender senders[SENDERS_MAX];
    uint32_t count;
    enum ct_err err; /* of a merge */
};

static void merge(void *context) {
    struct merge *merge = context;
    const enum ct_err err = ct_aggregate(&merge->chunks, merge->senders, merge->count, 1.0f,
                                         merge->base, merge->next, NULL);
    merge->err = err != CT_OK ? err : merge->err;
}

/* Updates as nodes make them: noise, encoded and decoded. `next` is the local model meanwhile. */
static enum ct_err draw_updates(struct merge *merge, float *residual, uint8_t *payload) {
    const struct ct_update_header header = {.steps = 30};
    const size_t count = merge->layout.parameters;
    ct_bench_noise(merge->base, count, 0.02f, 1);
    for (; merge->decoded < DISTINCT; merge->decoded++) {
        ct_bench_noise(merge->next, count, 0.001f, 2 + merge->decoded);
        for (size_t i = 0; i < count; i++) {
            merge->next[i] += merge->base[i];
        }
        memset(residual, 0, count * sizeof(float));
        size_t length;
        ct_update_encode(&merge->chunks, &header, merge->base, merge->next, residual, payload,
                         &length);
        CT_TRY(ct_update_decode(&merge->chunks, (struct ct_bytes){payload, length},
                                &merge->updates[merge->decoded]));
    }
    for (size_t i = 0; i < SENDERS_MAX; i++) {
        merge->senders[i] = (struct ct_sender){
            .update = &merge->updates[i % DISTINCT], .weight = 1 << 20, .established = true};
    }
    return CT_OK;
}

static enum ct_err prepare(struct merge *merge) {
    CT_TRY(ct_layout_init(&merge->layout, &merge->workload->shape));
    CT_TRY(ct_chunks_init(&merge->chunks, &merge->layout));
    const size_t bytes = merge->layout.parameters * sizeof(float);
    merge->base = malloc(bytes);
    merge->next = malloc(bytes);
    float *residual = malloc(bytes);
    uint8_t *payload = malloc(ct_update_bytes_max(&merge->chunks));
    const bool all =
        merge->base != NULL && merge->next != NULL && residual != NULL && payload != NULL;
    const enum ct_err err =
        all ? draw_updates(merge, residual, payload)
            : ct_fail(CT_ERR_MEMORY, "no memory for a model of %zu bytes", bytes);
    free(payload);
    free(residual);
    return err;
}

static enum ct_err measure(struct ct_bench *bench, struct merge *self) {
    static const uint32_t counts[] = {3, 16, SENDERS_MAX};
    double memory;
    CT_TRY(ct_bench_bandwidth(1, bench->seconds, &memory));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        self->count = counts[i];
        const double seconds = ct_bench_time(merge, self, bench->seconds);
        CT_TRY(self->err);
        const double sent = 3.0 * (double)self->chunks.selected_total * (double)self->count;
        const double rate = (sent + 8.0 * (double)self->layout.parameters) / seconds * 1e-9;
        CT_TRY(
            ct_bench_row(bench, json_pack("{s:s, s:s, s:I, s:I, s:i, s:f, s:f, s:f, s:f}", "op",
                                          "aggregate", "workload", self->workload->name,
                                          "parameters", (json_int_t)self->layout.parameters,
                                          "senders", (json_int_t)self->count, "threads", 1, "ms",
                                          seconds * 1e3, "gbytes_per_s", rate,
                                          "memory_gbytes_per_s", memory, "ratio", rate / memory)));
    }
    return CT_OK;
}

static enum ct_err run(struct ct_bench *bench) {
    struct merge *self = bench->user;
    enum ct_err err = prepare(self);
    if (err == CT_OK) {
        err = measure(bench, self);
    }
    for (uint32_t i = 0; i < self->decoded; i++) {
        ct_update_deinit(&self->updates[i]);
    }
    free(self->next);
    free(self->base);
    ct_chunks_deinit(&self->chunks);
    ct_layout_deinit(&self->layout);
    return err;
}

static enum ct_err take(struct ct_bench *bench, int option, const char *text) {
    (void)option;
    struct merge *self = bench->user;
    return ct_workload_take(text, &self->workload);
}

int ct_bench_aggregate(int argc, char **argv) {
    static const struct option options[] = {
        {"workload", required_argument, NULL, 1},
        {NULL, 0, NULL, 0},
    };
    struct merge self = {.workload = ct_workload_find("S")};
    struct ct_bench bench = {.name = "aggregate",
                             .usage = usage,
                             .options = options,
                             .take = take,
                             .run = run,
                             .user = &self};
    return ct_bench_main(&bench, argc, argv);
}
