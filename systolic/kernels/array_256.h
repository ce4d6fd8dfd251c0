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
#define XOR(a, b) _mm256_xor_si256(a, b)
#define ADD(a, b) _mm256_add_epi32(a, b)
#define CARRY_SAVE(sum, carry, a, b, c)                                                        \
    do {                                                                                       \
        const __m256i x_ = a, y_ = b, z_ = c, u_ = _mm256_xor_si256(x_, y_);                   \
        carry = _mm256_or_si256(_mm256_and_si256(x_, y_), _mm256_and_si256(u_, z_));           \
        sum = _mm256_xor_si256(u_, z_);                                                        \
    } while (0)

/* The bits of each half of a byte from a table. */
static inline __m256i bit_counts(__m256i v) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i half = _mm256_set1_epi8(0x0F);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, half));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), half));
    return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
}

static inline __m128i byte_bits(__m128i v) {
    const __m128i table = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4), half = _mm_set1_epi8(0x0F);
    const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(v, half));
    const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(v, 4), half));
    return _mm_sad_epu8(_mm_add_epi8(low, high), _mm_setzero_si128());
}

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
