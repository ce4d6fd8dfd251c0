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
so no assumption is made about folds. Threads share the rows while the streams of a block are made, then
the strips.

The inner loops are C, compiled once per instruction set: ``kernels/array.h`` (cycle mode) and
``kernels/gemm.h`` (products) say what each promises, ``kernels/isa.h`` which is used.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDED, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memmove, memset

from systolic._pool cimport borrow, give_back, hire, share, whole_lines

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


include "_streams.pxi"
include "_strip.pxi"
include "_products.pxi"


def run(
    uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass,
    uint8_t[:, ::1] activation, int32_t[:, ::1] psum, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
    const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
    *, bint activation_signed, bint weight_signed, Py_ssize_t threads=1,
):
    """Clock the array, in place.

    The caller has checked everything: the seven registers are (rows, cols), the west ports
    (cycles, rows), the north ports and `bottom` (cycles, cols). Operands are passed as bytes with
    their signedness beside them, bools as bytes 0 and 1.

    Parameters
    ----------
    bottom : memoryview of int32, (cycles, cols)
        Receives the psum of the bottom row after each edge; any strides.
    threads : int
        How many may work; values do not depend on it.
    """
    cdef Clock clock
    cdef Py_ssize_t total = west_activation.shape[0], most, parts, strips
    cdef size_t size
    cdef bint is_long
    clock.rows, clock.cols = weight.shape[0], weight.shape[1]
    if total == 0:
        return
    parts = (clock.rows + ROWS_EACH - 1) // ROWS_EACH
    strips = (clock.cols + LANES - 1) // LANES
    clock.workers = hire(min(threads, max(parts, strips)))
    clock.activation_signed, clock.weight_signed = activation_signed, weight_signed
    clock.weight, clock.next_weight, clock.weight_pass = &weight[0, 0], &next_weight[0, 0], &weight_pass[0, 0]
    clock.activation, clock.psum = &activation[0, 0], &psum[0, 0]
    clock.shift, clock.swap = &shift[0, 0], &swap[0, 0]
    clock.west_activation = _port(west_activation)
    clock.west_shift, clock.west_swap = _port(west_shift), _port(west_swap)
    clock.north_weight = _port(north_weight)
    clock.north_psum = &north_psum[0, 0]
    clock.north_psum_cycle = north_psum.strides[0] // <Py_ssize_t>sizeof(int32_t)
    clock.north_psum_col = north_psum.strides[1] // <Py_ssize_t>sizeof(int32_t)
    clock.bottom = &bottom[0, 0]
    clock.bottom_cycle = bottom.strides[0] // <Py_ssize_t>sizeof(int32_t)
    clock.bottom_col = bottom.strides[1] // <Py_ssize_t>sizeof(int32_t)
    most = min(total, BLOCK)
    clock.work_bytes = _work_bytes(clock.rows)
    clock.memory = borrow(clock.workers * clock.work_bytes + _stream_bytes(clock.rows, clock.cols, most, total), &size)
    if clock.memory == NULL:
        raise MemoryError()
    with nogil:
        is_long = total * clock.rows * clock.cols >= LONG_PE_CYCLES
        _place_streams(&clock, most, total)
        clock.start = 0
        while clock.start < total:
            _begin(&clock, min(most, total - clock.start))
            share(_load_rows, &clock, parts, clock.workers, is_long)
            share(_clock_columns, &clock, strips, clock.workers, is_long)
            clock.start += clock.block.cycles
        give_back(clock.memory, size)


cdef Port _port(const uint8_t[:, :] values):
    cdef Port port
    port.values, port.cycle, port.port = &values[0, 0], values.strides[0], values.strides[1]
    return port


cdef void _clock_columns(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Strip `number` of the columns, through the block at hand.
    _clock_strip(<const Clock *>context, number * LANES, _work_of(<const Clock *>context, worker))
