# Exact products of 8-bit matrices, part of _core.pyx: pieces of the sums shared among threads.

cdef const Gemm *gemm_in_use() noexcept nogil:
    return G


cdef enum:
    TASKS_EACH = 4          # pieces per thread: one that is held up takes fewer
    LEAST_COLS = 128        # of a piece, so that what is done once per row of a counts little


cdef struct Product:
    # A product, or many of one size, cut into rows_each x cols_each pieces of the sums.
    const Gemm *gemm
    const uint8_t *a
    const uint8_t *b
    int32_t *acc
    Py_ssize_t a_group, b_group, acc_group, a_stride, b_stride, acc_stride
    Py_ssize_t m, k, n, rows_each, cols_each
    bint a_signed, b_signed
    uint8_t *packed             # b of the one group at hand; NULL: pieces pack what they need
    uint8_t *scratch            # of every worker
    size_t scratch_each


cdef void _pack_piece(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Product *p = <const Product *>context
    cdef Py_ssize_t col = number * p.cols_each
    p.gemm.pack(p.b + col, p.b_stride, p.k, min(p.cols_each, p.n - col), p.a_signed, p.b_signed,
                p.packed + p.gemm.packed_bytes(p.k, col))


cdef void _multiply_piece(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Product *p = <const Product *>context
    cdef Py_ssize_t across = (p.n + p.cols_each - 1) // p.cols_each
    cdef Py_ssize_t row = number // across * p.rows_each, col = number % across * p.cols_each
    cdef Py_ssize_t rows = min(p.rows_each, p.m - row), cols = min(p.cols_each, p.n - col)
    cdef const uint8_t *a = p.a + row * p.a_stride
    cdef int32_t *acc = p.acc + row * p.acc_stride + col
    cdef uint8_t *scratch = p.scratch + worker * p.scratch_each
    if p.packed != NULL:
        p.gemm.multiply(a, p.a_stride, rows, p.k, cols, p.a_signed, p.b_signed,
                        p.packed + p.gemm.packed_bytes(p.k, col), acc, p.acc_stride, False, scratch)
    else:
        p.gemm.multiply_unpacked(a, p.a_stride, rows, p.k, cols, p.a_signed, p.b_signed,
                                 p.b + col, p.b_stride, acc, p.acc_stride, False, scratch)


cdef void _multiply_group(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # One of many products, whole.
    cdef const Product *p = <const Product *>context
    cdef uint8_t *scratch = p.scratch + worker * p.scratch_each
    cdef const uint8_t *a = p.a + number * p.a_group
    cdef const uint8_t *b = p.b + number * p.b_group
    cdef int32_t *acc = p.acc + number * p.acc_group
    multiply_once(p.gemm, a, p.a_stride, p.m, p.k, p.n, p.a_signed, p.b_signed, b, p.b_stride, acc, p.acc_stride,
                  scratch)


cdef size_t once_bytes(const Gemm *gemm, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n) noexcept nogil:
    cdef size_t packed = whole_lines(gemm.packed_bytes(k, n)) if m > gemm.unpacked_rows else 0
    return packed + whole_lines(gemm.scratch_bytes(m, k, n))


cdef void multiply_once(
    const Gemm *gemm, const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
    bint a_signed, bint b_signed, const uint8_t *b, Py_ssize_t b_stride, int32_t *acc, Py_ssize_t acc_stride,
    uint8_t *memory,
) noexcept nogil:
    cdef size_t packed
    if m > gemm.unpacked_rows:
        packed = whole_lines(gemm.packed_bytes(k, n))
        gemm.pack(b, b_stride, k, n, a_signed, b_signed, memory)
        gemm.multiply(a, a_stride, m, k, n, a_signed, b_signed, memory, acc, acc_stride, False, memory + packed)
    else:
        gemm.multiply_unpacked(a, a_stride, m, k, n, a_signed, b_signed, b, b_stride, acc, acc_stride, False, memory)


cdef struct Matrices:
    # A stack of matrices, as a buffer describes it; a plain matrix is a stack of one.
    char *at
    Py_ssize_t groups, rows, cols, group, row, col      # sizes, and bytes from one to the next
    char kind                                           # format character
    Py_ssize_t itemsize


cdef Matrices _matrices(const Py_buffer *view) noexcept:
    cdef Matrices m
    cdef const char *format = view.format
    cdef int i = view.ndim - 2
    m.at, m.kind, m.itemsize = <char *>view.buf, format[0] if format[1] == 0 else 0, view.itemsize
    m.groups, m.group = 1, 0
    if i:
        m.groups, m.group = view.shape[0], view.strides[0]
    m.rows, m.row, m.cols, m.col = view.shape[i], view.strides[i], view.shape[i + 1], view.strides[i + 1]
    return m


def multiply(a, b, acc, *, Py_ssize_t threads=1):
    """Compute acc = a @ b, exactly and modulo 2^32, with the processor's dot products.

    Parameters
    ----------
    a : ndarray of int8 or uint8, (M, K) or (groups, M, K)
        Neighbours along K are neighbours in memory.
    b : ndarray of int8 or uint8, (K, N) or (groups, K, N)
        Neighbours along N are neighbours in memory.
    acc : ndarray of int32, (M, N) or (groups, M, N)
        Receives the sums; neighbours along N are neighbours in memory.
    threads : int
        How many may work; sums do not depend on it.
    """
    # Buffers, not memoryviews: those take longer to make than a small product.
    cdef Py_buffer[3] views
    cdef int opened = 0, i
    try:
        for i, values in enumerate((a, b, acc)):
            PyObject_GetBuffer(values, &views[i], PyBUF_FORMAT | (PyBUF_STRIDED if i == 2 else PyBUF_STRIDED_RO))
            opened += 1
            if not 2 <= views[i].ndim <= 3 or views[i].ndim != views[0].ndim:
                raise ValueError("a, b and acc must be matrices or stacks of them")
        _multiply(_matrices(&views[0]), _matrices(&views[1]), _matrices(&views[2]), threads)
    finally:
        for i in range(opened):
            PyBuffer_Release(&views[i])


cdef int _multiply(Matrices a, Matrices b, Matrices acc, Py_ssize_t threads) except -1:
    cdef Product p
    cdef Py_ssize_t g, i, down = 1, across = 1
    cdef int workers
    cdef size_t packed = 0, size
    cdef uint8_t *memory
    cdef bint is_long, whole
    p.m, p.k, p.n = a.rows, a.cols, b.cols
    if a.kind not in (c'b', c'B') or b.kind not in (c'b', c'B') or acc.kind not in (c'i', c'l') or acc.itemsize != 4:
        raise ValueError("a and b must hold int8 or uint8, and acc int32")
    if (b.groups != a.groups or b.rows != p.k or acc.groups != a.groups or acc.rows != p.m or acc.cols != p.n):
        raise ValueError(
            f"shapes ({a.groups}, {p.m}, {p.k}) and ({b.groups}, {b.rows}, {p.n}) do not make "
            f"({acc.groups}, {acc.rows}, {acc.cols})"
        )
    if p.k > 1 and a.col != 1 or p.n > 1 and (b.col != 1 or acc.col != sizeof(int32_t)):
        raise ValueError("rows of a, b and acc must be contiguous")
    if acc.group % <Py_ssize_t>sizeof(int32_t) or acc.row % <Py_ssize_t>sizeof(int32_t):
        raise ValueError("acc must have strides of whole sums")
    if a.groups == 0 or p.m == 0 or p.n == 0:
        return 0
    if p.k == 0:
        for g in range(a.groups):
            for i in range(p.m):
                memset(acc.at + g * acc.group + i * acc.row, 0, p.n * sizeof(int32_t))
        return 0
    p.gemm, p.a_signed, p.b_signed = G, a.kind == c'b', b.kind == c'b'
    p.a, p.b, p.acc = <const uint8_t *>a.at, <const uint8_t *>b.at, <int32_t *>acc.at
    p.a_group, p.a_stride, p.b_group, p.b_stride = a.group, a.row, b.group, b.row
    p.acc_group = acc.group // <Py_ssize_t>sizeof(int32_t)
    p.acc_stride = acc.row // <Py_ssize_t>sizeof(int32_t)
    whole = threads == 1 or a.groups >= 2 * threads
    if whole:
        workers = hire(min(threads, a.groups))
        p.scratch_each = once_bytes(G, p.m, p.k, p.n)
    else:
        # Rows first: what is done once per row of a is then done once.
        down = (p.m + G.unpacked_rows - 1) // G.unpacked_rows
        across = max(1, min(p.n // LEAST_COLS, (TASKS_EACH * threads + down - 1) // down))
        if down * across < threads:
            across = min((threads + down - 1) // down, (p.n + G.panel_cols - 1) // G.panel_cols)
        p.rows_each = (p.m + down - 1) // down
        p.cols_each = ((p.n + across - 1) // across + G.panel_cols - 1) // G.panel_cols * G.panel_cols
        down = (p.m + p.rows_each - 1) // p.rows_each
        across = (p.n + p.cols_each - 1) // p.cols_each
        workers = hire(min(threads, down * across))
        if p.m > G.unpacked_rows:
            packed = whole_lines(G.packed_bytes(p.k, p.n))
        p.scratch_each = whole_lines(G.scratch_bytes(p.rows_each, p.k, p.cols_each))
    memory = borrow(packed + workers * p.scratch_each, &size)
    if memory == NULL:
        raise MemoryError()
    with nogil:
        p.packed = memory if packed else NULL
        p.scratch = memory + packed
        is_long = a.groups * p.m * p.n >= LONG_MACS // p.k
        if whole:
            share(_multiply_group, &p, a.groups, workers, is_long)
        else:
            for g in range(a.groups):
                if packed:
                    share(_pack_piece, &p, across, workers, is_long)
                share(_multiply_piece, &p, down * across, workers, is_long)
                p.a += p.a_group
                p.b += p.b_group
                p.acc += p.acc_group
        give_back(memory, size)
    return 0
