"""Windows sliding over (batch, channels, ...), one kernel offset at a time: convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Sizes = tuple[int, ...]
Pair = tuple[int, int]


class Windows(NamedTuple):
    """Windows along each axis: element k of window o is at ``o * stride + k * dilation - before``."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    pads: tuple[Pair, ...]
    out: Sizes


def per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    """Return one number for each axis."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def windows(layer: Any, image: Sizes, kernel: Sequence[int], *, pool: bool = False) -> Windows:
    """Return a layer's windows over an image, from its fields stride, dilation, padding and ceil_mode."""
    rank = len(image)
    stride = per_axis(layer.stride or 1, rank)
    dilation = per_axis(getattr(layer, "dilation", None) or 1, rank)
    padding = layer.padding
    paddings = (padding,) * rank if isinstance(padding, str) else per_axis(padding or 0, rank)
    ceil_mode = getattr(layer, "ceil_mode", False)
    axes = zip(image, kernel, stride, dilation, paddings, strict=True)
    pads, out = zip(*(_along(*axis, pool, ceil_mode) for axis in axes), strict=True)
    return Windows(tuple(kernel), stride, dilation, pads, out)


def _along(
    size: int, kernel: int, stride: int, dilation: int, padding: Any, pool: bool, ceil_mode: bool
) -> tuple[Pair, int]:
    """Return the padding before and after an axis and how many windows begin along it."""
    extent = (kernel - 1) * dilation + 1
    if isinstance(padding, str):
        before, after = auto_pads(padding, size, kernel if pool else extent, stride, pool=pool)
    else:
        before, after = (padding, padding) if isinstance(padding, int) else padding
    padded = size + before + after
    # The starts are counted rather than divided. A last window may be incomplete in `ceil_mode`, but must not
    # start in the padding at the end (ONNX MaxPool).
    starts = range(0, padded - extent + (stride if ceil_mode else 1), stride)
    count = sum(start < size + before for start in starts) if ceil_mode else len(starts)
    if not count:
        raise ValueError(f"a kernel spanning {extent} elements does not fit {padded} padded ones")
    return (before, after), count


def auto_pads(padding: str, size: int, extent: int, stride: int, *, pool: bool = False) -> Pair:
    """Padding before and after an axis for ONNX's auto_pad, as ONNX Runtime resolves it.

    `extent` is the size of the kernel with its dilation, for a pool without. ``"same"`` (SAME_UPPER) and
    ``"same_lower"`` make the last window end with the padding. If strides leave the end of the axis unread,
    they remove elements instead: half of them at the beginning, rounded towards 0; convolutions add one
    before halving.
    """
    if padding == "valid":
        return 0, 0
    starts = range(0, size, stride)
    missing = (starts[-1] if starts else -stride) + extent - size
    if missing >= 0:
        half = missing // 2 if padding == "same" else -(-missing // 2)
    else:
        half = math.trunc((missing + {"same": 0, "same_lower": 1}[padding] + (not pool)) / 2)
    return half, missing - half


def taps(x: np.ndarray, win: Windows, value: Any) -> Iterator[tuple[Sizes, np.ndarray]]:
    """Yield each kernel offset in order, and what it sees in every window: `value` outside x."""
    axes = list(zip(x.shape[2:], *win, strict=True))
    spans = [(n - 1) * step + (k - 1) * gap + 1 for _, k, step, gap, _, n in axes]
    padded = np.full((*x.shape[:2], *spans), value, x.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for (size, *_, (before, _), _), span in zip(axes, spans, strict=True):
        start = max(0, -before)
        stop = max(min(size, span - before), start)
        source.append(slice(start, stop))
        target.append(slice(start + before, stop + before))
    padded[tuple(target)] = x[tuple(source)]
    for offsets in np.ndindex(*win.kernel):
        seen: list[Any] = [...]
        for offset, (_, _, step, gap, _, n) in zip(offsets, axes, strict=True):
            seen.append(slice(offset * gap, offset * gap + (n - 1) * step + 1, step))
        yield offsets, padded[tuple(seen)]


def channels_last(layer: Any) -> bool:
    """Whether a layer's channels are the last axis, by its field layout or channels_last."""
    return bool(getattr(layer, "channels_last", False)) or getattr(layer, "layout", "").endswith("C")


def channels_first(layer: Any, x: np.ndarray) -> np.ndarray:
    """Return a layer's input as (batch, channels, ...)."""
    return np.moveaxis(x, -1, 1) if channels_last(layer) else x


def as_layer(layer: Any, y: np.ndarray) -> np.ndarray:
    """Return (batch, channels, ...) with the axes in the layer's order."""
    return np.ascontiguousarray(np.moveaxis(y, 1, -1)) if channels_last(layer) else y
