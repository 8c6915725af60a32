/* The report as one page that loads nothing from anywhere. Whatever others wrote goes through
 * `escape`; the page forbids itself scripts and requests besides. */
#include "audit_pass.h"
#include "audit_plot.h"
#include "audit_report.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS_MAX 1000u

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
    "'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n<style>\n"
    ":root{--bg:#fff;--fg:#1b1f24;--soft:#59636e;--rule:#d1d9e0;--card:#f6f8fa;--good:#1a7f37;"
    "--bad:#b3261e;--line:#0969da}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9198a1;"
    "--rule:#30363d;--card:#151b23;--good:#3fb950;--bad:#f85149;--line:#58a6ff}}\n"
    "body{background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;margin:0 auto;"
    "max-width:54rem;padding:1.5rem 1rem 4rem}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}"
    "p{margin:.4rem 0}small,.soft{color:var(--soft)}\n"
    "code,.mono{font-family:ui-monospace,monospace;font-size:.88em;overflow-wrap:anywhere}\n"
    ".verdict{border-left:.4rem solid;border-radius:.3rem;background:var(--card);padding:.8rem "
    "1rem;margin:1rem 0}.good{border-color:var(--good)}.bad{border-color:var(--bad)}"
    ".verdict b{font-size:1.1rem}.good b{color:var(--good)}.bad b{color:var(--bad)}\n"
    ".facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr));gap:.6rem}"
    ".facts div{background:var(--card);border-radius:.3rem;padding:.6rem .8rem}"
    ".facts b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}"
    "th,td{text-align:left;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--rule);"
    "vertical-align:top}th{color:var(--soft);font-weight:600;white-space:nowrap}"
    ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "ul{padding-left:1.2rem;margin:.3rem 0}li{margin:.2rem 0}"
    ".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:0 2rem}\n"
    "svg{width:100%;height:auto;display:block}.axis{font:12px system-ui,sans-serif;"
    "fill:var(--soft)}.grid{stroke:var(--rule);stroke-width:1}"
    ".line{fill:none;stroke:var(--line);stroke-width:2;stroke-linejoin:round}\n"
    ".s0{fill:#4477aa;color:#4477aa}.s1{fill:#ee6677;color:#ee6677}.s2{fill:#228833;color:#228833}"
    ".s3{fill:#ccbb44;color:#ccbb44}.s4{fill:#66ccee;color:#66ccee}.s5{fill:#aa3377;color:#aa3377}"
    ".s6{fill:#ee8866;color:#ee8866}.s7{fill:#44aa99;color:#44aa99}.s8{fill:#999;color:#999}\n"
    "i.key{display:inline-block;width:.7rem;height:.7rem;border-radius:.15rem;margin-right:.4rem;"
    "background:currentColor}\n"
    ".kind{font-weight:600;white-space:nowrap}.mismatch,.broken{color:var(--bad)}"
    "td .mono,td.soft{white-space:nowrap}.wide td .mono{white-space:normal}"
    "@media(max-width:40rem){.axis{font-size:22px}}\n"
    "@media print{body{max-width:none;padding:0;font-size:11pt}.scroll{overflow:visible}"
    "h2{break-after:avoid}tr,svg{break-inside:avoid}}\n"
    "</style>\n";

/* Length of the UTF-8 sequence that `at` begins with, 0 if none does. */
static int sequence(const unsigned char *at) {
    if (at[0] < 0x80) {
        return 1;
    }
    const int length = at[0] >= 0xf0 && at[0] < 0xf5   ? 4
                       : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                       : at[0] >= 0xc2 && at[0] < 0xe0 ? 2
                                                       : 0;
    for (int i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

static void escape(FILE *out, const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        const int length = sequence(at);
        switch (*at) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            if (length == 0 || *at < 0x20 || *at == 0x7f) {
                fputs("&#65533;", out);
            } else {
                fwrite(at, 1, (size_t)length, out);
            }
        }
        at += length > 0 ? length : 1;
    }
}

/* 1234567 as 1 234 567, with spaces that do not break. */
static void number(FILE *out, uint64_t value) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, value);
    for (int i = 0; i < length; i++) {
        fputs(i > 0 && (length - i) % 3 == 0 ? "&#8239;" : "", out);
        fputc(digits[i], out);
    }
}

static void hash(FILE *out, const struct ct_hash *value, int digits) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(value, hex);
    fprintf(out, "<span class=\"mono\" title=\"%s\">%.*s%s</span>", hex, digits, hex,
            digits < 64 ? "…" : "");
}

static void verdict(FILE *out, const struct ct_audit_report *report) {
    const bool holds = report->finding_count == 0;
    fprintf(out, "<div class=\"verdict %s\"><b>%s</b><p>", holds ? "good" : "bad",
            holds ? "All that was asked for holds." : "Not all of it holds.");
    if (holds) {
        fputs("Nothing that was looked at contradicts the ledger.", out);
    } else {
        number(out, report->mismatches);
        fputs(" accuse somebody, ", out);
        number(out, report->unavailable);
        fputs(" could not be verified because something is not there, ", out);
        number(out, report->finding_count - report->mismatches - report->unavailable);
        fputs(" are broken. They are listed below.", out);
    }
    fputs("</p></div>\n", out);
}

static void fact(FILE *out, uint64_t value, const char *what) {
    fputs("<div><b>", out);
    number(out, value);
    fprintf(out, "</b><small>%s</small></div>\n", what);
}

static void facts(FILE *out, const struct ct_audit_report *report) {
    fputs("<div class=\"facts\">\n", out);
    fact(out, report->rounds, "rounds closed");
    fact(out, report->node_count, "nodes");
    fact(out, report->contributions, "contributions looked at");
    fact(out, report->tokens, "tokens merged");
    fact(out, report->replayed_rounds, "aggregations recomputed");
    fact(out, report->recomputed, "contributions recomputed");
    fputs("</div>\n", out);
}

static void verified(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_options *options = report->options;
    fputs("<div><h2>What was verified</h2><ul>\n<li>", out);
    number(out, report->entries);
    fputs(" entries of the signed tree obey every rule of the run</li>\n<li>", out);
    number(out, report->signatures);
    fputs(" signatures, of the coordinator and of the nodes</li>\n", out);
    if (!ct_audit_is_narrow(&options->narrow)) {
        fputs("<li>the digest of everything that these entries name</li>\n", out);
    }
    if (report->replayed_rounds > 0) {
        fprintf(out,
                "<li>%u aggregations, recomputed to the bit; so the model follows from the "
                "contributions</li>\n",
                report->replayed_rounds);
    }
    if (options->draw != CT_DRAW_NONE) {
        fprintf(out,
                "<li>%u contributions in %u of %u units, recomputed to the bit; units were drawn "
                "with the auditor's seed <code>%" PRIu64 "</code></li>\n",
                report->recomputed, report->units, report->units_total, options->seed);
    }
    if (report->from_entry > 0) {
        fputs("<li class=\"soft\">signatures and payloads of the first ", out);
        number(out, report->from_entry);
        fputs(" entries, by an earlier audit of the same auditor</li>\n", out);
    }
    fputs("</ul></div>\n", out);
}

static void not_verified(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_options *options = report->options;
    fputs("<div><h2>What was not</h2><ul>\n", out);
    if (ct_audit_is_narrow(&options->narrow)) {
        fputs("<li>signatures and blobs outside of", out);
        if (options->narrow.has_range) {
            fprintf(out, " entries %" PRIu64 " to %" PRIu64, options->narrow.first,
                    options->narrow.last);
        }
        if (options->narrow.node != 0) {
            fprintf(out, " node %u", options->narrow.node);
        }
        if (options->narrow.round != 0) {
            fprintf(out, " round %u", options->narrow.round);
        }
        fputs("</li>\n", out);
    }
    if (!options->replay) {
        fputs("<li>the aggregations: the model is the one that the log names</li>\n", out);
    }
    if (report->units < report->units_total || options->draw == CT_DRAW_NONE) {
        fprintf(out, "<li>the work of %u units was not recomputed</li>\n",
                report->units_total - report->units);
    }
    if (report->expired.updates > 0) {
        const struct ct_audit_expired *expired = &report->expired;
        fputs("<li>", out);
        number(out, expired->updates);
        fprintf(out,
                " updates of rounds %u to %u, which have expired as the run's manifest lets them "
                "(<code>retention: rounds: %u</code>): the aggregations of %u rounds and the work "
                "of %u units, ",
                expired->first_round, expired->last_round, expired->rounds, expired->aggregations,
                expired->units);
        number(out, expired->contributions);
        fputs(" contributions, can no longer be recomputed", out);
        if (expired->trusted_round > 0) {
            fprintf(out,
                    "; all that follows can be, on the snapshot of round %u, whose digest is the "
                    "log's word",
                    expired->trusted_round);
        }
        fputs("</li>\n", out);
    }
    if (report->private_count > 0) {
        fprintf(out, "<li>%u private files of the operator, which no audit needs</li>\n",
                report->private_count);
    }
    fputs("<li>whether the coordinator let everyone in who asked, and on time: a ledger cannot "
          "tell</li>\n</ul></div>\n",
          out);
}

static void chances(FILE *out, const struct ct_audit_report *report) {
    if (report->options->draw == CT_DRAW_NONE || report->units_total == 0) {
        return;
    }
    fputs("<h2>What cheating would have met</h2>\n<p>Had so much of the work been cheated in, this "
          "draw would have contained some of it with this probability:</p>\n<div "
          "class=\"scroll\"><table><tr>",
          out);
    for (uint32_t i = 0; i < CT_AUDIT_FRACTIONS; i++) {
        fprintf(out, "<th class=\"n\">%.0f %% of units</th>", 100.0 * ct_audit_fractions[i]);
    }
    fputs("</tr><tr>", out);
    for (uint32_t i = 0; i < CT_AUDIT_FRACTIONS; i++) {
        const double chance = 100.0 * ct_audit_chance_of(report, ct_audit_fractions[i]);
        fprintf(out, "<td class=\"n\">%.*f %%</td>", chance > 99.0 && chance < 100.0 ? 3 : 1,
                chance);
    }
    fputs("</tr></table></div>\n", out);
}

static void volunteer_cells(FILE *out, const struct ct_volunteer *volunteer) {
    const char *const shown[] = {volunteer->name, volunteer->region};
    fputs("</td>", out);
    for (size_t i = 0; i < 2; i++) {
        fputs(shown[i][0] != '\0' ? "<td>" : "<td class=\"soft\">", out);
        escape(out, shown[i][0] != '\0' ? shown[i] : "not shown");
        fputs("</td>", out);
    }
}

static void node_row(FILE *out, const struct ct_audit_report *report,
                     const struct ct_audit_node *node, uint32_t rank) {
    fprintf(out, "<tr><td><i class=\"key s%u\"></i>%u</td><td>",
            rank < CT_PLOT_SERIES ? rank : CT_PLOT_SERIES, node->node);
    hash(out, &node->key, 12);
    volunteer_cells(out, &node->volunteer);
    fputs("<td class=\"n\">", out);
    number(out, node->credit.tokens);
    fprintf(out, "</td><td class=\"n\">%.1f %%</td><td class=\"n\">",
            report->tokens > 0 ? 100.0 * (double)node->credit.tokens / (double)report->tokens
                               : 0.0);
    number(out, node->credit.settled);
    fprintf(out, "</td><td class=\"n\">%u</td><td class=\"n\">%u</td><td class=\"n\">",
            node->merged, node->missing + node->refused);
    if (node->commits > 0) {
        fprintf(out, "%.3f → %.3f", (double)node->first_loss, (double)node->last_loss);
    }
    fprintf(out, "</td><td class=\"n\">%u</td><td class=\"n%s\">%u</td></tr>\n", node->recomputed,
            node->mismatches > 0 ? " mismatch" : "", node->mismatches);
}

static void nodes(FILE *out, const struct ct_audit_report *report, const uint32_t *order) {
    fputs("<h2>Who contributed what</h2>\n<div class=\"scroll\"><table><tr><th>node</th>"
          "<th>key</th><th>name</th><th>region</th><th class=\"n\">tokens</th><th "
          "class=\"n\">share</th>"
          "<th class=\"n\">settled</th><th class=\"n\">merged</th><th class=\"n\">lost</th>"
          "<th class=\"n\">loss</th><th class=\"n\">checked</th><th class=\"n\">wrong</th></tr>\n",
          out);
    for (uint32_t i = 0; i < report->node_count && i < ROWS_MAX; i++) {
        node_row(out, report, &report->nodes[order[i]], i);
    }
    fputs("</table></div>\n<p><small>Tokens are credit: what was merged into the model, by the "
          "ledger alone. They settle when the author has gone through ten more epochs without a "
          "mismatch. Lost are contributions whose payload did not come or was refused. Checked and "
          "wrong are contributions that this audit recomputed. Name and region are "
          "what volunteers say of themselves, for as long as they agree to show it.</small></p>\n",
          out);
}

static bool same_region(const struct ct_audit_report *report, uint32_t a, uint32_t b) {
    return strcmp(report->nodes[a].volunteer.region, report->nodes[b].volunteer.region) == 0;
}

/* In the order of the regions' first nodes in `order`, those of most tokens. */
static void regions(FILE *out, const struct ct_audit_report *report, const uint32_t *order) {
    fputs("<h2>From where</h2>\n<div class=\"scroll\"><table><tr><th>region</th>"
          "<th class=\"n\">nodes</th><th class=\"n\">contributions merged</th>"
          "<th class=\"n\">tokens</th></tr>\n",
          out);
    for (uint32_t i = 0; i < report->node_count; i++) {
        uint64_t merged = 0, tokens = 0;
        uint32_t count = 0;
        bool first = true;
        for (uint32_t j = 0; j < report->node_count; j++) {
            if (same_region(report, order[i], order[j])) {
                first &= j >= i;
                count++;
                merged += report->nodes[order[j]].merged;
                tokens += report->nodes[order[j]].credit.tokens;
            }
        }
        if (!first) {
            continue;
        }
        const char *region = report->nodes[order[i]].volunteer.region;
        fputs(region[0] != '\0' ? "<tr><td>" : "<tr><td class=\"soft\">", out);
        escape(out, region[0] != '\0' ? region : "not shown");
        fprintf(out, "</td><td class=\"n\">%u</td><td class=\"n\">", count);
        number(out, merged);
        fputs("</td><td class=\"n\">", out);
        number(out, tokens);
        fputs("</td></tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

static void checks(FILE *out, const struct ct_audit_report *report) {
    fputs("<h2>Checks, verdicts and bans</h2>\n<p>", out);
    if (report->options->draw == CT_DRAW_NONE) {
        fputs("This audit recomputed no contribution.", out);
    } else {
        number(out, report->recomputed);
        fputs(" contributions were recomputed by this audit; ", out);
        uint64_t wrong = 0;
        for (uint32_t i = 0; i < report->node_count; i++) {
            wrong += report->nodes[i].mismatches;
        }
        number(out, wrong);
        fputs(" differ from what their authors signed.", out);
    }
    fputs(" The ledger of this run records no checks by other nodes and no bans.</p>\n", out);
}

static void findings(FILE *out, const struct ct_audit_report *report) {
    if (report->finding_count == 0) {
        return;
    }
    fputs("<h2>Findings</h2>\n<div class=\"scroll\"><table><tr><th>kind</th><th "
          "class=\"n\">entry</th><th>file</th><th>reason</th></tr>\n",
          out);
    for (uint64_t i = 0; i < report->finding_count && i < CT_FINDINGS_MAX; i++) {
        const struct ct_finding *finding = &report->findings[i];
        const char *kind = ct_finding_name(finding->kind);
        fprintf(out, "<tr><td class=\"kind %s\">%s</td><td class=\"n\">", kind, kind);
        if (finding->entry >= 0) {
            number(out, (uint64_t)finding->entry);
        }
        fputs("</td><td class=\"mono\">", out);
        escape(out, finding->file);
        fputs("</td><td>", out);
        escape(out, finding->reason);
        fputs("</td></tr>\n", out);
    }
    fputs("</table></div>\n", out);
    if (report->finding_count > CT_FINDINGS_MAX) {
        fputs("<p>… and ", out);
        number(out, report->finding_count - CT_FINDINGS_MAX);
        fputs(" more.</p>\n", out);
    }
    fputs("<p><small><b>mismatch</b>: recomputed and different, so its author is accused. "
          "<b>unavailable</b>: not there, so not verified; nobody is accused. <b>broken</b>: "
          "malformed, unsigned, or against the rules.</small></p>\n",
          out);
}

static void fingerprints(FILE *out, const struct ct_audit_report *report) {
    fputs("<h2>What this is about</h2>\n<div class=\"wide\"><table>\n<tr><th>run</th><td>", out);
    hash(out, &report->run_id, 64);
    fputs("</td></tr>\n<tr><th>log</th><td class=\"mono\">", out);
    escape(out, report->origin);
    fputs("</td></tr>\n<tr><th>log key</th><td>", out);
    hash(out, &report->log_key, 64);
    fputs("</td></tr>\n<tr><th>tree</th><td>", out);
    number(out, report->tree_size);
    fputs(" entries, root ", out);
    hash(out, &report->tree_root, 64);
    if (report->witnesses.asked) {
        fputs("</td></tr>\n<tr><th>witnesses</th><td>", out);
        number(out, report->witnesses.size);
        fputs(" entries have the quorum <i>", out);
        escape(out, report->witnesses.quorum);
        fputs("</i>: ", out);
        escape(out, report->witnesses.names);
        fputs("; not witnessed yet: ", out);
        number(out, report->tree_size - report->witnesses.size);
    }
    fputs("</td></tr>\n<tr><th>model</th><td>", out);
    hash(out, &report->model, 64);
    if (report->model_recomputed && report->expired.trusted_round > 0) {
        fprintf(out, " (recomputed from the snapshot of round %u)", report->expired.trusted_round);
    } else {
        fputs(report->model_recomputed ? " (recomputed)" : " (as logged)", out);
    }
    fputs("</td></tr>\n<tr><th>licences</th><td>model ", out);
    escape(out, report->license);
    fputs(", data ", out);
    escape(out, report->data_license);
    fputs("</td></tr>\n</table></div>\n<p><small>Anyone can make this page again from the ledger: "
          "<code>cotrain audit SOURCE",
          out);
    fputs(report->options->replay ? " --replay" : "", out);
    switch (report->options->draw) {
    case CT_DRAW_ALL:
        fputs(" --recompute all", out);
        break;
    case CT_DRAW_SOME:
        fprintf(out, " --recompute %u --seed %" PRIu64, report->options->draw_units,
                report->options->seed);
        break;
    case CT_DRAW_SHARE:
        fprintf(out, " --recompute %u/%u --seed %" PRIu64, report->options->draw_share,
                report->options->draw_shares, report->options->seed);
        break;
    case CT_DRAW_NONE:
        break;
    }
    fputs(" --html FILE</code></small></p>\n", out);
}

/* Node indices, the most merged tokens first; the caller frees it. */
static uint32_t *order_nodes(const struct ct_audit_report *report) {
    uint32_t *order = calloc(report->node_count + 1u, sizeof *order);
    for (uint32_t i = 0; order != NULL && i < report->node_count; i++) {
        uint32_t at = i;
        for (;
             at > 0 && report->nodes[order[at - 1]].credit.tokens < report->nodes[i].credit.tokens;
             at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return order;
}

static void page(FILE *out, const struct ct_audit_report *report, const uint32_t *order) {
    fputs(head, out);
    fputs("<title>Audit of ", out);
    escape(out, report->name);
    fputs("</title></head><body>\n<small>cotrain audit</small><h1>", out);
    escape(out, report->name);
    fputs("</h1>\n", out);
    fprintf(out, "<p class=\"soft\">%u of %u rounds; log <span class=\"mono\">", report->rounds,
            report->rounds_planned);
    escape(out, report->origin);
    fputs("</span></p>\n", out);
    verdict(out, report);
    facts(out, report);
    fputs("<div class=\"two\">\n", out);
    verified(out, report);
    not_verified(out, report);
    fputs("</div>\n", out);
    findings(out, report);
    fputs("<h2>Loss</h2>\n", out);
    ct_plot_loss(out, report);
    fputs("<p><small>Mean training loss in nats per token, as the authors of merged contributions "
          "signed it.</small></p>\n<h2>Contributions</h2>\n",
          out);
    ct_plot_tokens(out, report, order);
    fputs("<p><small>Merged tokens; the colours are those of the table, grey is all other "
          "nodes.</small></p>\n",
          out);
    nodes(out, report, order);
    regions(out, report, order);
    chances(out, report);
    checks(out, report);
    fingerprints(out, report);
    fputs("</body></html>\n", out);
}

enum ct_err ct_audit_html(const char *path, const struct ct_audit_report *report) {
    char partial[PATH_MAX];
    const int length = snprintf(partial, sizeof partial, "%s.partial", path);
    uint32_t *order = order_nodes(report);
    FILE *out = length > 0 && length < PATH_MAX ? fopen(partial, "we") : NULL;
    enum ct_err err = CT_OK;
    if (order == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for a page");
    } else if (out == NULL) {
        err = ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    } else {
        page(out, report, order);
    }
    const bool written = out != NULL && ferror(out) == 0;
    if (out != NULL && (fclose(out) != 0 || !written || rename(partial, path) != 0) &&
        err == CT_OK) {
        err = ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        unlink(partial);
    }
    free(order);
    return err;
}
