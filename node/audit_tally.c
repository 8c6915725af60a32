/* What an audit's reports tell of nodes and rounds. Memory goes with nodes; rounds share bins,
 * which double in length when they are all in use. */
#include "audit_pass.h"

#include <cotrain/assert.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ct_err ct_audit_tally_start(struct ct_audit_report *report, const struct ct_fold *fold) {
    const struct ct_manifest *manifest = &fold->manifest;
    snprintf(report->name, sizeof report->name, "%s", manifest->name);
    snprintf(report->license, sizeof report->license, "%s", manifest->license);
    snprintf(report->data_license, sizeof report->data_license, "%s", manifest->data_license);
    report->rounds_planned = manifest->rounds;
    report->bin_rounds = 1;
    report->nodes = calloc(manifest->node_count + 1u, sizeof *report->nodes);
    return report->nodes != NULL
               ? CT_OK
               : ct_fail(CT_ERR_MEMORY, "no memory for %u nodes", manifest->node_count);
}

enum ct_err ct_audit_tally_node(struct ct_audit_report *report, const struct ct_fold *fold) {
    CT_ASSERT(report->node_count + 1 == fold->node_count);
    const struct ct_fold_node *from = &fold->nodes[report->node_count];
    struct ct_audit_node *node = &report->nodes[report->node_count];
    *node = (struct ct_audit_node){
        .node = from->number,
        .key = from->key,
        .profile = from->profile,
        .admitted_round = from->admitted_round,
        .bins = calloc(CT_AUDIT_BINS, sizeof *node->bins),
    };
    if (node->bins == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a node's rounds");
    }
    report->node_count++;
    return CT_OK;
}

static void double_bins(struct ct_audit_report *report) {
    for (uint32_t i = 0; i < CT_AUDIT_BINS; i++) {
        const bool kept = i < CT_AUDIT_BINS / 2;
        const struct ct_audit_bin *pair = &report->bins[kept ? 2 * i : 0];
        report->bins[i] = kept ? (struct ct_audit_bin){pair[0].loss_tokens + pair[1].loss_tokens,
                                                       pair[0].tokens + pair[1].tokens}
                               : (struct ct_audit_bin){0};
        for (uint32_t n = 0; n < report->node_count; n++) {
            uint64_t *bins = report->nodes[n].bins;
            bins[i] = kept ? bins[2 * i] + bins[2 * i + 1] : 0;
        }
    }
    report->bin_rounds *= 2;
}

static uint32_t bin_of(struct ct_audit_report *report, uint32_t round) {
    while ((round - 1) / report->bin_rounds >= CT_AUDIT_BINS) {
        double_bins(report);
    }
    return (round - 1) / report->bin_rounds;
}

void ct_audit_tally_commit(struct ct_audit_report *report, const struct ct_fold *fold,
                           const struct ct_fold_node *node, enum ct_outcome outcome) {
    struct ct_audit_node *tally = &report->nodes[node->number - 1];
    tally->first_loss = tally->commits == 0 ? node->commit.loss : tally->first_loss;
    tally->last_loss = node->commit.loss;
    tally->commits++;
    tally->last_round = fold->round;
    switch (outcome) {
    case CT_OUTCOME_MERGED:
        tally->merged++;
        tally->payload_bytes += node->commit.update.length;
        tally->bins[bin_of(report, fold->round)] +=
            (uint64_t)node->commit.steps * fold->manifest.batch * fold->manifest.model.context;
        break;
    case CT_OUTCOME_MISSING:
        tally->missing++;
        break;
    case CT_OUTCOME_REFUSED:
        tally->refused++;
        break;
    }
}

void ct_audit_tally_round(struct ct_audit_report *report, const struct ct_audit_round *round) {
    const uint32_t at = bin_of(report, round->round);
    report->bins[at].tokens += round->tokens;
    report->bins[at].loss_tokens += round->loss * (double)round->tokens;
    report->bin_count = at + 1;
}

void ct_audit_tally_end(struct ct_audit_report *report, const struct ct_fold *fold) {
    report->tokens = fold->tokens;
    for (uint32_t i = 0; i < report->node_count; i++) {
        report->nodes[i].credit = ct_credit_of(&fold->nodes[i]);
    }
}
