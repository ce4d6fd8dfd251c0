"""Pooling over any number of axes: maxima of any numbers, means of floats and of codes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _host, quant
from systolic.layers.base import HostLayer, Shape, integers, one_of
from systolic.layers.geometry import Pair, Window, put_window, window
from systolic.layers.host._inputs import FLOATS, lowest
from systolic.layers.host._parts import by_parts
from systolic.layers.host.qlinear_table import OnCodes
from systolic.layers.record import REQUIRED, OperatorRecord, contrib
from systolic.quant import QuantParams, to_codes
from systolic.threads import thread_count

Taps = dict[int, tuple[slice, slice]]


@dataclass(frozen=True, eq=False, repr=False)
class Pool(HostLayer):
    """Base of the pools: a window over the axes between batch and channels, or behind both."""

    kernel: Sequence[int]
    stride: int | Sequence[int] | None = field(default=None, kw_only=True)
    padding: int | Sequence[int | Pair] | str | None = field(default=None, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)

    # Fields of some of them.
    channels_last = False
    count_include_pad = False

    def __post_init__(self) -> None:
        if self.kernel is None:
            raise TypeError("kernel must be a sequence of integers, one per axis of the window, not None")
        object.__setattr__(self, "kernel", integers(self.kernel, "kernel", 1))
        if not self.kernel:
            raise ValueError("kernel must have at least one size, one per axis of the window")
        put_window(self, len(self.kernel))
        pairs: Any = () if isinstance(self.padding, str) else self.padding
        if any(max(pads) >= size for pads, size in zip(pairs, self.kernel, strict=False)):
            # ONNX Runtime refuses it too: windows wholly in the padding would have no element.
            raise ValueError(
                f"padding must be smaller than the kernel {self.kernel}, not {self.padding}; pad the "
                "input itself where windows wholly outside it are meant"
            )
        super().__post_init__()

    @property
    def _first(self) -> int:
        """The first axis of the window."""
        return 1 if self.channels_last else 2

    def _shape(self, shape: Shape) -> Any:
        return self._outputs(shape, self._window(shape))

    def _outputs(self, shape: Shape, win: Window) -> Shape:
        return (*shape[: self._first], *win.out, *shape[self._first + len(win.out) :])

    def _window(self, shape: Shape) -> Window:
        """Return the window over an input of this shape."""
        rank = len(self.kernel)
        image = shape[self._first : self._first + rank]
        if len(shape) != rank + 2 or 0 in image:
            axes = "(batch, ..., channels)" if self.channels_last else "(batch, channels, ...)"
            raise ValueError(
                f"{self.kind} over {rank} spatial axes takes {axes} of {rank + 2} axes, those of the window "
                f"not empty, not {_check.shape(shape)}"
            )
        return window(
            image, self.kernel, self.stride, getattr(self, "dilation", None), self.padding,  # type: ignore[arg-type]
            ceil_mode=self.ceil_mode, pool=True,
        )  # fmt: skip

    def _counts(self, inside: Iterable[Any]) -> np.ndarray:
        """Return the elements of each window, spread along the channels, from those along each axis."""
        counts = np.ones(())
        for along in inside:
            counts = np.multiply.outer(counts, along)
        return counts[..., np.newaxis] if self.channels_last else counts


def add_up(real: np.ndarray, sums: np.ndarray, first: int, places: Iterable[Taps]) -> np.ndarray:
    """Add the elements of each window to its sum, in window order; `first` is the first axis."""
    around = (slice(None),) * first
    # A padding element would add 0, which changes no sum.
    for parts in itertools.product(*(found.values() for found in places)):
        outs, elements = zip(*parts, strict=True)
        sums[(*around, *outs)] += real[(*around, *elements)]
    return sums


def largest_along(x: np.ndarray, axis: int, outputs: int, places: Taps) -> np.ndarray:
    """Return the maxima of all windows along one axis, as a new array; NaN propagates."""
    out = np.full((*x.shape[:axis], outputs, *x.shape[axis + 1 :]), lowest(x.dtype), x.dtype)
    before = (slice(None),) * axis
    for outs, elements in places.values():
        part = out[(*before, outs)]
        np.maximum(part, x[(*before, elements)], out=part)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Pool):
    """The maximum of each window, over any number of axes; its place too if `indices` asks for it.

    Parameters
    ----------
    kernel : sequence of int
        The window's size along each axis behind batch and channels.
    stride, dilation : int or sequence of int
        Step of the window, and between its elements; 1 by default.
    padding : int, sequence of int or (before, after), "same", "same_lower" or "valid"
        Elements around the input, fewer than the kernel's; no number is smaller.
    ceil_mode : bool
        Whether a last, incomplete window counts.
    channels_last : bool
        Whether the channels are the last axis, not the second.
    indices : {None, "row", "column"}
        How the places of a second output are counted, through batch, channels and the window's axes: with
        the last axis fastest, or with the first. None: no second output.

    Notes
    -----
    ONNX operator MaxPool on float32, float64, float16, int8 or uint8; channels are second there. Quantized
    values need no parameters: their order is that of the numbers. NaN spreads. With `indices` a
    NaN counts only where it is the first of its window, and of equal numbers the first does.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import MaxPool
    >>> x = np.int8([[[3, 1, 4, 1, 5, 9]]])
    >>> MaxPool((2,), stride=2).apply(x)
    array([[[3, 4, 9]]], dtype=int8)
    >>> MaxPool((2,), stride=2, indices="row").apply(x)
    (array([[[3, 4, 9]]], dtype=int8), array([[[0, 2, 5]]]))
    """

    types: ClassVar[tuple[str, ...]] = (*FLOATS, "int8", "uint8")

    dilation: int | Sequence[int] | None = field(default=None, kw_only=True)
    channels_last: bool = field(default=False, kw_only=True)
    indices: str | None = one_of(("row", "column"), None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.indices is not None and self.channels_last:
            raise ValueError("indices are of inputs whose channels are the second axis")

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """2 with `indices`, else 1."""
        return 1 if self.indices is None else 2

    def _shape(self, shape: Shape) -> Any:
        outputs = super()._shape(shape)
        return outputs if self.indices is None else (outputs, outputs)

    def _dtype(self, dtype: str) -> Any:
        super()._dtype(dtype)
        return dtype if self.indices is None else (dtype, "int64")

    def _kernel(self, shape: Any, x: np.ndarray) -> Any:
        win = self._window(x.shape)
        if self.indices is not None:
            return self._with_places(shape[0], x, win)
        rank = len(win.out)
        if rank == 2 and not self.channels_last and x.dtype.char in "bB" and x.flags.c_contiguous:
            out = np.empty(shape, x.dtype)
            _host.max_pool(x, out, win.kernel, win.stride, win.dilation, win.before, threads=thread_count())
            return out
        places = [win.taps(axis) for axis in range(rank)]

        def largest(part: np.ndarray) -> np.ndarray:
            # A maximum over a window is one along each of its axes, one after the other.
            for axis in range(rank):
                part = largest_along(part, self._first + axis, win.out[axis], places[axis])
            return part

        axes = range(self._first, self._first + rank)
        # Use larger parts for channels that are innermost: they are better not split.
        return by_parts(largest, shape, x.dtype, x, axes, moved=self.channels_last)

    def _with_places(self, shape: Shape, x: np.ndarray, win: Window) -> tuple[np.ndarray, np.ndarray]:
        size = x.shape[2:]
        places = np.arange(math.prod(size)).reshape(size, order="C" if self.indices == "row" else "F")
        planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(size)) * math.prod(size)
        # Padding has no place, and is never larger.
        best = np.full(shape, lowest(x.dtype), x.dtype)
        where = np.full(shape, -1, np.int64)
        for parts in itertools.product(*(win.taps(axis).values() for axis in range(len(size)))):
            outs, elements = ((slice(None), slice(None), *each) for each in zip(*parts, strict=True))
            number, place = x[elements], places[elements[2:]]
            better = (number > best[outs]) | (where[outs] < 0)
            np.copyto(best[outs], number, where=better)
            np.copyto(where[outs], place, where=better)
        return best, where + planes


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool(Pool):
    """The mean of each window of floats, over any number of axes.

    Parameters
    ----------
    kernel, stride, padding, dilation, ceil_mode
        As for :class:`MaxPool`; padding is zeros.
    count_include_pad : bool
        Whether the padding counts; what lies beyond it, where only `ceil_mode` reaches, never does.

    Notes
    -----
    ONNX operator AveragePool on float32, float64 or float16; :class:`QLinearAveragePool` is for quantized
    values. Summed in float64 and rounded once; ONNX Runtime sums in float32, which differs by a few units in
    the last place of the sum of magnitudes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import AveragePool
    >>> AveragePool((2,), stride=2).apply(np.float32([[[1, 5, 3, 4]]]))
    array([[[3. , 3.5]]], dtype=float32)
    """

    types: ClassVar[tuple[str, ...]] = FLOATS

    dilation: int | Sequence[int] | None = field(default=None, kw_only=True)
    count_include_pad: bool = field(default=False, kw_only=True)

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        win = self._window(x.shape)
        rank = len(win.out)
        # Elements that "same" crops at the end are reached by windows of `ceil_mode` alone.
        ends = [size + after for size, (_, after) in zip(win.image, win.pads, strict=True)]
        inner = win._replace(image=tuple(map(min, win.image, ends)))
        spans = [(0, size) for size in inner.image]
        if self.count_include_pad:
            spans = [(-before, end) for before, end in zip(win.before, ends, strict=True)]
        counts = self._counts(win.inside(axis, *span) for axis, span in enumerate(spans))
        places = [inner.taps(axis) for axis in range(rank)]

        def means(part: np.ndarray) -> np.ndarray:
            sums = add_up(part, np.zeros((*part.shape[:2], *shape[2:]), np.float64), 2, places)
            return np.divide(sums, counts, out=sums)

        return by_parts(means, shape, x.dtype, x, range(2, x.ndim))


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool(HostLayer):
    """The mean of each channel's whole image: ONNX operator GlobalAveragePool on floats.

    Notes
    -----
    Summed in float64 and rounded once; ONNX Runtime sums in float32, which differs by a few units in
    the last place of the sum of magnitudes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import GlobalAveragePool
    >>> GlobalAveragePool().apply(np.float32([[[[1, 2], [3, 6]]]]))
    array([[[[3.]]]], dtype=float32)
    """

    types: ClassVar[tuple[str, ...]] = FLOATS

    def _shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or 0 in shape[2:]:
            raise ValueError(
                "GlobalAveragePool takes (batch, channels, ...) with at least one element per channel, "
                f"not {_check.shape(shape)}"
            )
        return (*shape[:2], *[1] * (len(shape) - 2))

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        axes, count = tuple(range(2, x.ndim)), math.prod(x.shape[2:])
        return by_parts(
            lambda part: part.sum(axis=axes, keepdims=True, dtype=np.float64) / count,
            shape, x.dtype, x, axes,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class QLinearAveragePool(Pool, OnCodes):
    """The quantized mean of each window over one or more spatial axes.

    In float32, every operation rounded by itself, the sum in window order, the last axis innermost::

        v = sum of f32(x.scale * (q - x.zero));  v = f32(v / count)
        y = sat(rne(f32(f32(v / y.scale) + y.zero)))            # zero point before rounding

    A window that is the whole unpadded input is computed as :class:`QLinearGlobalAveragePool` does.

    Parameters
    ----------
    kernel, stride, padding, ceil_mode
        As for :class:`MaxPool`; padding is real 0.
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    count_include_pad : bool
        Whether `count` is the kernel's size everywhere, or only the elements inside the input.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAveragePool, which takes 1 to 3 spatial axes. With `ceil_mode` and
    `count_include_pad` it counts the whole kernel, including elements beyond the padding. A mean of 2^31
    codes or more, infinite or NaN gives the smallest code, because of the conversion to int32 on x86.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearAveragePool
    >>> x = np.int8([[[0, 1, 1, 2, 2, 3, 1, 4]]])
    >>> QLinearAveragePool((2,), QuantParams(1.0), QuantParams(1.0, 1), stride=2).apply(x)
    array([[[2, 2, 4, 4]]], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    count_include_pad: bool = field(default=False, kw_only=True)
    channels_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._expect_params()
        super().__post_init__()

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        win = self._window(x.shape)
        rank = len(win.out)
        if win.image == win.kernel and not any(map(any, win.pads)):
            return _mean_of_all(x, self.x, self.y, tuple(range(self._first, self._first + rank)))
        inside = win.kernel
        if not self.count_include_pad:
            inside = [win.inside(axis, 0, size) for axis, size in enumerate(win.image)]
        counts = self._counts(inside).astype(np.float32)
        places, out = [win.taps(axis) for axis in range(rank)], np.empty(shape, x.dtype)
        # One by one along the batch, so that float32 copies stay small.
        for index in range(len(x)):
            real = quant.dequantize(x[index : index + 1], self.x)
            means = add_up(real, np.zeros((1, *shape[1:]), np.float32), self._first, places)
            np.divide(means, counts, out=means)
            np.divide(means, self.y.scales, out=means)
            to_codes(means, self.y.zero_points, out[index : index + 1], zero_first=True)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class QLinearGlobalAveragePool(OnCodes):
    """The quantized mean of each channel over all its n elements.

    In steps::

        acc = sum(q) - n * x.zero;  m = f32(x.scale / f32(y.scale * n))
        y   = sat(rne(f32(f32(acc) * m)) + y.zero)              # zero point after rounding

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    channels_last : bool
        Whether the channels are the last axis, not the second.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearGlobalAveragePool, which refuses an m outside 2^-32 .. 256; here such
    an m is computed with like any other.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QLinearGlobalAveragePool
    >>> x = np.int8([[[0, 1], [1, 2], [2, 3], [1, 4]]])
    >>> QLinearGlobalAveragePool(QuantParams(1.0), QuantParams(1.0, 1)).apply(x).ravel()
    array([1, 3, 3, 3], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    channels_last: bool = field(default=False, kw_only=True)

    def _shape(self, shape: Shape) -> Shape:
        axes = self._axes(shape)
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return _mean_of_all(x, self.x, self.y, self._axes(x.shape))

    def _axes(self, shape: Shape) -> Shape:
        """Return the spatial axes; ValueError if the shape has none, or one is empty."""
        axes = tuple(range(1, len(shape) - 1)) if self.channels_last else tuple(range(2, len(shape)))
        if len(shape) < 3 or not all(shape[axis] for axis in axes):
            raise ValueError(
                "QLinearGlobalAveragePool takes batch, channels and spatial axes of at least one element, "
                f"not {_check.shape(shape)}"
            )
        return axes


def _mean_of_all(x: np.ndarray, x_params: QuantParams, y_params: QuantParams, axes: Shape) -> np.ndarray:
    count = math.prod(x.shape[axis] for axis in axes)
    if axes[0] == 2 and x.flags.c_contiguous:
        sums = np.empty(math.prod(x.shape[:2]), np.int32)
        _host.sum_rows(x.reshape(len(sums), count), sums)
        sums = sums.reshape(*x.shape[:2], *[1] * len(axes))
    else:
        sums = x.sum(axis=axes, keepdims=True, dtype=np.int64)
    # The cast wraps to int32 as an accumulator does.
    acc = (sums - np.int64(count) * x_params.zero_points).astype(np.int32)
    with np.errstate(over="ignore", under="ignore"):
        m = x_params.scales / (y_params.scales * np.float32(count))
    (zero_point,) = y_params.zero_points.reshape(1).tolist()
    return quant.requantize(acc, m, zero_point, dtype=y_params.dtype)


def _read_max_pool(op: Any) -> Any:
    op.only(*_MAX_POOL.attributes)
    given = _MAX_POOL.given(op)
    order = "column" if given.pop("storage_order") else "row"
    places = len(op.outputs) > 1 and (op.outputs[1] or op.graph.noted)
    return MaxPool(**given, indices=order if places else None), op.inputs[:1]


def _write_max_pool(out: Any, node: Any, layer: MaxPool) -> None:
    if layer.channels_last:
        raise out.refuse(node, "ONNX's MaxPool takes channels second, not last")
    _MAX_POOL.write_fields(out, node, layer, storage_order=1 if layer.indices == "column" else None)


def _read_average_pool(op: Any) -> Any:
    rank = len(op.integers("kernel_shape", ()))
    if not 1 <= rank <= 3:
        raise op.refuse(f"a window of {rank} dimensions; supported are 1 to 3")
    return _QLINEAR_POOL.read_fields(op)


WINDOW: dict[str, Any] = {
    "kernel_shape": REQUIRED, "auto_pad": "NOTSET", "pads": None, "strides": None, "ceil_mode": False,
}  # fmt: skip
"""Attributes of all pools."""

_MAX_POOL = OperatorRecord(
    MaxPool,
    "Maximum of each window; optionally its place.",
    outputs=("y", "indices?"),
    attributes={**WINDOW, "dilations": None, "storage_order": 0},
    history={8: "indices", 10: "ceil_mode and dilations", 12: "int8 and uint8", 22: "bfloat16"},
    read=_read_max_pool,
    write=_write_max_pool,
)

_QLINEAR_POOL = contrib(
    QLinearAveragePool,
    "Mean of each window of quantized values.",
    inputs=("x", "x_scale", "x_zero_point?", "y_scale", "y_zero_point?"),
    attributes={**WINDOW, "count_include_pad": False, "channels_last": False},
    read=_read_average_pool,
)

OPERATORS = (
    _MAX_POOL,
    OperatorRecord(
        AveragePool,
        "Mean of each window of floats.",
        attributes={**WINDOW, "dilations": None, "count_include_pad": False},
        history={7: "count_include_pad", 10: "ceil_mode", 19: "dilations", 22: "bfloat16"},
    ),
    OperatorRecord(GlobalAveragePool, "Mean of each channel's image."),
    _QLINEAR_POOL,
    contrib(
        QLinearGlobalAveragePool,
        "Mean of each channel's quantized values.",
        inputs=("x", "x_scale", "x_zero_point", "y_scale", "y_zero_point"),
        attributes={"channels_last": False},
    ),
)
