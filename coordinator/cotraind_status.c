/* cotraind status: where the run stands, from its published ledger. */
#include "cotraind.h"
#include "run.h"
#include "witness_status.h"

#include <cotrain/command.h>
#include <cotrain/retention.h>

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: cotraind status DIR [--json]\n"
    "\n"
    "Tells from the published ledger of DIR how far the run is and what each node has given "
    "(merged\n"
    "tokens, settled when ten more of its epochs have passed: include/cotrain/credit.h); and\n"
    "whether a cotraind is serving it now. A running one tells more on its HTTP port: "
    "/status.json.\n"
    "Where the run lets updates expire, up to which round they have.\n"
    "Where the run names witnesses: what each says, the largest tree that it has cosigned, and "
    "how\n"
    "many entries are behind that; from the running cotraind, or else from the ledger's files.\n"
    "\n"
    "  --json  one object\n";

static const char *phase_name(enum ct_phase phase) {
    static const char *const names[] = {"empty", "waiting for nodes", "training", "uploading",
                                        "finished"};
    return names[phase];
}

/* Where a served run tells more, if it is known. */
static void print_live(const struct ct_run *run) {
    struct ct_ports ports;
    if (ct_ports_load(run->dir, &ports) == CT_OK && ports.http != 0) {
        char url[CT_URL_BYTES_MAX];
        ct_ports_url(&ports, url);
        printf("live     %sstatus.json\n", url);
    }
}

/* Payloads of updates up to this round need not be kept any more. */
static uint32_t expired_round(const struct ct_fold *fold) {
    const bool open = fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
    return ct_retention_expired(&fold->manifest, open ? fold->round - 1 : fold->round);
}

static void print_words(const struct ct_fold *fold, bool served) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&fold->run_id, hex);
    printf("run      %s (%s)\nphase    %s, round %u of %u\nserved   %s\nentries  %llu\n", hex,
           fold->manifest.name, phase_name(fold->phase), fold->round, fold->manifest.rounds,
           served ? "yes" : "no: cotraind serve goes on with it",
           (unsigned long long)fold->entries);
    printf("tokens   %llu merged\n", (unsigned long long)fold->tokens);
    if (fold->manifest.retention_rounds > 0) {
        const uint32_t expired = expired_round(fold);
        printf("updates  kept for %u rounds; %s", fold->manifest.retention_rounds,
               expired > 0 ? "expired up to round " : "none has expired yet\n");
        if (expired > 0) {
            printf("%u\n", expired);
        }
    }
    if (fold->model_known) {
        ct_hash_hex(&fold->model, hex);
        printf("model    %s\n", hex);
    }
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        ct_hash_hex(&node->key, hex);
        const struct ct_credit credit = ct_credit_of(node);
        printf("node %-3u %s  %u rounds, %llu tokens merged, %llu of them settled\n", node->number,
               hex, credit.rounds, (unsigned long long)credit.tokens,
               (unsigned long long)credit.settled);
    }
}

static void print_witnesses(const json_t *witnesses) {
    size_t i;
    json_t *witness;
    json_array_foreach(witnesses, i, witness) {
        const char *name = json_string_value(json_object_get(witness, "name"));
        const char *state = json_string_value(json_object_get(witness, "state"));
        const char *error = json_string_value(json_object_get(witness, "error"));
        printf("witness  %s: %s, cosigned %lld entries, %lld behind%s%s\n",
               name != NULL ? name : "?", state != NULL ? state : "?",
               (long long)json_integer_value(json_object_get(witness, "size")),
               (long long)json_integer_value(json_object_get(witness, "lag")),
               error != NULL ? "; " : "", error != NULL ? error : "");
    }
}

static json_t *nodes_json(const struct ct_fold *fold) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; nodes != NULL && i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&node->key, hex);
        const struct ct_credit credit = ct_credit_of(node);
        json_array_append_new(
            nodes, json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "node",
                             (json_int_t)node->number, "key", hex, "merged_rounds",
                             (json_int_t)credit.rounds, "merged_tokens", (json_int_t)credit.tokens,
                             "settled_tokens", (json_int_t)credit.settled, "provisional_tokens",
                             (json_int_t)credit.provisional, "void_tokens",
                             (json_int_t)credit.void_tokens, "checks", (json_int_t)credit.checks,
                             "last_round", (json_int_t)node->last_round));
    }
    return nodes;
}

static enum ct_err print_json(const struct ct_fold *fold, bool served, json_t *witnesses) {
    char run[CT_HEX_BYTES], model[CT_HEX_BYTES] = "";
    ct_hash_hex(&fold->run_id, run);
    if (fold->model_known) {
        ct_hash_hex(&fold->model, model);
    }
    json_t *retention =
        fold->manifest.retention_rounds == 0
            ? json_null()
            : json_pack("{s:I, s:I}", "rounds", (json_int_t)fold->manifest.retention_rounds,
                        "expired_round", (json_int_t)expired_round(fold));
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:I, s:s, s:o, s:O, s:o}", "run", run, "name",
        fold->manifest.name, "phase", phase_name(fold->phase), "round", (json_int_t)fold->round,
        "rounds", (json_int_t)fold->manifest.rounds, "served", served ? 1 : 0, "entries",
        (json_int_t)fold->entries, "tokens", (json_int_t)fold->tokens, "model_sha256", model,
        "retention", retention, "witnesses", witnesses, "nodes", nodes_json(fold));
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    json_decref(root);
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the report");
    }
    puts(text);
    free(text);
    return CT_OK;
}

int ct_cmd_status(int argc, char **argv) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option != 'j') {
            return CT_EXIT_USAGE;
        }
        json = true;
    }
    if (argc - optind != 1) {
        fputs("cotraind status: it needs DIR; cotraind status --help tells how\n", stderr);
        return CT_EXIT_USAGE;
    }
    struct ct_run run;
    enum ct_err err = ct_run_read(argv[optind], &run);
    if (err == CT_OK) {
        bool served = ct_run_is_served(run.dir);
        json_t *witnesses = ct_witness_status_of(&run, served);
        if (json) {
            err = print_json(&run.replay.fold, served, witnesses);
        } else {
            print_words(&run.replay.fold, served);
            print_witnesses(witnesses);
            if (served) {
                print_live(&run);
            }
        }
        json_decref(witnesses);
        ct_run_close(&run);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind status", err);
}
