/* The task half of the node's state machine: one round's work, from assignment to upload. Only
 * node.c calls this; pure like it. */
#ifndef NODE_NODE_ROUND_H
#define NODE_NODE_ROUND_H

#include "node.h"

/* Adding actions; asserted to fit. */
struct ct_node_action *ct_node_do(struct ct_node_actions *out, enum ct_node_action_kind kind);
struct ct_wire *ct_node_send(struct ct_node_actions *out, enum ct_wire_kind kind);
void ct_node_say(struct ct_node_actions *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* node->view is new: ends what the ledger ended, begins what it assigns. */
void ct_node_round_view(struct ct_node *node, struct ct_node_actions *out);
/* The link became READY: sends again what was not acknowledged. */
void ct_node_round_resume(struct ct_node *node, struct ct_node_actions *out);
void ct_node_round_computed(struct ct_node *node, const struct ct_pending *done,
                            struct ct_node_actions *out);
void ct_node_round_failed(struct ct_node *node, uint32_t round, const char *detail,
                          struct ct_node_actions *out);
void ct_node_round_receipt(struct ct_node *node, const struct ct_wire *frame,
                           struct ct_node_actions *out);
void ct_node_round_uploaded(struct ct_node *node, const struct ct_wire *frame,
                            struct ct_node_actions *out);
void ct_node_round_refused(struct ct_node *node, uint32_t code, struct ct_node_actions *out);

#endif
