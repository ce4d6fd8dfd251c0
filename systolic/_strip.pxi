# One strip of LANES columns through one block of cycles; part of _core.pyx, whose first page says how the
# work is ordered.

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
                       bint weight_signed, LaneWeights *weights) noexcept nogil:
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
    cdef Py_ssize_t swap = block.swap_range[2 * r + 1] - col, earlier = block.swap_range[2 * r] - col
    row.wave = -1
    if earlier < swap:
        swap = find_last(swaps, cycles + LANES - 1)
        earlier = find_last(swaps, swap) if swap > 0 else -1
        if earlier < 0:
            earlier = swap
    if earlier == swap and LANES - 1 <= swap < cycles:
        row.wave = cycles - 1 - swap
    while t < cycles:
        here = cycles - 1 - t
        # same_since counts from column 0.
        span = min(here + col - same_since[here + LANES - 1] + 1, cycles - t)
        if t == row.wave:
            K.any_weights(LANES, shifts + here, swaps + here, above.passed + t * LANES, weights)
            K.multipliers(row.multipliers, weights.weight, weight_signed, row.half)
            t += LANES
            continue
        if any_lane(swaps + here):
            # The swap takes next_weight as it stood before this edge's shift.
            blend(weights.weight, weights.next_weight, swaps + here)
            K.multipliers(row.multipliers + row.count * LANES, weights.weight, weight_signed, row.half)
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


cdef void _fill_chain(Chain *chain, const Clock *clock, Py_ssize_t col, Py_ssize_t valid) noexcept nogil:
    cdef Py_ssize_t cycles = clock.block.cycles, t, c
    cdef const Port *north = &clock.north_weight
    cdef const uint8_t *values = north.values + clock.start * north.cycle + col * north.port
    if chain.state == CONSTANT:
        shift_none(chain.passed, 0, cycles, chain.constant)
    elif chain.state == NORTH:
        memset(chain.passed, 0, cycles * LANES)
        for t in range(cycles):
            for c in range(valid):
                chain.passed[t * LANES + c] = values[t * north.cycle + c * north.port]
    chain.state = FILLED


cdef struct Work:
    # What a thread needs for the strip at hand: swaps and their multipliers, the chain, psums.
    int32_t *swap_at
    int32_t *swap_multipliers
    uint8_t *passed
    int32_t *sums


cdef size_t _work_bytes(Py_ssize_t rows) noexcept nogil:
    cdef size_t size = ROW_GROUP * BLOCK * (1 + LANES) * sizeof(int32_t) + BLOCK * LANES
    return whole_lines(size + (BLOCK + rows) * LANES * sizeof(int32_t))


cdef Work _work_of(const Clock *clock, int worker) noexcept nogil:
    cdef Work work
    # Psums begin on a cache line, as the memory does.
    work.sums = <int32_t *>(clock.memory + worker * clock.work_bytes)
    work.swap_at = work.sums + (BLOCK + clock.rows) * LANES
    work.swap_multipliers = work.swap_at + ROW_GROUP * BLOCK
    work.passed = <uint8_t *>(work.swap_multipliers + ROW_GROUP * BLOCK * LANES)
    return work


cdef void _clock_strip(const Clock *clock, Py_ssize_t col, Work work) noexcept nogil:
    # Clock the strip of LANES columns from col on, of which `valid` exist, through the block at hand.
    # Diagonal d = t - r stands at sums[(d + rows - 1) * LANES].
    cdef const Block *block = &clock.block
    cdef Py_ssize_t rows = clock.rows, cols = clock.cols, cycles = block.cycles, valid = min(LANES, cols - col)
    cdef Py_ssize_t r, c, g, t, group, swaps, waves, at
    cdef bint weight_signed = clock.weight_signed
    cdef int32_t *sums = work.sums
    cdef int32_t *top = sums + (rows - 1) * LANES
    cdef const int32_t *north
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
    chain.passed = work.passed
    for g in range(ROW_GROUP):
        group_rows[g].at = work.swap_at + g * BLOCK
        group_rows[g].multipliers = work.swap_multipliers + g * BLOCK * LANES
    memset(sums, 0, (rows - 1 + cycles if valid < LANES else 0) * LANES * sizeof(int32_t))
    memset(top, 0, cycles * LANES * sizeof(int32_t))
    # Strides of 0 both: one value for all, which is 0 wherever folds are run.
    north = clock.north_psum + clock.start * clock.north_psum_cycle + col * clock.north_psum_col
    if clock.north_psum_cycle or clock.north_psum_col or north[0]:
        for t in range(cycles):
            for c in range(valid):
                top[t * LANES + c] = north[t * clock.north_psum_cycle + c * clock.north_psum_col]
    for r in range(rows - 1):
        copy_ints(top - (r + 1) * LANES, clock.psum + r * cols + col, valid)
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
            at = (r + g) * cols + col
            row.count = row.done = 0
            row.wave = -1
            row.half = <int>((r + g) % 2)
            row.pairs = block.pairs + (r + g) // 2 * block.pairs_stride + col + cycles - 1 + row.half
            copy_bytes(weights.weight, clock.weight + at, valid)
            K.multipliers(used + g * LANES, weights.weight, weight_signed, row.half)
            if quiet:
                continue
            copy_bytes(weights.next_weight, clock.next_weight + at, valid)
            copy_bytes(weights.weight_pass, clock.weight_pass + at, valid)
            if _is_quiet(block, r + g, col):
                chain.state = CONSTANT
                memcpy(chain.constant, weights.weight_pass, LANES)
                continue
            _fill_chain(&chain, clock, col, valid)
            if block.control[r + g] == BUSY_ROW:
                t = (r + g) * block.width + col + cycles - 1
                K.any_row(top - r * LANES, cycles, row.pairs, row.half, block.shifts + t, block.swaps + t,
                          work.passed, &weights, weight_signed)
            else:
                _control_row(row, &chain, block, r + g, col, weight_signed, &weights)
            swaps += row.count
            # One swap that runs along a diagonal through all rows of the group.
            if row.wave >= 0 and row.wave == group_rows[0].wave + g:
                waves += 1
            elif row.wave >= 0:
                swaps += 1
            copy_bytes(clock.weight + at, weights.weight, valid)
            copy_bytes(clock.next_weight + at, weights.next_weight, valid)
            copy_bytes(clock.weight_pass + at, weights.weight_pass, valid)
        if quiet:
            chain.state = CONSTANT
            copy_bytes(chain.constant, clock.weight_pass + (r + group - 1) * cols + col, valid)
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
        copy_ints(clock.psum + r * cols + col, sums + (cycles + rows - 2 - r) * LANES, valid)
    K.put_bottom(clock.bottom + clock.start * clock.bottom_cycle + col * clock.bottom_col, clock.bottom_cycle,
                 clock.bottom_col, sums, cycles, valid)
