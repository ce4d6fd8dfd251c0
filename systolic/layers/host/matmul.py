"""Float matrix products on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints
from systolic.layers import parameters
from systolic.layers.base import Shape, at_least, expect_dtype, one_of
from systolic.layers.host._inputs import INTEGERS, one_type
from systolic.layers.host._parts import copied
from systolic.layers.host.delegated import FloatProduct, put_weights
from systolic.layers.host.shaping import Transpose
from systolic.layers.record import DELEGATE, MICROSOFT, REQUIRED, OperatorRecord, contrib

_TYPES = ("float32", "float64", "float16", "int32", "uint32", "int64", "uint64")


# MACs per BLAS call: less than a tenth of a second on one core, so that Ctrl-C takes effect soon.
_MACS = 1 << 30

# Smallest number of rows in a block: BLAS packs the whole right matrix for each block.
_ROWS = 128


@dataclass(frozen=True, eq=False, repr=False)
class FloatMatMul(FloatProduct):
    """Compute ``alpha a @ b + beta c`` on plain numbers, as :func:`numpy.matmul` broadcasts.

    Reads a, b and, optionally, c; with a `weight` a alone.

    Parameters
    ----------
    weight : ndarray of float, (K, N), optional
        What b is then: finite, kept as float32. :func:`systolic.quantize_model` makes a
        :class:`QLinearMatMul` of such a layer.
    bias : ndarray of float, (N,), optional
        What c is then.
    activation : {None, "Relu"}
        What follows the sum.
    transpose_a, transpose_b : bool
        Whether the last two axes are swapped first.
    alpha, beta : float
    runtime_constants : tuple of int or None
        None: compute the product here. Otherwise ONNX Runtime computes float32 products where it is
        installed, and inputs of these numbers are constant: its sums depend on what is. It keeps a packed
        copy of those that are read-only, which must never change.

    Raises
    ------
    TypeError, ValueError
        If the weights are not finite floats or lengths do not fit.

    Notes
    -----
    ONNX operators MatMul and Gemm; ONNX Runtime's FusedMatMul and FusedGemm. Products of float32 and
    float16 are computed in float64 and rounded once: within 1 unit in the last place of the true value;
    ONNX Runtime sums in float32, in an order that depends on the processor, and differs by up to about
    k / 2 units in the last place of the sum of magnitudes of k products. Integers wrap; their alpha and
    beta must be 1. A beta of 0 ignores c, even its infinities.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatMatMul
    >>> FloatMatMul(alpha=0.5).apply(np.float32([[1, 2]]), np.float32([[3], [4]]))
    array([[5.5]], dtype=float32)
    >>> FloatMatMul(np.eye(2), np.array([0.5, -2]), activation="Relu").apply(np.float32([[1, 1]]))
    array([[1.5, 0. ]], dtype=float32)
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    activation: str | None = one_of(("Relu",), None, kw_only=True)
    transpose_a: bool = field(default=False, kw_only=True)
    transpose_b: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)
    beta: float = field(default=1.0, kw_only=True)
    runtime_constants: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        put_weights(self, axes="(K, N)", output_axis=1)

    def _shape(self, *shapes: Shape) -> Shape:
        if self.weight is not None and not (self.transpose_a or self.transpose_b):
            return parameters.dense_shape(self, *shapes)
        a, b, *rest = self._whole(shapes, of=np.shape)
        left, right = _swapped(a, self.transpose_a), _swapped(b, self.transpose_b)
        rows, cols = (left, right) if len(left) > 1 else ((1, *left), right)
        cols = cols if len(right) > 1 else (*right, 1)
        try:
            if not left or not right or rows[-1] != cols[-2]:
                raise ValueError
            stack = np.broadcast_shapes(rows[:-2], cols[:-2])
        except ValueError:
            raise ValueError(
                "FloatMatMul takes (..., M, K) and (..., K, N), not "
                f"{_check.shape(left)} and {_check.shape(right)}{_hints.other_product(left, right, 'ab')}"
            ) from None
        shape = (*stack, *rows[-2:-1][: len(left) - 1], *cols[-1:][: len(right) - 1])
        for c in rest:
            padded = (1,) * (len(shape) - len(c)) + c
            if len(c) > len(shape) or any(b not in (1, a) for a, b in zip(shape, padded, strict=True)):
                raise ValueError(
                    f"FloatMatMul takes a c that broadcasts to the product {_check.shape(shape)}, "
                    f"not {_check.shape(c)}"
                )
        return shape

    def _dtype(self, *dtypes: str) -> str:
        name = one_type(self, dtypes, _TYPES if self.weight is None else ("float32",))
        if name not in ("float32", "float64", "float16") and (self.alpha, self.beta) != (1.0, 1.0):
            raise TypeError(f"FloatMatMul takes an alpha and a beta for floats alone, not for {name}")
        return name

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]] | None:
        sums = len(inputs) > 2 or self.activation is not None
        if not (self.transpose_a or self.transpose_b or self.alpha != 1 or sums):
            return "MatMul", {}
        given: dict[str, Any] = {
            "transA": int(self.transpose_a), "transB": int(self.transpose_b), "alpha": self.alpha
        }  # fmt: skip
        if not all(array.ndim == 2 for array in inputs[:2]):
            return None if sums else (f"{MICROSOFT}.FusedMatMul", given)
        given["beta"] = self.beta
        if self.activation is None:
            return "Gemm", given
        return f"{MICROSOFT}.FusedGemm", {**given, "activation": self.activation}

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return how many products each sum of the output has."""
        return _swapped(shapes[0], self.transpose_a)[-1]

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        a, b, *rest = inputs
        a = np.swapaxes(a, -1, -2) if self.transpose_a else a
        b = np.swapaxes(b, -1, -2) if self.transpose_b else b
        result = _product(a, b).reshape(shape)
        if self.alpha != 1:
            result = result * self.alpha
        for c in rest if self.beta else ():
            result = result + (c if self.beta == 1 else c * np.float64(self.beta))
        if self.activation is not None:
            result = np.maximum(result, 0)
        return np.asarray(result).astype(dtype, copy=False)

    @property
    def some(self) -> tuple[int, int]:  # type: ignore[override]
        """The least and the largest number of inputs."""
        return (2, 3) if self.weight is None else (1, 1)


@dataclass(frozen=True, eq=False, repr=False)
class MatMulNBits(FloatProduct):
    """A float product with weights of a few bits, in blocks along K with a scale each.

    Reads x, float32 (..., K); the weights, uint8 (N, blocks, block_size * bits / 8), two of 4 bits in a byte,
    the first in the lower half; scales, float32 (N * blocks,) or (N, blocks); and, if they are named, zero
    points, float32 of the scales' shape or uint8, packed along the blocks of each column; last, with
    `bias`, float32 (N,).

    Parameters
    ----------
    k, n : int
        Rows and columns of the weights.
    bits : {4, 8}
    block_size : int
        Weights along K that share a scale: a power of two, at least 16.
    bias : bool
        Whether the last input is a bias.
    runtime_constants : tuple of int or None
        As for :class:`FloatMatMul`.

    Notes
    -----
    ONNX Runtime's com.microsoft MatMulNBits: ``x @ w.T + bias`` with ``w = (q - zero_point) * scale`` in
    float32; without zero points they are half of 2^bits. Summed in float64 and rounded once, like
    :class:`FloatMatMul`, unless ONNX Runtime computes it. An accuracy_level that lets ONNX Runtime quantize
    x as well is another operator: an :class:`OnnxNode`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import MatMulNBits
    >>> weights = np.full((1, 1, 8), 0x9A, np.uint8)  # 2 and 1 above the zero point 8, by turns
    >>> MatMulNBits(16, 1, block_size=16).apply(np.ones((1, 16), np.float32), weights, np.float32([0.5]))
    array([[12.]], dtype=float32)
    """

    _last: ClassVar[int] = 4

    k: int = at_least(1)
    n: int = at_least(1)
    bits: int = at_least(4, 4, kw_only=True)
    block_size: int = at_least(16, 32, kw_only=True)
    bias: bool = field(default=False, kw_only=True)
    runtime_constants: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        if self.block_size & (self.block_size - 1):
            raise ValueError(f"block_size must be a power of two, not {self.block_size}")

    @property
    def some(self) -> tuple[int, int]:  # type: ignore[override]
        """The least and the largest number of inputs."""
        return 3 + self.bias, 4 + self.bias

    @property
    def _blocks(self) -> int:
        return -(-self.k // self.block_size)

    def _zero_points(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the zero points, or what is said of them, if there are some."""
        return values[3 : len(values) - self.bias]

    def _shape(self, *shapes: Shape) -> Shape:
        zeros = self._zero_points(shapes)
        x, w, scales = shapes[:3]
        if not x or x[-1] != self.k:
            raise ValueError(f"MatMulNBits takes x (..., {self.k}), not {_check.shape(x)}")
        blocks, bits = self._blocks, self.bits
        packed = -(-blocks * bits // 8)
        each: list[Shape] = [(self.n * blocks,), (self.n, blocks)]
        expected: list[tuple[str, Shape, list[Shape]]] = [
            ("weights", w, [(self.n, blocks, self.block_size * bits // 8)]),
            ("scales", scales, each),
            *(("zero points", zero, [*each, (self.n * packed,), (self.n, packed)]) for zero in zeros),
        ]
        if self.bias:
            expected.append(("a bias", shapes[-1], [(self.n,)]))
        for name, given, allowed in expected:
            if given not in allowed:
                raise ValueError(
                    f"MatMulNBits takes {name} {' or '.join(map(_check.shape, allowed))}, not "
                    f"{_check.shape(given)}"
                )
        return (*x[:-1], self.n)

    def _dtype(self, *dtypes: str) -> str:
        for dtype in self._zero_points(dtypes):
            expect_dtype(self, dtype, ("uint8", "float32"), ", as zero points")
        expect_dtype(self, dtypes[1], ("uint8",), ", as weights")
        for dtype in (dtypes[0], dtypes[2], *(dtypes[-1:] if self.bias else ())):
            expect_dtype(self, dtype, ("float32",), ", as x, scales and a bias")
        return "float32"

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return how many products each sum of the output has."""
        return self.k

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]] | None:
        if self.bits == 8 and any(zero.dtype == np.float32 for zero in self._zero_points(inputs)):
            return None  # nor has ONNX Runtime on its CPU provider
        return f"{MICROSOFT}.MatMulNBits", self._attributes

    @property
    def _attributes(self) -> dict[str, Any]:
        return {"K": self.k, "N": self.n, "bits": self.bits, "block_size": self.block_size}

    def _names(self, names: Sequence[str]) -> list[str]:
        zeros = [*self._zero_points(names), ""][:1]
        return [*names[:3], *zeros, "", names[-1]] if self.bias else [*names[:3], *zeros]

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        x, w, scales = inputs[:3]
        codes = self._unpacked(w, self._blocks * self.block_size).reshape(self.n, self._blocks, -1)
        zeros = np.full((self.n, self._blocks), 1 << (self.bits - 1), np.float32)
        for given in self._zero_points(inputs):
            zeros = given if given.dtype == np.float32 else self._unpacked(given, self._blocks)
        weights = codes.astype(np.float32) - zeros.reshape(self.n, self._blocks, 1).astype(np.float32)
        weights *= scales.reshape(self.n, self._blocks, 1)
        result = _product(x, weights.reshape(self.n, -1)[:, : self.k].T).reshape(shape)
        return np.asarray(result + inputs[-1] if self.bias else result).astype(dtype)

    def _unpacked(self, packed: np.ndarray, count: int) -> np.ndarray:
        """Return so many unsigned integers for each column."""
        bytes_ = packed.reshape(self.n, -1)
        if self.bits == 4:
            bytes_ = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(self.n, -1)
        return bytes_[:, :count]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``np.matmul`` of floats as float64, of integers as they are; large ones in blocks."""
    floats = a.dtype.kind == "f"
    wide: Any = np.float64 if floats else a.dtype
    m, k = a.shape[-2:] if a.ndim > 1 else (1, a.shape[0])
    n = b.shape[-1] if b.ndim > 1 else 1
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    most = _MACS if floats else _MACS >> 5  # integers have no BLAS
    if math.prod(stack) * m * k * n <= most:
        return np.asarray(np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False)))
    left, right = a.reshape(*a.shape[:-2], m, k), b.reshape(*b.shape[:-2], k, n)
    left, right = np.broadcast_to(left, (*stack, m, k)), np.broadcast_to(right, (*stack, k, n))
    out = np.empty((*stack, m, n), wide)
    rows = max(1, min(m, most // max(k * n, 1)))
    if rows < _ROWS:
        rows = min(m, _ROWS)
    cols = max(1, min(n, most // max(rows * k, 1)))
    for place in np.ndindex(*stack):
        for col in range(0, n, cols):
            some = copied(right[place][:, col : col + cols], wide)
            for row in range(0, m, rows):
                block = left[place][row : row + rows].astype(wide, copy=False)
                np.matmul(block, some, out=out[place][row : row + rows, col : col + cols])
    return out


def _swapped(shape: Shape, swap: bool) -> Shape:
    if not swap:
        return shape
    if len(shape) < 2:
        raise ValueError(f"FloatMatMul transposes matrices, not {_check.shape(shape)}")
    return (*shape[:-2], shape[-1], shape[-2])


def _read_product(op: Any) -> Any:
    """Return the product of a MatMul, Gemm, FusedMatMul or FusedGemm."""
    options = ("activation",) if op.op_type == "FusedGemm" else ()
    batches = ("transBatchA", "transBatchB") if op.op_type == "FusedMatMul" else ()
    sums = ("beta",) if op.op_type.endswith("Gemm") else ()
    op.only(*(() if op.op_type == "MatMul" else ("alpha", "transA", "transB")), *sums, *batches, *options)
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    activation = op.attribute("activation", None)
    integers = op.dtypes[op.inputs[0]] in INTEGERS
    if activation not in (None, "Relu") or (integers and (alpha, beta) != (1.0, 1.0)):
        return DELEGATE
    read, nodes = list(op.given), []
    for place, name in enumerate(batches):
        if op.attribute(name, 0):
            shape = op.shape(place)
            if shape is None or len(shape) < 2:
                return DELEGATE
            read[place] = op.fresh(f".{'ab'[place]}")
            turned = Transpose((*range(1, len(shape) - 1), 0, len(shape) - 1))
            nodes.append(op.node(turned, (op.inputs[place],), read[place], f".{name}"))
    layer = FloatMatMul(
        transpose_a=bool(op.attribute("transA", 0)),
        transpose_b=bool(op.attribute("transB", 0)),
        alpha=alpha,
        beta=beta if op.has(2) else 1.0,
        activation=activation,
        runtime_constants=op.runtime_constants(),
    )
    return [*nodes, op.node(layer, read, op.outputs[0])] if nodes else (layer, tuple(read))


def _write_product(out: Any, node: Any, layer: FloatMatMul) -> None:
    """Write a MatMul or, if that does not suffice, one of the others."""
    if layer.weight is not None:
        raise out.refuse(node, HELD)
    options: dict[str, Any] = {
        "alpha": layer.alpha if layer.alpha != 1 else None,
        "beta": layer.beta if layer.beta != 1 else None,
        "transA": layer.transpose_a or None,
        "transB": layer.transpose_b or None,
    }
    sums = len(node.inputs) > 2 or options["beta"] is not None or layer.activation is not None
    shapes = [out.shape(name) for name in node.inputs[:2]]
    if not sums and all(value is None for value in options.values()):
        out.node(node, "MatMul", node.inputs)
    elif not sums and any(shape is None or len(shape) != 2 for shape in shapes):
        del options["beta"]
        out.node(node, "FusedMatMul", node.inputs, MICROSOFT, **options)
    else:
        why = "with a third tensor, beta or an activation it is a Gemm"
        out.expect_matrices(node, why, *node.inputs[:2])
        fused = layer.activation is not None
        options["activation"] = layer.activation
        out.node(node, "FusedGemm" if fused else "Gemm", node.inputs, MICROSOFT if fused else "", **options)


HELD = "it holds its weights: write one that reads them"
"""Why a product that holds its weights is not written."""


def _read_nbits(op: Any) -> Any:
    level, bits = op.attribute("accuracy_level", 0), op.attribute("bits", 4)
    known = {"K", "N", "accuracy_level", "bits", "block_size"} >= set(op.attributes)
    if level > 1 or bits not in (4, 8) or op.has(4) or not known or op.dtypes[op.inputs[0]] != "float32":
        return DELEGATE
    layer = MatMulNBits(
        op.attributes["K"], op.attributes["N"], bits=bits, block_size=op.attributes["block_size"],
        bias=op.has(5), runtime_constants=op.runtime_constants("uint8"),
    )  # fmt: skip
    return layer, op.given


def _write_nbits(out: Any, node: Any, layer: MatMulNBits) -> None:
    out.node(node, "MatMulNBits", layer._names(node.inputs), MICROSOFT, **layer._attributes)


_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}

OPERATORS = (
    OperatorRecord(
        FloatMatMul,
        "Product of matrices or stacks of them.",
        name="MatMul",
        inputs=("a", "b"),
        read=_read_product,
        write=_write_product,
    ),
    OperatorRecord(
        FloatMatMul,
        "Product of two matrices, scaled, plus a third.",
        name="Gemm",
        inputs=("a", "b", "c?"),
        attributes=_GEMM,
        since=7,
        history={11: "c may be absent"},
        read=_read_product,
        write=_write_product,
    ),
    contrib(
        FloatMatMul,
        "Product of matrices or stacks of them, transposed or scaled.",
        name="FusedMatMul",
        inputs=("a", "b"),
        attributes={"alpha": 1.0, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0},
        read=_read_product,
        write=_write_product,
    ),
    contrib(
        FloatMatMul,
        "Gemm, and an activation behind it.",
        name="FusedGemm",
        inputs=("a", "b", "c?"),
        attributes={**_GEMM, "activation": None},
        read=_read_product,
        write=_write_product,
    ),
    contrib(
        MatMulNBits,
        "Product with weights of 4 or 8 bits, in blocks with a scale each.",
        inputs=("a", "b", "scales", "zero_points?", "g_idx?", "bias?"),
        attributes={"K": REQUIRED, "N": REQUIRED, "bits": 4, "block_size": REQUIRED, "accuracy_level": 0},
        read=_read_nbits,
        write=_write_nbits,
    ),
)
