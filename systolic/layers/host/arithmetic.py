"""Element-wise functions of one or several numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, checked, expect_dtype, one_of
from systolic.layers.host import _functions
from systolic.layers.host._inputs import ANY, FLOATS, INTEGERS, NUMBERS, broadcast, same_type, spreads
from systolic.layers.host._parts import copied, elementwise
from systolic.layers.host.shaping import Identity
from systolic.layers.record import REQUIRED, OperatorRecord

Function = Callable[..., np.ndarray]


def _double(function: Function) -> Function:
    return lambda x: _functions.in_double(function, x)


class _Row(NamedTuple):
    """What an ONNX operator computes, of which types, and since when it does."""

    function: Function
    types: tuple[str, ...]
    help: str
    since: int = 1


_UNARY = {
    "Abs": _Row(np.abs, NUMBERS, "Absolute value."),
    "Ceil": _Row(np.ceil, FLOATS, "Round up."),
    "Erf": _Row(_double(_functions.erf), FLOATS, "Error function.", 9),
    "Exp": _Row(_double(np.exp), FLOATS, "Exponential."),
    "Floor": _Row(np.floor, FLOATS, "Round down."),
    "Gelu": _Row(_double(_functions.gelu), FLOATS, "x times the normal distribution function of x.", 20),
    "GeluTanh": _Row(_double(_functions.gelu_tanh), FLOATS, "Gelu, approximated by tanh.", 20),
    "Log": _Row(_double(np.log), FLOATS, "Natural logarithm."),
    "Neg": _Row(np.negative, (*FLOATS, "int8", "int16", "int32", "int64"), "Negative."),
    "Not": _Row(np.logical_not, ("bool",), "Logical not."),
    "Reciprocal": _Row(np.reciprocal, FLOATS, "1 / x."),
    "Round": _Row(np.rint, FLOATS, "Round to integers, halves to even ones.", 11),
    "Sigmoid": _Row(_double(_functions.sigmoid), FLOATS, "1 / (1 + exp(-x))."),
    "Sqrt": _Row(np.sqrt, FLOATS, "Square root."),
    "Tanh": _Row(_double(np.tanh), FLOATS, "Hyperbolic tangent."),
}

UNARY = tuple(_UNARY)
"""What :class:`Unary` computes."""


@dataclass(frozen=True, eq=False, repr=False)
class Unary(HostLayer):
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

    operation: str = one_of(UNARY)

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def _dtype(self, dtype: str) -> str:
        return expect_dtype(self, dtype, _UNARY[self.operation].types, f" for {self.operation}")

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return elementwise(_UNARY[self.operation].function, x.dtype, x)


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


_BINARY = {
    "Add": _Row(np.add, NUMBERS, "Sum of two tensors.", 7),
    "And": _Row(np.logical_and, ("bool",), "Logical and.", 7),
    "Div": _Row(_divide, NUMBERS, "Quotient of two tensors; of integers rounded towards 0.", 7),
    "Equal": _Row(np.equal, ANY, "Whether a = b.", 7),
    "Greater": _Row(np.greater, NUMBERS, "Whether a > b.", 7),
    "GreaterOrEqual": _Row(np.greater_equal, NUMBERS, "Whether a >= b.", 12),
    "Less": _Row(np.less, NUMBERS, "Whether a < b.", 7),
    "LessOrEqual": _Row(np.less_equal, NUMBERS, "Whether a <= b.", 12),
    "Max": _Row(np.maximum, NUMBERS, "Maximum of tensors, element by element.", 8),
    "Min": _Row(np.minimum, NUMBERS, "Minimum of tensors, element by element.", 8),
    "Mul": _Row(np.multiply, NUMBERS, "Product of two tensors, element by element.", 7),
    "Or": _Row(np.logical_or, ("bool",), "Logical or.", 7),
    "Pow": _Row(_power, NUMBERS, "a to the power of b.", 7),
    "Sub": _Row(np.subtract, NUMBERS, "Difference of two tensors.", 7),
    "Xor": _Row(np.logical_xor, ("bool",), "Logical exclusive or.", 7),
}
# Operators whose output is a bool.
_TELLS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")

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

    operation: str = one_of(BINARY)

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def _shape(self, a: Shape, b: Shape) -> Shape:
        return broadcast(self, (a, b))

    def _dtype(self, a: str, b: str) -> str:
        for dtype in (a, b):
            expect_dtype(self, dtype, _BINARY[self.operation].types, f" for {self.operation}")
        if self.operation != "Pow":
            same_type(self.operation, a, b)
        return "bool" if self.operation in _TELLS else a

    def _kernel(self, shape: Shape, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        function, dtype = _BINARY[self.operation].function, self._dtype(a.dtype.name, b.dtype.name)
        if self.operation == "Pow" and a.dtype.kind != "f" and spreads(b.shape, a.shape):
            function = _power_by_line
        return elementwise(function, dtype, a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Relu(HostLayer):
    """Rectify: ``max(x, 0)``, or ``max(q, zero_point)`` on codes.

    Parameters
    ----------
    zero_point : int
        The code of real 0 (input and output share their parameters); 0 for floats.

    Notes
    -----
    ONNX operator Relu; with a zero point, Relu between DequantizeLinear and QuantizeLinear of equal
    parameters. NaN stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Relu
    >>> Relu(3).apply(np.int8([-128, 2, 3, 4]))
    array([3, 3, 3, 4], dtype=int8)
    """

    types: ClassVar[tuple[str, ...]] = NUMBERS

    zero_point: int = checked(lambda value, name: _check.integer(value, name, minimum=-128, maximum=255), 0)

    def _dtype(self, dtype: str) -> str:
        super()._dtype(dtype)
        low, high = (0, 0) if dtype in FLOATS else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not low <= self.zero_point <= high:
            raise ValueError(f"the zero point of {dtype} must be in {low}..{high}, not {self.zero_point}")
        return dtype

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, np.array(self.zero_point, x.dtype), out=np.empty(x.shape, x.dtype))


def _bound(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if not _check.is_real(value):
        raise TypeError(f"{name} must be a number or None, not {_check.kind(value)}")
    return int(value) if isinstance(value, int | np.integer) else float(value)


@dataclass(frozen=True, eq=False, repr=False)
class Clip(HostLayer):
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

    types: ClassVar[tuple[str, ...]] = NUMBERS

    low: float | None = checked(_bound, None)
    high: float | None = checked(_bound, None)

    def _dtype(self, dtype: str) -> str:
        super()._dtype(dtype)
        if dtype in INTEGERS:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            for bound in (self.low, self.high):
                if bound is not None and not (low <= bound <= high and int(bound) == bound):
                    raise ValueError(
                        f"a bound of Clip on {dtype} must be an integer in {low}..{high}, not {bound}"
                    )
        return dtype

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        def bounded(part: np.ndarray) -> np.ndarray:
            out = np.array(part)
            if self.low is not None:
                np.maximum(out, np.array(self.low).astype(x.dtype), out=out)
            if self.high is not None:
                np.minimum(out, np.array(self.high).astype(x.dtype), out=out)
            return out

        return elementwise(bounded, x.dtype, x)


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

    def _shape(self, *shapes: Shape) -> Shape:
        return broadcast(self, shapes)

    def _dtype(self, condition: str, a: str, b: str) -> str:
        expect_dtype(self, condition, ("bool",), " for its condition")
        return same_type("Where", a, b)

    def _kernel(self, shape: Shape, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return elementwise(np.where, a.dtype, condition, a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Cast(HostLayer):
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

    types: ClassVar[tuple[str, ...]] = ANY

    dtype: str = one_of(ANY)

    def _dtype(self, dtype: str) -> str:
        super()._dtype(dtype)
        return self.dtype

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return copied(x, self.dtype)


_INFINITE = -math.inf, math.inf


def _read_several(op: Any) -> Any:
    """Return Max or Min of any number of tensors, two by two."""
    op.only()
    if len(op.inputs) == 1:
        return Identity(), op.inputs
    nodes, last = [], op.inputs[0]
    for number, name in enumerate(op.inputs[1:], 1):
        output = op.outputs[0] if number == len(op.inputs) - 1 else op.fresh(f"/{number}")
        nodes.append(op.node(Binary(op.op_type), (last, name), output))
        last = output
    return nodes


def _read_gelu(op: Any) -> Any:
    op.only("approximate")
    approximate = op.attribute("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise op.refuse(f"approximate {approximate!r}; supported are 'none' and 'tanh'")
    return Unary("GeluTanh" if approximate == "tanh" else "Gelu"), op.inputs


def _write_gelu(out: Any, node: Any, layer: Unary) -> None:
    approximate = "tanh" if layer.operation == "GeluTanh" else "none"
    out.node(node, "Gelu", node.inputs, approximate=approximate)


def _write_relu(out: Any, node: Any, layer: Relu) -> None:
    dtype = out.dtype(node.inputs[0])
    if layer.zero_point or dtype == "uint8":
        raise out.refuse(
            node,
            f"ONNX's Relu is of int8, int32 or float32 around 0, not of {dtype} around {layer.zero_point}; "
            "let the layer before it saturate there, by a zero point of y at the smallest code",
        )
    out.node(node, "Relu", node.inputs)


def _read_clip(op: Any) -> Any:
    """Return the layer, or Max and Min if bounds are computed.

    An omitted bound is the type's largest or smallest number, so infinity becomes that, as in ONNX Runtime.
    """
    op.only("min", "max")
    dtype = op.dtypes[op.inputs[0]]
    ends: list[float | None] = [None, None]
    if dtype in FLOATS:
        ends = [float(np.finfo(dtype).min), float(np.finfo(dtype).max)]
    if op.opset < 11 or not op.computed(1, 2):
        bounds = [op.attributes.get(name, end) for name, end in zip(("min", "max"), ends, strict=True)]
        for place, name in ((1, "min"), (2, "max")):
            if op.has(place):
                value = op.value(place)
                if value.size != 1:
                    raise ValueError(f"{name} must be one number, not {value.size}")
                bounds[place - 1] = value.item()
        # An infinite bound has no effect.
        layer = Clip(*(None if b == end else b for b, end in zip(bounds, _INFINITE, strict=True)))
        return layer, op.inputs[:1]
    between = op.fresh("/low")
    nodes = []
    for place, operation, read, output in (
        (1, "Max", op.inputs[0], between),
        (2, "Min", between, op.outputs[0]),
    ):
        if op.has(place):
            nodes.append(op.node(Binary(operation), (read, op.inputs[place]), output))
        else:
            end = {"low": ends[0]} if place == 1 else {"high": ends[1]}
            nodes.append(op.node(Clip(**end), (read,), output))
    return nodes


def _write_clip(out: Any, node: Any, layer: Clip) -> None:
    dtype = out.dtype(node.inputs[0])
    low, high = layer.low, layer.high
    if dtype in FLOATS:
        # ONNX Runtime takes the type's largest number for an omitted bound.
        low, high = -np.inf if low is None else low, np.inf if high is None else high
    if out.opset < 11:
        out.node(node, "Clip", node.inputs, min=low, max=high)
        return
    bounds = [
        "" if value is None else out.constant(node, name, np.array(value, dtype))
        for name, value in (("min", low), ("max", high))
    ]
    out.node(node, "Clip", (*node.inputs, *bounds))


def _read_cast(op: Any) -> Any:
    from onnx import helper

    op.only("to", "saturate", "round_mode")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(op.attribute("to", 0))).name
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"attribute to must name a type, not {op.attribute('to', 0)}") from None
    if dtype not in ANY:
        raise op.refuse(f"a cast to {dtype}; supported are {', '.join(ANY)}")
    return Cast(dtype), op.inputs


def _write_cast(out: Any, node: Any, layer: Cast) -> None:
    from onnx import helper

    out.node(node, "Cast", node.inputs, to=helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype)))


def _record(layer: type[HostLayer], name: str, row: _Row, inputs: tuple[str, ...]) -> OperatorRecord:
    read = _read_several if inputs == ("x...",) else None
    fixed = {"operation": name}
    return OperatorRecord(layer, row.help, name=name, inputs=inputs, fixed=fixed, since=row.since, read=read)


OPERATORS = (
    # First: GeluTanh, which no operator is named as, is written by it.
    OperatorRecord(
        Unary,
        _UNARY["Gelu"].help,
        name="Gelu",
        attributes={"approximate": "none"},
        since=20,
        read=_read_gelu,
        write=_write_gelu,
    ),
    *(_record(Unary, name, row, ("x",)) for name, row in _UNARY.items() if not name.startswith("Gelu")),
    *(
        _record(Binary, name, row, ("x...",) if name in ("Max", "Min") else ("a", "b"))
        for name, row in _BINARY.items()
    ),
    OperatorRecord(Relu, "Replace negative numbers by 0.", write=_write_relu),
    OperatorRecord(
        Clip,
        "Replace numbers beyond two bounds by the bound.",
        inputs=("x", "min?", "max?"),
        history={11: "the bounds are inputs"},
        read=_read_clip,
        write=_write_clip,
    ),
    OperatorRecord(
        Cast,
        "Convert to another type.",
        attributes={"to": REQUIRED},
        ignored=("saturate", "round_mode"),
        read=_read_cast,
        write=_write_cast,
    ),
    OperatorRecord(
        Where,
        "Elements of one tensor where a condition holds, else of another.",
        inputs=("condition", "a", "b"),
        since=9,
    ),
)
