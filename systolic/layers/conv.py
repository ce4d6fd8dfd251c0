"""Convolutions over 1, 2 or 3 axes: lowered to products of images' patches by im2col, one per group.

A line is an image of height 1. A volume is a batch of images, one per output plane, whose channels
are (channel, tap of the kernel along the depth): so K runs over (ic, kd, kh, kw), first index
outermost, and M over (batch, od, oh, ow), as for images. This holds each plane of the volume as
often as filters take it, kd / stride times; height and width are still lowered piece by piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic._memory import require_array
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import Layer, Shape
from systolic.layers.geometry import AXES, LAYOUTS, Pads, Sizes, Window, paddings, sizes, window
from systolic.lowered import RAW, Epilogue, Lowered, Patches


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
    x = _check.operand(x, "x", ndim=4, axes=Conv2d.layouts[layout])
    w = _check.operand(w, "w", ndim=4, axes="(oc, ic // groups, kh, kw)")
    if type(pad_value) is not int or not 0 <= pad_value <= 127:  # what fits both types is the usual case
        zero_point = _check.integers(pad_value, "x_zero_point", x.dtype.name)
        if zero_point.ndim:
            raise ValueError(
                f"x_zero_point must be one number, not the shape {_check.shape(zero_point.shape)}"
            )
        pad_value = int(zero_point)
    groups = _check.integer(groups, "groups", minimum=1)
    last = layout == "NHWC"
    stride, dilation = sizes(stride, "stride", 2), sizes(dilation, "dilation", 2)
    view = conv_window(x.shape, w.shape, stride, dilation, paddings(padding, 2), groups, last)
    images = x.transpose(0, 3, 1, 2) if last else x
    return lower_conv(images, filter_matrices(w, groups), view, pad_value, last)


def lower_conv(
    x: np.ndarray, w: np.ndarray, window: Window, pad_value: int, channels_last: bool = False,
    epilogue: Epilogue = RAW,
) -> Lowered:  # fmt: skip
    """Lower the convolution of x (batch, ic, ...) with :func:`filter_matrices`."""
    groups, k, n = w.shape
    if x.ndim != 4:
        out, channels = (x.shape[0], *window.out), groups * n
        shape = (*out, channels) if channels_last else (out[0], channels, *out[1:])
        planes = out[1] if len(out) == 4 and not channels_last else 1
        epilogue = epilogue._replace(shape=shape, planes=planes)
        x, window = _images(x, window, pad_value), window.plane
    kernel, stride, dilation, ((top, _), (left, _)), _, (oh, ow) = window
    patches = Patches(x, kernel, stride, dilation, (top, left), (oh, ow), groups, pad_value, channels_last)
    return Lowered(Gemm(x.shape[0] * oh * ow, k, n, groups=groups), patches, w, epilogue)


def _images(x: np.ndarray, window: Window, pad_value: int) -> np.ndarray:
    """Return lines as images of height 1, and volumes as images (batch * od, ic * kd, ih, iw)."""
    if x.ndim == 3:
        return x[:, :, np.newaxis, :]
    batch, ic, depth, height, width = x.shape
    out, kernel = window.out[0], window.kernel[0]
    places = np.arange(out)[:, np.newaxis] * window.stride[0] + np.arange(kernel) * window.dilation[0]
    places -= window.pads[0][0]
    shape = (batch, out, ic, kernel, height, width)
    require_array(shape, x.dtype, "Conv3d: the planes of each output plane,")
    taken = np.full(shape, pad_value, dtype=x.dtype)
    for plane, tap in np.argwhere((places >= 0) & (places < depth)):
        taken[:, plane, :, tap] = x[:, :, places[plane, tap]]
    return taken.reshape(batch * out, ic * kernel, height, width)


def filter_matrices(w: np.ndarray, groups: int, *, channels_last: bool = False) -> np.ndarray:
    """Return filters (oc, ic // groups, ...) as matrices (groups, K, N), K over (ic // groups, ...).

    They are a view; with `channels_last` a copy, in the order in which the compiled convolution reads them.
    """
    n, k = w.shape[0] // groups, math.prod(w.shape[1:])
    matrices = w.reshape(groups, n, k).swapaxes(1, 2)
    return np.ascontiguousarray(matrices) if channels_last else matrices


@lru_cache(maxsize=1024)
def conv_window(
    x: Shape, w: Shape, stride: Sizes, dilation: Sizes, padding: str | Pads, groups: int, last: bool = False
) -> Window:
    """Return the window of filters w (oc, ic // groups, ...) over x, with its channels in axis 1 or the last.

    Raises
    ------
    ValueError
        If the channels do not fit, or the kernel is larger than the padded image.
    """
    ic, image = (x[-1], x[1:-1]) if last else (x[1], x[2:])
    oc, icg, *kernel = w
    if ic != icg * groups:
        raise ValueError(
            f"x has {ic} channels, but w {_check.shape(w)} takes {icg} in each of {groups} groups, "
            f"{icg * groups} in all; w is (oc, ic // groups, {'kh, kw' if len(w) == 4 else '...'})"
            f"{_hints.other_images(x, w, groups, LAYOUTS[last])}"
        )
    if oc % groups:
        raise ValueError(f"w has {oc} output channels, which {groups} groups do not divide")
    if min(kernel) < 1:
        least, given = (" x ".join(map(str, each)) for each in ([1] * len(kernel), kernel))
        raise ValueError(f"w must have a kernel of at least {least}, not {given}")
    return window(image, w[2:], stride, dilation, padding)


@dataclass(frozen=True, eq=False, repr=False)
class TensorConv(Layer):
    """Base of the convolutions whose weights are an input, over 1, 2 or 3 axes."""

    inputs: ClassVar[None] = None

    stride: int | Sizes = field(default=1, kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=0, kw_only=True)
    dilation: int | Sizes = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        # An int holds for all axes; a tuple says how many there are.
        for name in ("stride", "dilation"):
            value = getattr(self, name)
            one = not _check.is_listed(value)
            stored = _check.integer(value, name, minimum=1) if one else sizes(value, name, len(value))
            object.__setattr__(self, name, stored)
        value = self.padding
        one = not isinstance(value, str) and not _check.is_listed(value)
        pads: Any = _check.integer(value, "padding", minimum=0) if one else paddings(value, len(value))  # type: ignore[arg-type]
        object.__setattr__(self, "padding", pads)
        object.__setattr__(self, "groups", _check.integer(self.groups, "groups", minimum=1))

    def _expect_rank(self, x: Shape, w: Shape, axes: str = "(oc, ic // groups, ...)") -> None:
        """Raise ValueError unless x and w have as many axes, and w slides along 1 to 3."""
        if len(x) - 2 not in AXES:
            raise ValueError(f"{self.kind} takes x with 3 to 5 axes (batch, ic, ...), not {_check.shape(x)}")
        if len(w) != len(x):
            raise ValueError(f"{self.kind} takes w {axes} with {len(x)} axes as x has, not {_check.shape(w)}")

    def _gemm(self, x: Shape, w: Shape, window: Window) -> Gemm:
        m, k = math.prod(window.out, start=x[0]), math.prod(w[1:])
        return Gemm(m, k, w[0] // self.groups, groups=self.groups)

    def _window_of(self, x: Shape, w: Shape) -> Window:
        return conv_window(x, w, *self._steps(len(x) - 2), paddings(self.padding, len(x) - 2), self.groups)

    def _steps(self, rank: int) -> tuple[Sizes, Sizes]:
        """Return the stride and the dilation along each axis."""
        return sizes(self.stride, "stride", rank), sizes(self.dilation, "dilation", rank)


@dataclass(frozen=True, eq=False, repr=False)
class _Conv(parameters.WeightedLayer):
    """Base of the convolutions that hold their weights."""

    stride: int | Sizes = field(default=1, kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=0, kw_only=True)
    dilation: int | Sizes = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    layout: str = field(default="", kw_only=True)
    rounding: str = field(default="half_even", kw_only=True)

    w_axis: ClassVar[int] = 0
    layouts: ClassVar[dict[str, str]]
    """The axes of the input by the name of a layout, channels first and channels last."""

    def __post_init__(self) -> None:
        first = next(iter(self.layouts))
        kernel = "".join(f", k{axis.lower()}" for axis in first[2:])
        self._put_parameters(f"(oc, ic // groups{kernel})", self.rounding)
        put_window(self, len(first) - 2)
        layout = first if isinstance(self.layout, str) and not self.layout else self.layout
        object.__setattr__(self, "layout", _check.choice(layout, "layout", tuple(self.layouts)))

    @cached_property
    def _pad_value(self) -> int:
        return int(self.x.zero_points)

    @cached_property
    def _last(self) -> bool:
        """Whether channels are the last axis."""
        return self.layout.endswith("C")

    @cached_property
    def _first(self) -> tuple[int, ...]:
        """The order of axes that moves the last, the channels, to axis 1."""
        return (0, self.weight.ndim - 1, *range(1, self.weight.ndim - 1))

    @cached_property
    def _filters(self) -> np.ndarray:
        return filter_matrices(self.weight, self.groups, channels_last=self._last)

    def _window(self, shape: Shape) -> Window:
        w = self.weight.shape
        if len(shape) != len(w):
            what, axes = "images" if len(w) == 4 else "tensors", self.layouts[self.layout]
            raise ValueError(f"{type(self).__name__} takes {what} {axes}, not {_check.shape(shape)}")
        return conv_window(shape, w, self.stride, self.dilation, self.padding, self.groups, self._last)  # type: ignore[arg-type]

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the batch, the output channels and the sizes of the output, in the layer's layout."""
        out, oc = self._window(shapes[0]).out, self.weight.shape[0]
        return (shapes[0][0], *out, oc) if self._last else (shapes[0][0], oc, *out)

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        m = math.prod(self._window(shapes[0]).out) * shapes[0][0]
        return Gemm(m, self._k, self.weight.shape[0] // self.groups, groups=self.groups)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        window, last = self._window(x.shape), self._last
        return lower_conv(
            x.transpose(self._first) if last else x, self._filters, window, self._pad_value, last,
            self._epilogue,
        )  # fmt: skip


def put_window(layer: Any, rank: int) -> None:
    """Put stride, dilation, padding and groups of a layer that holds its weights into their stored form."""
    stored = {
        "stride": sizes(layer.stride, "stride", rank),
        "dilation": sizes(layer.dilation, "dilation", rank),
        "padding": paddings(layer.padding, rank),
        "groups": _check.integer(layer.groups, "groups", minimum=1),
    }
    for name, value in stored.items():
        object.__setattr__(layer, name, value)
    if len(layer.weight) % layer.groups:
        raise ValueError(
            f"{type(layer).__name__}: weight has {len(layer.weight)} output channels, which {layer.groups} "
            "groups do not divide"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Conv1d(_Conv):
    """A quantized one-dimensional convolution: :class:`Conv2d` of images of height 1.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kw)
    x, w, y, bias, groups, rounding
        As for :class:`Conv2d`.
    stride, dilation : int
        Kept as a tuple of one.
    padding : int, ((before, after),), "same", "same_lower" or "valid"
    layout : {"NCW", "NWC"}

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Conv1d
    >>> one = QuantParams(1.0)
    >>> layer = Conv1d(np.ones((8, 3, 5), dtype=np.int8), x=one, w=one, y=one, stride=2, padding="same")
    >>> layer.output_shape((1, 3, 100)), layer.products((1, 3, 100))
    ((1, 8, 50), Gemm(50, 15, 8))
    """

    layouts: ClassVar[dict[str, str]] = {"NCW": "(batch, ic, iw)", "NWC": "(batch, iw, ic)"}


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(_Conv):
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
    >>> from systolic import QuantParams
    >>> from systolic.layers import Conv2d
    >>> one = QuantParams(1.0)
    >>> layer = Conv2d(np.ones((8, 3, 3, 3), dtype=np.int8), x=one, w=one, y=one, stride=2, padding="same")
    >>> layer.output_shape((1, 3, 32, 32)), layer.products((1, 3, 32, 32))
    ((1, 8, 16, 16), Gemm(256, 27, 8))
    """

    stride: int | Sizes = field(default=(1, 1), kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=((0, 0), (0, 0)), kw_only=True)
    dilation: int | Sizes = field(default=(1, 1), kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)

    layouts: ClassVar[dict[str, str]] = {"NCHW": "(batch, ic, ih, iw)", "NHWC": "(batch, ih, iw, ic)"}


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
    >>> from systolic import QuantParams
    >>> from systolic.layers import DepthwiseConv2d
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


@dataclass(frozen=True, eq=False, repr=False)
class Conv3d(_Conv):
    """A quantized three-dimensional convolution.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kd, kh, kw)
    x, w, y, bias, groups, rounding
        As for :class:`Conv2d`.
    stride, dilation : int or (int, int, int)
        Depth, height and width.
    padding : int, three of them or of (before, after), "same", "same_lower" or "valid"
    layout : {"NCDHW", "NDHWC"}

    Notes
    -----
    M runs over (batch, od, oh, ow) and K over (ic, kd, kh, kw); each output plane's kd planes of the
    input are laid out as one image before the product, which takes kd / stride times the input's bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Conv3d
    >>> one = QuantParams(1.0)
    >>> layer = Conv3d(np.ones((8, 3, 3, 3, 3), dtype=np.int8), x=one, w=one, y=one, padding=1)
    >>> layer.output_shape((1, 3, 4, 16, 16)), layer.products((1, 3, 4, 16, 16))
    ((1, 8, 4, 16, 16), Gemm(1024, 81, 8))
    """

    layouts: ClassVar[dict[str, str]] = {
        "NCDHW": "(batch, ic, id, ih, iw)",
        "NDHWC": "(batch, id, ih, iw, ic)",
    }
