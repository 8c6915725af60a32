/* cotrain bench ledger: appending, hashing, proving and verifying. */
#include "bench.h"

#include "option.h"

#include <cotrain/assert.h>
#include <cotrain/entry.h>
#include <cotrain/ledger.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain bench ledger [OPTIONS]\n"
    "\n"
    "A ledger of entries of 300 bytes. `append` makes batches durable and publishes them, as the\n"
    "coordinator does; its yardstick is one write and one sync of the same bytes. `leaf` hashes\n"
    "entries, beside SHA-256 of long messages for as many blocks; `tree` adds the nodes above.\n"
    "`prove` makes inclusion proofs from the ledger on disk, beside their verification. `verify`\n"
    "takes an entry as an auditor does: envelope, signature, hashes; beside its signature alone.\n"
    "`signatures` are checked on all threads, beside `openssl speed` where it is installed.\n"
    "\n"
    "  --dir DIR        where the ledger is made, and removed again (.)\n"
    "  --batch N        entries that are published together (100, 1000 and 10000, a tenth, a half\n"
    "                   and the rest of the ledger)\n"
    "  --entries N      of the ledger (100000)\n" CT_BENCH_USAGE;

enum { ENTRY_BYTES = 300, TURN = 4096, THREADS_MAX = 1024 };

struct bench_ledger {
    const char *dir;
    uint32_t batch; /* 0: of several sizes */
    uint32_t entries;
    char path[PATH_MAX];
    struct ct_key *key;
    struct ct_hash public_key;
    uint8_t entry[ENTRY_BYTES];
    struct ct_buf sealed; /* an envelope of a like size */
    struct ct_ledger *ledger;
    struct ct_hash root;
    uint64_t index;
    struct ct_frontier frontier;
    struct ct_proof proofs[TURN];
    uint8_t *block; /* a long message */
    enum ct_err err;
};

enum { LONG_BYTES = 1 << 20 };

/* The first failure ends the benchmark after its turn. */
static void note(struct bench_ledger *it, enum ct_err err) {
    it->err = it->err == CT_OK ? err : it->err;
}

static struct ct_bytes next_entry(struct bench_ledger *it) {
    memcpy(it->entry, &it->index, sizeof it->index);
    it->index++;
    return (struct ct_bytes){it->entry, sizeof it->entry};
}

static void hash_leaves(void *context) {
    struct bench_ledger *it = context;
    for (int i = 0; i < TURN; i++) {
        struct ct_hash leaf = ct_leaf_hash(next_entry(it));
        it->root.bytes[0] ^= leaf.bytes[0];
    }
}

static void hash_tree(void *context) {
    struct bench_ledger *it = context;
    for (int i = 0; i < TURN; i++) {
        const struct ct_hash leaf = ct_leaf_hash(next_entry(it));
        ct_frontier_append(&it->frontier, &leaf);
    }
}

static void hash_long(void *context) {
    struct bench_ledger *it = context;
    const struct ct_hash hash = ct_sha256((struct ct_bytes){it->block, LONG_BYTES});
    it->root.bytes[0] ^= hash.bytes[0];
}

/* Indices far apart, each a tile of its own. */
static uint64_t far_index(const struct bench_ledger *it, int i) {
    return (uint64_t)i * 2654435761u % it->entries;
}

static void prove(void *context) {
    struct bench_ledger *it = context;
    for (int i = 0; i < TURN; i++) {
        note(it, ct_ledger_prove(it->ledger, far_index(it, i), &it->proofs[i]));
    }
}

static struct ct_hash leaf_at(struct bench_ledger *it, uint64_t index) {
    it->index = index;
    return ct_leaf_hash(next_entry(it));
}

static void verify_proofs(void *context) {
    struct bench_ledger *it = context;
    for (int i = 0; i < TURN; i++) {
        const struct ct_hash leaf = leaf_at(it, far_index(it, i));
        note(it,
             ct_verify_inclusion(far_index(it, i), it->entries, &leaf, &it->proofs[i], &it->root));
    }
}

enum { SIGNATURES = 256 };

static void verify_entries(void *context) {
    struct bench_ledger *it = context;
    for (int i = 0; i < SIGNATURES; i++) {
        struct ct_envelope envelope;
        enum ct_err err = ct_envelope_open(ct_buf_bytes(&it->sealed), &envelope);
        if (err == CT_OK) {
            err = ct_envelope_verify(&envelope, &it->public_key);
        }
        const struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(&it->sealed));
        ct_frontier_append(&it->frontier, &leaf);
        note(it, err);
    }
}

static void verify_signatures(void *context) {
    struct bench_ledger *it = context;
    const struct ct_bytes message = {it->entry, sizeof it->entry};
    const struct ct_signature signature = ct_key_sign(it->key, message);
    bool good = true;
    for (int i = 0; i < SIGNATURES; i++) {
        good = ct_verify(&it->public_key, message, &signature) && good;
    }
    CT_ASSERT(good);
}

static void *verify_in_thread(void *context) {
    verify_signatures(context);
    return NULL;
}

struct crowd {
    struct bench_ledger *it;
    uint32_t threads;
};

static void verify_on_all(void *context) {
    struct crowd *crowd = context;
    pthread_t threads[THREADS_MAX];
    uint32_t count = 0;
    while (count + 1 < crowd->threads &&
           pthread_create(&threads[count], NULL, verify_in_thread, crowd->it) == 0) {
        count++;
    }
    verify_signatures(crowd->it);
    crowd->threads = count + 1;
    for (uint32_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Verifications a second, as OpenSSL's own program measures them; 0 where it is not installed. */
static double openssl_speed(uint32_t threads) {
    char line[256], command[96];
    double rate = 0.0;
    snprintf(command, sizeof command, "openssl speed -seconds 1 -multi %u ed25519 2>/dev/null",
             threads);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL) {
        return 0.0;
    }
    while (fgets(line, sizeof line, pipe) != NULL) {
        double sign;
        const char *found = strstr(line, "(Ed25519)");
        if (found != NULL && sscanf(found, "(Ed25519) %*fs %*fs %lf %lf", &sign, &rate) != 2) {
            rate = 0.0;
        }
    }
    pclose(pipe);
    return rate;
}

/* batch: entries that were done together; 1 where there is nothing to share. */
static enum ct_err row(struct ct_bench *bench, const char *op, uint32_t threads, uint32_t batch,
                       double per_s, const char *yardstick, double yard) {
    json_t *ratio = yard > 0.0 ? json_real(per_s / yard) : json_null();
    json_t *yard_per_s = yard > 0.0 ? json_real(yard) : json_null();
    return ct_bench_row(bench, json_pack("{s:s, s:I, s:I, s:f, s:s, s:o, s:o}", "op", op, "threads",
                                         (json_int_t)threads, "batch", (json_int_t)batch, "per_s",
                                         per_s, "yardstick", yardstick, "yardstick_per_s",
                                         yard_per_s, "ratio", ratio));
}

/* Seconds for `entries` entries in batches of `batch`, each published. */
static enum ct_err time_appends(struct bench_ledger *it, uint32_t batch, uint32_t entries,
                                double *out_s) {
    const double begin_s = ct_bench_now_s();
    for (uint32_t done = 0; done < entries;) {
        const uint32_t left = entries - done;
        const uint32_t count = left < batch ? left : batch;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t index;
            CT_TRY(ct_ledger_append(it->ledger, next_entry(it), &index));
        }
        CT_TRY(ct_ledger_publish(it->ledger));
        done += count;
    }
    *out_s = ct_bench_now_s() - begin_s;
    return CT_OK;
}

/* The same bytes with nothing around them. */
static enum ct_err time_writes(struct bench_ledger *it, uint32_t batch, uint32_t entries,
                               double *out_s) {
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/bytes", it->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const size_t bytes_max = (size_t)batch * (ENTRY_BYTES + 2);
    uint8_t *bytes = calloc(1, bytes_max);
    enum ct_err err = CT_OK;
    const double begin_s = ct_bench_now_s();
    for (uint32_t done = 0; done < entries && err == CT_OK;) {
        const uint32_t left = entries - done;
        const uint32_t count = left < batch ? left : batch;
        const size_t length = (size_t)count * (ENTRY_BYTES + 2);
        if (fd < 0 || bytes == NULL || write(fd, bytes, length) != (ssize_t)length ||
            fsync(fd) != 0) {
            err = ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        }
        done += count;
    }
    *out_s = ct_bench_now_s() - begin_s;
    free(bytes);
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

static enum ct_err append_some(struct ct_bench *bench, struct bench_ledger *it, uint32_t batch,
                               uint32_t entries) {
    double append_s, write_s;
    if (entries == 0) {
        return CT_OK;
    }
    CT_TRY(time_appends(it, batch, entries, &append_s));
    CT_TRY(time_writes(it, batch, entries, &write_s));
    return row(bench, "append", 1, batch, entries / append_s, "write, sync", entries / write_s);
}

static enum ct_err append_all(struct ct_bench *bench, struct bench_ledger *it) {
    if (it->batch > 0) {
        return append_some(bench, it, it->batch, it->entries);
    }
    const uint32_t tenth = it->entries / 10, half = it->entries / 2;
    CT_TRY(append_some(bench, it, 100, tenth));
    CT_TRY(append_some(bench, it, 1000, half));
    return append_some(bench, it, 10000, it->entries - tenth - half);
}

static enum ct_err measure_hashes(struct ct_bench *bench, struct bench_ledger *it) {
    const struct ct_rival rivals[] = {{hash_leaves, it}, {hash_tree, it}, {hash_long, it}};
    double median_s[3];
    ct_bench_race(rivals, 3, bench->seconds, median_s);
    /* A leaf's message has a byte before the entry, and SHA-256 at least nine behind. */
    const double blocks = (double)((1 + ENTRY_BYTES + 9 + 63) / 64);
    const double long_per_s = LONG_BYTES / 64.0 / median_s[2];
    CT_TRY(row(bench, "leaf", 1, 1, TURN / median_s[0], "SHA-256 blocks", long_per_s / blocks));
    /* One inner node a leaf, of 65 bytes. */
    return row(bench, "tree", 1, 1, TURN / median_s[1], "SHA-256 blocks",
               long_per_s / (blocks + 2));
}

static enum ct_err measure_proofs(struct ct_bench *bench, struct bench_ledger *it) {
    CT_TRY(ct_ledger_root(it->ledger, it->entries, &it->root));
    const struct ct_rival rivals[] = {{prove, it}, {verify_proofs, it}};
    double median_s[2];
    ct_bench_race(rivals, 2, bench->seconds, median_s);
    CT_TRY(it->err);
    return row(bench, "prove", 1, 1, TURN / median_s[0], "verifying it", TURN / median_s[1]);
}

static enum ct_err measure_signatures(struct ct_bench *bench, struct bench_ledger *it) {
    const struct ct_rival rivals[] = {{verify_entries, it}, {verify_signatures, it}};
    double median_s[2];
    ct_bench_race(rivals, 2, bench->seconds, median_s);
    CT_TRY(it->err);
    CT_TRY(row(bench, "verify", 1, 1, SIGNATURES / median_s[0], "its signature",
               SIGNATURES / median_s[1]));
    struct crowd crowd = {it, bench->threads < THREADS_MAX ? bench->threads : THREADS_MAX};
    const double all_s = ct_bench_time(verify_on_all, &crowd, bench->seconds);
    return row(bench, "signatures", crowd.threads, 1, crowd.threads * (double)SIGNATURES / all_s,
               "openssl speed", openssl_speed(crowd.threads));
}

/* A commit's entry has about the size of those that are appended. */
static enum ct_err seal(struct bench_ledger *it) {
    struct ct_entry entry = {.kind = CT_ENTRY_COMMIT, .version = 1, .round = 1};
    struct ct_buf payload;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    entry.run_id.bytes[0] = 1;
    entry.body.commit.length = 180;
    enum ct_err err = ct_entry_encode(&entry, &payload);
    if (err == CT_OK) {
        err = ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, it->key, &it->sealed);
    }
    ct_buf_deinit(&payload);
    return err;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static enum ct_err run_in(struct ct_bench *bench, struct bench_ledger *it) {
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/ledger", it->path);
    CT_TRY(ct_key_generate(&it->key));
    it->public_key = ct_key_public(it->key);
    CT_TRY(seal(it));
    CT_TRY(ct_ledger_create(path, "example.org/bench", it->key, &it->ledger));
    CT_TRY(append_all(bench, it));
    CT_TRY(measure_hashes(bench, it));
    CT_TRY(measure_proofs(bench, it));
    return measure_signatures(bench, it);
}

static enum ct_err run(struct ct_bench *bench) {
    struct bench_ledger *it = bench->user;
    it->block = calloc(1, LONG_BYTES);
    ct_buf_init(&it->sealed, CT_ENTRY_BYTES_MAX);
    int length = snprintf(it->path, sizeof it->path, "%s/cotrain-bench-XXXXXX", it->dir);
    if (it->block == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a message");
    }
    if (length >= (int)sizeof it->path || mkdtemp(it->path) == NULL) {
        free(it->block);
        return ct_fail(CT_ERR_IO, "cannot make a directory in %.200s: %s; --dir takes another",
                       it->dir, strerror(errno));
    }
    const enum ct_err err = run_in(bench, it);
    if (it->ledger != NULL) {
        ct_ledger_close(it->ledger);
    }
    ct_key_free(it->key);
    ct_buf_deinit(&it->sealed);
    free(it->block);
    nftw(it->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return err;
}

enum { OPTION_DIR = 1, OPTION_BATCH, OPTION_ENTRIES };

static enum ct_err take(struct ct_bench *bench, int option, const char *text) {
    struct bench_ledger *it = bench->user;
    switch (option) {
    case OPTION_DIR:
        it->dir = text;
        return CT_OK;
    case OPTION_BATCH:
        return ct_option_u32("batch", text, 1, 500000, &it->batch);
    default:
        return ct_option_u32("entries", text, 1, 100000000, &it->entries);
    }
}

int ct_bench_ledger(int argc, char **argv) {
    static const struct option options[] = {
        {"dir", required_argument, NULL, OPTION_DIR},
        {"batch", required_argument, NULL, OPTION_BATCH},
        {"entries", required_argument, NULL, OPTION_ENTRIES},
        {NULL, 0, NULL, 0},
    };
    static struct bench_ledger it = {.dir = ".", .entries = 100000};
    struct ct_bench bench = {.name = "ledger",
                             .usage = usage,
                             .options = options,
                             .take = take,
                             .run = run,
                             .user = &it};
    return ct_bench_main(&bench, argc, argv);
}
