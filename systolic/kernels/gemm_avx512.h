/* 16 sums to a vector: what gemm_avx512.c and gemm_avx512vnni.c have in common. */
#include <immintrin.h>

#include "compiler.h"

#define VEC_SUMS 16
#define ROWS 12
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)

typedef INT32_VECTOR(__m512i, 64) Vec;

INLINE Vec vec_fill(int32_t s) { return AS(Vec, _mm512_set1_epi32(s)); }

INLINE Vec vec_word(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return vec_fill(word);
}

INLINE Vec vec_load(const uint8_t *p) { return AS(Vec, _mm512_load_si512((const void *)p)); }

INLINE Vec vec_add(Vec s, Vec t) { return AS(Vec, _mm512_add_epi32(AS(__m512i, s), AS(__m512i, t))); }

INLINE void vec_out(Vec sum, int32_t *acc, ptrdiff_t cols, int accumulate) {
    const __mmask16 mask = (__mmask16)(0xFFFFu >> (VEC_SUMS - cols));
    if (accumulate) sum = vec_add(sum, AS(Vec, _mm512_maskz_loadu_epi32(mask, acc)));
    _mm512_mask_storeu_epi32(acc, mask, AS(__m512i, sum));
}
