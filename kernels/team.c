#include "team.h"

#include "fork_join.h"
#include "sanitizer.h"

#include <sched.h>
#include <stdatomic.h>

enum { SPINS = 100 };

struct ct_meeting {
    atomic_size_t arrived; /* in the present phase */
    atomic_size_t phase;
    atomic_size_t dealt; /* items since the last barrier */
};

struct work {
    ct_hand_fn *body;
    void *context;
    struct ct_meeting meeting;
};

static void run_hand(void *context, size_t me, size_t all) {
    struct work *work = context;
    work->body(work->context, (struct ct_hand){me, all, &work->meeting});
}

void ct_team(uint32_t threads, ct_hand_fn *body, void *context) {
    struct work work = {.body = body, .context = context};
    atomic_init(&work.meeting.arrived, 0);
    atomic_init(&work.meeting.phase, 0);
    atomic_init(&work.meeting.dealt, 0);
    ct_fork_join(ct_fork_width(threads), run_hand, &work);
}

static void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void ct_barrier(struct ct_hand hand) {
    if (hand.all == 1) {
        return;
    }
    struct ct_meeting *meeting = hand.meeting;
    const size_t phase = atomic_load_explicit(&meeting->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&meeting->arrived, 1, memory_order_acq_rel) + 1 == hand.all) {
        /* Nobody comes again before the phase changes. */
        atomic_store_explicit(&meeting->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&meeting->dealt, 0, memory_order_relaxed);
        atomic_store_explicit(&meeting->phase, phase + 1, memory_order_release);
        return;
    }
    for (unsigned spins = 0; atomic_load_explicit(&meeting->phase, memory_order_acquire) == phase;
         spins++) {
        if (spins < SPINS) {
            rest();
        } else {
            (void)sched_yield();
        }
    }
}

bool ct_deal(struct ct_hand hand, size_t count, struct ct_span *span) {
    if (hand.all == 1) {
        *span = (struct ct_span){span->end, count};
        return span->begin < count;
    }
    if (CT_THREAD_SANITIZER) {
        (void)sched_yield(); /* a hand that is alone for long hides what it shares */
    }
    atomic_size_t *dealt = &hand.meeting->dealt;
    size_t begin = atomic_load_explicit(dealt, memory_order_relaxed), end;
    do {
        if (begin >= count) {
            return false;
        }
        end = begin + (count - begin + 2 * hand.all - 1) / (2 * hand.all);
    } while (!atomic_compare_exchange_weak_explicit(dealt, &begin, end, memory_order_relaxed,
                                                    memory_order_relaxed));
    *span = (struct ct_span){begin, end};
    return true;
}
