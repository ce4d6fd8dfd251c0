"""Reductions and normalization: sums, means, softmax, layer normalization, ArgMax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, checked, expect_dtype, one_of
from systolic.layers.host._inputs import FLOATS, NUMBERS, Listed, lowest, normal_axes, normal_axis
from systolic.layers.host._parts import by_parts, elementwise, parts
from systolic.layers.host.shaping import Identity
from systolic.layers.record import DELEGATE, OperatorRecord

# Function, types taken, and what it is of the numbers.
_REDUCE: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...], str]] = {
    "ReduceMax": (np.max, NUMBERS, "Maximum"),
    "ReduceMean": (np.sum, FLOATS, "Mean"),
    "ReduceMin": (np.min, NUMBERS, "Minimum"),
    "ReduceProd": (np.prod, NUMBERS, "Product"),
    "ReduceSum": (np.sum, NUMBERS, "Sum"),
}

REDUCE = tuple(_REDUCE)
"""What :class:`Reduce` computes."""


def _greatest(dtype: np.dtype) -> float | int:
    return np.inf if dtype.kind == "f" else int(np.iinfo(dtype).max)


# The result for an empty set.
_NONE = {"ReduceMax": lowest, "ReduceMin": _greatest}


def _saturated(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert whole float64 numbers to an integer type, saturating; NaN becomes the smallest."""
    limits = np.iinfo(dtype)
    # 2^63 - 1 is not representable in float64: it becomes 2^63, which is beyond the type.
    inside = (values > float(limits.min)) & (values < float(limits.max))
    result = np.where(inside, values, 0).astype(dtype)
    result[~inside] = np.where(values[~inside] >= float(limits.max), limits.max, limits.min)
    return result


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Listed):
    """Reduce over axes.

    Reads x and, where `axes` is None, optionally the axes (none of them: all).

    Parameters
    ----------
    operation : str
        "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd" or "ReduceSum"; tables show it as the
        layer's kind.
    axes : sequence of int or None
        None is those that it reads, or all; negative ones count from the end.
    keepdims : bool
        Whether the axes stay, with size 1.

    Notes
    -----
    The ONNX operators of those names. Sums, products and means are computed in float64 and rounded once, to
    integers by saturating, as ONNX Runtime does. It sums float32 and float16 in float32, in an order that
    depends on the processor, so that its result differs by up to about n / 2 units in the last place of
    the sum of magnitudes of n numbers (commonly by 1 or 2). For an empty set the maximum is minus infinity
    or the type's smallest number, the minimum the opposite, and the mean 0. NaN propagates.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Reduce
    >>> Reduce("ReduceMean", (-1,)).apply(np.float32([[1, 2], [3, 5]]))
    array([[1.5],
           [4. ]], dtype=float32)
    """

    _none_read: ClassVar[None] = None

    operation: str = one_of(REDUCE)
    axes: Sequence[int] | None = None
    keepdims: bool = field(default=True, kw_only=True)

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def _sized(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        axes = self._normal(shape, given)
        sizes = [1 if axis in axes else size for axis, size in enumerate(shape)]
        return tuple(size for axis, size in enumerate(sizes) if self.keepdims or axis not in axes)

    def _dtype(self, dtype: str, *axes: str) -> str:
        return expect_dtype(self, dtype, _REDUCE[self.operation][1], f" for {self.operation}")

    def _kernel(self, shape: Shape, x: np.ndarray, *read: Sequence[int]) -> np.ndarray:
        axes = self._normal(x.shape, self._list(*read))
        function, most = _REDUCE[self.operation][0], self.operation in _NONE
        options = {"initial": _NONE[self.operation](x.dtype)} if most else {"dtype": np.float64}
        count = math.prod(x.shape[axis] for axis in axes) if self.operation == "ReduceMean" else 1

        def reduced(part: np.ndarray) -> np.ndarray:
            result = np.asarray(function(part, axis=axes, keepdims=True, **options))
            if count > 1:
                result /= count
            return result if most or x.dtype.kind == "f" else _saturated(result, x.dtype)

        left = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        return by_parts(reduced, left, x.dtype, x, axes, moved=True).reshape(shape)

    def _normal(self, shape: Shape, given: Sequence[int] | None) -> tuple[int, ...]:
        return normal_axes(self, range(len(shape)) if given is None else given, len(shape))


@dataclass(frozen=True, eq=False, repr=False)
class ArgMax(HostLayer):
    """Return the index of the maximum along an axis: ONNX operator ArgMax.

    Parameters
    ----------
    axis : int
    keepdims : bool
        Whether the axis stays, with size 1.
    last : bool
        Whether, of equal numbers, the last counts instead of the first.

    Notes
    -----
    As in ONNX Runtime, NaN is not larger than any number, and no number is larger than a leading NaN: then
    the index is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import ArgMax
    >>> ArgMax(1, keepdims=False).apply(np.int8([[1, 5, 5], [4, 3, 2]]))
    array([1, 0])
    """

    types: ClassVar[tuple[str, ...]] = NUMBERS

    axis: int = 0
    keepdims: bool = field(default=True, kw_only=True)
    last: bool = field(default=False, kw_only=True)

    def _shape(self, shape: Shape) -> Shape:
        axis = normal_axis(self, self.axis, len(shape))
        if not shape[axis]:
            raise ValueError(f"ArgMax takes at least one number along axis {axis}, not {_check.shape(shape)}")
        return (*shape[:axis], *((1,) if self.keepdims else ()), *shape[axis + 1 :])

    def _dtype(self, dtype: str) -> str:
        super()._dtype(dtype)
        return "int64"

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        axis = self.axis % x.ndim

        def places(part: np.ndarray) -> np.ndarray:
            numbers = part
            if x.dtype.kind == "f" and np.isnan(part).any():
                numbers = part == np.fmax.reduce(part, axis=axis, keepdims=True)
            found = np.argmax(np.flip(numbers, axis) if self.last else numbers, axis=axis, keepdims=True)
            if self.last:
                found = x.shape[axis] - 1 - found
            if numbers is not part:
                found = np.where(np.isnan(np.take(part, [0], axis)), 0, found)
            return found

        left = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return by_parts(places, left, np.int64, x, (axis,), moved=True).reshape(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(HostLayer):
    """Softmax along an axis: ``exp(x - max) / sum(exp(x - max))``.

    Parameters
    ----------
    axis : int
    flatten : bool
        Whether `axis` and all behind it are one, as in ONNX before opset 13.

    Notes
    -----
    ONNX operator Softmax. Computed in float64 and rounded once; ONNX Runtime works in float32 with
    an exp of its own and comes within about 1e-6 of it, relative.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Softmax
    >>> Softmax().apply(np.float32([0, 0]))
    array([0.5, 0.5], dtype=float32)
    """

    types: ClassVar[tuple[str, ...]] = FLOATS

    axis: int = -1
    flatten: bool = field(default=False, kw_only=True)

    def _shape(self, shape: Shape) -> Shape:
        normal_axis(self, self.axis, len(shape))
        return shape

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        if not x.size:
            return np.array(x)
        axis = self.axis % x.ndim
        if self.flatten:
            x, axis = x.reshape(math.prod(shape[:axis]), -1), 1

        def shares(part: np.ndarray) -> np.ndarray:
            wide = part.astype(np.float64)
            wide -= wide.max(axis=axis, keepdims=True)
            np.exp(wide, out=wide)
            wide /= wide.sum(axis=axis, keepdims=True)
            return wide

        return by_parts(shares, x.shape, x.dtype, x, (axis,)).reshape(shape)


def _epsilon(value: Any, name: str) -> float:
    epsilon = _check.real(value, name)
    if not epsilon >= 0:
        raise ValueError(f"{name} must be a number of at least 0, not {_check.kind(value)}")
    return epsilon


@dataclass(frozen=True, eq=False, repr=False)
class LayerNormalization(HostLayer):
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` over the axes from `axis` on.

    Reads x, scale and, if there is one, bias; writes y, the means and ``1 / sqrt(variance + epsilon)``.

    Parameters
    ----------
    axis : int
    epsilon : float

    Notes
    -----
    ONNX operator LayerNormalization with ``stash_type=1``. Computed in float64 and rounded once; ONNX
    Runtime's float32 sums come within about 1e-5 of y where x has variance 1 (the difference grows
    with mean / deviation).

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import LayerNormalization
    >>> y, mean, _ = LayerNormalization(epsilon=0.0).apply(np.float32([[1, 3]]), np.float32([1, 1]))
    >>> y, mean
    (array([[-1.,  1.]], dtype=float32), array([[2.]], dtype=float32))
    """

    inputs: ClassVar[None] = None
    some: ClassVar[tuple[int, int]] = 2, 3
    outputs: ClassVar[int] = 3
    types: ClassVar[tuple[str, ...]] = "float32", "float16"

    axis: int = -1
    epsilon: float = checked(_epsilon, 1e-5)

    def _shape(self, shape: Shape, *rest: Shape) -> tuple[Shape, Shape, Shape]:
        axis = normal_axis(self, self.axis, len(shape))
        for name, other in zip(("scale", "bias"), rest, strict=False):
            last = shape[max(len(shape) - len(other), 0) :]
            if len(other) > len(shape) or any(b not in (1, a) for a, b in zip(last, other, strict=True)):
                raise ValueError(
                    f"LayerNormalization takes a {name} that broadcasts to x {_check.shape(shape)}, "
                    f"not {_check.shape(other)}"
                )
        left = (*shape[:axis], *[1] * (len(shape) - axis))
        return shape, left, left

    def _dtype(self, dtype: str, *rest: str) -> tuple[str, str, str]:
        super()._dtype(dtype)
        for other in rest:
            expect_dtype(self, other, (dtype,), ", x's type")
        return dtype, "float32", "float32"

    def _kernel(
        self, shapes: tuple[Shape, ...], x: np.ndarray, *rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        axes = tuple(range(self.axis % x.ndim, x.ndim))
        count = np.float64(math.prod(x.shape[axis] for axis in axes))
        y = np.empty(x.shape, x.dtype)
        means, inverses = (np.empty(shapes[1], np.float32) for _ in range(2))
        scale, *bias = (np.broadcast_to(each, x.shape) for each in rest)
        for part in parts(x.shape, axes):
            wide = x[part].astype(np.float64)
            mean = wide.sum(axis=axes, keepdims=True) / count
            wide -= mean
            variance = (wide * wide).sum(axis=axes, keepdims=True) / count
            inverse = 1.0 / np.sqrt(variance + self.epsilon)
            wide *= inverse
            wide *= scale[part]
            if bias:
                wide += bias[0][part]
            few = tuple(slice(None) if axis in axes else each for axis, each in enumerate(part))
            y[part], means[few], inverses[few] = wide, mean, inverse
        return y, means, inverses


@dataclass(frozen=True, eq=False, repr=False)
class BatchNormalization(HostLayer):
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` per channel, with stored statistics.

    Reads x (batch, channel, ...), then scale, bias, mean and variance, one number per channel each.

    Parameters
    ----------
    epsilon : float

    Notes
    -----
    ONNX operator BatchNormalization at inference, in float32 and in the order of ONNX Runtime: with
    ``s = scale * (1 / sqrt(variance + epsilon))`` it is ``x * s + (bias - mean * s)``, each operation
    rounded separately.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import BatchNormalization
    >>> x, one, zero = np.float32([[1, 2]]), np.float32([1, 1]), np.float32([0, 0])
    >>> BatchNormalization(epsilon=0.0).apply(x, one, zero, one, 4 * one)
    array([[0. , 0.5]], dtype=float32)
    """

    inputs: ClassVar[int] = 5

    epsilon: float = checked(_epsilon, 1e-5)

    def _shape(self, shape: Shape, *rest: Shape) -> Shape:
        if len(shape) < 2:
            raise ValueError(f"BatchNormalization takes x (batch, channel, ...), not {_check.shape(shape)}")
        for name, other in zip(("scale", "bias", "mean", "variance"), rest, strict=True):
            if other != (shape[1],):
                raise ValueError(
                    f"BatchNormalization takes a {name} of {shape[1]} channels, as x {_check.shape(shape)} "
                    f"has, not {_check.shape(other)}"
                )
        return shape

    def _dtype(self, *dtypes: str) -> str:
        for dtype in dtypes:
            expect_dtype(self, dtype, ("float32",))
        return "float32"

    def _kernel(self, shape: Shape, x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        scale, bias, mean, variance = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in rest)
        scale = scale * (np.float32(1) / np.sqrt(variance + np.float32(self.epsilon)))
        return elementwise(lambda x, s, b: x * s + b, np.float32, x, scale, bias - mean * scale)


def _read_reduce(op: Any) -> Any:
    op.only("axes", "keepdims", "noop_with_empty_axes")
    dtype, computed = op.dtypes[op.inputs[0]], op.computed(1)
    axes = None if computed else op.listed("axes", 1)
    if op.attribute("noop_with_empty_axes", 0):
        if computed:
            return DELEGATE
        if not axes:
            return Identity(), op.inputs[:1]
    if dtype == "bool" or (op.op_type == "ReduceMean" and dtype not in FLOATS):
        return DELEGATE
    layer = Reduce(op.op_type, axes or None, keepdims=bool(op.attribute("keepdims", 1)))
    return layer, op.inputs[: 2 if computed else 1]


def _read_softmax(op: Any) -> Any:
    op.only("axis")
    if op.opset < 13:
        return Softmax(op.attribute("axis", 1), flatten=True), op.inputs
    return Softmax(op.attribute("axis", -1)), op.inputs


def _write_softmax(out: Any, node: Any, layer: Softmax) -> None:
    if layer.flatten:
        out.until(node, 12)
    else:
        out.since(node, 13)
    out.node(node, "Softmax", node.inputs, axis=layer.axis)


def _training(op: Any) -> bool:
    """Whether a BatchNormalization is of other numbers than ours, or in training mode."""
    # Before opset 14 a node with further outputs is in training mode.
    training = op.attribute("training_mode", 0) or any(op.outputs[1:])
    rank = op.shape(0)
    return bool(
        training or {op.dtypes[name] for name in op.inputs} != {"float32"} or (rank and len(rank) < 2)
    )


OPERATORS = (
    *(
        OperatorRecord(
            Reduce,
            f"{what} over axes.",
            name=name,
            inputs=("x", "axes?"),
            attributes={"axes": None, "keepdims": True},
            became_inputs={"axes": (13 if name == "ReduceSum" else 18, 1)},
            read=_read_reduce,
        )
        for name, (_, _, what) in _REDUCE.items()
    ),
    OperatorRecord(
        Softmax,
        "exp(x) / sum(exp(x)) along an axis.",
        attributes={"axis": -1},
        history={13: "axes behind `axis` are no longer part of the sum"},
        read=_read_softmax,
        write=_write_softmax,
    ),
    OperatorRecord(
        ArgMax,
        "Index of the largest element along an axis.",
        attributes={"axis": 0, "keepdims": True, "select_last_index": False},
        fields={"select_last_index": "last"},
        history={11: "negative axes", 12: "select_last_index"},
    ),
    OperatorRecord(
        BatchNormalization,
        "Normalize each channel by stored statistics.",
        inputs=("x", "scale", "bias", "mean", "variance"),
        attributes={"epsilon": 1e-5},
        ignored=("momentum", "spatial", "training_mode"),
        delegated=_training,
        terse=("epsilon",),
    ),
    OperatorRecord(
        LayerNormalization,
        "Normalize over the last axes.",
        inputs=("x", "scale", "bias?"),
        outputs=("y", "mean?", "inverse_deviation?"),
        attributes={"axis": -1, "epsilon": 1e-5},
        ignored=("stash_type",),
        delegated=lambda op: (
            op.attribute("stash_type", 1) != 1 or op.dtypes[op.inputs[0]] not in LayerNormalization.types
        ),
        terse=("epsilon",),
        since=17,
    ),
)
