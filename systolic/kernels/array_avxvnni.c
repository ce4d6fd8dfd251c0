#include "array_256.h"

#define DOT(sums, pairs, w) _mm256_dpwssd_avx_epi32(sums, pairs, w)

#include "array_loops.h"

const ArrayKernels array_avxvnni = ARRAY_KERNELS;
