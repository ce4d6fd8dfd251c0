"""Element-wise functions of codes by tables of 256 entries: ``Q(f(DQ(code)))``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from systolic import _check, quant
from systolic.layers.base import HostLayer, Shape, checked, expect_dtype, float32
from systolic.layers.host._inputs import broadcast
from systolic.layers.host._rational import logistic
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.quant import QuantParams


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


INPUTS = ("x", "x_scale", "x_zero_point?", "y_scale", "y_zero_point?")

OPERATORS = (
    OperatorRecord(
        QLinearLeakyRelu,
        "LeakyRelu of quantized values.",
        domain=MICROSOFT,
        inputs=INPUTS,
        attributes={"alpha": 0.01},
        params=("x", "y"),
    ),
    OperatorRecord(
        QLinearSigmoid, "Sigmoid of quantized values.", domain=MICROSOFT, inputs=INPUTS, params=("x", "y")
    ),
)
