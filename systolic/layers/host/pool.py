"""Pooling over windows of an image, on codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check, _host, quant
from systolic.layers.base import HostLayer, Shape
from systolic.layers.geometry import LAYOUTS, Pads, Pair, Window, padding_spec, pair, window
from systolic.layers.host._inputs import (
    expect_dtype,
    expect_images,
    image_axes,
    lowest,
    replace_image,
    take,
)
from systolic.layers.host._parts import by_parts
from systolic.layers.host._saturate import round_codes
from systolic.quant import QuantParams
from systolic.threads import thread_count


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(HostLayer):
    """The maximum of each window.

    Parameters
    ----------
    kernel : int or (int, int)
        Height and width of the window.
    stride : int, (int, int) or None
        Step of the window; None means the kernel.
    padding : int, (int, int), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Pixels around the image, smaller than the kernel; they hold the type's smallest number.
    dilation : int or (int, int)
        Step between the pixels of a window.
    ceil_mode : bool
        Whether a last, incomplete window counts.
    layout : {"NCHW", "NHWC"}
        Order of the axes: batch, channels, height, width.

    Notes
    -----
    ONNX operator MaxPool on int8, uint8 or float32 (where padding is minus infinity and NaN
    spreads). Codes need no parameters: the order of codes is the order of the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import MaxPool2d
    >>> MaxPool2d(2).apply(np.arange(16, dtype=np.int8).reshape(1, 1, 4, 4))
    array([[[[ 5,  7],
             [13, 15]]]], dtype=int8)
    """

    kernel: int | Pair
    stride: int | Pair | None = field(default=None, kw_only=True)
    padding: int | Pair | Pads | str = field(default=((0, 0), (0, 0)), kw_only=True)
    dilation: int | Pair = field(default=(1, 1), kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)

    def __post_init__(self) -> None:
        _normalize_window(self)
        object.__setattr__(self, "dilation", pair(self.dilation, "dilation"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, ic, oh, ow), or (batch, oh, ow, ic)."""
        (shape,) = take(self, shapes)
        return replace_image(shape, self.layout, _window(self, shape).out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type: int8, uint8 or float32."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, ("int8", "uint8", "float32"))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the maxima of x, an ndarray (batch, ic, ih, iw) or (batch, ih, iw, ic)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype)
        win = _window(self, x.shape)
        if x.dtype.char in "bB" and self.layout == "NCHW" and x.flags.c_contiguous:
            out = np.empty((*x.shape[:2], *win.out), x.dtype)
            _host.max_pool(x, out, win.kernel, win.stride, win.dilation, win.before, threads=thread_count())
            return out
        axes, taps = image_axes(self.layout), (win.taps(0), win.taps(1))

        def largest(part: np.ndarray) -> np.ndarray:
            # Take the maximum along one axis of the window, then along the other.
            for direction, axis in enumerate(axes):
                part = largest_along(part, axis, win.out[direction], taps[direction])
            return part

        shape = replace_image(x.shape, self.layout, win.out)
        # Use larger parts for NHWC: innermost channels are better not split.
        return by_parts(largest, shape, x.dtype, x, axes, moved=self.layout == "NHWC")


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool2d(HostLayer):
    """The quantized mean of each window.

    In float32, every operation rounded by itself, the sum in window order (rows, then columns)::

        v = sum of f32(x.scale * (q - x.zero));  v = f32(v / count)
        y = sat(rne(f32(f32(v / y.scale) + y.zero)))            # zero point before rounding

    A window that is the whole unpadded image is computed as :class:`GlobalAveragePool2d` does.

    Parameters
    ----------
    kernel : int or (int, int)
        Height and width of the window.
    x, y : QuantParams
        Of the input and the output: of one 8-bit type and per tensor.
    stride : int, (int, int) or None
        Step of the window; None means the kernel.
    padding : int, (int, int), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Pixels of real 0 around the image, smaller than the kernel.
    count_include_pad : bool
        Whether `count` is the kernel's size everywhere, or only the pixels inside the image.
    ceil_mode : bool
        Whether a last, incomplete window counts.
    layout : {"NCHW", "NHWC"}
        Order of the axes: batch, channels, height, width.

    Raises
    ------
    TypeError
        If the parameters differ in type.
    ValueError
        If a size is out of range.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAveragePool. With `ceil_mode` and `count_include_pad` it
    counts the whole kernel, including elements beyond the padding. A mean of 2^31 codes or more, infinite
    or NaN gives the smallest code, because of the conversion to int32 on x86.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import AveragePool2d, QuantParams
    >>> x = np.int8([[[[0, 1, 1, 2, 2, 3, 1, 4]]]])
    >>> AveragePool2d((1, 2), QuantParams(1.0), QuantParams(1.0, 1)).apply(x)
    array([[[[2, 2, 4, 4]]]], dtype=int8)
    """

    kernel: int | Pair
    x: QuantParams
    y: QuantParams
    stride: int | Pair | None = field(default=None, kw_only=True)
    padding: int | Pair | Pads | str = field(default=((0, 0), (0, 0)), kw_only=True)
    count_include_pad: bool = field(default=False, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)

    def __post_init__(self) -> None:
        _check_params(self.x, self.y)
        _normalize_window(self)
        include = _check.flag(self.count_include_pad, "count_include_pad")
        object.__setattr__(self, "count_include_pad", include)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, ic, oh, ow), or (batch, oh, ow, ic)."""
        (shape,) = take(self, shapes)
        return replace_image(shape, self.layout, _window(self, shape).out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the input's."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, ic, ih, iw) or (batch, ih, iw, ic)."""
        (x,) = take(self, inputs)
        dtype = self.output_dtype(x.dtype)
        win = _window(self, x.shape)
        if win.image == win.kernel and win.pads == ((0, 0), (0, 0)):
            return _mean_of_image(x, self.x, self.y, self.layout)
        out = np.empty(self.output_shape(x.shape), dtype)
        # Image by image, so that float32 copies stay small.
        for index in range(len(x)):
            with np.errstate(all="ignore"):
                means = self._means(x[index : index + 1], win)
                np.divide(means, self.y.scales, out=means)
                np.add(means, self.y.zero_points.astype(np.float32), out=means)
            np.copyto(out[index : index + 1], round_codes(means, self.y), casting="unsafe")
        return out

    def _means(self, x: np.ndarray, win: Window) -> np.ndarray:
        """Return the float32 means of the windows, as real numbers."""
        real = quant.dequantize(x, self.x)
        sums = np.zeros(replace_image(x.shape, self.layout, win.out), np.float32)
        rows, cols = image_axes(self.layout)
        outs, elements = [slice(None)] * 4, [slice(None)] * 4
        # In window order; a padding pixel would add 0, which changes no sum.
        for outs[rows], elements[rows] in win.taps(0).values():
            for outs[cols], elements[cols] in win.taps(1).values():
                sums[tuple(outs)] += real[tuple(elements)]
        if self.count_include_pad:
            return np.divide(sums, np.float32(win.kernel[0] * win.kernel[1]), out=sums)
        counts = np.multiply.outer(_pixels_inside(win, 0), _pixels_inside(win, 1)).astype(np.float32)
        return np.divide(sums, counts if self.layout == "NCHW" else counts[..., None], out=sums)


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool2d(HostLayer):
    """The quantized mean of each channel's whole image of n pixels::

        acc = sum(q) - n * x.zero;  m = f32(x.scale / f32(y.scale * n))
        y   = sat(rne(f32(f32(acc) * m)) + y.zero)              # zero point after rounding

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type and per tensor.
    layout : {"NCHW", "NHWC"}
        Order of the axes: batch, channels, height, width.

    Raises
    ------
    TypeError
        If the parameters differ in type.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearGlobalAveragePool, which refuses an m outside 2^-32 .. 256;
    here such an m is computed with like any other.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import GlobalAveragePool2d, QuantParams
    >>> x = np.int8([[0, 1], [1, 2], [2, 3], [1, 4]]).reshape(1, 4, 1, 2)
    >>> GlobalAveragePool2d(QuantParams(1.0), QuantParams(1.0, 1)).apply(x).ravel()
    array([1, 3, 3, 3], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    layout: str = field(default="NCHW", kw_only=True)

    def __post_init__(self) -> None:
        _check_params(self.x, self.y)
        _check.choice(self.layout, "layout", LAYOUTS)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, ic, 1, 1), or (batch, 1, 1, ic)."""
        (shape,) = take(self, shapes)
        expect_images(self, shape, self.layout)
        return replace_image(shape, self.layout, (1, 1))

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the input's."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, ic, ih, iw) or (batch, ih, iw, ic)."""
        (x,) = take(self, inputs)
        self.output_shape(x.shape)
        self.output_dtype(x.dtype)
        return _mean_of_image(x, self.x, self.y, self.layout)


def _mean_of_image(x: np.ndarray, x_params: QuantParams, y_params: QuantParams, layout: str) -> np.ndarray:
    axes = image_axes(layout)
    pixels = x.shape[axes[0]] * x.shape[axes[1]]
    if layout == "NCHW" and x.flags.c_contiguous:
        sums = np.empty(x.shape[0] * x.shape[1], np.int32)
        _host.sum_rows(x.reshape(len(sums), pixels), sums)
        sums = sums.reshape(*x.shape[:2], 1, 1)
    else:
        sums = x.sum(axis=axes, keepdims=True, dtype=np.int64)
    # The cast wraps to int32 as an accumulator does.
    acc = (sums - np.int64(pixels) * x_params.zero_points).astype(np.int32)
    with np.errstate(over="ignore", under="ignore"):
        m = x_params.scales / (y_params.scales * np.float32(pixels))
    (zero_point,) = y_params.zero_points.reshape(1).tolist()
    return quant.requantize(acc, m, zero_point, dtype=y_params.dtype)


def _check_params(x: Any, y: Any) -> None:
    quant.as_params(x, "x", per_tensor=True)
    quant.as_params(y, "y", per_tensor=True)
    if x.dtype != y.dtype:
        raise TypeError(f"x and y must have one dtype, not {x.dtype} and {y.dtype}")


def _normalize_window(layer: Any) -> None:
    """Put the fields that describe the window into their stored form."""

    def put(name: str, value: Any) -> None:
        object.__setattr__(layer, name, value)

    put("kernel", pair(layer.kernel, "kernel"))
    put("stride", layer.kernel if layer.stride is None else pair(layer.stride, "stride"))
    put("padding", padding_spec(layer.padding))
    put("ceil_mode", _check.flag(layer.ceil_mode, "ceil_mode"))
    _check.choice(layer.layout, "layout", LAYOUTS)
    if not isinstance(layer.padding, str):
        for pads, size in zip(layer.padding, layer.kernel, strict=True):
            # ONNX Runtime refuses it too: windows wholly in the padding would have no pixel.
            if max(pads) >= size:
                raise ValueError(
                    f"padding must be smaller than the kernel {layer.kernel}, not {layer.padding}; "
                    "pad the image itself where windows wholly outside it are meant"
                )


def _window(layer: Any, shape: Shape) -> Window:
    image = expect_images(layer, shape, layer.layout)
    dilation = getattr(layer, "dilation", (1, 1))
    return window(
        image, layer.kernel, layer.stride, dilation, layer.padding, ceil_mode=layer.ceil_mode, pool=True
    )


def _pixels_inside(win: Window, direction: int) -> np.ndarray:
    """Return how many pixels of each undilated window lie inside the image, along one direction."""
    start = np.arange(win.out[direction]) * win.stride[direction] - win.pads[direction][0]
    return np.minimum(start + win.kernel[direction], win.image[direction]) - np.maximum(start, 0)


def largest_along(x: np.ndarray, axis: int, outputs: int, taps: dict[int, tuple[slice, slice]]) -> np.ndarray:
    """Return the maxima of all windows along one axis, as a new array; NaN propagates."""
    out = np.full((*x.shape[:axis], outputs, *x.shape[axis + 1 :]), lowest(x.dtype), x.dtype)
    before = (slice(None),) * axis
    for outs, elements in taps.values():
        part = out[(*before, outs)]
        np.maximum(part, x[(*before, elements)], out=part)
    return out
