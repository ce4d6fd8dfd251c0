/* The blocked product around one instruction set's vector operations; a gemm_<isa>.c defines those
 * and includes this file last, once.
 *
 * It defines, with a "word" the 4 bytes of WORD values along k (4 bytes or 2 int16) that one
 * multiply-add instruction takes per sum:
 *   GEMM_TABLE              the name of the table
 *   WORD                    values along k in a word
 *   VEC_SUMS, ROWS          a tile is up to ROWS <= 12 rows of a by 2 vectors of VEC_SUMS sums
 *   FOR_EACH_ROWS(X)        X(1) X(2) .. X(ROWS)
 *   SUMS_IN_FLIGHT          vectors of sums that hide the latency of the multiply-add
 *   K_BLOCK, M_BLOCK        a block of a that stays in L2 is M_BLOCK rows of K_BLOCK values: whole
 *                           tiles, whole words
 *   KEEP_A                  1: a's own bytes are words, 0: a is widened to int16 (copied)
 *   FLIP_B(a_signed, b_signed)   where KEEP_A: whether b's top bit is to be flipped
 *   Vec                     VEC_SUMS int32 sums, or VEC_SUMS words
 *   vec_fill(s)             the int32 s in every lane
 *   vec_word(p)             the word at p (unaligned) in every lane
 *   vec_load(p)             VEC_SUMS words at p (aligned)
 *   vec_mac(sum, a, b, a_signed)   sum + the product of words, modulo 2^32
 *   vec_add(s, t)
 *   vec_out(sum, acc, cols, accumulate)   the first `cols` >= 1 sums to (or added to) acc
 *   pack_word(b, b_stride, depth, cols, form, to)   one word of up to 2 * VEC_SUMS columns
 *   copy_row(a, k, a_signed, to)    k values as words, the last padded with zeros
 *   row_sum(a, k, a_signed)         where KEEP_A: sum of k values modulo 2^32
 *
 * Where KEEP_A, the instruction asks for operands of opposite kinds, one unsigned and one signed
 * (x86), or of one kind (arm64). a stays as it is; b is packed as the kind that goes with a's, with
 * its top bit flipped (which makes an int8 b b + 128, a uint8 b b - 128) where it is not of that
 * kind, and -+128 times the sum of a's row, where the row's sums start, takes the difference back.
 *
 * Packed b: [ceil(n / (2 * VEC_SUMS))][ceil(k / WORD)][columns rounded up to VEC_SUMS][1 word]. Bytes
 * beyond k and n may hold anything: they meet zeros of a or lead to sums that are not stored.
 *
 * Order: blocks of k, blocks of m, panels of b, tiles. A panel's K_BLOCK stays in L1 or, where it
 * is larger, streams from L2 while a's rows stay in L1; a's block stays in L2 while b streams past.
 * Longer blocks of k that overflow L1 gain more by writing acc fewer times than they lose.
 */
#include <string.h>

#include "gemm.h"

#if M_BLOCK % ROWS != 0 || K_BLOCK % WORD != 0
#error "blocks must be whole tiles and whole words"
#endif

#define PANEL (2 * (ptrdiff_t)VEC_SUMS)

/* a's rows are copied where their distance would put them all into the same few sets of L1. */
#define ALIASING 1024

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t round_up(ptrdiff_t a, ptrdiff_t to) { return (a + to - 1) / to * to; }

/* Size of the next of several nearly equal pieces of `whole`, each at most `most`. */
static ptrdiff_t next_piece(ptrdiff_t whole, ptrdiff_t most) {
    const ptrdiff_t pieces = (whole + most - 1) / most;
    return (whole + pieces - 1) / pieces;
}

#define TILE_PARAMETERS                                                                                \
    const uint8_t *a, ptrdiff_t a_stride, const uint8_t *b, ptrdiff_t words, const int32_t *start,     \
        int32_t *acc, ptrdiff_t acc_stride, ptrdiff_t cols, int accumulate
#define TILE_ARGUMENTS a, a_stride, b, words, start, acc, acc_stride, cols, accumulate

typedef void (*Tile)(TILE_PARAMETERS);

/* rows x vecs vectors of sums; rows, vecs and a_signed are constants wherever it is inlined. The
 * sums have names instead of indices because GCC does not keep arrays of vectors in registers. A
 * tile too small to hide the multiply-add's latency takes words in turns to two sets of sums. */
INLINE void tile(const int rows, const int vecs, const int a_signed, TILE_PARAMETERS) {
    const int turns = rows <= 4 && rows * vecs < SUMS_IN_FLIGHT ? 2 : 1;
    /* Three rows to a pointer: 0, 1 and 2 times the stride are distances an address can hold. */
    const uint8_t *p0 = a, *p1 = a, *p2 = a, *p3 = a;
    ptrdiff_t t;
#define TWELVE_ROWS(X)                                                                  \
    X(0, p0, 0) X(1, p0, 1) X(2, p0, 2) X(3, p1, 0) X(4, p1, 1) X(5, p1, 2)             \
    X(6, p2, 0) X(7, p2, 1) X(8, p2, 2) X(9, p3, 0) X(10, p3, 1) X(11, p3, 2)
#define FOUR_ROWS(X) X(0, p0, 0) X(1, p0, 1) X(2, p0, 2) X(3, p1, 0)
#define START(r, p, q)                                          \
    Vec left##r = vec_fill(r < rows ? start[r] : 0), right##r = left##r;
#define START_TURN(r, p, q) Vec odd_left##r = vec_fill(0), odd_right##r = odd_left##r;
/* Fetch the lines of acc that the tile will write while it computes. */
#define FETCH(r, p, q)                                       \
    if (r < rows) {                                          \
        PREFETCH(acc + r * acc_stride);                      \
        PREFETCH(acc + r * acc_stride + cols - 1);           \
    }
#define MAC(r, p, q)                                                             \
    if (r < rows) {                                                              \
        const Vec x = vec_word(p + q * a_stride);                                \
        left##r = vec_mac(left##r, x, w_left, a_signed);                         \
        if (vecs > 1) right##r = vec_mac(right##r, x, w_right, a_signed);        \
    }
#define MAC_TURN(r, p, q)                                                        \
    if (r < rows) {                                                              \
        const Vec x = vec_word(p + q * a_stride + 4);                            \
        odd_left##r = vec_mac(odd_left##r, x, w_left, a_signed);                 \
        if (vecs > 1) odd_right##r = vec_mac(odd_right##r, x, w_right, a_signed); \
    }
#define ADD_TURN(r, p, q)                                               \
    if (r < rows) {                                                     \
        left##r = vec_add(left##r, odd_left##r);                        \
        if (vecs > 1) right##r = vec_add(right##r, odd_right##r);       \
    }
#define OUT(r, p, q)                                                                                   \
    if (r < rows) {                                                                                    \
        vec_out(left##r, acc + r * acc_stride, vecs > 1 ? VEC_SUMS : cols, accumulate);                \
        if (vecs > 1) vec_out(right##r, acc + r * acc_stride + VEC_SUMS, cols - VEC_SUMS, accumulate); \
    }
#define ADVANCE_POINTER(p, words_done) \
    do {                               \
        p += 4 * (words_done);         \
        KEEP_POINTER(p);               \
    } while (0)
#define ADVANCE(words_done)                          \
    b += (words_done) * vecs * VEC_SUMS * 4;         \
    ADVANCE_POINTER(p0, words_done);                 \
    if (rows > 3) ADVANCE_POINTER(p1, words_done);   \
    if (rows > 6) ADVANCE_POINTER(p2, words_done);   \
    if (rows > 9) ADVANCE_POINTER(p3, words_done);
    TWELVE_ROWS(FETCH)
    TWELVE_ROWS(START)
    FOUR_ROWS(START_TURN)
    if (rows > 3) p1 = a + 3 * a_stride;
    if (rows > 6) p2 = a + 6 * a_stride;
    if (rows > 9) p3 = a + 9 * a_stride;
    for (t = words; t >= turns; t -= turns) {
        Vec w_left = vec_load(b), w_right = vecs > 1 ? vec_load(b + VEC_SUMS * 4) : w_left;
        TWELVE_ROWS(MAC)
        if (turns > 1) {
            w_left = vec_load(b + vecs * VEC_SUMS * 4);
            w_right = vecs > 1 ? vec_load(b + 3 * VEC_SUMS * 4) : w_left;
            FOUR_ROWS(MAC_TURN)
        }
        ADVANCE(turns)
    }
    if (turns > 1) {
        if (t > 0) {
            const Vec w_left = vec_load(b), w_right = vecs > 1 ? vec_load(b + VEC_SUMS * 4) : w_left;
            FOUR_ROWS(MAC)
        }
        FOUR_ROWS(ADD_TURN)
    }
    TWELVE_ROWS(OUT)
}

/* Of `form`, the tiles know only whether a is signed, and where a is widened not even that. */
#if KEEP_A
#define FORMS 2
#else
#define FORMS 1
#endif
#define DEFINE_TILE(rows, vecs, form) \
    static void tile_##rows##_##vecs##_##form(TILE_PARAMETERS) { tile(rows, vecs, form, TILE_ARGUMENTS); }
#if FORMS == 2
#define DEFINE_FORMS(rows, vecs) DEFINE_TILE(rows, vecs, 0) DEFINE_TILE(rows, vecs, 1)
#else
#define DEFINE_FORMS(rows, vecs) DEFINE_TILE(rows, vecs, 0)
#endif
#define DEFINE_1(rows) DEFINE_FORMS(rows, 1)
#define DEFINE_2(rows) DEFINE_FORMS(rows, 2)
#define NAME_1_0(rows) tile_##rows##_1_0,
#define NAME_1_1(rows) tile_##rows##_1_1,
#define NAME_2_0(rows) tile_##rows##_2_0,
#define NAME_2_1(rows) tile_##rows##_2_1,
FOR_EACH_ROWS(DEFINE_1)
FOR_EACH_ROWS(DEFINE_2)
static const Tile tiles[FORMS][2][ROWS] = {
    {{FOR_EACH_ROWS(NAME_1_0)}, {FOR_EACH_ROWS(NAME_2_0)}},
#if FORMS == 2
    {{FOR_EACH_ROWS(NAME_1_1)}, {FOR_EACH_ROWS(NAME_2_1)}},
#endif
};

/* What packing does to b: KEEP_A: flip its top bit or not; else: widen it as signed or not. */
static int form_of_b(int a_signed, int b_signed) {
#if KEEP_A
    return FLIP_B(a_signed, b_signed);
#else
    return (void)a_signed, b_signed != 0;
#endif
}

static ptrdiff_t words_of(ptrdiff_t k) { return (k + WORD - 1) / WORD; }

/* Pack columns 0 .. cols - 1 <= PANEL of b. */
static void pack_panel(const uint8_t *b, ptrdiff_t b_stride, ptrdiff_t k, ptrdiff_t cols, int form,
                       uint8_t *to) {
    const ptrdiff_t step = round_up(cols, VEC_SUMS) * 4;
    for (; k >= WORD; k -= WORD, b += WORD * b_stride, to += step)
        pack_word(b, b_stride, WORD, cols, form, to);
    if (k > 0) pack_word(b, b_stride, (int)k, cols, form, to);
}

static size_t packed_bytes(ptrdiff_t k, ptrdiff_t n) {
    return (size_t)words_of(k) * (size_t)round_up(n, VEC_SUMS) * 4;
}

static void pack(const uint8_t *b, ptrdiff_t b_stride, ptrdiff_t k, ptrdiff_t n, int a_signed, int b_signed,
                 void *packed) {
    /* A strip of rows at a time, across all panels: whole cache lines and pages of b are used
     * while they are near. */
    enum { STRIP = 2 * WORD };
    const int form = form_of_b(a_signed, b_signed);
    ptrdiff_t j, k0;
    for (k0 = 0; k0 < k; k0 += STRIP)
        for (j = 0; j < n; j += PANEL) {
            const ptrdiff_t cols = smaller(PANEL, n - j);
            pack_panel(b + k0 * b_stride + j, b_stride, smaller(STRIP, k - k0), cols, form,
                       (uint8_t *)packed + packed_bytes(k, j) + packed_bytes(k0, cols));
        }
}

/* Scratch: [M_BLOCK] starts of a's rows, [K_BLOCK] words of one panel, a's block copied. */
static size_t start_bytes(ptrdiff_t m) { return (size_t)round_up(smaller(m, M_BLOCK), 16) * 4; }

/* From row to row of the copy: an odd number of cache lines, to spread rows over L1's sets. */
static ptrdiff_t copy_stride(ptrdiff_t k) { return round_up(words_of(k) * 4, 64) | 64; }

static size_t scratch_bytes(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n) {
    const ptrdiff_t deep = smaller(k, K_BLOCK);
    return start_bytes(m) + packed_bytes(deep, smaller(n, PANEL)) +
           (size_t)smaller(m, M_BLOCK) * (size_t)copy_stride(deep);
}

/* Initial values of each row's sums (see top). */
static void starts(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, int a_signed, int b_signed,
                   int32_t *start) {
    memset(start, 0, (size_t)m * sizeof(*start));
#if KEEP_A
    if (FLIP_B(a_signed, b_signed)) {
        const uint32_t factor = b_signed ? 0u - 128u : 128u;
        ptrdiff_t i;
        for (i = 0; i < m; ++i) start[i] = (int32_t)(factor * row_sum(a + i * a_stride, k, a_signed));
    }
#else
    (void)a, (void)a_stride, (void)k, (void)a_signed, (void)b_signed;
#endif
}

/* Prefetch the first of `shares` parts; return its end. */
static const uint8_t *fetch_share(const uint8_t *from, const uint8_t *end, ptrdiff_t shares) {
    const uint8_t *share_end = from;
    if (from != NULL && shares > 1) share_end += (end - from) / shares / 64 * 64;
    for (; from < share_end; from += 64) PREFETCH(from);
    return from;
}

/* `packed` or `b` is NULL. */
static void product(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, int a_signed,
                    int b_signed, const uint8_t *packed, const uint8_t *b, ptrdiff_t b_stride, int32_t *acc,
                    ptrdiff_t acc_stride, void *scratch) {
    const int form = form_of_b(a_signed, b_signed);
    const Tile(*tile_of)[ROWS] = tiles[FORMS == 2 && a_signed];
    int32_t *const start = (int32_t *)scratch;
    uint8_t *const piece = (uint8_t *)scratch + start_bytes(m);
    uint8_t *const copy = piece + packed_bytes(smaller(k, K_BLOCK), smaller(n, PANEL));
    ptrdiff_t k0, i0, i, j, deep, high;
    for (k0 = 0; k0 < k; k0 += deep) {
        deep = smaller(round_up(next_piece(k - k0, K_BLOCK), WORD), k - k0);
        for (i0 = 0; i0 < m; i0 += high) {
            const uint8_t *rows = a + i0 * a_stride + k0;
            ptrdiff_t stride = a_stride;
            high = smaller(round_up(next_piece(m - i0, M_BLOCK), ROWS), m - i0);
            starts(rows, stride, high, deep, a_signed, b_signed, start);
            if (!KEEP_A || deep % WORD != 0 || (high > 1 && n > PANEL && a_stride % ALIASING == 0)) {
                stride = copy_stride(deep);
                for (i = 0; i < high; ++i) copy_row(rows + i * a_stride, deep, a_signed, copy + i * stride);
                rows = copy;
            }
            for (j = 0; j < n; j += PANEL) {
                const ptrdiff_t cols = smaller(PANEL, n - j);
                const uint8_t *panel = piece;
                const uint8_t *next = NULL, *next_end = NULL;
                ptrdiff_t tall;
                if (packed == NULL)
                    pack_panel(b + k0 * b_stride + j, b_stride, deep, cols, form, piece);
                else
                    panel = packed + packed_bytes(k, j) + packed_bytes(k0, cols);
                if (packed != NULL && j + PANEL < n) {
                    const ptrdiff_t next_cols = smaller(PANEL, n - j - PANEL);
                    next = packed + packed_bytes(k, j + PANEL) + packed_bytes(k0, next_cols);
                    next_end = next + packed_bytes(deep, next_cols);
                }
                for (i = 0; i < high; i += tall) {
                    tall = next_piece(high - i, ROWS);
                    next = fetch_share(next, next_end, (high - i + ROWS - 1) / ROWS);
                    tile_of[(cols + VEC_SUMS - 1) / VEC_SUMS - 1][tall - 1](
                        rows + i * stride, stride, panel, words_of(deep), start + i,
                        acc + (i0 + i) * acc_stride + j, acc_stride, cols, k0 > 0);
                }
            }
        }
    }
}

static void multiply(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n,
                     int a_signed, int b_signed, const void *packed, int32_t *acc, ptrdiff_t acc_stride,
                     void *scratch) {
    product(a, a_stride, m, k, n, a_signed, b_signed, (const uint8_t *)packed, NULL, 0, acc, acc_stride,
            scratch);
}

static void multiply_unpacked(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n,
                              int a_signed, int b_signed, const uint8_t *b, ptrdiff_t b_stride, int32_t *acc,
                              ptrdiff_t acc_stride, void *scratch) {
    product(a, a_stride, m, k, n, a_signed, b_signed, NULL, b, b_stride, acc, acc_stride, scratch);
}

const GemmKernels GEMM_TABLE = {
    PANEL, M_BLOCK, packed_bytes, pack, scratch_bytes, multiply, multiply_unpacked,
};
