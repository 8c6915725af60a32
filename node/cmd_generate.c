/* cotrain generate: what a model of bytes writes. */
#include "commands.h"
#include "option.h"

#include <cotrain/command.h>
#include <cotrain/engine.h>
#include <cotrain/isa.h>
#include <cotrain/model_dir.h>
#include <cotrain/sample.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTE_VOCAB = 256, PROMPT_BYTES_MAX = 1 << 20 };

static const char usage[] = "usage: cotrain generate MODEL_DIR [OPTIONS]\n"
                            "\n"
                            "Writes the prompt and what the model makes of it. The same options "
                            "give the same bytes on any\n"
                            "machine (but for --numerics fast).\n"
                            "\n"
                            "  --prompt TEXT    where to start (a line feed)\n"
                            "  --tokens N       bytes to write (500)\n"
                            "  --temperature T  0 takes the likeliest byte every time (0.8)\n"
                            "  --top-k N        draws among the N likeliest; 0 for all (0)\n"
                            "  --seed N         (1)\n"
                            "  --numerics NAME  bf16-1, fp32-1 or fast (bf16-1)\n"
                            "  --threads N      (1); changes no bit\n"
                            "\n"
                            "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

struct command {
    const char *model, *prompt;
    uint32_t tokens;
    double temperature;
    struct ct_sample_options sample;
    uint64_t seed;
    struct ct_engine_options engine;
};

/* The text so far; the model reads its last `context` bytes. */
struct writing {
    const struct command *command;
    const struct ct_layout *layout;
    struct ct_engine *engine;
    const float *theta;
    uint32_t *tokens;
    size_t length;
    float *logits; /* [vocab], then the sampler's scratch[2 · vocab] */
    struct ct_philox philox;
};

static uint32_t next_token(const struct writing *writing, uint64_t index) {
    const struct ct_model_shape *shape = &writing->layout->shape;
    const size_t context = shape->context;
    const size_t count = writing->length < context ? writing->length : context;
    ct_engine_logits(writing->engine, writing->theta, writing->tokens + writing->length - count,
                     (uint32_t)count, writing->logits);
    return ct_sample(writing->logits, shape->vocab, &writing->command->sample, &writing->philox,
                     index, writing->logits + shape->vocab);
}

static enum ct_err write_text(struct writing *writing) {
    const struct command *command = writing->command;
    const size_t prompt = strlen(command->prompt);
    for (size_t i = 0; i < prompt; i++) {
        writing->tokens[writing->length++] = (uint8_t)command->prompt[i];
    }
    fputs(command->prompt, stdout);
    for (uint32_t i = 0; i < command->tokens; i++) {
        const uint32_t token = next_token(writing, i);
        writing->tokens[writing->length++] = token;
        putchar((int)token);
        if (token == '\n' || i % 16 == 0) {
            fflush(stdout);
        }
    }
    putchar('\n');
    return fflush(stdout) == 0 ? CT_OK : ct_fail(CT_ERR_IO, "standard output cannot be written");
}

static enum ct_err generate(const struct command *command, const struct ct_layout *layout,
                            const float *theta) {
    if (layout->shape.vocab != BYTE_VOCAB) {
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "%s: has %u tokens; only models of bytes write text here", command->model,
                       layout->shape.vocab);
    }
    struct writing writing = {.command = command, .layout = layout, .theta = theta};
    struct ct_hash seed = {{0}};
    for (int i = 0; i < 8; i++) {
        seed.bytes[i] = (uint8_t)(command->seed >> (8 * i));
    }
    writing.philox = ct_philox_make(&seed, CT_STREAM_SAMPLE);
    enum ct_err err = ct_engine_open(layout, &command->engine, &writing.engine);
    if (err == CT_OK) {
        writing.tokens =
            malloc((strlen(command->prompt) + command->tokens) * sizeof *writing.tokens);
        writing.logits = malloc(3 * (size_t)layout->shape.vocab * sizeof *writing.logits);
        err = writing.tokens != NULL && writing.logits != NULL
                  ? write_text(&writing)
                  : ct_fail(CT_ERR_MEMORY, "no memory for %u tokens", command->tokens);
    }
    free(writing.logits);
    free(writing.tokens);
    ct_engine_close(writing.engine);
    return err;
}

static enum ct_err run(const struct command *command) {
    struct ct_layout layout;
    float *theta;
    CT_TRY(ct_model_load(command->model, &layout, &theta));
    const enum ct_err err = generate(command, &layout, theta);
    free(theta);
    ct_layout_deinit(&layout);
    return err;
}

static enum ct_err take_option(struct command *command, int option, const char *text) {
    switch (option) {
    case 'p':
        if (text[0] == '\0' || strlen(text) > PROMPT_BYTES_MAX) {
            return ct_fail(CT_ERR_USAGE, "--prompt takes 1 to %d bytes", PROMPT_BYTES_MAX);
        }
        command->prompt = text;
        return CT_OK;
    case 'n':
        return ct_option_u32("tokens", text, 1, 1u << 24, &command->tokens);
    case 't':
        return ct_option_double("temperature", text, 0.0, 100.0, &command->temperature);
    case 'k':
        return ct_option_u32("top-k", text, 0, CT_VOCAB_MAX, &command->sample.top_k);
    case 's':
        return ct_option_u64("seed", text, 0, UINT64_MAX, &command->seed);
    case 'm':
        return ct_numerics_parse(text, &command->engine.numerics) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--numerics takes bf16-1, fp32-1 or fast");
    default:
        return ct_option_u32("threads", text, 0, 1024, &command->engine.threads);
    }
}

int ct_cmd_generate(int argc, char **argv) {
    static const struct option options[] = {
        {"prompt", required_argument, NULL, 'p'},
        {"tokens", required_argument, NULL, 'n'},
        {"temperature", required_argument, NULL, 't'},
        {"top-k", required_argument, NULL, 'k'},
        {"seed", required_argument, NULL, 's'},
        {"numerics", required_argument, NULL, 'm'},
        {"threads", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct command command = {
        .prompt = "\n",
        .tokens = 500,
        .temperature = 0.8,
        .seed = 1,
        .engine = {.numerics = CT_NUMERICS_BF16_1, .batch = 1, .leaves = 1, .threads = 1},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option == '?') {
            return CT_EXIT_USAGE;
        }
        if (take_option(&command, option, optarg) != CT_OK) {
            return ct_command_fail("cotrain generate", CT_ERR_USAGE);
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr,
                "cotrain generate: takes one model directory; cotrain generate --help tells how\n");
        return CT_EXIT_USAGE;
    }
    command.model = argv[optind];
    command.sample.temperature = (float)command.temperature;
    enum ct_err err = ct_isa_start();
    if (err == CT_OK) {
        err = run(&command);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain generate", err);
}
