/* One arithmetic, strip by strip; numbers_arithmetics.h includes it for each. It defines OPERAND and SUM, types of values
 * and sums, ADD(run, s, a, w), an addition, MAC(run, s, a, w), one of a chain at whose end is FINISH(s),
 * VALUES_OF(type, to, codes, count) and NAME(function); and, where the processor adds vectors of VEC_LANES sums, VEC,
 * LOAD, STORE, SPLAT and VEC_MAC(s, a, w).
 *
 * strip   LANES neighboring columns, clocked together; a thread takes whole strips
 * time    At time u, lane l of a strip is on cycle u + l. Activations and control, which move right, then reach all
 *         lanes at once: they are numbers, not vectors, read from a stream one element later at each time
 * block   up to NUMBERS_BLOCK times, for all strips before the next block
 * edges   Between blocks lanes are a cycle apart, before and after a run together: in the LANES times before time 1
 *         and the LANES - 1 at the end only some lanes are clocked
 * line    LANES values. Psums are kept by diagonal, time - row, where a sum stays while it passes one row after the
 *         other: line `rows - r + i` is the psum that reaches row r at time start + i, and leaves it then. Weights of
 *         an output-stationary array, which move down, are kept likewise
 * group   GROUP rows, clocked along the diagonals while their weights, or sums, stay in registers
 * chain   what arrives at a row from above on the edges where that matters: weight_pass or out_pass of the row above
 *         before each edge; line i belongs to time start + i. That of the row below begins two lines before, in the
 *         same memory
 *
 * A chain of float additions may be of plain fused multiply-adds, if its end is added to +0: sums with and without
 * the additions of +0 between differ at most in the signs of zeros. For s = +0 and -0, s + a * w is the rounded a * w
 * where that is not 0, and else a zero; what follows from a zero is the same but for signs of zeros again.
 */

#define LANES NUMBERS_LANES
#define GROUP NUMBERS_ROWS
#define LINE(lines, number) ((lines) + (number) * LANES)

/* When a row of a group changes its multipliers, or swaps, counted from the block's first time. */
typedef struct {
    ptrdiff_t count, done;
    int32_t at[NUMBERS_BLOCK];
} NAME(Events);

typedef struct {
    const NumbersBlock *block;
    const NumbersRun *array;
    ptrdiff_t col, valid; /* lanes from `valid` on are no columns: what they compute is dropped */
    ptrdiff_t rows, times, weight_bytes;
    ptrdiff_t first;   /* the streams' element at the block's first time */
    SUM *sums;         /* psums by diagonal; output stationary: acc by row */
    OPERAND *weights;  /* values of weights by row; output stationary: by diagonal */
    uint16_t *codes;   /* output stationary: their codes */
    OPERAND *later;    /* weight stationary: the multipliers after each event, NUMBERS_BLOCK lines a row */
    SUM *captured;     /* output stationary: the sums before each swap, likewise */
    SUM *outs;         /* output stationary: out of the bottom row */
    uint16_t *chain;
    SUM *out_chain;
    OPERAND used[GROUP * LANES]; /* weight stationary: multipliers of the group */
    NAME(Events) events[GROUP];
} NAME(Strip);

/* Streams */

/* Values of codes that are `step` apart. */
APART void NAME(take_values)(OPERAND *to, Stored type, const void *codes, ptrdiff_t at, ptrdiff_t step,
                              ptrdiff_t count) {
    uint16_t some[32];
    ptrdiff_t i, n;
    for (; count > 0; count -= n, to += n) {
        n = count < 32 ? count : 32;
        if (code_bytes(type) == 1)
            for (i = 0; i < n; ++i, at += step) some[i] = ((const uint8_t *)codes)[at];
        else
            for (i = 0; i < n; ++i, at += step) some[i] = ((const uint16_t *)codes)[at];
        VALUES_OF(type, to, some, n);
    }
}

/* Make the streams of LANES rows for the block; after the last, store the registers that move right. */
static void NAME(make_streams)(void *context, ptrdiff_t number, int worker) {
    const NumbersBlock *const b = (const NumbersBlock *)context;
    const NumbersRun *const a = &b->array;
    const NumberPorts west = a->west_activation, shift = a->west_shift, swap = a->west_swap;
    const ptrdiff_t top = number * LANES, below = top + LANES < a->rows ? top + LANES : a->rows;
    const ptrdiff_t begin = b->moved ? b->start : 0, end = b->stop + (b->is_last ? LANES - 1 : 0);
    const ptrdiff_t kept = begin - b->start + b->span, width = kept + end - begin;
    ptrdiff_t r, c, t, n;
    (void)worker;
    for (r = top; r < below; ++r) {
        OPERAND *const values = (OPERAND *)b->values + r * b->stride;
        uint8_t *const bits = b->bits + r * b->stride;
        if (b->moved) {
            memmove(values, values + b->moved, (size_t)kept * sizeof(OPERAND));
            memmove(bits, bits + b->moved, (size_t)kept);
        } else {
            /* What registers hold; that of the first column arrives last. */
            const ptrdiff_t held = a->cols < kept ? a->cols : kept, last = r * a->cols + held - 1;
            memset(values, 0, (size_t)(kept - held) * sizeof(OPERAND));
            NAME(take_values)(values + kept - held, a->activation_type, a->activation, last, -1, held);
            memset(bits, 0, (size_t)kept);
            add_bits(bits + kept - held, a->shift + last, -1, held, SHIFT_BIT);
            add_bits(bits + kept - held, a->swap + last, -1, held, SWAP_BIT);
        }
        memset(bits + kept, 0, (size_t)(end - begin));
        add_bits(bits + kept, &PORT(uint8_t, shift, begin, r), shift.cycle, end - begin, SHIFT_BIT);
        add_bits(bits + kept, &PORT(uint8_t, swap, begin, r), swap.cycle, end - begin, SWAP_BIT);
        find_range(b->ranges + RANGES * r, bits, width, SHIFT_BIT | SWAP_BIT);
        find_range(b->ranges + RANGES * r + 2, bits, width, SHIFT_BIT);
    }
    /* Some cycles of all rows, then the next: neighboring ports of a fold share cache lines. */
    for (t = begin; t < end; t += n) {
        n = end - t < 32 ? end - t : 32;
        for (r = top; r < below; ++r)
            NAME(take_values)((OPERAND *)b->values + r * b->stride + kept + t - begin, a->activation_type, west.values,
                              t * west.cycle + r * west.port, west.cycle, n);
    }
    if (!b->is_last) return;
    for (r = top; r < below; ++r)
        for (c = a->cols - 1; c >= 0; --c) {
            const ptrdiff_t at = r * a->cols + c, cycle = a->cycles - 1 - c, bytes = code_bytes(a->activation_type);
            const uint8_t bits = b->bits[r * b->stride + width - 1 - c];
            put_code(a->activation, at, bytes,
                     cycle < 0 ? code_at(a->activation, at - a->cycles, bytes)
                               : code_at(west.values, cycle * west.cycle + r * west.port, bytes));
            a->shift[at] = bits & SHIFT_BIT;
            a->swap[at] = bits / SWAP_BIT;
        }
}

/* Lines of a strip */

static void NAME(begin_strip)(NAME(Strip) *s, const NumbersBlock *block, ptrdiff_t number, int worker) {
    const NumbersRun *const a = &block->array;
    const ptrdiff_t lines = a->rows + NUMBERS_BLOCK + 1;
    uint8_t *memory = block->memory + (size_t)worker * block->work_bytes;
    s->block = block, s->array = a;
    s->col = number * LANES, s->valid = a->cols - s->col < LANES ? a->cols - s->col : LANES;
    s->rows = a->rows, s->times = block->stop - block->start, s->weight_bytes = code_bytes(a->weight_type);
    s->first = block->span - s->col;
    s->sums = (SUM *)(void *)memory, memory += lines * LANES * 8;
    s->captured = (SUM *)(void *)memory, s->later = (OPERAND *)(void *)memory;
    memory += GROUP * NUMBERS_BLOCK * LANES * 8;
    s->outs = (SUM *)(void *)memory, memory += NUMBERS_BLOCK * LANES * 8;
    s->out_chain = LINE((SUM *)(void *)memory, 2 * a->rows), s->chain = LINE((uint16_t *)(void *)memory, 2 * a->rows);
    memory += (2 * a->rows + NUMBERS_BLOCK) * LANES * 8;
    s->weights = (OPERAND *)(void *)memory, memory += lines * LANES * 4;
    s->codes = (uint16_t *)(void *)memory;
}

INLINE const OPERAND *NAME(values_of_row)(const NAME(Strip) *s, ptrdiff_t r) {
    return (const OPERAND *)s->block->values + r * s->block->stride + s->first;
}

INLINE const uint8_t *NAME(bits_of_row)(const NAME(Strip) *s, ptrdiff_t r) {
    return s->block->bits + r * s->block->stride + s->first;
}

/* Whether a control bit reaches row r within the block. */
INLINE int NAME(has_bits)(const NAME(Strip) *s, ptrdiff_t r) {
    const int32_t *const range = s->block->ranges + RANGES * r;
    return range[0] < s->first + s->times && range[1] >= s->first;
}

/* The times of the block, from read[0] to before read[1], at which row r reads the chain. */
INLINE void NAME(find_read)(const NAME(Strip) *s, ptrdiff_t r, ptrdiff_t read[2]) {
    const int32_t *const range = s->block->ranges + RANGES * r + 2;
    read[0] = read[1] = 0;
    if (r == s->rows) return;
    read[0] = range[0] < s->first ? 0 : range[0] - s->first;
    read[1] = range[1] + 1 - s->first < s->times ? range[1] + 1 - s->first : s->times;
}

/* Lines of sums whose lanes are `step` apart, 0 beyond the strip; and back. */
INLINE void NAME(take_sums)(const NAME(Strip) *s, SUM *to, const SUM *from, ptrdiff_t step) {
    ptrdiff_t l;
    if (step == 1 && s->valid == LANES) memcpy(to, from, LANES * sizeof(SUM));
    else
        for (l = 0; l < LANES; ++l) to[l] = l < s->valid ? from[l * step] : 0;
}

INLINE void NAME(put_sums)(const NAME(Strip) *s, SUM *to, const SUM *from, ptrdiff_t step) {
    ptrdiff_t l;
    if (step == 1 && s->valid == LANES) memcpy(to, from, LANES * sizeof(SUM));
    else
        for (l = 0; l < s->valid; ++l) to[l * step] = from[l];
}

INLINE SUM *NAME(sums_of_row)(const NAME(Strip) *s, void *registers, ptrdiff_t r) {
    return (SUM *)registers + r * s->array->cols + s->col;
}

/* What arrives on the north psum ports at times start + first .. start + last - 1. */
APART void NAME(take_north)(const NAME(Strip) *s, SUM *to, ptrdiff_t first, ptrdiff_t last) {
    const NumberPorts north = s->array->north_psum;
    for (; first < last; ++first)
        NAME(take_sums)(s, LINE(to, first), &PORT(SUM, north, s->block->start + first, s->col), north.cycle + north.port);
}

INLINE void NAME(take_weights)(const NAME(Strip) *s, uint16_t *to, const void *registers, ptrdiff_t r) {
    take_codes(to, registers, r * s->array->cols + s->col, 1, s->weight_bytes, s->valid);
}

INLINE void NAME(put_weights)(const NAME(Strip) *s, void *registers, ptrdiff_t r, const uint16_t *from) {
    put_codes(registers, r * s->array->cols + s->col, s->weight_bytes, s->valid, from);
}

/* Codes on the north weight ports, as take_north. */
APART void NAME(take_north_weights)(const NAME(Strip) *s, uint16_t *to, ptrdiff_t first, ptrdiff_t last) {
    const NumberPorts north = s->array->north_weight;
    for (; first < last; ++first)
        take_codes(LINE(to, first), north.values, (s->block->start + first) * north.cycle + s->col * north.port,
                   north.cycle + north.port, s->weight_bytes, s->valid);
}

/* What leaves the bottom row at those times. */
APART void NAME(put_bottom)(const NAME(Strip) *s, const SUM *from) {
    const ptrdiff_t cycle = s->array->bottom_cycle, col = s->array->bottom_col;
    SUM *const to = (SUM *)s->array->bottom + s->block->start * cycle + s->col * col;
    ptrdiff_t i;
    for (i = 0; i < s->times; ++i) NAME(put_sums)(s, to + i * cycle, LINE(from, i), cycle + col);
}

/* The lanes low .. high - 1 are clocked at a time of an edge. */
INLINE void NAME(find_lanes)(const NAME(Strip) *s, ptrdiff_t time, ptrdiff_t *low, ptrdiff_t *high, int32_t *on) {
    const ptrdiff_t rest = s->array->cycles - time;
    ptrdiff_t l;
    *low = time < 0 ? -time : 0;
    *high = rest < s->valid ? rest : s->valid;
    for (l = 0; l < LANES; ++l) on[l] = *low <= l && l < *high;
}

/* Weight stationary */

/* Clock the psums of one row. */
APART void NAME(mac_row)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *RESTRICT values,
                          const OPERAND *RESTRICT weights) {
    ptrdiff_t i;
    int l;
    (void)run;
    for (i = 0; i < times; ++i, sums += LANES)
        for (l = 0; l < LANES; ++l) sums[l] = MAC(run, sums[l], values[i], weights[l]);
}

/* Clock those of a group, on the diagonals that reach its first row at so many times. */
APART void NAME(mac_rows)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *const *values,
                           const OPERAND *RESTRICT weights) {
#if defined(VEC)
    const OPERAND *const a0 = values[0], *const a1 = values[1], *const a2 = values[2], *const a3 = values[3];
    const OPERAND *const a4 = values[4], *const a5 = values[5], *const a6 = values[6], *const a7 = values[7];
    int lane;
    (void)run;
    for (lane = 0; lane < LANES; lane += VEC_LANES, weights += VEC_LANES) {
        const VEC w0 = LOAD(weights), w1 = LOAD(LINE(weights, 1)), w2 = LOAD(LINE(weights, 2));
        const VEC w3 = LOAD(LINE(weights, 3)), w4 = LOAD(LINE(weights, 4)), w5 = LOAD(LINE(weights, 5));
        const VEC w6 = LOAD(LINE(weights, 6)), w7 = LOAD(LINE(weights, 7));
        SUM *p = sums + lane;
        ptrdiff_t i;
        for (i = 0; i < times; ++i, p += LANES) {
            VEC sum = LOAD(p);
            sum = VEC_MAC(sum, SPLAT(a0[i]), w0);
            sum = VEC_MAC(sum, SPLAT(a1[i]), w1);
            sum = VEC_MAC(sum, SPLAT(a2[i]), w2);
            sum = VEC_MAC(sum, SPLAT(a3[i]), w3);
            sum = VEC_MAC(sum, SPLAT(a4[i]), w4);
            sum = VEC_MAC(sum, SPLAT(a5[i]), w5);
            sum = VEC_MAC(sum, SPLAT(a6[i]), w6);
            sum = VEC_MAC(sum, SPLAT(a7[i]), w7);
            STORE(p, sum);
        }
    }
#else
    int g;
    for (g = 0; g < GROUP; ++g) NAME(mac_row)(run, sums, times, values[g], LINE(weights, g));
#endif
}

/* The same so that each row sees times 0 .. times - 1: with the diagonals that reach the first row before, whose sums
 * are past it already, and without the last rows of the last ones. */
static void NAME(mac_block)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *const *values,
                            const OPERAND *RESTRICT weights) {
    int g;
#if defined(VEC)
    const ptrdiff_t last = times - (GROUP - 1);
    int lane, i;
    for (lane = 0; lane < LANES; lane += VEC_LANES)
        UNROLLED for (i = 1; i < GROUP; ++i) {
            SUM *const first = LINE(sums, -i) + lane, *const end = LINE(sums, times - i) + lane;
            VEC early = LOAD(first), late = LOAD(end);
            UNROLLED for (g = i; g < GROUP; ++g)
                early = VEC_MAC(early, SPLAT(values[g][-i]), LOAD(LINE(weights, g) + lane));
            STORE(first, early);
            UNROLLED for (g = 0; g < i; ++g)
                late = VEC_MAC(late, SPLAT(values[g][times - i]), LOAD(LINE(weights, g) + lane));
            STORE(end, late);
        }
    NAME(mac_rows)(run, sums, last, values, weights);
#else
    for (g = 0; g < GROUP; ++g) NAME(mac_row)(run, LINE(sums, -g), times, values[g] - g, LINE(weights, g));
#endif
}

/* Clock the weights of row r, number g of its group: note when its multipliers change. */
static void NAME(clock_weights)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g) {
    const NumbersRun *const a = s->array;
    const uint8_t *const bits = NAME(bits_of_row)(s, r);
    uint16_t weight[LANES], next[LANES], pass[LANES];
    ptrdiff_t t = 0, stop, read[2];
    NAME(Events) *const e = &s->events[g];
    e->count = e->done = 0;
    NAME(take_weights)(s, weight, a->weight, r);
    VALUES_OF(a->weight_type, LINE(s->used, g), weight, LANES);
    NAME(find_read)(s, r + 1, read);
    s->chain -= 2 * LANES;
    if (read[0] < read[1] || NAME(has_bits)(s, r)) NAME(take_weights)(s, pass, a->weight_pass, r);
    if (!NAME(has_bits)(s, r)) {
        repeat_line(s->chain, read[0], read[1], pass, sizeof(pass));
        return;
    }
    NAME(take_weights)(s, next, a->next_weight, r);
    for (; t < s->times; t = stop) {
        const int now = bits[t];
        stop = now == (SHIFT_BIT | SWAP_BIT) ? t + 1 : end_of_stretch(bits, t, s->times);
        if (now & SWAP_BIT) {
            memcpy(weight, next, sizeof(weight));
            VALUES_OF(a->weight_type, LINE(s->later, g * NUMBERS_BLOCK + e->count), weight, LANES);
            e->at[e->count++] = (int32_t)t;
        }
        if (now & SHIFT_BIT) shift_chain((uint8_t *)LINE(s->chain, t + 2), stop - t, next, pass, sizeof(pass));
        else repeat_line(s->chain, t > read[0] ? t : read[0], stop < read[1] ? stop : read[1], pass, sizeof(pass));
    }
    NAME(put_weights)(s, a->weight, r, weight);
    NAME(put_weights)(s, a->next_weight, r, next);
    NAME(put_weights)(s, a->weight_pass, r, pass);
}

/* Bring a row's multipliers to time t; return when they change next. */
INLINE ptrdiff_t NAME(next_change)(NAME(Strip) *s, ptrdiff_t g, ptrdiff_t t) {
    NAME(Events) *const e = &s->events[g];
    if (e->done < e->count && e->at[e->done] == t)
        memcpy(LINE(s->used, g), LINE(s->later, g * NUMBERS_BLOCK + e->done++), LANES * sizeof(OPERAND));
    return e->done < e->count ? e->at[e->done] : s->times;
}

/* Clock the psums of row r, number g of its group, from time t to stop. */
static void NAME(mac_some)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g, ptrdiff_t t, ptrdiff_t stop) {
    ptrdiff_t end;
    for (; t < stop; t = end) {
        end = NAME(next_change)(s, g, t);
        if (end > stop) end = stop;
        NAME(mac_row)(s->array, LINE(s->sums, s->rows - r + t), end - t, NAME(values_of_row)(s, r) + t, LINE(s->used, g));
    }
}

/* Clock the psums of the group from row r on. On a diagonal rows are one time apart: where the block cuts it off, they
 * are clocked one by one. */
static void NAME(mac_group)(NAME(Strip) *s, ptrdiff_t r) {
    const ptrdiff_t last = s->times - (GROUP - 1);
    const OPERAND *values[GROUP];
    ptrdiff_t g, t, end, changes = 0;
    for (g = 0; g < GROUP; ++g) {
        values[g] = NAME(values_of_row)(s, r + g) + g;
        changes += s->events[g].count;
    }
    if (changes == 0) {
        NAME(mac_block)(s->array, LINE(s->sums, s->rows - r), s->times, values, s->used);
        return;
    }
    for (g = 1; g < GROUP; ++g) NAME(mac_some)(s, r + g, g, 0, g);
    for (t = 0; t < last; t = end) {
        end = last;
        for (g = 0; g < GROUP; ++g) {
            const ptrdiff_t change = NAME(next_change)(s, g, t + g) - g;
            if (change < end) end = change;
            values[g] = NAME(values_of_row)(s, r + g) + t + g;
        }
        NAME(mac_rows)(s->array, LINE(s->sums, s->rows - r + t), end - t, values, s->used);
    }
    for (g = 0; g < GROUP - 1; ++g) NAME(mac_some)(s, r + g, g, last + g, s->times);
}

/* Clock an edge, times `time` to `stop`; `psums` are the registers, the bottom row's first. */
static void NAME(clock_edge)(NAME(Strip) *s, ptrdiff_t time, ptrdiff_t stop, SUM *psums) {
    const NumbersRun *const a = s->array;
    const ptrdiff_t bytes = s->weight_bytes;
    ptrdiff_t r, l, low, high;
    uint16_t codes[LANES];
    int32_t on[LANES];
    for (r = 0; r < s->rows; ++r) {
        NAME(take_weights)(s, codes, a->weight, r);
        VALUES_OF(a->weight_type, LINE(s->weights, r), codes, LANES);
    }
    memset(LINE(psums, s->rows), 0, LANES * sizeof(SUM));
    for (; time < stop; ++time) {
        const ptrdiff_t stride = s->block->stride;
        const OPERAND *value = NAME(values_of_row)(s, s->rows - 1) + time - s->block->start;
        const uint8_t *bits = NAME(bits_of_row)(s, s->rows - 1) + time - s->block->start;
        SUM *sums = psums;
        NAME(find_lanes)(s, time, &low, &high, on);
        for (l = low; l < high; ++l) LINE(psums, s->rows)[l] = PORT(SUM, a->north_psum, time + l, s->col + l);
        /* From the bottom row on: rows above still hold their values from before the edge. */
        for (r = s->rows - 1; r >= 0; --r, sums += LANES, value -= stride, bits -= stride) {
            OPERAND *const weights = LINE(s->weights, r);
            for (l = low; *bits && l < high; ++l) {
                const ptrdiff_t at = r * a->cols + s->col + l;
                const uint16_t next = code_at(a->next_weight, at, bytes);
                if (*bits & SWAP_BIT) {
                    put_code(a->weight, at, bytes, next);
                    VALUES_OF(a->weight_type, weights + l, &next, 1);
                }
                if (*bits & SHIFT_BIT) {
                    const uint16_t above = r ? code_at(a->weight_pass, at - a->cols, bytes)
                                             : port_code(a->north_weight, time + l, s->col + l, bytes);
                    put_code(a->weight_pass, at, bytes, next);
                    put_code(a->next_weight, at, bytes, above);
                }
            }
            for (l = 0; l < LANES; ++l) {
                const SUM sum = ADD(a, sums[LANES + l], *value, weights[l]);
                sums[l] = on[l] ? sum : sums[l];
            }
        }
        for (l = low; l < high; ++l) BOTTOM(SUM, a, time + l, s->col + l) = psums[l];
    }
}

/* Clock the block, without edges. */
static void NAME(clock_times)(NAME(Strip) *s) {
    ptrdiff_t r, g, i, count, read[2];
    NAME(take_north)(s, LINE(s->sums, s->rows), 0, s->times);
    NAME(find_read)(s, 0, read);
    NAME(take_north_weights)(s, s->chain, read[0], read[1]);
    for (r = 0; r < s->rows; r += count) {
        count = s->rows - r >= GROUP && s->times >= GROUP ? GROUP : 1;
        for (g = 0; g < count; ++g) NAME(clock_weights)(s, r + g, g);
        if (count == GROUP) NAME(mac_group)(s, r);
        else NAME(mac_some)(s, r, 0, 0, s->times);
    }
    for (i = LANES; i < (s->rows + s->times) * LANES; ++i) s->sums[i] = FINISH(s->sums[i]);
    NAME(put_bottom)(s, LINE(s->sums, 1));
}

/* Clock strip `number` through the block. */
static void NAME(clock_strip)(void *context, ptrdiff_t number, int worker) {
    const NumbersBlock *const block = (const NumbersBlock *)context;
    void *const psum = block->array.psum;
    NAME(Strip) s;
    SUM *last;
    ptrdiff_t r;
    NAME(begin_strip)(&s, block, number, worker);
    last = LINE(s.sums, s.times);
    for (r = 0; r < s.rows; ++r)
        NAME(take_sums)(&s, LINE(s.sums, s.rows - 1 - r), NAME(sums_of_row)(&s, psum, r), 1);
    if (!block->moved) NAME(clock_edge)(&s, 1 - LANES, block->start, s.sums);
    if (s.times > 0) NAME(clock_times)(&s);
    if (block->is_last) NAME(clock_edge)(&s, block->stop, block->array.cycles, last);
    for (r = 0; r < s.rows; ++r) NAME(put_sums)(&s, NAME(sums_of_row)(&s, psum, r), LINE(last, s.rows - 1 - r), 1);
}

/* Output stationary */

/* Clock the sums of one row; line i of weights reaches it at time i. */
APART void NAME(hold_row)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *RESTRICT values,
                           const OPERAND *RESTRICT weights) {
    SUM sum[LANES];
    ptrdiff_t i;
    int l;
    (void)run;
    memcpy(sum, sums, sizeof(sum));
    for (i = 0; i < times; ++i, weights += LANES)
        for (l = 0; l < LANES; ++l) sum[l] = MAC(run, sum[l], values[i], weights[l]);
    memcpy(sums, sum, sizeof(sum));
}

/* Clock those of a group. */
APART void NAME(hold_rows)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *const *values,
                            const OPERAND *RESTRICT weights) {
#if defined(VEC)
    const OPERAND *const a0 = values[0], *const a1 = values[1], *const a2 = values[2], *const a3 = values[3];
    const OPERAND *const a4 = values[4], *const a5 = values[5], *const a6 = values[6], *const a7 = values[7];
    int lane;
    (void)run;
    for (lane = 0; lane < LANES; lane += VEC_LANES, sums += VEC_LANES) {
        VEC s0 = LOAD(sums), s1 = LOAD(LINE(sums, 1)), s2 = LOAD(LINE(sums, 2)), s3 = LOAD(LINE(sums, 3));
        VEC s4 = LOAD(LINE(sums, 4)), s5 = LOAD(LINE(sums, 5)), s6 = LOAD(LINE(sums, 6)), s7 = LOAD(LINE(sums, 7));
        const OPERAND *line = weights + lane;
        ptrdiff_t i;
        for (i = 0; i < times; ++i, line += LANES) {
            const VEC w = LOAD(line);
            s0 = VEC_MAC(s0, SPLAT(a0[i]), w);
            s1 = VEC_MAC(s1, SPLAT(a1[i]), w);
            s2 = VEC_MAC(s2, SPLAT(a2[i]), w);
            s3 = VEC_MAC(s3, SPLAT(a3[i]), w);
            s4 = VEC_MAC(s4, SPLAT(a4[i]), w);
            s5 = VEC_MAC(s5, SPLAT(a5[i]), w);
            s6 = VEC_MAC(s6, SPLAT(a6[i]), w);
            s7 = VEC_MAC(s7, SPLAT(a7[i]), w);
        }
        STORE(sums, s0), STORE(LINE(sums, 1), s1), STORE(LINE(sums, 2), s2), STORE(LINE(sums, 3), s3);
        STORE(LINE(sums, 4), s4), STORE(LINE(sums, 5), s5), STORE(LINE(sums, 6), s6), STORE(LINE(sums, 7), s7);
    }
#else
    int g;
    for (g = 0; g < GROUP; ++g) NAME(hold_row)(run, LINE(sums, g), times, values[g], weights);
#endif
}

/* The same so that each row sees times 0 .. times - 1, as mac_block. */
static void NAME(hold_block)(const NumbersRun *run, SUM *RESTRICT sums, ptrdiff_t times, const OPERAND *const *values,
                             const OPERAND *RESTRICT weights) {
    int g;
#if defined(VEC)
    const ptrdiff_t last = times - (GROUP - 1);
    int lane, i;
    for (lane = 0; lane < LANES; lane += VEC_LANES)
        UNROLLED for (g = 1; g < GROUP; ++g) {
            SUM *const row = LINE(sums, g) + lane;
            VEC sum = LOAD(row);
            UNROLLED for (i = g; i > 0; --i) sum = VEC_MAC(sum, SPLAT(values[g][-i]), LOAD(LINE(weights, -i) + lane));
            STORE(row, sum);
        }
    NAME(hold_rows)(run, sums, last, values, weights);
    for (lane = 0; lane < LANES; lane += VEC_LANES)
        UNROLLED for (g = 0; g < GROUP - 1; ++g) {
            SUM *const row = LINE(sums, g) + lane;
            VEC sum = LOAD(row);
            UNROLLED for (i = GROUP - 1; i > g; --i)
                sum = VEC_MAC(sum, SPLAT(values[g][times - i]), LOAD(LINE(weights, times - i) + lane));
            STORE(row, sum);
        }
#else
    for (g = 0; g < GROUP; ++g) NAME(hold_row)(run, LINE(sums, g), times, values[g] - g, LINE(weights, -g));
#endif
}

/* Note when swaps reach row r, number g of its group. */
static void NAME(find_swaps)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g) {
    const uint8_t *const bits = NAME(bits_of_row)(s, r);
    NAME(Events) *const e = &s->events[g];
    ptrdiff_t t = 0;
    e->count = e->done = 0;
    if (NAME(has_bits)(s, r))
        for (; t < s->times; t = bits[t] & SWAP_BIT ? t + 1 : end_of_stretch(bits, t, s->times))
            if (bits[t] & SWAP_BIT) e->at[e->count++] = (int32_t)t;
}

/* If a swap reaches row r at time t, take its sums and start the next ones from zero; return when the next one does. */
INLINE ptrdiff_t NAME(next_swap)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g, ptrdiff_t t) {
    NAME(Events) *const e = &s->events[g];
    SUM *const sums = LINE(s->sums, r), *const captured = LINE(s->captured, g * NUMBERS_BLOCK + e->done);
    int l;
    if (e->done < e->count && e->at[e->done] == t) {
        for (l = 0; l < LANES; ++l) captured[l] = FINISH(sums[l]);
        memset(sums, 0, LANES * sizeof(SUM));
        ++e->done;
    }
    return e->done < e->count ? e->at[e->done] : s->times;
}

/* Clock the sums of row r, number g of its group, from time t to stop. */
static void NAME(hold_some)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g, ptrdiff_t t, ptrdiff_t stop) {
    ptrdiff_t end;
    for (; t < stop; t = end) {
        end = NAME(next_swap)(s, r, g, t);
        if (end > stop) end = stop;
        NAME(hold_row)(s->array, LINE(s->sums, r), end - t, NAME(values_of_row)(s, r) + t,
                       LINE(s->weights, s->rows - r + t));
    }
}

/* Clock those of the group from row r on, as mac_group. */
static void NAME(hold_group)(NAME(Strip) *s, ptrdiff_t r) {
    const ptrdiff_t last = s->times - (GROUP - 1);
    const OPERAND *values[GROUP];
    ptrdiff_t g, t, end, swaps = 0;
    for (g = 0; g < GROUP; ++g) {
        values[g] = NAME(values_of_row)(s, r + g) + g;
        swaps += s->events[g].count;
    }
    if (swaps == 0) {
        NAME(hold_block)(s->array, LINE(s->sums, r), s->times, values, LINE(s->weights, s->rows - r));
        return;
    }
    for (g = 1; g < GROUP; ++g) NAME(hold_some)(s, r + g, g, 0, g);
    for (t = 0; t < last; t = end) {
        end = last;
        for (g = 0; g < GROUP; ++g) {
            const ptrdiff_t swap = NAME(next_swap)(s, r + g, g, t + g) - g;
            if (swap < end) end = swap;
            values[g] = NAME(values_of_row)(s, r + g) + t + g;
        }
        NAME(hold_rows)(s->array, LINE(s->sums, r), end - t, values, LINE(s->weights, s->rows - r + t));
    }
    for (g = 0; g < GROUP - 1; ++g) NAME(hold_some)(s, r + g, g, last + g, s->times);
}

/* Clock out and out_pass of row r, number g of its group, once its sums are. */
static void NAME(clock_out)(NAME(Strip) *s, ptrdiff_t r, ptrdiff_t g) {
    const NumbersRun *const a = s->array;
    const int has_bits = NAME(has_bits)(s, r);
    const uint8_t *const bits = NAME(bits_of_row)(s, r);
    const SUM *captured = LINE(s->captured, g * NUMBERS_BLOCK);
    SUM *const outs = r == s->rows - 1 ? s->outs : NULL;
    SUM out[LANES], pass[LANES];
    ptrdiff_t t = 0, stop, read[2];
    NAME(find_read)(s, r + 1, read);
    s->out_chain -= 2 * LANES;
    NAME(take_sums)(s, out, NAME(sums_of_row)(s, a->out, r), 1);
    NAME(take_sums)(s, pass, NAME(sums_of_row)(s, a->out_pass, r), 1);
    for (; t < s->times; t = stop) {
        const int now = has_bits ? bits[t] : 0;
        SUM *const arriving = LINE(s->out_chain, t + 2);
        stop = now & SWAP_BIT ? t + 1 : has_bits ? end_of_stretch(bits, t, s->times) : s->times;
        if (outs != NULL && now == SHIFT_BIT) memcpy(LINE(outs, t), arriving, (size_t)(stop - t) * sizeof(out));
        if (now & SHIFT_BIT) shift_chain((uint8_t *)arriving, stop - t, out, pass, sizeof(out));
        else repeat_line(s->out_chain, t > read[0] ? t : read[0], stop < read[1] ? stop : read[1], pass, sizeof(out));
        if (now & SWAP_BIT) {
            memcpy(out, captured, sizeof(out));
            captured += LANES;
        }
        if (outs != NULL && now != SHIFT_BIT) repeat_line(outs, t, stop, out, sizeof(out));
    }
    NAME(put_sums)(s, NAME(sums_of_row)(s, a->out, r), out, 1);
    NAME(put_sums)(s, NAME(sums_of_row)(s, a->out_pass, r), pass, 1);
}

/* Clock an edge; `first` is the line of the bottom row's weights. */
static void NAME(clock_held_edge)(NAME(Strip) *s, ptrdiff_t time, ptrdiff_t stop, ptrdiff_t first) {
    const NumbersRun *const a = s->array;
    SUM *const out = (SUM *)a->out, *const pass = (SUM *)a->out_pass;
    uint16_t *const north = LINE(s->codes, first + s->rows);
    ptrdiff_t r, l, low, high;
    int32_t on[LANES];
    memset(north, 0, LANES * sizeof(*north));
    for (; time < stop; ++time) {
        const ptrdiff_t stride = s->block->stride;
        const OPERAND *value = NAME(values_of_row)(s, s->rows - 1) + time - s->block->start;
        const uint8_t *bits = NAME(bits_of_row)(s, s->rows - 1) + time - s->block->start;
        SUM *sums = LINE(s->sums, s->rows - 1);
        uint16_t *codes = LINE(s->codes, first);
        OPERAND *weights = LINE(s->weights, first);
        NAME(find_lanes)(s, time, &low, &high, on);
        for (l = low; l < high; ++l) north[l] = port_code(a->north_weight, time + l, s->col + l, s->weight_bytes);
        VALUES_OF(a->weight_type, LINE(weights, s->rows), north, LANES);
        for (r = s->rows - 1; r >= 0; --r) {
            for (l = low; *bits && l < high; ++l) {
                const ptrdiff_t at = r * a->cols + s->col + l;
                const SUM above = r ? pass[at - a->cols] : PORT(SUM, a->north_psum, time + l, s->col + l);
                if (*bits & SHIFT_BIT) pass[at] = out[at], out[at] = above;
                if (*bits & SWAP_BIT) out[at] = sums[l], sums[l] = 0;
            }
            for (l = 0; l < LANES; ++l) {
                const SUM sum = ADD(a, sums[l], *value, weights[LANES + l]);
                sums[l] = on[l] ? sum : sums[l];
                weights[l] = on[l] ? weights[LANES + l] : weights[l];
                codes[l] = on[l] ? codes[LANES + l] : codes[l];
            }
            value -= stride, bits -= stride, sums -= LANES, codes += LANES, weights += LANES;
        }
        for (l = low; l < high; ++l) BOTTOM(SUM, a, time + l, s->col + l) = out[(s->rows - 1) * a->cols + s->col + l];
    }
}

/* Clock the block, without edges. */
static void NAME(clock_held_times)(NAME(Strip) *s) {
    ptrdiff_t r, g, i, count, read[2];
    NAME(take_north_weights)(s, LINE(s->codes, s->rows), 0, s->times);
    VALUES_OF(s->array->weight_type, LINE(s->weights, s->rows), LINE(s->codes, s->rows), s->times * LANES);
    NAME(find_read)(s, 0, read);
    NAME(take_north)(s, s->out_chain, read[0], read[1]);
    for (r = 0; r < s->rows; r += count) {
        count = s->rows - r >= GROUP && s->times >= GROUP ? GROUP : 1;
        for (g = 0; g < count; ++g) NAME(find_swaps)(s, r + g, g);
        if (count == GROUP) NAME(hold_group)(s, r);
        else NAME(hold_some)(s, r, 0, 0, s->times);
        for (g = 0; g < count; ++g) NAME(clock_out)(s, r + g, g);
    }
    for (i = 0; i < s->rows * LANES; ++i) s->sums[i] = FINISH(s->sums[i]);
    NAME(put_bottom)(s, s->outs);
}

/* Clock strip `number` of an output-stationary array through the block. */
static void NAME(clock_held_strip)(void *context, ptrdiff_t number, int worker) {
    const NumbersBlock *const block = (const NumbersBlock *)context;
    const NumbersRun *const a = &block->array;
    NAME(Strip) s;
    ptrdiff_t r;
    NAME(begin_strip)(&s, block, number, worker);
    for (r = 0; r < s.rows; ++r) {
        NAME(take_sums)(&s, LINE(s.sums, r), NAME(sums_of_row)(&s, a->psum, r), 1);
        NAME(take_weights)(&s, LINE(s.codes, s.rows - 1 - r), a->weight, r);
    }
    VALUES_OF(a->weight_type, s.weights, s.codes, s.rows * LANES);
    if (!block->moved) NAME(clock_held_edge)(&s, 1 - LANES, block->start, 0);
    if (s.times > 0) NAME(clock_held_times)(&s);
    if (block->is_last) NAME(clock_held_edge)(&s, block->stop, a->cycles, s.times);
    for (r = 0; r < s.rows; ++r) {
        NAME(put_sums)(&s, NAME(sums_of_row)(&s, a->psum, r), LINE(s.sums, r), 1);
        NAME(put_weights)(&s, a->weight, r, LINE(s.codes, s.times + s.rows - 1 - r));
    }
}

#undef LANES
#undef GROUP
#undef LINE
