"""Fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import Shape
from systolic.lowered import Lowered


def dense_shape(layer: Any, shape: Shape) -> Shape:
    """Return (..., N) for (..., K), of a layer with a weight (K, N); ValueError if the shape does not fit."""
    weight = layer.weight.shape
    if len(shape) < 1 or shape[-1] != weight[0]:
        raise ValueError(
            f"{layer.kind} takes inputs (..., {weight[0]}), as its weight has {weight[0]} rows, "
            f"not {_check.shape(shape)}{_hints.other_product(shape, weight)}"
        )
    return (*shape[:-1], weight[1])


@dataclass(frozen=True, eq=False, repr=False)
class Dense(parameters.WeightedLayer):
    """A quantized fully connected layer, ``y = x @ weight + bias``.

    Parameters
    ----------
    weight : ndarray of int8 or uint8, (K, N)
    x, w : QuantParams
        Of the input and the weights; w per tensor or per column (axis 1).
    y : QuantParams or None
        Of the output; None gives float32.
    bias : ndarray of int32, (N,), optional
        In units of x.scale * w.scale.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
        How sums become y's codes; see :func:`systolic.requantize`.

    Raises
    ------
    TypeError, ValueError
        If types, axes or lengths do not fit together.

    Notes
    -----
    ONNX QLinearMatMul with two-dimensional weights, and ONNX Runtime's QGemm. The requantization
    is :func:`systolic.requantize` with the multiplier ``f32(f32(xs * ws) / ys)``, by another rounding
    with the multiplier of :func:`systolic.quant.multiplier`; without y the
    output is ``f32(f32(acc) * f32(xs * ws))``. :class:`systolic.lowered.Epilogue` says where zero
    points are corrected.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import Dense
    >>> one = QuantParams(1.0)
    >>> Dense(np.eye(3, dtype=np.int8), x=one, w=one, y=one).output_shape((5, 3))
    (5, 3)
    """

    rounding: str = field(default="half_even", kw_only=True)

    w_axis: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._put_parameters("(K, N)", self.rounding)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (..., N) for (..., K)."""
        return dense_shape(self, *shapes)

    def products(self, *shapes: Shape) -> Gemm:
        """Return the sizes of the product."""
        return Gemm(math.prod(self.output_shape(*shapes)[:-1]), *self.weight.shape)

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the product of x, with its leading axes as rows, and the weights."""
        (x,) = inputs
        self.output_dtype(_check.dtype_name(x.dtype))
        gemm, epilogue = self.products(x.shape), self._epilogue
        if x.ndim == 2:
            return Lowered(gemm, x, self.weight, epilogue)
        shape = (*x.shape[:-1], gemm.n)
        return Lowered(gemm, x.reshape(gemm.m, gemm.k), self.weight, epilogue._replace(shape=shape))
