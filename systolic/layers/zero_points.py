"""Checks of scales and zero points that arrive as tensors."""

from __future__ import annotations

from systolic import _check
from systolic.layers.base import Shape


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


def expect_type(layer: str, name: str, dtype: str, operand: str) -> None:
    """Raise TypeError unless a zero point is of its operand's type."""
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
