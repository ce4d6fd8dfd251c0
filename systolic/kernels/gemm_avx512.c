/* AVX-512 without VNNI: VPMADDWD on int16, 32 MACs an instruction, and an addition.
 *
 * Bottleneck of the loop of a 12 x 32 tile: 24 multiplications and 24 additions on two ports, 24
 * cycles or 32 MACs a cycle; 92% of it was measured on 1024 x 1024 x 1024 (Sapphire Rapids).
 */
#include "gemm.h"

#define GEMM_TABLE gemm_avx512
#define WORD 2
#define SUMS_IN_FLIGHT 2
#define K_BLOCK 1024
#define M_BLOCK 264
#define KEEP_A 0
#include "gemm_avx512.h"

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    (void)a_signed;
    return vec_add(sum, AS(Vec, _mm512_madd_epi16(AS(__m512i, a), AS(__m512i, b))));
}

INLINE __m512i widened(__m256i codes, int is_signed) {
    return is_signed ? _mm512_cvtepi8_epi16(codes) : _mm512_cvtepu8_epi16(codes);
}

/* 2 rows of 32 columns: quarters 0 and 1 to where UNPCKL takes them from, 2 and 3 to UNPCKH. */
INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    const __mmask32 mask = 0xFFFFFFFFu >> (32 - cols);
    const __m256i r0 = _mm256_permute4x64_epi64(_mm256_maskz_loadu_epi8(mask, b), 0xD8);
    const __m256i r1 = depth > 1 ? _mm256_permute4x64_epi64(_mm256_maskz_loadu_epi8(mask, b + b_stride), 0xD8)
                                 : _mm256_setzero_si256();
    _mm512_store_si512((void *)to, widened(_mm256_unpacklo_epi8(r0, r1), form));
    if (cols > VEC_SUMS) _mm512_store_si512((void *)(to + 64), widened(_mm256_unpackhi_epi8(r0, r1), form));
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    for (; k > 0; k -= 32, a += 32, to += 64) {
        const __mmask32 mask = k >= 32 ? 0xFFFFFFFFu : 0xFFFFFFFFu >> (32 - k);
        _mm512_store_si512((void *)to, widened(_mm256_maskz_loadu_epi8(mask, a), a_signed));
    }
}

#include "gemm_driver.h"
