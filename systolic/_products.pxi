# Exact products of 8-bit matrices, part of _core.pyx: pieces of the sums shared among threads.

cdef const Gemm *gemm_in_use() noexcept nogil:
    return G


cdef enum:
    TASKS_EACH = 4          # pieces per thread: one that is held up takes fewer
    LEAST_COLS = 128        # of a piece, so that what is done once per row of a counts little
    LONG_MACS = 1 << 24     # a tenth of a millisecond or more


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
    cdef size_t packed = (gemm.packed_bytes(k, n) + 63) // 64 * 64 if m > gemm.unpacked_rows else 0
    return packed + (gemm.scratch_bytes(m, k, n) + 63) // 64 * 64


cdef void multiply_once(
    const Gemm *gemm, const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
    bint a_signed, bint b_signed, const uint8_t *b, Py_ssize_t b_stride, int32_t *acc, Py_ssize_t acc_stride,
    uint8_t *memory,
) noexcept nogil:
    cdef size_t packed
    if m > gemm.unpacked_rows:
        packed = (gemm.packed_bytes(k, n) + 63) // 64 * 64
        gemm.pack(b, b_stride, k, n, a_signed, b_signed, memory)
        gemm.multiply(a, a_stride, m, k, n, a_signed, b_signed, memory, acc, acc_stride, False, memory + packed)
    else:
        gemm.multiply_unpacked(a, a_stride, m, k, n, a_signed, b_signed, b, b_stride, acc, acc_stride, False, memory)


def multiply(const uint8_t[:, :, :] a, const uint8_t[:, :, :] b, int32_t[:, :, :] acc,
             *, bint a_signed, bint b_signed, Py_ssize_t threads=1):
    """Compute acc = a @ b for each group, exactly and modulo 2^32, with the processor's dot products.

    Parameters
    ----------
    a : memoryview of uint8, (groups, M, K)
        Codes; neighbours along K are neighbours in memory.
    b : memoryview of uint8, (groups, K, N)
        Codes; neighbours along N are neighbours in memory.
    acc : memoryview of int32, (groups, M, N)
        Receives the sums; neighbours along N are neighbours in memory.
    a_signed, b_signed : bool
        Whether codes stand for int8 or uint8.
    threads : int
        How many may work; sums do not depend on it.
    """
    cdef Product p
    cdef Py_ssize_t groups = a.shape[0], g, i, down = 1, across = 1
    cdef int workers
    cdef size_t packed = 0, size
    cdef uint8_t *memory
    cdef bint is_long
    p.m, p.k, p.n = a.shape[1], a.shape[2], b.shape[2]
    if (b.shape[0] != groups or b.shape[1] != p.k or acc.shape[0] != groups or acc.shape[1] != p.m
            or acc.shape[2] != p.n):
        raise ValueError(
            f"shapes ({groups}, {p.m}, {p.k}) and ({b.shape[0]}, {b.shape[1]}, {p.n}) do not make "
            f"({acc.shape[0]}, {acc.shape[1]}, {acc.shape[2]})"
        )
    if p.k > 1 and a.strides[2] != 1 or p.n > 1 and (b.strides[2] != 1 or acc.strides[2] != sizeof(int32_t)):
        raise ValueError("rows of a, b and acc must be contiguous")
    if acc.strides[0] % <Py_ssize_t>sizeof(int32_t) or acc.strides[1] % <Py_ssize_t>sizeof(int32_t):
        raise ValueError("acc must have strides of whole sums")
    if groups == 0 or p.m == 0 or p.n == 0:
        return
    if p.k == 0:
        for g in range(groups):
            for i in range(p.m):
                memset(&acc[g, i, 0], 0, p.n * sizeof(int32_t))
        return
    workers = hire(threads) if threads > 1 else 1
    p.gemm, p.a_signed, p.b_signed = G, a_signed, b_signed
    p.a, p.b, p.acc = &a[0, 0, 0], &b[0, 0, 0], &acc[0, 0, 0]
    p.a_group, p.a_stride, p.b_group, p.b_stride = a.strides[0], a.strides[1], b.strides[0], b.strides[1]
    p.acc_group = acc.strides[0] // <Py_ssize_t>sizeof(int32_t)
    p.acc_stride = acc.strides[1] // <Py_ssize_t>sizeof(int32_t)
    if workers == 1 or groups >= 2 * workers:
        p.scratch_each = once_bytes(G, p.m, p.k, p.n)
    else:
        # Rows first: what is done once per row of a is then done once.
        down = (p.m + G.unpacked_rows - 1) // G.unpacked_rows
        across = max(1, min(p.n // LEAST_COLS, (TASKS_EACH * workers + down - 1) // down))
        p.rows_each = (p.m + down - 1) // down
        p.cols_each = ((p.n + across - 1) // across + G.panel_cols - 1) // G.panel_cols * G.panel_cols
        down = (p.m + p.rows_each - 1) // p.rows_each
        across = (p.n + p.cols_each - 1) // p.cols_each
        if p.m > G.unpacked_rows:
            packed = (G.packed_bytes(p.k, p.n) + 63) // 64 * 64
        p.scratch_each = (G.scratch_bytes(p.rows_each, p.k, p.cols_each) + 63) // 64 * 64
    memory = borrow(packed + workers * p.scratch_each, &size)
    if memory == NULL:
        raise MemoryError()
    with nogil:
        p.packed = memory if packed else NULL
        p.scratch = memory + packed
        is_long = groups * p.m * p.n >= LONG_MACS // p.k
        if workers == 1 or groups >= 2 * workers:
            share(_multiply_group, &p, groups, workers, is_long)
        else:
            for g in range(groups):
                if packed:
                    share(_pack_piece, &p, across, workers, is_long)
                share(_multiply_piece, &p, down * across, workers, is_long)
                p.a += p.a_group
                p.b += p.b_group
                p.acc += p.acc_group
        give_back(memory, size)
