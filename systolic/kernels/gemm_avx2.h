/* 8 sums to a vector: what gemm_avx2.c and gemm_avxvnni.c have in common. */
#include <immintrin.h>

#include "compiler.h"

#define VEC_SUMS 8
#define ROWS 6
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)

typedef INT32_VECTOR(__m256i, 32) Vec;

INLINE Vec vec_fill(int32_t s) { return AS(Vec, _mm256_set1_epi32(s)); }

INLINE Vec vec_word(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return vec_fill(word);
}

INLINE Vec vec_load(const uint8_t *p) {
    return AS(Vec, _mm256_load_si256((const __m256i *)(const void *)p));
}

INLINE Vec vec_add(Vec s, Vec t) { return AS(Vec, _mm256_add_epi32(AS(__m256i, s), AS(__m256i, t))); }

INLINE void vec_out(Vec sum, int32_t *acc, ptrdiff_t cols, int accumulate) {
    __m256i *const to = (__m256i *)(void *)acc;
    if (cols >= VEC_SUMS) {
        if (accumulate) sum = vec_add(sum, AS(Vec, _mm256_loadu_si256(to)));
        _mm256_storeu_si256(to, AS(__m256i, sum));
    } else {
        const __m256i mask =
            _mm256_cmpgt_epi32(_mm256_set1_epi32((int)cols), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        if (accumulate) sum = vec_add(sum, AS(Vec, _mm256_maskload_epi32((const int *)acc, mask)));
        _mm256_maskstore_epi32((int *)acc, mask, AS(__m256i, sum));
    }
}

/* The first 16 of `count` bytes, zeros beyond. */
INLINE __m128i bytes_16(const uint8_t *p, ptrdiff_t count) {
    uint8_t few[16] = {0};
    if (count >= 16) return _mm_loadu_si128((const __m128i *)(const void *)p);
    memcpy(few, p, (size_t)count);
    return _mm_loadu_si128((const __m128i *)(const void *)few);
}
