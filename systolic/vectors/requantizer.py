"""An epilogue for RTL: its formula in words, and its parameters as matrices that become files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from systolic.formats import stored
from systolic.lowered import Epilogue, Lowered, Patches
from systolic.machine import operands
from systolic.machine.epilogue import constant_of
from systolic.quant import as_multiplier
from systolic.quant.roundings import ROUNDINGS

_SAT = "y = min(max(v + zero_point, lowest), highest)"

_ROUNDED = {
    "half_even": ("v = rne(f32(f32(total) * scale))", _SAT + "; NaN becomes the lowest code"),
    "gemmini": ("v = rne(f32(f32(total) * scale))", _SAT),
    "tflite": (
        "h = (i32(total << max(exponent, 0)) * multiplier + 2^30) >> 31",
        "v = h / 2^max(-exponent, 0), to the nearest integer, ties away from zero",
        "y = min(max(i32(v + zero_point), lowest), highest)",
    ),
    "tflite_single": (
        "v = (total * multiplier + 2^(30 - exponent)) >> (31 - exponent)",
        "y = min(max(i32(v + zero_point), lowest), highest)",
    ),
    "shift": (
        "v = total << exponent if exponent >= 0, else (total + 2^(-exponent - 1)) >> -exponent",
        _SAT,
    ),
}
"""How each rounding makes codes; the names are those of files and of entries of the manifest."""

_NAMES = {"tflite": ("multiplier", "exponent"), "tflite_single": ("multiplier", "exponent")}

Per = Literal["channel", "row", "element", "row and group"]


class Parameter(NamedTuple):
    """Values of a parameter, a line for each channel or row of the accumulators."""

    values: np.ndarray
    per: Per


def requantizer(lowered: Lowered, acc: np.ndarray) -> tuple[dict[str, Any], dict[str, Parameter]]:
    """Return an epilogue as the manifest describes it, and its parameters by name.

    Parameters
    ----------
    lowered : Lowered
    acc : ndarray
        The accumulators: their type and shape.
    """
    e = lowered.epilogue
    parameters = {
        name: _per(values, lowered, acc.shape) for name, values in _values(lowered, acc.dtype)
    }
    if e.w_zero is not None:
        parameters["row_sum"] = _row_sums(lowered, acc)
    codes = e.scale is not None and e.dtype != "float32"
    described: dict[str, Any] = {"formula": _formula(e, acc.dtype, parameters), "dtype": e.dtype}
    if codes:
        limits = np.iinfo(e.dtype)
        described |= {
            "rounding": e.rounding,
            "zero_point": int(e.zero_point),
            "lowest": int(limits.min),
            "highest": int(limits.max),
        }
    if e.clamp is not None:
        described["clamp"] = [int(bound) for bound in e.clamp]
    return described, parameters


def _values(lowered: Lowered, acc: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Return names and values of the parameters, as an epilogue holds them."""
    e = lowered.epilogue
    if acc.kind != "f":
        wide = np.int64 if _exact(e, acc) else np.int32
        if (constant := constant_of(lowered, wide)) is not None:
            yield "bias", np.asarray(constant, wide)
        if e.w_zero is not None:
            yield "weight_zero", np.asarray(e.w_zero, wide)
    if e.scale is not None:
        if e.dtype == "float32":
            yield "scale", np.asarray(e.scale, np.float64 if _exact(e, acc) else np.float32)
        elif e.rounding == "half_even":
            yield "scale", np.asarray(e.scale, np.float32)
        else:
            columns = ROUNDINGS[e.rounding].columns(as_multiplier(e.scale, e.rounding))
            names = _NAMES.get(e.rounding, ("exponent",) if e.rounding == "shift" else ("scale",))
            for name, values in zip(names, columns, strict=True):
                kind = {"multiplier": np.int32, "exponent": np.int8}.get(name, np.float32)
                yield name, np.asarray(values, kind)
    if e.late_scale is not None:
        yield "late_scale", np.asarray(e.late_scale, np.float32)
    if e.float_bias is not None:
        yield "float_bias", np.asarray(e.float_bias, np.float32)


def _exact(e: Epilogue, acc: np.dtype) -> bool:
    """Whether sums are scaled in float64."""
    return acc.kind != "f" and e.scale is not None and e.dtype == "float32" and e.scale.dtype == np.float64


def _formula(e: Epilogue, acc: np.dtype, parameters: dict[str, Parameter]) -> list[str]:
    """Return the steps from acc to y, in order."""
    if acc.kind == "f":
        lines = ["total = acc"]
    else:
        terms = "".join(
            text
            for name, text in (("bias", " + bias"), ("weight_zero", " - row_sum * weight_zero"))
            if name in parameters
        )
        lines = [f"total = acc{terms}, modulo 2^{64 if _exact(e, acc) else 32}, signed"]
    if e.dtype == "float32":
        if e.scale is None:
            lines.append("y = total")
        elif _exact(e, acc):
            lines.append("y = f32(f64(total) * scale)")
        else:
            lines.append("y = f32(f32(total) * scale)")
        if e.late_scale is not None:
            lines.append("y = f32(y * late_scale)")
        if e.float_bias is not None:
            lines.append("y = f32(y + float_bias)")
    elif e.scale is None:
        lines.append("y = total")
    else:
        lines += _ROUNDED[e.rounding]
    if e.clamp is not None:
        lines.append("y = min(max(y, clamp[0]), clamp[1])")
    if e.table is not None:
        lines.append("y = table[y as an unsigned byte]")
    return lines


def _per(values: np.ndarray, lowered: Lowered, shape: tuple[int, ...]) -> Parameter:
    """Return a parameter's values in as few lines as hold all of them."""
    images = isinstance(lowered.x, Patches)
    channels = shape[lowered.channel_axis]
    if images or math.prod(values.shape[:-1]) == 1:
        each = np.broadcast_to(values.reshape(values.shape[-1:]), (channels,))
        return Parameter(each[:, np.newaxis], "channel")
    if values.shape[-1] == 1:
        return Parameter(np.broadcast_to(values, (*shape[:-1], 1)).reshape(-1, 1), "row")
    return Parameter(np.broadcast_to(values, shape).reshape(-1, channels), "element")


def _row_sums(lowered: Lowered, acc: np.ndarray) -> Parameter:
    """Return the sum of each row of x; of images one for each group."""
    x = lowered.x
    if isinstance(x, Patches):
        sums = operands.row_sums(x._replace(images=stored(x.images)), acc.dtype)
        sums = np.moveaxis(sums, lowered.channel_axis, -1)
        return Parameter(sums.reshape(-1, sums.shape[-1]), "row and group")
    sums = operands.row_sums(stored(x), acc.dtype)
    return Parameter(np.broadcast_to(sums, (*acc.shape[:-1], 1)).reshape(-1, 1), "row")
