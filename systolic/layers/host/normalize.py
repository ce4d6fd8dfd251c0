"""Reductions and normalization: sums, means, softmax, layer normalization, ArgMax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._inputs import (
    expect_dtype,
    lowest,
    normal_axes,
    normal_axis,
    take,
    take_some,
)
from systolic.layers.host._kinds import Axes
from systolic.layers.host._parts import by_parts, elementwise, parts
from systolic.layers.host.arithmetic import FLOATS, NUMBERS
from systolic.layers.record import OperatorRecord

# Function and types taken.
_REDUCE: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...]]] = {
    "ReduceMax": (np.max, NUMBERS),
    "ReduceMean": (np.sum, FLOATS),
    "ReduceMin": (np.min, NUMBERS),
    "ReduceProd": (np.prod, NUMBERS),
    "ReduceSum": (np.sum, NUMBERS),
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
class Reduce(Axes):
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

    operation: str
    axes: Sequence[int] | None = None
    keepdims: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        _check.choice(self.operation, "operation", REDUCE)
        super().__post_init__()
        object.__setattr__(self, "keepdims", _check.flag(self.keepdims, "keepdims"))

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    def _shape(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        axes = self._normal(shape, given)
        sizes = [1 if axis in axes else size for axis, size in enumerate(shape)]
        return tuple(size for axis, size in enumerate(sizes) if self.keepdims or axis not in axes)

    def output_dtype(self, *dtypes: str) -> str:
        """Return x's type."""
        dtype = super().output_dtype(*dtypes)
        return expect_dtype(self, dtype, _REDUCE[self.operation][1], f" for {self.operation}")

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the numbers that are left."""
        x, *_ = self._take(inputs)
        dtype, axes = (
            self.output_dtype(*(a.dtype.name for a in inputs)),
            self._normal(x.shape, self._given(inputs)),
        )
        function, most = _REDUCE[self.operation][0], self.operation in _NONE
        options = {"initial": _NONE[self.operation](x.dtype)} if most else {"dtype": np.float64}
        count = math.prod(x.shape[axis] for axis in axes) if self.operation == "ReduceMean" else 1

        def reduced(part: np.ndarray) -> np.ndarray:
            result = np.asarray(function(part, axis=axes, keepdims=True, **options))
            if count > 1:
                result /= count
            return result if most or x.dtype.kind == "f" else _saturated(result, x.dtype)

        left = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        with np.errstate(all="ignore"):
            found = by_parts(reduced, left, dtype, x, axes, moved=True)
        return found.reshape(self._shape(x.shape, axes))

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

    axis: int = 0
    keepdims: bool = field(default=True, kw_only=True)
    last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))
        for name in ("keepdims", "last"):
            object.__setattr__(self, name, _check.flag(getattr(self, name), name))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape with the axis gone or of size 1."""
        (shape,) = take(self, shapes)
        axis = normal_axis(self, self.axis, len(shape))
        if not shape[axis]:
            raise ValueError(f"ArgMax takes at least one number along axis {axis}, not {_check.shape(shape)}")
        return (*shape[:axis], *((1,) if self.keepdims else ()), *shape[axis + 1 :])

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int64"."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, NUMBERS)
        return "int64"

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return indices along the axis."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype.name)
        shape, axis = self.output_shape(x.shape), normal_axis(self, self.axis, x.ndim)

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

    axis: int = -1
    flatten: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))
        object.__setattr__(self, "flatten", _check.flag(self.flatten, "flatten"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        normal_axis(self, self.axis, len(shape))
        return tuple(shape)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type, a float."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, FLOATS)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the shares."""
        (x,) = take(self, inputs)
        dtype, shape = self.output_dtype(x.dtype.name), self.output_shape(x.shape)
        if not x.size:
            return np.array(x)
        axis = normal_axis(self, self.axis, x.ndim)
        if self.flatten:
            x, axis = x.reshape(math.prod(shape[:axis]), -1), 1

        def shares(part: np.ndarray) -> np.ndarray:
            wide = part.astype(np.float64)
            wide -= wide.max(axis=axis, keepdims=True)
            np.exp(wide, out=wide)
            wide /= wide.sum(axis=axis, keepdims=True)
            return wide

        with np.errstate(all="ignore"):
            return by_parts(shares, x.shape, dtype, x, (axis,)).reshape(shape)


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
    outputs: ClassVar[int] = 3

    axis: int = -1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))
        object.__setattr__(self, "epsilon", _epsilon(self.epsilon))

    def output_shape(self, *shapes: Shape) -> tuple[Shape, Shape, Shape]:
        """Return the shapes of y (the input's), of the means and of the inverse deviations."""
        shape, *rest = take_some(self, shapes, 2, 3)
        axis = normal_axis(self, self.axis, len(shape))
        for name, other in zip(("scale", "bias"), rest, strict=False):
            last = shape[max(len(shape) - len(other), 0) :]
            if len(other) > len(shape) or any(b not in (1, a) for a, b in zip(last, other, strict=True)):
                raise ValueError(
                    f"LayerNormalization takes a {name} that broadcasts to x {_check.shape(shape)}, "
                    f"not {_check.shape(other)}"
                )
        left = (*shape[:axis], *[1] * (len(shape) - axis))
        return tuple(shape), left, left

    def output_dtype(self, *dtypes: str) -> tuple[str, str, str]:
        """Return the types of y (the input's) and of the means and inverse deviations: float32."""
        first, *rest = take_some(self, dtypes, 2, 3)
        name = expect_dtype(self, first, ("float32", "float16"))
        for other in rest:
            expect_dtype(self, other, (name,), ", x's type")
        return name, "float32", "float32"

    def apply(self, *inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return y, means and inverse deviations."""
        x, scale, *bias = take_some(self, inputs, 2, 3)
        self.output_shape(*(array.shape for array in inputs))
        self.output_dtype(*(array.dtype.name for array in inputs))
        axes = tuple(range(normal_axis(self, self.axis, x.ndim), x.ndim))
        count = np.float64(math.prod(x.shape[axis] for axis in axes))
        left = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        y = np.empty(x.shape, x.dtype)
        means, inverses = (np.empty(left, np.float32) for _ in range(2))
        scale, *bias = (np.broadcast_to(each, x.shape) for each in (scale, *bias))
        with np.errstate(all="ignore"):
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

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", _epsilon(self.epsilon))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return x's shape."""
        shape, *rest = take_some(self, shapes, 5, 5)
        if len(shape) < 2:
            raise ValueError(f"BatchNormalization takes x (batch, channel, ...), not {_check.shape(shape)}")
        for name, other in zip(("scale", "bias", "mean", "variance"), rest, strict=True):
            if tuple(other) != (shape[1],):
                raise ValueError(
                    f"BatchNormalization takes a {name} of {shape[1]} channels, as x {_check.shape(shape)} "
                    f"has, not {_check.shape(other)}"
                )
        return tuple(shape)

    def output_dtype(self, *dtypes: str) -> str:
        """Return float32, the type of everything it reads."""
        for dtype in take_some(self, dtypes, 5, 5):
            expect_dtype(self, dtype, ("float32",))
        return "float32"

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the normalized x."""
        self.output_shape(*(array.shape for array in inputs))
        self.output_dtype(*(array.dtype.name for array in inputs))
        x, *rest = inputs
        scale, bias, mean, variance = (
            array.reshape(-1, *[1] * (x.ndim - 2)).astype(np.float32) for array in rest
        )
        with np.errstate(all="ignore"):
            scale = scale * (np.float32(1) / np.sqrt(variance + np.float32(self.epsilon)))
            return elementwise(lambda x, s, b: x * s + b, np.float32, x, scale, bias - mean * scale)


def _epsilon(value: Any) -> float:
    epsilon = _check.real(value, "epsilon")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be a number of at least 0, not {_check.kind(value)}")
    return epsilon


OPERATORS = (
    OperatorRecord(
        name="ArgMax",
        help="Index of the largest element along an axis.",
        layers=(ArgMax,),
        attributes={"axis": 0, "keepdims": True, "select_last_index": False},
        fields={"select_last_index": "last"},
        history={11: "negative axes", 12: "select_last_index"},
    ),
    OperatorRecord(
        name="BatchNormalization",
        help="Normalize each channel by stored statistics.",
        layers=(BatchNormalization,),
        inputs=("x", "scale", "bias", "mean", "variance"),
        attributes={"epsilon": 1e-5},
        terse=("epsilon",),
    ),
    OperatorRecord(
        name="LayerNormalization",
        help="Normalize over the last axes.",
        layers=(LayerNormalization,),
        inputs=("x", "scale", "bias?"),
        outputs=("y", "mean?", "inverse_deviation?"),
        # A stored attribute is float32; the operator's default is not.
        attributes={"axis": -1, "epsilon": 1e-5},
        terse=("epsilon",),
        since=17,
    ),
)
