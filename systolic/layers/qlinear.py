"""Quantized convolutions whose scales, zero points and weights are tensors.

For what the layers with :class:`~systolic.QuantParams` cannot hold: parameters computed at run time.
The sums are those of the integer operators, and become codes by the same equation as everywhere:
:func:`systolic.requantize`'s ``half_even``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import zero_points
from systolic.layers.base import Shape
from systolic.layers.conv_integer import ConvInteger
from systolic.layers.geometry import Window
from systolic.lowered import Lowered


@dataclass(frozen=True, eq=False, repr=False)
class QLinearConv(ConvInteger):
    """A quantized convolution, its weights and parameters tensors that may be computed at run time.

    It reads x (batch, ic, ...), x_scale, x_zero_point, w (oc, ic // groups, ...), w_scale,
    w_zero_point, y_scale, y_zero_point and, if a ninth tensor is named, an int32 bias (oc,) in units of
    x_scale * w_scale. x and y have one scale and zero point, w one or one per output channel, (oc,).
    Scales are float32; zero points are of their operand's type, y's of the output's.

    Parameters
    ----------
    stride, dilation, padding, groups
        As for :class:`ConvInteger`.

    Notes
    -----
    ONNX operator QLinearConv; :class:`Conv2d` and its kin are for weights and parameters that the model
    holds. Scales may be anything, unlike those of :class:`QuantParams`: a sum scaled to NaN becomes the
    smallest code, as in ONNX Runtime.

    Examples
    --------
    >>> from systolic.layers import QLinearConv
    >>> QLinearConv(padding=1).output_shape((1, 3, 8, 8), (), (), (4, 3, 3, 3), (4,), (4,), (), ())
    (1, 4, 8, 8)
    """

    def window(self, shapes: Sequence[Shape]) -> Window:
        """Return the window of w over x; ValueError if the shapes do not fit."""
        zero_points.expect_count(self.kind, len(shapes), 8, 9, zero_points.NAMES)
        window = super().window(zero_points.integer_inputs(shapes))
        zero_points.expect_singles(self.kind, shapes)
        channels = shapes[3][0]
        zero_points.expect_per_channel(self.kind, "w_scale", shapes[4], channels)
        if len(shapes) > 8 and shapes[8] != (channels,):
            raise ValueError(f"{self.kind}: bias must be ({channels},), not {_check.shape(shapes[8])}")
        return window

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, ...)."""
        out = self.window(shapes).out
        return (shapes[0][0], shapes[3][0], *out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return y_zero_point's type."""
        zero_points.expect_count(self.kind, len(dtypes), 8, 9, zero_points.NAMES)
        super().output_dtype(*zero_points.integer_inputs(dtypes))
        return zero_points.expect_types(self.kind, dtypes[1], dtypes[4], dtypes[6:8], dtypes[8:])

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        window = self.window(shapes)
        return self._gemm(shapes[0], shapes[3], window)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        window = self.window([tensor.shape for tensor in inputs])
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        w_scale = inputs[4].reshape(-1 if inputs[4].size > 1 else ())
        return self.lower_over(
            window, *zero_points.integer_inputs(inputs), constant=inputs[8] if len(inputs) > 8 else None,
            **zero_points.scale_terms(inputs[1], w_scale, inputs[6:8]),
        )  # fmt: skip
