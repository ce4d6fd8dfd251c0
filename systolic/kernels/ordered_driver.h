/* The blocked product in fixed order; an ordered_<isa>.c includes this file last, once.
 *
 * It defines
 *   ORDERED_TABLE    the name of the table
 *   PANEL            columns of a tile
 *   FLOAT_TILES      0: floats go through the plain loop below, as integers do; 1: through tiles of registers,
 *                    which need, with PANEL = 2 * LANES:
 *   LANES, ROWS      a tile is up to ROWS <= 12 rows of a by 2 vectors of LANES sums
 *   FOR_EACH_ROWS(X) X(1) X(2) .. X(ROWS)
 *   Vec              LANES floats
 *   vec_zero()
 *   vec_fill(p)                 the float at p in every lane
 *   vec_load(p)                 LANES floats at p (aligned)
 *   vec_fma(a, b, s)            a * b + s, rounded once
 *   vec_from(p, cols)           the first `cols` >= 1 floats at p, zeros beyond
 *   vec_out(s, p, cols, add)    the first `cols` sums to p: s + 0, or with `add` the sum of what is there and s
 *   halves(from, count, to)     float16 to float
 *
 * Values are widened to 4 bytes, int32 or float, as they are packed: rows of a block of a follow each other, and a
 * block of b is cut into panels, (panel, k, PANEL). Blocks are cut anywhere along k: a sum that is stored and
 * loaded again is the same sum, so that its chain goes on where it was cut. A block of several steps adds each to
 * acc in its turn; a step of several blocks keeps its sums in acc if it is the first, else in `part`.
 *
 * Why a tile may turn -0 to +0 at the end of a chain, where an array does it at each addition: an addition
 * a * w + s gives the same for both zeros s unless a * w is exactly a zero, and then the sum is a zero. So chains
 * that differ in the sign of a zero go on to differ in nothing else. acc + s needs nothing: it is -0 only if
 * both are, and acc never is.
 */
#include <string.h>

#include "float_mode.h"
#include "numbers_add.h"
#include "ordered.h"

/* A panel of b, K_BLOCK x PANEL values, streams from L2 past a tile's rows in L1; the block of a stays in L2. */
#define K_BLOCK 512
#define ROW_BLOCK 96
#define COL_BLOCK 512

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t round_up(ptrdiff_t a, ptrdiff_t to) { return (a + to - 1) / to * to; }

/* ------------------------------------------------------- from memory to 4 bytes */

#if !FLOAT_TILES
INLINE float half(uint16_t code) {
    const uint32_t sign = (uint32_t)(code & 0x8000) << 16, rest = code & 0x7FFF;
    uint32_t bits = sign | ((rest << 13) + (112u << 23));
    float value;
    if (rest < 0x400) /* subnormals, and zero: multiples of 2^-24 */
        return sign ? -(float)rest * 0x1p-24f : (float)rest * 0x1p-24f;
    if (rest >= 0x7C00) bits = sign | (rest << 13) | 0x7F800000u;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

INLINE void halves(const uint16_t *RESTRICT from, ptrdiff_t count, float *RESTRICT to) {
    ptrdiff_t i;
    for (i = 0; i < count; ++i) to[i] = half(from[i]);
}
#endif

typedef void (*Widen)(const StoredMatrix *of, const uint8_t *from, ptrdiff_t count, void *to);

/* Whole lines of a panel are many and short: their count is a constant. */
#define DEFINE_WIDEN(name, FROM, TO, VALUE)                                                                  \
    INLINE void some_##name(const FROM *RESTRICT from, ptrdiff_t count, TO *RESTRICT to, const float *table) { \
        ptrdiff_t i;                                                                                         \
        (void)table;                                                                                         \
        for (i = 0; i < count; ++i) to[i] = VALUE(from[i]);                                                  \
    }                                                                                                        \
    static void widen_##name(const StoredMatrix *of, const uint8_t *from, ptrdiff_t count, void *to) {       \
        if (count == PANEL)                                                                                  \
            some_##name((const FROM *)(const void *)from, PANEL, (TO *)to, of->table);                       \
        else                                                                                                 \
            some_##name((const FROM *)(const void *)from, count, (TO *)to, of->table);                       \
    }

#define AS_IT_IS(code) (code)
#define UPPER_HALF(code) ((uint32_t)(code) << 16)
#define LOOKED_UP(code) (table[code])
DEFINE_WIDEN(integer_8, int8_t, int32_t, AS_IT_IS)
DEFINE_WIDEN(unsigned_8, uint8_t, int32_t, AS_IT_IS)
DEFINE_WIDEN(integer_16, int16_t, int32_t, AS_IT_IS)
DEFINE_WIDEN(unsigned_16, uint16_t, int32_t, AS_IT_IS)
DEFINE_WIDEN(bfloat_16, uint16_t, uint32_t, UPPER_HALF) /* the bits of a float */
DEFINE_WIDEN(table_8, uint8_t, float, LOOKED_UP)

static void widen_float_16(const StoredMatrix *of, const uint8_t *from, ptrdiff_t count, void *to) {
    (void)of;
    halves((const uint16_t *)(const void *)from, count, (float *)to);
}

/* In the order of Stored. */
static const Widen widen_of[] = {
    widen_integer_8, widen_unsigned_8, widen_integer_16, widen_unsigned_16,
    widen_bfloat_16, widen_float_16,   widen_table_8,    widen_table_8,
};
static const ptrdiff_t size_of[] = {1, 1, 2, 2, 2, 2, 1, 1};

/* ------------------------------------------------------------------------ tiles */

/* Additions of `deep` values of k to the sums of a tile: rows x cols, cols <= PANEL. */
typedef struct {
    const void *a, *b;
    ptrdiff_t a_stride, deep, rows, cols;
    const void *from; /* sums so far, or NULL: zeros */
    ptrdiff_t from_row;
    void *to;
    ptrdiff_t to_row;
    int add; /* whether to add to the sums there */
    int64_t low, high;
} Tile;

/* A row at a time, in vectors of the compiler's. ADD(s, a, w) is an addition, JOIN(s, t) one of accumulators. WORK
 * holds sums meanwhile; they begin with those so far if IN_ORDER, else with zeros, and are joined in the end. Four
 * values of k at a time, since compilers leave the sums in memory. */
#define DEFINE_TILE(name, OPERAND, SUM, WORK, IN_ORDER, ADD, JOIN)                              \
    static void tile_##name(const Tile *t) {                                                    \
        const WORK low = (WORK)t->low, high = (WORK)t->high;                                    \
        ptrdiff_t r, d;                                                                         \
        int j;                                                                                  \
        (void)low, (void)high;                                                                  \
        for (r = 0; r < t->rows; ++r) {                                                         \
            const OPERAND *RESTRICT a = (const OPERAND *)t->a + r * t->a_stride;                \
            const OPERAND *RESTRICT b = (const OPERAND *)t->b;                                  \
            const SUM *const from = t->from ? (const SUM *)t->from + r * t->from_row : NULL;    \
            SUM *const to = (SUM *)t->to + r * t->to_row;                                       \
            WORK sums[PANEL] = {0};                                                             \
            if (IN_ORDER && from != NULL)                                                       \
                for (j = 0; j < t->cols; ++j) sums[j] = (WORK)from[j];                          \
            for (d = 0; d + 4 <= t->deep; d += 4, b += 4 * PANEL)                               \
                for (j = 0; j < PANEL; ++j) {                                                   \
                    const WORK one = ADD(sums[j], a[d], b[j]);                                  \
                    const WORK two = ADD(one, a[d + 1], b[j + PANEL]);                          \
                    const WORK three = ADD(two, a[d + 2], b[j + 2 * PANEL]);                    \
                    sums[j] = ADD(three, a[d + 3], b[j + 3 * PANEL]);                           \
                }                                                                               \
            for (; d < t->deep; ++d, b += PANEL)                                                \
                for (j = 0; j < PANEL; ++j) sums[j] = ADD(sums[j], a[d], b[j]);                 \
            for (j = 0; j < t->cols; ++j) {                                                     \
                SUM sum = (SUM)sums[j];                                                         \
                if (!IN_ORDER && from != NULL) sum = JOIN(from[j], sum);                        \
                to[j] = t->add ? JOIN(to[j], sum) : sum;                                        \
            }                                                                                   \
        }                                                                                       \
    }

/* A block's products of two 16-bit integers add up to less than 2^42, which a double holds exactly. */
INLINE double exactly(double s, double a, double w) { return s + a * w; }

/* So does it a sum of 32 bits and such a product. */
INLINE double saturated(double s, double a, double w, double low, double high) {
    const double sum = exactly(s, a, w);
    return sum < low ? low : sum > high ? high : sum;
}

#define ADD_SATURATED(s, a, w) saturated(s, a, w, low, high)
#define JOIN_WRAPPED_32(s, t) wrap_32(s, t, 1)
#define JOIN_WRAPPED_64(s, t) ((int64_t)((uint64_t)(s) + (uint64_t)(t)))
#define JOIN_SATURATED(s, t) (int32_t)saturated(s, t, 1, low, high)
#define JOIN_ROUNDED(s, t) ((s) + (t))
DEFINE_TILE(wrap_32, int32_t, int32_t, int32_t, 0, wrap_32, JOIN_WRAPPED_32)
DEFINE_TILE(wrap_64, int32_t, int64_t, double, 0, exactly, JOIN_WRAPPED_64)
DEFINE_TILE(saturate_32, int32_t, int32_t, double, 1, ADD_SATURATED, JOIN_SATURATED)
DEFINE_TILE(saturate_64, int32_t, int64_t, int64_t, 1, saturate_64, saturate_sum)

#if FLOAT_TILES

/* rows x vecs vectors of sums; both are constants wherever it is inlined. The sums have names instead of indices
 * because GCC does not keep arrays of vectors in registers. */
INLINE void float_tile(const int rows, const int vecs, const Tile *t) {
    const ptrdiff_t stride = t->a_stride, cols = t->cols;
    /* Three rows to a pointer: 0, 1 and 2 times the stride are distances an address can hold. */
    const float *p0 = (const float *)t->a, *p1 = p0, *p2 = p0, *p3 = p0;
    const float *b = (const float *)t->b;
    const float *const from = (const float *)t->from;
    float *const to = (float *)t->to;
    ptrdiff_t d;
#define TWELVE_ROWS(X)                                                                  \
    X(0, p0, 0) X(1, p0, 1) X(2, p0, 2) X(3, p1, 0) X(4, p1, 1) X(5, p1, 2)             \
    X(6, p2, 0) X(7, p2, 1) X(8, p2, 2) X(9, p3, 0) X(10, p3, 1) X(11, p3, 2)
#define ZERO(r, p, q) Vec left##r = vec_zero(), right##r = left##r;
#define RESUME(r, p, q)                                                                             \
    if (r < rows) {                                                                                 \
        left##r = vec_from(from + r * t->from_row, vecs > 1 ? LANES : cols);                        \
        if (vecs > 1) right##r = vec_from(from + r * t->from_row + LANES, cols - LANES);            \
    }
#define FETCH(r, p, q)                                 \
    if (r < rows) {                                    \
        PREFETCH(to + r * t->to_row);                  \
        PREFETCH(to + r * t->to_row + cols - 1);       \
    }
#define FMA(r, p, q)                                              \
    if (r < rows) {                                               \
        const Vec x = vec_fill(p + q * stride);                   \
        left##r = vec_fma(x, w_left, left##r);                    \
        if (vecs > 1) right##r = vec_fma(x, w_right, right##r);   \
    }
#define OUT(r, p, q)                                                                                \
    if (r < rows) {                                                                                 \
        vec_out(left##r, to + r * t->to_row, vecs > 1 ? LANES : cols, t->add);                      \
        if (vecs > 1) vec_out(right##r, to + r * t->to_row + LANES, cols - LANES, t->add);          \
    }
#define ADVANCE(p) \
    do {           \
        ++p;       \
        KEEP_POINTER(p); \
    } while (0)
    TWELVE_ROWS(FETCH)
    TWELVE_ROWS(ZERO)
    if (from != NULL) {
        TWELVE_ROWS(RESUME)
    }
    if (rows > 3) p1 = p0 + 3 * stride;
    if (rows > 6) p2 = p0 + 6 * stride;
    if (rows > 9) p3 = p0 + 9 * stride;
    for (d = t->deep; d > 0; --d) {
        const Vec w_left = vec_load(b), w_right = vecs > 1 ? vec_load(b + LANES) : w_left;
        TWELVE_ROWS(FMA)
        b += PANEL;
        ADVANCE(p0);
        if (rows > 3) ADVANCE(p1);
        if (rows > 6) ADVANCE(p2);
        if (rows > 9) ADVANCE(p3);
    }
    TWELVE_ROWS(OUT)
}

#define DEFINE_FLOAT_TILES(rows)                                                   \
    static void float_tile_##rows##_1(const Tile *t) { float_tile(rows, 1, t); }   \
    static void float_tile_##rows##_2(const Tile *t) { float_tile(rows, 2, t); }
#define NAME_1(rows) float_tile_##rows##_1,
#define NAME_2(rows) float_tile_##rows##_2,
FOR_EACH_ROWS(DEFINE_FLOAT_TILES)
static void (*const float_tiles[2][ROWS])(const Tile *t) = {{FOR_EACH_ROWS(NAME_1)}, {FOR_EACH_ROWS(NAME_2)}};

static void tile_float_32(const Tile *t) {
    float_tiles[t->cols > LANES][t->rows - 1](t);
}

#else
#define ROWS 12
DEFINE_TILE(float_32, float, float, float, 1, round_32, JOIN_ROUNDED)
#endif

/* In the order of Arithmetic. */
static void (*const tile_of[])(const Tile *t) = {
    tile_wrap_32, tile_wrap_64, tile_saturate_32, tile_saturate_64, tile_float_32,
};
static const size_t sum_bytes[] = {4, 8, 4, 8, 4};

/* ----------------------------------------------------------------------- blocks */

/* How many values of k from k0 on make a block: several steps, or a part of one. */
static ptrdiff_t block_depth(const OrderedProduct *p, ptrdiff_t k0) {
    if (p->step <= K_BLOCK) return smaller(K_BLOCK / p->step * p->step, p->k - k0);
    return smaller(smaller(p->step - k0 % p->step, K_BLOCK), p->k - k0);
}

/* From row to row of a's block: an odd number of cache lines, to spread rows over L1's sets. */
static ptrdiff_t a_stride(ptrdiff_t deep) { return round_up(deep, 16) | 16; }

/* Scratch: b's block, a's block, `part`. */
static size_t b_bytes(const OrderedProduct *p) {
    return (size_t)smaller(p->k, K_BLOCK) * (size_t)round_up(smaller(p->n, COL_BLOCK), PANEL) * 4;
}

static size_t a_bytes(const OrderedProduct *p) {
    return (size_t)smaller(p->m, ROW_BLOCK) * (size_t)a_stride(smaller(p->k, K_BLOCK)) * 4;
}

static size_t scratch_bytes(const OrderedProduct *p) {
    const int parts = p->step > K_BLOCK && p->k > p->step;
    const size_t part = (size_t)p->m * (size_t)smaller(p->n, COL_BLOCK) * sum_bytes[p->arithmetic];
    return round_up(b_bytes(p) + a_bytes(p), 64) + (parts ? part : 0);
}

/* Of the blocks in which columns are turned to rows. */
enum { HIGH = 96, WIDE = 16 };

/* Copy values that lie `step` bytes apart. */
INLINE void copy_values(uint8_t *to, const uint8_t *from, ptrdiff_t count, ptrdiff_t step, ptrdiff_t size) {
    ptrdiff_t x;
    if (step == size)
        memcpy(to, from, (size_t)(count * size));
    else if (size == 1)
        for (x = 0; x < count; ++x) to[x] = from[x * step];
    else
        for (x = 0; x < count; ++x) memcpy(to + 2 * x, from + x * step, 2);
}

INLINE void fill_values(uint8_t *to, ptrdiff_t count, uint16_t value, ptrdiff_t size) {
    ptrdiff_t x;
    if (size == 1)
        memset(to, value, (size_t)count);
    else
        for (x = 0; x < count; ++x) memcpy(to + 2 * x, &value, 2);
}

INLINE ptrdiff_t between(ptrdiff_t value, ptrdiff_t low, ptrdiff_t high) {
    return value < low ? low : value > high ? high : value;
}

/* Write the pixels that a tap sees from outputs m .. m + count - 1. */
static void make_line(const HostWindow *w, ptrdiff_t tap, ptrdiff_t m, ptrdiff_t count, uint16_t pad, ptrdiff_t size,
                      uint8_t *to) {
    const ptrdiff_t width = w->out[1], step = w->stride[1];
    const ptrdiff_t i = tap / w->kernel[1] % w->kernel[0], j = tap % w->kernel[1];
    const ptrdiff_t before = w->pad[1] - j * w->dilation[1], last = w->image[1] - 1 + before;
    /* Outputs along a line of the image whose tap is inside. */
    const ptrdiff_t first = before > 0 ? (before + step - 1) / step : 0, stop = last >= 0 ? last / step + 1 : 0;
    const uint8_t *plane = w->pixels + tap / (w->kernel[0] * w->kernel[1]) * w->channel_stride;
    ptrdiff_t x = m % width, y = m / width % w->out[0], image = m / width / w->out[0];
    while (count > 0) {
        const ptrdiff_t end = smaller(x + count, width), row = y * w->stride[0] + i * w->dilation[0] - w->pad[0];
        const int is_inside = row >= 0 && row < w->image[0];
        const ptrdiff_t from = is_inside ? between(first, x, end) : end, until = between(stop, from, end);
        fill_values(to, from - x, pad, size);
        if (from < until)
            copy_values(to + (from - x) * size,
                        plane + image * w->batch_stride + row * w->line_stride + (from * step - before) * w->pixel_stride,
                        until - from, step * w->pixel_stride, size);
        fill_values(to + (until - x) * size, end - until, pad, size);
        to += (end - x) * size, count -= end - x, x = 0;
        if (++y == w->out[0]) y = 0, ++image;
    }
}

/* Values first .. first + count - 1 of a line: where they are, or made in `made`. */
INLINE const uint8_t *line_of(const StoredMatrix *x, ptrdiff_t number, ptrdiff_t first, ptrdiff_t count, uint8_t *made) {
    const ptrdiff_t size = size_of[x->type];
    number += x->lines_are_columns ? x->first_col : x->first_row;
    first += x->lines_are_columns ? x->first_row : x->first_col;
    if (x->window == NULL) return (const uint8_t *)x->values + number * x->line + first * size;
    make_line(x->window, number, first, count, x->pad, size, made);
    return made;
}

/* Widen a block of a matrix to rows `stride` apart. */
static void widen_block(const StoredMatrix *x, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, float *to,
                        ptrdiff_t stride) {
    const Widen widen = widen_of[x->type];
    uint16_t made[K_BLOCK];
    float columns[WIDE * HIGH];
    ptrdiff_t i, j, r, c;
    if (!x->lines_are_columns) {
        for (r = 0; r < rows; ++r)
            widen(x, line_of(x, row + r, col, cols, (uint8_t *)made), cols, to + r * stride);
        return;
    }
    for (i = 0; i < rows; i += HIGH)
        for (j = 0; j < cols; j += WIDE) {
            const ptrdiff_t high = smaller(HIGH, rows - i), wide = smaller(WIDE, cols - j);
            for (c = 0; c < wide; ++c)
                widen(x, line_of(x, col + j + c, row + i, high, (uint8_t *)made), high, columns + c * HIGH);
            for (r = 0; r < high; ++r)
                for (c = 0; c < wide; ++c) memcpy(to + (i + r) * stride + j + c, columns + c * HIGH + r, 4);
        }
}

static void pack_b(const StoredMatrix *b, ptrdiff_t k0, ptrdiff_t deep, ptrdiff_t j0, ptrdiff_t cols, float *to) {
    const Widen widen = widen_of[b->type];
    const ptrdiff_t size = size_of[b->type], left_over = cols % PANEL;
    uint16_t made[COL_BLOCK];
    ptrdiff_t d, j;
    if (left_over) memset(to + (cols - left_over) * deep, 0, (size_t)(deep * PANEL) * 4);
    if (b->lines_are_columns) {
        for (j = 0; j < cols; j += PANEL)
            widen_block(b, k0, deep, j0 + j, smaller(PANEL, cols - j), to + j * deep, PANEL);
        return;
    }
    /* A line at a time, across all panels: whole cache lines and pages of b are used while they are near. */
    for (d = 0; d < deep; ++d) {
        const uint8_t *line = line_of(b, k0 + d, j0, cols, (uint8_t *)made);
        for (j = 0; j < cols; j += PANEL)
            widen(b, line + j * size, smaller(PANEL, cols - j), to + j * deep + d * PANEL);
    }
}

/* Add a block of b to the sums of all rows in columns j0 .. j0 + cols - 1; part is (m, cols). */
static void add_block(const OrderedProduct *p, ptrdiff_t k0, ptrdiff_t deep, ptrdiff_t j0, ptrdiff_t cols,
                      const float *b, float *a, uint8_t *part) {
    const size_t size = sum_bytes[p->arithmetic];
    const ptrdiff_t stride = a_stride(deep);
    ptrdiff_t i0, i, j, d, high;
    Tile t;
    t.a_stride = stride, t.low = p->low, t.high = p->high;
    for (i0 = 0; i0 < p->m; i0 += high) {
        high = smaller(ROW_BLOCK, p->m - i0);
        widen_block(&p->a, i0, high, k0, deep, a, stride);
        for (j = 0; j < cols; j += PANEL)
            for (i = 0; i < high; i += ROWS) {
                uint8_t *const acc = (uint8_t *)p->acc + (size_t)((i0 + i) * p->acc_row + j0 + j) * size;
                uint8_t *const carry = part + (size_t)((i0 + i) * cols + j) * size;
                t.rows = smaller(ROWS, high - i), t.cols = smaller(PANEL, cols - j);
                for (d = 0; d < deep; d += t.deep) {
                    const ptrdiff_t at = k0 + d, begun = at % p->step, is_first = at < p->step;
                    t.deep = smaller(p->step - begun, deep - d);
                    t.a = a + i * stride + d, t.b = b + j * deep + d * PANEL;
                    t.from = !begun ? NULL : is_first ? acc : carry;
                    t.from_row = is_first ? p->acc_row : cols;
                    t.add = !is_first && (begun + t.deep == p->step || at + t.deep == p->k);
                    t.to = is_first || t.add ? acc : carry;
                    t.to_row = is_first || t.add ? p->acc_row : cols;
                    tile_of[p->arithmetic](&t);
                }
            }
    }
}

static void product(const OrderedProduct *p, uint8_t *scratch) {
    float *const b = (float *)(void *)scratch, *const a = (float *)(void *)(scratch + b_bytes(p));
    uint8_t *const part = scratch + round_up(b_bytes(p) + a_bytes(p), 64);
    ptrdiff_t j0, k0, deep;
    for (j0 = 0; j0 < p->n; j0 += COL_BLOCK) {
        const ptrdiff_t cols = smaller(COL_BLOCK, p->n - j0);
        for (k0 = 0; k0 < p->k; k0 += deep) {
            deep = block_depth(p, k0);
            pack_b(&p->b, k0, deep, j0, cols, b);
            add_block(p, k0, deep, j0, cols, b, a, part);
        }
    }
}

static void multiply(const OrderedProduct *p, void *scratch) {
    ptrdiff_t i;
    if (p->k == 0)
        for (i = 0; i < p->m; ++i)
            memset((uint8_t *)p->acc + (size_t)(i * p->acc_row) * sum_bytes[p->arithmetic], 0,
                   (size_t)p->n * sum_bytes[p->arithmetic]);
    else {
        const uint64_t mode = float_mode();
        product(p, (uint8_t *)scratch);
        restore_float_mode(mode);
    }
}

const OrderedKernels ORDERED_TABLE = {ROWS, PANEL, scratch_bytes, multiply};
