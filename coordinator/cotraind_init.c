/* cotraind init: from an operator's manifest to a run directory with its first entry published. */
#include "cotraind.h"
#include "run.h"

#include <cotrain/command.h>
#include <cotrain/dataset.h>

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char usage[] =
    "usage: cotraind init RUN.yaml DIR [--host HOST] [--origin ORIGIN]\n"
    "\n"
    "Checks the manifest RUN.yaml and the data it names, makes the run directory DIR with its "
    "keys\n"
    "and blobs, and publishes the ledger's first entry. Nothing in DIR can be changed afterwards:\n"
    "the run id is the digest of that entry.\n"
    "\n"
    "  --host HOST      the name or address by which nodes reach this machine (localhost)\n"
    "  --origin ORIGIN  the ledger's name for ever, a URL without scheme (HOST/the run's name)\n";

/* What the run is opened with. */
struct opening {
    const char *dir, *host;
    char origin[CT_ORIGIN_BYTES_MAX];
    char data_dir[PATH_MAX];
    struct ct_manifest manifest;
    struct ct_blobs blobs;
    struct ct_key *identity, *log_key;
    struct ct_hash run_id;
};

/* A key that a former, unfinished init made is taken. */
static enum ct_err make_key(const char *dir, const char *name, struct ct_key **out) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(dir, name, path));
    enum ct_err err = ct_key_load(path, out);
    if (err != CT_ERR_NOT_FOUND) {
        return err;
    }
    CT_TRY(ct_key_generate(out));
    return ct_key_save(*out, path);
}

static enum ct_err make_dirs(struct opening *opening) {
    static const char *const names[] = {"keys", CT_RUN_BLOBS, CT_RUN_INCOMING, CT_RUN_EVIDENCE};
    char path[PATH_MAX];
    struct stat status;
    CT_TRY(ct_run_path(opening->dir, CT_RUN_LEDGER, path));
    if (stat(path, &status) == 0) {
        return ct_fail(CT_ERR_EXISTS, "%s holds a run already; choose another directory",
                       opening->dir);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CT_TRY(ct_run_path(opening->dir, names[i], path));
        CT_TRY(ct_dir_make(path));
    }
    CT_TRY(ct_run_path(opening->dir, "keys", path));
    if (chmod(path, 0700) != 0) {
        return ct_fail(CT_ERR_IO, "cannot protect %s: %s", path, strerror(errno));
    }
    CT_TRY(ct_run_path(opening->dir, CT_RUN_BLOBS, path));
    return ct_blobs_init(&opening->blobs, path);
}

static enum ct_err import_shards(struct opening *opening, const struct ct_dataset *dataset) {
    for (uint32_t i = 0; i < dataset->shard_count; i++) {
        const struct ct_shard *shard = &dataset->shards[i];
        char path[PATH_MAX];
        struct ct_blob_ref ref;
        CT_TRY(ct_shard_in_dir(opening->data_dir, shard, path));
        CT_TRY(ct_blobs_import(&opening->blobs, path, &ref));
        if (ref.length != shard->ref.length || !ct_hash_equal(&ref.sha256, &shard->ref.sha256)) {
            return ct_fail(CT_ERR_DIGEST,
                           "%s is not what " CT_DATASET_FILE " says; build the data set again",
                           path);
        }
    }
    return CT_OK;
}

static enum ct_err import_data(struct opening *opening) {
    char path[PATH_MAX];
    CT_TRY(ct_run_path(opening->data_dir, CT_DATASET_FILE, path));
    struct ct_buf json;
    ct_buf_init(&json, CT_DATASET_BYTES_MAX);
    struct ct_dataset dataset;
    struct ct_blob_ref ref;
    enum ct_err err = ct_file_read(path, &json);
    if (err == CT_OK) {
        err = ct_blobs_put(&opening->blobs, ct_buf_bytes(&json), &ref);
    }
    if (err == CT_OK && !ct_hash_equal(&ref.sha256, &opening->manifest.dataset.sha256)) {
        err = ct_fail(CT_ERR_DIGEST, "%s changed while it was read", path);
    }
    if (err == CT_OK) {
        err = ct_dataset_parse(ct_buf_bytes(&json), &dataset);
    }
    ct_buf_deinit(&json);
    if (err == CT_OK) {
        err = import_shards(opening, &dataset);
        ct_dataset_deinit(&dataset);
    }
    return err;
}

static enum ct_err store_manifest(struct opening *opening, struct ct_blob_ref *out) {
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    enum ct_err err = ct_manifest_encode(&opening->manifest, &bytes);
    if (err == CT_OK) {
        err = ct_blobs_put(&opening->blobs, ct_buf_bytes(&bytes), out);
    }
    ct_buf_deinit(&bytes);
    return err;
}

/* The digest that names the run covers the payload, so it is taken from the sealed bytes. */
static enum ct_err publish(struct opening *opening, struct ct_ledger *ledger,
                           struct ct_bytes entry) {
    struct ct_envelope envelope;
    uint64_t index;
    CT_TRY(ct_envelope_open(entry, &envelope));
    opening->run_id = ct_run_id(envelope.payload);
    CT_TRY(ct_ledger_append(ledger, entry, &index));
    CT_TRY(ct_ledger_publish(ledger));
    return ct_ledger_keep(ledger);
}

static enum ct_err write_first_entry(struct opening *opening, const struct ct_blob_ref *manifest) {
    struct ct_entry entry = {.kind = CT_ENTRY_RUN_OPENED};
    struct ct_run_opened *opened = &entry.body.run_opened;
    opened->manifest = *manifest;
    ct_random(opened->nonce, sizeof opened->nonce);
    opened->identity_key = ct_key_public(opening->identity);
    opened->log_key = ct_key_public(opening->log_key);
    memcpy(opened->origin, opening->origin, sizeof opened->origin);
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    struct ct_ledger *ledger = NULL;
    char path[PATH_MAX];
    enum ct_err err = ct_run_seal(opening->identity, &entry, &bytes);
    if (err == CT_OK) {
        err = ct_run_path(opening->dir, CT_RUN_LEDGER, path);
    }
    if (err == CT_OK) {
        err = ct_ledger_create(path, opening->origin, opening->log_key, &ledger);
    }
    if (err == CT_OK) {
        err = publish(opening, ledger, ct_buf_bytes(&bytes));
        ct_ledger_close(ledger);
    }
    ct_buf_deinit(&bytes);
    return err;
}

static enum ct_err open_run(struct opening *opening) {
    struct ct_blob_ref manifest;
    CT_TRY(make_dirs(opening));
    CT_TRY(import_data(opening));
    CT_TRY(store_manifest(opening, &manifest));
    CT_TRY(make_key(opening->dir, CT_RUN_IDENTITY, &opening->identity));
    CT_TRY(make_key(opening->dir, CT_RUN_LOG_KEY, &opening->log_key));
    struct ct_ports ports = {0};
    snprintf(ports.host, sizeof ports.host, "%s", opening->host);
    CT_TRY(ct_ports_save(opening->dir, &ports));
    return write_first_entry(opening, &manifest);
}

/* Key names allow no spaces and no plus; others are replaced, since a run's name may have them. */
static void make_origin(struct opening *opening) {
    int start = snprintf(opening->origin, sizeof opening->origin, "%s/%s", opening->host,
                         opening->manifest.name);
    for (int i = 0; i < start && opening->origin[i] != '\0'; i++) {
        unsigned char c = (unsigned char)opening->origin[i];
        if (!isalnum(c) && strchr("-._:/[]", c) == NULL) {
            opening->origin[i] = '-';
        }
    }
}

static void print_result(const struct opening *opening) {
    char id[CT_HEX_BYTES], vkey[CT_VKEY_BYTES_MAX];
    struct ct_hash log_key = ct_key_public(opening->log_key);
    ct_hash_hex(&opening->run_id, id);
    ct_vkey_format(opening->origin, &log_key, vkey);
    printf("run           %s\norigin        %s\nverifier key  %s\n", id, opening->origin, vkey);
    const struct ct_manifest *manifest = &opening->manifest;
    if (manifest->retention_rounds > 0) {
        printf("updates       kept for %u rounds or more, then removed for good (retention)\n",
               manifest->retention_rounds + manifest->epoch_rounds - 1);
    }
    puts("");
    printf("Next: cotraind serve %s\nKeep %s/keys to yourself and in a safe copy.\n", opening->dir,
           opening->dir);
}

static int run(struct opening *opening, const char *manifest, const char *origin) {
    enum ct_err err = ct_manifest_load(manifest, &opening->manifest, opening->data_dir);
    if (err != CT_OK) {
        return ct_command_fail("cotraind init", err);
    }
    make_origin(opening);
    if (origin != NULL) {
        snprintf(opening->origin, sizeof opening->origin, "%s", origin);
    }
    err = open_run(opening);
    if (err == CT_OK) {
        print_result(opening);
    }
    ct_key_free(opening->identity);
    ct_key_free(opening->log_key);
    ct_manifest_deinit(&opening->manifest);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("cotraind init", err);
}

static int fail_usage(const char *text) {
    fprintf(stderr, "cotraind init: %s; cotraind init --help tells how\n", text);
    return CT_EXIT_USAGE;
}

int ct_cmd_init(int argc, char **argv) {
    static const struct option options[] = {
        {"host", required_argument, NULL, 'n'},
        {"origin", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct opening opening = {.host = "localhost"};
    const char *origin = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            opening.host = optarg;
            break;
        case 'o':
            origin = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return CT_EXIT_DONE;
        default:
            return CT_EXIT_USAGE;
        }
    }
    if (argc - optind != 2) {
        return fail_usage("it needs RUN.yaml and DIR");
    }
    if (opening.host[0] == '\0' || strlen(opening.host) > 255 ||
        strpbrk(opening.host, " \t\r\n/") != NULL) {
        return fail_usage("--host takes a name or an address");
    }
    if (origin != NULL && (origin[0] == '\0' || strlen(origin) >= CT_ORIGIN_BYTES_MAX)) {
        return fail_usage("--origin takes 1 to 127 bytes");
    }
    opening.dir = argv[optind + 1];
    return run(&opening, argv[optind], origin);
}
