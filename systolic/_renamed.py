"""Old names, which work for one release with a warning, and old layers in saved models."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from systolic import _check

_LAYERS = """
    Add ArgMax AveragePool AveragePool2d BatchNormalization Binary Cast Clip Concat Conv1d Conv2d
    Conv3d ConvInteger Dense DepthwiseConv2d Dequantize DequantizeLinear DynamicQuantize Expand
    Fill Flatten FloatConv FloatConv2d FloatConvTranspose FloatDense FloatMatMul Gather
    GlobalAveragePool GlobalAveragePool2d Identity LayerNormalization MatMul MatMulInteger
    MatMulIntegerToFloat MaxPool MaxPool2d MaxPoolIndices OnnxNode Pad QLinearAveragePool
    QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMatMul QLinearMul
    QLinearSigmoid QLinearSoftmax QLinearWhere Quantize QuantizeLinear Reduce Relu Reshape
    ReshapeTo Resize ShapeOf Slice Softmax Split Squeeze Transpose Unary Unsqueeze Where
"""

MOVED = {
    **dict.fromkeys(_LAYERS.split(), "systolic.layers"),
    "Mismatch": "systolic.verifier",
    "NodeVerdict": "systolic.verifier",
    "RunReport": "systolic.engine",
    "Summary": "systolic.model",
    "VerificationReport": "systolic.verifier",
}
"""The module that has a name which was at the top of the package."""


_LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def _last(layout: Any, rank: int = 2) -> bool:
    return _check.choice(layout, "layout", _LAYOUTS[rank]) == _LAYOUTS[rank][1]


def _max_pool_2d(
    kernel: Any, *, stride: Any = None, layout: str = "NCHW", **fields: Any
) -> dict[str, Any]:
    kernel = kernel if isinstance(kernel, tuple | list) else (kernel, kernel)
    stride = kernel if stride is None else stride
    return {"kernel": kernel, "stride": stride, "channels_last": _last(layout), **fields}


def _average_pool_2d(kernel: Any, x: Any, y: Any, **fields: Any) -> dict[str, Any]:
    return {"x": x, "y": y, **_max_pool_2d(kernel, **fields)}


def _global_average_pool_2d(x: Any, y: Any, *, layout: str = "NCHW") -> dict[str, Any]:
    return {"x": x, "y": y, "channels_last": _last(layout)}


def _max_pool_indices(kernel: Any, *, order: str = "row", **fields: Any) -> dict[str, Any]:
    return {"kernel": kernel, "indices": order, **fields}


def _add(a: Any = None, b: Any = None, y: Any = None) -> dict[str, Any]:
    if (a, b, y) == (None, None, None):
        return {"class": "Binary", "operation": "Add"}
    return {"a": a, "b": b, "y": y}


def _conv(rank: int, weight: Any, *, y: Any, layout: Any = "", **fields: Any) -> dict[str, Any]:
    if np.ndim(weight) != rank + 2:
        raise ValueError(f"weight of Conv{rank}d must have {rank + 2} axes, not {np.ndim(weight)}")
    last = _last(layout or _LAYOUTS[rank][0] if isinstance(layout, str) else layout, rank)
    return {"weight": weight, "y": y, "channels_last": last, **fields}


def _depthwise_conv(weight: Any, *, multiplier: int = 1, groups: int = 1, **fields: Any) -> dict[str, Any]:
    return _conv(2, weight, groups=len(weight) // multiplier, **fields)


def _float_product(weight: Any, bias: Any = None, *, relu: bool = False, **fields: Any) -> dict[str, Any]:
    activation = "Relu" if _check.flag(relu, "relu") else None
    return {"weight": weight, "bias": bias, "activation": activation, **fields}


LAYERS: dict[str, tuple[str, Callable[..., dict[str, Any]] | None]] = {
    "Add": ("QLinearAdd", _add),
    "AveragePool2d": ("QLinearAveragePool", _average_pool_2d),
    "Conv1d": ("QLinearConv", partial(_conv, 1)),
    "Conv2d": ("QLinearConv", partial(_conv, 2)),
    "Conv3d": ("QLinearConv", partial(_conv, 3)),
    "DepthwiseConv2d": ("QLinearConv", _depthwise_conv),
    "Dense": ("QLinearMatMul", None),
    "Dequantize": ("DequantizeLinear", None),
    "FloatConv2d": ("FloatConv", _float_product),
    "FloatDense": ("FloatMatMul", _float_product),
    "GlobalAveragePool2d": ("QLinearGlobalAveragePool", _global_average_pool_2d),
    "MatMul": ("QLinearMatMul", lambda x, w, y, **more: {"x": x, "w": w, "y": y, **more}),
    "MaxPool2d": ("MaxPool", _max_pool_2d),
    "MaxPoolIndices": ("MaxPool", _max_pool_indices),
    "Quantize": ("QuantizeLinear", None),
    "ReshapeTo": ("Reshape", lambda *, allowzero=False: {"allowzero": allowzero}),
}
"""The new class of an old one in `systolic.layers`, by name, and how its fields become the new one's.

The function has the old class's parameters (names, order and defaults) and returns the new class's
fields by name, with "class" where that is another one; None if they are the same. A class that keeps its
name and gets other fields is listed too, for saved models.
"""


class Renamed:
    """Stand for an old layer: call it as the old class, or use it in ``isinstance``."""

    def __init__(self, cls: type, make: Callable[..., Any]) -> None:
        self._cls, self._make = cls, make

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._make(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._cls)


def layer_of(layers: Mapping[str, Any], name: str, *args: Any, **fields: Any) -> Any:
    """Return the layer of today, from `layers`, that an old one with these fields is."""
    new, convert = LAYERS.get(name, (name, None))
    if convert is not None:
        args, fields = (), dict(convert(*args, **fields))
    return layers[fields.pop("class", new)](*args, **fields)


def find(module: str, name: str) -> Any:
    """Return what an old name of a module stands for, with a warning; the module's ``__getattr__``."""
    place = MOVED.get(name) if module == "systolic" else module
    new, convert = LAYERS.get(name, (name, None)) if place == "systolic.layers" else (name, None)
    if place is None or (place, new) == (module, name):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    there = vars(sys.modules[place])
    warnings.warn(f"{module}.{name} is deprecated: use {place}.{new}", DeprecationWarning, stacklevel=3)
    if new != name and name in there:  # a function, which checks what the class did
        return Renamed(there[new], there[name])
    return there[new] if convert is None else Renamed(there[new], partial(layer_of, there, name))
