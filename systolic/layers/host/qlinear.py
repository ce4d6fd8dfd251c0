"""Quantized multiplication, concatenation and selection of several tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _host
from systolic.layers.base import Shape
from systolic.layers.host._inputs import expect_dtype, take
from systolic.layers.host._pairs import of_pairs
from systolic.layers.host._parts import elementwise
from systolic.layers.host.qlinear_table import OnCodes, expect_one_type, requantized
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.quant import QuantParams, to_codes


@dataclass(frozen=True, eq=False, repr=False)
class QLinearMul(OnCodes):
    """Multiply two quantized tensors with numpy broadcasting.

    In float32, every operation rounded by itself, the zero point added before rounding::

        m = f32(f32(a.scale * b.scale) / y.scale);  p = (A - a.zero) * (B - b.zero)
        y = sat(rne(f32(f32(f32(p) * m) + y.zero)))

    Parameters
    ----------
    a, b, y : QuantParams
        Of the inputs and the output: of one 8-bit type (else TypeError), per tensor.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearMul on x86 (``MlasQLinearMul``, onnxruntime/core/mlas/lib/qlmul.cpp).
    A result of 2^31 codes or more, infinite or NaN gives the smallest code, because of the conversion to
    int32 there; on other processors ONNX Runtime saturates.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearMul
    >>> half, one = QuantParams(0.5), QuantParams(1.0)
    >>> QLinearMul(half, one, one).apply(np.int8([0, 1, 2, 3, 4, 5]), np.int8([1]))
    array([0, 0, 1, 2, 2, 2], dtype=int8)
    """

    inputs: ClassVar[int] = 2

    a: QuantParams
    b: QuantParams
    y: QuantParams

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the product of two tensors of codes."""
        a, b = take(self, inputs)
        out = np.empty(self.output_shape(a.shape, b.shape), self.output_dtype(a.dtype, b.dtype))
        return of_pairs(_host.mul, self._products, (self.a, self.b, self.y), a, b, out)

    def _multiplier(self) -> np.ndarray:
        return np.asarray(self.a.scales * self.b.scales / self.y.scales)

    def _products(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the formula on codes."""
        left, right = a - self.a.zero_points.astype(np.int32), b - self.b.zero_points.astype(np.int32)
        # At most 255 * 255, exact in float32.
        with np.errstate(all="ignore"):
            real = (left * right).astype(np.float32) * self._multiplier()
        return to_codes(real, self.y.zero_points, np.empty(real.shape, self.y.dtype), zero_first=True)


@dataclass(frozen=True, eq=False, repr=False)
class QLinearConcat(OnCodes):
    """Concatenate quantized tensors, requantized to one scale and zero point.

    A tensor with y's parameters is copied; the codes of others become ``Q(DQ(code))``.

    Parameters
    ----------
    x : tuple of QuantParams
        Of each input: of one 8-bit type (else TypeError), per tensor.
    y : QuantParams
        Of the output, of the same type.
    axis : int
        Along which the tensors are joined; their other sizes are equal.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearConcat.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearConcat
    >>> half, one = QuantParams(0.5), QuantParams(1.0)
    >>> QLinearConcat((one, half), one, axis=0).apply(np.int8([1, 2, 3]), np.int8([1, 2, 3]))
    array([1, 2, 3, 0, 1, 2], dtype=int8)
    """

    inputs: ClassVar[int | None] = None

    x: tuple[QuantParams, ...]
    y: QuantParams
    axis: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.x, tuple | list) or not self.x:
            raise TypeError(f"x must be a tuple of QuantParams, one per input, not {_check.kind(self.x)}")
        object.__setattr__(self, "x", tuple(self.x))
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))
        expect_one_type(**{f"x[{index}]": params for index, params in enumerate(self.x)}, y=self.y)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the whole; ValueError if the inputs' shapes do not fit."""
        first, *others = (tuple(shape) for shape in self._each(shapes))
        if not -len(first) <= self.axis < len(first):
            raise ValueError(f"QLinearConcat has axis {self.axis}, but an input {_check.shape(first)}")
        axis = self.axis % len(first)
        for shape in others:
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis
            ):
                raise ValueError(
                    f"QLinearConcat takes shapes that are equal but for axis {self.axis}, "
                    f"not {_check.shape(first)} and {_check.shape(shape)}"
                )
        return (*first[:axis], first[axis] + sum(shape[axis] for shape in others), *first[axis + 1 :])

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the inputs'."""
        return self._dtype(self._each(dtypes))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the tensors of codes joined."""
        self.output_shape(*(x.shape for x in inputs))
        self.output_dtype(*(x.dtype.name for x in inputs))
        parts = [requantized(q, params, self.y) for q, params in zip(inputs, self.x, strict=True)]
        return np.concatenate(parts, self.axis)

    def _each(self, values: Sequence[Any]) -> Sequence[Any]:
        if len(values) != len(self.x):
            raise TypeError(f"QLinearConcat takes {len(self.x)} inputs, one per x, not {len(values)}")
        return values


@dataclass(frozen=True, eq=False, repr=False)
class QLinearWhere(OnCodes):
    """Select from two quantized tensors by a condition, requantized to y's parameters.

    The inputs are the condition (bool) and the two tensors; all three broadcast together.

    Parameters
    ----------
    a, b, y : QuantParams
        Of the codes taken where the condition holds, of the others, and of the output: of one 8-bit
        type and per tensor.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearWhere: codes with y's parameters are copied, others become
    ``Q(DQ(code))``.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearWhere
    >>> half, one = QuantParams(0.5), QuantParams(1.0)
    >>> QLinearWhere(one, half, one).apply(np.array([True, False]), np.int8([5, 6]), np.int8([7, 8]))
    array([5, 4], dtype=int8)
    """

    inputs: ClassVar[int] = 3

    a: QuantParams
    b: QuantParams
    y: QuantParams

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, which is the tensors'."""
        condition, *others = take(self, dtypes)
        expect_dtype(self, condition, ("bool",), ", as a condition")
        return self._dtype(others)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the codes chosen."""
        self.output_shape(*(x.shape for x in inputs))
        dtype = self.output_dtype(*(x.dtype.name for x in inputs))
        condition, a, b = inputs
        a, b = requantized(a, self.a, self.y), requantized(b, self.b, self.y)
        return elementwise(np.where, dtype, condition, a, b)


_PAIR = ("a", "a_scale", "a_zero_point?", "b", "b_scale", "b_zero_point?", "y_scale", "y_zero_point?")

OPERATORS = (
    OperatorRecord(
        name="QLinearMul",
        domain=MICROSOFT,
        help="Product of two quantized tensors, element by element.",
        layers=(QLinearMul,),
        inputs=_PAIR,
        params=("a", "b", "y"),
    ),
    OperatorRecord(
        name="QLinearWhere",
        domain=MICROSOFT,
        help="Elements of one quantized tensor where a condition holds, else of another.",
        layers=(QLinearWhere,),
        inputs=("condition", *(name.rstrip("?") for name in _PAIR)),
        params=("a", "b", "y"),
    ),
)
