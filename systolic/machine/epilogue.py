"""Applies an epilogue to accumulators: the formula of :class:`~systolic.lowered.Epilogue`, in one place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic import _host
from systolic.lowered import RAW, Epilogue, Lowered, Patches
from systolic.machine import operands
from systolic.quant import requantize


def fused(lowered: Lowered) -> dict[str, Any] | None:
    """Return what the compiled convolution takes to make codes of its sums while they are in cache.

    None where the epilogue has another rounding, or more than a constant and a scale for each channel.
    """
    e = lowered.epilogue
    if e.scale is None or e.dtype == "float32" or e.rounding != "half_even" or e.w_zero is not None:
        return None
    _check_floats(e)
    channels = lowered.gemm.groups * lowered.gemm.n
    constant = constant_of(lowered)
    return {
        "codes": operands.result_array(lowered, e.dtype),
        "scale": _each(e.scale, channels, np.float32),
        "zero_point": e.zero_point,
        "constant": _each(_NO_CONSTANT if constant is None else constant, channels, np.int32),
    }


def apply_epilogue(lowered: Lowered, acc: np.ndarray) -> np.ndarray:
    """Return a layer's output from its accumulators; overwrites them."""
    e = lowered.epilogue
    if e is RAW:
        return acc
    _check_floats(e)
    axis = lowered.channel_axis
    if acc.dtype.kind == "f":
        return after_scale(e, _of_floats(e, acc, axis))
    exact = e.scale is not None and e.dtype == "float32" and e.scale.dtype == np.float64
    if acc.dtype == np.int64 and not exact:
        acc = acc.astype(np.int32)  # what ONNX defines is modulo 2^32
    constant = constant_of(lowered, acc.dtype)
    row_sums = None if e.w_zero is None else operands.row_sums(lowered.x, acc.dtype)
    if exact:
        _correct(acc, axis, constant, row_sums, e.w_zero)
        assert e.scale is not None
        y = (acc * _spread(e.scale, axis)).astype(np.float32)
        y = _of_floats(e._replace(scale=None), y, axis)
    elif e.scale is None:
        _correct(acc, axis, constant, row_sums, e.w_zero)
        y = acc
    elif e.dtype == "float32" or e.rounding == "half_even":
        y = _scaled(lowered, acc, constant, row_sums)
        with np.errstate(all="ignore"):
            if e.late_scale is not None:
                y *= _spread(e.late_scale, axis)
            if e.float_bias is not None:
                y += _spread(e.float_bias, axis)
    else:
        _correct(acc, axis, constant, row_sums, e.w_zero)
        y = requantize(acc, e.scale, e.zero_point, dtype=e.dtype, rounding=e.rounding, axis=axis)
    return after_scale(e, y)


def _of_floats(e: Epilogue, sums: np.ndarray, axis: int) -> np.ndarray:
    """Scale sums of floats and add the bias, in place and each rounded by itself."""
    with np.errstate(all="ignore"):
        if e.scale is not None:
            sums *= e.scale
        if e.float_bias is not None:
            sums += _spread(e.float_bias, axis)
    return sums


def _check_floats(e: Epilogue) -> None:
    if e.dtype != "float32" and (e.late_scale is not None or e.float_bias is not None):
        raise ValueError(f"late_scale and float_bias are for dtype 'float32', not {e.dtype!r}")


def after_scale(e: Epilogue, y: np.ndarray) -> np.ndarray:
    """Return the output: codes through the clamp and the table, in the output's shape."""
    if e.clamp is not None:
        np.clip(y, *e.clamp, out=y)
    if e.table is not None:
        y = e.table[y.view(np.uint8)]
    if e.planes > 1:
        y = np.ascontiguousarray(y.reshape(-1, e.planes, *y.shape[1:]).swapaxes(1, 2))
    return y if e.shape is None else y.reshape(e.shape)


def constant_of(lowered: Lowered, dtype: Any = np.int32) -> np.ndarray | None:
    """Return the constant and all terms of x's zero point, of a type and shaped to broadcast as they do."""
    e = lowered.epilogue
    if e.x_zero is None:
        return e.constant
    with np.errstate(over="ignore"):
        total = -operands.column_sums(lowered, dtype) * e.x_zero
        if e.w_zero is not None:
            # In 64 bits first: K itself may be anything.
            total = total + (lowered.gemm.k * e.x_zero.astype(np.int64) * e.w_zero).astype(dtype)
        return total if e.constant is None else total + e.constant


def _correct(
    acc: np.ndarray,
    axis: int,
    constant: np.ndarray | None,
    row_sums: np.ndarray | None,
    w_zero: np.ndarray | None,
) -> None:
    """Add the constant to sums and take w's zero points times the row sums from them, in place."""
    with np.errstate(over="ignore"):
        if constant is not None:
            acc += _spread(constant, axis)
        if row_sums is not None and w_zero is not None:
            if row_sums.shape[axis] > 1:  # one for each group, repeated for the group's channels
                row_sums = np.repeat(row_sums, acc.shape[axis] // row_sums.shape[axis], axis=axis)
            acc -= row_sums * _spread(w_zero, axis)


def _spread(values: np.ndarray, axis: int) -> np.ndarray:
    """Return one value for each channel, shaped to broadcast where channels lie along the axis."""
    return values[:, np.newaxis, np.newaxis] if values.ndim == 1 and axis == 1 else values


def _scaled(
    lowered: Lowered, acc: np.ndarray, constant: np.ndarray | None, row_sums: np.ndarray | None
) -> np.ndarray:
    """Return ``(acc + constant - row_sums * w_zero) * scale``, float32, or codes rounded half to even."""
    e, axis = lowered.epilogue, lowered.channel_axis
    assert e.scale is not None
    channels = acc.shape[axis]
    y = np.empty(acc.shape, e.dtype)
    options: dict[str, Any] = {}
    if all(values is None or values.ndim <= 1 for values in (constant, e.w_zero, e.scale)):
        if constant is not None:
            options["constant"] = _each(constant, channels, np.int32)
        if row_sums is not None and e.w_zero is not None:
            if not isinstance(lowered.x, Patches):  # what a stack repeats is summed once
                row_sums = np.broadcast_to(row_sums, (*acc.shape[:-1], 1))
            options["row_sums"] = _flat(np.ascontiguousarray(row_sums), axis)
            options["weight_zero"] = _each(e.w_zero, channels, np.int32)
    else:
        _correct(acc, axis, constant, row_sums, e.w_zero)
    parts = [(_flat(acc, axis), _flat(y, axis), e.scale)]
    if e.scale.ndim > 1:  # one for each column of each matrix
        scales = np.broadcast_to(e.scale, (*acc.shape[:-2], 1, channels))
        parts = [(acc[i], y[i], scales[i][0]) for i in np.ndindex(acc.shape[:-2])]
    for part, out, scale in parts:
        scale = _each(scale, channels, np.float32)
        if e.dtype == "float32":
            _host.scale_sums(part, out, scale, **options)
        else:
            _host.requantize(part, out, scale, e.zero_point, **options)
    return y


def _flat(values: np.ndarray, axis: int) -> np.ndarray:
    """Return values as (images, channels, pixels), or (rows, channels) where channels lie innermost."""
    if axis == 1:
        batch, channels, height, width = values.shape
        return values.reshape(batch, channels, height * width)
    return values if values.ndim == 2 else values.reshape(math.prod(values.shape[:-1]), values.shape[-1])


def _each(values: np.ndarray, channels: int, dtype: type[np.generic]) -> np.ndarray:
    """Return one value for each channel."""
    if values.shape == (channels,) and values.dtype == dtype and values.flags.c_contiguous:
        return values
    if values.ndim == 0:
        return np.full(channels, values, dtype)
    return np.ascontiguousarray(np.broadcast_to(values.astype(dtype), (channels,)))


_NO_CONSTANT = np.zeros((), np.int32)
