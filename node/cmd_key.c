/* cotrain key: makes or shows an identity. */
#include "commands.h"
#include "node_dir.h"

#include <cotrain/command.h>

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "usage: cotrain key [--dir DIR] [--json]\n"
    "\n"
    "Makes the identity DIR/identity.pem if there is none, and prints its public key. An operator\n"
    "lists that key in a run's manifest. The file holds the private key: keep it to yourself.\n"
    "\n"
    "  --dir DIR   default $XDG_STATE_HOME/cotrain, or ~/.local/state/cotrain\n"
    "  --json      print one object: public_key, path, made\n";

/* Paths may hold any character but NUL. */
static void print_json_string(const char *text) {
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            printf("\\%c", *c);
        } else if (*c < 0x20) {
            printf("\\u%04x", *c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

int ct_cmd_key(int argc, char **argv) {
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *dir = NULL;
    bool json = false;
    int option = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            dir = optarg;
            break;
        case 'j':
            json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        default:
            fputs(usage, stderr);
            return CT_EXIT_USAGE;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    char path[CT_NODE_PATH_MAX];
    struct ct_key *key = NULL;
    bool made = false;
    enum ct_err err = dir != NULL ? ct_node_path(dir, CT_NODE_IDENTITY, path)
                                  : ct_node_dir_default(CT_NODE_IDENTITY, path);
    if (err == CT_OK) {
        err = ct_identity_open(path, true, &key, &made);
    }
    if (err != CT_OK) {
        return ct_command_fail("cotrain key", err);
    }
    struct ct_hash public_key = ct_key_public(key);
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&public_key, hex);
    ct_key_free(key);
    if (json) {
        printf("{\"public_key\": \"%s\", \"path\": ", hex);
        print_json_string(path);
        printf(", \"made\": %s}\n", made ? "true" : "false");
    } else {
        printf("%s\n", hex);
        fprintf(stderr, "%s %s\n", made ? "made" : "found", path);
    }
    return CT_EXIT_DONE;
}
