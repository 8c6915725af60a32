/* The machine's own limits, as yardsticks. */
#include "bench.h"

#include <cotrain/yardstick.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
    REPEATS = 3,
    ROUNDS = 100000,
    /* Three such arrays are beyond the last cache of most machines. */
    ARRAY_BYTES = 64 << 20,
    ARRAY_FLOATS = ARRAY_BYTES / 4,
    HUGE_PAGE = 2 << 20,
};

/* The best of several repeats: a limit is what the machine does when nothing else happens. */
static double best_chains(double (*chains)(uint32_t threads, uint64_t rounds), uint32_t threads,
                          double seconds) {
    double best = 0.0;
    const double end = ct_bench_now_s() + seconds;
    for (int i = 0; i < REPEATS || ct_bench_now_s() < end; i++) {
        const double start = ct_bench_now_s();
        const double done = chains(threads, ROUNDS);
        const double rate = done / (ct_bench_now_s() - start);
        best = rate > best ? rate : best;
    }
    return best * 1e-9;
}

double ct_bench_bandwidth_over(uint32_t threads, double seconds, const float *a, const float *b,
                               float *out, size_t count) {
    double best = 0.0;
    const double end = ct_bench_now_s() + seconds;
    for (int i = 0; i < REPEATS || ct_bench_now_s() < end; i++) {
        const double start = ct_bench_now_s();
        const double read = ct_peak_read(threads, a, count) + ct_peak_read(threads, b, count) +
                            ct_peak_read(threads, out, count);
        const double middle = ct_bench_now_s();
        const double moved = ct_peak_triad(threads, out, a, b, count);
        const double reading = read / (middle - start);
        const double triad = moved / (ct_bench_now_s() - middle);
        best = reading > best ? reading : best;
        best = triad > best ? triad : best;
    }
    return best * 1e-9;
}

struct ct_bench_peaks ct_bench_peaks(uint32_t threads, double seconds) {
    struct ct_bench_peaks peaks = {
        .fp32_gflops = best_chains(ct_peak_fp32, threads, seconds / 2),
        .bf16_gflops = best_chains(ct_peak_bf16, threads, seconds / 2),
    };
    if (peaks.bf16_gflops == 0.0) {
        peaks.bf16_gflops = peaks.fp32_gflops;
    }
    return peaks;
}

enum ct_err ct_bench_bandwidth(uint32_t threads, double seconds, double *out) {
    float *arrays = aligned_alloc(HUGE_PAGE, 3 * (size_t)ARRAY_BYTES);
    if (arrays == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to measure bandwidth: %d MiB are needed",
                       3 * (ARRAY_BYTES >> 20));
    }
    (void)madvise(arrays, 3 * (size_t)ARRAY_BYTES, MADV_HUGEPAGE);
    memset(arrays, 0, 3 * (size_t)ARRAY_BYTES);
    *out = ct_bench_bandwidth_over(threads, seconds, arrays, arrays + ARRAY_FLOATS,
                                   arrays + 2 * (size_t)ARRAY_FLOATS, ARRAY_FLOATS);
    free(arrays);
    return CT_OK;
}

double ct_bench_peak_rss_mib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024.0;
}
