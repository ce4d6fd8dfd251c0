/* The loops behind host.h, compiled once per instruction set: define HOST_TABLE, include.
 *
 * Plain C99 that GCC and clang turn into vectors. GCC 12's AVX-512 code for 64 results, whose vector
 * operations share ports 0 and 5 on Intel: requantize has 24 arithmetic and about 8 narrowing ones,
 * so at least 16 cycles for 256 bytes of sums (from L2 it reaches about 60 % of that rate; from
 * further away memory bounds it); add 28 and about 25 (widening bytes costs as much as adding
 * them), at least 27 cycles, of which it reaches about 60 % too.
 */
#include <float.h>
#include <math.h>

#include "compiler.h"
#include "host.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

/* The loops are written once for both signs and both operand layouts; flags are constants where they
 * are called, so that each combination is compiled to a loop of its own. */
#define BY_SIGN(is_signed, call) \
    do { \
        if (is_signed) { \
            enum { SIGNED = 1 }; \
            call; \
        } else { \
            enum { SIGNED = 0 }; \
            call; \
        } \
    } while (0)

/* An operation's result as a float32. Where the processor computes in a wider format (x87: 64 bits, more than
 * 2 * 24 + 2), rounding a second time does no harm, but it must happen. */
INLINE float f32(float value) {
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
    volatile float rounded = value;
    return rounded;
#else
    return value;
#endif
}

INLINE int32_t code(uint8_t byte, int is_signed) { return is_signed ? (int32_t)(int8_t)byte : (int32_t)byte; }

INLINE int32_t code_min(int is_signed) { return is_signed ? -128 : 0; }

INLINE int32_t code_max(int is_signed) { return is_signed ? 127 : 255; }

/* Hide a bound from the optimizer: with a constant GCC clamps by branches and does not vectorize. */
INLINE float bound(int32_t value) {
    volatile float kept = (float)value;
    return kept;
}

/* rne(clamp(v, low, high)) + zero as a byte, |low|, |high| <= 255; NaN counts as low.
 *
 * Adding 1.5 * 2^23 leaves a number between 2^23 and 2^24, whose last bit is worth 1: the addition
 * rounds to the nearest integer, ties to even, in the processor's default rounding mode, on any
 * instruction set. That sum's bits are 0x4B400000 + the integer; the low byte is the integer's. */
INLINE uint8_t round_code(float v, float low, float high, uint32_t zero) {
    uint32_t bits;
    v = v > low ? v : low; /* false for NaN */
    v = v < high ? v : high;
    v = f32(v + 12582912.0f);
    memcpy(&bits, &v, sizeof bits);
    return (uint8_t)(bits + zero);
}

/* ------------------------------------------------------------------ sums */

/* n neighboring sums. Each of constant, scale and weight_zero holds one number per sum where
 * `per_sum`, else one for all; each of row_sums the other way round. */
INLINE void apply_to_run(void *RESTRICT out, const int32_t *RESTRICT acc, ptrdiff_t n, int per_sum,
                         const int32_t *RESTRICT constant, int has_constant,
                         const int32_t *RESTRICT row_sums, const int32_t *RESTRICT weight_zero,
                         int has_row_sums, const float *RESTRICT scale, int to_codes, float low, float high,
                         uint32_t zero) {
    ptrdiff_t i;
    const uint32_t one_constant = has_constant ? (uint32_t)*constant : 0;
    const uint32_t one_row_sum = has_row_sums ? (uint32_t)*row_sums : 0;
    const uint32_t one_weight_zero = has_row_sums ? (uint32_t)*weight_zero : 0;
    const float one_scale = *scale;
    for (i = 0; i < n; ++i) {
        uint32_t total = (uint32_t)acc[i];
        float v;
        if (has_constant)
            total += per_sum ? (uint32_t)constant[i] : one_constant;
        if (has_row_sums)
            total -= per_sum ? one_row_sum * (uint32_t)weight_zero[i]
                             : (uint32_t)row_sums[i] * one_weight_zero;
        v = f32(f32((float)(int32_t)total) * (per_sum ? scale[i] : one_scale));
        if (to_codes)
            ((uint8_t *)out)[i] = round_code(v, low, high, zero);
        else
            ((float *)out)[i] = v;
    }
}

/* All runs of one `outer`: with per_sum a run is a group's channels, else one channel's pixels. */
INLINE void apply_to_runs(const HostSums *s, char *out, ptrdiff_t size, ptrdiff_t outer, int per_sum,
                          int has_constant, int has_row_sums, int to_codes, float low, float high,
                          uint32_t zero) {
    /* Row sums differ between groups. */
    const ptrdiff_t group = has_row_sums ? s->channels / s->groups : s->channels, step = per_sum ? group : 1;
    ptrdiff_t c;
    for (c = 0; c < s->channels; c += step) {
        const int32_t *rows = has_row_sums ? s->row_sums + (outer * s->groups + c / group) * s->inner : NULL;
        apply_to_run(out + (outer * s->out_outer + c * s->out_channel) * size,
                     s->acc + outer * s->acc_outer + c * s->acc_channel, per_sum ? step : s->inner, per_sum,
                     has_constant ? s->constant + c : NULL, has_constant, rows,
                     has_row_sums ? s->weight_zero + c : NULL, has_row_sums, s->scale + c, to_codes,
                     low, high, zero);
    }
}

INLINE void apply_epilogue(const HostSums *s, void *out, int to_codes, int is_signed, int32_t zero) {
    const float low = bound(code_min(is_signed) - zero), high = bound(code_max(is_signed) - zero);
    const int per_sum = s->inner == 1 && s->acc_channel == 1 && s->out_channel == 1;
    const ptrdiff_t size = to_codes ? 1 : (ptrdiff_t)sizeof(float);
    ptrdiff_t o;
    if (s->inner == 0 || s->channels == 0)
        return;
#define APPLY(per_sum, has_constant, has_row_sums) \
    apply_to_runs(s, (char *)out, size, o, per_sum, has_constant, has_row_sums, to_codes, low, high, \
                  (uint32_t)zero)
    for (o = 0; o < s->outer; ++o) {
        if (per_sum) {
            if (s->row_sums && s->constant)
                APPLY(1, 1, 1);
            else if (s->row_sums)
                APPLY(1, 0, 1);
            else if (s->constant)
                APPLY(1, 1, 0);
            else
                APPLY(1, 0, 0);
        } else {
            if (s->row_sums && s->constant)
                APPLY(0, 1, 1);
            else if (s->row_sums)
                APPLY(0, 0, 1);
            else if (s->constant)
                APPLY(0, 1, 0);
            else
                APPLY(0, 0, 0);
        }
    }
#undef APPLY
}

static void requantize(const HostSums *sums, uint8_t *out, int is_signed, int32_t zero) {
    apply_epilogue(sums, out, 1, is_signed, zero);
}

static void scale_sums(const HostSums *sums, float *out) { apply_epilogue(sums, out, 0, 1, 0); }

/* ------------------------------------------------------------------ floats */

static void quantize(const float *RESTRICT x, uint8_t *RESTRICT out, ptrdiff_t count, float scale,
                     int is_signed, int32_t zero) {
    const float low = bound(code_min(is_signed) - zero), high = bound(code_max(is_signed) - zero);
    ptrdiff_t i;
    for (i = 0; i < count; ++i)
        out[i] = round_code(f32(x[i] / scale), low, high, (uint32_t)zero);
}

INLINE void dequantize_by_sign(const uint8_t *RESTRICT q, float *RESTRICT out, ptrdiff_t count, float scale,
                               int is_signed, int32_t zero) {
    ptrdiff_t i;
    for (i = 0; i < count; ++i)
        out[i] = f32((float)(code(q[i], is_signed) - zero) * scale);
}

static void dequantize(const uint8_t *q, float *out, ptrdiff_t count, float scale, int is_signed,
                       int32_t zero) {
    BY_SIGN(is_signed, dequantize_by_sign(q, out, count, scale, SIGNED, zero));
}

/* --------------------------------------------------------- codes and codes */

/* fma(x, y, z) where x * y is exact in float64: any two float32 numbers, as 24 + 24 bits. The sum in
 * float64 is rounded to odd (toward zero, its last bit set if anything was lost), which a second
 * rounding to float32 cannot spoil: Boldo and Melquiond, "Emulation of FMA and correctly rounded
 * sums: proved algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008. */
static float fma_once(float x, float y, float z) {
    const double product = (double)x * (double)y, total = product + (double)z;
    const double back = total - product, lost = (product - (total - back)) + ((double)z - back);
    uint64_t bits;
    double odd;
    memcpy(&bits, &total, sizeof bits);
    /* Where something was lost `total` is not 0; a step of the bits is a step of the magnitude. */
    if (lost != 0 && lost == lost && !(bits & 1))
        bits += (lost > 0) == (total > 0) ? 1 : (uint64_t)-1;
    memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}

#if defined(__FMA__) || defined(FP_FAST_FMAF) || defined(__aarch64__) || defined(_M_ARM64)
#define FMA_IS_FAST 1
#else
#define FMA_IS_FAST 0
#endif

enum { FMA_HARDWARE, FMA_DOUBLE, FMA_ODD };

/* A number before its conversion to a code by way of int32: on x86 values of 2^31 or more convert to the
 * smallest int32, so to the smallest code. Where no value can be that large (`wide` is 0) the comparison, which
 * costs a fifth of such a loop, is left out; NaN is the smallest code in either case. */
INLINE float converted(float v, float low, int wide) { return !wide || v < 2147483648.0f ? v : low; }

/* Whether results of at most this magnitude, itself rounded, may reach 2^31; true for NaN. */
INLINE int is_wide(float most) { return !(most < 1073741824.0f); }

/* scale * code + term, rounded once to float32. */
INLINE float fma_code(float scale, int32_t number, float term, int how) {
#if FMA_IS_FAST
    if (how == FMA_HARDWARE)
        return fmaf((float)number, scale, term);
#endif
    if (how == FMA_DOUBLE)
        return (float)((double)number * (double)scale + (double)term);
    return fma_once(scale, (float)number, term);
}

INLINE void add_by(const uint8_t *RESTRICT a, const uint8_t *RESTRICT b, uint8_t *RESTRICT out,
                   ptrdiff_t count, float ra, float rb, float c0, int is_signed, int how, int wide) {
    const float low = bound(code_min(is_signed)), high = bound(code_max(is_signed));
    ptrdiff_t i;
    for (i = 0; i < count; ++i) {
        const float inner = fma_code(rb, code(b[i], is_signed), c0, how);
        const float sum = fma_code(ra, code(a[i], is_signed), inner, how);
        out[i] = round_code(converted(sum, low, wide), low, high, 0);
    }
}

static void add(const uint8_t *a, const uint8_t *b, uint8_t *out, ptrdiff_t count, const float scales[3],
                int is_signed, const int32_t zeros[3]) {
    const float ra = f32(scales[0] / scales[2]), rb = f32(scales[1] / scales[2]);
    const float inner = fma_once(ra, (float)zeros[0], f32(rb * (float)zeros[1]));
    const float c0 = f32((float)zeros[2] - inner);
#if FMA_IS_FAST
    if (is_wide(f32(f32(ra + rb) * 255.0f) + fabsf(c0)))
        BY_SIGN(is_signed, add_by(a, b, out, count, ra, rb, c0, SIGNED, FMA_HARDWARE, 1));
    else
        BY_SIGN(is_signed, add_by(a, b, out, count, ra, rb, c0, SIGNED, FMA_HARDWARE, 0));
#else
    /* Without FMA: where ra and rb lie in 2^-8 .. 2^8 both sums are exact in float64, so that the
     * conversion to float32 is the only rounding. Every term is a multiple of 2^-31 = ulp(2^-8): ra,
     * rb, and c0 and the inner sum, since rounding a multiple of a power of two never makes a finer
     * one. Every term and sum is below 2^20: the products are at most 255 * 2^8 < 2^16, and the rest
     * is made of four such products and a zero point. 20 + 31 = 51 bits; float64 has 53. */
    const float least = 0.00390625f, most = 256.0f;
    if (ra >= least && ra <= most && rb >= least && rb <= most)
        BY_SIGN(is_signed, add_by(a, b, out, count, ra, rb, c0, SIGNED, FMA_DOUBLE, 0));
    else
        BY_SIGN(is_signed, add_by(a, b, out, count, ra, rb, c0, SIGNED, FMA_ODD, 1));
#endif
}

INLINE void mul_by_sign(const uint8_t *RESTRICT a, const uint8_t *RESTRICT b, uint8_t *RESTRICT out,
                        ptrdiff_t count, float scale, int is_signed, const int32_t zeros[3], int wide) {
    const float low = bound(code_min(is_signed)), high = bound(code_max(is_signed));
    const float za = (float)zeros[0], zb = (float)zeros[1], zy = (float)zeros[2];
    ptrdiff_t i;
    for (i = 0; i < count; ++i) {
        /* Differences and their product, at most 255 * 255, are exact. */
        const float product = ((float)code(a[i], is_signed) - za) * ((float)code(b[i], is_signed) - zb);
        out[i] = round_code(converted(f32(f32(product * scale) + zy), low, wide), low, high, 0);
    }
}

static void mul(const uint8_t *a, const uint8_t *b, uint8_t *out, ptrdiff_t count, const float scales[3],
                int is_signed, const int32_t zeros[3]) {
    const float scale = f32(f32(scales[0] * scales[1]) / scales[2]);
    if (is_wide(f32(scale * 65025.0f) + 255.0f))
        BY_SIGN(is_signed, mul_by_sign(a, b, out, count, scale, SIGNED, zeros, 1));
    else
        BY_SIGN(is_signed, mul_by_sign(a, b, out, count, scale, SIGNED, zeros, 0));
}

/* Flipping int8's sign bit keeps the order among unsigned bytes, whose maximum every instruction set has. */
INLINE uint8_t larger(uint8_t x, uint8_t y, int is_signed) {
    const uint8_t flip = is_signed ? 0x80 : 0, p = x ^ flip, q = y ^ flip;
    return (uint8_t)((p > q ? p : q) ^ flip);
}

INLINE void sum_rows_by_sign(const uint8_t *RESTRICT x, int32_t *RESTRICT out, ptrdiff_t rows, ptrdiff_t cols,
                             ptrdiff_t stride, int is_signed) {
    ptrdiff_t r, c;
    for (r = 0; r < rows; ++r) {
        uint32_t total = 0;
        for (c = 0; c < cols; ++c)
            total += (uint32_t)code(x[r * stride + c], is_signed);
        out[r] = (int32_t)total;
    }
}

static void sum_rows(const uint8_t *x, int32_t *out, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t stride,
                     int is_signed) {
    BY_SIGN(is_signed, sum_rows_by_sign(x, out, rows, cols, stride, SIGNED));
}

/* ------------------------------------------------------------------ images */

#include "host_images.h"

const HostKernels HOST_TABLE = {
    requantize, scale_sums, quantize, dequantize, add, mul, sum_rows, max_pool, im2col_transposed, im2col,
};
