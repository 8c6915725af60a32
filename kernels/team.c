#include "team.h"

#include <cotrain/mode.h>

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPINS = 100 };

struct ct_meeting {
    atomic_size_t arrived; /* in the present phase */
    atomic_size_t phase;
    atomic_size_t dealt; /* items since the last barrier */
};

void ct_team(uint32_t threads, ct_hand_fn *body, void *context) {
    const int wanted = omp_in_parallel() ? 1 : threads != 0 ? (int)threads : omp_get_max_threads();
    struct ct_meeting meeting;
    atomic_init(&meeting.arrived, 0);
    atomic_init(&meeting.phase, 0);
    atomic_init(&meeting.dealt, 0);
#pragma omp parallel num_threads(wanted) if (wanted > 1)
    {
        const struct ct_mode mode = ct_mode_enter();
        body(context, (struct ct_hand){(size_t)omp_get_thread_num(), (size_t)omp_get_num_threads(),
                                       &meeting});
        ct_mode_leave(mode);
    }
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
