#include <cotrain/command.h>

#include <stdio.h>
#include <string.h>

#define VERSION "0.1.0"

static void print_usage(FILE *out, const char *program, const char *purpose,
                        const struct ct_command *commands) {
    fprintf(out, "%s: %s\n\nusage: %s COMMAND [ARGUMENTS]\n\n", program, purpose, program);
    for (const struct ct_command *command = commands; command->name != NULL; command++) {
        fprintf(out, "  %-10s %s\n", command->name, command->summary);
    }
    fprintf(out, "\n%s COMMAND --help tells about one of them.\n", program);
}

int ct_command_main(const char *program, const char *purpose, const struct ct_command *commands,
                    int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr, program, purpose, commands);
        return CT_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout, program, purpose, commands);
        return CT_EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("%s %s\n", program, VERSION);
        return CT_EXIT_DONE;
    }
    for (const struct ct_command *command = commands; command->name != NULL; command++) {
        if (strcmp(argv[1], command->name) == 0) {
            return command->run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "%s: no command '%s'; %s --help lists them\n", program, argv[1], program);
    return CT_EXIT_USAGE;
}

int ct_command_fail(const char *program, enum ct_err err) {
    const char *detail = ct_err_detail();
    fprintf(stderr, "%s: %s\n", program, detail[0] != '\0' ? detail : ct_err_text(err));
    return err == CT_ERR_USAGE ? CT_EXIT_USAGE : CT_EXIT_FAILED;
}
