#include "audit.h"

#include "audit_pass.h"
#include "audit_since.h"
#include "audit_state.h"
#include "audit_witness.h"
#include "recompute.h"

#include <cotrain/isa.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DOWNLOADS 8u /* at once, from a URL */

const char *ct_finding_name(enum ct_finding_kind kind) {
    switch (kind) {
    case CT_FINDING_MISMATCH:
        return "mismatch";
    case CT_FINDING_UNAVAILABLE:
        return "unavailable";
    case CT_FINDING_BROKEN:
        break;
    }
    return "broken";
}

/* Names and sentences may have parts that others chose: none of them commands a terminal. */
static void clean(char *text) {
    for (; *text != '\0'; text++) {
        *text = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
    }
}

void ct_audit_find(struct ct_audit_report *report, enum ct_finding_kind kind, int64_t entry,
                   const char *file, const char *format, ...) {
    report->finding_count++;
    report->mismatches += kind == CT_FINDING_MISMATCH;
    report->unavailable += kind == CT_FINDING_UNAVAILABLE;
    if (report->finding_count > CT_FINDINGS_MAX) {
        return;
    }
    struct ct_finding *grown =
        realloc(report->findings, (size_t)report->finding_count * sizeof *grown);
    if (grown == NULL) {
        return;
    }
    report->findings = grown;
    struct ct_finding *finding = &grown[report->finding_count - 1];
    finding->kind = kind;
    finding->entry = entry;
    snprintf(finding->file, sizeof finding->file, "%s", file);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->reason, sizeof finding->reason, format, arguments);
    va_end(arguments);
    clean(finding->file);
    clean(finding->reason);
}

void ct_audit_report_deinit(struct ct_audit_report *report) {
    for (uint32_t i = 0; i < report->node_count; i++) {
        free(report->nodes[i].bins);
    }
    free(report->nodes);
    free(report->findings);
    free(report->private_files);
    memset(report, 0, sizeof *report);
}

void ct_audit_progress(const struct ct_audit_report *report, const char *what, uint64_t done,
                       uint64_t total) {
    const struct ct_audit_options *options = report->options;
    if (options != NULL && options->progress != NULL) {
        options->progress(options->progress_user, what, done, total);
    }
}

void ct_audit_blob_file(const struct ct_hash *sha256, char out[160]) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(sha256, hex);
    snprintf(out, 160, "blobs/%.2s/%s", hex, hex + 2);
}

double ct_audit_chance(uint64_t units, uint64_t drawn, uint64_t cheated) {
    /* The probability that all of the draw is honest, unit by unit. */
    double unseen = 1.0;
    for (uint64_t i = 0; i < drawn && i < units; i++) {
        if (i + cheated >= units) {
            return 1.0;
        }
        unseen *= (double)(units - cheated - i) / (double)(units - i);
    }
    return 1.0 - unseen;
}

/* The rounds that a narrowed audit looks at, from entries' numbers if need be. */
struct stretch {
    uint32_t first, last;
};

static enum ct_err rounds_of(struct ct_audit *audit, struct stretch *out) {
    const struct ct_audit_narrow *narrow = &audit->options->narrow;
    *out = (struct stretch){1, audit->report->rounds};
    if (narrow->round != 0) {
        *out = (struct stretch){narrow->round, narrow->round};
    } else if (narrow->has_range) {
        struct ct_audit_cursor cursor = {.log = &audit->log, .next = 0};
        *out = (struct stretch){UINT32_MAX, 0};
        while (cursor.next < audit->end && cursor.next <= narrow->last) {
            const uint64_t index = cursor.next;
            struct ct_envelope envelope;
            struct ct_entry entry;
            struct ct_bytes bytes;
            CT_TRY(ct_audit_cursor_next(&cursor, &bytes));
            if (index >= narrow->first && ct_envelope_open(bytes, &envelope) == CT_OK &&
                ct_entry_decode(envelope.payload, &entry) == CT_OK && entry.round > 0) {
                out->first = entry.round < out->first ? entry.round : out->first;
                out->last = entry.round > out->last ? entry.round : out->last;
            }
        }
        ct_audit_cursor_deinit(&cursor);
    }
    return CT_OK;
}

static uint32_t snapshot_at_or_before(const struct ct_audit *audit, uint32_t round) {
    const uint32_t rounds = audit->snapshot_rounds;
    return rounds == 0 ? 0 : round / rounds * rounds;
}

/* θ of the rounds that are looked at. */
static enum ct_err replay_part(struct ct_audit *audit) {
    struct stretch rounds = {0};
    CT_TRY(rounds_of(audit, &rounds));
    if (rounds.first > rounds.last || rounds.first > audit->report->rounds) {
        return CT_OK;
    }
    return ct_audit_replay(audit, snapshot_at_or_before(audit, rounds.first - 1), rounds.first,
                           rounds.last);
}

/* After the pass: what is named, what is replayed in part, what is recomputed. */
static enum ct_err go_on(struct ct_audit *audit) {
    struct ct_audit_report *report = audit->report;
    const struct ct_unit *units = NULL;
    uint32_t count = 0;
    CT_TRY(ct_audit_profiles(audit));
    CT_TRY(audit->whole_directory ? ct_audit_files(audit) : ct_audit_blobs(audit));
    if (audit->options->replay && ct_audit_is_narrow(&audit->options->narrow)) {
        CT_TRY(replay_part(audit));
    }
    CT_TRY(ct_units_end(audit->units, &units, &count, &report->units_total));
    ct_units_expired(audit->units, &report->expired.units, &report->expired.contributions);
    return audit->options->draw == CT_DRAW_NONE ? CT_OK : ct_recompute_units(audit, units, count);
}

/* A manifest may want any model: replaying it must not bring the auditor's machine down. */
static enum ct_err check_memory(struct ct_audit *audit) {
    struct ct_buf bytes;
    struct ct_manifest manifest;
    struct ct_layout layout;
    if (!audit->options->replay && audit->options->draw == CT_DRAW_NONE) {
        return CT_OK;
    }
    if (ct_source_blob(audit->source, &audit->log.opened.manifest, CT_MANIFEST_BYTES_MAX, &bytes) !=
        CT_OK) {
        return CT_OK; /* the pass will say so */
    }
    enum ct_err err = ct_manifest_decode(ct_buf_bytes(&bytes), &manifest);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return CT_OK;
    }
    if (ct_layout_init(&layout, &manifest.model) == CT_OK) {
        /* θ; and with a unit its θ, m, v, e and a gradient. */
        const uint64_t models = audit->options->draw == CT_DRAW_NONE ? 1 : 6;
        const uint64_t needed = models * layout.parameters * sizeof(float);
        const uint64_t there = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        if (needed > there / 10 * 9) {
            err =
                ct_fail(CT_ERR_MEMORY,
                        "the run's model of %zu parameters needs %.1f GB for this, and the machine "
                        "has %.1f: audit without --replay and --recompute, or elsewhere",
                        layout.parameters, 1e-9 * (double)needed, 1e-9 * (double)there);
        }
        ct_layout_deinit(&layout);
    }
    ct_manifest_deinit(&manifest);
    return err;
}

/* The round whose model the replay begins with: where an earlier one stopped, or, if payloads
 * behind that have expired, the snapshot that they led to. Those that are looked for may be there
 * up to any round: then it is tried, and goes on from the next snapshot. */
static uint32_t first_base(const struct ct_audit *audit) {
    const uint32_t from = audit->report->from_round, line = audit->report->expired.line;
    return audit->seeks_expired || from > line ? from : line;
}

static enum ct_err audit_log(struct ct_audit *audit, struct ct_audit_state *state,
                             struct ct_bytes witnessed) {
    struct ct_audit_report *report = audit->report;
    const struct ct_audit_log *log = &audit->log;
    snprintf(report->origin, sizeof report->origin, "%s", log->opened.origin);
    report->log_key = log->opened.log_key;
    report->run_id = log->run_id;
    report->tree_size = log->checkpoint.size;
    report->tree_root = log->checkpoint.root;
    CT_TRY(ct_audit_state_match(state, audit));
    CT_TRY(ct_audit_since(audit, state->dir));
    CT_TRY(ct_audit_witnesses(audit, state->dir, witnessed));
    CT_TRY(check_memory(audit));
    CT_TRY(ct_audit_draw_line(audit));
    const bool replays = audit->options->replay && !ct_audit_is_narrow(&audit->options->narrow);
    CT_TRY(ct_audit_pass(audit, replays ? first_base(audit) : CT_REPLAY_NEVER));
    CT_TRY(go_on(audit));
    /* The next audit takes the model from a snapshot, so that is where it goes on. */
    const uint32_t replayed =
        replays ? snapshot_at_or_before(audit, report->rounds) : state->replayed_round;
    return ct_audit_state_save(state, audit, replayed);
}

static enum ct_err run(struct ct_audit *audit) {
    const struct ct_audit_options *options = audit->options;
    const bool remote = ct_source_directory(audit->source) == NULL;
    struct ct_audit_state state;
    struct ct_buf witnessed;
    bool loaded = false;
    uint32_t threads = options->threads;
    CT_TRY(ct_pool_open(threads, &audit->pool));
    if (remote && ct_pool_threads(audit->pool) < DOWNLOADS) {
        ct_pool_close(audit->pool);
        audit->pool = NULL;
        CT_TRY(ct_pool_open(DOWNLOADS, &audit->pool));
    }
    CT_TRY(ct_ref_sort_open(&audit->named));
    CT_TRY(ct_units_open(options, &audit->units));
    CT_TRY(ct_audit_state_open(audit->source, options, &state));
    audit->whole_directory = !remote && !ct_audit_is_narrow(&options->narrow);
    enum ct_err err = ct_audit_witnessed_read(audit->source, &witnessed);
    if (err == CT_OK) {
        err = ct_audit_log_load(audit->source, audit->pool,
                                remote && state.dir[0] != '\0' ? state.dir : NULL, audit->report,
                                &audit->log, &loaded);
    }
    if (err == CT_OK && loaded) {
        err = audit_log(audit, &state, ct_buf_bytes(&witnessed));
    }
    ct_buf_deinit(&witnessed);
    if (loaded) {
        ct_audit_log_deinit(&audit->log);
    }
    ct_audit_state_close(&state);
    return err;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum ct_err ct_audit_run(struct ct_source *source, const struct ct_audit_options *options,
                         struct ct_audit_report *out) {
    struct ct_audit audit = {.source = source, .options = options, .report = out};
    const double begin = seconds_now();
    memset(out, 0, sizeof *out);
    out->options = options;
    if (options->replay || options->draw != CT_DRAW_NONE) {
        CT_TRY(ct_isa_start());
    }
    const enum ct_err err = run(&audit);
    ct_manifest_deinit(&audit.manifest);
    ct_units_close(audit.units);
    ct_ref_sort_close(audit.named);
    ct_pool_close(audit.pool);
    out->received_bytes = ct_source_received(source);
    out->seconds = seconds_now() - begin;
    return err;
}
