"""What the host layers ask of their inputs, in one message style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.layers.base import Layer, Shape


def take(layer: Layer, values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` if there is one per input of the layer."""
    if layer.inputs is None:
        if not values:
            raise TypeError(f"{type(layer).__name__} takes one input or more, not none")
    elif len(values) != layer.inputs:
        count = "one input" if layer.inputs == 1 else f"{layer.inputs} inputs"
        raise TypeError(f"{type(layer).__name__} takes {count}, not {len(values)}")
    return values


def expect_dtype(layer: Layer, dtype: str, expected: Sequence[str], hint: str = "") -> str:
    """Return the name of `dtype` if it is one of the expected; TypeError otherwise."""
    name = np.dtype(dtype).name
    if name not in expected:
        raise TypeError(f"{type(layer).__name__} takes {' or '.join(expected)}, not {name}{hint}")
    return name


def image_axes(layout: str) -> tuple[int, int]:
    """Return the axes of height and width."""
    return (2, 3) if layout == "NCHW" else (1, 2)


def expect_images(layer: Layer, shape: Shape, layout: str) -> tuple[int, int]:
    """Return height and width of a batch of images, each at least 1."""
    axes = "(batch, ic, ih, iw)" if layout == "NCHW" else "(batch, ih, iw, ic)"
    if len(shape) != 4:
        raise ValueError(f"{type(layer).__name__} takes images {axes}, not {_check.shape(shape)}")
    ih, iw = (shape[axis] for axis in image_axes(layout))
    if not ih or not iw:
        raise ValueError(
            f"{type(layer).__name__} takes images {axes} of at least one pixel, not {_check.shape(shape)}"
        )
    return ih, iw


def replace_image(shape: Shape, layout: str, size: tuple[int, int]) -> Shape:
    """Return a batch's shape with another height and width."""
    if layout == "NCHW":
        return (*shape[:2], *size)
    return (shape[0], *size, shape[3])
