"""What a layer should give, by the oracles in ``systolic.reference``, from its fields alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from systolic import layers
from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.layers import Layer
from systolic.layers.host.delegated import FloatProduct
from systolic.reference import fold_times, oracle
from systolic.verifier.difference import FLOAT_TOLERANCE
from systolic.verifier.expected_host import HOST, ROUNDED, max_pool_2d
from systolic.verifier.expected_products import PRODUCTS, SUMS, _scales, window_pads
from systolic.verifier.expected_quantized import QUANTIZED
from systolic.verifier.operands import Operands


def _image(x: np.ndarray, layout: str) -> tuple[int, ...]:
    return x.shape[2:] if layout == "NCHW" else x.shape[1:3]


def _add(layer: layers.Add, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if layer.y is None:
        if a.dtype.kind == "f":
            return np.asarray(a.astype(np.float64) + b).astype(a.dtype)
        bits = 8 * a.dtype.itemsize
        total = a.astype(np.int64) + b
        low = 0 if a.dtype.kind == "u" else -(1 << (bits - 1))
        return np.asarray((total - low) % (1 << bits) + low).astype(a.dtype)
    return oracle.qlinear_add(a, *_scales(layer.a), b, *_scales(layer.b), *_scales(layer.y))


def _max_pool(layer: layers.MaxPool2d, x: np.ndarray) -> np.ndarray:
    if x.dtype.name not in ("int8", "uint8"):
        return max_pool_2d(layer, x)
    kernel: Any = layer.kernel
    stride, dilation, pads = window_pads(layer, _image(x, layer.layout), kernel, pool=True)
    return oracle.max_pool(
        x, kernel=kernel, stride=stride, pads=pads, dilation=dilation, ceil_mode=layer.ceil_mode,
        layout=layer.layout,
    )  # fmt: skip


def _average_pool(layer: layers.AveragePool2d, x: np.ndarray) -> np.ndarray:
    kernel: Any = layer.kernel
    stride, _, pads = window_pads(layer, _image(x, layer.layout), kernel, pool=True)
    return oracle.qlinear_average_pool(
        x, *_scales(layer.x), *_scales(layer.y), kernel=kernel, stride=stride, pads=pads,
        count_include_pad=layer.count_include_pad, ceil_mode=layer.ceil_mode, layout=layer.layout,
    )  # fmt: skip


def _flatten(layer: layers.Flatten, x: np.ndarray) -> np.ndarray:
    axis = layer.axis + x.ndim if layer.axis < 0 else layer.axis
    outer = int(np.prod(x.shape[:axis], dtype=np.int64))
    inner = int(np.prod(x.shape[axis:], dtype=np.int64))
    return np.array(x.flat, dtype=x.dtype).reshape(outer, inner)


def _reshape(layer: layers.Reshape, x: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    given: Any = layer.shape if target is None else target.tolist()
    sizes = [x.shape[i] if s == 0 and not layer.allowzero else s for i, s in enumerate(given)]
    if -1 in sizes:
        place = sizes.index(-1)
        # Without the sizes that are copied, which may be 0.
        copied = [i for i, s in enumerate(given) if s == 0]
        rest = [size for i, size in enumerate(x.shape) if i not in copied]
        known = [size for i, size in enumerate(sizes) if i not in copied and i != place]
        sizes[place] = int(np.prod(rest, dtype=np.int64)) // int(np.prod(known, dtype=np.int64))
    return np.array(x.flat, dtype=x.dtype).reshape(sizes)


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.asarray(oracle.function("Gelu", x + bias)).astype(x.dtype)


_OPS: dict[str, Callable[..., Any]] = {"BiasGelu": _bias_gelu}
"""Expected outputs of :class:`systolic.layers.Op`, by operation."""

_EXPECTED: dict[type[Layer], Callable[..., Any]] = {
    **QUANTIZED,
    **HOST,
    **PRODUCTS,
    layers.Add: _add,
    layers.AveragePool2d: _average_pool,
    layers.Dequantize: lambda layer, x: oracle.dequantize_linear(x, *_scales(layer.x), layer.x.axis),
    layers.Flatten: _flatten,
    layers.GlobalAveragePool2d: lambda layer, x: oracle.qlinear_global_average_pool(
        x, *_scales(layer.x), *_scales(layer.y), layer.layout
    ),
    layers.Identity: lambda layer, x: x.copy(),
    layers.MaxPool2d: _max_pool,
    layers.Op: lambda layer, *inputs: _OPS[layer.operation](*inputs, **dict(layer.attributes)),
    layers.Quantize: lambda layer, x: oracle.quantize_linear(
        x, *_scales(layer.y), layer.y.dtype, layer.y.axis
    ),
    layers.Relu: lambda layer, x: oracle.relu(x, layer.zero_point),
    layers.Reshape: _reshape,
}


UNCHECKED: frozenset[type[Layer]] = frozenset({layers.OnnxNode})
"""Layers without a second derivation here: other code computes them."""

_TOLERANCES = {"float16": 2.0**-9, "float32": FLOAT_TOLERANCE, "float64": 1e-9}


def has_oracle(layer: Layer) -> bool:
    """Whether there is a second derivation of a layer's output."""
    return type(layer) in _EXPECTED


def tolerance_of(layer: Layer, dtype: np.dtype) -> float:
    """Return by how much a layer's output may differ from the oracle's, as part of its largest value.

    0, every bit, for integers and for floats that IEEE 754 or a runtime's published kernel fixes; for other
    floats the possible difference of two orders of summation, or of two approximations such as of exp.
    """
    return _TOLERANCES.get(dtype.name, 0.0) if layer.kind in ROUNDED else 0.0


def expected_output(layer: Layer, inputs: list[np.ndarray]) -> Any:
    """Return the output of a layer on these inputs, a tuple if it has several: see ``tolerance_of``."""
    with np.errstate(all="ignore"):  # infinity and NaN are results like any other
        return _EXPECTED[type(layer)](layer, *inputs)


def sums_within(layer: Layer, inputs: list[np.ndarray], got: np.ndarray, exact: np.ndarray) -> bool:
    """Whether a delegated product of float32 is one that some order of summation may give.

    However k products and what is added to them are summed, each of at most k + 4 roundings is 2^-24 of a
    partial sum, which the sum of magnitudes bounds; where terms cancel this is far more than the result.
    """
    if layer.delegate is None or not isinstance(layer, FloatProduct):
        return False
    if isinstance(layer, layers.FloatMatMul):
        layer = replace(layer, alpha=abs(layer.alpha), beta=abs(layer.beta))
    magnitudes = expected_output(layer, [np.abs(array).astype(np.float64) for array in inputs])
    most = (layer.terms([array.shape for array in inputs]) + 4) * 2.0**-24 * magnitudes
    with np.errstate(invalid="ignore"):
        near = np.abs(got.astype(np.float64) - exact) <= most
    return bool((near | (got == exact) | (np.isnan(got) & np.isnan(exact))).all())


def expected_sums(layer: Layer, inputs: list[np.ndarray]) -> tuple[np.ndarray, Operands]:
    """Return the exact raw sums of a layer's product, in the result's layout, and its operands."""
    return SUMS[type(layer)](layer, *inputs)


def expected_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    """Return the cycles of a product, fold by fold."""
    if 0 in (gemm.m, gemm.k, gemm.n):
        return 0
    chunk = gemm.m if array.accumulator_rows is None else array.accumulator_rows // 2
    rows, cols = array.rows, array.cols
    tiles = range(gemm.groups * -(-gemm.n // cols)), range(0, gemm.m, chunk), range(-(-gemm.k // rows))
    ms = (min(chunk, gemm.m - start) for _, start, _ in itertools.product(*tiles))
    *_, (_, swap) = fold_times(ms, rows, cols, double_buffered=array.double_buffered)
    return swap + (gemm.m - tiles[1][-1]) + rows + cols - 2
