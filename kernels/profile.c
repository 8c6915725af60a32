#include "profile_run.h"

#include "matmul.h"

#include <cotrain/profile.h>

#include <stdatomic.h>
#include <stddef.h>

enum { COUNTS = 64, LINE = 64 };

/* Threads count on lines of their own: a product of attention takes microseconds, and a line that
 * all write to costs a part of one each time. More threads than counts share them. */
static struct count {
    _Alignas(LINE) atomic_uint_fast64_t ns;
    atomic_uint_fast64_t operations;
} counts[COUNTS];

static uint64_t (*read_clock)(void); /* NULL: off */

static struct count *own_count(void) {
    static atomic_size_t taken;
    static _Thread_local struct count *own;
    if (own == NULL) {
        own = &counts[atomic_fetch_add(&taken, 1) % COUNTS];
    }
    return own;
}

void ct_profile_start(uint64_t (*clock_ns)(void)) {
    for (size_t i = 0; i < COUNTS; i++) {
        atomic_store(&counts[i].ns, 0);
        atomic_store(&counts[i].operations, 0);
    }
    read_clock = clock_ns;
}

struct ct_profile ct_profile_stop(void) {
    uint64_t ns = 0, operations = 0;
    read_clock = NULL;
    for (size_t i = 0; i < COUNTS; i++) {
        ns += atomic_load(&counts[i].ns);
        operations += atomic_load(&counts[i].operations);
    }
    return (struct ct_profile){(double)ns * 1e-9, (double)operations};
}

/* The sum of x held to [0, most] over all x < end. */
static uint64_t sum_below(ptrdiff_t end, size_t most) {
    if (end <= 0) {
        return 0;
    }
    const uint64_t rising = (size_t)end < most ? (uint64_t)end : most;
    return rising * (rising - 1) / 2 + ((uint64_t)end - rising) * most;
}

/* Of m rows, how many of `most` places lie at or before the diagonal, all together. */
static uint64_t before_diagonal(size_t m, ptrdiff_t diagonal, size_t most) {
    return sum_below(diagonal + 1 + (ptrdiff_t)m, most) - sum_below(diagonal + 1, most);
}

static uint64_t operations_of(const struct ct_matmul *job) {
    const uint64_t m = job->m, n = job->n, k = job->k;
    switch (job->skip) {
    case CT_SKIP_UPPER_C:
        return 2 * before_diagonal(m, job->diagonal, n) * k;
    case CT_SKIP_LATE:
        return 2 * before_diagonal(m, job->diagonal, k) * n;
    case CT_SKIP_EARLY:
        return 2 * (m * k - before_diagonal(m, job->diagonal - 1, k)) * n;
    default:
        return 2 * m * n * k;
    }
}

/* An epilogue with its time taken. */
struct watched {
    const struct ct_epilogue *epilogue;
    uint64_t ns;
};

static void run_watched(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,
                        size_t columns) {
    struct watched *watched = context;
    const uint64_t start_ns = read_clock();
    watched->epilogue->run(watched->epilogue->context, c, ldc, row, rows, column, columns);
    watched->ns += read_clock() - start_ns;
}

void ct_profile_run(ct_matmul_fn *run, const struct ct_matmul *job, struct ct_hand hand,
                    struct ct_room room) {
    if (read_clock == NULL) {
        run(job, hand, room);
        return;
    }
    struct watched watched = {job->epilogue, 0};
    const struct ct_epilogue epilogue = {run_watched, &watched, ct_matmul_in_order(job)};
    struct ct_matmul own = *job;
    own.epilogue = job->epilogue != NULL ? &epilogue : NULL;
    const uint64_t start_ns = read_clock();
    run(&own, hand, room);
    struct count *count = own_count();
    atomic_fetch_add_explicit(&count->ns, read_clock() - start_ns - watched.ns,
                              memory_order_relaxed);
    if (hand.me == 0) {
        atomic_fetch_add_explicit(&count->operations, operations_of(job), memory_order_relaxed);
    }
}
