"""Scales and zero points that arrive as tensors: their checks, and the terms of an epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.layers.base import Shape

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
