"""Layers with float weights, before quantization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check
from systolic._memory import require_array
from systolic.layers.base import HostLayer, Shape
from systolic.layers.conv import axes_of, conv_window
from systolic.layers.geometry import Sizes, Window, put_window
from systolic.layers.host._inputs import expect_dtype, take
from systolic.layers.host.delegated import put_weights


@dataclass(frozen=True, eq=False, repr=False)
class FloatConv2d(HostLayer):
    """A float two-dimensional convolution on the host; images are (batch, ic, ih, iw).

    Parameters
    ----------
    weight : ndarray of float, (oc, ic // groups, kh, kw)
        Finite; kept as float32.
    bias : ndarray of float, (oc,), optional
    relu : bool
        Whether negative results become 0.
    stride, padding, dilation, groups
        As for :class:`Conv2d`.

    Raises
    ------
    TypeError, ValueError
        If the weights are not finite floats, or lengths do not fit.

    Notes
    -----
    What :func:`systolic.quantize_model` makes a :class:`QLinearConv` of.
    Summed in float64 and rounded to float32 once.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatConv2d
    >>> layer = FloatConv2d(np.full((1, 1, 2, 2), 0.25))
    >>> layer.apply(np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3))
    array([[[[2., 3.],
             [5., 6.]]]], dtype=float32)
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    relu: bool = field(default=False, kw_only=True)
    stride: int | Sizes = field(default=(1, 1), kw_only=True)
    padding: str | int | tuple[Any, ...] = field(default=((0, 0), (0, 0)), kw_only=True)
    dilation: int | Sizes = field(default=(1, 1), kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        put_weights(self, axes="(oc, ic // groups, kh, kw)", output_axis=0)
        object.__setattr__(self, "relu", _check.flag(self.relu, "relu"))
        put_window(self, 2)
        object.__setattr__(self, "groups", _check.integer(self.groups, "groups", minimum=1))
        if len(self.weight) % self.groups:
            raise ValueError(
                f"FloatConv2d: weight has {len(self.weight)} output channels, which {self.groups} groups "
                "do not divide"
            )

    def _window(self, shape: Shape) -> Window:
        if len(shape) != 4:
            raise ValueError(f"FloatConv2d takes images {axes_of(2)}, not {_check.shape(shape)}")
        given: Any = (self.stride, self.dilation, self.padding)
        return conv_window(shape, self.weight.shape, *given, self.groups)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, oc, oh, ow)."""
        (shape,) = take(self, shapes)
        out = self._window(shape).out
        return (shape[0], self.weight.shape[0], *out)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32", the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, ("float32",))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the convolution of x, (batch, ic, ih, iw)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype.name)
        win = self._window(x.shape)
        oc, icg, kh, kw = self.weight.shape
        shape = (len(x), self.groups, oc // self.groups, *win.out)
        require_array(shape, "float64", "FloatConv2d: the sums")
        images = x.astype(np.float64).reshape(len(x), self.groups, icg, *win.image)
        weight = self.weight.astype(np.float64).reshape(self.groups, oc // self.groups, icg, kh, kw)
        sums = np.zeros(shape)
        with np.errstate(all="ignore"):
            for row, (rows, from_rows) in win.taps(0).items():
                for col, (cols, from_cols) in win.taps(1).items():
                    part = images[..., from_rows, from_cols]
                    sums[..., rows, cols] += np.einsum("bgihw,goi->bgohw", part, weight[..., row, col])
            return _finish(self, sums.reshape(len(x), oc, *win.out), axis=1)


def _finish(layer: Any, sums: np.ndarray, axis: int) -> np.ndarray:
    """Return float64 sums with bias and relu, as float32."""
    if layer.bias is not None:
        spread = [1] * sums.ndim
        spread[axis] = -1
        sums += layer.bias.astype(np.float64).reshape(spread)
    if layer.relu:
        np.maximum(sums, 0, out=sums)
    return sums.astype(np.float32)
