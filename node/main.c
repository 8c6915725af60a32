/* cotrain: the participant's program. One command does one thing. */
#include "commands.h"

#include <cotrain/command.h>

#include <stddef.h>

static const struct ct_command commands[] = {
    {"audit", "check a run: its ledger, its aggregations, its contributions", ct_cmd_audit},
    {"bench", "measure this machine's speed, beside what it could do", ct_cmd_bench},
    {"data", "make a data set from text files, or tell what is in one", ct_cmd_data},
    {"eval", "measure a model's loss on text", ct_cmd_eval},
    {"generate", "let a model write", ct_cmd_generate},
    {"join", "take part in a run with this machine", ct_cmd_join},
    {"key", "make or show an identity", ct_cmd_key},
    {"receipt", "verify a stored receipt, without any network", ct_cmd_receipt},
    {"evidence", "verify the proof that a log showed two histories", ct_cmd_evidence},
    {"status", "show where this machine's part in a run stands", ct_cmd_status},
    {"train", "train a model alone, on this machine", ct_cmd_train},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
    return ct_command_main("cotrain", "train an open model together, and check how it was made",
                           commands, argc, argv);
}
