"""Exact products of 8-bit matrices, and convolutions as products of their patches; both in other number formats.

``kernels/gemm.h`` is the contract of the compiled product, ``kernels/ordered.h`` that of other formats,
``kernels/host.h`` that of the patches and of the requantization. Callers check arguments for users; here only what
would read or write outside an array raises (ValueError), before anything is computed. Inputs and outputs must not
overlap. The GIL is released.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDED, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from systolic._kernels cimport in_use
from systolic._threads cimport borrow, give_back, hire, share, whole_lines
from systolic.kernels.gemm cimport GemmKernels
from systolic.kernels.host cimport HostKernels, HostSums, HostWindow
from systolic.kernels.numbers cimport (
    BFLOAT_16, FLOAT_16, FLOAT_32, FLOAT_8_E4M3FN, FLOAT_8_E5M2, INTEGER_16, INTEGER_8, SATURATE_32, SATURATE_64,
    UNSIGNED_16, UNSIGNED_8, WRAP_32, WRAP_64, Arithmetic, Stored,
)
from systolic.kernels.ordered cimport OrderedKernels, OrderedProduct, StoredMatrix
from systolic.kernels.spin cimport spin_clock

import numpy as np

include "_arguments.pxi"


cdef enum:
    TASKS_EACH = 4          # pieces per thread, so that a delayed thread can take fewer
    LEAST_COLS = 128        # of a piece, to amortize the work per row of a
    LONG_MACS = 1 << 24     # a tenth of a millisecond or more: worth waking a thread for


cdef struct Product:
    # A product, or a stack of products, cut into pieces of rows_each x cols_each sums.
    const GemmKernels *gemm
    const uint8_t *a
    const uint8_t *b
    int32_t *acc
    Py_ssize_t a_group, b_group, acc_group, a_stride, b_stride, acc_stride
    Py_ssize_t m, k, n, rows_each, cols_each
    bint a_signed, b_signed
    uint8_t *packed             # packed b of the current group; NULL: pieces pack what they need
    uint8_t *scratch            # of each worker
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
                        p.packed + p.gemm.packed_bytes(p.k, col), acc, p.acc_stride, scratch)
    else:
        p.gemm.multiply_unpacked(a, p.a_stride, rows, p.k, cols, p.a_signed, p.b_signed,
                                 p.b + col, p.b_stride, acc, p.acc_stride, scratch)


cdef void _multiply_group(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # One product of a stack.
    cdef const Product *p = <const Product *>context
    cdef uint8_t *scratch = p.scratch + worker * p.scratch_each
    cdef const uint8_t *a = p.a + number * p.a_group
    cdef const uint8_t *b = p.b + number * p.b_group
    cdef int32_t *acc = p.acc + number * p.acc_group
    multiply_once(p.gemm, a, p.a_stride, p.m, p.k, p.n, p.a_signed, p.b_signed, b, p.b_stride, acc, p.acc_stride,
                  scratch)


cdef size_t once_bytes(const GemmKernels *gemm, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n) noexcept nogil:
    cdef size_t packed = whole_lines(gemm.packed_bytes(k, n)) if m > gemm.unpacked_rows else 0
    return packed + whole_lines(gemm.scratch_bytes(m, k, n))


cdef void multiply_once(
    const GemmKernels *gemm, const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
    bint a_signed, bint b_signed, const uint8_t *b, Py_ssize_t b_stride, int32_t *acc, Py_ssize_t acc_stride,
    uint8_t *memory,
) noexcept nogil:
    cdef size_t packed
    if m > gemm.unpacked_rows:
        packed = whole_lines(gemm.packed_bytes(k, n))
        gemm.pack(b, b_stride, k, n, a_signed, b_signed, memory)
        gemm.multiply(a, a_stride, m, k, n, a_signed, b_signed, memory, acc, acc_stride, memory + packed)
    else:
        gemm.multiply_unpacked(a, a_stride, m, k, n, a_signed, b_signed, b, b_stride, acc, acc_stride, memory)


cdef struct Matrices:
    # A stack of matrices, as described by a buffer; a plain matrix is a stack of one.
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
        Contiguous along K.
    b : ndarray of int8 or uint8, (K, N) or (groups, K, N)
        Contiguous along N.
    acc : ndarray of int32, (M, N) or (groups, M, N)
        Receives the sums; contiguous along N.
    threads : int
        Most threads to use; sums do not depend on it.
    """
    # Buffers, not memoryviews, which take longer to make than a small product.
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
    cdef const GemmKernels *gemm = in_use().gemm
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
    p.gemm, p.a_signed, p.b_signed = gemm, a.kind == c'b', b.kind == c'b'
    p.a, p.b, p.acc = <const uint8_t *>a.at, <const uint8_t *>b.at, <int32_t *>acc.at
    p.a_group, p.a_stride, p.b_group, p.b_stride = a.group, a.row, b.group, b.row
    p.acc_group = acc.group // <Py_ssize_t>sizeof(int32_t)
    p.acc_stride = acc.row // <Py_ssize_t>sizeof(int32_t)
    whole = threads == 1 or a.groups >= 2 * threads
    if whole:
        workers = hire(min(threads, a.groups)) if threads > 1 else 1
        p.scratch_each = once_bytes(gemm, p.m, p.k, p.n)
    else:
        # Split rows first, so that the work per row of a is done once.
        down = (p.m + gemm.unpacked_rows - 1) // gemm.unpacked_rows
        across = max(1, min(p.n // LEAST_COLS, (TASKS_EACH * threads + down - 1) // down))
        if down * across < threads:
            across = min((threads + down - 1) // down, (p.n + gemm.panel_cols - 1) // gemm.panel_cols)
        p.rows_each = (p.m + down - 1) // down
        p.cols_each = ((p.n + across - 1) // across + gemm.panel_cols - 1) // gemm.panel_cols * gemm.panel_cols
        down = (p.m + p.rows_each - 1) // p.rows_each
        across = (p.n + p.cols_each - 1) // p.cols_each
        workers = hire(min(threads, down * across))
        if p.m > gemm.unpacked_rows:
            packed = whole_lines(gemm.packed_bytes(p.k, p.n))
        p.scratch_each = whole_lines(gemm.scratch_bytes(p.rows_each, p.k, p.cols_each))
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


def im2col_transposed(x, out, kernel, stride, dilation, pad, out_size, pad_value, k_start, m_start) -> None:
    """Write rows k_start.. and columns m_start.. of the transposed im2col matrix (K, M) to `out`.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (batch, channels, ih, iw)
        Any strides (NHWC: a transposed view); contiguous lines are fastest.
    out : ndarray of x's type, (k, m)
        Rows are contiguous. K runs over (channels, kh, kw), M over (batch, oh, ow).
    kernel, stride, dilation : (int, int)
    pad : (top, left)
    out_size : (oh, ow)
    pad_value : int
        The code outside the image.
    k_start, m_start : int
    """
    _fill_patches(x, out, kernel, stride, dilation, pad, out_size, pad_value, k_start, m_start, True)


def im2col(x, out, kernel, stride, dilation, pad, out_size, pad_value, k_start, m_start) -> None:
    """Write rows m_start.. and columns k_start.. of the im2col matrix (M, K) to `out`, (m, k).

    The arguments are :func:`im2col_transposed`'s.
    """
    _fill_patches(x, out, kernel, stride, dilation, pad, out_size, pad_value, k_start, m_start, False)


cdef int _fill_patches(x, out, kernel, stride, dilation, pad, out_size, pad_value, Py_ssize_t k_start,
                       Py_ssize_t m_start, bint transposed) except -1:
    cdef int is_signed = _is_signed(out)
    cdef HostWindow window
    cdef const uint8_t[:, :, :, :] image = x.view(np.uint8)
    cdef uint8_t[:, :] target = out.view(np.uint8)
    cdef uint8_t value = <uint8_t>(_zero(pad_value, is_signed) & 0xFF)
    cdef Py_ssize_t k_count = target.shape[0], m_count = target.shape[1], row = target.strides[0]
    if _is_signed(x) != is_signed:
        raise ValueError(f"x and out must have one type, not {x.dtype} and {out.dtype}")
    if target.shape[1] > 1 and target.strides[1] != 1:
        raise ValueError("rows of out must be contiguous")
    if not transposed:
        k_count, m_count = m_count, k_count
    _window(&window, image, kernel, stride, dilation, pad, out_size)
    k = x.shape[1] * int(window.kernel[0]) * int(window.kernel[1])
    m = x.shape[0] * int(window.out[0]) * int(window.out[1])
    if not 0 <= k_start <= k - k_count or not 0 <= m_start <= m - m_count:
        raise ValueError(
            f"k {k_start}..{k_start + k_count} and m {m_start}..{m_start + m_count} must lie in the matrix "
            f"of K = {k}, M = {m}"
        )
    if not k_count or not m_count:
        return 0
    with nogil:
        if transposed:
            in_use().host.im2col_transposed(&window, &target[0, 0], row, k_start, k_count, m_start, m_count, value)
        else:
            in_use().host.im2col(&window, &target[0, 0], row, k_start, k_count, m_start, m_count, value)
    return 0


include "_convolve.pxi"
include "_ordered.pxi"
