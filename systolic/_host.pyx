"""The compiled host operators: requantization, quantization, element-wise operators, pools.

``kernels/host.h`` describes the arithmetic; the numpy functions of `quant` and `layers` are reference
models of it. Callers check arguments for users; here only what would read or write outside an array raises
(ValueError), before anything is computed. Inputs and outputs must not overlap. The GIL is released.
"""

from libc.stdint cimport int32_t, uint8_t

from systolic._kernels cimport in_use
from systolic._threads cimport hire, share
from systolic.kernels.host cimport HostKernels, HostSums, HostWindow
from systolic.kernels.pool cimport PoolTask

import numpy as np

include "_arguments.pxi"


cdef object _flat(array):
    # All elements of a contiguous array, as a view.
    if not array.flags.c_contiguous:
        raise ValueError("array must be C-contiguous")
    return array.reshape(-1)


cdef object _codes(array):
    return _flat(array).view(np.uint8)


cdef int _apply_epilogue(acc, out, const float[::1] scale, int32_t zero, constant, weight_zero, row_sums,
                         bint to_codes, int is_signed) except -1:
    cdef HostSums sums
    cdef const int32_t[:, :, :] acc_view
    cdef const int32_t[::1] constant_view, zero_view
    cdef const int32_t[:, :, ::1] row_view
    cdef uint8_t[:, :, :] code_view
    cdef float[:, :, :] real_view
    cdef void *target = NULL
    if acc.ndim == 2:
        acc, out = acc[:, :, None], out[:, :, None]
        if row_sums is not None:
            row_sums = row_sums[:, :, None]
    acc_view = acc
    sums.outer, sums.channels, sums.inner = acc_view.shape[0], acc_view.shape[1], acc_view.shape[2]
    if acc.shape != out.shape:
        raise ValueError(f"out must have the sums' shape {acc.shape}, not {out.shape}")
    if scale.shape[0] != sums.channels:
        raise ValueError(f"scale must hold one number per channel ({sums.channels}), not {scale.shape[0]}")
    if acc.size == 0:
        return 0
    sums.acc, sums.scale = &acc_view[0, 0, 0], &scale[0]
    sums.acc_outer, sums.acc_channel = acc_view.strides[0] // 4, acc_view.strides[1] // 4
    if to_codes:
        code_view = out.view(np.uint8)
        target = &code_view[0, 0, 0]
        sums.out_outer, sums.out_channel = code_view.strides[0], code_view.strides[1]
        if code_view.strides[2] != 1 and sums.inner > 1:
            raise ValueError("codes of one channel must be contiguous")
    else:
        real_view = out
        target = &real_view[0, 0, 0]
        sums.out_outer, sums.out_channel = real_view.strides[0] // 4, real_view.strides[1] // 4
        if real_view.strides[2] != 4 and sums.inner > 1:
            raise ValueError("results of one channel must be contiguous")
    if acc_view.strides[2] != 4 and sums.inner > 1:
        raise ValueError("sums of one channel must be contiguous")
    if acc_view.strides[0] % 4 or acc_view.strides[1] % 4 or not to_codes and (
            real_view.strides[0] % 4 or real_view.strides[1] % 4):
        raise ValueError("strides must be multiples of the elements' size")
    sums.constant = sums.row_sums = sums.weight_zero = NULL
    sums.groups = 1
    if constant is not None:
        constant_view = constant
        if constant_view.shape[0] != sums.channels:
            raise ValueError(f"constant must have one number per channel ({sums.channels})")
        sums.constant = &constant_view[0]
    if (row_sums is None) != (weight_zero is None):
        raise ValueError("row_sums and weight_zero go together")
    if row_sums is not None:
        row_view, zero_view = row_sums, weight_zero
        sums.groups = row_view.shape[1]
        if (zero_view.shape[0] != sums.channels or row_view.shape[0] != sums.outer
                or row_view.shape[2] != sums.inner or sums.groups < 1 or sums.channels % sums.groups):
            raise ValueError(
                f"row_sums must be (outer, groups, inner) and weight_zero (channels,) for sums {acc.shape}, "
                f"not {row_sums.shape} and {weight_zero.shape}"
            )
        sums.row_sums, sums.weight_zero = &row_view[0, 0, 0], &zero_view[0]
    with nogil:
        if to_codes:
            in_use().host.requantize(&sums, <uint8_t *>target, is_signed, zero)
        else:
            in_use().host.scale_sums(&sums, <float *>target)
    return 0


def requantize(acc, out, scale, zero_point, *, constant=None, weight_zero=None, row_sums=None) -> None:
    """Requantize accumulators into `out`, adding the zero point after rounding half to even.

    Parameters
    ----------
    acc : ndarray of int32, (outer, channels, inner) or (rows, channels)
        Strides are free, but sums of one channel are contiguous.
    out : ndarray of int8 or uint8, the shape of acc
        Likewise.
    scale : ndarray of float32, (channels,)
    zero_point : int
        Of the codes.
    constant : ndarray of int32, (channels,), or None
        Added to the sums.
    weight_zero : ndarray of int32, (channels,), or None
        Times the row sums, taken from the sums.
    row_sums : ndarray of int32, (outer, groups, inner) or (rows, groups), C-contiguous, or None
    """
    cdef int is_signed = _is_signed(out)
    _apply_epilogue(acc, out, scale, _zero(zero_point, is_signed), constant, weight_zero, row_sums, True, is_signed)


def scale_sums(acc, out, scale, *, constant=None, weight_zero=None, row_sums=None) -> None:
    """Scale accumulators into `out`, float32; arguments as of :func:`requantize`."""
    _apply_epilogue(acc, out, scale, 0, constant, weight_zero, row_sums, False, 1)


cdef enum:
    CHUNK = 1 << 15             # elements that a thread takes at a time
    LONG_COUNT = 1 << 18


cdef struct Elements:
    # An element-wise operator on `count` elements, codes or float32 numbers.
    const HostKernels *table
    const void *a
    const uint8_t *b
    void *out
    Py_ssize_t count
    float scale[3]
    int32_t zero[3]
    int is_signed


cdef void _quantize_chunk(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Elements *e = <const Elements *>context
    cdef Py_ssize_t at = number * CHUNK
    e.table.quantize(<const float *>e.a + at, <uint8_t *>e.out + at, min(CHUNK, e.count - at), e.scale[0], e.is_signed,
                     e.zero[0])


cdef void _dequantize_chunk(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Elements *e = <const Elements *>context
    cdef Py_ssize_t at = number * CHUNK
    e.table.dequantize(<const uint8_t *>e.a + at, <float *>e.out + at, min(CHUNK, e.count - at), e.scale[0],
                       e.is_signed, e.zero[0])


cdef void _add_chunk(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Elements *e = <const Elements *>context
    cdef Py_ssize_t at = number * CHUNK
    e.table.add(<const uint8_t *>e.a + at, e.b + at, <uint8_t *>e.out + at, min(CHUNK, e.count - at), e.scale,
                e.is_signed, e.zero)


cdef void _mul_chunk(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Elements *e = <const Elements *>context
    cdef Py_ssize_t at = number * CHUNK
    e.table.mul(<const uint8_t *>e.a + at, e.b + at, <uint8_t *>e.out + at, min(CHUNK, e.count - at), e.scale,
                e.is_signed, e.zero)


cdef int _each(PoolTask task, Elements *e, Py_ssize_t threads) except -1:
    cdef Py_ssize_t chunks = (e.count + CHUNK - 1) // CHUNK
    cdef int workers = hire(min(threads, chunks))
    e.table = in_use().host
    with nogil:
        share(task, e, chunks, workers, e.count >= LONG_COUNT)
    return 0


def quantize(x, out, float scale, zero_point, *, Py_ssize_t threads=1) -> None:
    """Quantize float32 numbers into `out`, both of one shape and C-contiguous."""
    cdef Elements e
    cdef const float[::1] source = _flat(x)
    cdef uint8_t[::1] target = _codes(out)
    e.is_signed = _is_signed(out)
    e.scale[0], e.zero[0], e.count = scale, _zero(zero_point, e.is_signed), source.shape[0]
    _same(e.count, target.shape[0])
    if e.count:
        e.a, e.out = &source[0], &target[0]
        _each(_quantize_chunk, &e, threads)


def dequantize(q, out, float scale, zero_point, *, Py_ssize_t threads=1) -> None:
    """Dequantize codes into `out`, float32, both of one shape and C-contiguous."""
    cdef Elements e
    cdef const uint8_t[::1] source = _codes(q)
    cdef float[::1] target = _flat(out)
    e.is_signed = _is_signed(q)
    e.scale[0], e.zero[0], e.count = scale, _zero(zero_point, e.is_signed), source.shape[0]
    _same(e.count, target.shape[0])
    if e.count:
        e.a, e.out = &source[0], &target[0]
        _each(_dequantize_chunk, &e, threads)


def add(a, b, out, scales, zero_points, *, Py_ssize_t threads=1) -> None:
    """Add codes into `out`, as ONNX Runtime's QLinearAdd; one type, one shape, C-contiguous.

    `scales` and `zero_points` are those of a, b and out.
    """
    _combine(_add_chunk, a, b, out, scales, zero_points, threads)


def mul(a, b, out, scales, zero_points, *, Py_ssize_t threads=1) -> None:
    """Multiply codes into `out`, as ONNX Runtime's QLinearMul; arguments as of :func:`add`."""
    _combine(_mul_chunk, a, b, out, scales, zero_points, threads)


cdef int _combine(PoolTask task, a, b, out, scales, zero_points, Py_ssize_t threads) except -1:
    cdef Elements e
    cdef int i
    cdef const uint8_t[::1] first = _codes(a), second = _codes(b)
    cdef uint8_t[::1] target = _codes(out)
    e.is_signed, e.count = _is_signed(out), target.shape[0]
    if _is_signed(a) != e.is_signed or _is_signed(b) != e.is_signed:
        raise ValueError(f"a, b and out must have one type, not {a.dtype}, {b.dtype} and {out.dtype}")
    if len(scales) != 3 or len(zero_points) != 3:
        raise ValueError("scales and zero_points must be those of a, b and out")
    for i in range(3):
        e.scale[i] = scales[i]
        e.zero[i] = _zero(zero_points[i], e.is_signed)
    _same(first.shape[0], e.count)
    _same(second.shape[0], e.count)
    if e.count:
        e.a, e.b, e.out = &first[0], &second[0], &target[0]
        _each(task, &e, threads)
    return 0


def sum_rows(x, int32_t[::1] out) -> None:
    """Sum each row of x, codes (rows, cols) with contiguous rows, into `out` (rows,), modulo 2^32."""
    cdef int is_signed = _is_signed(x)
    cdef const uint8_t[:, :] source = x.view(np.uint8)
    cdef Py_ssize_t rows = source.shape[0], cols = source.shape[1]
    _same(rows, out.shape[0])
    if cols > 1 and source.strides[1] != 1:
        raise ValueError("rows must be contiguous")
    if not cols:
        out[:] = 0
    elif rows:
        with nogil:
            in_use().host.sum_rows(&source[0, 0], &out[0], rows, cols, source.strides[0], is_signed)


cdef struct MaxPool:
    const HostKernels *table
    HostWindow window
    uint8_t *out
    uint8_t *work               # of every worker: a line
    int is_signed


cdef void _pool_channel(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const MaxPool *p = <const MaxPool *>context
    cdef HostWindow window = p.window
    window.pixels += number // window.channels * window.batch_stride + number % window.channels * window.channel_stride
    window.batch = window.channels = 1
    p.table.max_pool(&window, p.out + number * window.out[0] * window.out[1], p.work + worker * window.image[1],
                     p.is_signed)


def max_pool(x, out, kernel, stride, dilation, pad, *, Py_ssize_t threads=1) -> None:
    """Write the largest code of each window to `out`; pixels outside the image are the type's smallest.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (batch, channels, ih, iw)
        Lines are contiguous.
    out : ndarray of x's type, (batch, channels, oh, ow), C-contiguous
    kernel, stride, dilation : (int, int)
    pad : (top, left)
    """
    cdef MaxPool p
    cdef const uint8_t[:, :, :, :] image = x.view(np.uint8)
    cdef uint8_t[:, :, :, ::1] target = out.view(np.uint8)
    cdef uint8_t[::1] work
    cdef Py_ssize_t planes = image.shape[0] * image.shape[1], size = out.size
    cdef int workers
    p.is_signed = _is_signed(out)
    if _is_signed(x) != p.is_signed:
        raise ValueError(f"x and out must have one type, not {x.dtype} and {out.dtype}")
    if target.shape[0] != image.shape[0] or target.shape[1] != image.shape[1]:
        raise ValueError(f"out must have x's batch and channels, but x is {x.shape} and out {out.shape}")
    if image.shape[3] > 1 and image.strides[3] != 1:
        raise ValueError("lines of x must be contiguous")
    if size == 0:
        return
    _window(&p.window, image, kernel, stride, dilation, pad, (out.shape[2], out.shape[3]))
    workers = hire(min(threads, 1 + size // CHUNK))
    work = np.empty(workers * max(image.shape[3], 1), np.uint8)
    p.table, p.out, p.work = in_use().host, &target[0, 0, 0, 0], &work[0]
    with nogil:
        share(_pool_channel, &p, planes, workers, size >= LONG_COUNT)


cdef int _same(Py_ssize_t count, Py_ssize_t other) except -1:
    if count != other:
        raise ValueError(f"arrays must hold as many elements, not {count} and {other}")
    return 0
