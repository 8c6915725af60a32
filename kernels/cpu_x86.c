#include "cpu.h"

#include "draw.h"
#include "finish.h"
#include "matmul.h"
#include "peak.h"
#include "rows.h"

#include <cpuid.h>
#include <float.h>
#include <string.h>
#include <x86intrin.h>

const char *const ct_cpu_required = "this CPU has no fused multiply-add (FMA3), which exact "
                                    "arithmetic needs; use a machine from 2013 or later";

void ct_cpu_name(char name[CT_CPU_NAME]) {
    unsigned words[12] = {0};
    for (unsigned leaf = 0; leaf < 3; leaf++) {
        unsigned *w = words + (size_t)leaf * 4;
        __get_cpuid(0x80000002u + leaf, &w[0], &w[1], &w[2], &w[3]);
    }
    memcpy(name, words, sizeof words);
    name[CT_CPU_NAME - 1] = '\0';
}

int ct_isa_supported(enum ct_isa isa) {
    const bool fma = __builtin_cpu_supports("fma");
    const bool avx2 = fma && __builtin_cpu_supports("avx2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw");
    switch (isa) {
    case CT_ISA_SCALAR:
        return fma;
    case CT_ISA_AVX2:
        return avx2;
    case CT_ISA_AVX512:
        return avx512;
    case CT_ISA_AVX512BF16:
        return avx512 && __builtin_cpu_supports("avx512bf16");
    case CT_ISA_NEON:
        return false;
    }
    return false;
}

void ct_cpu_overlay(struct ct_ops *ops, enum ct_isa isa) {
    if (isa >= CT_ISA_AVX2) {
        ct_rows_install_avx2(ops);
        ct_draw_install_avx2(ops);
        ct_finish_install_avx2(&ops->finish);
        ops->matmul_f32 = ct_matmul_f32_avx2;
        ops->matmul_bf16 = ct_matmul_bf16_avx2;
    }
    if (isa >= CT_ISA_AVX512) {
        ct_rows_install_avx512(ops);
        ct_draw_install_avx512(ops);
        ct_finish_install_avx512(&ops->finish);
        ops->matmul_f32 = ct_matmul_f32_avx512;
        ops->matmul_bf16 = ct_matmul_bf16_avx512;
    }
    if (isa >= CT_ISA_AVX512BF16) {
        ops->matmul_bf16 = ct_matmul_bf16_avx512bf16;
        ops->bf16_from = ct_bf16_from_avx512bf16;
        ct_finish_install_avx512bf16(&ops->finish);
    }
}

/* Time stamps that one of its operations takes, `so_far` if that is less. */
static double least_time(double so_far, double (*chains)(uint64_t rounds, float *sink)) {
    enum { ROUNDS = 256 };
    float sink = 0.0f;
    const uint64_t start = __rdtsc();
    const double operations = chains(ROUNDS, &sink);
    const double time = (double)(__rdtsc() - start) / operations;
    return time < so_far ? time : so_far;
}

bool ct_cpu_outruns(double (*one)(uint64_t rounds, float *sink),
                    double (*other)(uint64_t rounds, float *sink)) {
    enum { TURNS = 8 }; /* the first warm up, others may be interrupted */
    double time_one = DBL_MAX, time_other = DBL_MAX;
    for (int turn = 0; turn < TURNS; turn++) {
        time_one = least_time(time_one, one);
        time_other = least_time(time_other, other);
    }
    return time_one < time_other;
}

/* VDPBF16PS does the work of two FMAs: in the time of one on AMD's Zen 4 and 5, of four on Intel's
 * Emerald Rapids, where bf16-1 is the faster by FMA. */
void ct_cpu_race(struct ct_ops *ops, enum ct_isa isa) {
    if (isa == CT_ISA_AVX512BF16 &&
        ct_cpu_outruns(ct_peak_loops_avx512.multiply_add, ct_peak_pairs_avx512bf16)) {
        ops->matmul_bf16 = ct_matmul_bf16_avx512;
    }
}
