"""Times of compiled programs from a summary of their layers: no instruction is made.

``compiler/summary.py`` describes the steps of a program in one list of integers, which depends on no size of
a machine. `expand` cuts them for a machine: chunks, tiles, and the rows that each reads and writes. `times`
goes through the result by the rules of ``_timeline``, which times instructions one by one and is the oracle.
Two things make it short. The rows that a product reads do not change while it runs, and all blocks of output
channels read the same ones: how long each tile waits for them is looked up once. A half of the
accumulators is always read and written from its first row on, in the order of time: one number says when it
was last written, one when it was last read.

A step is its kind and, behind it:

LOAD, STORE   instance, start, units
HOST          how many tensors it reads, their numbers, how many it writes, their numbers
OPERANDS      code of the types
BORDER        instance, start, units, images, rows of an image, how many pieces; of each piece its first row,
              its rows in an image, and the rows up to its last one
PRODUCT       x and y (instances), start and units of the step, rows from y's first to the first that is
              written, number of the operation, groups, channels of a group and output channels of a group,
              taps, how many axes; of each axis its size, step of reading and step of writing; of each tap
              the row of its first pixel
ROWS, CONCAT  y, start, stop, units, how many inputs, their instances
POOL          x and y, start, stop, units, images, rows of an image of x, rows written of an image, rows of an
              image of y, rows of y up to the last that is written, and the first one

An instance is rows of the unified buffer that hold a part of a tensor, as in ``compiler/schedule.py``.
"""

from libc.stdint cimport int64_t, uint8_t

import numpy as np


cdef enum:
    LOAD = 1
    STORE = 2
    HOST = 3
    OPERANDS = 4
    BORDER = 5
    PRODUCT = 6
    ROWS = 7
    CONCAT = 8
    POOL = 9

KINDS = {
    "load": LOAD, "store": STORE, "host": HOST, "operands": OPERANDS, "border": BORDER, "product": PRODUCT,
    "rows": ROWS, "concat": CONCAT, "pool": POOL,
}

COUNTS = (
    "instructions", "multiplies", "turns", "streamed", "added", "drained", "moved", "combined", "written",
    "functions", "tiles", "longest", "inputs", "most_tiles", "most_reads",
)
"""What `expand` counts, in this order: instructions but those that ask for weights; multiplies; chunks times
blocks; rows of multiplies, of those that add to sums, of ``Activate``, of transfers, read by ``Vector``, written
by both; at most so many functions; tiles in weight memory; the most rows of a multiply or vector operation,
inputs of a ``Vector``, tiles of a block, and ranges of x of a block."""

cdef enum:
    INSTRUCTIONS = 0
    MULTIPLIES = 1
    TURNS = 2
    STREAMED = 3
    ADDED = 4
    DRAINED = 5
    MOVED = 6
    COMBINED = 7
    WRITTEN = 8
    FUNCTIONS = 9
    TILES = 10
    LONGEST = 11
    INPUTS = 12
    MOST_TILES = 13
    MOST_READS = 14
    N_COUNTS = 15


include "_cuts.pxi"
include "_clock.pxi"


def expand(const int64_t[::1] steps, tensors, instances, int64_t half, int64_t operands, int64_t products):
    """Cut the steps of a program for a machine.

    Parameters
    ----------
    steps : (integers,)
        As above.
    tensors : 7 arrays of int64, (tensors,)
        Blocks, rows of a block, channels of a block, channels, rows of a result, first row in host memory, rows
        there.
    instances : 5 arrays of int64, (instances,)
        Tensor, start, stop, units, address.
    half : int
        Rows of half the accumulators; at least 1.
    operands : int
        Types that the array begins with.
    products : int
        How many operations are products.

    Returns
    -------
    work : ndarray of int64
        What `times` goes through.
    ub, host : ndarray of int64, (2, ranges)
        First rows and the rows behind the last ones, in the order in which `times` needs them.
    moved : ndarray of int64, (transfers,)
        Rows of each.
    counts : dict of str to int
        By the names of `COUNTS`.
    """
    if half < 1:
        raise ValueError(f"half must be at least 1, not {half}")
    cdef Lists out = Lists()
    cdef Sizes sizes = Sizes(tensors, instances, half)
    walk(out, sizes, steps, operands, np.full(products, -1, np.int64))
    out.allocate()
    walk(out, sizes, steps, operands, np.full(products, -1, np.int64))
    counts = dict(zip(COUNTS, np.asarray(out.counts).tolist(), strict=True))
    return np.asarray(out.work), np.asarray(out.ub), np.asarray(out.host), np.asarray(out.moved), counts


def times(
    const int64_t[::1] work,
    const int64_t[:, ::1] ub,
    int64_t ub_segments,
    const int64_t[:, ::1] host,
    int64_t host_segments,
    const int64_t[::1] busy,
    counts,
    int64_t rows,
    int64_t cols,
    bint double_buffered,
    int64_t factor,
    int64_t tile_transfer,
    int64_t weight_latency,
    int64_t fifo_tiles,
    int64_t ahead,
    int64_t host_latency,
    int64_t activation_latency,
    int64_t issue,
    int64_t passes,
):
    """Return the cycles of a program, by cause, and what depends on the order of its tiles.

    Parameters
    ----------
    work, counts
        As `expand` returned them.
    ub, ub_segments, host, host_segments : (2, ranges) and int
        As `expand` returned them, in segments instead of rows: memories are cut where a range begins or ends.
    busy : (transfers,)
        Cycles of each.
    rows ... passes : int
        Of the machine; `factor` is the cycles of a multiply for each row, `ahead` how many tiles before they are needed
        weights are asked for, `passes` the cycles of the vector unit for each row.

    Returns
    -------
    tuple of int
        Cycles in all, then in the order of the causes: active, weight stall, weight shift, RAW stall, input
        stall, accumulator stall, other stall; then tiles that are loaded, and bytes of their weights.
    """
    cdef Clock clock = Clock(work, ub, ub_segments, host, host_segments, busy, counts)
    clock.m = Machine(
        rows, cols, factor, tile_transfer, weight_latency, fifo_tiles, ahead, host_latency, activation_latency,
        issue, passes, double_buffered,
    )
    with nogil:
        clock.choose_orders()
        clock.run()
    return (clock.last, *[clock.causes[i] for i in range(7)], clock.tiles, clock.weight_bytes)


def first_fit(const int64_t[::1] rows, const int64_t[::1] starts, const int64_t[::1] stops, const int64_t[::1] order):
    """Give each of some rows the lowest address that is free all its time, one after the other.

    Parameters
    ----------
    rows, starts, stops : (count,)
        Rows that are in use from one step to another, both included.
    order : (count,)
        Which one is placed when.

    Returns
    -------
    list of int
    """
    cdef Py_ssize_t count = rows.shape[0], placed = 0, i, number, other, place
    cdef int64_t here
    cdef int64_t[::1] addresses = np.zeros(count, np.int64)
    cdef int64_t[::1] known = np.empty(count, np.int64)  # those that are placed, by their addresses
    for i in range(count):
        number, here, place = order[i], 0, 0
        for place in range(placed):
            other = known[place]
            if starts[other] > stops[number] or stops[other] < starts[number]:
                continue
            if addresses[other] - here >= rows[number]:
                break
            here = max(here, addresses[other] + rows[other])
        addresses[number] = here
        place = placed
        while place and addresses[known[place - 1]] > here:
            known[place] = known[place - 1]
            place -= 1
        known[place] = number
        placed += 1
    return np.asarray(addresses).tolist()
