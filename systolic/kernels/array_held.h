/* The loops of array.h for an output-stationary array; part of array_loops.h.
 *
 * Sums stay where they are, and a weight is used by one row after the other: on a diagonal all rows of a group
 * read the same LANES weights. One load of a pair stream serves two PEs, as in the weight-stationary loops, each
 * by a multiply-add of its own: the weights stand in the upper row's half for one and are raised to the lower
 * row's for the other.
 */

#if defined(VEC)

static void widen(int32_t *RESTRICT to, const uint8_t *RESTRICT codes, ptrdiff_t lines, int is_signed) {
    ptrdiff_t i;
    int v;
    for (i = 0; i < lines; ++i, to += LANES) {
        VEC w[LANES / VEC_LANES];
        widened(w, BYTES(codes + i * LANES), is_signed, 0);
        for (v = 0; v < LANES / VEC_LANES; ++v) STORE(to + v * VEC_LANES, w[v]);
    }
}

/* The main loop: eight sums, two forms of a weight and a pair in registers. */
INLINE void hold_diagonals(VEC *s, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                           const int32_t *RESTRICT weights) {
    const int32_t *a0 = pairs[0] + lane, *a1 = pairs[1] + lane, *a2 = pairs[2] + lane, *a3 = pairs[3] + lane;
    VEC s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], s4 = s[4], s5 = s[5], s6 = s[6], s7 = s[7];
    ptrdiff_t i;
    for (i = 0; i < cycles; ++i) {
        const VEC low = LOAD(weights + i * LANES), high = RAISE(low);
        VEC a = LOAD(a0 - i);
        s0 = DOT(s0, a, low);
        s1 = DOT(s1, a, high);
        a = LOAD(a1 - i);
        s2 = DOT(s2, a, low);
        s3 = DOT(s3, a, high);
        a = LOAD(a2 - i);
        s4 = DOT(s4, a, low);
        s5 = DOT(s5, a, high);
        a = LOAD(a3 - i);
        s6 = DOT(s6, a, low);
        s7 = DOT(s7, a, high);
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3, s[4] = s4, s[5] = s5, s[6] = s6, s[7] = s7;
}

/* The same with the bits that change in the sums. */
INLINE void counted_diagonals(VEC *s, ptrdiff_t cycles, const int32_t *const *pairs, int lane,
                              const int32_t *RESTRICT weights, Bits *bits) {
    const int32_t *a[ROW_PAIRS] = {pairs[0] + lane, pairs[1] + lane, pairs[2] + lane, pairs[3] + lane};
    VEC now[ROW_GROUP] = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]};
    Bits counted = *bits;
    ptrdiff_t i;
    int g;
    for (i = 0; i < cycles; ++i) {
        const VEC low = LOAD(weights + i * LANES), high = RAISE(low);
        VEC d[ROW_GROUP];
        UNROLLED for (g = 0; g < ROW_GROUP; ++g) {
            const VEC next = DOT(now[g], LOAD(a[g / 2] - i), g % 2 ? high : low);
            d[g] = XOR(next, now[g]);
            now[g] = next;
        }
        add_group(&counted, d);
    }
    UNROLLED for (g = 0; g < ROW_GROUP; ++g) s[g] = now[g];
    *bits = counted;
}

INLINE void hold_rows_of(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                         const int32_t *RESTRICT weights, Bits *bits) {
    int lane;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        VEC s[ROW_GROUP];
        load_group(s, sums + lane);
        if (bits == NULL) hold_diagonals(s, cycles, pairs, lane, weights + lane);
        else counted_diagonals(s, cycles, pairs, lane, weights + lane, bits);
        store_group(sums + lane, s);
    }
}

/* Add a product to each sum of rows first..stop-1, i cycles after cycle 0. */
INLINE void hold_diagonal(VEC *s, ptrdiff_t i, const int32_t *const *pairs, int lane, const int32_t *w, int first,
                          int stop, Bits *bits) {
    const VEC low = LOAD(w + i * LANES), high = RAISE(low);
    int g;
    UNROLLED for (g = first; g < stop; ++g) {
        const VEC next = DOT(s[g], LOAD(pairs[g / 2] - i + lane), g % 2 ? high : low);
        add_bits(bits, XOR(next, s[g]));
        s[g] = next;
    }
}

static void hold_block(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                       const int32_t *RESTRICT weights, int64_t *toggles) {
    int lane, g, i;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        const int32_t *w = weights + lane;
        VEC s[ROW_GROUP];
        load_group(s, sums + lane);
        UNROLLED for (i = ROW_GROUP - 1; i > 0; --i) {
            const VEC low = LOAD(w - i * LANES), high = RAISE(low);
            UNROLLED for (g = i; g < ROW_GROUP; ++g)
                s[g] = DOT(s[g], LOAD(pairs[g / 2] + i + lane), g % 2 ? high : low);
        }
        hold_diagonals(s, cycles - (ROW_GROUP - 1), pairs, lane, w);
        UNROLLED for (i = ROW_GROUP - 1; i > 0; --i) {
            const VEC low = LOAD(w + (cycles - i) * LANES), high = RAISE(low);
            UNROLLED for (g = 0; g < i; ++g)
                s[g] = DOT(s[g], LOAD(pairs[g / 2] - (cycles - i) + lane), g % 2 ? high : low);
        }
        store_group(sums + lane, s);
    }
}

INLINE void hold_block_of(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                          const int32_t *RESTRICT weights, Bits *bits) {
    int lane, i;
    for (lane = 0; lane < LANES; lane += VEC_LANES) {
        const int32_t *w = weights + lane;
        VEC s[ROW_GROUP];
        load_group(s, sums + lane);
        UNROLLED for (i = ROW_GROUP - 1; i > 0; --i) hold_diagonal(s, -i, pairs, lane, w, i, ROW_GROUP, bits);
        counted_diagonals(s, cycles - (ROW_GROUP - 1), pairs, lane, w, bits);
        UNROLLED for (i = ROW_GROUP - 1; i > 0; --i) hold_diagonal(s, cycles - i, pairs, lane, w, 0, i, bits);
        store_group(sums + lane, s);
    }
}

/* Where a swap arrives, sums start again from 0. */
INLINE void start_again(VEC *sums, const uint8_t *swaps) {
    VEC mask[LANES / VEC_LANES];
    int v;
    lane_masks(mask, BYTES(swaps));
    for (v = 0; v < LANES / VEC_LANES; ++v) sums[v] = PICK(sums[v], ZERO, mask[v]);
}

INLINE void hold_row_of(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *RESTRICT pairs, const int half,
                        const int32_t *RESTRICT weights, const uint8_t *RESTRICT swaps,
                        int32_t *RESTRICT captured, Bits *bits) {
    VEC s[LANES / VEC_LANES], last[LANES / VEC_LANES];
    ptrdiff_t i;
    int v;
    for (v = 0; v < LANES / VEC_LANES; ++v) s[v] = LOAD(sums + v * VEC_LANES);
    for (i = 0; i < cycles; ++i) {
        for (v = 0; v < LANES / VEC_LANES; ++v) last[v] = s[v];
        if (swaps != NULL) {
            for (v = 0; v < LANES / VEC_LANES; ++v) STORE(captured + i * LANES + v * VEC_LANES, s[v]);
            start_again(s, swaps - i);
        }
        for (v = 0; v < LANES / VEC_LANES; ++v) {
            const VEC w = LOAD(weights + i * LANES + v * VEC_LANES);
            s[v] = DOT(s[v], LOAD(pairs - i + v * VEC_LANES), half ? RAISE(w) : w);
            if (bits != NULL) add_bits(bits, XOR(s[v], last[v]));
        }
    }
    for (v = 0; v < LANES / VEC_LANES; ++v) STORE(sums + v * VEC_LANES, s[v]);
}

INLINE void hold_swaps_of(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                          const int32_t *RESTRICT weights, const uint8_t *const *swaps, int32_t *const *captured,
                          Bits *bits) {
    ptrdiff_t i;
    int g, v;
    for (i = 0; i < cycles; ++i, weights += LANES)
        for (g = 0; g < ROW_GROUP; ++g) {
            int32_t *row = sums + g * LANES;
            VEC s[LANES / VEC_LANES], last[LANES / VEC_LANES];
            for (v = 0; v < LANES / VEC_LANES; ++v) {
                s[v] = last[v] = LOAD(row + v * VEC_LANES);
                STORE(captured[g] + i * LANES + v * VEC_LANES, s[v]);
            }
            start_again(s, swaps[g] - i);
            for (v = 0; v < LANES / VEC_LANES; ++v) {
                const VEC w = LOAD(weights + v * VEC_LANES), a = LOAD(pairs[g / 2] - i + v * VEC_LANES);
                s[v] = DOT(s[v], a, g % 2 ? RAISE(w) : w);
                if (bits != NULL) add_bits(bits, XOR(s[v], last[v]));
                STORE(row + v * VEC_LANES, s[v]);
            }
        }
}

INLINE void step_out_of(ptrdiff_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                        const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs, Bits *bits,
                        Bits *pass_bits) {
    VEC o[LANES / VEC_LANES], pass[LANES / VEC_LANES];
    ptrdiff_t i;
    int v;
    for (v = 0; v < LANES / VEC_LANES; ++v) {
        o[v] = LOAD(out + v * VEC_LANES);
        pass[v] = LOAD(out_pass + v * VEC_LANES);
    }
    for (i = 0; i < cycles; ++i, above += LANES, captured += LANES) {
        VEC drain[LANES / VEC_LANES], swap[LANES / VEC_LANES];
        lane_masks(drain, BYTES(drains - i));
        lane_masks(swap, BYTES(swaps - i));
        for (v = 0; v < LANES / VEC_LANES; ++v) {
            const VEC arriving = LOAD(above + v * VEC_LANES);
            const VEC passed = PICK(pass[v], o[v], drain[v]);
            const VEC next = PICK(PICK(o[v], arriving, drain[v]), LOAD(captured + v * VEC_LANES), swap[v]);
            if (bits != NULL) {
                add_bits(bits, XOR(next, o[v]));
                add_bits(pass_bits, XOR(passed, pass[v]));
            }
            STORE(above - 2 * LANES + v * VEC_LANES, pass[v]);
            pass[v] = passed;
            o[v] = next;
            if (outs != NULL) STORE(outs + i * LANES + v * VEC_LANES, o[v]);
        }
    }
    for (v = 0; v < LANES / VEC_LANES; ++v) {
        STORE(out + v * VEC_LANES, o[v]);
        STORE(out_pass + v * VEC_LANES, pass[v]);
    }
}

#else

static void widen(int32_t *to, const uint8_t *codes, ptrdiff_t lines, int is_signed) {
    ptrdiff_t i;
    for (i = 0; i < lines * LANES; ++i) to[i] = number(codes[i], is_signed);
}

INLINE void hold_row_of(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *RESTRICT pairs, const int half,
                        const int32_t *RESTRICT weights, const uint8_t *RESTRICT swaps,
                        int32_t *RESTRICT captured, Bits *bits) {
    int32_t last[LANES];
    ptrdiff_t i;
    int c;
    for (i = 0; i < cycles; ++i, --pairs, weights += LANES) {
        memcpy(last, sums, sizeof(last));
        if (swaps != NULL) {
            memcpy(captured + i * LANES, sums, LANES * sizeof(int32_t));
            for (c = 0; c < LANES; ++c) sums[c] &= ~(int32_t)(int8_t)swaps[c - i];
        }
        half_row_of(sums, 1, pairs, weights, half, NULL, NULL);
        if (bits != NULL)
            for (c = 0; c < LANES; ++c) bits->lanes[c] += bits_of((uint32_t)(sums[c] ^ last[c]));
    }
}

INLINE void hold_rows_of(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                         Bits *bits) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        hold_row_of(sums + g * LANES, cycles, pairs[g / 2], g & 1, weights, NULL, NULL, bits);
}

INLINE void hold_block_of(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                          Bits *bits) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        hold_row_of(sums + g * LANES, cycles, pairs[g / 2] + g, g & 1, weights - g * LANES, NULL, NULL, bits);
}

INLINE void hold_swaps_of(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                          const uint8_t *const *swaps, int32_t *const *captured, Bits *bits) {
    int g;
    for (g = 0; g < ROW_GROUP; ++g)
        hold_row_of(sums + g * LANES, cycles, pairs[g / 2], g & 1, weights, swaps[g], captured[g], bits);
}

INLINE void step_out_of(ptrdiff_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                        const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs, Bits *bits,
                        Bits *pass_bits) {
    ptrdiff_t i;
    int c;
    for (i = 0; i < cycles; ++i, above += LANES, captured += LANES, --drains, --swaps) {
        for (c = 0; c < LANES; ++c) {
            const int32_t arriving = above[c], last = out[c], pass = out_pass[c];
            above[c - 2 * LANES] = pass;
            if (drains[c]) out_pass[c] = last, out[c] = arriving;
            if (swaps[c]) out[c] = captured[c];
            if (bits != NULL) {
                bits->lanes[c] += bits_of((uint32_t)(out[c] ^ last));
                pass_bits->lanes[c] += bits_of((uint32_t)(out_pass[c] ^ pass));
            }
        }
        if (outs != NULL) memcpy(outs + i * LANES, out, LANES * sizeof(int32_t));
    }
}

static void hold_block(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                       int64_t *toggles) {
    hold_block_of(sums, cycles, pairs, weights, NULL);
}

#endif

INLINE void hold_row_as(int32_t *sums, ptrdiff_t cycles, const int32_t *pairs, int half, const int32_t *weights,
                        const uint8_t *swaps, int32_t *captured, Bits *bits) {
    if (swaps == NULL) {
        if (half) hold_row_of(sums, cycles, pairs, 1, weights, NULL, NULL, bits);
        else hold_row_of(sums, cycles, pairs, 0, weights, NULL, NULL, bits);
    } else {
        if (half) hold_row_of(sums, cycles, pairs, 1, weights, swaps, captured, bits);
        else hold_row_of(sums, cycles, pairs, 0, weights, swaps, captured, bits);
    }
}

static void hold_row(int32_t *sums, ptrdiff_t cycles, const int32_t *pairs, int half, const int32_t *weights,
                     const uint8_t *swaps, int32_t *captured, int64_t *toggles) {
    hold_row_as(sums, cycles, pairs, half, weights, swaps, captured, NULL);
}

static void counted_hold_row(int32_t *sums, ptrdiff_t cycles, const int32_t *pairs, int half,
                             const int32_t *weights, const uint8_t *swaps, int32_t *captured,
                             int64_t *toggles) {
    COUNTED(toggles[T_PSUM], hold_row_as(sums, cycles, pairs, half, weights, swaps, captured, &bits));
}

static void hold_rows(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                      const int32_t *RESTRICT weights, int64_t *toggles) {
    hold_rows_of(sums, cycles, pairs, weights, NULL);
}

static void counted_hold_rows(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                              const int32_t *RESTRICT weights, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], hold_rows_of(sums, cycles, pairs, weights, &bits));
}

static void counted_hold_block(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                               const int32_t *RESTRICT weights, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], hold_block_of(sums, cycles, pairs, weights, &bits));
}

static void hold_swaps(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                       const int32_t *RESTRICT weights, const uint8_t *const *swaps, int32_t *const *captured,
                       int64_t *toggles) {
    hold_swaps_of(sums, cycles, pairs, weights, swaps, captured, NULL);
}

static void counted_hold_swaps(int32_t *RESTRICT sums, ptrdiff_t cycles, const int32_t *const *pairs,
                               const int32_t *RESTRICT weights, const uint8_t *const *swaps,
                               int32_t *const *captured, int64_t *toggles) {
    COUNTED(toggles[T_PSUM], hold_swaps_of(sums, cycles, pairs, weights, swaps, captured, &bits));
}

static void step_out(ptrdiff_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                     const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs, int64_t *toggles) {
    step_out_of(cycles, drains, swaps, above, captured, out, out_pass, outs, NULL, NULL);
}

static void counted_step_out(ptrdiff_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                             const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs,
                             int64_t *toggles) {
    Bits pass_bits = NO_BITS;
    COUNTED(toggles[T_OUT],
            step_out_of(cycles, drains, swaps, above, captured, out, out_pass, outs, &bits, &pass_bits));
    toggles[T_OUT_PASS] += sum_bits(&pass_bits);
}

static void take_ports(uint8_t *RESTRICT codes, const uint8_t *RESTRICT from, ptrdiff_t cycle, ptrdiff_t port,
                       ptrdiff_t cycles, ptrdiff_t valid) {
    ptrdiff_t t, c, step;
    if (valid == LANES && port == 1) {
        for (t = 0; t < cycles; ++t) memcpy(codes + t * LANES, from + t * cycle, LANES);
        return;
    }
    if (valid < LANES || cycle + port != 1 || cycles < LANES) {
        memset(codes, 0, (size_t)(cycles * LANES));
        for (t = 0; t < cycles; ++t)
            for (c = 0; c < valid; ++c) codes[t * LANES + c] = from[t * cycle + c * port];
        return;
    }
    /* Through a skewed view, what lane c sees on cycle t + c lies beside what lane 0 sees on cycle t. First whole
     * lines: four passes move lane c down by the bits of c. Then the corners. */
    for (t = 0; t <= cycles - LANES; ++t) memcpy(codes + t * LANES, from + t * cycle, LANES);
    memset(codes + t * LANES, 0, (size_t)((cycles - t) * LANES));
    for (step = 1; step < LANES; step *= 2) {
        uint8_t moves[LANES];
        for (c = 0; c < LANES; ++c) moves[c] = c & step ? 0xFF : 0;
        for (t = cycles - 1; t >= step; --t) {
            uint8_t *here = codes + t * LANES;
#if defined(VEC)
            PUT_BYTES(here, BLEND(BYTES(here), BYTES(here - step * LANES), BYTES(moves)));
#else
            for (c = 0; c < LANES; ++c)
                here[c] = (uint8_t)((here[c] & ~moves[c]) | (here[c - step * LANES] & moves[c]));
#endif
        }
    }
    for (t = 0; t < LANES - 1; ++t)
        for (c = t + 1; c < LANES; ++c) codes[t * LANES + c] = from[t * cycle + c * port];
    for (t = cycles - LANES + 1; t < cycles; ++t)
        for (c = 0; c < t - (cycles - LANES); ++c) codes[t * LANES + c] = from[t * cycle + c * port];
}
