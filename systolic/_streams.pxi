# Streams of one block: values arriving from the left, in the order the inner loops read them; part of _core.pyx,
# which explains the words.

cdef enum:
    BLOCK = 256             # cycles: the psums of a strip stay in L1 (BLOCK * LANES * 4 bytes), streams in L2
    MOST_STRETCHES = 24     # in a row's control: with more of them it is clocked cycle by cycle
    BLOCKS_KEPT = 6         # that a row of pairs has room for
    ROWS_EACH = 16          # rows whose streams a thread makes at a time; even, for pairs
    LONG_PE_CYCLES = 1 << 22


cdef enum Control:
    NO_BITS         # no control bit is set, on the port or in the row's registers
    FEW_CHANGES
    MANY_CHANGES    # more than MOST_STRETCHES


cdef struct Block:
    # The streams of all rows for one block, `width` elements each: element cycles - 1 - t + c arrives at
    # column c on cycle t.
    Py_ssize_t cycles
    Py_ssize_t width
    uint8_t *activations
    uint8_t *shifts         # 0 or 0xFF; not written for rows with NO_BITS, as the next three
    uint8_t *swaps
    int32_t *same_since     # where the stretch that an element is in begins
    int32_t *swap_range     # of each row: the first and the last element of `swaps` that is set
    int32_t *shift_range    # likewise; of every row: width and -1 where none is
    uint8_t *control        # of each row: Control
    bint no_control         # no bit is set on any control port, as in most blocks of a fold
    # Two rows in one (kernels/array.h). Streams of consecutive blocks overlap: a block's window begins `cycles`
    # elements before that of the block before it, so that only new elements are written. `moved` is the old
    # window if there was no room left before it, else NULL.
    int32_t *pairs
    Py_ssize_t pairs_stride # from one pair of rows to the next
    const int32_t *moved


cdef struct Clock:
    # One call of run(), as all its threads see it.
    ArrayRun array
    const ArrayKernels *kernels
    Py_ssize_t start        # the first cycle of the current block
    Block block
    int32_t *pairs          # the first of the memory for pairs
    int workers
    uint8_t *memory         # what each worker needs for a strip, then the streams
    size_t work_bytes
    int64_t *toggles        # TOGGLES counters for each part of the rows, then for each strip; NULL: none counted
    int32_t *times          # if counted: how many PEs of a row see one element of its stream after the other


cdef inline Py_ssize_t _parts(const ArrayRun *array) noexcept nogil:
    return (array.rows + ROWS_EACH - 1) // ROWS_EACH


cdef inline Py_ssize_t _strips(const ArrayRun *array) noexcept nogil:
    return (array.cols + LANES - 1) // LANES


cdef Py_ssize_t _width(const ArrayRun *array, Py_ssize_t cycles) noexcept nogil:
    # Elements of a stream.
    return cycles + (array.cols + LANES - 1) // LANES * LANES


cdef Py_ssize_t _pairs_stride(const ArrayRun *array, Py_ssize_t cycles) noexcept nogil:
    # An odd number of cache lines, to spread rows over L1's sets.
    return (_width(array, min(BLOCKS_KEPT * cycles, array.cycles)) + 15) // 16 * 16 | 16


cdef size_t _stream_bytes(const ArrayRun *array, Py_ssize_t cycles) noexcept nogil:
    cdef size_t rows = array.rows, pairs = (rows + 1) // 2 * _pairs_stride(array, cycles)
    return (rows * 4 + 3 * rows) * _width(array, cycles) + 4 * pairs + 16 * (rows + 1) + rows


cdef void _place_streams(Clock *clock, Py_ssize_t cycles) noexcept nogil:
    # Divide the memory of the streams, for blocks of at most so many cycles.
    cdef Py_ssize_t rows = clock.array.rows, width = _width(&clock.array, cycles)
    cdef Block *block = &clock.block
    block.same_since = <int32_t *>(clock.memory + clock.workers * clock.work_bytes)
    block.pairs_stride = _pairs_stride(&clock.array, cycles)
    clock.pairs = block.same_since + rows * width
    block.pairs = NULL
    block.shift_range = clock.pairs + (rows + 1) // 2 * block.pairs_stride
    block.swap_range = block.shift_range + 2 * (rows + 1)
    block.activations = <uint8_t *>(block.swap_range + 2 * (rows + 1))
    block.shifts = block.activations + rows * width
    block.swaps = block.shifts + rows * width
    block.control = block.swaps + rows * width


cdef size_t _count_bytes(const ArrayRun *array) noexcept nogil:
    # Memory for toggles: counters of all parts and strips, and the times of the elements of a stream.
    cdef size_t counters = (_parts(array) + _strips(array)) * TOGGLES * sizeof(int64_t)
    return 0 if array.toggles == NULL else counters + _width(array, BLOCK) * sizeof(int32_t)


cdef void _place_counters(Clock *clock, uint8_t *memory) noexcept nogil:
    cdef size_t counters = (_parts(&clock.array) + _strips(&clock.array)) * TOGGLES
    clock.toggles, clock.times = NULL, NULL
    if clock.array.toggles != NULL:
        clock.toggles = <int64_t *>memory
        clock.times = <int32_t *>(clock.toggles + counters)
        memset(clock.toggles, 0, counters * sizeof(int64_t))


cdef void _add_counters(const Clock *clock) noexcept nogil:
    cdef Py_ssize_t i
    if clock.toggles != NULL:
        for i in range((_parts(&clock.array) + _strips(&clock.array)) * TOGGLES):
            clock.array.toggles[i % TOGGLES] += clock.toggles[i]


cdef inline int64_t *_strip_toggles(const Clock *clock, Py_ssize_t col) noexcept nogil:
    # The counters of the strip from column col on.
    if clock.toggles == NULL:
        return NULL
    return clock.toggles + (_parts(&clock.array) + col // LANES) * TOGGLES


cdef void _count_row(const Clock *clock, Py_ssize_t r, int64_t *toggles) noexcept nogil:
    # Count the toggles of the registers of row r that move right.
    cdef const Block *block = &clock.block
    cdef Py_ssize_t at = r * block.width, count = block.cycles + clock.array.cols - 1
    toggles[T_ACTIVATION] += clock.kernels.count_stream(block.activations + at, count, clock.times)
    if block.control[r] != NO_BITS:     # they are masks of 8 bits
        toggles[T_SHIFT] += clock.kernels.count_stream(block.shifts + at, count, clock.times) // 8
        toggles[T_SWAP] += clock.kernels.count_stream(block.swaps + at, count, clock.times) // 8


cdef inline int32_t _times(Py_ssize_t j, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    # How many pairs of 0 <= i < a and 0 <= k < b have the sum j.
    return <int32_t>(min(j, a - 1) - max(j - b + 1, 0) + 1)


cdef void _begin_block(Clock *clock, Py_ssize_t cycles) noexcept nogil:
    cdef Block *block = &clock.block
    cdef const ArrayRun *array = &clock.array
    cdef Py_ssize_t j
    block.cycles, block.width = cycles, _width(array, cycles)
    if clock.times != NULL:
        for j in range(cycles + array.cols - 1):
            clock.times[j] = _times(j, cycles, array.cols)
    block.moved = NULL
    if block.pairs == NULL or block.pairs - clock.pairs < cycles:
        block.moved = block.pairs
        block.pairs = clock.pairs + block.pairs_stride - block.width
    else:
        block.pairs -= cycles
    # Nothing reads a chain below the last row.
    block.shift_range[2 * array.rows], block.shift_range[2 * array.rows + 1] = <int32_t>block.width, -1
    block.no_control = _no_bits_on_ports(clock, array.west_shift) and _no_bits_on_ports(clock, array.west_swap)


cdef bint _no_bits_on_ports(const Clock *clock, BytePorts ports) noexcept nogil:
    # Whether no bit of these ports is set in the block; looks only where all rows read the same skewed bits, as
    # those of folds. They are side by side then, the last row's first.
    cdef Py_ssize_t last = clock.array.rows - 1
    return (
        ports.cycle == 1 and ports.port == -1
        and not any_byte(ports.values + clock.start - last, clock.block.cycles + last)
    )


cdef void _make_streams(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Make the streams of ROWS_EACH rows for the current block, and advance the registers that move right to its end.
    cdef Clock *clock = <Clock *>context
    cdef Block *block = &clock.block
    cdef const ArrayRun *array = &clock.array
    cdef Py_ssize_t first = number * ROWS_EACH, rows = min(ROWS_EACH, array.rows - first), r, at
    # Whether the bits of one row are side by side, to be read row by row and only where any is set.
    cdef bint by_row = 0 <= array.west_shift.cycle <= 1 and 0 <= array.west_swap.cycle <= 1
    _read_ports(block.activations, clock, array.west_activation, first, rows)
    if not by_row:
        _read_ports(block.shifts, clock, array.west_shift, first, rows)
        _read_ports(block.swaps, clock, array.west_swap, first, rows)
    for r in range(first, first + rows):
        _append_activations(clock, r)
        if by_row and _no_bits_in_row(clock, r):
            _note_no_bits(block, r)
            continue
        if by_row:
            _read_ports(block.shifts, clock, array.west_shift, r, 1)
            _read_ports(block.swaps, clock, array.west_swap, r, 1)
        _append_control(clock, r)
    _make_pairs(clock, first, rows)
    for r in range(first, first + rows):
        if clock.toggles != NULL:
            _count_row(clock, r, clock.toggles + number * TOGGLES)
        at = r * array.cols
        memcpy(array.activation + at, block.activations + r * block.width, array.cols)
        if block.control[r] != NO_BITS:
            as_bits(array.shift + at, block.shifts + r * block.width, array.cols)
            as_bits(array.swap + at, block.swaps + r * block.width, array.cols)


cdef void _read_ports(
    uint8_t *streams, const Clock *clock, BytePorts ports, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    # Write the first part of streams: what is on the ports in this block.
    clock.kernels.reverse_ports(
        streams + first * clock.block.width, clock.block.width,
        ports.values + clock.start * ports.cycle + first * ports.port, ports.cycle, ports.port,
        clock.block.cycles, rows)


cdef bint _no_bits_in_row(const Clock *clock, Py_ssize_t r) noexcept nogil:
    # Whether no control bit is set on row r's ports in this block nor in its registers before it.
    cdef const ArrayRun *array = &clock.array
    cdef Py_ssize_t at = r * array.cols
    return (
        (clock.block.no_control or _no_bits_on_port(clock, array.west_shift, r)
            and _no_bits_on_port(clock, array.west_swap, r))
        and (clock.start > 0 and clock.block.control[r] == NO_BITS
            or not any_byte(array.shift + at, array.cols) and not any_byte(array.swap + at, array.cols))
    )


cdef inline bint _no_bits_on_port(const Clock *clock, BytePorts ports, Py_ssize_t r) noexcept nogil:
    # For ports whose values of one row are side by side, or one value for all cycles.
    return not any_byte(ports.values + clock.start * ports.cycle + r * ports.port,
                        clock.block.cycles if ports.cycle else 1)


cdef void _note_no_bits(Block *block, Py_ssize_t r) noexcept nogil:
    block.control[r] = NO_BITS
    block.shift_range[2 * r], block.shift_range[2 * r + 1] = <int32_t>block.width, -1


cdef void _append_activations(const Clock *clock, Py_ssize_t r) noexcept nogil:
    # Complete row r's stream by what its registers hold.
    cdef uint8_t *stream = clock.block.activations + r * clock.block.width + clock.block.cycles
    cdef Py_ssize_t cols = clock.array.cols
    memcpy(stream, clock.array.activation + r * cols, cols)
    memset(stream + cols, 0, clock.block.width - clock.block.cycles - cols)


cdef void _append_control(Clock *clock, Py_ssize_t r) noexcept nogil:
    # Complete row r's streams of control bits by what its registers hold, and classify them.
    cdef Block *block = &clock.block
    cdef Py_ssize_t width = block.width, cols = clock.array.cols, rest = width - block.cycles - cols, stretches
    cdef uint8_t *shifts = block.shifts + r * width
    cdef uint8_t *swaps = block.swaps + r * width
    memcpy(shifts + block.cycles, clock.array.shift + r * cols, cols)
    memcpy(swaps + block.cycles, clock.array.swap + r * cols, cols)
    memset(shifts + block.cycles + cols, 0, rest)
    memset(swaps + block.cycles + cols, 0, rest)
    if not any_byte(shifts, width) and not any_byte(swaps, width):
        _note_no_bits(block, r)
        return
    as_masks(shifts, shifts, width)
    as_masks(swaps, swaps, width)
    find_set(block.shift_range + 2 * r, shifts, width)
    find_set(block.swap_range + 2 * r, swaps, width)
    stretches = find_stretches(block.same_since + r * width, shifts, swaps, width, MOST_STRETCHES)
    block.control[r] = FEW_CHANGES if stretches <= MOST_STRETCHES else MANY_CHANGES


cdef void _make_pairs(const Clock *clock, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    # Make the pair streams of these rows: all of it in the first block, then what is new.
    cdef const Block *block = &clock.block
    cdef const uint8_t *upper
    cdef int32_t *pairs
    cdef Py_ssize_t r, at
    for r in range(first, first + rows, 2):
        at = r // 2 * block.pairs_stride
        pairs, upper = block.pairs + at, block.activations + r * block.width
        if block.moved != NULL:
            memmove(pairs + block.cycles, block.moved + at, (block.width - block.cycles) * sizeof(int32_t))
        # The upper row's half of the last new element is an old activation.
        clock.kernels.pair_up(pairs, upper, upper + block.width if r + 1 < clock.array.rows else NULL,
                              block.cycles + 1 if clock.start > 0 else block.width, clock.array.activation_signed)
