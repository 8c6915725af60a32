#include "fork_join.h"

#include "sanitizer.h"

#include <cotrain/assert.h>
#include <cotrain/mode.h>

#include <omp.h>
#include <stdbool.h>

static void run(ct_thread_fn *body, void *context, size_t me, size_t all) {
    const struct ct_mode mode = ct_mode_enter();
    body(context, me, all);
    ct_mode_leave(mode);
}

#if !CT_THREAD_SANITIZER

static bool inside(void) {
    return omp_in_parallel();
}

static void run_all(size_t threads, ct_thread_fn *body, void *context) {
#pragma omp parallel num_threads((int)threads)
    run(body, context, (size_t)omp_get_thread_num(), (size_t)omp_get_num_threads());
}

#else

/* OpenMP's threads wait for work and for each other in ways the sanitizer cannot see, so that
 * whatever they share looks like a race. It sees these: made for one piece of work, and joined. */
#include <pthread.h>

enum { THREADS_MAX = 1024 };

static _Thread_local bool inside_now;

struct thread {
    pthread_t id;
    ct_thread_fn *body;
    void *context;
    size_t me, all;
};

static bool inside(void) {
    return inside_now;
}

static void *thread_main(void *own) {
    const struct thread *thread = own;
    inside_now = true;
    run(thread->body, thread->context, thread->me, thread->all);
    inside_now = false;
    return NULL;
}

static void run_all(size_t threads, ct_thread_fn *body, void *context) {
    struct thread team[THREADS_MAX];
    const size_t all = threads < THREADS_MAX ? threads : THREADS_MAX;
    for (size_t me = 0; me < all; me++) {
        team[me] = (struct thread){0, body, context, me, all};
    }
    for (size_t me = 1; me < all; me++) {
        CT_ASSERT(pthread_create(&team[me].id, NULL, thread_main, &team[me]) == 0);
    }
    (void)thread_main(&team[0]);
    for (size_t me = 1; me < all; me++) {
        CT_ASSERT(pthread_join(team[me].id, NULL) == 0);
    }
}

#endif

size_t ct_fork_width(uint32_t threads) {
    if (inside()) {
        return 1;
    }
    return threads != 0 ? threads : (size_t)omp_get_max_threads();
}

void ct_fork_join(size_t threads, ct_thread_fn *body, void *context) {
    if (threads <= 1 || inside()) {
        run(body, context, 0, 1);
    } else {
        run_all(threads, body, context);
    }
}
