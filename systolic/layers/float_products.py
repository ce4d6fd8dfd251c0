"""Products of float32 tensors on the array, their operands rounded to one of its float formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.formats import OPERANDS, dtype_of
from systolic.layers import parameters
from systolic.layers.base import ArrayLayer, Layer, Shape, one_of
from systolic.layers.conv import ArrayConvolution
from systolic.layers.geometry import Window
from systolic.layers.host.convolve import FloatConv
from systolic.layers.host.matmul import FloatMatMul
from systolic.layers.matmul import TensorProduct, exchange, exchanged_shapes, factored_bias, lower_tensors
from systolic.lowered import Epilogue, Lowered

COMPUTE = tuple(operand.name for operand in OPERANDS.values() if operand.kind == "float")
"""Float formats of operands."""


class RoundedProduct(ArrayLayer):
    """Base of the products of float32 tensors that run on the array in a narrower format."""

    compute: str

    @property
    def float32(self) -> FloatMatMul | FloatConv:
        """The same product in float32, on the host: in ONNX Runtime if it is installed, else exactly."""
        raise NotImplementedError

    def operand_types(self, *dtypes: str) -> tuple[str, str]:
        """Return the format of both operands."""
        return self.compute, self.compute

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"."""
        for dtype in dtypes:
            if dtype != "float32":
                raise TypeError(f"{self.kind} takes float32, and rounds it to {self.compute}, not {dtype}")
        return "float32"

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # too large a number becomes infinity, or NaN
            return values.astype(dtype_of(self.compute))


def on_array(layer: Layer, compute: str) -> RoundedProduct | None:
    """Return a float product of the host as one on the array; None if it holds weights or does more."""
    if isinstance(layer, FloatMatMul) and layer.weight is None and layer.activation is None:
        return ArrayMatMul(
            compute, transpose_a=layer.transpose_a, transpose_b=layer.transpose_b, alpha=layer.alpha,
            beta=layer.beta,
        )  # fmt: skip
    if isinstance(layer, FloatConv) and layer.weight is None and not layer.fused:
        names = ("stride", "padding", "dilation", "groups")
        window: dict[str, Any] = {name: getattr(layer, name) for name in names}
        return ArrayConv(compute=compute, **window)
    return None


@dataclass(frozen=True, eq=False, repr=False)
class ArrayMatMul(RoundedProduct, TensorProduct):
    """Compute ``alpha a @ b + beta c`` of float32 tensors, a and b rounded to a float format of the array.

    Reads a, b and, optionally, c, as :class:`FloatMatMul` does.

    Parameters
    ----------
    compute : {"bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"}
        What a and b are rounded to: to nearest, ties to even.
    transpose_a, transpose_b : bool
        Whether the last two axes are swapped first.
    alpha, beta : float

    Notes
    -----
    ONNX operators MatMul and Gemm, and ONNX Runtime's FusedMatMul, of a model loaded with ``compute=``. The
    array adds the products in float32, one rounding each, in its own order (:mod:`systolic.formats`), so
    that the last bits depend on its rows and its dataflow. Then follow, in float32 and each rounded by
    itself, ``sums * alpha`` and ``+ c * beta``. A number too large for float16 or float8_e5m2 becomes
    infinity, for float8_e4m3fn NaN.

    Examples
    --------
    >>> from systolic.layers import ArrayMatMul
    >>> layer = ArrayMatMul("bfloat16")
    >>> layer.output_shape((2, 3, 4), (4, 5)), layer.products((2, 3, 4), (4, 5))
    ((2, 3, 5), Gemm(6, 4, 5))
    """

    compute: str = one_of(COMPUTE)
    transpose_a: bool = field(default=False, kw_only=True)
    transpose_b: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)
    beta: float = field(default=1.0, kw_only=True)

    @cached_property
    def float32(self) -> FloatMatMul:
        """The same product in float32."""
        return FloatMatMul(
            transpose_a=self.transpose_a, transpose_b=self.transpose_b, alpha=self.alpha, beta=self.beta,
            runtime_constants=(),
        )  # fmt: skip

    @property
    def _exchanges(self) -> tuple[bool, bool]:
        return self.transpose_a, self.transpose_b

    def _operands(self, shapes: Sequence[Shape]) -> list[Shape]:
        return exchanged_shapes(self.kind, shapes[:2], self._exchanges)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        parameters.expect_count(self.kind, len(shapes), 2, 3, "a, b, c")
        shape: Shape = self.float32.output_shape(*shapes)
        return shape

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the rounded operands."""
        shape = self._checked_shape(inputs)
        a, b = exchange([self._rounded(values) for values in inputs[:2]], self._exchanges)
        scale = None if self.alpha == 1 else np.asarray(self.alpha, np.float32)
        bias = factored_bias(inputs[2:], self.beta, a.shape, b.shape)
        return lower_tensors(a, b, shape, Epilogue(dtype="float32", scale=scale, float_bias=bias))


@dataclass(frozen=True, eq=False, repr=False)
class ArrayConv(RoundedProduct, ArrayConvolution):
    """A convolution of float32 tensors over 1, 2 or 3 axes, x and w rounded to a float format of the array.

    It reads x (batch, ic, ...), w (oc, ic // groups, ...) and, optionally, a bias (oc,), added in float32.

    Parameters
    ----------
    compute : {"bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"}
        What x and w are rounded to: to nearest, ties to even.
    stride, padding, dilation, groups
        As for :class:`ConvInteger`.

    Notes
    -----
    ONNX operator Conv of a model loaded with ``compute=``. Sums are those of :class:`ArrayMatMul`; K runs
    over (ic // groups, kh, kw).

    Examples
    --------
    >>> from systolic.layers import ArrayConv
    >>> layer = ArrayConv("bfloat16", padding=1)
    >>> layer.output_shape((1, 3, 8, 8), (4, 3, 3, 3)), layer.products((1, 3, 8, 8), (4, 3, 3, 3))
    ((1, 4, 8, 8), Gemm(64, 27, 4))
    """

    compute: str = one_of(COMPUTE)

    inputs: ClassVar[None] = None

    @cached_property
    def float32(self) -> FloatConv:
        """The same convolution in float32."""
        return FloatConv(
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups,
            runtime_constants=(),
        )  # fmt: skip

    def _window(self, shapes: Sequence[Shape]) -> Window:
        parameters.expect_count(self.kind, len(shapes), 2, 3, "x, w, bias")
        x, w, *rest = shapes
        self._expect_rank(x, w)
        for bias in rest:
            parameters.expect_bias(self.kind, bias, w[0])
        return self._window_over(x, w)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        window = self._window(tuple(tensor.shape for tensor in inputs))
        x, w = map(self._rounded, inputs[:2])
        bias = inputs[2] if len(inputs) > 2 else None
        return self._lower(window, x, w, dtype="float32", float_bias=bias)
