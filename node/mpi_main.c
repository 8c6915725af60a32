/* cotrain-mpi: the commands that a site of many ranks shares, as an MPI program. */
#include "commands.h"
#include "site.h"

#include <cotrain/command.h>

#include <stddef.h>

static struct ct_site *site;

static int join(int argc, char **argv) {
    return ct_site_join(site, argc, argv);
}

static int train(int argc, char **argv) {
    return ct_site_train(site, argc, argv);
}

static const struct ct_command commands[] = {
    {"join", "take part in a run with all ranks as one node", join},
    {"train", "train a model with all ranks of this site", train},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
    bool speaks;
    const enum ct_err err = ct_site_open(&argc, &argv, &site, &speaks);
    if (err != CT_OK) {
        return speaks ? ct_command_fail("cotrain-mpi", err) : CT_EXIT_FAILED;
    }
    const int status =
        ct_command_main("cotrain-mpi", "run cotrain on many ranks: mpirun -n 4 cotrain-mpi …",
                        commands, argc, argv);
    ct_site_close(site);
    return status;
}
