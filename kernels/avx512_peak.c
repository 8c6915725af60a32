/* AVX-512: 32 registers hold 20 chains and two operands. */
#include <immintrin.h>
#include <string.h>

#define LANES                 16
#define CHAINS                20
#define LOOPS                 ct_peak_loops_avx512
#define set                   _mm512_set1_ps
#define load                  _mm512_loadu_ps
#define add                   _mm512_add_ps
#define multiply_add(a, b, c) _mm512_fmadd_ps(a, b, c)
#define stream                _mm512_stream_ps
#define fence                 _mm_sfence

typedef __m512 vec;

#include "peak_loops.h"
