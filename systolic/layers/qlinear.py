"""Quantized products and convolutions whose scales, zero points and weights are tensors.

For what the layers with :class:`~systolic.QuantParams` cannot hold: parameters computed at run time.
The sums are those of the integer operators, and become codes by the same equation as everywhere:
:func:`systolic.requantize`'s ``half_even``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import zero_points
from systolic.layers.base import Shape
from systolic.layers.conv_integer import ConvInteger
from systolic.layers.geometry import Window
from systolic.layers.matmul import (
    MatMulInteger,
    bias_term,
    exchange,
    exchanged_shapes,
    expect_bias,
    lower_tensors,
    matrix_shapes,
    zero_terms,
)
from systolic.lowered import Epilogue, Lowered, matmul_gemm

_SCALES = ("float32", "float16")
_NAMES = "x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias"


@dataclass(frozen=True, eq=False, repr=False)
class QLinearConv(ConvInteger):
    """A quantized convolution, its weights and parameters tensors that may be computed at run time.

    It reads x (batch, ic, ...), x_scale, x_zero_point, w (oc, ic // groups, ...), w_scale,
    w_zero_point, y_scale, y_zero_point and, if a ninth tensor is named, an int32 bias (oc,) in units of
    x_scale * w_scale. x and y have one scale and zero point, w one or one per output channel, (oc,).
    Scales are float32; zero points are of their operand's type, y's of the output's.

    Parameters
    ----------
    stride, dilation, padding, groups
        As for :class:`ConvInteger`.

    Notes
    -----
    ONNX operator QLinearConv; :class:`Conv2d` and its kin are for weights and parameters that the model
    holds. Scales may be anything, unlike those of :class:`QuantParams`: a sum scaled to NaN becomes the
    smallest code, as in ONNX Runtime.

    Examples
    --------
    >>> from systolic.layers import QLinearConv
    >>> QLinearConv(padding=1).output_shape((1, 3, 8, 8), (), (), (4, 3, 3, 3), (4,), (4,), (), ())
    (1, 4, 8, 8)
    """

    def window(self, shapes: Sequence[Shape]) -> Window:
        """Return the window of w over x; ValueError if the shapes do not fit."""
        zero_points.expect_count(self.kind, len(shapes), 8, 9, _NAMES)
        window = super().window(_integer_inputs(shapes))
        _expect_single(self.kind, shapes)
        channels = shapes[3][0]
        zero_points.expect_per_channel(self.kind, "w_scale", shapes[4], channels)
        if len(shapes) > 8 and shapes[8] != (channels,):
            raise ValueError(f"{self.kind}: bias must be ({channels},), not {_check.shape(shapes[8])}")
        return window

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, ...)."""
        out = self.window(shapes).out
        return (shapes[0][0], shapes[3][0], *out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return y_zero_point's type."""
        zero_points.expect_count(self.kind, len(dtypes), 8, 9, _NAMES)
        super().output_dtype(*_integer_inputs(dtypes))
        return _expect_types(self.kind, dtypes[1], dtypes[4], dtypes[6:8], dtypes[8:])

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        window = self.window(shapes)
        return self._gemm(shapes[0], shapes[3], window)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        window = self.window([tensor.shape for tensor in inputs])
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        w_scale = inputs[4].reshape(-1 if inputs[4].size > 1 else ())
        return self.lower_over(
            window, *_integer_inputs(inputs), constant=inputs[8] if len(inputs) > 8 else None,
            **_scale(inputs[1], w_scale, inputs[6:8]),
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class QLinearMatMul(MatMulInteger):
    """A quantized product, as :func:`numpy.matmul`, whose parameters are tensors themselves.

    It reads x, x_scale, x_zero_point, w, w_scale and w_zero_point; y_scale and y_zero_point, without
    which the output is float32; and, as a seventh or ninth tensor, an int32 bias in units of
    x_scale * w_scale that broadcasts to the output. x and y have one scale and zero point, w one or
    one per column, (N,) or (..., 1, N). Scales are float32 or float16; zero points are of their
    operand's type, y's of the output's.

    Parameters
    ----------
    transpose_x, transpose_w : bool
        Whether an operand comes with its last two axes exchanged.
    alpha : float
        A factor of x_scale, rounded to float32.

    Notes
    -----
    ONNX operator QLinearMatMul and ONNX Runtime's com.microsoft QGemm; :class:`Dense` and
    :class:`MatMul` are for parameters that the model holds. The multiplier is
    ``f32(f32(f32(alpha * xs) * ws) / ys)``. Scales may be anything, unlike those of
    :class:`QuantParams`: a sum scaled to NaN becomes the smallest code, as in ONNX Runtime.

    Examples
    --------
    >>> from systolic.layers import QLinearMatMul
    >>> QLinearMatMul().output_shape((2, 3, 4), (), (), (4, 5), (5,), (5,), (), ())
    (2, 3, 5)
    """

    transpose_x: bool = field(default=False, kw_only=True)
    transpose_w: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("transpose_x", "transpose_w"):
            object.__setattr__(self, name, _check.flag(getattr(self, name), name))
        object.__setattr__(self, "alpha", _check.real(self.alpha, "alpha"))

    def _integer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, w, *zeros = _integer_inputs(shapes)
        return [*exchanged_shapes(self.kind, (x, w), (self.transpose_x, self.transpose_w)), *zeros]

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        zero_points.expect_count(self.kind, len(shapes), 6, 9, _NAMES)
        operands = self._integer_shapes(shapes)
        out = super().output_shape(*operands)
        _expect_single(self.kind, shapes)
        zero_points.per_column(f"{self.kind}: w_scale", shapes[4], operands[1])
        for bias in _bias(shapes):
            expect_bias(self.kind, bias, out)
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return y_zero_point's type, or float32."""
        zero_points.expect_count(self.kind, len(dtypes), 6, 9, _NAMES)
        super().output_dtype(*_integer_inputs(dtypes))
        y = dtypes[6:8] if len(dtypes) > 7 else ()
        return _expect_types(self.kind, dtypes[1], dtypes[4], y, _bias(dtypes))

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per matrix of w that a stack needs."""
        self.output_shape(*shapes)
        x, w, *_ = self._integer_shapes(shapes)
        return matmul_gemm(*matrix_shapes(x, w))

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        x, w, *zeros = _integer_inputs(inputs)
        x, w = exchange((x, w), (self.transpose_x, self.transpose_w))
        w_scale = inputs[4].reshape(zero_points.per_column("w_scale", inputs[4].shape, w.shape))
        terms: dict[str, Any] = zero_terms(self.kind, x.shape, w.shape, zeros)
        for bias in _bias(inputs):
            terms["constant"] = bias_term(bias, x.shape, w.shape)
        y = inputs[6:8] if len(inputs) > 7 else ()
        return lower_tensors(x, w, shape, Epilogue(**terms, **_scale(inputs[1], w_scale, y, self.alpha)))


def _integer_inputs(values: Sequence[Any]) -> Sequence[Any]:
    """Return what the integer operator reads: x, w and their zero points, or what is said of them."""
    return values[0], values[3], values[2], values[5]


def _bias(values: Sequence[Any]) -> Sequence[Any]:
    """Return the bias of a product, or what is said of it, if there is one."""
    return values[-1:] if len(values) in (7, 9) else ()


def _expect_single(layer: str, shapes: Sequence[Shape]) -> None:
    """Raise ValueError unless x and y have one scale and zero point."""
    names = _NAMES.split(", ")
    for index in (1, 2, *((6, 7) if len(shapes) > 7 else ())):
        zero_points.expect_single(layer, names[index], shapes[index])


def _expect_types(layer: str, x_scale: str, w_scale: str, y: Sequence[str], bias: Sequence[str]) -> str:
    """Return the output's type; TypeError for scales, an output or a bias of other types."""
    for name, dtype in zip(("x_scale", "w_scale", "y_scale"), (x_scale, w_scale, *y[:1]), strict=False):
        if dtype not in _SCALES:
            raise TypeError(f"{layer}: {name} must hold float32 or float16, not {dtype}")
    for dtype in y[1:]:
        zero_points.expect_codes(layer, "y_zero_point", dtype)
    for dtype in bias:
        if dtype != "int32":
            raise TypeError(f"{layer}: bias must hold int32, not {dtype}")
    return y[1] if y else "float32"


def _scale(
    x_scale: np.ndarray, w_scale: np.ndarray, y: Sequence[np.ndarray], alpha: float = 1.0
) -> dict[str, Any]:
    """Return an epilogue's scale, ``f32(f32(f32(alpha * xs) * ws) / ys)`` in w's shape, and what follows it.

    `y` holds the output's scale and zero point; nothing for float32.
    """
    with np.errstate(all="ignore"):
        factor = np.float32(alpha) * x_scale.reshape(()).astype(np.float32) * w_scale.astype(np.float32)
        if not y:
            return {"scale": np.asarray(factor), "dtype": "float32"}
        factor = np.asarray(factor / y[0].reshape(()).astype(np.float32))
    return {"scale": factor, "dtype": _check.dtype_name(y[1].dtype), "zero_point": int(y[1].reshape(()))}
