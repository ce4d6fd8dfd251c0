"""Products of two tensors: either operand may be computed at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic.gemm import Gemm
from systolic.layers import parameters, zero_points
from systolic.layers.base import ArrayLayer, Shape
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.lowered import Epilogue, Lowered, lower_matmul, matmul_gemm
from systolic.quant import QuantParams


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


_TERMS = ("constant", "x_zero", "w_zero", "scale", "late_scale")


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


@dataclass(frozen=True, eq=False, repr=False)
class MatMul(ArrayLayer):
    """A quantized product of two tensors, ``y = x @ w + bias``, as :func:`numpy.matmul` broadcasts them.

    It reads x, w and, if a third tensor is named, an int32 bias in units of x.scale * w.scale that
    broadcasts to the output.

    Parameters
    ----------
    x, w : QuantParams
        Of the operands; w per tensor or per column (axis 1).
    y : QuantParams or None
        Of the output; None gives float32.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.
    transpose_x, transpose_w : bool
        Whether an operand comes with its last two axes exchanged.

    Raises
    ------
    TypeError, ValueError
        If types or axes do not fit together.

    Notes
    -----
    ONNX QLinearMatMul and ONNX Runtime's QGemm where :class:`Dense` does not suffice: the second
    operand computed at run time, as in attention, or a stack of matrices. The arithmetic is Dense's.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.layers import MatMul
    >>> one = QuantParams(1.0)
    >>> layer = MatMul(one, one, one, transpose_w=True)
    >>> layer.output_shape((8, 5, 64), (8, 7, 64)), layer.products((8, 5, 64), (8, 7, 64))
    ((8, 5, 7), Gemm(5, 64, 7, groups=8))
    """

    inputs: ClassVar[None] = None

    x: QuantParams
    w: QuantParams
    y: QuantParams | None
    rounding: str = field(default="half_even", kw_only=True)
    transpose_x: bool = field(default=False, kw_only=True)
    transpose_w: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        channels = self.w.scales.size if isinstance(self.w, QuantParams) else 0
        parameters.check_params("MatMul", self.x, self.w, self.y, self.rounding, w_axis=1, channels=channels)
        _check.flag(self.transpose_x, "transpose_x")
        _check.flag(self.transpose_w, "transpose_w")

    def _shapes(self, shapes: tuple[Shape, ...]) -> tuple[Shape, Shape]:
        zero_points.expect_count("MatMul", len(shapes), 2, 3, "x, w, bias")
        x, w = exchanged_shapes("MatMul", shapes[:2], (self.transpose_x, self.transpose_w))
        return x, w

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        x, w = self._shapes(shapes)
        out = product_shape("MatMul", x, w)
        if self.w.per_channel and (len(w) < 2 or w[-1] != self.w.scales.size):
            raise ValueError(
                f"MatMul: w has {self.w.scales.size} scales, one per column, but the shape {_check.shape(w)}"
            )
        if len(shapes) > 2:
            expect_bias("MatMul", shapes[2], out)
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, or float32."""
        zero_points.expect_count("MatMul", len(dtypes), 2, 3, "x, w, bias")
        for name, dtype, params in zip("xw", dtypes[:2], (self.x, self.w), strict=True):
            if dtype != params.dtype:
                raise TypeError(f"MatMul takes {params.dtype} as {name}, as its {name} says, not {dtype}")
        if len(dtypes) > 2 and dtypes[2] != "int32":
            raise TypeError(f"MatMul takes a bias of int32, not {dtypes[2]}")
        return "float32" if self.y is None else self.y.dtype

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per matrix of w that a stack needs."""
        self.output_shape(*shapes)
        return matmul_gemm(*matrix_shapes(*self._shapes(shapes)))

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        x, w = exchange(inputs[:2], (self.transpose_x, self.transpose_w))
        epilogue = self._epilogue
        if len(inputs) > 2:
            epilogue = epilogue._replace(constant=bias_term(inputs[2], x.shape, w.shape))
        return lower_tensors(x, w, shape, epilogue)

    @cached_property
    def _epilogue(self) -> Epilogue:
        zeros = {"x_zero": self.x.zero_points, "w_zero": self.w.zero_points}
        terms = {name: parameters.zero_term(zero) for name, zero in zeros.items()}
        return parameters.read_only(
            parameters.scaled_epilogue(self.x, self.w, self.y, self.rounding, **terms)
        )


@dataclass(frozen=True, eq=False, repr=False)
class MatMulInteger(ArrayLayer):
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

    inputs: ClassVar[None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        zero_points.expect_count(self.kind, len(shapes), 2, 4, "x, w, x_zero_point, w_zero_point")
        out = product_shape(self.kind, *shapes[:2])
        _zero_shapes(self.kind, shapes[0], shapes[1], shapes[2:])
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int32"."""
        zero_points.expect_count(self.kind, len(dtypes), 2, 4, "x, w, x_zero_point, w_zero_point")
        _expect_types(self.kind, dtypes[0], dtypes[1], dtypes[2:])
        return "int32"

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per matrix of w that a stack needs."""
        self.output_shape(*shapes)
        return matmul_gemm(*matrix_shapes(*shapes[:2]))

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        x, w, *zeros = inputs
        return lower_tensors(x, w, shape, Epilogue(**zero_terms(self.kind, x.shape, w.shape, zeros)))


@dataclass(frozen=True, eq=False, repr=False)
class MatMulIntegerToFloat(MatMulInteger):
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
        zero_points.expect_count(self.kind, len(shapes), 6, 7, self._NAMES)
        x, w = shapes[:2]
        out = product_shape(self.kind, x, w)
        for name, shape in (("x_scale", shapes[2]), ("x_zero_point", shapes[4])):
            zero_points.expect_single(self.kind, name, shape)
        zero_points.per_column(f"{self.kind}: w_scale", shapes[3], w)
        _zero_shapes(self.kind, x, w, shapes[4:6])
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
        zero_points.expect_count(self.kind, len(dtypes), 6, 7, self._NAMES)
        _expect_types(self.kind, dtypes[0], dtypes[1], dtypes[4:6])
        for name, dtype in zip(("x_scale", "w_scale", "bias"), (*dtypes[2:4], *dtypes[6:]), strict=False):
            if dtype != "float32":
                raise TypeError(f"{self.kind}: {name} must hold float32, not {dtype}")
        return "float32"

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        x, w, x_scale, w_scale = inputs[:4]
        w_scale = w_scale.reshape(zero_points.per_column("w_scale", w_scale.shape, w.shape))
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


def _zero_shapes(layer: str, x: Shape, w: Shape, zeros: tuple[Shape, ...]) -> list[Shape]:
    """Return in which shapes the zero points that are given meet the sums."""
    rules = ((zero_points.per_row, "x_zero_point", x), (zero_points.per_column, "w_zero_point", w))
    return [
        rule(f"{layer}: {name}", shape, operand)
        for (rule, name, operand), shape in zip(rules, zeros, strict=False)
    ]


def _expect_types(layer: str, x: str, w: str, zeros: tuple[str, ...]) -> None:
    for name, operand in (("x", x), ("w", w)):
        zero_points.expect_codes(layer, name, operand)
    for name, operand, dtype in zip(("x_zero_point", "w_zero_point"), (x, w), zeros, strict=False):
        zero_points.expect_type(layer, name, dtype, operand)


def zero_terms(layer: str, x: Shape, w: Shape, zeros: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the zero points that are given as an epilogue's terms, for stacks of matrices."""
    shapes = _zero_shapes(layer, x, w, tuple(zero.shape for zero in zeros))
    terms = zip(("x_zero", "w_zero"), zeros, shapes, strict=False)
    return {name: parameters.zero_term(zero.reshape(shape)) for name, zero, shape in terms}


OPERATORS = (
    OperatorRecord(
        name="MatMulInteger",
        help="Exact product of quantized matrices, int32.",
        layers=(MatMulInteger,),
        inputs=("a", "b", "a_zero_point?", "b_zero_point?"),
        since=10,
    ),
    OperatorRecord(
        name="MatMulIntegerToFloat",
        domain=MICROSOFT,
        help="Product of quantized matrices, scaled to float32.",
        layers=(MatMulIntegerToFloat,),
        inputs=("a", "b", "a_scale", "b_scale", "a_zero_point?", "b_zero_point?", "bias?"),
    ),
)
