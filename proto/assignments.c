#include "message.h"

#include <cotrain/entry.h>

#include <stdlib.h>

#include <cotrain.pb-c.h>

static enum ct_err check(const struct ct_assignments *assignments) {
    if (assignments->round == 0) {
        return ct_fail(CT_ERR_FORMAT, "assignments name no round");
    }
    if (assignments->count == 0 || assignments->count > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a round has assignments for %u nodes", assignments->count);
    }
    uint32_t last_node = 0;
    for (uint32_t i = 0; i < assignments->count; i++) {
        const struct ct_assignment *item = &assignments->items[i];
        if (item->node <= last_node || item->node > CT_NODES_MAX) {
            return ct_fail(CT_ERR_FORMAT, "an assignment for node %u follows one for node %u",
                           item->node, last_node);
        }
        if (item->steps == 0 || item->steps > CT_STEPS_MAX) {
            return ct_fail(CT_ERR_FORMAT, "node %u's assignment has %u steps", item->node,
                           item->steps);
        }
        if (item->index == 0 && !item->reset) {
            return ct_fail(CT_ERR_FORMAT, "node %u's epoch %u starts without a reset", item->node,
                           item->epoch);
        }
        last_node = item->node;
    }
    return CT_OK;
}

/* The message's lists, each of CT_NODES_MAX elements. */
struct columns {
    uint32_t node[CT_NODES_MAX], epoch[CT_NODES_MAX], index[CT_NODES_MAX], steps[CT_NODES_MAX];
    protobuf_c_boolean reset[CT_NODES_MAX];
    uint64_t position[CT_NODES_MAX];
};

enum ct_err ct_assignments_encode(const struct ct_assignments *assignments, struct ct_buf *out) {
    CT_TRY(check(assignments));
    struct columns *columns = malloc(sizeof *columns);
    if (columns == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to encode a round's assignments");
    }
    uint32_t count = assignments->count;
    for (uint32_t i = 0; i < count; i++) {
        const struct ct_assignment *item = &assignments->items[i];
        columns->node[i] = item->node;
        columns->epoch[i] = item->epoch;
        columns->index[i] = item->index;
        columns->reset[i] = item->reset;
        columns->steps[i] = item->steps;
        columns->position[i] = item->position;
    }
    Cotrain__Assignments message = COTRAIN__ASSIGNMENTS__INIT;
    message.run_id = ct_field_put_hash(&assignments->run_id);
    message.round = assignments->round;
    message.node = columns->node;
    message.epoch = columns->epoch;
    message.index = columns->index;
    message.reset = columns->reset;
    message.steps = columns->steps;
    message.position = columns->position;
    message.n_node = message.n_epoch = message.n_index = count;
    message.n_reset = message.n_steps = message.n_position = count;
    enum ct_err err = ct_message_encode(&message.base, out);
    free(columns);
    return err;
}

static enum ct_err read_assignments(const Cotrain__Assignments *message,
                                    struct ct_assignments *out) {
    size_t count = message->n_node;
    if (count == 0 || count > CT_NODES_MAX || message->n_epoch != count ||
        message->n_index != count || message->n_reset != count || message->n_steps != count ||
        message->n_position != count) {
        return ct_fail(CT_ERR_FORMAT, "the lists of a round's assignments differ in length, or "
                                      "have none or too many elements");
    }
    struct ct_assignments assignments = {.round = message->round, .count = (uint32_t)count};
    CT_TRY(ct_field_get_hash(&message->run_id, "the assignments' run id", &assignments.run_id));
    assignments.items = calloc(count, sizeof *assignments.items);
    if (assignments.items == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the assignments of %zu nodes", count);
    }
    for (size_t i = 0; i < count; i++) {
        assignments.items[i] = (struct ct_assignment){
            .node = message->node[i],
            .epoch = message->epoch[i],
            .index = message->index[i],
            .reset = message->reset[i] != 0,
            .steps = message->steps[i],
            .position = message->position[i],
        };
    }
    enum ct_err err = check(&assignments);
    if (err != CT_OK) {
        ct_assignments_deinit(&assignments);
        return err;
    }
    *out = assignments;
    return CT_OK;
}

enum ct_err ct_assignments_decode(struct ct_bytes bytes, struct ct_assignments *out) {
    if (bytes.length > CT_ASSIGNMENTS_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "assignments of %zu bytes are over the maximum of %u",
                       bytes.length, CT_ASSIGNMENTS_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__assignments__descriptor, bytes, &message));
    enum ct_err err = read_assignments((const Cotrain__Assignments *)(void *)message, out);
    ct_message_free(message);
    return err;
}

void ct_assignments_deinit(struct ct_assignments *assignments) {
    free(assignments->items);
    *assignments = (struct ct_assignments){0};
}

const struct ct_assignment *ct_assignments_find(const struct ct_assignments *assignments,
                                                uint32_t node) {
    uint32_t low = 0;
    uint32_t high = assignments->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct ct_assignment *item = &assignments->items[middle];
        if (item->node == node) {
            return item;
        }
        if (item->node < node) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}
