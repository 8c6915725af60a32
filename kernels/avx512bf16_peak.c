#include "peak.h"

#include <immintrin.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { CHAINS = 20, LANES = 16 };

double ct_peak_pairs_avx512bf16(uint64_t rounds, float *sink) {
    __m512 chains[CHAINS];
    const __m512 ones = _mm512_set1_ps(1.0f + *sink);
    const __m512bh pairs = _mm512_cvtne2ps_pbh(ones, ones);
    UNROLL
    for (size_t i = 0; i < CHAINS; i++) {
        chains[i] = _mm512_set1_ps((float)i);
    }
    for (uint64_t round = 0; round < rounds; round++) {
        UNROLL
        for (size_t i = 0; i < CHAINS; i++) {
            chains[i] = _mm512_dpbf16_ps(chains[i], pairs, pairs);
        }
    }
    UNROLL
    for (size_t i = 1; i < CHAINS; i++) {
        chains[0] = _mm512_add_ps(chains[0], chains[i]);
    }
    *sink = _mm512_cvtss_f32(chains[0]);
    return 4.0 * LANES * CHAINS * (double)rounds;
}
