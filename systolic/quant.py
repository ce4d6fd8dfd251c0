"""Scale and zero point: float to integer codes, back, and int32 sums to 8 bits by a named rounding.

``real = scale * (q - zero_point)``. Every step is one float32 operation, rounded by itself, as
ONNX defines QuantizeLinear, DequantizeLinear, QLinearMatMul and QLinearConv and as ONNX Runtime's
CPU provider (MLAS) computes them; so equal codes come out, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from systolic import _check

DTYPES = ("int8", "uint8", "int32")
EIGHT_BITS = _check.OPERAND_DTYPES

# Elements worked on at a time: float32 temporaries of 512 KiB stay in a core's L2 cache, and
# memory in use does not grow with the tensor.
_BLOCK = 1 << 17


@dataclass(frozen=True, repr=False)
class QuantParams:
    """How integer codes stand for real numbers: ``real = scale * (q - zero_point)``.

    A value: hashable, comparable, picklable; it round-trips through ``eval(repr(p))`` and,
    with :meth:`to_dict` and :meth:`from_dict`, through JSON.

    Parameters
    ----------
    scale : float or sequence of float
        Finite and above zero; rounded to float32, the type ONNX stores. A sequence (list,
        tuple, 1-D array) holds one scale per channel. Kept as float or tuple of float.
    zero_point : int or sequence of int
        The code of real 0; it must fit `dtype`, and is 0 for int32. Kept as int or tuple of int.
    dtype : {"int8", "uint8", "int32"}
        Type of the codes; int32 is for biases.
    axis : int or None
        The channels' axis; given exactly when `scale` or `zero_point` is a sequence.

    Raises
    ------
    TypeError
        If a scale is not a number or a zero point not an integer.
    ValueError
        If a scale is NaN, infinite, not positive, or 0 or infinite once rounded to float32; if a
        zero point does not fit; if the sequences differ in length or come without `axis`.

    Notes
    -----
    ONNX operators QuantizeLinear and DequantizeLinear, per tensor and per axis.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> QuantParams(0.1, 3)
    QuantParams(scale=0.1, zero_point=3)
    >>> QuantParams([0.5, 0.25], axis=0).per_channel
    True
    >>> QuantParams.from_dict(QuantParams(0.1, 128, "uint8").to_dict())
    QuantParams(scale=0.1, zero_point=128, dtype='uint8')
    """

    scale: float | Sequence[float] | np.ndarray
    zero_point: int | Sequence[int] | np.ndarray = 0
    dtype: str = "int8"
    axis: int | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("dtype", _dtype(self.dtype, DTYPES))
        put("scale", _each(self.scale, "scale", _scale))
        put("zero_point", _each(self.zero_point, "zero_point", partial(_zero_point, dtype=self.dtype)))
        lengths = {
            name: len(value)
            for name, value in (("scale", self.scale), ("zero_point", self.zero_point))
            if isinstance(value, tuple)
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "scale and zero_point must have one length, "
                f"not {lengths['scale']} and {lengths['zero_point']}"
            )
        if self.axis is not None:
            put("axis", _check.integer(self.axis, "axis"))
            if not lengths:
                raise ValueError(
                    f"axis must be None for one scale and one zero point, not {self.axis}; "
                    "pass a sequence with one scale per channel, or leave the axis out"
                )
        elif lengths:
            name, length = next(iter(lengths.items()))
            raise ValueError(
                f"axis must be given for a {name} of {length} channels: the axis along which they run "
                f"(for one {name} for the whole tensor, pass a number)"
            )

    @property
    def per_channel(self) -> bool:
        """Whether there is one scale or zero point per channel."""
        return self.axis is not None

    @property
    def scales(self) -> np.ndarray:
        """The scales, a new float32 array: 0-d, or (C,) when per channel."""
        return np.full(self._shape, self.scale, np.float32)

    @property
    def zero_points(self) -> np.ndarray:
        """The zero points, a new array of `dtype`: 0-d, or (C,) when per channel."""
        return np.full(self._shape, self.zero_point, self.dtype)

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def qmax(self) -> int:
        """The largest code."""
        return int(np.iinfo(self.dtype).max)

    @property
    def _shape(self) -> tuple[int, ...]:
        for value in (self.scale, self.zero_point):
            if isinstance(value, tuple):
                return (len(value),)
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuantParams:
        """Return the parameters that :meth:`to_dict` described."""
        if not isinstance(data, dict):
            raise TypeError(f"QuantParams.from_dict takes a dict, not {type(data).__name__}")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown or "scale" not in data:
            wrong = f"has no field {', '.join(map(repr, unknown))}" if unknown else "needs the field 'scale'"
            raise ValueError(f"QuantParams {wrong}; its fields are {', '.join(known)}")
        return cls(**data)

    def __repr__(self) -> str:
        shown = [f"scale={_short(self.scale)}"]
        for f in fields(self)[1:]:
            value = getattr(self, f.name)
            if value != f.default:
                shown.append(f"{f.name}={value!r}")
        return f"QuantParams({', '.join(shown)})"


def as_params(
    value: Any, name: str, *, per_tensor: bool = False, dtypes: Sequence[str] = EIGHT_BITS
) -> QuantParams:
    """Return `value` if it is a QuantParams of one of the `dtypes`; the check all layers share.

    Raises
    ------
    TypeError
        If it is not a QuantParams or its dtype is not among `dtypes`.
    ValueError
        If it is per channel where one scale per tensor is needed.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.quant import as_params
    >>> as_params(QuantParams(0.5), "x", per_tensor=True)
    QuantParams(scale=0.5)
    """
    if not isinstance(value, QuantParams):
        raise TypeError(f"{name} must be a QuantParams, not {_check.kind(value)}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be a QuantParams of {' or '.join(dtypes)}, not {value.dtype}")
    if per_tensor and value.per_channel:
        raise ValueError(f"{name} must have one scale and one zero point, not one per channel")
    return value


def quantize(x: Any, params: QuantParams) -> np.ndarray:
    """Return the codes of real numbers: ``sat(rne(f32(x / scale)) + zero_point)``.

    A float32 division (not a product with the reciprocal), rounded to the nearest integer, ties
    to even, then the zero point, then saturation. Infinities saturate, NaN becomes the smallest
    code.

    Parameters
    ----------
    x : array_like of float
        Any shape. float64 and float16 are first rounded to float32.
    params : QuantParams
        Scale, zero point and type of the codes.

    Returns
    -------
    ndarray of params.dtype, the shape of x

    Raises
    ------
    TypeError
        If `x` does not hold floats.
    ValueError
        If `params` is per channel and `x` has not that many channels.

    Notes
    -----
    ONNX operator QuantizeLinear. NaN is undefined there; ONNX Runtime gives the smallest code.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, quantize
    >>> quantize(np.float32([-2.5, -0.5, 0.5, 1.5, 127.5, np.inf, np.nan]), QuantParams(1.0, 3))
    array([   1,    3,    3,    5,  127,  127, -128], dtype=int8)
    """
    as_params(params, "params", dtypes=DTYPES)
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"x must hold floats, not {x.dtype}; convert real numbers with .astype(np.float32)")
    scales, zeros = params.scales, params.zero_points.astype(np.int64)
    out = np.empty(x.shape, params.dtype)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        np.copyto(work, source, casting="same_kind")
        np.divide(work, scale, out=work)
        np.rint(work, out=work)
        # int32 bounds are no float32 numbers; 8-bit ones are, and their sums with a zero point.
        codes = work.astype(np.float64) if params.dtype == "int32" else work
        # fmax, not maximum: NaN loses against the lower bound.
        np.fmax(codes, (params.qmin - zero).astype(codes.dtype), out=codes)
        np.fmin(codes, (params.qmax - zero).astype(codes.dtype), out=codes)
        np.add(codes, zero.astype(codes.dtype), out=codes)
        np.copyto(target, codes, casting="unsafe")

    with np.errstate(all="ignore"):
        _map_blocks(block, x, out, (scales, zeros), params.axis, "x")
    return out


def dequantize(q: Any, params: QuantParams) -> np.ndarray:
    """Return the real numbers of codes: ``f32(f32(q - zero_point) * scale)``.

    Parameters
    ----------
    q : ndarray of params.dtype
        Codes, any shape.
    params : QuantParams
        Scale, zero point and type of the codes.

    Returns
    -------
    ndarray of float32, the shape of q

    Raises
    ------
    TypeError
        If `q` is not of `params.dtype`.
    ValueError
        If `params` is per channel and `q` has not that many channels.

    Notes
    -----
    ONNX operator DequantizeLinear. The difference is exact; int32 codes are rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, dequantize
    >>> dequantize(np.int8([-128, 3, 127]), QuantParams(0.5, 3))
    array([-65.5,   0. ,  62. ], dtype=float32)
    """
    as_params(params, "params", dtypes=DTYPES)
    q = np.asarray(q)
    if q.dtype != params.dtype:
        raise TypeError(f"q must hold {params.dtype}, as params say, not {q.dtype}")
    out = np.empty(q.shape, np.float32)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        # 8-bit codes and their differences are exact in float32; int32 has zero point 0.
        np.copyto(target, source, casting="same_kind")
        np.subtract(target, zero, out=target)
        np.multiply(target, scale, out=target)

    with np.errstate(all="ignore"):
        _map_blocks(block, q, out, (params.scales, params.zero_points.astype(np.float32)), params.axis, "q")
    return out


def requantize(
    acc: Any,
    scale: Any,
    zero_point: int,
    *,
    dtype: str,
    rounding: str = "half_even",
    axis: int = -1,
) -> np.ndarray:
    """Return int32 sums as 8-bit codes, by a named rounding.

    ``half_even``, as ONNX Runtime (MLAS), XNNPACK and qnnpack compute it, all in float32::

        v = f32(f32(acc) * scale)                       # int32 -> float32 rounds above 2^24
        v = min(max(v, qmin - zero_point), qmax - zero_point)
        y = int(rne(v)) + zero_point                    # ties to even; zero point after rounding

    Parameters
    ----------
    acc : ndarray of int32
        Sums, any shape, bias included.
    scale : float32 or array_like of float32
        The multiplier (see :func:`multiplier`): one, or one per channel along `axis`. Other
        floats are rounded to float32.
    zero_point : int
        Zero point of the result.
    dtype : {"int8", "uint8"}
        Type of the result.
    rounding : {"half_even"}
        How the product is rounded.
    axis : int
        The channels' axis, where there is one scale per channel.

    Returns
    -------
    ndarray of `dtype`, the shape of acc, C-contiguous

    Raises
    ------
    TypeError
        If `acc` is not int32 or `zero_point` not an integer.
    ValueError
        If a scale is negative, NaN or infinite, their number is not the number of channels,
        `zero_point` does not fit `dtype`, or `rounding` is unknown.

    Notes
    -----
    ONNX operators QLinearMatMul and QLinearConv. Work is done block by block: beside the result it
    takes about a megabyte, but an `acc` that is not C-contiguous is copied first.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.arange(-5, 6, dtype=np.int32), 0.5, 3, dtype="int8")
    array([1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5], dtype=int8)
    """
    round_block = _ROUNDINGS[_check.choice(rounding, "rounding", tuple(_ROUNDINGS))]
    dtype = _dtype(dtype, EIGHT_BITS)
    zero_point = _zero_point(zero_point, "zero_point", dtype)
    acc = np.asarray(acc)
    if acc.dtype != np.int32:
        raise TypeError(f"acc must hold int32, not {acc.dtype}; sums wrap to int32 before they are scaled")
    scale = np.asarray(scale)
    if scale.dtype.kind not in "fiu":
        raise TypeError(f"scale must hold float32, not {scale.dtype}")
    if scale.ndim > 1:
        raise ValueError(f"scale must be a number or have one axis (C,), not {_check.shape(scale.shape)}")
    with np.errstate(over="ignore"):
        scale = scale.astype(np.float32)
    # 0 is a product of scales that underflowed: a legal, if useless, multiplier.
    wrong = ~np.isfinite(scale) | (scale < 0)
    if wrong.any():
        raise ValueError(f"scale must be finite in float32 and not negative, not {float(scale[wrong][0])}")
    low, high = np.iinfo(dtype).min - zero_point, np.iinfo(dtype).max - zero_point
    out = np.empty(acc.shape, dtype)

    def block(source: np.ndarray, factor: np.ndarray, work: np.ndarray, target: np.ndarray) -> None:
        round_block(source, factor, low, high, zero_point, work, target)

    with np.errstate(over="ignore", under="ignore"):
        _map_blocks(block, acc, out, (scale,), axis if scale.ndim else None, "acc")
    return out


def multiplier(x: QuantParams, w: QuantParams, y: QuantParams) -> np.ndarray:
    """Return what int32 sums of products are scaled by: ``f32(f32(x.scale * w.scale) / y.scale)``.

    Two float32 roundings in this order, as ONNX Runtime takes them in QLinearMatMul and
    QLinearConv; ``x * (w / y)`` or double precision give other bits.

    Parameters
    ----------
    x, w, y : QuantParams
        Of the activations, the weights (per tensor or per channel) and the output.

    Returns
    -------
    ndarray of float32, 0-d, or (C,) when w is per channel

    Raises
    ------
    ValueError
        If `x` or `y` is per channel, or a multiplier is infinite in float32.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.quant import multiplier
    >>> multiplier(QuantParams(0.5), QuantParams([1.0, 0.5], axis=0), QuantParams(2.0))
    array([0.25 , 0.125], dtype=float32)
    """
    as_params(x, "x", per_tensor=True)
    as_params(w, "w")
    as_params(y, "y", per_tensor=True)
    with np.errstate(over="ignore", under="ignore"):
        result = np.asarray(x.scales * w.scales / y.scales)
    if not np.isfinite(result).all():
        raise ValueError(
            f"x.scale * w.scale / y.scale must be finite in float32, but x.scale={x.scale}, "
            f"w.scale up to {float(w.scales.max())} and y.scale={y.scale} overflow; check the scales"
        )
    return result


def _half_even(
    acc: np.ndarray,
    scale: np.ndarray,
    low: int,
    high: int,
    zero_point: int,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    np.copyto(work, acc, casting="same_kind")
    np.multiply(work, scale, out=work)
    np.clip(work, low, high, out=work)
    np.rint(work, out=work)
    np.add(work, zero_point, out=work)
    np.copyto(out, work, casting="unsafe")


# name -> function(acc, scale, low, high, zero_point, work, out): one block of int32 sums into
# `out`, with a float32 work array of the block's shape and the bounds before the zero point.
_ROUNDINGS: dict[str, Callable[..., None]] = {"half_even": _half_even}


def _map_blocks(
    function: Callable[..., None],
    source: np.ndarray,
    out: np.ndarray,
    channels: tuple[np.ndarray, ...],
    axis: int | None,
    name: str,
) -> None:
    """Call function(source block, *channel values, float32 work array, out block) on all blocks.

    The arrays are seen as (outer, channels, inner); `channels` are 0-d or (C,) arrays, (C,) exactly
    if `axis` is given.
    """
    shape, count = source.shape, 1
    if axis is None:
        view = (1, 1, source.size)
    else:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis must be an axis of {name} {_check.shape(shape)}, not {axis}")
        axis %= len(shape)
        count = channels[0].size
        if shape[axis] != count:
            raise ValueError(
                f"{name} must have {count} channels along axis {axis}, one per scale, "
                f"not {shape[axis]} {_check.shape(shape)}"
            )
        view = (math.prod(shape[:axis]), count, math.prod(shape[axis + 1 :]))
    if not source.size:
        return
    columns = [value.reshape(-1, 1) for value in channels]
    # A fresh result is contiguous, so this is a view of it.
    flat_source, flat_out = np.ascontiguousarray(source).reshape(view), out.reshape(view)
    buffer = np.empty(min(_BLOCK, source.size), np.float32)
    for outer, channel, inner in _blocks(*view):
        part = flat_source[outer, channel, inner]
        work = buffer[: part.size].reshape(part.shape)
        function(part, *(column[channel] for column in columns), work, flat_out[outer, channel, inner])


def _blocks(outer: int, channels: int, inner: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut (outer, channels, inner) into blocks of at most _BLOCK elements, long axes innermost."""
    inner_step = min(inner, _BLOCK)
    channel_step = min(channels, _BLOCK // inner_step)
    outer_step = min(outer, _BLOCK // (inner_step * channel_step))
    for o in range(0, outer, outer_step):
        for c in range(0, channels, channel_step):
            for i in range(0, inner, inner_step):
                yield slice(o, o + outer_step), slice(c, c + channel_step), slice(i, i + inner_step)


def _each(value: Any, name: str, convert: Callable[[Any, str], Any]) -> Any:
    """Return a converted number, or a tuple of them where `value` is a sequence or 1-D array."""
    if isinstance(value, np.ndarray):
        if value.ndim > 1:
            shape = _check.shape(value.shape)
            raise ValueError(f"{name} must be a number or have one axis (C,), not {shape}")
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return convert(value, name)
    if not value:
        raise ValueError(f"{name} must be a number or one number per channel, not an empty sequence")
    return tuple(convert(item, f"{name}[{index}]") for index, item in enumerate(value))


def _scale(value: Any, name: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, not {_check.kind(value)}")
    try:
        exact = float(value)
    except OverflowError:
        exact = math.inf
    if not math.isfinite(exact) or exact <= 0:
        raise ValueError(f"{name} must be finite and above zero, not {exact}")
    with np.errstate(all="ignore"):
        rounded = float(np.float32(exact))
    if rounded == 0:
        raise ValueError(f"{name} must be above zero in float32, but {exact} underflows (smallest: 1e-45)")
    if math.isinf(rounded):
        raise ValueError(f"{name} must be finite in float32, but {exact} overflows (largest: 3.4028235e+38)")
    return rounded


def _zero_point(value: Any, name: str, dtype: str) -> int:
    result = _check.integer(value, name)
    if dtype == "int32" and result:
        raise ValueError(f"{name} must be 0 for int32, not {result}; a bias has no zero point")
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if not low <= result <= high:
        raise ValueError(f"{name} must fit {dtype} ({low}..{high}), not {result}")
    return result


def _dtype(value: Any, names: Sequence[str]) -> str:
    try:
        name = np.dtype(value).name if value is not None else None
    except TypeError:
        name = None
    if name is None:
        raise TypeError(f"dtype must be one of {', '.join(map(repr, names))}, not {value!r}")
    return _check.choice(name, "dtype", names)


def _short(scale: Any) -> str:
    """Return the shortest text that gives the same float32 back."""
    if isinstance(scale, tuple):
        return f"({', '.join(map(_short, scale))}{',' * (len(scale) == 1)})"
    text = str(np.float32(scale))
    # Read as float64 and then rounded, a short decimal could in principle land on a neighbour.
    return text if float(np.float32(float(text))) == scale else repr(scale)
