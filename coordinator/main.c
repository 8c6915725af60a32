/* cotraind: the operator's program. One command does one thing. */
#include "cotraind.h"

#include <cotrain/command.h>

#include <stddef.h>

static const struct ct_command commands[] = {
    {"init", "check a manifest, make keys, open the run", ct_cmd_init},
    {"serve", "run it: coordinate nodes, publish the ledger", ct_cmd_serve},
    {"status", "where the run stands", ct_cmd_status},
    {"ticket", "what nodes and auditors need to know", ct_cmd_ticket},
    {"mirror", "keep and serve a verified copy of someone's run", ct_cmd_mirror},
    {"restore", "a lost run directory again, from a mirror's copy and the keys", ct_cmd_restore},
    {"witness", "co-sign the tree heads of others", ct_cmd_witness},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
    return ct_command_main("cotraind", "open and run a training run with a public ledger", commands,
                           argc, argv);
}
