/* AVX-512: 16 lanes a vector. The including file defines DOT. */
#include <immintrin.h>

#define VEC __m512i
#define VEC_LANES 16
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define PICK(a, b, mask) _mm512_ternarylogic_epi32(mask, b, a, 0xCA)
#define RAISE(v) _mm512_slli_epi32(v, 16)
#define ZERO _mm512_setzero_si512()
#define BLEND(a, b, mask) _mm_ternarylogic_epi32(mask, b, a, 0xCA)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define ADD(a, b) _mm512_add_epi32(a, b)

#if defined(COUNTS_BITS)
static inline __m512i bit_counts(__m512i v) { return _mm512_popcnt_epi32(v); }

static inline __m128i byte_bits(__m128i v) { return _mm_popcnt_epi64(v); }
#else
#define CARRY_SAVE(sum, carry, a, b, c)                           \
    do {                                                          \
        const __m512i x_ = a, y_ = b, z_ = c;                     \
        carry = _mm512_ternarylogic_epi64(x_, y_, z_, 0xE8);      \
        sum = _mm512_ternarylogic_epi64(x_, y_, z_, 0x96);        \
    } while (0)

/* The bits of each half of a byte from a table. */
static inline __m512i bit_counts(__m512i v) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i half = _mm512_set1_epi8(0x0F);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(v, half));
    const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), half));
    return _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
}

static inline __m128i byte_bits(__m128i v) {
    const __m128i table = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4), half = _mm_set1_epi8(0x0F);
    const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(v, half));
    const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(v, 4), half));
    return _mm_sad_epu8(_mm_add_epi8(low, high), _mm_setzero_si128());
}
#endif

static inline void widened(__m512i *to, __m128i codes, int is_signed, int half) {
    const __m512i wide = is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes);
    to[0] = half ? _mm512_slli_epi32(wide, 16) : _mm512_and_si512(wide, _mm512_set1_epi32(0xFFFF));
}

/* LANES bytes 0 or 0xFF as masks of whole lanes. */
static inline void lane_masks(__m512i *to, __m128i bytes) { to[0] = _mm512_cvtepi8_epi32(bytes); }
