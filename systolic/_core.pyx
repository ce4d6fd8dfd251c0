"""The compiled array: every register of every PE, cycle by cycle; and exact products.

Registers of PE (r, c), one (rows, cols) array each::

    activation, shift, swap ->  +------------------------------+  -> activation, shift, swap
      (from the left PE)        |  next_weight --swap--> weight|      (to the right PE)
                                |  ^   |                  |    |
    weight_pass (from above) ---+--'   '-> weight_pass ---+----+--> weight_pass (to below)
    psum        (from above) ---+--> + weight*activation -+----+--> psum        (to below)
                                +------------------------------+

    weight       weight that multiplied on the last edge
    next_weight  shadow weight, loaded behind it
    weight_pass  delay of the shift chain, read by the PE below
    activation   activation that multiplied on the last edge
    psum         partial sum put out on the last edge
    shift, swap  control bits that arrived on the last edge

Order of events at a clock edge, everywhere at once, from the values before it:

1. activation, shift and swap arrive from the left PE (row r's west port), weight_pass and psum
   from the PE above (column c's north ports).
2. used = next_weight if swap arrives else weight; weight <- used.
3. If shift arrives: weight_pass <- next_weight, next_weight <- arriving weight.
4. psum <- arriving psum + used * arriving activation, modulo 2^32.
5. activation, shift, swap <- what arrived.

How the work is ordered. What travels right only slides: the value that arrives at column c on
cycle t is the row's input stream at t - c, so a row's stream, reversed, is a window that moves by
one element per cycle and no byte is copied. A psum moves down one row per cycle: on the
*diagonal* d = t - r the same sum passes one row after the other. The kernel keeps the sums of all
diagonals of a block of cycles for a strip of LANES columns and takes the rows from top to bottom,
four at a time; each step computes one PE's psum of one cycle. At the end of the block the
diagonals hold the psum register of each row and what left the bottom row on each cycle. Control is
taken as it comes, bit by bit: cycles on which a swap arrives anywhere in the strip are split off,
so no assumption is made about folds.
"""

from libc.stdint cimport int16_t, int32_t, uint8_t
from libc.string cimport memcpy

import numpy as np

cdef extern from "_lanes.h" nogil:
    enum: LANES
    enum: ROW_GROUP
    int SYSTOLIC_SSE2
    int32_t widen(uint8_t code, int is_signed)
    void mac_row(int32_t *psum, Py_ssize_t cycles, const int32_t *activation, const int32_t *weight)
    void mac_rows(int32_t *psum, Py_ssize_t cycles, const int32_t *const *activation, const int32_t *weight)
    void lane_weights(int32_t *to, const uint8_t *codes, int is_signed)
    void blend(uint8_t *to, const uint8_t *source, const uint8_t *mask)
    int any_lane(const uint8_t *mask)
    void shift_some(uint8_t *above, const uint8_t *shift, uint8_t *next_weight, uint8_t *weight_pass)
    void shift_none(uint8_t *above, Py_ssize_t cycles, const uint8_t *weight_pass)
    void shift_all(uint8_t *above, Py_ssize_t cycles, uint8_t *next_weight, uint8_t *weight_pass)

cdef extern from "_dot.h" nogil:
    enum: DOT_ROWS
    enum: DOT_COLS
    void dot_block(const int16_t *x, const int16_t *w, Py_ssize_t pairs, int32_t *sums)

# Cycles per block: the sums of a strip, BLOCK * LANES * 4 bytes, stay in the L1 cache.
cdef enum:
    BLOCK = 256

lanes = LANES
instruction_set = "sse2" if SYSTOLIC_SSE2 else "portable"


cdef struct Row:
    # Swaps of one row in one strip and block: weights[i] is in use from cycle at[i] on.
    Py_ssize_t count
    Py_ssize_t done
    int32_t *at
    int32_t *weights
    const int32_t *stream   # lane 0 activation of cycle 0; one cycle later is one element before


cdef inline Py_ssize_t _next_swap(Row *row, Py_ssize_t t, int32_t *used) noexcept nogil:
    # Bring `used` up to cycle t; return the first later cycle on which it changes, or -1.
    if row.done < row.count and row.at[row.done] == t:
        memcpy(used, row.weights + row.done * LANES, LANES * sizeof(int32_t))
        row.done += 1
    return row.at[row.done] if row.done < row.count else -1


cdef void _clock_row(Row *row, int32_t *used, int32_t *psum, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    # Clock one row from cycle start to stop; psum is the diagonal that arrives at cycle 0.
    cdef Py_ssize_t t = start, end
    while t < stop:
        end = _next_swap(row, t, used)
        if end < 0 or end > stop:
            end = stop
        mac_row(psum + t * LANES, end - t, row.stream - t, used)
        t = end


cdef void _clock_rows(Row *rows, int32_t *used, int32_t *psum, Py_ssize_t cycles) noexcept nogil:
    # Clock ROW_GROUP rows for a block. On a diagonal the rows are one cycle apart: those that
    # the block cuts off, at either end, are done row by row.
    cdef Py_ssize_t t = 0, end, change, last = cycles - (ROW_GROUP - 1)
    cdef Py_ssize_t g
    cdef const int32_t *streams[ROW_GROUP]
    for g in range(1, ROW_GROUP):
        _clock_row(&rows[g], used + g * LANES, psum - g * LANES, 0, g)
    while t < last:
        end = last
        for g in range(ROW_GROUP):
            change = _next_swap(&rows[g], t + g, used + g * LANES)
            if 0 <= change - g < end and change >= 0:
                end = change - g
            streams[g] = rows[g].stream - t - g
        mac_rows(psum + t * LANES, end - t, streams, used)
        t = end
    for g in range(ROW_GROUP - 1):
        _clock_row(&rows[g], used + g * LANES, psum - g * LANES, last + g, cycles)


cdef struct Chain:
    # What the shift chain of the row above put out: its weight_pass before each edge of the
    # block, or one value for all edges while nothing was shifted there.
    uint8_t *passed
    uint8_t constant[LANES]
    bint is_constant


cdef void _control_row(Row *row, Chain *above, Py_ssize_t cycles, const uint8_t *shifts, const uint8_t *swaps,
                       const int32_t *same_since, Py_ssize_t col, bint is_signed,
                       uint8_t *weight, uint8_t *next_weight, uint8_t *weight_pass) noexcept nogil:
    # Clock the weights of one row in one strip. The pointers stand at lane 0 of the last cycle:
    # streams run backwards, and so does time in them. Stretches of cycles on which all lanes see
    # the same control bits are taken at once.
    cdef Py_ssize_t t = 0, span, here
    cdef bint quiet = same_since[cycles - 1 + LANES - 1] <= col and not shifts[0] and not swaps[0]
    row.count = row.done = 0
    if quiet:
        above.is_constant = True
        memcpy(above.constant, weight_pass, LANES)
        return
    if above.is_constant:
        shift_none(above.passed, cycles, above.constant)
        above.is_constant = False
    while t < cycles:
        here = cycles - 1 - t
        # same_since counts from column 0.
        span = min(here + col - same_since[here + LANES - 1] + 1, cycles - t)
        if any_lane(swaps + here):
            # The swap takes next_weight as it stood before this edge's shift.
            blend(weight, next_weight, swaps + here)
            lane_weights(row.weights + row.count * LANES, weight, is_signed)
            row.at[row.count] = <int32_t>t
            row.count += 1
            span = min(span, 1)
        if span < 1:
            shift_some(above.passed + t * LANES, shifts + here, next_weight, weight_pass)
            span = 1
        elif shifts[here]:
            shift_all(above.passed + t * LANES, span, next_weight, weight_pass)
        else:
            shift_none(above.passed + t * LANES, span, weight_pass)
        t += span


cdef void _load_row(
    Py_ssize_t r, Py_ssize_t cycles,
    int32_t[:, ::1] streams, uint8_t[:, ::1] shifts, uint8_t[:, ::1] swaps, int32_t[:, ::1] same_since,
    uint8_t[:, ::1] activation, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap, bint is_signed,
) noexcept nogil:
    # Complete row r's streams with what its registers hold, and find for each element where the
    # run of equal control bits that it belongs to begins.
    cdef Py_ssize_t cols = activation.shape[1], c
    cdef Py_ssize_t end = cycles + (cols + LANES - 1) // LANES * LANES
    for c in range(cols):
        streams[r, cycles + c] = widen(activation[r, c], is_signed)
        shifts[r, cycles + c] = 0xFF if shift[r, c] else 0
        swaps[r, cycles + c] = 0xFF if swap[r, c] else 0
    for c in range(cycles + cols, end):
        streams[r, c] = 0
        shifts[r, c] = swaps[r, c] = 0
    same_since[r, 0] = 0
    for c in range(1, end):
        if shifts[r, c] == shifts[r, c - 1] and swaps[r, c] == swaps[r, c - 1]:
            same_since[r, c] = same_since[r, c - 1]
        else:
            same_since[r, c] = <int32_t>c


cdef void _clock_strip(
    Py_ssize_t col, Py_ssize_t valid, Py_ssize_t start, Py_ssize_t cycles,
    uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass, int32_t[:, ::1] psum,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom, bint is_signed,
    int32_t[:, ::1] streams, uint8_t[:, ::1] shifts, uint8_t[:, ::1] swaps, int32_t[:, ::1] same_since,
    int32_t[:, ::1] sums, uint8_t[:, ::1] passed, int32_t[:, ::1] swap_at, int32_t[:, :, ::1] swap_weights,
) noexcept nogil:
    # Clock the strip of LANES columns from col on, of which `valid` exist, through one block.
    cdef Py_ssize_t rows = weight.shape[0], r, c, g, t, group
    cdef Row group_rows[ROW_GROUP]
    cdef int32_t used[ROW_GROUP * LANES]
    # Lanes beyond the array hold zeros; what they compute is dropped.
    cdef uint8_t lane_weight_[LANES]
    cdef uint8_t lane_next[LANES]
    cdef uint8_t lane_pass[LANES]
    cdef Chain chain
    for c in range(LANES):
        lane_weight_[c] = lane_next[c] = lane_pass[c] = 0
    for g in range(ROW_GROUP):
        group_rows[g].at = &swap_at[g, 0]
        group_rows[g].weights = &swap_weights[g, 0, 0]
    chain.passed = &passed[0, 0]
    chain.is_constant = False
    for t in range(cycles):
        for c in range(valid):
            sums[rows - 1 + t, c] = north_psum[start + t, col + c]
            passed[t, c] = north_weight[start + t, col + c]
        for c in range(valid, LANES):
            sums[rows - 1 + t, c] = 0
            passed[t, c] = 0
    for r in range(rows - 1):
        memcpy(&sums[rows - 2 - r, 0], &psum[r, col], valid * sizeof(int32_t))
        for c in range(valid, LANES):
            sums[rows - 2 - r, c] = 0
    r = 0
    while r < rows:
        group = ROW_GROUP if rows - r >= ROW_GROUP and cycles >= ROW_GROUP else 1
        for g in range(group):
            memcpy(lane_weight_, &weight[r + g, col], valid)
            memcpy(lane_next, &next_weight[r + g, col], valid)
            memcpy(lane_pass, &weight_pass[r + g, col], valid)
            lane_weights(used + g * LANES, lane_weight_, is_signed)
            _control_row(&group_rows[g], &chain, cycles, &shifts[r + g, col], &swaps[r + g, col],
                         &same_since[r + g, col], col, is_signed, lane_weight_, lane_next, lane_pass)
            memcpy(&weight[r + g, col], lane_weight_, valid)
            memcpy(&next_weight[r + g, col], lane_next, valid)
            memcpy(&weight_pass[r + g, col], lane_pass, valid)
            group_rows[g].stream = &streams[r + g, col + cycles - 1]
        if group == 1:
            _clock_row(group_rows, used, &sums[rows - 1 - r, 0], 0, cycles)
        else:
            _clock_rows(group_rows, used, &sums[rows - 1 - r, 0], cycles)
        r += group
    for r in range(rows):
        memcpy(&psum[r, col], &sums[cycles + rows - 2 - r, 0], valid * sizeof(int32_t))
    for t in range(cycles):
        for c in range(valid):
            bottom[start + t, col + c] = sums[t, c]


def run(
    uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass,
    uint8_t[:, ::1] activation, int32_t[:, ::1] psum, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
    const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
    *, bint activation_signed, bint weight_signed, Py_ssize_t first_col, Py_ssize_t last_col,
):
    """Clock columns first_col..last_col-1 of the array, in place.

    The caller has checked everything: the seven registers are (rows, cols), the west ports
    (cycles, rows), the north ports and `bottom` (cycles, cols). Operands are passed as bytes with
    their signedness beside them, bools as bytes 0 and 1.

    Registers that travel down (weight, next_weight, weight_pass, psum) are brought up to date in
    the given columns only; those that travel right (activation, shift, swap) in all, since every
    column's depend on the ports alone. So threads may each clock their own columns over private
    copies of the latter three.

    Parameters
    ----------
    bottom : memoryview of int32, (cycles, cols)
        Receives the psum of the bottom row after each edge, in the given columns; any strides.
    first_col, last_col : int
        Columns to clock; first_col is a multiple of `lanes`.
    """
    cdef Py_ssize_t rows = weight.shape[0], cols = weight.shape[1]
    cdef Py_ssize_t total = west_activation.shape[0]
    cdef Py_ssize_t longest = min(total, BLOCK)
    cdef Py_ssize_t padded = (cols + LANES - 1) // LANES * LANES
    cdef Py_ssize_t start = 0, cycles, r, c, t, col
    if first_col % LANES or not 0 <= first_col <= last_col <= cols:
        raise ValueError(f"columns {first_col}..{last_col} do not start on a strip of {LANES} within {cols}")
    if total == 0:
        return
    # A row's streams, reversed: element cycles - 1 - t + c arrives at column c on cycle t.
    cdef int32_t[:, ::1] streams = np.empty((rows, longest + padded), dtype=np.int32)
    cdef uint8_t[:, ::1] shifts = np.empty((rows, longest + padded), dtype=np.uint8)
    cdef uint8_t[:, ::1] swaps = np.empty((rows, longest + padded), dtype=np.uint8)
    cdef int32_t[:, ::1] same_since = np.empty((rows, longest + padded), dtype=np.int32)
    # Diagonal d = t - r of a strip stands at index d + rows - 1.
    cdef int32_t[:, ::1] sums = np.empty((longest + rows - 1, LANES), dtype=np.int32)
    cdef uint8_t[:, ::1] passed = np.empty((longest, LANES), dtype=np.uint8)
    cdef int32_t[:, ::1] swap_at = np.empty((ROW_GROUP, longest), dtype=np.int32)
    cdef int32_t[:, :, ::1] swap_weights = np.empty((ROW_GROUP, longest, LANES), dtype=np.int32)
    with nogil:
        while start < total:
            cycles = min(longest, total - start)
            # The ports are read along both axes: 16 rows at a time stay in the cache.
            for c in range(0, rows, 16):
                for t in range(cycles):
                    for r in range(c, min(c + 16, rows)):
                        streams[r, cycles - 1 - t] = widen(west_activation[start + t, r], activation_signed)
                        shifts[r, cycles - 1 - t] = 0xFF if west_shift[start + t, r] else 0
                        swaps[r, cycles - 1 - t] = 0xFF if west_swap[start + t, r] else 0
            for r in range(rows):
                _load_row(r, cycles, streams, shifts, swaps, same_since, activation, shift, swap, activation_signed)
            col = first_col
            while col < last_col:
                _clock_strip(col, min(LANES, last_col - col), start, cycles, weight, next_weight, weight_pass, psum,
                             north_weight, north_psum, bottom, weight_signed,
                             streams, shifts, swaps, same_since, sums, passed, swap_at, swap_weights)
                col += LANES
            for r in range(rows):
                for c in range(cols):
                    activation[r, c] = <uint8_t>(streams[r, c] & 0xFF)
                    shift[r, c] = shifts[r, c] & 1
                    swap[r, c] = swaps[r, c] & 1
            start += cycles


def pack(const uint8_t[:, :] w, *, bint weight_signed):
    """Return w, (K, N), widened and laid out for :func:`multiply` (see ``_dot.h``)."""
    cdef Py_ssize_t k = w.shape[0], n = w.shape[1], p, i
    cdef Py_ssize_t pairs = (k + 1) // 2
    packed = np.zeros(((n + DOT_COLS - 1) // DOT_COLS, pairs, DOT_COLS, 2), dtype=np.int16)
    cdef int16_t[:, :, :, ::1] out = packed
    with nogil:
        for p in range(k):
            for i in range(n):
                out[i // DOT_COLS, p >> 1, i % DOT_COLS, p & 1] = <int16_t>widen(w[p, i], weight_signed)
    return packed


def multiply(const uint8_t[:, :] x, const int16_t[:, :, :, ::1] packed, int32_t[:, :] acc,
             *, bint activation_signed):
    """Compute acc = x @ w, (M, N), exactly and modulo 2^32, for a w packed by :func:`pack`."""
    cdef Py_ssize_t m = x.shape[0], k = x.shape[1], n = acc.shape[1]
    cdef Py_ssize_t pairs = (k + 1) // 2, row, col, i, j
    if acc.shape[0] != m or packed.shape[0] != (n + DOT_COLS - 1) // DOT_COLS or packed.shape[1] != pairs:
        raise ValueError("x, packed w and acc do not fit together")
    if m == 0 or n == 0 or k == 0:
        for i in range(m):
            for j in range(n):
                acc[i, j] = 0
        return
    cdef int16_t[:, ::1] wide = np.empty((DOT_ROWS, 2 * pairs), dtype=np.int16)
    cdef int32_t sums[DOT_ROWS * DOT_COLS]
    with nogil:
        row = 0
        while row < m:
            for i in range(DOT_ROWS):
                for j in range(2 * pairs):
                    wide[i, j] = <int16_t>widen(x[row + i, j], activation_signed) if row + i < m and j < k else 0
            col = 0
            while col < n:
                dot_block(&wide[0, 0], &packed[col // DOT_COLS, 0, 0, 0], pairs, sums)
                for i in range(min(DOT_ROWS, m - row)):
                    for j in range(min(DOT_COLS, n - col)):
                        acc[row + i, col + j] = sums[i * DOT_COLS + j]
                col += DOT_COLS
            row += DOT_ROWS
