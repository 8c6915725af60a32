#include "three_nodes_run.h"

#include "node/work.h"

#include <cotrain/aggregate.h>
#include <cotrain/fold.h>
#include <cotrain/isa.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/shapes.h"

/* What a training run needs, made in the process that does it. */
struct bench {
    const struct setting *setting;
    struct run *run;
    struct ct_layout layout;
    struct ct_chunks chunks;
    struct ct_manifest manifest;
    struct ct_windows windows;
    struct ct_engine *engine;
    const uint16_t *judged; /* the part that the loss is taken on */
    uint64_t judged_count;
    uint32_t *tokens; /* of a step */
    float *gradient;
};

static void check(enum ct_err err) {
    if (err != CT_OK) {
        fprintf(stderr, "three_nodes: %s\n", ct_err_detail());
        exit(1);
    }
}

static void *reserve(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (memory == NULL) {
        fprintf(stderr, "three_nodes: out of memory\n");
        exit(1);
    }
    return memory;
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The yardstick's model, the defaults of a run, one leaf; 100 steps of warm-up, then a cosine to a
 * tenth, over global tokens and so the same for both methods. */
static void make_manifest(struct bench *bench) {
    struct ct_manifest *manifest = &bench->manifest;
    const uint64_t step_tokens = (uint64_t)NODES * BATCH * CONTEXT;
    *manifest = (struct ct_manifest){
        .version = 1,
        .model = GPT2_SHAPE(256, CONTEXT, 4, 4, 128),
        .numerics = CT_NUMERICS_BF16_1,
        .rounds = bench->setting->rounds,
        .batch = bench->run->method == SL1 ? BATCH : NODES * BATCH,
        .leaves = 1,
        .adamw = ct_adamw_default(),
        .rate_unit = step_tokens,
        .rate_count = bench->setting->rounds * STEPS,
        .epoch_rounds = 16,
    };
    manifest->rates = reserve(manifest->rate_count, sizeof *manifest->rates);
    const uint32_t warmup = manifest->rate_count > 400 ? 100 : manifest->rate_count / 4;
    ct_rate_table(manifest->rates, manifest->rate_count, warmup, bench->run->rate,
                  bench->run->rate / 10);
}

static void open_bench(struct bench *bench, const struct setting *setting, struct run *run,
                       const struct ct_hash *seed) {
    const uint16_t *text = setting->text;
    *bench = (struct bench){.setting = setting, .run = run};
    make_manifest(bench);
    const uint64_t training = setting->text_count / 10 * 9;
    const uint64_t learned = run->tuning ? training / 10 * 9 : training;
    bench->judged = text + learned;
    bench->judged_count = (run->tuning ? training : setting->text_count) - learned;
    check(ct_isa_start());
    check(ct_layout_init(&bench->layout, &bench->manifest.model));
    check(ct_chunks_init(&bench->chunks, &bench->layout));
    check(ct_windows_init(&bench->windows, seed, text, learned, CONTEXT));
    const struct ct_engine_options engine = {.numerics = bench->manifest.numerics,
                                             .batch = bench->manifest.batch,
                                             .leaves = 1,
                                             .threads = setting->threads};
    check(ct_engine_open(&bench->layout, &engine, &bench->engine));
    bench->tokens = reserve((size_t)bench->manifest.batch * (CONTEXT + 1), sizeof *bench->tokens);
    bench->gradient = reserve(bench->layout.parameters, sizeof *bench->gradient);
}

static void close_bench(struct bench *bench) {
    ct_engine_close(bench->engine);
    ct_chunks_deinit(&bench->chunks);
    ct_layout_deinit(&bench->layout);
    free(bench->manifest.rates);
    free(bench->tokens);
    free(bench->gradient);
}

/* Mean loss over the judged part in windows of the context, one after the other. */
static double judge(struct bench *bench, const float *theta) {
    const uint64_t windows = (bench->judged_count - 1) / CONTEXT;
    double sum = 0.0;
    for (uint64_t first = 0; first < windows; first += bench->manifest.batch) {
        const uint64_t left = windows - first;
        const uint32_t count =
            left < bench->manifest.batch ? (uint32_t)left : bench->manifest.batch;
        for (uint32_t w = 0; w < count; w++) {
            for (uint32_t i = 0; i <= CONTEXT; i++) {
                bench->tokens[(size_t)w * (CONTEXT + 1) + i] =
                    bench->judged[(first + w) * CONTEXT + i];
            }
        }
        sum += ct_engine_loss(bench->engine, theta, bench->tokens, count, CONTEXT);
    }
    return sum / (double)(windows * CONTEXT);
}

static void note_points(struct bench *bench, uint32_t round, const float *theta) {
    for (uint32_t p = 0; p < POINTS; p++) {
        if (bench->setting->points[p] == round) {
            bench->run->loss[p] = judge(bench, theta);
        }
    }
}

static void train_plain(struct bench *bench, const struct ct_hash *seed) {
    struct ct_train_state state;
    check(ct_train_state_init(&state, &bench->layout, false));
    state.threads = bench->setting->threads;
    ct_layout_draw(&bench->layout, seed, state.theta);
    const uint64_t step_tokens = ROUND_TOKENS / STEPS;
    for (uint32_t step = 0; step < bench->setting->rounds * STEPS; step++) {
        float loss;
        ct_windows_read(&bench->windows, (uint64_t)step * bench->manifest.batch,
                        bench->manifest.batch, bench->tokens);
        ct_engine_gradient(bench->engine, state.theta, bench->tokens, bench->gradient, &loss);
        const float rate =
            ct_manifest_rate(&bench->manifest, step * step_tokens, step_tokens, 0, 1);
        (void)ct_adamw_step(&bench->manifest.adamw, &bench->layout, &state, bench->gradient, loss,
                            rate);
        if ((step + 1) % STEPS == 0) {
            note_points(bench, (step + 1) / STEPS, state.theta);
        }
    }
    ct_train_state_deinit(&state);
}

/* A node's place in its epochs. */
struct node {
    struct ct_train_state state;
    uint32_t epoch, index;
};

/* One node's contribution to a round. */
static void contribute(struct bench *bench, const struct ct_fold *rules, uint32_t round, uint32_t n,
                       struct node *node, const float *theta, struct ct_update *update) {
    const struct ct_work work = {
        .manifest = &bench->manifest,
        .chunks = &bench->chunks,
        .windows = &bench->windows,
        .engine = bench->engine,
        .gradient = bench->gradient,
        .site = ct_site_alone(),
    };
    if (node->index == ct_epoch_rounds(rules, n + 1, node->epoch)) {
        node->epoch++;
        node->index = 0;
    }
    const struct ct_assignment assignment = {
        .node = n + 1,
        .epoch = node->epoch,
        .index = node->index,
        .reset = node->index == 0,
        .steps = STEPS,
        .position = ((uint64_t)(round - 1) * NODES + n) * STEPS * BATCH,
    };
    static const struct ct_hash digest;
    struct ct_work_result result;
    check(ct_work_run(&work, &assignment, &digest, (round - 1) * ROUND_TOKENS, ROUND_TOKENS, theta,
                      &node->state, &result));
    check(ct_update_decode(&bench->chunks, ct_buf_bytes(&result.payload), update));
    ct_buf_deinit(&result.payload);
    node->index++;
}

static void train_sl1(struct bench *bench, const struct ct_hash *seed) {
    /* All that the rule of epochs reads of a fold. */
    struct ct_fold *rules = reserve(1, sizeof *rules);
    rules->run_seed = *seed;
    rules->manifest.epoch_rounds = bench->manifest.epoch_rounds;
    float *theta = reserve(bench->layout.parameters, sizeof *theta);
    ct_layout_draw(&bench->layout, seed, theta);
    struct node nodes[NODES] = {0};
    for (uint32_t n = 0; n < NODES; n++) {
        check(ct_train_state_init(&nodes[n].state, &bench->layout, true));
        nodes[n].state.threads = bench->setting->threads;
    }
    for (uint32_t round = 1; round <= bench->setting->rounds; round++) {
        struct ct_update updates[NODES];
        struct ct_sender senders[NODES];
        for (uint32_t n = 0; n < NODES; n++) {
            contribute(bench, rules, round, n, &nodes[n], theta, &updates[n]);
            senders[n] = (struct ct_sender){&updates[n], STEPS * BATCH * CONTEXT * 4, true};
        }
        check(ct_aggregate(&bench->chunks, senders, NODES,
                           ct_outer_rate(round, bench->setting->rounds), theta, theta, NULL));
        for (uint32_t n = 0; n < NODES; n++) {
            ct_update_deinit(&updates[n]);
        }
        note_points(bench, round, theta);
    }
    for (uint32_t n = 0; n < NODES; n++) {
        ct_train_state_deinit(&nodes[n].state);
    }
    free(theta);
    free(rules);
}

void do_run(const struct setting *setting, struct run *run) {
    const double start_s = now_s();
    const struct ct_hash seed = {{(uint8_t)run->seed, 't', 'h', 'r', 'e', 'e'}};
    struct bench bench;
    open_bench(&bench, setting, run, &seed);
    if (run->method == PLAIN) {
        train_plain(&bench, &seed);
    } else {
        train_sl1(&bench, &seed);
    }
    close_bench(&bench);
    run->seconds = now_s() - start_s;
    run->done = true;
}
