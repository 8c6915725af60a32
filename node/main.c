/* cotrain: the participant's program. One command does one thing. */
#include <cotrain/command.h>

#include <stddef.h>

static const struct ct_command commands[] = {
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
    return ct_command_main("cotrain", "train an open model together, and check how it was made",
                           commands, argc, argv);
}
