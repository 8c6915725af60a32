#include "message.h"

#include <cotrain/entry.h>

#include <stdlib.h>

#include <cotrain.pb-c.h>

static enum ct_err check_item(const struct ct_merge_item *item) {
    if (item->node == 0 || item->node > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a merge list names node %u", item->node);
    }
    switch (item->outcome) {
    case CT_OUTCOME_MERGED:
        return CT_OK;
    case CT_OUTCOME_MISSING:
    case CT_OUTCOME_REFUSED:
        if (item->weight != 0 || item->weight_q22 != 0 || item->clip_q15 != 0) {
            return ct_fail(CT_ERR_FORMAT, "commit %llu was not merged and has a weight",
                           (unsigned long long)item->commit_index);
        }
        return CT_OK;
    }
    return ct_fail(CT_ERR_FORMAT, "commit %llu has no known outcome",
                   (unsigned long long)item->commit_index);
}

static enum ct_err check(const struct ct_merge_list *list) {
    if (list->round == 0) {
        return ct_fail(CT_ERR_FORMAT, "a merge list names no round");
    }
    if (list->count > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a merge list has %u commits", list->count);
    }
    for (uint32_t i = 0; i < list->count; i++) {
        CT_TRY(check_item(&list->items[i]));
        if (i > 0 && list->items[i].commit_index <= list->items[i - 1].commit_index) {
            return ct_fail(CT_ERR_FORMAT, "commit %llu stands in the wrong place of a merge list",
                           (unsigned long long)list->items[i].commit_index);
        }
    }
    return CT_OK;
}

struct columns {
    uint64_t commit_index[CT_NODES_MAX], weight[CT_NODES_MAX];
    uint32_t node[CT_NODES_MAX], outcome[CT_NODES_MAX];
    uint32_t weight_q22[CT_NODES_MAX], clip_q15[CT_NODES_MAX];
};

enum ct_err ct_merge_list_encode(const struct ct_merge_list *list, struct ct_buf *out) {
    CT_TRY(check(list));
    struct columns *columns = malloc(sizeof *columns);
    if (columns == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to encode a merge list");
    }
    uint32_t count = list->count;
    for (uint32_t i = 0; i < count; i++) {
        const struct ct_merge_item *item = &list->items[i];
        columns->commit_index[i] = item->commit_index;
        columns->node[i] = item->node;
        columns->outcome[i] = (uint32_t)item->outcome;
        columns->weight[i] = item->weight;
        columns->weight_q22[i] = item->weight_q22;
        columns->clip_q15[i] = item->clip_q15;
    }
    Cotrain__MergeList message = COTRAIN__MERGE_LIST__INIT;
    message.round = list->round;
    message.commit_index = columns->commit_index;
    message.node = columns->node;
    message.outcome = columns->outcome;
    message.weight = columns->weight;
    message.weight_q22 = columns->weight_q22;
    message.clip_q15 = columns->clip_q15;
    message.n_commit_index = message.n_node = message.n_outcome = count;
    message.n_weight = message.n_weight_q22 = message.n_clip_q15 = count;
    enum ct_err err = ct_message_encode(&message.base, out);
    free(columns);
    return err;
}

static enum ct_err read_list(const Cotrain__MergeList *message, struct ct_merge_list *out) {
    size_t count = message->n_commit_index;
    if (count > CT_NODES_MAX || message->n_node != count || message->n_outcome != count ||
        message->n_weight != count || message->n_weight_q22 != count ||
        message->n_clip_q15 != count) {
        return ct_fail(CT_ERR_FORMAT,
                       "the columns of a merge list differ in length, or are too long");
    }
    struct ct_merge_list list = {.round = message->round, .count = (uint32_t)count};
    /* One more, so that an empty list is no special case for its owner. */
    list.items = calloc(count + 1, sizeof *list.items);
    if (list.items == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a merge list of %zu commits", count);
    }
    for (size_t i = 0; i < count; i++) {
        list.items[i] = (struct ct_merge_item){
            .commit_index = message->commit_index[i],
            .node = message->node[i],
            .outcome = (enum ct_outcome)message->outcome[i],
            .weight = message->weight[i],
            .weight_q22 = message->weight_q22[i],
            .clip_q15 = message->clip_q15[i],
        };
    }
    enum ct_err err = check(&list);
    if (err != CT_OK) {
        ct_merge_list_deinit(&list);
        return err;
    }
    *out = list;
    return CT_OK;
}

enum ct_err ct_merge_list_decode(struct ct_bytes bytes, struct ct_merge_list *out) {
    if (bytes.length > CT_MERGE_LIST_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a merge list of %zu bytes is over the maximum of %u",
                       bytes.length, CT_MERGE_LIST_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__merge_list__descriptor, bytes, &message));
    enum ct_err err = read_list((const Cotrain__MergeList *)(void *)message, out);
    ct_message_free(message);
    return err;
}

void ct_merge_list_deinit(struct ct_merge_list *list) {
    free(list->items);
    *list = (struct ct_merge_list){0};
}
