"""Exact sums of a convolution, its operands and zero points tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import parameters, zero_points
from systolic.layers.base import ArrayLayer, Shape
from systolic.layers.conv import TensorConv, filter_matrices, lower_conv
from systolic.layers.geometry import Window
from systolic.lowered import Epilogue, Lowered


@dataclass(frozen=True, eq=False, repr=False)
class ConvInteger(TensorConv, ArrayLayer):
    """Exact sums of the convolution of ``x - x_zero_point`` with ``w - w_zero_point``, int32.

    It reads x (batch, ic, ...) and w (oc, ic // groups, ...), with 1, 2 or 3 axes after these, and,
    where they are named, x_zero_point, one number, and w_zero_point, one or (oc,), tensors of their
    operand's type. Padding adds exactly 0.

    Parameters
    ----------
    stride, dilation : int or tuple of int
        One for all axes, or one for each.
    padding : int, tuple of int or (before, after), "same", "same_lower" or "valid"
    groups : int

    Notes
    -----
    ONNX operator ConvInteger; sums wrap modulo 2^32. ONNX Runtime refuses a w_zero_point per channel.

    Examples
    --------
    >>> from systolic.layers import ConvInteger
    >>> layer = ConvInteger(padding=1)
    >>> layer.output_shape((1, 3, 8, 8), (4, 3, 3, 3)), layer.products((1, 3, 8, 8), (4, 3, 3, 3))
    ((1, 4, 8, 8), Gemm(64, 27, 4))
    """

    def window(self, shapes: Sequence[Shape]) -> Window:
        """Return the window of w over x; ValueError if the shapes do not fit."""
        zero_points.expect_count(self.kind, len(shapes), 2, 4, "x, w, x_zero_point, w_zero_point")
        x, w = shapes[:2]
        self._expect_rank(x, w)
        if len(shapes) > 2:
            zero_points.expect_single(self.kind, "x_zero_point", shapes[2])
        if len(shapes) > 3:
            zero_points.expect_per_channel(self.kind, "w_zero_point", shapes[3], w[0])
        return self._window_of(x, w)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, ...)."""
        out = self.window(shapes).out
        return (shapes[0][0], shapes[1][0], *out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int32"."""
        zero_points.expect_count(self.kind, len(dtypes), 2, 4, "x, w, x_zero_point, w_zero_point")
        zero_points.expect_operands(self.kind, *dtypes)
        return "int32"

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product, one per group."""
        window = self.window(shapes)
        return self._gemm(shapes[0], shapes[1], window)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x's patches and the filters."""
        self.output_dtype(*(_check.dtype_name(tensor.dtype) for tensor in inputs))
        return self.lower_over(self.window(tuple(tensor.shape for tensor in inputs)), *inputs)

    def lower_over(
        self, window: Window, x: np.ndarray, w: np.ndarray, *zeros: np.ndarray, **terms: Any
    ) -> Lowered:
        """Lower checked inputs over :meth:`window`; `terms` are more fields of the epilogue."""
        shapes = (), (-1,) if len(zeros) > 1 and zeros[1].size > 1 else ()
        for name, zero, shape in zip(("x_zero", "w_zero"), zeros, shapes, strict=False):
            terms[name] = parameters.zero_term(zero.reshape(shape))
        pad_value = int(zeros[0].reshape(())) if zeros else 0
        return lower_conv(x, filter_matrices(w, self.groups), window, pad_value, epilogue=Epilogue(**terms))
