"""Convolutions over one and over three axes, run as convolutions of images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import parameters, spatial
from systolic.layers.base import ArrayLayer, Shape
from systolic.layers.conv import filter_matrices
from systolic.lowered import Epilogue, Lowered
from systolic.quant import QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class _Conv(ArrayLayer):
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
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        kind, rank = type(self).__name__, self.rank
        axes = "(oc, ic // groups, " + ("kw)" if rank == 1 else "kd, kh, kw)")
        weight = parameters.check_weight(kind, self.weight, self.w, ndim=2 + rank, axes=axes)
        oc = weight.shape[0]
        parameters.check_params(kind, self.x, self.w, self.y, w_axis=0, channels=oc)
        parameters.check_rounding(kind, self.rounding, self.x, self.w, self.y)
        put("weight", weight)
        put("bias", parameters.check_bias(kind, self.bias, oc))
        put("stride", spatial.sizes(self.stride, "stride", rank))
        put("dilation", spatial.sizes(self.dilation, "dilation", rank))
        put("padding", spatial.paddings(self.padding, rank))
        put("groups", _check.integer(self.groups, "groups", minimum=1))
        unnamed = isinstance(self.layout, str) and not self.layout
        layout = next(iter(self.layouts)) if unnamed else self.layout
        put("layout", _check.choice(layout, "layout", tuple(self.layouts)))
        if oc % self.groups:
            raise ValueError(
                f"{kind}: weight has {oc} output channels, which {self.groups} groups do not divide"
            )

    @cached_property
    def _epilogue(self) -> Epilogue:
        taps = tuple(range(1, self.weight.ndim))
        sums = self.weight.sum(axis=taps, dtype=np.int64)
        return parameters.epilogue(self, sums, math.prod(self.weight.shape[1:]))

    @cached_property
    def _filters(self) -> np.ndarray:
        return filter_matrices(self.weight, self.groups, channels_last=self._last)

    @property
    def _last(self) -> bool:
        """Whether channels are the last axis."""
        return self.layout.endswith("C")

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

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, or float32."""
        if dtypes[0] != self.x.dtype:
            raise TypeError(f"{type(self).__name__} takes {self.x.dtype}, as its x says, not {dtypes[0]}")
        return "float32" if self.y is None else self.y.dtype

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        first, span = self._span(shapes[0])
        m, k, n, groups = spatial.product_size(first, self.weight.shape, span, self.groups)
        return Gemm(m, k, n, groups=groups)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        _, span = self._span(x.shape)
        return spatial.lower_span(
            np.moveaxis(x, -1, 1) if self._last else x, self._filters, span, int(self.x.zero_points),
            self._last, self._epilogue,
        )  # fmt: skip


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
