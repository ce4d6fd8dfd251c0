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

static inline void widened(__m512i *to, __m128i codes, int is_signed, int half) {
    const __m512i wide = is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes);
    to[0] = half ? _mm512_slli_epi32(wide, 16) : _mm512_and_si512(wide, _mm512_set1_epi32(0xFFFF));
}

/* LANES bytes 0 or 0xFF as masks of whole lanes. */
static inline void lane_masks(__m512i *to, __m128i bytes) { to[0] = _mm512_cvtepi8_epi32(bytes); }
