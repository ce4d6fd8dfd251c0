"""Lowered work: a product, views of its operands and an epilogue, as data.

``matmul``, ``conv2d`` and each layer on the array are lowered to a :class:`Lowered`. The machine runs it:
:func:`systolic.machine.run_cycles` edge by edge, :func:`systolic.machine.run_wavefront` as plain products.
Nothing here computes anything, so that a compiler can read all of it; :func:`lower_matmul` lowers products.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from systolic import _check
from systolic.gemm import Gemm

Pair = tuple[int, int]


class Patches(NamedTuple):
    """Patches of images as rows of x (im2col), which exist only piece by piece.

    M runs over (batch, oh, ow), and K over (channels of a group, kh, kw), first index outermost.

    Attributes
    ----------
    images : ndarray of int8 or uint8, (batch, ic, ih, iw)
        In any memory order.
    kernel, stride, dilation : (int, int)
        Height and width.
    before : (int, int)
        Padding above and to the left; a negative number crops the image.
    out : (int, int)
        oh, ow.
    groups : int
        Blocks of channels, one for each group of the product.
    pad_value : int
        The code of padded pixels: the activations' zero point.
    channels_last : bool
        Whether accumulators are (batch, oh, ow, channels); else they are (batch, channels, oh, ow).
        Channels are (group, n), groups outermost.
    """

    images: np.ndarray
    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    out: Pair
    groups: int
    pad_value: int
    channels_last: bool = False

    @property
    def dtype(self) -> np.dtype:
        """Type of the images."""
        return self.images.dtype

    def __eq__(self, other: object) -> bool:
        return _check.same_values(tuple(self), other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def taps(
    size: int, kernel: int, step: int, dilation: int, before: int, outputs: int
) -> dict[int, tuple[slice, slice]]:
    """Return, by tap of the kernel along an axis, the outputs that see it inside the image, and its elements.

    No slice includes padding, so that windows are summed or compared without a padded copy. Taps that are
    in the padding for every output are omitted.

    Examples
    --------
    >>> taps(4, 2, 3, 1, 1, 2)
    {0: (slice(1, 2, None), slice(2, 3, 3)), 1: (slice(0, 2, None), slice(0, 4, 3))}
    """
    found = {}
    for tap in range(max(before - (outputs - 1) * step, 0) // dilation, kernel):
        start = tap * dilation - before
        if start >= size:
            break
        first = max(-(start // step), 0)
        stop = min((size - 1 - start) // step + 1, outputs)
        if first < stop:
            at = start + first * step
            found[tap] = slice(first, stop), slice(at, at + (stop - 1 - first) * step + 1, step)
    return found


Operand = np.ndarray | Patches
"""A matrix, (M, K) or (K, N); a stack of them, (..., M, K) or (..., K, N), one for each group, with the same
leading axes for both operands; or patches, multiplied by a stack of filters (groups, K, N)."""


class Epilogue(NamedTuple):
    """From accumulators to the output: zero points, bias, scale, rounding, clamp or table, and shape.

    With accumulators ``acc``, int32, and all sums of integers modulo 2^32::

        total = acc + constant - row_sums(x) * w_zero - column_sums(w) * x_zero + K * x_zero * w_zero
        y = total                                                             # scale is None
        y = f32(f32(f32(total) * scale) * late_scale) + float_bias            # dtype "float32"
        y = requantize(total, scale, zero_point, dtype=dtype, rounding=rounding)  # 8-bit codes
        y = table[min(max(y, clamp[0]), clamp[1])]                            # codes only

    Sums of floats are float32, and take only a scale and a bias: ``y = f32(f32(acc * scale) + float_bias)``.

    Where the x of a product has the zero point zx and w has zw, the sum of ``(x - zx)(w - zw)`` is::

        acc - zw * row_sums - zx * column_sums + K * zx * zw

    For weights that are known the last two terms are one number per output channel, a part of `constant`, as
    a compiler would fold them into the bias. The sum over the row of x is needed only for weights with a zero
    point; hardware makes it with an adder along the west ports.

    Attributes
    ----------
    constant : ndarray of int32, or None
        0-d, one for each channel, (channels,), or for matrices an array that broadcasts against them.
    x_zero : ndarray of int32, or None
        Zero point of x if it is not part of `constant`: 0-d, or for matrices one per row, (..., M, 1).
    w_zero : ndarray of int32, or None
        Zero points of w: 0-d, (channels,), or for stacks (..., 1, N).
    scale : ndarray of float32 or float64, or None
        Multiplier: 0-d, (channels,), or for stacks (..., 1, N). "half_even" takes any value, and makes NaN
        the lowest code; see :func:`systolic.quant.multiplier`.
    late_scale : ndarray of float32, or None
        A second factor, rounded by itself; shaped as `scale`.
    float_bias : ndarray of float32, or None
        Added to real numbers: (channels,), or for matrices an array that broadcasts against them.
    dtype : {"int32", "float32", "int8", "uint8"}
        Of the output.
    zero_point : int
        Of the output.
    rounding : str
        The name of a rounding: see :func:`systolic.requantize`.
    clamp : (int, int), or None
        The lowest and the highest code of the output, such as those of a fused ReLU6.
    table : ndarray of `dtype`, (256,), or None
        The output code for each code, indexed by its byte: entry 255 is for code 255 or -1.
    shape : tuple of int, or None
        Of the output, which has the accumulators' elements in the same order; None: the accumulators' shape.
    planes : int
        Images that make one volume: with 2 and more the output is (batch, channels, planes, oh, ow).

    Notes
    -----
    Accumulators are (M, N), (..., M, N) for stacks, or what :class:`Patches` says. Their channels are the
    columns of w: the last axis, or axis 1 of images with channels first.
    """

    constant: np.ndarray | None = None
    x_zero: np.ndarray | None = None
    w_zero: np.ndarray | None = None
    scale: np.ndarray | None = None
    late_scale: np.ndarray | None = None
    float_bias: np.ndarray | None = None
    dtype: str = "int32"
    zero_point: int = 0
    rounding: str = "half_even"
    clamp: tuple[int, int] | None = None
    table: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    planes: int = 1

    def __eq__(self, other: object) -> bool:
        return _check.same_values(tuple(self), other)

    def __ne__(self, other: object) -> bool:
        return not self == other


RAW = Epilogue()
"""The accumulators as they are."""


class Lowered(NamedTuple):
    """One layer's product, ready for the machine.

    Attributes
    ----------
    gemm : Gemm
        The sizes.
    x : ndarray of int8 or uint8, or Patches
        The activations.
    w : ndarray of int8 or uint8
        The weights.
    epilogue : Epilogue
        From accumulators to the output.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Dense
    >>> one = QuantParams(1.0)
    >>> lowered = Dense(np.eye(3, dtype=np.int8), x=one, w=one, y=one).lower(np.ones((5, 3), np.int8))
    >>> lowered.gemm, lowered.w.shape, lowered.epilogue.dtype, lowered.epilogue.scale
    (Gemm(5, 3, 3), (3, 3), 'int8', array([1., 1., 1.], dtype=float32))
    """

    gemm: Gemm
    x: Operand
    w: np.ndarray
    epilogue: Epilogue = RAW

    @property
    def channel_axis(self) -> int:
        """The axis of the accumulators along which channels lie: -1, or 1 for images with channels first."""
        return 1 if isinstance(self.x, Patches) and not self.x.channels_last else -1

    def __eq__(self, other: object) -> bool:
        return _check.same_values(tuple(self), other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def lower_matmul(x: np.ndarray, w: np.ndarray, epilogue: Epilogue = RAW) -> Lowered:
    """Lower a product of matrices or stacks of them, as :func:`numpy.matmul` broadcasts them.

    It is one product where w has one matrix, the rows of all x following each other; else one group for each
    pair of matrices, though some may be the same one.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (..., M, K)
    w : ndarray of int8 or uint8, (..., K, N)
    epilogue : Epilogue
        For accumulators (M, N) where it is one product, else (..., M, N).

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.lowered import lower_matmul
    >>> x = np.zeros((8, 4, 3), dtype=np.int8)
    >>> lower_matmul(x, np.zeros((3, 5), dtype=np.int8)).gemm
    Gemm(32, 3, 5)
    >>> lower_matmul(x, np.zeros((8, 3, 5), dtype=np.int8)).gemm
    Gemm(4, 3, 5, groups=8)
    """
    gemm = matmul_gemm(x.shape, w.shape)
    if x.ndim == w.ndim == 2:  # the usual case, and small products take microseconds
        return Lowered(gemm, x, w, epilogue)
    if gemm.groups == 1 and gemm.m:
        return Lowered(gemm, x.reshape(gemm.m, gemm.k), w.reshape(gemm.k, gemm.n), epilogue)
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    x, w = (np.broadcast_to(values, (*batch, *values.shape[-2:])) for values in (x, w))
    return Lowered(gemm, x, w, epilogue)


@lru_cache(maxsize=1024)
def matmul_gemm(x: tuple[int, ...], w: tuple[int, ...]) -> Gemm:
    """Return the sizes of :func:`lower_matmul` of operands of these shapes; ValueError if K differs."""
    if x[-1] != w[-2]:
        raise ValueError(f"x and w must share K, but x is {_check.shape(x)} and w is {_check.shape(w)}")
    count = math.prod(np.broadcast_shapes(x[:-2], w[:-2]))
    m, k, n = x[-2], x[-1], w[-1]
    if count == 0 or math.prod(w[:-2]) == 1:
        return Gemm(count * m, k, n)
    return Gemm(m, k, n, groups=count)
