#include "profile_run.h"

#include <cotrain/profile.h>

#include <stdatomic.h>
#include <stddef.h>

static uint64_t (*read_clock)(void); /* NULL: off */
static atomic_uint_fast64_t total_ns, total_operations;

void ct_profile_start(uint64_t (*clock_ns)(void)) {
    atomic_store(&total_ns, 0);
    atomic_store(&total_operations, 0);
    read_clock = clock_ns;
}

struct ct_profile ct_profile_stop(void) {
    read_clock = NULL;
    return (struct ct_profile){(double)atomic_load(&total_ns) * 1e-9,
                               (double)atomic_load(&total_operations)};
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Of row i, how many of `count` places lie at or before the diagonal. */
static size_t before_diagonal(ptrdiff_t i, ptrdiff_t diagonal, size_t count) {
    const ptrdiff_t end = i + diagonal + 1;
    return end > 0 ? least((size_t)end, count) : 0;
}

static uint64_t operations(const struct ct_matmul *job) {
    if (job->skip == CT_SKIP_NONE) {
        return 2 * (uint64_t)job->m * job->n * job->k;
    }
    uint64_t sum = 0;
    for (ptrdiff_t i = 0; i < (ptrdiff_t)job->m; i++) {
        switch (job->skip) {
        case CT_SKIP_UPPER_C:
            sum += (uint64_t)before_diagonal(i, job->diagonal, job->n) * job->k;
            break;
        case CT_SKIP_LATE:
            sum += (uint64_t)before_diagonal(i, job->diagonal, job->k) * job->n;
            break;
        default:
            sum += (uint64_t)(job->k - before_diagonal(i, job->diagonal - 1, job->k)) * job->n;
        }
    }
    return 2 * sum;
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
    const struct ct_epilogue epilogue = {run_watched, &watched};
    struct ct_matmul own = *job;
    own.epilogue = job->epilogue != NULL ? &epilogue : NULL;
    const uint64_t start_ns = read_clock();
    run(&own, hand, room);
    atomic_fetch_add_explicit(&total_ns, read_clock() - start_ns - watched.ns,
                              memory_order_relaxed);
    if (hand.me == 0) {
        atomic_fetch_add_explicit(&total_operations, operations(job), memory_order_relaxed);
    }
}
