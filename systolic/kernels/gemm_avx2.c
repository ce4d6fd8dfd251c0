/* AVX2: VPMADDWD on int16, 16 MACs an instruction, and an addition.
 *
 * Bottleneck of the loop of a 6 x 16 tile: 12 multiplications and 12 additions on three ports, 8
 * cycles or 24 MACs a cycle; 87% of it was measured on 1024 x 1024 x 1024 (Sapphire Rapids).
 */
#include "gemm.h"

#define GEMM_TABLE gemm_avx2
#define WORD 2
#define SUMS_IN_FLIGHT 2
#define K_BLOCK 512
#define M_BLOCK 192
#define KEEP_A 0
#include "gemm_avx2.h"

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    (void)a_signed;
    return vec_add(sum, AS(Vec, _mm256_madd_epi16(AS(__m256i, a), AS(__m256i, b))));
}

INLINE __m256i widened(__m128i codes, int is_signed) {
    return is_signed ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
}

INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    const __m128i r0 = bytes_16(b, cols);
    const __m128i r1 = depth > 1 ? bytes_16(b + b_stride, cols) : _mm_setzero_si128();
    __m256i *const out = (__m256i *)(void *)to;
    _mm256_store_si256(out, widened(_mm_unpacklo_epi8(r0, r1), form));
    if (cols > VEC_SUMS) _mm256_store_si256(out + 1, widened(_mm_unpackhi_epi8(r0, r1), form));
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    for (; k > 0; k -= 16, a += 16, to += 32)
        _mm256_store_si256((__m256i *)(void *)to, widened(bytes_16(a, k), a_signed));
}

#include "gemm_driver.h"
