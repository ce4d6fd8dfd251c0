/* The loops of array.h, written once; each instruction set includes this file.
 *
 * Before inclusion an x86 file defines VEC, a vector of VEC_LANES int32, and on it LOAD, STORE,
 * DOT(sums, pairs, multipliers) = sums + low * low + high * high of each lane's 16-bit halves,
 * modulo 2^32, PICK(a, b, mask) of whole lanes, BLEND(a, b, mask) of 16 bytes, ZERO, RAISE(v), each lane's low half
 * moved to its high half, `widened` and `lane_masks`. Without VEC the loops are plain C.
 */
#include "array.h"
#include "compiler.h"

#if defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 8")
#else
#define UNROLLED
#endif

/* A code as the number it stands for. */
INLINE int32_t number(uint8_t code, int is_signed) {
    return is_signed ? (int32_t)(code ^ 0x80) - 0x80 : (int32_t)code;
}

#if defined(VEC)

/* One row's step: sums along `cycles` diagonals. */
static void mac_row(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                    const int32_t *RESTRICT multipliers, int half) {
    int lane;
    (void)half;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        const VEC w = LOAD(multipliers + lane);
        const int32_t *a = pairs + lane;
        int32_t *p = psums + lane;
        ptrdiff_t i;
        for (i = 0; i < cycles; ++i, p += LANES, --a) STORE(p, DOT(LOAD(p), LOAD(a), w));
    }
}

/* The main loop. A psum stays in a register while it passes ROW_GROUP rows; their multipliers
 * stay in registers too: 8 of them, the sums, a pair and a product, of 16 or 32 there are.
 *
 * Bottleneck, per diagonal of 16 lanes x 8 rows, 128 PE-cycles, on Golden Cove (ports as in
 * uops.info): AVX-512 VNNI 8 VPDPWSSD on two ports, 4 cycles, while 4 loads of pairs, of which 15
 * in 16 cross a cache line and count twice, and one of sums take 4.5 cycles of two load ports: 28
 * PE-cycles a cycle, of which 73 % are reached (58 G/s at the 2.8 GHz that the dot-product peak
 * implies). AVX-512 8 VPMADDWD and 8 VPADDD on two ports, 8 cycles, 91 %. AVX-VNNI two halves of 8
 * VPDPWSSD, 8 cycles, 81 to 99 %. AVX2 16 multiplies on two and 16 additions on three ports, 10.7
 * cycles, 75 to 85 %. SSE2 the same in quarters, 21.3 cycles, 87 %. Pairs and sums are in L1.
 */
INLINE void rows_of_lanes(int32_t *RESTRICT p, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                          const VEC *w) {
    const int32_t *a0 = pairs[0] + lane, *a1 = pairs[1] + lane, *a2 = pairs[2] + lane, *a3 = pairs[3] + lane;
    const VEC w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4], w5 = w[5], w6 = w[6], w7 = w[7];
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, p += LANES) {
        VEC sums = LOAD(p), a = LOAD(a0 - i);
        sums = DOT(sums, a, w0);
        sums = DOT(sums, a, w1);
        a = LOAD(a1 - i);
        sums = DOT(sums, a, w2);
        sums = DOT(sums, a, w3);
        a = LOAD(a2 - i);
        sums = DOT(sums, a, w4);
        sums = DOT(sums, a, w5);
        a = LOAD(a3 - i);
        sums = DOT(sums, a, w6);
        sums = DOT(sums, a, w7);
        STORE(p, sums);
    }
}

static void mac_rows(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT multipliers) {
    int lane, g;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        VEC w[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(multipliers + g * LANES + lane);
        rows_of_lanes(psums + lane, cycles, pairs, lane, w);
    }
}

/* What a block cuts off of a group: on the diagonals before cycle 0 only the lower rows, on the
 * last ones only the upper rows. p is the diagonal of cycle 0, end that after the last. */
INLINE void first_corner(int32_t *RESTRICT p, const int32_t *const *pairs, int lane, const VEC *w) {
    int g, i;
    UNROLLED for (i = 1; i < ROW_GROUP; ++i) {
        VEC sums = LOAD(p - i * LANES);
        UNROLLED for (g = i; g < ROW_GROUP; ++g) sums = DOT(sums, LOAD(pairs[g / 2] + i + lane), w[g]);
        STORE(p - i * LANES, sums);
    }
}

INLINE void last_corner(int32_t *RESTRICT end, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                        const VEC *w) {
    int g, i;
    UNROLLED for (i = 1; i < ROW_GROUP; ++i) {
        VEC sums = LOAD(end - i * LANES);
        UNROLLED for (g = 0; g < i; ++g) sums = DOT(sums, LOAD(pairs[g / 2] - (cycles - i) + lane), w[g]);
        STORE(end - i * LANES, sums);
    }
}

static void mac_block(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                      const int32_t *RESTRICT multipliers) {
    int lane, g;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        VEC w[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(multipliers + g * LANES + lane);
        first_corner(psums + lane, pairs, lane, w);
        rows_of_lanes(psums + lane, cycles - (ROW_GROUP - 1), pairs, lane, w);
        last_corner(psums + cycles * LANES + lane, cycles, pairs, lane, w);
    }
}

static void mac_swap(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT before, const int32_t *RESTRICT after, ptrdiff_t at) {
    /* Read from LANES - 1 - j on: set in lanes 0..j. */
    static const int32_t passed[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const ptrdiff_t rest = at + LANES;
    const int32_t *later[ROW_PAIRS];
    int lane, g, j;
    for (g = 0; g < ROW_PAIRS; ++g) later[g] = pairs[g] - rest;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        int32_t *p = psums + lane;
        VEC w[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(before + g * LANES + lane);
        first_corner(p, pairs, lane, w);
        rows_of_lanes(p, at, pairs, lane, w);
        for (j = 0; j < LANES; ++j) {
            const VEC swapped = LOAD(passed + LANES - 1 - j + lane);
            VEC sums = LOAD(p + (at + j) * LANES);
            UNROLLED for (g = 0; g < ROW_GROUP; ++g)
                sums = DOT(sums, LOAD(pairs[g / 2] - (at + j) + lane),
                           PICK(w[g], LOAD(after + g * LANES + lane), swapped));
            STORE(p + (at + j) * LANES, sums);
        }
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(after + g * LANES + lane);
        rows_of_lanes(p + rest * LANES, cycles - (ROW_GROUP - 1) - rest, later, lane, w);
        last_corner(p + cycles * LANES, cycles, pairs, lane, w);
    }
}

static void multipliers(int32_t *to, const uint8_t *codes, int is_signed, int half) {
    VEC w[LANES / VEC_LANES];
    int v;
    widened(w, _mm_loadu_si128((const __m128i *)codes), is_signed, half);
    for (v = 0; v < LANES / VEC_LANES; ++v) STORE(to + v * VEC_LANES, w[v]);
}

#define BYTES(p) _mm_loadu_si128((const __m128i *)(p))
#define PUT_BYTES(p, v) _mm_storeu_si128((__m128i *)(p), v)

static void step_weights(ptrdiff_t cycles, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                         uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights) {
    __m128i weight = BYTES(weights->weight), next = BYTES(weights->next_weight);
    __m128i pass = BYTES(weights->weight_pass);
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, chain += LANES) {
        const __m128i shift = BYTES(shifts - i), arriving = BYTES(chain);
        weight = BLEND(weight, next, BYTES(swaps - i));
        PUT_BYTES(chain, pass);
        pass = BLEND(pass, next, shift);
        next = BLEND(next, arriving, shift);
    }
    PUT_BYTES(weights->weight, weight);
    PUT_BYTES(weights->next_weight, next);
    PUT_BYTES(weights->weight_pass, pass);
}

INLINE void step_row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                        const int half, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                        uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights, const int is_signed) {
    __m128i weight = BYTES(weights->weight), next = BYTES(weights->next_weight);
    __m128i pass = BYTES(weights->weight_pass);
    VEC w[LANES / VEC_LANES];
    ptrdiff_t i;
    int v;
    for (i = 0; i < cycles; ++i, psums += LANES, chain += LANES) {
        const __m128i shift = BYTES(shifts - i), swap = BYTES(swaps - i), arriving = BYTES(chain);
        weight = BLEND(weight, next, swap);
        PUT_BYTES(chain, pass);
        pass = BLEND(pass, next, shift);
        next = BLEND(next, arriving, shift);
        widened(w, weight, is_signed, half);
        for (v = 0; v < LANES; v += VEC_LANES)
            STORE(psums + v, DOT(LOAD(psums + v), LOAD(pairs - i + v), w[v / VEC_LANES]));
    }
    PUT_BYTES(weights->weight, weight);
    PUT_BYTES(weights->next_weight, next);
    PUT_BYTES(weights->weight_pass, pass);
}

#else

static void mac_row(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                    const int32_t *RESTRICT multipliers, int half) {
    const int up = half ? 0 : 16;
    ptrdiff_t i;
    int lane;
    for (i = 0; i < cycles; ++i, psums += LANES, --pairs)
        for (lane = 0; lane < LANES; ++lane) {
            /* The half, sign-extended. */
            const int32_t a = (int32_t)((uint32_t)pairs[lane] << up) >> 16;
            psums[lane] = (int32_t)((uint32_t)psums[lane] + (uint32_t)(a * multipliers[lane]));
        }
}

static void mac_rows(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT multipliers) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g) mac_row(psums, cycles, pairs[g / 2], multipliers + g * LANES, g & 1);
}

static void mac_block(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                      const int32_t *RESTRICT multipliers) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        mac_row(psums - g * LANES, cycles, pairs[g / 2] + g, multipliers + g * LANES, g & 1);
}

static void mac_swap(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT before, const int32_t *RESTRICT after, ptrdiff_t at) {
    int g, j, lane;
    for (g = 0; g < ROW_GROUP; ++g) {
        /* Row g crosses diagonal i on cycle i + g. */
        int32_t *row = psums - g * LANES;
        const int32_t *stream = pairs[g / 2] + g, *old = before + g * LANES, *new_ = after + g * LANES;
        const ptrdiff_t swap = at + g;
        mac_row(row, swap, stream, old, g & 1);
        for (j = 0; j < LANES; ++j) {
            int32_t w[LANES];
            for (lane = 0; lane < LANES; ++lane) w[lane] = lane <= j ? new_[lane] : old[lane];
            mac_row(row + (swap + j) * LANES, 1, stream - swap - j, w, g & 1);
        }
        mac_row(row + (swap + LANES) * LANES, cycles - swap - LANES, stream - swap - LANES, new_, g & 1);
    }
}

static void multipliers(int32_t *to, const uint8_t *codes, int is_signed, int half) {
    int lane;
    (void)half;
    for (lane = 0; lane < LANES; ++lane) to[lane] = number(codes[lane], is_signed);
}

INLINE void weights_edge(const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                         LaneWeights *weights) {
    int lane;
    for (lane = 0; lane < LANES; ++lane) {
        const uint8_t shift = shifts[lane], swap = swaps[lane], arriving = chain[lane];
        const uint8_t next = weights->next_weight[lane], pass = weights->weight_pass[lane];
        weights->weight[lane] = (uint8_t)((weights->weight[lane] & ~swap) | (next & swap));
        chain[lane] = pass;
        weights->weight_pass[lane] = (uint8_t)((pass & ~shift) | (next & shift));
        weights->next_weight[lane] = (uint8_t)((next & ~shift) | (arriving & shift));
    }
}

static void step_weights(ptrdiff_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                         LaneWeights *weights) {
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i) weights_edge(shifts - i, swaps - i, chain + i * LANES, weights);
}

INLINE void step_row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                        const int half, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                        uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights, const int is_signed) {
    int32_t w[LANES];
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, psums += LANES, chain += LANES) {
        weights_edge(shifts - i, swaps - i, chain, weights);
        multipliers(w, weights->weight, is_signed, half);
        mac_row(psums, 1, pairs - i, w, half);
    }
}

#endif

static void step_row(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                     const uint8_t *swaps, uint8_t *chain, LaneWeights *weights, int is_signed) {
    if (is_signed) {
        if (half) step_row_of(psums, cycles, pairs, 1, shifts, swaps, chain, weights, 1);
        else step_row_of(psums, cycles, pairs, 0, shifts, swaps, chain, weights, 1);
    } else {
        if (half) step_row_of(psums, cycles, pairs, 1, shifts, swaps, chain, weights, 0);
        else step_row_of(psums, cycles, pairs, 0, shifts, swaps, chain, weights, 0);
    }
}

INLINE int32_t paired(int32_t low, int32_t high) {
    return (int32_t)(((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16);
}

INLINE void pair_up_of(int32_t *RESTRICT pairs, const uint8_t *RESTRICT first,
                       const uint8_t *RESTRICT second, ptrdiff_t length, const int is_signed) {
    ptrdiff_t j;
    if (length == 0) return;
    pairs[0] = paired(number(first[0], is_signed), 0);
    if (second == NULL)
        for (j = 1; j < length; ++j) pairs[j] = paired(number(first[j], is_signed), 0);
    else
        for (j = 1; j < length; ++j)
            pairs[j] = paired(number(first[j], is_signed), number(second[j - 1], is_signed));
}

static void pair_up(int32_t *pairs, const uint8_t *first, const uint8_t *second, ptrdiff_t length, int is_signed) {
    if (is_signed) pair_up_of(pairs, first, second, length, 1);
    else pair_up_of(pairs, first, second, length, 0);
}

#if defined(VEC)
/* A tile of 16 x 16 bytes: line i comes from from + (15 - i) * line_stride, so that column k,
 * written to to + k * (to_stride - late), runs backwards through the lines. */
static void reverse_tile(uint8_t *to, ptrdiff_t to_stride, const uint8_t *from, ptrdiff_t line_stride) {
    __m128i a[16], b[16];
    int i, pass;
    for (i = 0; i < 16; ++i) a[i] = _mm_loadu_si128((const __m128i *)(from + (15 - i) * line_stride));
    for (pass = 0; pass < 2; ++pass) {
        for (i = 0; i < 8; ++i) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
        for (i = 0; i < 8; ++i) {
            a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
            a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
        }
    }
    for (i = 0; i < 16; ++i) _mm_storeu_si128((__m128i *)(to + i * to_stride), a[i]);
}
#endif

static void reverse_some(uint8_t *to, const uint8_t *from, ptrdiff_t t_stride, ptrdiff_t cycles, ptrdiff_t start,
                         ptrdiff_t stop) {
    ptrdiff_t t;
    if (t_stride == 1)
        for (t = start; t < stop; ++t) to[cycles - 1 - t] = from[t];
    else
        for (t = start; t < stop; ++t) to[cycles - 1 - t] = from[t * t_stride];
}

static void reverse_ports(uint8_t *to, ptrdiff_t to_stride, const uint8_t *from, ptrdiff_t t_stride,
                          ptrdiff_t r_stride, ptrdiff_t cycles, ptrdiff_t rows) {
    ptrdiff_t r = 0;
#if defined(VEC)
    /* Ports that lie side by side in memory on the same cycle (late = 0) or, skewed, one cycle
     * later each (late = 1) are turned 16 x 16 at a time; what such tiles leave over, one by one. */
    const int late = r_stride != 1;
    const ptrdiff_t line_stride = t_stride;
    if (r_stride == 1 || r_stride + t_stride == 1)
        for (; r + 16 <= rows; r += 16) {
            /* Lines u: port r + i on cycle u + late * i. */
            const ptrdiff_t last = cycles - 16 - late * 15;
            ptrdiff_t u, done = 0, i;
            for (u = 0; u <= last; u += 16) {
                reverse_tile(to + r * to_stride + cycles - 16 - u, to_stride - late,
                             from + u * t_stride + r * r_stride, line_stride);
                done = u + 16;
            }
            for (i = 0; i < 16; ++i) {
                uint8_t *row = to + (r + i) * to_stride;
                const uint8_t *port = from + (r + i) * r_stride;
                reverse_some(row, port, t_stride, cycles, 0, done == 0 ? 0 : late * i);
                reverse_some(row, port, t_stride, cycles, done == 0 ? 0 : done + late * i, cycles);
            }
        }
#endif
    for (; r < rows; ++r) reverse_some(to + r * to_stride, from + r * r_stride, t_stride, cycles, 0, cycles);
}

static void put_bottom(int32_t *RESTRICT bottom, ptrdiff_t t_stride, ptrdiff_t c_stride, int32_t *RESTRICT psums,
                       ptrdiff_t cycles, ptrdiff_t valid) {
    ptrdiff_t t, c, step, count;
    if (valid < LANES || t_stride + c_stride != 1 || cycles < LANES) {
        for (t = 0; t < cycles; ++t)
            for (c = 0; c < valid; ++c) bottom[t * t_stride + c * c_stride] = psums[t * LANES + c];
        return;
    }
    /* Through a skewed view, lane c on cycle t + c lies beside lane 0 on cycle t. First the
     * corners, then whole lines: four passes move lane c up by the bits of c. */
    for (t = 0; t < LANES - 1; ++t)
        for (c = t + 1; c < LANES; ++c) bottom[t * t_stride + c * c_stride] = psums[t * LANES + c];
    for (t = cycles - LANES + 1; t < cycles; ++t)
        for (c = 0; c < cycles - t; ++c) bottom[t * t_stride + c] = psums[(t + c) * LANES + c];
    count = cycles;
    for (step = 1; step < LANES; step *= 2) {
        int32_t moves[LANES];
        for (c = 0; c < LANES; ++c) moves[c] = c & step ? -1 : 0;
        count -= step;
        for (t = 0; t < count; ++t) {
            int32_t *here = psums + t * LANES;
            const int32_t *later = here + step * LANES;
#if defined(VEC)
            for (c = 0; c < LANES; c += VEC_LANES) STORE(here + c, PICK(LOAD(here + c), LOAD(later + c), LOAD(moves + c)));
#else
            for (c = 0; c < LANES; ++c) here[c] ^= (here[c] ^ later[c]) & moves[c];
#endif
        }
    }
    for (t = 0; t < count; ++t) memcpy(bottom + t * t_stride, psums + t * LANES, LANES * sizeof(int32_t));
}

#include "array_held.h"

#define ARRAY_KERNELS \
    {NULL, NULL, multipliers, pair_up, mac_row, mac_rows, mac_block, mac_swap, step_weights, step_row, \
     reverse_ports, put_bottom, take_ports, widen, hold_row, hold_rows, hold_block, hold_swaps, step_out}
