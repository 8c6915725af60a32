/* cotrain data: makes data sets that a run can name, and tells what is in one. */
#include "commands.h"

#include <cotrain/command.h>
#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>

#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_TOKENS (16u << 20)

static const char usage[] =
    "usage: cotrain data build --name NAME --license SPDX --source TEXT [--processing TEXT]\n"
    "                          [--heldout PERCENT] OUT_DIR FILE...\n"
    "       cotrain data show DIR [--json]\n"
    "\n"
    "build turns text files into a data set: tokens (bytes, 0 to 255) in shards named by\n"
    "their SHA-256, and dataset.json, which says what they are and may be used for.\n"
    "\n"
    "  --name NAME        a short name\n"
    "  --license SPDX     the text's licence, for example CC0-1.0 or LicenseRef-public-domain\n"
    "  --source TEXT      where the text comes from\n"
    "  --processing TEXT  what was done to it before\n"
    "  --heldout PERCENT  the last part of each file, kept for evaluation (10)\n"
    "\n"
    "show verifies every shard and prints the data sheet; exit status 1 if one is wrong.\n"
    "\n"
    "  --json             one object instead of words\n";

static int fail_usage(const char *text) {
    fprintf(stderr, "cotrain data: %s; cotrain data --help tells how\n", text);
    return CT_EXIT_USAGE;
}

static int show_help(void) {
    fputs(usage, stdout);
    return CT_EXIT_DONE;
}

static int run_build(int argc, char **argv) {
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"license", required_argument, NULL, 'l'},
        {"source", required_argument, NULL, 's'},
        {"processing", required_argument, NULL, 'p'},
        {"heldout", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct ct_dataset_recipe recipe = {.heldout_percent = 10, .shard_tokens = SHARD_TOKENS};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end = NULL;
        switch (option) {
        case 'n':
            recipe.name = optarg;
            break;
        case 'l':
            recipe.license = optarg;
            break;
        case 's':
            recipe.source = optarg;
            break;
        case 'p':
            recipe.processing = optarg;
            break;
        case 'o': {
            unsigned long percent = strtoul(optarg, &end, 10);
            if (optarg[0] < '0' || optarg[0] > '9' || *end != '\0' || percent > 90) {
                return fail_usage("--heldout takes 0 to 90");
            }
            recipe.heldout_percent = (uint32_t)percent;
            break;
        }
        case 'h':
            return show_help();
        default:
            return CT_EXIT_USAGE;
        }
    }
    if (recipe.name == NULL || recipe.license == NULL || recipe.source == NULL) {
        return fail_usage("build needs --name, --license and --source: a run takes no data whose "
                          "licence and origin nobody states");
    }
    if (argc - optind < 2) {
        return fail_usage("build needs OUT_DIR and at least one FILE");
    }
    const char *out_dir = argv[optind];
    recipe.paths = (const char *const *)(argv + optind + 1);
    recipe.path_count = (uint32_t)(argc - optind - 1);
    enum ct_err err = ct_dataset_build(&recipe, out_dir);
    if (err != CT_OK) {
        return ct_command_fail("cotrain data", err);
    }
    printf("%s/%s written; cotrain data show %s tells what is in it\n", out_dir, CT_DATASET_FILE,
           out_dir);
    return CT_EXIT_DONE;
}

/* What `show` found out. */
struct sheet {
    struct ct_dataset dataset;
    struct ct_hash digest; /* of dataset.json */
    bool verified[2];      /* by split; a split without shards holds */
    char problem[512];
};

static enum ct_err read_sheet(const char *dir, struct sheet *out) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, CT_DATASET_FILE) >= sizeof path) {
        return ct_fail(CT_ERR_CONFIG, "%s: the path is too long", dir);
    }
    struct ct_buf buf;
    ct_buf_init(&buf, CT_DATASET_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &buf);
    if (err == CT_OK) {
        out->digest = ct_sha256(ct_buf_bytes(&buf));
        err = ct_dataset_parse(ct_buf_bytes(&buf), &out->dataset);
    }
    ct_buf_deinit(&buf);
    if (err != CT_OK) {
        return err;
    }
    for (int split = CT_SPLIT_TRAIN; split <= CT_SPLIT_HELDOUT; split++) {
        struct ct_corpus corpus;
        err = ct_corpus_load(&out->dataset, (enum ct_split)split, ct_shard_in_dir,
                             (void *)(uintptr_t)dir, &corpus);
        out->verified[split] = err == CT_OK || err == CT_ERR_NOT_FOUND;
        if (err == CT_ERR_NOT_FOUND && ct_dataset_tokens(&out->dataset, (enum ct_split)split) > 0) {
            out->verified[split] = false;
        }
        if (!out->verified[split]) {
            snprintf(out->problem, sizeof out->problem, "%s", ct_err_detail());
        }
        ct_corpus_deinit(&corpus);
    }
    return CT_OK;
}

static void print_words(const struct sheet *sheet, bool verified) {
    const struct ct_dataset *d = &sheet->dataset;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&sheet->digest, hex);
    printf("name        %s\nlicence     %s\nsource      %s\n", d->name, d->license, d->source);
    printf("processing  %s\n", d->processing[0] != '\0' ? d->processing : "none stated");
    printf("tokenizer   %s, %u tokens\n", d->tokenizer, d->vocab);
    printf("train       %llu tokens\nheld out    %llu tokens\n",
           (unsigned long long)ct_dataset_tokens(d, CT_SPLIT_TRAIN),
           (unsigned long long)ct_dataset_tokens(d, CT_SPLIT_HELDOUT));
    printf("digest      %s (dataset.json)\n", hex);
    for (uint32_t i = 0; i < d->shard_count; i++) {
        ct_hash_hex(&d->shards[i].ref.sha256, hex);
        printf("shard       %s %s %llu tokens\n", hex,
               d->shards[i].split == CT_SPLIT_TRAIN ? "train" : "heldout",
               (unsigned long long)d->shards[i].tokens);
    }
    printf("verified    %s\n", verified ? "yes, every shard" : "NO");
}

static enum ct_err print_json(const struct sheet *sheet, bool verified) {
    const struct ct_dataset *d = &sheet->dataset;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&sheet->digest, hex);
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:i, s:b}", "name", d->name, "license",
        d->license, "source", d->source, "processing", d->processing, "tokenizer", d->tokenizer,
        "vocab", (int)d->vocab, "train_tokens", (json_int_t)ct_dataset_tokens(d, CT_SPLIT_TRAIN),
        "heldout_tokens", (json_int_t)ct_dataset_tokens(d, CT_SPLIT_HELDOUT), "sha256", hex,
        "shards", (int)d->shard_count, "verified", verified ? 1 : 0);
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    json_decref(root);
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the report");
    }
    puts(text);
    free(text);
    return CT_OK;
}

static int run_show(int argc, char **argv) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            return show_help();
        }
        if (option != 'j') {
            return CT_EXIT_USAGE;
        }
        json = true;
    }
    if (argc - optind != 1) {
        return fail_usage("show needs one DIR");
    }
    struct sheet sheet = {0};
    enum ct_err err = read_sheet(argv[optind], &sheet);
    if (err != CT_OK) {
        return ct_command_fail("cotrain data", err);
    }
    bool verified = sheet.verified[CT_SPLIT_TRAIN] && sheet.verified[CT_SPLIT_HELDOUT];
    if (json) {
        err = print_json(&sheet, verified);
    } else {
        print_words(&sheet, verified);
    }
    if (!verified) {
        err = ct_fail(CT_ERR_DIGEST, "%s", sheet.problem);
    }
    ct_dataset_deinit(&sheet.dataset);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain data", err);
}

int ct_cmd_data(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
        return show_help();
    }
    if (argc >= 2 && strcmp(argv[1], "build") == 0) {
        return run_build(argc - 1, argv + 1);
    }
    if (argc >= 2 && strcmp(argv[1], "show") == 0) {
        return run_show(argc - 1, argv + 1);
    }
    return fail_usage("say build or show");
}
