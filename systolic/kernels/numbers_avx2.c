#include <immintrin.h>

#define INT_VEC __m256i
#define INT_LANES 8
#define INT_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define INT_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define INT_SPLAT(a) _mm256_set1_epi32(a)
#define INT_MAC(s, a, w) _mm256_add_epi32(s, _mm256_mullo_epi32(a, w))

#define FLOAT_VEC __m256
#define FLOAT_LANES 8
#define FLOAT_LOAD(p) _mm256_loadu_ps(p)
#define FLOAT_STORE(p, v) _mm256_storeu_ps(p, v)
#define FLOAT_SPLAT(a) _mm256_set1_ps(a)
#define FLOAT_MAC(s, a, w) _mm256_fmadd_ps(a, w, s)

#define NUMBERS_TABLE numbers_avx2
#include "numbers_table.h"
