"""Dynamic quantization: parameters from the range of the values at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from systolic.layers.base import HostLayer, Shape
from systolic.layers.record import OperatorRecord
from systolic.quant import quantize_linear


@dataclass(frozen=True, eq=False, repr=False)
class DynamicQuantize(HostLayer):
    """Quantize to uint8 with the scale and zero point that fit the range of the values.

    It writes three tensors: the codes, in x's shape, the scale, float32, and the zero point, uint8.

    Notes
    -----
    ONNX operator DynamicQuantizeLinear, in float32 as ONNX Runtime computes it::

        lo, hi = min(0, min x), max(0, max x)           # of the numbers that are not NaN
        s = f32(f32(hi - lo) / 255), or 1 if hi == lo
        z = rne(min(max(f32(0 - f32(lo / s)), 0), 255))
        y = sat(rne(f32(x / s)) + z)                    # NaN becomes 0

    Where infinities or a scale of 0 make ``lo / s`` NaN, z is 255.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import DynamicQuantize
    >>> codes, scale, zero_point = DynamicQuantize().apply(np.float32([-1, 0, 4.1]))
    >>> codes, scale, zero_point
    (array([  0,  50, 255], dtype=uint8), array(0.02, dtype=float32), array(50, dtype=uint8))
    """

    outputs: ClassVar[int] = 3

    types: ClassVar[tuple[str, ...]] = ("float32",)

    def _shape(self, shape: Shape) -> tuple[Shape, ...]:
        return shape, (), ()

    def _dtype(self, dtype: str) -> tuple[str, ...]:
        super()._dtype(dtype)
        return "uint8", "float32", "uint8"

    def _kernel(self, shapes: tuple[Shape, ...], x: np.ndarray) -> tuple[np.ndarray, ...]:
        params = range_parameters(x)
        return quantize_linear(x, *params), *params


def range_parameters(x: np.ndarray, axis: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero point of :class:`DynamicQuantize`, of all numbers or of those along an axis."""
    zero = np.float32(0)
    low, high = (np.asarray(edge.reduce(x, axis=axis, initial=zero)) for edge in (np.fmin, np.fmax))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        scale = np.where(low == high, np.float32(1), (high - low) / np.float32(255))
        start = zero - low / scale
        start = np.where(np.isnan(start), np.float32(255), np.rint(np.clip(start, 0, 255)))
    return scale, start.astype(np.uint8)


OPERATORS = (
    OperatorRecord(
        DynamicQuantize,
        "Quantize to uint8 with a scale and zero point computed from the values.",
        name="DynamicQuantizeLinear",
        outputs=("y", "scale", "zero_point"),
        since=11,
    ),
)
