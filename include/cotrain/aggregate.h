/* SL1's aggregation and outer step: integers up to one division, so the order of senders and the
 * number of threads cannot matter (numerics.md: weights, clip, chunk cap, sum, normaliser). Runs in
 * the default floating-point mode. Coordinator, node and auditor call this same function. */
#ifndef COTRAIN_AGGREGATE_H
#define COTRAIN_AGGREGATE_H

#include <cotrain/codec.h>

struct ct_sender {
    const struct ct_update *update;
    uint64_t weight; /* steps · tokens per step · trust in quarters (4 established, 1 newcomer) */
    bool established;
};

/* What the rules made of a sender, for the record and the dashboard. */
struct ct_sender_share {
    uint32_t weight_q22; /* Ω */
    uint32_t clip_q15;
};

/* new_theta = base moved by the senders' updates with the outer rate alpha: θ' = fma(−α, g, θ).
 * base and new_theta [parameters] may be the same array. shares[count] may be NULL. count ≥ 1 and
 * at most CT_NODES_MAX. Allocates scratch of bounded size; CT_ERR_MEMORY leaves new_theta
 * undefined. */
CT_MUST_CHECK enum ct_err ct_aggregate(const struct ct_chunks *chunks,
                                       const struct ct_sender *senders, uint32_t count, float alpha,
                                       const float *base, float *new_theta,
                                       struct ct_sender_share *shares);

/* α of a round: 1, then linearly to 0.65 over the last quarter. round counts from 1 to rounds. */
float ct_outer_rate(uint32_t round, uint32_t rounds);

#endif
