#include "bench_training.h"

#include "option.h"

enum {
    OPTION_WORKLOAD = 1,
    OPTION_NUMERICS,
    OPTION_LAYERS,
    OPTION_WIDTH,
    OPTION_HEADS,
    OPTION_CONTEXT,
    OPTION_VOCAB,
    OPTION_BATCH,
    OPTION_LEAVES,
    OPTION_MICRO,
    OPTION_KV_HEADS,
    OPTION_HIDDEN,
    OPTION_ARCH,
    OPTION_UNTIED,
    OPTION_RECOMPUTE,
};

const struct option ct_bench_training_options[] = {
    {"workload", required_argument, NULL, OPTION_WORKLOAD},
    {"numerics", required_argument, NULL, OPTION_NUMERICS},
    {"layers", required_argument, NULL, OPTION_LAYERS},
    {"width", required_argument, NULL, OPTION_WIDTH},
    {"heads", required_argument, NULL, OPTION_HEADS},
    {"context", required_argument, NULL, OPTION_CONTEXT},
    {"vocab", required_argument, NULL, OPTION_VOCAB},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"leaves", required_argument, NULL, OPTION_LEAVES},
    {"micro-batch", required_argument, NULL, OPTION_MICRO},
    {"kv-heads", required_argument, NULL, OPTION_KV_HEADS},
    {"hidden", required_argument, NULL, OPTION_HIDDEN},
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"untied", no_argument, NULL, OPTION_UNTIED},
    {"recompute", no_argument, NULL, OPTION_RECOMPUTE},
    {NULL, 0, NULL, 0},
};

static void use_workload(struct ct_bench_training *training, const struct ct_workload *workload) {
    training->workload = workload;
    training->shape = workload->shape;
    training->options.batch = workload->batch;
}

struct ct_bench_training ct_bench_training_default(void) {
    struct ct_bench_training training = {
        .options = {.numerics = CT_NUMERICS_BF16_1, .leaves = 1},
    };
    use_workload(&training, ct_workload_find("S"));
    return training;
}

static enum ct_err take_number(struct ct_bench_training *training, int option, const char *text) {
    const struct {
        int option;
        uint32_t minimum, maximum;
        uint32_t *out;
    } numbers[] = {
        {OPTION_LAYERS, 1, CT_LAYERS_MAX, &training->shape.layers},
        {OPTION_WIDTH, 1, CT_WIDTH_MAX, &training->shape.width},
        {OPTION_HEADS, 1, CT_WIDTH_MAX, &training->shape.heads},
        {OPTION_CONTEXT, 1, CT_CONTEXT_MAX, &training->shape.context},
        {OPTION_VOCAB, 1, CT_VOCAB_MAX, &training->shape.vocab},
        {OPTION_BATCH, 1, 1u << 20, &training->options.batch},
        {OPTION_LEAVES, 1, 16, &training->options.leaves},
        {OPTION_MICRO, 0, 1u << 20, &training->options.micro_batch},
        {OPTION_KV_HEADS, 1, CT_WIDTH_MAX, &training->shape.kv_heads},
        {OPTION_HIDDEN, 1, CT_WIDTH_MAX, &training->shape.hidden},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].option == option) {
            const char *name = ct_bench_training_options[option - OPTION_WORKLOAD].name;
            return ct_option_u32(name, text, numbers[i].minimum, numbers[i].maximum,
                                 numbers[i].out);
        }
    }
    return ct_fail(CT_ERR_USAGE, "unknown option");
}

enum ct_err ct_bench_training_take(struct ct_bench *bench, int option, const char *text) {
    struct ct_bench_training *training = bench->user;
    const struct ct_workload *workload;
    switch (option) {
    case OPTION_WORKLOAD:
        CT_TRY(ct_workload_take(text, &workload));
        use_workload(training, workload);
        return CT_OK;
    case OPTION_NUMERICS:
        return ct_numerics_parse(text, &training->options.numerics) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--numerics takes bf16-1, fp32-1 or fast");
    case OPTION_ARCH:
        if (ct_arch_parse(text, &training->shape.arch) != CT_OK) {
            return ct_fail(CT_ERR_USAGE, "--arch takes gpt2 or llama");
        }
        training->shape.tied = true;
        return CT_OK;
    case OPTION_UNTIED:
        training->shape.tied = false;
        return CT_OK;
    case OPTION_RECOMPUTE:
        training->options.recompute = true;
        return CT_OK;
    default:
        return take_number(training, option, text);
    }
}
