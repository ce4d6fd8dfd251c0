"""The softmax of codes, by a table of exponentials."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic.layers.base import Shape
from systolic.layers.host.qlinear_table import INPUTS, OnCodes
from systolic.layers.record import MICROSOFT, REQUIRED, OperatorRecord
from systolic.quant import QuantParams, to_codes

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


OPERATORS = (
    OperatorRecord(
        QLinearSoftmax,
        "Softmax of quantized values.",
        domain=MICROSOFT,
        inputs=(*INPUTS[:-1], "y_zero_point"),
        attributes={"axis": -1, "opset": REQUIRED},
        fields={"opset": "flatten"},
        params=("x", "y"),
        read=_read,
        write=_write,
    ),
)
