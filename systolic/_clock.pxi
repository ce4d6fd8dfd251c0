# What `times` does: the units and memories of a machine while a program runs, by the rules of _timeline.pyx.


cdef struct Machine:
    int64_t rows, cols, factor, tile_transfer, weight_latency, fifo, ahead, host_latency, latency, issue, passes
    bint double_buffered


cdef enum:
    # Causes of the array's cycles, in the order of machine/spans.py.
    ACTIVE = 0
    WEIGHT_STALL = 1
    WEIGHT_SHIFT = 2
    RAW_STALL = 3
    INPUT_STALL = 4
    ACCUMULATOR_STALL = 5
    OTHER_STALL = 6
    N_CAUSES = 7


cdef inline int64_t latest(const int64_t[::1] values, int64_t first, int64_t last) noexcept nogil:
    cdef int64_t found = 0, i
    for i in range(first, last):
        if values[i] > found:
            found = values[i]
    return found


cdef inline void raise_to(int64_t[::1] values, int64_t first, int64_t last, int64_t cycle) noexcept nogil:
    cdef int64_t i
    for i in range(first, last):
        if values[i] < cycle:
            values[i] = cycle


cdef class Clock:
    cdef Machine m
    cdef const int64_t[::1] work, busy
    cdef const int64_t[:, ::1] ub, host  # segments of the ranges
    cdef int64_t n_ub, n_host, n_busy  # those that have passed
    # Of each segment: when its last writer completes, when that of the vector unit does, and when its last
    # reader has read.
    cdef int64_t[::1] written, by_vector, read, host_written, host_read
    # Of the halves of the accumulators.
    cdef int64_t[2] acc_written, acc_read
    cdef int64_t half
    # Runs of tiles that follow each other in weight memory: the first one, the one behind the last, and when
    # they are asked for.
    cdef int64_t[::1] run_start, run_stop, asked
    cdef int64_t runs, next_run, fetch_run
    # Of each block of a product: how many chunks see a tile during one stay of it.
    cdef int64_t[::1] shared
    cdef int64_t turn
    # Of each tile: when it has been shifted in. How many have been fetched, and have been used.
    cdef int64_t[::1] shifted
    cdef int64_t fetched, fetch_end, used, new_swap, stream_end, drain_end
    # Of the ranges that a block of a product reads: when they are there, when the vector unit has written
    # them, and when they have been read.
    cdef int64_t[::1] ready, of_vector, ends
    cdef int64_t dispatch, host_in, host_out, vector
    cdef int64_t last, tiles, weight_bytes
    cdef int64_t[7] causes

    def __cinit__(self, work, ub, int64_t ub_segments, host, int64_t host_segments, busy, counts):
        cdef int64_t turns = counts["turns"] + 1, i
        self.work, self.ub, self.host, self.busy = work, ub, host, busy
        self.written, self.by_vector, self.read = np.zeros((3, ub_segments), np.int64)
        self.host_written, self.host_read = np.zeros((2, host_segments), np.int64)
        self.run_start, self.run_stop, self.asked, self.shared = np.empty((4, turns), np.int64)
        self.ready, self.of_vector, self.ends = np.empty((3, counts["most_reads"]), np.int64)
        # `order_cycles` shifts the tiles of four blocks and eight chunks.
        self.shifted = np.empty(max(counts["multiplies"], 32 * counts["most_tiles"]), np.int64)
        for i in range(2):
            self.acc_written[i] = self.acc_read[i] = 0
        for i in range(N_CAUSES):
            self.causes[i] = 0

    # Before anything runs

    cdef int64_t order_cycles(self, int64_t together, int64_t rows, int64_t count, int64_t tiles,
                              int64_t blocks) noexcept nogil:
        # As `cycles` of compiler/orders.py; the rows of the chunks are work[rows : rows + count].
        cdef Machine m = self.m
        cdef int64_t fetched = 0, done = 0, swap = 0, stream_end = 0, vector_free = 0, start, begin, ready, here
        cdef int64_t block, number, first, place, some, tile, half = 0
        cdef int64_t[2] read_end, complete
        read_end[0] = read_end[1] = 0
        for block in range(blocks):
            for number in range((count + together - 1) // together):
                first = number * together
                some = min(together, count - first)
                for tile in range(tiles):
                    if done >= m.fifo:
                        fetched = max(fetched, self.shifted[done - m.fifo])
                    fetched += m.tile_transfer
                    start = max(fetched + m.weight_latency, swap)
                    if not m.double_buffered:
                        start = max(start, stream_end + m.rows + m.cols - 2)
                    ready = self.shifted[done] = start + m.rows
                    done += 1
                    for place in range(some):
                        here = (half + place) % 2
                        begin = max(max(ready, stream_end), read_end[here] - m.rows)
                        if not place:
                            swap = begin
                        stream_end = begin + self.work[rows + first + place]
                        complete[place] = stream_end + m.rows + m.cols - 1
                for place in range(some):
                    vector_free = max(vector_free, complete[place]) + self.work[rows + first + place] * m.passes
                    read_end[(half + place) % 2] = vector_free
                half = (half + some) % 2
        return vector_free + m.latency

    cdef void choose_orders(self) noexcept nogil:
        # How many chunks see a tile during one stay of it, and which tiles are asked for at once.
        cdef int64_t at = 0, kind, pieces, blocks, block, tiles, previous, share, chunk, table, count, few, i
        cdef int64_t expected = -1
        while at < self.work.shape[0]:
            kind = self.work[at]
            if kind != PRODUCT:
                at += 1 if kind == OPERANDS else 2 if kind == LOAD or kind == STORE else 3
                continue
            pieces, blocks, chunk = self.work[at + 1], self.work[at + 2], at + 4
            table = chunk + pieces
            previous, share = -1, 1
            for block in range(blocks):
                tiles = self.work[table + 4 * block]
                if pieces > 1 and tiles != previous:
                    few, count = min(blocks, 4), min(pieces, 8)
                    share = 1 + (
                        self.order_cycles(2, chunk, count, tiles, few) < self.order_cycles(1, chunk, count, tiles, few)
                    )
                    previous = tiles
                self.shared[self.turn] = share
                self.turn += 1
                count = (pieces + share - 1) // share
                self.weight_bytes += count * self.work[table + 4 * block + 3]
                for i in range(count):
                    if self.work[table + 4 * block + 2] != expected:
                        self.run_start[self.runs] = self.tiles
                        self.runs += 1
                    self.tiles += tiles
                    self.run_stop[self.runs - 1] = self.tiles
                    expected = self.work[table + 4 * block + 2] + tiles
            at = table + 4 * blocks
        self.turn = 0

    # Instructions

    cdef inline int64_t dispatched(self) noexcept nogil:
        cdef int64_t now = self.dispatch
        self.dispatch += self.m.issue
        return now

    cdef inline void finish(self, int64_t complete) noexcept nogil:
        if complete > self.last:
            self.last = complete

    cdef inline void ask(self, int64_t tile) noexcept nogil:
        # The tiles that are asked for before this one is used; of -1, before the first instruction.
        while self.next_run < self.runs and self.run_start[self.next_run] - self.m.ahead <= tile:
            self.asked[self.next_run] = self.dispatched()
            self.finish(self.asked[self.next_run])
            self.next_run += 1

    cdef inline int64_t shift(self, int64_t other) noexcept nogil:
        # Shift the next tile in, and return when that begins.
        cdef int64_t start
        while self.fetched <= self.used:
            while self.fetched >= self.run_stop[self.fetch_run]:
                self.fetch_run += 1
            self.fetch_end = max(self.asked[self.fetch_run], self.fetch_end)
            if self.fetched >= self.m.fifo:
                self.fetch_end = max(self.fetch_end, self.shifted[self.fetched - self.m.fifo])
            self.fetch_end += self.m.tile_transfer
            self.fetched += 1
        # The last one that was fetched is the one that is used.
        start = max(max(other, self.fetch_end + self.m.weight_latency), self.new_swap)
        self.shifted[self.used] = start + self.m.rows
        self.used += 1
        return start

    cdef inline void multiply(self, int64_t rows, int64_t r, int64_t half, bint is_new) noexcept nogil:
        cdef int64_t now = self.dispatched(), other = now, shift_start = -1, swap = now, before = self.stream_end
        cdef int64_t accumulators = self.acc_read[half] - self.m.rows, one, two, stall
        if is_new:
            if not self.m.double_buffered:
                other = max(now, self.drain_end)
            shift_start = self.shift(other)
            swap = shift_start + self.m.rows
        swap = max(max(swap, before), max(self.ready[r], accumulators))
        if is_new:
            self.new_swap = swap
        # The causes follow each other.
        one = max(before, self.ready[r])
        stall = RAW_STALL if self.of_vector[r] == self.ready[r] else INPUT_STALL
        self.causes[stall] += one - before
        two = max(one, accumulators)
        self.causes[ACCUMULATOR_STALL] += two - one
        one = max(two, other)
        self.causes[OTHER_STALL] += one - two
        two = max(one, shift_start)
        self.causes[WEIGHT_STALL] += two - one
        self.causes[WEIGHT_SHIFT] += swap - two
        self.causes[ACTIVE] += rows * self.m.factor
        self.stream_end = self.ends[r] = swap + rows * self.m.factor
        self.drain_end = self.stream_end + self.m.rows + self.m.cols - 2
        self.acc_written[half] = self.drain_end + 1
        self.finish(self.drain_end + 1)

    cdef inline int64_t ub_free(self, int64_t r) noexcept nogil:
        # When a range can be written.
        cdef int64_t first = self.ub[0, r], last = self.ub[1, r]
        return max(latest(self.written, first, last), latest(self.read, first, last))

    cdef inline int64_t of_vector_unit(self, int64_t wait, int64_t rows, int64_t y) noexcept nogil:
        # Run an instruction of the vector unit, and return when it has read.
        cdef int64_t end = max(max(self.dispatched(), wait), max(self.vector, self.ub_free(y))) + rows * self.m.passes
        cdef int64_t complete = end + self.m.latency
        self.vector = end
        self.finish(complete)
        raise_to(self.written, self.ub[0, y], self.ub[1, y], complete)
        raise_to(self.by_vector, self.ub[0, y], self.ub[1, y], complete)
        return end

    # Steps

    cdef void begin_reads(self, int64_t first, int64_t count) noexcept nogil:
        cdef int64_t r
        for r in range(count):
            self.ready[r] = latest(self.written, self.ub[0, first + r], self.ub[1, first + r])
            self.of_vector[r] = latest(self.by_vector, self.ub[0, first + r], self.ub[1, first + r])

    cdef void end_reads(self, int64_t first, int64_t count) noexcept nogil:
        cdef int64_t r
        for r in range(count):
            raise_to(self.read, self.ub[0, first + r], self.ub[1, first + r], self.ends[r])

    cdef int64_t product(self, int64_t at) noexcept nogil:
        cdef int64_t pieces = self.work[at + 1], blocks = self.work[at + 2], x_ranges = self.work[at + 3]
        cdef int64_t chunk = at + 4, table = at + 4 + pieces, block, tiles, first, share, some, number, tile, place
        cdef int64_t begin = -1, reads = 0, y = self.n_ub + x_ranges, half
        for block in range(blocks):
            tiles = self.work[table + 4 * block]
            if self.work[table + 4 * block + 1] != begin:
                self.end_reads(self.n_ub + begin, reads)
                begin, reads = self.work[table + 4 * block + 1], tiles * pieces
                self.begin_reads(self.n_ub + begin, reads)
            share = self.shared[self.turn]
            self.turn += 1
            for number in range((pieces + share - 1) // share):
                first = number * share
                some = min(share, pieces - first)
                for tile in range(tiles):
                    self.ask(self.used)
                    for place in range(first, first + some):
                        half = (self.half + place - first) % 2
                        self.multiply(self.work[chunk + place], tile * pieces + place, half, place == first)
                for place in range(first, first + some):
                    half = (self.half + place - first) % 2
                    self.acc_read[half] = self.of_vector_unit(
                        self.acc_written[half], self.work[chunk + place], y + block * pieces + place
                    )
                self.half = (self.half + some) % 2
        self.end_reads(self.n_ub + begin, reads)
        self.n_ub += x_ranges + blocks * pieces
        return table + 4 * blocks

    cdef void vector_rows(self, int64_t inputs, int64_t rows) noexcept nogil:
        cdef int64_t wait = 0, y = self.n_ub + inputs, r, end
        for r in range(self.n_ub, y):
            wait = max(wait, latest(self.written, self.ub[0, r], self.ub[1, r]))
        end = self.of_vector_unit(wait, rows, y)
        for r in range(self.n_ub, y):
            raise_to(self.read, self.ub[0, r], self.ub[1, r], end)
        self.n_ub = y + 1

    cdef void transfer(self, bint is_load) noexcept nogil:
        cdef int64_t ub_first = self.ub[0, self.n_ub], ub_last = self.ub[1, self.n_ub]
        cdef int64_t host_first = self.host[0, self.n_host], host_last = self.host[1, self.n_host]
        cdef int64_t start = self.dispatched(), end
        start = max(start, latest(self.written, ub_first, ub_last))
        start = max(start, latest(self.host_written, host_first, host_last))
        if is_load:
            start = max(max(start, latest(self.read, ub_first, ub_last)), self.host_in)
            end = self.host_in = start + self.busy[self.n_busy]
            raise_to(self.host_read, host_first, host_last, end)
            raise_to(self.written, ub_first, ub_last, end + self.m.host_latency)
        else:
            start = max(max(start, latest(self.host_read, host_first, host_last)), self.host_out)
            end = self.host_out = start + self.busy[self.n_busy]
            raise_to(self.read, ub_first, ub_last, end)
            raise_to(self.host_written, host_first, host_last, end + self.m.host_latency)
        self.finish(end + self.m.host_latency)
        self.n_ub += 1
        self.n_host += 1
        self.n_busy += 1

    cdef void host_call(self, int64_t reads, int64_t writes) noexcept nogil:
        cdef int64_t now = self.dispatched(), r, behind = self.n_host + reads
        for r in range(self.n_host, behind + writes):
            now = max(now, latest(self.host_written, self.host[0, r], self.host[1, r]))
            if r >= behind:
                now = max(now, latest(self.host_read, self.host[0, r], self.host[1, r]))
        for r in range(self.n_host, behind):
            raise_to(self.host_read, self.host[0, r], self.host[1, r], now)
        for r in range(behind, behind + writes):
            raise_to(self.host_written, self.host[0, r], self.host[1, r], now)
        self.finish(now)
        self.n_host = behind + writes

    cdef void run(self) noexcept nogil:
        cdef int64_t at = 0, kind, i
        self.ask(-1)
        while at < self.work.shape[0]:
            kind = self.work[at]
            if kind == PRODUCT:
                at = self.product(at)
            elif kind == ROWS:
                self.vector_rows(self.work[at + 1], self.work[at + 2])
                at += 3
            elif kind == LOAD or kind == STORE:
                for i in range(self.work[at + 1]):
                    self.transfer(kind == LOAD)
                at += 2
            elif kind == HOST:
                self.host_call(self.work[at + 1], self.work[at + 2])
                at += 3
            else:  # other types of operands
                self.finish(self.dispatched())
                at += 1
        self.causes[OTHER_STALL] += self.last - self.stream_end
