#include "audit_pass.h"
#include "audit_report.h"

#include <inttypes.h>
#include <stdio.h>

const double ct_audit_fractions[CT_AUDIT_FRACTIONS] = {0.01, 0.05, 0.10, 0.25};

double ct_audit_chance_of(const struct ct_audit_report *report, double fraction) {
    const double exact = fraction * (double)report->units_total;
    uint64_t cheated = (uint64_t)exact;
    cheated += (double)cheated < exact;
    return ct_audit_chance(report->units_total, report->units, cheated);
}

static void print_seconds(FILE *out, double seconds) {
    if (seconds < 120.0) {
        fprintf(out, "%.0f s", seconds);
    } else if (seconds < 7200.0) {
        fprintf(out, "%.0f min", seconds / 60.0);
    } else if (seconds < 172800.0) {
        fprintf(out, "%.1f h", seconds / 3600.0);
    } else {
        fprintf(out, "%.1f days", seconds / 86400.0);
    }
}

void ct_audit_cost_text(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_cost *cost = &report->cost;
    fprintf(out, "recomputing    %" PRIu64 " steps", cost->steps);
    if (cost->step_seconds > 0.0) {
        fprintf(out, ", about ");
        print_seconds(out, (double)cost->steps * cost->step_seconds);
        fprintf(out, " here (%.3g s a step)", cost->step_seconds);
    }
    fprintf(out, ", %" PRIu64 " rounds to replay on the way, %.1f MB of updates\n",
            cost->replay_rounds, 1e-6 * (double)cost->payload_bytes);
}

static void print_draw(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_options *options = report->options;
    fprintf(out, ", %u recomputed (%u of %u units", report->recomputed, report->units,
            report->units_total);
    if (options->draw == CT_DRAW_SHARE) {
        fprintf(out, ", share %u/%u", options->draw_share, options->draw_shares);
    }
    if (options->draw != CT_DRAW_ALL) {
        fprintf(out, ", drawn with --seed %" PRIu64, options->seed);
    }
    fprintf(out, ")");
}

static void print_chance(FILE *out, const struct ct_audit_report *report) {
    fprintf(out, "chance         to meet cheating");
    for (uint32_t i = 0; i < CT_AUDIT_FRACTIONS; i++) {
        const double chance = 100.0 * ct_audit_chance_of(report, ct_audit_fractions[i]);
        fprintf(out, "%s in %.0f %% of the units: %.*f %%", i > 0 ? "," : "",
                100.0 * ct_audit_fractions[i], chance > 99.0 && chance < 100.0 ? 3 : 1, chance);
    }
    fputs(ct_audit_is_narrow(&report->options->narrow) ? ", of those looked at\n" : "\n", out);
}

/* What the run's retention has cost: exactly what cannot be recomputed any more. */
static void print_expired(FILE *out, const struct ct_audit_expired *expired) {
    fprintf(out, "retention      rounds: %u", expired->rounds);
    if (expired->line == 0) {
        fprintf(out, "; no update has expired yet\n");
        return;
    }
    fprintf(out, "; updates of rounds up to %u have expired: ", expired->line);
    if (expired->updates == 0) {
        fprintf(out, "all are still there\n");
        return;
    }
    fprintf(out, "%" PRIu64 " (%.1f MB), of rounds %u to %u, are gone\n", expired->updates,
            1e-6 * (double)expired->bytes, expired->first_round, expired->last_round);
    fprintf(out,
            "gone with them the aggregations of %u rounds and the work of %u units (%u "
            "contributions): nobody can\n               recompute these from what is here\n",
            expired->aggregations, expired->units, expired->contributions);
    if (expired->trusted_round > 0) {
        fprintf(out,
                "               all that follows can be, on the snapshot of round %u, whose digest "
                "is the log's word\n",
                expired->trusted_round);
    }
}

static void print_narrow(FILE *out, const struct ct_audit_narrow *narrow) {
    fprintf(out, "looked at      only");
    if (narrow->has_range) {
        fprintf(out, " entries %" PRIu64 "-%" PRIu64, narrow->first, narrow->last);
    }
    if (narrow->node != 0) {
        fprintf(out, " node %u", narrow->node);
    }
    if (narrow->round != 0) {
        fprintf(out, " round %u", narrow->round);
    }
    fprintf(out, ": other signatures, blobs and files were not verified\n");
}

static void print_volunteer(FILE *out, const struct ct_volunteer *volunteer) {
    if (!ct_volunteer_is_empty(volunteer)) {
        fprintf(out, "%s%s%s:  ", volunteer->name,
                volunteer->name[0] != '\0' && volunteer->region[0] != '\0' ? ", " : "",
                volunteer->region);
    }
}

static void print_nodes(FILE *out, const struct ct_audit_report *report) {
    for (uint32_t i = 0; i < report->node_count && i < 20; i++) {
        const struct ct_audit_node *node = &report->nodes[i];
        char key[CT_HEX_BYTES];
        ct_hash_hex(&node->key, key);
        fprintf(out, "node %-9u %.16s…  ", node->node, key);
        print_volunteer(out, &node->volunteer);
        fprintf(out, "%u merged, %" PRIu64 " tokens (%" PRIu64 " settled)", node->merged,
                node->credit.tokens, node->credit.settled);
        if (node->missing + node->refused > 0) {
            fprintf(out, ", %u missing, %u refused", node->missing, node->refused);
        }
        if (node->mismatches > 0) {
            fprintf(out, ", %u MISMATCHES", node->mismatches);
        }
        fputc('\n', out);
    }
    if (report->node_count > 20) {
        fprintf(out, "               … and %u more nodes (--json, --html and --sqlite have them)\n",
                report->node_count - 20);
    }
}

static void print_findings(FILE *out, const struct ct_audit_report *report) {
    const uint64_t listed =
        report->finding_count < CT_FINDINGS_MAX ? report->finding_count : CT_FINDINGS_MAX;
    for (uint64_t i = 0; i < listed; i++) {
        const struct ct_finding *finding = &report->findings[i];
        fprintf(out, "  %s: ", ct_finding_name(finding->kind));
        if (finding->entry >= 0) {
            fprintf(out, "entry %" PRId64 ", ", finding->entry);
        }
        fprintf(out, "%s: %s\n", finding->file, finding->reason);
    }
    if (report->finding_count > listed) {
        fprintf(out, "  … and %" PRIu64 " more\n", report->finding_count - listed);
    }
}

static void print_witnesses(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_witness_report *witnesses = &report->witnesses;
    if (witnesses->size == 0) {
        fprintf(out, "witnesses      NO tree with the quorum '%s'\n", witnesses->quorum);
        return;
    }
    fprintf(out, "witnesses      %" PRIu64 " entries with the quorum '%s': %s", witnesses->size,
            witnesses->quorum, witnesses->names);
    const uint64_t rest = report->tree_size - witnesses->size;
    if (rest > 0) {
        fprintf(out, "; the last %" PRIu64 " NOT witnessed yet, on the log's word alone", rest);
    }
    fputc('\n', out);
}

static void print_since(FILE *out, const struct ct_audit_report *report) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&report->since.root, hex);
    fprintf(out, "since          %" PRIu64 " entries, root %.16s…, of %s: the log %s\n",
            report->since.size, hex, report->since.file,
            report->since.holds ? "leads on from there" : "DOES NOT LEAD ON FROM THERE");
}

void ct_audit_text(FILE *out, const struct ct_audit_report *report) {
    const struct ct_audit_options *options = report->options;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&report->run_id, hex);
    fprintf(out, "run            %s (%.16s…)\nlog            %s\n", report->name, hex,
            report->origin);
    ct_hash_hex(&report->tree_root, hex);
    fprintf(out, "tree           %" PRIu64 " entries, root %.16s…\n", report->tree_size, hex);
    fprintf(out, "entries        %" PRIu64 ", every rule checked, %" PRIu64 " signatures\n",
            report->entries, report->signatures);
    if (report->from_entry > 0) {
        fprintf(out,
                "continued      %" PRIu64 " entries were verified by an earlier audit (--fresh "
                "verifies them again)\n",
                report->from_entry);
    }
    if (report->witnesses.asked) {
        print_witnesses(out, report);
    }
    if (report->since.file[0] != '\0') {
        print_since(out, report);
    }
    if (ct_audit_is_narrow(&report->options->narrow)) {
        print_narrow(out, &options->narrow);
    }
    fprintf(out, "rounds         %u closed", report->rounds);
    if (options->replay || report->replayed_rounds > 0) {
        fprintf(out, ", %u replayed", report->replayed_rounds);
    }
    if (report->from_round > 0) {
        fprintf(out, " after %u by an earlier audit", report->from_round);
    }
    fprintf(out, "\ncontributions  %u", report->contributions);
    if (options->draw != CT_DRAW_NONE) {
        print_draw(out, report);
    }
    ct_hash_hex(&report->model, hex);
    fprintf(out, "\nmodel          sha256 %s", hex);
    if (report->model_recomputed && report->expired.trusted_round > 0) {
        fprintf(out, " (recomputed from the snapshot of round %u)\n",
                report->expired.trusted_round);
    } else {
        fputs(report->model_recomputed ? " (recomputed)\n" : " (as logged)\n", out);
    }
    if (report->expired.rounds > 0) {
        print_expired(out, &report->expired);
    }
    print_nodes(out, report);
    if (options->draw != CT_DRAW_NONE && report->units_total > 0) {
        print_chance(out, report);
    }
    if (report->private_count > 0) {
        fprintf(out, "not judged     %u private files of the operator (--json lists them)\n",
                report->private_count);
    }
    if (report->spare_count > 0) {
        fprintf(out, "spare          %u blobs that no entry names\n", report->spare_count);
    }
    fprintf(out, "mismatches     %" PRIu64 "\nunavailable    %" PRIu64 "\n", report->mismatches,
            report->unavailable);
    print_findings(out, report);
    if (report->evidence[0] != '\0') {
        fprintf(out,
                "evidence       %s proves two histories to anybody: cotrain evidence FILE; show it "
                "to others\n",
                report->evidence);
    }
    fputs(report->finding_count == 0 ? "verdict        all that was asked for holds\n"
                                     : "verdict        NOT all of it holds\n",
          out);
}
