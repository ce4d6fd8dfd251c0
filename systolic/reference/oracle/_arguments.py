"""Read arguments: codes, scalars, per-axis vectors, layouts."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_codes(values: Any, name: str) -> np.ndarray:
    """The array of int8 or uint8 codes that `values` is; TypeError for anything else."""
    array = np.asarray(values)
    if array.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        raise TypeError(f"{name} must hold int8 or uint8, not {array.dtype}")
    return array


def scalar(value: Any, name: str) -> Any:
    """The Python number in a scalar or an array of one element."""
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"{name} must be one value, not the shape {array.shape}")
    return array.item()


def per_axis(values: Any, axis: int | None, ndim: int) -> np.ndarray:
    """One value as a 0-d array, a vector so that it lies along `axis` of an array of `ndim` axes."""
    array = np.asarray(values)
    if array.size == 1:
        return array.reshape(())
    if axis is None or array.ndim != 1:
        raise ValueError(
            f"expected one value, or a vector and its axis; not the shape {array.shape}, axis {axis}"
        )
    shape = [1] * ndim
    shape[axis] = array.size
    return array.reshape(shape)


def output_type(zero_point: Any) -> np.dtype:
    """The type of an output's codes, which is that of its zero point."""
    dtype = np.asarray(zero_point).dtype
    if dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        raise TypeError(
            f"y_zero_point must be int8 or uint8, it sets the type of y; not {dtype}: try np.int8(...)"
        )
    return dtype


def to_nchw(x: np.ndarray, layout: str) -> np.ndarray:
    """A view of images with the channels first."""
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout must be 'NCHW' or 'NHWC', not {layout!r}")
    if x.ndim != 4:
        raise ValueError(f"x must have 4 axes ({layout}), not the shape {x.shape}")
    return x if layout == "NCHW" else x.transpose(0, 3, 1, 2)


def from_nchw(y: np.ndarray, layout: str) -> np.ndarray:
    """Images with the channels first as `layout` has them, in C order."""
    return np.ascontiguousarray(y if layout == "NCHW" else y.transpose(0, 2, 3, 1))


def saturate(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert whole numbers in floats to a narrower integer type by way of int32, as on x86.

    The conversion returns int32's smallest number for values that it cannot hold: NaN, and 2^31 or more.
    """
    limits = np.iinfo(dtype)
    held = np.logical_and(values >= -(2.0**31), values < 2.0**31)
    return np.where(held, np.clip(values, limits.min, limits.max), limits.min).astype(dtype)
