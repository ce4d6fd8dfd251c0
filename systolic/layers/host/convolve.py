"""Float convolutions and transposed convolutions on the host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic._memory import require_array
from systolic.layers import parameters
from systolic.layers.base import HostLayer, Shape, one_of
from systolic.layers.conv import WINDOW, Convolution, conv_rank, read_window
from systolic.layers.geometry import AXES, MOST_PIXELS, Pair, Window, paddings, taps
from systolic.layers.host import _functions
from systolic.layers.host._inputs import FLOATS, one_type
from systolic.layers.host.delegated import FloatProduct, put_weights
from systolic.layers.record import DELEGATE, MICROSOFT, OperatorRecord, contrib

# Elements of a matrix of patches: 4 megabytes, which stay in cache.
_PATCHES = 1 << 19

ACTIVATIONS: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "Clip": (2, lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "HardSigmoid": (2, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "HardSwish": (0, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": (1, lambda x, alpha: np.where(x >= 0, x, alpha * x)),
    "Relu": (0, lambda x: np.maximum(x, 0)),
    "Sigmoid": (0, _functions.sigmoid),
    "Tanh": (0, np.tanh),
}
"""How many parameters an activation of ONNX Runtime's FusedConv has, and its function of float64."""


class _Convolution(Convolution, HostLayer):
    """Base of both: x, w and a bias of one float type."""

    inputs: ClassVar[None] = None

    @staticmethod
    def _with_bias(sums: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Return float64 sums, (batch, groups, oc // groups, ...), as (batch, oc, ...) with bias."""
        y = sums.reshape(len(sums), sums.shape[1] * sums.shape[2], *sums.shape[3:])
        if bias is not None:
            y += bias.astype(np.float64).reshape(-1, *[1] * (y.ndim - 2))
        return y


@dataclass(frozen=True, eq=False, repr=False)
class FloatConv(FloatProduct, _Convolution):
    """A float convolution over 1, 2 or 3 axes, with an activation if wanted.

    It reads x (batch, ic, ...), w (oc, ic // groups, ...), optionally a bias (oc,), and, with `adds`, a
    tensor of the output's shape, all of one type; with a `weight` x alone, of float32.

    Parameters
    ----------
    weight : ndarray of float, (oc, ic // groups, ...), optional
        What w is then: finite, kept as float32. :func:`systolic.quantize_model` makes a
        :class:`QLinearConv` of such a layer.
    bias : ndarray of float, (oc,), optional
    stride, padding, dilation, groups
        As for :class:`ConvInteger`.
    adds : bool
        Whether the last input is added to the sums, before the activation.
    activation : {None, "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"}
    activation_params : tuple of float
        Lowest and highest of Clip, alpha and beta of HardSigmoid, alpha of LeakyRelu.
    runtime_constants : tuple of int or None
        As for :class:`FloatMatMul`.

    Raises
    ------
    TypeError, ValueError
        If held weights are not finite floats, or lengths do not fit.

    Notes
    -----
    ONNX operator Conv on float32, float64 or float16, and ONNX Runtime's com.microsoft FusedConv. Products
    are summed in float64, patch by patch as matrix products, and rounded once: within 1 unit in the last
    place of the true value for float32 and float16. ONNX Runtime sums in the type itself, in an order that
    depends on the processor, and differs by up to about k / 2 units in the last place of the sum of
    magnitudes of k products; no bits are fixed.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatConv
    >>> FloatConv(stride=2).apply(np.float32([[[1, 2, 3, 4, 5]]]), np.float32([[[0.5, 0.25, 0.25]]]))
    array([[[1.75, 3.75]]], dtype=float32)
    >>> held = FloatConv(np.full((1, 1, 2), 0.5), np.array([-3.0]), activation="Relu")
    >>> held.apply(np.float32([[[1, 3, 5]]]))
    array([[[0., 1.]]], dtype=float32)
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    adds: bool = field(default=False, kw_only=True)
    activation: str | None = one_of(tuple(ACTIVATIONS), None, kw_only=True)
    activation_params: Sequence[float] = field(default=(), kw_only=True)
    runtime_constants: tuple[int, ...] | None = field(default=None, kw_only=True)

    _last: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._put_activation()
        if self.weight is not None and self.adds:
            raise ValueError("FloatConv with a weight reads x alone: adds must be False")
        rank = np.ndim(self.weight) - 2  # type: ignore[arg-type]
        kernel = ("kd", "kh", "kw")[-rank:] if rank in AXES else ("kh", "kw")
        put_weights(self, axes=f"(oc, ic // groups, {', '.join(kernel)})", output_axis=0)
        if self.weight is not None:
            self._put_window(self.weight.shape)

    def _put_activation(self) -> None:
        params: Any = self.activation_params
        if not _check.is_listed(params, arrays=True):
            raise TypeError(f"activation_params must be a sequence of numbers, not {_check.kind(params)}")
        stored = tuple(_check.real(value, f"activation_params[{i}]") for i, value in enumerate(params))
        count = 0 if self.activation is None else ACTIVATIONS[self.activation][0]
        if len(stored) != count:
            raise ValueError(
                f"activation {self.activation!r} takes {count} activation_params, not {len(stored)}"
            )
        object.__setattr__(self, "activation_params", stored)

    @property
    def some(self) -> tuple[int, int]:  # type: ignore[override]
        """The least and the largest number of inputs."""
        return (1, 1) if self.weight is not None else (2 + self.adds, 3 + self.adds)

    def _parts(self, values: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
        """Return x, w, the bias and the tensor to add, or what is said of them; None for those not there."""
        x, w, *rest = values
        added = rest.pop() if self.adds else None
        return x, w, rest[0] if rest else None, added

    def _window(self, x: Shape, w: Shape) -> Window:
        if self.weight is not None:
            return self._window_held(x, w)
        self._expect_rank(x, w)
        return self._window_over(x, w)

    def _shape(self, *shapes: Shape) -> Shape:
        x, w, bias, added = self._parts(self._whole(shapes, np.shape))
        shape = self._output(x, w, self._window(x, w))
        if bias is not None:
            parameters.expect_bias(self.kind, bias, w[0])
        if added is not None and added != shape:
            raise ValueError(
                f"{self.kind} adds a tensor of the output's shape {_check.shape(shape)}, not "
                f"{_check.shape(added)}"
            )
        return shape

    def _dtype(self, *dtypes: str) -> str:
        return one_type(self, dtypes, FLOATS if self.weight is None else ("float32",))

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]]:
        window = self._window(inputs[0].shape, inputs[1].shape)
        # Written out, since it refuses auto_pad where there is a dilation.
        pads = [pair[end] for end in (0, 1) for pair in window.pads]
        given = {"group": self.groups, "strides": window.stride, "dilations": window.dilation, "pads": pads}
        if self.activation is not None:
            given["activation"] = self.activation
        if self.activation_params:
            given["activation_params"] = self.activation_params
        return f"{MICROSOFT}.FusedConv" if self.fused else "Conv", given

    @property
    def fused(self) -> bool:
        """Whether ONNX has no operator for it, but ONNX Runtime has."""
        return self.adds or self.activation is not None

    def _names(self, names: Sequence[str]) -> list[str]:
        x, w, bias, added = self._parts(names)
        return [name or "" for name in ((x, w, bias, added) if self.adds else names)]

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return how many products each sum of the output has."""
        return math.prod((shapes[1] if self.weight is None else self.weight.shape)[1:])

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        batch, oc = shape[:2]
        x, w, bias, added = self._parts(inputs)
        window = self._window(x.shape, w.shape)
        icg = w.shape[1]
        images = x.reshape(batch, self.groups, icg, *x.shape[2:])
        weight = w.astype(np.float64).reshape(self.groups, oc // self.groups, icg, *window.kernel)
        require_array((batch, *weight.shape[:2], *window.out), "float64", f"{self.kind}: the sums")
        sums = np.zeros((batch, *weight.shape[:2], *window.out))
        numbers = self.groups * icg * math.prod(window.kernel) * math.prod(window.out)
        for number in range(batch):
            image = images[number].astype(np.float64)
            for lines in _blocks(window.out[0], numbers):
                self._add_lines(image, weight, window, lines, sums[number, :, :, lines])
        y = self._with_bias(sums, bias)
        if added is not None:
            y += added
        if self.activation is not None:
            y = ACTIVATIONS[self.activation][1](y, *self.activation_params)
        return y.astype(dtype)

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

    some: ClassVar[tuple[int, int]] = (2, 3)

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
        x, w = shapes[:2]
        self._expect_rank(x, w, "(ic, oc // groups, ...)")
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

    def _shape(self, *shapes: Shape) -> Shape:
        axes = self._axes(shapes)
        oc = shapes[1][1] * self.groups
        for bias in shapes[2:]:
            parameters.expect_bias(self.kind, bias, oc)
        return (shapes[0][0], oc, *(out for _, out in axes))

    def _dtype(self, *dtypes: str) -> str:
        return one_type(self, dtypes, FLOATS)

    def _kernel(self, shape: Shape, *inputs: np.ndarray) -> np.ndarray:
        axes = self._axes([array.shape for array in inputs])
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
        shape = (batch, self.groups, ocg, *shape[2:])
        require_array(shape, "float64", f"{self.kind}: the sums")
        sums = np.zeros(shape)
        for offsets in itertools.product(*places):
            elements, outs = zip(*(places[axis][tap] for axis, tap in enumerate(offsets)), strict=True)
            product = np.ascontiguousarray(weight[_at(..., *offsets)]) @ rows
            sums[_at(..., *outs)] += product.reshape(batch, self.groups, ocg, *image)[_at(..., *elements)]
        return self._with_bias(sums, inputs[2] if len(inputs) > 2 else None).astype(x.dtype)


def _blocks(count: int, numbers: int) -> Iterator[slice]:
    """Cut 0..count, which needs `numbers` elements in all, into parts of about _PATCHES elements."""
    step = max(1, _PATCHES * count // max(1, numbers))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _at(*index: Any) -> Any:
    """Return an index of several axes; mypy takes a tuple of ... and others for an array."""
    return index


def _has_layer(op: Any) -> bool:
    """Whether a convolution of floats has a known number of axes, which a layer takes."""
    shapes = [shape for shape in (op.shape(1), op.shape(0)) if shape is not None]
    if not shapes or len(shapes[0]) - 2 not in AXES or op.dtypes[op.inputs[0]] not in FLOATS:
        return False
    return op.shape(1) is not None or "kernel_shape" not in op.attributes


def _read_conv(op: Any) -> Any:
    fused = ("activation", "activation_params") if op.domain else ()
    op.only(*WINDOW, *fused)
    given: dict[str, Any] = {}
    if fused:
        given["activation"] = name = op.attribute("activation", None)
        given["adds"] = op.has(3)
        if name in ACTIVATIONS:
            count = ACTIVATIONS[name][0]
            given["activation_params"] = tuple(op.attribute("activation_params", ()))[:count]
        elif name is not None:
            return DELEGATE
    if not _has_layer(op):
        return DELEGATE
    given |= {"runtime_constants": op.runtime_constants(), **read_window(op, 1)}
    # Where a file notes which constants are the model's, others are the layer's.
    if op.graph.noted and op.compute is None and not op.computed(1, 2):
        return FloatConv(op.value(1), op.value(2), **given), op.inputs[:1]
    return FloatConv(**given), op.given


def _write_conv(out: Any, node: Any, layer: FloatConv) -> None:
    read, kernel = node.inputs, None
    if layer.weight is not None:
        bias = "" if layer.bias is None else out.constant(node, "bias", layer.bias)
        read, kernel = (read[0], out.constant(node, "weight", layer.weight), bias), layer.weight.shape[2:]
    elif layer.adds and len(read) == 3:
        read = (*read[:2], "", read[2])
    if layer.fused and out.dtype(node.inputs[0]) != "float32":
        raise out.refuse(node, "ONNX Runtime's FusedConv takes float32; put the activation behind it")
    out.node(
        node, "FusedConv" if layer.fused else "Conv", read, MICROSOFT if layer.fused else "",
        activation=layer.activation, activation_params=layer.activation_params or None, group=layer.groups,
        kernel_shape=kernel, **out.window(node),
    )  # fmt: skip


def _read_conv_transpose(op: Any) -> Any:
    op.only(*WINDOW, "output_padding", "output_shape")
    if not _has_layer(op):
        return DELEGATE
    layer = FloatConvTranspose(
        output_padding=op.integers("output_padding", (0,) * conv_rank(op, 1)),
        output_size=op.integers("output_shape", ()) or None,
        **read_window(op, 1),
    )
    return layer, op.given


def _write_conv_transpose(out: Any, node: Any, layer: FloatConvTranspose) -> None:
    more = layer.output_padding
    out.node(
        node, "ConvTranspose", node.inputs,
        group=layer.groups, output_padding=more if isinstance(more, tuple) else (more,) * out.rank(node),
        output_shape=layer.output_size, **out.window(node),
    )  # fmt: skip


OPERATORS = (
    OperatorRecord(
        FloatConv,
        "Convolution of floats.",
        name="Conv",
        inputs=("x", "w", "bias?"),
        attributes=WINDOW,
        read=_read_conv,
        write=_write_conv,
    ),
    OperatorRecord(
        FloatConvTranspose,
        "Transposed convolution of floats.",
        name="ConvTranspose",
        inputs=("x", "w", "bias?"),
        attributes={**WINDOW, "output_padding": None, "output_shape": None},
        read=_read_conv_transpose,
        write=_write_conv_transpose,
    ),
    contrib(
        FloatConv,
        "Convolution of floats, plus a tensor, with an activation.",
        name="FusedConv",
        inputs=("x", "w", "bias?", "z?"),
        attributes={**WINDOW, "activation": None, "activation_params": None},
        read=_read_conv,
        write=_write_conv,
    ),
)
