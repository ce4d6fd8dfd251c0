# What `expand` does: the rows of products in pieces, and the rows that each step reads and writes.


cdef struct Piece:
    int64_t rows, read, write, read_span, write_span


cdef struct Cut:
    # The rows of a product, cut into pieces along one axis: `base` of it in each, one more in the first `rest`.
    int64_t pieces, place, parts, base, rest, inner, read_behind, write_behind


cdef Cut cut_rows(const int64_t[::1] steps, int64_t axes, int64_t count, int64_t most) noexcept nogil:
    # As `chunks` of compiler/products.py; axes are (size, read, write).
    cdef Cut found
    cdef int64_t place = count - 1, size, outer
    found.inner, found.read_behind, found.write_behind = 1, 0, 0
    found.pieces = found.parts = 1
    while place >= 0:
        size = steps[axes + 3 * place]
        if found.inner * size > most:
            break
        found.inner *= size
        found.read_behind += (size - 1) * steps[axes + 3 * place + 1]
        found.write_behind += (size - 1) * steps[axes + 3 * place + 2]
        place -= 1
    found.place = place
    found.base = 1
    found.rest = 0
    if place >= 0:
        size = steps[axes + 3 * place]
        found.parts = (size + most // found.inner - 1) // (most // found.inner)
        found.base, found.rest = size // found.parts, size % found.parts
        found.pieces = found.parts
        for outer in range(place):
            found.pieces *= steps[axes + 3 * outer]
    return found


cdef Piece piece_of(const int64_t[::1] steps, int64_t axes, Cut cut, int64_t number) noexcept nogil:
    cdef Piece found
    cdef int64_t place = cut.place, part, size, at
    found.rows, found.read, found.write = cut.inner, 0, 0
    found.read_span, found.write_span = cut.read_behind + 1, cut.write_behind + 1
    if place < 0:
        return found
    part, number = number % cut.parts, number // cut.parts
    size = cut.base + (part < cut.rest)
    at = part * cut.base + min(part, cut.rest)
    found.rows *= size
    found.read, found.write = at * steps[axes + 3 * place + 1], at * steps[axes + 3 * place + 2]
    found.read_span += (size - 1) * steps[axes + 3 * place + 1]
    found.write_span += (size - 1) * steps[axes + 3 * place + 2]
    while place > 0:
        place -= 1
        size = steps[axes + 3 * place]
        at = number % size
        number //= size
        found.read += at * steps[axes + 3 * place + 1]
        found.write += at * steps[axes + 3 * place + 2]
    return found


cdef class Lists:
    """What `expand` fills in, or only counts at first."""

    cdef bint fill
    cdef int64_t n_work, n_ub, n_host, n_moved
    cdef int64_t[::1] work, moved
    cdef int64_t[:, ::1] ub, host
    cdef int64_t[::1] counts

    def __cinit__(self):
        self.fill = False
        self.counts = np.zeros(N_COUNTS, np.int64)

    cdef void allocate(self):
        self.work, self.moved = np.empty(self.n_work, np.int64), np.empty(self.n_moved, np.int64)
        self.ub, self.host = np.empty((2, self.n_ub), np.int64), np.empty((2, self.n_host), np.int64)
        self.counts = np.zeros(N_COUNTS, np.int64)
        self.n_work = self.n_moved = self.n_ub = self.n_host = 0
        self.fill = True

    cdef inline void add(self, int64_t value) noexcept:
        if self.fill:
            self.work[self.n_work] = value
        self.n_work += 1

    cdef inline void of_ub(self, int64_t first, int64_t rows) noexcept:
        if self.fill:
            self.ub[0, self.n_ub], self.ub[1, self.n_ub] = first, first + rows
        self.n_ub += 1

    cdef inline void of_host(self, int64_t first, int64_t rows) noexcept:
        if self.fill:
            self.host[0, self.n_host], self.host[1, self.n_host] = first, first + rows
        self.n_host += 1

    cdef inline void transfer(self, int64_t ub, int64_t host, int64_t rows) noexcept:
        self.of_ub(ub, rows)
        self.of_host(host, rows)
        if self.fill:
            self.moved[self.n_moved] = rows
        self.n_moved += 1
        self.counts[MOVED] += rows
        self.counts[INSTRUCTIONS] += 1

    cdef inline void vector(self, int64_t inputs, int64_t rows, int64_t written) noexcept:
        # Its ranges follow.
        self.add(ROWS)
        self.add(inputs)
        self.add(rows)
        self.counts[INSTRUCTIONS] += 1
        self.counts[COMBINED] += inputs * rows
        self.counts[WRITTEN] += written
        self.counts[FUNCTIONS] += 1
        self.counts[LONGEST] = max(self.counts[LONGEST], rows)
        self.counts[INPUTS] = max(self.counts[INPUTS], inputs)


cdef class Sizes:
    """Tensors and their rows on a machine."""

    cdef const int64_t[::1] blocks, block_rows, width, channels, parts, host, host_rows
    cdef const int64_t[::1] storage, start, stop, units, address
    cdef int64_t half

    def __cinit__(self, tensors, instances, int64_t half):
        self.blocks, self.block_rows, self.width, self.channels, self.parts, self.host, self.host_rows = tensors
        self.storage, self.start, self.stop, self.units, self.address = instances
        self.half = half

    cdef inline int64_t rows_of(self, int64_t instance) noexcept:
        # Of one block of an instance.
        cdef int64_t unit = self.block_rows[self.storage[instance]] // self.units[instance]
        return (self.stop[instance] - self.start[instance]) * unit

    cdef inline int64_t offset(self, int64_t instance, int64_t start, int64_t units) noexcept:
        cdef int64_t rows = self.block_rows[self.storage[instance]]
        return rows // units * start - self.start[instance] * (rows // self.units[instance])


cdef void transfers(Lists out, Sizes sizes, int64_t kind, int64_t instance, int64_t start, int64_t stop,
                    int64_t units) noexcept:
    cdef int64_t storage = sizes.storage[instance], total = sizes.block_rows[storage], most = sizes.half
    cdef int64_t rows = total // units * (stop - start), blocks = sizes.blocks[storage]
    cdef int64_t own = sizes.rows_of(instance), block, piece, low, count
    cdef int64_t ub = sizes.address[instance] + sizes.offset(instance, start, units)
    cdef int64_t host = sizes.host[storage] + total // units * start
    if rows == total == own and rows * blocks <= most:
        rows, blocks = rows * blocks, 1
    out.add(kind)
    out.add(blocks * ((rows + most - 1) // most))
    if kind == LOAD:
        for piece in range((rows + most - 1) // most):
            low = piece * most
            for block in range(blocks):
                count = min(most, rows - low)
                out.transfer(ub + block * own + low, host + block * total + low, count)
    else:
        for block in range(blocks):
            for piece in range((rows + most - 1) // most):
                low = piece * most
                count = min(most, rows - low)
                out.transfer(ub + block * own + low, host + block * total + low, count)


cdef int64_t host_call(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at) noexcept:
    cdef int64_t i, count, storage, has_rows, is_write
    out.add(HOST)
    for is_write in range(2):
        count, has_rows = steps[at], 0
        at += 1
        for i in range(count):
            storage = steps[at + i]
            if sizes.host_rows[storage]:
                out.of_host(sizes.host[storage], sizes.host_rows[storage])
                has_rows += 1
        out.add(has_rows)
        at += count
        out.counts[INPUTS] = max(out.counts[INPUTS], has_rows)
    out.counts[INSTRUCTIONS] += 1
    out.counts[FUNCTIONS] += 1
    return at


cdef int64_t border(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at) noexcept:
    cdef int64_t instance = steps[at], images = steps[at + 3], image = steps[at + 4], pieces = steps[at + 5]
    cdef int64_t own = sizes.rows_of(instance), blocks = sizes.blocks[sizes.storage[instance]]
    cdef int64_t first = sizes.address[instance] + sizes.offset(instance, steps[at + 1], steps[at + 2])
    cdef int64_t block, piece, here, count
    at += 6
    if images * image == own:
        images, blocks = images * blocks, 1
    for block in range(blocks):
        here = first + block * own
        for piece in range(pieces):
            count = images * steps[at + 3 * piece + 1]
            out.vector(1, count, count)
            out.of_ub(here, count)
            out.of_ub(here + steps[at + 3 * piece], (images - 1) * image + steps[at + 3 * piece + 2])
    return at + 3 * pieces


cdef int64_t vector_rows(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at) noexcept:
    cdef int64_t y = steps[at], start = steps[at + 1], units = steps[at + 3], inputs = steps[at + 4]
    cdef int64_t rows = sizes.block_rows[sizes.storage[y]] // units * (steps[at + 2] - start)
    cdef int64_t blocks = sizes.blocks[sizes.storage[y]], block, i, instance, own = sizes.rows_of(y)
    cdef bint joined = rows == own
    at += 5
    for i in range(inputs):
        joined = joined and rows == sizes.rows_of(steps[at + i])
    if joined:
        rows, blocks = rows * blocks, 1
    for block in range(blocks):
        out.vector(inputs, rows, rows)
        for i in range(inputs):
            instance = steps[at + i]
            out.of_ub(
                sizes.address[instance] + block * sizes.rows_of(instance) + sizes.offset(instance, start, units), rows
            )
        out.of_ub(sizes.address[y] + block * own + sizes.offset(y, start, units), rows)
    return at + inputs


cdef int64_t concat(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at) noexcept:
    cdef int64_t y = steps[at], start = steps[at + 1], units = steps[at + 3], inputs = steps[at + 4]
    cdef int64_t storage = sizes.storage[y], width = sizes.width[storage]
    cdef int64_t rows = sizes.block_rows[storage] // units * (steps[at + 2] - start)
    cdef int64_t block, i, instance, source, low, high, first, channels, needed, own
    at += 5
    for block in range(sizes.blocks[storage]):
        # The blocks of the inputs that hold its channels: counted, then listed.
        needed = first = 0
        for i in range(inputs):
            source = sizes.storage[steps[at + i]]
            channels, own = sizes.channels[source], sizes.width[source]
            low, high = max(block * width - first, 0), min((block + 1) * width - first, channels)
            if low < high:
                needed += (high - 1) // own - low // own + 1
            first += channels
        out.vector(needed, rows, rows)
        first = 0
        for i in range(inputs):
            instance = steps[at + i]
            channels, own = sizes.channels[sizes.storage[instance]], sizes.width[sizes.storage[instance]]
            low, high = max(block * width - first, 0), min((block + 1) * width - first, channels)
            if low < high:
                for source in range(low // own, (high - 1) // own + 1):
                    out.of_ub(
                        sizes.address[instance] + source * sizes.rows_of(instance)
                        + sizes.offset(instance, start, units), rows
                    )
            first += channels
        out.of_ub(sizes.address[y] + block * sizes.rows_of(y) + sizes.offset(y, start, units), rows)
    return at + inputs


cdef int64_t pool(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at) noexcept:
    cdef int64_t x = steps[at], y = steps[at + 1], start = steps[at + 2], stop = steps[at + 3]
    cdef int64_t units = steps[at + 4], images = steps[at + 5], blocks = sizes.blocks[sizes.storage[x]]
    cdef int64_t x_rows = sizes.rows_of(x), y_rows = sizes.rows_of(y), block
    if (
        sizes.block_rows[sizes.storage[x]] // units * (stop - start) == x_rows
        and sizes.block_rows[sizes.storage[y]] // units * (stop - start) == y_rows
    ):
        images, blocks = images * blocks, 1
    for block in range(blocks):
        out.vector(1, images * steps[at + 6], images * steps[at + 7])
        out.of_ub(
            sizes.address[x] + block * x_rows + sizes.offset(x, start, units), images * steps[at + 6]
        )
        out.of_ub(
            sizes.address[y] + block * y_rows + sizes.offset(y, start, units) + steps[at + 10],
            (images - 1) * steps[at + 8] + steps[at + 9],
        )
    return at + 11


cdef int64_t product(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t at, int64_t[::1] first_tiles) noexcept:
    cdef int64_t x = steps[at], y = steps[at + 1], start = steps[at + 2], units = steps[at + 3]
    cdef int64_t corner = steps[at + 4], number = steps[at + 5], groups = steps[at + 6]
    cdef int64_t channels = steps[at + 7], n = steps[at + 8], taps = steps[at + 9], axes = at + 11
    cdef int64_t offsets = axes + 3 * steps[at + 10], y_storage = sizes.storage[y]
    cdef int64_t step = sizes.width[sizes.storage[x]], columns = sizes.width[y_storage]
    cdef int64_t parts = sizes.parts[y_storage], blocks = (groups * n + columns - 1) // columns
    cdef int64_t x_first = sizes.address[x] + sizes.offset(x, start, units), x_rows = sizes.rows_of(x)
    cdef int64_t target = sizes.address[y] + sizes.offset(y, start, units) + corner, y_rows = sizes.rows_of(y)
    cdef int64_t block, first, last, low, high, of_low = -1, of_high = -1, tap, source, i, tiles = 0, begin = 0
    cdef int64_t ranges = out.n_ub, reads, all_rows = 0, first_tile
    cdef bint is_new
    cdef Cut cut = cut_rows(steps, axes, steps[at + 10], sizes.half)
    cdef Piece piece
    out.add(PRODUCT)
    out.add(cut.pieces)
    out.add(blocks)
    reads = out.n_work
    out.add(0)  # ranges of x, set below
    for i in range(cut.pieces):
        piece = piece_of(steps, axes, cut, i)
        out.add(piece.rows)
        all_rows += piece.rows
        out.counts[LONGEST] = max(out.counts[LONGEST], piece.rows)
    is_new = first_tiles[number] < 0
    if is_new:
        first_tiles[number] = out.counts[TILES]
    first_tile = first_tiles[number]
    for block in range(blocks):
        first = block * columns
        last = min(first + columns, groups * n) - 1
        low = first // n * channels // step
        high = ((last // n + 1) * channels - 1) // step
        tiles = taps * (high - low + 1)
        if low != of_low or high != of_high:
            of_low, of_high, begin = low, high, out.n_ub - ranges
            for tap in range(taps):
                for source in range(low, high + 1):
                    for i in range(cut.pieces):
                        piece = piece_of(steps, axes, cut, i)
                        out.of_ub(x_first + source * x_rows + steps[offsets + tap] + piece.read, piece.read_span)
        out.add(tiles)
        out.add(begin)
        out.add(first_tile)
        out.add(channels * taps * min(columns, groups * n - first))
        first_tile += tiles
        if is_new:
            out.counts[TILES] += tiles
        out.counts[MULTIPLIES] += tiles * cut.pieces
        out.counts[STREAMED] += tiles * all_rows
        out.counts[ADDED] += (tiles - 1) * all_rows
        out.counts[MOST_TILES] = max(out.counts[MOST_TILES], tiles)
        out.counts[MOST_READS] = max(out.counts[MOST_READS], tiles * cut.pieces)
    if out.fill:
        out.work[reads] = out.n_ub - ranges
    for block in range(blocks):
        for i in range(cut.pieces):
            piece = piece_of(steps, axes, cut, i)
            # Rows that follow each other are no pattern: all parts of their results count.
            out.of_ub(
                target + block * y_rows + piece.write * parts,
                piece.rows * parts if piece.write_span == piece.rows else piece.write_span,
            )
    out.counts[TURNS] += blocks * cut.pieces
    out.counts[INSTRUCTIONS] += blocks * cut.pieces
    out.counts[DRAINED] += blocks * all_rows
    out.counts[WRITTEN] += blocks * all_rows * parts
    out.counts[FUNCTIONS] += blocks
    return offsets + taps


cdef void walk(Lists out, Sizes sizes, const int64_t[::1] steps, int64_t operands, int64_t[::1] first_tiles) noexcept:
    cdef int64_t at = 0, kind
    while at < steps.shape[0]:
        kind = steps[at]
        at += 1
        if kind == LOAD or kind == STORE:
            transfers(out, sizes, kind, steps[at], steps[at + 1], steps[at + 2], steps[at + 3])
            at += 4
        elif kind == HOST:
            at = host_call(out, sizes, steps, at)
        elif kind == OPERANDS:
            if steps[at] != operands:
                operands = steps[at]
                out.add(OPERANDS)
                out.counts[INSTRUCTIONS] += 1
            at += 1
        elif kind == BORDER:
            at = border(out, sizes, steps, at)
        elif kind == PRODUCT:
            at = product(out, sizes, steps, at, first_tiles)
        elif kind == ROWS:
            at = vector_rows(out, sizes, steps, at)
        elif kind == CONCAT:
            at = concat(out, sizes, steps, at)
        else:
            at = pool(out, sizes, steps, at)
    out.counts[INSTRUCTIONS] += out.counts[MULTIPLIES]
