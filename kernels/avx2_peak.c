/* AVX2: 16 registers hold 12 chains and two operands. */
#include <immintrin.h>
#include <string.h>

#define LANES                 8
#define CHAINS                12
#define LOOPS                 ct_peak_loops_avx2
#define set                   _mm256_set1_ps
#define load                  _mm256_loadu_ps
#define add                   _mm256_add_ps
#define multiply_add(a, b, c) _mm256_fmadd_ps(a, b, c)
#define stream                _mm256_stream_ps
#define fence                 _mm_sfence

typedef __m256 vec;

#include "peak_loops.h"
