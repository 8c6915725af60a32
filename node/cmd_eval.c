/* cotrain eval: a model's loss on text. */
#include "commands.h"
#include "heldout.h"
#include "option.h"
#include "text_split.h"

#include <cotrain/command.h>
#include <cotrain/crypto.h>
#include <cotrain/fold.h>
#include <cotrain/isa.h>
#include <cotrain/model_dir.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_TOKENS = 2048 };

static const char usage[] =
    "usage: cotrain eval MODEL_DIR (--data DIR | --text FILE) [OPTIONS]\n"
    "\n"
    "Mean loss in nats per byte: every byte of the split but the first is predicted once, in\n"
    "consecutive windows of the model's context.\n"
    "\n"
    "  --data DIR       a data set made by cotrain data build\n"
    "  --text FILE      one text file; its last tenth is the held-out split\n"
    "  --split NAME     heldout or train (heldout)\n"
    "  --numerics NAME  bf16-1, fp32-1 or fast (bf16-1)\n"
    "  --threads N      (all); changes no bit\n"
    "  --json           one object instead of words\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

struct command {
    const char *model;
    struct ct_text_source source;
    enum ct_split split;
    struct ct_engine_options engine;
    bool json;
};

static void report(const struct command *command, const struct ct_layout *layout,
                   const float *theta, const struct ct_corpus *corpus, double loss) {
    const struct ct_hash digest = ct_model_digest(layout, theta);
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&digest, hex);
    const char *split = command->split == CT_SPLIT_TRAIN ? "train" : "heldout";
    if (command->json) {
        printf("{\"split\":\"%s\",\"nats_per_byte\":%.9g,\"tokens\":%" PRIu64
               ",\"numerics\":\"%s\",\"model_sha256\":\"%s\"}\n",
               split, loss, corpus->count - 1, ct_numerics_name(command->engine.numerics), hex);
    } else {
        printf("%s: %.4f nats per byte over %" PRIu64 " tokens\nmodel sha256 %s\n", split, loss,
               corpus->count - 1, hex);
    }
}

static enum ct_err run(struct command *command) {
    struct ct_layout layout = {0};
    struct ct_corpus corpus = {0};
    struct ct_heldout heldout = {0};
    struct ct_engine *engine = NULL;
    float *theta = NULL;
    uint32_t vocab;
    enum ct_err err = ct_model_load(command->model, &layout, &theta);
    if (err == CT_OK) {
        err = ct_text_split_load(&command->source, command->split, &corpus, &vocab);
    }
    if (err == CT_OK && vocab > layout.shape.vocab) {
        err = ct_fail(CT_ERR_CONFIG, "%s: knows %u tokens, the text uses %u", command->model,
                      layout.shape.vocab, vocab);
    }
    if (err == CT_OK) {
        const uint32_t context = layout.shape.context;
        command->engine.batch = context < BATCH_TOKENS ? BATCH_TOKENS / context : 1;
        command->engine.leaves = 1;
        err = ct_engine_open(&layout, &command->engine, &engine);
    }
    if (err == CT_OK) {
        err =
            ct_heldout_init(&heldout, engine, command->engine.batch, layout.shape.context, &corpus);
    }
    if (err == CT_OK) {
        report(command, &layout, theta, &corpus, ct_heldout_loss(&heldout, theta, 0));
    }
    ct_heldout_deinit(&heldout);
    ct_engine_close(engine);
    ct_corpus_deinit(&corpus);
    free(theta);
    ct_layout_deinit(&layout);
    return err;
}

static enum ct_err take_option(struct command *command, int option, const char *text) {
    switch (option) {
    case 'd':
        command->source.data_dir = text;
        return CT_OK;
    case 't':
        command->source.text_path = text;
        return CT_OK;
    case 's':
        if (strcmp(text, "heldout") != 0 && strcmp(text, "train") != 0) {
            return ct_fail(CT_ERR_USAGE, "--split takes heldout or train");
        }
        command->split = strcmp(text, "train") == 0 ? CT_SPLIT_TRAIN : CT_SPLIT_HELDOUT;
        return CT_OK;
    case 'n':
        return ct_numerics_parse(text, &command->engine.numerics) == CT_OK
                   ? CT_OK
                   : ct_fail(CT_ERR_USAGE, "--numerics takes bf16-1, fp32-1 or fast");
    case 'p':
        return ct_option_u32("threads", text, 0, 1024, &command->engine.threads);
    default:
        command->json = true;
        return CT_OK;
    }
}

int ct_cmd_eval(int argc, char **argv) {
    static const struct option options[] = {
        {"data", required_argument, NULL, 'd'},    {"text", required_argument, NULL, 't'},
        {"split", required_argument, NULL, 's'},   {"numerics", required_argument, NULL, 'n'},
        {"threads", required_argument, NULL, 'p'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    struct command command = {.split = CT_SPLIT_HELDOUT,
                              .engine = {.numerics = CT_NUMERICS_BF16_1}};
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
            return ct_command_fail("cotrain eval", CT_ERR_USAGE);
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "cotrain eval: takes one model directory; cotrain eval --help tells how\n");
        return CT_EXIT_USAGE;
    }
    command.model = argv[optind];
    enum ct_err err = ct_isa_start();
    if (err == CT_OK) {
        err = run(&command);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain eval", err);
}
