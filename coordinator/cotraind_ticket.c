/* cotraind ticket: what nodes need to join and auditors to verify. */
#include "cotraind.h"
#include "run.h"

#include <cotrain/command.h>
#include <cotrain/ticket.h>

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: cotraind ticket DIR [--json | --policy]\n"
    "\n"
    "Prints the join ticket of the run in DIR, the address of its ledger and blobs, and the "
    "ledger's\n"
    "origin and verifier key. The ports are known once cotraind serve DIR has been started.\n"
    "\n"
    "  --json    one object: ticket, url, run, origin, verifier_key\n"
    "  --policy  the ledger's key and the run's witnesses as C2SP tlog-policy, for verifiers of\n"
    "            receipts (cotrain receipt --policy) and other people's tools\n";

struct answer {
    char ticket[CT_TICKET_BYTES_MAX], url[CT_URL_BYTES_MAX], run[CT_HEX_BYTES],
        vkey[CT_VKEY_BYTES_MAX];
    const char *origin;
};

static enum ct_err print_json(const struct answer *answer) {
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "ticket", answer->ticket, "url", answer->url, "run",
                  answer->run, "origin", answer->origin, "verifier_key", answer->vkey);
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    json_decref(root);
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the answer");
    }
    puts(text);
    free(text);
    return CT_OK;
}

static void print_policy(const struct ct_fold *fold) {
    char vkey[CT_VKEY_BYTES_MAX];
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    printf("log %s\n%s", vkey,
           fold->manifest.policy[0] != '\0' ? fold->manifest.policy : "quorum none\n");
}

static enum ct_err tell(const struct ct_run *run, bool json, bool policy) {
    if (policy) {
        print_policy(&run->replay.fold);
        return CT_OK;
    }
    struct ct_ports ports;
    CT_TRY(ct_ports_load(run->dir, &ports));
    if (ports.work == 0 || ports.http == 0) {
        return ct_fail(CT_ERR_STATE, "the run has no ports yet: start cotraind serve %s first",
                       run->dir);
    }
    const struct ct_fold *fold = &run->replay.fold;
    struct ct_ticket ticket = {.port = ports.work, .run_id = fold->run_id};
    snprintf(ticket.host, sizeof ticket.host, "%s", ports.host);
    struct answer answer = {.origin = fold->opened.origin};
    ct_ticket_format(&ticket, answer.ticket);
    ct_ports_url(&ports, answer.url);
    ct_hash_hex(&fold->run_id, answer.run);
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, answer.vkey);
    if (json) {
        return print_json(&answer);
    }
    printf("ticket        %s\nurl           %s\norigin        %s\nverifier key  %s\n",
           answer.ticket, answer.url, answer.origin, answer.vkey);
    return CT_OK;
}

int ct_cmd_ticket(int argc, char **argv) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"policy", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool json = false, policy = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        }
        if (option != 'j' && option != 'p') {
            return CT_EXIT_USAGE;
        }
        json |= option == 'j';
        policy |= option == 'p';
    }
    if (argc - optind != 1) {
        fputs("cotraind ticket: it needs DIR; cotraind ticket --help tells how\n", stderr);
        return CT_EXIT_USAGE;
    }
    struct ct_run run;
    enum ct_err err = ct_run_read(argv[optind], &run);
    if (err == CT_OK) {
        err = tell(&run, json, policy);
        ct_run_close(&run);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind ticket", err);
}
