/* The audit as a database: the door to SQLite, and the only file that includes it. One transaction,
 * written beside the file and renamed when it is complete. */
#include "audit_report.h"

#include <cotrain/fold.h>

#include <inttypes.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Digests and keys are hex. Version 1; columns are added, never changed. README.md has queries. */
static const char schema[] =
    "PRAGMA journal_mode = OFF;"
    "PRAGMA synchronous = OFF;"
    "PRAGMA user_version = 1;"
    "CREATE TABLE audit(" /* one row */
    "  schema TEXT, ok INTEGER, name TEXT, run_id TEXT, origin TEXT, log_key TEXT,"
    "  tree_size INTEGER, tree_root TEXT, entries INTEGER, signatures INTEGER, rounds INTEGER,"
    "  contributions INTEGER, replayed_rounds INTEGER, recomputed INTEGER, units INTEGER,"
    "  units_total INTEGER, seed TEXT, mismatches INTEGER, unavailable INTEGER, tokens INTEGER,"
    "  model_sha256 TEXT,"
    /* as audit_report.h has `retention`; retention_rounds is NULL where all is kept */
    "  retention_rounds INTEGER, expired_round INTEGER, expired_updates INTEGER,"
    "  expired_aggregations INTEGER, expired_units INTEGER, expired_contributions INTEGER,"
    "  trusted_round INTEGER);"
    "CREATE TABLE nodes(" /* credit.h tells what settled means */
    "  node INTEGER PRIMARY KEY, key TEXT, name TEXT, region TEXT, admitted_round INTEGER, "
    "last_round INTEGER,"
    "  commits INTEGER, merged INTEGER, missing INTEGER, refused INTEGER, tokens INTEGER,"
    "  settled INTEGER, provisional INTEGER, void INTEGER, checks INTEGER, recomputed INTEGER,"
    "  mismatches INTEGER);"
    /* closed ones; loss is weighted by tokens, NULL without any; replayable is 0 where what the
     * model follows from has expired */
    "CREATE TABLE rounds("
    "  round INTEGER PRIMARY KEY, entry INTEGER, time_ms INTEGER, commits INTEGER, merged INTEGER,"
    "  tokens INTEGER, payload_bytes INTEGER, loss REAL, model_sha256 TEXT, replayable INTEGER);"
    "CREATE TABLE contributions(" /* commits of closed rounds */
    "  entry INTEGER PRIMARY KEY, round INTEGER, node INTEGER, epoch INTEGER, steps INTEGER,"
    "  skipped_steps INTEGER, loss REAL, update_sha256 TEXT, update_bytes INTEGER,"
    "  state_sha256 TEXT, outcome TEXT CHECK(outcome IN ('merged', 'missing', 'refused')));"
    "CREATE TABLE checks(" /* contributions that this audit recomputed */
    "  entry INTEGER PRIMARY KEY, node INTEGER, round INTEGER, same INTEGER, difference TEXT);"
    "CREATE TABLE findings("
    "  kind TEXT CHECK(kind IN ('broken', 'mismatch', 'unavailable')), entry INTEGER, file TEXT,"
    "  reason TEXT);"
    "CREATE INDEX contributions_by_node ON contributions(node, round);"
    "BEGIN;";

struct ct_audit_sqlite {
    sqlite3 *database;
    sqlite3_stmt *contribution, *round, *check;
    char path[PATH_MAX], partial[PATH_MAX];
};

static enum ct_err failed(struct ct_audit_sqlite *sqlite) {
    return ct_fail(CT_ERR_IO, "%s: %s", sqlite->path, sqlite3_errmsg(sqlite->database));
}

/* Binds by the letters of `types`: i int64_t, d double, s text (copied, NULL allowed); then runs
 * the statement. */
static enum ct_err insert(struct ct_audit_sqlite *sqlite, sqlite3_stmt *statement,
                          const char *types, ...) {
    va_list values;
    int status = SQLITE_OK;
    va_start(values, types);
    for (int i = 0; types[i] != '\0' && status == SQLITE_OK; i++) {
        if (types[i] == 'i') {
            status = sqlite3_bind_int64(statement, i + 1, va_arg(values, int64_t));
        } else if (types[i] == 'd') {
            status = sqlite3_bind_double(statement, i + 1, va_arg(values, double));
        } else {
            status = sqlite3_bind_text(statement, i + 1, va_arg(values, const char *), -1,
                                       SQLITE_TRANSIENT);
        }
    }
    va_end(values);
    if (status == SQLITE_OK && sqlite3_step(statement) == SQLITE_DONE) {
        return sqlite3_reset(statement) == SQLITE_OK ? CT_OK : failed(sqlite);
    }
    return failed(sqlite);
}

static enum ct_err prepare(struct ct_audit_sqlite *sqlite, const char *text, sqlite3_stmt **out) {
    return sqlite3_prepare_v2(sqlite->database, text, -1, out, NULL) == SQLITE_OK ? CT_OK
                                                                                  : failed(sqlite);
}

static const char *outcome_name(enum ct_outcome outcome) {
    switch (outcome) {
    case CT_OUTCOME_MERGED:
        return "merged";
    case CT_OUTCOME_REFUSED:
        return "refused";
    case CT_OUTCOME_MISSING:
        break;
    }
    return "missing";
}

static enum ct_err add_contribution(void *user, const struct ct_fold *fold,
                                    const struct ct_fold_node *node, enum ct_outcome outcome) {
    struct ct_audit_sqlite *sqlite = user;
    const struct ct_commit *commit = &node->commit;
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, node->number);
    char update[CT_HEX_BYTES], state[CT_HEX_BYTES];
    ct_hash_hex(&commit->update.sha256, update);
    ct_hash_hex(&commit->state, state);
    return insert(sqlite, sqlite->contribution, "iiiiiidsiss", (int64_t)node->commit_index,
                  (int64_t)fold->round, (int64_t)node->number,
                  (int64_t)(assignment != NULL ? assignment->epoch : 0), (int64_t)commit->steps,
                  (int64_t)commit->skipped_steps, (double)commit->loss, update,
                  (int64_t)commit->update.length, state, outcome_name(outcome));
}

static enum ct_err add_round(void *user, const struct ct_audit_round *round) {
    struct ct_audit_sqlite *sqlite = user;
    char model[CT_HEX_BYTES];
    ct_hash_hex(&round->model, model);
    return insert(sqlite, sqlite->round, round->merged > 0 ? "iiiiiiidsi" : "iiiiiiissi",
                  (int64_t)round->round, (int64_t)round->entry, round->time_ms,
                  (int64_t)round->commits, (int64_t)round->merged, (int64_t)round->tokens,
                  (int64_t)round->payload_bytes, round->loss, model, (int64_t)round->replayable);
}

static enum ct_err add_check(void *user, uint64_t entry, uint32_t node, uint32_t round,
                             const char *verdict) {
    struct ct_audit_sqlite *sqlite = user;
    return insert(sqlite, sqlite->check, "iiiis", (int64_t)entry, (int64_t)node, (int64_t)round,
                  (int64_t)(verdict[0] == '\0'), verdict[0] == '\0' ? NULL : verdict);
}

/* Ends everything; the file is left as it is. */
static void release(struct ct_audit_sqlite *sqlite) {
    sqlite3_finalize(sqlite->contribution);
    sqlite3_finalize(sqlite->round);
    sqlite3_finalize(sqlite->check);
    sqlite3_close(sqlite->database);
    free(sqlite);
}

enum ct_err ct_audit_sqlite_open(const char *path, struct ct_audit_sqlite **out,
                                 struct ct_audit_watch *out_watch) {
    struct ct_audit_sqlite *sqlite = calloc(1, sizeof *sqlite);
    if (sqlite == NULL || strlen(path) > PATH_MAX - 16) {
        free(sqlite);
        return ct_fail(CT_ERR_CONFIG, "no database can be made at %.200s", path);
    }
    snprintf(sqlite->path, sizeof sqlite->path, "%s", path);
    snprintf(sqlite->partial, sizeof sqlite->partial, "%.4080s.partial", path);
    unlink(sqlite->partial);
    enum ct_err err = CT_OK;
    if (sqlite3_open(sqlite->partial, &sqlite->database) != SQLITE_OK ||
        sqlite3_exec(sqlite->database, schema, NULL, NULL, NULL) != SQLITE_OK) {
        err = failed(sqlite);
    }
    if (err == CT_OK) {
        err = prepare(sqlite, "INSERT INTO contributions VALUES(?,?,?,?,?,?,?,?,?,?,?)",
                      &sqlite->contribution);
    }
    if (err == CT_OK) {
        err = prepare(sqlite, "INSERT INTO rounds VALUES(?,?,?,?,?,?,?,?,?,?)", &sqlite->round);
    }
    if (err == CT_OK) {
        err = prepare(sqlite, "INSERT OR REPLACE INTO checks VALUES(?,?,?,?,?)", &sqlite->check);
    }
    if (err != CT_OK) {
        unlink(sqlite->partial);
        release(sqlite);
        return err;
    }
    *out_watch = (struct ct_audit_watch){
        .user = sqlite,
        .contribution = add_contribution,
        .round = add_round,
        .check = add_check,
    };
    *out = sqlite;
    return CT_OK;
}

static enum ct_err add_nodes(struct ct_audit_sqlite *sqlite, const struct ct_audit_report *report) {
    sqlite3_stmt *statement = NULL;
    enum ct_err err = prepare(
        sqlite, "INSERT INTO nodes VALUES(?,?,nullif(?,''),nullif(?,''),?,?,?,?,?,?,?,?,?,?,?,?,?)",
        &statement);
    for (uint32_t i = 0; i < report->node_count && err == CT_OK; i++) {
        const struct ct_audit_node *node = &report->nodes[i];
        const struct ct_credit *credit = &node->credit;
        char key[CT_HEX_BYTES];
        ct_hash_hex(&node->key, key);
        err = insert(sqlite, statement, "isssiiiiiiiiiiiii", (int64_t)node->node, key,
                     node->volunteer.name, node->volunteer.region, (int64_t)node->admitted_round,
                     (int64_t)node->last_round, (int64_t)node->commits, (int64_t)node->merged,
                     (int64_t)node->missing, (int64_t)node->refused, (int64_t)credit->tokens,
                     (int64_t)credit->settled, (int64_t)credit->provisional,
                     (int64_t)credit->void_tokens, (int64_t)credit->checks,
                     (int64_t)node->recomputed, (int64_t)node->mismatches);
    }
    sqlite3_finalize(statement);
    return err;
}

static enum ct_err add_findings(struct ct_audit_sqlite *sqlite,
                                const struct ct_audit_report *report) {
    sqlite3_stmt *statement = NULL;
    enum ct_err err = prepare(sqlite, "INSERT INTO findings VALUES(?,?,?,?)", &statement);
    for (uint64_t i = 0; i < report->finding_count && i < CT_FINDINGS_MAX && err == CT_OK; i++) {
        const struct ct_finding *finding = &report->findings[i];
        err = finding->entry >= 0
                  ? insert(sqlite, statement, "siss", ct_finding_name(finding->kind),
                           finding->entry, finding->file, finding->reason)
                  : insert(sqlite, statement, "ssss", ct_finding_name(finding->kind), NULL,
                           finding->file, finding->reason);
    }
    sqlite3_finalize(statement);
    return err;
}

static enum ct_err add_audit(struct ct_audit_sqlite *sqlite, const struct ct_audit_report *report) {
    sqlite3_stmt *statement = NULL;
    char run_id[CT_HEX_BYTES], log_key[CT_HEX_BYTES], root[CT_HEX_BYTES], model[CT_HEX_BYTES];
    char seed[24];
    ct_hash_hex(&report->run_id, run_id);
    ct_hash_hex(&report->log_key, log_key);
    ct_hash_hex(&report->tree_root, root);
    ct_hash_hex(&report->model, model);
    snprintf(seed, sizeof seed, "%" PRIu64, report->options->seed);
    const struct ct_audit_expired *expired = &report->expired;
    CT_TRY(prepare(sqlite,
                   "INSERT INTO audit VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
                   "nullif(?,0),?,?,?,?,?,?)",
                   &statement));
    const enum ct_err err = insert(
        sqlite, statement, "sissssisiiiiiiiisiiisiiiiiii", CT_AUDIT_SCHEMA,
        (int64_t)(report->finding_count == 0), report->name, run_id, report->origin, log_key,
        (int64_t)report->tree_size, root, (int64_t)report->entries, (int64_t)report->signatures,
        (int64_t)report->rounds, (int64_t)report->contributions, (int64_t)report->replayed_rounds,
        (int64_t)report->recomputed, (int64_t)report->units, (int64_t)report->units_total, seed,
        (int64_t)report->mismatches, (int64_t)report->unavailable, (int64_t)report->tokens, model,
        (int64_t)expired->rounds, (int64_t)expired->line, (int64_t)expired->updates,
        (int64_t)expired->aggregations, (int64_t)expired->units, (int64_t)expired->contributions,
        (int64_t)expired->trusted_round);
    sqlite3_finalize(statement);
    return err;
}

static enum ct_err conclude(struct ct_audit_sqlite *sqlite, const struct ct_audit_report *report) {
    CT_TRY(add_nodes(sqlite, report));
    CT_TRY(add_findings(sqlite, report));
    CT_TRY(add_audit(sqlite, report));
    if (sqlite3_exec(sqlite->database, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        return failed(sqlite);
    }
    return rename(sqlite->partial, sqlite->path) == 0
               ? CT_OK
               : ct_fail(CT_ERR_IO, "%s cannot be given its name", sqlite->partial);
}

enum ct_err ct_audit_sqlite_close(struct ct_audit_sqlite *sqlite,
                                  const struct ct_audit_report *report) {
    const enum ct_err err = report == NULL ? CT_OK : conclude(sqlite, report);
    if (report == NULL || err != CT_OK) {
        unlink(sqlite->partial);
    }
    release(sqlite);
    return err;
}
