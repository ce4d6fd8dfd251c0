/* AVX2 with AVX-VNNI: VPDPBUSD on 256 bits, 32 MACs an instruction.
 *
 * It is the one that wraps; VPDPBUSDS saturates.
 *
 * Bottleneck of the loop of a 6 x 16 tile: 12 VPDPBUSD on two ports, 6 cycles or 64 MACs a cycle; 85%
 * of it was measured on 1024 x 1024 x 1024 (Sapphire Rapids).
 */
#include "gemm.h"

#define GEMM_TABLE gemm_avxvnni
#define WORD 4
#define SUMS_IN_FLIGHT 8
#define K_BLOCK 1024
#define M_BLOCK 264
#define KEEP_A 1
#define FLIP_B(a_signed, b_signed) (!(a_signed) == !(b_signed))
#include "gemm_avx2.h"

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    const __m256i from = AS(__m256i, sum), x = AS(__m256i, a), w = AS(__m256i, b);
    return AS(Vec, a_signed ? _mm256_dpbusd_avx_epi32(from, w, x) : _mm256_dpbusd_avx_epi32(from, x, w));
}

/* 4 rows of 16 columns: rows 0, 1 and 2, 3 are interleaved by bytes, then these by pairs. */
INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    const __m128i zero = _mm_setzero_si128(), flip = _mm_set1_epi8(form ? -128 : 0);
    const __m128i r0 = _mm_xor_si128(bytes_16(b, cols), flip);
    const __m128i r1 = _mm_xor_si128(depth > 1 ? bytes_16(b + b_stride, cols) : zero, flip);
    const __m128i r2 = _mm_xor_si128(depth > 2 ? bytes_16(b + 2 * b_stride, cols) : zero, flip);
    const __m128i r3 = _mm_xor_si128(depth > 3 ? bytes_16(b + 3 * b_stride, cols) : zero, flip);
    const __m128i low01 = _mm_unpacklo_epi8(r0, r1), low23 = _mm_unpacklo_epi8(r2, r3);
    __m128i *const out = (__m128i *)(void *)to;
    _mm_store_si128(out, _mm_unpacklo_epi16(low01, low23));
    _mm_store_si128(out + 1, _mm_unpackhi_epi16(low01, low23));
    if (cols > VEC_SUMS) {
        const __m128i high01 = _mm_unpackhi_epi8(r0, r1), high23 = _mm_unpackhi_epi8(r2, r3);
        _mm_store_si128(out + 2, _mm_unpacklo_epi16(high01, high23));
        _mm_store_si128(out + 3, _mm_unpackhi_epi16(high01, high23));
    }
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    (void)a_signed;
    for (; k > 0; k -= 16, a += 16, to += 16) _mm_store_si128((__m128i *)(void *)to, bytes_16(a, k));
}

INLINE uint32_t row_sum(const uint8_t *a, ptrdiff_t k, int a_signed) {
    const __m128i ones = _mm_set1_epi8(1);
    __m128i sum = _mm_setzero_si128();
    for (; k > 0; k -= 16, a += 16) {
        const __m128i codes = bytes_16(a, k);
        sum = a_signed ? _mm_dpbusd_avx_epi32(sum, ones, codes) : _mm_dpbusd_avx_epi32(sum, codes, ones);
    }
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(sum);
}

#include "gemm_driver.h"
