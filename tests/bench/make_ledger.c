/* Makes large ledgers quickly, for measurements: a whole run that every rule, digest and
 * aggregation of which holds (its losses and updates are made up, so only recomputing the work
 * finds fault), or the log alone. Nothing is synced file by file, so half a million blobs take
 * seconds.
 *
 * usage: make_ledger DIR ENTRIES [--nodes N] [--log-only] [--publish N] [--policy FILE]
 */
#include <cotrain/command.h>
#include <cotrain/dataset.h>
#include <cotrain/isa.h>
#include <cotrain/ledger.h>
#include <cotrain/philox.h>
#include <cotrain/replay.h>
#include <cotrain/run_dir.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ORIGIN          "example.org/large"
#define PUBLISH_ENTRIES 20000u
#define LOG_ENTRY_BYTES 300u
#define EPOCH_ROUNDS    16u

static const char usage[] =
    "usage: make_ledger DIR ENTRIES [--nodes N] [--log-only] [--publish N] [--policy FILE]\n"
    "\n"
    "Makes the run directory DIR with at least ENTRIES entries: whole rounds of N nodes (default "
    "64,\n"
    "2·N + 3 entries a round), every signature, rule, digest and aggregation of which holds.\n"
    "--log-only makes DIR as a bare ledger of ENTRIES entries of 300 bytes; its key is DIR.pem.\n"
    "--publish N signs and keeps a checkpoint every N entries (default 20000). --policy FILE "
    "names\n"
    "the run's witnesses.\n";

/* A blob of the open round, which the fold and the merge ask for. */
struct kept {
    struct ct_blob_ref ref;
    struct ct_buf bytes;
};

struct maker {
    const char *dir, *policy;
    uint64_t wanted, publish;
    uint32_t nodes;
    struct ct_key *identity, *log_key;
    struct ct_key **node_keys; /* [nodes] */
    struct ct_manifest manifest;
    struct ct_ledger *ledger;
    struct ct_fold fold;
    float *theta, *local, *residual;
    struct kept *kept; /* [2 · nodes + 8] */
    uint32_t kept_count;
};

static enum ct_err in_dir(const struct maker *maker, const char *name, char out[4096]) {
    const int length = snprintf(out, 4096, "%s/%s", maker->dir, name);
    return length > 0 && length < 4096 ? CT_OK : ct_fail(CT_ERR_CONFIG, "the path is too long");
}

static enum ct_err write_file(const char *path, struct ct_bytes bytes) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const bool written = fd >= 0 && write(fd, bytes.data, bytes.length) == (ssize_t)bytes.length;
    if (fd >= 0) {
        close(fd);
    }
    return written ? CT_OK : ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
}

/* Keeps a copy in memory until the round is over, and the file for ever. */
static enum ct_err put(struct maker *maker, struct ct_bytes bytes, struct ct_blob_ref *out) {
    struct kept *kept = &maker->kept[maker->kept_count];
    *out = (struct ct_blob_ref){ct_sha256(bytes), bytes.length};
    kept->ref = *out;
    ct_buf_init(&kept->bytes, bytes.length);
    CT_TRY(ct_buf_append(&kept->bytes, bytes.data, bytes.length));
    maker->kept_count++;
    char hex[CT_HEX_BYTES], name[96], path[4096];
    ct_hash_hex(&out->sha256, hex);
    snprintf(name, sizeof name, CT_RUN_BLOBS "/%.2s", hex);
    CT_TRY(in_dir(maker, name, path));
    mkdir(path, 0777);
    snprintf(name, sizeof name, CT_RUN_BLOBS "/%.2s/%s", hex, hex + 2);
    CT_TRY(in_dir(maker, name, path));
    return write_file(path, bytes);
}

static void forget_kept(struct maker *maker) {
    for (uint32_t i = 0; i < maker->kept_count; i++) {
        ct_buf_deinit(&maker->kept[i].bytes);
    }
    maker->kept_count = 0;
}

static enum ct_err kept_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                             struct ct_buf *out) {
    const struct maker *maker = user;
    for (uint32_t i = 0; i < maker->kept_count; i++) {
        if (ct_hash_equal(&maker->kept[i].ref.sha256, &ref->sha256)) {
            ct_buf_init(out, maximum);
            return ct_buf_append(out, maker->kept[i].bytes.data, maker->kept[i].bytes.length);
        }
    }
    return ct_fail(CT_ERR_NOT_FOUND, "no blob of this round");
}

/* Signs an entry, folds it and appends it. */
static enum ct_err add(struct maker *maker, struct ct_entry *entry) {
    struct ct_buf payload, envelope;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&envelope, CT_ENTRY_BYTES_MAX);
    entry->version = 1;
    entry->run_id = maker->fold.run_id;
    entry->time_ms = (int64_t)(1000 * maker->fold.entries);
    enum ct_err err = ct_entry_encode(entry, &payload);
    if (err == CT_OK) {
        err =
            ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, maker->identity, &envelope);
    }
    if (err == CT_OK) {
        err = ct_fold_apply(&maker->fold, ct_buf_bytes(&envelope), false, kept_blob, maker);
    }
    uint64_t index = 0;
    if (err == CT_OK) {
        err = ct_ledger_append(maker->ledger, ct_buf_bytes(&envelope), &index);
    }
    if (err == CT_OK && (index + 1) % maker->publish == 0) {
        err = ct_ledger_publish(maker->ledger);
        err = err == CT_OK ? ct_ledger_keep(maker->ledger) : err;
        fprintf(stderr, "\r%" PRIu64 " entries", index + 1);
    }
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return err;
}

static struct ct_entry of_round(const struct maker *maker, enum ct_entry_kind kind) {
    return (struct ct_entry){.kind = kind, .round = maker->fold.round};
}

static enum ct_err make_data(struct maker *maker) {
    char text[4096], data[4096], path[4096];
    CT_TRY(in_dir(maker, "text", text));
    CT_TRY(in_dir(maker, "data", data));
    struct ct_buf bytes;
    ct_buf_init(&bytes, 65536);
    for (int i = 0; i < 400; i++) {
        CT_TRY(ct_buf_printf(&bytes, "line %d of a text that nobody reads\n", i));
    }
    enum ct_err err = write_file(text, ct_buf_bytes(&bytes));
    ct_buf_deinit(&bytes);
    const char *paths[] = {text};
    const struct ct_dataset_recipe recipe = {.name = "lines",
                                             .license = "CC0-1.0",
                                             .source = "made",
                                             .processing = "none",
                                             .paths = paths,
                                             .path_count = 1,
                                             .heldout_percent = 10,
                                             .shard_tokens = 1u << 20};
    if (err == CT_OK) {
        err = ct_dataset_build(&recipe, data);
    }
    CT_TRY(err);
    struct ct_dataset dataset;
    ct_buf_init(&bytes, CT_DATASET_BYTES_MAX);
    CT_TRY(in_dir(maker, "data/" CT_DATASET_FILE, path));
    CT_TRY(ct_file_read(path, &bytes));
    CT_TRY(put(maker, ct_buf_bytes(&bytes), &maker->manifest.dataset));
    CT_TRY(ct_dataset_parse(ct_buf_bytes(&bytes), &dataset));
    unlink(path);
    for (uint32_t i = 0; i < dataset.shard_count && err == CT_OK; i++) {
        struct ct_blob_ref ref;
        ct_buf_clear(&bytes);
        err = ct_shard_in_dir(data, &dataset.shards[i], path);
        err = err == CT_OK ? ct_file_read(path, &bytes) : err;
        err = err == CT_OK ? put(maker, ct_buf_bytes(&bytes), &ref) : err;
        unlink(path);
    }
    ct_dataset_deinit(&dataset);
    ct_buf_deinit(&bytes);
    unlink(text);
    rmdir(data);
    return err;
}

static enum ct_err make_manifest(struct maker *maker) {
    static float rates[2] = {1e-3f, 1e-3f};
    const uint64_t round_entries = 2ull * maker->nodes + 3;
    const uint64_t rounds = (maker->wanted + round_entries - 1) / round_entries;
    maker->manifest = (struct ct_manifest){
        .version = 1,
        .name = "large",
        .license = "Apache-2.0",
        .provenance = "made up",
        .data_license = "CC0-1.0",
        .model =
            {.arch = CT_ARCH_GPT2, .vocab = 256, .context = 8, .layers = 1, .heads = 1, .width = 2},
        .numerics = CT_NUMERICS_BF16_1,
        .tokenizer = "bytes",
        .rounds = (uint32_t)rounds,
        .batch = 1,
        .leaves = 1,
        .steps_min = 1,
        .steps = 1,
        .steps_max = 2,
        .adamw = ct_adamw_default(),
        .rate_unit = 1000,
        .rate_count = 2,
        .rates = rates,
        .epoch_rounds = EPOCH_ROUNDS,
        .snapshot_rounds = 64,
        .quorum_nodes = maker->nodes < 2 ? 1 : 2,
        .round_time_ms = 60000,
        .upload_time_ms = 60000,
        .checkpoint_time_ms = 1000,
        .node_count = maker->nodes,
    };
    struct ct_manifest *manifest = &maker->manifest;
    if (maker->policy != NULL) {
        struct ct_buf text;
        ct_buf_init(&text, sizeof manifest->policy - 1);
        CT_TRY(ct_file_read(maker->policy, &text));
        memcpy(manifest->policy, text.data, text.length);
        ct_buf_deinit(&text);
    }
    manifest->source = strdup("run: {}\n");
    manifest->nodes = calloc(maker->nodes, sizeof manifest->nodes[0]);
    maker->node_keys = calloc(maker->nodes, sizeof maker->node_keys[0]);
    maker->kept = calloc(2ull * maker->nodes + 8, sizeof maker->kept[0]);
    if (manifest->source == NULL || manifest->nodes == NULL || maker->node_keys == NULL ||
        maker->kept == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u nodes", maker->nodes);
    }
    for (uint32_t i = 0; i < maker->nodes; i++) {
        CT_TRY(ct_key_generate(&maker->node_keys[i]));
        manifest->nodes[i] = ct_key_public(maker->node_keys[i]);
    }
    return CT_OK;
}

static enum ct_err open_run(struct maker *maker) {
    struct ct_entry entry = {.kind = CT_ENTRY_RUN_OPENED};
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MANIFEST_BYTES_MAX);
    enum ct_err err = ct_manifest_encode(&maker->manifest, &bytes);
    if (err == CT_OK) {
        err = put(maker, ct_buf_bytes(&bytes), &entry.body.run_opened.manifest);
    }
    ct_buf_deinit(&bytes);
    CT_TRY(err);
    ct_random(entry.body.run_opened.nonce, sizeof entry.body.run_opened.nonce);
    entry.body.run_opened.identity_key = ct_key_public(maker->identity);
    entry.body.run_opened.log_key = ct_key_public(maker->log_key);
    memcpy(entry.body.run_opened.origin, ORIGIN, sizeof ORIGIN);
    CT_TRY(add(maker, &entry));
    for (uint32_t i = 1; i <= maker->nodes; i++) {
        entry = of_round(maker, CT_ENTRY_NODE_ADMITTED);
        entry.body.node_admitted.node = i;
        entry.body.node_admitted.key = maker->manifest.nodes[i - 1];
        entry.body.node_admitted.profile.bytes[0] = 1;
        CT_TRY(add(maker, &entry));
    }
    const size_t parameters = maker->fold.layout.parameters;
    maker->theta = calloc(parameters, sizeof(float));
    maker->local = calloc(parameters, sizeof(float));
    maker->residual = calloc(parameters, sizeof(float));
    if (maker->theta == NULL || maker->local == NULL || maker->residual == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for models");
    }
    ct_layout_draw(&maker->fold.layout, &maker->fold.run_seed, maker->theta);
    return CT_OK;
}

static void round_seed(const struct maker *maker, uint32_t round, uint8_t out[32]) {
    memset(out, 0, 32);
    memcpy(out, &round, sizeof round);
    memcpy(out + 8, maker->fold.run_seed.bytes, 16);
}

static enum ct_err open_round(struct maker *maker) {
    struct ct_plan_request *requests = calloc(maker->nodes, sizeof *requests);
    struct ct_assignments assignments;
    struct ct_entry entry = of_round(maker, CT_ENTRY_ROUND_OPENED);
    struct ct_round_opened *opened = &entry.body.round_opened;
    if (requests == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a plan");
    }
    for (uint32_t i = 0; i < maker->nodes; i++) {
        requests[i] = (struct ct_plan_request){i + 1, 1, maker->fold.round > 0};
    }
    enum ct_err err = ct_plan_round(&maker->fold, requests, maker->nodes, &assignments);
    free(requests);
    CT_TRY(err);
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ASSIGNMENTS_BYTES_MAX);
    err = ct_assignments_encode(&assignments, &bytes);
    if (err == CT_OK) {
        err = put(maker, ct_buf_bytes(&bytes), &opened->assignments);
    }
    ct_buf_deinit(&bytes);
    opened->planned_tokens = ct_plan_tokens(&maker->fold, &assignments);
    ct_assignments_deinit(&assignments);
    CT_TRY(err);
    entry.round++;
    opened->base = ct_model_digest(&maker->fold.layout, maker->theta);
    opened->tokens_at_base = maker->fold.tokens;
    uint8_t seed[32];
    round_seed(maker, entry.round, seed);
    opened->seed_hash = ct_sha256((struct ct_bytes){seed, sizeof seed});
    return add(maker, &entry);
}

/* A random update of a few values, in its canonical encoding. */
static enum ct_err make_payload(struct maker *maker, uint32_t node, struct ct_blob_ref *out) {
    const struct ct_fold *fold = &maker->fold;
    const struct ct_update_header header = {fold->round_opened.assignments.sha256, 1};
    const struct ct_philox philox = ct_philox_make(&fold->run_seed, CT_STREAM_TEST);
    for (size_t i = 0; i < fold->layout.parameters; i++) {
        uint32_t words[4];
        ct_philox_block(&philox, (uint64_t)node << 32 | i, fold->round, words);
        maker->local[i] = maker->theta[i] + 0x1p-40f * (float)(int32_t)words[0];
    }
    memset(maker->residual, 0, fold->layout.parameters * sizeof(float));
    const size_t maximum = ct_update_bytes_max(&fold->chunks);
    struct ct_buf bytes;
    ct_buf_init(&bytes, maximum);
    enum ct_err err = ct_buf_reserve(&bytes, maximum);
    if (err == CT_OK) {
        ct_update_encode(&fold->chunks, &header, maker->theta, maker->local, maker->residual,
                         bytes.data, &bytes.length);
        err = put(maker, ct_buf_bytes(&bytes), out);
    }
    ct_buf_deinit(&bytes);
    return err;
}

static enum ct_err commit(struct maker *maker, uint32_t node) {
    const struct ct_fold *fold = &maker->fold;
    struct ct_commit statement = {
        .version = 1,
        .run_id = fold->run_id,
        .round = fold->round,
        .author = node,
        .assignment = fold->round_opened.assignments.sha256,
        .state = fold->round_opened.assignments.sha256,
        .steps = 1,
        .loss = 5.5f / (1.0f + 0.002f * (float)fold->round) + 0.01f * (float)(node % 7),
    };
    CT_TRY(make_payload(maker, node, &statement.update));
    struct ct_buf payload, envelope;
    ct_buf_init(&payload, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&envelope, CT_STATEMENT_BYTES_MAX);
    struct ct_entry entry = of_round(maker, CT_ENTRY_COMMIT);
    enum ct_err err = ct_commit_encode(&statement, &payload);
    if (err == CT_OK) {
        err = ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), node,
                               maker->node_keys[node - 1], &envelope);
    }
    if (err == CT_OK) {
        entry.body.commit.length = (uint32_t)envelope.length;
        memcpy(entry.body.commit.envelope, envelope.data, envelope.length);
        err = add(maker, &entry);
    }
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
    return err;
}

static enum ct_err close_round(struct maker *maker) {
    struct ct_fold *fold = &maker->fold;
    struct ct_merge_list list;
    struct ct_entry entry = of_round(maker, CT_ENTRY_ROUND_CLOSED);
    struct ct_round_closed *closed = &entry.body.round_closed;
    CT_TRY(ct_merge_round(fold, kept_blob, maker, maker->theta, maker->theta, &list));
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_MERGE_LIST_BYTES_MAX);
    enum ct_err err = ct_merge_list_encode(&list, &bytes);
    if (err == CT_OK) {
        err = put(maker, ct_buf_bytes(&bytes), &closed->merged);
    }
    ct_buf_deinit(&bytes);
    ct_merge_list_deinit(&list);
    CT_TRY(err);
    closed->model = ct_model_digest(&fold->layout, maker->theta);
    closed->tokens = fold->round_opened.planned_tokens;
    closed->has_snapshot =
        fold->round % fold->manifest.snapshot_rounds == 0 || fold->round == fold->manifest.rounds;
    if (closed->has_snapshot) {
        struct ct_blob_ref ref;
        const struct ct_bytes model = {(const uint8_t *)maker->theta,
                                       fold->layout.parameters * sizeof(float)};
        CT_TRY(put(maker, model, &ref));
    }
    return add(maker, &entry);
}

static enum ct_err make_round(struct maker *maker) {
    CT_TRY(open_round(maker));
    for (uint32_t node = 1; node <= maker->nodes; node++) {
        CT_TRY(commit(maker, node));
    }
    struct ct_entry entry = of_round(maker, CT_ENTRY_COMMITS_CLOSED);
    round_seed(maker, maker->fold.round, entry.body.commits_closed.seed);
    CT_TRY(add(maker, &entry));
    for (uint32_t node = 1; node <= maker->nodes; node++) {
        entry = of_round(maker, CT_ENTRY_RECEIVED);
        entry.body.received.commit_index = maker->fold.nodes[node - 1].commit_index;
        CT_TRY(add(maker, &entry));
    }
    CT_TRY(close_round(maker));
    forget_kept(maker);
    return CT_OK;
}

static enum ct_err make_run(struct maker *maker) {
    char path[4096];
    CT_TRY(ct_isa_start());
    CT_TRY(in_dir(maker, CT_RUN_BLOBS, path));
    CT_TRY(ct_dir_make(path));
    CT_TRY(in_dir(maker, "keys", path));
    CT_TRY(ct_dir_make(path));
    CT_TRY(make_manifest(maker));
    CT_TRY(make_data(maker));
    CT_TRY(ct_key_generate(&maker->identity));
    CT_TRY(in_dir(maker, CT_RUN_IDENTITY, path));
    CT_TRY(ct_key_save(maker->identity, path));
    CT_TRY(in_dir(maker, CT_RUN_LOG_KEY, path));
    CT_TRY(ct_key_save(maker->log_key, path));
    static const char ports[] = "host 127.0.0.1\nwork 0\nhttp 0\n";
    CT_TRY(in_dir(maker, CT_RUN_PORTS, path));
    CT_TRY(write_file(path, (struct ct_bytes){(const uint8_t *)ports, sizeof ports - 1}));
    CT_TRY(in_dir(maker, CT_RUN_LEDGER, path));
    CT_TRY(ct_ledger_create(path, ORIGIN, maker->log_key, &maker->ledger));
    CT_TRY(open_run(maker));
    forget_kept(maker);
    while (maker->fold.phase != CT_PHASE_FINISHED) {
        CT_TRY(make_round(maker));
    }
    return CT_OK;
}

static enum ct_err make_log(struct maker *maker) {
    char path[4096];
    snprintf(path, sizeof path, "%.4000s.pem", maker->dir);
    CT_TRY(ct_key_save(maker->log_key, path));
    CT_TRY(ct_ledger_create(maker->dir, ORIGIN, maker->log_key, &maker->ledger));
    uint8_t entry[LOG_ENTRY_BYTES];
    ct_random(entry, sizeof entry);
    for (uint64_t i = 0; i < maker->wanted; i++) {
        uint64_t index;
        memcpy(entry, &i, sizeof i);
        CT_TRY(ct_ledger_append(maker->ledger, (struct ct_bytes){entry, sizeof entry}, &index));
        if ((index + 1) % maker->publish == 0) {
            CT_TRY(ct_ledger_publish(maker->ledger));
        }
    }
    return CT_OK;
}

static void release(struct maker *maker) {
    ct_ledger_close(maker->ledger);
    forget_kept(maker);
    ct_fold_deinit(&maker->fold);
    for (uint32_t i = 0; maker->node_keys != NULL && i < maker->nodes; i++) {
        ct_key_free(maker->node_keys[i]);
    }
    ct_key_free(maker->identity);
    ct_key_free(maker->log_key);
    free(maker->node_keys);
    free(maker->manifest.nodes);
    free(maker->manifest.source);
    free(maker->theta);
    free(maker->local);
    free(maker->residual);
    free(maker->kept);
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"nodes", required_argument, NULL, 'n'},   {"log-only", no_argument, NULL, 'l'},
        {"publish", required_argument, NULL, 'p'}, {"policy", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    struct maker maker = {.nodes = 64, .publish = PUBLISH_ENTRIES};
    bool log_only = false;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'n') {
            maker.nodes = (uint32_t)strtoul(optarg, NULL, 10);
        } else if (option == 'l') {
            log_only = true;
        } else if (option == 'p') {
            maker.publish = strtoull(optarg, NULL, 10);
        } else if (option == 'w') {
            maker.policy = optarg;
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? CT_EXIT_DONE : CT_EXIT_USAGE;
        }
    }
    if (argc - optind != 2 || maker.nodes == 0 || maker.nodes > CT_NODES_MAX ||
        maker.publish == 0) {
        fputs(usage, stderr);
        return CT_EXIT_USAGE;
    }
    maker.dir = argv[optind];
    maker.wanted = strtoull(argv[optind + 1], NULL, 10);
    ct_fold_init(&maker.fold);
    enum ct_err err = ct_key_generate(&maker.log_key);
    if (err == CT_OK) {
        err = log_only ? make_log(&maker) : make_run(&maker);
    }
    if (err == CT_OK) {
        err = ct_ledger_publish(maker.ledger);
    }
    if (err == CT_OK) {
        fprintf(stderr, "\r%s: %" PRIu64 " entries\n", maker.dir, ct_ledger_size(maker.ledger));
    }
    release(&maker);
    return err == CT_OK ? CT_EXIT_DONE : ct_command_fail("make_ledger", err);
}
