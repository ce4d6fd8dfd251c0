"""Requantize int32 accumulators to 8-bit codes: the multiplier, and a named rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _check
from systolic.quant.blocks import map_blocks
from systolic.quant.params import EIGHT_BITS, QuantParams, as_params, check_dtype, check_zero_point
from systolic.quant.roundings import ROUNDINGS


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

    The others, each with its formula and source in :mod:`systolic.quant.roundings`:

    - ``tflite``: gemmlowp's two integer roundings, as in TFLite's reference convolution.
    - ``tflite_single``: one integer rounding, ties up, as in TFLITE_SINGLE_ROUNDING builds.
    - ``shift``: a power of two, ties up.
    - ``gemmini``: float32, ties to even, as Gemmini scales what it reads from its accumulator.

    Parameters
    ----------
    acc : ndarray of int32
        Sums, any shape, bias included.
    scale : float or array_like of float
        The multiplier (see :func:`multiplier`): one, or one per channel along `axis`.
        ``half_even`` and ``gemmini`` round it to float32, the others take it as float64.
    zero_point : int
        Zero point of the result.
    dtype : {"int8", "uint8"}
        Type of the result.
    rounding : {"half_even", "tflite", "tflite_single", "shift", "gemmini"}
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
        If a scale is negative or NaN, or nothing `rounding` can represent (infinity for all but
        ``half_even``, 2^30 and more for ``tflite`` and ``tflite_single``, no power of two from 2^-31
        to 2^30 for ``shift``); if their number is not the number of channels, `zero_point` does not
        fit `dtype`, or `rounding` is unknown.

    Notes
    -----
    ONNX operators QLinearMatMul and QLinearConv. Work is done block by block: beside the result it
    takes about a megabyte (a few for the integer roundings), but an `acc` that is not C-contiguous
    is copied first.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.arange(-5, 6, dtype=np.int32), 0.5, 3, dtype="int8")
    array([1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5], dtype=int8)
    >>> requantize(np.arange(-5, 6, dtype=np.int32), 0.5, 3, dtype="int8", rounding="tflite")
    array([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6], dtype=int8)
    """
    chosen = ROUNDINGS[_check.choice(rounding, "rounding", tuple(ROUNDINGS))]
    dtype = check_dtype(dtype, EIGHT_BITS)
    zero_point = check_zero_point(zero_point, "zero_point", dtype)
    acc = _check.as_array(acc, "acc")
    axis = _check.integer(axis, "axis")
    if acc.dtype != np.int32:
        raise TypeError(f"acc must hold int32, not {acc.dtype}; sums wrap to int32 before they are scaled")
    scale = as_multiplier(scale, rounding)
    columns = chosen.columns(scale)
    out = np.empty(acc.shape, dtype)

    def block(source: np.ndarray, *rest: np.ndarray) -> None:
        *factors, work, target = rest
        chosen.block(source, *factors, zero_point, work, target)

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        map_blocks(block, acc, out, columns, axis if scale.ndim else None, "acc", chosen.work_dtype)
    return out


def as_multiplier(scale: Any, rounding: str = "half_even") -> np.ndarray:
    """Return a multiplier as `rounding` takes it, checked: what :func:`requantize` and layers share.

    It is a number or (C,), of float32 (half_even, gemmini) or float64. Errors are those of
    :func:`requantize`.

    Examples
    --------
    >>> from systolic.quant import as_multiplier
    >>> as_multiplier([0.5, 0.1]).dtype, as_multiplier([0.5, 0.1], "tflite").dtype
    (dtype('float32'), dtype('float64'))
    """
    chosen = ROUNDINGS[_check.choice(rounding, "rounding", tuple(ROUNDINGS))]
    scale = _check.as_array(scale, "scale")
    name = np.dtype(chosen.multiplier_dtype).name
    if scale.dtype.kind not in "fiu":
        raise TypeError(f"scale must hold {name}, not {scale.dtype}")
    if scale.ndim > 1:
        raise ValueError(f"scale must be a number or have one axis (C,), not {_check.shape(scale.shape)}")
    with np.errstate(over="ignore"):
        scale = scale.astype(chosen.multiplier_dtype)
    # 0 is a product of scales that underflowed: a legal, if useless, multiplier. So is infinity for
    # half_even, as in ONNX Runtime.
    wrong = ~(scale >= 0) if rounding == "half_even" else ~np.isfinite(scale) | (scale < 0)
    if wrong.any():
        raise ValueError(f"scale must be finite in {name} and not negative, not {float(scale[wrong][0])}")
    chosen.columns(scale)
    return scale


def multiplier(x: QuantParams, w: QuantParams, y: QuantParams, rounding: str = "half_even") -> np.ndarray:
    """Return what int32 sums of products are scaled by: ``f32(f32(x.scale * w.scale) / y.scale)``.

    Two float32 roundings in this order, as ONNX Runtime takes them in QLinearMatMul and
    QLinearConv; ``x * (w / y)`` or double precision give other bits. For ``tflite``,
    ``tflite_single`` and ``shift`` the same in double precision, as TFLite computes it: the product
    is exact, the division rounds once.

    Parameters
    ----------
    x, w, y : QuantParams
        Of the activations, the weights (per tensor or per channel) and the output.
    rounding : str
        The rounding it is for; see :func:`requantize`.

    Returns
    -------
    ndarray of float32 (half_even, gemmini) or float64, 0-d, or (C,) when w is per channel

    Raises
    ------
    ValueError
        If `x` or `y` is per channel, a multiplier is nothing the rounding can represent (infinity for
        all but ``half_even``), or `rounding` is unknown.

    Notes
    -----
    TFLite: ``PopulateConvolutionQuantizationParams`` in tensorflow/lite/kernels/kernel_util.cc.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.quant import multiplier
    >>> multiplier(QuantParams(0.5), QuantParams([1.0, 0.5], axis=0), QuantParams(2.0))
    array([0.25 , 0.125], dtype=float32)
    >>> multiplier(QuantParams(0.1), QuantParams(0.25), QuantParams(0.5), "tflite").dtype
    dtype('float64')
    """
    kind = ROUNDINGS[_check.choice(rounding, "rounding", tuple(ROUNDINGS))].multiplier_dtype
    as_params(x, "x", per_tensor=True)
    as_params(w, "w")
    as_params(y, "y", per_tensor=True)
    with np.errstate(over="ignore", under="ignore"):
        result = np.asarray(x.scales.astype(kind) * w.scales.astype(kind) / y.scales.astype(kind))
    if rounding != "half_even" and not np.isfinite(result).all():
        raise ValueError(
            f"x.scale * w.scale / y.scale must be finite in float32, but x.scale={x.scale}, "
            f"w.scale up to {float(w.scales.max())} and y.scale={y.scale} overflow; check the scales"
        )
    return as_multiplier(result, rounding)
