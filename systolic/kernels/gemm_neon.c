/* arm64 with the dot-product instructions: UDOT and SDOT, 16 MACs an instruction.
 *
 * Both operands are of one kind: b is packed as a's own kind, with its top bit flipped if it is of
 * the other.
 */
#include "gemm.h"

#include <arm_neon.h>

#define GEMM_TABLE gemm_neon
#define WORD 4
#define VEC_SUMS 4
#define ROWS 8
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define SUMS_IN_FLIGHT 8
#define K_BLOCK 1024
#define M_BLOCK 192
#define KEEP_A 1
#define FLIP_B(a_signed, b_signed) (!(a_signed) != !(b_signed))
#include "compiler.h"

typedef int32x4_t Vec;

INLINE Vec vec_fill(int32_t s) { return vdupq_n_s32(s); }

INLINE Vec vec_word(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return vdupq_n_s32(word);
}

INLINE Vec vec_load(const uint8_t *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }

INLINE Vec vec_add(Vec s, Vec t) { return vaddq_s32(s, t); }

INLINE Vec vec_mac(Vec sum, Vec a, Vec b, const int a_signed) {
    if (a_signed) return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
    return vreinterpretq_s32_u32(
        vdotq_u32(vreinterpretq_u32_s32(sum), vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
}

INLINE void vec_out(Vec sum, int32_t *acc, ptrdiff_t cols, int accumulate) {
    if (cols >= VEC_SUMS) {
        if (accumulate) sum = vaddq_s32(sum, vld1q_s32(acc));
        vst1q_s32(acc, sum);
    } else {
        int32_t few[VEC_SUMS] = {0};
        memcpy(few, acc, (size_t)cols * sizeof(*few));
        if (accumulate) sum = vaddq_s32(sum, vld1q_s32(few));
        vst1q_s32(few, sum);
        memcpy(acc, few, (size_t)cols * sizeof(*few));
    }
}

/* The first 8 of `count` bytes, zeros beyond. */
INLINE uint8x8_t bytes_8(const uint8_t *p, ptrdiff_t count) {
    uint8_t few[8] = {0};
    if (count >= 8) return vld1_u8(p);
    memcpy(few, p, (size_t)count);
    return vld1_u8(few);
}

/* 4 rows of 8 columns: ZIP rows 0 with 2 and 1 with 3, then these with each other. */
INLINE void pack_word(const uint8_t *b, ptrdiff_t b_stride, int depth, ptrdiff_t cols, int form,
                      uint8_t *to) {
    const uint8x8_t zero = vdup_n_u8(0);
    const uint8x16_t flip = vdupq_n_u8(form ? 0x80 : 0);
    const uint8x8_t r0 = bytes_8(b, cols), r1 = depth > 1 ? bytes_8(b + b_stride, cols) : zero;
    const uint8x8_t r2 = depth > 2 ? bytes_8(b + 2 * b_stride, cols) : zero;
    const uint8x8_t r3 = depth > 3 ? bytes_8(b + 3 * b_stride, cols) : zero;
    const uint8x8x2_t even = vzip_u8(r0, r2), odd = vzip_u8(r1, r3);
    const uint8x16x2_t words =
        vzipq_u8(vcombine_u8(even.val[0], even.val[1]), vcombine_u8(odd.val[0], odd.val[1]));
    vst1q_u8(to, veorq_u8(words.val[0], flip));
    if (cols > VEC_SUMS) vst1q_u8(to + 16, veorq_u8(words.val[1], flip));
}

INLINE void copy_row(const uint8_t *a, ptrdiff_t k, int a_signed, uint8_t *to) {
    (void)a_signed;
    for (; k > 0; k -= 8, a += 8, to += 8) vst1_u8(to, bytes_8(a, k));
}

INLINE uint32_t row_sum(const uint8_t *a, ptrdiff_t k, int a_signed) {
    const uint8x8_t ones = vdup_n_u8(1);
    uint32x2_t sum = vdup_n_u32(0);
    for (; k > 0; k -= 8, a += 8) {
        const uint8x8_t codes = bytes_8(a, k);
        if (a_signed)
            sum = vreinterpret_u32_s32(
                vdot_s32(vreinterpret_s32_u32(sum), vreinterpret_s8_u8(codes), vreinterpret_s8_u8(ones)));
        else
            sum = vdot_u32(sum, codes, ones);
    }
    return vaddv_u32(sum);
}

#include "gemm_driver.h"
