/* cotrain train: the same training as in a run, alone. */
#include "commands.h"
#include "option.h"
#include "solo.h"

#include <cotrain/command.h>
#include <cotrain/crypto.h>
#include <cotrain/fold.h>
#include <cotrain/isa.h>
#include <cotrain/model_dir.h>

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain train (--data DIR | --text FILE) [OPTIONS]\n"
    "\n"
    "Trains a GPT-2 or Llama on this machine alone, from scratch or from a model. FILE is taken as "
    "bytes: the first "
    "nine\n"
    "tenths to train, the last tenth held out.\n"
    "\n"
    "  --data DIR         a data set made by cotrain data build\n"
    "  --text FILE        one text file\n"
    "  --from DIR         goes on from this model (config.json, model.safetensors), whose shape "
    "it\n"
    "                     has; of a Llama --context may be shorter\n"
    "  --layers N         (4)      --heads N    (4)\n"
    "  --width N          (128)    --context N  (64)\n"
    "  --arch NAME        gpt2 or llama (gpt2). A Llama has also:\n"
    "    --kv-heads N     heads of keys and values (as --heads)\n"
    "    --hidden N       width of the MLP (8/3 of the width, in eights)\n"
    "    --tied-head      the head is the token embedding\n"
    "    --norm-epsilon R (0.00001)   --rope-theta R (10000)\n"
    "  --batch N          sequences in a step (12)\n"
    "  --leaves N         1, 2, 4, 8 or 16 partial sums of the gradient (1)\n"
    "  --micro-batch N    sequences in memory at once; changes no bit (chosen)\n"
    "  --steps N          (2000)\n"
    "  --rate R           peak of the learning rate (0.003)\n"
    "  --floor R          where its cosine ends (a tenth of the peak)\n"
    "  --warmup-steps N   (100, at most a tenth of the steps)\n"
    "  --numerics NAME    bf16-1, fp32-1, or fast, which promises no bits (bf16-1)\n"
    "  --threads N        (all); changes no bit\n"
    "  --seed N           draws the first model and the order of the text (1)\n"
    "  --eval-every N     steps between measurements on held-out text, 0 for none (a tenth)\n"
    "  --out DIR          writes the model there: config.json, model.safetensors\n"
    "  --json             one object per report, the last with the results\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

struct command {
    struct ct_solo_options solo;
    const char *out;
    bool json, terminal;
    bool shape_given, context_given;
    uint32_t report_every;
};

static double mebibytes(uint64_t bytes) {
    return (double)bytes / 1048576.0;
}

static double peak_rss_mib(void) {
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
    return (double)usage_now.ru_maxrss / 1024.0;
}

static void print_json(json_t *object) {
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    fflush(stdout);
    json_decref(object);
}

static void started(void *user, const struct ct_solo_start *start) {
    const struct command *command = user;
    const struct ct_model_shape *shape = &start->layout->shape;
    const struct ct_engine_plan *plan = &start->plan;
    const char *numerics = ct_numerics_name(command->solo.engine.numerics);
    if (command->json) {
        print_json(json_pack("{s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "report", "plan",
                             "parameters", (json_int_t)start->layout->parameters, "numerics",
                             numerics, "isa", ct_isa_name(ct_isa_active()), "activation_bytes",
                             (json_int_t)plan->activations, "leaf_gradient_bytes",
                             (json_int_t)plan->gradients, "scratch_bytes",
                             (json_int_t)plan->scratch, "training_state_bytes",
                             (json_int_t)start->training_state_bytes, "total_bytes",
                             (json_int_t)(plan->total + start->training_state_bytes)));
        return;
    }
    printf("model     %s, %u layers x %u, %u heads, context %u, vocabulary %u: %.2f M parameters\n",
           ct_arch_name(shape->arch), shape->layers, shape->width, shape->heads, shape->context,
           shape->vocab, (double)start->layout->parameters / 1e6);
    printf("text      %" PRIu64 " tokens to train, %" PRIu64 " held out\n", start->train_tokens,
           start->heldout_tokens);
    printf("numerics  %s on %s\n", numerics,
           command->solo.engine.numerics == CT_NUMERICS_FAST ? "OpenBLAS"
                                                             : ct_isa_name(ct_isa_active()));
    if (start->ranks > 1) {
        printf("site      %u ranks share each step\n", start->ranks);
    }
    printf("memory    %.1f MiB%s: weights, gradient and optimizer %.1f, activations %.1f, scratch "
           "%.1f, leaves %.1f\n",
           mebibytes(plan->total + start->training_state_bytes), start->ranks > 1 ? " each" : "",
           mebibytes(start->training_state_bytes), mebibytes(plan->activations),
           mebibytes(plan->scratch), mebibytes(plan->gradients));
    fflush(stdout);
}

static void step_json(const struct ct_solo_step *step) {
    json_t *object =
        json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "report", "step", "step",
                  (json_int_t)step->step, "loss", (double)step->loss, "rate", (double)step->rate,
                  "gradient_norm", step->gradient_norm, "tokens_per_s", step->tokens_per_s);
    if (!isnan(step->heldout)) {
        json_object_set_new(object, "heldout_nats_per_byte", json_real(step->heldout));
    }
    print_json(object);
}

/* A line that stays for every report, one that is overwritten for the steps between on a terminal.
 */
static void stepped(void *user, const struct ct_solo_step *step) {
    const struct command *command = user;
    const bool report = !isnan(step->heldout) || step->step == 1 ||
                        step->step % command->report_every == 0 || step->step == step->steps;
    if (command->json) {
        if (report) {
            step_json(step);
        }
        return;
    }
    if (!report && !command->terminal) {
        return;
    }
    char heldout[32] = "";
    if (!isnan(step->heldout)) {
        snprintf(heldout, sizeof heldout, "  held out %.4f", step->heldout);
    }
    const unsigned left = (unsigned)(step->left_s + 0.5);
    printf("%sstep %*u/%u  loss %.4f%s  %.0f tokens/s  %u:%02u left%s",
           command->terminal ? "\r" : "", 5, step->step, step->steps, (double)step->loss, heldout,
           step->tokens_per_s, left / 60, left % 60, command->terminal ? "\033[K" : "");
    if (report) {
        putchar('\n');
    }
    fflush(stdout);
}

static enum ct_err ended(void *user, const struct ct_solo_end *end) {
    const struct command *command = user;
    if (command->out != NULL) {
        CT_TRY(ct_model_save(command->out, end->layout, end->theta));
    }
    const struct ct_hash digest = ct_model_digest(end->layout, end->theta);
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&digest, hex);
    if (command->json) {
        print_json(json_pack("{s:s, s:f, s:I, s:f, s:f, s:s, s:I}", "report", "done",
                             "heldout_nats_per_byte", end->heldout, "tokens",
                             (json_int_t)end->tokens, "tokens_per_s", end->tokens_per_s,
                             "peak_rss_mib", peak_rss_mib(), "model_sha256", hex, "skipped_steps",
                             (json_int_t)end->skipped_steps));
        return CT_OK;
    }
    printf("done      held out %.4f nats per byte, %" PRIu64
           " tokens at %.0f tokens/s, %.0f MiB at "
           "most\n",
           end->heldout, end->tokens, end->tokens_per_s, peak_rss_mib());
    printf("model     sha256 %s%s%s\n", hex, command->out != NULL ? " in " : "",
           command->out != NULL ? command->out : "");
    return CT_OK;
}

enum {
    OPTION_DATA = 256,
    OPTION_TEXT,
    OPTION_FROM,
    OPTION_LAYERS,
    OPTION_HEADS,
    OPTION_WIDTH,
    OPTION_CONTEXT,
    OPTION_ARCH,
    OPTION_KV_HEADS,
    OPTION_HIDDEN,
    OPTION_TIED,
    OPTION_EPSILON,
    OPTION_THETA,
    OPTION_BATCH,
    OPTION_LEAVES,
    OPTION_MICRO,
    OPTION_STEPS,
    OPTION_RATE,
    OPTION_FLOOR,
    OPTION_WARMUP,
    OPTION_NUMERICS,
    OPTION_THREADS,
    OPTION_SEED,
    OPTION_EVAL,
    OPTION_OUT,
    OPTION_JSON,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"data", required_argument, NULL, OPTION_DATA},
    {"text", required_argument, NULL, OPTION_TEXT},
    {"from", required_argument, NULL, OPTION_FROM},
    {"layers", required_argument, NULL, OPTION_LAYERS},
    {"heads", required_argument, NULL, OPTION_HEADS},
    {"width", required_argument, NULL, OPTION_WIDTH},
    {"context", required_argument, NULL, OPTION_CONTEXT},
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"kv-heads", required_argument, NULL, OPTION_KV_HEADS},
    {"hidden", required_argument, NULL, OPTION_HIDDEN},
    {"tied-head", no_argument, NULL, OPTION_TIED},
    {"norm-epsilon", required_argument, NULL, OPTION_EPSILON},
    {"rope-theta", required_argument, NULL, OPTION_THETA},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"leaves", required_argument, NULL, OPTION_LEAVES},
    {"micro-batch", required_argument, NULL, OPTION_MICRO},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"floor", required_argument, NULL, OPTION_FLOOR},
    {"warmup-steps", required_argument, NULL, OPTION_WARMUP},
    {"numerics", required_argument, NULL, OPTION_NUMERICS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"eval-every", required_argument, NULL, OPTION_EVAL},
    {"out", required_argument, NULL, OPTION_OUT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static const char *option_name(int option) {
    return long_options[option - OPTION_DATA].name;
}

/* Options that are one whole number. */
static enum ct_err take_number(struct ct_solo_options *solo, int option, const char *text) {
    const struct {
        int option;
        uint32_t minimum, maximum;
        uint32_t *out;
    } numbers[] = {
        {OPTION_LAYERS, 1, CT_LAYERS_MAX, &solo->shape.layers},
        {OPTION_HEADS, 1, CT_WIDTH_MAX, &solo->shape.heads},
        {OPTION_WIDTH, 1, CT_WIDTH_MAX, &solo->shape.width},
        {OPTION_CONTEXT, 1, CT_CONTEXT_MAX, &solo->shape.context},
        {OPTION_KV_HEADS, 1, CT_WIDTH_MAX, &solo->shape.kv_heads},
        {OPTION_HIDDEN, 1, CT_HIDDEN_MAX, &solo->shape.hidden},
        {OPTION_BATCH, 1, 1u << 20, &solo->engine.batch},
        {OPTION_LEAVES, 1, 16, &solo->engine.leaves},
        {OPTION_MICRO, 0, 1u << 20, &solo->engine.micro_batch},
        {OPTION_STEPS, 1, 1u << 24, &solo->steps},
        {OPTION_WARMUP, 0, 1u << 24, &solo->warmup_steps},
        {OPTION_THREADS, 0, 1024, &solo->engine.threads},
        {OPTION_EVAL, 0, 1u << 24, &solo->eval_every},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].option == option) {
            return ct_option_u32(option_name(option), text, numbers[i].minimum, numbers[i].maximum,
                                 numbers[i].out);
        }
    }
    return ct_fail(CT_ERR_USAGE, "unknown option");
}

static enum ct_err take_float(int option, const char *text, float minimum, float maximum,
                              float *out) {
    double value;
    CT_TRY(ct_option_double(option_name(option), text, (double)minimum, (double)maximum, &value));
    *out = (float)value;
    return CT_OK;
}

static enum ct_err take_option(struct command *command, int option, const char *text) {
    struct ct_solo_options *solo = &command->solo;
    command->context_given |= option == OPTION_CONTEXT;
    command->shape_given |=
        option >= OPTION_LAYERS && option <= OPTION_THETA && option != OPTION_CONTEXT;
    switch (option) {
    case OPTION_DATA:
        solo->source.data_dir = text;
        return CT_OK;
    case OPTION_TEXT:
        solo->source.text_path = text;
        return CT_OK;
    case OPTION_OUT:
        command->out = text;
        return CT_OK;
    case OPTION_JSON:
        command->json = true;
        return CT_OK;
    case OPTION_FROM:
        solo->from = text;
        return CT_OK;
    case OPTION_ARCH:
        return ct_arch_parse(text, &solo->shape.arch) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--arch takes gpt2 or llama");
    case OPTION_TIED:
        solo->shape.tied = true;
        return CT_OK;
    case OPTION_EPSILON:
        return take_float(option, text, CT_NORM_EPSILON_MIN, CT_NORM_EPSILON_MAX,
                          &solo->shape.norm_epsilon);
    case OPTION_THETA:
        return take_float(option, text, CT_ROPE_THETA_MIN, CT_ROPE_THETA_MAX,
                          &solo->shape.rope_theta);
    case OPTION_RATE:
        return ct_option_double("rate", text, 0.0, 10.0, &solo->peak);
    case OPTION_FLOOR:
        return ct_option_double("floor", text, 0.0, 10.0, &solo->floor);
    case OPTION_SEED:
        return ct_option_u64("seed", text, 0, UINT64_MAX, &solo->seed);
    case OPTION_NUMERICS:
        return ct_numerics_parse(text, &solo->engine.numerics) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--numerics takes bf16-1, fp32-1 or fast");
    default:
        return take_number(solo, option, text);
    }
}

static void set_defaults(struct command *command) {
    struct ct_solo_options *solo = &command->solo;
    solo->from_context = solo->from != NULL && command->context_given ? solo->shape.context : 0;
    if (solo->shape.arch == CT_ARCH_LLAMA && solo->shape.hidden == 0) {
        solo->shape.hidden = (solo->shape.width * 8 / 3 + 7) / 8 * 8;
    }
    if (solo->floor < 0.0) {
        solo->floor = solo->peak / 10.0;
    }
    if (solo->warmup_steps == UINT32_MAX) {
        solo->warmup_steps = solo->steps / 10 < 100 ? solo->steps / 10 : 100;
    }
    command->report_every = solo->steps < 20 ? 1 : solo->steps / 20;
    if (solo->eval_every == UINT32_MAX) {
        solo->eval_every = solo->steps < 10 ? 0 : solo->steps / 10;
    }
    command->terminal = !command->json && isatty(STDOUT_FILENO);
}

/* −1: go on; else the exit status. */
static int parse(struct command *command, bool speaks, int argc, char **argv) {
    int option;
    opterr = speaks;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            if (speaks) {
                fputs(usage, stdout);
            }
            return CT_EXIT_DONE;
        }
        if (option == '?') {
            return CT_EXIT_USAGE;
        }
        if (take_option(command, option, optarg) != CT_OK) {
            return speaks ? ct_command_fail("cotrain train", CT_ERR_USAGE) : CT_EXIT_USAGE;
        }
    }
    if (optind != argc && speaks) {
        fprintf(stderr, "cotrain train: '%s' is not an option; cotrain train --help tells how\n",
                argv[optind]);
    }
    const bool both = command->solo.from != NULL && command->shape_given;
    if (both && speaks) {
        fputs("cotrain train: --from brings the model's shape; leave the shape's options out\n",
              stderr);
    }
    return optind != argc || both ? CT_EXIT_USAGE : -1;
}

int ct_cmd_train(int argc, char **argv) {
    return ct_site_train(ct_site_alone(), argc, argv);
}

int ct_site_train(struct ct_site *site, int argc, char **argv) {
    struct command command = {
        .solo =
            {
                .shape =
                    {.arch = CT_ARCH_GPT2, .context = 64, .layers = 4, .heads = 4, .width = 128},
                .engine = {.numerics = CT_NUMERICS_BF16_1, .batch = 12, .leaves = 1},
                .steps = 2000,
                .warmup_steps = UINT32_MAX,
                .eval_every = UINT32_MAX,
                .peak = 3e-3,
                .floor = -1.0,
                .seed = 1,
            },
    };
    const bool speaks = site->rank == 0;
    const int status = parse(&command, speaks, argc, argv);
    if (status >= 0) {
        return status;
    }
    set_defaults(&command);
    const struct ct_solo_listener listener = {started, stepped, ended, &command};
    enum ct_err err = ct_site_agree(site, ct_isa_start());
    if (err == CT_OK) {
        err = ct_solo_run(&command.solo, site, &listener);
    }
    if (err == CT_OK) {
        return CT_EXIT_DONE;
    }
    if (speaks) {
        return ct_command_fail("cotrain train", err);
    }
    return err == CT_ERR_USAGE ? CT_EXIT_USAGE : CT_EXIT_FAILED;
}
