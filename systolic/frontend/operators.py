"""The table of ONNX operators: each converter turns one node into one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import layers
from systolic._check import shape as shape_text
from systolic.layers import Layer
from systolic.quant import QuantParams


class UnsupportedOperator(ValueError):
    """A model needs an operator, or a use of one, that is not supported.

    Examples
    --------
    >>> import systolic
    >>> try:
    ...     raise systolic.UnsupportedOperator("node 'up' is a Resize")
    ... except ValueError as error:
    ...     print(error)
    node 'up' is a Resize
    """


@dataclass(frozen=True)
class Operator:
    """One node of a graph, with what converters ask of it.

    Attributes
    ----------
    label, op_type : str
    inputs, outputs : tuple of str
        Tensor names; "" for an absent optional input.
    attributes : dict
    constants : dict of str to ndarray
        The graph's constant tensors.
    dtypes : dict of str to str
        Types of the tensors written so far.
    """

    label: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    constants: dict[str, np.ndarray]
    dtypes: dict[str, str]

    def refuse(self, what: str) -> UnsupportedOperator:
        """Return the error that this use of the operator is not supported."""
        return UnsupportedOperator(f"node {self.label!r} ({self.op_type}): {what}")

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def constant(self, index: int, what: str) -> np.ndarray:
        """Return an input that must be constant."""
        if not self.has(index):
            raise ValueError(f"input {index}, the {what}, is missing")
        name = self.inputs[index]
        if name not in self.constants:
            raise self.refuse(f"the {what} must be a constant (an initializer), but {name!r} is computed")
        return self.constants[name]

    def params(
        self, scale: int, zero_point: int, *, axis: int | None = None, dtype: str = "uint8"
    ) -> QuantParams:
        """Return quantization parameters from a scale and an optional zero-point input.

        `axis` is the channels' axis where there is one scale per channel; `dtype` the type where
        no zero point gives it.
        """
        scales = self.constant(scale, "scale")
        zeros = self.constant(zero_point, "zero point") if self.has(zero_point) else np.zeros((), dtype=dtype)
        if scales.size == 1 and zeros.size == 1:
            return QuantParams(float(scales.ravel()[0]), int(zeros.ravel()[0]), zeros.dtype.name)
        if axis is None or scales.ndim > 1 or zeros.ndim > 1:
            raise self.refuse(f"a scale of shape {shape_text(scales.shape)} where one number is expected")
        counts = {scales.size, zeros.size} - {1}
        if len(counts) > 1 or 0 in counts:
            raise ValueError(
                f"scale and zero point must hold one number per channel, not {scales.size} and {zeros.size}"
            )
        each_scale = np.broadcast_to(scales.ravel(), counts.pop())
        return QuantParams(
            each_scale, np.broadcast_to(zeros.ravel(), each_scale.size), zeros.dtype.name, axis=axis
        )

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return an attribute that must be a list of integers."""
        value = self.attributes.get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, int) for item in value):
            raise ValueError(f"attribute {name} must be a list of integers, not {value!r}")
        return tuple(value)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute, text as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def only(self, *known: str) -> None:
        """Refuse attributes that the converter would ignore."""
        unknown = sorted(set(self.attributes) - set(known))
        if unknown:
            raise self.refuse(f"attribute {', '.join(unknown)} is not supported")

    def kernel(self, default: tuple[int, ...] = ()) -> tuple[int, int]:
        """Return the height and width of a window."""
        sizes = self.integers("kernel_shape", default)
        if len(sizes) != 2:
            raise self.refuse(f"a window of {len(sizes)} dimensions; supported are 2")
        return sizes[0], sizes[1]

    def window(self) -> dict[str, Any]:
        """Return stride, padding and dilation of a window, as layers take them."""
        auto = self.attribute("auto_pad", "NOTSET")
        names = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}
        pads = self.integers("pads", (0, 0, 0, 0))
        if auto not in ("NOTSET", "", *names):
            raise self.refuse(f"auto_pad {auto!r}")
        if len(pads) != 4 or min(pads) < 0:
            raise self.refuse(f"pads {list(pads)}; supported are [top, left, bottom, right], none negative")
        top, left, bottom, right = pads
        return {
            "stride": self.integers("strides", (1, 1)),
            "padding": names.get(auto, ((top, bottom), (left, right))),
            "dilation": self.integers("dilations", (1, 1)),
        }


Converted = tuple[Layer, tuple[str, ...]] | np.ndarray
"""A layer and what it reads; or a constant."""

Converter = Callable[[Operator], Converted]


def _quantize_linear(op: Operator) -> Converted:
    op.only("axis", "saturate", "output_dtype", "block_size")
    if op.attribute("block_size", 0):
        raise op.refuse("blocked quantization is not supported")
    if op.attribute("output_dtype", 0) and not op.has(2):
        raise op.refuse("output_dtype without a zero point is not supported")
    return layers.Quantize(op.params(1, 2, axis=op.attribute("axis", 1))), op.inputs[:1]


def _dequantize_linear(op: Operator) -> Converted:
    op.only("axis", "block_size", "output_dtype")
    if op.attribute("block_size", 0):
        raise op.refuse("blocked quantization is not supported")
    # Without a zero point the input says which type the codes are of.
    dtype = op.dtypes.get(op.inputs[0], "uint8") if op.inputs else "uint8"
    return layers.Dequantize(op.params(1, 2, axis=op.attribute("axis", 1), dtype=dtype)), op.inputs[:1]


def _qlinear_conv(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    weight = op.constant(3, "weight")
    given = op.kernel(weight.shape[2:])
    if given != weight.shape[2:]:
        raise ValueError(f"kernel_shape {given} but a weight {shape_text(weight.shape)}")
    groups = op.attribute("group", 1)
    options = {
        "x": op.params(1, 2),
        "w": op.params(4, 5, axis=0),
        "y": op.params(6, 7),
        "bias": op.constant(8, "bias") if op.has(8) else None,
        **op.window(),
    }
    if groups > 1 and weight.shape[1] == 1 and weight.shape[0] % groups == 0:
        return layers.DepthwiseConv2d(weight, multiplier=weight.shape[0] // groups, **options), op.inputs[:1]
    return layers.Conv2d(weight, groups=groups, **options), op.inputs[:1]


def _qlinear_matmul(op: Operator) -> Converted:
    op.only()
    weight = op.constant(3, "second matrix")
    if weight.ndim != 2:
        raise op.refuse(f"a second operand of shape {shape_text(weight.shape)}; supported is a matrix (K, N)")
    w = op.params(4, 5, axis=1)
    return layers.Dense(weight, x=op.params(1, 2), w=w, y=op.params(6, 7)), op.inputs[:1]


def _qgemm(op: Operator) -> Converted:
    op.only("alpha", "transA", "transB")
    if op.attribute("transA", 0):
        raise op.refuse("transA is not supported")
    weight = op.constant(3, "weight")
    if weight.ndim != 2:
        raise ValueError(f"the weight must have 2 axes, not the shape {shape_text(weight.shape)}")
    if op.attribute("transB", 0):
        weight = weight.T
    x = op.params(1, 2)
    # ONNX Runtime scales by f32(alpha * a_scale) first, which is as if the input had that scale.
    alpha = np.float32(op.attribute("alpha", 1.0))
    if alpha != 1:
        x = QuantParams(float(alpha * x.scales), x.zero_point, x.dtype)
    bias = None
    if op.has(6):
        bias = op.constant(6, "bias")
        if bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1):
            raise op.refuse(f"a bias of shape {shape_text(bias.shape)}; supported is one value per column")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[1])
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    y = op.params(7, 8) if op.has(7) else None
    return layers.Dense(weight, x=x, w=op.params(4, 5, axis=1), y=y, bias=bias), op.inputs[:1]


def _qlinear_add(op: Operator) -> Converted:
    op.only()
    layer = layers.Add(op.params(1, 2), op.params(4, 5), op.params(6, 7))
    return layer, (op.inputs[0], op.inputs[3])


def _qlinear_global_average_pool(op: Operator) -> Converted:
    op.only("channels_last")
    layout = "NHWC" if op.attribute("channels_last", 0) else "NCHW"
    return layers.GlobalAveragePool2d(op.params(1, 2), op.params(3, 4), layout=layout), op.inputs[:1]


def _qlinear_average_pool(op: Operator) -> Converted:
    op.only("auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads", "strides")
    kernel = op.kernel()
    options = op.window()
    del options["dilation"]
    layer = layers.AveragePool2d(
        kernel,
        op.params(1, 2),
        op.params(3, 4),
        count_include_pad=bool(op.attribute("count_include_pad", 0)),
        ceil_mode=bool(op.attribute("ceil_mode", 0)),
        layout="NHWC" if op.attribute("channels_last", 0) else "NCHW",
        **options,
    )
    return layer, op.inputs[:1]


def _max_pool(op: Operator) -> Converted:
    op.only("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides")
    if len(op.outputs) > 1 and op.outputs[1]:
        raise op.refuse("the output of indices is not supported")
    layer = layers.MaxPool2d(op.kernel(), ceil_mode=bool(op.attribute("ceil_mode", 0)), **op.window())
    return layer, op.inputs[:1]


def _relu(op: Operator) -> Converted:
    return layers.Relu(), op.inputs[:1]


def _add(op: Operator) -> Converted:
    return layers.Add(), op.inputs[:2]


def _flatten(op: Operator) -> Converted:
    return layers.Flatten(op.attribute("axis", 1)), op.inputs[:1]


def _reshape(op: Operator) -> Converted:
    op.only("allowzero")
    sizes = tuple(int(size) for size in op.constant(1, "shape"))
    if op.attribute("allowzero", 0) and 0 in sizes:
        raise op.refuse("allowzero with a size of 0 is not supported")
    return layers.Reshape(sizes), op.inputs[:1]


def _identity(op: Operator) -> Converted:
    return layers.Identity(), op.inputs[:1]


def _constant(op: Operator) -> Converted:
    from onnx import numpy_helper

    if "value" not in op.attributes:
        raise op.refuse("a Constant must hold a tensor (attribute value)")
    return numpy_helper.to_array(op.attributes["value"])


OPERATORS: dict[tuple[str, str], Converter] = {
    ("", "Add"): _add,
    ("", "Constant"): _constant,
    ("", "DequantizeLinear"): _dequantize_linear,
    ("", "Flatten"): _flatten,
    ("", "Identity"): _identity,
    ("", "MaxPool"): _max_pool,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "QuantizeLinear"): _quantize_linear,
    ("", "Relu"): _relu,
    ("", "Reshape"): _reshape,
    ("com.microsoft", "QGemm"): _qgemm,
    ("com.microsoft", "QLinearAdd"): _qlinear_add,
    ("com.microsoft", "QLinearAveragePool"): _qlinear_average_pool,
    ("com.microsoft", "QLinearGlobalAveragePool"): _qlinear_global_average_pool,
}
"""Converters by (domain, operator)."""
