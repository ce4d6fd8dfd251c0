# One strip of LANES columns of an output-stationary array through one block of cycles; part of _core.pyx, which
# explains the words. Streams are those of the weight-stationary array, with `drain` for shift.

cdef struct Held:
    # The current strip, of which `valid` lanes are columns of the array. What the others compute is dropped.
    const Clock *clock
    Py_ssize_t col, valid
    uint8_t *codes          # the weight on each diagonal, LANES each, from diagonal -rows on
    int32_t *weights        # likewise, as multipliers; row r uses those of diagonal t - r on cycle t
    int32_t *captured       # of each row of the group, BLOCK * LANES: its sums before the edges with swaps
    int32_t *outs           # the bottom row's out after each edge
    uint8_t *no_swaps       # zeros, for rows that no swap reaches
    uint8_t *busy           # diagonals of the group on which a swap arrives in some row: 0 or 0xFF
    ChainState chain_state
    int32_t chain_value[LANES]      # where CONSTANT
    int32_t *chain                  # all its memory; two lines more for each row
    int32_t *above                  # where FILLED: out_pass above before each edge
    int32_t sums[ROW_GROUP * LANES]
    int64_t *toggles        # of this strip's columns; NULL if not counted


cdef size_t _held_bytes(Py_ssize_t rows) noexcept nogil:
    # Memory for a strip.
    cdef size_t lines = 5 * (BLOCK + rows) + (ROW_GROUP + 1) * BLOCK * 4 + 4 * (BLOCK + 2 * rows + 2)
    return whole_lines((lines + 2 * (BLOCK + LANES) // LANES + 1) * LANES)


cdef void _clock_held_strip(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Clock strip `number` through the current block.
    cdef const Clock *clock = <const Clock *>context
    cdef const ArrayRun *array = &clock.array
    cdef Held strip
    cdef Py_ssize_t r = 0, count, g
    _begin_held(&strip, clock, number * LANES, clock.memory + worker * clock.work_bytes)
    while r < array.rows:
        # A group begins with the upper row of a pair.
        count = ROW_GROUP if array.rows - r >= ROW_GROUP and clock.block.cycles >= ROW_GROUP else 1
        for g in range(count):
            memset(strip.sums + g * LANES, 0, LANES * sizeof(int32_t))
            copy_ints(strip.sums + g * LANES, array.psum + (r + g) * array.cols + strip.col, strip.valid)
        if count == ROW_GROUP:
            _hold_group(&strip, r)
        else:
            _hold_row(&strip, r, 0, 0, clock.block.cycles)
        for g in range(count):
            copy_ints(array.psum + (r + g) * array.cols + strip.col, strip.sums + g * LANES, strip.valid)
            _clock_out(&strip, r + g, strip.captured + g * BLOCK * LANES)
        r += count
    _end_held(&strip)


cdef void _begin_held(Held *strip, const Clock *clock, Py_ssize_t col, uint8_t *memory) noexcept nogil:
    cdef const ArrayRun *array = &clock.array
    cdef Py_ssize_t rows = array.rows, cycles = clock.block.cycles, r, line
    cdef BytePorts north = array.north_weight
    cdef int32_t times
    strip.clock, strip.col, strip.valid = clock, col, min(LANES, array.cols - col)
    strip.toggles = _strip_toggles(clock, col)
    strip.weights = <int32_t *>memory
    strip.captured = strip.weights + (BLOCK + rows) * LANES
    strip.outs = strip.captured + ROW_GROUP * BLOCK * LANES
    strip.chain = strip.outs + BLOCK * LANES
    strip.codes = <uint8_t *>(strip.chain + (BLOCK + 2 * rows + 2) * LANES)
    strip.no_swaps = strip.codes + (BLOCK + rows) * LANES
    strip.busy = strip.no_swaps + BLOCK + LANES
    strip.chain_state = NORTH
    memset(strip.no_swaps, 0, cycles + LANES)
    memset(strip.chain_value, 0, LANES * sizeof(int32_t))
    # Row r's register holds what stands on diagonal -1 - r.
    if strip.valid < LANES:
        memset(strip.codes, 0, rows * LANES)
    for r in range(rows):
        copy_bytes(strip.codes + (rows - 1 - r) * LANES, array.weight + r * array.cols + col, strip.valid)
    clock.kernels.take_ports(
        strip.codes + rows * LANES, north.values + clock.start * north.cycle + col * north.port, north.cycle,
        north.port, cycles, strip.valid)
    clock.kernels.widen(strip.weights, strip.codes, rows + cycles, array.weight_signed)
    if strip.toggles != NULL:
        # Diagonal after diagonal passes each row, one cycle later in the next one.
        for line in range(rows + cycles - 1):
            times = _times(line, rows, cycles)
            strip.toggles[T_WEIGHT] += clock.kernels.count_lines(strip.codes + line * LANES, 1, &times)


cdef void _end_held(Held *strip) noexcept nogil:
    # Store the weight registers, and what left the bottom row.
    cdef const Clock *clock = strip.clock
    cdef const ArrayRun *array = &clock.array
    cdef Py_ssize_t cycles = clock.block.cycles, r
    for r in range(array.rows):
        copy_bytes(array.weight + r * array.cols + strip.col,
                   strip.codes + (array.rows + cycles - 1 - r) * LANES, strip.valid)
    clock.kernels.put_bottom(
        array.bottom + clock.start * array.bottom_cycle + strip.col * array.bottom_col, array.bottom_cycle,
        array.bottom_col, strip.outs, cycles, strip.valid)


# Sums


cdef inline const int32_t *_held_pairs(const Held *strip, Py_ssize_t r) noexcept nogil:
    # Lane 0 of row r's pair stream on cycle 0, in its own half.
    cdef const Block *block = &strip.clock.block
    return block.pairs + r // 2 * block.pairs_stride + strip.col + block.cycles - 1 + r % 2


cdef inline const uint8_t *_held_swaps(const Held *strip, Py_ssize_t r) noexcept nogil:
    # Lane 0 of row r's swaps on cycle 0; NULL if none reaches the strip within the block.
    cdef const Block *block = &strip.clock.block
    if (
        block.control[r] == NO_BITS
        or block.swap_range[2 * r] >= strip.col + block.cycles + LANES - 1
        or block.swap_range[2 * r + 1] < strip.col
    ):
        return NULL
    return block.swaps + r * block.width + strip.col + block.cycles - 1


cdef void _hold_row(Held *strip, Py_ssize_t r, Py_ssize_t g, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    # Clock the sums of row r, number g of the group, from cycle start to stop.
    cdef const uint8_t *swaps = _held_swaps(strip, r)
    cdef const int32_t *weights = strip.weights + (strip.clock.array.rows + start - r) * LANES
    cdef int32_t *captured = NULL
    if swaps != NULL:
        swaps -= start
        captured = strip.captured + (g * BLOCK + start) * LANES
    strip.clock.kernels.hold_row(
        strip.sums + g * LANES, stop - start, _held_pairs(strip, r) - start, <int>(r % 2), weights, swaps, captured,
        strip.toggles)


cdef void _hold_group(Held *strip, Py_ssize_t r) noexcept nogil:
    # Clock the sums of ROW_GROUP rows from row r on: along the diagonals, where no swap arrives all at once.
    cdef const ArrayKernels *kernels = strip.clock.kernels
    cdef Py_ssize_t cycles = strip.clock.block.cycles, last = cycles - (ROW_GROUP - 1), t = 0, end, g
    cdef const int32_t *weights = strip.weights + (strip.clock.array.rows - r) * LANES
    cdef const int32_t *pairs[ROW_PAIRS]
    cdef const int32_t *first[ROW_PAIRS]
    cdef const uint8_t *swaps[ROW_GROUP]
    cdef const uint8_t *later[ROW_GROUP]
    cdef int32_t *captured[ROW_GROUP]
    cdef const void *found
    cdef bint any_swap = False
    for g in range(ROW_GROUP):
        swaps[g] = _held_swaps(strip, r + g)
        any_swap = any_swap or swaps[g] != NULL
    for g in range(ROW_PAIRS):
        first[g] = _held_pairs(strip, r + 2 * g) - 2 * g
    if not any_swap:
        kernels.hold_block(strip.sums, cycles, first, weights, strip.toggles)
        return
    memset(strip.busy, 0, last)
    for g in range(ROW_GROUP):
        if swaps[g] != NULL:
            _note_swaps(strip, r + g, swaps[g] - (cycles - 1), g)
    # On a diagonal rows are one cycle apart: where the block cuts a diagonal off, rows are clocked one by one.
    for g in range(1, ROW_GROUP):
        _hold_row(strip, r + g, g, 0, g)
    while t < last:
        found = memchr(strip.busy + t, 0 if strip.busy[t] else 0xFF, last - t)
        end = last if found == NULL else <const uint8_t *>found - strip.busy
        for g in range(ROW_PAIRS):
            pairs[g] = first[g] - t
        if strip.busy[t]:
            for g in range(ROW_GROUP):
                later[g] = swaps[g]
                if swaps[g] == NULL:
                    later[g] = strip.no_swaps + cycles - 1
                later[g] -= t + g
                captured[g] = strip.captured + (g * BLOCK + t + g) * LANES
            kernels.hold_swaps(strip.sums, end - t, pairs, weights + t * LANES, later, captured, strip.toggles)
        else:
            kernels.hold_rows(strip.sums, end - t, pairs, weights + t * LANES, strip.toggles)
        t = end
    for g in range(ROW_GROUP - 1):
        _hold_row(strip, r + g, g, last + g, cycles)


cdef void _note_swaps(Held *strip, Py_ssize_t r, const uint8_t *swaps, Py_ssize_t g) noexcept nogil:
    # Note the diagonals on which a swap arrives in row r: its element i arrives in lane c on cycle cycles - 1 - i + c.
    cdef const Block *block = &strip.clock.block
    cdef Py_ssize_t cycles = block.cycles, last = cycles - (ROW_GROUP - 1), start, stop
    cdef Py_ssize_t i = min(block.swap_range[2 * r + 1] - strip.col, cycles + LANES - 2)
    cdef Py_ssize_t end = max(block.swap_range[2 * r] - strip.col, 0)
    cdef const int32_t *same_since = block.same_since + r * block.width + strip.col     # counts from column 0
    while i >= end:
        if not swaps[i]:
            # To the end of the stretch before.
            i = same_since[i] - strip.col - 1 if block.control[r] == FEW_CHANGES else i - 1
            continue
        start, stop = max(cycles - 1 - i - g, 0), min(cycles - 1 - i - g + LANES, last)
        if start < stop:
            memset(strip.busy + start, 0xFF, stop - start)
        i -= 1


# The chain of finished sums


cdef void _clock_out(Held *strip, Py_ssize_t r, const int32_t *captured) noexcept nogil:
    # Clock out and out_pass of row r. Element here + c of its control streams arrives in lane c on cycle t; the chain
    # becomes this row's: two lines further down in the same memory, for it delays by two edges. So what passes a
    # row on successive edges with drains stays where it is.
    cdef const Clock *clock = strip.clock
    cdef const ArrayRun *array = &clock.array
    cdef const Block *block = &clock.block
    cdef Py_ssize_t at = r * array.cols + strip.col, cycles = block.cycles, t = 0, here, alike, i
    cdef Py_ssize_t stream = r * block.width + strip.col
    cdef int32_t *outs = strip.outs if r == array.rows - 1 else NULL
    cdef int32_t out[LANES]
    cdef int32_t out_pass[LANES]
    cdef int32_t *above
    cdef const uint8_t *drains = block.shifts + stream
    cdef const uint8_t *swaps = block.swaps + stream
    cdef const int32_t *same_since = block.same_since + r * block.width
    # The row below reads the chain only while a drain arrives there.
    cdef Py_ssize_t read = max(cycles - 1 + strip.col - block.shift_range[2 * r + 3], 0)
    cdef Py_ssize_t read_end = min(cycles + strip.col + LANES - 1 - block.shift_range[2 * r + 2], cycles)
    memset(out, 0, sizeof(out))
    memset(out_pass, 0, sizeof(out_pass))
    copy_ints(out, array.out + at, strip.valid)
    copy_ints(out_pass, array.out_pass + at, strip.valid)
    if block.control[r] == NO_BITS or (
        block.control[r] == FEW_CHANGES
        and same_since[strip.col + cycles - 1 + LANES - 1] <= strip.col
        and not drains[0]
        and not swaps[0]
    ):
        strip.chain_state = CONSTANT
        memcpy(strip.chain_value, out_pass, sizeof(out_pass))
        if outs != NULL:
            _repeat(outs, 0, cycles, out)
        return
    _fill_out_chain(strip, r)
    above = strip.above
    while t < cycles:
        here = cycles - 1 - t
        # Cycles from t on with the bits of cycle t in all lanes; less than 1 if lanes differ on cycle t.
        alike = 0
        if block.control[r] == FEW_CHANGES:
            alike = min(here + strip.col - same_since[here + strip.col + LANES - 1] + 1, cycles - t)
        if alike < 1 or swaps[here]:
            if block.control[r] == MANY_CHANGES:
                alike = cycles - t
            elif alike < 1:
                # Until the lanes may be alike again.
                alike = min(here + strip.col + LANES - same_since[here + strip.col + LANES - 1], cycles - t)
            clock.kernels.step_out(
                alike, drains + here, swaps + here, above + t * LANES, captured + t * LANES, out, out_pass,
                NULL if outs == NULL else outs + t * LANES, strip.toggles)
        elif drains[here]:
            if strip.toggles != NULL:
                _count_drain_all(strip, above + t * LANES, alike, out, out_pass)
            if outs != NULL:
                memcpy(outs + t * LANES, above + t * LANES, alike * LANES * sizeof(int32_t))
            memcpy(above + (t - 2) * LANES, out_pass, sizeof(out_pass))
            if alike == 1:
                memcpy(out_pass, out, sizeof(out))
            else:
                memcpy(above + (t - 1) * LANES, out, sizeof(out))
                memcpy(out_pass, above + (t + alike - 2) * LANES, sizeof(out_pass))
            memcpy(out, above + (t + alike - 1) * LANES, sizeof(out))
        else:
            _repeat_where_read(strip, r + 1, above - 2 * LANES, max(t, read), min(t + alike, read_end), out_pass)
            if outs != NULL:
                _repeat(outs, t, t + alike, out)
        t += alike
    strip.above = above - 2 * LANES
    copy_ints(array.out + at, out, strip.valid)
    copy_ints(array.out_pass + at, out_pass, strip.valid)


cdef void _count_drain_all(
    Held *strip, const int32_t *arriving, Py_ssize_t cycles, const int32_t *out, const int32_t *out_pass
) noexcept nogil:
    # Count the toggles of a row that drains in all lanes: out takes what arrives, out_pass the same two edges later,
    # after its own and out's old value.
    cdef Py_ssize_t size = LANES * sizeof(int32_t)
    cdef int64_t first = count_bits(out, arriving, size), last, between
    strip.toggles[T_OUT] += first
    strip.toggles[T_OUT_PASS] += count_bits(out_pass, out, size)
    if cycles == 1:
        return
    last = count_bits(arriving + (cycles - 2) * LANES, arriving + (cycles - 1) * LANES, size)
    between = strip.clock.kernels.count_changes(<const uint8_t *>arriving, (cycles - 2) * size, size)
    strip.toggles[T_OUT] += between + last
    strip.toggles[T_OUT_PASS] += first + between


cdef inline void _repeat(int32_t *lines, Py_ssize_t first, Py_ssize_t stop, const int32_t *value) noexcept nogil:
    cdef Py_ssize_t t
    for t in range(first, stop):
        memcpy(lines + t * LANES, value, LANES * sizeof(int32_t))


cdef void _repeat_where_read(
    const Held *strip, Py_ssize_t r, int32_t *lines, Py_ssize_t t, Py_ssize_t stop, const int32_t *value
) noexcept nogil:
    # Write one value to the lines from t to stop that row r reads: those of cycles on which a drain arrives in some
    # lane, and perhaps more.
    cdef const Block *block = &strip.clock.block
    cdef const uint8_t *drains = block.shifts + r * block.width + strip.col
    cdef const int32_t *same_since = block.same_since + r * block.width + strip.col     # counts from column 0
    cdef Py_ssize_t here, alike
    while t < stop:
        here, alike = block.cycles - 1 - t, stop - t
        if block.control[r] == FEW_CHANGES:
            # Cycles with the same bits in all lanes; else until they may be the same.
            alike = here + strip.col - same_since[here + LANES - 1] + 1
            if alike >= 1 and not drains[here]:
                t += alike
                continue
            alike = min(alike if alike >= 1 else alike + LANES - 1, stop - t)
        _repeat(lines, t, t + alike, value)
        t += alike


cdef void _fill_out_chain(Held *strip, Py_ssize_t r) noexcept nogil:
    # Write what arrives at row r from above, if it is not there yet: on the cycles with drains.
    cdef const ArrayRun *array = &strip.clock.array
    cdef const Block *block = &strip.clock.block
    cdef Py_ssize_t cycles = block.cycles, cycle = array.north_psum.cycle, port = array.north_psum.port, t, c
    cdef Py_ssize_t first = max(cycles - 1 + strip.col - block.shift_range[2 * r + 1], 0)
    cdef Py_ssize_t stop = min(cycles + strip.col + LANES - 1 - block.shift_range[2 * r], cycles)
    cdef const int32_t *north = array.north_psum.values + strip.clock.start * cycle + strip.col * port
    if strip.chain_state == FILLED:
        return
    strip.above = strip.chain + (2 * array.rows + 1) * LANES
    if strip.chain_state == CONSTANT or not (cycle or port or north[0]):
        # Folds pass a single 0 for all ports and cycles.
        _repeat_where_read(strip, r, strip.above, first, stop, strip.chain_value)
    else:
        for t in range(first, stop):
            memset(strip.above + t * LANES, 0, LANES * sizeof(int32_t))
            for c in range(strip.valid):
                strip.above[t * LANES + c] = north[t * cycle + c * port]
    strip.chain_state = FILLED
