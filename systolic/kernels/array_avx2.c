#include "array_256.h"

#define DOT(sums, pairs, w) _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, w))

#include "array_loops.h"

const ArrayKernels array_avx2 = ARRAY_KERNELS;
