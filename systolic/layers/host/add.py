"""The sum of two tensors, on codes as ONNX Runtime adds them, or on plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from systolic import _check, _host, quant
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._inputs import expect_dtype, take
from systolic.quant import QuantParams

# From this many elements on, a table over all pairs of codes (65536) is cheaper.
_TABLE_FROM = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Add(HostLayer):
    """The sum of two tensors that broadcast together, as numpy's do.

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
        If some are None and others not, or the scales are so far apart that float32 overflows.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAdd on x86 with AVX2, and ONNX operator Add. Where a sum
    exceeds 2^31 codes ONNX Runtime's conversion to int32 overflows and gives the smallest code;
    here it saturates by its sign.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Add, QuantParams
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
        a, b, y = (quant.as_params(params, name, per_tensor=True) for name, params in given.items())
        if not a.dtype == b.dtype == y.dtype:
            raise TypeError(f"a, b and y must have one dtype, not {a.dtype}, {b.dtype} and {y.dtype}")
        with np.errstate(over="ignore", under="ignore"):
            reach = (a.scales / y.scales + b.scales / y.scales) * np.float32(1024)
        if not np.isfinite(reach):
            raise ValueError(
                f"a.scale / y.scale and b.scale / y.scale must stay far below the largest float32, but the "
                f"scales are {a.scale}, {b.scale} and {y.scale}; check them"
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape both inputs broadcast to."""
        a, b = take(self, shapes)
        try:
            return np.broadcast_shapes(tuple(a), tuple(b))
        except ValueError:
            raise ValueError(
                f"Add takes shapes that broadcast together, not {_check.shape(a)} and {_check.shape(b)}; "
                "from the last axis backwards sizes must be equal or 1"
            ) from None

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
        if _first_is_broadcast(a.shape, b.shape):
            a, b, a_params, b_params = b, a, b_params, a_params
        if a.shape == b.shape and a.flags.c_contiguous and b.flags.c_contiguous:
            each = (a_params, b_params, self.y)
            _host.add(a, b, out, [float(p.scales) for p in each], [int(p.zero_points) for p in each])
            return out
        if out.size < _TABLE_FROM:
            out[...] = _add_codes(a, b, a_params, b_params, self.y)
            return out
        # Every pair of codes, as bytes: row A, column B.
        codes = np.arange(256, dtype=np.uint8).view(dtype)
        table = _add_codes(codes[:, None], codes, a_params, b_params, self.y).astype(dtype).reshape(-1)
        pairs = np.empty(shape, np.uint16)
        np.left_shift(a.view(np.uint8), 8, out=pairs, dtype=np.uint16)
        np.bitwise_or(pairs, b.view(np.uint8), out=pairs)
        # Piece by piece, for take() widens its indices to 8 bytes; "wrap" spares it a checked copy.
        flat_pairs, flat_out = pairs.reshape(-1), out.reshape(-1)
        for start in range(0, out.size, _TABLE_FROM):
            piece = slice(start, start + _TABLE_FROM)
            np.take(table, flat_pairs[piece], out=flat_out[piece], mode="wrap")
        return out


def _first_is_broadcast(a: Shape, b: Shape) -> bool:
    """Whether ONNX Runtime takes `a` for a scalar spread along the innermost axis.

    That axis is the innermost one that is not 1 for both; without any, both are scalars and `a` is
    looked at first.
    """
    rank = max(len(a), len(b))
    padded_a, padded_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    for size_a, size_b in zip(reversed(padded_a), reversed(padded_b), strict=True):
        if size_a != 1 or size_b != 1:
            return size_a == 1
    return True


def _add_codes(
    a: np.ndarray, b: np.ndarray, a_params: QuantParams, b_params: QuantParams, y: QuantParams
) -> np.ndarray:
    """Return the formula of :class:`Add` on codes, as float32 integers within y's type."""
    with np.errstate(under="ignore"):
        ra, rb = a_params.scales / y.scales, b_params.scales / y.scales
        inner = _fma(ra, a_params.zero_points, rb * b_params.zero_points.astype(np.float32))
        c0 = y.zero_points.astype(np.float32) - inner
        total = _fma(ra, a, _fma(rb, b, c0))
        return np.clip(np.rint(total), y.qmin, y.qmax)


def _fma(scale: np.ndarray, code: np.ndarray, term: np.ndarray) -> np.ndarray:
    """Return f32(scale * code + term), rounded once; scale and term float32, code 8-bit.

    The product is exact in float64 (24 + 8 bits). The sum may not be: it is rounded to odd, which a
    second rounding to float32 cannot spoil (Boldo and Melquiond, "Emulation of FMA and correctly
    rounded sums: proved algorithms using rounding to odd", IEEE Trans. Computers 57(4), 2008).
    """
    product = np.asarray(scale.astype(np.float64) * code.astype(np.float64))
    addend = term.astype(np.float64)
    total = np.asarray(product + addend)
    # What the sum lost (Knuth's TwoSum).
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    even = (lost != 0) & (bits & 1 == 0)
    # One step towards what was lost makes the last bit odd; bits grow with the magnitude.
    step = np.where((lost > 0) == (total > 0), 1, -1)
    return (bits + even * step).view(np.float64).astype(np.float32)
