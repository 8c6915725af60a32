#include "node/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define JOBS 5000u

struct work {
    atomic_uint times[JOBS];
};

static void count(void *user, size_t index) {
    struct work *work = user;
    atomic_fetch_add(&work->times[index], 1);
}

static void every_job_is_done_once(void **state) {
    (void)state;
    struct work *work = calloc(1, sizeof *work);
    assert_non_null(work);
    for (uint32_t threads = 0; threads <= 5; threads++) {
        struct ct_pool *pool = NULL;
        assert_int_equal(ct_pool_open(threads, &pool), CT_OK);
        if (threads > 0) {
            assert_int_equal(ct_pool_threads(pool), threads);
        }
        for (size_t jobs = 0; jobs <= JOBS; jobs = 3 * jobs + 1) {
            for (size_t i = 0; i < JOBS; i++) {
                atomic_store(&work->times[i], 0);
            }
            ct_pool_run(pool, jobs, count, work);
            for (size_t i = 0; i < JOBS; i++) {
                assert_int_equal(atomic_load(&work->times[i]), i < jobs);
            }
        }
        ct_pool_close(pool);
    }
    free(work);
}

/* Many short rounds: a thread that is late must not take jobs of the next round twice. */
static void rounds_do_not_mix(void **state) {
    (void)state;
    struct work *work = calloc(1, sizeof *work);
    struct ct_pool *pool = NULL;
    assert_non_null(work);
    assert_int_equal(ct_pool_open(4, &pool), CT_OK);
    for (unsigned round = 0; round < 3000; round++) {
        ct_pool_run(pool, 1 + round % 7, count, work);
    }
    unsigned total = 0, expected = 0;
    for (size_t i = 0; i < JOBS; i++) {
        total += atomic_load(&work->times[i]);
    }
    for (unsigned round = 0; round < 3000; round++) {
        expected += 1 + round % 7;
    }
    assert_int_equal(total, expected);
    ct_pool_close(pool);
    free(work);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_is_done_once),
        cmocka_unit_test(rounds_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
