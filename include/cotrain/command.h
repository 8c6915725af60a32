/* What the commands of both programs share: exit statuses and one way to report an error. */
#ifndef COTRAIN_COMMAND_H
#define COTRAIN_COMMAND_H

#include <cotrain/err.h>

enum { CT_EXIT_DONE = 0, CT_EXIT_FAILED = 1, CT_EXIT_USAGE = 2 };

struct ct_command {
    const char *name;
    const char *summary;
    /* argv[0] is the command's name, as getopt_long wants it. */
    int (*run)(int argc, char **argv);
};

/* Finds and runs argv[1] among commands (ended by a NULL name); `--help`, `help` and none list them
 * and --version tells the version. Returns the exit status. */
int ct_command_main(const char *program, const char *purpose, const struct ct_command *commands,
                    int argc, char **argv);

/* Prints "PROGRAM: what: detail" for the last ct_fail and returns the exit status that fits: usage
 * for CT_ERR_USAGE, else failed. */
int ct_command_fail(const char *program, enum ct_err err);

#endif
