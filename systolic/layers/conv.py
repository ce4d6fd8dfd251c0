"""Convolutions over 1, 2 or 3 axes: lowered to products of images' patches by im2col, one per group.

A line is an image of height 1. A volume is a batch of images, one per output plane, whose channels
are (channel, tap of the kernel along the depth): so K runs over (ic, kd, kh, kw), first index
outermost, and M over (batch, od, oh, ow), as for images. This holds each plane of the volume as
often as filters take it, kd / stride times; height and width are still lowered piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic._memory import require_array
from systolic.formats import OPERANDS, operand_name
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import ArrayLayer, Layer, Shape, at_least
from systolic.layers.geometry import AXES, LAYOUTS, Pads, Sizes, Window, paddings, put_window, sizes, window
from systolic.layers.record import OperatorRecord
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
    x = _check.operand(x, "x", ndim=4, axes=axes_of(2, layout == "NHWC"), known=tuple(OPERANDS))
    w = _check.operand(w, "w", ndim=4, axes="(oc, ic // groups, kh, kw)", known=tuple(OPERANDS))
    if type(pad_value) is not int or pad_value:  # 0 fits all types
        operand = OPERANDS[operand_name(x)]
        limits = operand.limits if operand.bits == 4 else None
        zero_point = _check.numbers(pad_value, "x_zero_point", operand.dtype, limits)
        if zero_point.ndim:
            raise ValueError(
                f"x_zero_point must be one number, not the shape {_check.shape(zero_point.shape)}"
            )
        pad_value = zero_point.item()
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
    require_array(shape, x.dtype, "a convolution over 3 axes: the planes of each output plane,")
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


def axes_of(rank: int, last: bool = False) -> str:
    """Return what the axes of images, lines or volumes are called, with channels second or last."""
    spatial = ("id", "ih", "iw")[-rank:]
    return f"({', '.join(('batch', *spatial, 'ic') if last else ('batch', 'ic', *spatial))})"


@lru_cache(maxsize=1024)
def conv_window(
    x: Shape, w: Shape, stride: Sizes, dilation: Sizes, padding: str | Pads, groups: int, last: bool = False
) -> Window:
    """Return the window of filters w (oc, ic // groups, ...) over x, with its channels in axis 1 or the last.

    ValueError if the channels do not fit, or the kernel is larger than the padded image.
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
class Convolution(Layer):
    """Base of the convolutions over 1, 2 or 3 axes."""

    stride: int | Sizes = field(default=1, kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=0, kw_only=True)
    dilation: int | Sizes = field(default=1, kw_only=True)
    groups: int = at_least(1, 1, kw_only=True)

    channels_last = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self, "weight", None) is None:  # a held one says how many axes there are
            self._put_window(None)

    def _put_window(self, weight: Shape | None) -> None:
        """Put the window's fields into their stored form: for the axes of a held weight, or of any input."""
        put_window(self, None if weight is None else len(weight) - 2)
        if weight is not None and weight[0] % self.groups:
            raise ValueError(
                f"{self.kind}: weight has {weight[0]} output channels, which {self.groups} groups do not "
                "divide"
            )

    def _expect_rank(self, x: Shape, w: Shape, axes: str = "(oc, ic // groups, ...)") -> None:
        """Raise ValueError unless x and w have as many axes, and w slides along 1 to 3."""
        if len(x) - 2 not in AXES:
            raise ValueError(f"{self.kind} takes x with 3 to 5 axes (batch, ic, ...), not {_check.shape(x)}")
        if len(w) != len(x):
            raise ValueError(f"{self.kind} takes w {axes} with {len(x)} axes as x has, not {_check.shape(w)}")

    def _output(self, x: Shape, w: Shape, window: Window) -> Shape:
        return (x[0], *window.out, w[0]) if self.channels_last else (x[0], w[0], *window.out)

    def _window_over(self, x: Shape, w: Shape) -> Window:
        """Return the window of weights w over x, which may be of any rank."""
        rank = len(x) - 2
        steps = self._steps(rank)
        return conv_window(x, w, *steps, paddings(self.padding, rank), self.groups, self.channels_last)

    def _window_held(self, x: Shape, w: Shape) -> Window:
        """Return the window of held weights over x."""
        if len(x) != len(w):
            what = "images" if len(w) == 4 else "tensors"
            axes = axes_of(len(w) - 2, self.channels_last)
            raise ValueError(f"{self.kind} takes {what} {axes}, not {_check.shape(x)}")
        given: Any = (self.stride, self.dilation, self.padding)
        return conv_window(x, w, *given, self.groups, self.channels_last)

    def _steps(self, rank: int) -> tuple[Sizes, Sizes]:
        """Return the stride and the dilation along each axis."""
        return sizes(self.stride, "stride", rank), sizes(self.dilation, "dilation", rank)

    def _lower(
        self, window: Window, x: np.ndarray, w: np.ndarray, *zeros: np.ndarray, **terms: Any
    ) -> Lowered:
        """Lower checked operands and zero points, which are tensors; `terms` are more of the epilogue."""
        shapes = (), (-1,) if len(zeros) > 1 and zeros[1].size > 1 else ()
        for name, zero, shape in zip(("x_zero", "w_zero"), zeros, shapes, strict=False):
            terms[name] = parameters.zero_term(zero.reshape(shape))
        pad_value = int(zeros[0].reshape(())) if zeros else 0
        last = self.channels_last
        x = np.moveaxis(x, -1, 1) if last else x
        return lower_conv(x, filter_matrices(w, self.groups), window, pad_value, last, Epilogue(**terms))


class ArrayConvolution(Convolution, ArrayLayer):
    """Base of the convolutions that run on the array."""

    def _window(self, shapes: Sequence[Shape]) -> Window:
        """Return the window over the input; ValueError if the shapes do not fit."""
        raise TypeError(f"{type(self).__name__} does not define _window")

    def _weight_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the weights, an input or held."""
        return shapes[1]

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the batch, the output channels and the sizes of the output."""
        window = self._window(shapes)
        return self._output(shapes[0], self._weight_shape(shapes), window)

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        w, m = self._weight_shape(shapes), math.prod(self._window(shapes).out, start=shapes[0][0])
        return Gemm(m, math.prod(w[1:]), w[0] // self.groups, groups=self.groups)

    def kernel_taps(self, *shapes: Shape) -> int:
        """Return the taps of the kernel along its last two axes: planes of a volume are channels."""
        return math.prod(self._weight_shape(shapes)[2:][-2:])


@dataclass(frozen=True, eq=False, repr=False)
class ConvInteger(ArrayConvolution):
    """Exact sums of the convolution of ``x - x_zero_point`` with ``w - w_zero_point``, int32.

    It reads x (batch, ic, ...) and w (oc, ic // groups, ...), with 1, 2 or 3 axes after these, and,
    where they are named, x_zero_point, one number, and w_zero_point, one or (oc,), tensors of their
    operand's type. Padding adds exactly 0.

    Parameters
    ----------
    stride, dilation : int or tuple of int
        One for all axes, or one for each.
    padding : int, tuple of int or (before, after), "same", "same_lower" or "valid"
    groups : int

    Notes
    -----
    ONNX operator ConvInteger; sums wrap modulo 2^32. ONNX Runtime refuses a w_zero_point per channel.

    Examples
    --------
    >>> from systolic.layers import ConvInteger
    >>> layer = ConvInteger(padding=1)
    >>> layer.output_shape((1, 3, 8, 8), (4, 3, 3, 3)), layer.products((1, 3, 8, 8), (4, 3, 3, 3))
    ((1, 4, 8, 8), Gemm(64, 27, 4))
    """

    inputs: ClassVar[None] = None

    def _window(self, shapes: Sequence[Shape]) -> Window:
        parameters.expect_count(self.kind, len(shapes), 2, 4, "x, w, x_zero_point, w_zero_point")
        x, w = shapes[:2]
        self._expect_rank(x, w)
        if len(shapes) > 2:
            parameters.expect_single(self.kind, "x_zero_point", shapes[2])
        if len(shapes) > 3:
            parameters.expect_per_channel(self.kind, "w_zero_point", shapes[3], w[0])
        return self._window_over(x, w)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int32"."""
        parameters.expect_count(self.kind, len(dtypes), 2, 4, "x, w, x_zero_point, w_zero_point")
        parameters.expect_operands(self.kind, *dtypes)
        return "int32"

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        return self._lower(self._window(tuple(tensor.shape for tensor in inputs)), *inputs)


def conv_rank(op: Any, index: int) -> int:
    """Return the number of spatial axes, of weights that are the input `index` and may be computed."""
    weight = op.shape(index)
    shape = weight if weight is not None else op.shape(0)
    if shape is None:
        raise op.refuse("the number of spatial axes of its inputs must be known")
    rank = len(shape) - 2
    if rank not in AXES:
        raise op.refuse(f"operands of {rank + 2} axes; supported are 1 to 3 spatial axes")
    if weight is not None and None not in weight:
        given = op.integers("kernel_shape", weight[2:])
        if given != weight[2:]:
            raise ValueError(f"kernel_shape {given} but a weight {_check.shape(weight)}")
    elif "kernel_shape" in op.attributes:
        raise op.refuse("kernel_shape beside weights whose shape is not known")
    return rank


def read_window(op: Any, index: int) -> dict[str, Any]:
    """Return the window and the groups of a node whose weights are the input `index`."""
    return {"groups": op.attribute("group", 1), **op.window(conv_rank(op, index))}


def _read_conv_integer(op: Any) -> Any:
    op.only(*WINDOW)
    return ConvInteger(**read_window(op, 1)), op.operands(2, 3)


WINDOW: dict[str, Any] = {
    "auto_pad": "NOTSET", "dilations": None, "group": 1, "kernel_shape": None, "pads": None, "strides": None,
}  # fmt: skip
"""Attributes of all convolutions."""

OPERATORS = (
    OperatorRecord(
        ConvInteger,
        "Convolution of integers; int32 sums.",
        inputs=("x", "w", "x_zero_point?", "w_zero_point?"),
        attributes=WINDOW,
        fields={"group": "groups"},
        since=10,
        read=_read_conv_integer,
    ),
)
