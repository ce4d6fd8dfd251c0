#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>

#define VEC __m128i
#define VEC_LANES 4
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define DOT(sums, pairs, w) _mm_add_epi32(sums, _mm_madd_epi16(pairs, w))
#define PICK(a, b, mask) BLEND(a, b, mask)
#define RAISE(v) _mm_slli_epi32(v, 16)
#define ZERO _mm_setzero_si128()
#define BLEND(a, b, mask) _mm_or_si128(_mm_and_si128(mask, b), _mm_andnot_si128(mask, a))
#define XOR(a, b) _mm_xor_si128(a, b)
#define ADD(a, b) _mm_add_epi32(a, b)
#define CARRY_SAVE(sum, carry, a, b, c)                                               \
    do {                                                                              \
        const __m128i x_ = a, y_ = b, z_ = c, u_ = _mm_xor_si128(x_, y_);             \
        carry = _mm_or_si128(_mm_and_si128(x_, y_), _mm_and_si128(u_, z_));           \
        sum = _mm_xor_si128(u_, z_);                                                  \
    } while (0)

/* The bits of each byte by adding neighbors: of one, two, four bits. */
static inline __m128i byte_bits(__m128i v) {
    const __m128i two = _mm_set1_epi8(0x33);
    v = _mm_sub_epi8(v, _mm_and_si128(_mm_srli_epi16(v, 1), _mm_set1_epi8(0x55)));
    v = _mm_add_epi8(_mm_and_si128(v, two), _mm_and_si128(_mm_srli_epi16(v, 2), two));
    v = _mm_and_si128(_mm_add_epi8(v, _mm_srli_epi16(v, 4)), _mm_set1_epi8(0x0F));
    return _mm_sad_epu8(v, _mm_setzero_si128());
}

#define bit_counts byte_bits

static inline void widened(__m128i *to, __m128i codes, int is_signed, int half) {
    const __m128i zero = _mm_setzero_si128();
    const __m128i high = is_signed ? _mm_cmpgt_epi8(zero, codes) : zero;
    const __m128i low8 = _mm_unpacklo_epi8(codes, high), high8 = _mm_unpackhi_epi8(codes, high);
    to[0] = half ? _mm_unpacklo_epi16(zero, low8) : _mm_unpacklo_epi16(low8, zero);
    to[1] = half ? _mm_unpackhi_epi16(zero, low8) : _mm_unpackhi_epi16(low8, zero);
    to[2] = half ? _mm_unpacklo_epi16(zero, high8) : _mm_unpacklo_epi16(high8, zero);
    to[3] = half ? _mm_unpackhi_epi16(zero, high8) : _mm_unpackhi_epi16(high8, zero);
}

/* LANES bytes 0 or 0xFF as masks of whole lanes. */
static inline void lane_masks(__m128i *to, __m128i bytes) {
    const __m128i low = _mm_unpacklo_epi8(bytes, bytes), high = _mm_unpackhi_epi8(bytes, bytes);
    to[0] = _mm_unpacklo_epi16(low, low);
    to[1] = _mm_unpackhi_epi16(low, low);
    to[2] = _mm_unpacklo_epi16(high, high);
    to[3] = _mm_unpackhi_epi16(high, high);
}
#endif

#include "array_loops.h"

const ArrayKernels array_baseline = ARRAY_KERNELS;
