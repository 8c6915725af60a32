/* Threads that walk through the same phases together: one parallel region for a whole pass, each
 * hand taking its share of a phase's outputs, barriers between phases. */
#ifndef COTRAIN_KERNELS_TEAM_H
#define COTRAIN_KERNELS_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ct_meeting;

/* A thread of the team. */
struct ct_hand {
    size_t me, all;
    struct ct_meeting *meeting; /* where the team's hands wait for each other */
};

typedef void ct_hand_fn(void *context, struct ct_hand hand);

/* Runs `body` once in each of at most `threads` threads, in E1 mode, and returns when all are done.
 * The team may come out smaller than asked: `all` tells. Inside another parallel region it is the
 * calling thread alone. */
void ct_team(uint32_t threads, ct_hand_fn *body, void *context);

/* Waits until every hand of the team has come here; what they wrote before is then visible. Spins
 * for some microseconds and gives the core away after that, so that a crowded machine loses little.
 */
void ct_barrier(struct ct_hand hand);

struct ct_span {
    size_t begin, end;
};

/* Deals 0 … count − 1 out to the hands as they ask, each time a contiguous part: while much is left
 * much at once, so that neighbours stay with one hand, and single items at the end, so that all
 * finish together although one was held up or has the slower core. *span is what this hand was
 * dealt before, {0, 0} at first; false when nothing is left. Between two barriers of the team there
 * is one such dealing, of the same count by all hands. */
bool ct_deal(struct ct_hand hand, size_t count, struct ct_span *span);

/* This hand's contiguous part of 0 … count − 1, cut at multiples of grain. */
static inline struct ct_span ct_share(struct ct_hand hand, size_t count, size_t grain) {
    const size_t grains = (count + grain - 1) / grain;
    const size_t begin = grains * hand.me / hand.all * grain;
    const size_t end = grains * (hand.me + 1) / hand.all * grain;
    return (struct ct_span){begin < count ? begin : count, end < count ? end : count};
}

#endif
