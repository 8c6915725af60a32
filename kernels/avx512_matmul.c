#include "functions.h"

#include "avx512_tiles.h"

static inline vec step(vec acc, const float *a, vec b) {
    return _mm512_fmadd_ps(_mm512_set1_ps(*a), b, acc);
}

/* to[j] = from[j] rounded for j < count ≤ 2·LANES. */
static inline void round_lanes(uint16_t *to, const float *from, size_t count) {
    for (size_t j = 0; j < count; j++) {
        to[j] = ct_bf16_round(from[j]);
    }
}

#include "tiles.h"

void ct_matmul_f32_avx512(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_F32);
}

void ct_matmul_bf16_avx512(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    run_team(job, hand, room, PACK_WIDENED);
}
