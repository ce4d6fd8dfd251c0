"""Element-wise host operators on codes: QLinearAdd, QLinearSigmoid and relu."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.oracle._arguments import as_codes, output_type, saturate, scalar
from systolic.reference.oracle._scaled import dequantize_linear, quantize_linear


def qlinear_add(
    a: Any,
    a_scale: Any,
    a_zero_point: Any,
    b: Any,
    b_scale: Any,
    b_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
) -> np.ndarray:
    """com.microsoft QLinearAdd, as MlasQLinearAdd computes it on processors with AVX2.

    With ``ra = f32(sa / sy)``, ``rb = f32(sb / sy)`` and ``fma(a, b, c)`` rounding ``a*b + c`` once:
    ``c0 = f32(zy - fma(ra, za, f32(rb * zb)))``,
    ``y = sat(rne(fma(a, ra, fma(b, rb, c0))))``: the zero point is added before rounding.

    The two sides are not symmetric, and ONNX Runtime hands the one that is constant along the
    innermost run of elements to its kernel second: where `a` has extent 1 on the innermost axis on
    which not both have extent 1, or both hold a single element, `a` and `b` swap roles, scales and
    zero points included.

    Parameters
    ----------
    a, b : arrays of one type, int8 or uint8
        Shapes broadcast.
    a_scale, a_zero_point, b_scale, b_zero_point, y_scale : one value each
    y_zero_point : numpy scalar or array of int8 or uint8
        Its type is the result's type.

    Returns
    -------
    ndarray of y_zero_point's type
    """
    a, b = as_codes(a, "a"), as_codes(b, "b")
    left = (a, np.float32(scalar(a_scale, "a_scale")), scalar(a_zero_point, "a_zero_point"))
    right = (b, np.float32(scalar(b_scale, "b_scale")), scalar(b_zero_point, "b_zero_point"))
    dtype = output_type(y_zero_point)
    sy, zy = np.float32(scalar(y_scale, "y_scale")), np.float32(scalar(y_zero_point, "y_zero_point"))
    if _repeated_innermost(a.shape, b.shape):
        left, right = right, left
    (p, sp, zp), (q, sq, zq) = left, right

    # Overflow gives infinity or NaN, which the next steps propagate.
    with np.errstate(all="ignore"):
        rp, rq = np.float32(sp / sy), np.float32(sq / sy)
        constant = zy - _fma(rp, np.float32(zp), rq * np.float32(zq))
        # Tabulate all 256 x 256 pairs of codes, then look up: as exact, and faster for large tensors.
        inner = _fma(_all_codes(q.dtype), rq, constant)
        outer = _fma(_all_codes(p.dtype)[:, np.newaxis], rp, inner)
    table = saturate(np.rint(outer), dtype)
    return np.asarray(table[_code_index(p), _code_index(q)])


# MlasLogisticConstants, from the highest power on: numerator / x and denominator in powers of x^2.
_NUMERATOR = (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03,
              2.48287947061529e-01)  # fmt: skip
_DENOMINATOR = (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
                1.16817656904453e-01, 9.93151921023180e-01)  # fmt: skip


def qlinear_sigmoid(x: Any, x_scale: Any, x_zero_point: Any, y_scale: Any, y_zero_point: Any) -> np.ndarray:
    """com.microsoft QLinearSigmoid, as MlasLogisticKernelFma3 computes it.

    With ``r = clip(f32(sx * (q - zx)), -18, 18)`` and polynomials p and d in r^2, by Horner's rule with
    fused multiply-adds: ``f32(f32(f32(r * p) / d) + 0.5)``, not below 0, quantized.

    Parameters
    ----------
    x : array of int8 or uint8
    x_scale, x_zero_point, y_scale : one value each
    y_zero_point : numpy scalar or array of int8 or uint8
        Its type is the result's type.

    Returns
    -------
    ndarray of y_zero_point's type and x's shape
    """
    x = as_codes(x, "x")
    dtype = output_type(y_zero_point)
    real = np.clip(dequantize_linear(_all_codes(x.dtype).astype(x.dtype), x_scale, x_zero_point), -18, 18)
    with np.errstate(under="ignore"):
        square = real * real
        over = np.full_like(real, _NUMERATOR[0])
        for coefficient in _NUMERATOR[1:]:
            over = _fma(over, square, np.float32(coefficient))
        under = np.full_like(real, _DENOMINATOR[0])
        for coefficient in _DENOMINATOR[1:]:
            under = _fma(under, square, np.float32(coefficient))
        value = np.maximum(real * over / under + np.float32(0.5), np.float32(0))
    return np.asarray(quantize_linear(value, y_scale, y_zero_point, dtype)[_code_index(x)])


def relu(x: Any, zero_point: Any = 0) -> np.ndarray:
    """Rectify codes or real numbers: ``max(q, zero_point)``, which is where the real value is 0.

    Parameters
    ----------
    x : array of integers or floats
    zero_point : int
        Within the type of x; 0 for floats.

    Returns
    -------
    ndarray of x's type and shape

    Raises
    ------
    ValueError
        If `zero_point` does not fit the type of x.
    """
    x = np.asarray(x)
    zero = scalar(zero_point, "zero_point")
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        if not limits.min <= zero <= limits.max:
            raise ValueError(f"zero_point must fit {x.dtype} ({limits.min}..{limits.max}), not {zero}")
    return np.maximum(x, np.asarray(zero, dtype=x.dtype))


def _fma(a: Any, b: Any, c: Any) -> np.ndarray:
    """Fused multiply-add of float32 arrays: a*b + c rounded to float32 once.

    The product of two float32 is exact in float64, and the error of adding c to it is a float64
    too, found without error by Knuth's TwoSum. Let s be the float64 sum and e its error. The
    points half way between two neighbouring float32 are float64 numbers, and rounding is
    monotonic, so s lies on the same side of such a point as s + e unless it stands on it. Only
    then does rounding s go wrong, and there the sign of e decides.
    """
    product = np.multiply(a, b, dtype=np.float64)
    addend = np.asarray(c, dtype=np.float64)
    total = product + addend
    taken = total - product
    error = (product - (total - taken)) + (addend - taken)

    nearest = total.astype(np.float32)
    beyond = np.where(total > nearest, np.float32(np.inf), np.float32(-np.inf))
    other = np.nextafter(nearest, beyond)
    half_way = (total != nearest) & (total - nearest == other - total)
    exact = np.where(error > 0, np.maximum(nearest, other), np.minimum(nearest, other))
    return np.where(half_way & (error != 0), exact, nearest)


def _repeated_innermost(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a has extent 1 on the innermost axis that is not 1 for both, or on all if there is none."""
    axes = max(len(a), len(b))
    padded = zip((1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b, strict=True)
    for left, right in reversed(list(padded)):
        if (left, right) != (1, 1):
            return left == 1
    return True


def _all_codes(dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1).astype(np.float32)


def _code_index(codes: np.ndarray) -> np.ndarray:
    """Where each code stands in :func:`_all_codes`."""
    return codes.astype(np.intp) - int(np.iinfo(codes.dtype).min)
