"""Quantized addition, multiplication, concatenation and selection of several tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _host
from systolic.layers.base import HostLayer, Shape, expect_dtype
from systolic.layers.host._functions import fma
from systolic.layers.host._inputs import spreads
from systolic.layers.host._parts import elementwise
from systolic.layers.host.pieces import joined
from systolic.layers.host.qlinear_table import OnCodes, all_codes, expect_one_type, requantized
from systolic.layers.record import MICROSOFT, REQUIRED, contrib
from systolic.quant import QuantParams, to_codes
from systolic.threads import thread_count

# From this many elements on, a table over all pairs of codes (65536) is cheaper.
_TABLE_FROM = 1 << 16


def of_pairs(
    compiled: Callable[..., None],
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    params: tuple[QuantParams, QuantParams, QuantParams],
    a: np.ndarray,
    b: np.ndarray,
    shape: Shape,
) -> np.ndarray:
    """Return a function of two tensors of one 8-bit type, which broadcast to a shape, in that type.

    `compiled`, of ``_host``, takes what lies alike, with the parameters of a, b and the output. `function` is
    the same in numpy: it takes two arrays that broadcast together and gives codes of the type.
    """
    out = np.empty(shape, a.dtype)
    if a.shape == b.shape and a.flags.c_contiguous and b.flags.c_contiguous:
        scales, zero_points = [float(p.scales) for p in params], [int(p.zero_points) for p in params]
        compiled(a, b, out, scales, zero_points, threads=thread_count())
        return out
    if out.size < _TABLE_FROM:
        out[...] = function(a, b)
        return out
    # Every pair of codes, as bytes: row A, column B.
    codes = all_codes(out.dtype.name)
    table = function(codes[:, None], codes).reshape(-1)
    pairs = np.empty(out.shape, np.uint16)
    np.left_shift(a.view(np.uint8), 8, out=pairs, dtype=np.uint16)
    np.bitwise_or(pairs, b.view(np.uint8), out=pairs)
    # Piece by piece, for take() widens its indices to 8 bytes; "wrap" spares it a checked copy, and no
    # index is out of range.
    flat_pairs, flat_out = pairs.reshape(-1), out.reshape(-1)
    for start in range(0, out.size, _TABLE_FROM):
        piece = slice(start, start + _TABLE_FROM)
        np.take(table, flat_pairs[piece], out=flat_out[piece], mode="wrap")
    return out


@dataclass(frozen=True, eq=False, repr=False)
class _Pair(OnCodes):
    """Base of the layers with parameters of two inputs and the output."""

    inputs: ClassVar[int] = 2

    a: QuantParams
    b: QuantParams
    y: QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class QLinearAdd(_Pair):
    """Add two quantized tensors with numpy broadcasting.

    In float32, where `fma` rounds once::

        ra = f32(a.scale / y.scale);  rb = f32(b.scale / y.scale)
        c0 = f32(y.zero - fma(ra, a.zero, f32(rb * b.zero)))
        y  = sat(rne(fma(A, ra, fma(B, rb, c0))))

    A and B swap roles (with their parameters), which can change the last bit before rounding, where
    A has extent 1 on the innermost axis that is not 1 for both, and where both hold one element.

    Parameters
    ----------
    a, b, y : QuantParams
        Of the inputs and the output: of one 8-bit type (else TypeError), per tensor.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAdd on x86 with AVX2. A result of 2^31 codes or more, infinite or NaN
    gives the smallest code, because of the conversion to int32 there.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearAdd
    >>> half, one = QuantParams(0.5), QuantParams(1.0, 1)
    >>> QLinearAdd(half, half, one).apply(np.int8([0, 1, 2, 3, 4, 5]), np.int8([0]))
    array([1, 2, 2, 2, 3, 4], dtype=int8)
    """

    def _kernel(self, shape: Shape, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a_params, b_params = self.a, self.b
        # ONNX Runtime looks at `a` first: of two scalars it is the one to spread.
        if spreads(a.shape, b.shape, alone=True):
            a, b, a_params, b_params = b, a, b_params, a_params
        function = partial(_sums, a_params=a_params, b_params=b_params, y=self.y)
        return of_pairs(_host.add, function, (a_params, b_params, self.y), a, b, shape)


def _sums(
    a: np.ndarray, b: np.ndarray, a_params: QuantParams, b_params: QuantParams, y: QuantParams
) -> np.ndarray:
    """Return the formula of :class:`QLinearAdd` on codes."""
    ra, rb = a_params.scales / y.scales, b_params.scales / y.scales
    inner = fma(ra, a_params.zero_points, rb * b_params.zero_points.astype(np.float32))
    c0 = y.zero_points.astype(np.float32) - inner
    steps = fma(ra, a, fma(rb, b, c0))
    return to_codes(steps, 0, np.empty(steps.shape, y.dtype), zero_first=True)


@dataclass(frozen=True, eq=False, repr=False)
class QLinearMul(_Pair):
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

    def _kernel(self, shape: Shape, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return of_pairs(_host.mul, self._products, (self.a, self.b, self.y), a, b, shape)

    def _products(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the formula on codes."""
        left, right = a - self.a.zero_points.astype(np.int32), b - self.b.zero_points.astype(np.int32)
        # At most 255 * 255, exact in float32.
        real = (left * right).astype(np.float32) * (self.a.scales * self.b.scales / self.y.scales)
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
        HostLayer.__post_init__(self)
        expect_one_type(**{f"x[{index}]": params for index, params in enumerate(self.x)}, y=self.y)

    def _shape(self, *shapes: Shape) -> Shape:
        axis = self._axis(shapes[0], self.axis)
        return joined(self, axis, f"takes shapes that are equal but for axis {self.axis}", *shapes)

    def _kernel(self, shape: Shape, *inputs: np.ndarray) -> np.ndarray:
        parts = [requantized(q, params, self.y) for q, params in zip(inputs, self.x, strict=True)]
        return np.concatenate(parts, self.axis)

    def _counted(self, values: Sequence[Any]) -> Sequence[Any]:
        if len(values) != len(self.x):
            raise TypeError(f"QLinearConcat takes {len(self.x)} inputs, one per x, not {len(values)}")
        return values


@dataclass(frozen=True, eq=False, repr=False)
class QLinearWhere(_Pair):
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

    def _dtype(self, condition: str, *dtypes: str) -> str:  # type: ignore[override]
        expect_dtype(self, condition, ("bool",), ", as a condition")
        return super()._dtype(*dtypes)

    def _kernel(self, shape: Shape, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = requantized(a, self.a, self.y), requantized(b, self.b, self.y)
        return elementwise(np.where, a.dtype, condition, a, b)


def _read_concat(op: Any) -> Any:
    op.only("axis")
    if len(op.inputs) < 5 or len(op.inputs) % 3 != 2 or "axis" not in op.attributes:
        raise ValueError("it takes y's scale and zero point, three inputs for each tensor, and an axis")
    params = tuple(op.params(place + 1, place + 2) for place in range(2, len(op.inputs), 3))
    return QLinearConcat(params, op.params(0, 1), axis=op.attribute("axis", 0)), op.inputs[2::3]


def _write_concat(out: Any, node: Any, layer: QLinearConcat) -> None:
    names = [*out.params(node, "y", layer.y)]
    for number, (name, params) in enumerate(zip(node.inputs, layer.x, strict=True)):
        names += [name, *out.params(node, f"x{number}", params)]
    out.node(node, "QLinearConcat", names, MICROSOFT, axis=layer.axis)


_PAIR = ("a", "a_scale", "a_zero_point?", "b", "b_scale", "b_zero_point?", "y_scale", "y_zero_point?")

OPERATORS = (
    contrib(QLinearAdd, "Sum of two quantized tensors.", inputs=_PAIR),
    contrib(
        QLinearConcat,
        "Concatenate quantized tensors along an axis.",
        inputs=("y_scale", "y_zero_point", "x..."),
        attributes={"axis": REQUIRED},
        params=("x", "y"),
        read=_read_concat,
        write=_write_concat,
    ),
    contrib(QLinearMul, "Product of two quantized tensors, element by element.", inputs=_PAIR),
    contrib(
        QLinearWhere,
        "Elements of one quantized tensor where a condition holds, else of another.",
        inputs=("condition", *(name.rstrip("?") for name in _PAIR)),
    ),
)
