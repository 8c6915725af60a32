#include "round.h"

#include <cotrain/assert.h>

/* What a row of the table waits for; is(…) below says when each holds. */
enum condition {
    FINISHED,
    ENOUGH,
    TOO_FEW,
    GATHERED,
    COMPLETE,
    TIME_UP_WITH_QUORUM,
    TIME_UP,
    MERGED,
};

struct row {
    enum ct_round_state state;
    enum condition condition;
    enum ct_round_action action;
    enum ct_round_state next;
};

/* The first row of the state whose condition holds is taken. */
static const struct row table[] = {
    {CT_ROUND_WAITING, FINISHED, CT_ROUND_NONE, CT_ROUND_FINISHED},
    {CT_ROUND_WAITING, ENOUGH, CT_ROUND_NONE, CT_ROUND_GATHERING},
    {CT_ROUND_GATHERING, TOO_FEW, CT_ROUND_NONE, CT_ROUND_WAITING},
    {CT_ROUND_GATHERING, GATHERED, CT_ROUND_OPEN, CT_ROUND_COMMITTING},
    {CT_ROUND_COMMITTING, COMPLETE, CT_ROUND_CLOSE_COMMITS, CT_ROUND_UPLOADING},
    {CT_ROUND_COMMITTING, TIME_UP_WITH_QUORUM, CT_ROUND_CLOSE_COMMITS, CT_ROUND_UPLOADING},
    {CT_ROUND_COMMITTING, TIME_UP, CT_ROUND_PROLONG, CT_ROUND_COMMITTING},
    {CT_ROUND_UPLOADING, COMPLETE, CT_ROUND_MERGE, CT_ROUND_MERGING},
    {CT_ROUND_UPLOADING, TIME_UP_WITH_QUORUM, CT_ROUND_MERGE, CT_ROUND_MERGING},
    {CT_ROUND_UPLOADING, TIME_UP, CT_ROUND_PROLONG, CT_ROUND_UPLOADING},
    {CT_ROUND_MERGING, MERGED, CT_ROUND_CLOSE, CT_ROUND_WAITING},
};

static bool is(enum condition condition, const struct ct_round *round,
               const struct ct_round_facts *facts, uint64_t now_ms) {
    const bool time_up = now_ms >= round->deadline_ms;
    switch (condition) {
    case FINISHED:
        return facts->phase == CT_PHASE_FINISHED;
    case ENOUGH:
        return facts->ready > 0 && facts->ready >= facts->needed;
    case TOO_FEW:
        return facts->ready == 0 || facts->ready < facts->needed;
    case GATHERED:
        return time_up || facts->ready >= facts->expected;
    case COMPLETE:
        return facts->all && facts->quorum;
    case TIME_UP_WITH_QUORUM:
        return time_up && facts->quorum;
    case TIME_UP:
        return time_up;
    case MERGED:
        return facts->merged;
    }
    return false;
}

static uint64_t deadline_of(const struct ct_round *round, enum ct_round_state state,
                            uint64_t now_ms) {
    switch (state) {
    case CT_ROUND_GATHERING:
        return now_ms + round->times.gather_ms;
    case CT_ROUND_COMMITTING:
        return now_ms + round->times.commit_ms;
    case CT_ROUND_UPLOADING:
        return now_ms + round->times.upload_ms;
    default:
        return UINT64_MAX;
    }
}

static void enter(struct ct_round *round, enum ct_round_state state, uint64_t now_ms) {
    round->prolonged = state == round->state ? round->prolonged + 1 : 0;
    round->state = state;
    round->deadline_ms = deadline_of(round, state, now_ms);
}

void ct_round_init(struct ct_round *round, const struct ct_round_times *times, enum ct_phase phase,
                   uint64_t now_ms) {
    CT_ASSERT(phase != CT_PHASE_EMPTY);
    *round = (struct ct_round){.times = *times};
    enter(round,
          phase == CT_PHASE_COMMIT     ? CT_ROUND_COMMITTING
          : phase == CT_PHASE_UPLOAD   ? CT_ROUND_UPLOADING
          : phase == CT_PHASE_FINISHED ? CT_ROUND_FINISHED
                                       : CT_ROUND_WAITING,
          now_ms);
    round->prolonged = 0;
}

/* The caller carried the last action out: state and ledger agree. */
static bool agree(enum ct_round_state state, enum ct_phase phase) {
    switch (state) {
    case CT_ROUND_WAITING:
        return phase == CT_PHASE_IDLE || phase == CT_PHASE_FINISHED;
    case CT_ROUND_GATHERING:
        return phase == CT_PHASE_IDLE;
    case CT_ROUND_COMMITTING:
        return phase == CT_PHASE_COMMIT;
    case CT_ROUND_UPLOADING:
    case CT_ROUND_MERGING:
        return phase == CT_PHASE_UPLOAD;
    case CT_ROUND_FINISHED:
        return phase == CT_PHASE_FINISHED;
    }
    return false;
}

enum ct_round_action ct_round_step(struct ct_round *round, const struct ct_round_facts *facts,
                                   uint64_t now_ms) {
    CT_ASSERT(agree(round->state, facts->phase));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct row *row = &table[i];
        if (row->state != round->state || !is(row->condition, round, facts, now_ms)) {
            continue;
        }
        enter(round, row->next, now_ms);
        if (row->action != CT_ROUND_NONE) {
            return row->action;
        }
        /* A row without an action leads to a later state or back to WAITING below its
         * condition, so going on from the next row ends. */
    }
    return CT_ROUND_NONE;
}

uint32_t ct_round_remaining_ms(const struct ct_round *round, uint64_t now_ms) {
    if (round->deadline_ms == UINT64_MAX || round->deadline_ms <= now_ms) {
        return 0;
    }
    uint64_t remaining = round->deadline_ms - now_ms;
    return remaining > UINT32_MAX ? UINT32_MAX : (uint32_t)remaining;
}
