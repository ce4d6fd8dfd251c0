"""Operators of com.microsoft that are given by a record: functions of what they read and of attributes.

An input that is left out is None; attributes have ONNX's defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, widened, wrap_int32
from systolic.reference.oracle.elementwise import REAL_FUNCTIONS
from systolic.reference.oracle.normalizations import layer_normalization


def op(layer: Any, *inputs: np.ndarray) -> Any:
    """Return the output of an operator by its name."""
    spread: list[Any] = list(inputs)
    for place in sorted(layer.absent):
        spread.insert(place, None)
    return OPS[layer.operation](*spread, **dict(layer.attributes))


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.asarray(REAL_FUNCTIONS["Gelu"](widened(x + bias))).astype(x.dtype)


def _skip_layer_normalization(
    x: np.ndarray,
    skip: np.ndarray,
    gamma: np.ndarray,
    beta: Any = None,
    bias: Any = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[np.ndarray, ...]:
    total = (x.astype(F32) + skip.astype(F32)) + (0 if bias is None else bias.astype(F32))
    y, mean, inverse = _normalized(total, gamma, beta, epsilon)
    return y.astype(x.dtype), mean, inverse, total.astype(x.dtype)


def _normalized(x: np.ndarray, gamma: np.ndarray, beta: Any, epsilon: float) -> tuple[np.ndarray, ...]:
    layer = SimpleNamespace(axis=-1, epsilon=epsilon)
    found: tuple[np.ndarray, ...] = layer_normalization(layer, x, gamma, *([] if beta is None else [beta]))
    return found


def _embed_layer_normalization(
    ids: np.ndarray, segments: Any, words: np.ndarray, positions: np.ndarray, segment: Any, gamma: np.ndarray,
    beta: np.ndarray, mask: Any = None, places: Any = None, *, epsilon: float = 1e-12, **_: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    total = np.empty((*ids.shape, words.shape[1]), F32)
    for b, i in np.ndindex(ids.shape):
        place = i if places is None else places[b % len(places), i]
        total[b, i] = words[ids[b, i]] + positions[place]
        if segment is not None:
            total[b, i] += segment[0 if segments is None else segments[b, i]]
    seen = [0 if mask is None else row.tolist().count(1) for row in (ids if mask is None else mask)]
    return _normalized(total, gamma, beta, epsilon)[0], np.array(seen, np.int32), total


def _attention(
    x: np.ndarray, w: np.ndarray, bias: Any = None, mask: Any = None, past: Any = None, added: Any = None,
    past_length: Any = None, *, qkv_hidden_sizes: Any = (), **options: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    qkv = (widened(x) @ widened(w) + (0 if bias is None else bias)).astype(F32)
    return _attend(qkv, qkv_hidden_sizes or (w.shape[1] // 3,) * 3, mask, past, added, **options)


def q_attention(
    layer: Any,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    xs: np.ndarray,
    ws: np.ndarray,
    *others: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """com.microsoft QAttention: ``f32(f32(acc * f32(xs * ws)) + bias)`` are query, key and value."""
    given = dict(zip(layer.given, others, strict=True))
    codes, weights = (
        values.astype(np.int64) - given.get(name, np.int64(0)).astype(np.int64)
        for values, name in ((x, "x_zero_point"), (w, "w_zero_point"))
    )
    qkv = wrap_int32(codes @ weights).astype(F32) * (xs.reshape(()) * ws) + bias
    return _attend(
        qkv, (w.shape[1] // 3,) * 3, given.get("mask_index"), given.get("past"), None,
        num_heads=layer.num_heads, unidirectional=layer.unidirectional,
        mask_filter_value=layer.mask_filter_value, scale=layer.scale,
    )  # fmt: skip


def _attend(
    qkv: np.ndarray, sizes: Any, mask: Any, past: Any, added: Any, *, num_heads: int, unidirectional: int = 0,
    mask_filter_value: float = -10000.0, scale: float = 0.0, **_: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return the output and the present state, place by place.

    A score with its bias is rounded to float32, and again with the mask: -10000 leaves it few digits.
    """
    batch, length, _ = qkv.shape
    before = 0 if past is None else past.shape[3]
    y = np.empty((batch, length, sizes[2]), F32)
    states = []
    for b, n in np.ndindex(batch, num_heads):
        starts = np.cumsum([0, *sizes[:2]])
        q, k, v = (
            qkv[b, :, start + n * size // num_heads : start + (n + 1) * size // num_heads]
            for start, size in zip(starts, sizes, strict=True)
        )
        if past is not None:
            k, v = np.concatenate([past[0, b, n], k]), np.concatenate([past[1, b, n], v])
        states.append((k, v))
        factor = F32(scale) if scale else F32(1) / np.sqrt(F32(q.shape[1]))
        for i in range(length):
            scores = (widened(k) @ widened(q[i])) * factor
            if added is not None:
                scores = scores + added[b % len(added), n % added.shape[1], i]
            scores = scores.astype(F32)
            for j in range(before + length):
                if unidirectional and j > before + i:
                    scores[j] += np.finfo(F32).min
                elif not _seen(mask, b, i, j, batch, before + length):
                    scores[j] += F32(mask_filter_value)
            powers = np.exp(widened(scores) - scores.max())
            values = (powers @ widened(v)) / powers.sum()
            y[b, i, n * v.shape[1] : (n + 1) * v.shape[1]] = values
    head = sizes[0] // num_heads if sizes[0] == sizes[2] else 0
    present = np.empty((2, batch, num_heads, before + length, head), F32)
    for (b, n), state in zip(np.ndindex(batch, num_heads), states if head else [], strict=False):
        present[0, b, n], present[1, b, n] = state
    return y, present


def _seen(mask: Any, b: int, i: int, j: int, batch: int, total: int) -> bool:
    """Whether a mask lets sequence `b` see place `j` from place `i`."""
    if mask is None or (mask.ndim == 2 and mask.shape != (batch, total)):
        return True
    if mask.ndim == 1:
        return bool(j < mask[b] and (len(mask) == batch or j >= mask[batch + b]))
    return bool((mask[b, j] if mask.ndim == 2 else mask[b, i, j]) > 0)


OPS: dict[str, Callable[..., Any]] = {
    "Attention": _attention,
    "BiasGelu": _bias_gelu,
    "EmbedLayerNormalization": _embed_layer_normalization,
    "SkipLayerNormalization": _skip_layer_normalization,
}
"""Oracles of the layer ``Op`` by operation."""
