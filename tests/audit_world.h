/* A run in two histories of one key, made by make_ledger, and audits of what is shown of them. */
#ifndef TESTS_AUDIT_WORLD_H
#define TESTS_AUDIT_WORLD_H

#include "fixture.h"
#include "http_files.h"

#include "node/audit.h"

#include <cotrain/disk.h>
#include <cotrain/entry.h>
#include <cotrain/evidence.h>
#include <cotrain/ledger.h>
#include <cotrain/run_dir.h>

/* The histories differ in the first entry behind PART that opens a round. */
#ifndef ENTRIES
#define ENTRIES 700u
#define PART    400u
#endif

struct shown {
    char dir[PATH_MAX]; /* a ledger */
    struct http_files server;
};

struct world {
    char *dir;
    char run[PATH_MAX], state[PATH_MAX];
    struct ct_key *log_key;
    char origin[CT_ORIGIN_BYTES_MAX];
    uint64_t count, part;
    struct ct_buf *entries[2]; /* of both histories */
    struct ct_audit_report *report;
    unsigned made;
};

/* The same entry a millisecond later, signed by the same coordinator. */
static inline void retell(const struct ct_buf *from, const struct ct_key *identity,
                          struct ct_buf *out) {
    struct ct_envelope envelope;
    struct ct_entry entry;
    struct ct_buf payload;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(from), &envelope), CT_OK);
    assert_int_equal(ct_entry_decode(envelope.payload, &entry), CT_OK);
    entry.time_ms++;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(&entry, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, identity, out),
                     CT_OK);
    ct_buf_deinit(&payload);
}

static inline bool opens_a_round(const struct ct_buf *bytes) {
    struct ct_envelope envelope;
    struct ct_entry entry;
    assert_int_equal(ct_envelope_open(ct_buf_bytes(bytes), &envelope), CT_OK);
    assert_int_equal(ct_entry_decode(envelope.payload, &entry), CT_OK);
    return entry.kind == CT_ENTRY_ROUND_OPENED;
}

static inline void load_histories(struct world *world, struct ct_ledger *ledger) {
    char path[PATH_MAX + 32];
    struct ct_key *identity = NULL;
    snprintf(path, sizeof path, "%s/" CT_RUN_IDENTITY, world->run);
    assert_int_equal(ct_key_load(path, &identity), CT_OK);
    world->count = ct_ledger_size(ledger);
    for (int side = 0; side < 2; side++) {
        world->entries[side] = calloc(world->count, sizeof(struct ct_buf));
        assert_non_null(world->entries[side]);
    }
    for (uint64_t i = 0; i < world->count; i++) {
        for (int side = 0; side < 2; side++) {
            ct_buf_init(&world->entries[side][i], CT_ENTRY_BYTES_MAX);
        }
        struct ct_buf *first = &world->entries[0][i], *second = &world->entries[1][i];
        assert_int_equal(ct_ledger_read(ledger, i, first), CT_OK);
        if (world->part == 0 && i >= PART && opens_a_round(first)) {
            world->part = i;
            retell(first, identity, second);
        } else {
            assert_int_equal(ct_buf_append(second, first->data, first->length), CT_OK);
        }
    }
    assert_true(world->part > 0);
    ct_key_free(identity);
}

/* `policy`, if not NULL, is a file with the witnesses that the manifest names. */
static inline int open_world_with(void **state, const char *dir, const char *policy) {
    static struct world world;
    char command[4 * PATH_MAX], path[PATH_MAX + 32];
    struct ct_checkpoint checkpoint;
    struct ct_ledger *ledger = NULL;
    memset(&world, 0, sizeof world);
    world.dir = strdup(dir);
    snprintf(world.run, sizeof world.run, "%s/run", world.dir);
    snprintf(world.state, sizeof world.state, "%s/state", world.dir);
    snprintf(command, sizeof command,
             "'%s/tests/make_ledger' '%s' %u --nodes 4 --publish %u %s%s 2>/dev/null",
             CT_BINARY_DIR, world.run, ENTRIES, ENTRIES, policy != NULL ? "--policy " : "",
             policy != NULL ? policy : "");
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/" CT_RUN_LOG_KEY, world.run);
    assert_int_equal(ct_key_load(path, &world.log_key), CT_OK);
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER "/checkpoint", world.run);
    struct ct_buf note = fixture_read(path);
    assert_int_equal(ct_checkpoint_parse(ct_buf_bytes(&note), &checkpoint), CT_OK);
    ct_buf_deinit(&note);
    memcpy(world.origin, checkpoint.origin, sizeof world.origin);
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER, world.run);
    assert_int_equal(ct_ledger_open(path, world.origin, NULL, &ledger), CT_OK);
    load_histories(&world, ledger);
    ct_ledger_close(ledger);
    world.report = calloc(1, sizeof *world.report);
    assert_non_null(world.report);
    *state = &world;
    return 0;
}

static inline int open_world(void **state) {
    char *dir = fixture_dir();
    const int status = open_world_with(state, dir, NULL);
    free(dir);
    return status;
}

static inline int close_world(void **state) {
    struct world *world = *state;
    for (int side = 0; side < 2; side++) {
        for (uint64_t i = 0; i < world->count; i++) {
            ct_buf_deinit(&world->entries[side][i]);
        }
        free(world->entries[side]);
    }
    ct_audit_report_deinit(world->report);
    free(world->report);
    ct_key_free(world->log_key);
    fixture_remove(world->dir);
    free(world->dir);
    return 0;
}

/* Serves the first `size` entries of a history. */
static inline void show(struct world *world, int side, uint64_t size, struct shown *out) {
    struct ct_ledger *ledger = NULL;
    snprintf(out->dir, sizeof out->dir, "%s/shown-%u", world->dir, world->made++);
    assert_int_equal(ct_ledger_create(out->dir, world->origin, world->log_key, &ledger), CT_OK);
    for (uint64_t i = 0; i < size; i++) {
        uint64_t index;
        assert_int_equal(ct_ledger_append(ledger, ct_buf_bytes(&world->entries[side][i]), &index),
                         CT_OK);
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    ct_ledger_close(ledger);
    assert_int_equal(http_files_start(&out->server, out->dir, world->run), 0);
}

/* A checkpoint that the coordinator once signed, as a file. */
static inline void old_checkpoint(struct world *world, int side, uint64_t size,
                                  const struct ct_key *key, char out[PATH_MAX]) {
    struct ct_checkpoint checkpoint = {.size = size};
    struct ct_frontier frontier = {0};
    struct ct_buf note;
    memcpy(checkpoint.origin, world->origin, sizeof checkpoint.origin);
    for (uint64_t i = 0; i < size; i++) {
        const struct ct_hash leaf = ct_leaf_hash(ct_buf_bytes(&world->entries[side][i]));
        ct_frontier_append(&frontier, &leaf);
    }
    checkpoint.root = ct_frontier_root(&frontier);
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    assert_int_equal(ct_checkpoint_sign(&checkpoint, key, &note), CT_OK);
    snprintf(out, PATH_MAX, "%s/old-%u", world->dir, world->made++);
    fixture_write(out, note.data, note.length);
    ct_buf_deinit(&note);
}

static inline enum ct_err audit_with(struct world *world, const struct ct_source_options *where,
                                     const char *since, const char *policy, const char *state) {
    /* Where nothing is to be kept, a look at one entry is enough, and quick. */
    const struct ct_audit_options how = {.since = since,
                                         .policy = policy,
                                         .state_dir = state,
                                         .narrow = {.has_range = state == NULL},
                                         .threads = 2};
    struct ct_source *source = NULL;
    ct_audit_report_deinit(world->report);
    assert_int_equal(ct_source_open(where, &source), CT_OK);
    const enum ct_err err = ct_audit_run(source, &how, world->report);
    ct_source_close(source);
    return err;
}

static inline void audit(struct world *world, const struct shown *shown, const char *since,
                         const char *state) {
    const struct ct_source_options where = {.where = shown->server.url};
    assert_int_equal(audit_with(world, &where, since, NULL, state), CT_OK);
}

static inline void expect_nothing_found(const struct world *world) {
    if (world->report->finding_count != 0) {
        fail_msg("%s", world->report->findings[0].reason);
    }
    assert_string_equal(world->report->evidence, "");
}

/* One finding, which names both checkpoints. */
static inline void expect_finding(const struct world *world, const char *words, uint64_t shown,
                                  uint64_t earlier) {
    char number[32];
    assert_int_equal(world->report->finding_count, 1);
    const char *reason = world->report->findings[0].reason;
    if (strstr(reason, words) == NULL) {
        fail_msg("%s", reason);
    }
    snprintf(number, sizeof number, "signs %d entries", (int)shown);
    assert_non_null(strstr(reason, number));
    snprintf(number, sizeof number, " %d with root", (int)earlier);
    assert_non_null(strstr(reason, number));
}

/* The evidence convinces a third person who has nothing but the file. */
static inline void expect_evidence(const struct world *world, uint64_t smaller, uint64_t larger) {
    struct ct_evidence evidence;
    char vkey[CT_VKEY_BYTES_MAX], command[5 * PATH_MAX];
    const struct ct_hash key = ct_key_public(world->log_key);
    ct_vkey_format(world->origin, &key, vkey);
    struct ct_buf text = fixture_read(world->report->evidence);
    assert_int_equal(ct_evidence_open(ct_buf_bytes(&text), &evidence), CT_OK);
    ct_buf_deinit(&text);
    assert_string_equal(evidence.vkey, vkey);
    assert_int_equal(evidence.smaller.size, smaller);
    assert_int_equal(evidence.larger.size, larger);
    snprintf(command, sizeof command, "'%s/cotrain' evidence '%s' --vkey '%s' >/dev/null",
             CT_BINARY_DIR, world->report->evidence, vkey);
    assert_int_equal(system(command), 0);
}

#endif
