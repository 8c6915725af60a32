/* What people see of a run at work: a line a round on standard output, and the status page. */
#include "serve.h"
#include "witness_status.h"

#include <cotrain/note.h>
#include <cotrain/ticket.h>

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void format_bytes(uint64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1024.0 && unit < 4) {
        value /= 1024.0;
        unit++;
    }
    snprintf(out, 32, value < 10.0 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void format_time(double ms, char out[32]) {
    unsigned seconds = ms > 0.0 ? (unsigned)(ms / 1000.0 + 0.5) : 0;
    if (seconds < 60) {
        snprintf(out, 32, "%u s", seconds);
    } else if (seconds < 3600) {
        snprintf(out, 32, "%u m %02u s", seconds / 60, seconds % 60);
    } else {
        snprintf(out, 32, "%u h %02u m", seconds / 3600, seconds / 60 % 60);
    }
}

/* One JSON object on a line, taken. */
static void print_json(json_t *root) {
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text != NULL) {
        puts(text);
        free(text);
    }
    fflush(stdout);
}

static void make_ticket(const struct ct_serve *serve, char out[CT_TICKET_BYTES_MAX]) {
    struct ct_ticket ticket = {.port = serve->ports.work, .run_id = serve->run.replay.fold.run_id};
    snprintf(ticket.host, sizeof ticket.host, "%s", serve->ports.host);
    ct_ticket_format(&ticket, out);
}

void ct_report_serving(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    char ticket[CT_TICKET_BYTES_MAX], vkey[CT_VKEY_BYTES_MAX];
    make_ticket(serve, ticket);
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    if (serve->options.json) {
        print_json(json_pack("{s:s, s:s, s:i, s:s, s:I, s:I}", "event", "serving", "ticket", ticket,
                             "http_port", (int)serve->ports.http, "verifier_key", vkey, "round",
                             (json_int_t)fold->round, "rounds", (json_int_t)fold->manifest.rounds));
        return;
    }
    char url[CT_URL_BYTES_MAX];
    ct_ports_url(&serve->ports, url);
    printf("%s: %zu parameters, %u rounds, %u nodes listed\n", fold->manifest.name,
           fold->layout.parameters, fold->manifest.rounds, serve->roster.seat_count);
    printf("ticket        %s\nreading       %s\nverifier key  %s\n", ticket, url, vkey);
    if (fold->round > 0) {
        printf("going on after %" PRIu64 " entries, %s round %u\n", fold->entries,
               fold->phase == CT_PHASE_IDLE || fold->phase == CT_PHASE_FINISHED ? "after" : "in",
               fold->round);
    }
    fflush(stdout);
}

static void count_traffic(const struct ct_serve *serve, uint64_t *out_up, uint64_t *out_down) {
    *out_up = serve->tally.closed_links_up;
    *out_down = serve->tally.closed_links_down + ct_web_sent_bytes(serve->web);
    for (const struct ct_member *member = serve->roster.members; member != NULL;
         member = member->next) {
        uint64_t received, sent;
        ct_link_traffic(member->link, &received, &sent);
        *out_up += received;
        *out_down += sent;
    }
}

void ct_report_round_opened(struct ct_serve *serve) {
    serve->tally.opened_ms = ct_serve_now_ms();
    count_traffic(serve, &serve->tally.up_bytes, &serve->tally.down_bytes);
}

/* Mean loss by tokens, as the merged nodes stated it; sizes of their payloads. */
static uint64_t tally_contributions(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    struct ct_tally *tally = &serve->tally;
    uint64_t tokens = 0;
    tally->merged = tally->commits = 0;
    tally->payload_bytes = 0;
    tally->loss = 0.0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        const struct ct_fold_node *node = &fold->nodes[i];
        tally->commits += node->part >= CT_PART_COMMITTED;
        if (node->part == CT_PART_RECEIVED) {
            uint64_t of_node =
                (uint64_t)node->commit.steps * fold->manifest.batch * fold->manifest.model.context;
            tokens += of_node;
            tally->merged++;
            tally->payload_bytes += node->commit.update.length;
            tally->loss += (double)node->commit.loss * (double)of_node;
        }
    }
    tally->loss = tokens > 0 ? tally->loss / (double)tokens : 0.0;
    return tokens;
}

static void print_round(const struct ct_serve *serve, uint64_t up, uint64_t down) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    const struct ct_tally *tally = &serve->tally;
    double ratio = tally->payload_bytes > 0 ? 4.0 * (double)fold->layout.parameters *
                                                  tally->merged / (double)tally->payload_bytes
                                            : 0.0;
    double left_ms = tally->round_ms * (fold->manifest.rounds - fold->round);
    if (serve->options.json) {
        print_json(json_pack(
            "{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:f, s:f}", "event", "round",
            "round", (json_int_t)fold->round, "rounds", (json_int_t)fold->manifest.rounds, "merged",
            (json_int_t)tally->merged, "commits", (json_int_t)tally->commits, "loss", tally->loss,
            "tokens_per_s", tally->tokens_per_s, "bytes_up", (json_int_t)up, "bytes_down",
            (json_int_t)down, "payload_bytes", (json_int_t)tally->payload_bytes, "compression",
            ratio, "left_s", left_ms / 1000.0));
        return;
    }
    char up_text[32], down_text[32], left[32];
    format_bytes(up, up_text);
    format_bytes(down, down_text);
    format_time(left_ms, left);
    printf("round %*u/%u  nodes %u  loss %.4f  %6.0f tokens/s  up %s (%.0f x smaller)  down %s  "
           "left %s\n",
           fold->manifest.rounds >= 100 ? 3 : 2, fold->round, fold->manifest.rounds, tally->merged,
           tally->loss, tally->tokens_per_s, up_text, ratio, down_text, left);
    fflush(stdout);
}

void ct_report_round_closed(struct ct_serve *serve) {
    struct ct_tally *tally = &serve->tally;
    uint64_t up, down;
    count_traffic(serve, &up, &down);
    uint64_t tokens = tally_contributions(serve);
    double ms = (double)(ct_serve_now_ms() - tally->opened_ms);
    tally->tokens_per_s = ms > 0.0 ? (double)tokens * 1000.0 / ms : 0.0;
    tally->round_ms = tally->round_ms > 0.0 ? 0.7 * tally->round_ms + 0.3 * ms : ms;
    print_round(serve, up - tally->up_bytes, down - tally->down_bytes);
}

void ct_report_finished(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    char model[CT_HEX_BYTES];
    ct_hash_hex(&fold->model, model);
    if (serve->options.json) {
        print_json(json_pack("{s:s, s:I, s:s, s:I}", "event", "finished", "round",
                             (json_int_t)fold->round, "model_sha256", model, "tokens",
                             (json_int_t)fold->tokens));
        return;
    }
    printf("finished: %u rounds, %" PRIu64 " tokens, model %s\n", fold->round, fold->tokens, model);
    fflush(stdout);
}

void ct_report_disk(struct ct_serve *serve, const char *detail) {
    if (serve->options.json) {
        print_json(json_pack("{s:s, s:s}", "event", detail != NULL ? "disk_full" : "disk_room",
                             "detail", detail != NULL ? detail : ""));
        return;
    }
    printf(detail != NULL ? "the disk is full, waiting for room: %s\n"
                          : "the disk has room again%s\n",
           detail != NULL ? detail : "");
    fflush(stdout);
}

static const char *phase_word(enum ct_phase phase) {
    static const char *const words[] = {"empty", "waiting for nodes", "training", "uploading",
                                        "finished"};
    return words[phase];
}

static json_t *nodes_json(const struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    json_t *nodes = json_array();
    for (uint32_t i = 0; nodes != NULL && i < serve->roster.seat_count; i++) {
        const struct ct_seat *seat = &serve->roster.seats[i];
        const struct ct_fold_node *node = ct_fold_find_key(fold, &seat->key);
        char key[CT_HEX_BYTES];
        ct_hash_hex(&seat->key, key);
        const struct ct_credit credit = node != NULL ? ct_credit_of(node) : (struct ct_credit){0};
        json_array_append_new(
            nodes,
            json_pack("{s:I, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "node",
                      (json_int_t)(node != NULL ? node->number : 0), "key", key, "connected",
                      seat->member != NULL, "ready", seat->member != NULL && seat->member->ready,
                      "merged_rounds", (json_int_t)credit.rounds, "merged_tokens",
                      (json_int_t)credit.tokens, "settled_tokens", (json_int_t)credit.settled,
                      "provisional_tokens", (json_int_t)credit.provisional, "void_tokens",
                      (json_int_t)credit.void_tokens, "checks", (json_int_t)credit.checks));
    }
    return nodes;
}

/* For the texts that others wrote: the run's name, the origin, what witnesses say. */
static void append_escaped(struct ct_buf *page, const char *text, bool *ok) {
    for (; *text != '\0' && *ok; text++) {
        const char *escaped = *text == '<' ? "&lt;" : *text == '&' ? "&amp;" : NULL;
        *ok = (escaped != NULL ? ct_buf_printf(page, "%s", escaped)
                               : ct_buf_append(page, text, 1)) == CT_OK;
    }
}

#define PAGE_NODES     32u /* status.json has all */
#define PAGE_BYTES_MAX 131072u

static void append_nodes(const struct ct_fold *fold, struct ct_buf *page, bool *ok) {
    if (fold->node_count == 0) {
        return;
    }
    *ok = *ok && ct_buf_printf(page, "<h2>Credit</h2><table><tr><th>node<th>rounds<th>tokens "
                                     "merged<th>settled") == CT_OK;
    for (uint32_t i = 0; i < fold->node_count && i < PAGE_NODES && *ok; i++) {
        const struct ct_credit credit = ct_credit_of(&fold->nodes[i]);
        *ok = ct_buf_printf(page, "<tr><td>%u<td>%u<td>%" PRIu64 "<td>%" PRIu64,
                            fold->nodes[i].number, credit.rounds, credit.tokens,
                            credit.settled) == CT_OK;
    }
    *ok = *ok && ct_buf_printf(page, "</table>") == CT_OK;
}

static void append_witnesses(const json_t *witnesses, struct ct_buf *page, bool *ok) {
    size_t i;
    json_t *witness;
    if (json_array_size(witnesses) == 0) {
        return;
    }
    *ok = *ok && ct_buf_printf(page, "<h2>Witnesses</h2><table><tr><th>name<th>says<th>entries "
                                     "cosigned<th>behind<th>") == CT_OK;
    json_array_foreach(witnesses, i, witness) {
        const char *error = json_string_value(json_object_get(witness, "error"));
        *ok = *ok && ct_buf_printf(page, "<tr><td>") == CT_OK;
        append_escaped(page, json_string_value(json_object_get(witness, "name")), ok);
        *ok = *ok && ct_buf_printf(
                         page, "<td>%s<td>%lld<td>%lld<td>",
                         json_string_value(json_object_get(witness, "state")),
                         (long long)json_integer_value(json_object_get(witness, "size")),
                         (long long)json_integer_value(json_object_get(witness, "lag"))) == CT_OK;
        append_escaped(page, error != NULL ? error : "", ok);
    }
    *ok = *ok && ct_buf_printf(page, "</table>") == CT_OK;
}

static bool make_page(const struct ct_serve *serve, const char *ticket, const char *vkey,
                      const json_t *witnesses, struct ct_buf *page) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    bool ok = ct_buf_printf(page, "<!doctype html><meta charset=utf-8><title>cotrain</title>"
                                  "<style>body{font:16px sans-serif;margin:2em;max-width:60em}"
                                  "td,th{padding:0 1em 0 0;text-align:left}</style><h1>") == CT_OK;
    append_escaped(page, fold->manifest.name, &ok);
    ok = ok && ct_buf_printf(
                   page,
                   "</h1><table><tr><td>phase<td>%s<tr><td>round<td>%u of %u<tr><td>nodes<td>%u "
                   "ready of %u listed<tr><td>tokens merged<td>%" PRIu64
                   "<tr><td>loss<td>%.4f<tr><td>tokens/s<td>%.0f<tr><td>ledger<td>%" PRIu64
                   " entries, <a href=checkpoint>checkpoint</a><tr><td>join<td><code>cotrain join "
                   "%s</code><tr><td>origin<td><code>",
                   phase_word(fold->phase), fold->round, fold->manifest.rounds,
                   ct_roster_ready(&serve->roster), serve->roster.seat_count, fold->tokens,
                   serve->tally.loss, serve->tally.tokens_per_s, serve->journal.published,
                   ticket) == CT_OK;
    append_escaped(page, fold->opened.origin, &ok);
    ok = ok && ct_buf_printf(page, "</code><tr><td>verifier key<td><code>") == CT_OK;
    append_escaped(page, vkey, &ok);
    ok = ok && ct_buf_printf(page, "</code></table>") == CT_OK;
    append_witnesses(witnesses, page, &ok);
    append_nodes(fold, page, &ok);
    ok = ok &&
         ct_buf_printf(page,
                       "<p>This page informs; what holds is the ledger: <code>cotrain "
                       "audit</code> verifies it. <a href=status.json>status.json</a>") == CT_OK &&
         ct_buf_append(page, "", 1) == CT_OK;
    return ok;
}

void ct_report_show(struct ct_serve *serve) {
    const struct ct_fold *fold = &serve->run.replay.fold;
    char ticket[CT_TICKET_BYTES_MAX], run[CT_HEX_BYTES], model[CT_HEX_BYTES] = "";
    char vkey[CT_VKEY_BYTES_MAX];
    make_ticket(serve, ticket);
    ct_vkey_format(fold->opened.origin, &fold->opened.log_key, vkey);
    ct_hash_hex(&fold->run_id, run);
    if (fold->model_known) {
        ct_hash_hex(&fold->model, model);
    }
    struct ct_buf page;
    ct_buf_init(&page, PAGE_BYTES_MAX);
    json_t *witnesses = ct_witness_status(serve->witnesses, serve->journal.published);
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:s, s:I, s:b, s:O, "
        "s:o}",
        "run", run, "name", fold->manifest.name, "ticket", ticket, "origin", fold->opened.origin,
        "verifier_key", vkey, "phase", phase_word(fold->phase), "round", (json_int_t)fold->round,
        "rounds", (json_int_t)fold->manifest.rounds, "remaining_ms",
        (json_int_t)ct_round_remaining_ms(&serve->round, ct_serve_now_ms()), "entries",
        (json_int_t)serve->journal.published, "tokens", (json_int_t)fold->tokens, "loss",
        serve->tally.loss, "tokens_per_s", serve->tally.tokens_per_s, "model_sha256", model,
        "refusals", (json_int_t)serve->refusals.count, "disk_full", serve->full, "witnesses",
        witnesses, "nodes", nodes_json(serve));
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    if (text != NULL && make_page(serve, ticket, vkey, witnesses, &page)) {
        ct_web_show(serve->web, (const char *)page.data, text);
    }
    free(text);
    json_decref(root);
    json_decref(witnesses);
    ct_buf_deinit(&page);
}
