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

1. `activation`, `shift` and `swap` arrive from the left neighbor (or row r's west ports); a weight arrives
   from the `weight_pass` of the PE above (or column c's north weight port); a psum arrives from the `psum`
   of the PE above (or the north psum port).
2. `used = next_weight` if `swap` arrives, else `weight`; then `weight <- used`.
3. If `shift` arrives: `weight_pass <- next_weight`, then `next_weight <- arriving weight`.
4. `psum <- arriving psum + used * arriving activation`.
5. `activation`, `shift` and `swap` take what arrived.

Psums wrap modulo 2^32. The rules are those of ``dataflows/weight_stationary.py``.
``kernels/array_reference.c`` is these five rules in C, PE by PE: read it first. This file, ``_streams.pxi``
and ``_strip.pxi`` compute the same registers in another order::

                   strip of 16 columns (lanes)
                 +----------------------+
      stream --> | row r      t         |  \\ pair: rows r and r + 1
      stream --> | row r + 1    t + 1   |  /                             group of 8 rows
          ...    |  ...           ...   |
                 +----------------------+
                  a diagonal: the psum that row r puts out on cycle t passes row r + 1 on cycle t + 1

block     up to 256 cycles, clocked for the whole array before the next block
stream    what arrives at a row from the left in a block, the newest value first. Values that move right
          are never copied: column c sees on cycle t what column 0 saw on cycle t - c, so the row's
          registers and its port values are one sequence, read one element earlier each cycle
strip     16 neighboring columns, clocked together through a block; a thread takes whole strips
lane      a column of a strip, an element of a vector
diagonal  cycle - row, along which a psum moves down. A strip's psums are kept by diagonal, so that a sum
          stays where it is while it passes one row after the other
group     8 rows, clocked along the diagonals while their multipliers stay in registers
pair      two rows of a group that share one stream of 32-bit elements (``kernels/array.h``); a row's half
          is the low or the high 16 bits of an element
stretch   cycles of equal control bits. Control is taken as it comes, bit by bit: in stretches where bits
          change seldom, else cycle by cycle. Nothing depends on how folds use it
wave      one swap that passes all lanes of a row within a block, one lane per cycle: the common case
chain     what the row above puts out for the weights below: its weight_pass before each edge

At the end of a block the diagonals hold the psum register of each row, and what left the bottom row on each
cycle. Threads first share the rows, to make the streams of a block, then the strips.
"""

from cpython.buffer cimport PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memchr, memcpy, memmove, memset

from systolic._kernels cimport in_use
from systolic._threads cimport borrow, give_back, hire, share, whole_lines
from systolic.kernels.array cimport (
    LANES, ROW_GROUP, ROW_PAIRS, TOGGLES, T_ACTIVATION, T_NEXT_WEIGHT, T_OUT, T_OUT_PASS, T_PSUM, T_SHIFT, T_SWAP,
    T_WEIGHT, T_WEIGHT_PASS, ArrayKernels, ArrayRun, BytePorts, LaneWeights, PsumPorts,
)
from systolic.kernels.control cimport (
    any_byte, any_lane, as_bits, as_masks, blend, copy_bytes, copy_ints, count_bits, find_last, find_set, find_stretches,
    shift_all, shift_none, shift_some,
)
from systolic.kernels.numbers cimport (
    BFLOAT_16, FLOAT_16, FLOAT_32, FLOAT_8_E4M3FN, FLOAT_8_E5M2, INTEGER_16, INTEGER_8, NUMBERS_LANES, SATURATE_32,
    SATURATE_64, UNSIGNED_16, UNSIGNED_8, WRAP_32, WRAP_64, Arithmetic, NumberPorts, NumbersBlock, NumbersKernels,
    NumbersRun, Stored, numbers_begin, numbers_next, numbers_place,
)
from systolic.kernels.pool cimport PoolTask

lanes = LANES


include "_streams.pxi"
include "_strip.pxi"
include "_held.pxi"


def run(
    uint8_t[:, ::1] weight, uint8_t[:, ::1] next_weight, uint8_t[:, ::1] weight_pass,
    uint8_t[:, ::1] activation, int32_t[:, ::1] psum, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
    const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_psum, int32_t[:, :] bottom,
    *, bint activation_signed, bint weight_signed, Py_ssize_t threads=1, int64_t[::1] toggles=None,
):
    """Clock the array, in place.

    The caller has checked everything: the seven registers are (rows, cols), the west ports
    (cycles, rows), the north ports and `bottom` (cycles, cols). Operands are passed as bytes with
    their signedness with them, bools as bytes 0 and 1.

    Parameters
    ----------
    bottom : memoryview of int32, (cycles, cols)
        Receives the psum of the bottom row after each edge; any strides.
    threads : int
        How many may work; values do not depend on it.
    toggles : memoryview of int64, (7,), optional
        Of each register, in the order of the arguments: receives how many bits changed at these edges, in all
        PEs.
    """
    cdef ArrayRun array
    cdef int64_t counted[TOGGLES]
    cdef const ArrayKernels *kernels = in_use().array if toggles is None else in_use().array.counting
    if west_activation.shape[0] == 0:
        return
    _moving_right(&array, activation, shift, swap, west_activation, west_shift, west_swap)
    memset(counted, 0, sizeof(counted))
    array.toggles = NULL if toggles is None else counted
    array.weight, array.next_weight, array.weight_pass = &weight[0, 0], &next_weight[0, 0], &weight_pass[0, 0]
    array.psum, array.out, array.out_pass = &psum[0, 0], NULL, NULL
    array.activation_signed, array.weight_signed = activation_signed, weight_signed
    array.north_weight, array.north_psum = _ports(north_weight), _sum_ports(north_psum)
    _put_bottom_at(&array, bottom)
    if kernels.clock != NULL:
        with nogil:
            kernels.clock(&array)
    else:
        _clock_blocks(&array, kernels, threads, _clock_strip, _work_bytes(array.rows))
    if toggles is not None:
        _put_toggles(toggles, counted, [
            T_WEIGHT, T_NEXT_WEIGHT, T_WEIGHT_PASS, T_ACTIVATION, T_PSUM, T_SHIFT, T_SWAP,
        ])


def run_output_stationary(
    uint8_t[:, ::1] activation, uint8_t[:, ::1] weight, int32_t[:, ::1] acc, int32_t[:, ::1] out,
    int32_t[:, ::1] out_pass, uint8_t[:, ::1] swap, uint8_t[:, ::1] drain,
    const uint8_t[:, :] west_activation, const uint8_t[:, :] west_swap, const uint8_t[:, :] west_drain,
    const uint8_t[:, :] north_weight, const int32_t[:, :] north_out, int32_t[:, :] bottom,
    *, bint activation_signed, bint weight_signed, Py_ssize_t threads=1, int64_t[::1] toggles=None,
):
    """Clock an output-stationary array, in place; arguments as for `run`.

    Parameters
    ----------
    bottom : memoryview of int32, (cycles, cols)
        Receives `out` of the bottom row after each edge; any strides.
    threads : int
        How many may work; values do not depend on it.
    toggles : memoryview of int64, (7,), optional
        As for `run`.
    """
    cdef ArrayRun array
    cdef int64_t counted[TOGGLES]
    cdef const ArrayKernels *kernels = in_use().array if toggles is None else in_use().array.counting
    if west_activation.shape[0] == 0:
        return
    _moving_right(&array, activation, drain, swap, west_activation, west_drain, west_swap)
    memset(counted, 0, sizeof(counted))
    array.toggles = NULL if toggles is None else counted
    array.weight, array.next_weight, array.weight_pass = &weight[0, 0], NULL, NULL
    array.psum, array.out, array.out_pass = &acc[0, 0], &out[0, 0], &out_pass[0, 0]
    array.activation_signed, array.weight_signed = activation_signed, weight_signed
    array.north_weight, array.north_psum = _ports(north_weight), _sum_ports(north_out)
    _put_bottom_at(&array, bottom)
    if kernels.clock_held != NULL:
        with nogil:
            kernels.clock_held(&array)
    else:
        _clock_blocks(&array, kernels, threads, _clock_held_strip, _held_bytes(array.rows))
    if toggles is not None:
        _put_toggles(toggles, counted, [T_ACTIVATION, T_WEIGHT, T_PSUM, T_OUT, T_OUT_PASS, T_SWAP, T_SHIFT])


cdef _put_toggles(int64_t[::1] toggles, const int64_t *counted, list registers):
    for place, register in enumerate(registers):
        toggles[place] = counted[<int>register]


def run_numbers(
    dict registers, dict ports, bottom, *, bint held, int arithmetic, int activation, int weight,
    int64_t low=0, int64_t high=0, Py_ssize_t threads=1,
):
    """Clock an array of another number format than 8-bit integers, in place.

    The caller has checked everything. Registers and ports have the names of a weight-stationary array, in an
    output-stationary one too: see ``kernels/numbers.h``.

    Parameters
    ----------
    registers : dict of str to ndarray, (rows, cols)
        Operands of `activation` and `weight`, sums as int32, int64 or float32, control as bool; C-contiguous.
    ports : dict of str to ndarray, (cycles, rows) or (cycles, cols)
        Of the same types; any strides.
    bottom : ndarray, (cycles, cols)
        Receives what leaves the bottom row after each edge; any strides.
    held : bool
        Whether it is output stationary.
    arithmetic : int
        A value of `ARITHMETICS`.
    activation, weight : int
        Values of `OPERAND_TYPES`.
    low, high : int
        Limits of sums that saturate.
    threads : int
        How many may work; values do not depend on it.
    """
    cdef NumbersRun array
    cdef const NumbersKernels *kernels = in_use().numbers
    array.rows, array.cols = registers["activation"].shape
    array.cycles = len(bottom)
    if array.cycles == 0:
        return
    array.activation_type, array.weight_type = <Stored>activation, <Stored>weight
    array.weight, array.activation = _register(registers, "weight"), _register(registers, "activation")
    array.next_weight, array.weight_pass = _register(registers, "next_weight"), _register(registers, "weight_pass")
    array.shift, array.swap = <uint8_t *>_register(registers, "shift"), <uint8_t *>_register(registers, "swap")
    array.psum, array.out = _register(registers, "psum"), _register(registers, "out")
    array.out_pass = _register(registers, "out_pass")
    array.west_activation = _number_ports(ports["activation"])
    array.west_shift, array.west_swap = _number_ports(ports["shift"]), _number_ports(ports["swap"])
    array.north_weight, array.north_psum = _number_ports(ports["weight"]), _number_ports(ports["psum"])
    cdef NumberPorts leaving = _number_ports(bottom)
    array.bottom, array.bottom_cycle, array.bottom_col = <void *>leaving.values, leaving.cycle, leaving.port
    array.arithmetic, array.low, array.high = <Arithmetic>arithmetic, low, high
    if kernels.make_streams != NULL:
        _clock_number_blocks(&array, kernels, kernels.clock_held_strip if held else kernels.clock_strip, threads)
        return
    with nogil:
        if held:
            kernels.clock_held(&array)
        else:
            kernels.clock(&array)


ARITHMETICS = {
    ("int32", "wrap"): WRAP_32, ("int64", "wrap"): WRAP_64, ("int32", "saturate"): SATURATE_32,
    ("int64", "saturate"): SATURATE_64, ("float32", "wrap"): FLOAT_32,
}

OPERAND_TYPES = {
    "int8": INTEGER_8, "uint8": UNSIGNED_8, "int16": INTEGER_16, "uint16": UNSIGNED_16, "bfloat16": BFLOAT_16,
    "float16": FLOAT_16, "float8_e4m3fn": FLOAT_8_E4M3FN, "float8_e5m2": FLOAT_8_E5M2,
}


cdef NumberPorts _number_ports(values):
    # Buffers without their format, which types of ml_dtypes do not have.
    cdef NumberPorts ports
    cdef Py_buffer view
    PyObject_GetBuffer(values, &view, PyBUF_STRIDED_RO)
    ports.values = view.buf
    ports.cycle, ports.port = view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
    PyBuffer_Release(&view)
    return ports


cdef void *_register(dict registers, str name):
    return <void *>_number_ports(registers[name]).values if name in registers else NULL


cdef int _clock_number_blocks(
    const NumbersRun *array, const NumbersKernels *kernels, PoolTask clock_strip, Py_ssize_t threads
) except -1:
    # Clock the array block by block, as _clock_blocks.
    cdef NumbersBlock block
    cdef Py_ssize_t parts = (array.rows + NUMBERS_LANES - 1) // NUMBERS_LANES
    cdef Py_ssize_t strips = (array.cols + NUMBERS_LANES - 1) // NUMBERS_LANES
    cdef bint is_long = array.cycles * array.rows * array.cols >= LONG_PE_CYCLES
    cdef int workers = hire(min(threads, max(parts, strips)))
    cdef size_t size
    cdef uint8_t *memory
    block.array = array[0]
    size = numbers_begin(&block)
    memory = borrow(workers * block.work_bytes + size, &size)
    if memory == NULL:
        raise MemoryError()
    with nogil:
        numbers_place(&block, memory, workers)
        while numbers_next(&block):
            share(kernels.make_streams, &block, parts, workers, is_long)
            share(clock_strip, &block, strips, workers, is_long)
        give_back(memory, size)
    return 0


cdef _moving_right(
    ArrayRun *array, uint8_t[:, ::1] activation, uint8_t[:, ::1] shift, uint8_t[:, ::1] swap,
    const uint8_t[:, :] west_activation, const uint8_t[:, :] west_shift, const uint8_t[:, :] west_swap,
):
    array.rows, array.cols, array.cycles = activation.shape[0], activation.shape[1], west_activation.shape[0]
    array.activation, array.shift, array.swap = &activation[0, 0], &shift[0, 0], &swap[0, 0]
    array.west_activation = _ports(west_activation)
    array.west_shift, array.west_swap = _ports(west_shift), _ports(west_swap)


cdef _put_bottom_at(ArrayRun *array, int32_t[:, :] bottom):
    array.bottom = &bottom[0, 0]
    array.bottom_cycle = bottom.strides[0] // <Py_ssize_t>sizeof(int32_t)
    array.bottom_col = bottom.strides[1] // <Py_ssize_t>sizeof(int32_t)


cdef PsumPorts _sum_ports(const int32_t[:, :] values):
    cdef PsumPorts ports
    ports.values = &values[0, 0]
    ports.cycle = values.strides[0] // <Py_ssize_t>sizeof(int32_t)
    ports.port = values.strides[1] // <Py_ssize_t>sizeof(int32_t)
    return ports


cdef BytePorts _ports(const uint8_t[:, :] values):
    cdef BytePorts ports
    ports.values, ports.cycle, ports.port = &values[0, 0], values.strides[0], values.strides[1]
    return ports


cdef int _clock_blocks(
    const ArrayRun *array, const ArrayKernels *kernels, Py_ssize_t threads, PoolTask clock_strip, size_t work_bytes
) except -1:
    # Clock the array block by block, by a function that clocks a strip with so much memory.
    cdef Clock clock
    cdef Py_ssize_t total = array.cycles, most = min(total, BLOCK)
    cdef Py_ssize_t parts = _parts(array), strips = _strips(array)
    cdef size_t size, streams = whole_lines(_stream_bytes(array, most))
    cdef bint is_long = total * array.rows * array.cols >= LONG_PE_CYCLES
    clock.array, clock.kernels = array[0], kernels
    clock.workers = hire(min(threads, max(parts, strips)))
    clock.work_bytes = work_bytes
    clock.memory = borrow(clock.workers * clock.work_bytes + streams + _count_bytes(array), &size)
    if clock.memory == NULL:
        raise MemoryError()
    with nogil:
        _place_streams(&clock, most)
        _place_counters(&clock, clock.memory + clock.workers * clock.work_bytes + streams)
        clock.start = 0
        while clock.start < total:
            _begin_block(&clock, min(most, total - clock.start))
            share(_make_streams, &clock, parts, clock.workers, is_long)
            share(clock_strip, &clock, strips, clock.workers, is_long)
            clock.start += clock.block.cycles
        _add_counters(&clock)
        give_back(clock.memory, size)
    return 0
