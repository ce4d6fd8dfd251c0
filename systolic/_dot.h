/* Exact products of 8-bit matrices for wavefront mode: int32 sums that wrap modulo 2^32.
 *
 * Operands are widened to int16 and paired along k, so that one PMADDWD does two MACs in each
 * of four lanes. Layouts:
 *   packed w: [ceil(n / 8)][ceil(k / 2)][8 columns][2]  int16, zeros beyond k and n
 *   packed x: [4 rows][ceil(k / 2)][2]                  int16, zeros beyond k and m
 */
#ifndef SYSTOLIC_DOT_H
#define SYSTOLIC_DOT_H

#include "_lanes.h"

#define DOT_ROWS 4
#define DOT_COLS 8

/* sums[4][8] of four packed rows with one packed panel of eight columns; `pairs` = ceil(k / 2). */
static inline void dot_block(const int16_t *SYSTOLIC_RESTRICT x, const int16_t *SYSTOLIC_RESTRICT w,
                             ptrdiff_t pairs, int32_t *SYSTOLIC_RESTRICT sums) {
    ptrdiff_t p;
#if SYSTOLIC_SSE2
    __m128i s00 = _mm_setzero_si128(), s01 = s00, s10 = s00, s11 = s00;
    __m128i s20 = s00, s21 = s00, s30 = s00, s31 = s00;
    for (p = 0; p < pairs; ++p, w += 2 * DOT_COLS) {
        const __m128i left = _mm_loadu_si128((const __m128i *)w);
        const __m128i right = _mm_loadu_si128((const __m128i *)(w + DOT_COLS));
        int32_t pair;
        __m128i a;
#define DOT_ROW(row, s_left, s_right)                           \
    memcpy(&pair, x + 2 * ((row) * pairs + p), sizeof(pair));   \
    a = _mm_set1_epi32(pair);                                   \
    s_left = _mm_add_epi32(s_left, _mm_madd_epi16(a, left));    \
    s_right = _mm_add_epi32(s_right, _mm_madd_epi16(a, right));
        DOT_ROW(0, s00, s01)
        DOT_ROW(1, s10, s11)
        DOT_ROW(2, s20, s21)
        DOT_ROW(3, s30, s31)
#undef DOT_ROW
    }
    _mm_storeu_si128((__m128i *)(sums + 0), s00);
    _mm_storeu_si128((__m128i *)(sums + 4), s01);
    _mm_storeu_si128((__m128i *)(sums + 8), s10);
    _mm_storeu_si128((__m128i *)(sums + 12), s11);
    _mm_storeu_si128((__m128i *)(sums + 16), s20);
    _mm_storeu_si128((__m128i *)(sums + 20), s21);
    _mm_storeu_si128((__m128i *)(sums + 24), s30);
    _mm_storeu_si128((__m128i *)(sums + 28), s31);
#else
    int row, col;
    memset(sums, 0, DOT_ROWS * DOT_COLS * sizeof(int32_t));
    for (p = 0; p < pairs; ++p, w += 2 * DOT_COLS)
        for (row = 0; row < DOT_ROWS; ++row) {
            const int16_t *a = x + 2 * (row * pairs + p);
            for (col = 0; col < DOT_COLS; ++col)
                sums[row * DOT_COLS + col] =
                    (int32_t)((uint32_t)sums[row * DOT_COLS + col] + (uint32_t)(a[0] * w[2 * col]) +
                              (uint32_t)(a[1] * w[2 * col + 1]));
        }
#endif
}

#endif
