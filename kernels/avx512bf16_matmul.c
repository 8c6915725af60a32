#include "avx512_tiles.h"

/* VDPBF16PS is fma of the odd elements, then of the even ones, under FTZ and DAZ (E3). */
static inline vec step(vec acc, const float *a, vec b) {
    const __m512i pair = _mm512_castps_si512(_mm512_set1_ps(*a));
    return _mm512_dpbf16_ps(acc, (__m512bh)pair, (__m512bh)_mm512_castps_si512(b));
}

/* to[j] = from[j] rounded for j < count ≤ 32; what follows up to 31 becomes zero. */
static inline void round_lanes(uint16_t *to, const float *from, size_t count) {
    const __mmask32 mask = (__mmask32)((1ull << count) - 1u);
    CT_SEEN_READ(from, count * sizeof *from);
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, from);
    const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), from + 16);
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

#include "tiles.h"

void ct_matmul_bf16_avx512bf16(const struct ct_matmul *job, struct ct_hand hand,
                               struct ct_room room) {
    run_team(job, hand, room, PACK_PAIRS);
}
