"""Products of codes of 4 and 16 bits on the array, as real numbers: ONNX Runtime computes them in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.formats import OPERANDS, dtype_of
from systolic.layers import parameters
from systolic.layers.base import ArrayLayer, Shape, checked
from systolic.layers.conv import WINDOW, ArrayConvolution, read_window
from systolic.layers.geometry import Window
from systolic.layers.matmul import (
    TensorProduct,
    exchange,
    exchanged_shapes,
    expect_bias,
    factored_bias,
    lower_tensors,
    product_shape,
    zero_terms,
)
from systolic.lowered import Epilogue, Lowered

CODES = ("int8", "uint8", "int16", "uint16")
"""Types of codes that are read; those of 4 bits are read as int8 or uint8."""

_NAMES = "x, x_scale, x_zero_point, w, w_scale, w_zero_point, bias"


def _bits(value: Any, name: str) -> int:
    if _check.integer(value, name) not in (4, 8, 16):
        raise ValueError(f"{name} must be 4, 8 or 16, not {value}")
    return int(value)


class DequantizedProduct(ArrayLayer):
    """Base of both: what they read, and how the sums become real numbers.

    They read x, its scale and zero point, w, its scales and zero points, and, if a seventh tensor is named, a
    bias of float32.
    """

    w_bits: int

    def operand_types(self, *dtypes: str) -> tuple[str, str]:
        """Return the types of x and w; no array multiplies codes of 16 bits with weights of 4, but of 8."""
        x, w = dtypes[0], dtypes[3]
        return x, self._narrow(w) if OPERANDS[x].bits == 8 else w

    def _narrow(self, w: str) -> str:
        """Return the type of weights, not the one that holds them."""
        return {"int8": "int4", "uint8": "uint4"}.get(w, w) if self.w_bits == 4 else w

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"."""
        parameters.expect_count(self.kind, len(dtypes), 6, 7, _NAMES)
        x, w, *zeros = parameters.integer_inputs(dtypes)
        for name, dtype, zero in zip("xw", (x, w), zeros, strict=True):
            if dtype not in CODES:
                raise TypeError(f"{self.kind}: {name} must hold {' or '.join(CODES)}, not {dtype}")
            if zero != dtype:
                raise TypeError(
                    f"{self.kind}: {name}_zero_point must hold {dtype}, as its operand does, not {zero}"
                )
        if self.w_bits != OPERANDS[w].bits and (self.w_bits, OPERANDS[w].bits) != (4, 8):
            raise TypeError(f"{self.kind}: w must hold {self.w_bits} bits, not {w}")
        for name, place in (("x_scale", 1), ("w_scale", 4), ("bias", 6)):
            if dtypes[place : place + 1] not in ((), ("float32",)):
                raise TypeError(f"{self.kind}: {name} must hold float32, not {dtypes[place]}")
        return "float32"

    def _weights(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return weights as the array takes them; ValueError if they do not fit their bits."""
        held = _check.dtype_name(w.dtype)
        if self.w_bits != 4:
            return w
        _check.integers(w, f"{self.kind}: w", held, OPERANDS[self._narrow(held)].limits)
        types = _check.dtype_name(x.dtype), "", "", held
        return w.astype(dtype_of(self.operand_types(*types)[1]))

    def _scale(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return the factor of the sums, in float64: 0-d, or one for each channel."""
        x_scale, w_scale = inputs[1].reshape(()), inputs[4]
        w_scale = w_scale.reshape(()) if w_scale.size == 1 else w_scale
        return np.asarray(x_scale.astype(np.float64) * w_scale)

    def largest_sum(self, inputs: Sequence[np.ndarray | None], psum_bits: int) -> int | None:
        """Return what no sum of this product exceeds in magnitude; None if w is not known.

        x is any code of its type. Zero points are subtracted from the sums: modulo 2^32, so that only what
        remains must fit, but not modulo fewer bits.
        """
        _, w, zx, zw = parameters.integer_inputs(inputs)
        if w is None or zx is None or zw is None or not w.size:
            return None
        low, high = OPERANDS[_check.dtype_name(zx.dtype)].limits
        if psum_bits < 32:
            zx, zw = np.zeros_like(zx), np.zeros_like(zw)
        zero = int(zx.reshape(()))
        zeros = zw.reshape(-1) if zw.size > 1 else zw.reshape(())
        most = np.abs(self._columns(w).astype(np.int64) - zeros).sum(axis=0).max()
        return int(most) * max(high - zero, zero - low)

    def _columns(self, w: np.ndarray) -> np.ndarray:
        """Return weights with K along the first axis and the output channels along the last."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class DequantizedMatMul(DequantizedProduct, TensorProduct):
    """A product of codes, one side of 4 or 16 bits, as real numbers: ``alpha x @ w + beta bias``.

    It reads x, x_scale, x_zero_point, w, w_scale, w_zero_point and, if a seventh tensor is named, a bias of
    float32 that broadcasts to the output. x has one scale and zero point, w one or one per column, (N,).

    Parameters
    ----------
    w_bits : {4, 8, 16}
        Of a weight: 4 for values of int4 or uint4, which come as int8 or uint8. Beside x of 8 bits they are
        operands of 4 bits, beside x of 16 of 8.
    transpose_a, transpose_b : bool
        Whether the last two axes of x, of w, are swapped first.
    alpha, beta : float

    Notes
    -----
    DequantizeLinear of x and w, and MatMul or Gemm of float32, which ONNX Runtime computes as they stand.
    Here the sums of integers are exact, scaled in float64 and rounded once to float32. They are sums of
    `psum_bits`; a run warns where one of them may not fit.

    Examples
    --------
    >>> from systolic.layers import DequantizedMatMul
    >>> layer = DequantizedMatMul()
    >>> layer.output_shape((3, 16), (), (), (16, 8), (8,), (8,)), layer.operand_types(
    ...     "uint16", "float32", "uint16", "int8", "float32", "int8")
    ((3, 8), ('uint16', 'int8'))
    """

    w_bits: int = checked(_bits, 8, kw_only=True)
    transpose_a: bool = field(default=False, kw_only=True)
    transpose_b: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)
    beta: float = field(default=1.0, kw_only=True)

    @property
    def _exchanges(self) -> tuple[bool, bool]:
        return self.transpose_a, self.transpose_b

    def _operands(self, shapes: Sequence[Shape]) -> list[Shape]:
        return exchanged_shapes(self.kind, (shapes[0], shapes[3]), self._exchanges)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        parameters.expect_count(self.kind, len(shapes), 6, 7, _NAMES)
        x, w = self._operands(shapes)
        out = product_shape(self.kind, x, w)
        for name, place in (("x_scale", 1), ("x_zero_point", 2)):
            parameters.expect_single(self.kind, name, shapes[place])
        for name, place in (("w_scale", 4), ("w_zero_point", 5)):
            parameters.expect_per_channel(self.kind, name, shapes[place], w[-1] if len(w) > 1 else 1)
        for bias in shapes[6:]:
            expect_bias(self.kind, bias, out)
        return out

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the codes."""
        shape = self._checked_shape(inputs)
        x, w = exchange((inputs[0], self._weights(inputs[0], inputs[3])), self._exchanges)
        epilogue = Epilogue(
            dtype="float32", scale=self._scale(inputs) * self.alpha,
            float_bias=factored_bias(inputs[6:], self.beta, x.shape, w.shape),
            **zero_terms(self.kind, x.shape, w.shape, (inputs[2], inputs[5])),
        )  # fmt: skip
        return lower_tensors(x, w, shape, epilogue)

    def _columns(self, w: np.ndarray) -> np.ndarray:
        return np.moveaxis(w, -1 if self.transpose_b or w.ndim == 1 else -2, 0)


@dataclass(frozen=True, eq=False, repr=False)
class DequantizedConv(DequantizedProduct, ArrayConvolution):
    """A convolution of codes, one side of 4 or 16 bits, as real numbers, over 1, 2 or 3 axes.

    It reads x (batch, ic, ...), x_scale, x_zero_point, w (oc, ic // groups, ...), w_scale, w_zero_point and,
    if a seventh tensor is named, a bias of float32, (oc,). x has one scale and zero point, w one or one per
    output channel, (oc,). Padding adds exactly 0.

    Parameters
    ----------
    w_bits : {4, 8, 16}
        As for :class:`DequantizedMatMul`.
    stride, padding, dilation, groups
        As for :class:`ConvInteger`.

    Notes
    -----
    DequantizeLinear of x and w, and Conv of float32. Sums are those of :class:`DequantizedMatMul`.

    Examples
    --------
    >>> from systolic.layers import DequantizedConv
    >>> DequantizedConv(padding=1).products((1, 3, 8, 8), (), (), (4, 3, 3, 3), (4,), (4,))
    Gemm(64, 27, 4)
    """

    w_bits: int = checked(_bits, 8, kw_only=True)

    inputs: ClassVar[None] = None

    def _weight_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[3]

    def _window(self, shapes: Sequence[Shape]) -> Window:
        parameters.expect_count(self.kind, len(shapes), 6, 7, _NAMES)
        x, x_scale, x_zero, w, w_scale, w_zero, *rest = shapes
        self._expect_rank(x, w)
        for name, shape in (("x_scale", x_scale), ("x_zero_point", x_zero)):
            parameters.expect_single(self.kind, name, shape)
        for name, shape in (("w_scale", w_scale), ("w_zero_point", w_zero)):
            parameters.expect_per_channel(self.kind, name, shape, w[0])
        for bias in rest:
            parameters.expect_bias(self.kind, bias, w[0])
        return self._window_over(x, w)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        window = self._window(tuple(tensor.shape for tensor in inputs))
        x, w, *zeros = parameters.integer_inputs(inputs)
        return self._lower(
            window, x, self._weights(x, w), *zeros, scale=self._scale(inputs), dtype="float32",
            float_bias=inputs[6] if len(inputs) > 6 else None,
        )  # fmt: skip

    def _columns(self, w: np.ndarray) -> np.ndarray:
        return w.reshape(len(w), -1).T


DOMAIN = "systolic"
"""The domain of MatMul, Gemm and Conv of codes in a graph; no file has it: see ``frontend.qdq``."""


def read(op: Any) -> Any:
    """Return the layer of a product of codes, and what it reads."""
    bits = op.attributes["w_bits"]
    if op.op_type == "Conv":
        op.only(*WINDOW, "w_bits")
        return DequantizedConv(w_bits=bits, **read_window(op, 3)), op.given
    op.only("alpha", "beta", "transA", "transB", "w_bits")
    layer = DequantizedMatMul(
        w_bits=bits,
        transpose_a=bool(op.attribute("transA", 0)),
        transpose_b=bool(op.attribute("transB", 0)),
        alpha=op.attribute("alpha", 1.0),
        beta=op.attribute("beta", 1.0) if op.has(6) else 1.0,
    )
    return layer, op.given
