"""Quantized average pooling over any number of spatial axes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check, _host, quant
from systolic.layers.base import Shape
from systolic.layers.host.pool import WINDOW, Pool, add_up
from systolic.layers.host.qlinear_table import OnCodes
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.quant import QuantParams, to_codes


@dataclass(frozen=True, eq=False, repr=False)
class QLinearAveragePool(Pool, OnCodes):
    """The quantized mean of each window over one or more spatial axes.

    In float32, every operation rounded by itself, the sum in window order, the last axis innermost::

        v = sum of f32(x.scale * (q - x.zero));  v = f32(v / count)
        y = sat(rne(f32(f32(v / y.scale) + y.zero)))            # zero point before rounding

    A window that is the whole unpadded input is computed as :class:`QLinearGlobalAveragePool` does.

    Parameters
    ----------
    kernel, stride, padding, ceil_mode
        As for :class:`MaxPool`; padding is real 0.
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    count_include_pad : bool
        Whether `count` is the kernel's size everywhere, or only the elements inside the input.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAveragePool, which takes 1 to 3 spatial axes. With `ceil_mode` and
    `count_include_pad` it counts the whole kernel, including elements beyond the padding. A mean of 2^31
    codes or more, infinite or NaN gives the smallest code, because of the conversion to int32 on x86.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearAveragePool
    >>> x = np.int8([[[0, 1, 1, 2, 2, 3, 1, 4]]])
    >>> QLinearAveragePool((2,), QuantParams(1.0), QuantParams(1.0, 1), stride=2).apply(x)
    array([[[2, 2, 4, 4]]], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    count_include_pad: bool = field(default=False, kw_only=True)
    channels_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._expect_params()
        super().__post_init__()

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        win = self._window(x.shape)
        rank = len(win.out)
        if win.image == win.kernel and not any(map(any, win.pads)):
            return _mean_of_all(x, self.x, self.y, tuple(range(self._first, self._first + rank)))
        inside = win.kernel
        if not self.count_include_pad:
            inside = [win.inside(axis, 0, size) for axis, size in enumerate(win.image)]
        counts = self._counts(inside).astype(np.float32)
        places, out = [win.taps(axis) for axis in range(rank)], np.empty(shape, x.dtype)
        # One by one along the batch, so that float32 copies stay small.
        for index in range(len(x)):
            real = quant.dequantize(x[index : index + 1], self.x)
            means = add_up(real, np.zeros((1, *shape[1:]), np.float32), self._first, places)
            np.divide(means, counts, out=means)
            np.divide(means, self.y.scales, out=means)
            to_codes(means, self.y.zero_points, out[index : index + 1], zero_first=True)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class QLinearGlobalAveragePool(OnCodes):
    """The quantized mean of each channel over all its n elements::

        acc = sum(q) - n * x.zero;  m = f32(x.scale / f32(y.scale * n))
        y   = sat(rne(f32(f32(acc) * m)) + y.zero)              # zero point after rounding

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearGlobalAveragePool, which refuses an m outside 2^-32 .. 256; here such
    an m is computed with like any other.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearGlobalAveragePool
    >>> x = np.int8([[[0, 1], [1, 2], [2, 3], [1, 4]]])
    >>> QLinearGlobalAveragePool(QuantParams(1.0), QuantParams(1.0, 1)).apply(x).ravel()
    array([1, 3, 3, 3], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    channels_last: bool = field(default=False, kw_only=True)

    def _shape(self, shape: Shape) -> Shape:
        axes = self._axes(shape)
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return _mean_of_all(x, self.x, self.y, self._axes(x.shape))

    def _axes(self, shape: Shape) -> Shape:
        """Return the spatial axes; ValueError if the shape has none, or one is empty."""
        axes = tuple(range(1, len(shape) - 1)) if self.channels_last else tuple(range(2, len(shape)))
        if len(shape) < 3 or not all(shape[axis] for axis in axes):
            raise ValueError(
                "QLinearGlobalAveragePool takes batch, channels and spatial axes of at least one element, "
                f"not {_check.shape(shape)}"
            )
        return axes


def _mean_of_all(x: np.ndarray, x_params: QuantParams, y_params: QuantParams, axes: Shape) -> np.ndarray:
    count = math.prod(x.shape[axis] for axis in axes)
    if axes[0] == 2 and x.flags.c_contiguous:
        sums = np.empty(math.prod(x.shape[:2]), np.int32)
        _host.sum_rows(x.reshape(len(sums), count), sums)
        sums = sums.reshape(*x.shape[:2], *[1] * len(axes))
    else:
        sums = x.sum(axis=axes, keepdims=True, dtype=np.int64)
    # The cast wraps to int32 as an accumulator does.
    acc = (sums - np.int64(count) * x_params.zero_points).astype(np.int32)
    with np.errstate(over="ignore", under="ignore"):
        m = x_params.scales / (y_params.scales * np.float32(count))
    (zero_point,) = y_params.zero_points.reshape(1).tolist()
    return quant.requantize(acc, m, zero_point, dtype=y_params.dtype)


def _read_average_pool(op: Any) -> Any:
    rank = len(op.integers("kernel_shape", ()))
    if not 1 <= rank <= 3:
        raise op.refuse(f"a window of {rank} dimensions; supported are 1 to 3")
    return OPERATORS[0].read_fields(op)


OPERATORS = (
    OperatorRecord(
        QLinearAveragePool,
        "Mean of each window of quantized values.",
        domain=MICROSOFT,
        inputs=("x", "x_scale", "x_zero_point?", "y_scale", "y_zero_point?"),
        attributes={**WINDOW, "count_include_pad": False, "channels_last": False},
        params=("x", "y"),
        read=_read_average_pool,
    ),
    OperatorRecord(
        QLinearGlobalAveragePool,
        "Mean of each channel's quantized values.",
        domain=MICROSOFT,
        inputs=("x", "x_scale", "x_zero_point", "y_scale", "y_zero_point"),
        attributes={"channels_last": False},
        params=("x", "y"),
    ),
)
