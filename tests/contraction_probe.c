/* Compiled with the project's flags and FMA allowed, then disassembled by test_contraction.sh: a
 * compiler that contracts would fuse these, gcc by default even the intrinsics (E8). */
#include <immintrin.h>

float ct_probe_scalar(float a, float b, float c);
__m256 ct_probe_vector(__m256 a, __m256 b, __m256 c);
float ct_probe_fused(float a, float b, float c);

float ct_probe_scalar(float a, float b, float c) {
    return a * b + c;
}

__m256 ct_probe_vector(__m256 a, __m256 b, __m256 c) {
    return _mm256_add_ps(_mm256_mul_ps(a, b), c);
}

/* What a fused operation looks like here, so that the search is known to find one. */
float ct_probe_fused(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
