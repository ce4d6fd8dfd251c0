#define COUNTS_BITS
#include "array_512.h"

#define DOT(sums, pairs, w) _mm512_dpwssd_epi32(sums, pairs, w)

#include "array_loops.h"

const ArrayKernels array_avx512popcnt = ARRAY_KERNELS;
