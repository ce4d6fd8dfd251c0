"""Matrix products on the array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import ArrayLayer, Shape
from systolic.layers.host.quantize import DynamicQuantize
from systolic.layers.record import OperatorRecord, contrib
from systolic.lowered import Epilogue, Lowered, lower_matmul, matmul_gemm


def product_shape(layer: str, x: Shape, w: Shape) -> Shape:
    """Return the shape of ``numpy.matmul(x, w)``; ValueError if they do not fit."""
    if not x or not w:
        raise ValueError(f"{layer} takes matrices or stacks of them, not {_check.shape(w if x else x)}")
    k = w[0] if len(w) == 1 else w[-2]
    if x[-1] != k:
        raise ValueError(
            f"{layer}: operands {_check.shape(x)} and {_check.shape(w)} do not fit: "
            f"x has {x[-1]} columns, w {k} rows"
            f"{_hints.other_product(x, w)}"
        )
    try:
        batch = np.broadcast_shapes(x[:-2], w[:-2])
    except ValueError:
        raise ValueError(
            f"{layer}: the stacks of operands {_check.shape(x)} and {_check.shape(w)} do not broadcast"
        ) from None
    return (*batch, *x[-2:-1], *(w[-1:] if len(w) > 1 else ()))


def matrix_shapes(x: Shape, w: Shape) -> tuple[Shape, Shape]:
    """Return the shapes with a vector as a row on the left or as a column on the right."""
    return (x if len(x) > 1 else (1, *x)), (w if len(w) > 1 else (*w, 1))


def exchanged_shapes(layer: str, shapes: Sequence[Shape], transpose: tuple[bool, bool]) -> list[Shape]:
    """Return the shapes of x and w with the last two axes exchanged of those that are to be transposed."""
    for name, shape, exchange in zip("xw", shapes, transpose, strict=True):
        if exchange and len(shape) < 2:
            raise ValueError(
                f"{layer}: {name} must have 2 axes or more to be transposed, not {_check.shape(shape)}"
            )
    pairs = zip(shapes, transpose, strict=True)
    return [(*shape[:-2], shape[-1], shape[-2]) if exchange else shape for shape, exchange in pairs]


def exchange(operands: Sequence[np.ndarray], transpose: tuple[bool, bool]) -> list[np.ndarray]:
    """Return x and w with their last two axes exchanged where they are to be transposed."""
    pairs = zip(operands, transpose, strict=True)
    return [operand.swapaxes(-1, -2) if exchange else operand for operand, exchange in pairs]


def expect_bias(layer: str, bias: Shape, out: Shape) -> None:
    """Raise ValueError unless a bias broadcasts to the output."""
    try:
        fits = np.broadcast_shapes(bias, out) == out
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{layer}: a bias {_check.shape(bias)} does not broadcast to the output {_check.shape(out)}"
        )


def lower_tensors(x: np.ndarray, w: np.ndarray, shape: Shape, epilogue: Epilogue) -> Lowered:
    """Lower a product of tensors whose output has the given shape.

    A vector is a row on the left and a column on the right. The terms of the epilogue broadcast against
    stacks (..., M, N); where the product is lowered to a single one, they are laid out as its rows are.
    """
    left, right = matrix_shapes(x.shape, w.shape)
    lowered = lower_matmul(x.reshape(left), w.reshape(right))
    changed: dict[str, Any] = {"shape": shape}
    if lowered.w.ndim == 2:
        batch = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2])
        for name in _TERMS:
            if (value := getattr(epilogue, name)) is not None:
                changed[name] = _in_rows(value, batch)
    return lowered._replace(epilogue=epilogue._replace(**changed))


_TERMS = ("constant", "x_zero", "w_zero", "scale", "late_scale", "float_bias")


def _in_rows(values: np.ndarray, batch: Shape) -> np.ndarray:
    """Return what broadcasts against (*batch, N) with all rows along one axis; (N,) if they are alike."""
    if values.ndim <= 1:
        return values
    last = values.shape[-1]
    if values.size == last:
        return values.reshape(last)
    return np.broadcast_to(values, (*batch, last)).reshape(-1, last)


def bias_term(bias: np.ndarray, x: Shape, w: Shape) -> np.ndarray:
    """Return a bias that broadcasts to the output as one that does to the output's matrices."""
    if len(w) == 1:
        return bias[..., np.newaxis]
    return bias[..., np.newaxis, :] if len(x) == 1 and bias.ndim else bias


def factored_bias(bias: Sequence[np.ndarray], beta: float, x: Shape, w: Shape) -> np.ndarray | None:
    """Return the term ``beta bias`` of a Gemm in float32; None without a bias, or if beta is 0.

    `bias` holds the bias if there is one.
    """
    if not bias or not beta:
        return None
    with np.errstate(all="ignore"):
        scaled = bias[0] if beta == 1 else np.asarray(bias[0] * np.float32(beta))
    return bias_term(scaled, x, w)


class TensorProduct(ArrayLayer):
    """Base of the products whose operands are tensors: what they read, and as which matrices."""

    inputs: ClassVar[int | None] = None

    def _operands(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of x and w as they are multiplied."""
        return list(shapes[:2])

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per matrix of w that a stack needs."""
        self.output_shape(*shapes)
        return matmul_gemm(*matrix_shapes(*self._operands(shapes)))

    def _checked_shape(self, inputs: Sequence[np.ndarray]) -> Shape:
        """Return the output's shape for these inputs; raise if they do not fit."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        shape: Any = self.output_shape(*(tensor.shape for tensor in inputs))
        return shape


@dataclass(frozen=True, eq=False, repr=False)
class MatMulInteger(TensorProduct):
    """Exact sums ``(x - x_zero_point) @ (w - w_zero_point)``, int32, as :func:`numpy.matmul` broadcasts.

    It reads x, w and, where they are named, x_zero_point and w_zero_point, tensors of their
    operand's type: of x one number or one per row, (M,) or (..., M, 1); of w one number or one per
    column, (N,) or (..., 1, N).

    Notes
    -----
    ONNX operator MatMulInteger; sums wrap modulo 2^32. ONNX Runtime refuses zero points per row.

    Examples
    --------
    >>> from systolic.layers import MatMulInteger
    >>> layer = MatMulInteger()
    >>> layer.output_shape((2, 3, 4), (4, 5)), layer.output_dtype("uint8", "int8")
    ((2, 3, 5), 'int32')
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        parameters.expect_count(self.kind, len(shapes), 2, 4, "x, w, x_zero_point, w_zero_point")
        out = product_shape(self.kind, *shapes[:2])
        zero_shapes(self.kind, shapes[0], shapes[1], shapes[2:])
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int32"."""
        parameters.expect_count(self.kind, len(dtypes), 2, 4, "x, w, x_zero_point, w_zero_point")
        parameters.expect_operands(self.kind, *dtypes)
        return "int32"

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        shape = self._checked_shape(inputs)
        x, w, *zeros = inputs
        return lower_tensors(x, w, shape, Epilogue(**zero_terms(self.kind, x.shape, w.shape, zeros)))


@dataclass(frozen=True, eq=False, repr=False)
class MatMulIntegerToFloat(TensorProduct):
    """The sums of :class:`MatMulInteger` as real numbers, ``acc * (x_scale * w_scale) + bias``.

    It reads x, w, x_scale and w_scale, float32, x_zero_point and w_zero_point, and, if a seventh
    tensor is named, a float32 bias (N,). x has one scale and zero point, w one or one per column,
    (N,) or (..., 1, N).

    Notes
    -----
    ONNX Runtime's com.microsoft MatMulIntegerToFloat: ``f32(f32(f32(acc) * f32(xs * ws)) + bias)``,
    each operation rounded by itself. Where w_scale's shape is neither one number, nor (N,) beside a
    matrix, nor w's with 1 for K, it multiplies later, ``f32(f32(f32(acc) * xs) * ws)``; a bias is
    refused then, since ONNX Runtime would scale it too.

    Examples
    --------
    >>> from systolic.layers import MatMulIntegerToFloat
    >>> MatMulIntegerToFloat().output_shape((2, 4), (4, 5), (), (5,), (), ())
    (2, 5)
    """

    _NAMES: ClassVar[str] = "x, w, x_scale, w_scale, x_zero_point, w_zero_point, bias"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        parameters.expect_count(self.kind, len(shapes), 6, 7, self._NAMES)
        x, w = shapes[:2]
        out = product_shape(self.kind, x, w)
        for name, shape in (("x_scale", shapes[2]), ("x_zero_point", shapes[4])):
            parameters.expect_single(self.kind, name, shape)
        parameters.per_column(f"{self.kind}: w_scale", shapes[3], w)
        zero_shapes(self.kind, x, w, shapes[4:6])
        columns = w[-1] if len(w) > 1 else 1
        if len(shapes) > 6 and shapes[6] != (columns,):
            raise ValueError(
                f"{self.kind}: bias must have one value per column, ({columns},), "
                f"not {_check.shape(shapes[6])}"
            )
        if len(shapes) > 6 and not _scales_at_once(shapes[3], w):
            raise ValueError(
                f"{self.kind} takes no bias beside a w_scale {_check.shape(shapes[3])} of {_check.shape(w)}: "
                "ONNX Runtime would scale the bias too; give w_scale w's shape with 1 for K, or add the bias "
                "later"
            )
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"."""
        parameters.expect_count(self.kind, len(dtypes), 6, 7, self._NAMES)
        parameters.expect_operands(self.kind, *dtypes[:2], *dtypes[4:6])
        for name, dtype in zip(("x_scale", "w_scale", "bias"), (*dtypes[2:4], *dtypes[6:]), strict=False):
            if dtype != "float32":
                raise TypeError(f"{self.kind}: {name} must hold float32, not {dtype}")
        return "float32"

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        shape = self._checked_shape(inputs)
        x, w, x_scale, w_scale = inputs[:4]
        w_scale = w_scale.reshape(parameters.per_column("w_scale", w_scale.shape, w.shape))
        scale, late_scale = x_scale.reshape(()), None
        if _scales_at_once(inputs[3].shape, w.shape):
            with np.errstate(all="ignore"):
                scale = np.asarray(scale * w_scale)
        else:
            late_scale = w_scale
        epilogue = Epilogue(
            scale=scale, late_scale=late_scale, float_bias=inputs[6] if len(inputs) > 6 else None,
            dtype="float32", **zero_terms(self.kind, x.shape, w.shape, inputs[4:6]),
        )  # fmt: skip
        return lower_tensors(x, w, shape, epilogue)


def _scales_at_once(scale: Shape, w: Shape) -> bool:
    """Whether w's scale meets x's before the sums: ``IsBQuantParamSupported`` in ONNX Runtime's
    matmul_integer_base.h."""
    if scale in ((), (1,)):
        return True
    return scale == (w[-1],) if len(w) == 2 and len(scale) == 1 else scale == (*w[:-2], 1, w[-1])


def zero_shapes(layer: str, x: Shape, w: Shape, zeros: tuple[Shape, ...]) -> list[Shape]:
    """Return in which shapes the zero points that are given meet the sums."""
    rules = ((parameters.per_row, "x_zero_point", x), (parameters.per_column, "w_zero_point", w))
    return [
        rule(f"{layer}: {name}", shape, operand)
        for (rule, name, operand), shape in zip(rules, zeros, strict=False)
    ]


def zero_terms(layer: str, x: Shape, w: Shape, zeros: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the zero points that are given as an epilogue's terms, for stacks of matrices."""
    shapes = zero_shapes(layer, x, w, tuple(zero.shape for zero in zeros))
    terms = zip(("x_zero", "w_zero"), zeros, shapes, strict=False)
    return {name: parameters.zero_term(zero.reshape(shape)) for name, zero, shape in terms}


# Reading and writing ONNX


def _read_matmul_integer_to_float(op: Any) -> Any:
    op.only()
    read = (*op.required(4), op.zero_point(4, 0), op.zero_point(5, 1))
    return MatMulIntegerToFloat(), (*read, *((op.inputs[6],) if op.has(6) else ()))


def _read_dynamic_quantize_matmul(op: Any) -> Any:
    """Return the DynamicQuantizeLinear and the MatMulIntegerToFloat that it is."""
    op.only()
    x, w, w_scale = op.required(3)
    codes = tuple(op.fresh(f".{name}") for name in ("codes", "scale", "zero_point"))
    read = (codes[0], w, codes[1], w_scale, codes[2], op.zero_point(3, 1))
    bias = (op.inputs[4],) if op.has(4) else ()
    return [
        op.node(DynamicQuantize(), (x,), codes, ".quantize"),
        op.node(MatMulIntegerToFloat(), (*read, *bias), op.outputs[0]),
    ]


def _read_matmul_integer(op: Any) -> Any:
    op.only()
    return MatMulInteger(), op.operands(2, 3)


OPERATORS = (
    OperatorRecord(
        MatMulInteger,
        "Exact product of quantized matrices, int32.",
        inputs=("a", "b", "a_zero_point?", "b_zero_point?"),
        since=10,
        read=_read_matmul_integer,
    ),
    contrib(
        MatMulIntegerToFloat,
        "Product of quantized matrices, scaled to float32.",
        inputs=("a", "b", "a_scale", "b_scale", "a_zero_point?", "b_zero_point?", "bias?"),
        read=_read_matmul_integer_to_float,
    ),
    contrib(
        MatMulIntegerToFloat,
        "Product of a float matrix, quantized with its range, and a quantized one.",
        name="DynamicQuantizeMatMul",
        inputs=("a", "b", "b_scale", "b_zero_point?", "bias?"),
        read=_read_dynamic_quantize_matmul,
    ),
)
