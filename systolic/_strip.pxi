# One strip of LANES columns through one block of cycles; part of _core.pyx, which explains the words.

cdef struct Row:
    # One row of the current group, and when its multipliers change within the block.
    Py_ssize_t r
    int half
    const int32_t *pairs    # lane 0 on cycle 0, in this row's half; that of the next cycle is one before
    Py_ssize_t wave         # cycle on which a wave reaches lane 0, to leave all lanes with multipliers[0]; or -1
    Py_ssize_t changes      # else number of changes; multipliers[i] apply from cycle at[i]
    Py_ssize_t done         # changes already applied to psums
    int32_t *at
    int32_t *multipliers


cdef enum ChainState:
    NORTH           # the values on the north ports, not read yet: above the first row
    CONSTANT        # one value for all edges: nothing is shifted in the row above
    FILLED


cdef struct Strip:
    # The current strip, of which `valid` lanes are columns of the array. What the others compute is dropped.
    const Clock *clock
    Py_ssize_t col, valid
    int32_t *sums           # psums, LANES a diagonal, from diagonal 1 - rows on
    int32_t *top            # diagonal 0; row r sees cycle t at top + (t - r) * LANES
    LaneWeights weights     # registers of the current row; 0 in lanes beyond the array
    ChainState chain_state
    uint8_t chain_value[LANES]      # where CONSTANT
    uint8_t *chain                  # where FILLED: LANES an edge
    Row rows[ROW_GROUP]
    int32_t used[ROW_GROUP * LANES] # multipliers of the current group, on cycle 0 first
    int64_t *toggles                # of this strip's columns; NULL if not counted
    int32_t before[ROW_GROUP * LANES]   # psums of the current group a cycle before, where toggles are counted


cdef size_t _work_bytes(Py_ssize_t rows) noexcept nogil:
    # Memory for a strip: psums; changes and multipliers of a group; the chain.
    cdef size_t size = ROW_GROUP * BLOCK * (1 + LANES) * sizeof(int32_t) + BLOCK * LANES
    return whole_lines(size + (BLOCK + rows) * LANES * sizeof(int32_t))


cdef void _clock_strip(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Clock strip `number` through the current block.
    cdef const Clock *clock = <const Clock *>context
    cdef Strip strip
    cdef Py_ssize_t r = 0
    _begin_strip(&strip, clock, number * LANES, clock.memory + worker * clock.work_bytes)
    _load_psums(&strip)
    while r < clock.array.rows:
        r += _clock_group(&strip, r)
    _store_psums(&strip)


cdef void _begin_strip(Strip *strip, const Clock *clock, Py_ssize_t col, uint8_t *memory) noexcept nogil:
    cdef int32_t *at
    cdef Py_ssize_t g
    strip.clock, strip.col, strip.valid = clock, col, min(LANES, clock.array.cols - col)
    strip.toggles = _strip_toggles(clock, col)
    strip.sums = <int32_t *>memory
    strip.top = strip.sums + (clock.array.rows - 1) * LANES
    at = strip.sums + (BLOCK + clock.array.rows) * LANES
    for g in range(ROW_GROUP):
        strip.rows[g].at = at + g * BLOCK
        strip.rows[g].multipliers = at + ROW_GROUP * BLOCK + g * BLOCK * LANES
    strip.chain = <uint8_t *>(at + ROW_GROUP * BLOCK * (1 + LANES))
    strip.chain_state = NORTH
    memset(&strip.weights, 0, sizeof(strip.weights))
    memset(strip.chain_value, 0, LANES)


cdef void _load_psums(Strip *strip) noexcept nogil:
    # Put the psum registers, and what arrives on the north ports, on their diagonals.
    cdef const ArrayRun *array = &strip.clock.array
    cdef Py_ssize_t cycle = array.north_psum.cycle, port = array.north_psum.port
    cdef const int32_t *north = array.north_psum.values + strip.clock.start * cycle + strip.col * port
    cdef Py_ssize_t cycles = strip.clock.block.cycles, valid = strip.valid, r, c, t
    cdef int32_t *top = strip.top
    if valid < LANES:
        memset(strip.sums, 0, (array.rows - 1 + cycles) * LANES * sizeof(int32_t))
    memset(top, 0, cycles * LANES * sizeof(int32_t))
    # Folds pass a single 0 for all ports and cycles.
    if cycle or port or north[0]:
        for t in range(cycles):
            for c in range(valid):
                top[t * LANES + c] = north[t * cycle + c * port]
    for r in range(array.rows - 1):
        copy_ints(top - (r + 1) * LANES, array.psum + r * array.cols + strip.col, valid)


cdef void _store_psums(Strip *strip) noexcept nogil:
    # Store the psum registers, and what left the bottom row.
    cdef const ArrayRun *array = &strip.clock.array
    cdef Py_ssize_t cycles = strip.clock.block.cycles, r
    for r in range(array.rows):
        copy_ints(array.psum + r * array.cols + strip.col, strip.top + (cycles - 1 - r) * LANES, strip.valid)
    strip.clock.kernels.put_bottom(
        array.bottom + strip.clock.start * array.bottom_cycle + strip.col * array.bottom_col, array.bottom_cycle,
        array.bottom_col, strip.sums, cycles, strip.valid)


cdef Py_ssize_t _clock_group(Strip *strip, Py_ssize_t r) noexcept nogil:
    # Clock ROW_GROUP rows from row r on, or row r alone, first weights and then psums; return how many.
    cdef const Block *block = &strip.clock.block
    cdef Py_ssize_t count = _group_rows(strip, r), g, changes = 0, waves = 0
    cdef bint no_bits = True
    cdef Row *row
    if strip.toggles != NULL:
        memset(strip.before, 0, sizeof(strip.before))
        for g in range(count):
            copy_ints(strip.before + g * LANES, strip.clock.array.psum + (r + g) * strip.clock.array.cols + strip.col,
                      strip.valid)
    for g in range(count):
        no_bits = no_bits and _no_bits_in_strip(strip, r + g)
    for g in range(count):
        row = &strip.rows[g]
        _load_weight(strip, row, r + g, strip.used + g * LANES)
        if not no_bits:
            _clock_row_weights(strip, row)
        changes += row.changes
        # A wave that goes on along a diagonal from the group's first row.
        if row.wave >= 0 and row.wave == strip.rows[0].wave + g:
            waves += 1
        elif row.wave >= 0:
            changes += 1
    if no_bits:
        strip.chain_state = CONSTANT
        copy_bytes(strip.chain_value, strip.clock.array.weight_pass + row.r * strip.clock.array.cols + strip.col,
                   strip.valid)
    if count == ROW_GROUP:
        _clock_group_psums(strip, changes, waves)
    elif block.control[r] != MANY_CHANGES:
        _expand_wave(row, strip.used)
        _clock_row(strip, row, strip.used, 0, block.cycles)
    return count


cdef Py_ssize_t _group_rows(const Strip *strip, Py_ssize_t r) noexcept nogil:
    # How many rows to clock together: a group begins with the upper row of a pair.
    cdef Py_ssize_t g
    if r % 2 or strip.clock.array.rows - r < ROW_GROUP or strip.clock.block.cycles < ROW_GROUP:
        return 1
    for g in range(ROW_GROUP):
        if strip.clock.block.control[r + g] == MANY_CHANGES:
            return 1
    return ROW_GROUP


cdef inline bint _no_bits_in_strip(const Strip *strip, Py_ssize_t r) noexcept nogil:
    # Whether no control bit reaches row r of the strip within the block.
    cdef const Block *block = &strip.clock.block
    cdef Py_ssize_t at = r * block.width + strip.col
    return block.control[r] == NO_BITS or (
        block.control[r] == FEW_CHANGES
        and block.same_since[at + block.cycles - 1 + LANES - 1] <= strip.col
        and not block.shifts[at]
        and not block.swaps[at]
    )


# Weights and control


cdef void _load_weight(Strip *strip, Row *row, Py_ssize_t r, int32_t *used) noexcept nogil:
    # Load row r's weights, and their multipliers to `used`.
    cdef const Clock *clock = strip.clock
    row.r, row.half, row.wave = r, <int>(r % 2), -1
    row.changes = row.done = 0
    row.pairs = clock.block.pairs + r // 2 * clock.block.pairs_stride + strip.col + clock.block.cycles - 1 + row.half
    copy_bytes(strip.weights.weight, clock.array.weight + r * clock.array.cols + strip.col, strip.valid)
    clock.kernels.multipliers(used, strip.weights.weight, clock.array.weight_signed, row.half)


cdef void _clock_row_weights(Strip *strip, Row *row) noexcept nogil:
    # Clock the weights of a row under its control; where that changes on most cycles, its psums as well.
    cdef const Clock *clock = strip.clock
    cdef const ArrayRun *array = &clock.array
    cdef const Block *block = &clock.block
    cdef LaneWeights *weights = &strip.weights
    cdef Py_ssize_t at = row.r * array.cols + strip.col, stream
    copy_bytes(weights.next_weight, array.next_weight + at, strip.valid)
    copy_bytes(weights.weight_pass, array.weight_pass + at, strip.valid)
    if _no_bits_in_strip(strip, row.r):
        strip.chain_state = CONSTANT
        memcpy(strip.chain_value, weights.weight_pass, LANES)
        return
    _fill_chain(strip)
    if block.control[row.r] == MANY_CHANGES:
        stream = row.r * block.width + strip.col + block.cycles - 1
        clock.kernels.step_row(
            strip.top - row.r * LANES, block.cycles, row.pairs, row.half, block.shifts + stream,
            block.swaps + stream, strip.chain, weights, array.weight_signed, strip.before, strip.toggles)
    else:
        _clock_stretches(strip, row)
    copy_bytes(array.weight + at, weights.weight, strip.valid)
    copy_bytes(array.next_weight + at, weights.next_weight, strip.valid)
    copy_bytes(array.weight_pass + at, weights.weight_pass, strip.valid)


cdef void _fill_chain(Strip *strip) noexcept nogil:
    # Copies in locals: to the compiler, a byte that is written may be part of any struct.
    cdef Py_ssize_t cycles = strip.clock.block.cycles, valid = strip.valid, t, c
    cdef uint8_t *chain = strip.chain
    cdef BytePorts north = strip.clock.array.north_weight
    north.values += strip.clock.start * north.cycle + strip.col * north.port
    if strip.chain_state == CONSTANT:
        shift_none(chain, 0, cycles, strip.chain_value)
    elif strip.chain_state == NORTH:
        memset(chain, 0, cycles * LANES)
        for t in range(cycles):
            for c in range(valid):
                chain[t * LANES + c] = north.values[t * north.cycle + c * north.port]
    strip.chain_state = FILLED


cdef void _clock_stretches(Strip *strip, Row *row) noexcept nogil:
    # Clock the weights of a row whose control seldom changes: cycles on which all lanes see the same bits at once.
    # Element here + c of the streams arrives in lane c on cycle t; the chain becomes that of this row.
    cdef const Block *block = &strip.clock.block
    cdef const ArrayKernels *kernels = strip.clock.kernels
    cdef LaneWeights *weights = &strip.weights
    cdef LaneWeights before
    cdef Py_ssize_t stream = row.r * block.width + strip.col, cycles = block.cycles, t = 0, here, alike
    cdef const uint8_t *shifts = block.shifts + stream
    cdef const uint8_t *swaps = block.swaps + stream
    cdef const int32_t *same_since = block.same_since + stream - strip.col      # counts from column 0
    cdef uint8_t *chain
    # The row below reads the chain only while a shift arrives there.
    cdef Py_ssize_t read = cycles - 1 + strip.col - block.shift_range[2 * row.r + 3]
    cdef Py_ssize_t read_end = cycles + strip.col + LANES - 1 - block.shift_range[2 * row.r + 2]
    cdef bint swapped
    row.wave = _find_wave(strip, row.r, swaps)
    while t < cycles:
        here, chain = cycles - 1 - t, strip.chain + t * LANES
        if t == row.wave:
            kernels.step_weights(LANES, shifts + here, swaps + here, chain, weights, strip.toggles)
            _set_multipliers(strip, row, 0)
            t += LANES
            continue
        # Cycles from t on with the bits of cycle t in all lanes; less than 1 if lanes differ on cycle t.
        alike = min(here + strip.col - same_since[here + strip.col + LANES - 1] + 1, cycles - t)
        swapped = any_lane(swaps + here)
        before = weights[0]
        if swapped:
            # A swap takes next_weight from before this edge's shift.
            blend(weights.weight, weights.next_weight, swaps + here)
            if strip.toggles != NULL:
                strip.toggles[T_WEIGHT] += count_bits(before.weight, weights.weight, LANES)
            _set_multipliers(strip, row, row.changes)
            row.at[row.changes] = <int32_t>t
            row.changes += 1
            alike = min(alike, 1)
        if alike >= 1 and shifts[here]:
            if strip.toggles != NULL:
                _count_shift_all(strip, chain, alike, &before)
            shift_all(chain, alike, weights)
        elif alike >= 1:
            shift_none(strip.chain, max(t, read), min(t + alike, read_end), weights.weight_pass)
        elif swapped:
            alike = 1
            shift_some(chain, shifts + here, weights)
            if strip.toggles != NULL:
                strip.toggles[T_NEXT_WEIGHT] += count_bits(before.next_weight, weights.next_weight, LANES)
                strip.toggles[T_WEIGHT_PASS] += count_bits(before.weight_pass, weights.weight_pass, LANES)
        else:
            # Until the lanes are alike again, or a swap enters.
            alike = min(here + strip.col + LANES - same_since[here + strip.col + LANES - 1], cycles - t)
            alike = min(alike, here - find_last(swaps, here))
            kernels.step_weights(alike, shifts + here, swaps + here, chain, weights, strip.toggles)
        t += alike


cdef void _count_shift_all(
    Strip *strip, const uint8_t *arriving, Py_ssize_t cycles, const LaneWeights *before
) noexcept nogil:
    # Count the toggles of a row that shifts in all lanes: next_weight takes what arrives, weight_pass the same two
    # edges later, after its own and next_weight's old value.
    cdef int64_t first = count_bits(before.next_weight, arriving, LANES), last, between
    strip.toggles[T_NEXT_WEIGHT] += first
    strip.toggles[T_WEIGHT_PASS] += count_bits(before.weight_pass, before.next_weight, LANES)
    if cycles == 1:
        return
    last = count_bits(arriving + (cycles - 2) * LANES, arriving + (cycles - 1) * LANES, LANES)
    between = strip.clock.kernels.count_changes(arriving, (cycles - 2) * LANES, LANES)
    strip.toggles[T_NEXT_WEIGHT] += between + last
    strip.toggles[T_WEIGHT_PASS] += first + between


cdef inline void _set_multipliers(Strip *strip, Row *row, Py_ssize_t number) noexcept nogil:
    # Note the current weights as multipliers number `number` of a row.
    strip.clock.kernels.multipliers(row.multipliers + number * LANES, strip.weights.weight,
                                    strip.clock.array.weight_signed, row.half)


cdef Py_ssize_t _find_wave(const Strip *strip, Py_ssize_t r, const uint8_t *swaps) noexcept nogil:
    # The cycle on which the only swap that comes by reaches lane 0, if it leaves the last lane within the block;
    # else -1.
    cdef Py_ssize_t cycles = strip.clock.block.cycles
    cdef Py_ssize_t first = strip.clock.block.swap_range[2 * r] - strip.col
    cdef Py_ssize_t last = strip.clock.block.swap_range[2 * r + 1] - strip.col
    if first < last:    # of the whole row: there may be one in the strip
        last = find_last(swaps, cycles + LANES - 1)
        if last > 0 and find_last(swaps, last) >= 0:
            return -1
    return cycles - 1 - last if LANES - 1 <= last < cycles else -1


# Psums


cdef void _clock_group_psums(Strip *strip, Py_ssize_t changes, Py_ssize_t waves) noexcept nogil:
    # Clock the psums of a group: under one set of multipliers, past a wave, or with any changes of them.
    cdef int32_t *psums = strip.top - strip.rows[0].r * LANES
    cdef Py_ssize_t cycles = strip.clock.block.cycles, g
    cdef int32_t after[ROW_GROUP * LANES]
    cdef const int32_t *pairs[ROW_PAIRS]
    if changes or 0 < waves < ROW_GROUP:
        _clock_changes(strip, psums)
        return
    for g in range(ROW_PAIRS):
        pairs[g] = strip.rows[2 * g].pairs - 2 * g
    if waves == 0:
        strip.clock.kernels.mac_block(psums, cycles, pairs, strip.used, strip.before, strip.toggles)
        return
    for g in range(ROW_GROUP):
        memcpy(after + g * LANES, strip.rows[g].multipliers, LANES * sizeof(int32_t))
    strip.clock.kernels.mac_swap(
        psums, cycles, pairs, strip.used, after, strip.rows[0].wave, strip.before, strip.toggles)


cdef void _clock_changes(Strip *strip, int32_t *psums) noexcept nogil:
    # Clock a group whose multipliers change. On a diagonal its rows are one cycle apart: where the block cuts a
    # diagonal off, at either end, rows are clocked one by one.
    cdef Py_ssize_t last = strip.clock.block.cycles - (ROW_GROUP - 1), t = 0, end, change, g
    cdef Row *rows = strip.rows
    cdef int32_t *used = strip.used
    cdef const int32_t *pairs[ROW_PAIRS]
    for g in range(ROW_GROUP):
        _expand_wave(&rows[g], used + g * LANES)
    for g in range(1, ROW_GROUP):
        _clock_row(strip, &rows[g], used + g * LANES, 0, g)
    while t < last:
        end = last
        for g in range(ROW_GROUP):
            change = _next_change(&rows[g], t + g, used + g * LANES)
            if change >= 0 and change - g < end:
                end = change - g
        for g in range(ROW_PAIRS):
            pairs[g] = rows[2 * g].pairs - t - 2 * g
        strip.clock.kernels.mac_rows(psums + t * LANES, end - t, pairs, used, strip.before, strip.toggles)
        t = end
    for g in range(ROW_GROUP - 1):
        _clock_row(strip, &rows[g], used + g * LANES, last + g, strip.clock.block.cycles)


cdef void _clock_row(
    Strip *strip, Row *row, int32_t *used, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    # Clock the psums of one row from cycle start to stop.
    cdef int32_t *psums = strip.top - row.r * LANES
    cdef int32_t *before = strip.before + (row - strip.rows) * LANES
    cdef Py_ssize_t t = start, end
    while t < stop:
        end = _next_change(row, t, used)
        if end < 0 or end > stop:
            end = stop
        strip.clock.kernels.mac_row(
            psums + t * LANES, end - t, row.pairs - t, used, row.half, before, strip.toggles)
        t = end


cdef inline Py_ssize_t _next_change(Row *row, Py_ssize_t t, int32_t *used) noexcept nogil:
    # Advance `used` to cycle t; return the next cycle on which it changes, or -1.
    if row.done < row.changes and row.at[row.done] == t:
        memcpy(used, row.multipliers + row.done * LANES, LANES * sizeof(int32_t))
        row.done += 1
    return row.at[row.done] if row.done < row.changes else -1


cdef void _expand_wave(Row *row, const int32_t *before) noexcept nogil:
    # Turn a wave into LANES changes, one lane after the other.
    cdef Py_ssize_t lane, j
    if row.wave < 0:
        return
    for j in range(LANES - 1, -1, -1):
        row.at[j] = <int32_t>(row.wave + j)
        for lane in range(LANES):
            row.multipliers[j * LANES + lane] = row.multipliers[lane] if lane <= j else before[lane]
    row.changes = LANES
    row.wave = -1
