"""What a layer does with raw sums: zero-point corrections, bias, requantization.

The array multiplies raw codes. With zero points za and zw the sum of ``(a - za)(w - zw)`` over K
is::

    sum a*w  -  zw * sum a  -  za * sum w  +  K * za * zw  +  bias
    '-array-'   '-- run --'   '--------- constant ---------'

The *constant* terms depend on weights only and are one int32 per output channel, computed once
when the layer is made, as a compiler would fold them into the bias. The *run*-time term is needed
only for weights with a zero point: row sums of x, made beside the array as its rows are read, as
hardware does with an adder along the west port. All additions wrap modulo 2^32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic import _check, _host
from systolic.gemm import Product
from systolic.quant import ROUNDINGS, QuantParams, multiplier, requantize


def check_params(layer: str, x: Any, w: Any, y: Any, *, w_axis: int, channels: int) -> None:
    """Check a layer's quantization parameters: x and y per tensor, w per tensor or per channel."""
    for name, params in (("x", x), ("w", w), ("y", y)):
        if name == "y" and params is None:
            continue
        if not isinstance(params, QuantParams):
            raise TypeError(f"{layer}: {name} must be QuantParams, not {type(params).__name__}")
        if params.dtype not in _check.OPERAND_DTYPES:
            raise TypeError(f"{layer}: {name} must be int8 or uint8, not {params.dtype}")
        if name != "w" and params.per_channel:
            raise ValueError(f"{layer}: {name} must have one scale and zero point, not one per channel")
    if w.per_channel:
        if w.axis != w_axis:
            raise ValueError(
                f"{layer}: w must be quantized along axis {w_axis}, its output channels, not {w.axis}"
            )
        count = w.scales.size
        if count != channels:
            raise ValueError(f"{layer}: w has {count} scales for {channels} output channels")


def check_weight(layer: str, weight: Any, w: Any, *, ndim: int, axes: str) -> np.ndarray:
    """Return the weights as a read-only array of w's type."""
    values = _check.operand(weight, f"{layer}: weight", ndim=ndim, axes=axes)
    if isinstance(w, QuantParams) and values.dtype.name != w.dtype:
        raise TypeError(f"{layer}: weight holds {values.dtype}, but w says {w.dtype}")
    return frozen(values)


def check_bias(layer: str, bias: Any, channels: int) -> np.ndarray | None:
    """Return the bias as a read-only int32 array, or None."""
    if bias is None:
        return None
    values = _check.integers(bias, f"{layer}: bias", "int32")
    if values.shape != (channels,):
        raise ValueError(
            f"{layer}: bias must have one value per output channel, ({channels},), "
            f"not {_check.shape(values.shape)}"
        )
    return frozen(values)


def check_rounding(layer: str, rounding: Any, x: QuantParams, w: QuantParams, y: QuantParams | None) -> None:
    """Check the name of a rounding, and that it can represent the layer's multipliers."""
    _check.choice(rounding, "rounding", tuple(ROUNDINGS))
    if y is not None:
        multiplier(x, w, y, rounding)
    elif rounding != "half_even":
        raise ValueError(f"{layer}: rounding {rounding!r} is for codes, but without y the output is float32")


def frozen(values: np.ndarray) -> np.ndarray:
    """Return a read-only copy."""
    copy = np.array(values, order="C")
    copy.flags.writeable = False
    return copy


def constant_term(
    weight_sums: np.ndarray, k: int, x: QuantParams, w: QuantParams, bias: np.ndarray | None
) -> np.ndarray:
    """Return ``bias - za * sum w + K * za * zw`` per output channel, int32, wrapped.

    Parameters
    ----------
    weight_sums : ndarray of int64, (channels,)
        Sum of each output channel's weight codes.
    k : int
        Products per output.
    """
    za = int(x.zero_points)
    total = -za * weight_sums + k * za * w.zero_points.astype(np.int64)
    if bias is not None:
        total = total + bias
    return total.astype(np.int32)  # C-style conversion keeps the low 32 bits


def finish_sums(
    product: Product, constant: np.ndarray, row_sums: np.ndarray | None,
    x: QuantParams, w: QuantParams, y: QuantParams | None, axis: int, rounding: str = "half_even",
    scale: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return the layer's output from the raw sums in ``product.acc``.

    Parameters
    ----------
    constant : ndarray of int32, (channels,)
    row_sums : ndarray of int32 or None
        ``sum a`` of each output; `axis` has one per group of channels. None where no weight has a
        zero point.
    axis : int
        The axis of output channels in the sums.
    rounding : str
        How codes are rounded; see :func:`systolic.requantize`. "half_even" is compiled, the others
        use up the sums.
    scale : ndarray of float32, (channels,), optional
        :func:`channel_scales` of the same, where a layer keeps it.

    Notes
    -----
    ``acc + constant - row_sums * zw``, wrapping, then :func:`systolic.requantize` with the multiplier
    of :func:`systolic.quant.multiplier`, or without y ONNX Runtime's QGemm and MatMulIntegerToFloat,
    ``f32(f32(acc) * f32(xs * ws))``.
    """
    acc = product.acc
    channels = acc.shape[axis]

    def each(values: np.ndarray, dtype: type) -> np.ndarray:
        return np.ascontiguousarray(np.broadcast_to(values.astype(dtype), (channels,)))

    def matrix(values: np.ndarray) -> np.ndarray:
        # (outer, channels, inner), or (rows, channels) where channels lie innermost.
        if axis == values.ndim - 1:
            return values.reshape(math.prod(values.shape[:axis]), values.shape[axis])
        inner = math.prod(values.shape[axis + 1 :])
        return values.reshape(math.prod(values.shape[:axis]), values.shape[axis], inner)

    if y is not None and rounding != "half_even":
        spread = [1] * acc.ndim
        spread[axis] = -1
        with np.errstate(over="ignore"):
            acc += constant.reshape(spread)
            if row_sums is not None:
                zeros = each(w.zero_points, np.int32).reshape(spread)
                acc -= np.repeat(row_sums, channels // row_sums.shape[axis], axis=axis) * zeros
        scale = multiplier(x, w, y, rounding)
        return requantize(acc, scale, int(y.zero_points), dtype=y.dtype, rounding=rounding, axis=axis)
    options: dict[str, Any] = {"constant": constant}
    if row_sums is not None:
        options |= {
            "row_sums": matrix(np.ascontiguousarray(row_sums)),
            "weight_zero": each(w.zero_points, np.int32),
        }
    if scale is None:
        scale = channel_scales(x, w, y, channels)
    if y is None:
        real = np.empty(acc.shape, dtype=np.float32)
        _host.scale_sums(matrix(acc), matrix(real), scale, **options)
        return real
    codes = np.empty(acc.shape, dtype=y.dtype)
    _host.requantize(matrix(acc), matrix(codes), scale, int(y.zero_points), **options)
    return codes


def channel_scales(x: QuantParams, w: QuantParams, y: QuantParams | None, channels: int) -> np.ndarray:
    """Return what each channel's sums are scaled by, to codes or (no y) to numbers, (channels,) float32."""
    with np.errstate(over="ignore", under="ignore"):
        scale = np.asarray(x.scales * w.scales, dtype=np.float32) if y is None else multiplier(x, w, y)
    return np.ascontiguousarray(np.broadcast_to(scale.astype(np.float32), (channels,)))


def has_zero_point(params: QuantParams) -> bool:
    """Whether any channel's zero point differs from 0."""
    return bool(np.any(params.zero_points))
