"""The compiled array: every register of every PE, cycle by cycle.

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

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memmove, memset

from systolic._kernels cimport in_use
from systolic._threads cimport borrow, give_back, hire, share, whole_lines
from systolic.kernels.array cimport LANES, ROW_GROUP, ROW_PAIRS, ArrayKernels, LaneWeights
from systolic.kernels.control cimport (
    any_byte, any_lane, as_bits, as_masks, blend, copy_bytes, copy_ints, find_last, find_runs, find_set, shift_all,
    shift_none, shift_some,
)

lanes = LANES

cdef const ArrayKernels *K


include "_streams.pxi"
include "_strip.pxi"


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
    global K
    K = in_use().array
    cdef Clock clock
    cdef Py_ssize_t total = west_activation.shape[0], most, parts, strips
    cdef size_t size
    cdef bint is_long
    clock.kernels = K
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
