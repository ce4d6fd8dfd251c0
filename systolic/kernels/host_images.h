/* Windows over images: the part of host_loops.h that moves bytes. Included there, per instruction set.
 *
 * Lines of images are short, down to 7 pixels, so that the fixed cost of a line dominates: loads and
 * stores of 16 bytes suffice, and calls, divisions and left-over bytes are kept out of lines.
 */
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define HOST_SSE2 1
#else
#define HOST_SSE2 0
#endif

INLINE ptrdiff_t between(ptrdiff_t value, ptrdiff_t low, ptrdiff_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The outputs first..stop along one direction whose tap lies inside the image. */
INLINE void inside(const HostWindow *w, int direction, ptrdiff_t tap, ptrdiff_t *first, ptrdiff_t *stop) {
    const ptrdiff_t step = w->stride[direction], before = w->pad[direction] - tap * w->dilation[direction];
    const ptrdiff_t last = w->image[direction] - 1 + before; /* output * step <= last */
    if (step == 1) { /* spares the divisions, which take longer than short rows */
        *first = before > 0 ? before : 0;
        *stop = last >= 0 ? last + 1 : 0;
    } else {
        *first = before > 0 ? (before + step - 1) / step : 0;
        *stop = last >= 0 ? last / step + 1 : 0;
    }
    if (*stop > w->out[direction])
        *stop = w->out[direction];
    if (*first > *stop)
        *first = *stop;
}

/* Where the pixel is that output (y, x) sees through tap (i, j), from the channel's first pixel. */
INLINE ptrdiff_t offset(const HostWindow *w, ptrdiff_t y, ptrdiff_t x, ptrdiff_t i, ptrdiff_t j) {
    return (y * w->stride[0] + i * w->dilation[0] - w->pad[0]) * w->line_stride +
           (x * w->stride[1] + j * w->dilation[1] - w->pad[1]) * w->pixel_stride;
}

/* Every other byte, n of them: out[x] = from[2 * x]; nothing from from[2 * n - 1] on is read. Lines are
 * short (7 to 112 pixels in ResNet), and compilers take all that does not fill a vector, and the
 * vector that would read one byte too many, byte by byte; hence by hand. The upper half of each
 * block is loaded one byte early and takes the odd bytes; the last block overlaps its neighbor. */
INLINE void copy_even(uint8_t *RESTRICT out, const uint8_t *RESTRICT from, ptrdiff_t n) {
    ptrdiff_t x = 0;
#if HOST_SSE2
    const __m128i even = _mm_set1_epi16(0xFF);
    if (n >= 16)
        for (;;) {
            const __m128i low = _mm_loadu_si128((const __m128i *)(from + 2 * x));
            const __m128i high = _mm_loadu_si128((const __m128i *)(from + 2 * x + 15));
            const __m128i both = _mm_packus_epi16(_mm_and_si128(low, even), _mm_srli_epi16(high, 8));
            _mm_storeu_si128((__m128i *)(out + x), both);
            if (x == n - 16)
                return;
            x = x + 32 <= n ? x + 16 : n - 16;
        }
    if (n >= 8)
        for (;;) {
            const __m128i low = _mm_loadl_epi64((const __m128i *)(from + 2 * x));
            const __m128i high = _mm_loadl_epi64((const __m128i *)(from + 2 * x + 7));
            const __m128i both = _mm_unpacklo_epi64(_mm_and_si128(low, even), _mm_srli_epi16(high, 8));
            _mm_storel_epi64((__m128i *)(out + x), _mm_packus_epi16(both, both));
            if (x == n - 8)
                return;
            x = n - 8;
        }
    if (n >= 4)
        for (;;) {
            int32_t low, high;
            __m128i both;
            memcpy(&low, from + 2 * x, sizeof low);
            memcpy(&high, from + 2 * x + 3, sizeof high);
            both = _mm_and_si128(_mm_set_epi32(0, 0, (int32_t)((uint32_t)high >> 8), low), even);
            low = _mm_cvtsi128_si32(_mm_packus_epi16(both, both));
            memcpy(out + x, &low, sizeof low);
            if (x == n - 4)
                return;
            x = n - 4;
        }
#endif
    for (; x < n; ++x)
        out[x] = from[2 * x];
}

INLINE void copy_step(uint8_t *RESTRICT out, const uint8_t *RESTRICT from, ptrdiff_t n, ptrdiff_t step) {
    ptrdiff_t x;
    if (step == 1) {
        memcpy(out, from, (size_t)n);
    } else if (step == 2) {
        copy_even(out, from, n);
    } else {
        for (x = 0; x < n; ++x)
            out[x] = from[x * step];
    }
}

/* out[x] = the larger of out[x] and from[x]. Blocks of a fixed size become one vector each; the last
 * overlaps its neighbor, since a maximum may be taken twice: lines are short, and what is left
 * over by the longest vectors would take most of the time. */
INLINE void raise_to(uint8_t *out, const uint8_t *RESTRICT from, ptrdiff_t n, int is_signed) {
    enum { BLOCK = 16 };
    ptrdiff_t x = 0;
    int lane;
    if (n >= BLOCK)
        for (;;) {
            uint8_t block[BLOCK];
            for (lane = 0; lane < BLOCK; ++lane)
                block[lane] = larger(out[x + lane], from[x + lane], is_signed);
            memcpy(out + x, block, BLOCK);
            if (x == n - BLOCK)
                return;
            x = x + 2 * BLOCK <= n ? x + BLOCK : n - BLOCK;
        }
    for (; x < n; ++x)
        out[x] = larger(out[x], from[x], is_signed);
}

/* The same with from[x * step]: gather the wanted bytes first, then compare. */
INLINE void raise_to_step(uint8_t *out, const uint8_t *from, ptrdiff_t n, ptrdiff_t step, int is_signed) {
    uint8_t part[256];
    ptrdiff_t count;
    for (; n > 0; n -= count, out += count, from += count * step) {
        count = n < (ptrdiff_t)sizeof part ? n : (ptrdiff_t)sizeof part;
        if (step == 1) {
            raise_to(out, from, count, is_signed);
        } else {
            copy_step(part, from, count, step);
            raise_to(out, part, count, is_signed);
        }
    }
}

/* The maxima of whole columns first, then along the line. */
INLINE void max_pool_by_sign(const HostWindow *w, uint8_t *out, uint8_t *work, int is_signed) {
    const ptrdiff_t width = w->image[1], out_width = w->out[1];
    ptrdiff_t b, c, y, tap, first, stop, line;
    for (b = 0; b < w->batch; ++b)
        for (c = 0; c < w->channels; ++c) {
            const uint8_t *plane = w->pixels + b * w->batch_stride + c * w->channel_stride;
            for (y = 0; y < w->out[0]; ++y, out += out_width) {
                memset(work, code_min(is_signed), (size_t)width);
                for (tap = 0; tap < w->kernel[0]; ++tap) {
                    line = y * w->stride[0] + tap * w->dilation[0] - w->pad[0];
                    if (line >= 0 && line < w->image[0])
                        raise_to(work, plane + line * w->line_stride, width, is_signed);
                }
                memset(out, code_min(is_signed), (size_t)out_width);
                for (tap = 0; tap < w->kernel[1]; ++tap) {
                    inside(w, 1, tap, &first, &stop);
                    if (first == stop)
                        continue;
                    raise_to_step(out + first, work + first * w->stride[1] + tap * w->dilation[1] - w->pad[1],
                                  stop - first, w->stride[1], is_signed);
                }
            }
        }
}

static void max_pool(const HostWindow *window, uint8_t *out, uint8_t *work, int is_signed) {
    BY_SIGN(is_signed, max_pool_by_sign(window, out, work, SIGNED));
}

/* ----------------------------------------------------------------- im2col */

/* memset, without the call where there is nothing or one byte to do: margins. */
INLINE void fill(uint8_t *out, uint8_t value, ptrdiff_t n) {
    if (n == 1)
        *out = value;
    else if (n)
        memset(out, value, (size_t)n);
}

/* Tap (i, j), and the lines and pixels of the output at which it lies inside the image. */
typedef struct {
    ptrdiff_t i, j, line_first, line_stop, pixel_first, pixel_stop;
} Tap;

/* Write the pixels that a tap of one channel reads for outputs x..end of line y. */
INLINE void tap_line(const HostWindow *w, const Tap *t, uint8_t *out, const uint8_t *plane, ptrdiff_t y,
                     ptrdiff_t x, ptrdiff_t end, uint8_t pad) {
    const ptrdiff_t from = between(t->pixel_first, x, end), to = between(t->pixel_stop, from, end);
    if (y < t->line_first || y >= t->line_stop) {
        fill(out, pad, end - x);
        return;
    }
    fill(out, pad, from - x);
    if (from < to)
        copy_step(out + (from - x), plane + offset(w, y, from, t->i, t->j), to - from,
                  w->stride[1] * w->pixel_stride);
    fill(out + (to - x), pad, end - to);
}

/* The same for outputs first..stop (y * ow + x) of one image. */
INLINE void tap_general(const HostWindow *w, const Tap *t, uint8_t *out, const uint8_t *plane,
                        ptrdiff_t first, ptrdiff_t stop, uint8_t pad) {
    const ptrdiff_t width = w->out[1], step = w->stride[1] * w->pixel_stride;
    const ptrdiff_t left = t->pixel_first, count = t->pixel_stop - left, right = width - t->pixel_stop;
    const ptrdiff_t y_stop = stop / width, down = w->stride[0] * w->line_stride;
    const uint8_t *source;
    ptrdiff_t y = first / width, x = first % width, last;
    if (x) {
        const ptrdiff_t end = between(x + stop - first, 0, width);
        tap_line(w, t, out, plane, y, x, end, pad);
        out += end - x;
        if (first + end - x == stop)
            return;
        ++y;
    }
    /* Whole lines: outside, inside, outside the image. */
    last = between(t->line_first, y, y_stop);
    fill(out, pad, (last - y) * width);
    out += (last - y) * width;
    y = last;
    last = between(t->line_stop, y, y_stop);
    source = y < last ? plane + offset(w, y, left, t->i, t->j) : NULL;
    for (; y < last; ++y, out += width) {
        fill(out, pad, left);
        copy_step(out + left, source, count, step);
        fill(out + left + count, pad, right);
        if (y + 1 < last)
            source += down;
    }
    fill(out, pad, (y_stop - y) * width);
    out += (y_stop - y) * width;
    if (stop > y_stop * width)
        tap_line(w, t, out, plane, y_stop, 0, stop - y_stop * width, pad);
}

/* Where the output is as wide as the image and the step is one pixel, a tap sees the image moved by
 * a constant distance: one copy, then fix the columns that come from neighboring lines. */
INLINE void tap_shifted(const HostWindow *w, const Tap *t, uint8_t *out, const uint8_t *plane,
                        ptrdiff_t first, ptrdiff_t stop, uint8_t pad) {
    const ptrdiff_t width = w->out[1];
    const ptrdiff_t from = between(t->line_first * width + t->pixel_first, first, stop);
    const ptrdiff_t to = between((t->line_stop - 1) * width + t->pixel_stop, from, stop);
    ptrdiff_t x, line;
    fill(out, pad, from - first);
    if (from == to) {
        fill(out, pad, stop - first);
        return;
    }
    memcpy(out + (from - first), plane + from + offset(w, 0, 0, t->i, t->j), (size_t)(to - from));
    fill(out + (to - first), pad, stop - to);
    /* Between the last pixel inside of one line and the first of the next: pixel_stop - width ..
     * pixel_first, counted from the beginning of a line; `from` and `to` may cut the first and last. */
    for (line = t->line_first * width; line + t->pixel_stop - width < to; line += width)
        for (x = between(line + t->pixel_stop - width, from, to); x < line + t->pixel_first && x < to; ++x)
            out[x - first] = pad;
}

static void im2col_transposed(const HostWindow *w, uint8_t *out, ptrdiff_t out_stride, ptrdiff_t k_start,
                              ptrdiff_t k_count, ptrdiff_t m_start, ptrdiff_t m_count, uint8_t pad) {
    const ptrdiff_t kh = w->kernel[0], kw = w->kernel[1], size = w->out[0] * w->out[1];
    const int whole_lines = w->pixel_stride == 1 && w->line_stride == w->image[1];
    const int shifted = whole_lines && w->stride[0] == 1 && w->stride[1] == 1 && w->out[1] == w->image[1];
    ptrdiff_t image, image_first, channel, k;
    Tap t;
    if (k_count <= 0 || m_count <= 0)
        return;
    image = m_start / size;
    image_first = m_start % size;
    channel = k_start / (kh * kw);
    t.i = k_start / kw % kh;
    t.j = k_start % kw;
    for (k = 0; k < k_count; ++k, out += out_stride) {
        const uint8_t *plane = w->pixels + channel * w->channel_stride + image * w->batch_stride;
        ptrdiff_t first = image_first, done = 0;
        inside(w, 0, t.i, &t.line_first, &t.line_stop);
        inside(w, 1, t.j, &t.pixel_first, &t.pixel_stop);
        while (done < m_count) {
            const ptrdiff_t stop = between(first + m_count - done, 0, size);
            if (t.line_first >= t.line_stop || t.pixel_first >= t.pixel_stop)
                fill(out + done, pad, stop - first);
            else if (shifted)
                tap_shifted(w, &t, out + done, plane, first, stop, pad);
            else
                tap_general(w, &t, out + done, plane, first, stop, pad);
            done += stop - first;
            first = 0;
            plane += w->batch_stride;
        }
        if (++t.j == kw) {
            t.j = 0;
            if (++t.i == kh) {
                t.i = 0;
                ++channel;
            }
        }
    }
}

/* out[c][r] = from[r][c], 16 x 16 bytes. */
INLINE void transpose_16(uint8_t *RESTRICT out, ptrdiff_t out_stride, const uint8_t *RESTRICT from,
                         ptrdiff_t from_stride) {
    int r, c;
#if HOST_SSE2
    /* Four times, row r is interleaved with row r + 8, which turns the 8 bits of an entry's address
     * (row, column) by one; after four turns row and column have changed places. */
    __m128i rows[16], next[16];
    for (r = 0; r < 16; ++r)
        rows[r] = _mm_loadu_si128((const __m128i *)(from + r * from_stride));
    for (c = 0; c < 4; ++c) {
        for (r = 0; r < 8; ++r) {
            next[2 * r] = _mm_unpacklo_epi8(rows[r], rows[r + 8]);
            next[2 * r + 1] = _mm_unpackhi_epi8(rows[r], rows[r + 8]);
        }
        memcpy(rows, next, sizeof rows);
    }
    for (r = 0; r < 16; ++r)
        _mm_storeu_si128((__m128i *)(out + r * out_stride), rows[r]);
#else
    for (r = 0; r < 16; ++r)
        for (c = 0; c < 16; ++c)
            out[c * out_stride + r] = from[r * from_stride + c];
#endif
}

enum { BLOCK_K = 64, BLOCK_M = 256 };

/* Block by block, through the transposed matrix: its rows are copies of image lines, and turning a
 * block that lies in the L1 cache is cheaper than gathering patches byte by byte. */
static void im2col(const HostWindow *w, uint8_t *out, ptrdiff_t out_stride, ptrdiff_t k_start,
                   ptrdiff_t k_count, ptrdiff_t m_start, ptrdiff_t m_count, uint8_t pad) {
    uint8_t block[BLOCK_K * BLOCK_M];
    ptrdiff_t m, k, i, j, r, c;
    for (m = 0; m < m_count; m += BLOCK_M)
        for (k = 0; k < k_count; k += BLOCK_K) {
            const ptrdiff_t rows = between(m_count - m, 0, BLOCK_M), cols = between(k_count - k, 0, BLOCK_K);
            uint8_t *corner = out + m * out_stride + k;
            im2col_transposed(w, block, BLOCK_M, k_start + k, cols, m_start + m, rows, pad);
            for (i = 0; i < rows; i += 16)
                for (j = 0; j < cols; j += 16) {
                    if (rows - i >= 16 && cols - j >= 16) {
                        transpose_16(corner + i * out_stride + j, out_stride, block + j * BLOCK_M + i,
                                     BLOCK_M);
                        continue;
                    }
                    for (r = i; r < rows && r < i + 16; ++r)
                        for (c = j; c < cols && c < j + 16; ++c)
                            corner[r * out_stride + c] = block[c * BLOCK_M + r];
                }
        }
}
