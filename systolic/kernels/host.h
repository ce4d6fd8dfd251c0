/* Operators on the host, on codes and accumulators: the contract of each function.
 *
 * One table of functions per instruction set, each from the same loops (host_loops.h) compiled with
 * that set's flags. Every table gives the same bits: a float32 operation is one IEEE operation
 * rounded by itself (no contraction, no reassociation), except where `fma` is written, which rounds
 * once on every instruction set.
 *
 * Common promises: nothing is allocated or kept, so calls may run at once on separate outputs; inputs
 * and outputs must not overlap; a size of 0 is legal and touches nothing; no pointer needs an
 * alignment beyond its type's. Codes are passed as bytes; `is_signed` says whether they are int8.
 * int32 sums wrap modulo 2^32. Strides count elements. Nothing outside the arrays described is
 * read or written.
 */
#ifndef SYSTOLIC_HOST_H
#define SYSTOLIC_HOST_H

#include <stddef.h>
#include <stdint.h>

/* Sums of a layer, (outer, channels, inner), and the operands of their epilogue. `inner` neighboring
 * sums share a channel (images in NCHW), or inner is 1 and channels are neighbors (dense layers,
 * NHWC).
 *
 *     total = acc + constant[c] - row_sums[o, group of c, i] * weight_zero[c]
 */
typedef struct {
    ptrdiff_t outer, channels, inner;
    const int32_t *acc;
    ptrdiff_t acc_outer, acc_channel; /* strides; sums of one channel are contiguous */
    ptrdiff_t out_outer, out_channel; /* strides of the result, likewise */
    const int32_t *constant;          /* (channels), or NULL for 0 */
    const int32_t *row_sums;          /* (outer, groups, inner) contiguous, or NULL for 0 */
    const int32_t *weight_zero;       /* (channels); not read where row_sums is NULL */
    ptrdiff_t groups;                 /* divides channels; blocks of channels share row sums */
    const float *scale;               /* (channels) */
} HostSums;

/* A window sliding over images, and where the pixels are. Output pixel (y, x) sees tap (i, j) at line
 * y * stride[0] + i * dilation[0] - pad[0], column x * stride[1] + j * dilation[1] - pad[1]. */
typedef struct {
    const uint8_t *pixels;
    ptrdiff_t batch, channels, image[2];
    ptrdiff_t batch_stride, channel_stride, line_stride, pixel_stride;
    ptrdiff_t kernel[2], stride[2], dilation[2], pad[2], out[2];
} HostWindow;

typedef struct {
    /* out = sat(rne(f32(f32(total) * scale[c])) + zero), the zero point after rounding; the product
     * is clamped to low..high = qmin - zero .. qmax - zero first, which changes nothing and bounds it. */
    void (*requantize)(const HostSums *sums, uint8_t *out, int is_signed, int32_t zero);

    /* out = f32(f32(total) * scale[c]). */
    void (*scale_sums)(const HostSums *sums, float *out);

    /* out = sat(rne(f32(x / scale)) + zero); infinities saturate, NaN gives the smallest code. */
    void (*quantize)(const float *x, uint8_t *out, ptrdiff_t count, float scale, int is_signed, int32_t zero);

    /* out = f32(f32(q - zero) * scale). */
    void (*dequantize)(const uint8_t *q, float *out, ptrdiff_t count, float scale, int is_signed,
                       int32_t zero);

    /* scales and zeros of a, b and the output, in this order:
     *     ra = f32(sa / sy);  rb = f32(sb / sy);  c0 = f32(zy - fma(ra, za, f32(rb * zb)))
     *     out = sat(rne(fma(A, ra, fma(B, rb, c0))))
     * NaN and values of 2^31 or more give the smallest code, here and in mul. */
    void (*add)(const uint8_t *a, const uint8_t *b, uint8_t *out, ptrdiff_t count, const float scales[3],
                int is_signed, const int32_t zeros[3]);

    /* out = sat(rne(f32(f32(f32((A - za) * (B - zb)) * f32(f32(sa * sb) / sy)) + zy))) */
    void (*mul)(const uint8_t *a, const uint8_t *b, uint8_t *out, ptrdiff_t count, const float scales[3],
                int is_signed, const int32_t zeros[3]);

    /* out[r] = sum of row r of x, (rows, cols), whose rows lie `stride` apart. */
    void (*sum_rows)(const uint8_t *x, int32_t *out, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t stride,
                     int is_signed);

    /* out, (batch, channels, oh, ow) contiguous = the largest code of each window; what lies outside
     * the image counts as the smallest. Needs pixel_stride 1; `work` holds image[1] bytes. */
    void (*max_pool)(const HostWindow *window, uint8_t *out, uint8_t *work, int is_signed);

    /* Rows k_start.. and columns m_start.. of the transposed im2col matrix, out (k_count, m_count)
     * with rows out_stride apart: K runs over (channel, i, j), M over (batch, oh, ow), first index
     * outermost. Pixels outside the image are `pad`. */
    void (*im2col_transposed)(const HostWindow *window, uint8_t *out, ptrdiff_t out_stride, ptrdiff_t k_start,
                              ptrdiff_t k_count, ptrdiff_t m_start, ptrdiff_t m_count, uint8_t pad);

    /* The same entries as rows m_start.. and columns k_start.. of the im2col matrix: out is
     * (m_count, k_count). */
    void (*im2col)(const HostWindow *window, uint8_t *out, ptrdiff_t out_stride, ptrdiff_t k_start,
                   ptrdiff_t k_count, ptrdiff_t m_start, ptrdiff_t m_count, uint8_t pad);
} HostKernels;

#endif
