"""Operators of com.microsoft that transformers are exported with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.layers.base import Shape
from systolic.layers.host import _special
from systolic.layers.host._parts import elementwise
from systolic.layers.host.normalize import LayerNormalization
from systolic.layers.host.op import define
from systolic.layers.record import MICROSOFT


def _bias_shape(x: Shape, bias: Shape) -> Shape:
    if bias != x[-1:]:
        raise ValueError(
            f"BiasGelu takes a bias {x[-1:]}, one number per element of x's last axis, not {bias}"
        )
    return x


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return elementwise(lambda part: _special.in_double(_special.gelu, part), x.dtype, x + bias)


def _skip_shape(x: Shape, skip: Shape, *rows: Shape | None, epsilon: float) -> tuple[Shape, ...]:
    kind = "SkipLayerNormalization"
    if len(x) not in (2, 3) or skip not in (x, (1, *x[1:]), x[1:]) or len(skip) < 2:
        raise ValueError(
            f"{kind} takes x (batch, length, n) or (length, n), and a skip of its shape or of one batch, "
            f"not {_check.shape(x)} and {_check.shape(skip)}"
        )
    _expect_rows(kind, x[-1], rows)
    return x, (*x[:-1], 1), (*x[:-1], 1), x


def _expect_rows(kind: str, size: int, rows: Sequence[Shape | None]) -> None:
    for row in rows:
        if row is not None and row != (size,):
            raise ValueError(f"{kind} takes gamma, beta and bias ({size},), not {_check.shape(row)}")


def _skip_dtype(*dtypes: str | None, epsilon: float) -> tuple[str, ...]:
    found = set(dtypes) - {None}
    if found not in ({"float32"}, {"float16"}):
        raise TypeError(
            f"SkipLayerNormalization takes float32 or float16, not {' and '.join(map(str, found))}"
        )
    return (str(dtypes[0]), "float32", "float32", str(dtypes[0]))


def _skip(
    x: np.ndarray,
    skip: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray | None,
    bias: np.ndarray | None,
    *,
    epsilon: float,
) -> tuple[np.ndarray, ...]:
    total = x.astype(np.float32) + skip.astype(np.float32)
    if bias is not None:
        total = total + bias.astype(np.float32)
    rows = (gamma,) if beta is None else (gamma, beta)
    layer = LayerNormalization(epsilon=epsilon)
    y, mean, inverse = layer.apply(total, *(row.astype(np.float32) for row in rows))
    return y.astype(x.dtype), mean, inverse, total.astype(x.dtype)


def _embed_shape(
    ids: Shape,
    segments: Any,
    words: Shape,
    positions: Shape,
    segment: Any,
    gamma: Shape,
    beta: Shape,
    mask: Any,
    places: Any,
    **options: Any,
) -> tuple[Shape, ...]:
    kind = "EmbedLayerNormalization"
    if len(ids) != 2 or any(other is not None and other != ids for other in (segments, mask)):
        raise ValueError(f"{kind} takes input_ids, segment_ids and mask (batch, length) of one shape")
    if places is not None and places not in (ids, (1, ids[1])):
        raise ValueError(f"{kind} takes position_ids {_check.shape(ids)} or (1, {ids[1]})")
    for table in (words, positions, segment):
        if table is not None and (len(table) != 2 or table[1] != words[-1]):
            raise ValueError(f"{kind} takes tables (entries, n) of one n, not {_check.shape(table)}")
    if segments is not None and segment is None:
        raise ValueError(f"{kind} takes segment_ids with a segment_embedding")
    if places is None and ids[1] > positions[0]:
        raise ValueError(f"{kind} takes up to {positions[0]} positions, not {ids[1]}")
    _expect_rows(kind, words[1], (gamma, beta))
    return (*ids, words[1]), ids[:1], (*ids, words[1])


def _embed_dtype(*dtypes: Any, **options: Any) -> tuple[str, ...]:
    for place, dtype in enumerate(dtypes):
        wanted = "int32" if place in (0, 1, 7, 8) else "float32"
        if dtype not in (None, wanted):
            raise TypeError(f"EmbedLayerNormalization takes {wanted} as input {place}, not {dtype}")
    return "float32", "int32", "float32"


def _embed(
    ids: np.ndarray,
    segments: np.ndarray | None,
    words: np.ndarray,
    positions: np.ndarray,
    segment: np.ndarray | None,
    gamma: np.ndarray,
    beta: np.ndarray,
    mask: np.ndarray | None,
    places: np.ndarray | None,
    *,
    epsilon: float,
    mask_index_type: int,
) -> tuple[np.ndarray, ...]:
    def rows(table: np.ndarray, at: np.ndarray) -> np.ndarray:
        if at.size and not (at.min() >= 0 and at.max() < len(table)):
            raise ValueError(f"EmbedLayerNormalization takes indices in 0..{len(table) - 1}")
        return table[at]

    total = rows(words, ids) + rows(positions, np.arange(ids.shape[1]) if places is None else places)
    if segment is not None:
        total = total + rows(segment, np.zeros_like(ids) if segments is None else segments)
    seen = np.zeros(len(ids), np.int32) if mask is None else (mask == 1).sum(axis=1, dtype=np.int32)
    return LayerNormalization(epsilon=epsilon).apply(total, gamma, beta)[0], seen, total


OPERATORS = (
    define(
        "BiasGelu",
        "Gelu of the sum of x and a bias along the last axis.",
        domain=MICROSOFT,
        inputs=("x", "bias"),
        kernel=_bias_gelu,
        shape=_bias_shape,
    ),
    define(
        "EmbedLayerNormalization",
        "Normalized sum of the embeddings of words, positions and segments.",
        domain=MICROSOFT,
        inputs=(
            "input_ids",
            "segment_ids?",
            "word_embedding",
            "position_embedding",
            "segment_embedding?",
            "gamma",
            "beta",
            "mask?",
            "position_ids?",
        ),
        outputs=("y", "mask_index?", "embedding_sum?"),
        attributes={"epsilon": 1e-12, "mask_index_type": 0},
        kernel=_embed,
        shape=_embed_shape,
        dtype=_embed_dtype,
    ),
    define(
        "SkipLayerNormalization",
        "Normalize the sum of two tensors and a bias over the last axis.",
        domain=MICROSOFT,
        inputs=("x", "skip", "gamma", "beta?", "bias?"),
        outputs=("y", "mean?", "inv_std_var?", "input_skip_bias_sum?"),
        attributes={"epsilon": 1e-12},
        kernel=_skip,
        shape=_skip_shape,
        dtype=_skip_dtype,
    ),
)
