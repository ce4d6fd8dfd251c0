"""Add two tensors: codes as ONNX Runtime adds them, or plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from systolic import _host
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._fma import fma
from systolic.layers.host._inputs import broadcast, expect_dtype, spreads, take
from systolic.layers.host._pairs import of_pairs
from systolic.layers.host.qlinear_table import expect_one_type
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.quant import QuantParams, to_codes


@dataclass(frozen=True, eq=False, repr=False)
class Add(HostLayer):
    """Add two tensors with numpy broadcasting.

    With all three parameters, codes are added in float32, where `fma` rounds once::

        ra = f32(a.scale / y.scale);  rb = f32(b.scale / y.scale)
        c0 = f32(y.zero - fma(ra, a.zero, f32(rb * b.zero)))
        y  = sat(rne(fma(A, ra, fma(B, rb, c0))))

    A and B swap roles (with their parameters), which can change the last bit before rounding, where
    A has extent 1 on the innermost axis that is not 1 for both, and where both hold one element.
    Without parameters it is a plain sum; integers wrap.

    Parameters
    ----------
    a, b, y : QuantParams or None
        Of the inputs and the output: of one 8-bit type and per tensor, or all None.

    Raises
    ------
    TypeError
        If the parameters differ in type.
    ValueError
        If only some are None.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAdd on x86 with AVX2, and ONNX operator Add. A result of 2^31
    codes or more, infinite or NaN gives the smallest code, because of the conversion to int32 there.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Add
    >>> half, one = QuantParams(0.5), QuantParams(1.0, 1)
    >>> Add(half, half, one).apply(np.int8([0, 1, 2, 3, 4, 5]), np.int8([0]))
    array([1, 2, 2, 2, 3, 4], dtype=int8)
    """

    inputs: ClassVar[int] = 2

    a: QuantParams | None = None
    b: QuantParams | None = None
    y: QuantParams | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("a", "b", "y")}
        missing = [name for name, params in given.items() if params is None]
        if len(missing) == 3:
            return
        if missing:
            raise ValueError(
                f"Add needs all of a, b and y (codes) or none (plain numbers), but {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} None"
            )
        expect_one_type(**given)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape both inputs broadcast to."""
        return broadcast(self, take(self, shapes))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the inputs' common type: y's, or without parameters float32, int32, int8 or uint8."""
        a, b = take(self, dtypes)
        expected, hint = ["float32", "int32", "int8", "uint8"], ""
        if self.y is not None:
            expected, hint = [self.y.dtype], ", as its parameters say"
        first, second = (expect_dtype(self, dtype, expected, hint) for dtype in (a, b))
        if first != second:
            raise TypeError(f"Add takes two tensors of one type, not {first} and {second}")
        return first

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the sum of two tensors."""
        a, b = take(self, inputs)
        shape, dtype = self.output_shape(a.shape, b.shape), self.output_dtype(a.dtype, b.dtype)
        out = np.empty(shape, dtype)
        if self.a is None or self.b is None or self.y is None:
            with np.errstate(all="ignore"):
                return np.add(a, b, out=out)
        a_params, b_params = self.a, self.b
        # ONNX Runtime looks at `a` first: of two scalars it is the one to spread.
        if spreads(a.shape, b.shape, alone=True):
            a, b, a_params, b_params = b, a, b_params, a_params
        function = partial(_add_codes, a_params=a_params, b_params=b_params, y=self.y)
        return of_pairs(_host.add, function, (a_params, b_params, self.y), a, b, out)


def _add_codes(
    a: np.ndarray, b: np.ndarray, a_params: QuantParams, b_params: QuantParams, y: QuantParams
) -> np.ndarray:
    """Return the formula of :class:`Add` on codes."""
    with np.errstate(all="ignore"):
        ra, rb = a_params.scales / y.scales, b_params.scales / y.scales
        inner = fma(ra, a_params.zero_points, rb * b_params.zero_points.astype(np.float32))
        c0 = y.zero_points.astype(np.float32) - inner
        steps = fma(ra, a, fma(rb, b, c0))
        return to_codes(steps, 0, np.empty(steps.shape, y.dtype), zero_first=True)


OPERATORS = (
    OperatorRecord(
        name="QLinearAdd",
        domain=MICROSOFT,
        help="Sum of two quantized tensors.",
        layers=(Add,),
        inputs=("a", "a_scale", "a_zero_point?", "b", "b_scale", "b_zero_point?", "y_scale", "y_zero_point?"),
        params=("a", "b", "y"),
    ),
)
