"""Attention whose queries, keys and values are products of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import OptionalInputs, Shape, Steps, at_least, checked, float32
from systolic.layers.host.transformer import ATTRIBUTES, Sizes, attend, attention_sizes, output_shapes
from systolic.layers.record import contrib
from systolic.lowered import Epilogue, lower_matmul


@dataclass(frozen=True, eq=False, repr=False)
class QAttention(OptionalInputs):
    """Attention of heads over a sequence; queries, keys and values are one product of integers.

    It reads x (batch, length, k), uint8; the weights w (k, 3 * n), int8 or uint8; a bias (3 * n,), float32;
    x_scale, one number, and w_scale, one number or one per column, (3 * n,); and those of the optional inputs
    that `given` names. It writes the output (batch, length, n) and the present state, keys and values
    (2, batch, heads, past + length, n / heads).

    Parameters
    ----------
    num_heads : int
    unidirectional : bool
        Whether each place sees only those before it and itself.
    mask_filter_value : float
        What is added to the score of a masked place.
    scale : float
        Of the scores; 0 is ``1 / sqrt(n / heads)``.
    given : sequence of str
        Which of "mask_index", "x_zero_point", "w_zero_point" and "past" it reads, in this order. A mask is
        int32: (batch,), the ends of the sequences; (2 * batch,), ends, then starts; or numbers above 0 where
        a place is seen, (batch, past + length) or (batch, length, past + length).

    Notes
    -----
    ONNX Runtime's com.microsoft QAttention: the integer product is scaled as ``f32(f32(f32(acc) *
    f32(xs * ws)) + bias)``, which fixes every bit. Scores and their softmax are float there too, summed in an
    order that depends on the processor; here they are summed in float64.

    Examples
    --------
    >>> from systolic.layers import QAttention
    >>> layer = QAttention(4, given=("x_zero_point", "w_zero_point"))
    >>> shapes = (2, 5, 16), (16, 48), (48,), (), (), (), ()
    >>> layer.output_shape(*shapes), layer.products(*shapes)
    (((2, 5, 16), (2, 2, 4, 5, 4)), Gemm(10, 16, 48))
    """

    outputs: ClassVar[int] = 2
    may_read: ClassVar[tuple[str, ...]] = (
        "x", "w", "bias", "x_scale", "w_scale", "mask_index?", "x_zero_point?", "w_zero_point?", "past?",
    )  # fmt: skip

    num_heads: int = at_least(1)
    unidirectional: bool = field(default=False, kw_only=True)
    mask_filter_value: float = checked(float32, -10000.0, kw_only=True)
    scale: float = checked(float32, 0.0, kw_only=True)
    given: Sequence[str] = field(default=(), kw_only=True)

    def _sizes(self, shapes: Sequence[Shape]) -> Sizes:
        found = self._take(shapes)
        x, w = found["x"], found["w"]
        for name in ("x_scale", "x_zero_point"):
            parameters.expect_single(self.kind, name, found.get(name, ()))
        sizes = attention_sizes(
            self.kind, x, w, found["bias"], found.get("mask_index"), found.get("past"),
            num_heads=self.num_heads,
        )  # fmt: skip
        for name in ("w_scale", "w_zero_point"):
            parameters.expect_per_channel(self.kind, name, found.get(name, ()), w[1])
        return sizes

    def output_shape(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Return the shapes of the output and of the present state."""
        return output_shapes(self._sizes(shapes), self.num_heads)

    def output_dtype(self, *dtypes: str) -> tuple[str, ...]:
        """Return "float32" for each output."""
        found = self._take([_check.dtype_name(np.dtype(dtype)) for dtype in dtypes])
        parameters.expect_codes(self.kind, "w", found["w"])
        wanted = {"x": "uint8", "x_zero_point": "uint8", "w_zero_point": found["w"], "mask_index": "int32"}
        for name, dtype in found.items():
            if name != "w" and dtype != wanted.get(name, "float32"):
                raise TypeError(f"{self.kind}: {name} must hold {wanted.get(name, 'float32')}, not {dtype}")
        return "float32", "float32"

    def products(self, *shapes: Shape) -> Gemm:
        """Return the product that makes queries, keys and values."""
        sizes = self._sizes(shapes)
        return Gemm(sizes.batch * sizes.length, *shapes[1])

    def steps(self, *inputs: np.ndarray) -> Steps:
        """Yield the product; return the output and the present state."""
        self.output_dtype(*(tensor.dtype.name for tensor in inputs))
        sizes = self._sizes([tensor.shape for tensor in inputs])
        found = self._take(inputs)
        with np.errstate(all="ignore"):
            scale = _one_or_each(found["x_scale"].reshape(()) * found["w_scale"])
        zeros: dict[str, Any] = {
            f"{name}_zero": parameters.zero_term(_one_or_each(found[f"{name}_zero_point"]))
            for name in "xw"
            if f"{name}_zero_point" in found
        }
        epilogue = Epilogue(scale=scale, float_bias=found["bias"], dtype="float32", **zeros)
        rows = found["x"].reshape(sizes.batch * sizes.length, len(found["w"]))
        qkv = yield lower_matmul(rows, found["w"], epilogue)
        with np.errstate(all="ignore"):
            return attend(
                qkv, sizes, found.get("mask_index"), found.get("past"), None,
                num_heads=self.num_heads, unidirectional=self.unidirectional,
                mask_filter_value=self.mask_filter_value, scale=self.scale,
            )  # fmt: skip


def _one_or_each(values: np.ndarray) -> np.ndarray:
    return values.reshape(()) if values.size == 1 else values


def _read(op: Any) -> tuple[QAttention, tuple[str, ...]]:
    op.only(*_RECORD.attributes)
    fields = _RECORD.given(op)
    for name in ("do_rotary", "past_present_share_buffer"):
        if fields.pop(name):
            raise op.refuse(f"{name} is not supported, as on ONNX Runtime's CPU provider")
    fields["unidirectional"] = bool(fields["unidirectional"])
    return QAttention(**fields, given=_RECORD.optional(op)), op.given


_RECORD = contrib(
    QAttention,
    "Attention whose query, key and value are one product of integers.",
    inputs=QAttention.may_read,
    outputs=("y", "present?"),
    attributes=ATTRIBUTES,
    terse=tuple(ATTRIBUTES),
    read=_read,
)

OPERATORS = (_RECORD,)
