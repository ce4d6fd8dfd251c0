/* Inner loops of the array kernel: LANES neighbouring columns at a time.
 *
 * Plain C99 with SSE2 intrinsics where the compiler targets SSE2 (every x86-64 does); other
 * targets take the C loops, which compilers vectorize. int32 sums wrap modulo 2^32, in C by
 * unsigned arithmetic: signed overflow would be undefined.
 */
#ifndef SYSTOLIC_LANES_H
#define SYSTOLIC_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) || defined(_M_X64) || (defined(_M_IX86_FP) && _M_IX86_FP >= 2)
#include <emmintrin.h>
#define SYSTOLIC_SSE2 1
#else
#define SYSTOLIC_SSE2 0
#endif

#if defined(_MSC_VER)
#define SYSTOLIC_RESTRICT __restrict
#else
#define SYSTOLIC_RESTRICT restrict
#endif

#define LANES 16
#define ROW_GROUP 4

/* An 8-bit operand code as the number it stands for. */
static inline int32_t widen(uint8_t code, int is_signed) {
    return is_signed ? (int32_t)(code ^ 0x80) - 0x80 : (int32_t)code;
}

/* A weight as mac_rows wants it. PMADDWD multiplies 16-bit halves in pairs and adds the pair;
 * with the weight's upper half 0, only the lower product counts, whatever the activation's
 * upper half holds. */
static inline int32_t lane_weight(int32_t weight) {
#if SYSTOLIC_SSE2
    return weight & 0xFFFF;
#else
    return weight;
#endif
}

/* Clock one row of LANES PEs for `cycles` cycles along their psums' diagonals.
 *
 * psum[i] holds the psums that arrive at the i-th cycle and becomes those the row puts out;
 * activation[-i] is the lane 0 activation of the i-th cycle (the row's input stream read
 * backwards: one cycle later every lane holds its left neighbour's value).
 */
static inline void mac_row(int32_t *SYSTOLIC_RESTRICT psum, ptrdiff_t cycles,
                           const int32_t *SYSTOLIC_RESTRICT activation,
                           const int32_t *SYSTOLIC_RESTRICT weight) {
    ptrdiff_t i;
    int lane;
    for (i = 0; i < cycles; ++i, psum += LANES, --activation) {
#if SYSTOLIC_SSE2
        for (lane = 0; lane < LANES; lane += 4) {
            __m128i a = _mm_loadu_si128((const __m128i *)(activation + lane));
            __m128i w = _mm_loadu_si128((const __m128i *)(weight + lane));
            __m128i p = _mm_loadu_si128((const __m128i *)(psum + lane));
            _mm_storeu_si128((__m128i *)(psum + lane), _mm_add_epi32(p, _mm_madd_epi16(a, w)));
        }
#else
        for (lane = 0; lane < LANES; ++lane)
            psum[lane] = (int32_t)((uint32_t)psum[lane] + (uint32_t)(activation[lane] * weight[lane]));
#endif
    }
}

/* Clock ROW_GROUP adjacent rows at once: the psums that leave one row on a cycle enter the next
 * on the following cycle, so along the diagonal they stay in a register from row to row.
 *
 * activation[g] is row g's stream at the cycle in which the diagonal crosses that row;
 * weight holds ROW_GROUP * LANES weights. The loop over 8 lanes keeps 8 weight vectors, 2 sums
 * and the products within the 16 registers of SSE2; per slot and 8 lanes it issues 10 loads,
 * 8 multiplies, 8 adds and 2 stores for 32 PE-cycles.
 */
static inline void mac_rows(int32_t *SYSTOLIC_RESTRICT psum, ptrdiff_t cycles,
                            const int32_t *const *activation, const int32_t *SYSTOLIC_RESTRICT weight) {
#if SYSTOLIC_SSE2
    int lane;
    for (lane = 0; lane < LANES; lane += 8) {
#define WEIGHT(g, half) _mm_loadu_si128((const __m128i *)(weight + (g) * LANES + lane + 4 * (half)))
        const __m128i w00 = WEIGHT(0, 0), w01 = WEIGHT(0, 1), w10 = WEIGHT(1, 0), w11 = WEIGHT(1, 1);
        const __m128i w20 = WEIGHT(2, 0), w21 = WEIGHT(2, 1), w30 = WEIGHT(3, 0), w31 = WEIGHT(3, 1);
#undef WEIGHT
        const int32_t *a0 = activation[0] + lane, *a1 = activation[1] + lane;
        const int32_t *a2 = activation[2] + lane, *a3 = activation[3] + lane;
        int32_t *p = psum + lane;
        ptrdiff_t i;
        for (i = 0; i < cycles; ++i, p += LANES) {
            __m128i left = _mm_loadu_si128((const __m128i *)p);
            __m128i right = _mm_loadu_si128((const __m128i *)(p + 4));
#define PE_ROW(a, w_left, w_right)                                                                         \
    left = _mm_add_epi32(left, _mm_madd_epi16(_mm_loadu_si128((const __m128i *)((a) - i)), w_left));       \
    right = _mm_add_epi32(right, _mm_madd_epi16(_mm_loadu_si128((const __m128i *)((a) - i + 4)), w_right));
            PE_ROW(a0, w00, w01)
            PE_ROW(a1, w10, w11)
            PE_ROW(a2, w20, w21)
            PE_ROW(a3, w30, w31)
#undef PE_ROW
            _mm_storeu_si128((__m128i *)p, left);
            _mm_storeu_si128((__m128i *)(p + 4), right);
        }
    }
#else
    int g;
    for (g = 0; g < ROW_GROUP; ++g) mac_row(psum, cycles, activation[g], weight + g * LANES);
#endif
}

/* A byte of LANES weights each, as mac_rows wants them. */
static inline void lane_weights(int32_t *SYSTOLIC_RESTRICT to, const uint8_t *SYSTOLIC_RESTRICT codes,
                                int is_signed) {
    int lane;
    if (is_signed)
        for (lane = 0; lane < LANES; ++lane) to[lane] = lane_weight((int32_t)(int8_t)codes[lane]);
    else
        for (lane = 0; lane < LANES; ++lane) to[lane] = lane_weight((int32_t)codes[lane]);
}

/* Where mask is 0xFF take `from`, where it is 0 keep `to`. */
static inline void blend(uint8_t *SYSTOLIC_RESTRICT to, const uint8_t *SYSTOLIC_RESTRICT from,
                         const uint8_t *SYSTOLIC_RESTRICT mask) {
    int lane;
    for (lane = 0; lane < LANES; ++lane) to[lane] ^= (uint8_t)((to[lane] ^ from[lane]) & mask[lane]);
}

/* Whether any lane's mask is set. */
static inline int any_lane(const uint8_t *mask) {
    uint64_t low, high;
    memcpy(&low, mask, 8);
    memcpy(&high, mask + 8, 8);
    return (low | high) != 0;
}

/* The shift chain of one row of LANES PEs, clocked by the three functions below.
 *
 * above[i] holds the weight_pass of the PEs above before the i-th edge and becomes this row's
 * own weight_pass before that edge, which is what the row below needs. Where a shift arrives,
 * weight_pass takes the old next_weight and next_weight the arriving weight.
 */

/* One edge on which shift (0 or 0xFF) arrives in some lanes. */
static inline void shift_some(uint8_t *SYSTOLIC_RESTRICT above, const uint8_t *SYSTOLIC_RESTRICT shift,
                              uint8_t *SYSTOLIC_RESTRICT next_weight, uint8_t *SYSTOLIC_RESTRICT weight_pass) {
    uint8_t arriving[LANES];
    memcpy(arriving, above, LANES);
    memcpy(above, weight_pass, LANES);
    blend(weight_pass, next_weight, shift);
    blend(next_weight, arriving, shift);
}

/* Edges on which it arrives in no lane: weight_pass stands. */
static inline void shift_none(uint8_t *SYSTOLIC_RESTRICT above, ptrdiff_t cycles,
                              const uint8_t *SYSTOLIC_RESTRICT weight_pass) {
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i) memcpy(above + i * LANES, weight_pass, LANES);
}

/* Edges on which it arrives in all lanes: two registers in a row, so what was above passes two
 * edges later. */
static inline void shift_all(uint8_t *SYSTOLIC_RESTRICT above, ptrdiff_t cycles,
                             uint8_t *SYSTOLIC_RESTRICT next_weight, uint8_t *SYSTOLIC_RESTRICT weight_pass) {
    uint8_t last[2 * LANES];
    if (cycles == 1) {
        memcpy(last, above, LANES);
        memcpy(above, weight_pass, LANES);
        memcpy(weight_pass, next_weight, LANES);
        memcpy(next_weight, last, LANES);
        return;
    }
    memcpy(last, above + (cycles - 2) * LANES, 2 * LANES);
    memmove(above + 2 * LANES, above, (size_t)(cycles - 2) * LANES);
    memcpy(above, weight_pass, LANES);
    memcpy(above + LANES, next_weight, LANES);
    memcpy(weight_pass, last, LANES);
    memcpy(next_weight, last + LANES, LANES);
}

#endif
