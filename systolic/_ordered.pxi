# Products whose additions are in order, part of _gemm.pyx: number formats beyond 8-bit integers.
#
# Threads take pieces of rows and columns; each packs what it needs, since a piece is used often.

cdef enum:
    LEAST_SIDE = 64     # rows or columns of a piece, to amortize packing

_FLOAT_8 = {
    "float8_e5m2": np.arange(256, dtype=np.uint16) << 8,  # the upper byte of a float16
    "float8_e4m3fn": (np.arange(256, dtype=np.uint16) & 0x80) << 8 | (np.arange(256, dtype=np.uint16) & 0x7F) << 7,
}
_TABLES = {name: codes.view(np.float16).astype(np.float32) for name, codes in _FLOAT_8.items()}
_TABLES["float8_e4m3fn"] *= 256  # whose exponents have a bias of 7, not 15
_TABLES["float8_e4m3fn"][0x7F::0x80] = np.nan
_STORED = {
    "int8": INTEGER_8, "uint8": UNSIGNED_8, "int16": INTEGER_16, "uint16": UNSIGNED_16,
    "bfloat16": BFLOAT_16, "float16": FLOAT_16, "float8_e4m3fn": FLOAT_8_E4M3FN, "float8_e5m2": FLOAT_8_E5M2,
}
_INTEGERS = ("int8", "uint8", "int16", "uint16")
_SUMS = {WRAP_32: "int32", WRAP_64: "int64", SATURATE_32: "int32", SATURATE_64: "int64", FLOAT_32: "float32"}


cdef struct OrderedPieces:
    OrderedProduct whole
    const OrderedKernels *kernels
    Py_ssize_t rows_each, cols_each, across, sum_size
    uint8_t *scratch
    size_t scratch_each


cdef OrderedProduct _ordered_piece(const OrderedPieces *p, Py_ssize_t number) noexcept nogil:
    cdef OrderedProduct piece = p.whole
    cdef Py_ssize_t row = number // p.across * p.rows_each, col = number % p.across * p.cols_each
    piece.m, piece.n = min(p.rows_each, piece.m - row), min(p.cols_each, piece.n - col)
    piece.a.first_row += row
    piece.b.first_col += col
    piece.acc = <char *>piece.acc + (row * piece.acc_row + col) * p.sum_size
    return piece


cdef void _multiply_ordered_piece(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const OrderedPieces *p = <const OrderedPieces *>context
    cdef OrderedProduct piece = _ordered_piece(p, number)
    p.kernels.multiply(&piece, p.scratch + worker * p.scratch_each)


cdef int _stored_type(StoredMatrix *to, values) except -1:
    name = values.dtype.name
    if name not in _STORED:
        raise ValueError(f"operands must be of {', '.join(_STORED)}, not {name}")
    if not values.flags.aligned:
        raise ValueError("operands must be aligned")
    to.first_row = to.first_col = 0
    to.type, to.table, to.window = <Stored><int>_STORED[name], NULL, NULL
    if name in _TABLES:
        to.table = <const float *><size_t>_TABLES[name].ctypes.data
    return 0


cdef int _stored_matrix(StoredMatrix *to, values) except -1:
    cdef Py_ssize_t size = values.itemsize
    if values.ndim != 2:
        raise ValueError(f"operands must be matrices, not {values.ndim}-d")
    _stored_type(to, values)
    to.values = <const void *><size_t>values.ctypes.data
    if values.shape[1] < 2 or values.strides[1] == size or not values.size:
        to.line, to.lines_are_columns = values.strides[0], False
    elif values.shape[0] < 2 or values.strides[0] == size:
        to.line, to.lines_are_columns = values.strides[1], True
    else:
        raise ValueError("rows or columns of operands must be contiguous")
    return 0


cdef int _multiply_ordered(OrderedPieces *p, a_type, b_type, acc, int arithmetic, Py_ssize_t threads) except -1:
    # Check and compute the product of p.whole, whose operands, k, step and limits are known.
    cdef Py_ssize_t down = 1
    cdef int workers
    cdef size_t size
    cdef bint is_long
    p.kernels = in_use().ordered
    p.whole.m, p.whole.n = acc.shape
    kinds = {a_type.name in _INTEGERS, b_type.name in _INTEGERS, arithmetic != FLOAT_32}
    if len(kinds) != 1 or _SUMS.get(arithmetic) != acc.dtype.name or p.whole.step < 1:
        raise ValueError(
            f"{a_type} x {b_type}, sums of {acc.dtype}, arithmetic {arithmetic} and steps of {p.whole.step} do not fit"
        )
    if p.whole.m == 0 or p.whole.n == 0:
        return 0
    p.sum_size = acc.itemsize
    if p.whole.n > 1 and acc.strides[1] != acc.itemsize or acc.strides[0] % acc.itemsize or not acc.flags.behaved:
        raise ValueError("rows of acc must be contiguous, whole sums apart and writeable")
    p.whole.acc, p.whole.acc_row = <void *><size_t>acc.ctypes.data, acc.strides[0] // p.sum_size
    p.whole.arithmetic = <Arithmetic>arithmetic
    p.across = 1
    # Pieces as square as can be: both operands are packed once for each piece.
    while threads > 1 and down * p.across < TASKS_EACH * threads:
        if p.whole.m // down >= max(p.whole.n // p.across, 2 * LEAST_SIDE):
            down *= 2
        elif p.whole.n // p.across >= 2 * LEAST_SIDE:
            p.across *= 2
        else:
            break
    p.rows_each = _whole(p.whole.m, down, p.kernels.rows)
    p.cols_each = _whole(p.whole.n, p.across, p.kernels.cols)
    down = (p.whole.m + p.rows_each - 1) // p.rows_each
    p.across = (p.whole.n + p.cols_each - 1) // p.cols_each
    workers = hire(min(threads, down * p.across)) if threads > 1 else 1
    with nogil:
        p.scratch_each = whole_lines(_scratch_of_pieces(p))
        p.scratch = borrow(workers * p.scratch_each, &size)
        if p.scratch == NULL:
            with gil:
                raise MemoryError()
        is_long = p.whole.m * p.whole.n >= LONG_MACS // max(p.whole.k, 1)
        share(_multiply_ordered_piece, p, down * p.across, workers, is_long)
        give_back(p.scratch, size)
    return 0


cdef size_t _scratch_of_pieces(const OrderedPieces *p) noexcept nogil:
    cdef OrderedProduct first = _ordered_piece(p, 0)  # none is larger
    return p.kernels.scratch_bytes(&first)


cdef Py_ssize_t _whole(Py_ssize_t size, Py_ssize_t parts, Py_ssize_t of) noexcept nogil:
    # The size of about so many equal parts, a multiple of `of`.
    return ((size + parts - 1) // parts + of - 1) // of * of


def multiply_in_order(a, b, acc, *, Py_ssize_t step, int arithmetic, int64_t low=0, int64_t high=0,
                      Py_ssize_t threads=1) -> None:
    """Compute acc = a @ b in any number format, adding along K from row 0 of b on.

    Parameters
    ----------
    a : ndarray of a type of :data:`systolic.formats.OPERANDS` that registers hold, (M, K)
        Contiguous along either axis.
    b : ndarray of such a type, (K, N)
        Contiguous along either axis; an integer type if a's is one, else a float type.
    acc : ndarray of int32, int64 or float32, (M, N)
        Receives the sums; contiguous along N.
    step : int
        Rows of b in a k tile. Each tile's sums start at zero; tiles are then added in order.
    arithmetic : int
        A value of ``systolic._core.ARITHMETICS``.
    low, high : int
        Limits of sums that saturate.
    threads : int
        Most threads to use; sums do not depend on it.
    """
    cdef OrderedPieces p
    _stored_matrix(&p.whole.a, a)
    _stored_matrix(&p.whole.b, b)
    if a.shape[1] != b.shape[0] or acc.shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"shapes {a.shape} and {b.shape} do not make {acc.shape}")
    p.whole.k, p.whole.step, p.whole.low, p.whole.high = a.shape[1], step, low, high
    _multiply_ordered(&p, a.dtype, b.dtype, acc, arithmetic, threads)


def convolve_in_order(x, weights, acc, kernel, stride, dilation, pad, out_size, pad_value, *, Py_ssize_t group,
                      Py_ssize_t first, Py_ssize_t step, int arithmetic, int64_t low=0, int64_t high=0,
                      bint channels_last=False, Py_ssize_t threads=1) -> None:
    """Convolve images of any number format, some pixels and one group of channels, as :func:`multiply_in_order`.

    Parameters
    ----------
    x : ndarray, (batch, channels, ih, iw)
        Any strides.
    weights : ndarray, (K, N)
        Of the group; contiguous along either axis. K runs over (channels of the group, kh, kw).
    acc : ndarray, (N, pixels), or (pixels, N) with `channels_last`
        Receives the sums of so many pixels (image, y, x) from `first` on; contiguous along the last axis.
    kernel, stride, dilation, pad, out_size, pad_value
        As for :func:`im2col`, of x's type.
    group, first : int
    step, arithmetic, low, high, threads
        As for :func:`multiply_in_order`.
    """
    cdef OrderedPieces p
    cdef HostWindow window
    cdef StoredMatrix filters, patches
    k, n = weights.shape
    pixels = x.shape[0] * out_size[0] * out_size[1]
    count = acc.shape[1 - channels_last]
    _stored_matrix(&filters, weights)
    _stored_type(&patches, x)
    _window(&window, x[..., np.newaxis].view(np.uint8)[..., 0], kernel, stride, dilation, pad, out_size)
    if k % (kernel[0] * kernel[1]) or not 0 <= group * k <= x.shape[1] * kernel[0] * kernel[1] - k:
        raise ValueError(f"group {group} of weights {weights.shape} does not fit images {x.shape} and kernel {kernel}")
    if acc.shape[channels_last] != n or not 0 <= first <= pixels - count:
        raise ValueError(f"pixels from {first} on of {pixels} and {n} channels do not make {acc.shape}")
    patches.window = &window
    patches.pad = np.array([pad_value]).astype(x.dtype).view(f"uint{8 * x.itemsize}")[0]
    p.whole.k, p.whole.step, p.whole.low, p.whole.high = k, step, low, high
    if channels_last:  # taps are columns of a
        patches.lines_are_columns, patches.first_row, patches.first_col = True, first, group * k
        p.whole.a, p.whole.b = patches, filters
    else:  # taps are rows of b
        patches.lines_are_columns, patches.first_row, patches.first_col = False, group * k, first
        filters.lines_are_columns = not filters.lines_are_columns
        p.whole.a, p.whole.b = filters, patches
    _multiply_ordered(&p, weights.dtype, x.dtype, acc, arithmetic, threads)
