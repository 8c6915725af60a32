/* The rules of a round's entries, R4 to R15 of fold.c. Each function checks first and changes the
 * state after the last check. */
#include "fold_rules.h"

#include <cotrain/assert.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The open round is in `phase` and is the one that the entry names. */
static enum ct_err check_round(const struct ct_fold *fold, const char *rule,
                               const struct ct_entry *entry, bool in_phase) {
    if (!in_phase) {
        return ct_fold_broken(fold, rule, "it does not belong into this part of round %u",
                              entry->round);
    }
    if (entry->round != fold->round) {
        return ct_fold_broken(fold, rule, "it names round %u, open is %u", entry->round,
                              fold->round);
    }
    return CT_OK;
}

/* The assignments that the plan makes of the choices in `logged`; equal, or R6 is broken. */
static enum ct_err check_plan(const struct ct_fold *fold, const struct ct_assignments *logged,
                              struct ct_ranges *out_left, uint64_t *out_next_position) {
    struct ct_plan_request *requests = calloc(logged->count + 1u, sizeof requests[0]);
    if (requests == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to check %u assignments", logged->count);
    }
    for (uint32_t i = 0; i < logged->count; i++) {
        requests[i] = (struct ct_plan_request){
            .node = logged->items[i].node,
            .steps = logged->items[i].steps,
            .has_state = !logged->items[i].reset,
        };
    }
    struct ct_assignments planned;
    enum ct_err err =
        ct_plan_apply(fold, requests, logged->count, &planned, out_left, out_next_position);
    free(requests);
    if (err != CT_OK) {
        return err == CT_ERR_MEMORY ? err : ct_fold_broken(fold, "R6", "%s", ct_err_detail());
    }
    for (uint32_t i = 0; i < logged->count && err == CT_OK; i++) {
        const struct ct_assignment *a = &logged->items[i], *b = &planned.items[i];
        if (a->epoch != b->epoch || a->index != b->index || a->reset != b->reset ||
            a->position != b->position) {
            err = ct_fold_broken(
                fold, "R6",
                "node %u is given epoch %u, index %u, position %llu where epoch %u, index %u, "
                "position %llu follow",
                a->node, a->epoch, a->index, (unsigned long long)a->position, b->epoch, b->index,
                (unsigned long long)b->position);
        }
    }
    ct_assignments_deinit(&planned);
    if (err != CT_OK) {
        free(out_left->items);
    }
    return err;
}

static void begin_round(struct ct_fold *fold, const struct ct_round_opened *opened,
                        struct ct_assignments *assignments) {
    fold->round++;
    fold->phase = CT_PHASE_COMMIT;
    fold->round_opened = *opened;
    fold->model = opened->base;
    fold->model_known = true;
    ct_assignments_deinit(&fold->assignments);
    fold->assignments = *assignments;
    for (uint32_t i = 0; i < assignments->count; i++) {
        const struct ct_assignment *item = &assignments->items[i];
        struct ct_fold_node *node = &fold->nodes[item->node - 1];
        if (item->reset) {
            node->epochs = item->epoch + 1;
            node->epoch_tokens[item->epoch % (CT_ESCROW_EPOCHS + 1)] = 0;
            node->epoch_rounds = ct_epoch_rounds(fold, node->number, item->epoch);
        }
        node->epoch_index = item->index + 1;
        node->last_round = fold->round;
        node->last_merged = false;
        node->part = CT_PART_ASSIGNED;
    }
}

enum ct_err ct_fold_round_opened(struct ct_fold *fold, const struct ct_fold_input *input) {
    const struct ct_round_opened *opened = &input->entry->body.round_opened;
    if (fold->phase != CT_PHASE_IDLE) {
        return ct_fold_broken(fold, "R4", "a round is opened in round %u or after the last",
                              fold->round);
    }
    if (input->entry->round != fold->round + 1 || input->entry->round > fold->manifest.rounds) {
        return ct_fold_broken(fold, "R4", "round %u is opened after round %u of %u",
                              input->entry->round, fold->round, fold->manifest.rounds);
    }
    if (fold->model_known && !ct_hash_equal(&opened->base, &fold->model)) {
        return ct_fold_broken(fold, "R5", "round %u's base is not the current model",
                              input->entry->round);
    }
    if (opened->tokens_at_base != fold->tokens) {
        return ct_fold_broken(fold, "R5", "tokens_at_base is %llu, %llu are merged",
                              (unsigned long long)opened->tokens_at_base,
                              (unsigned long long)fold->tokens);
    }
    struct ct_buf bytes;
    CT_TRY(ct_fold_blob(fold, "assignments", &opened->assignments, CT_ASSIGNMENTS_BYTES_MAX,
                        input->blobs, input->blobs_user, &bytes));
    struct ct_assignments assignments;
    enum ct_err err = ct_assignments_decode(ct_buf_bytes(&bytes), &assignments);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return ct_fail(err, "entry %llu: its assignments: %s", (unsigned long long)fold->entries,
                       ct_err_detail());
    }
    struct ct_ranges left;
    uint64_t next_position;
    if (!ct_hash_equal(&assignments.run_id, &fold->run_id) ||
        assignments.round != input->entry->round) {
        err = ct_fold_broken(fold, "R6", "its assignments are of another run or round");
        goto fail;
    }
    err = check_plan(fold, &assignments, &left, &next_position);
    if (err != CT_OK) {
        goto fail;
    }
    if (opened->planned_tokens != ct_plan_tokens(fold, &assignments)) {
        free(left.items);
        err = ct_fold_broken(fold, "R6", "planned_tokens is not what was assigned");
        goto fail;
    }
    free(fold->returned);
    fold->returned = left.items;
    fold->returned_count = left.count;
    fold->next_position = next_position;
    begin_round(fold, opened, &assignments);
    return CT_OK;

fail:
    ct_assignments_deinit(&assignments);
    return err;
}

/* R8 */
static enum ct_err check_commit(const struct ct_fold *fold, const struct ct_commit *commit) {
    const struct ct_assignment *assignment =
        ct_assignments_find(&fold->assignments, commit->author);
    CT_ASSERT(assignment != NULL);
    if (!ct_hash_equal(&commit->run_id, &fold->run_id) || commit->round != fold->round) {
        return ct_fold_broken(fold, "R8", "node %u's commit is of another run or round",
                              commit->author);
    }
    if (!ct_hash_equal(&commit->assignment, &fold->round_opened.assignments.sha256)) {
        return ct_fold_broken(fold, "R8", "node %u's commit names other assignments",
                              commit->author);
    }
    if (commit->steps != assignment->steps) {
        return ct_fold_broken(fold, "R8", "node %u commits %u steps, %u were assigned",
                              commit->author, commit->steps, assignment->steps);
    }
    if (commit->skipped_steps > 1 || !isfinite(commit->loss)) {
        return ct_fold_broken(fold, "R8", "node %u skipped %u steps, or its loss is not finite",
                              commit->author, commit->skipped_steps);
    }
    if (commit->update.length < CT_UPDATE_HEADER_BYTES ||
        commit->update.length > ct_update_bytes_max(&fold->chunks)) {
        return ct_fold_broken(fold, "R8", "node %u's update has %llu bytes, no update has",
                              commit->author, (unsigned long long)commit->update.length);
    }
    return CT_OK;
}

enum ct_err ct_fold_commit(struct ct_fold *fold, const struct ct_fold_input *input) {
    CT_TRY(check_round(fold, "R7", input->entry, fold->phase == CT_PHASE_COMMIT));
    struct ct_bytes bytes = {input->entry->body.commit.envelope, input->entry->body.commit.length};
    struct ct_envelope envelope;
    struct ct_commit commit;
    enum ct_err err = ct_envelope_open(bytes, &envelope);
    if (err == CT_OK && strcmp(envelope.type, CT_TYPE_COMMIT) != 0) {
        err = ct_fail(CT_ERR_FORMAT, "its statement's type is %s", envelope.type);
    }
    if (err == CT_OK) {
        err = ct_commit_decode(envelope.payload, &commit);
    }
    if (err != CT_OK) {
        return ct_fail(err, "entry %llu: %s", (unsigned long long)fold->entries, ct_err_detail());
    }
    if (commit.author == 0 || commit.author > fold->node_count ||
        envelope.key_number != commit.author) {
        return ct_fold_broken(fold, "R7", "author %u signs with key number %u", commit.author,
                              envelope.key_number);
    }
    struct ct_fold_node *node = &fold->nodes[commit.author - 1];
    if (node->part != CT_PART_ASSIGNED) {
        return ct_fold_broken(fold, "R7", "node %u %s", node->number,
                              node->part == CT_PART_NONE ? "is not assigned in this round"
                                                         : "has committed already");
    }
    if (input->verify && ct_envelope_verify(&envelope, &node->key) != CT_OK) {
        return ct_fail(CT_ERR_SIGNATURE, "entry %llu breaks rule R7: node %u's %s",
                       (unsigned long long)fold->entries, node->number, ct_err_detail());
    }
    CT_TRY(check_commit(fold, &commit));
    node->part = CT_PART_COMMITTED;
    node->commit_index = fold->entries;
    node->commit = commit;
    return CT_OK;
}

enum ct_err ct_fold_commits_closed(struct ct_fold *fold, const struct ct_fold_input *input) {
    CT_TRY(check_round(fold, "R9", input->entry, fold->phase == CT_PHASE_COMMIT));
    if (!ct_fold_quorum(fold, CT_PART_COMMITTED)) {
        return ct_fold_broken(fold, "R9", "round %u's commits close below quorum", fold->round);
    }
    const uint8_t *seed = input->entry->body.commits_closed.seed;
    struct ct_hash hash = ct_sha256((struct ct_bytes){seed, sizeof fold->seed.bytes});
    if (!ct_hash_equal(&hash, &fold->round_opened.seed_hash)) {
        return ct_fold_broken(fold, "R9", "its seed is not the one whose hash was logged");
    }
    memcpy(fold->seed.bytes, seed, sizeof fold->seed.bytes);
    fold->phase = CT_PHASE_UPLOAD;
    return CT_OK;
}

enum ct_err ct_fold_received(struct ct_fold *fold, const struct ct_fold_input *input) {
    CT_TRY(check_round(fold, "R10", input->entry, fold->phase == CT_PHASE_UPLOAD));
    uint64_t index = input->entry->body.received.commit_index;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        struct ct_fold_node *node = &fold->nodes[i];
        if (node->part == CT_PART_COMMITTED && node->commit_index == index) {
            node->part = CT_PART_RECEIVED;
            return CT_OK;
        }
    }
    return ct_fold_broken(fold, "R10",
                          "entry %llu is no commit of this round that still lacks its "
                          "payload",
                          (unsigned long long)index);
}

/* R12 */
static enum ct_err check_reason(const struct ct_fold *fold, const struct ct_fold_node *node,
                                enum ct_refusal reason) {
    bool closed = fold->phase == CT_PHASE_UPLOAD;
    bool holds = false;
    switch (reason) {
    case CT_REFUSAL_LATE:
        holds = closed;
        break;
    case CT_REFUSAL_SECOND_COMMIT:
        holds = node->part >= CT_PART_COMMITTED;
        break;
    case CT_REFUSAL_MALFORMED:
        holds = node->part == CT_PART_COMMITTED;
        break;
    case CT_REFUSAL_COPY:
        holds = closed && (node->part == CT_PART_COMMITTED || node->part == CT_PART_RECEIVED);
        break;
    case CT_REFUSAL_WRONG_ASSIGNMENT:
        holds = true;
        break;
    }
    if (!holds) {
        return ct_fold_broken(fold, "R12", "node %u cannot be refused for reason %u now",
                              node->number, (unsigned)reason);
    }
    return CT_OK;
}

enum ct_err ct_fold_refused(struct ct_fold *fold, const struct ct_fold_input *input) {
    CT_TRY(check_round(fold, "R11", input->entry,
                       fold->phase == CT_PHASE_COMMIT || fold->phase == CT_PHASE_UPLOAD));
    uint32_t number = input->entry->body.refused.node;
    enum ct_refusal reason = input->entry->body.refused.reason;
    if (number > fold->node_count || fold->nodes[number - 1].part == CT_PART_NONE) {
        return ct_fold_broken(fold, "R11", "node %u is not assigned in this round", number);
    }
    struct ct_fold_node *node = &fold->nodes[number - 1];
    if (node->refused_logged) {
        return ct_fold_broken(fold, "R11", "node %u was refused in this round before", number);
    }
    CT_TRY(check_reason(fold, node, reason));
    node->refused_logged = true;
    if (reason == CT_REFUSAL_MALFORMED || reason == CT_REFUSAL_COPY) {
        node->part = CT_PART_REFUSED;
    }
    return CT_OK;
}

/* R13 */
static enum ct_err check_merge_item(const struct ct_fold *fold, const struct ct_merge_item *item,
                                    const struct ct_fold_node *node) {
    enum ct_outcome outcome = node->part == CT_PART_RECEIVED  ? CT_OUTCOME_MERGED
                              : node->part == CT_PART_REFUSED ? CT_OUTCOME_REFUSED
                                                              : CT_OUTCOME_MISSING;
    if (item->commit_index != node->commit_index || item->node != node->number ||
        item->outcome != outcome) {
        return ct_fold_broken(fold, "R13",
                              "its list says %u of node %u's commit %llu where %u of node %u's "
                              "commit %llu follows",
                              (unsigned)item->outcome, item->node,
                              (unsigned long long)item->commit_index, (unsigned)outcome,
                              node->number, (unsigned long long)node->commit_index);
    }
    bool merged = outcome == CT_OUTCOME_MERGED;
    if (item->weight != (merged ? ct_fold_weight(fold, node) : 0) ||
        item->weight_q22 > (merged ? 1u << 22 : 0) || item->clip_q15 > (merged ? 1u << 15 : 0)) {
        return ct_fold_broken(fold, "R13", "its list gives node %u's commit a wrong weight or clip",
                              node->number);
    }
    return CT_OK;
}

static enum ct_err check_merge_list(const struct ct_fold *fold, const struct ct_merge_list *list) {
    const struct ct_fold_node **commits = calloc(fold->node_count + 1u, sizeof commits[0]);
    if (commits == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to check a merge list");
    }
    enum ct_err err = CT_OK;
    uint32_t count = ct_fold_commits(fold, commits);
    if (list->round != fold->round || list->count != count) {
        err = ct_fold_broken(fold, "R13", "its list has %u commits of round %u, round %u has %u",
                             list->count, list->round, fold->round, count);
    }
    for (uint32_t i = 0; i < count && err == CT_OK; i++) {
        err = check_merge_item(fold, &list->items[i], commits[i]);
    }
    free(commits);
    return err;
}

/* R14 and R15 */
static enum ct_err check_result(const struct ct_fold *fold, const struct ct_round_closed *closed) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        if (fold->nodes[i].part == CT_PART_RECEIVED) {
            tokens += ct_fold_tokens(fold, &fold->nodes[i]);
        }
    }
    if (closed->tokens != tokens) {
        return ct_fold_broken(fold, "R14", "it counts %llu tokens, merged are %llu",
                              (unsigned long long)closed->tokens, (unsigned long long)tokens);
    }
    if (tokens == 0 && !ct_hash_equal(&closed->model, &fold->model)) {
        return ct_fold_broken(fold, "R14", "nothing was merged, and the model changes");
    }
    bool snapshot =
        fold->round % fold->manifest.snapshot_rounds == 0 || fold->round == fold->manifest.rounds;
    if (closed->has_snapshot != snapshot) {
        return ct_fold_broken(fold, "R15", "round %u must %shave a snapshot", fold->round,
                              snapshot ? "" : "not ");
    }
    return CT_OK;
}

static void end_round(struct ct_fold *fold, const struct ct_round_closed *closed,
                      struct ct_ranges *ranges) {
    for (uint32_t i = 0; i < fold->assignments.count; i++) {
        const struct ct_assignment *item = &fold->assignments.items[i];
        struct ct_fold_node *node = &fold->nodes[item->node - 1];
        if (node->part == CT_PART_RECEIVED) {
            node->last_merged = true;
            node->state = node->commit.state;
            node->merged_rounds++;
            node->merged_tokens += ct_fold_tokens(fold, node);
            node->epoch_tokens[item->epoch % (CT_ESCROW_EPOCHS + 1)] += ct_fold_tokens(fold, node);
        } else {
            ct_ranges_add(ranges, (struct ct_range){item->position,
                                                    (uint64_t)item->steps * fold->manifest.batch});
        }
        node->part = CT_PART_NONE;
        node->refused_logged = false;
    }
    free(fold->returned);
    fold->returned = ranges->items;
    fold->returned_count = ranges->count;
    fold->round_closed = *closed;
    fold->model = closed->model;
    fold->tokens += closed->tokens;
    if (closed->has_snapshot) {
        fold->snapshot_round = fold->round;
        fold->snapshot = closed->model;
    }
    fold->phase = fold->round == fold->manifest.rounds ? CT_PHASE_FINISHED : CT_PHASE_IDLE;
}

enum ct_err ct_fold_round_closed(struct ct_fold *fold, const struct ct_fold_input *input) {
    const struct ct_round_closed *closed = &input->entry->body.round_closed;
    CT_TRY(check_round(fold, "R13", input->entry, fold->phase == CT_PHASE_UPLOAD));
    if (!ct_fold_quorum(fold, CT_PART_RECEIVED)) {
        return ct_fold_broken(fold, "R13", "round %u closes below quorum", fold->round);
    }
    struct ct_buf bytes;
    CT_TRY(ct_fold_blob(fold, "merge list", &closed->merged, CT_MERGE_LIST_BYTES_MAX, input->blobs,
                        input->blobs_user, &bytes));
    struct ct_merge_list list;
    enum ct_err err = ct_merge_list_decode(ct_buf_bytes(&bytes), &list);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return ct_fail(err, "entry %llu: its merge list: %s", (unsigned long long)fold->entries,
                       ct_err_detail());
    }
    err = check_merge_list(fold, &list);
    ct_merge_list_deinit(&list);
    CT_TRY(err);
    CT_TRY(check_result(fold, closed));
    struct ct_ranges ranges;
    CT_TRY(ct_ranges_copy(fold->returned, fold->returned_count, fold->assignments.count, &ranges));
    end_round(fold, closed, &ranges);
    return CT_OK;
}
