#include "kernels/parallel.h"
#include "kernels/sanitizer.h"
#include "kernels/team.h"

#include <cotrain/mode.h>

#include <fenv.h>
#include <float.h>
#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Operands and results go through volatile, so that the compiler neither computes by itself nor
 * moves the operation out of the mode. */
static float product(float a, float b) {
    volatile float x = a;
    volatile float y = b;
    volatile float result = x * y;
    return result;
}

static uint32_t narrowed(double exact) {
    volatile double x = exact;
    volatile float result = (float)x;
    return bits_of(result);
}

static void evaluation_has_no_extra_precision(void **state) {
    (void)state;
    assert_int_equal(FLT_EVAL_METHOD, 0);
}

static void subnormals_flush_inside_only(void **state) {
    (void)state;
    assert_int_equal(bits_of(product(0x1p-100f, 0x1p-30f)), 0x00080000);
    const struct ct_mode mode = ct_mode_enter();
    const uint32_t output = bits_of(product(0x1p-100f, -0x1p-30f));
    const uint32_t input = bits_of(product(0x1p-130f, 0x1p+20f));
    ct_mode_leave(mode);
    assert_int_equal(output, 0x80000000);
    assert_int_equal(input, 0);
    assert_int_equal(bits_of(product(0x1p-100f, 0x1p-30f)), 0x00080000);
}

/* E1 at 2^-126: what rounds below it with an unbounded exponent is zero, what rounds to it stays.
 */
static void doubles_narrow_by_the_flush_rule(void **state) {
    (void)state;
    const struct ct_mode mode = ct_mode_enter();
    const uint32_t stays = narrowed(0x1p-126);
    const uint32_t tie = narrowed(0x1p-126 * (1 - 0x1p-25));
    const uint32_t above_tie = narrowed(0x1p-126 * (1 - 0x1p-26));
    const uint32_t below_tie = narrowed(0x1p-126 * (1 - 0x1p-25 - 0x1p-40));
    const uint32_t exact = narrowed(-0x1p-126 * (1 - 0x1p-24));
    ct_mode_leave(mode);
    assert_int_equal(stays, 0x00800000);
    assert_int_equal(tie, 0x00800000);
    assert_int_equal(above_tie, 0x00800000);
    assert_int_equal(below_tie, 0);
    assert_int_equal(exact, 0x80000000);
}

static void modes_nest(void **state) {
    (void)state;
    const struct ct_mode outer = ct_mode_enter();
    const struct ct_mode inner = ct_mode_enter();
    ct_mode_leave(inner);
    const uint32_t still = bits_of(product(0x1p-100f, 0x1p-30f));
    ct_mode_leave(outer);
    assert_int_equal(still, 0);
}

static void rounding_mode_is_restored(void **state) {
    (void)state;
    assert_int_equal(fesetround(FE_UPWARD), 0);
    const struct ct_mode mode = ct_mode_enter();
    const uint32_t inside = bits_of(product(1.0f + 0x1p-23f, 1.0f + 0x1p-23f));
    ct_mode_leave(mode);
    const uint32_t after = bits_of(product(1.0f + 0x1p-23f, 1.0f + 0x1p-23f));
    assert_int_equal(fesetround(FE_TONEAREST), 0);
    assert_int_equal(inside, 0x3f800002);
    assert_int_equal(after, 0x3f800003);
}

/* Somebody who changes the mode in between is caught: tried in a child, which aborts. */
static void a_changed_mode_is_caught(void **state) {
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(STDERR_FILENO);
        const struct ct_mode mode = ct_mode_enter();
        fenv_t clean;
        fegetenv(&clean);
        fesetenv(FE_DFL_ENV);
        ct_mode_leave(mode);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

enum { ITEMS = 64 };

struct job {
    uint32_t bits[ITEMS];
    const char *thread[ITEMS]; /* by the address of what each thread has of its own */
};

static _Thread_local char here;

static void flush_each(void *context, size_t begin, size_t end) {
    struct job *job = context;
    for (size_t i = begin; i < end; i++) {
        job->bits[i] = bits_of(product(-0x1p-100f, 0x1p-30f));
        job->thread[i] = &here;
    }
}

/* libgomp's workers keep the mode they were born with: the pool is made first, in default mode. */
static void an_older_pool_computes_in_mode(void **state) {
    (void)state;
    if (CT_THREAD_SANITIZER) {
        skip(); /* there is no pool, and OpenMP's threads look like races */
    }
    uint32_t before[4] = {0};
#pragma omp parallel num_threads(4)
    before[omp_get_thread_num()] = bits_of(product(0x1p-100f, 0x1p-30f));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(before[i], 0x00080000);
    }
    struct job job;
    ct_parallel(4, ITEMS, 3, flush_each, &job);
    for (size_t i = 0; i < ITEMS; i++) {
        assert_int_equal(job.bits[i], 0x80000000);
    }
    assert_ptr_equal(job.thread[0], &here);
    assert_ptr_not_equal(job.thread[0], job.thread[ITEMS - 1]);
    uint32_t after[4] = {0};
#pragma omp parallel num_threads(4)
    after[omp_get_thread_num()] = bits_of(product(0x1p-100f, 0x1p-30f));
    assert_memory_equal(after, before, sizeof after);
}

struct coverage {
    int hits[1000];
};

static void count_each(void *context, size_t begin, size_t end) {
    struct coverage *coverage = context;
    for (size_t i = begin; i < end; i++) {
        coverage->hits[i]++;
    }
}

static void ranges_cover_once(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 7, 64, 65, 999, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (uint32_t threads = 0; threads < 6; threads++) {
            struct coverage coverage = {{0}};
            ct_parallel(threads, counts[c], 1 + threads * 5, count_each, &coverage);
            for (size_t i = 0; i < 1000; i++) {
                assert_int_equal(coverage.hits[i], i < counts[c] ? 1 : 0);
            }
        }
    }
}

enum { DEALT_MOST = 77, DEALINGS = 50 };
struct dealing {
    size_t count;
    uint8_t times[DEALINGS][DEALT_MOST];
};

/* Each time by another of the team's barriers. */
static void deal(void *context, struct ct_hand hand) {
    struct dealing *dealing = context;
    for (size_t i = 0; i < DEALINGS; i++) {
        struct ct_span span = {0, 0};
        while (ct_deal(hand, dealing->count, &span)) {
            assert_true(span.begin < span.end && span.end <= dealing->count);
            for (size_t item = span.begin; item < span.end; item++) {
                dealing->times[i][item]++;
            }
        }
        ct_barrier(hand);
    }
}

static void items_are_dealt_once(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 2, 5, DEALT_MOST};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct dealing dealing = {.count = counts[c]};
            ct_team(threads, deal, &dealing);
            for (size_t i = 0; i < DEALINGS; i++) {
                for (size_t item = 0; item < DEALT_MOST; item++) {
                    assert_int_equal(dealing.times[i][item], item < counts[c] ? 1 : 0);
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluation_has_no_extra_precision),
        cmocka_unit_test(subnormals_flush_inside_only),
        cmocka_unit_test(doubles_narrow_by_the_flush_rule),
        cmocka_unit_test(modes_nest),
        cmocka_unit_test(rounding_mode_is_restored),
        cmocka_unit_test(a_changed_mode_is_caught),
        cmocka_unit_test(an_older_pool_computes_in_mode),
        cmocka_unit_test(ranges_cover_once),
        cmocka_unit_test(items_are_dealt_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
