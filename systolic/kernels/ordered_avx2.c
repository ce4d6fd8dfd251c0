/* Products in fixed order: 6 x 16 sums of floats in 12 registers.
 *
 * Bottleneck of the loop: 12 multiply-adds on two ports, 16 MACs a cycle.
 */
#include <immintrin.h>

#include "compiler.h"

#define ORDERED_TABLE ordered_avx2
#define LANES 8
#define PANEL 16
#define ROWS 6
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define FLOAT_TILES 1

typedef __m256 Vec;

INLINE Vec vec_zero(void) { return _mm256_setzero_ps(); }

INLINE Vec vec_fill(const float *p) { return _mm256_broadcast_ss(p); }

INLINE Vec vec_load(const float *p) { return _mm256_load_ps(p); }

INLINE Vec vec_fma(Vec a, Vec b, Vec s) { return _mm256_fmadd_ps(a, b, s); }

INLINE __m256i first_lanes(ptrdiff_t cols) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)cols), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE Vec vec_from(const float *p, ptrdiff_t cols) { return _mm256_maskload_ps(p, first_lanes(cols)); }

INLINE void vec_out(Vec s, float *p, ptrdiff_t cols, int add) {
    const Vec before = add ? vec_from(p, cols) : _mm256_setzero_ps();
    _mm256_maskstore_ps(p, first_lanes(cols), _mm256_add_ps(before, s));
}

INLINE void halves(const uint16_t *from, ptrdiff_t count, float *to) {
    for (; count >= 8; count -= 8, from += 8, to += 8)
        _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from)));
    for (; count > 0; --count, ++from, ++to) *to = _cvtsh_ss(*from);
}

#include "ordered_driver.h"
