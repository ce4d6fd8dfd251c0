#include <immintrin.h>

#define INT_VEC __m512i
#define INT_LANES 16
#define INT_LOAD(p) _mm512_loadu_si512(p)
#define INT_STORE(p, v) _mm512_storeu_si512(p, v)
#define INT_SPLAT(a) _mm512_set1_epi32(a)
#define INT_MAC(s, a, w) _mm512_add_epi32(s, _mm512_mullo_epi32(a, w))

#define FLOAT_VEC __m512
#define FLOAT_LANES 16
#define FLOAT_LOAD(p) _mm512_loadu_ps(p)
#define FLOAT_STORE(p, v) _mm512_storeu_ps(p, v)
#define FLOAT_SPLAT(a) _mm512_set1_ps(a)
#define FLOAT_MAC(s, a, w) _mm512_fmadd_ps(a, w, s)

#define NUMBERS_TABLE numbers_avx512
#include "numbers_table.h"
