/* cotrain evidence: verifies the proof that a log showed two histories. */
#include "commands.h"

#include <cotrain/command.h>
#include <cotrain/evidence.h>

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: cotrain evidence FILE [--vkey VKEY] [--json]\n"
    "\n"
    "Verifies, without any network, a file that is to prove that a log showed two histories: both\n"
    "checkpoints were signed by its key, and no ledger that only grows can have both. A node that\n"
    "is shown two histories writes such a file, and so does an audit (--since).\n"
    "\n"
    "  --vkey VKEY  the log that it must be about; without it the file tells, and the key is "
    "yours\n"
    "               to compare\n"
    "  --json       one object: ok, verifier_key, origin, smaller and larger {size, root}, "
    "prefix,\n"
    "               which is the root of the larger one's first entries, as many as the smaller\n"
    "               has; or ok false and reason\n"
    "\n"
    "Exit status: 0 it proves that, 1 it does not, 2 wrong usage.\n";

static void print_head(const char *name, const struct ct_checkpoint *checkpoint) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&checkpoint->root, hex);
    printf("%-8s %" PRIu64 " entries, root %s\n", name, checkpoint->size, hex);
}

static void print_words(const char *file, const struct ct_evidence *evidence) {
    char hex[CT_HEX_BYTES];
    printf("%s proves that the log %s showed two histories.\n", file, evidence->smaller.origin);
    printf("key      %s\n", evidence->vkey);
    print_head("signed", &evidence->smaller);
    print_head("and", &evidence->larger);
    if (evidence->smaller.size != evidence->larger.size) {
        ct_hash_hex(&evidence->prefix, hex);
        printf("but      the first %" PRIu64 " entries of the larger one have the root %s\n",
               evidence->smaller.size, hex);
    }
    printf("Whoever holds that key signed both. Keep the file and show it to others of the run.\n");
}

static json_t *hash_json(const struct ct_hash *hash) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(hash, hex);
    return json_string(hex);
}

static json_t *head_json(const struct ct_checkpoint *checkpoint) {
    char decimal[24];
    snprintf(decimal, sizeof decimal, "%" PRIu64, checkpoint->size);
    return json_pack("{s:o, s:o}", "size",
                     checkpoint->size <= 1ull << 53 ? json_integer((json_int_t)checkpoint->size)
                                                    : json_string(decimal),
                     "root", hash_json(&checkpoint->root));
}

static void print_json(json_t *root) {
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    puts(text != NULL ? text : "{\"ok\": false, \"reason\": \"out of memory\"}");
    free(text);
    json_decref(root);
}

static enum ct_err verify(const char *file, const char *vkey, bool json) {
    struct ct_buf text;
    struct ct_evidence evidence;
    ct_buf_init(&text, CT_EVIDENCE_BYTES_MAX);
    enum ct_err err = ct_file_read(file, &text);
    if (err == CT_OK) {
        err = ct_evidence_open(ct_buf_bytes(&text), &evidence);
    }
    ct_buf_deinit(&text);
    CT_TRY(err);
    if (vkey != NULL && strcmp(vkey, evidence.vkey) != 0) {
        return ct_fail(CT_ERR_RULE, "%s is about another key: %s", file, evidence.vkey);
    }
    if (json) {
        print_json(json_pack("{s:b, s:s, s:s, s:o, s:o, s:o}", "ok", 1, "verifier_key",
                             evidence.vkey, "origin", evidence.smaller.origin, "smaller",
                             head_json(&evidence.smaller), "larger", head_json(&evidence.larger),
                             "prefix", hash_json(&evidence.prefix)));
    } else {
        print_words(file, &evidence);
    }
    return CT_OK;
}

int ct_cmd_evidence(int argc, char **argv) {
    static const struct option options[] = {
        {"vkey", required_argument, NULL, 'v'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *vkey = NULL;
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option != 'v' && option != 'j') {
            fputs(usage, stderr);
            return CT_EXIT_USAGE;
        }
        json |= option == 'j';
        vkey = option == 'v' ? optarg : vkey;
    }
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    enum ct_err err = verify(argv[optind], vkey, json);
    if (err != CT_OK && json) {
        print_json(json_pack("{s:b, s:s}", "ok", 0, "reason", ct_err_detail()));
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain evidence", err);
}
