"""Functions of codes by tables of 256 entries: element-wise ones, ``Q(f(DQ(code)))``, and Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from systolic import _check, quant
from systolic.layers.base import HostLayer, Shape, checked, expect_dtype, float32
from systolic.layers.host._functions import logistic
from systolic.layers.host._inputs import broadcast
from systolic.layers.record import MICROSOFT, REQUIRED, contrib
from systolic.quant import QuantParams, to_codes


class OnCodes(HostLayer):
    """Base of the layers on codes of one 8-bit type; fields a, b, x and y are their parameters."""

    y: QuantParams

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_params()

    def _expect_params(self) -> None:
        held = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        expect_one_type(**{name: value for name, value in held.items() if name in ("a", "b", "x", "y")})

    def _shape(self, *shapes: Any, **_: Any) -> Any:
        return broadcast(self, shapes)

    def _dtype(self, *dtypes: str) -> str:
        for dtype in dtypes:
            expect_dtype(self, dtype, (self.y.dtype,), ", as its parameters say")
        return self.y.dtype

    def _axis(self, shape: Shape, axis: int) -> int:
        """Return an axis counted from the front; ValueError if there is no such."""
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"{type(self).__name__} has axis {axis}, but an input {_check.shape(shape)}")
        return axis % len(shape)


class _Table(OnCodes):
    """A layer that maps codes by a table; subclasses have the field x, too, and a function of numbers."""

    x: QuantParams

    def _kernel(self, shape: Shape, q: np.ndarray) -> np.ndarray:
        reals = self._function(quant.dequantize(all_codes(self.y.dtype), self.x))
        return look_up(quant.quantize(reals, self.y), q)

    def _function(self, x: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not define _function")


@dataclass(frozen=True, eq=False, repr=False)
class QLinearSigmoid(_Table):
    """The logistic function ``1 / (1 + exp(-x))`` on codes: ``Q(logistic(DQ(code)))``.

    The function is a quotient of polynomials in float32 with fused multiply-adds, so that every bit
    of it, not only its codes, is ONNX Runtime's.

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearSigmoid on x86 with FMA3. Coefficients and order of operations:
    ``MlasLogisticConstants`` in onnxruntime/core/mlas/lib/logistic.cpp (after Eigen) and
    ``MlasLogisticKernelFma3`` in x86_64/LogisticKernelFma3.S.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearSigmoid
    >>> x, y = QuantParams(0.0625), QuantParams(1 / 256, -128)
    >>> QLinearSigmoid(x, y).apply(np.int8([-128, -16, 0, 16, 127]))
    array([-128,  -59,    0,   59,  127], dtype=int8)
    """

    x: QuantParams
    y: QuantParams

    def _function(self, x: np.ndarray) -> np.ndarray:
        return logistic(x)


@dataclass(frozen=True, eq=False, repr=False)
class QLinearLeakyRelu(_Table):
    """Multiply negative numbers by `alpha`, on codes: ``Q(x < 0 ? f32(alpha * x) : x)``.

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    alpha : float
        Slope of the negative side; rounded to float32.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearLeakyRelu.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearLeakyRelu
    >>> q = QuantParams(0.5)
    >>> QLinearLeakyRelu(q, q, alpha=0.25).apply(np.int8([-128, -8, 0, 8, 127]))
    array([-32,  -2,   0,   8, 127], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    alpha: float = checked(float32, 0.01, kw_only=True)

    def _function(self, x: np.ndarray) -> np.ndarray:
        return np.where(x >= 0, x, np.float32(self.alpha) * x)


# Elements worked on at a time, so that temporaries stay small.
_PIECE = 1 << 17


@dataclass(frozen=True, eq=False, repr=False)
class QLinearSoftmax(OnCodes):
    """``exp(x) / sum(exp(x))`` on codes, with a table of 256 exponentials.

    With n numbers in a sum, L the largest float32, codes counted up from the type's smallest
    (0 .. 255) and `top` the largest of a row::

        shift = max(0, f32(ln(f32(L / n))) - 5)
        T[i]  = f32(exp((i - 255 + shift / x.scale) * x.scale))     # in float64, rounded at the end
        e     = T[q + 255 - top];  s = sum of e in float32, first to last
        y     = sat(rne(e * floor(f32(1 / y.scale)) / s) + y.zero)  # product and quotient in float64

    The floor makes y.scale = 1/255, as float32 holds it, a factor of 254 or 255. Where f32(1 / y.scale)
    is infinite, the factor is 1 / y.scale in float64.

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
        x's zero point has no effect.
    axis : int
        Along which numbers are summed.
    flatten : bool
        Whether the axes from `axis` on are one, as for ONNX Softmax before opset 13.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearSoftmax (onnxruntime/contrib_ops/cpu/quantization/
    qlinear_softmax.cc) as of release 1.32; earlier ones multiply and divide in float32. The table's
    exponentials are those of the C library; if two libraries differ in the last bit of a float64, the
    float32 may differ in its last bit.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearSoftmax
    >>> layer = QLinearSoftmax(QuantParams(0.5), QuantParams(1 / 256, -128))
    >>> layer.apply(np.int8([[3, 4, 5], [-128, 0, 127]]))
    array([[ -80,  -49,    2],
           [-128, -128,  127]], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    axis: int = field(default=-1, kw_only=True)
    flatten: bool = field(default=False, kw_only=True)

    def _shape(self, shape: Shape) -> Shape:
        self._axis(shape, self.axis)
        return shape

    def _kernel(self, shape: Shape, q: np.ndarray) -> np.ndarray:
        out = np.empty(shape, q.dtype)
        if not q.size:
            return out
        axis = self.axis % q.ndim
        if self.flatten:
            rows = np.ascontiguousarray(q).reshape(-1, math.prod(q.shape[axis:]))
            out.reshape(rows.shape)[...] = self._rows(rows)
            return out
        moved = np.moveaxis(q, axis, -1)
        rows = self._rows(np.ascontiguousarray(moved).reshape(-1, moved.shape[-1]))
        out[...] = np.moveaxis(rows.reshape(moved.shape), -1, axis)
        return out

    def _rows(self, q: np.ndarray) -> np.ndarray:
        count = q.shape[1]
        table = _exponentials(float(self.x.scales), count)
        factor = _factor(self.y.scales)
        out = np.empty(q.shape, q.dtype)
        step = max(1, _PIECE // count)
        for start in range(0, len(q), step):
            part = q[start : start + step].view(np.uint8) ^ np.uint8(128 if q.dtype == np.int8 else 0)
            terms = table[part + (255 - part.max(axis=1, keepdims=True))]
            # accumulate() adds one after the other, as a sum() in pieces would not.
            sums = np.add.accumulate(terms, axis=1, dtype=np.float32)[:, -1:]
            codes = np.multiply(terms, factor, dtype=np.float64)
            np.divide(codes, sums, out=codes)
            to_codes(codes, self.y.zero_points, out[start : start + step])
        return out


def _factor(scale: np.ndarray) -> float:
    """Return the whole number of quantization steps in 1."""
    with np.errstate(over="ignore"):
        steps = np.floor(np.float32(1) / scale)
    return float(steps) if np.isfinite(steps) else 1 / float(scale)


def _exponentials(scale: float, count: int) -> np.ndarray:
    """Return the table for sums of so many numbers, float32."""
    largest = float(np.finfo(np.float32).max / np.float32(count))
    shift = max(0.0, float(np.float32(math.log(largest))) - 5) / scale
    # math.exp is the C library's; numpy's may be a vector library's with other last bits.
    return np.array([math.exp((i - 255 + shift) * scale) for i in range(256)]).astype(np.float32)


def all_codes(dtype: str) -> np.ndarray:
    """Return the 256 codes of an 8-bit type, in the order of their bytes: 0 .. 127, -128 .. -1 for int8."""
    return np.arange(256, dtype=np.uint8).view(dtype)


def look_up(table: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the entries of codes, a new array; the table is in the order of :func:`all_codes`."""
    # bytes.translate reads a byte and writes a byte; numpy's take would widen its indices to 8.
    data = bytearray(q.tobytes()).translate(table.tobytes())
    return np.frombuffer(data, table.dtype).reshape(q.shape) if q.size else np.empty(q.shape, table.dtype)


def requantized(q: np.ndarray, x: QuantParams, y: QuantParams) -> np.ndarray:
    """Return codes for other parameters of the same type, ``Q(DQ(code))``; `q` itself if they are equal."""
    return q if x == y else look_up(quant.quantize(quant.dequantize(all_codes(x.dtype), x), y), q)


def expect_one_type(**params: QuantParams) -> None:
    """Raise unless all are 8-bit QuantParams of one type, with one scale per tensor."""
    for name, value in params.items():
        quant.as_params(value, name, per_tensor=True)
    types = [value.dtype for value in params.values()]
    if len(set(types)) > 1:
        raise TypeError(f"{_listed(list(params))} must have one dtype, not {_listed(types)}")


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _read(op: Any) -> Any:
    op.only("axis", "opset")
    if "opset" not in op.attributes:
        raise ValueError("attribute opset is missing")
    x, y = (op.params(place, place + 1, dtype=op.dtypes.get(op.inputs[0], "uint8")) for place in (1, 3))
    # The axis defaults to -1 for every opset: the operator's schema says so before the kernel can.
    layer = QLinearSoftmax(x, y, axis=op.attribute("axis", -1), flatten=op.attribute("opset", 0) < 13)
    return layer, op.inputs[:1]


def _write(out: Any, node: Any, layer: QLinearSoftmax) -> None:
    # By this the operator knows whether the axes from its own on count as one.
    opset = 12 if layer.flatten else 13
    out.node(node, "QLinearSoftmax", out.codes(node, ("x", "y")), MICROSOFT, axis=layer.axis, opset=opset)


_INPUTS = ("x", "x_scale", "x_zero_point?", "y_scale", "y_zero_point?")

OPERATORS = (
    contrib(QLinearLeakyRelu, "LeakyRelu of quantized values.", inputs=_INPUTS, attributes={"alpha": 0.01}),
    contrib(QLinearSigmoid, "Sigmoid of quantized values.", inputs=_INPUTS),
    contrib(
        QLinearSoftmax,
        "Softmax of quantized values.",
        inputs=(*_INPUTS[:-1], "y_zero_point"),
        attributes={"axis": -1, "opset": REQUIRED},
        fields={"opset": "flatten"},
        read=_read,
        write=_write,
    ),
)
