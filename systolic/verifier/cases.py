"""Random cases, edges first: shapes, types, values, strides, states, drawn from a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from systolic import layers
from systolic.config import ArrayConfig
from systolic.dataflows import DATAFLOWS
from systolic.formats import FORMATS, OPERANDS, OVERFLOWS, Format, dtype_of
from systolic.layers import Layer
from systolic.layers.float_products import COMPUTE
from systolic.layers.host._inputs import ANY
from systolic.layers.record import OperatorRecord
from systolic.layers.recurrent import DIRECTIONS
from systolic.layers.table import OPERATORS
from systolic.quant import QuantParams

# Sizes at which things go wrong: one, and one beside the multiples of array and kernel strip.
_EDGES = (1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33)
_TYPES = ("int8", "uint8")

_HAS_ML_DTYPES = find_spec("ml_dtypes") is not None


def _of_numpy(*names: str) -> bool:
    return all(hasattr(np, name) for name in names)


class Draw:
    """Draws the parts of a case from one generator; the same seed and number give the same case."""

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.rng = np.random.default_rng([seed, number])

    def size(self, most: int = 40) -> int:
        """Return a size from 1 to `most`, an edge half of the time."""
        if self.rng.random() < 0.5:
            return min(int(self.rng.choice(_EDGES)), most)
        return int(self.rng.integers(1, most + 1))

    def one_of(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def dtype(self) -> str:
        """Return an operand type."""
        return self.one_of(*_TYPES)

    def codes(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return values of a type: spread over all of it, or at its extremes."""
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        style = self.rng.random()
        if style < 0.6:
            return self.rng.integers(low, high, shape, dtype=dtype, endpoint=True)
        if style < 0.8:
            return self.rng.choice(np.array([low, high], dtype=dtype), shape)
        if style < 0.9:
            return np.full(shape, self.one_of(low, high), dtype=dtype)
        return self.rng.choice(np.array([low, -1 if low else 255, 0, 1, high], dtype=dtype), shape)

    def format(self) -> dict[str, Any]:
        """Return fields of an array of any number format that is installed."""
        activation, weight = self.one_of(*(pair for pair in FORMATS if _HAS_ML_DTYPES or _of_numpy(*pair)))
        fields: dict[str, Any] = {"activation_dtype": activation, "weight_dtype": weight}
        if not FORMATS[activation, weight].is_float:
            fields |= {"psum_bits": self.one_of(16, 21, 32, 32, 64), "overflow": self.one_of(*OVERFLOWS)}
        return fields

    def operand(self, shape: tuple[int, ...], name: str) -> np.ndarray:
        """Return operands of a type."""
        kind, dtype = OPERANDS[name], dtype_of(name)
        if kind.kind == "integer":
            low, high = kind.limits
            values = self.rng.integers(low, high, shape, endpoint=True)
            ends = self.rng.choice(np.array([low, 0, high]), shape)
            values = np.where(self.rng.random(shape) < self.one_of(0.0, 0.3, 1.0), ends, values)
            return values.astype(dtype)
        if self.rng.random() < 0.3:  # any bits
            bits = self.rng.integers(0, 2**kind.bits, shape)
            return bits.astype(f"u{dtype.itemsize}").view(dtype)
        spread = self.one_of(0, 3, 6)
        scale = 2.0 ** self.rng.integers(-spread, spread + 1, shape)
        return (self.rng.normal(size=shape) * scale).astype(dtype)

    def sums(self, shape: tuple[int, ...], numbers: Format) -> np.ndarray:
        """Return sums of a format: any of them, or those at its ends."""
        if numbers.is_float:
            values = self.rng.normal(size=shape) * 2.0 ** self.rng.integers(-150, 127, shape)
            return values.astype(np.float32)
        low, high = numbers.sum_limits
        return self.rng.integers(low, high, shape, dtype=numbers.sum, endpoint=True)

    def numbers(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return values of any type: small integers, floats of several magnitudes, all of 8 bits."""
        if dtype in _TYPES:
            return self.codes(shape, dtype)
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype.startswith("float"):
            return (self.rng.normal(size=shape) * self.one_of(1, 5, 100)).astype(dtype)
        return self.rng.integers(0 if dtype[0] == "u" else -3, 4, shape).astype(dtype)

    def config(self, most: int = 24) -> ArrayConfig:
        """Return an array of at most `most` rows and columns."""
        return ArrayConfig(
            self.size(most),
            self.size(most),
            activation_dtype=self.dtype(),
            weight_dtype=self.dtype(),
            double_buffered=bool(self.rng.random() < 0.7),
            accumulator_rows=self.one_of(None, 2, 3, 8, 21, 64, 4096),
            dataflow=self.one_of(*DATAFLOWS),
        )

    def bits(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return control bits: none, few, half or all of them set."""
        return self.rng.random(shape) < self.one_of(0.0, 0.03, 0.5, 1.0)

    def params(self, dtype: str | None = None, *, channels: int | None = None, axis: int = 0) -> QuantParams:
        """Return quantization parameters; a power-of-two scale, which makes ties, half of the time."""
        dtype = dtype or self.dtype()
        limits = np.iinfo(dtype)

        def scale() -> float:
            return float(
                2.0 ** self.rng.integers(-6, 1) if self.rng.random() < 0.5 else self.rng.uniform(0.005, 1.0)
            )

        def zero() -> int:
            return int(self.one_of(0, limits.min, limits.max, self.rng.integers(limits.min, limits.max + 1)))

        if channels is not None and self.rng.random() < 0.6:
            zeros = tuple(zero() for _ in range(channels)) if self.rng.random() < 0.5 else (0,) * channels
            return QuantParams(tuple(scale() for _ in range(channels)), zeros, dtype, axis=axis)
        return QuantParams(scale(), zero(), dtype)

    def output_params(self, spread: float, dtype: str | None = None) -> QuantParams:
        """Return parameters under which values of about `spread` fill the codes, with ties."""
        wide = max(spread, 1e-3) / self.rng.uniform(20, 200)
        scale = 2.0 ** round(np.log2(wide)) if self.rng.random() < 0.5 else wide
        dtype = dtype or self.dtype()
        return QuantParams(float(scale), self.params(dtype).zero_point, dtype)

    def geometry(self, kernel: tuple[int, int], image: tuple[int, int]) -> dict[str, Any]:
        """Return stride, padding and dilation under which the kernel fits the image."""
        dilation = self.one_of((1, 1), (1, 1), (2, 1), (1, 2), (2, 3))
        padding: Any = self.one_of("same", "same_lower", "valid", "pads", "pads", "pads")
        pads = tuple(tuple(int(p) for p in self.rng.integers(0, 3, 2)) for _ in range(2))
        if padding == "pads":
            padding = pads
        for axis in (0, 1):
            extent = (kernel[axis] - 1) * dilation[axis] + 1
            room = image[axis] + (sum(padding[axis]) if not isinstance(padding, str) else 0)
            if extent > room and not (isinstance(padding, str) and padding.startswith("same")):
                lack = extent - image[axis]
                padding = ((lack, 1), (1, lack)) if axis == 0 else (pads[0], (lack, lack))
                if axis == 1 and (kernel[0] - 1) * dilation[0] + 1 > image[0] + sum(pads[0]):
                    padding = (((kernel[0] - 1) * dilation[0], 0), (lack, lack))
        return {
            "stride": self.one_of((1, 1), (1, 1), (2, 2), (2, 1), (3, 2)),
            "padding": padding,
            "dilation": dilation,
        }


def draw_matmul(draw: Draw) -> tuple[np.ndarray, np.ndarray, ArrayConfig]:
    """Return x, w and an array."""
    config = draw.config()
    if draw.number % 50 == 1:  # int32 wraps: 40000 products of 255 * 255
        return np.full((2, 40_000), 255, np.uint8), np.full((40_000, 3), 255, np.uint8), ArrayConfig(64, 4)
    m, k, n = draw.size(70), draw.size(70), draw.size(50)
    if draw.rng.random() < 0.04:
        m, k, n = draw.one_of((0, k, n), (m, 0, n), (m, k, 0))
    return draw.codes((m, k), draw.dtype()), draw.codes((k, n), draw.dtype()), config


def draw_conv2d(draw: Draw) -> tuple[np.ndarray, np.ndarray, dict[str, Any], ArrayConfig]:
    """Return x, w, the options of conv2d and an array."""
    groups, icg, ocg = draw.one_of(1, 1, 2, 3, 5), draw.one_of(1, 1, 2, 3, 7), draw.one_of(1, 1, 2, 4, 9)
    kernel = (draw.one_of(1, 2, 3, 3, 5), draw.one_of(1, 2, 3, 3, 4))
    image = (draw.size(12), draw.size(12))
    layout = draw.one_of("NCHW", "NHWC")
    batch = 0 if draw.rng.random() < 0.03 else draw.one_of(1, 1, 2, 3)
    shape = (batch, groups * icg, *image) if layout == "NCHW" else (batch, *image, groups * icg)
    x = draw.codes(shape, draw.dtype())
    w = draw.codes((groups * ocg, icg, *kernel), draw.dtype())
    limits = np.iinfo(x.dtype)
    zero = draw.one_of(0, limits.min, limits.max, int(draw.rng.integers(limits.min, limits.max + 1)))
    options = {"groups": groups, "layout": layout, "x_zero_point": zero, **draw.geometry(kernel, image)}
    config = draw.config()
    options["mapping"] = draw.one_of("im2col", "taps", "best", "pack" if groups > 1 else "best")
    return x, w, options, config


def draw_layer(draw: Draw) -> tuple[Layer, list[np.ndarray], ArrayConfig]:
    """Return a layer of the kind that the case's number says, inputs for it and an array."""
    kinds = sorted([*_DRAW_LAYER, *_OFTEN])
    kind = kinds[draw.number // 4 % len(kinds)]
    return (*_DRAW_LAYER[kind](draw), draw.config())


def _parameters(
    draw: Draw, dtype: str, shape: tuple[int, ...], axis: int, k: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return weights of a product over K = k, and x, w, y and bias: mostly such that many results
    end half way between two codes, where roundings differ."""
    channels = shape[axis]
    if draw.rng.random() < 0.3:
        x, w = draw.params(dtype), draw.params(channels=channels, axis=axis)
        y = draw.output_params(float(x.scales) * float(w.scales.max()) * 5000 * k**0.5)
        wide = draw.rng.integers(-(2**31), 2**31, channels, dtype=np.int32)
        bias = draw.one_of(None, wide, draw.rng.integers(-5000, 5000, channels))
        return draw.codes(shape, w.dtype), {"x": x, "w": w, "y": y, "bias": bias}
    zeros = draw.params(channels=channels, axis=axis)
    w = QuantParams(0.25, zeros.zero_point, zeros.dtype, axis=zeros.axis)
    x = QuantParams(0.5, draw.params(dtype).zero_point, dtype)
    spread = [1] * len(shape)
    spread[axis] = -1
    near = w.zero_points.astype(np.int64).reshape(spread) + draw.rng.integers(-1, 2, shape)
    weight = np.clip(near, w.qmin, w.qmax).astype(w.dtype)
    # A sum of k products of codes up to 255 and -1, 0, 1, shifted to fit 8 bits.
    shift = max(1, round(np.log2(max(k, 1) ** 0.5)))
    # An odd zero point shows whether it is added before or after rounding to even.
    zero_point = int(draw.one_of(-7, 1, 99)) % 128
    y = QuantParams(0.125 * 2.0**shift, zero_point, draw.dtype())
    bias = draw.one_of(None, draw.rng.integers(-20, 20, channels))
    return weight, {"x": x, "w": w, "y": y, "bias": bias}


def _dense(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    m, k, n = draw.size(20), draw.size(40), draw.size(30)
    weight, options = _parameters(draw, draw.dtype(), (k, n), 1, k)
    if draw.rng.random() < 0.2:
        options["y"] = None
    return layers.Dense(weight, **options), [draw.codes(draw.one_of((m, k), (2, m, k)), options["x"].dtype)]


def _conv(draw: Draw, depthwise: bool = False) -> tuple[Layer, list[np.ndarray]]:
    images, weight, options, _ = draw_conv2d(draw)
    shape = weight.shape
    last = options.pop("layout") == "NHWC"
    if depthwise:
        channels = images.shape[3 if last else 1]
        shape = (channels * draw.one_of(1, 1, 2, 3), 1, *shape[2:])
        options["groups"] = channels
    del options["x_zero_point"], options["mapping"]
    weight, parameters = _parameters(draw, images.dtype.name, shape, 0, int(np.prod(shape[1:])))
    return layers.QLinearConv(weight, channels_last=last, **parameters, **options), [images]


def _other_format(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    """Draw a product of floats in a narrower format, or of codes of 4 and 16 bits."""
    images, weight, options, _ = draw_conv2d(draw)
    if options["layout"] == "NHWC":
        images = np.moveaxis(images, -1, 1)
    for name in ("x_zero_point", "mapping", "layout"):
        del options[name]
    conv = draw.rng.random() < 0.5
    k, n = draw.size(30), draw.size(9)
    x, w = (images.shape, weight.shape) if conv else ((draw.size(9), k), (k, n))
    channels = weight.shape[0] if conv else n
    bias = [draw.numbers((channels,), "float32")] if draw.rng.random() < 0.5 else []
    layer: Any
    if draw.rng.random() < 0.5:
        compute = draw.one_of(*COMPUTE) if _HAS_ML_DTYPES else "float16"
        layer = layers.ArrayConv(compute=compute, **options) if conv else layers.ArrayMatMul(compute)
        factor = np.float32(10.0 ** draw.rng.integers(-4, 5))
        return layer, [draw.numbers(x, "float32") * factor, draw.numbers(w, "float32"), *bias]
    bits, held = draw.one_of(4, 8) if _HAS_ML_DTYPES else 8, draw.dtype()
    layer = layers.DequantizedConv(w_bits=bits, **options) if conv else layers.DequantizedMatMul(w_bits=bits)
    low, high = OPERANDS[held if bits == 8 else held.replace("8", "4")].limits
    dtype = draw.one_of("int16", "uint16", *(("int8", "uint8") if bits == 4 else ()))
    each = draw.one_of((), (channels,))
    return layer, [
        draw.operand(x, dtype), np.array(0.5, np.float32), draw.operand((), dtype),
        draw.rng.integers(low, high, w, dtype=held, endpoint=True),
        np.full(each, 0.25, np.float32), draw.codes(each, held), *bias,
    ]  # fmt: skip


def _add(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    dtype = draw.dtype()
    a, b = draw.params(dtype), draw.params(dtype)
    shape = (draw.size(6), draw.size(6), draw.size(300))
    other = draw.one_of(
        shape, shape, (1, shape[1], shape[2]), (shape[0], 1, 1), (shape[0], shape[1], 1), (1, 1, 1)
    )
    pair = [draw.codes(shape, dtype), draw.codes(other, dtype)]
    if draw.rng.random() < 0.2:
        plain = draw.one_of("float32", "int32", "int8")
        return layers.Binary("Add"), [values.astype(plain) for values in pair]
    y = draw.output_params(300 * float(max(a.scales, b.scales)), dtype)
    if draw.rng.random() < 0.5:
        pair.reverse()
    return layers.QLinearAdd(a, b, y), pair


def _images(draw: Draw, dtype: str, layout: str) -> np.ndarray:
    batch, channels, height, width = draw.one_of(0, 1, 1, 2), draw.size(6), draw.size(12), draw.size(12)
    return draw.codes(
        (batch, channels, height, width) if layout == "NCHW" else (batch, height, width, channels), dtype
    )


def _pool(draw: Draw, average: bool = False) -> tuple[Layer, list[np.ndarray]]:
    layout, x = draw.one_of("NCHW", "NHWC"), draw.params()
    images = _images(draw, x.dtype, layout)
    size = images.shape[2:] if layout == "NCHW" else images.shape[1:3]
    kernel = (min(draw.one_of(1, 2, 3, 4), size[0]), min(draw.one_of(1, 2, 3, 4), size[1]))
    # Padding below the kernel, as runtimes ask, so that no window is all padding.
    padding: Any = tuple((int(draw.rng.integers(0, k)), int(draw.rng.integers(0, k))) for k in kernel)
    stride = draw.one_of(kernel, (1, 1), (2, 2), (2, 1))
    if not average:
        ceil = bool(draw.rng.random() < 0.3)
        if x.dtype == "int8" and draw.rng.random() < 0.7:  # all below what careless padding would hold
            images = images | np.int8(-128)
        maxima = layers.MaxPool(
            kernel, stride=stride, padding=padding, channels_last=layout == "NHWC", ceil_mode=ceil
        )
        return maxima, [images]
    y = draw.output_params(300 * float(x.scales), x.dtype)
    include = bool(draw.rng.random() < 0.3)
    layer = layers.QLinearAveragePool(
        kernel, x, y, stride=stride, padding=padding, count_include_pad=include,
        channels_last=layout == "NHWC",
    )  # fmt: skip
    return layer, [images]


def _global_pool(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    layout, x = draw.one_of("NCHW", "NHWC"), draw.params()
    y = draw.output_params(300 * float(x.scales), x.dtype)
    if draw.rng.random() < 0.5:  # sums end on ties where an image has an even number of pixels
        y = QuantParams(x.scale, y.zero_point, x.dtype)
    layer = layers.QLinearGlobalAveragePool(x, y, channels_last=layout == "NHWC")
    return layer, [_images(draw, x.dtype, layout)]


def _reals(draw: Draw, params: QuantParams) -> np.ndarray:
    # Around the codes and half way between them, and what is not a number at all.
    shape = (draw.size(9), params.scales.size if params.per_channel else draw.size(20))
    steps = draw.rng.integers(-700, 700, shape) / 2
    values = (steps * np.broadcast_to(params.scales, shape)).astype(np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 1e9, -1e9, -0.0], dtype=np.float32)
    return np.where(draw.rng.random(shape) < 0.05, draw.rng.choice(special, shape), values)


def _quantize(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    params = draw.params(channels=draw.size(9), axis=1)
    return layers.QuantizeLinear(params), [_reals(draw, params)]


def _dequantize(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    channels = draw.size(9)
    params = draw.params(channels=channels, axis=1)
    return layers.DequantizeLinear(params), [draw.codes((draw.size(9), channels), params.dtype)]


def _relu(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    dtype = draw.dtype()
    limits = np.iinfo(dtype)
    zero = int(draw.one_of(0, draw.rng.integers(limits.min, limits.max + 1)))
    return layers.Relu(zero), [draw.codes((draw.size(9), draw.size(9)), dtype)]


def _flatten(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    return layers.Flatten(draw.one_of(0, 1, 2, 3, -1)), [
        draw.codes((draw.size(4), 3, draw.size(4)), draw.dtype())
    ]


def _reshape(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    batch = draw.size(9)
    shape = draw.one_of((0, -1), (-1, 6), (batch, 2, 3), (0, 3, 2))
    return layers.Reshape(shape), [draw.codes((batch, 6), draw.dtype())]


def _lstm(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    time, batch, size, hidden = (draw.size(most) for most in (4, 3, 20, 9))
    layer = layers.DynamicQuantizeLSTM(max(1, hidden), direction=draw.one_of(*DIRECTIONS), given=("b",))
    count, dtype, columns = 1 + (layer.direction == "bidirectional"), draw.dtype(), 4 * layer.hidden_size
    scale, zero = np.full(count, 0.01, np.float32), draw.codes((count,), dtype)
    return layer, [
        draw.rng.normal(size=(time, batch, size)).astype(np.float32),
        draw.codes((count, size, columns), dtype), draw.codes((count, layer.hidden_size, columns), dtype),
        draw.rng.normal(size=(count, 2 * columns)).astype(np.float32), scale, zero, scale, zero,
    ]  # fmt: skip


def _host_operator(draw: Draw) -> tuple[Layer, list[np.ndarray]]:
    """Return an operator of the table with random fields and inputs, drawn again until it takes them."""
    while True:
        record = draw.one_of(*_HOST)
        try:
            layer = _with_fields(draw, record)
            inputs = _inputs(draw, layer, record)
            layer.output_dtype(*(x.dtype.name for x in inputs))
            layer.apply(*inputs)
        except (TypeError, ValueError):
            continue
        return layer, inputs


def _with_fields(draw: Draw, record: OperatorRecord) -> Any:
    given: dict[str, Any] = {}
    dtype = draw.dtype()
    assert record.layer is not None
    for f in dataclasses.fields(record.layer):  # type: ignore[arg-type]
        if f.name == "operation":
            given[f.name] = record.name
        elif f.name in record.params:
            given[f.name] = draw.params(dtype)
        elif isinstance(f.default, bool):
            given[f.name] = draw.one_of(True, False)
        elif f.name == "axis":
            given[f.name] = int(draw.rng.integers(-2, 3))
        elif f.name in ("axes", "perm"):
            given[f.name] = draw.one_of(None, tuple(draw.rng.permutation(3)[: draw.size(3)].tolist()))
    return record.layer(**given)


def _inputs(draw: Draw, layer: Any, record: OperatorRecord) -> list[np.ndarray]:
    needed = sum(not name.endswith("?") for name in record.inputs)
    count = draw.size(3) if record.inputs[0].endswith("...") else needed
    dtype = draw.one_of("float32", "float32", *ANY)
    if record.params:
        count, dtype = len(record.params) - 1, getattr(layer, record.params[0]).dtype
    shape = tuple(draw.size(5) for _ in range(draw.size(4)))
    found = []
    for _ in range(count):
        # Often the same shape; else some sizes of 1, or fewer axes: such that shapes broadcast.
        narrow = tuple(draw.one_of(1, size) for size in shape)[int(draw.rng.integers(0, len(shape) + 1)) :]
        of = draw.one_of(*6 * [dtype], "bool", "int64")
        found.append(draw.numbers(draw.one_of(shape, shape, narrow), of))
    return found


# Those of any shape and of one type, or nearly so: others have a drawing of their own, or tests alone. In the
# order of their names, so that what a case's number draws does not depend on files.
_HOST = [record for _, record in sorted(OPERATORS.items()) if record.layer and record.runs_on == "host"]

_DRAW_LAYER: dict[str, Callable[[Draw], tuple[Layer, list[np.ndarray]]]] = {
    "QLinearMatMul": _dense,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLSTM": _lstm,
    "Flatten": _flatten,
    "host operators": _host_operator,
    "MaxPool": _pool,
    "QLinearAdd": _add,
    "QLinearAveragePool": lambda draw: _pool(draw, average=True),
    "QLinearConv": _conv,
    "QLinearConv, depthwise": lambda draw: _conv(draw, depthwise=True),
    "QLinearGlobalAveragePool": _global_pool,
    "QuantizeLinear": _quantize,
    "Relu": _relu,
    "Reshape": _reshape,
    "products of other formats": _other_format,
}

# Drawn more often: there is more that can go wrong.
_OFTEN = (
    *3 * ("host operators",),
    *2 * ("MaxPool", "QLinearConv", "QLinearConv, depthwise", "QLinearMatMul"),
)
