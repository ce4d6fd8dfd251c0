/* What every processor runs: PMADDWD on int16 where the compiler targets SSE2 (every x86-64 does),
 * 8 MACs an instruction; elsewhere plain C.
 *
 * Bottleneck of the loop of a 4 x 8 tile on SSE2: 8 multiplications, 8 additions and 4 shuffles (there
 * is no broadcast) on three ports, 6.7 cycles or 9.6 MACs a cycle; 82% of it was measured on
 * 1024 x 1024 x 1024 (Sapphire Rapids).
 */
#include "gemm.h"

#define GEMM_TABLE gemm_baseline
#define WORD 2
#define VEC_SUMS 4
#define ROWS 4
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4)
#define SUMS_IN_FLIGHT 2
#define K_BLOCK 512
#define M_BLOCK 192
#define KEEP_A 0
#include "compiler.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>

typedef INT32_VECTOR(__m128i, 16) Vec;

INLINE Vec vec_fill(int32_t s) { return AS(Vec, _mm_set1_epi32(s)); }

INLINE Vec vec_word(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return vec_fill(word);
}

INLINE Vec vec_load(const uint8_t *p) {
    return AS(Vec, _mm_load_si128((const __m128i *)(const void *)p));
}

INLINE Vec vec_add(Vec s, Vec t) { return AS(Vec, _mm_add_epi32(AS(__m128i, s), AS(__m128i, t))); }

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    (void)a_signed;
    return vec_add(sum, AS(Vec, _mm_madd_epi16(AS(__m128i, a), AS(__m128i, b))));
}

/* The low or high 8 bytes as int16: each doubled to 16 bits, then shifted down. */
INLINE __m128i widened(__m128i codes, int high, int is_signed) {
    const __m128i twice = high ? _mm_unpackhi_epi8(codes, codes) : _mm_unpacklo_epi8(codes, codes);
    return is_signed ? _mm_srai_epi16(twice, 8) : _mm_srli_epi16(twice, 8);
}

INLINE void widen_8(const uint8_t *codes, int is_signed, uint8_t *to) {
    const __m128i low = _mm_loadl_epi64((const __m128i *)(const void *)codes);
    _mm_store_si128((__m128i *)(void *)to, widened(low, 0, is_signed));
}

INLINE void widen_pairs_8(const uint8_t *r0, const uint8_t *r1, int is_signed, uint8_t *to) {
    const __m128i pairs = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)r0),
                                            _mm_loadl_epi64((const __m128i *)(const void *)r1));
    _mm_store_si128((__m128i *)(void *)to, widened(pairs, 0, is_signed));
    _mm_store_si128((__m128i *)(void *)(to + 16), widened(pairs, 1, is_signed));
}
#else
typedef struct {
    int32_t lane[VEC_SUMS];
} Vec;

INLINE Vec vec_fill(int32_t s) {
    Vec v;
    int i;
    for (i = 0; i < VEC_SUMS; ++i) v.lane[i] = s;
    return v;
}

INLINE Vec vec_word(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return vec_fill(word);
}

INLINE Vec vec_load(const uint8_t *p) {
    Vec v;
    memcpy(&v, p, sizeof(v));
    return v;
}

INLINE Vec vec_add(Vec s, Vec t) {
    int i;
    for (i = 0; i < VEC_SUMS; ++i) s.lane[i] = (int32_t)((uint32_t)s.lane[i] + (uint32_t)t.lane[i]);
    return s;
}

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    int16_t x[2 * VEC_SUMS], w[2 * VEC_SUMS];
    int i;
    (void)a_signed;
    memcpy(x, &a, sizeof(x));
    memcpy(w, &b, sizeof(w));
    for (i = 0; i < VEC_SUMS; ++i)
        sum.lane[i] = (int32_t)((uint32_t)sum.lane[i] +
                                (uint32_t)(x[2 * i] * w[2 * i] + x[2 * i + 1] * w[2 * i + 1]));
    return sum;
}

INLINE int16_t widened(uint8_t code, int is_signed) {
    return (int16_t)(is_signed ? (code ^ 0x80) - 0x80 : code);
}

INLINE void widen_8(const uint8_t *codes, int is_signed, uint8_t *to) {
    int16_t wide[8];
    int i;
    for (i = 0; i < 8; ++i) wide[i] = widened(codes[i], is_signed);
    memcpy(to, wide, sizeof(wide));
}

INLINE void widen_pairs_8(const uint8_t *r0, const uint8_t *r1, int is_signed, uint8_t *to) {
    int16_t wide[16];
    int i;
    for (i = 0; i < 8; ++i) {
        wide[2 * i] = widened(r0[i], is_signed);
        wide[2 * i + 1] = widened(r1[i], is_signed);
    }
    memcpy(to, wide, sizeof(wide));
}
#endif

INLINE void vec_out(Vec sum, int32_t *acc, ptrdiff_t cols, int accumulate) {
    Vec old = vec_fill(0);
    if (cols >= VEC_SUMS) {
        if (accumulate) memcpy(&old, acc, sizeof(old));
        sum = vec_add(sum, old);
        memcpy(acc, &sum, sizeof(sum));
    } else {
        if (accumulate) memcpy(&old, acc, (size_t)cols * sizeof(*acc));
        sum = vec_add(sum, old);
        memcpy(acc, &sum, (size_t)cols * sizeof(*acc));
    }
}

INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    Vec wide[2];
    uint8_t few[16] = {0};
    if (depth == WORD && cols == 8) {
        widen_pairs_8(b, b + b_stride, form, to);
        return;
    }
    memcpy(few, b, (size_t)cols);
    if (depth > 1) memcpy(few + 8, b + b_stride, (size_t)cols);
    widen_pairs_8(few, few + 8, form, (uint8_t *)wide);
    memcpy(to, wide, cols > VEC_SUMS ? sizeof(wide) : sizeof(*wide));
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    uint8_t few[8] = {0};
    for (; k >= 8; k -= 8, a += 8, to += 16) widen_8(a, a_signed, to);
    if (k > 0) {
        memcpy(few, a, (size_t)k);
        widen_8(few, a_signed, to);
    }
}

#include "gemm_driver.h"
