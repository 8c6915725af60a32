/* When a round's phases begin and end: a pure state machine, facts and time in, actions out. What
 * a phase requires is the fold's to say (fold.h); this decides only when to ask for the next one.
 *
 *   WAITING     fewer nodes are ready than a round needs
 *   GATHERING   enough are; others get a moment to come (back)
 *   COMMITTING  round opened: until all have committed, or the time is up and the quorum holds
 *   UPLOADING   commits closed: until all payloads are there, or the time is up and it holds
 *   MERGING     a job computes the next model
 *   FINISHED    the last round is closed
 *
 * A phase whose time is up below the quorum is prolonged by its own length, never voided.
 *
 * After a restart the phase is the ledger's and its time starts anew.
 *
 * At most one action is asked for per call; the caller carries it out, so that the facts of the
 * next call show its effect, and calls again. */
#ifndef COORDINATOR_ROUND_H
#define COORDINATOR_ROUND_H

#include <cotrain/fold.h>

enum ct_round_state {
    CT_ROUND_WAITING,
    CT_ROUND_GATHERING,
    CT_ROUND_COMMITTING,
    CT_ROUND_UPLOADING,
    CT_ROUND_MERGING,
    CT_ROUND_FINISHED,
};

enum ct_round_action {
    CT_ROUND_NONE,
    CT_ROUND_OPEN,          /* plan and append round_opened; the phase is then COMMIT */
    CT_ROUND_CLOSE_COMMITS, /* append commits_closed; the phase is then UPLOAD */
    CT_ROUND_MERGE,         /* start the job; `merged` is true when it is done */
    CT_ROUND_CLOSE,         /* append round_closed; the phase is then IDLE or FINISHED */
    CT_ROUND_PROLONG,       /* nothing to do but to say so */
};

struct ct_round_times {
    uint32_t gather_ms, commit_ms, upload_ms;
};

struct ct_round_facts {
    enum ct_phase phase;
    uint32_t ready;    /* nodes that could be given an assignment */
    uint32_t needed;   /* nodes that a round needs */
    uint32_t expected; /* nodes that are worth a moment's wait */
    bool quorum;       /* of the open phase (ct_fold_quorum) */
    bool all;          /* nobody is missing who may still come */
    bool merged;
};

struct ct_round {
    struct ct_round_times times;
    enum ct_round_state state;
    uint64_t deadline_ms; /* of the state; UINT64_MAX: none */
    uint32_t prolonged;   /* times the phase was prolonged */
};

/* Begins in the state that the ledger's phase means. */
void ct_round_init(struct ct_round *round, const struct ct_round_times *times, enum ct_phase phase,
                   uint64_t now_ms);
enum ct_round_action ct_round_step(struct ct_round *round, const struct ct_round_facts *facts,
                                   uint64_t now_ms);
/* What remains of the phase, as notices tell it; 0 when the phase has no end. */
uint32_t ct_round_remaining_ms(const struct ct_round *round, uint64_t now_ms);

#endif
