"""The products of a training step, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.columns import sizes_text
from systolic._show.table import card, percent
from systolic.config import ArrayConfig, MachineConfig, as_array_config
from systolic.engine.products import MODES, execute
from systolic.formats import OPERANDS, dtype_of
from systolic.gemm import Gemm
from systolic.layers.conv import conv_window, filter_matrices, lower_conv
from systolic.layers.float_products import COMPUTE
from systolic.layers.geometry import Pair, Window, paddings, sizes
from systolic.lowered import Epilogue, Lowered, lower_matmul
from systolic.reference import tile_length
from systolic.reference.oracle import rounded
from systolic.stats import Stats
from systolic.threads import thread_count


@dataclass(frozen=True, eq=False, repr=False)
class Pass:
    """One product of a training step.

    Attributes
    ----------
    value : ndarray of float32
        The layer's output, or a gradient of the shape of x or of w.
    gemm : Gemm
        The product that ran.
    stats : Stats
        What it cost.
    array : ArrayConfig
        With the types of the operands.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, training
    >>> x, w = np.float32([[1, 2]]), np.float32([[3], [4]])
    >>> step = training.dense(x, w, array=ArrayConfig(2, 2))
    >>> step, step.value, (step.value == step.expected()).all()
    (<Pass 1 x 2 x 1 in bfloat16: 5 cycles, utilization 10.0%>, array([[11.]], dtype=float32), np.True_)
    """

    value: np.ndarray
    gemm: Gemm
    stats: Stats
    array: ArrayConfig
    _product: _Product

    @property
    def cycles(self) -> int:
        """Clock edges from reset to the last sum."""
        return self.stats.cycles

    def expected(self) -> np.ndarray:
        """Return the value as the reference computes it: operand by operand, in the array's order."""
        with np.errstate(all="ignore"):
            return self._product.expected(tile_length(self.array))

    def __repr__(self) -> str:
        array = self.array
        names = dict.fromkeys((array.activation_dtype, array.weight_dtype))
        return (
            f"<Pass {self.gemm.text} in {' x '.join(names)}: {self.stats.cycles:,} cycles, "
            f"utilization {percent(self.stats.utilization)}>"
        )

    def _repr_html_(self) -> str:
        array = self.array
        pairs = [
            ("product", self.gemm.text),
            ("shape", sizes_text(self.value.shape)),
            ("array", f"{array.rows} x {array.cols} PEs, {array.dataflow.replace('_', ' ')}"),
            ("numbers", array.format.text),
            ("cycles", f"{self.stats.cycles:,}"),
            ("utilization", percent(self.stats.utilization)),
        ]
        return card("Pass", pairs)


@dataclass(frozen=True, eq=False)
class _Product:
    """A product of matrices, or a convolution if there is a window, of operands in formats of the array.

    The result is turned by `axes` into the value's order, and a bias added.
    """

    x: np.ndarray
    w: np.ndarray
    window: Window | None = None
    groups: int = 1
    axes: tuple[int, ...] | None = None
    bias: np.ndarray | None = None

    def lowered(self) -> Lowered:
        epilogue = Epilogue(dtype="float32", float_bias=self.bias)
        if self.window is None:
            return lower_matmul(self.x, self.w, epilogue)
        return lower_conv(self.x, filter_matrices(self.w, self.groups), self.window, 0, False, epilogue)

    def turned(self, sums: np.ndarray) -> np.ndarray:
        return sums if self.axes is None else np.ascontiguousarray(sums.transpose(self.axes))

    def expected(self, tile: int | None) -> np.ndarray:
        x, w = self.x.astype(np.float64), self.w.astype(np.float64)
        if self.window is None:
            sums = rounded.in_order(x, w, tile)
            return self.turned(sums if self.bias is None else sums + self.bias)
        _, stride, dilation, pads, _, _ = self.window
        fields = SimpleNamespace(stride=stride, dilation=dilation, padding=pads, groups=self.groups)
        sums = rounded.conv_sums(fields, x, w, tile)
        return self.turned(sums if self.bias is None else sums + self.bias[:, np.newaxis, np.newaxis])


def dense(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    compute: str = "bfloat16",
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute a dense layer forward: ``x @ w + bias``.

    Parameters
    ----------
    x : array_like of float, (M, K)
    w : array_like of float, (K, N)
    bias : array_like of float, (N,), optional
        Added in float32.
    compute : {"bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"}
        What x and w are rounded to.
    array : ArrayConfig or MachineConfig, optional
        Default 256 x 256.
    mode, threads
        As for :func:`systolic.matmul`.

    Returns
    -------
    Pass
        ``.value`` is (M, N).

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, training
    >>> x, w, small = np.ones((8, 3)), np.ones((3, 2)), ArrayConfig(4, 4)
    >>> dy = training.dense(x, w, array=small).value
    >>> training.dense_backward_data(dy, w, array=small).value.shape
    (8, 3)
    >>> training.dense_backward_weight(x, dy, array=small).value
    array([[24., 24.],
           [24., 24.],
           [24., 24.]], dtype=float32)
    """
    x, w = _rounded(x, "x", compute, "(M, K)"), _rounded(w, "w", compute, "(K, N)")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"x {_check.shape(x.shape)} and w {_check.shape(w.shape)} must share K")
    return _run(_Product(x, w, bias=_bias(bias, w.shape[1])), array, mode, threads)


def dense_backward_data(
    dy: Any,
    w: Any,
    *,
    compute: str = "bfloat16",
    gradients: str | None = None,
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute the gradient of a dense layer's input: ``dy @ w.T``.

    Parameters
    ----------
    dy : array_like of float, (M, N)
        The gradient of the output.
    w : array_like of float, (K, N)
        As it was in the forward pass.
    compute : str
        What w is rounded to.
    gradients : str, optional
        What dy is rounded to: by default as w. The two kinds of float8 may be mixed.
    array, mode, threads
        As for :func:`dense`.

    Returns
    -------
    Pass
        ``.value`` is (M, K).
    """
    dy, w = _rounded(dy, "dy", gradients or compute, "(M, N)"), _rounded(w, "w", compute, "(K, N)")
    if dy.shape[1] != w.shape[1]:
        raise ValueError(f"dy {_check.shape(dy.shape)} and w {_check.shape(w.shape)} must share N")
    return _run(_Product(dy, w.T), array, mode, threads)


def dense_backward_weight(
    x: Any,
    dy: Any,
    *,
    compute: str = "bfloat16",
    gradients: str | None = None,
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute the gradient of a dense layer's weights: ``x.T @ dy``.

    Parameters
    ----------
    x : array_like of float, (M, K)
        The input, as it was in the forward pass.
    dy : array_like of float, (M, N)
        The gradient of the output.
    compute, gradients, array, mode, threads
        As for :func:`dense_backward_data`.

    Returns
    -------
    Pass
        ``.value`` is (K, N). The gradient of a bias is ``dy.sum(axis=0)``.
    """
    x, dy = _rounded(x, "x", compute, "(M, K)"), _rounded(dy, "dy", gradients or compute, "(M, N)")
    if len(x) != len(dy):
        raise ValueError(f"x {_check.shape(x.shape)} and dy {_check.shape(dy.shape)} must share M")
    return _run(_Product(x.T, dy), array, mode, threads)


def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    compute: str = "bfloat16",
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute a convolutional layer forward.

    Parameters
    ----------
    x : array_like of float, (batch, ic, ih, iw)
    w : array_like of float, (oc, ic // groups, kh, kw)
    bias : array_like of float, (oc,), optional
        Added in float32.
    stride, padding, dilation, groups
        As for :func:`systolic.conv2d`.
    compute, array, mode, threads
        As for :func:`dense`.

    Returns
    -------
    Pass
        ``.value`` is (batch, oc, oh, ow).

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, training
    >>> x, w, small = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3)), ArrayConfig(16, 16)
    >>> y = training.conv2d(x, w, stride=2, padding=1, array=small)
    >>> dx = training.conv2d_backward_data(y.value, w, (6, 6), stride=2, padding=1, array=small)
    >>> dw = training.conv2d_backward_weight(x, y.value, (3, 3), stride=2, padding=1, array=small)
    >>> y.value.shape, dx.value.shape, dw.value.shape
    ((2, 4, 3, 3), (2, 3, 6, 6), (4, 3, 3, 3))
    >>> y.gemm, dx.gemm, dw.gemm
    (Gemm(18, 27, 4), Gemm(72, 36, 3), Gemm(27, 18, 4))
    """
    x, w = _rounded(x, "x", compute, _IMAGES), _rounded(w, "w", compute, _FILTERS)
    window = _window(x.shape, w.shape, stride, padding, dilation, groups)
    return _run(_Product(x, w, window, groups, bias=_bias(bias, len(w))), array, mode, threads)


def conv2d_backward_data(
    dy: Any,
    w: Any,
    image: Pair,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    compute: str = "bfloat16",
    gradients: str | None = None,
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute the gradient of a convolutional layer's input.

    Parameters
    ----------
    dy : array_like of float, (batch, oc, oh, ow)
        The gradient of the output.
    w : array_like of float, (oc, ic // groups, kh, kw)
        As it was in the forward pass.
    image : (int, int)
        ih and iw, which dy does not tell where the stride leaves pixels unread.
    stride, padding, dilation, groups
        Of the forward pass.
    compute, gradients, array, mode, threads
        As for :func:`dense_backward_data`.

    Returns
    -------
    Pass
        ``.value`` is (batch, ic, ih, iw).

    Notes
    -----
    A convolution of dy, with stride - 1 zeros between its pixels, and of w turned by 180 degrees, with its
    channels exchanged. The array multiplies the zeros, too: `Stats.macs` counts them.
    """
    dy, w = _rounded(dy, "dy", gradients or compute, _OUTPUTS), _rounded(w, "w", compute, _FILTERS)
    image = sizes(image, "image", 2)
    oc, icg = w.shape[:2]
    forward = _window((len(dy), icg * groups, *image), w.shape, stride, padding, dilation, groups)
    _expect_gradient(dy, (len(dy), oc, *forward.out))
    spread = [(size - 1) * step + 1 for size, step in zip(forward.out, forward.stride, strict=True)]
    wide = np.zeros((*dy.shape[:2], *spread), dy.dtype)
    wide[:, :, :: forward.stride[0], :: forward.stride[1]] = dy
    pads = tuple(
        ((k - 1) * gap - before, size + before - length)
        for k, gap, (before, _), size, length in zip(
            forward.kernel, forward.dilation, forward.pads, image, spread, strict=True
        )
    )
    back = Window(forward.kernel, (1, 1), forward.dilation, pads, tuple(spread), image)
    per_group = w.reshape(groups, oc // groups, icg, *forward.kernel).swapaxes(1, 2)
    turned = per_group[..., ::-1, ::-1].reshape(groups * icg, oc // groups, *forward.kernel)
    return _run(_Product(wide, turned, back, groups), array, mode, threads)


def conv2d_backward_weight(
    x: Any,
    dy: Any,
    kernel: Pair,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    compute: str = "bfloat16",
    gradients: str | None = None,
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
) -> Pass:
    """Compute the gradient of a convolutional layer's weights.

    Parameters
    ----------
    x : array_like of float, (batch, ic, ih, iw)
        The input, as it was in the forward pass.
    dy : array_like of float, (batch, oc, oh, ow)
        The gradient of the output.
    kernel : (int, int)
        kh and kw.
    stride, padding, dilation, groups
        Of the forward pass.
    compute, gradients, array, mode, threads
        As for :func:`dense_backward_data`.

    Returns
    -------
    Pass
        ``.value`` is (oc, ic // groups, kh, kw). The gradient of a bias is ``dy.sum(axis=(0, 2, 3))``.

    Notes
    -----
    A convolution of x with dy, the batch as channels; stride and dilation change places. K runs over
    (batch, oh, ow), M over (ic // groups, kh, kw).
    """
    x, dy = _rounded(x, "x", compute, _IMAGES), _rounded(dy, "dy", gradients or compute, _OUTPUTS)
    kernel = sizes(kernel, "kernel", 2)
    groups = _check.integer(groups, "groups", minimum=1)
    if x.shape[1] % groups or dy.shape[1] % groups:
        shapes = f"x {_check.shape(x.shape)} and of dy {_check.shape(dy.shape)}"
        raise ValueError(f"groups must divide the channels of {shapes}, not {groups}")
    icg, ocg = x.shape[1] // groups, dy.shape[1] // groups
    forward = _window(x.shape, (dy.shape[1], icg, *kernel), stride, padding, dilation, groups)
    _expect_gradient(dy, (len(x), dy.shape[1], *forward.out))
    images = x.reshape(len(x), groups, icg, *x.shape[2:]).transpose(2, 1, 0, 3, 4)
    filters = dy.reshape(len(x), groups, ocg, *forward.out).transpose(1, 2, 0, 3, 4)
    # Padding behind that lets dy slide to kernel places, or crops what it would not see.
    pads = tuple(
        (before, (k - 1) * gap + (out - 1) * step + 1 - size - before)
        for k, gap, out, step, (before, _), size in zip(
            kernel, forward.dilation, forward.out, forward.stride, forward.pads, x.shape[2:], strict=True
        )
    )
    back = Window(forward.out, forward.dilation, forward.stride, pads, x.shape[2:], kernel)
    product = _Product(
        images.reshape(icg, groups * len(x), *x.shape[2:]),
        filters.reshape(groups * ocg, len(x), *forward.out),
        back, groups, (1, 0, 2, 3),
    )  # fmt: skip
    return _run(product, array, mode, threads)


_IMAGES, _OUTPUTS, _FILTERS = "(batch, ic, ih, iw)", "(batch, oc, oh, ow)", "(oc, ic // groups, kh, kw)"


def _rounded(values: Any, name: str, compute: str, axes: str) -> np.ndarray:
    """Return an operand in a format of the array."""
    dtype = dtype_of(_check.choice(compute, "gradients" if name == "dy" else "compute", COMPUTE))
    array = _check.as_array(values, name)
    if array.dtype.kind not in "fiu" and array.dtype.name not in OPERANDS:
        raise TypeError(f"{name} must hold numbers, not {array.dtype}")
    if array.ndim != axes.count(",") + 1:
        raise ValueError(f"{name} must be {axes}, not {_check.shape(array.shape)}")
    with np.errstate(all="ignore"):  # float32 first: what a network holds
        return array.astype(np.float32).astype(dtype)


def _bias(bias: Any, channels: int) -> np.ndarray | None:
    if bias is None:
        return None
    array = _check.as_array(bias, "bias").astype(np.float32)
    if array.shape != (channels,):
        raise ValueError(f"bias must be ({channels},), one for each output, not {_check.shape(array.shape)}")
    return array


def _window(
    x: tuple[int, ...], w: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: Any
) -> Window:
    steps = sizes(stride, "stride", 2), sizes(dilation, "dilation", 2)
    return conv_window(x, w, *steps, paddings(padding, 2), _check.integer(groups, "groups", minimum=1))


def _expect_gradient(dy: np.ndarray, shape: Sequence[int]) -> None:
    if dy.shape != tuple(shape):
        raise ValueError(
            f"dy must have the shape of the layer's output, {_check.shape(tuple(shape))}, not "
            f"{_check.shape(dy.shape)}"
        )


def _run(
    product: _Product, array: ArrayConfig | MachineConfig | None, mode: str, threads: int | None
) -> Pass:
    _check.choice(mode, "mode", MODES)
    config = ArrayConfig() if array is None else as_array_config(array)
    config = config.for_operands(product.x.dtype, product.w.dtype)
    lowered = product.lowered()
    done = execute(lowered, config, mode, thread_count(threads))
    return Pass(product.turned(done.output), lowered.gemm, done.stats, config, product)
