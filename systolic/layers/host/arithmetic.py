"""Element-wise functions of one or two numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host import _special
from systolic.layers.host._inputs import broadcast, expect_dtype, spreads, take
from systolic.layers.host._kinds import Elementwise
from systolic.layers.host._parts import copied, elementwise
from systolic.layers.record import OperatorRecord

FLOATS = ("float32", "float64", "float16")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
NUMBERS = (*FLOATS, *INTEGERS)
ANY = (*NUMBERS, "bool")

Function = Callable[..., np.ndarray]


def _double(function: Function) -> Function:
    return lambda x: _special.in_double(function, x)


# Function and types taken, by ONNX operator.
_UNARY: dict[str, tuple[Function, tuple[str, ...]]] = {
    "Abs": (np.abs, NUMBERS),
    "Ceil": (np.ceil, FLOATS),
    "Erf": (_double(_special.erf), FLOATS),
    "Exp": (_double(np.exp), FLOATS),
    "Floor": (np.floor, FLOATS),
    "Gelu": (_double(_special.gelu), FLOATS),
    "GeluTanh": (_double(_special.gelu_tanh), FLOATS),
    "Log": (_double(np.log), FLOATS),
    "Neg": (np.negative, (*FLOATS, "int8", "int16", "int32", "int64")),
    "Not": (np.logical_not, ("bool",)),
    "Reciprocal": (np.reciprocal, FLOATS),
    "Round": (np.rint, FLOATS),
    "Sigmoid": (_double(_special.sigmoid), FLOATS),
    "Sqrt": (np.sqrt, FLOATS),
    "Tanh": (_double(np.tanh), FLOATS),
}

UNARY = tuple(_UNARY)
"""What :class:`Unary` computes."""


@dataclass(frozen=True, eq=False, repr=False)
class Unary(Elementwise):
    """Apply a function to each element.

    Parameters
    ----------
    operation : str
        "Abs", "Ceil", "Erf", "Exp", "Floor", "Gelu", "GeluTanh", "Log", "Neg", "Not", "Reciprocal",
        "Round" (ties to even), "Sigmoid", "Sqrt" or "Tanh"; tables show it as the layer's kind.

    Notes
    -----
    The ONNX operators of those names; "GeluTanh" is Gelu with ``approximate="tanh"``. On float32
    Abs, Ceil, Floor, Neg, Reciprocal, Round and Sqrt are rounded as IEEE 754 says, so that every
    runtime gives the same bits. The others are computed in float64 and rounded once, so that they
    lie within 1 unit in the last place of the true value; ONNX Runtime's own float32 approximations
    of them lie within about 1e-6 of it, relative to the larger of 1 and the value.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Unary
    >>> Unary("Sqrt").apply(np.float32([0, 2, 9]))
    array([0.       , 1.4142135, 3.       ], dtype=float32)
    """

    operation: str

    def __post_init__(self) -> None:
        _check.choice(self.operation, "operation", UNARY)

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, _UNARY[self.operation][1], f" for {self.operation}")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the function of every number of an array."""
        (x,) = take(self, inputs)
        dtype = self.output_dtype(x.dtype.name)
        with np.errstate(all="ignore"):
            return elementwise(_UNARY[self.operation][0], dtype, x)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if not np.all(b):
        raise ValueError("Div divides an integer by 0; integers have no infinity to give")
    quotient = np.floor_divide(a, b)
    # numpy rounds down, ONNX as C: towards 0.
    inexact = (quotient * b != a) & ((a < 0) != (b < 0))
    return quotient + inexact.astype(quotient.dtype)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)


def _power_by_line(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return powers where one exponent applies to a whole line of integers: ONNX Runtime multiplies there."""
    return np.where(b == 2, a * a, np.where(b == 3, a * a * a, _power(a, b)))


# Function, types taken, and whether the result is a bool.
_BINARY: dict[str, tuple[Function, tuple[str, ...], bool]] = {
    "Add": (np.add, NUMBERS, False),
    "And": (np.logical_and, ("bool",), True),
    "Div": (_divide, NUMBERS, False),
    "Equal": (np.equal, ANY, True),
    "Greater": (np.greater, NUMBERS, True),
    "GreaterOrEqual": (np.greater_equal, NUMBERS, True),
    "Less": (np.less, NUMBERS, True),
    "LessOrEqual": (np.less_equal, NUMBERS, True),
    "Max": (np.maximum, NUMBERS, False),
    "Min": (np.minimum, NUMBERS, False),
    "Mul": (np.multiply, NUMBERS, False),
    "Or": (np.logical_or, ("bool",), True),
    "Pow": (_power, NUMBERS, False),
    "Sub": (np.subtract, NUMBERS, False),
    "Xor": (np.logical_xor, ("bool",), True),
}

BINARY = tuple(_BINARY)
"""What :class:`Binary` computes."""


@dataclass(frozen=True, eq=False, repr=False)
class Binary(HostLayer):
    """Apply a function to two tensors with numpy broadcasting.

    Parameters
    ----------
    operation : str
        "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
        "Min", "Mul", "Or", "Pow", "Sub" or "Xor"; tables show it as the layer's kind.

    Notes
    -----
    The ONNX operators of those names, on two tensors of one type (Pow's exponent may have another).
    Integers wrap, and Div rounds them towards 0; Add, Sub, Mul and Div of floats are rounded as
    IEEE 754 says: all runtimes give the same bits. Pow is computed in float64 and rounded once, also for
    integers, as in ONNX Runtime, whose floats are within 2 units in the last place of it; squares and
    cubes of integers wrap where one exponent is broadcast to several. Max and Min propagate NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Binary
    >>> Binary("Div").apply(np.int32([7, -7]), np.int32([2]))
    array([ 3, -3], dtype=int32)
    """

    inputs: ClassVar[int] = 2

    operation: str

    def __post_init__(self) -> None:
        _check.choice(self.operation, "operation", BINARY)

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape both inputs broadcast to."""
        return broadcast(self, take(self, shapes))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the first input's type; "bool" for comparisons."""
        _, taken, tells = _BINARY[self.operation]
        a, b = (expect_dtype(self, d, taken, f" for {self.operation}") for d in take(self, dtypes))
        if a != b and self.operation != "Pow":
            raise TypeError(f"{self.operation} takes two tensors of one type, not {a} and {b}")
        return "bool" if tells else a

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the function of every pair of numbers."""
        a, b = take(self, inputs)
        self.output_shape(a.shape, b.shape)
        dtype = self.output_dtype(a.dtype.name, b.dtype.name)
        function = _BINARY[self.operation][0]
        if self.operation == "Pow" and a.dtype.kind != "f" and spreads(b.shape, a.shape):
            function = _power_by_line
        with np.errstate(all="ignore"):
            return elementwise(function, dtype, a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Clip(Elementwise):
    """Clip to [`low`, `high`], the upper bound last: ONNX operator Clip.

    Parameters
    ----------
    low, high : int, float or None
        Taken in the input's type; None sets no bound.

    Notes
    -----
    Where low > high every number becomes `high`. NaN stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Clip
    >>> Clip(0, 6).apply(np.float32([-1, 3, 7]))
    array([0., 3., 6.], dtype=float32)
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is None:
                continue
            if not _check.is_real(value):
                raise TypeError(f"{name} must be a number or None, not {_check.kind(value)}")
            object.__setattr__(
                self, name, int(value) if isinstance(value, int | np.integer) else float(value)
            )

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type; ValueError if a bound is not a number of that type."""
        (dtype,) = take(self, dtypes)
        name = expect_dtype(self, dtype, NUMBERS)
        if name in INTEGERS:
            low, high = np.iinfo(name).min, np.iinfo(name).max
            for bound in (self.low, self.high):
                if bound is not None and not (low <= bound <= high and int(bound) == bound):
                    raise ValueError(
                        f"a bound of Clip on {name} must be an integer in {low}..{high}, not {bound}"
                    )
        return name

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the numbers within the bounds."""
        (x,) = take(self, inputs)
        dtype = self.output_dtype(x.dtype.name)

        def bounded(part: np.ndarray) -> np.ndarray:
            out = np.array(part)
            if self.low is not None:
                np.maximum(out, np.array(self.low).astype(dtype), out=out)
            if self.high is not None:
                np.minimum(out, np.array(self.high).astype(dtype), out=out)
            return out

        with np.errstate(over="ignore"):
            return elementwise(bounded, dtype, x)


@dataclass(frozen=True, eq=False, repr=False)
class Where(HostLayer):
    """Select ``a`` where a condition holds, else ``b``, with broadcasting: ONNX operator Where.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Where
    >>> Where().apply(np.array([True, False]), np.int8([1]), np.int8([2]))
    array([1, 2], dtype=int8)
    """

    inputs: ClassVar[int] = 3

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape all inputs broadcast to."""
        return broadcast(self, take(self, shapes))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the type of a and b; the condition is a bool."""
        condition, a, b = take(self, dtypes)
        expect_dtype(self, condition, ("bool",), " for its condition")
        first, second = np.dtype(a).name, np.dtype(b).name
        if first != second:
            raise TypeError(f"Where takes two tensors of one type, not {first} and {second}")
        return first

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the chosen elements."""
        condition, a, b = take(self, inputs)
        self.output_shape(*(x.shape for x in inputs))
        self.output_dtype(*(x.dtype.name for x in inputs))
        return elementwise(np.where, a.dtype, condition, a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Cast(Elementwise):
    """Convert to another dtype: ONNX operator Cast.

    Parameters
    ----------
    dtype : str
        "float32", "float64", "float16", "bool", or "int8" to "uint64".

    Notes
    -----
    To a float: rounded half to even. From a float to an integer: truncated towards 0; a number
    beyond the type's range, or NaN, gives what the processor gives, as ONNX leaves it open. Between
    integers: wraps. To bool: whether it is not 0.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Cast
    >>> Cast("int8").apply(np.float32([-1.7, 2.5]))
    array([-1,  2], dtype=int8)
    """

    dtype: str

    def __post_init__(self) -> None:
        _check.choice(self.dtype, "dtype", ANY)

    def output_dtype(self, *dtypes: str) -> str:
        """Return `dtype`."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, ANY)
        return self.dtype

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the numbers in the other type."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype.name)
        with np.errstate(all="ignore"):
            return copied(x, self.dtype)


OPERATORS = (
    OperatorRecord(
        name="Where",
        help="Elements of one tensor where a condition holds, else of another.",
        layers=(Where,),
        inputs=("condition", "a", "b"),
        reads=3,
        since=9,
    ),
)
