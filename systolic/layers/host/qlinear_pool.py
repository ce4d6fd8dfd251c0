"""Quantized average pooling over any number of spatial axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check, quant
from systolic.layers.base import HostLayer, Shape
from systolic.layers.geometry import PADDING_NAMES, along, taps
from systolic.layers.host._inputs import expect_dtype, pad_pairs, take
from systolic.layers.host._saturate import round_codes
from systolic.layers.host.qlinear_table import expect_one_type
from systolic.quant import QuantParams

Pads = tuple[tuple[int, int], ...]
Windows = list[tuple[tuple[int, int], int]]
"""By spatial axis, the padding before and after and the number of windows."""


@dataclass(frozen=True, eq=False, repr=False)
class QLinearAveragePool(HostLayer):
    """The quantized mean of each window over one or more spatial axes.

    The arithmetic is that of :class:`AveragePool2d`, which is for images; the sum goes through a
    window with the last axis innermost.

    Parameters
    ----------
    kernel : sequence of int
        Sizes of the window, one per spatial axis.
    x, y : QuantParams
        Of the input and the output: of one 8-bit type and per tensor.
    stride : sequence of int or None
        Step of the window; None: 1.
    padding : sequence of (int, int), "same", "same_lower" or "valid", or None
        Elements of real 0 before and after each axis, fewer than the kernel's. None: no padding.
    count_include_pad : bool
        Whether the sum is divided by the kernel's size everywhere, or by the elements inside x.
    ceil_mode : bool
        Whether a last, incomplete window counts.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Raises
    ------
    TypeError
        If the parameters differ in type.
    ValueError
        If a size is out of range.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAveragePool, which takes 1 to 3 spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QLinearAveragePool, QuantParams
    >>> x = np.int8([[[0, 1, 1, 2, 2, 3, 1, 4]]])
    >>> QLinearAveragePool((2,), QuantParams(1.0), QuantParams(1.0, 1), stride=(2,)).apply(x)
    array([[[2, 2, 4, 4]]], dtype=int8)
    """

    kernel: Sequence[int]
    x: QuantParams
    y: QuantParams
    stride: Sequence[int] | None = field(default=None, kw_only=True)
    padding: Pads | str | None = field(default=None, kw_only=True)
    count_include_pad: bool = field(default=False, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    channels_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        expect_one_type(x=self.x, y=self.y)
        _normalize_window(self)
        for name in ("count_include_pad", "channels_last"):
            object.__setattr__(self, name, _check.flag(getattr(self, name), name))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape with the number of windows along each spatial axis."""
        (shape,) = take(self, shapes)
        first = 1 if self.channels_last else 2
        outputs = tuple(outputs for _, outputs in _windows(self, shape, first))
        return (*shape[:first], *outputs, *shape[first + len(outputs) :])

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the input's."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, channels, ...) or (batch, ..., channels)."""
        (x,) = take(self, inputs)
        dtype = self.output_dtype(x.dtype)
        first = 1 if self.channels_last else 2
        windows = _windows(self, x.shape, first)
        axes = tuple(range(first, first + len(windows)))
        if tuple(x.shape[axis] for axis in axes) == self.kernel and not any(sum(p) for p, _ in windows):
            return _mean_of_all(x, self.x, self.y, axes)
        out = np.empty(self.output_shape(x.shape), dtype)
        counts = np.asarray(math.prod(self.kernel), np.float32)
        if not self.count_include_pad:
            counts = self._inside(x.shape, windows, axes)
        # One by one along the batch, so that float32 copies stay small.
        for index in range(len(x)):
            with np.errstate(all="ignore"):
                sums = self._sums(x[index : index + 1], windows, axes)
                np.divide(sums, counts, out=sums)
                np.divide(sums, self.y.scales, out=sums)
                np.add(sums, self.y.zero_points.astype(np.float32), out=sums)
            np.copyto(out[index : index + 1], round_codes(sums, self.y), casting="unsafe")
        return out

    @property
    def _steps(self) -> tuple[int, ...]:
        return tuple(self.stride or ())

    def _sums(self, x: np.ndarray, windows: Windows, axes: Shape) -> np.ndarray:
        """Return the float32 sums of the windows, as real numbers."""
        real = quant.dequantize(x, self.x)
        sums = np.zeros(self.output_shape(x.shape), np.float32)
        found = [
            taps(x.shape[axis], kernel, stride, 1, before, outputs)
            for axis, ((before, _), outputs), kernel, stride in zip(
                axes, windows, self.kernel, self._steps, strict=True
            )
        ]
        around = (slice(None),) * axes[0]
        # In window order; a padding element would add 0, which changes no sum.
        for parts in itertools.product(*(each.values() for each in found)):
            outs, elements = zip(*parts, strict=True)
            sums[(*around, *outs)] += real[(*around, *elements)]
        return sums

    def _inside(self, shape: Shape, windows: Windows, axes: Shape) -> np.ndarray:
        """Return how many elements of each window lie inside x, to broadcast with the means."""
        counts = np.ones((), np.int64)
        for axis, (pads, outputs), kernel, stride in zip(
            axes, windows, self.kernel, self._steps, strict=True
        ):
            start = np.arange(outputs) * stride - pads[0]
            inside = np.minimum(start + kernel, shape[axis]) - np.maximum(start, 0)
            counts = np.multiply.outer(counts, inside)
        return (counts[..., None] if self.channels_last else counts).astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class QLinearGlobalAveragePool(HostLayer):
    """The quantized mean of each channel over all spatial axes.

    The arithmetic is that of :class:`GlobalAveragePool2d`, which is for images.

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type and per tensor.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Raises
    ------
    TypeError
        If the parameters differ in type.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearGlobalAveragePool.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QLinearGlobalAveragePool, QuantParams
    >>> x = np.int8([[[0, 1], [1, 2], [2, 3], [1, 4]]])
    >>> QLinearGlobalAveragePool(QuantParams(1.0), QuantParams(1.0, 1)).apply(x).ravel()
    array([1, 3, 3, 3], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    channels_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        expect_one_type(x=self.x, y=self.y)
        object.__setattr__(self, "channels_last", _check.flag(self.channels_last, "channels_last"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape with all spatial sizes 1."""
        (shape,) = take(self, shapes)
        axes = self._axes(shape)
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the input's."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, channels, ...) or (batch, ..., channels)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype)
        return _mean_of_all(x, self.x, self.y, self._axes(x.shape))

    def _axes(self, shape: Shape) -> Shape:
        axes = tuple(range(1, len(shape) - 1)) if self.channels_last else tuple(range(2, len(shape)))
        if len(shape) < 3 or not all(shape[axis] for axis in axes):
            raise ValueError(
                "QLinearGlobalAveragePool takes batch, channels and spatial axes of at least one element, "
                f"not {_check.shape(shape)}"
            )
        return axes


def _mean_of_all(x: np.ndarray, x_params: QuantParams, y_params: QuantParams, axes: Shape) -> np.ndarray:
    count = math.prod(x.shape[axis] for axis in axes)
    # int64 sums cannot overflow on the way; the cast wraps to int32 as an accumulator does.
    acc = x.sum(axis=axes, keepdims=True, dtype=np.int64) - np.int64(count) * x_params.zero_points
    with np.errstate(over="ignore", under="ignore"):
        m = x_params.scales / (y_params.scales * np.float32(count))
    (zero_point,) = y_params.zero_points.reshape(1).tolist()
    return quant.requantize(acc.astype(np.int32), m, zero_point, dtype=y_params.dtype)


def _sizes(value: Any, name: str, count: int) -> tuple[int, ...]:
    sizes = (1,) * count if value is None else value
    if not _check.is_listed(sizes) or len(sizes) != count:
        raise ValueError(f"{name} must hold {count} integers, one per spatial axis, not {value!r}")
    return tuple(_check.integer(size, f"{name}[{i}]", minimum=1) for i, size in enumerate(sizes))


def _normalize_window(layer: Any) -> None:
    """Put the fields that describe the window into their stored form."""
    if not _check.is_listed(layer.kernel) or not layer.kernel:
        raise ValueError(f"kernel must hold one integer per spatial axis, not {layer.kernel!r}")
    kernel = _sizes(layer.kernel, "kernel", len(layer.kernel))
    padding = layer.padding
    if isinstance(padding, str):
        _check.choice(padding, "padding", PADDING_NAMES)
    else:
        padding = pad_pairs(padding, len(kernel))
        if [len(pair) for pair in padding] != [2] * len(kernel):
            raise ValueError(f"padding must hold {len(kernel)} pairs (before, after), not {layer.padding!r}")
        for pair, size in zip(padding, kernel, strict=True):
            if max(_check.integer(count, "padding", minimum=0) for count in pair) >= size:
                raise ValueError(
                    f"padding must be smaller than the kernel {kernel}, not {padding}; "
                    "pad the input itself where windows wholly outside it are meant"
                )
    object.__setattr__(layer, "kernel", kernel)
    object.__setattr__(layer, "stride", _sizes(layer.stride, "stride", len(kernel)))
    object.__setattr__(layer, "padding", padding)
    object.__setattr__(layer, "ceil_mode", _check.flag(layer.ceil_mode, "ceil_mode"))


def _windows(layer: Any, shape: Shape, first: int) -> Windows:
    """Return padding and number of windows along each spatial axis, which begin at `first`."""
    rank = len(layer.kernel)
    sizes = shape[first : first + rank]
    if len(shape) != rank + 2 or not all(sizes):
        raise ValueError(
            f"{type(layer).__name__} takes batch, channels and {rank} spatial axes of at least one element, "
            f"not {_check.shape(shape)}"
        )
    return [
        along(
            f"axis {first + i}", size, layer.kernel[i], layer.stride[i], 1,
            layer.padding if isinstance(layer.padding, str) else layer.padding[i], ceil_mode=layer.ceil_mode,
            pool=True,
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip
