#include "array_512.h"

#define DOT(sums, pairs, w) _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, w))

#include "array_loops.h"

const ArrayKernels array_avx512 = ARRAY_KERNELS;
