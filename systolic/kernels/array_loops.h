/* The loops of array.h, written once; each instruction set includes this file.
 *
 * Before inclusion an x86 file defines VEC, a vector of VEC_LANES int32, and on it LOAD, STORE,
 * DOT(sums, pairs, multipliers) = sums + low * low + high * high of each lane's 16-bit halves,
 * modulo 2^32, PICK(a, b, mask) of whole lanes, BLEND(a, b, mask) of 16 bytes, ZERO, RAISE(v), each lane's low half
 * moved to its high half, `widened` and `lane_masks`, and what array_bits.h asks for. Without VEC the loops are
 * plain C.
 *
 * A loop that may count toggles is written once, inline, and compiled twice: with `bits` NULL it counts nothing. The
 * fastest loops stand alone, since GCC makes them slower where the same function could count.
 */
#include "array.h"
#include "compiler.h"

/* A code as the number it stands for. */
INLINE int32_t number(uint8_t code, int is_signed) {
    return is_signed ? (int32_t)(code ^ 0x80) - 0x80 : (int32_t)code;
}

#include "array_bits.h"

#if defined(VEC)

/* One row's step: sums along `cycles` diagonals. */
INLINE void row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                   const int32_t *RESTRICT multipliers, int32_t *RESTRICT before, Bits *bits) {
    int lane;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        const VEC w = LOAD(multipliers + lane);
        const int32_t *a = pairs + lane;
        int32_t *p = psums + lane;
        ptrdiff_t i;
        if (bits == NULL)
            for (i = 0; i < cycles; ++i, p += LANES, --a) STORE(p, DOT(LOAD(p), LOAD(a), w));
        else {
            VEC last = LOAD(before + lane);
            for (i = 0; i < cycles; ++i, p += LANES, --a) {
                const VEC sums = DOT(LOAD(p), LOAD(a), w);
                add_bits(bits, XOR(sums, last));
                STORE(p, sums);
                last = sums;
            }
            STORE(before + lane, last);
        }
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

/* The same with the bits in which each row's psums differ from those a cycle before. */
INLINE void counted_rows(int32_t *RESTRICT p, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                         const VEC *w, VEC *last, Bits *bits) {
    const int32_t *a0 = pairs[0] + lane, *a1 = pairs[1] + lane, *a2 = pairs[2] + lane, *a3 = pairs[3] + lane;
    const VEC w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4], w5 = w[5], w6 = w[6], w7 = w[7];
    VEC b0 = last[0], b1 = last[1], b2 = last[2], b3 = last[3];
    VEC b4 = last[4], b5 = last[5], b6 = last[6], b7 = last[7];
    Bits counted = *bits;
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, p += LANES) {
        VEC sums = LOAD(p), a = LOAD(a0 - i), d[ROW_GROUP];
        sums = DOT(sums, a, w0);
        d[0] = XOR(sums, b0), b0 = sums;
        sums = DOT(sums, a, w1);
        d[1] = XOR(sums, b1), b1 = sums;
        a = LOAD(a1 - i);
        sums = DOT(sums, a, w2);
        d[2] = XOR(sums, b2), b2 = sums;
        sums = DOT(sums, a, w3);
        d[3] = XOR(sums, b3), b3 = sums;
        a = LOAD(a2 - i);
        sums = DOT(sums, a, w4);
        d[4] = XOR(sums, b4), b4 = sums;
        sums = DOT(sums, a, w5);
        d[5] = XOR(sums, b5), b5 = sums;
        a = LOAD(a3 - i);
        sums = DOT(sums, a, w6);
        d[6] = XOR(sums, b6), b6 = sums;
        sums = DOT(sums, a, w7);
        d[7] = XOR(sums, b7), b7 = sums;
        STORE(p, sums);
        add_group(&counted, d);
    }
    last[0] = b0, last[1] = b1, last[2] = b2, last[3] = b3;
    last[4] = b4, last[5] = b5, last[6] = b6, last[7] = b7;
    *bits = counted;
}

INLINE void load_group(VEC *to, const int32_t *from) {
    int g;
    UNROLLED for (g = 0; g < ROW_GROUP; ++g) to[g] = LOAD(from + g * LANES);
}

INLINE void store_group(int32_t *to, const VEC *from) {
    int g;
    UNROLLED for (g = 0; g < ROW_GROUP; ++g) STORE(to + g * LANES, from[g]);
}

INLINE void rows_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                    const int32_t *RESTRICT multipliers, int32_t *RESTRICT before, Bits *bits) {
    int lane;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        VEC w[ROW_GROUP], last[ROW_GROUP];
        load_group(w, multipliers + lane);
        if (bits == NULL) rows_of_lanes(psums + lane, cycles, pairs, lane, w);
        else {
            load_group(last, before + lane);
            counted_rows(psums + lane, cycles, pairs, lane, w, last, bits);
            store_group(before + lane, last);
        }
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
                      const int32_t *RESTRICT multipliers, int32_t *before, int64_t *toggles) {
    int lane, g;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        VEC w[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(multipliers + g * LANES + lane);
        first_corner(psums + lane, pairs, lane, w);
        rows_of_lanes(psums + lane, cycles - (ROW_GROUP - 1), pairs, lane, w);
        last_corner(psums + cycles * LANES + lane, cycles, pairs, lane, w);
    }
}

/* Read from LANES - 1 - j on: set in lanes 0..j. */
static const int32_t passed[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

static void mac_swap(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT old, const int32_t *RESTRICT after, ptrdiff_t at, int32_t *before,
                     int64_t *toggles) {
    const ptrdiff_t rest = at + LANES;
    const int32_t *later[ROW_PAIRS];
    int lane, g, j;
    for (g = 0; g < ROW_PAIRS; ++g) later[g] = pairs[g] - rest;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        int32_t *p = psums + lane;
        VEC w[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) w[g] = LOAD(old + g * LANES + lane);
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

/* Clock rows first..stop-1 of a group on one diagonal, i cycles after cycle 0. */
INLINE void counted_diagonal(int32_t *RESTRICT p, ptrdiff_t i, const int32_t *const *pairs, int lane,
                             const VEC *w, int first, int stop, VEC *last, Bits *bits) {
    VEC sums = LOAD(p + i * LANES);
    int g;
    UNROLLED for (g = first; g < stop; ++g) {
        sums = DOT(sums, LOAD(pairs[g / 2] - i + lane), w[g]);
        add_bits(bits, XOR(sums, last[g]));
        last[g] = sums;
    }
    STORE(p + i * LANES, sums);
}

INLINE void counted_corners(int32_t *RESTRICT p, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                            const VEC *w, int is_first, VEC *last, Bits *bits) {
    int i;
    UNROLLED for (i = ROW_GROUP - 1; i > 0; --i) {
        if (is_first) counted_diagonal(p, -i, pairs, lane, w, i, ROW_GROUP, last, bits);
        else counted_diagonal(p, cycles - i, pairs, lane, w, 0, i, last, bits);
    }
}

INLINE void block_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT multipliers, int32_t *RESTRICT before, Bits *bits) {
    int lane;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        int32_t *p = psums + lane;
        VEC w[ROW_GROUP], last[ROW_GROUP];
        load_group(w, multipliers + lane);
        load_group(last, before + lane);
        counted_corners(p, cycles, pairs, lane, w, 1, last, bits);
        counted_rows(p, cycles - (ROW_GROUP - 1), pairs, lane, w, last, bits);
        counted_corners(p, cycles, pairs, lane, w, 0, last, bits);
        store_group(before + lane, last);
    }
}

INLINE void swap_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                    const int32_t *RESTRICT old, const int32_t *RESTRICT after, ptrdiff_t at,
                    int32_t *RESTRICT before, Bits *bits) {
    const ptrdiff_t rest = at + LANES;
    const int32_t *later[ROW_PAIRS];
    int lane, g, j;
    for (g = 0; g < ROW_PAIRS; ++g) later[g] = pairs[g] - rest;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        int32_t *p = psums + lane;
        VEC w[ROW_GROUP], last[ROW_GROUP];
        load_group(w, old + lane);
        load_group(last, before + lane);
        counted_corners(p, cycles, pairs, lane, w, 1, last, bits);
        counted_rows(p, at, pairs, lane, w, last, bits);
        for (j = 0; j < LANES; ++j) {
            const VEC swapped = LOAD(passed + LANES - 1 - j + lane);
            VEC now[ROW_GROUP];
            UNROLLED for (g = 0; g < ROW_GROUP; ++g) now[g] = PICK(w[g], LOAD(after + g * LANES + lane), swapped);
            counted_diagonal(p, at + j, pairs, lane, now, 0, ROW_GROUP, last, bits);
        }
        load_group(w, after + lane);
        counted_rows(p + rest * LANES, cycles - (ROW_GROUP - 1) - rest, later, lane, w, last, bits);
        counted_corners(p, cycles, pairs, lane, w, 0, last, bits);
        store_group(before + lane, last);
    }
}

static void multipliers(int32_t *to, const uint8_t *codes, int is_signed, int half) {
    VEC w[LANES / VEC_LANES];
    int v;
    widened(w, _mm_loadu_si128((const __m128i *)codes), is_signed, half);
    for (v = 0; v < LANES / VEC_LANES; ++v) STORE(to + v * VEC_LANES, w[v]);
}

/* One edge of the registers that hold weights: weight, next, pass. */
INLINE void weights_edge(__m128i *w, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                         WeightBits *counted) {
    const __m128i shift = BYTES(shifts), swap = BYTES(swaps), arriving = BYTES(chain);
    const __m128i weight = BLEND(w[0], w[1], swap), next = BLEND(w[1], arriving, shift);
    const __m128i pass = BLEND(w[2], w[1], shift);
    if (counted != NULL) {
        add_byte_bits(&counted->weight, _mm_xor_si128(weight, w[0]));
        add_byte_bits(&counted->next_weight, _mm_xor_si128(next, w[1]));
        add_byte_bits(&counted->weight_pass, _mm_xor_si128(pass, w[2]));
    }
    PUT_BYTES(chain, w[2]);
    w[0] = weight, w[1] = next, w[2] = pass;
}

INLINE void step_weights_of(ptrdiff_t cycles, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                            uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights, WeightBits *counted) {
    __m128i w[3] = {BYTES(weights->weight), BYTES(weights->next_weight), BYTES(weights->weight_pass)};
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, chain += LANES) weights_edge(w, shifts - i, swaps - i, chain, counted);
    PUT_BYTES(weights->weight, w[0]);
    PUT_BYTES(weights->next_weight, w[1]);
    PUT_BYTES(weights->weight_pass, w[2]);
}

INLINE void step_row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                        const int half, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                        uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights, const int is_signed,
                        int32_t *RESTRICT before, Bits *bits, WeightBits *counted) {
    __m128i held[3] = {BYTES(weights->weight), BYTES(weights->next_weight), BYTES(weights->weight_pass)};
    VEC w[LANES / VEC_LANES];
    ptrdiff_t i;
    int v;
    for (i = 0; i < cycles; ++i, psums += LANES, chain += LANES) {
        weights_edge(held, shifts - i, swaps - i, chain, counted);
        widened(w, held[0], is_signed, half);
        for (v = 0; v < LANES; v += VEC_LANES) {
            const VEC sums = DOT(LOAD(psums + v), LOAD(pairs - i + v), w[v / VEC_LANES]);
            if (bits != NULL) {
                add_bits(bits, XOR(sums, LOAD(before + v)));
                STORE(before + v, sums);
            }
            STORE(psums + v, sums);
        }
    }
    PUT_BYTES(weights->weight, held[0]);
    PUT_BYTES(weights->next_weight, held[1]);
    PUT_BYTES(weights->weight_pass, held[2]);
}

#else

#define ROW_BEFORE(before, g) (bits == NULL ? NULL : (before) + (g) * LANES)

INLINE void half_row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                        const int32_t *RESTRICT multipliers, int half, int32_t *RESTRICT before, Bits *bits) {
    const int up = half ? 0 : 16;
    ptrdiff_t i;
    int lane;
    for (i = 0; i < cycles; ++i, psums += LANES, --pairs) {
        for (lane = 0; lane < LANES; ++lane) {
            /* The half, sign-extended. */
            const int32_t a = (int32_t)((uint32_t)pairs[lane] << up) >> 16;
            psums[lane] = (int32_t)((uint32_t)psums[lane] + (uint32_t)(a * multipliers[lane]));
        }
        if (bits != NULL)
            for (lane = 0; lane < LANES; ++lane) {
                bits->lanes[lane] += bits_of((uint32_t)(psums[lane] ^ before[lane]));
                before[lane] = psums[lane];
            }
    }
}

INLINE void rows_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                    const int32_t *RESTRICT multipliers, int32_t *RESTRICT before, Bits *bits) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        half_row_of(psums, cycles, pairs[g / 2], multipliers + g * LANES, g & 1, ROW_BEFORE(before, g), bits);
}

INLINE void block_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT multipliers, int32_t *RESTRICT before, Bits *bits) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        half_row_of(psums - g * LANES, cycles, pairs[g / 2] + g, multipliers + g * LANES, g & 1,
                    ROW_BEFORE(before, g), bits);
}

INLINE void swap_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                    const int32_t *RESTRICT all_old, const int32_t *RESTRICT after, ptrdiff_t at,
                    int32_t *RESTRICT all_before, Bits *bits) {
    int g, j, lane;
    for (g = 0; g < ROW_GROUP; ++g) {
        /* Row g crosses diagonal i on cycle i + g. */
        int32_t *row = psums - g * LANES, *before = ROW_BEFORE(all_before, g);
        const int32_t *stream = pairs[g / 2] + g, *old = all_old + g * LANES, *new_ = after + g * LANES;
        const ptrdiff_t swap = at + g;
        half_row_of(row, swap, stream, old, g & 1, before, bits);
        for (j = 0; j < LANES; ++j) {
            int32_t w[LANES];
            for (lane = 0; lane < LANES; ++lane) w[lane] = lane <= j ? new_[lane] : old[lane];
            half_row_of(row + (swap + j) * LANES, 1, stream - swap - j, w, g & 1, before, bits);
        }
        half_row_of(row + (swap + LANES) * LANES, cycles - swap - LANES, stream - swap - LANES, new_, g & 1,
                    before, bits);
    }
}

static void mac_block(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                      const int32_t *RESTRICT multipliers, int32_t *before, int64_t *toggles) {
    block_of(psums, cycles, pairs, multipliers, NULL, NULL);
}

static void mac_swap(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT old, const int32_t *RESTRICT after, ptrdiff_t at, int32_t *before,
                     int64_t *toggles) {
    swap_of(psums, cycles, pairs, old, after, at, NULL, NULL);
}

static void multipliers(int32_t *to, const uint8_t *codes, int is_signed, int half) {
    int lane;
    (void)half;
    for (lane = 0; lane < LANES; ++lane) to[lane] = number(codes[lane], is_signed);
}

INLINE void weights_edge(const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain, LaneWeights *weights,
                         WeightBits *counted) {
    int lane;
    for (lane = 0; lane < LANES; ++lane) {
        const uint8_t shift = shifts[lane], swap = swaps[lane], arriving = chain[lane];
        const uint8_t weight = weights->weight[lane];
        const uint8_t next = weights->next_weight[lane], pass = weights->weight_pass[lane];
        weights->weight[lane] = (uint8_t)((weight & ~swap) | (next & swap));
        chain[lane] = pass;
        weights->weight_pass[lane] = (uint8_t)((pass & ~shift) | (next & shift));
        weights->next_weight[lane] = (uint8_t)((next & ~shift) | (arriving & shift));
        if (counted != NULL) {
            counted->weight += bits_of(weight ^ weights->weight[lane]);
            counted->next_weight += bits_of(next ^ weights->next_weight[lane]);
            counted->weight_pass += bits_of(pass ^ weights->weight_pass[lane]);
        }
    }
}

INLINE void step_weights_of(ptrdiff_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                            LaneWeights *weights, WeightBits *counted) {
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i) weights_edge(shifts - i, swaps - i, chain + i * LANES, weights, counted);
}

INLINE void step_row_of(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                        const int half, const uint8_t *RESTRICT shifts, const uint8_t *RESTRICT swaps,
                        uint8_t *RESTRICT chain, LaneWeights *RESTRICT weights, const int is_signed,
                        int32_t *RESTRICT before, Bits *bits, WeightBits *counted) {
    int32_t w[LANES];
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i, psums += LANES, chain += LANES) {
        weights_edge(shifts - i, swaps - i, chain, weights, counted);
        multipliers(w, weights->weight, is_signed, half);
        half_row_of(psums, 1, pairs - i, w, half, before, bits);
    }
}

#endif

/* The functions of the two tables: each of the loops above once more, with what it counts. */

#if defined(VEC)
#define ROW_OF(psums, cycles, pairs, multipliers, half, before, bits) \
    ((void)(half), row_of(psums, cycles, pairs, multipliers, before, bits))
#else
#define ROW_OF half_row_of
#endif

static void mac_row(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                    const int32_t *RESTRICT multipliers, int half, int32_t *before, int64_t *toggles) {
    ROW_OF(psums, cycles, pairs, multipliers, half, NULL, NULL);
}

static void counted_mac_row(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *RESTRICT pairs,
                            const int32_t *RESTRICT multipliers, int half, int32_t *before, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], ROW_OF(psums, cycles, pairs, multipliers, half, before, &bits));
}

static void mac_rows(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                     const int32_t *RESTRICT multipliers, int32_t *before, int64_t *toggles) {
    rows_of(psums, cycles, pairs, multipliers, NULL, NULL);
}

static void counted_mac_rows(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                             const int32_t *RESTRICT multipliers, int32_t *before, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], rows_of(psums, cycles, pairs, multipliers, before, &bits));
}

static void counted_mac_block(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                              const int32_t *RESTRICT multipliers, int32_t *before, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], block_of(psums, cycles, pairs, multipliers, before, &bits));
}

static void counted_mac_swap(int32_t *RESTRICT psums, ptrdiff_t cycles, const int32_t *const *pairs,
                             const int32_t *RESTRICT old, const int32_t *RESTRICT after, ptrdiff_t at,
                             int32_t *before, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], swap_of(psums, cycles, pairs, old, after, at, before, &bits));
}

static void step_weights(ptrdiff_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                         LaneWeights *weights, int64_t *toggles) {
    step_weights_of(cycles, shifts, swaps, chain, weights, NULL);
}

static void counted_step_weights(ptrdiff_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                                 LaneWeights *weights, int64_t *toggles) {
    WeightBits counted = NO_WEIGHT_BITS;
    step_weights_of(cycles, shifts, swaps, chain, weights, &counted);
    note_weight_bits(toggles, &counted);
}

INLINE void step_row_as(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                        const uint8_t *swaps, uint8_t *chain, LaneWeights *weights, int is_signed,
                        int32_t *before, Bits *bits, WeightBits *counted) {
    if (is_signed) {
        if (half) step_row_of(psums, cycles, pairs, 1, shifts, swaps, chain, weights, 1, before, bits, counted);
        else step_row_of(psums, cycles, pairs, 0, shifts, swaps, chain, weights, 1, before, bits, counted);
    } else {
        if (half) step_row_of(psums, cycles, pairs, 1, shifts, swaps, chain, weights, 0, before, bits, counted);
        else step_row_of(psums, cycles, pairs, 0, shifts, swaps, chain, weights, 0, before, bits, counted);
    }
}

static void step_row(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                     const uint8_t *swaps, uint8_t *chain, LaneWeights *weights, int is_signed, int32_t *before,
                     int64_t *toggles) {
    step_row_as(psums, cycles, pairs, half, shifts, swaps, chain, weights, is_signed, NULL, NULL, NULL);
}

static void counted_step_row(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, int half,
                             const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain, LaneWeights *weights,
                             int is_signed, int32_t *before, int64_t *toggles) {
    WeightBits counted = NO_WEIGHT_BITS;
    COUNTED(toggles[T_PSUM], step_row_as(psums, cycles, pairs, half, shifts, swaps, chain, weights, is_signed,
                                         before, &bits, &counted));
    note_weight_bits(toggles, &counted);
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

static const ArrayKernels counting = {
    NULL, NULL, NULL, multipliers, pair_up, counted_mac_row, counted_mac_rows, counted_mac_block, counted_mac_swap,
    counted_step_weights, counted_step_row, reverse_ports, put_bottom, take_ports, widen, counted_hold_row,
    counted_hold_rows, counted_hold_block, counted_hold_swaps, counted_step_out, count_stream, count_lines,
    count_changes};

#define ARRAY_KERNELS                                                                                            \
    {NULL, NULL, &counting, multipliers, pair_up, mac_row, mac_rows, mac_block, mac_swap, step_weights, step_row, \
     reverse_ports, put_bottom, take_ports, widen, hold_row, hold_rows, hold_block, hold_swaps, step_out, \
     NULL, NULL, NULL}
