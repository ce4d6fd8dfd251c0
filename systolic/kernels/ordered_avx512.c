/* Products in fixed order: 12 x 32 sums of floats in 24 registers.
 *
 * Bottleneck of the loop: 24 multiply-adds, 16 MACs a cycle for each port that takes them.
 */
#include <immintrin.h>

#include "compiler.h"

#define ORDERED_TABLE ordered_avx512
#define LANES 16
#define PANEL 32
#define ROWS 12
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define FLOAT_TILES 1

typedef __m512 Vec;

INLINE Vec vec_zero(void) { return _mm512_setzero_ps(); }

INLINE Vec vec_fill(const float *p) { return _mm512_set1_ps(*p); }

INLINE Vec vec_load(const float *p) { return _mm512_load_ps(p); }

INLINE Vec vec_fma(Vec a, Vec b, Vec s) { return _mm512_fmadd_ps(a, b, s); }

INLINE __mmask16 first_lanes(ptrdiff_t cols) { return (__mmask16)(0xFFFFu >> (LANES - cols)); }

INLINE Vec vec_from(const float *p, ptrdiff_t cols) { return _mm512_maskz_loadu_ps(first_lanes(cols), p); }

INLINE void vec_out(Vec s, float *p, ptrdiff_t cols, int add) {
    const Vec before = add ? vec_from(p, cols) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(p, first_lanes(cols), _mm512_add_ps(before, s));
}

INLINE void halves(const uint16_t *from, ptrdiff_t count, float *to) {
    for (; count > 0; count -= 16, from += 16, to += 16) {
        const __mmask16 mask = count >= 16 ? 0xFFFFu : first_lanes(count);
        const __m256i codes = _mm256_maskz_loadu_epi16(mask, from);
        _mm512_mask_storeu_ps(to, mask, _mm512_cvtph_ps(codes));
    }
}

#include "ordered_driver.h"
