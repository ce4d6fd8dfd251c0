"""Convolutions: lowered to products by im2col, one per group."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from systolic import _check, _hints
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import ArrayLayer, Shape
from systolic.layers.geometry import LAYOUTS, Pads, Pair, Window, padding_spec, pair, window
from systolic.lowered import RAW, Epilogue, Lowered, Patches
from systolic.quant import QuantParams

IMAGE_AXES = {"NCHW": "(batch, ic, ih, iw)", "NHWC": "(batch, ih, iw, ic)"}


def lower_conv2d(
    x: np.ndarray,
    w: np.ndarray,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    pad_value: Any,
) -> Lowered:
    """Check the arguments of a convolution and lower it; see :func:`systolic.conv2d`."""
    layout = _check.choice(layout, "layout", LAYOUTS)
    x = _check.operand(x, "x", ndim=4, axes=IMAGE_AXES[layout])
    w = _check.operand(w, "w", ndim=4, axes="(oc, ic // groups, kh, kw)")
    if type(pad_value) is not int or not 0 <= pad_value <= 127:  # what fits both types is the usual case
        zero_point = _check.integers(pad_value, "x_zero_point", x.dtype.name)
        if zero_point.ndim:
            raise ValueError(
                f"x_zero_point must be one number, not the shape {_check.shape(zero_point.shape)}"
            )
        pad_value = int(zero_point)
    groups = _check.integer(groups, "groups", minimum=1)
    view = conv_window(
        x.shape,
        w.shape,
        pair(stride, "stride"),
        pair(dilation, "dilation"),
        padding_spec(padding),
        groups,
        layout,
    )
    last = layout == "NHWC"
    images = x.transpose(0, 3, 1, 2) if last else x
    return lower_images(images, filter_matrices(w, groups), view, pad_value, last)


def lower_images(
    x: np.ndarray, w: np.ndarray, window: Window, pad_value: int, channels_last: bool = False,
    epilogue: Epilogue = RAW,
) -> Lowered:  # fmt: skip
    """Lower the convolution of images (batch, ic, ih, iw) with :func:`filter_matrices`."""
    groups, k, n = w.shape
    oh, ow = window.out
    patches = Patches(
        x, window.kernel, window.stride, window.dilation, window.before, window.out, groups, pad_value,
        channels_last,
    )  # fmt: skip
    return Lowered(Gemm(x.shape[0] * oh * ow, k, n, groups=groups), patches, w, epilogue)


def filter_matrices(w: np.ndarray, groups: int, *, channels_last: bool = False) -> np.ndarray:
    """Return filters (oc, ic // groups, ...) as matrices (groups, K, N), K over (ic // groups, ...).

    They are a view; with `channels_last` a copy, in the order in which the compiled convolution reads them.
    """
    n, k = w.shape[0] // groups, math.prod(w.shape[1:])
    matrices = w.reshape(groups, n, k).swapaxes(1, 2)
    return np.ascontiguousarray(matrices) if channels_last else matrices


@lru_cache(maxsize=1024)
def conv_window(
    x: Shape, w: Shape, stride: Pair, dilation: Pair, padding: str | Pads, groups: int, layout: str
) -> Window:
    """Return the window of a convolution of these shapes; ValueError if they do not fit."""
    ic, ih, iw = x[1:] if layout == "NCHW" else (x[3], x[1], x[2])
    oc, icg, kh, kw = w
    if ic != icg * groups:
        raise ValueError(
            f"x has {ic} channels, but w {_check.shape(w)} takes {icg} in each of {groups} groups, "
            f"{icg * groups} in all; w is (oc, ic // groups, kh, kw)"
            f"{_hints.other_images(x, w, groups, layout)}"
        )
    if oc % groups:
        raise ValueError(f"w has {oc} output channels, which {groups} groups do not divide")
    if kh < 1 or kw < 1:
        raise ValueError(f"w must have a kernel of at least 1 x 1, not {kh} x {kw}")
    return window((ih, iw), (kh, kw), stride, dilation, padding)


class HeldConv(ArrayLayer):
    """What convolutions over any number of axes share that hold their filters and parameters."""

    weight: np.ndarray
    x: QuantParams
    w: QuantParams
    y: QuantParams | None
    bias: np.ndarray | None
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    layout: str
    rounding: str

    def _hold(
        self, kernel: str, sizes: Callable[[Any, str], Any], pads: Callable[[Any], Any], layout: Any,
        layouts: tuple[str, ...],
    ) -> None:  # fmt: skip
        """Put the checked fields into their stored form; `kernel` names the axes of a filter."""

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        kind, axes = type(self).__name__, f"(oc, ic // groups, {kernel})"
        weight = parameters.check_weight(kind, self.weight, self.w, ndim=axes.count(",") + 1, axes=axes)
        oc = weight.shape[0]
        parameters.check_params(kind, self.x, self.w, self.y, w_axis=0, channels=oc)
        parameters.check_rounding(kind, self.rounding, self.x, self.w, self.y)
        put("weight", weight)
        put("bias", parameters.check_bias(kind, self.bias, oc))
        put("stride", sizes(self.stride, "stride"))
        put("dilation", sizes(self.dilation, "dilation"))
        put("padding", pads(self.padding))
        put("groups", _check.integer(self.groups, "groups", minimum=1))
        put("layout", _check.choice(layout, "layout", layouts))
        if oc % self.groups:
            raise ValueError(
                f"{kind}: weight has {oc} output channels, which {self.groups} groups do not divide"
            )

    @property
    def _last(self) -> bool:
        """Whether channels are the last axis."""
        return self.layout.endswith("C")

    @cached_property
    def _epilogue(self) -> Epilogue:
        sums = self.weight.sum(axis=tuple(range(1, self.weight.ndim)), dtype=np.int64)
        return parameters.epilogue(self, sums, math.prod(self.weight.shape[1:]))

    @cached_property
    def _filters(self) -> np.ndarray:
        return filter_matrices(self.weight, self.groups, channels_last=self._last)

    @cached_property
    def _pad_value(self) -> int:
        return int(self.x.zero_points)

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, or float32."""
        if dtypes[0] != self.x.dtype:
            raise TypeError(f"{type(self).__name__} takes {self.x.dtype}, as its x says, not {dtypes[0]}")
        return "float32" if self.y is None else self.y.dtype


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(HeldConv):
    """A quantized two-dimensional convolution.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kh, kw)
    x, w : QuantParams
        Of the input and the weights; w per tensor or per output channel (axis 0).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (oc,), optional
        In units of x.scale * w.scale.
    stride, dilation : int or (int, int)
    padding : int, (h, w), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Padded pixels are real zeros: the code x.zero_point.
    groups : int
    layout : {"NCHW", "NHWC"}
        Of the input and the output.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX QLinearConv. The requantization is :func:`systolic.requantize` with the multiplier
    ``f32(f32(xs * ws) / ys)``, by another rounding with the multiplier of
    :func:`systolic.quant.multiplier`; :class:`systolic.lowered.Epilogue` says where zero points are
    corrected.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Conv2d, QuantParams
    >>> one = QuantParams(1.0)
    >>> layer = Conv2d(np.ones((8, 3, 3, 3), dtype=np.int8), x=one, w=one, y=one, stride=2, padding="same")
    >>> layer.output_shape((1, 3, 32, 32)), layer.products((1, 3, 32, 32))
    ((1, 8, 16, 16), Gemm(256, 27, 8))
    """

    weight: np.ndarray
    x: QuantParams = field(kw_only=True)
    w: QuantParams = field(kw_only=True)
    y: QuantParams | None = field(kw_only=True)
    bias: np.ndarray | None = field(default=None, kw_only=True)
    stride: int | Pair = field(default=(1, 1), kw_only=True)
    padding: str | int | Pair | Pads = field(default=((0, 0), (0, 0)), kw_only=True)
    dilation: int | Pair = field(default=(1, 1), kw_only=True)
    groups: int = field(default=1, kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)
    rounding: str = field(default="half_even", kw_only=True)

    def __post_init__(self) -> None:
        self._hold("kh, kw", pair, padding_spec, self.layout, LAYOUTS)

    def _window(self, shape: Shape) -> Window:
        if len(shape) != 4:
            raise ValueError(
                f"{type(self).__name__} takes images {IMAGE_AXES[self.layout]}, not {_check.shape(shape)}"
            )
        geometry: Any = self.stride, self.dilation, self.padding
        return conv_window(shape, self.weight.shape, *geometry, self.groups, self.layout)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, oh, ow), or (batch, oh, ow, oc) in layout NHWC."""
        oh, ow = self._window(shapes[0]).out
        oc = self.weight.shape[0]
        return (shapes[0][0], oc, oh, ow) if self.layout == "NCHW" else (shapes[0][0], oh, ow, oc)

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        oh, ow = self._window(shapes[0]).out
        oc, icg, kh, kw = self.weight.shape
        return Gemm(shapes[0][0] * oh * ow, icg * kh * kw, oc // self.groups, groups=self.groups)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        images = x.transpose(0, 3, 1, 2) if self._last else x
        window = self._window(x.shape)
        return lower_images(images, self._filters, window, self._pad_value, self._last, self._epilogue)


@dataclass(frozen=True, eq=False, repr=False)
class DepthwiseConv2d(Conv2d):
    """A depthwise convolution: `groups` is the number of input channels.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (ic * multiplier, 1, kh, kw)
    multiplier : int
        Output channels per input channel.

    Notes
    -----
    Other parameters are :class:`Conv2d`'s; `groups` follows from the weight. On a weight-stationary
    array each channel is a product with K = kh * kw and N = multiplier: it fills kh * kw rows and a
    column or few, which the cycles show.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import DepthwiseConv2d, QuantParams
    >>> one = QuantParams(1.0)
    >>> layer = DepthwiseConv2d(np.ones((8, 1, 3, 3), dtype=np.int8), x=one, w=one, y=one)
    >>> layer.products((1, 8, 16, 16))
    Gemm(196, 9, 1, groups=8)
    """

    multiplier: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        weight = _check.operand(self.weight, "DepthwiseConv2d: weight", ndim=4, axes="(oc, 1, kh, kw)")
        multiplier = _check.integer(self.multiplier, "multiplier", minimum=1)
        if weight.shape[1] != 1 or weight.shape[0] % multiplier:
            raise ValueError(
                "DepthwiseConv2d: weight must be (ic * multiplier, 1, kh, kw), "
                f"not {_check.shape(weight.shape)} with multiplier {multiplier}"
            )
        groups = weight.shape[0] // multiplier
        if _check.integer(self.groups, "groups", minimum=1) not in (1, groups):
            raise ValueError(f"DepthwiseConv2d: groups must be left out or {groups}, not {self.groups}")
        object.__setattr__(self, "groups", groups)
        super().__post_init__()
