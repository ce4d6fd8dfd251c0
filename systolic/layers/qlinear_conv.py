"""Quantized convolutions; weights and parameters held or read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers import parameters
from systolic.layers.base import Shape
from systolic.layers.conv import WINDOW, ArrayConvolution, filter_matrices, lower_conv, read_window
from systolic.layers.geometry import AXES, LAYOUTS, Sizes, Window
from systolic.layers.record import MICROSOFT, OperatorRecord, contrib
from systolic.lowered import Lowered
from systolic.quant import QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class QLinearConv(ArrayConvolution, parameters.WeightedLayer):
    """A quantized convolution over 1, 2 or 3 axes.

    With a `weight` it reads x alone, (batch, ic, ...), and `x`, `w`, `y` and `bias` hold the rest. Without,
    all are tensors that may be computed at run time: it reads x, x_scale, x_zero_point, w, w_scale,
    w_zero_point, y_scale, y_zero_point and, if a ninth tensor is named, an int32 bias (oc,) in units of
    x_scale * w_scale. x and y have one scale and zero point then, w one or one per output channel, (oc,).
    Scales are float32; zero points are of their operand's type, y's of the output's.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, ...), optional
    x, w : QuantParams
        Of the input and the weights; w per tensor or per output channel (axis 0).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (oc,), optional
        In units of x.scale * w.scale.
    stride, dilation : int or tuple of int
        One for all axes, or one for each.
    padding : int, tuple of int or (before, after), "same", "same_lower" or "valid"
        Padded elements are real zeros: the code x.zero_point.
    groups : int
    channels_last : bool
        Whether the channels of the input and the output are the last axis, not the second.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How accumulators become y's codes; see :func:`systolic.requantize`. "half_even" without a weight.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX operator QLinearConv; with the channels last ONNX Runtime's com.microsoft QLinearConv. The
    requantization is :func:`systolic.requantize` with the multiplier ``f32(f32(xs * ws) / ys)``, by another
    rounding with the multiplier of :func:`systolic.quant.multiplier`; :class:`systolic.lowered.Epilogue` says
    where zero points are corrected. Scales that are tensors may be anything, unlike those of
    :class:`QuantParams`: an accumulator scaled to NaN becomes the smallest code, as in ONNX Runtime.

    Over 3 axes M runs over (batch, od, oh, ow) and K over (ic, kd, kh, kw); each output plane's kd planes of
    the input are laid out as one image before the product, which takes kd / stride times the input's bytes.

    A depthwise convolution has `groups` = ic: on a weight-stationary array each channel is a product with
    K = kh * kw and N = oc / ic. It fills kh * kw rows and a column or few, which the cycles show.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearConv
    >>> one = QuantParams(1.0)
    >>> lines = QLinearConv(np.ones((8, 3, 5), np.int8), x=one, w=one, y=one, stride=2, padding="same")
    >>> lines.output_shape((1, 3, 100)), lines.products((1, 3, 100))
    ((1, 8, 50), Gemm(50, 15, 8))
    >>> QLinearConv(padding=1).output_shape((1, 3, 8, 8), (), (), (4, 3, 3, 3), (4,), (4,), (), ())
    (1, 4, 8, 8)
    """

    weight: np.ndarray | None = None  # type: ignore[assignment]
    x: QuantParams | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    w: QuantParams | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    y: QuantParams | None = field(default=None, kw_only=True)
    channels_last: bool = field(default=False, kw_only=True)
    rounding: str = field(default="half_even", kw_only=True)

    w_axis: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is None:
            for name in ("x", "w", "y", "bias"):
                if getattr(self, name) is not None:
                    raise ValueError(f"QLinearConv: without a weight {name} is an input, and must be None")
            if self.rounding != "half_even":
                raise ValueError(f"QLinearConv: without a weight it rounds half_even, not {self.rounding!r}")
            return
        weight = _check.operand(self.weight, "QLinearConv: weight")
        if weight.ndim - 2 not in AXES:
            raise ValueError(
                "QLinearConv: weight must be (oc, ic // groups, ...) with 3 to 5 axes, not "
                f"{_check.shape(weight.shape)}"
            )
        self._put_parameters(f"(oc, ic // groups{', ...' * (weight.ndim - 2)})", self.rounding)
        self._put_window(self.weight.shape)

    @property
    def inputs(self) -> int | None:  # type: ignore[override]
        """1 with a weight, else 8 or 9, which is None."""
        return None if self.weight is None else 1

    @cached_property
    def _pad_value(self) -> int:
        return int(self.x.zero_points)  # type: ignore[union-attr]

    @cached_property
    def _channels_second(self) -> tuple[int, ...]:
        """The order of axes that moves the last, the channels, to axis 1."""
        return (0, self.weight.ndim - 1, *range(1, self.weight.ndim - 1))  # type: ignore[union-attr]

    @cached_property
    def _filters(self) -> np.ndarray:
        return filter_matrices(self.weight, self.groups, channels_last=self.channels_last)  # type: ignore[arg-type]

    def _window(self, shapes: Sequence[Shape]) -> Window:
        if self.weight is not None:
            return self._window_held(shapes[0], self.weight.shape)
        parameters.expect_count(self.kind, len(shapes), 8, 9, parameters.NAMES)
        x, w = shapes[0], shapes[3]
        self._expect_rank(x, w)
        parameters.expect_singles(self.kind, shapes)
        for name, place in (("w_zero_point", 5), ("w_scale", 4)):
            parameters.expect_per_channel(self.kind, name, shapes[place], w[0])
        if len(shapes) > 8 and shapes[8] != (w[0],):
            raise ValueError(f"{self.kind}: bias must be ({w[0]},), not {_check.shape(shapes[8])}")
        return self._window_over(x, w)

    def _weight_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[3] if self.weight is None else self.weight.shape

    def output_dtype(self, *dtypes: str) -> str:
        """Return the type of y or y_zero_point; float32 without `y`."""
        if self.weight is not None:
            return super().output_dtype(*dtypes)
        parameters.expect_count(self.kind, len(dtypes), 8, 9, parameters.NAMES)
        parameters.expect_operands(self.kind, *parameters.integer_inputs(dtypes))
        return parameters.expect_types(self.kind, dtypes[1], dtypes[4], dtypes[6:8], dtypes[8:])

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        if self.weight is None:
            return self._lower_tensors(inputs)
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        window, last = self._window_held(x.shape, self.weight.shape), self.channels_last
        return lower_conv(
            x.transpose(self._channels_second) if last else x, self._filters, window, self._pad_value, last,
            self._epilogue,
        )  # fmt: skip

    def _lower_tensors(self, inputs: Sequence[np.ndarray]) -> Lowered:
        window = self._window([tensor.shape for tensor in inputs])
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        w_scale = inputs[4].reshape(-1 if inputs[4].size > 1 else ())
        return self._lower(
            window, *parameters.integer_inputs(inputs), constant=inputs[8] if len(inputs) > 8 else None,
            **parameters.scale_terms(inputs[1], w_scale, inputs[6:8]),
        )  # fmt: skip


def Conv2d(  # noqa: N802
    weight: np.ndarray,
    *,
    x: QuantParams,
    w: QuantParams,
    y: QuantParams | None,
    bias: np.ndarray | None = None,
    stride: int | Sizes = 1,
    padding: str | int | tuple[Any, ...] = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    layout: str = "NCHW",
    rounding: str = "half_even",
) -> QLinearConv:
    """Return a quantized convolution of images.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (oc, ic // groups, kh, kw)
    layout : {"NCHW", "NHWC"}
        Of the input and the output.
    x, w, y, bias, stride, padding, dilation, groups, rounding
        As for :class:`QLinearConv`.

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
    weight = _check.operand(weight, "Conv2d: weight", ndim=4, axes="(oc, ic // groups, kh, kw)")
    return QLinearConv(
        weight, x=x, w=w, y=y, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        channels_last=_check.choice(layout, "layout", LAYOUTS) == "NHWC", rounding=rounding,
    )  # fmt: skip


def DepthwiseConv2d(weight: np.ndarray, *, multiplier: int = 1, **options: Any) -> QLinearConv:  # noqa: N802
    """Return a quantized depthwise convolution of images, with `multiplier` output channels per channel.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (ic * multiplier, 1, kh, kw)
    multiplier : int
    **options
        As for :func:`Conv2d`; `groups` follows from the weight.

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
    weight = _check.operand(weight, "DepthwiseConv2d: weight", ndim=4, axes="(oc, 1, kh, kw)")
    multiplier = _check.integer(multiplier, "multiplier", minimum=1)
    if weight.shape[1] != 1 or weight.shape[0] % multiplier:
        raise ValueError(
            "DepthwiseConv2d: weight must be (ic * multiplier, 1, kh, kw), "
            f"not {_check.shape(weight.shape)} with multiplier {multiplier}"
        )
    groups = weight.shape[0] // multiplier
    if _check.integer(options.pop("groups", groups), "groups", minimum=1) not in (1, groups):
        raise ValueError(f"DepthwiseConv2d: groups must be left out or {groups}")
    return Conv2d(weight, groups=groups, **options)


def _read_qlinear_conv(op: Any) -> Any:
    op.only(*WINDOW, *(("channels_last",) if op.domain else ()))
    given = {**read_window(op, 3), "channels_last": bool(op.attribute("channels_last", 0))}
    if op.computed(*range(1, 9)):
        return QLinearConv(**given), (*op.required(8), *((op.inputs[8],) if op.has(8) else ()))
    weight = op.constant(3, "weight")
    held = {"x": op.params(1, 2), "w": op.params(4, 5, axis=0), "y": op.params(6, 7), "bias": op.value(8)}
    return QLinearConv(weight, **held, **given), op.inputs[:1]


def _write_qlinear_conv(out: Any, node: Any, layer: QLinearConv) -> None:
    last = layer.channels_last
    read, kernel = node.inputs, None
    if layer.weight is not None:
        if layer.y is None:
            raise out.refuse(
                node,
                "ONNX has no convolution of codes to float32; give it y, and a DequantizeLinear after it",
            )
        read = (
            node.inputs[0], *out.params(node, "x", layer.x),
            out.constant(node, "weight", layer.weight), *out.params(node, "w", layer.w),
            *out.params(node, "y", layer.y),
            "" if layer.bias is None else out.constant(node, "bias", layer.bias),
        )  # fmt: skip
        kernel = layer.weight.shape[2:]
    out.node(
        node, "QLinearConv", read, MICROSOFT if last else "",
        channels_last=1 if last else None, group=layer.groups, kernel_shape=kernel, **out.window(node),
    )  # fmt: skip


_INPUTS = (
    "x", "x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point", "bias?",
)  # fmt: skip

OPERATORS = (
    OperatorRecord(
        QLinearConv,
        "Quantized convolution.",
        inputs=_INPUTS,
        attributes=WINDOW,
        since=10,
        read=_read_qlinear_conv,
        write=_write_qlinear_conv,
    ),
    contrib(
        QLinearConv,
        "Quantized convolution, with the channels second or last.",
        inputs=_INPUTS,
        attributes={**WINDOW, "channels_last": False},
        read=_read_qlinear_conv,
        write=_write_qlinear_conv,
    ),
)
