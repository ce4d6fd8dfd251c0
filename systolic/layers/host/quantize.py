"""Layers that quantize and dequantize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class _Known(HostLayer):
    """Base of the layers whose parameters are known beforehand."""

    @property
    def _params(self) -> QuantParams:
        raise TypeError(f"{type(self).__name__} does not define _params")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        axis, channels = self._params.axis, self._params.scales.size
        if axis is not None and (not -len(shape) <= axis < len(shape) or shape[axis] != channels):
            raise ValueError(
                f"{type(self).__name__} takes {channels} channels along axis {axis}, one per scale, "
                f"not {_check.shape(shape)}{_hints.other_axis(shape, channels)}"
            )
        return tuple(shape)

    def _converted(
        self,
        x: np.ndarray,
        dtype: str,
        compiled: Callable[..., None] | None,
        function: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """Return what `function` makes of x; `compiled` is the same for one scale of 8-bit codes."""
        self.output_shape(x.shape)
        params = self._params
        plain = not params.per_channel and params.dtype in _check.OPERAND_DTYPES and x.flags.c_contiguous
        if compiled is None or not plain:
            return function(x, params)
        out = np.empty(x.shape, dtype)
        scale, zero_point, threads = float(params.scales), int(params.zero_points), thread_count()
        if x.size <= MOVED:
            compiled(x, out, scale, zero_point, threads=threads)
            return out
        source, target = x.reshape(-1), out.reshape(-1)
        # In parts, so that Ctrl-C need not wait.
        for start in range(0, x.size, MOVED):
            part = slice(start, start + MOVED)
            compiled(source[part], target[part], scale, zero_point, threads=threads)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Quantize(_Known):
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
    >>> from systolic import QuantParams
    >>> from systolic.layers import Quantize
    >>> Quantize(QuantParams(0.5, 128, "uint8")).apply(np.float32([-1, 0, 0.75]))
    array([126, 128, 130], dtype=uint8)
    """

    y: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.y, "y")

    def output_dtype(self, *dtypes: str) -> str:
        """Return the codes' type; the input is float32 (or float16, float64, rounded to it)."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, ("float32", "float64", "float16"))
        return self.y.dtype

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the codes of x, an ndarray of float32 of any shape."""
        (x,) = take(self, inputs)
        dtype, compiled = self.output_dtype(x.dtype), _host.quantize if x.dtype == np.float32 else None
        return self._converted(x, dtype, compiled, quant.quantize)

    @property
    def _params(self) -> QuantParams:
        return self.y


@dataclass(frozen=True, eq=False, repr=False)
class Dequantize(_Known):
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
    >>> from systolic import QuantParams
    >>> from systolic.layers import Dequantize
    >>> Dequantize(QuantParams(0.5, 128, "uint8")).apply(np.uint8([126, 128, 130]))
    array([-1.,  0.,  1.], dtype=float32)
    """

    x: QuantParams

    def __post_init__(self) -> None:
        quant.as_params(self.x, "x", dtypes=quant.DTYPES)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "float32"; the input is of x's type."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, (self.x.dtype,), ", as its parameters say")
        return "float32"

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the real numbers of q, an ndarray of x's type and any shape."""
        (q,) = take(self, inputs)
        return self._converted(q, self.output_dtype(q.dtype), _host.dequantize, quant.dequantize)

    @property
    def _params(self) -> QuantParams:
        return self.x


class _Computed(HostLayer):
    """Base of the layers whose scales and zero points are inputs."""

    inputs: ClassVar[int | None] = None

    axis: int
    block_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))
        object.__setattr__(self, "block_size", _check.integer(self.block_size, "block_size", minimum=0))

    def _take(self, values: Sequence[Any]) -> Sequence[Any]:
        if len(values) not in (2, 3):
            raise TypeError(f"{type(self).__name__} takes 2 inputs or 3, not {len(values)}")
        return values

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the first input's shape; ValueError if the scale's does not fit it."""
        shape, scale, *zeros = map(tuple, self._take(shapes))
        name = type(self).__name__
        expected: tuple[int, ...] = ()
        if scale not in ((), (1,)) or self.block_size:
            if not -len(shape) <= self.axis < len(shape):
                raise ValueError(
                    f"{name} takes an input that has an axis {self.axis}, not {_check.shape(shape)}"
                )
            axis = self.axis % len(shape)
            expected = shape[axis : axis + 1]
            if self.block_size:
                expected = (*shape[:axis], -(-shape[axis] // self.block_size), *shape[axis + 1 :])
            if scale != expected:
                raise ValueError(
                    f"{name} takes a scale {_check.shape(expected)} for an input {_check.shape(shape)}, axis "
                    f"{self.axis} and block_size {self.block_size}, not {_check.shape(scale)}"
                    f"{'' if self.block_size or len(scale) != 1 else _hints.other_axis(shape, scale[0])}"
                )
        for zero in zeros:
            if zero != scale and (expected or zero not in ((), (1,))):
                raise ValueError(
                    f"{name} takes a zero point of the scale's shape {_check.shape(scale)}, "
                    f"not {_check.shape(zero)}"
                )
        return shape

    def _laid_out(self, dtype: Any, scale: np.ndarray, zero: np.ndarray | None = None) -> dict[str, Any]:
        """Return the arguments that scales mean: 0-d and without an axis where there is one for all."""
        zero = np.zeros(scale.shape, dtype) if zero is None else zero
        if scale.ndim < 2 and scale.size == 1 and not self.block_size:
            return {"scale": scale.reshape(()), "zero_point": zero.reshape(())}
        return {"scale": scale, "zero_point": zero, "axis": self.axis, "block_size": self.block_size}


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeLinear(_Computed):
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
    >>> from systolic.layers import QuantizeLinear
    >>> scale = np.float32([[1.0, 0.5]])
    >>> QuantizeLinear("int16", block_size=2).apply(np.float32([[1, 2, 3, 4]]), scale)
    array([[1, 2, 6, 8]], dtype=int16)
    """

    dtype: str
    axis: int = field(default=1, kw_only=True)
    block_size: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check.choice(self.dtype, "dtype", CODES[:-1])

    def output_dtype(self, *dtypes: str) -> str:
        """Return the codes' type; x is float32 (or float64, rounded to it) or float16."""
        x, scale, *zero = self._take(dtypes)
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
        return quant.quantize_linear(x, **self._laid_out(self.dtype, scale, *zero))


@dataclass(frozen=True, eq=False, repr=False)
class DequantizeLinear(_Computed):
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
    >>> from systolic.layers import DequantizeLinear
    >>> scale, zero = np.float32([1.0, 0.5]), np.uint16([0, 7])
    >>> DequantizeLinear().apply(np.uint16([[1, 9], [2, 5]]), scale, zero)
    array([[ 1.,  1.],
           [ 2., -1.]], dtype=float32)
    """

    axis: int = field(default=1, kw_only=True)
    block_size: int = field(default=0, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype is not None:
            _check.choice(self.dtype, "dtype", ("float32", "float16"))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the numbers' type; the codes are int8, uint8, int16, uint16 or int32."""
        q, scale, *zero = self._take(dtypes)
        codes = expect_dtype(self, q, CODES)
        scales = expect_dtype(self, scale, ("float32", "float16"), ", as a scale")
        for dtype in zero:
            expect_dtype(self, dtype, (codes,), ", as a zero point of such codes")
        return self.dtype or scales

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the real numbers of codes, an ndarray of any shape."""
        self.output_shape(*(array.shape for array in inputs))
        dtype = self.output_dtype(*(array.dtype.name for array in inputs))
        q, *others = inputs
        return quant.dequantize_linear(q, **self._laid_out(q.dtype, *others), dtype=dtype)
