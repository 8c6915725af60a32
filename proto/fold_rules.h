/* What the fold's files share. Rules are numbered in fold.c. */
#ifndef COTRAIN_PROTO_FOLD_RULES_H
#define COTRAIN_PROTO_FOLD_RULES_H

#include <cotrain/fold.h>

/* An entry that breaks a rule: "entry N breaks RULE: sentence", CT_ERR_RULE. */
enum ct_err ct_fold_broken(const struct ct_fold *fold, const char *rule, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Reads a blob that an entry names, `what` in the failure's sentence. On success the caller ends
 * `out`; on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_fold_blob(const struct ct_fold *fold, const char *what,
                                       const struct ct_blob_ref *ref, uint64_t maximum,
                                       ct_blob_source blobs, void *blobs_user, struct ct_buf *out);

/* The rules of one kind of entry each; state changes only on success. */
struct ct_fold_input {
    const struct ct_entry *entry;
    bool verify;
    ct_blob_source blobs;
    void *blobs_user;
};
CT_MUST_CHECK enum ct_err ct_fold_round_opened(struct ct_fold *fold,
                                               const struct ct_fold_input *input);
CT_MUST_CHECK enum ct_err ct_fold_commit(struct ct_fold *fold, const struct ct_fold_input *input);
CT_MUST_CHECK enum ct_err ct_fold_commits_closed(struct ct_fold *fold,
                                                 const struct ct_fold_input *input);
CT_MUST_CHECK enum ct_err ct_fold_received(struct ct_fold *fold, const struct ct_fold_input *input);
CT_MUST_CHECK enum ct_err ct_fold_refused(struct ct_fold *fold, const struct ct_fold_input *input);
CT_MUST_CHECK enum ct_err ct_fold_round_closed(struct ct_fold *fold,
                                               const struct ct_fold_input *input);

/* Data positions that were assigned and not merged: ascending, apart, not empty. */
struct ct_ranges {
    uint32_t count;
    struct ct_range *items; /* owned; room for `count` and what was asked for */
};
/* A copy with room for `more` further ranges. */
CT_MUST_CHECK enum ct_err ct_ranges_copy(const struct ct_range *items, uint32_t count,
                                         uint32_t more, struct ct_ranges *out);
/* Adds a range that touches none of the others' positions; joins neighbours. There is room. */
void ct_ranges_add(struct ct_ranges *ranges, struct ct_range range);
/* Takes `count` positions from the front of the lowest range that has so many; false if none. */
bool ct_ranges_take(struct ct_ranges *ranges, uint64_t count, uint64_t *out_position);

/* ct_plan_round, and what is left of the data positions afterwards (owned by the caller). */
CT_MUST_CHECK enum ct_err ct_plan_apply(const struct ct_fold *fold,
                                        const struct ct_plan_request *requests, uint32_t count,
                                        struct ct_assignments *out, struct ct_ranges *out_left,
                                        uint64_t *out_next_position);

/* Commits of the open round in the order of their entries. out[fold->node_count]; the count. */
uint32_t ct_fold_commits(const struct ct_fold *fold, const struct ct_fold_node **out);
/* w of SL1 before the cap: steps · tokens per step · trust in quarters. */
uint64_t ct_fold_weight(const struct ct_fold *fold, const struct ct_fold_node *node);
/* steps · batch · context of a node's assignment in the open round. */
uint64_t ct_fold_tokens(const struct ct_fold *fold, const struct ct_fold_node *node);

#endif
