# What arrives from the left in one block of cycles, as the inner loops read it; part of _core.pyx.

# Cycles per block: the psums of a strip that a row group works on, BLOCK * LANES * 4 bytes, stay
# in the L1 cache; the streams of a block in L2.
# A row whose control changes more often than BUSY times in a block is taken cycle by cycle.
cdef enum:
    BLOCK = 256
    BUSY = 24
    BLOCKS_KEPT = 6         # windows that a row of pairs holds one before the other
    ROWS_EACH = 16          # rows that a thread loads at a time; even, for pairs
    LONG_PE_CYCLES = 1 << 22


cdef enum Control:
    QUIET   # no bit set anywhere
    RUNS    # bits change seldom
    BUSY_ROW


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
    int32_t *swap_range     # likewise
    bint no_control         # nothing is set on any control port, as most of the time
    # kernels/array.h: two rows in one. A block's window lies before the one of the block before, whose newest
    # elements are its oldest: only what is new is written, in lines that no other core has read lately.
    int32_t *pairs
    Py_ssize_t pairs_stride # from two rows to the next two
    const int32_t *moved    # where the window lay, if it had to begin anew at the end of the memory; else NULL


cdef struct Port:
    # Values on ports: that of port p on cycle t stands at values[t * cycle + p * port].
    const uint8_t *values
    Py_ssize_t cycle, port


cdef struct Clock:
    # One call of run(), as all its threads see it: registers (rows, cols), ports, the block at hand.
    const ArrayKernels *kernels
    Py_ssize_t rows, cols
    uint8_t *weight
    uint8_t *next_weight
    uint8_t *weight_pass
    uint8_t *activation
    int32_t *psum
    uint8_t *shift
    uint8_t *swap
    bint activation_signed, weight_signed
    Port west_activation, west_shift, west_swap, north_weight
    const int32_t *north_psum
    Py_ssize_t north_psum_cycle, north_psum_col
    int32_t *bottom
    Py_ssize_t bottom_cycle, bottom_col
    Py_ssize_t start        # the first cycle of the block
    Block block
    int32_t *pairs          # where its memory begins
    int workers
    uint8_t *memory         # what every worker needs for a strip, then the streams
    size_t work_bytes


cdef Py_ssize_t _pairs_stride(Py_ssize_t cols, Py_ssize_t cycles, Py_ssize_t total) noexcept nogil:
    # An odd number of cache lines, to spread rows over L1's sets.
    cdef Py_ssize_t held = min(BLOCKS_KEPT * cycles, total) + (cols + LANES - 1) // LANES * LANES
    return (held + 15) // 16 * 16 | 16


cdef size_t _stream_bytes(Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t cycles, Py_ssize_t total) noexcept nogil:
    cdef size_t width = cycles + (cols + LANES - 1) // LANES * LANES
    cdef size_t pairs = (rows + 1) // 2 * _pairs_stride(cols, cycles, total)
    return (rows * 4 + 3 * rows) * width + 4 * pairs + 16 * (rows + 1) + rows


cdef void _place_streams(Clock *clock, Py_ssize_t cycles, Py_ssize_t total) noexcept nogil:
    # Say where streams stand, for blocks of at most so many cycles: what is said of a row stays from block to block.
    cdef Py_ssize_t rows = clock.rows, width = cycles + (clock.cols + LANES - 1) // LANES * LANES
    cdef Block *block = &clock.block
    cdef int32_t *ints = <int32_t *>(clock.memory + clock.workers * clock.work_bytes)
    block.same_since = ints
    block.pairs_stride = _pairs_stride(clock.cols, cycles, total)
    clock.pairs = ints + rows * width
    block.pairs = NULL
    block.shift_range = clock.pairs + (rows + 1) // 2 * block.pairs_stride
    block.swap_range = block.shift_range + 2 * (rows + 1)
    block.activations = <uint8_t *>(block.swap_range + 2 * (rows + 1))
    block.shifts = block.activations + rows * width
    block.swaps = block.shifts + rows * width
    block.control = block.swaps + rows * width


cdef void _begin(Clock *clock, Py_ssize_t cycles) noexcept nogil:
    cdef Block *block = &clock.block
    block.cycles = cycles
    block.width = cycles + (clock.cols + LANES - 1) // LANES * LANES
    block.moved = NULL
    if block.pairs == NULL or block.pairs - clock.pairs < cycles:
        block.moved = block.pairs
        block.pairs = clock.pairs + block.pairs_stride - block.width
    else:
        block.pairs -= cycles
    # Below the last row nothing reads a chain.
    block.shift_range[2 * clock.rows] = <int32_t>block.width
    block.shift_range[2 * clock.rows + 1] = -1
    # What folds put on the control ports is the same for all rows, but for the skew: then all of it lies side by
    # side, the last row's first.
    block.no_control = _none_set(clock, clock.west_shift, cycles) and _none_set(clock, clock.west_swap, cycles)


cdef bint _none_set(const Clock *clock, Port port, Py_ssize_t cycles) noexcept nogil:
    # Whether that is so and no bit is set.
    return (
        port.cycle == 1 and port.port == -1
        and not any_byte(port.values + clock.start - (clock.rows - 1), cycles + clock.rows - 1)
    )


cdef void _load_rows(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Read the ports of ROWS_EACH rows for a block; bring the registers that travel right to its end.
    cdef Clock *clock = <Clock *>context
    cdef Block *block = &clock.block
    cdef Py_ssize_t first = number * ROWS_EACH, rows = min(ROWS_EACH, clock.rows - first), r, at
    # A row's own bits lie side by side.
    cdef bint side_by_side = 0 <= clock.west_shift.cycle <= 1 and 0 <= clock.west_swap.cycle <= 1
    cdef bint was_quiet
    _reverse(block.activations, clock, clock.west_activation, first, rows)
    if not side_by_side:
        _reverse(block.shifts, clock, clock.west_shift, first, rows)
        _reverse(block.swaps, clock, clock.west_swap, first, rows)
    for r in range(first, first + rows):
        at = r * clock.cols
        if side_by_side:
            was_quiet = clock.start > 0 and block.control[r] == QUIET
            if ((block.no_control or _is_zero(clock.west_shift, clock.start, block.cycles, r)
                    and _is_zero(clock.west_swap, clock.start, block.cycles, r))
                    and (was_quiet or not any_byte(clock.shift + at, clock.cols)
                         and not any_byte(clock.swap + at, clock.cols))):
                _load_quiet_row(block, r, clock.cols, clock.activation + at)
                continue
            _reverse(block.shifts, clock, clock.west_shift, r, 1)
            _reverse(block.swaps, clock, clock.west_swap, r, 1)
        _load_row(block, r, clock.cols, clock.activation + at, clock.shift + at, clock.swap + at)
    for r in range(first, first + rows, 2):
        at = r // 2 * block.pairs_stride
        if block.moved != NULL:
            memmove(block.pairs + at + block.cycles, block.moved + at, (block.width - block.cycles) * sizeof(int32_t))
        # The last pair of what is new has an old element in its upper row.
        clock.kernels.pair_up(block.pairs + at, block.activations + r * block.width,
                  block.activations + (r + 1) * block.width if r + 1 < clock.rows else NULL,
                  block.cycles + 1 if clock.start > 0 else block.width, clock.activation_signed)
    for r in range(first, first + rows):
        at = r * clock.cols
        memcpy(clock.activation + at, block.activations + r * block.width, clock.cols)
        if block.control[r] != QUIET:
            as_bits(clock.shift + at, block.shifts + r * block.width, clock.cols)
            as_bits(clock.swap + at, block.swaps + r * block.width, clock.cols)


cdef void _reverse(uint8_t *streams, const Clock *clock, Port port, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    clock.kernels.reverse_ports(streams + first * clock.block.width, clock.block.width,
                    port.values + clock.start * port.cycle + first * port.port, port.cycle, port.port,
                    clock.block.cycles, rows)


cdef inline bint _is_zero(Port port, Py_ssize_t start, Py_ssize_t cycles, Py_ssize_t r) noexcept nogil:
    # Whether nothing is set on row r's port, whose values lie side by side in memory or are one.
    return not any_byte(port.values + start * port.cycle + r * port.port, cycles if port.cycle else 1)


cdef void _load_quiet_row(Block *block, Py_ssize_t r, Py_ssize_t cols, const uint8_t *activation) noexcept nogil:
    # _load_row where no control bit stands anywhere: nobody reads its streams of control bits.
    cdef uint8_t *activations = block.activations + r * block.width
    memcpy(activations + block.cycles, activation, cols)
    memset(activations + block.cycles + cols, 0, block.width - block.cycles - cols)
    block.control[r] = QUIET
    block.shift_range[2 * r] = <int32_t>block.width
    block.shift_range[2 * r + 1] = -1


cdef void _load_row(
    Block *block, Py_ssize_t r, Py_ssize_t cols,
    const uint8_t *activation, const uint8_t *shift, const uint8_t *swap,
) noexcept nogil:
    # Complete row r's streams, of which the ports' part stands, with what its registers hold,
    # and see how its control comes.
    cdef Py_ssize_t cycles = block.cycles, end = block.width, runs
    cdef uint8_t *shifts = block.shifts + r * end
    cdef uint8_t *swaps = block.swaps + r * end
    cdef int32_t *same_since = block.same_since + r * end
    memcpy(shifts + cycles, shift, cols)
    memcpy(swaps + cycles, swap, cols)
    memset(shifts + cycles + cols, 0, end - cycles - cols)
    memset(swaps + cycles + cols, 0, end - cycles - cols)
    _load_quiet_row(block, r, cols, activation)
    if not any_byte(shifts, end) and not any_byte(swaps, end):
        return
    as_masks(shifts, shifts, end)
    as_masks(swaps, swaps, end)
    find_set(block.shift_range + 2 * r, shifts, end)
    find_set(block.swap_range + 2 * r, swaps, end)
    runs = find_runs(same_since, shifts, swaps, end)
    block.control[r] = RUNS if runs <= BUSY else BUSY_ROW
