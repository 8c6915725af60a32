/* cotraind restore: a run directory again, from a mirror's copy and the run's keys. */
#include "cotraind.h"
#include "kept_list.h"
#include "run.h"

#include <cotrain/command.h>
#include <cotrain/log.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotraind restore COPY RUN --keys KEYS [--host HOST]\n"
    "\n"
    "Makes the run directory RUN again from COPY, which cotraind mirror wrote, and KEYS, the\n"
    "directory with identity.pem and log.pem that cotraind init made (the lost RUN/keys). Every\n"
    "byte is verified on the way, and the model is recomputed. Interrupted, the same command goes\n"
    "on. Then cotraind serve RUN goes on with the run.\n"
    "\n"
    "Not in COPY, and gone with the old directory: entries that were published after COPY's last\n"
    "checkpoint (serve refuses to run when a witness, mirror or node shows that there were some),\n"
    "uploads that had not been logged as received (nodes send them again), refused statements\n"
    "kept as evidence, and the diagnostics. Seeds of rounds follow from the keys.\n"
    "\n"
    "  --keys KEYS  the keys; they are copied, and must be those that the ledger's first entry "
    "names\n"
    "  --host HOST  the name or address by which nodes reach this machine (localhost)\n";

struct restoring {
    const char *copy, *run, *keys, *host;
    struct ct_key *identity, *log_key;
    struct ct_ledger *from, *to;
    struct ct_blobs blobs;
    uint64_t blob_count, damaged;
};

static enum ct_err load_key(const char *dir, const char *name, struct ct_key **out) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, name, path));
    const enum ct_err err = ct_key_load(path, out);
    return err == CT_ERR_NOT_FOUND
               ? ct_fail(err, "%s is not there: KEYS is the directory that init named", path)
               : err;
}

/* Opens the copy for reading; its first entry must name the keys. */
static enum ct_err open_copy(struct restoring *restoring, char *ledger_dir) {
    char path[PATH_MAX];
    struct ct_buf note, entry;
    struct ct_checkpoint checkpoint;
    struct ct_run_opened opened;
    struct ct_hash run_id;
    const struct ct_hash identity = ct_key_public(restoring->identity);
    const struct ct_hash log_key = ct_key_public(restoring->log_key);
    CT_TRY(ct_run_path(restoring->copy, CT_RUN_LEDGER, ledger_dir));
    CT_TRY(ct_run_path(ledger_dir, "checkpoint", path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&note), &checkpoint);
    }
    if (err == CT_OK) {
        err = ct_ledger_open(ledger_dir, checkpoint.origin, NULL, &restoring->from);
    }
    if (err == CT_OK) {
        err = ct_ledger_read(restoring->from, 0, &entry);
    }
    if (err == CT_OK) {
        err = ct_run_opening(ct_buf_bytes(&entry), &opened, &run_id);
    }
    ct_buf_deinit(&entry);
    ct_buf_deinit(&note);
    CT_TRY(err);
    if (!ct_hash_equal(&identity, &opened.identity_key) ||
        !ct_hash_equal(&log_key, &opened.log_key)) {
        return ct_fail(CT_ERR_CONFIG, "the keys in %s are not those of the run in %s",
                       restoring->keys, restoring->copy);
    }
    CT_TRY(ct_run_path(restoring->run, CT_RUN_LEDGER, path));
    return ct_ledger_open_copy(path, opened.origin, &log_key, &restoring->to);
}

/* One blob; a damaged one is left out. */
static enum ct_err take_blob(struct restoring *restoring, const char *path,
                             const struct ct_hash *digest) {
    struct stat status;
    struct ct_blob_ref ref;
    char stored[PATH_MAX];
    if (stat(path, &status) != 0) {
        return ct_fail(CT_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    ref = (struct ct_blob_ref){*digest, (uint64_t)status.st_size};
    restoring->blob_count++;
    if (ct_blobs_have(&restoring->blobs, &ref)) {
        return CT_OK;
    }
    CT_TRY(ct_blobs_import(&restoring->blobs, path, &ref));
    if (!ct_hash_equal(&ref.sha256, digest)) {
        ct_log(CT_LOG_WARN, "restore", "%s is damaged: left out", path);
        ct_blobs_path(&restoring->blobs, &ref.sha256, stored);
        unlink(stored);
        restoring->damaged++;
    }
    return CT_OK;
}

static enum ct_err take_folder(struct restoring *restoring, unsigned first) {
    char folder[PATH_MAX], path[PATH_MAX], hex[CT_HEX_BYTES], name[16];
    snprintf(name, sizeof name, CT_RUN_BLOBS "/%02x", first);
    CT_TRY(ct_run_path(restoring->copy, name, folder));
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return errno == ENOENT ? CT_OK
                               : ct_fail(CT_ERR_IO, "cannot list %s: %s", folder, strerror(errno));
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        struct ct_hash digest;
        if (strlen(item->d_name) != 62) {
            continue;
        }
        snprintf(hex, sizeof hex, "%02x%.62s", first, item->d_name);
        if (ct_hash_parse(hex, &digest) == CT_OK) {
            err = ct_run_path(folder, item->d_name, path);
            err = err == CT_OK ? take_blob(restoring, path, &digest) : err;
        }
    }
    closedir(dir);
    return err;
}

static enum ct_err take_blobs(struct restoring *restoring) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(restoring->run, CT_RUN_BLOBS, path));
    CT_TRY(ct_blobs_init(&restoring->blobs, path));
    CT_TRY(ct_blobs_sweep(&restoring->blobs));
    for (unsigned first = 0; first < 256; first++) {
        CT_TRY(take_folder(restoring, first));
    }
    return CT_OK;
}

/* Entries up to a note's size, published under it. */
static enum ct_err step_to(struct restoring *restoring, struct ct_bytes note) {
    struct ct_checkpoint checkpoint;
    struct ct_buf entry;
    uint64_t index;
    CT_TRY(ct_checkpoint_parse(note, &checkpoint));
    if (checkpoint.size <= ct_ledger_published(restoring->to)) {
        return CT_OK;
    }
    if (ct_ledger_size(restoring->to) > checkpoint.size) {
        CT_TRY(ct_ledger_cut(restoring->to, checkpoint.size));
    }
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = CT_OK;
    for (uint64_t i = ct_ledger_size(restoring->to); i < checkpoint.size && err == CT_OK; i++) {
        err = ct_ledger_read(restoring->from, i, &entry);
        if (err == CT_OK) {
            err = ct_ledger_append(restoring->to, ct_buf_bytes(&entry), &index);
        }
    }
    ct_buf_deinit(&entry);
    return err == CT_OK ? ct_ledger_accept(restoring->to, note) : err;
}

static enum ct_err take_kept(struct restoring *restoring, const char *ledger_dir, uint64_t size) {
    char name[64], path[PATH_MAX];
    struct ct_buf note;
    snprintf(name, sizeof name, "checkpoints/%" PRIu64, size);
    CT_TRY(ct_run_path(ledger_dir, name, path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = step_to(restoring, ct_buf_bytes(&note));
    }
    if (err == CT_OK) {
        err = ct_ledger_keep_note(restoring->to, ct_buf_bytes(&note));
    }
    ct_buf_deinit(&note);
    return err;
}

static enum ct_err take_all_kept(struct restoring *restoring, const char *ledger_dir) {
    struct ct_buf text;
    uint64_t *sizes = NULL;
    size_t count = 0;
    const int fd = open(ledger_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot open %s: %s", ledger_dir, strerror(errno));
    }
    ct_buf_init(&text, CT_KEPT_LIST_BYTES_MAX);
    enum ct_err err = ct_kept_list_write(fd, &text);
    close(fd);
    if (err == CT_OK) {
        err = ct_kept_list_parse(ct_buf_bytes(&text), &sizes, &count);
    }
    for (size_t i = 0; i < count && err == CT_OK; i++) {
        err = take_kept(restoring, ledger_dir, sizes[i]);
    }
    free(sizes);
    ct_buf_deinit(&text);
    return err;
}

static enum ct_err take_witnessed(struct restoring *restoring, const char *ledger_dir) {
    char path[PATH_MAX];
    struct ct_buf note;
    CT_TRY(ct_run_path(ledger_dir, "witnessed", path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_ledger_cosign(restoring->to, ct_buf_bytes(&note), true);
    } else if (err == CT_ERR_NOT_FOUND) {
        err = CT_OK;
    }
    ct_buf_deinit(&note);
    return err;
}

/* From one kept checkpoint to the next, as the log once grew. What waits behind the copy's newest
 * checkpoint is a stranger's word, and stays behind. */
static enum ct_err take_ledger(struct restoring *restoring, const char *ledger_dir) {
    CT_TRY(take_all_kept(restoring, ledger_dir));
    CT_TRY(step_to(restoring, ct_ledger_checkpoint(restoring->from)));
    CT_TRY(ct_ledger_cut(restoring->to, ct_ledger_published(restoring->to)));
    return take_witnessed(restoring, ledger_dir);
}

/* Last of all: with its keys RUN is a run directory. */
static enum ct_err put_keys(const struct restoring *restoring) {
    char path[PATH_MAX];
    struct ct_ports ports = {0};
    snprintf(ports.host, sizeof ports.host, "%s", restoring->host);
    CT_TRY(ct_ports_save(restoring->run, &ports));
    CT_TRY(ct_run_path(restoring->run, CT_RUN_RESTORED, path));
    CT_TRY(ct_file_replace(path, (struct ct_bytes){NULL, 0}));
    CT_TRY(ct_run_path(restoring->run, "keys", path));
    CT_TRY(ct_dir_make(path));
    if (chmod(path, 0700) != 0) {
        return ct_fail(CT_ERR_IO, "cannot protect %s: %s", path, strerror(errno));
    }
    CT_TRY(ct_run_path(restoring->run, CT_RUN_IDENTITY, path));
    const enum ct_err err = ct_key_save(restoring->identity, path);
    if (err != CT_OK && err != CT_ERR_EXISTS) {
        return err;
    }
    CT_TRY(ct_run_path(restoring->run, CT_RUN_LOG_KEY, path));
    return ct_key_save(restoring->log_key, path);
}

static enum ct_err restore(struct restoring *restoring) {
    char path[PATH_MAX], ledger_dir[PATH_MAX];
    CT_TRY(ct_run_path(restoring->run, CT_RUN_LOG_KEY, path));
    if (access(path, F_OK) == 0) {
        return ct_fail(CT_ERR_EXISTS, "%s holds a run already; choose another directory",
                       restoring->run);
    }
    CT_TRY(load_key(restoring->keys, "identity.pem", &restoring->identity));
    CT_TRY(load_key(restoring->keys, "log.pem", &restoring->log_key));
    CT_TRY(ct_dir_make(restoring->run));
    CT_TRY(open_copy(restoring, ledger_dir));
    CT_TRY(take_blobs(restoring));
    CT_TRY(take_ledger(restoring, ledger_dir));
    return put_keys(restoring);
}

static void print_result(const struct restoring *restoring, const struct ct_run *run) {
    const struct ct_fold *fold = &run->replay.fold;
    const bool open = fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD;
    char id[CT_HEX_BYTES];
    ct_hash_hex(&fold->run_id, id);
    printf("run        %s\nentries    %" PRIu64 ", every rule checked\nblobs      %" PRIu64
           ", %" PRIu64 " damaged\nstands     %s round %" PRIu32 " of %" PRIu32 "\n",
           id, fold->entries, restoring->blob_count, restoring->damaged, open ? "in" : "after",
           fold->round, fold->manifest.rounds);
    if (open) {
        puts("uploads    of this round that are not logged as received are gone; nodes send them "
             "again");
    }
    printf("not here   what was published after entry %" PRIu64
           ", if anything was: no copy of it was given.\n"
           "           serve asks witnesses, --mirror URL and as many nodes as are a quorum before "
           "it appends,\n"
           "           and ends when one holds more\n\n"
           "Next: cotraind serve %s --listen 0.0.0.0:PORT --http PORT --mirror URL\n"
           "with the ports of before, for which nodes hold tickets, and every mirror that you "
           "know.\n",
           fold->entries - 1, restoring->run);
}

static int run(struct restoring *restoring) {
    struct ct_run opened;
    enum ct_err err = restore(restoring);
    ct_ledger_close(restoring->from);
    ct_ledger_close(restoring->to);
    ct_key_free(restoring->identity);
    ct_key_free(restoring->log_key);
    if (err == CT_OK) {
        /* As serve will. */
        err = ct_run_open(restoring->run, NULL, NULL, &opened);
    }
    if (err == CT_OK) {
        print_result(restoring, &opened);
        ct_run_close(&opened);
    }
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind restore", err);
}

static int fail_usage(const char *text) {
    fprintf(stderr, "cotraind restore: %s; cotraind restore --help tells how\n", text);
    return CT_EXIT_USAGE;
}

int ct_cmd_restore(int argc, char **argv) {
    static const struct option options[] = {
        {"keys", required_argument, NULL, 'k'},
        {"host", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct restoring restoring = {.host = "localhost"};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'k':
            restoring.keys = optarg;
            break;
        case 'n':
            restoring.host = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        default:
            return CT_EXIT_USAGE;
        }
    }
    if (argc - optind != 2 || restoring.keys == NULL) {
        return fail_usage("it needs COPY, RUN and --keys KEYS");
    }
    if (restoring.host[0] == '\0' || strlen(restoring.host) > 255 ||
        strpbrk(restoring.host, " \t\r\n/") != NULL) {
        return fail_usage("--host takes a name or an address");
    }
    restoring.copy = argv[optind];
    restoring.run = argv[optind + 1];
    return run(&restoring);
}
