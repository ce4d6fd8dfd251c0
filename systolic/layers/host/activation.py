"""Activation functions on codes and on float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from systolic import _check
from systolic.layers.host._inputs import expect_dtype, take
from systolic.layers.host._kinds import Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class Relu(Elementwise):
    """Rectify: ``max(q, zero_point)`` on codes, ``max(x, 0)`` on float32.

    Parameters
    ----------
    zero_point : int
        The code of real 0 (input and output share their parameters); 0 for float32.

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

    zero_point: int = 0

    def __post_init__(self) -> None:
        value = _check.integer(self.zero_point, "zero_point", minimum=-128, maximum=255)
        object.__setattr__(self, "zero_point", value)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type: int8, uint8, int32 or float32."""
        (dtype,) = take(self, dtypes)
        name = expect_dtype(self, dtype, ("int8", "uint8", "int32", "float32"))
        if name == "float32":
            low = high = 0
        else:
            low, high = np.iinfo(name).min, np.iinfo(name).max
        if not low <= self.zero_point <= high:
            raise ValueError(f"the zero point of {name} must be in {low}..{high}, not {self.zero_point}")
        return name

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return max(x, zero_point), element by element."""
        (x,) = take(self, inputs)
        name = self.output_dtype(x.dtype)
        return np.maximum(x, np.array(self.zero_point, name), out=np.empty(x.shape, name))
