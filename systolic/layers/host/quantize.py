"""Layers that quantize and dequantize."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints, _host, quant
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._inputs import expect_dtype, take
from systolic.layers.host._parts import MOVED
from systolic.quant import QuantParams
from systolic.threads import thread_count

CODES = ("int8", "uint8", "int16", "uint16", "int32")
"""Types of codes that ONNX dequantizes; it quantizes to all but the last."""


@dataclass(frozen=True, eq=False, repr=False)
class Quantize(HostLayer):
    """Quantize real numbers: ``sat(rne(f32(x / scale)) + zero_point)``.

    Parameters
    ----------
    y : QuantParams
        Of the output, int8 or uint8, per tensor or per channel.

    Notes
    -----
    ONNX operator QuantizeLinear, by :func:`systolic.quant.quantize`; NaN becomes the smallest code.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, Quantize
    >>> Quantize(QuantParams(0.5, 128, "uint8")).apply(np.float32([-1, 0, 0.75]))
    array([126, 128, 130], dtype=uint8)
    """

    y: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.y, "y")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        return _expect_channels(self, tuple(shape), self.y)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the codes' type; the input is float32 (or float16, float64, rounded to it)."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, ("float32", "float64", "float16"))
        return self.y.dtype

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the codes of x, an ndarray of float32 of any shape."""
        (x,) = take(self, inputs)
        self.output_shape(x.shape)
        self.output_dtype(x.dtype)
        if x.dtype == np.float32 and _is_plain(x, self.y):
            codes = np.empty(x.shape, self.y.dtype)
            scale, zero_point = float(self.y.scales), int(self.y.zero_points)
            for numbers, made in _parts_of(x, codes):
                _host.quantize(numbers, made, scale, zero_point, threads=thread_count())
            return codes
        return quant.quantize(x, self.y)


@dataclass(frozen=True, eq=False, repr=False)
class Dequantize(HostLayer):
    """Dequantize codes: ``f32(f32(q - zero_point) * scale)``.

    Parameters
    ----------
    x : QuantParams
        Of the input: int8, uint8 or int32, per tensor or per channel.

    Notes
    -----
    ONNX operator DequantizeLinear, by :func:`systolic.quant.dequantize`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Dequantize, QuantParams
    >>> Dequantize(QuantParams(0.5, 128, "uint8")).apply(np.uint8([126, 128, 130]))
    array([-1.,  0.,  1.], dtype=float32)
    """

    x: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.x, "x", dtypes=quant.DTYPES)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        return _expect_channels(self, tuple(shape), self.x)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"; the input is of x's type."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")
        return "float32"

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the real numbers of q, an ndarray of x's type and any shape."""
        (q,) = take(self, inputs)
        self.output_shape(q.shape)
        self.output_dtype(q.dtype)
        if _is_plain(q, self.x):
            real = np.empty(q.shape, np.float32)
            scale, zero_point = float(self.x.scales), int(self.x.zero_points)
            for codes, made in _parts_of(q, real):
                _host.dequantize(codes, made, scale, zero_point, threads=thread_count())
            return real
        return quant.dequantize(q, self.x)


def _parts_of(source: np.ndarray, target: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two contiguous arrays of one shape; large ones in parts, so that Ctrl-C need not wait."""
    if source.size <= MOVED:
        yield source, target
        return
    source, target = source.reshape(-1), target.reshape(-1)
    for start in range(0, source.size, MOVED):
        yield source[start : start + MOVED], target[start : start + MOVED]


def _is_plain(values: np.ndarray, params: QuantParams) -> bool:
    """Whether one scale and zero point of 8-bit codes are for values that lie side by side."""
    return not params.per_channel and params.dtype in _check.OPERAND_DTYPES and values.flags.c_contiguous


def _expect_channels(layer: HostLayer, shape: Shape, params: QuantParams) -> Shape:
    if params.axis is not None:
        channels = params.scales.size
        if not -len(shape) <= params.axis < len(shape) or shape[params.axis] != channels:
            raise ValueError(
                f"{type(layer).__name__} takes {channels} channels along axis {params.axis}, one per scale, "
                f"not {_check.shape(shape)}{_hints.other_axis(shape, channels)}"
            )
    return shape


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeLinear(HostLayer):
    """Quantize with scales and zero points that are inputs.

    For what :class:`Quantize` cannot hold: scales computed at run time, blocks, 16-bit codes, float16.
    The inputs are x, the scale and, optionally, the zero point (else 0). A scale of one element holds
    for all of x, one of shape (C,) along `axis`; with `block_size` it has x's axes, and one element
    along `axis` for so many of x.

    Parameters
    ----------
    dtype : {"int8", "uint8", "int16", "uint16"}
        Type of the codes.
    axis : int
        The axis of the channels or blocks; without meaning for a scale of one element.
    block_size : int
        How many elements along `axis` share a scale, the last block may be short; 0 without blocks.

    Notes
    -----
    ONNX operator QuantizeLinear, by :func:`systolic.quant.quantize_linear`, which says what infinities
    become.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantizeLinear
    >>> scale = np.float32([[1.0, 0.5]])
    >>> QuantizeLinear("int16", block_size=2).apply(np.float32([[1, 2, 3, 4]]), scale)
    array([[1, 2, 6, 8]], dtype=int16)
    """

    inputs: ClassVar[int | None] = None

    dtype: str
    axis: int = field(default=1, kw_only=True)
    block_size: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        _check.choice(self.dtype, "dtype", CODES[:-1])
        _normalize_axis(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return x's shape; ValueError if the scale's does not fit it."""
        return _expect_scales(self, shapes)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the codes' type; x is float32 (or float64, rounded to it) or float16."""
        x, scale, *zero = _two_or_three(self, dtypes)
        expect_dtype(self, x, ("float32", "float64", "float16"))
        expect_dtype(self, scale, ("float32", "float16"), ", as a scale")
        for dtype in zero:
            expect_dtype(self, dtype, (self.dtype,), ", as a zero point")
        return self.dtype

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the codes of x, an ndarray of floats of any shape."""
        self.output_shape(*(array.shape for array in inputs))
        self.output_dtype(*(array.dtype.name for array in inputs))
        x, scale, *zero = inputs
        if scale.dtype == np.float32 and x.dtype == np.float16:
            x = x.astype(np.float32)
        zeros = zero[0] if zero else np.zeros(scale.shape, self.dtype)
        return quant.quantize_linear(x, **_laid_out(self, scale, zeros))


@dataclass(frozen=True, eq=False, repr=False)
class DequantizeLinear(HostLayer):
    """Dequantize with scales and zero points that are inputs.

    For what :class:`Dequantize` cannot hold: see :class:`QuantizeLinear`, whose inputs these are.

    Parameters
    ----------
    axis, block_size : int
        As for :class:`QuantizeLinear`.
    dtype : {"float32", "float16"} or None
        Type of the numbers, to which float32 products are rounded; None is the scale's.

    Notes
    -----
    ONNX operator DequantizeLinear, by :func:`systolic.quant.dequantize_linear`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import DequantizeLinear
    >>> scale, zero = np.float32([1.0, 0.5]), np.uint16([0, 7])
    >>> DequantizeLinear().apply(np.uint16([[1, 9], [2, 5]]), scale, zero)
    array([[ 1.,  1.],
           [ 2., -1.]], dtype=float32)
    """

    inputs: ClassVar[int | None] = None

    axis: int = field(default=1, kw_only=True)
    block_size: int = field(default=0, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.dtype is not None:
            _check.choice(self.dtype, "dtype", ("float32", "float16"))
        _normalize_axis(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the codes' shape; ValueError if the scale's does not fit it."""
        return _expect_scales(self, shapes)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the numbers' type; the codes are int8, uint8, int16, uint16 or int32."""
        q, scale, *zero = _two_or_three(self, dtypes)
        codes = expect_dtype(self, q, CODES)
        scales = expect_dtype(self, scale, ("float32", "float16"), ", as a scale")
        for dtype in zero:
            expect_dtype(self, dtype, (codes,), ", as a zero point of such codes")
        return self.dtype or scales

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the real numbers of codes, an ndarray of any shape."""
        self.output_shape(*(array.shape for array in inputs))
        dtype = self.output_dtype(*(array.dtype.name for array in inputs))
        q, scale, *zero = inputs
        zeros = zero[0] if zero else np.zeros(scale.shape, q.dtype)
        return quant.dequantize_linear(q, **_laid_out(self, scale, zeros), dtype=dtype)


def _normalize_axis(layer: QuantizeLinear | DequantizeLinear) -> None:
    object.__setattr__(layer, "axis", _check.integer(layer.axis, "axis"))
    object.__setattr__(layer, "block_size", _check.integer(layer.block_size, "block_size", minimum=0))


def _two_or_three(layer: HostLayer, values: Sequence[Any]) -> Sequence[Any]:
    if len(values) not in (2, 3):
        raise TypeError(f"{type(layer).__name__} takes 2 inputs or 3, not {len(values)}")
    return values


def _expect_scales(layer: QuantizeLinear | DequantizeLinear, shapes: Sequence[Shape]) -> Shape:
    shape, scale, *zeros = map(tuple, _two_or_three(layer, shapes))
    name = type(layer).__name__
    expected: tuple[int, ...] = ()
    if scale not in ((), (1,)) or layer.block_size:
        if not -len(shape) <= layer.axis < len(shape):
            raise ValueError(
                f"{name} takes an input that has an axis {layer.axis}, not {_check.shape(shape)}"
            )
        axis = layer.axis % len(shape)
        expected = shape[axis : axis + 1]
        if layer.block_size:
            expected = (*shape[:axis], -(-shape[axis] // layer.block_size), *shape[axis + 1 :])
        if scale != expected:
            raise ValueError(
                f"{name} takes a scale {_check.shape(expected)} for an input {_check.shape(shape)}, axis "
                f"{layer.axis} and block_size {layer.block_size}, not {_check.shape(scale)}"
                f"{'' if layer.block_size or len(scale) != 1 else _hints.other_axis(shape, scale[0])}"
            )
    for zero in zeros:
        if zero != scale and (expected or zero not in ((), (1,))):
            raise ValueError(
                f"{name} takes a zero point of the scale's shape {_check.shape(scale)}, "
                f"not {_check.shape(zero)}"
            )
    return shape


def _laid_out(
    layer: QuantizeLinear | DequantizeLinear, scale: np.ndarray, zero: np.ndarray
) -> dict[str, Any]:
    """Return the arguments that scales mean: 0-d and without an axis where there is one for all."""
    if scale.ndim < 2 and scale.size == 1 and not layer.block_size:
        return {"scale": scale.reshape(()), "zero_point": zero.reshape(())}
    return {"scale": scale, "zero_point": zero, "axis": layer.axis, "block_size": layer.block_size}
