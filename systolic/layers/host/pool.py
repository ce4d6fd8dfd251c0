"""Pooling over windows of an image, on codes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

from systolic import _check
from systolic.layers.base import Shape
from systolic.layers.geometry import LAYOUTS, Pads, Pair, paddings, sizes
from systolic.layers.host._inputs import expect_images, image_axes
from systolic.layers.host.qlinear_pool import GlobalMeans, Means
from systolic.layers.host.windows import Maxima, Pool
from systolic.quant import QuantParams


class _Images(Pool):
    """Base of the pools over height and width."""

    layout: str

    _names: ClassVar[tuple[str, ...]] = ("height", "width")

    def _put_window(self, steps: Collection[str]) -> None:
        kernel = sizes(self.kernel, "kernel", 2)
        object.__setattr__(self, "kernel", kernel)
        for name in steps:
            value = getattr(self, name)
            given = name != "stride" or value is not None
            object.__setattr__(self, name, sizes(value, name, 2) if given else kernel)
        object.__setattr__(self, "padding", paddings(self.padding, 2))
        _check.choice(self.layout, "layout", LAYOUTS)

    @property
    def _first(self) -> int:
        """The axis of the height."""
        return image_axes(self.layout)[0]

    def _image(self, shape: Shape) -> Shape:
        return expect_images(self, shape, self.layout)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(_Images, Maxima):
    """The maximum of each window.

    Parameters
    ----------
    kernel : int or (int, int)
        Height and width of the window.
    stride : int, (int, int) or None
        Step of the window; None means the kernel.
    padding : int, (int, int), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Pixels around the image, smaller than the kernel; they hold the type's smallest number.
    dilation : int or (int, int)
        Step between the pixels of a window.
    ceil_mode : bool
        Whether a last, incomplete window counts.
    layout : {"NCHW", "NHWC"}
        Order of the axes: batch, channels, height, width.

    Notes
    -----
    ONNX operator MaxPool on int8, uint8 or float32 (where padding is minus infinity and NaN
    spreads). Codes need no parameters: the order of codes is the order of the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import MaxPool2d
    >>> MaxPool2d(2).apply(np.arange(16, dtype=np.int8).reshape(1, 1, 4, 4))
    array([[[[ 5,  7],
             [13, 15]]]], dtype=int8)
    """

    kernel: int | Pair
    stride: int | Pair | None = field(default=None, kw_only=True)
    padding: int | Pair | Pads | str = field(default=((0, 0), (0, 0)), kw_only=True)
    dilation: int | Pair = field(default=(1, 1), kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)

    _types: ClassVar[tuple[str, ...]] = ("int8", "uint8", "float32")


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool2d(_Images, Means):
    """The quantized mean of each window.

    In float32, every operation rounded by itself, the sum in window order (rows, then columns)::

        v = sum of f32(x.scale * (q - x.zero));  v = f32(v / count)
        y = sat(rne(f32(f32(v / y.scale) + y.zero)))            # zero point before rounding

    A window that is the whole unpadded image is computed as :class:`GlobalAveragePool2d` does.

    Parameters
    ----------
    kernel, stride, padding, ceil_mode, layout
        As for :class:`MaxPool2d`; padding is real 0.
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    count_include_pad : bool
        Whether `count` is the kernel's size everywhere, or only the pixels inside the image.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearAveragePool. With `ceil_mode` and `count_include_pad` it
    counts the whole kernel, including elements beyond the padding. A mean of 2^31 codes or more, infinite
    or NaN gives the smallest code, because of the conversion to int32 on x86.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import AveragePool2d
    >>> x = np.int8([[[[0, 1, 1, 2, 2, 3, 1, 4]]]])
    >>> AveragePool2d((1, 2), QuantParams(1.0), QuantParams(1.0, 1)).apply(x)
    array([[[[2, 2, 4, 4]]]], dtype=int8)
    """

    kernel: int | Pair
    x: QuantParams
    y: QuantParams
    stride: int | Pair | None = field(default=None, kw_only=True)
    padding: int | Pair | Pads | str = field(default=((0, 0), (0, 0)), kw_only=True)
    count_include_pad: bool = field(default=False, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    layout: str = field(default="NCHW", kw_only=True)


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool2d(GlobalMeans):
    """The quantized mean of each channel's whole image of n pixels::

        acc = sum(q) - n * x.zero;  m = f32(x.scale / f32(y.scale * n))
        y   = sat(rne(f32(f32(acc) * m)) + y.zero)              # zero point after rounding

    Parameters
    ----------
    x, y : QuantParams
        Of the input and the output: of one 8-bit type (else TypeError), per tensor.
    layout : {"NCHW", "NHWC"}
        Order of the axes: batch, channels, height, width.

    Notes
    -----
    ONNX Runtime's com.microsoft QLinearGlobalAveragePool, which refuses an m outside 2^-32 .. 256;
    here such an m is computed with like any other.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import GlobalAveragePool2d
    >>> x = np.int8([[0, 1], [1, 2], [2, 3], [1, 4]]).reshape(1, 4, 1, 2)
    >>> GlobalAveragePool2d(QuantParams(1.0), QuantParams(1.0, 1)).apply(x).ravel()
    array([1, 3, 3, 3], dtype=int8)
    """

    x: QuantParams
    y: QuantParams
    layout: str = field(default="NCHW", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check.choice(self.layout, "layout", LAYOUTS)

    def _axes(self, shape: Shape) -> Shape:
        expect_images(self, shape, self.layout)
        return image_axes(self.layout)
