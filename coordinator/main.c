/* cotraind: the operator's program. One command does one thing. */
#include <cotrain/command.h>

#include <stddef.h>

static const struct ct_command commands[] = {
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
    return ct_command_main("cotraind", "open and run a training run with a public ledger", commands,
                           argc, argv);
}
