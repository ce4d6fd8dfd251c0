"""Quantization parameters, held by a layer or read as tensors: checks, and the epilogue that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic.layers.base import ArrayLayer, Shape
from systolic.lowered import Epilogue
from systolic.quant import ROUNDINGS, QuantParams, multiplier


@dataclass(frozen=True, eq=False, repr=False)
class WeightedLayer(ArrayLayer):
    """Base of the layers that hold their weights and all quantization parameters."""

    weight: np.ndarray
    x: QuantParams = field(kw_only=True)
    w: QuantParams = field(kw_only=True)
    y: QuantParams | None = field(kw_only=True)
    bias: np.ndarray | None = field(default=None, kw_only=True)

    w_axis: ClassVar[int]
    """The weights' axis of output channels."""

    def _put_parameters(self, axes: str, rounding: str) -> None:
        """Check the parameters, and put weights and bias into their stored form: read-only arrays."""
        kind, ndim = type(self).__name__, axes.count(",") + 1
        weight = _check.operand(self.weight, f"{kind}: weight", ndim=ndim, axes=axes)
        if isinstance(self.w, QuantParams) and weight.dtype.name != self.w.dtype:
            raise TypeError(f"{kind}: weight holds {weight.dtype}, but w says {self.w.dtype}")
        channels, bias = weight.shape[self.w_axis], self.bias
        check_params(kind, self.x, self.w, self.y, rounding, w_axis=self.w_axis, channels=channels)
        object.__setattr__(self, "weight", frozen(weight))
        if bias is not None:
            bias = _check.integers(bias, f"{kind}: bias", "int32")
            expect_bias(kind, bias.shape, channels)
            object.__setattr__(self, "bias", frozen(bias))

    @cached_property
    def _k(self) -> int:
        """Products per output."""
        return math.prod(self.weight.shape[: self.w_axis]) * math.prod(self.weight.shape[self.w_axis + 1 :])

    @cached_property
    def _epilogue(self) -> Epilogue:
        layer: Any = self
        taps = tuple(axis for axis in range(self.weight.ndim) if axis != self.w_axis)
        sums = self.weight.sum(axis=taps, dtype=np.int64)
        zero, zeros = int(self.x.zero_points), self.w.zero_points
        total = -zero * sums + self._k * zero * zeros.astype(np.int64)
        if self.bias is not None:
            total = total + self.bias
        found = scaled_epilogue(
            self.x, self.w, self.y, layer.rounding,
            constant=total.astype(np.int32),  # C-style conversion keeps the low 32 bits
            w_zero=zero_term(zeros),
        )  # fmt: skip
        if found.rounding != "half_even":
            return read_only(found)
        # The compiled loops take one for each channel.
        assert found.scale is not None
        spread = None if found.w_zero is None else np.full(sums.size, found.w_zero)
        return read_only(found._replace(scale=np.full(sums.size, found.scale), w_zero=spread))

    def output_dtype(self, *dtypes: str) -> str:
        """Return y's type, or float32."""
        if dtypes[0] != self.x.dtype:
            raise TypeError(f"{type(self).__name__} takes {self.x.dtype}, as its x says, not {dtypes[0]}")
        return "float32" if self.y is None else self.y.dtype


def check_params(layer: str, x: Any, w: Any, y: Any, rounding: Any, *, w_axis: int, channels: int) -> None:
    """Check a layer's quantization parameters: x and y per tensor, w per tensor or per channel.

    Check also the name of the rounding, and that it can represent the layer's multipliers.
    """
    for name, params in (("x", x), ("w", w), ("y", y)):
        if name == "y" and params is None:
            continue
        if not isinstance(params, QuantParams):
            raise TypeError(f"{layer}: {name} must be QuantParams, not {type(params).__name__}")
        if params.dtype not in _check.OPERAND_DTYPES:
            raise TypeError(f"{layer}: {name} must be int8 or uint8, not {params.dtype}")
        if name != "w" and params.per_channel:
            raise ValueError(f"{layer}: {name} must have one scale and zero point, not one per channel")
    if w.per_channel:
        if w.axis != w_axis:
            raise ValueError(
                f"{layer}: w must be quantized along axis {w_axis}, its output channels, not {w.axis}"
            )
        count = w.scales.size
        if count != channels:
            raise ValueError(f"{layer}: w has {count} scales for {channels} output channels")
    _check.choice(rounding, "rounding", tuple(ROUNDINGS))
    if y is not None:
        multiplier(x, w, y, rounding)
    elif rounding != "half_even":
        raise ValueError(f"{layer}: rounding {rounding!r} is for codes, but without y the output is float32")


def expect_bias(layer: str, bias: Shape, channels: int) -> None:
    """Raise ValueError unless a bias has one value for each output channel."""
    if bias != (channels,):
        raise ValueError(
            f"{layer}: bias must have one value per output channel, ({channels},), not {_check.shape(bias)}"
        )


def frozen(values: np.ndarray) -> np.ndarray:
    """Return a read-only copy."""
    copy = np.array(values, order="C")
    copy.flags.writeable = False
    return copy


def read_only(epilogue: Epilogue) -> Epilogue:
    """Return an epilogue whose arrays are read-only: each call of a layer's ``lower`` hands them out."""
    for values in epilogue:
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    return epilogue


def scaled_epilogue(
    x: QuantParams, w: QuantParams, y: QuantParams | None, rounding: str, **terms: Any
) -> Epilogue:
    """Return an epilogue that scales to y's codes or, without y, to float32 numbers.

    The multiplier is that of :func:`systolic.quant.multiplier`, without y ``f32(xs * ws)``, as in ONNX
    Runtime's QGemm and MatMulIntegerToFloat.
    """
    if y is None:
        with np.errstate(over="ignore", under="ignore"):
            scale = np.asarray(x.scales * w.scales, dtype=np.float32)
        return Epilogue(scale=scale, dtype="float32", **terms)
    return Epilogue(
        scale=multiplier(x, w, y, rounding), dtype=y.dtype, zero_point=int(y.zero_points), rounding=rounding,
        **terms,
    )  # fmt: skip


def zero_term(zero_points: np.ndarray) -> np.ndarray | None:
    """Return zero points as an epilogue takes them, int32; None where all are 0."""
    return zero_points.astype(np.int32) if zero_points.any() else None


def dense_shape(layer: Any, shape: Shape) -> Shape:
    """Return (..., N) for (..., K), of a layer with a weight (K, N); ValueError if the shape does not fit."""
    weight = layer.weight.shape
    if len(shape) < 1 or shape[-1] != weight[0]:
        raise ValueError(
            f"{layer.kind} takes inputs (..., {weight[0]}), as its weight has {weight[0]} rows, "
            f"not {_check.shape(shape)}{_hints.other_product(shape, weight)}"
        )
    return (*shape[:-1], weight[1])


# Scales and zero points that arrive as tensors

NAMES = "x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias"
"""What a product reads whose parameters are all tensors."""

_SCALES = ("float32", "float16")


def per_row(name: str, shape: Shape, x: Shape) -> Shape:
    """Return the shape in which numbers of the given shape, one or one per row of x, meet the sums.

    ONNX MatMulInteger: one number, (M,), or x's shape with 1 for K. ValueError for others.
    """
    if shape in ((), (1,)):
        return ()
    if len(x) > 1:
        if shape == (x[-2],):
            return (x[-2], 1)
        if len(shape) == len(x) and shape[-1] == 1 and _within(shape[:-1], x[:-1]):
            return shape
    raise ValueError(
        f"{name} must be one number, or one per row of an operand {_check.shape(x)} "
        f"((M,) or (..., M, 1)), not {_check.shape(shape)}"
    )


def per_column(name: str, shape: Shape, w: Shape) -> Shape:
    """Return the shape in which numbers of the given shape, one or one per column of w, meet the sums.

    ONNX MatMulInteger: one number, (N,), or w's shape with 1 for K. ValueError for others.
    """
    if shape in ((), (1,)):
        return ()
    if len(w) > 1:
        if shape == (w[-1],):
            return shape
        if len(shape) == len(w) and shape[-2] == 1 and _within((*shape[:-2], shape[-1]), (*w[:-2], w[-1])):
            return shape
    raise ValueError(
        f"{name} must be one number, or one per column of an operand {_check.shape(w)} "
        f"((N,) or (..., 1, N)), not {_check.shape(shape)}"
    )


def expect_single(layer: str, name: str, shape: Shape) -> None:
    """Raise ValueError unless a tensor holds one number."""
    if shape not in ((), (1,)):
        raise ValueError(f"{layer}: {name} must be one number, not {_check.shape(shape)}")


def expect_per_channel(layer: str, name: str, shape: Shape, channels: int) -> None:
    """Raise ValueError unless a tensor holds one number, or one for each output channel."""
    if shape not in ((), (1,), (channels,)):
        raise ValueError(f"{layer}: {name} must be one number or ({channels},), not {_check.shape(shape)}")


def expect_operands(layer: str, x: str, w: str, *zeros: str) -> None:
    """Raise TypeError unless x and w hold 8-bit codes, and given zero points are of their types."""
    for name, operand in (("x", x), ("w", w)):
        expect_codes(layer, name, operand)
    for name, operand, dtype in zip(("x_zero_point", "w_zero_point"), (x, w), zeros, strict=False):
        if dtype != operand:
            raise TypeError(f"{layer}: {name} must hold {operand}, as its operand does, not {dtype}")


def expect_codes(layer: str, name: str, dtype: str) -> None:
    """Raise TypeError unless an operand holds 8-bit codes."""
    if dtype not in _check.OPERAND_DTYPES:
        raise TypeError(f"{layer}: {name} must hold int8 or uint8, not {dtype}")


def expect_count(layer: str, count: int, least: int, most: int, names: str) -> None:
    """Raise TypeError unless so many tensors reach a layer."""
    if not least <= count <= most:
        raise TypeError(f"{layer} takes {least} to {most} inputs ({names}), not {count}")


def _within(shape: Shape, operand: Shape) -> bool:
    return all(size in (1, whole) for size, whole in zip(shape, operand, strict=True))


def integer_inputs(values: Sequence[Any]) -> Sequence[Any]:
    """Return what the integer operator reads: x, w and their zero points, or what is said of them."""
    return values[0], values[3], values[2], values[5]


def expect_singles(layer: str, shapes: Sequence[Shape]) -> None:
    """Raise ValueError unless x and y have one scale and zero point."""
    names = NAMES.split(", ")
    for index in (1, 2, *((6, 7) if len(shapes) > 7 else ())):
        expect_single(layer, names[index], shapes[index])


def expect_types(layer: str, x_scale: str, w_scale: str, y: Sequence[str], bias: Sequence[str]) -> str:
    """Return the output's type; TypeError for scales, an output or a bias of other types."""
    for name, dtype in zip(("x_scale", "w_scale", "y_scale"), (x_scale, w_scale, *y[:1]), strict=False):
        if dtype not in _SCALES:
            raise TypeError(f"{layer}: {name} must hold float32 or float16, not {dtype}")
    for dtype in y[1:]:
        expect_codes(layer, "y_zero_point", dtype)
    for dtype in bias:
        if dtype != "int32":
            raise TypeError(f"{layer}: bias must hold int32, not {dtype}")
    return y[1] if y else "float32"


def scale_terms(
    x_scale: np.ndarray, w_scale: np.ndarray, y: Sequence[np.ndarray], alpha: float = 1.0
) -> dict[str, Any]:
    """Return an epilogue's scale, ``f32(f32(f32(alpha * xs) * ws) / ys)`` in w's shape, and what follows it.

    `y` holds the output's scale and zero point; nothing for float32.
    """
    with np.errstate(all="ignore"):
        factor = np.float32(alpha) * x_scale.reshape(()).astype(np.float32) * w_scale.astype(np.float32)
        if not y:
            return {"scale": np.asarray(factor), "dtype": "float32"}
        factor = np.asarray(factor / y[0].reshape(()).astype(np.float32))
    return {"scale": factor, "dtype": _check.dtype_name(y[1].dtype), "zero_point": int(y[1].reshape(()))}
