/* SL1's aggregation and outer step: integers up to one division, so the order of senders and the
 * number of threads cannot matter (numerics.md: weights, clip, chunk cap, sum, normaliser). Runs in
 * the default floating-point mode. Coordinator, node and auditor call this same function.
 *
 * With n senders, i over senders, c over chunks, j over values, / on integers rounding down:
 *   Σw    = Σ w_i before capping; w_i ← min(w_i, cap), once, with cap = 2·Σw / n for n ≤ 20 and
 *           Σw / 10 above.
 *   Ω_i   = 2^22 · w_i / Σw.
 *   ν_i   = n_i / √H_i, n_i the update's norm and H_i its steps: binary64, one √, one division.
 *   clip_i = 2^15 when ν_i = 0 or x ≥ 1, else floor(2^15 · x), x = (2 · median(ν)) / ν_i binary64.
 *   ω_i   = (Ω_i · clip_i) >> 15.
 *   Medians are lower weighted ones: the least value x for which the weights of values ≤ x make at
 *   least half of all weights; weights are the capped w_i; over the established senders, over all
 *   senders where none is established. A zero scale or norm takes part like any other.
 *   cap_c = the largest scale code whose value is at most 3 · (median over i of decode(code_i,c));
 *           0 when the median is 0. code_i,c ← min(code_i,c, cap_c).
 *   term_ij = ±(((1024 + mantissa) << 20) >> (E_cap − E)) · ω_i for every j that i sent, 0 when the
 *           shift exceeds 31; E and E_cap are the exponents (upper 6 bits) of the capped code and
 *           of cap_c.
 *   A_j, N_j = the sums of the established senders' and of the newcomers' terms; with no
 *           established sender every sender counts as established. |A_j|, |N_j| ≤ 2^53 because
 *           Σ Ω_i ≤ 2^22 and a factor is below 2^31.
 *   W_j   = Σ Ω_i over the established who sent j; W = Σ Ω_i over all senders.
 *   g_j   = binary32(((A_j / W_j) + (N_j / W)) · 2^(E_cap − 71)) in binary64, 0/0 = 0, the product
 *           exact; |g_j| < 2^-100 becomes +0.
 *   θ'_j  = fma(−α, g_j, θ_j); a subnormal result becomes the zero of its sign (E9). A value that
 *           nobody sent keeps its bits. */
#ifndef COTRAIN_AGGREGATE_H
#define COTRAIN_AGGREGATE_H

#include <cotrain/codec.h>

/* Of a sender's weight before the cap. */
#define CT_WEIGHT_MAX (1ull << 40)

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

/* A round's aggregation chunk by chunk, so that nobody needs more of the updates than one chunk of
 * each. Asserts the default floating-point mode. */
struct ct_aggregation;

/* Of an update only header and norm are read; `senders` need not outlive the call. shares[count]
 * may be NULL. count is 1 to CT_NODES_MAX (asserted). CT_ERR_RULE for a weight of 0 or above
 * CT_WEIGHT_MAX; CT_ERR_MEMORY: about 130 KiB and 40 bytes a sender. On success the caller ends it
 * with ct_aggregation_free. */
CT_MUST_CHECK enum ct_err ct_aggregation_new(const struct ct_sender *senders, uint32_t count,
                                             float alpha, struct ct_sender_share *shares,
                                             struct ct_aggregation **out);
void ct_aggregation_free(struct ct_aggregation *aggregation);

/* A sender's part in a chunk: [selected] positions and signs, not read where the code is 0. */
struct ct_sent {
    uint16_t code;
    const uint16_t *positions;
    const uint8_t *negative;
};
/* Moves the values of a chunk in theta[parameters] by what was sent[count]: θ' = fma(−α, g, θ). */
void ct_aggregation_move(struct ct_aggregation *aggregation, const struct ct_chunk *chunk,
                         const struct ct_sent *sent, float *theta);

/* The whole of it for decoded updates: new_theta = base moved by them. base and new_theta
 * [parameters] may be the same array, but not overlap otherwise. Errors of ct_aggregation_new; on
 * failure new_theta is undefined. */
CT_MUST_CHECK enum ct_err ct_aggregate(const struct ct_chunks *chunks,
                                       const struct ct_sender *senders, uint32_t count, float alpha,
                                       const float *base, float *new_theta,
                                       struct ct_sender_share *shares);

/* α of a round: 1, then linearly to 0.65 over the last quarter. round counts from 1 to rounds
 * (asserted). With q = rounds / 4 and i = round − (rounds − q): 1 while i ≤ 0, else the binary32
 * nearest (ties to even) to the fraction (20·q − 7·i) / (20·q); so the last round has 0.65. */
float ct_outer_rate(uint32_t round, uint32_t rounds);

#endif
