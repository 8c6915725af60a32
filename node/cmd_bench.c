/* cotrain bench: how fast this machine does cotrain's work, beside what it could do. */
#include "bench.h"
#include "commands.h"

#include <cotrain/command.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct ct_command benches[] = {
    {"aggregate", "the updates of a round to the next model", ct_bench_aggregate},
    {"codec", "an update to its bytes, and back", ct_bench_codec},
    {"gradients", "a batch's loss and gradients, for others to agree with", ct_bench_gradients},
    {"kernels", "the engine's kernels, one by one", ct_bench_kernels},
    {"plan", "the memory that training takes, before it is reserved", ct_bench_plan},
    {"step", "a whole training step", ct_bench_step},
    {"ledger", "appending, hashing, proving and verifying entries", ct_bench_ledger},
    {NULL, NULL, NULL},
};

/* Both choose slower kernels on some machines and are read before main: so OpenBLAS, the yardstick,
 * is at its best only in a process that never had them. Does not return when it starts one. */
static enum ct_err free_the_yardstick(int argc, char **argv) {
    static const char *const names[] = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL) {
            fprintf(stderr, "cotrain bench: without %s=%s, which would hold OpenBLAS back\n",
                    names[i], value);
            unsetenv(names[i]);
            found = true;
        }
    }
    if (!found) {
        return CT_OK;
    }
    char **again = calloc((size_t)argc + 2, sizeof *again);
    if (again == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %d arguments", argc);
    }
    again[0] = (char[]){"cotrain"};
    memcpy(again + 1, argv, (size_t)argc * sizeof *again);
    execv("/proc/self/exe", again);
    free(again);
    return ct_fail(CT_ERR_IO, "cannot start itself again: unset OPENBLAS_CORETYPE and "
                              "OPENBLAS_L2_SIZE");
}

int ct_cmd_bench(int argc, char **argv) {
    const enum ct_err err = free_the_yardstick(argc, argv);
    if (err != CT_OK) {
        return ct_command_fail("cotrain bench", err);
    }
    return ct_command_main("cotrain bench", "how fast this machine is, beside what it could do",
                           benches, argc, argv);
}
