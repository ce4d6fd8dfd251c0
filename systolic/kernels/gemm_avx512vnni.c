/* AVX-512 with VNNI: VPDPBUSD, 64 MACs an instruction.
 *
 * It is the one that wraps; VPDPBUSDS saturates.
 *
 * Bottleneck of the loop of a 12 x 32 tile: the two ports that multiply, 24 VPDPBUSD in 12 cycles;
 * its 14 loads take 7 cycles of two load ports. Where a's block fits in L2, 91 to 98% of the rate of
 * VPDPBUSD alone was measured (Sapphire Rapids, k = 1024); the rest of a whole product goes into
 * packing b and writing acc, which lie in slower memory.
 */
#include "gemm.h"

#define GEMM_TABLE gemm_avx512vnni
#define WORD 4
#define SUMS_IN_FLIGHT 10
#define K_BLOCK 2048
#define M_BLOCK 264
#define KEEP_A 1
#define FLIP_B(a_signed, b_signed) (!(a_signed) == !(b_signed))
#include "gemm_avx512.h"

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    const __m512i from = AS(__m512i, sum), x = AS(__m512i, a), w = AS(__m512i, b);
    return AS(Vec, a_signed ? _mm512_dpbusd_epi32(from, w, x) : _mm512_dpbusd_epi32(from, x, w));
}

/* 4 rows of 32 columns: lane j gathers the rows' bytes 4j .. 4j + 3, then each lane is transposed. */
INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    const __m512i left = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
    const __m512i right = _mm512_setr_epi32(4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31);
    const __m512i transpose =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i flip = _mm512_set1_epi8(form ? -128 : 0);
    const __mmask32 mask = 0xFFFFFFFFu >> (32 - cols);
    const __m256i r0 = _mm256_maskz_loadu_epi8(mask, b);
    const __m256i r1 = _mm256_maskz_loadu_epi8(depth > 1 ? mask : 0, depth > 1 ? b + b_stride : b);
    const __m256i r2 = _mm256_maskz_loadu_epi8(depth > 2 ? mask : 0, depth > 2 ? b + 2 * b_stride : b);
    const __m256i r3 = _mm256_maskz_loadu_epi8(depth > 3 ? mask : 0, depth > 3 ? b + 3 * b_stride : b);
    const __m512i r01 = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(r0), r1, 1), flip);
    const __m512i r23 = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(r2), r3, 1), flip);
    _mm512_store_si512((void *)to, _mm512_shuffle_epi8(_mm512_permutex2var_epi32(r01, left, r23), transpose));
    if (cols > VEC_SUMS)
        _mm512_store_si512((void *)(to + 64),
                           _mm512_shuffle_epi8(_mm512_permutex2var_epi32(r01, right, r23), transpose));
}

INLINE __mmask64 first_bytes(ptrdiff_t count) {
    return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    (void)a_signed;
    for (; k > 0; k -= 64, a += 64, to += 64)
        _mm512_store_si512((void *)to, _mm512_maskz_loadu_epi8(first_bytes(k), a));
}

INLINE uint32_t row_sum(const uint8_t *a, ptrdiff_t k, int a_signed) {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (; k > 0; k -= 64, a += 64) {
        const __m512i codes = _mm512_maskz_loadu_epi8(first_bytes(k), a);
        sum = a_signed ? _mm512_dpbusd_epi32(sum, ones, codes) : _mm512_dpbusd_epi32(sum, codes, ones);
    }
    return (uint32_t)_mm512_reduce_add_epi32(sum);
}

#include "gemm_driver.h"
