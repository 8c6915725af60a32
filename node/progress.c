#include "progress.h"

#include "node_dir.h"

#include <cotrain/log.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum ct_err ct_progress_init(struct ct_progress *progress, const char *dir,
                             const struct ct_hash *run_id, bool json) {
    memset(progress, 0, sizeof *progress);
    progress->json = json;
    progress->terminal = !json && isatty(STDOUT_FILENO);
    progress->state = "connecting";
    progress->run_id = *run_id;
    setvbuf(stdout, NULL, _IOLBF, 0);
    return ct_node_path(dir, CT_NODE_STATUS, progress->status_path);
}

void ct_progress_bytes(uint64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1000.0 && unit < 4) {
        value /= 1000.0;
        unit++;
    }
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void end_line(struct ct_progress *progress) {
    if (progress->line_open) {
        fputs("\r\033[K", stdout);
        progress->line_open = false;
    }
}

/* Takes the object over. */
static void print_json(json_t *object) {
    if (object == NULL) {
        return;
    }
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static void round_label(const struct ct_progress *progress, uint32_t round, char out[32]) {
    snprintf(out, 32, "[%4u/%u]", round, progress->facts.rounds);
}

static void write_status(struct ct_progress *progress) {
    char hex[CT_HEX_BYTES];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    ct_hash_hex(&progress->run_id, hex);
    const struct ct_view *view = &progress->view;
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:I, s:I, s:i, s:i, s:I, s:i, s:I}", "run",
        hex, "name", progress->facts.name, "state", progress->state, "pid", (int)getpid(), "node",
        (int)view->node, "round", (int)view->round, "rounds", (int)progress->facts.rounds, "loss",
        (double)progress->loss, "tokens_per_s", (double)progress->tokens_per_s, "bytes_up",
        (json_int_t)progress->bytes_up, "bytes_down", (json_int_t)progress->bytes_down, "receipts",
        (int)progress->receipts, "merged_rounds", (int)view->merged_rounds, "merged_tokens",
        (json_int_t)view->merged_tokens, "senders", (int)view->last_senders, "updated_ms",
        (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    char *text = object != NULL ? json_dumps(object, JSON_INDENT(2)) : NULL;
    if (text != NULL &&
        ct_file_replace(progress->status_path,
                        (struct ct_bytes){(const uint8_t *)text, strlen(text)}) != CT_OK) {
        ct_log(CT_LOG_WARN, "node", "%s", ct_err_detail());
    }
    free(text);
    json_decref(object);
}

void ct_progress_say(struct ct_progress *progress, const char *text) {
    if (progress->json) {
        print_json(json_pack("{s:s, s:s}", "event", "message", "text", text));
        return;
    }
    end_line(progress);
    printf("%s\n", text);
}

void ct_progress_state(struct ct_progress *progress, const char *state) {
    progress->state = state;
    write_status(progress);
}

static void introduce(struct ct_progress *progress) {
    const struct ct_run_facts *facts = &progress->facts;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&progress->run_id, hex);
    if (progress->json) {
        print_json(json_pack("{s:s, s:s, s:s, s:I, s:s, s:i, s:i}", "event", "run", "run", hex,
                             "name", facts->name, "parameters", (json_int_t)facts->parameters,
                             "numerics", ct_numerics_name(facts->numerics), "rounds",
                             (int)facts->rounds, "round", (int)progress->view.round));
        return;
    }
    end_line(progress);
    printf("run %.12s \"%s\": %.2f M parameters, %s, %u of %u rounds done\n", hex, facts->name,
           (double)facts->parameters / 1e6, ct_numerics_name(facts->numerics),
           progress->view.phase == CT_PHASE_IDLE || progress->view.round == 0
               ? progress->view.round
               : progress->view.round - 1,
           facts->rounds);
}

static void tell_closed(struct ct_progress *progress, uint64_t now_ms) {
    const struct ct_view *view = &progress->view;
    char label[32], up[32], down[32], left[48] = "";
    char hex[CT_HEX_BYTES];
    uint32_t done = view->last_round - progress->first_round;
    double seconds_left = 0.0;
    if (done > 0 && progress->facts.rounds > view->last_round) {
        seconds_left = (double)(now_ms - progress->started_ms) / 1000.0 / done *
                       (progress->facts.rounds - view->last_round);
        snprintf(left, sizeof left, ", about %.0f min left", ceil(seconds_left / 60.0));
    }
    ct_hash_hex(&view->model, hex);
    if (progress->json) {
        print_json(json_pack("{s:s, s:i, s:f, s:i, s:b, s:s, s:I, s:I, s:f}", "event",
                             "round_closed", "round", (int)view->last_round, "loss",
                             (double)view->last_loss, "senders", (int)view->last_senders, "merged",
                             (int)view->last_merged, "model", hex, "bytes_up",
                             (json_int_t)progress->bytes_up, "bytes_down",
                             (json_int_t)progress->bytes_down, "seconds_left", seconds_left));
        return;
    }
    round_label(progress, view->last_round, label);
    ct_progress_bytes(progress->bytes_up, up);
    ct_progress_bytes(progress->bytes_down, down);
    end_line(progress);
    printf("%s closed: loss %.3f over %u nodes%s, model %.8s, up %s, down %s%s\n", label,
           (double)view->last_loss, view->last_senders,
           view->last_merged ? ", this one among them" : "", hex, up, down, left);
}

void ct_progress_view(struct ct_progress *progress, const struct ct_run_facts *facts,
                      const struct ct_view *view, uint64_t now_ms) {
    bool first = progress->facts.rounds == 0;
    progress->facts = *facts;
    progress->view = *view;
    bool closed = view->phase == CT_PHASE_IDLE || view->phase == CT_PHASE_FINISHED;
    uint32_t done = closed || view->round == 0 ? view->round : view->round - 1;
    if (first) {
        progress->first_round = done;
        progress->closed_round = done;
        progress->started_ms = now_ms;
        introduce(progress);
    }
    if (done > progress->closed_round) {
        progress->closed_round = done;
        tell_closed(progress, now_ms);
    }
    if (closed && strcmp(progress->state, "finished") != 0) {
        progress->state = "waiting";
    }
    write_status(progress);
}

void ct_progress_assigned(struct ct_progress *progress, const struct ct_view *view) {
    const struct ct_assignment *assignment = &view->assignment;
    progress->state = "computing";
    if (progress->json) {
        print_json(json_pack("{s:s, s:i, s:i, s:i, s:i, s:b, s:i}", "event", "assigned", "round",
                             (int)view->round, "steps", (int)assignment->steps, "epoch",
                             (int)assignment->epoch, "index", (int)assignment->index, "reset",
                             (int)assignment->reset, "nodes", (int)view->assigned_nodes));
    } else if (progress->terminal) {
        char label[32];
        round_label(progress, view->round, label);
        end_line(progress);
        printf("%s %u steps, with %u %s; epoch %u, round %u of it%s", label, assignment->steps,
               view->assigned_nodes, view->assigned_nodes == 1 ? "node" : "nodes",
               assignment->epoch + 1, assignment->index + 1,
               assignment->reset ? ", from a fresh state" : "");
        fflush(stdout);
        progress->line_open = true;
    }
    write_status(progress);
}

void ct_progress_step(struct ct_progress *progress, const struct ct_compute_progress *step) {
    progress->loss = step->loss;
    progress->tokens_per_s = step->tokens_per_s;
    if (!progress->terminal) {
        return;
    }
    char label[32];
    round_label(progress, step->round, label);
    printf("\r\033[K%s step %u/%u  loss %.3f  %.0f tokens/s", label, step->step, step->steps,
           (double)step->loss, (double)step->tokens_per_s);
    fflush(stdout);
    progress->line_open = true;
}

void ct_progress_computed(struct ct_progress *progress, const struct ct_compute_result *result) {
    double ratio = result->pending.update.length > 0 ? 4.0 * (double)progress->facts.parameters /
                                                           (double)result->pending.update.length
                                                     : 0.0;
    progress->loss = result->loss;
    progress->tokens_per_s = result->tokens_per_s;
    progress->state = "uploading";
    if (progress->json) {
        print_json(json_pack("{s:s, s:i, s:f, s:f, s:I, s:f, s:i}", "event", "computed", "round",
                             (int)result->round, "loss", (double)result->loss, "tokens_per_s",
                             (double)result->tokens_per_s, "update_bytes",
                             (json_int_t)result->pending.update.length, "compression", ratio,
                             "skipped_steps", (int)result->skipped_steps));
    } else {
        char bytes[32];
        ct_progress_bytes(result->pending.update.length, bytes);
        snprintf(progress->computed, sizeof progress->computed,
                 "loss %.3f, %.0f tokens/s, update %s (1:%.0f), ", (double)result->loss,
                 (double)result->tokens_per_s, bytes, ratio);
    }
    write_status(progress);
}

void ct_progress_receipt(struct ct_progress *progress, uint32_t round, const char *path) {
    progress->receipts++;
    if (progress->json) {
        print_json(
            json_pack("{s:s, s:i, s:s}", "event", "receipt", "round", (int)round, "path", path));
    } else {
        char label[32];
        round_label(progress, round, label);
        end_line(progress);
        printf("%s %sreceipt stored\n", label, progress->computed);
        progress->computed[0] = '\0';
    }
    write_status(progress);
}
