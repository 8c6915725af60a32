#include "rows.h"
#include "sanitizer.h"

#include <immintrin.h>

/* VCVTNEPS2BF16 is the definition's rounding on all 2^32 inputs, subnormals and NaN included. */
void ct_bf16_from_avx512bf16(uint16_t *out, const float *in, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const size_t count = n - i < 16 ? n - i : 16;
        const __mmask16 mask = (__mmask16)((1u << count) - 1u);
        CT_SEEN_READ(in + i, count * sizeof *in);
        CT_SEEN_WRITE(out + i, count * sizeof *out);
        const __m256i half = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + i));
        _mm256_mask_storeu_epi16(out + i, mask, half);
    }
}
