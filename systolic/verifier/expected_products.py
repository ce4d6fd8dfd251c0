"""Expected outputs of matrix products, and of convolutions over one to three axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from systolic import layers
from systolic.layers import Layer
from systolic.quant import QuantParams
from systolic.reference import oracle
from systolic.verifier.expected_roundings import rounded
from systolic.verifier.operands import Operands, conv_operands

Sizes = tuple[int, ...]


def _scales(params: QuantParams | None) -> tuple[Any, Any]:
    return (None, None) if params is None else (params.scales, params.zero_points)


# Matrix products


def _matrices(layer: Layer, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the operands as matrices or stacks of them: a vector is a row of x, a column of w."""
    if getattr(layer, "transpose_x", False):
        x = np.moveaxis(x, -1, -2)
    if getattr(layer, "transpose_w", False):
        w = np.moveaxis(w, -1, -2)
    return np.atleast_2d(x), w[:, np.newaxis] if w.ndim == 1 else w


def _as_matmul(sums: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return a product of matrices without the axes that stand for a vector."""
    if w.ndim == 1:
        sums = sums[..., 0]
    return sums[..., 0, :] if x.ndim == 1 and w.ndim > 1 else sums[..., 0] if x.ndim == 1 else sums


def _matmul(layer: Any, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    left, right = _matrices(layer, x, w)
    if bias is not None:  # to the shape of numpy.matmul, which has fewer axes where an operand is a vector
        shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
        bias = np.broadcast_to(bias, _as_matmul(np.empty(shape), x, w).shape).reshape(shape)
    if layer.rounding != "half_even":
        acc = oracle.matmul_integer(left, right, layer.x.zero_points, layer.w.zero_points)
        result = rounded(layer, acc, bias, acc.ndim - 1)
    else:
        result = oracle.qlinear_matmul(
            left, *_scales(layer.x), right, *_scales(layer.w), *_scales(layer.y), bias
        )
    return _as_matmul(result, x, w)


def _dense(layer: layers.Dense, x: np.ndarray) -> np.ndarray:
    return _matmul(layer, x, layer.weight, layer.bias)


def _matmul_integer(
    layer: Layer, x: np.ndarray, w: np.ndarray, zx: np.ndarray | None = None, zw: np.ndarray | None = None
) -> np.ndarray:
    rows = np.zeros(()) if zx is None else zx.reshape(()) if zx.size == 1 else zx
    if rows.ndim > 1:
        rows = rows[..., 0]  # the oracle wants (..., M)
    columns: Any = 0 if zw is None else zw.reshape(()) if zw.size == 1 else zw
    acc = oracle.matmul_integer(*_matrices(layer, x, w), rows, columns)
    return _as_matmul(acc, x, w)


def _matmul_to_float(layer: Layer, *inputs: np.ndarray) -> np.ndarray:
    x, w, x_scale, w_scale, zx, zw, *bias = inputs
    acc = _matmul_integer(layer, x, w, zx, zw)
    whole = (*w.shape[:-2], 1, w.shape[-1]) if w.ndim > 1 else None
    at_once = w_scale.shape in ((), (1,), whole) or (w.ndim == 2 and w_scale.ndim == 1)
    each = w_scale.reshape(()) if w_scale.ndim < 2 and w_scale.size == 1 else w_scale
    if x.ndim == 1 and each.ndim > 1:
        each = each[..., 0, :]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        first = np.float32(x_scale.item())
        real = acc.astype(np.float32) * (first * each) if at_once else acc.astype(np.float32) * first * each
        return np.asarray(real + (bias[0] if w.ndim > 1 else bias[0][0]) if bias else real)


def _qlinear_matmul(layer: layers.QLinearMatMul, *inputs: np.ndarray) -> np.ndarray:
    x, xs, zx, w, ws, zw, *rest = inputs
    acc = oracle.matmul_integer(*_matrices(layer, x, w), zx.item(), zw.item() if zw.size == 1 else zw)
    bias = rest.pop() if len(rest) % 2 else None
    if bias is not None:
        bias = np.broadcast_to(bias, _as_matmul(acc, x, w).shape).reshape(acc.shape)
        acc = oracle.wrap_int32(acc.astype(np.int64) + bias)
    each = ws.reshape(()) if ws.size == 1 else ws
    factor = np.float32(layer.alpha) * np.float32(xs.item()) * each.astype(np.float32)
    if not rest:
        return _as_matmul(acc.astype(np.float32) * factor, x, w)
    ys, zy = rest
    return _as_matmul(oracle.requantize(acc, factor / np.float32(ys.item()), zy, zy.dtype), x, w)


def matmul_sums(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, Operands]:
    """Return the exact sums of a product of matrices, or of stacks of them, and its operands."""
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    m = x.shape[-2]
    all_x, all_w = (np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (x, w))
    # One matrix w: the rows of the stack follow each other in one group.
    alone = int(np.prod(w.shape[:-2])) == 1

    def rows(group: int, at: np.ndarray, k: np.ndarray) -> np.ndarray:
        flat = all_x.reshape(-1, x.shape[-1])
        return flat[(at if alone else group * m + at)[:, None], k[None, :]]

    def weights(group: int, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        matrix = all_w[np.unravel_index(0 if alone else group, batch)]
        return np.asarray(matrix[k[:, None], n[None, :]])

    def place(index: Sizes) -> tuple[int, int, int]:
        matrix = int(np.ravel_multi_index(index[:-2], batch)) if batch else 0
        return (0, matrix * m + index[-2], index[-1]) if alone else (matrix, index[-2], index[-1])

    return oracle.matmul(x, w), Operands(rows, weights, place)


def _matmul_sums(layer: Layer, *inputs: np.ndarray) -> tuple[np.ndarray, Operands]:
    return matmul_sums(
        *_matrices(layer, inputs[0], inputs[3 if isinstance(layer, layers.QLinearMatMul) else 1])
    )


def _dense_sums(layer: layers.Dense, x: np.ndarray) -> tuple[np.ndarray, Operands]:
    return matmul_sums(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), layer.weight)


# Convolutions over 1 to 3 axes, as convolutions of images


def explicit_pads(
    padding: Any, image: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, *, pool: bool = False
) -> Any:
    """Return (before, after) for each axis, "same" resolved as ONNX Runtime does: for a pool undilated."""
    if not isinstance(padding, str):
        return tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    return tuple(
        oracle.auto_pads(padding, size, k if pool else (k - 1) * d + 1, step, pool=pool)
        for size, k, step, d in zip(image, kernel, stride, dilation, strict=True)
    )


def window_pads(layer: Any, image: Sizes, kernel: Sizes, *, pool: bool = False) -> tuple[Any, Any, Any]:
    """Return stride, dilation and (before, after) of a layer's window along each axis."""
    rank = len(image)
    steps = (layer.stride, getattr(layer, "dilation", 1))
    stride, dilation = (tuple(per_axis(value or 1, rank)) for value in steps)
    padding = layer.padding if isinstance(layer.padding, str) else per_axis(layer.padding or 0, rank)
    return stride, dilation, explicit_pads(padding, image, kernel, stride, dilation, pool=pool)


def per_axis(value: Any, rank: int) -> Any:
    """Return one number for each axis."""
    return (value,) * rank if isinstance(value, int) else value


def _images(
    layer: Any, x: np.ndarray, w: np.ndarray, pad_value: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any], int]:
    """Return images and kernels of two axes, their geometry, and the output's depth.

    Plane z of an output is made from planes ``z * stride + i * dilation - front`` of the input: these are
    looked up one by one, and stand as channels (channel, i) of image z.
    """
    rank = x.ndim - 2
    stride, dilation, pads = window_pads(layer, x.shape[2:], w.shape[2:])
    if rank == 1:
        x, w = x[:, :, np.newaxis], w[:, :, np.newaxis]
        stride, dilation, pads = (1, *stride), (1, *dilation), ((0, 0), *pads)
    depth = 1
    if rank == 3:
        batch, ic, planes, height, width = x.shape
        oc, icg, taps = w.shape[:3]
        front, back = pads[0]
        depth = (planes + front + back - (taps - 1) * dilation[0] - 1) // stride[0] + 1
        images = np.full((batch, depth, ic, taps, height, width), pad_value, dtype=x.dtype)
        for z in range(depth):
            for i in range(taps):
                plane = z * stride[0] + i * dilation[0] - front
                if 0 <= plane < planes:
                    images[:, z, :, i] = x[:, :, plane]
        x = images.reshape(batch * depth, ic * taps, height, width)
        w = w.reshape(oc, icg * taps, *w.shape[3:])
    options = {
        "stride": tuple(stride[-2:]), "dilation": tuple(dilation[-2:]), "pads": tuple(pads[-2:]),
        "groups": layer.groups,
    }  # fmt: skip
    return x, w, options, depth


def _restored(y: np.ndarray, rank: int, depth: int) -> np.ndarray:
    if rank == 1:
        return y[:, :, 0]
    if rank == 2:
        return y
    planes = y.reshape(y.shape[0] // depth, depth, *y.shape[1:])
    return np.ascontiguousarray(planes.transpose(0, 2, 1, 3, 4))


def _channels_first(layer: Any, x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1) if layer.layout.endswith("C") else x


def _conv(layer: layers.Conv1d | layers.Conv2d | layers.Conv3d, x: np.ndarray) -> np.ndarray:
    zero = int(layer.x.zero_points)
    images, kernels, options, depth = _images(layer, _channels_first(layer, x), layer.weight, zero)
    if layer.rounding != "half_even":
        acc = oracle.conv_integer(images, kernels, zero, layer.w.zero_points, **options)
        y = rounded(layer, acc, layer.bias, 1)
    else:
        y = oracle.qlinear_conv(
            images, *_scales(layer.x), kernels, *_scales(layer.w), *_scales(layer.y), layer.bias, **options
        )
    y = _restored(y, x.ndim - 2, depth)
    return np.ascontiguousarray(np.moveaxis(y, 1, -1)) if layer.layout.endswith("C") else y


def _conv_integer(
    layer: layers.ConvInteger, x: np.ndarray, w: np.ndarray,
    zx: np.ndarray | None = None, zw: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    zero = 0 if zx is None else int(zx.reshape(()))
    images, kernels, options, depth = _images(layer, x, w, zero)
    sums = oracle.conv_integer(images, kernels, zero, 0 if zw is None else zw, **options)
    return _restored(sums, x.ndim - 2, depth)


def _qlinear_conv(layer: layers.QLinearConv, *inputs: np.ndarray) -> np.ndarray:
    x, xs, zx, w, ws, zw, ys, zy, *bias = inputs
    images, kernels, options, depth = _images(layer, x, w, zx.item())
    y = oracle.qlinear_conv(images, xs, zx, kernels, ws, zw, ys, zy, *bias, **options)
    return _restored(y, x.ndim - 2, depth)


def _conv_sums(layer: Any, *inputs: np.ndarray) -> tuple[np.ndarray, Operands]:
    if isinstance(layer, layers.QLinearConv):
        x, w, zero = inputs[0], inputs[3], inputs[2].item()
    elif isinstance(layer, layers.ConvInteger):
        x, w = inputs[:2]
        zero = int(inputs[2].reshape(())) if len(inputs) > 2 else 0
    else:
        x, w, zero = _channels_first(layer, inputs[0]), layer.weight, int(layer.x.zero_points)
    images, kernels, options, _ = _images(layer, x, w, zero)
    sums = oracle.conv2d(images, kernels, pad_value=zero, **options)
    out: Any = sums.shape[2:]
    if getattr(layer, "layout", "").endswith("C"):
        images, sums = (values.transpose(0, 2, 3, 1) for values in (images, sums))
        return sums, conv_operands(images, kernels, out=out, layout="NHWC", pad_value=zero, **options)
    return sums, conv_operands(images, kernels, out=out, layout="NCHW", pad_value=zero, **options)


# Quantization at run time


def _dynamic_quantize(layer: Layer, x: np.ndarray) -> tuple[np.ndarray, ...]:
    numbers = x[~np.isnan(x)]
    low, high = np.float32(min([0, *numbers])), np.float32(max([0, *numbers]))
    with np.errstate(all="ignore"):
        scale = (high - low) / np.float32(255) if high != low else np.float32(1)
        start = np.float32(0) - low / scale
        zero = 255 if np.isnan(start) else round(min(max(float(start), 0.0), 255.0))
        codes = oracle.quantize_linear(x, scale, zero, np.uint8)
    return codes, np.asarray(scale, dtype=np.float32), np.asarray(zero, dtype=np.uint8)


PRODUCTS: dict[type[Layer], Callable[..., Any]] = {
    layers.Conv1d: _conv,
    layers.Conv2d: _conv,
    layers.Conv3d: _conv,
    layers.ConvInteger: _conv_integer,
    layers.Dense: _dense,
    layers.DepthwiseConv2d: _conv,
    layers.DynamicQuantize: _dynamic_quantize,
    layers.MatMul: _matmul,
    layers.MatMulInteger: _matmul_integer,
    layers.MatMulIntegerToFloat: _matmul_to_float,
    layers.QLinearConv: _qlinear_conv,
    layers.QLinearMatMul: _qlinear_matmul,
}
"""Outputs by the kind of layer."""

SUMS: dict[type[Layer], Callable[..., tuple[np.ndarray, Operands]]] = {
    layers.Conv1d: _conv_sums,
    layers.Conv2d: _conv_sums,
    layers.Conv3d: _conv_sums,
    layers.ConvInteger: _conv_sums,
    layers.Dense: _dense_sums,
    layers.DepthwiseConv2d: _conv_sums,
    layers.MatMul: _matmul_sums,
    layers.MatMulInteger: _matmul_sums,
    layers.MatMulIntegerToFloat: _matmul_sums,
    layers.QLinearConv: _conv_sums,
    layers.QLinearMatMul: _matmul_sums,
}
"""Raw sums, shaped as stacks of matrices or as images, and operands by the kind of layer."""
