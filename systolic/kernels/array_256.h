/* AVX2: 8 lanes a vector. The including file defines DOT. */
#include <immintrin.h>

#define VEC __m256i
#define VEC_LANES 8
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define PICK(a, b, mask) _mm256_blendv_epi8(a, b, mask)
#define RAISE(v) _mm256_slli_epi32(v, 16)
#define ZERO _mm256_setzero_si256()
#define BLEND(a, b, mask) _mm_blendv_epi8(a, b, mask)

static inline void widened(__m256i *to, __m128i codes, int is_signed, int half) {
    const __m128i upper = _mm_unpackhi_epi64(codes, codes);
    const __m256i low = is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
    const __m256i high = is_signed ? _mm256_cvtepi8_epi32(upper) : _mm256_cvtepu8_epi32(upper);
    to[0] = half ? _mm256_slli_epi32(low, 16) : _mm256_and_si256(low, _mm256_set1_epi32(0xFFFF));
    to[1] = half ? _mm256_slli_epi32(high, 16) : _mm256_and_si256(high, _mm256_set1_epi32(0xFFFF));
}

/* LANES bytes 0 or 0xFF as masks of whole lanes. */
static inline void lane_masks(__m256i *to, __m128i bytes) {
    to[0] = _mm256_cvtepi8_epi32(bytes);
    to[1] = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
}
