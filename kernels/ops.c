#include "ops.h"

#include "matmul.h"
#include "profile_run.h"

#include <cotrain/assert.h>

#include <stdint.h>
#include <string.h>

struct ct_ops ct_ops;

struct ct_rectangle ct_matmul_share(struct ct_hand hand, const struct ct_matmul *job,
                                    size_t row_grain, size_t column_grain) {
    const size_t m = job->m, n = job->n;
    if (ct_matmul_in_order(job) && m > 0) {
        row_grain = m;
    }
    const size_t grains_m = (m + row_grain - 1) / row_grain;
    const size_t grains_n = (n + column_grain - 1) / column_grain;
    size_t best = 1; /* columns of the grid */
    size_t least = SIZE_MAX;
    for (size_t columns = hand.all; columns > 0; columns--) {
        const size_t rows = hand.all / columns;
        const size_t most = ((grains_n + columns - 1) / columns) * ((grains_m + rows - 1) / rows);
        if (most < least) {
            least = most;
            best = columns;
        }
    }
    const size_t rows = hand.all / best;
    if (hand.me >= rows * best) {
        return (struct ct_rectangle){{0, 0}, {0, 0}};
    }
    const struct ct_hand in_rows = {hand.me / best, rows, NULL};
    const struct ct_hand in_columns = {hand.me % best, best, NULL};
    return (struct ct_rectangle){ct_share(in_rows, m, row_grain),
                                 ct_share(in_columns, n, column_grain)};
}

static ct_matmul_fn *matmul_of(enum ct_numerics numerics) {
    ct_matmul_fn *const run = numerics == CT_NUMERICS_BF16_1   ? ct_ops.matmul_bf16
                              : numerics == CT_NUMERICS_FP32_1 ? ct_ops.matmul_f32
                                                               : ct_matmul_blas;
    CT_ASSERT(run != NULL);
    return run;
}

static void assert_job(const struct ct_matmul *job) {
    CT_ASSERT(job->lda >= (job->form == CT_TN ? job->m : job->k));
    CT_ASSERT(job->ldb >= (job->form == CT_NT ? job->k : job->n));
    CT_ASSERT(job->c == NULL ? job->epilogue != NULL && !job->resume : job->ldc >= job->n);
}

void ct_matmul_team(enum ct_numerics numerics, const struct ct_matmul *job, struct ct_hand hand,
                    struct ct_room room) {
    assert_job(job);
    CT_ASSERT(room.count >= CT_MATMUL_ROOM_LEAST && (uintptr_t)room.floats % 64 == 0);
    CT_ASSERT(job->c != NULL || job->k < room.count / 16);
    ct_profile_run(matmul_of(numerics), job, hand, room);
}

/* The room of callers without one, on their stack: enough for packed panels to be worth their cost,
 * and a tenth of the smallest usual stack. */
struct small_room {
    _Alignas(64) float floats[128 * 1024];
};

struct whole {
    ct_matmul_fn *run;
    const struct ct_matmul *job;
    struct ct_room room;
};

static void run_whole(void *context, struct ct_hand hand) {
    const struct whole *whole = context;
    ct_profile_run(whole->run, whole->job, hand, whole->room);
}

void ct_matmul_alone(ct_matmul_fn *run, const struct ct_matmul *job) {
    struct small_room room;
    ct_profile_run(run, job, (struct ct_hand){0, 1, NULL},
                   (struct ct_room){room.floats, sizeof room.floats / sizeof room.floats[0]});
}

void ct_matmul(enum ct_numerics numerics, const struct ct_matmul *job) {
    assert_job(job);
    CT_ASSERT(job->c != NULL);
    if (job->threads == 1) {
        ct_matmul_alone(matmul_of(numerics), job);
        return;
    }
    struct small_room room;
    struct whole whole = {
        matmul_of(numerics), job, {room.floats, sizeof room.floats / sizeof room.floats[0]}};
    ct_team(job->threads, run_whole, &whole);
}

size_t ct_operand_bytes(enum ct_numerics numerics) {
    return numerics == CT_NUMERICS_BF16_1 ? sizeof(uint16_t) : sizeof(float);
}

void ct_operand_store(enum ct_numerics numerics, void *out, const float *in, size_t n) {
    if (numerics == CT_NUMERICS_BF16_1) {
        ct_ops.bf16_from(out, in, n);
    } else if (out != in) {
        memcpy(out, in, n * sizeof(float));
    }
}

void ct_operand_load(enum ct_numerics numerics, float *out, const void *in, size_t n) {
    if (numerics == CT_NUMERICS_BF16_1) {
        ct_ops.bf16_to(out, in, n);
    } else {
        memcpy(out, in, n * sizeof(float));
    }
}
