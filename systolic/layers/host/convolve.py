"""Float convolutions and transposed convolutions on the host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic._memory import require_array
from systolic.layers.base import HostLayer, Shape
from systolic.layers.conv import Convolution
from systolic.layers.geometry import MOST_PIXELS, Pair, Window, paddings, taps
from systolic.layers.host._inputs import expect_dtype, take_some
from systolic.layers.host.arithmetic import FLOATS
from systolic.layers.host.delegated import FloatProduct

# Elements of a matrix of patches: 4 megabytes, which stay in cache.
_PATCHES = 1 << 19


class _Convolution(Convolution, HostLayer):
    """Base of both: x, w and a bias of one float type."""

    inputs: ClassVar[None] = None

    def _operands(self, shapes: Sequence[Shape], axes: str) -> tuple[Shape, Shape]:
        """Return the shapes of x and w, of as many axes."""
        x, w, *_ = take_some(self, shapes, 2, 3)
        self._expect_rank(x, w, axes)
        return x, w

    def _expect_bias(self, shapes: Sequence[Shape], oc: int) -> None:
        for bias in shapes[2:]:
            if tuple(bias) != (oc,):
                raise ValueError(
                    f"{self.kind}: bias must have one value per output channel, ({oc},), "
                    f"not {_check.shape(bias)}"
                )

    def output_dtype(self, *dtypes: str) -> str:
        """Return the type of all inputs."""
        first, *rest = take_some(self, dtypes, 2, 3)
        name = expect_dtype(self, first, FLOATS)
        for dtype in rest:
            expect_dtype(self, dtype, (name,), ", the first input's type")
        return name

    def _finished(self, sums: np.ndarray, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return float64 sums, (batch, groups, oc // groups, ...), with bias, as numbers of x's type."""
        y = sums.reshape(len(sums), sums.shape[1] * sums.shape[2], *sums.shape[3:])
        for bias in inputs[2:]:
            y += bias.astype(np.float64).reshape(-1, *[1] * (y.ndim - 2))
        return y.astype(inputs[0].dtype)


@dataclass(frozen=True, eq=False, repr=False)
class FloatConv(FloatProduct, _Convolution):
    """A float convolution over 1, 2 or 3 axes; the weights are an input.

    It reads x (batch, ic, ...), w (oc, ic // groups, ...) and, optionally, a bias (oc,), of one type.

    Parameters
    ----------
    stride, padding, dilation, groups
        As for :class:`ConvInteger`.
    runtime_constants : tuple of int or None
        As for :class:`FloatMatMul`.

    Notes
    -----
    ONNX operator Conv on float32, float64 or float16. Products are summed in float64, patch by patch as
    matrix products, and rounded once: within 1 unit in the last place of the true value for float32 and
    float16. ONNX Runtime sums in the type itself, in an order that depends on the processor, and differs
    by up to about k / 2 units in the last place of the sum of magnitudes of k products; no bits are
    fixed. :class:`FloatConv2d` holds its weights and is what :func:`systolic.quantize_model` takes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatConv
    >>> FloatConv(stride=2).apply(np.float32([[[1, 2, 3, 4, 5]]]), np.float32([[[0.5, 0.25, 0.25]]]))
    array([[[1.75, 3.75]]], dtype=float32)
    """

    runtime_constants: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _Convolution.__post_init__(self)
        super().__post_init__()

    def _window(self, shapes: Sequence[Shape]) -> Window:
        return self._window_over(*self._operands(shapes, "(oc, ic // groups, ...)"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, ...)."""
        out = self._window(shapes).out
        self._expect_bias(shapes, shapes[1][0])
        return (shapes[0][0], shapes[1][0], *out)

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]]:
        window = self._window([array.shape for array in inputs])
        # Written out, since it refuses auto_pad where there is a dilation.
        pads = [pair[end] for end in (0, 1) for pair in window.pads]
        return "Conv", {
            "group": self.groups, "strides": window.stride, "dilations": window.dilation, "pads": pads,
        }  # fmt: skip

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return the size of a kernel."""
        return math.prod(shapes[1][1:])

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        batch, oc = shape[:2]
        x, w = inputs[:2]
        window = self._window([array.shape for array in inputs])
        icg = w.shape[1]
        images = x.reshape(batch, self.groups, icg, *x.shape[2:])
        weight = w.astype(np.float64).reshape(self.groups, oc // self.groups, icg, *window.kernel)
        require_array((batch, *weight.shape[:2], *window.out), "float64", f"{self.kind}: the sums")
        sums = np.zeros((batch, *weight.shape[:2], *window.out))
        with np.errstate(all="ignore"):
            numbers = self.groups * icg * math.prod(window.kernel) * math.prod(window.out)
            for number in range(batch):
                image = images[number].astype(np.float64)
                for lines in _blocks(window.out[0], numbers):
                    self._add_lines(image, weight, window, lines, sums[number, :, :, lines])
            return self._finished(sums, inputs)

    def _add_lines(
        self, image: np.ndarray, weight: np.ndarray, window: Window, lines: slice, sums: np.ndarray
    ) -> None:
        """Add the products along some lines of the output, with their patches as a matrix.

        If the patches of one line are too many, process the taps of the kernel in blocks.
        """
        groups, ocg, icg = weight.shape[:3]
        kernel, out = math.prod(window.kernel), sums.shape[2:]
        flat = weight.reshape(groups, ocg, icg, kernel)
        places = [window.taps(axis, None if axis else lines) for axis in range(len(out))]
        for part in _blocks(kernel, groups * icg * kernel * math.prod(out)):
            patches = np.zeros((groups, icg, part.stop - part.start, *out))
            for tap in range(part.start, part.stop):
                offsets = [int(offset) for offset in np.unravel_index(tap, window.kernel)]
                if all(map(dict.__contains__, places, offsets)):
                    outs, elements = zip(*map(dict.__getitem__, places, offsets), strict=True)
                    patches[_at(..., tap - part.start, *outs)] = image[_at(..., *elements)]
            depth = icg * (part.stop - part.start)
            product = flat[..., part].reshape(groups, ocg, depth) @ patches.reshape(groups, depth, -1)
            sums += product.reshape(sums.shape)


@dataclass(frozen=True, eq=False, repr=False)
class FloatConvTranspose(_Convolution):
    """A transposed float convolution over 1, 2 or 3 axes: each element of x adds a filter to y.

    It reads x (batch, ic, ...), w (ic, oc // groups, ...) and, optionally, a bias (oc,), of one type.

    Parameters
    ----------
    stride, dilation : int or tuple of int
        Steps in y, between kernels and between a kernel's elements.
    padding : int, tuple of int or (before, after), "same", "same_lower" or "valid"
        Elements cut off y at both ends; "same" leaves stride times x's size where the kernels reach so far.
    groups : int
    output_padding : int or tuple of int
        Elements more at the end, fewer than the stride or the dilation.
    output_size : tuple of int or None
        Sizes of y, whose padding then follows from them.

    Notes
    -----
    ONNX operator ConvTranspose on float32, float64 or float16; `output_size` is its output_shape. Along
    each axis ``out = stride * (in - 1) + output_padding + (k - 1) * dilation + 1 - before - after``. Of an
    odd number of elements to cut off, by "same" or `output_size`, the last goes at the end for "same" and
    at the beginning otherwise, as in ONNX Runtime. Sums are as :class:`FloatConv`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatConvTranspose
    >>> FloatConvTranspose(stride=2).apply(np.float32([[[1, 2]]]), np.float32([[[1, 10, 100]]]))
    array([[[  1.,  10., 102.,  20., 200.]]], dtype=float32)
    """

    output_padding: int | tuple[int, ...] = field(default=0, kw_only=True)
    output_size: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, minimum in (("output_padding", 0), ("output_size", 1)):
            value = getattr(self, name)
            if isinstance(value, tuple | list):
                value = tuple(_check.integer(size, name, minimum=minimum) for size in value)
            elif value is not None or name == "output_padding":
                value = _check.integer(value, name, minimum=minimum)
            object.__setattr__(self, name, value)

    def _axes(self, shapes: Sequence[Shape]) -> list[tuple[int, int]]:
        """Return, along each axis, the elements cut off at the beginning of y, and its size."""
        x, w = self._operands(shapes, "(ic, oc // groups, ...)")
        rank = len(x) - 2
        if x[1] != w[0] or w[0] % self.groups:
            raise ValueError(
                f"{self.kind} takes w (ic, oc // groups, ...) whose ic is x's, a multiple of {self.groups} "
                f"groups, not {_check.shape(w)} beside x {_check.shape(x)}"
            )
        if 0 in (*x[2:], *w[2:]):
            raise ValueError(
                f"{self.kind} takes x and w of at least one element along each axis, not {_check.shape(x)} "
                f"and {_check.shape(w)}"
            )
        strides, dilations = self._steps(rank)
        more: Any = self.output_padding
        more = more if isinstance(more, tuple) else (more,) * rank
        wanted = (None,) * rank if self.output_size is None else self.output_size
        for name, sizes in (("output_padding", more), ("output_size", wanted)):
            if len(sizes) != rank:
                raise ValueError(f"{name} must hold {rank} numbers, one per axis, not {sizes}")
        pads = paddings(self.padding, rank)
        found = []
        for axis in range(rank):
            step, between, size = strides[axis], dilations[axis], x[2 + axis]
            if more[axis] >= max(step, between):
                raise ValueError(
                    f"output_padding must be less than the stride {step} or the dilation {between}, "
                    f"not {more[axis]}"
                )
            whole = step * (size - 1) + more[axis] + (w[2 + axis] - 1) * between + 1
            cut = pads if isinstance(pads, str) else pads[axis]
            before, out = self._cut(whole, size * step, wanted[axis], step, cut, axis)
            if out < 1 or whole > MOST_PIXELS:
                raise ValueError(
                    f"{self.kind}: the output would have {out} elements along its axis {axis + 2}, of "
                    f"{whole} before padding; supported are 1 or more, of at most {MOST_PIXELS:,}"
                )
            found.append((before, out))
        return found

    def _cut(
        self, whole: int, same: int, wanted: int | None, step: int, padding: str | Pair, axis: int
    ) -> tuple[int, int]:
        """Return the elements cut off at the beginning of `whole`, and those that remain."""
        if wanted is not None:
            if wanted - whole >= step:
                raise ValueError(
                    f"output_size must be less than {whole + step} along axis {axis + 2}, where kernels "
                    f"reach {whole} elements in steps of {step}, not {wanted}"
                )
            total, out = max(whole - wanted, 0), wanted
        elif not isinstance(padding, str):
            return padding[0], whole - sum(padding)
        else:
            total = 0 if padding == "valid" else max(whole - same, 0)
            out = whole - total
        return (total + (padding != "same")) // 2, out

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, ...)."""
        axes = self._axes(shapes)
        oc = shapes[1][1] * self.groups
        self._expect_bias(shapes, oc)
        return (shapes[0][0], oc, *(out for _, out in axes))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the transposed convolution, an ndarray (batch, oc, ...)."""
        self.output_dtype(*(array.dtype.name for array in inputs))
        shapes = [array.shape for array in inputs]
        self.output_shape(*shapes)
        axes = self._axes(shapes)
        x, w = inputs[:2]
        batch, ic, *image = x.shape
        ocg, kernel, rank = w.shape[1], w.shape[2:], len(image)
        strides, dilations = self._steps(rank)
        rows = x.astype(np.float64).reshape(batch, self.groups, ic // self.groups, math.prod(image))
        # One matrix (oc // groups, ic // groups) for each group and element of the kernel.
        weight = np.moveaxis(w.astype(np.float64).reshape(self.groups, -1, *w.shape[1:]), 1, 2)
        # Elements of x and y that meet at each tap: x and y swap the roles they have in a convolution.
        places = [
            taps(out, kernel[axis], strides[axis], dilations[axis], before, image[axis])
            for axis, (before, out) in enumerate(axes)
        ]
        shape = (batch, self.groups, ocg, *(out for _, out in axes))
        require_array(shape, "float64", f"{self.kind}: the sums")
        sums = np.zeros(shape)
        with np.errstate(all="ignore"):
            for offsets in itertools.product(*places):
                elements, outs = zip(*(places[axis][tap] for axis, tap in enumerate(offsets)), strict=True)
                product = np.ascontiguousarray(weight[_at(..., *offsets)]) @ rows
                sums[_at(..., *outs)] += product.reshape(batch, self.groups, ocg, *image)[_at(..., *elements)]
            return self._finished(sums, inputs)


def _blocks(count: int, numbers: int) -> Iterator[slice]:
    """Cut 0..count, which needs `numbers` elements in all, into parts of about _PATCHES elements."""
    step = max(1, _PATCHES * count // max(1, numbers))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _at(*index: Any) -> Any:
    """Return an index of several axes; mypy takes a tuple of ... and others for an array."""
    return index
