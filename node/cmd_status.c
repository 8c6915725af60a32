/* cotrain status: what a node of this machine is doing. */
#include "commands.h"
#include "node_dir.h"
#include "progress.h"

#include <cotrain/command.h>

#include <dirent.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <fcntl.h>

static const char usage[] =
    "usage: cotrain status [--dir DIR] [--json]\n"
    "\n"
    "Tells what the node that keeps its data in DIR does and did.\n"
    "\n"
    "  --dir DIR   default: the one run in $XDG_STATE_HOME/cotrain, or ~/.local/state/cotrain\n"
    "  --json      print DIR/status.json with one field more: running\n";

/* The one run directory below the default place. */
static enum ct_err find_dir(char out[CT_NODE_PATH_MAX]) {
    char top[CT_NODE_PATH_MAX];
    unsigned found = 0;
    CT_TRY(ct_node_dir_default(NULL, top));
    DIR *stream = opendir(top);
    if (stream != NULL) {
        for (struct dirent *item = readdir(stream); item != NULL; item = readdir(stream)) {
            struct ct_hash run_id;
            if (ct_hash_parse(item->d_name, &run_id) == CT_OK) {
                found++;
                enum ct_err err = ct_node_path(top, item->d_name, out);
                if (err != CT_OK) {
                    closedir(stream);
                    return err;
                }
            }
        }
        closedir(stream);
    }
    if (found == 1) {
        return CT_OK;
    }
    return ct_fail(found == 0 ? CT_ERR_NOT_FOUND : CT_ERR_USAGE,
                   "%s holds %u runs: name the directory of one with --dir", top, found);
}

/* The node holds the lock as long as it lives. */
static bool is_running(const char *dir) {
    char path[CT_NODE_PATH_MAX];
    if (ct_node_path(dir, CT_NODE_LOCK, path) != CT_OK) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return held;
}

static const char *text_of(json_t *status, const char *name) {
    const char *text = json_string_value(json_object_get(status, name));
    return text != NULL ? text : "?";
}

static long long number_of(json_t *status, const char *name) {
    return (long long)json_number_value(json_object_get(status, name));
}

static void print_status(json_t *status, bool running) {
    char up[32], down[32];
    ct_progress_bytes((uint64_t)number_of(status, "bytes_up"), up);
    ct_progress_bytes((uint64_t)number_of(status, "bytes_down"), down);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long long age = (long long)now.tv_sec - number_of(status, "updated_ms") / 1000;
    printf("run       %.12s \"%s\"\n", text_of(status, "run"), text_of(status, "name"));
    printf("state     %s%s, written %lld s ago\n", text_of(status, "state"),
           running ? "" : " (not running now)", age > 0 ? age : 0);
    printf("round     %lld of %lld\n", number_of(status, "round"), number_of(status, "rounds"));
    printf("loss      %.3f, %lld tokens/s\n", json_number_value(json_object_get(status, "loss")),
           number_of(status, "tokens_per_s"));
    printf("merged    %lld rounds, %lld tokens, as node %lld\n", number_of(status, "merged_rounds"),
           number_of(status, "merged_tokens"), number_of(status, "node"));
    printf("receipts  %lld\n", number_of(status, "receipts"));
    printf("traffic   up %s, down %s since the last start\n", up, down);
}

static enum ct_err show(const char *dir, bool json) {
    char path[CT_NODE_PATH_MAX];
    json_error_t error;
    CT_TRY(ct_node_path(dir, CT_NODE_STATUS, path));
    if (access(path, R_OK) != 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "there is no status in %s: no node was started there",
                       dir);
    }
    json_t *status = json_load_file(path, 0, &error);
    if (!json_is_object(status)) {
        json_decref(status);
        return ct_fail(CT_ERR_FORMAT, "%s: line %d: %s", path, error.line, error.text);
    }
    bool running = is_running(dir);
    if (json) {
        json_object_set_new(status, "running", json_boolean(running));
        json_dumpf(status, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        print_status(status, running);
    }
    json_decref(status);
    return CT_OK;
}

int ct_cmd_status(int argc, char **argv) {
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char dir[CT_NODE_PATH_MAX] = "";
    bool json = false;
    int option = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            snprintf(dir, sizeof dir, "%s", optarg);
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
    enum ct_err err = dir[0] != '\0' ? CT_OK : find_dir(dir);
    if (err == CT_OK) {
        err = show(dir, json);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotrain status", err);
}
