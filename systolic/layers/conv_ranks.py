"""Convolutions over one and over three axes, run as convolutions of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import spatial
from systolic.layers.base import Shape
from systolic.layers.conv import HeldConv
from systolic.lowered import Lowered
from systolic.quant import QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class _Conv(HeldConv):
    weight: np.ndarray
    x: QuantParams = field(kw_only=True)
    w: QuantParams = field(kw_only=True)
    y: QuantParams | None = field(kw_only=True)
    bias: np.ndarray | None = field(default=None, kw_only=True)
    stride: int | tuple[int, ...] = field(default=1, kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=0, kw_only=True)
    dilation: int | tuple[int, ...] = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    layout: str = field(default="", kw_only=True)
    rounding: str = field(default="half_even", kw_only=True)

    rank: ClassVar[int]
    layouts: ClassVar[dict[str, str]]

    def __post_init__(self) -> None:
        layouts, rank = tuple(self.layouts), self.rank
        self._hold(
            "kw" if rank == 1 else "kd, kh, kw",
            lambda value, name: spatial.sizes(value, name, rank),
            lambda value: spatial.paddings(value, rank),
            layouts[0] if isinstance(self.layout, str) and not self.layout else self.layout,
            layouts,
        )

    def _span(self, shape: Shape) -> tuple[Shape, spatial.Span]:
        """Return the input's shape with channels in axis 1, and the span over it."""
        if len(shape) != 2 + self.rank:
            raise ValueError(
                f"{type(self).__name__} takes tensors {self.layouts[self.layout]}, not {_check.shape(shape)}"
            )
        first = (shape[0], shape[-1], *shape[1:-1]) if self._last else tuple(shape)
        stride, dilation, padding = cast(Any, (self.stride, self.dilation, self.padding))
        return first, spatial.span(first, self.weight.shape, stride, dilation, padding, self.groups)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the batch, the output channels and the sizes of the output, in the layer's layout."""
        first, span = self._span(shapes[0])
        channels = (self.weight.shape[0],)
        return (first[0], *span.out, *channels) if self._last else (first[0], *channels, *span.out)

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        first, span = self._span(shapes[0])
        return spatial.span_gemm(first, self.weight.shape, span, self.groups)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        _, span = self._span(x.shape)
        first = np.moveaxis(x, -1, 1) if self._last else x
        return spatial.lower_span(first, self._filters, span, self._pad_value, self._last, self._epilogue)


@dataclass(frozen=True, eq=False, repr=False)
class Conv1d(_Conv):
    """A quantized one-dimensional convolution.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kw)
    x, w : QuantParams
        Of the input and the weights; w per tensor or per output channel (axis 0).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (oc,), optional
        In units of x.scale * w.scale.
    stride, dilation : int
        Kept as a tuple of one.
    padding : int, ((before, after),), "same", "same_lower" or "valid"
        Padded elements are real zeros: the code x.zero_point.
    groups : int
    layout : {"NCW", "NWC"}
        Of the input and the output.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX QLinearConv with one spatial axis: :class:`Conv2d` of images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Conv1d, QuantParams
    >>> one = QuantParams(1.0)
    >>> layer = Conv1d(np.ones((8, 3, 5), dtype=np.int8), x=one, w=one, y=one, stride=2, padding="same")
    >>> layer.output_shape((1, 3, 100)), layer.products((1, 3, 100))
    ((1, 8, 50), Gemm(50, 15, 8))
    """

    rank: ClassVar[int] = 1
    layouts: ClassVar[dict[str, str]] = {"NCW": "(batch, ic, iw)", "NWC": "(batch, iw, ic)"}


@dataclass(frozen=True, eq=False, repr=False)
class Conv3d(_Conv):
    """A quantized three-dimensional convolution.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kd, kh, kw)
    x, w : QuantParams
        Of the input and the weights; w per tensor or per output channel (axis 0).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (oc,), optional
        In units of x.scale * w.scale.
    stride, dilation : int or (int, int, int)
        Depth, height and width.
    padding : int, three of them or of (before, after), "same", "same_lower" or "valid"
        Padded voxels are real zeros: the code x.zero_point.
    groups : int
    layout : {"NCDHW", "NDHWC"}
        Of the input and the output.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX QLinearConv with three spatial axes. M runs over (batch, od, oh, ow) and K over
    (ic, kd, kh, kw); each output plane's kd planes of the input are laid out as one image before
    the product, which takes kd / stride times the input's bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Conv3d, QuantParams
    >>> one = QuantParams(1.0)
    >>> layer = Conv3d(np.ones((8, 3, 3, 3, 3), dtype=np.int8), x=one, w=one, y=one, padding=1)
    >>> layer.output_shape((1, 3, 4, 16, 16)), layer.products((1, 3, 4, 16, 16))
    ((1, 8, 4, 16, 16), Gemm(1024, 81, 8))
    """

    rank: ClassVar[int] = 3
    layouts: ClassVar[dict[str, str]] = {
        "NCDHW": "(batch, ic, id, ih, iw)",
        "NDHWC": "(batch, id, ih, iw, ic)",
    }
