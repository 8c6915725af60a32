/* A training step as benchmarks name it: the shape of a model and how it is trained, from a
 * workload and the options that change it. */
#ifndef NODE_BENCH_TRAINING_H
#define NODE_BENCH_TRAINING_H

#include "bench.h"

#include <cotrain/engine.h>

struct ct_bench_training {
    const struct ct_workload *workload; /* what was named; options may have changed the rest */
    struct ct_model_shape shape;
    struct ct_engine_options options; /* threads: the benchmark's */
};

/* The options, for struct ct_bench, and what takes one of them: bench->user begins with a struct
 * ct_bench_training. */
extern const struct option ct_bench_training_options[];
enum ct_err ct_bench_training_take(struct ct_bench *bench, int option, const char *text);

/* Workload S under bf16-1, one leaf. */
struct ct_bench_training ct_bench_training_default(void);

#define CT_BENCH_TRAINING_USAGE                                                                    \
    "  --workload NAME  a GPT-2, context 256 (S):\n"                                               \
    "                   T: 4 layers of width 256, 4 heads, vocabulary 256, batch 8\n"              \
    "                   S: 6 layers of width 384, 6 heads, vocabulary 50257, batch 4\n"            \
    "                   M: 12 layers of width 768, 12 heads, vocabulary 50257, batch 2\n"          \
    "                   tiny: 2 layers of width 32, for tests\n"                                   \
    "  --arch NAME      gpt2, or llama: other options must then say --hidden too\n"                \
    "  --layers N  --width N  --heads N  --context N  --vocab N  --kv-heads N  --hidden N\n"       \
    "                   other sizes than the workload's; they come after --workload\n"             \
    "  --untied         a Llama with a head of its own\n"                                          \
    "  --batch N        sequences in a step\n"                                                     \
    "  --leaves N       1, 2, 4, 8 or 16 partial sums of the gradient (1)\n"                       \
    "  --micro-batch N  sequences in memory at once (chosen)\n"                                    \
    "  --recompute      activations are made again in the backward pass instead of kept\n"         \
    "  --numerics NAME  bf16-1, fp32-1 or fast (bf16-1)\n"

#endif
