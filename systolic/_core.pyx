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
ROW_GROUP at a time; each step computes one PE's psum of one cycle. At the end of the block the
diagonals hold the psum register of each row and what left the bottom row on each cycle. Control is
taken as it comes, bit by bit: in stretches where it is alike for many cycles, else cycle by cycle,
so no assumption is made about folds.

The inner loops are C, compiled once per instruction set: ``kernels/array.h`` (cycle mode) and
``kernels/gemm.h`` (products) say what each promises, ``kernels/isa.h`` which is used.
"""

from libc.stdint cimport int32_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from threading import local

import numpy as np

cdef extern from "kernels/isa.h" nogil:
    unsigned systolic_isa_available()
    const char *systolic_isa_name(int isa)
    int systolic_isa()

cdef extern from "kernels/array.h" nogil:
    enum: LANES
    enum: ROW_GROUP
    enum: ROW_PAIRS
    ctypedef struct LaneWeights:
        uint8_t weight[LANES]
        uint8_t next_weight[LANES]
        uint8_t weight_pass[LANES]
    ctypedef struct ArrayKernels:
        void (*multipliers)(int32_t *to, const uint8_t *codes, int is_signed, int half) noexcept nogil
        void (*pair_up)(int32_t *pairs, const uint8_t *first, const uint8_t *second, Py_ssize_t length, int is_signed) noexcept nogil
        void (*mac_row)(int32_t *psums, Py_ssize_t cycles, const int32_t *pairs, const int32_t *multipliers, int half) noexcept nogil
        void (*mac_rows)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *multipliers) noexcept nogil
        void (*mac_block)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *multipliers) noexcept nogil
        void (*mac_swap)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *before,
                         const int32_t *after, Py_ssize_t at) noexcept nogil
        void (*any_weights)(Py_ssize_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *passed,
                            LaneWeights *weights) noexcept nogil
        void (*any_row)(int32_t *psums, Py_ssize_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                        const uint8_t *swaps, uint8_t *passed, LaneWeights *weights, int is_signed) noexcept nogil
        void (*reverse_ports)(uint8_t *to, Py_ssize_t to_stride, const uint8_t *source, Py_ssize_t t_stride,
                              Py_ssize_t r_stride, Py_ssize_t cycles, Py_ssize_t rows) noexcept nogil
        void (*put_bottom)(int32_t *bottom, Py_ssize_t t_stride, Py_ssize_t c_stride, int32_t *psums,
                           Py_ssize_t cycles, Py_ssize_t valid) noexcept nogil

cdef extern from "kernels/gemm.h" nogil:
    ctypedef struct Gemm:
        Py_ssize_t unpacked_rows
        size_t (*packed_bytes)(Py_ssize_t k, Py_ssize_t n) noexcept nogil
        void (*pack)(const uint8_t *b, Py_ssize_t b_stride, Py_ssize_t k, Py_ssize_t n, int a_signed, int b_signed,
                     void *packed) noexcept nogil
        size_t (*scratch_bytes)(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n) noexcept nogil
        void (*multiply)(const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, int a_signed,
                         int b_signed, const void *packed, int32_t *acc, Py_ssize_t acc_stride, int accumulate,
                         void *scratch) noexcept nogil
        void (*multiply_unpacked)(const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
                                  int a_signed, int b_signed, const uint8_t *b, Py_ssize_t b_stride, int32_t *acc,
                                  Py_ssize_t acc_stride, int accumulate, void *scratch) noexcept nogil

cdef extern from "kernels/select.h" nogil:
    const ArrayKernels *systolic_array_kernels(int isa)
    const Gemm *systolic_gemm(int isa)

cdef extern from "kernels/control.h" nogil:
    void copy_bytes(uint8_t *to, const uint8_t *source, Py_ssize_t count)
    void copy_ints(int32_t *to, const int32_t *source, Py_ssize_t count)
    void blend(uint8_t *to, const uint8_t *source, const uint8_t *mask)
    int any_lane(const uint8_t *mask)
    int any_byte(const uint8_t *bytes, Py_ssize_t count)
    void as_masks(uint8_t *to, const uint8_t *source, Py_ssize_t count)
    void as_bits(uint8_t *to, const uint8_t *masks, Py_ssize_t count)
    Py_ssize_t find_last(const uint8_t *masks, Py_ssize_t count)
    Py_ssize_t find_runs(int32_t *since, const uint8_t *shifts, const uint8_t *swaps, Py_ssize_t count)
    void shift_some(uint8_t *above, const uint8_t *shift, LaneWeights *weights)
    void find_set(int32_t *range, const uint8_t *masks, Py_ssize_t count)
    void shift_none(uint8_t *above, Py_ssize_t first, Py_ssize_t last, const uint8_t *weight_pass)
    void shift_all(uint8_t *above, Py_ssize_t cycles, LaneWeights *weights)

instruction_sets = tuple(
    systolic_isa_name(i).decode() for i in range(16) if systolic_isa_available() >> i & 1
)
if systolic_isa() < 0:
    import os

    raise ImportError(
        f"SYSTOLIC_ISA={os.environ.get('SYSTOLIC_ISA')} names no instruction set that this machine and this build "
        f"have: they have {', '.join(instruction_sets)}; set it to one of these or unset it for the best"
    )
instruction_set = systolic_isa_name(systolic_isa()).decode()
lanes = LANES


cdef const ArrayKernels *K = systolic_array_kernels(systolic_isa())
cdef const Gemm *G = systolic_gemm(systolic_isa())


def _use(str name=None) -> None:
    """Use the loops of another of `instruction_sets`, None: of `instruction_set`; for tests and comparisons."""
    global K, G
    cdef int isa
    name = name or instruction_set
    if name not in instruction_sets:
        raise ValueError(f"instruction set must be one of {', '.join(instruction_sets)}, not {name!r}")
    for isa in range(16):
        if systolic_isa_name(isa) != NULL and systolic_isa_name(isa).decode() == name:
            K, G = systolic_array_kernels(isa), systolic_gemm(isa)


# Cycles per block: the psums of a strip that a row group works on, BLOCK * LANES * 4 bytes, stay
# in the L1 cache; the streams of a block in L2.
# A row whose control changes more often than BUSY times in a block is taken cycle by cycle.
cdef enum:
    BLOCK = 256
    BUSY = 24
    # Up to this many elements of each stream a thread keeps its streams, a few MB, from call to call.
    KEPT_ELEMENTS = 1 << 19


cdef enum Control:
    QUIET   # no bit set anywhere
    RUNS    # bits change seldom
    BUSY_ROW


cdef struct Row:
    # Swaps of one row in one strip and block: multipliers[i] is in use from cycle at[i] on. A
    # single swap that passes all lanes within the block is a *wave*: it reaches lane c on cycle
    # wave + c, and multipliers[0] holds what all lanes then have.
    Py_ssize_t wave
    Py_ssize_t count
    Py_ssize_t done
    int32_t *at
    int32_t *multipliers
    const int32_t *pairs    # lane 0 on cycle 0, in this row's half; one cycle later is one before
    int half


cdef struct Block:
    # The streams of all rows for one block of cycles, reversed: element cycles - 1 - t + c
    # arrives at column c on cycle t. `width` is the length of a row of each.
    Py_ssize_t cycles
    Py_ssize_t width
    uint8_t *activations
    uint8_t *shifts         # 0 or 0xFF
    uint8_t *swaps
    int32_t *same_since     # where the run of equal control bits that an element is in begins
    uint8_t *control        # of each row: Control
    int32_t *shift_range    # of each row: the first and last element of `shifts` that is set
    int32_t *pairs          # kernels/array.h: two rows in one
    bint weight_signed


cdef struct Chain:
    # What the shift chain of the row above puts out: its weight_pass before each edge of the
    # block (FILLED); or one value for all edges, while nothing is shifted there (CONSTANT); or
    # what stands on the north ports (NORTH), not yet read.
    int state
    uint8_t *passed
    uint8_t constant[LANES]

cdef enum:
    NORTH, CONSTANT, FILLED


cdef inline Py_ssize_t _next_swap(Row *row, Py_ssize_t t, int32_t *used) noexcept nogil:
    # Bring `used` up to cycle t; return the first later cycle on which it changes, or -1.
    if row.done < row.count and row.at[row.done] == t:
        memcpy(used, row.multipliers + row.done * LANES, LANES * sizeof(int32_t))
        row.done += 1
    return row.at[row.done] if row.done < row.count else -1


cdef void _clock_row(Row *row, int32_t *used, int32_t *psums, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    # Clock one row from cycle start to stop; psums is the diagonal that arrives at cycle 0.
    cdef Py_ssize_t t = start, end
    while t < stop:
        end = _next_swap(row, t, used)
        if end < 0 or end > stop:
            end = stop
        K.mac_row(psums + t * LANES, end - t, row.pairs - t, used, row.half)
        t = end


cdef void _clock_rows(Row *rows, int32_t *used, int32_t *psums, Py_ssize_t cycles) noexcept nogil:
    # Clock ROW_GROUP rows for a block in which weights are swapped. On a diagonal the rows are
    # one cycle apart: those that the block cuts off, at either end, are done row by row.
    cdef Py_ssize_t t = 0, end, change, last = cycles - (ROW_GROUP - 1)
    cdef Py_ssize_t g
    cdef const int32_t *pairs[ROW_PAIRS]
    for g in range(1, ROW_GROUP):
        _clock_row(&rows[g], used + g * LANES, psums - g * LANES, 0, g)
    while t < last:
        end = last
        for g in range(ROW_GROUP):
            change = _next_swap(&rows[g], t + g, used + g * LANES)
            if change >= 0 and change - g < end:
                end = change - g
        for g in range(ROW_PAIRS):
            pairs[g] = rows[2 * g].pairs - t - 2 * g
        K.mac_rows(psums + t * LANES, end - t, pairs, used)
        t = end
    for g in range(ROW_GROUP - 1):
        _clock_row(&rows[g], used + g * LANES, psums - g * LANES, last + g, cycles)


cdef void _control_row(Row *row, Chain *above, const Block *block, Py_ssize_t r, Py_ssize_t col,
                       LaneWeights *weights) noexcept nogil:
    # Clock the weights of one row, in which control comes in runs, in one strip. Streams run
    # backwards, and so does time in them. Stretches of cycles on which all lanes see the same
    # control bits are taken at once. above.passed is filled.
    cdef Py_ssize_t t = 0, span, here, cycles = block.cycles
    # Only while a shift arrives in the row below does it read what this one passes on.
    cdef Py_ssize_t first = cycles - 1 + col - block.shift_range[2 * (r + 1) + 1]
    cdef Py_ssize_t last = cycles + col + LANES - 1 - block.shift_range[2 * (r + 1)]
    cdef const uint8_t *shifts = block.shifts + r * block.width + col
    cdef const uint8_t *swaps = block.swaps + r * block.width + col
    cdef const int32_t *same_since = block.same_since + r * block.width + col
    cdef Py_ssize_t swap = find_last(swaps, cycles + LANES - 1)
    row.wave = -1
    if swap >= LANES - 1 and swap < cycles and find_last(swaps, swap) < 0:
        row.wave = cycles - 1 - swap
    while t < cycles:
        here = cycles - 1 - t
        # same_since counts from column 0.
        span = min(here + col - same_since[here + LANES - 1] + 1, cycles - t)
        if t == row.wave:
            K.any_weights(LANES, shifts + here, swaps + here, above.passed + t * LANES, weights)
            K.multipliers(row.multipliers, weights.weight, block.weight_signed, row.half)
            t += LANES
            continue
        if any_lane(swaps + here):
            # The swap takes next_weight as it stood before this edge's shift.
            blend(weights.weight, weights.next_weight, swaps + here)
            K.multipliers(row.multipliers + row.count * LANES, weights.weight, block.weight_signed, row.half)
            row.at[row.count] = <int32_t>t
            row.count += 1
            if span > 1:
                span = 1
        if span < 1:
            # Until the run that ends within the lanes has left them, or a swap enters.
            span = 1
            if not any_lane(swaps + here):
                span = min(here + LANES - same_since[here + LANES - 1] + col, cycles - t)
                swap = find_last(swaps, here)
                if swap >= 0:
                    span = min(span, here - swap)
                K.any_weights(span, shifts + here, swaps + here, above.passed + t * LANES, weights)
            else:
                shift_some(above.passed + t * LANES, shifts + here, weights)
        elif shifts[here]:
            shift_all(above.passed + t * LANES, span, weights)
        else:
            shift_none(above.passed, max(t, first), min(t + span, last), weights.weight_pass)
        t += span


cdef void _expand_wave(Row *row, const int32_t *before) noexcept nogil:
    # Write a wave as LANES swaps, one lane after the other.
    cdef Py_ssize_t lane, j
    if row.wave < 0:
        return
    for j in range(LANES - 1, -1, -1):
        row.at[j] = <int32_t>(row.wave + j)
        for lane in range(LANES):
            row.multipliers[j * LANES + lane] = row.multipliers[lane] if lane <= j else before[lane]
    row.count = LANES
    row.wave = -1


cdef inline bint _is_quiet(const Block *block, Py_ssize_t r, Py_ssize_t col) noexcept nogil:
    # Whether no control bit reaches row r of the strip at col within the block.
    cdef Py_ssize_t at = r * block.width + col
    if block.control[r] == QUIET:
        return True
    return (
        block.control[r] == RUNS
        and block.same_since[at + block.cycles - 1 + LANES - 1] <= col
        and not block.shifts[at]
        and not block.swaps[at]
    )


cdef void _load_row(
    Block *block, Py_ssize_t r, Py_ssize_t cols,
    const uint8_t *activation, const uint8_t *shift, const uint8_t *swap,
) noexcept nogil:
    # Complete row r's streams, of which the ports' part stands, with what its registers hold,
    # and see how its control comes.
    cdef Py_ssize_t cycles = block.cycles, end = block.width, runs
    cdef uint8_t *activations = block.activations + r * end
    cdef uint8_t *shifts = block.shifts + r * end
    cdef uint8_t *swaps = block.swaps + r * end
    cdef int32_t *same_since = block.same_since + r * end
    memcpy(activations + cycles, activation, cols)
    memcpy(shifts + cycles, shift, cols)
    memcpy(swaps + cycles, swap, cols)
    memset(activations + cycles + cols, 0, end - cycles - cols)
    memset(shifts + cycles + cols, 0, end - cycles - cols)
    memset(swaps + cycles + cols, 0, end - cycles - cols)
    if not any_byte(shifts, end) and not any_byte(swaps, end):
        block.control[r] = QUIET
        block.shift_range[2 * r] = <int32_t>end
        block.shift_range[2 * r + 1] = -1
        return
    as_masks(shifts, shifts, end)
    as_masks(swaps, swaps, end)
    find_set(block.shift_range + 2 * r, shifts, end)
    runs = find_runs(same_since, shifts, swaps, end)
    block.control[r] = RUNS if runs <= BUSY else BUSY_ROW


cdef void _fill_chain(
    Chain *chain, Py_ssize_t cycles, const uint8_t[:, :] north_weight, Py_ssize_t start, Py_ssize_t col,
    Py_ssize_t valid,
) noexcept nogil:
    cdef Py_ssize_t t, c
    if chain.state == CONSTANT:
        shift_none(chain.passed, 0, cycles, chain.constant)
    elif chain.state == NORTH:
        memset(chain.passed, 0, cycles * LANES)
        for t in range(cycles):
            for c in range(valid):
                chain.passed[t * LANES + c] = north_weight[start + t, col + c]
    chain.state = FILLED


cdef void _clock_strip(
    const Block *block, Py_ssize_t col, Py_ssize_t valid, Py_ssize_t start,
    uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass, int32_t[:, ::1] psum,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
    int32_t *sums, uint8_t *passed, int32_t *swap_at, int32_t *swap_multipliers,
) noexcept nogil:
    # Clock the strip of LANES columns from col on, of which `valid` exist, through one block.
    # Diagonal d = t - r stands at sums[(d + rows - 1) * LANES].
    cdef Py_ssize_t rows = weight.shape[0], cycles = block.cycles, r, c, g, t, group, swaps, waves
    cdef int32_t *top = sums + (rows - 1) * LANES
    cdef Row group_rows[ROW_GROUP]
    cdef Row *row
    cdef int32_t used[ROW_GROUP * LANES]
    cdef int32_t after[ROW_GROUP * LANES]
    cdef const int32_t *pairs[ROW_PAIRS]
    # Lanes beyond the array hold zeros; what they compute is dropped.
    cdef LaneWeights weights
    cdef Chain chain
    cdef bint quiet
    memset(&weights, 0, sizeof(weights))
    memset(&chain, 0, sizeof(chain))
    chain.state = NORTH
    chain.passed = passed
    for g in range(ROW_GROUP):
        group_rows[g].at = swap_at + g * BLOCK
        group_rows[g].multipliers = swap_multipliers + g * BLOCK * LANES
    memset(sums, 0, (rows - 1 + cycles if valid < LANES else 0) * LANES * sizeof(int32_t))
    memset(top, 0, cycles * LANES * sizeof(int32_t))
    # Strides of 0 both: one value for all, which is 0 wherever folds are run.
    if north_psum.strides[0] or north_psum.strides[1] or north_psum[0, 0]:
        for t in range(cycles):
            for c in range(valid):
                top[t * LANES + c] = north_psum[start + t, col + c]
    for r in range(rows - 1):
        copy_ints(top - (r + 1) * LANES, &psum[r, col], valid)
    r = 0
    while r < rows:
        # A group begins with the upper row of a pair.
        group = ROW_GROUP if r % 2 == 0 and rows - r >= ROW_GROUP and cycles >= ROW_GROUP else 1
        quiet = True
        for g in range(group):
            quiet = quiet and _is_quiet(block, r + g, col)
            if block.control[r + g] == BUSY_ROW:
                group = 1
        swaps = waves = 0
        for g in range(group):
            row = &group_rows[g]
            row.count = row.done = 0
            row.wave = -1
            row.half = <int>((r + g) % 2)
            row.pairs = block.pairs + (r + g) // 2 * block.width + col + cycles - 1 + row.half
            copy_bytes(weights.weight, &weight[r + g, col], valid)
            K.multipliers(used + g * LANES, weights.weight, block.weight_signed, row.half)
            if quiet:
                continue
            copy_bytes(weights.next_weight, &next_weight[r + g, col], valid)
            copy_bytes(weights.weight_pass, &weight_pass[r + g, col], valid)
            if _is_quiet(block, r + g, col):
                chain.state = CONSTANT
                memcpy(chain.constant, weights.weight_pass, LANES)
                continue
            _fill_chain(&chain, cycles, north_weight, start, col, valid)
            if block.control[r + g] == BUSY_ROW:
                t = (r + g) * block.width + col + cycles - 1
                K.any_row(top - r * LANES, cycles, row.pairs, row.half, block.shifts + t, block.swaps + t,
                          passed, &weights, block.weight_signed)
            else:
                _control_row(row, &chain, block, r + g, col, &weights)
            swaps += row.count
            # One swap that runs along a diagonal through all rows of the group.
            if row.wave >= 0 and row.wave == group_rows[0].wave + g:
                waves += 1
            elif row.wave >= 0:
                swaps += 1
            copy_bytes(&weight[r + g, col], weights.weight, valid)
            copy_bytes(&next_weight[r + g, col], weights.next_weight, valid)
            copy_bytes(&weight_pass[r + g, col], weights.weight_pass, valid)
        if quiet:
            chain.state = CONSTANT
            copy_bytes(chain.constant, &weight_pass[r + group - 1, col], valid)
        if group == ROW_GROUP and waves == ROW_GROUP and not swaps:
            for g in range(ROW_PAIRS):
                pairs[g] = group_rows[2 * g].pairs - 2 * g
            for g in range(ROW_GROUP):
                memcpy(after + g * LANES, group_rows[g].multipliers, LANES * sizeof(int32_t))
            K.mac_swap(top - r * LANES, cycles, pairs, used, after, group_rows[0].wave)
            r += group
            continue
        for g in range(group):
            _expand_wave(&group_rows[g], used + g * LANES)
        if group == ROW_GROUP and swaps + waves:
            _clock_rows(group_rows, used, top - r * LANES, cycles)
        elif group == ROW_GROUP:
            for g in range(ROW_PAIRS):
                pairs[g] = group_rows[2 * g].pairs - 2 * g
            K.mac_block(top - r * LANES, cycles, pairs, used)
        elif block.control[r] != BUSY_ROW:
            _clock_row(group_rows, used, top - r * LANES, 0, cycles)
        r += group
    for r in range(rows):
        copy_ints(&psum[r, col], sums + (cycles + rows - 2 - r) * LANES, valid)
    K.put_bottom(&bottom[start, col], bottom.strides[0] // <Py_ssize_t>sizeof(int32_t),
                 bottom.strides[1] // <Py_ssize_t>sizeof(int32_t), sums, cycles, valid)


_kept = local()


cdef class Streams:
    """What arrives from the left in all rows for up to `span` cycles, as the inner loops read it.

    Threads share one: each loads some of the rows; when all are loaded, each clocks some of the
    columns.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    cycles : int
        At most how many are loaded at a time.
    """

    cdef Py_ssize_t rows, cols, cycles, padded, blocks
    # Of each block of cycles; 0: activations, 1: shifts, 2: swaps.
    cdef uint8_t[:, :, :, ::1] bytes
    cdef int32_t[:, :, ::1] same_since
    cdef int32_t[:, :, ::1] pairs
    cdef uint8_t[:, ::1] control
    cdef int32_t[:, :, ::1] shift_range
    cdef int32_t[::1] work      # of the one thread that keeps these streams

    def __init__(self, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t cycles):
        if rows < 1 or cols < 1 or cycles < 1:
            raise ValueError(f"rows, cols and cycles must be positive, not {rows}, {cols} and {cycles}")
        self.rows, self.cols, self.cycles = rows, cols, cycles
        self.padded = (cols + LANES - 1) // LANES * LANES
        self.blocks = (cycles + BLOCK - 1) // BLOCK
        blocks, width = self.blocks, min(cycles, BLOCK) + self.padded
        self.bytes = np.empty((blocks, 3, rows, width), dtype=np.uint8)
        self.same_since = np.empty((blocks, rows, width), dtype=np.int32)
        self.pairs = np.empty((blocks, (rows + 1) // 2, width), dtype=np.int32)
        self.control = np.empty((blocks, rows), dtype=np.uint8)
        self.shift_range = np.empty((blocks, rows + 1, 2), dtype=np.int32)

    cdef Block block(self, Py_ssize_t index, Py_ssize_t cycles) noexcept nogil:
        # One block of so many cycles in all.
        cdef Block block
        block.cycles = min(BLOCK, cycles - index * BLOCK)
        block.width = block.cycles + self.padded
        block.activations = &self.bytes[index, 0, 0, 0]
        block.shifts = &self.bytes[index, 1, 0, 0]
        block.swaps = &self.bytes[index, 2, 0, 0]
        block.same_since = &self.same_since[index, 0, 0]
        block.pairs = &self.pairs[index, 0, 0]
        block.control = &self.control[index, 0]
        block.shift_range = &self.shift_range[index, 0, 0]
        block.weight_signed = False
        return block

    cdef void load_rows(
        self, const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
        uint8_t[:, ::1] activation, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
        bint is_signed, Py_ssize_t start, Py_ssize_t cycles, Py_ssize_t first, Py_ssize_t last,
    ) noexcept nogil:
        cdef Py_ssize_t index, r
        cdef Block block
        for index in range((cycles + BLOCK - 1) // BLOCK):
            block = self.block(index, cycles)
            _reverse(block.activations, &block, west_activation, start, first, last)
            _reverse(block.shifts, &block, west_shift, start, first, last)
            _reverse(block.swaps, &block, west_swap, start, first, last)
            for r in range(first, last):
                _load_row(&block, r, self.cols, &activation[r, 0], &shift[r, 0], &swap[r, 0])
            if last == self.rows:
                # Below the last row nothing reads.
                block.shift_range[2 * last] = <int32_t>block.width
                block.shift_range[2 * last + 1] = -1
            for r in range(first, last, 2):
                K.pair_up(block.pairs + r // 2 * block.width, block.activations + r * block.width,
                          block.activations + (r + 1) * block.width if r + 1 < last else NULL, block.width, is_signed)
            for r in range(first, last):
                memcpy(&activation[r, 0], block.activations + r * block.width, self.cols)
                as_bits(&shift[r, 0], block.shifts + r * block.width, self.cols)
                as_bits(&swap[r, 0], block.swaps + r * block.width, self.cols)
            start += block.cycles

    cdef void clock_columns(
        self, uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass, int32_t[:, ::1] psum,
        const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
        bint weight_signed, Py_ssize_t start, Py_ssize_t cycles, Py_ssize_t first, Py_ssize_t last, int32_t *work,
    ) noexcept nogil:
        cdef Py_ssize_t index, col
        cdef int32_t *swap_at = work
        cdef int32_t *swap_multipliers = swap_at + ROW_GROUP * BLOCK
        cdef uint8_t *passed = <uint8_t *>(swap_multipliers + ROW_GROUP * BLOCK * LANES)
        cdef int32_t *sums = <int32_t *>(passed + BLOCK * LANES)
        cdef Block block
        # Psums begin on a cache line.
        sums += (-<uintptr_t>sums & 63) // sizeof(int32_t)
        for index in range((cycles + BLOCK - 1) // BLOCK):
            block = self.block(index, cycles)
            block.weight_signed = weight_signed
            col = first
            while col < last:
                _clock_strip(&block, col, min(LANES, last - col), start, weight, next_weight, weight_pass, psum,
                             north_weight, north_psum, bottom, sums, passed, swap_at, swap_multipliers)
                col += LANES
            start += block.cycles

    def load(
        self, const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
        uint8_t[:, ::1] activation, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
        *, bint activation_signed, Py_ssize_t first_row, Py_ssize_t last_row,
    ):
        """Read what the west ports bring to rows first_row..last_row-1; first_row is even.

        The registers that travel right, (rows, cols), are brought to the end of these cycles in
        these rows; they depend on the ports alone. last_row is even or the number of rows.
        """
        cdef Py_ssize_t cycles = west_activation.shape[0]
        if first_row % 2 or last_row % 2 and last_row != self.rows or not 0 <= first_row <= last_row <= self.rows:
            raise ValueError(f"rows {first_row}..{last_row} are not whole pairs of {self.rows}")
        if cycles > self.cycles:
            raise ValueError(f"{cycles} cycles, but there is room for {self.cycles}")
        with nogil:
            self.load_rows(west_activation, west_shift, west_swap, activation, shift, swap, activation_signed,
                           0, cycles, first_row, last_row)

    def clock(
        self, uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass, int32_t[:, ::1] psum,
        const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
        *, bint weight_signed, Py_ssize_t first_col, Py_ssize_t last_col,
    ):
        """Clock columns first_col..last_col-1 through the cycles that were loaded, as :func:`run`."""
        cdef Py_ssize_t cycles = north_weight.shape[0]
        _check_columns(first_col, last_col, self.cols)
        if cycles > self.cycles:
            raise ValueError(f"{cycles} cycles, but there is room for {self.cycles}")
        cdef int32_t[::1] work = _work(self.rows)
        with nogil:
            self.clock_columns(weight, next_weight, weight_pass, psum, north_weight, north_psum, bottom,
                               weight_signed, 0, cycles, first_col, last_col, &work[0])


cdef Streams _streams_of_this_thread(Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t cycles):
    # Memory that is new to a process costs more than what small calls compute in it.
    cdef Streams streams = getattr(_kept, "streams", None)
    if streams is None or streams.rows != rows or streams.cols != cols or streams.cycles < cycles:
        streams = Streams(rows, cols, cycles)
        streams.work = _work(rows)
        _kept.streams = streams if rows * (BLOCK + streams.padded) <= KEPT_ELEMENTS else None
    return streams


cdef object _check_columns(Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols):
    if first % LANES or not 0 <= first <= last <= cols:
        raise ValueError(f"columns {first}..{last} do not start on a strip of {LANES} within {cols}")


cdef int32_t[::1] _work(Py_ssize_t rows):
    # What the strip at hand needs: swaps and their multipliers, the chain, psums on a cache line.
    return np.empty(ROW_GROUP * BLOCK * (1 + LANES) + BLOCK * LANES // 4 + (BLOCK + rows) * LANES + 16, dtype=np.int32)


cdef void _reverse(uint8_t *to, const Block *block, const uint8_t[:, :] ports, Py_ssize_t start, Py_ssize_t first,
                   Py_ssize_t last) noexcept nogil:
    if first < last:
        K.reverse_ports(to + first * block.width, block.width, &ports[start, first], ports.strides[0],
                        ports.strides[1], block.cycles, last - first)


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
    the given columns only; those that travel right (activation, shift, swap) in all. Threads use
    :class:`Streams`.

    Parameters
    ----------
    bottom : memoryview of int32, (cycles, cols)
        Receives the psum of the bottom row after each edge, in the given columns; any strides.
    first_col, last_col : int
        Columns to clock; first_col is a multiple of `lanes`.
    """
    cdef Py_ssize_t rows = weight.shape[0], cols = weight.shape[1]
    cdef Py_ssize_t total = west_activation.shape[0], start = 0, cycles
    _check_columns(first_col, last_col, cols)
    if total == 0:
        return
    cdef Streams streams = _streams_of_this_thread(rows, cols, min(total, BLOCK))
    cdef int32_t[::1] work = streams.work
    with nogil:
        while start < total:
            cycles = min(BLOCK, total - start)
            streams.load_rows(west_activation, west_shift, west_swap, activation, shift, swap, activation_signed,
                              start, cycles, 0, rows)
            streams.clock_columns(weight, next_weight, weight_pass, psum, north_weight, north_psum, bottom,
                                  weight_signed, start, cycles, first_col, last_col, &work[0])
            start += cycles


def multiply(const uint8_t[:, :, :] a, const uint8_t[:, :, :] b, int32_t[:, :, :] acc,
             *, bint a_signed, bint b_signed):
    """Compute acc = a @ b for each group, exactly and modulo 2^32, with the processor's dot products.

    Parameters
    ----------
    a : memoryview of uint8, (groups, M, K)
        Codes; neighbours along K are neighbours in memory.
    b : memoryview of uint8, (groups, K, N)
        Codes; neighbours along N are neighbours in memory.
    acc : memoryview of int32, (groups, M, N)
        Receives the sums; neighbours along N are neighbours in memory.
    a_signed, b_signed : bool
        Whether codes stand for int8 or uint8.
    """
    cdef Py_ssize_t groups = a.shape[0], m = a.shape[1], k = a.shape[2], n = b.shape[2], g, i
    cdef Py_ssize_t acc_stride = acc.strides[1] // <Py_ssize_t>sizeof(int32_t)
    cdef size_t packed = 0, scratch
    cdef uint8_t *memory
    cdef uint8_t *aligned
    if b.shape[0] != groups or b.shape[1] != k or acc.shape[0] != groups or acc.shape[1] != m or acc.shape[2] != n:
        raise ValueError(
            f"shapes ({groups}, {m}, {k}) and ({b.shape[0]}, {b.shape[1]}, {n}) do not make "
            f"({acc.shape[0]}, {acc.shape[1]}, {acc.shape[2]})"
        )
    if k > 1 and a.strides[2] != 1 or n > 1 and (b.strides[2] != 1 or acc.strides[2] != sizeof(int32_t)):
        raise ValueError("rows of a, b and acc must be contiguous")
    if acc.strides[0] % <Py_ssize_t>sizeof(int32_t) or acc.strides[1] % <Py_ssize_t>sizeof(int32_t):
        raise ValueError("acc must have strides of whole sums")
    if groups == 0 or m == 0 or n == 0:
        return
    if k == 0:
        for g in range(groups):
            for i in range(m):
                memset(&acc[g, i, 0], 0, n * sizeof(int32_t))
        return
    if m > G.unpacked_rows:
        packed = (G.packed_bytes(k, n) + 63) // 64 * 64
    scratch = G.scratch_bytes(m, k, n)
    memory = <uint8_t *>malloc(packed + scratch + 64)
    if memory == NULL:
        raise MemoryError()
    aligned = memory + (-<uintptr_t>memory & 63)
    with nogil:
        for g in range(groups):
            if packed:
                G.pack(&b[g, 0, 0], b.strides[1], k, n, a_signed, b_signed, aligned)
                G.multiply(&a[g, 0, 0], a.strides[1], m, k, n, a_signed, b_signed, aligned,
                           &acc[g, 0, 0], acc_stride, False, aligned + packed)
            else:
                G.multiply_unpacked(&a[g, 0, 0], a.strides[1], m, k, n, a_signed, b_signed,
                                    &b[g, 0, 0], b.strides[1], &acc[g, 0, 0], acc_stride, False, aligned)
    free(memory)
