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

from threading import local as _local

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


include "_strip.pxi"

cdef class _Streams:
    # What arrives from the left in all rows in one block of cycles, as the inner loops read it.

    cdef Py_ssize_t rows, cols, cycles
    cdef uint8_t[:, :, ::1] bytes       # activations, shifts, swaps
    cdef int32_t[:, ::1] same_since
    cdef int32_t[:, ::1] pairs
    cdef uint8_t[::1] control
    cdef int32_t[:, ::1] shift_range

    def __init__(self, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t cycles):
        self.rows, self.cols, self.cycles = rows, cols, cycles
        width = cycles + (cols + LANES - 1) // LANES * LANES
        self.bytes = np.empty((3, rows, width), dtype=np.uint8)
        self.same_since = np.empty((rows, width), dtype=np.int32)
        self.pairs = np.empty(((rows + 1) // 2, width), dtype=np.int32)
        self.control = np.empty(rows, dtype=np.uint8)
        self.shift_range = np.empty((rows + 1, 2), dtype=np.int32)

    cdef Block load(
        self, const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
        uint8_t[:, ::1] activation, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
        bint is_signed, Py_ssize_t start, Py_ssize_t cycles,
    ) noexcept nogil:
        # Read cycles start..start + cycles - 1; bring the registers that travel right to their end.
        cdef Py_ssize_t rows = self.rows, cols = self.cols, r
        cdef Block block
        block.cycles = cycles
        block.width = cycles + (cols + LANES - 1) // LANES * LANES
        block.activations = &self.bytes[0, 0, 0]
        block.shifts = &self.bytes[1, 0, 0]
        block.swaps = &self.bytes[2, 0, 0]
        block.same_since = &self.same_since[0, 0]
        block.pairs = &self.pairs[0, 0]
        block.control = &self.control[0]
        block.shift_range = &self.shift_range[0, 0]
        block.weight_signed = False
        _reverse(block.activations, &block, west_activation, start)
        # What folds put on the control ports is the same for all rows, but for the skew: a row's
        # bits lie side by side, and most rows have none in most blocks.
        if 0 <= west_shift.strides[0] <= 1 and 0 <= west_swap.strides[0] <= 1:
            for r in range(rows):
                if (_is_zero(west_shift, start, cycles, r) and _is_zero(west_swap, start, cycles, r)
                        and not any_byte(&shift[r, 0], cols) and not any_byte(&swap[r, 0], cols)):
                    _load_quiet_row(&block, r, cols, &activation[r, 0])
                    continue
                _reverse(block.shifts + r * block.width, &block, west_shift[:, r:r + 1], start)
                _reverse(block.swaps + r * block.width, &block, west_swap[:, r:r + 1], start)
                _load_row(&block, r, cols, &activation[r, 0], &shift[r, 0], &swap[r, 0])
        else:
            _reverse(block.shifts, &block, west_shift, start)
            _reverse(block.swaps, &block, west_swap, start)
            for r in range(rows):
                _load_row(&block, r, cols, &activation[r, 0], &shift[r, 0], &swap[r, 0])
        # Below the last row nothing reads.
        block.shift_range[2 * rows] = <int32_t>block.width
        block.shift_range[2 * rows + 1] = -1
        for r in range(0, rows, 2):
            K.pair_up(block.pairs + r // 2 * block.width, block.activations + r * block.width,
                      block.activations + (r + 1) * block.width if r + 1 < rows else NULL, block.width, is_signed)
        for r in range(rows):
            memcpy(&activation[r, 0], block.activations + r * block.width, cols)
            if block.control[r] != QUIET:
                as_bits(&shift[r, 0], block.shifts + r * block.width, cols)
                as_bits(&swap[r, 0], block.swaps + r * block.width, cols)
        return block


# Memory that is new to a process costs more than what small calls compute in it: each thread keeps
# what it used last, up to a few MB.
_kept = _local()


cdef _Streams _kept_streams(Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t cycles):
    # This thread's own, for arrays of this size and at least so many cycles.
    cdef _Streams streams = getattr(_kept, "streams", None)
    if streams is None or streams.rows != rows or streams.cols != cols or streams.cycles < cycles:
        streams = _Streams(rows, cols, cycles)
        _kept.streams = streams if rows * (BLOCK + cols + LANES) <= KEPT_ELEMENTS else None
    return streams


cdef object _kept_work(Py_ssize_t rows):
    # What the strip at hand needs: swaps and their multipliers, the chain, psums on a cache line.
    size = ROW_GROUP * BLOCK * (1 + LANES) + BLOCK * LANES // 4 + (BLOCK + rows) * LANES + 16
    work = getattr(_kept, "work", None)
    if work is None or work.size < size:
        work = _kept.work = np.empty(size, dtype=np.int32)
    return work


cdef void _reverse(uint8_t *to, const Block *block, const uint8_t[:, :] ports, Py_ssize_t start) noexcept nogil:
    K.reverse_ports(to, block.width, &ports[start, 0], ports.strides[0], ports.strides[1], block.cycles, ports.shape[1])


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
    cdef Py_ssize_t total = west_activation.shape[0], start = 0, col
    if first_col % LANES or not 0 <= first_col <= last_col <= cols:
        raise ValueError(f"columns {first_col}..{last_col} do not start on a strip of {LANES} within {cols}")
    if total == 0:
        return
    cdef _Streams streams = _kept_streams(rows, cols, min(total, BLOCK))
    cdef int32_t[::1] work = _kept_work(rows)
    cdef int32_t *swap_at = &work[0]
    cdef int32_t *swap_multipliers = swap_at + ROW_GROUP * BLOCK
    cdef uint8_t *passed = <uint8_t *>(swap_multipliers + ROW_GROUP * BLOCK * LANES)
    cdef int32_t *sums = <int32_t *>(passed + BLOCK * LANES)
    cdef Block block
    sums += (-<uintptr_t>sums & 63) // sizeof(int32_t)
    with nogil:
        while start < total:
            block = streams.load(west_activation, west_shift, west_swap, activation, shift, swap, activation_signed,
                                 start, min(BLOCK, total - start))
            block.weight_signed = weight_signed
            col = first_col
            while col < last_col:
                _clock_strip(&block, col, min(LANES, last_col - col), start, weight, next_weight, weight_pass, psum,
                             north_weight, north_psum, bottom, sums, passed, swap_at, swap_multipliers)
                col += LANES
            start += block.cycles


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
