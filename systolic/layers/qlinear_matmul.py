"""Quantized matrix products, requantized or scaled; weights and parameters held or read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import Shape
from systolic.layers.matmul import (
    TensorProduct,
    bias_term,
    exchange,
    exchanged_shapes,
    expect_bias,
    lower_tensors,
    product_shape,
    zero_shapes,
    zero_terms,
)
from systolic.layers.record import MICROSOFT, OperatorRecord, contrib
from systolic.lowered import Epilogue, Lowered
from systolic.quant import QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class QLinearMatMul(parameters.WeightedLayer, TensorProduct):
    """A quantized product, ``y = x @ w + bias``, as :func:`numpy.matmul` broadcasts.

    With a `weight` it is a fully connected layer, which reads x alone. With parameters alone it reads x, w
    and, if a third tensor is named, an int32 bias in units of x.scale * w.scale that broadcasts to the
    output. Without either it reads x, x_scale, x_zero_point, w, w_scale and w_zero_point; y_scale and
    y_zero_point, without which the output is float32; and, as a seventh or ninth tensor, the bias. x and y
    have one scale and zero point, w one or one per column, (N,) or (..., 1, N). Scales are float32 or
    float16; zero points are of their operand's type, y's of the output's.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (K, N), optional
    x, w : QuantParams, optional
        Of the operands; w per tensor or per column (axis 1).
    y : QuantParams or None
        Of the output; None beside x and w gives float32.
    bias : ndarray of int32, (N,), optional
        Of a layer that holds its weight.
    transpose_x, transpose_w : bool
        Whether an operand that is read comes with its last two axes exchanged.
    alpha : float
        A factor of an x_scale that is read, rounded to float32.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become the codes of a y that is held; see :func:`systolic.requantize`.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX QLinearMatMul and ONNX Runtime's com.microsoft QGemm. Parameters that are held become codes by
    :func:`systolic.requantize` with the multiplier ``f32(f32(xs * ws) / ys)``, by another rounding with
    that of :func:`systolic.quant.multiplier`; without y the output is ``f32(f32(acc) * f32(xs * ws))``.
    :class:`systolic.lowered.Epilogue` says where zero points are corrected. The multiplier of parameters
    that are read is ``f32(f32(f32(alpha * xs) * ws) / ys)``. Those scales may be anything, unlike those
    of :class:`QuantParams`: a sum scaled to NaN becomes the smallest code, as in ONNX Runtime.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearMatMul
    >>> one = QuantParams(1.0)
    >>> layer = QLinearMatMul(x=one, w=one, y=one, transpose_w=True)
    >>> layer.output_shape((8, 5, 64), (8, 7, 64)), layer.products((8, 5, 64), (8, 7, 64))
    ((8, 5, 7), Gemm(5, 64, 7, groups=8))
    >>> QLinearMatMul().output_shape((2, 3, 4), (), (), (4, 5), (5,), (5,), (), ())
    (2, 3, 5)
    """

    weight: np.ndarray | None = None  # type: ignore[assignment]
    x: QuantParams | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    w: QuantParams | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    y: QuantParams | None = field(default=None, kw_only=True)
    transpose_x: bool = field(default=False, kw_only=True)
    transpose_w: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)
    rounding: str = field(default="half_even", kw_only=True)

    w_axis: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None:
            self._put_parameters("(K, N)", self.rounding)
        elif self.x is not None or self.w is not None or self.y is not None:
            channels = self.w.scales.size if isinstance(self.w, QuantParams) else 0
            parameters.check_params(
                self.kind, self.x, self.w, self.y, self.rounding, w_axis=1, channels=channels
            )
        elif self.rounding != "half_even":
            raise ValueError(f"{self.kind}: rounding {self.rounding!r} is for parameters that are held")
        given = {
            "bias": self.bias is not None and self.weight is None,
            "alpha": self.alpha != 1 and self.x is not None,
            "transpose_x": self.transpose_x and self.weight is not None,
            "transpose_w": self.transpose_w and self.weight is not None,
        }
        for name in (name for name, wrong in given.items() if wrong):
            beside = "without a weight" if name == "bias" else "beside what is held"
            raise ValueError(f"{self.kind} takes no {name} {beside}; {_INSTEAD[name]}")

    @property
    def inputs(self) -> int | None:  # type: ignore[override]
        """1 with a weight, else None: 2 or 3 with parameters, 6 to 9 without."""
        return None if self.weight is None else 1

    def _operands(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, w = (shapes[0], shapes[1]) if self.x is not None else (shapes[0], shapes[3])
        return exchanged_shapes(self.kind, (x, w), (self.transpose_x, self.transpose_w))

    def _expect_count(self, count: int) -> None:
        if self.x is not None:
            parameters.expect_count(self.kind, count, 2, 3, "x, w, bias")
        else:
            parameters.expect_count(self.kind, count, 6, 9, parameters.NAMES)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of ``numpy.matmul``: (..., M, N) for (..., M, K) and (..., K, N)."""
        if self.weight is not None:
            return parameters.dense_shape(self, *shapes)
        self._expect_count(len(shapes))
        x, w = self._operands(shapes)
        out = product_shape(self.kind, x, w)
        if self.x is None:
            zero_shapes(self.kind, x, w, (shapes[2], shapes[5]))
            parameters.expect_singles(self.kind, shapes)
            parameters.per_column(f"{self.kind}: w_scale", shapes[4], w)
        elif self.w.per_channel and (len(w) < 2 or w[-1] != self.w.scales.size):  # type: ignore[union-attr]
            raise ValueError(
                f"{self.kind}: w has {self.w.scales.size} scales, one per column, but the shape "  # type: ignore[union-attr]
                f"{_check.shape(w)}"
            )
        for bias in _bias_of(shapes):
            expect_bias(self.kind, bias, out)
        return out

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type or y_zero_point's; float32 without."""
        if self.weight is not None:
            return super().output_dtype(*dtypes)
        self._expect_count(len(dtypes))
        if self.x is None:
            parameters.expect_operands(self.kind, *parameters.integer_inputs(dtypes))
            y = dtypes[6:8] if len(dtypes) > 7 else ()
            return parameters.expect_types(self.kind, dtypes[1], dtypes[4], y, _bias_of(dtypes))
        for name, dtype, params in zip("xw", dtypes[:2], (self.x, self.w), strict=True):
            if dtype != params.dtype:  # type: ignore[union-attr]
                raise TypeError(
                    f"{self.kind} takes {params.dtype} as {name}, as its {name} says, not {dtype}"  # type: ignore[union-attr]
                )
        if len(dtypes) > 2 and dtypes[2] != "int32":
            raise TypeError(f"{self.kind} takes a bias of int32, not {dtypes[2]}")
        return "float32" if self.y is None else self.y.dtype

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per matrix of w that a stack needs."""
        if self.weight is None:
            return super().products(*shapes)
        return Gemm(math.prod(self.output_shape(*shapes)[:-1]), *self.weight.shape)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of the operands; of a held weight and x with its leading axes as rows."""
        if self.weight is None:
            return self._lower_tensors(inputs)
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        gemm, epilogue = self.products(x.shape), self._epilogue
        if x.ndim == 2:
            return Lowered(gemm, x, self.weight, epilogue)
        shape = (*x.shape[:-1], gemm.n)
        return Lowered(gemm, x.reshape(gemm.m, gemm.k), self.weight, epilogue._replace(shape=shape))

    def _lower_tensors(self, inputs: Sequence[np.ndarray]) -> Lowered:
        shape = self._checked_shape(inputs)
        pair = inputs[0], inputs[1 if self.x is not None else 3]
        x, w = exchange(pair, (self.transpose_x, self.transpose_w))
        held = self.x is not None
        epilogue = self._held_epilogue if held else self._read_epilogue(inputs, x.shape, w.shape)
        for bias in _bias_of(inputs):
            epilogue = epilogue._replace(constant=bias_term(bias, x.shape, w.shape))
        return lower_tensors(x, w, shape, epilogue)

    @cached_property
    def _held_epilogue(self) -> Epilogue:
        """The epilogue of parameters without a weight."""
        assert self.x is not None and self.w is not None
        zeros = {"x_zero": self.x.zero_points, "w_zero": self.w.zero_points}
        terms = {name: parameters.zero_term(zero) for name, zero in zeros.items()}
        return parameters.read_only(
            parameters.scaled_epilogue(self.x, self.w, self.y, self.rounding, **terms)
        )

    def _read_epilogue(self, inputs: Sequence[np.ndarray], x: Shape, w: Shape) -> Epilogue:
        w_scale = inputs[4].reshape(parameters.per_column("w_scale", inputs[4].shape, w))
        y = inputs[6:8] if len(inputs) > 7 else ()
        return Epilogue(
            **zero_terms(self.kind, x, w, (inputs[2], inputs[5])),
            **parameters.scale_terms(inputs[1], w_scale, y, self.alpha),
        )


_INSTEAD = {
    "bias": "it reads one",
    "alpha": "give x the product as its scale",
    "transpose_x": "let it read w",
    "transpose_w": "transpose the weight",
}


def Dense(  # noqa: N802
    weight: np.ndarray,
    *,
    x: QuantParams,
    w: QuantParams,
    y: QuantParams | None,
    bias: np.ndarray | None = None,
    rounding: str = "half_even",
) -> QLinearMatMul:
    """Return a quantized fully connected layer, ``y = x @ weight + bias``: a :class:`QLinearMatMul`.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (K, N)
    x, w : QuantParams
        Of the input and the weights; w per tensor or per column (axis 1).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (N,), optional
        In units of x.scale * w.scale.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Dense
    >>> one = QuantParams(1.0)
    >>> Dense(np.eye(3, dtype=np.int8), x=one, w=one, y=one).output_shape((5, 3))
    (5, 3)
    """
    return QLinearMatMul(weight, x=x, w=w, y=y, bias=bias, rounding=rounding)


def _bias_of(values: Sequence[Any]) -> Sequence[Any]:
    """Return the bias of a product, or what is said of it, if there is one."""
    return values[-1:] if len(values) in (3, 7, 9) else ()


def _read_qlinear_matmul(op: Any) -> Any:
    op.only()
    if not op.has(3):
        raise ValueError("input 3, the second matrix, is missing")
    if op.computed(1, 2, 4, 5, 6, 7) or (op.has(4) and op.constants[op.inputs[4]].ndim > 2):
        return QLinearMatMul(), op.required(8)
    shape = op.shape(3)
    params = {
        "x": op.params(1, 2), "y": op.params(6, 7),
        "w": _column_params(op, 4, 5, None if shape is None else len(shape)),
    }  # fmt: skip
    weight = op.constants.get(op.inputs[3])
    if weight is not None and weight.ndim == 2:
        return QLinearMatMul(weight, **params), op.inputs[:1]
    return QLinearMatMul(**params), (op.inputs[0], op.inputs[3])


def _column_params(op: Any, scale: int, zero_point: int, axes: int | None) -> QuantParams:
    """Return quantization parameters per tensor or per column of a matrix, (N,) or (1, N)."""
    scales = op.constant(scale, "scale")
    zeros = op.constant(zero_point, "zero point") if op.has(zero_point) else np.zeros(1, dtype=np.uint8)
    if axes != 2 or scales.ndim != 2 or scales.shape[0] != 1 or scales.size == 1:
        return op.params(scale, zero_point, axis=1)
    size = (scales.shape[1],)
    return QuantParams(scales[0], np.broadcast_to(zeros.reshape(-1), size), zeros.dtype.name, axis=1)


def _read_qgemm(op: Any) -> Any:
    op.only("alpha", "transA", "transB")
    alpha = np.float32(op.attribute("alpha", 1.0))
    if not alpha > 0:
        raise op.refuse(f"alpha {alpha}; supported are numbers above 0")
    computed = op.computed(1, 2, 4, 5, 7, 8)
    x, w = (None, None) if computed else (op.params(1, 2), op.params(4, 5, axis=1))
    read = op.required(6) if computed else ()
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    transposed: dict[str, Any] = {
        "transpose_x": bool(op.attribute("transA", 0)), "transpose_w": bool(op.attribute("transB", 0))
    }  # fmt: skip
    if computed:
        _expect_matrices(op)
        layer = QLinearMatMul(alpha=float(alpha), **transposed)
        return layer, (*read, *(op.inputs[i] for i in (7, 8, 6) if op.has(i)))
    if alpha != 1 and x is not None:
        # ONNX Runtime scales by f32(alpha * a_scale) first, which is as if the input had that scale.
        x = QuantParams(float(alpha * x.scales), x.zero_point, x.dtype)
    y = op.params(7, 8) if op.has(7) else None
    for index, what in ((0, "first matrix"), (3, "weight")):
        if not op.has(index):
            raise ValueError(f"input {index}, the {what}, is missing")
    weight, bias = op.constants.get(op.inputs[3]), op.value(6)
    if weight is not None and weight.ndim != 2:
        raise ValueError(f"the weight must have 2 axes, not the shape {_check.shape(weight.shape)}")
    alike = bias is not None and (bias.ndim < 2 or (bias.ndim == 2 and bias.shape[0] == 1))  # in each row
    if weight is not None and not transposed["transpose_x"] and (not op.has(6) or alike):
        weight = weight.T if transposed["transpose_w"] else weight
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), weight.shape[1])
        return QLinearMatMul(weight, x=x, w=w, y=y, bias=bias), op.inputs[:1]
    _expect_matrices(op)
    layer = QLinearMatMul(x=x, w=w, y=y, **transposed)
    return layer, (op.inputs[0], op.inputs[3], *((op.inputs[6],) if op.has(6) else ()))


def _expect_matrices(op: Any) -> None:
    for index in (0, 3):
        sizes = op.shape(index)
        if sizes is None or len(sizes) != 2:
            raise op.refuse(f"input {op.inputs[index]!r} must be known to be a matrix")


def _write_qlinear_matmul(out: Any, node: Any, layer: QLinearMatMul) -> None:
    """Write a QLinearMatMul or, where that does not suffice, a QGemm."""
    options = {
        "alpha": layer.alpha if layer.alpha != 1 else None,
        "transA": layer.transpose_x or None,
        "transB": layer.transpose_w or None,
    }
    names, bias = list(node.inputs), ""
    if layer.weight is not None:
        names.append(out.constant(node, "weight", layer.weight))
        bias = "" if layer.bias is None else out.constant(node, "bias", layer.bias)
    elif _bias_of(names):
        bias = names.pop()
    if layer.x is not None:
        x, w = names
        names = [x, *out.params(node, "x", layer.x), w, *out.params(node, "w", layer.w)]
        names += [] if layer.y is None else out.params(node, "y", layer.y)
    if len(names) == 8 and not bias and not any(options.values()):
        out.node(node, "QLinearMatMul", names)
        return
    shape = out.shape(node.inputs[0])
    if layer.weight is not None and (shape is None or len(shape) != 2):
        raise out.refuse(
            node,
            "with a bias, or without y, it is a QGemm, which takes matrices (M, K), "
            f"not {'an unknown shape' if shape is None else f'{len(shape)} axes'}; "
            "put a Flatten or Reshape before it",
        )
    why = "with a bias, a transposed operand, an alpha, or without y, it is a QGemm"
    if layer.weight is None:
        out.expect_matrices(node, why, names[0], names[3])
    out.node(node, "QGemm", (*names[:6], bias, *names[6:]), MICROSOFT, **options)


_PAIR = ("a", "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point")

OPERATORS = (
    OperatorRecord(
        QLinearMatMul,
        "Product of quantized matrices, requantized.",
        inputs=(*_PAIR, "y_scale", "y_zero_point"),
        since=10,
        history={21: "float16 scales"},
        read=_read_qlinear_matmul,
        write=_write_qlinear_matmul,
    ),
    contrib(
        QLinearMatMul,
        "Product of quantized matrices with a bias, requantized or scaled to float32.",
        name="QGemm",
        inputs=(*_PAIR, "bias?", "y_scale?", "y_zero_point?"),
        attributes={"alpha": 1.0, "transA": 0, "transB": 0},
        read=_read_qgemm,
        write=_write_qlinear_matmul,
    ),
)
