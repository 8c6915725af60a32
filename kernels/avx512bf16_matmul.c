#include "avx512_tiles.h"

/* VDPBF16PS is fma of the odd elements, then of the even ones, under FTZ and DAZ (E3). */
static inline vec step(vec acc, const float *a, vec b) {
    const __m512i pair = _mm512_castps_si512(_mm512_set1_ps(*a));
    return _mm512_dpbf16_ps(acc, (__m512bh)pair, (__m512bh)_mm512_castps_si512(b));
}

#include "tiles.h"

void ct_matmul_bf16_avx512bf16(const struct ct_matmul *job, struct ct_hand hand,
                               struct ct_room room) {
    run_team(job, hand, room, PACK_PAIRS);
}
