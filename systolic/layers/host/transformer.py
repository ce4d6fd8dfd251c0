"""Operators of com.microsoft that transformers are exported with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.layers.base import Shape
from systolic.layers.host import _functions
from systolic.layers.host._parts import elementwise
from systolic.layers.host.normalize import LayerNormalization
from systolic.layers.host.op import define
from systolic.layers.record import REQUIRED


def _bias_shape(x: Shape, bias: Shape) -> Shape:
    if bias != x[-1:]:
        raise ValueError(
            f"BiasGelu takes a bias {x[-1:]}, one number per element of x's last axis, not {bias}"
        )
    return x


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return elementwise(lambda part: _functions.in_double(_functions.gelu, part), x.dtype, x + bias)


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


# Attention

ATTRIBUTES: dict[str, Any] = {
    "num_heads": REQUIRED, "unidirectional": 0, "mask_filter_value": -10000.0, "scale": 0.0, "do_rotary": 0,
    "past_present_share_buffer": 0,
}  # fmt: skip
"""What the two operators have in common."""

_LOWEST = np.finfo(np.float32).min


class Sizes(NamedTuple):
    """Of an attention: `query` and `value` are sums over the heads, `past` the length of the past state."""

    batch: int
    length: int
    query: int
    value: int
    past: int


def attention_sizes(
    kind: str,
    x: Shape,
    w: Shape,
    bias: Shape | None,
    mask: Shape | None,
    past: Shape | None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] = (),
    unidirectional: int = 0,
    do_rotary: int = 0,
    past_present_share_buffer: int = 0,
    **others: Any,
) -> Sizes:
    """Return the sizes that follow from the shapes; ValueError if they or the attributes do not fit."""
    if do_rotary or past_present_share_buffer:
        name = "do_rotary" if do_rotary else "past_present_share_buffer"
        raise ValueError(f"{kind}: {name} is not supported, as on ONNX Runtime's CPU provider")
    if num_heads < 1:
        raise ValueError(f"{kind}: num_heads must be at least 1, not {num_heads}")
    if len(x) != 3 or len(w) != 2 or w[0] != x[2]:
        raise ValueError(
            f"{kind}: x must be (batch, length, k) and the weights (k, n), "
            f"not {_check.shape(x)} and {_check.shape(w)}"
        )
    if bias is not None and bias != w[1:]:
        raise ValueError(f"{kind}: the bias must be {_check.shape(w[1:])}, not {_check.shape(bias)}")
    sizes = tuple(qkv_hidden_sizes) or (w[1] // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != w[1] or sizes[0] != sizes[1] or any(n % num_heads for n in sizes):
        raise ValueError(
            f"{kind}: {w[1]} columns of weights are no query, key and value of {num_heads} heads, {sizes}"
        )
    batch, length = x[:2]
    before = 0
    if past is not None:
        head = sizes[0] // num_heads
        if len(past) != 5 or past[:3] != (2, batch, num_heads) or past[4] != head or sizes[0] != sizes[2]:
            raise ValueError(
                f"{kind}: past must be (2, {batch}, {num_heads}, length, {head}), not {_check.shape(past)}"
            )
        before = past[3]
    total = before + length
    masks = ((batch,), (2 * batch,), (batch, total), (batch, 1), (1, 1), (batch, length, total))
    if mask is not None and mask not in masks:
        wanted = " or ".join(map(_check.shape, dict.fromkeys(masks)))
        raise ValueError(f"{kind}: mask_index must be {wanted}, not {_check.shape(mask)}")
    return Sizes(batch, length, sizes[0], sizes[2], before)


def attend(
    qkv: np.ndarray,
    sizes: Sizes,
    mask: np.ndarray | None,
    past: np.ndarray | None,
    bias: np.ndarray | None,
    *,
    num_heads: int,
    unidirectional: int,
    mask_filter_value: float,
    scale: float,
    **others: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the output (batch, length, value) and the present state; rows of `qkv` are query, key and value.

    Scores with the bias are rounded to float32, and again with the mask, as in ONNX Runtime: of a row that is
    masked as a whole this leaves few digits. All else is float64.
    """
    q, k, v = (
        part.reshape(sizes.batch, sizes.length, num_heads, part.shape[-1] // num_heads).swapaxes(1, 2)
        for part in np.split(qkv, (sizes.query, 2 * sizes.query), axis=-1)
    )
    if past is not None:
        k, v = (np.concatenate([old, new], axis=2) for old, new in zip(past, (k, v), strict=True))
    factor = np.float32(scale) or np.float32(1) / np.sqrt(np.float32(q.shape[-1]))
    scores = np.matmul(q.astype(np.float64), k.swapaxes(-1, -2).astype(np.float64)) * factor
    if bias is not None:
        scores += bias
    added = _added(sizes, mask, unidirectional, np.float32(mask_filter_value))
    if added is not None:
        scores = scores.astype(np.float32) + added
    scores = scores.astype(np.float32).astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    y = np.matmul(weights, v.astype(np.float64)).swapaxes(1, 2)
    y = y.reshape(sizes.batch, sizes.length, sizes.value).astype(np.float32)
    return y, np.stack([k, v]) if k.shape == v.shape else np.empty((2, *k.shape[:-1], 0), np.float32)


def _added(
    sizes: Sizes, mask: np.ndarray | None, unidirectional: int, filtered: np.float32
) -> np.ndarray | None:
    """Return what masks add to the scores, (batch, 1, length or 1, total); None if nothing."""
    total = sizes.past + sizes.length
    causal = bool(unidirectional) and sizes.length > 1
    if mask is not None and mask.ndim == 2 and mask.shape != (sizes.batch, total):
        mask = None  # (batch, 1) and (1, 1) mask nothing
    if mask is None and not causal:
        return None
    places = np.arange(total)
    if mask is None:
        seen = np.ones((sizes.batch, 1, total), bool)
    elif mask.ndim == 1:  # ends, then starts
        ends, starts = np.split(mask, [sizes.batch])
        seen = places < ends[:, np.newaxis]
        if starts.size:
            seen &= places >= starts[:, np.newaxis]
        seen = seen[:, np.newaxis]
    else:
        seen = (mask > 0).reshape(sizes.batch, mask.shape[1] if mask.ndim == 3 else 1, total)
    added = np.where(seen, np.float32(0), filtered)
    if causal:
        later = places > sizes.past + np.arange(sizes.length)[:, np.newaxis]
        added = np.where(later, _LOWEST, added)
    return added[:, np.newaxis]


def _attention_sizes(
    x: Any, w: Any, bias: Any, mask: Any, past: Any, added: Any, old: Any, **options: Any
) -> Sizes:
    sizes = attention_sizes("Attention", x, w, bias, mask, past, **options)
    if added is not None:
        heads, total = options["num_heads"], sizes.past + sizes.length
        allowed = [(b, n, sizes.length, total) for b in (sizes.batch, 1) for n in (heads, 1)]
        if past is not None or added not in allowed:
            raise ValueError(
                f"Attention: attention_bias must be {_check.shape(allowed[0])}, the first two may be 1, "
                f"and without past, not {_check.shape(added)}"
            )
    return sizes


def _attention_shape(*shapes: Any, num_heads: int, **options: Any) -> tuple[Shape, ...]:
    sizes = _attention_sizes(*shapes, num_heads=num_heads, **options)
    return output_shapes(sizes, num_heads)


def output_shapes(sizes: Sizes, num_heads: int) -> tuple[Shape, ...]:
    """Return the shapes of the output and of the present state: none if keys and values differ in size."""
    head = sizes.query // num_heads if sizes.query == sizes.value else 0
    state = (2, sizes.batch, num_heads, sizes.past + sizes.length, head)
    return (sizes.batch, sizes.length, sizes.value), state


def _attention_dtype(*dtypes: Any, **options: Any) -> tuple[str, str]:
    for place, dtype in enumerate(dtypes):
        wanted = "int32" if place in (3, 6) else "float32"
        if dtype not in (None, wanted):
            raise TypeError(f"Attention takes {wanted} as input {place}, not {dtype}")
    return "float32", "float32"


def _attention(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, mask: Any, past: Any, added: Any, old: Any,
    **options: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    shapes = [None if value is None else value.shape for value in (x, w, bias, mask, past, added, old)]
    sizes = _attention_sizes(*shapes, **options)
    qkv = np.matmul(x.astype(np.float64), w.astype(np.float64))
    if bias is not None:
        qkv += bias
    return attend(qkv.astype(np.float32), sizes, mask, past, added, **options)


OPERATORS = (
    define(
        "Attention",
        "Attention of heads over a sequence, with the products that make query, key and value.",
        inputs=("x", "w", "bias?", "mask_index?", "past?", "attention_bias?", "past_sequence_length?"),
        outputs=("y", "present?"),
        attributes={**ATTRIBUTES, "qkv_hidden_sizes": (), "rotary_embedding_dim": 0},
        kernel=_attention,
        shape=_attention_shape,
        dtype=_attention_dtype,
    ),
    define(
        "BiasGelu",
        "Gelu of the sum of x and a bias along the last axis.",
        inputs=("x", "bias"),
        kernel=_bias_gelu,
        shape=_bias_shape,
    ),
    define(
        "EmbedLayerNormalization",
        "Normalized sum of the embeddings of words, positions and segments.",
        inputs=(
            "input_ids", "segment_ids?", "word_embedding", "position_embedding", "segment_embedding?",
            "gamma", "beta", "mask?", "position_ids?",
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
        inputs=("x", "skip", "gamma", "beta?", "bias?"),
        outputs=("y", "mean?", "inv_std_var?", "input_skip_bias_sum?"),
        attributes={"epsilon": 1e-12},
        kernel=_skip,
        shape=_skip_shape,
        dtype=_skip_dtype,
    ),
)
