"""Float tensors to codes and back, as layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from systolic import _check, quant
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._inputs import expect_dtype, take
from systolic.quant import QuantParams


@dataclass(frozen=True, eq=False, repr=False)
class Quantize(HostLayer):
    """Real numbers to codes: ``sat(rne(f32(x / scale)) + zero_point)``.

    Parameters
    ----------
    y : QuantParams
        Of the output, int8 or uint8, per tensor or per channel.

    Notes
    -----
    ONNX operator QuantizeLinear, by :func:`systolic.quant.quantize`; NaN becomes the smallest code.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, Quantize
    >>> Quantize(QuantParams(0.5, 128, "uint8")).apply(np.float32([-1, 0, 0.75]))
    array([126, 128, 130], dtype=uint8)
    """

    y: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.y, "y")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        return _expect_channels(self, tuple(shape), self.y)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the codes' type; the input is float32 (or float16, float64, rounded to it)."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, ("float32", "float64", "float16"))
        return self.y.dtype

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the codes of x, an ndarray of float32 of any shape."""
        (x,) = take(self, inputs)
        self.output_shape(x.shape)
        self.output_dtype(x.dtype)
        return quant.quantize(x, self.y)


@dataclass(frozen=True, eq=False, repr=False)
class Dequantize(HostLayer):
    """Codes to real numbers: ``f32(f32(q - zero_point) * scale)``.

    Parameters
    ----------
    x : QuantParams
        Of the input: int8, uint8 or int32, per tensor or per channel.

    Notes
    -----
    ONNX operator DequantizeLinear, by :func:`systolic.quant.dequantize`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Dequantize, QuantParams
    >>> Dequantize(QuantParams(0.5, 128, "uint8")).apply(np.uint8([126, 128, 130]))
    array([-1.,  0.,  1.], dtype=float32)
    """

    x: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.x, "x", dtypes=quant.DTYPES)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        return _expect_channels(self, tuple(shape), self.x)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"; the input is of x's type."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")
        return "float32"

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the real numbers of q, an ndarray of x's type and any shape."""
        (q,) = take(self, inputs)
        self.output_shape(q.shape)
        self.output_dtype(q.dtype)
        return quant.dequantize(q, self.x)


def _expect_channels(layer: HostLayer, shape: Shape, params: QuantParams) -> Shape:
    if params.axis is not None:
        channels = params.scales.size
        if not -len(shape) <= params.axis < len(shape) or shape[params.axis] != channels:
            raise ValueError(
                f"{type(layer).__name__} takes {channels} channels along axis {params.axis}, one per scale, "
                f"not {_check.shape(shape)}"
            )
    return shape
