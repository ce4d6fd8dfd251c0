"""When each instruction of a program runs: the recurrence of ``systolic.machine.timeline``, compiled.

The rows of each memory are cut into segments at every address at which some range begins or ends, so that a
range is a few segments, however many rows it has. A segment knows when its last writer completes, when its
last writer of the vector unit does, and when its last reader has read.
"""

from libc.stdint cimport int64_t, uint8_t


cdef enum:
    READ_HOST = 1
    WRITE_HOST = 2
    READ_WEIGHTS = 3
    MATMUL = 4
    CONVOLVE = 5
    ACTIVATE = 6
    VECTOR = 7
    HOST_CALL = 8
    SYNC = 10


cdef struct Segments:
    int64_t *written
    int64_t *by_vector
    int64_t *read


cdef inline int64_t latest(const int64_t *values, int64_t first, int64_t last) noexcept nogil:
    cdef int64_t found = 0, i
    for i in range(first, last):
        if values[i] > found:
            found = values[i]
    return found


cdef inline void raise_to(int64_t *values, int64_t first, int64_t last, int64_t cycle) noexcept nogil:
    cdef int64_t i
    for i in range(first, last):
        if values[i] < cycle:
            values[i] = cycle


def run(
    const uint8_t[::1] opcode,
    const int64_t[::1] busy,
    const uint8_t[::1] new_weights,
    const int64_t[::1] tile_dispatcher,
    const int64_t[::1] first_range,
    const uint8_t[::1] memory,
    const uint8_t[::1] is_write,
    const int64_t[::1] low,
    const int64_t[::1] high,
    int64_t[:, :, ::1] segments,
    int64_t rows,
    int64_t cols,
    bint double_buffered,
    int64_t tile_transfer,
    int64_t weight_latency,
    int64_t fifo_tiles,
    int64_t host_latency,
    int64_t activation_latency,
    int64_t issue,
    int64_t[:, ::1] times,
    int64_t[:, ::1] multiplies,
    int64_t[:, ::1] fetches,
):
    """Fill in the times of a checked program.

    Parameters
    ----------
    opcode, busy : (instructions,)
        `busy` is how long an instruction occupies its unit: a transfer, a stream, a vector operation.
    new_weights : (instructions,)
        Whether a multiply takes the next tile.
    tile_dispatcher : (tiles,)
        The instruction that asks for each tile.
    first_range : (instructions + 1,)
        Where the ranges of each instruction begin.
    memory, is_write, low, high : (ranges,)
        0 unified buffer, 1 accumulators, 2 host; segments `low` to `high` - 1.
    segments : (3, 3, most segments) of 0
        Per memory: last writer, last writer of the vector unit, last reader.
    times : (4, instructions)
        Out: dispatch, start, end of the time in its unit, completion.
    multiplies : (7, multiplies)
        Out: end of the stream before; the ends of the stalls for operands, accumulators and dispatch; shift
        start; swap; whether the stall for operands is for a vector unit's result.
    fetches : (3, tiles) of -1
        Out: start and arrival of each tile that is fetched, and the end of its shift if it is used.

    Returns
    -------
    int
        The last completion.
    """
    cdef Segments of[3]
    cdef int64_t i, r, d, start, end, complete, wait, cycle, count = opcode.shape[0], tiles = fetches.shape[1]
    cdef int64_t dispatch = 0, last = 0, host_in = 0, host_out = 0, vector = 0
    cdef int64_t stream_end = 0, new_swap = 0, drain_end = 0, operands, by_vector, accumulators, other
    cdef int64_t shift_start, swap, number = 0, used = 0, fetched = 0, fetch_end = 0
    cdef int op
    cdef bint multiply
    for i in range(3):
        of[i].written = &segments[i, 0, 0]
        of[i].by_vector = &segments[i, 1, 0]
        of[i].read = &segments[i, 2, 0]
    with nogil:
        for i in range(count):
            op = opcode[i]
            d = dispatch
            dispatch += issue
            multiply = op == MATMUL or op == CONVOLVE
            # What its ranges wait for; a multiply's accumulators are ordered by the pipeline.
            wait = operands = by_vector = accumulators = 0
            for r in range(first_range[i], first_range[i + 1]):
                cycle = latest(of[memory[r]].written, low[r], high[r])
                if not multiply:
                    if is_write[r]:
                        cycle = max(cycle, latest(of[memory[r]].read, low[r], high[r]))
                    wait = max(wait, cycle)
                elif is_write[r]:
                    accumulators = latest(of[memory[r]].read, low[r], high[r]) - rows
                else:
                    operands = cycle
                    by_vector = latest(of[memory[r]].by_vector, low[r], high[r])
            start = max(d, wait)
            if multiply:
                other = d
                if new_weights[i]:
                    if not double_buffered:
                        other = max(d, drain_end)
                    while fetched <= used:  # the tile that this multiply takes
                        fetch_end = max(times[0, tile_dispatcher[fetched]], fetch_end)
                        if fetched >= fifo_tiles:
                            fetch_end = max(fetch_end, fetches[2, fetched - fifo_tiles])
                        fetches[0, fetched] = fetch_end
                        fetch_end += tile_transfer
                        fetches[1, fetched] = fetch_end + weight_latency
                        fetched += 1
                    shift_start = max(max(other, fetches[1, used]), new_swap)
                    swap = fetches[2, used] = shift_start + rows
                    used += 1
                else:
                    shift_start = -1
                    swap = d
                swap = max(max(swap, stream_end), max(operands, accumulators))
                if new_weights[i]:
                    new_swap = swap
                multiplies[0, number] = stream_end
                multiplies[1, number] = operands
                multiplies[2, number] = accumulators
                multiplies[3, number] = other
                multiplies[4, number] = shift_start
                multiplies[5, number] = swap
                multiplies[6, number] = by_vector == operands and operands > 0
                number += 1
                start = swap
                end = stream_end = swap + busy[i]
                drain_end = end + rows + cols - 2
                complete = drain_end + 1
            elif op == READ_HOST:
                start = max(start, host_in)
                end = host_in = start + busy[i]
                complete = end + host_latency
            elif op == WRITE_HOST:
                start = max(start, host_out)
                end = host_out = start + busy[i]
                complete = end + host_latency
            elif op == ACTIVATE or op == VECTOR:
                start = max(start, vector)
                end = vector = start + busy[i]
                complete = end + activation_latency
            elif op == SYNC:
                start = d
                end = complete = max(d, last)
                dispatch = max(dispatch, complete)
            else:
                end = complete = start
            for r in range(first_range[i], first_range[i + 1]):
                if is_write[r]:
                    raise_to(of[memory[r]].written, low[r], high[r], complete)
                    if op == ACTIVATE or op == VECTOR:
                        raise_to(of[memory[r]].by_vector, low[r], high[r], complete)
                else:
                    raise_to(of[memory[r]].read, low[r], high[r], end)
            last = max(last, complete)
            times[0, i] = d
            times[1, i] = start
            times[2, i] = end
            times[3, i] = complete
        # Tiles that are fetched ahead and not used.
        while fetched < tiles and fetched - fifo_tiles < used:
            fetch_end = max(times[0, tile_dispatcher[fetched]], fetch_end)
            if fetched >= fifo_tiles:
                fetch_end = max(fetch_end, fetches[2, fetched - fifo_tiles])
            fetches[0, fetched] = fetch_end
            fetch_end += tile_transfer
            fetches[1, fetched] = fetch_end + weight_latency
            fetched += 1
    return last
