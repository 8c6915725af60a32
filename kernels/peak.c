/* The yardsticks' dispatch, and their loops for a machine without wide vectors. */
#include <cotrain/isa.h>
#include <cotrain/yardstick.h>

#include "fork_join.h"
#include "matmul.h"
#include "parallel.h"

#include <stdatomic.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES  4
#define CHAINS 12
#define LOOPS  ct_peak_loops_scalar

typedef float vec __attribute__((vector_size(16)));

static inline vec set(float x) {
    return (vec){x, x, x, x};
}

static inline vec load(const float *from) {
    vec values;
    memcpy(&values, from, sizeof values);
    return values;
}

static inline vec add(vec a, vec b) {
    return a + b;
}

static inline vec multiply_add(vec a, vec b, vec c) {
#if defined(__x86_64__)
    return (vec)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#else
    return (vec){__builtin_fmaf(a[0], b[0], c[0]), __builtin_fmaf(a[1], b[1], c[1]),
                 __builtin_fmaf(a[2], b[2], c[2]), __builtin_fmaf(a[3], b[3], c[3])};
#endif
}

static inline void stream(float *to, vec values) {
    memcpy(to, &values, sizeof values);
}

static inline void fence(void) {
}

#include "peak_loops.h"

static const struct ct_peak_loops *loops(void) {
#if defined(__x86_64__)
    if (ct_isa_active() >= CT_ISA_AVX512) {
        return &ct_peak_loops_avx512;
    }
    if (ct_isa_active() >= CT_ISA_AVX2) {
        return &ct_peak_loops_avx2;
    }
#endif
    return &ct_peak_loops_scalar;
}

/* One item a thread; what it found goes into its own place. */
enum { THREADS_MAX = 1024 };
struct job {
    const struct ct_peak_loops *loops;
    double (*chains)(uint64_t rounds, float *sink);
    uint64_t rounds;
    size_t threads, count;
    float *out;
    const float *a, *b;
    double done[THREADS_MAX];
    volatile _Atomic float sink;
};

static size_t job_threads(uint32_t threads) {
    const size_t all = ct_fork_width(threads);
    return all < THREADS_MAX ? all : THREADS_MAX;
}

static void chains_body(void *context, size_t begin, size_t end) {
    struct job *job = context;
    for (size_t i = begin; i < end; i++) {
        float sink = 0.0f;
        job->done[i] = job->chains(job->rounds, &sink);
        atomic_store_explicit(&job->sink, sink, memory_order_relaxed);
    }
}

static double run_chains(uint32_t threads, uint64_t rounds,
                         double (*chains)(uint64_t rounds, float *sink)) {
    struct job job = {.chains = chains, .rounds = rounds, .threads = job_threads(threads)};
    ct_parallel((uint32_t)job.threads, job.threads, 1, chains_body, &job);
    double sum = 0.0;
    for (size_t i = 0; i < job.threads; i++) {
        sum += job.done[i];
    }
    return sum;
}

double ct_peak_fp32(uint32_t threads, uint64_t rounds) {
    return run_chains(threads, rounds, loops()->multiply_add);
}

double ct_peak_bf16(uint32_t threads, uint64_t rounds) {
#if defined(__x86_64__)
    if (ct_ops.matmul_bf16 == ct_matmul_bf16_avx512bf16) {
        return run_chains(threads, rounds, ct_peak_pairs_avx512bf16);
    }
#endif
    (void)threads, (void)rounds;
    return 0.0;
}

/* Stretches begin at multiples of this: whole vectors, whole pages. */
enum { STRETCH = 4096 };

static void read_body(void *context, size_t begin, size_t end) {
    struct job *job = context;
    atomic_store_explicit(&job->sink, job->loops->read(job->a + begin, end - begin),
                          memory_order_relaxed);
}

double ct_peak_read(uint32_t threads, const float *data, size_t count) {
    struct job job = {.loops = loops(), .a = data};
    ct_parallel(threads, count, STRETCH, read_body, &job);
    return (double)count * sizeof(float);
}

static void triad_body(void *context, size_t begin, size_t end) {
    const struct job *job = context;
    job->loops->triad(job->out + begin, job->a + begin, job->b + begin, end - begin);
}

double ct_peak_triad(uint32_t threads, float *out, const float *a, const float *b, size_t count) {
    struct job job = {.loops = loops(), .out = out, .a = a, .b = b};
    ct_parallel(threads, count, STRETCH, triad_body, &job);
    return 3.0 * (double)count * sizeof(float);
}
