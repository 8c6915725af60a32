#include "rows.h"
#include "sanitizer.h"

#include <immintrin.h>

/* VCVTNEPS2BF16 is the definition's rounding on all 2^32 inputs, subnormals and NaN included. */
void ct_bf16_from_avx512bf16(uint16_t *out, const float *in, size_t n) {
    CT_SEEN_READ(in, n * sizeof *in);
    CT_SEEN_WRITE(out, n * sizeof *out);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m512bh both =
            _mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + i + 16), _mm512_loadu_ps(in + i));
        _mm512_storeu_si512(out + i, (__m512i)both);
    }
    for (; i < n; i += 16) {
        const size_t count = n - i < 16 ? n - i : 16;
        const __mmask16 mask = (__mmask16)((1u << count) - 1u);
        const __m256i half = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + i));
        _mm256_mask_storeu_epi16(out + i, mask, half);
    }
}
